//! Where packages come from: where the machine's own come from, unless the operator says otherwise.

use std::{fmt, fs};

use model::Secret;

use super::login;

/// Archives, without a slash at the end and without a login: the addresses are in logs and images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    pub debian: String,
    pub security: String,
    pub ubuntu: String,
    pub ubuntu_security: String,
    pub(crate) logins: Logins,
}

/// What lets apt into the archives, as `apt_auth.conf(5)` has it. It comes into no image.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Logins(Secret);

impl fmt::Debug for Logins {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Logins")
    }
}

impl Logins {
    /// `None`: the archives let everybody in.
    pub fn text(&self) -> Option<&str> {
        Some(self.0.expose()).filter(|text| !text.is_empty())
    }
}

impl Default for Mirror {
    fn default() -> Self {
        Self {
            debian: "http://deb.debian.org/debian".to_owned(),
            security: "http://deb.debian.org/debian-security".to_owned(),
            ubuntu: "http://archive.ubuntu.com/ubuntu".to_owned(),
            ubuntu_security: "http://security.ubuntu.com/ubuntu".to_owned(),
            logins: Logins(Secret::new(String::new())),
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

    pub(super) fn of_sources(text: &str) -> Self {
        let mut mirror = Self::default();
        let mut logins = String::new();
        for (address, suites) in sources(text) {
            let has = |names: [&str; 2]| names.iter().any(|name| suites.contains(name));
            let archive = if has(["bookworm", "trixie"]) {
                &mut mirror.debian
            } else if has(["bookworm-security", "trixie-security"]) {
                &mut mirror.security
            } else if suites.contains(&"noble") {
                &mut mirror.ubuntu
            } else if suites.contains(&"noble-security") {
                &mut mirror.ubuntu_security
            } else {
                continue;
            };
            let address = address.trim_end_matches('/');
            let split = login::split(address);
            let (login, address) = split.map_or((None, address.to_owned()), |(login, address)| {
                (Some(login), address)
            });
            logins.extend(login.and_then(|login| entry(&address, login)));
            *archive = address;
        }
        mirror.logins = Logins(Secret::new(logins));
        mirror
    }
}

/// A line of `apt_auth.conf(5)`. It has no way to say a word with white space in it.
fn entry(address: &str, login: &str) -> Option<String> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (user, password) = (login::decoded(user), login::decoded(password));
    let said = |word: &str| word.chars().all(|c| !c.is_whitespace() && !c.is_control());
    if user.is_empty() || !said(&user) || !said(&password) {
        return None;
    }
    let password = match password.is_empty() {
        true => String::new(),
        false => format!(" password {password}"),
    };
    Some(format!("machine {address}/ login {user}{password}\n"))
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

    #[test]
    fn a_login_is_for_apt_alone() {
        let text = "deb https://ann:hun%40ter2@m.example:8443/debian/ bookworm main\n\n\
                    Types: deb\nURIs: http://token@m.example/sec\nSuites: bookworm-security\n\n\
                    deb http://ann:hunter2@elsewhere.example/x jammy main\n\
                    deb http://ann:two%20words@m.example/ubuntu noble main\n";
        let mirror = Mirror::of_sources(text);
        let addresses = [&mirror.debian, &mirror.security, &mirror.ubuntu];
        let expected = [
            "https://m.example:8443/debian",
            "http://m.example/sec",
            "http://m.example/ubuntu",
        ];
        assert_eq!(addresses, expected);
        let mut logins: Vec<&str> = mirror.logins.text().unwrap().lines().collect();
        logins.sort_unstable();
        let expected = [
            "machine http://m.example/sec/ login token",
            "machine https://m.example:8443/debian/ login ann password hun@ter2",
        ];
        assert_eq!(logins, expected);
        assert!(!format!("{mirror:?}").contains("ter2"));
        assert_eq!(Mirror::default().logins.text(), None);
    }
}
