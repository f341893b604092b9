//! What a build asks for before it can begin: a machine that is as it says, and values of its secrets.

use std::collections::BTreeMap;

use model::{
    port::{BuildOrder, Fault},
    spec::{
        Buildspec,
        build::{Batch, Shell, Task},
        is_label,
    },
};

use super::Error;

/// A machine that builds: what people call it, and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

impl Offer {
    /// What the machine that this runs on is called.
    pub const HERE: &str = "this machine";

    /// The machine that this runs on, with these labels of its operator's.
    pub fn here(labels: BTreeMap<String, String>) -> Self {
        Self {
            name: Self::HERE.to_owned(),
            labels: own_labels(labels),
        }
    }

    /// Has it all of these labels?
    pub fn has(&self, wanted: &BTreeMap<String, String>) -> bool {
        let mut wanted = wanted.iter();
        wanted.all(|(name, value)| self.labels.get(name) == Some(value))
    }
}

/// Whether this machine is what the build asks for.
pub(super) fn labels(order: &BuildOrder, have: &BTreeMap<String, String>) -> Result<(), Error> {
    let here = Offer {
        labels: have.clone(),
        ..Offer::here(BTreeMap::new())
    };
    one_has(&wanted(order), &[here]).map_err(|error| Error::Misplaced(Box::new(error)))
}

/// What a build asks of its machine.
pub fn wanted(order: &BuildOrder) -> BTreeMap<String, String> {
    let mut wanted = order.labels.clone();
    wanted.extend(asked(order.task.as_ref(), &order.buildspec));
    wanted
}

/// What the buildspec and the batch say of the machine.
fn asked(task: Option<&Task>, buildspec: &Buildspec) -> BTreeMap<String, String> {
    let mut wanted: BTreeMap<String, String> = task.map(|task| task.labels.clone()).unwrap_or_default();
    if matches!(buildspec.env.shell, Shell::PowerShell | Shell::Cmd) {
        wanted.insert("os".to_owned(), "windows".to_owned());
    }
    wanted
}

