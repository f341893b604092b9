//! Size classes: what `host.size` means on AWS.

use serde::{Deserialize, Serialize};

use super::Error;

/// One size class. All its types have the same architecture, because one image must run on each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// The instance type, and after it those that may stand in for it when it is not to be had.
    pub types: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    Arm64,
    X86_64,
}

impl Architecture {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86_64 => "x86_64",
        }
    }

    /// Debian's and Docker's word.
    pub(super) fn debian(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86_64 => "amd64",
        }
    }
}

/// Graviton, because it does the same for less.
pub(crate) const BUILT_IN: [(&str, &[&str]); 6] = [
    ("nano", &["t4g.micro", "t4g.small"]),
    ("small", &["t4g.small", "t4g.medium"]),
    ("medium", &["t4g.medium", "c7g.medium", "c6g.medium"]),
    ("large", &["m7g.large", "m6g.large", "t4g.large"]),
    ("xlarge", &["m7g.xlarge", "m6g.xlarge", "t4g.xlarge"]),
    ("2xlarge", &["m7g.2xlarge", "m6g.2xlarge", "t4g.2xlarge"]),
];

/// The types of a size class, or of an instance type by its own name, and their architecture.
pub(super) fn types(
    name: &str,
    own: &std::collections::BTreeMap<String, Size>,
) -> Result<(Vec<String>, Architecture), Error> {
    let at = || format!("host.size `{name}`");
    let built_in = || BUILT_IN.iter().find(|(class, _)| *class == name);
    let types: Vec<String> = match (own.get(name), built_in()) {
        (Some(size), _) => size.types.clone(),
        (None, Some((_, types))) => types.iter().map(|name| (*name).to_owned()).collect(),
        (None, None) if name.contains('.') => vec![name.to_owned()],
        (None, None) => {
            let names: Vec<&str> = BUILT_IN.iter().map(|(class, _)| *class).collect();
            let why = format!(
                "there is no such size class: there are {}, and instance types",
                names.join(", ")
            );
            return Err(Error::config(at(), why));
        }
    };
    let mut kinds = Vec::new();
    for one in &types {
        kinds.push(
            architecture(one)
                .ok_or_else(|| Error::config(at(), format!("`{one}` is not an instance type")))?,
        );
    }
    match kinds.as_slice() {
        [] => Err(Error::config(at(), "it names no instance type".to_owned())),
        [first, rest @ ..] if rest.iter().all(|other| other == first) => Ok((types, *first)),
        _ => Err(Error::config(
            at(),
            "its instance types have different architectures: one image cannot run on all".to_owned(),
        )),
    }
}

/// The architecture of an instance type: Graviton's families have a `g` after their generation, or are `a1`.
fn architecture(name: &str) -> Option<Architecture> {
    let (family, size) = name.split_once('.')?;
    let letters = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let generation = family.find(|c: char| c.is_ascii_digit())?;
    let shape = generation > 0 && !size.is_empty() && name.len() <= 30 && letters(family) && letters(size);
    let attributes = family[generation..].trim_start_matches(|c: char| c.is_ascii_digit());
    shape.then_some(match attributes.contains('g') || family == "a1" {
        true => Architecture::Arm64,
        false => Architecture::X86_64,
    })
}

/// Processor units, and MiB of memory, that containers find on a host of this type. The sizes of these families say how much
/// they have; of others nothing is known here.
/// Source: "Amazon EC2 instance types", specifications for general purpose, compute and memory optimized instances.
pub(super) fn room(name: &str) -> Option<(u32, u32)> {
    let (family, size) = name.split_once('.')?;
    let letters = family.split(|c: char| c.is_ascii_digit()).next()?;
    if letters == "t" {
        let order = ["nano", "micro", "small", "medium", "large", "xlarge", "2xlarge"];
        let at = order.iter().position(|own| *own == size)?;
        let processors = match size {
            "2xlarge" => 8,
            "xlarge" => 4,
            "nano" | "micro" | "small" if family == "t2" => 1,
            _ => 2,
        };
        return Some((processors * 1_024, left(512 << at)));
    }
    let gib = match letters {
        "c" => 2,
        "m" => 4,
        "r" => 8,
        _ => return None,
    };
    let processors = match size {
        "medium" => 1,
        "large" => 2,
        "xlarge" => 4,
        _ => {
            size.strip_suffix("xlarge")?
                .parse::<u32>()
                .ok()
                .filter(|n| *n <= 100)?
                * 4
        }
    };
    Some((processors * 1_024, left(processors * gib * 1_024)))
}

/// What is left for containers of a host's memory in MiB: an eighth is for its system and ECS's agent.
pub(super) fn left(memory: u32) -> u32 {
    memory / 8 * 7
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_family_says_the_architecture() {
        for (name, expected) in [
            ("t4g.small", Some(Architecture::Arm64)),
            ("m7gd.large", Some(Architecture::Arm64)),
            ("im4gn.large", Some(Architecture::Arm64)),
            ("g5g.xlarge", Some(Architecture::Arm64)),
            ("a1.medium", Some(Architecture::Arm64)),
            ("g5.xlarge", Some(Architecture::X86_64)),
            ("t3a.small", Some(Architecture::X86_64)),
            ("m7i-flex.large", Some(Architecture::X86_64)),
            ("small", None),
            ("x.y", None),
            ("t4g.${x}", None),
        ] {
            assert_eq!(architecture(name), expected, "{name}");
        }
    }

    #[test]
    fn a_host_has_room_for_less_than_it_has() {
        for (name, expected) in [
            ("t4g.micro", Some((2_048, 896))),
            ("t4g.medium", Some((2_048, 3_584))),
            ("t2.small", Some((1_024, 1_792))),
            ("c7g.medium", Some((1_024, 1_792))),
            ("m7g.large", Some((2_048, 7_168))),
            ("m7i-flex.xlarge", Some((4_096, 14_336))),
            ("r6gd.2xlarge", Some((8_192, 57_344))),
            ("m7g.metal", None),
            ("x2gd.large", None),
            ("c7g.9999999999xlarge", None),
        ] {
            assert_eq!(room(name), expected, "{name}");
        }
    }

    #[test]
    fn a_class_has_one_architecture() {
        let mixed = Size {
            types: vec!["t4g.small".to_owned(), "t3.small".to_owned()],
        };
        let own = BTreeMap::from([("odd".to_owned(), mixed)]);
        assert!(types("odd", &own).is_err());
        assert!(types("huge", &own).is_err());
        assert_eq!(types("c7i.large", &own).unwrap().1, Architecture::X86_64);
        for (class, _) in BUILT_IN {
            assert_eq!(types(class, &own).unwrap().1, Architecture::Arm64, "{class}");
        }
    }
}
