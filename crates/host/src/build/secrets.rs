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
    Mask::new(values.collect::<Vec<&str>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_passwords_of_proxies_are_as_secret_as_secrets() {
        let secrets = BTreeMap::from([("KEY".to_owned(), Secret::new("correct-horse".to_owned()))]);
        let proxy = "http://ann:hunter2secret@proxy.example:3128";
        let proxies = BTreeMap::from([("http_proxy".to_owned(), proxy.to_owned())]);
        let said = mask(&secrets, &proxies).conceal(&format!("http_proxy={proxy} correct-horse"));
        assert_eq!(said, "http_proxy=http://ann:***@proxy.example:3128 ***");
    }
}