/// Refuses a batch of which a build asks for another machine than those that there are: that is known before any of its
/// builds runs. Those whose failure is not the batch's fail by themselves. `buildspec` gives what a build runs, where it is
/// known.
pub fn fits<'a>(
    batch: &Batch,
    offers: &[Offer],
    buildspec: impl Fn(&Task) -> Option<&'a Buildspec>,
) -> Result<(), Fault> {
    let refused = |task: &Task| {
        let wanted = match buildspec(task) {
            Some(own) => asked(Some(task), own),
            None => task.labels.clone(),
        };
        let error = one_has(&wanted, offers).err()?;
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

/// Whether one of these machines has all that is wanted.
pub fn one_has(wanted: &BTreeMap<String, String>, offers: &[Offer]) -> Result<(), Error> {
    if offers.iter().any(|offer| offer.has(wanted)) {
        return Ok(());
    }
    let missing = |(name, value): &(&String, &String)| {
        let value = Some(*value);
        offers.iter().all(|offer| offer.labels.get(*name) != value)
    };
    let labels = match wanted.iter().find(missing) {
        Some((name, value)) => format!("the label `{name}: {value}`"),
        None => format!("all of the labels `{}`", told(wanted)),
    };
    // What a machine is, nobody can give it.
    let own = OWN
        .iter()
        .find(|(name, _)| labels.contains(&format!("`{name}: ")));
    let invite = invite(wanted);
    Err(match (offers, own) {
        ([only], Some((_, asked_by))) => Error::NoMachine {
            labels,
            have: told(&only.labels),
            asked_by,
            invite,
        },
        ([only], None) => Error::NoBuilder {
            labels,
            have: told(&only.labels),
            invite,
        },
        (several, _) => Error::NoneOf {
            labels,
            have: several
                .iter()
                .map(|offer| format!("{} ({})", offer.name, told(&offer.labels)))
                .collect::<Vec<_>>()
                .join("; "),
            invite,
        },
    })
}

/// What has a machine join that has all of these labels, where there can be one.
fn invite(wanted: &BTreeMap<String, String>) -> Option<String> {
    let is_own = |name: &str| OWN.iter().any(|(own, _)| *own == name);
    let can_be = |(name, value): (&String, &String)| match name.as_str() {
        // No other system can build.
        "os" => value == "linux",
        name => is_label(name) && is_label(value),
    };
    if !wanted.iter().all(can_be) {
        return None;
    }
    let given = wanted.iter().filter(|(name, _)| !is_own(name));
    let given: String = given
        .map(|(name, value)| format!(" --label {name}={value}"))
        .collect();
    let mut own = wanted.clone();
    own.retain(|name, _| is_own(name));
    let on = match own.is_empty() {
        true => String::new(),
        // Nobody gives these to a machine.
        false => format!(", and run what it says on a machine with {}", told(&own)),
    };
    Some(format!("vend builders invite{given}{on}"))
}

/// For people.
fn told(labels: &BTreeMap<String, String>) -> String {
    let pairs = labels.iter().map(|(name, value)| format!("{name}: {value}"));
    pairs.collect::<Vec<_>>().join(", ")
}

/// Labels that say what a machine is, and where a buildspec can ask for them.
const OWN: [(&str, &str); 2] = [
    ("arch", "the `env.type` or `env.labels` of the build"),
    (
        "os",
        "`env.shell`, or the `env.type` or `env.labels` of the build",
    ),
];

/// What the machine is, and what its operator says of it.
pub fn own_labels(mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
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
    use model::port::Blame;

    use super::*;

    #[test]
    fn nobody_is_told_to_call_a_machine_what_it_is_not() {
        let (mut order, have) = (
            super::super::choice::tests::order(spec()),
            own_labels(BTreeMap::new()),
        );
        for (label, next, never) in [
            ("arch", "`env.type`", "env.shell"),
            ("os", "`env.shell`", "fleet"),
            ("fleet", "platform.toml", "env.type"),
        ] {
            order.labels = BTreeMap::from([(label.to_owned(), "s390x".to_owned())]);
            let fault = Fault::from(labels(&order, &have).unwrap_err());
            assert!(fault.message.contains(&format!("`{label}: s390x`")), "{fault}");
            assert_eq!(fault.blame, Blame::Platform, "it was placed wrong");
            let told = fault.next.unwrap();
            assert!(
                told.contains(next)
                    && !told.contains(never)
                    && (label == "fleet" || !told.contains("platform.toml")),
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
            fits(batch, &[Offer::here(labels.collect())], |_| Some(&spec)).err()
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

    #[test]
    fn a_build_goes_where_all_its_labels_are_on_one_machine() {
        let labels = |text: &str| -> BTreeMap<String, String> {
            let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        };
        let offer = |name: &str, text| Offer {
            name: name.to_owned(),
            labels: labels(text),
        };
        let offers = [
            offer("this machine", "arch=amd64 os=linux"),
            offer("pi", "arch=arm64 os=linux"),
            offer("big", "arch=amd64 fleet=big os=linux"),
        ];
        let all = "this machine (arch: amd64, os: linux); pi (arch: arm64, os: linux); \
                   big (arch: amd64, fleet: big, os: linux)";
        for (wanted, refused) in [
            ("", None),
            ("arch=arm64", None),
            ("arch=amd64 fleet=big", None),
            ("arch=riscv64 fleet=big", Some("the label `arch: riscv64`")),
            ("fleet=small", Some("the label `fleet: small`")),
            // Each has one of them.
            (
                "arch=arm64 fleet=big",
                Some("all of the labels `arch: arm64, fleet: big`"),
            ),
        ] {
            let said = one_has(&labels(wanted), &offers).err().map(Fault::from);
            let told = refused.map(|refused| format!("no builder has {refused}: there are {all}"));
            assert_eq!(
                said.as_ref().map(|fault| &fault.message),
                told.as_ref(),
                "{wanted}"
            );
            assert!(said.is_none_or(|fault| fault.next.unwrap().contains("vend builders invite")));
        }
    }

    #[test]
    fn who_lacks_a_machine_is_told_the_command_that_lets_one_in() {
        let wanted = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let here = Offer {
            name: Offer::HERE.to_owned(),
            labels: wanted(&[("arch", "amd64"), ("os", "linux")]),
        };
        let other = Offer {
            name: "other".to_owned(),
            labels: wanted(&[("arch", "amd64"), ("os", "linux"), ("disk", "fast")]),
        };
        for (labels, command) in [
            (
                &[("fleet", "big")][..],
                Some("vend builders invite --label fleet=big"),
            ),
            (
                &[("disk", "fast"), ("fleet", "big")],
                Some("vend builders invite --label disk=fast --label fleet=big"),
            ),
            (
                &[("arch", "arm64"), ("fleet", "big")],
                Some(
                    "vend builders invite --label fleet=big, and run what it says on a machine with arch: arm64",
                ),
            ),
            (
                &[("arch", "arm64")],
                Some("vend builders invite, and run what it says on a machine with arch: arm64"),
            ),
            // No invitation can have these.
            (&[("fleet", "the big one; rm")], None),
            (&[("os", "windows")], None),
        ] {
            let labels = wanted(labels);
            for offers in [&[here.clone()][..], &[here.clone(), other.clone()]] {
                let next = Fault::from(one_has(&labels, offers).unwrap_err()).next.unwrap();
                match command {
                    Some(command) => assert!(next.ends_with(&format!(": {command}")), "{next}"),
                    None => assert!(!next.contains("invite") && next.starts_with("take "), "{next}"),
                }
            }
        }
    }

    fn spec() -> Buildspec {
        let text = "version: 0.2\nphases: { build: { commands: ['true'] } }\n";
        Buildspec::parse(text, "buildspec.yml").unwrap().0
    }
}
