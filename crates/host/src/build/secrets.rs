//! Which texts of a build are secret. Runner and node have to agree on it.

use std::collections::BTreeMap;

use model::{Secret, port::GIT_CREDENTIALS};

use crate::{base::passwords, logs::Mask};

/// Takes the values of a build's secrets, which are by variable, out of what it says, and the passwords of the proxies that are
/// among these variables.
pub(super) fn mask(secrets: &BTreeMap<String, Secret>, proxies: &BTreeMap<String, String>) -> Mask {
    // The password alone is as secret as the whole.
    let git = secrets.get(GIT_CREDENTIALS);
    let password = git.and_then(|secret| Some(secret.expose().split_once(':')?.1));
    let values = secrets.values().map(Secret::expose).chain(password);
    let passwords = passwords(proxies);
    let values = values.chain(passwords.iter().map(String::as_str));
    let values = values.filter(|value| tells(value));
    Mask::new(values.collect::<Vec<&str>>())
}

/// The secrets whose values are not taken out, by variable.
pub(super) fn shown(secrets: &BTreeMap<String, Secret>) -> Vec<&str> {
    let shown = secrets.iter().filter(|(_, secret)| !tells(secret.expose()));
    shown.map(|(name, _)| name.as_str()).collect()
}

/// Would it be told from what everything says? A flag or a digit out of a secret's JSON would not, and its mask would hide
/// the log.
fn tells(value: &str) -> bool {
    const SHORTEST: usize = 3;
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let is_flag = matches!(value, "true" | "false");
    !(is_flag || is_number && value.len() < SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_digits_hide_nothing() {
        let values = ["true", "1", "42", "417", "5432", "abc"];
        let secrets = values.map(|value| (value.to_owned(), Secret::new(value.to_owned())));
        let secrets = BTreeMap::from(secrets);
        let said = mask(&secrets, &BTreeMap::new());
        assert_eq!(
            said.conceal("true 1 of 42, 417 5432 abc"),
            "true 1 of 42, *** *** ***"
        );
        assert_eq!(shown(&secrets), ["1", "42", "true"]);
    }

    #[test]
    fn the_passwords_of_proxies_are_as_secret_as_secrets() {
        let secrets = BTreeMap::from([("KEY".to_owned(), Secret::new("correct-horse".to_owned()))]);
        let proxy = "http://ann:hunter2secret@proxy.example:3128";
        let proxies = BTreeMap::from([("http_proxy".to_owned(), proxy.to_owned())]);
        let said = mask(&secrets, &proxies).conceal(&format!("http_proxy={proxy} correct-horse"));
        assert_eq!(said, "http_proxy=http://ann:***@proxy.example:3128 ***");
    }
}
