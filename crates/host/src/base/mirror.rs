//! Where packages come from: where the machine's own come from, unless the operator says otherwise.

use std::fs;

/// Archives, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    pub debian: String,
    pub security: String,
    pub ubuntu: String,
    pub ubuntu_security: String,
}

impl Default for Mirror {
    fn default() -> Self {
        Self {
            debian: "http://deb.debian.org/debian".to_owned(),
            security: "http://deb.debian.org/debian-security".to_owned(),
            ubuntu: "http://archive.ubuntu.com/ubuntu".to_owned(),
            ubuntu_security: "http://security.ubuntu.com/ubuntu".to_owned(),
        }
    }
}

impl Mirror {
    /// The archives of a machine that runs Debian or Ubuntu itself, the distribution's own elsewhere.
    pub fn of_this_machine() -> Self {
        let files = ["/etc/apt/sources.list".into()].into_iter().chain(
            fs::read_dir("/etc/apt/sources.list.d")
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path()),
        );
        let texts: Vec<String> = files
            .filter_map(|path: std::path::PathBuf| fs::read_to_string(path).ok())
            .collect();
        Self::of_sources(&texts.join("\n\n"))
    }

    fn of_sources(text: &str) -> Self {
        let mut mirror = Self::default();
        for (address, suites) in sources(text) {
            let address = address.trim_end_matches('/').to_owned();
            let has = |names: [&str; 2]| names.iter().any(|name| suites.contains(name));
            if has(["bookworm", "trixie"]) {
                mirror.debian = address;
            } else if has(["bookworm-security", "trixie-security"]) {
                mirror.security = address;
            } else if suites.contains(&"noble") {
                mirror.ubuntu = address;
            } else if suites.contains(&"noble-security") {
                mirror.ubuntu_security = address;
            }
        }
        mirror
    }
}

/// The address and suites of every enabled source, in both formats (`sources.list(5)`). Only plain http(s) counts.
fn sources(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("deb ") {
            let mut words = rest
                .split_whitespace()
                .skip_while(|word| word.starts_with('[') || word.ends_with(']'));
            if let (Some(address), Some(suite)) = (words.next(), words.next()) {
                found.push((address, vec![suite]));
            }
        }
    }
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            stanza
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let enabled =
            field("Enabled:") != Some("no") && field("Types:").is_some_and(|types| types.contains("deb"));
        if let (true, Some(addresses), Some(suites)) = (enabled, field("URIs:"), field("Suites:"))
            && let Some(address) = addresses.split_whitespace().next()
        {
            found.push((address, suites.split_whitespace().collect()));
        }
    }
    found.retain(|(address, _)| address.starts_with("http://") || address.starts_with("https://"));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_s_sources_are_read() {
        let check = |text: &str, debian: &str, security: &str| {
            let mirror = Mirror::of_sources(text);
            assert_eq!(
                (mirror.debian.as_str(), mirror.security.as_str()),
                (debian, security)
            );
        };
        let ours = Mirror::default();
        check("", &ours.debian, &ours.security);
        check(
            "deb http://archive.ubuntu.com/ubuntu jammy main",
            &ours.debian,
            &ours.security,
        );
        check("deb cdrom:[x] bookworm main", &ours.debian, &ours.security);
        check(
            "# x\ndeb [signed-by=/k] http://m.example/debian/ bookworm main contrib\ndeb http://m.example/sec bookworm-security main",
            "http://m.example/debian",
            "http://m.example/sec",
        );
        check(
            "Types: deb\nURIs: https://m.example/debian\nSuites: bookworm bookworm-updates\n\nTypes: deb\nEnabled: no\nURIs: http://x/y\nSuites: bookworm",
            "https://m.example/debian",
            &ours.security,
        );
    }
}
