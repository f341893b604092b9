//! The order in which credentials are looked for.

use std::path::{Path, PathBuf};

use model::Secret;

use super::{Error, Keys, Machine, Profiles, Role, profile::Way, remote, sso};
use crate::client::Client;

/// The first keys that there are.
pub(super) async fn find(machine: &Machine, profile: Option<&str>, client: &Client) -> Result<Keys, Error> {
    if profile.is_none()
        && let Some(keys) = environment(machine)?
    {
        return Ok(keys);
    }
    let named = profile.map(str::to_owned).or_else(|| machine.get("AWS_PROFILE"));
    if named.is_none()
        && let Some(way) = identity(machine)
    {
        return walk(machine, way, client).await;
    }
    let profiles = profiles(machine)?;
    let name = named.as_deref().unwrap_or("default");
    if (named.is_some() || profiles.contains(name))
        && let Some(way) = profiles.way(name)?
    {
        return walk(machine, way, client).await;
    }
    if let Some(profile) = named {
        let why = "says nothing about credentials".to_owned();
        return Err(Error::Profile { profile, why });
    }
    match remote::has_container(machine) {
        true => remote::container(machine).await,
        false => remote::instance(machine).await.map_err(|error| {
            Error::None(format!(
                "neither in the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE) nor in ~/.aws, and this is no instance \
                 with a role ({error})"
            ))
        }),
    }
}

/// The files of profiles; one that is not there is empty.
pub(super) fn profiles(machine: &Machine) -> Result<Profiles, Error> {
    let home = machine.get("HOME").map(PathBuf::from);
    let file = |variable: &str, name: &str| {
        let own = machine.get(variable).map(PathBuf::from);
        own.or_else(|| Some(home.as_deref()?.join(".aws").join(name)))
    };
    let config = read(file("AWS_CONFIG_FILE", "config").as_deref())?;
    let credentials = read(file("AWS_SHARED_CREDENTIALS_FILE", "credentials").as_deref())?;
    Ok(Profiles::parse(&config, &credentials))
}

fn read(path: Option<&Path>) -> Result<String, Error> {
    let Some(path) = path else {
        return Ok(String::new());
    };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(Error::File {
            path: path.display().to_string(),
            source,
        }),
    }
}

/// The keys in the environment. Half of them is an error: who set it does not mean other credentials.
fn environment(machine: &Machine) -> Result<Option<Keys>, Error> {
    let Some(id) = machine.get("AWS_ACCESS_KEY_ID") else {
        return Ok(None);
    };
    let secret = machine.get("AWS_SECRET_ACCESS_KEY").ok_or_else(|| {
        Error::None("the environment has AWS_ACCESS_KEY_ID and no AWS_SECRET_ACCESS_KEY".into())
    })?;
    Ok(Some(Keys {
        id,
        secret: Secret::new(secret),
        token: machine.get("AWS_SESSION_TOKEN").map(Secret::new),
        expires: None,
    }))
}

/// A token that an issuer outside AWS signed, as Kubernetes and GitLab give it to jobs.
fn identity(machine: &Machine) -> Option<Way> {
    let role = Role {
        arn: machine.get("AWS_ROLE_ARN")?,
        session: machine.get("AWS_ROLE_SESSION_NAME"),
        ..Role::default()
    };
    let file = machine.get("AWS_WEB_IDENTITY_TOKEN_FILE")?;
    Some(Way::Identity { role, file })
}

async fn walk(machine: &Machine, way: Way, client: &Client) -> Result<Keys, Error> {
    let none = || Error::None("the environment has no AWS_ACCESS_KEY_ID".into());
    match way {
        Way::Keys(keys) => Ok(keys),
        Way::Environment => environment(machine)?.ok_or_else(none),
        Way::Container => remote::container(machine).await,
        Way::Instance => remote::instance(machine).await,
        Way::SignIn(own) => sso::keys(machine, &own).await,
        Way::Process(program) => process(&program).await,
        Way::Identity { role, file } => {
            let token = read(Some(Path::new(&file)))?;
            remote::assume_with_token(client, &role, token.trim()).await
        }
        Way::Role { role, from } => {
            let from = Box::pin(walk(machine, *from, client)).await?;
            remote::assume(client, &role, Some(from)).await
        }
    }
}

/// What a program prints, by the shell's rules of words, as every tool of AWS runs it.
async fn process(program: &str) -> Result<Keys, Error> {
    let from = "credential_process".to_owned();
    let failed = |why: String| Error::Answer {
        from: from.clone(),
        why,
    };
    let mut command = tokio::process::Command::new("/bin/sh");
    command.args(["-c", program]).kill_on_drop(true);
    let run = tokio::time::timeout(remote::PROCESS, command.output());
    let done = run
        .await
        .map_err(|_| failed("it takes longer than a minute".into()))?
        .map_err(|error| failed(error.to_string()))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let line = said.lines().last().unwrap_or_default();
        return Err(failed(format!("{}: {line}", done.status)));
    }
    remote::keys(
        &done.stdout,
        ["AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"],
    )
    .map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn half_of_the_keys_in_the_environment_says_which_half_is_missing() {
        let machine = |set: &'static [&'static str]| Machine {
            variable: Arc::new(move |name| set.contains(&name).then(|| "x".to_owned())),
            now: || jiff::Timestamp::UNIX_EPOCH,
            bits: || 0,
        };
        let error = environment(&machine(&["AWS_ACCESS_KEY_ID"])).err();
        let said = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(
            said.ends_with("AWS_ACCESS_KEY_ID and no AWS_SECRET_ACCESS_KEY"),
            "{said}"
        );
        let whole = environment(&machine(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]));
        assert!(whole.is_ok_and(|keys| keys.is_some()));
        assert!(environment(&machine(&["AWS_PROFILE"])).is_ok_and(|keys| keys.is_none()));
    }
}
