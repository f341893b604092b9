//! Which texts of a build are secret. Runner and node have to agree on it.

use std::collections::BTreeMap;

use model::{Secret, port::GIT_CREDENTIALS};

use crate::logs::Mask;

/// Takes the values of a build's secrets, which are by variable, out of what it says.
pub(super) fn mask(secrets: &BTreeMap<String, Secret>) -> Mask {
    // The password alone is as secret as the whole.
    let git = secrets.get(GIT_CREDENTIALS);
    let password = git.and_then(|secret| Some(secret.expose().split_once(':')?.1));
    let values = secrets.values().map(Secret::expose).chain(password);
    Mask::new(values.collect::<Vec<&str>>())
}
