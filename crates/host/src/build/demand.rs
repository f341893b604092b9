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
        Some((name, value)) => {
            let pairs = have.iter().map(|(name, value)| format!("{name}: {value}"));
            let (label, have) = (format!("{name}: {value}"), pairs.collect::<Vec<_>>().join(", "));
            // What a machine is, nobody can give it.
            Err(match OWN.contains(&name.as_str()) {
                true => Error::NoMachine { label, have },
                false => Error::NoBuilder { label, have },
            })
        }
    }
}

/// Labels that say what a machine is.
const OWN: [&str; 2] = ["arch", "os"];

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_to_call_a_machine_what_it_is_not() {
        let (mut order, have) = (
            super::super::choice::tests::order(spec()),
            own_labels(BTreeMap::new()),
        );
        for (label, next) in [
            ("arch", "`type`"),
            ("os", "`env.shell`"),
            ("fleet", "platform.toml"),
        ] {
            order.labels = BTreeMap::from([(label.to_owned(), "s390x".to_owned())]);
            let fault = model::port::Fault::from(labels(&order, &have).unwrap_err());
            assert!(fault.message.contains(&format!("`{label}: s390x`")), "{fault}");
            let told = fault.next.unwrap();
            assert!(
                told.contains(next) && (label == "fleet" || !told.contains("platform.toml")),
                "{told}"
            );
        }
        order.labels = have.clone();
        assert!(labels(&order, &have).is_ok());
    }

    fn spec() -> model::spec::Buildspec {
        let text = "version: 0.2\nphases: { build: { commands: ['true'] } }\n";
        model::spec::Buildspec::parse(text, "buildspec.yml").unwrap().0
    }
}
