//! What a build asks for before it can begin: a machine that is as it says, and values of its secrets.

use std::collections::BTreeMap;

use model::{port::BuildOrder, spec::build::Shell};

use super::Error;

/// Whether a machine with these labels is what the build asks for.
pub(super) fn labels(order: &BuildOrder, have: &BTreeMap<String, String>) -> Result<(), Error> {
    let mut wanted = order.labels.clone();
    wanted.extend(order.task.iter().flat_map(|task| task.labels.clone()));
    if matches!(order.buildspec.env.shell, Shell::PowerShell | Shell::Cmd) {
        wanted.insert("os".to_owned(), "windows".to_owned());
    }
    let missing = wanted.iter().find(|(name, value)| have.get(*name) != Some(value));
    match missing {
        None => Ok(()),
        Some((name, value)) => Err(Error::NoBuilder {
            label: format!("{name}: {value}"),
            have: have
                .iter()
                .map(|(name, value)| format!("{name}: {value}"))
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

/// What the machine is, and what its operator says of it.
pub(super) fn own_labels(mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    labels.insert("arch".to_owned(), arch.to_owned());
    labels.insert("os".to_owned(), "linux".to_owned());
    labels
}

/// Whether every secret that the buildspec names has a value.
pub(super) fn secrets(order: &BuildOrder) -> Result<(), Error> {
    let env = &order.buildspec.env;
    let parameters = env
        .parameter_store
        .iter()
        .map(|(variable, name)| (variable, name.trim_start_matches('/')));
    let secrets = env
        .secrets_manager
        .iter()
        .map(|(variable, secret)| (variable, secret.name()));
    for (variable, secret) in parameters.chain(secrets) {
        if !order.secrets.contains_key(variable) {
            return Err(Error::NoSecret {
                variable: variable.clone(),
                secret: secret.to_owned(),
            });
        }
    }
    Ok(())
}
