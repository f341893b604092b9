//! Texts that go into templates: checked where they are read, so that no later stage meets a bad one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A text that is not what its key wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not {wanted}", .text.chars().take(80).collect::<String>().escape_debug())]
pub struct NotA {
    pub text: String,
    pub wanted: &'static str,
}

macro_rules! word {
    ($(#[$doc:meta])* $kind:ident, $wanted:literal, $shape:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $kind(String);

        impl $kind {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $kind {
            type Error = NotA;

            fn try_from(text: String) -> Result<Self, NotA> {
                let shape: fn(&str) -> bool = $shape;
                match shape(&text) {
                    true => Ok(Self(text)),
                    false => Err(NotA { text, wanted: $wanted }),
                }
            }
        }

        impl std::str::FromStr for $kind {
            type Err = NotA;

            fn from_str(text: &str) -> Result<Self, NotA> {
                text.to_owned().try_into()
            }
        }

        impl From<$kind> for String {
            fn from(word: $kind) -> Self {
                word.0
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

word!(
    /// The first part of every name on AWS. Short, because bucket names have 63 characters for all their parts.
    Prefix,
    "1 to 10 lower-case letters and digits, starting with a letter",
    |text| label(text, 10) && !text.contains('-')
);
word!(
    /// The name of a foundation: the kind of environments that share it.
    Label,
    "1 to 14 lower-case letters, digits and single hyphens, starting with a letter",
    |text| label(text, 14)
);
word!(
    /// A region such as `eu-central-1`.
    Region,
    "a region such as `eu-central-1`",
    |text| {
        let parts: Vec<&str> = text.split('-').collect();
        let letters = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
        (3..=4).contains(&parts.len())
            && text.len() <= 14
            && parts[..parts.len() - 1].iter().all(letters)
            && parts[parts.len() - 1].len() == 1
            && parts[parts.len() - 1].bytes().all(|b| b.is_ascii_digit())
    }
);
word!(
    /// An account's number.
    Account,
    "an account's twelve digits",
    |text| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
);
word!(
    /// A DNS name of at least two labels, lower case, without a dot at the end.
    Domain,
    "a DNS name such as `apps.example.com`",
    |text| {
        text.len() <= 200
            && text.contains('.')
            && text.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            })
    }
);
word!(
    /// The id of a Route 53 zone.
    Zone,
    "the id of a hosted zone such as `Z0123456789ABC`",
    |text| {
        (2..=32).contains(&text.len())
            && text.starts_with('Z')
            && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
    }
);
word!(
    /// A mail address, as far as a template needs to know.
    Mail,
    "a mail address",
    |text| {
        let plain = |c: char| c.is_ascii_graphic() && !"\"<>(),:;[]\\`".contains(c);
        text.len() <= 200
            && text.chars().all(plain)
            && text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.') && !host.contains('@'))
    }
);
word!(
    /// An id of a chat's workspace or channel.
    ChatId,
    "an id of Slack such as `T0123ABCD`",
    |text| (2..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
);
word!(
    /// The ARN of something that was made elsewhere.
    Arn,
    "an ARN, `arn:aws:SERVICE:REGION:ACCOUNT:…`",
    |text| {
        text.len() <= 600
            && text.starts_with("arn:")
            && text.split(':').count() >= 6
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b":/_-.*+=@".contains(&b))
    }
);

word!(
    /// The address of a repository.
    Url,
    "an address such as `https://github.com/acme/shop.git`",
    |text| {
        text.len() <= 300
            && text.strip_prefix("https://").is_some_and(|rest| rest.contains('/') && !rest.starts_with('/'))
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b":/_-.~".contains(&b))
    }
);

fn label(text: &str, most: usize) -> bool {
    text.len() <= most
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && !text.contains("--")
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_nothing_that_could_leave_their_place_in_a_template() {
        for good in ["eu-central-1", "us-gov-west-1"] {
            assert!(good.parse::<Region>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "eu",
            "eu-central",
            "eu-central-x",
            "EU-central-1",
            "${AWS::Region}",
        ] {
            assert!(bad.parse::<Region>().is_err(), "{bad}");
        }
        assert!("ops@example.com".parse::<Mail>().is_ok());
        for bad in ["ops", "@example.com", "a@b@c.d", "a b@c.d", "<a@b.c>"] {
            assert!(bad.parse::<Mail>().is_err(), "{bad}");
        }
        for bad in ["example", "-a.b", "a..b", "A.b", "a.${x}"] {
            assert!(bad.parse::<Domain>().is_err(), "{bad}");
        }
    }
}
