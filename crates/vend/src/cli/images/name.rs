//! How an image is named: its digest, or as much of its beginning as no other image has.

use std::{fmt, str::FromStr};

use model::{Digest, wire::Image};

use crate::cli::{Client, Exit, Failure};

/// Fewer digits would soon mean several images.
const FEWEST: usize = 8;
/// Images that are looked through.
const LISTED: usize = 10_000;
/// Images that an error names.
const NAMED: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    Whole(Digest),
    /// Hex digits in lower case.
    Beginning(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an image is `sha256:` and at least {FEWEST} of its hex digits, as `vend images list` shows it")]
pub struct NotAName;

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
        if digits.len() == 64 {
            let whole = format!("sha256:{digits}").parse();
            return whole.map(Self::Whole).map_err(|_| NotAName);
        }
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        match is_hex && (FEWEST..64).contains(&digits.len()) {
            true => Ok(Self::Beginning(digits)),
            false => Err(NotAName),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(digest) => digest.fmt(f),
            Self::Beginning(digits) => write!(f, "sha256:{digits}"),
        }
    }
}

impl Name {
    /// The image that is meant. A whole digest is not looked up: images that were imported are in no list.
    pub async fn resolve(&self, client: &Client) -> Result<Digest, Failure> {
        let digits = match self {
            Self::Whole(digest) => return Ok(*digest),
            Self::Beginning(digits) => digits,
        };
        let page = client.list::<Image>("/v1/images", LISTED).await?;
        among(digits, page.items.iter().map(|image| image.digest))
    }
}

/// The one of the images whose digest begins like this.
fn among(digits: &str, images: impl Iterator<Item = Digest>) -> Result<Digest, Failure> {
    let mut found: Vec<Digest> = images.filter(|image| image.hex().starts_with(digits)).collect();
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(
            Failure::new(Exit::NotFound, format!("there is no image sha256:{digits}…"))
                .cause("no release that you may see stands on an image whose digest begins like this; an image that was imported is named by its whole digest")
                .next("vend images list"),
        ),
        several => {
            let named: Vec<String> = several.iter().take(NAMED).map(ToString::to_string).collect();
            let more = match several.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            Err(Failure::usage(format!("sha256:{digits} is the beginning of several images"))
                .cause(format!("{}{more}", named.join(", ")))
                .next("vend images list, then more of the digits"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_by_as_much_as_tells_it_from_others() {
        let image = Digest::of("abc");
        let hex = image.hex();
        for text in [hex.clone(), format!("sha256:{hex}"), hex.to_uppercase()] {
            assert_eq!(text.parse(), Ok(Name::Whole(image)), "{text}");
        }
        for text in [&hex[..8], &format!("sha256:{}", &hex[..12]), &hex[..63]] {
            assert!(matches!(text.parse(), Ok(Name::Beginning(_))), "{text}");
        }
        for bad in [
            "",
            "sha256:",
            &hex[..7],
            "sha256:ba7816b",
            "latest-image",
            &format!("{hex}0"),
        ] {
            assert_eq!(bad.parse::<Name>(), Err(NotAName), "{bad}");
        }
    }

    #[test]
    fn a_beginning_means_one_image_or_none() {
        let near = |last: u8| {
            let mut bytes = [7; 32];
            bytes[31] = last;
            Digest::from_bytes(bytes)
        };
        let all = [near(1), Digest::of("abc"), near(2), near(1)];
        let meant = |digits: &str| among(digits, all.into_iter());
        // Two places stand on the same image.
        assert_eq!(meant(&near(1).hex()).unwrap(), near(1));
        assert_eq!(meant("ba7816bf").unwrap(), Digest::of("abc"));
        let unknown = meant("00000000").unwrap_err();
        assert_eq!(unknown.exit, Exit::NotFound);
        assert_eq!(unknown.next.as_deref(), Some("vend images list"));
        let several = meant("07070707").unwrap_err();
        assert_eq!(several.exit, Exit::Usage);
        assert!(several.cause.unwrap().contains(&near(2).to_string()));
    }
}
