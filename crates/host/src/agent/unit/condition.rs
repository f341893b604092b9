//! `Condition…=` and `Assert…=` of unit files (`systemd.unit(5)`).

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rustix::thread::CapabilitySet;

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    kind: Kind,
    value: String,
    negated: bool,
    /// One of those with `|` must hold.
    any: bool,
    /// When it does not hold, the start has failed; else the unit is passed over.
    pub asserts: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    PathExists,
    PathExistsGlob,
    PathIsDirectory,
    PathIsSymbolicLink,
    DirectoryNotEmpty,
    FileNotEmpty,
    FileIsExecutable,
    Capability,
    Virtualization,
    User,
    /// A host has one boot, power, and a file system that is written to.
    Holds,
}

impl Condition {
    /// `None` for a kind that is not known.
    pub fn read(key: &str, value: &str) -> Option<Self> {
        let (asserts, kind) = match key.strip_prefix("Assert") {
            Some(kind) => (true, kind),
            None => (false, key.strip_prefix("Condition")?),
        };
        let kind = match kind {
            "PathExists" => Kind::PathExists,
            "PathExistsGlob" => Kind::PathExistsGlob,
            "PathIsDirectory" => Kind::PathIsDirectory,
            "PathIsSymbolicLink" => Kind::PathIsSymbolicLink,
            "DirectoryNotEmpty" => Kind::DirectoryNotEmpty,
            "FileNotEmpty" => Kind::FileNotEmpty,
            "FileIsExecutable" => Kind::FileIsExecutable,
            "Capability" => Kind::Capability,
            "Virtualization" => Kind::Virtualization,
            "User" => Kind::User,
            "ACPower" | "PathIsReadWrite" => Kind::Holds,
            _ => return None,
        };
        let (any, value) = split(value, '|');
        let (negated, value) = split(value, '!');
        Some(Self {
            kind,
            value: value.trim().to_owned(),
            negated,
            any,
            asserts,
        })
    }

    fn holds(&self) -> bool {
        let path = Path::new(&self.value);
        let holds = match self.kind {
            Kind::PathExists => path.exists(),
            Kind::PathExistsGlob => glob(path),
            Kind::PathIsDirectory => path.is_dir(),
            Kind::PathIsSymbolicLink => path.is_symlink(),
            Kind::DirectoryNotEmpty => fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()),
            Kind::FileNotEmpty => fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > 0),
            Kind::FileIsExecutable => {
                fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
            }
            Kind::Capability => capability(&self.value),
            Kind::Virtualization => matches!(
                self.value.as_str(),
                "yes" | "true" | "container" | "private-users"
            ),
            Kind::User => matches!(self.value.as_str(), "root" | "0" | "@system"),
            Kind::Holds => true,
        };
        holds != self.negated
    }
}

/// The first condition that does not hold, where that matters: conditions before assertions.
pub fn unmet(conditions: &[Condition]) -> Option<&Condition> {
    [false, true].into_iter().find_map(|asserts| {
        let own = || {
            conditions
                .iter()
                .filter(move |condition| condition.asserts == asserts)
        };
        let strict = own().find(|condition| !condition.any && !condition.holds());
        let any = own().filter(|condition| condition.any);
        strict.or_else(|| {
            let none = any.clone().next().is_some() && !any.clone().any(Condition::holds);
            any.clone().next().filter(|_| none)
        })
    })
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = if self.asserts { "Assert" } else { "Condition" };
        let not = if self.negated { "!" } else { "" };
        write!(f, "{word}{:?}={not}{}", self.kind, self.value)
    }
}

fn split(value: &str, prefix: char) -> (bool, &str) {
    match value.trim_start().strip_prefix(prefix) {
        Some(rest) => (true, rest),
        None => (false, value),
    }
}

/// Whether processes of the host can have a capability. One that the kernel has no name for is nobody's.
fn capability(name: &str) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapBnd:")?.trim(), 16).ok())
        .unwrap_or(0);
    let name = name.to_ascii_uppercase();
    let flag = CapabilitySet::from_name(name.strip_prefix("CAP_").unwrap_or(&name));
    flag.is_some_and(|flag| bounding & flag.bits() != 0)
}

/// A pattern in the last part of a path.
fn glob(path: &Path) -> bool {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return false;
    };
    let Ok(pattern) = globset::Glob::new(name).map(|glob| glob.compile_matcher()) else {
        return false;
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .into_iter()
        .any(|entry| pattern.is_match(entry.file_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn first_unmet(lines: &[(&str, &str)]) -> Option<String> {
        let conditions: Vec<Condition> = lines
            .iter()
            .map(|(key, value)| Condition::read(key, value).unwrap())
            .collect();
        unmet(&conditions).map(ToString::to_string)
    }

    #[test]
    fn conditions_are_about_the_host() {
        assert_eq!(
            first_unmet(&[
                ("ConditionPathExists", "/proc"),
                ("ConditionPathExists", "!/nothing")
            ]),
            None
        );
        let unmet = first_unmet(&[
            ("AssertPathExists", "/nothing"),
            ("ConditionPathIsDirectory", "!/proc"),
        ]);
        assert_eq!(unmet.as_deref(), Some("ConditionPathIsDirectory=!/proc"));
        let one = ("ConditionPathExists", "|/proc");
        let other = ("ConditionPathExists", "|/nothing");
        assert_eq!(first_unmet(&[other, one]), None);
        assert!(first_unmet(&[other]).is_some());
        assert_eq!(
            first_unmet(&[
                ("ConditionPathExistsGlob", "/pro*"),
                ("ConditionVirtualization", "container")
            ]),
            None
        );
        assert!(Condition::read("ConditionFirmware", "uefi").is_none());
    }

    #[test]
    fn capabilities_are_what_processes_can_have() {
        assert!(first_unmet(&[("ConditionCapability", "!CAP_NO_SUCH_THING")]).is_none());
        assert!(first_unmet(&[("ConditionCapability", "CAP_NO_SUCH_THING")]).is_some());
        for name in ["CAP_CHOWN", "cap_sys_admin"] {
            let not = format!("!{name}");
            let (with, without) = (
                ("ConditionCapability", name),
                ("ConditionCapability", not.as_str()),
            );
            assert_ne!(first_unmet(&[with]).is_none(), first_unmet(&[without]).is_none());
        }
    }
}
