//! What a local build is given on the command line, where a platform has its vault: variables, and values of secrets.

use std::collections::BTreeMap;

use model::{Secret, port::GIT_CREDENTIALS, spec::Buildspec};

use super::BuildArgs;
use crate::cli::{Failure, quoted};

pub type Variables = BTreeMap<String, String>;

/// The `--env` options.
pub fn variables(arguments: &BuildArgs) -> Result<Variables, Failure> {
    let pair = |pair: &String| {
        let (name, value) = pair
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| Failure::usage(format!("--env {pair}: a variable is NAME=VALUE")))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    arguments.variables.iter().map(pair).collect()
}

/// Variables that the buildspec takes from secrets come from the command line here.
pub fn divided(given: &Variables, spec: &Buildspec) -> (Variables, BTreeMap<String, Secret>) {
    let is_secret = |name: &String| {
        spec.env.parameter_store.contains_key(name)
            || spec.env.secrets_manager.contains_key(name)
            || name == GIT_CREDENTIALS
    };
    let (secrets, plain): (Variables, Variables) =
        given.clone().into_iter().partition(|(name, _)| is_secret(name));
    let secrets = secrets
        .into_iter()
        .map(|(name, value)| (name, Secret::new(value)));
    (plain, secrets.collect())
}

/// Nobody keeps secrets for this machine: refuses builds whose variables were not all given, and names them all, before
/// anything runs.
pub fn lacks<'s>(
    specs: impl IntoIterator<Item = &'s Buildspec>,
    given: &Variables,
    arguments: &BuildArgs,
) -> Result<(), Failure> {
    let mut lacking: BTreeMap<&String, &str> = BTreeMap::new();
    for spec in specs {
        let parameters = spec.env.parameter_store.iter();
        let parameters = parameters.map(|(variable, name)| (variable, name.as_str()));
        let secrets = spec.env.secrets_manager.iter();
        let secrets = secrets.map(|(variable, secret)| (variable, secret.name()));
        lacking.extend(
            parameters
                .chain(secrets)
                .filter(|(variable, _)| !given.contains_key(*variable)),
        );
    }
    if lacking.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = lacking
        .iter()
        .map(|(variable, secret)| format!("{variable} (elsewhere the secret `{secret}`)"))
        .collect();
    let options: Vec<String> = lacking.keys().map(|name| format!("--env {name}=…")).collect();
    let what = format!(
        "variables that come from secrets have no value on this machine: {}",
        named.join(", ")
    );
    Err(Failure::usage(what).next(format!("{} {}", again(arguments), options.join(" "))))
}

/// This command for this tree, to which a hint adds an option.
pub fn again(arguments: &BuildArgs) -> String {
    format!(
        "vend build --local {}",
        quoted(&arguments.local.display().to_string())
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{super::tests::One, *};

    const SPEC: &str = "version: 0.2
env:
  parameter-store: { TOKEN: /shop/token }
  secrets-manager: { API_KEY: shop/api-key }
phases: { build: { commands: [make] } }
";

    #[test]
    fn all_secrets_that_nobody_gave_are_named_at_once() {
        let (spec, _) = Buildspec::parse(SPEC, "buildspec.yml").unwrap();
        let other = SPEC.replace("TOKEN", "OTHER").replace("API_KEY", "TOKEN");
        let (other, _) = Buildspec::parse(&other, "b.yml").unwrap();
        let arguments = One::parse_from(["build", "--local", "my shop"]).build;
        let lacks = |specs: &[&Buildspec], names: &[&str]| {
            let given = names.iter().map(|name| ((*name).to_owned(), "x".to_owned()));
            lacks(specs.iter().copied(), &given.collect(), &arguments)
        };
        let failure = lacks(&[&spec], &[]).unwrap_err();
        for part in ["API_KEY", "`shop/api-key`", "TOKEN"] {
            assert!(failure.what.contains(part), "{}", failure.what);
        }
        assert_eq!(failure.exit, crate::cli::Exit::Usage);
        assert_eq!(
            failure.next.as_deref(),
            Some("vend build --local 'my shop' --env API_KEY=… --env TOKEN=…")
        );
        let failure = lacks(&[&spec, &other], &["TOKEN"]).unwrap_err();
        assert_eq!(
            failure.next.as_deref(),
            Some("vend build --local 'my shop' --env API_KEY=… --env OTHER=…")
        );
        assert!(lacks(&[&spec], &["TOKEN", "API_KEY"]).is_ok());
    }

    #[test]
    fn what_comes_from_a_secret_is_one() {
        let (spec, _) = Buildspec::parse(SPEC, "buildspec.yml").unwrap();
        let arguments = One::parse_from(["build", "--local", ".", "--env", "TOKEN=a=b", "--env", "X="]).build;
        let (plain, secrets) = divided(&variables(&arguments).unwrap(), &spec);
        assert_eq!(plain, BTreeMap::from([("X".to_owned(), String::new())]));
        assert_eq!(secrets["TOKEN"].expose(), "a=b");
        let wrong = One::parse_from(["build", "--local", ".", "--env", "=x"]).build;
        assert!(variables(&wrong).is_err());
    }
}
