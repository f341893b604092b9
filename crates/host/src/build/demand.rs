//! What a build asks for before it can begin: a machine that is as it says, and values of its secrets.

use std::collections::BTreeMap;

use model::{
    port::{BuildOrder, Fault},
    spec::{
        Buildspec,
        build::{Batch, Shell, Task},
    },
};

use super::Error;

/// Whether a machine with these labels is what the build asks for.
pub(super) fn labels(order: &BuildOrder, have: &BTreeMap<String, String>) -> Result<(), Error> {
    let mut wanted = order.labels.clone();
    wanted.extend(asked(order.task.as_ref(), &order.buildspec));
    have_all(&wanted, have)
}

/// What the buildspec and the batch say of the machine.
fn asked(task: Option<&Task>, buildspec: &Buildspec) -> BTreeMap<String, String> {
    let mut wanted: BTreeMap<String, String> = task.map(|task| task.labels.clone()).unwrap_or_default();
    if matches!(buildspec.env.shell, Shell::PowerShell | Shell::Cmd) {
        wanted.insert("os".to_owned(), "windows".to_owned());
    }
    wanted
}

/// Refuses a batch of which a build asks for another machine than the one that there is, with these labels of its
/// operator's: that is known before any of its builds runs. Those whose failure is not the batch's fail by themselves.
/// `buildspec` gives what a build runs, where it is known.
pub fn fits<'a>(
    batch: &Batch,
    labels: BTreeMap<String, String>,
    buildspec: impl Fn(&Task) -> Option<&'a Buildspec>,
) -> Result<(), Fault> {
    let have = own_labels(labels);
    let refused = |task: &Task| {
        let wanted = match buildspec(task) {
            Some(own) => asked(Some(task), own),
            None => task.labels.clone(),
        };
        let error = have_all(&wanted, &have).err()?;
        Some((task.identifier.clone(), Fault::from(error)))
    };
    let counts = batch.tasks.iter().filter(|task| !task.ignore_failure);
    let mut refused = counts.filter_map(refused);
    let Some((first, fault)) = refused.next() else {
        return Ok(());
    };
    let others: Vec<String> = refused
        .filter(|(_, other)| other.message == fault.message)
        .map(|(name, _)| name)
        .collect();
    let which = match others.is_empty() {
        true => format!("the build {first}"),
        false => format!("the builds {first}, {}", others.join(", ")),
    };
    Err(Fault {
        message: format!("{which} of the batch: {}", fault.message),
        ..fault
    })
}

fn have_all(wanted: &BTreeMap<String, String>, have: &BTreeMap<String, String>) -> Result<(), Error> {
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
            let fault = Fault::from(labels(&order, &have).unwrap_err());
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

    #[test]
    fn a_batch_that_asks_for_another_machine_is_refused_as_a_whole() {
        let text = "version: 0.2\nphases: { build: { commands: [make] } }\nbatch:\n  build-list:\n    \
                    - { identifier: here }\n    - { identifier: one, env: { type: ARM_CONTAINER } }\n    \
                    - { identifier: two, env: { labels: { arch: s390x } } }\n    \
                    - { identifier: three, env: { labels: { arch: s390x } }, ignore-failure: true }\n    \
                    - { identifier: four, env: { labels: { arch: s390x } } }\n";
        let refused = |text: &str, labels: &[(&str, &str)]| {
            let (spec, _) = Buildspec::parse(text, "buildspec.yml").unwrap();
            let labels = labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let batch = spec.batch.as_ref().unwrap();
            fits(batch, labels.collect(), |_| Some(&spec)).err()
        };
        // One of the two is never what this machine is.
        let other = text.replace("{ type: ARM_CONTAINER }", "{ labels: { arch: s390x } }");
        let fault = refused(&other, &[]).unwrap();
        assert!(
            fault.message.starts_with(
                "the builds one, two, four of the batch: no builder has the label `arch: s390x`"
            ),
            "{fault}"
        );
        assert!(!fault.next.unwrap().contains("platform.toml"));
        let fleet = text
            .replace("arch: s390x", "fleet: big")
            .replace("{ type: ARM_CONTAINER }", "{}");
        let fault = refused(&fleet, &[]).unwrap();
        assert!(
            fault.message.starts_with("the builds two, four of the batch"),
            "{fault}"
        );
        assert!(fault.next.unwrap().contains("platform.toml"));
        assert_eq!(refused(&fleet, &[("fleet", "big")]), None);
    }

    fn spec() -> Buildspec {
        let text = "version: 0.2\nphases: { build: { commands: ['true'] } }\n";
        Buildspec::parse(text, "buildspec.yml").unwrap().0
    }
}
