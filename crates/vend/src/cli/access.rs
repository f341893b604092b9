//! Secrets, tokens, and who one is.

use std::{
    io::{IsTerminal as _, Read as _},
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};
use model::{
    Secret,
    policy::Role,
    wire::{self, CreatedToken, Health, NewSecret, NewToken, SecretInfo, Whoami},
};

use super::{Client, Failure, Global, Outcome, client::escape, credentials, now, releases::word, target};
use crate::output::{Table, Tone, ago, cell, clean, maybe};

/// Of a value that is read from standard input.
const MAX_VALUE_BYTES: u64 = 64 * 1024;

#[derive(Debug, Subcommand)]
pub enum Secrets {
    /// Set a secret of an app, or of one of its environments only. The value is read from standard input, never from the
    /// command line.
    Set {
        /// TENANT/APP, or TENANT/APP/ENVIRONMENT
        target: String,
        name: String,
    },
    /// List the names of an app's secrets, without their values.
    List {
        /// TENANT/APP
        target: String,
    },
    /// Remove a secret of an app, or of one of its environments.
    Unset {
        /// TENANT/APP, or TENANT/APP/ENVIRONMENT
        target: String,
        name: String,
    },
}

/// Where the API has a secret of an app, or of the environment that the target names.
fn path_of(target: &str, name: &str) -> Result<String, Failure> {
    let target = target::Target::read(target)?;
    let path = format!("{}/secrets/{}", target.app_path(), escape(name));
    Ok(match &target.environment {
        Some(environment) => format!("{path}?environment={environment}"),
        None => path,
    })
}

#[derive(Debug, Subcommand)]
pub enum Tokens {
    /// Make a token; its text is shown this once.
    Create {
        /// What it is called, or the mail address of the person that it is for.
        name: String,
        #[arg(long, value_enum)]
        role: RoleName,
        /// The tenant that it works in; the whole platform when absent. A monitor has one.
        #[arg(long)]
        tenant: Option<String>,
        /// When it ends, such as 30d or 12h; never when absent.
        #[arg(long, value_parser = seconds)]
        expires: Option<u64>,
    },
    /// List tokens that you may revoke, without their texts.
    List,
    /// Revoke a token, at once.
    Revoke { name: String },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleName {
    Operator,
    Developer,
    Approver,
    Auditor,
    Monitor,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Operator => Self::Operator,
            RoleName::Developer => Self::Developer,
            RoleName::Approver => Self::Approver,
            RoleName::Auditor => Self::Auditor,
            RoleName::Monitor => Self::Monitor,
        }
    }
}

#[derive(Debug, Args)]
pub struct Login {}

/// Seconds of `30d`, `12h`, `90m` or `30s`.
pub fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}`: write 30d, 12h or 90m");
    let (number, unit) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
    let seconds = match unit {
        "d" => 86_400,
        "h" => 3_600,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).ok_or_else(wrong)
}

pub async fn secrets(command: &Secrets, global: &Global) -> Result<(), Failure> {
    let (client, output) = (global.client()?, global.output());
    match command {
        Secrets::Set { target, name } => {
            let path = path_of(target, name)?;
            let new = NewSecret {
                value: value_from_stdin("value")?,
            };
            let secret: SecretInfo = client.put(&path, &new).await?;
            output.show(&secret, |secret| {
                format!(
                    "set {} (version {}); the next release uses it\n",
                    secret.name, secret.version
                )
            });
        }
        Secrets::List { target } => {
            let path = format!("{}/secrets", target::Target::read(target)?.app_path());
            let page = client.list::<SecretInfo>(&path, 1000).await?;
            output.show(&page, |page| {
                let mut table = Table::new(["SECRET", "ENVIRONMENT", "VERSION", "SET"]);
                for secret in &page.items {
                    table.row([
                        cell(&secret.name),
                        maybe(secret.environment.as_ref()),
                        cell(secret.version),
                        cell(ago(secret.set_at, now())),
                    ]);
                }
                table.render(&output, "no secrets")
            });
        }
        Secrets::Unset { target, name } => {
            let path = path_of(target, name)?;
            client.delete::<()>(&path).await?;
            output.show(&serde_json::json!({ "unset": name }), |_| {
                format!("unset {}\n", clean(name))
            });
        }
    }
    Ok(())
}

pub async fn tokens(command: &Tokens, global: &Global) -> Result<(), Failure> {
    let (client, output) = (global.client()?, global.output());
    match command {
        Tokens::Create {
            name,
            role,
            tenant,
            expires,
        } => {
            let new = NewToken {
                name: name.clone(),
                role: (*role).into(),
                tenant: tenant
                    .as_deref()
                    .map(|name| target::tenant(Some(name)))
                    .transpose()?,
                expires_in: *expires,
            };
            let token: CreatedToken = client.post("/v1/tokens", &new).await?;
            // The text alone on standard output, so that it can be piped to where it belongs.
            output.show(&token, |token| format!("{}\n", token.text.expose()));
            if !output.json {
                eprintln!("this is the only time that token {} is shown", token.token.id);
                if token.token.tenant.is_some() {
                    eprintln!(
                        "for the AWS CLI and SDKs: export AWS_ACCESS_KEY_ID=VEND{} AWS_SECRET_ACCESS_KEY=TOKEN AWS_DEFAULT_REGION=local",
                        token.token.id
                    );
                }
            }
        }
        Tokens::List => {
            let page = client.list::<wire::Token>("/v1/tokens", 10_000).await?;
            output.show(&page, |page| {
                let mut table = Table::new(["ID", "TOKEN", "ROLE", "TENANT", "CREATED", "EXPIRES"]);
                for token in &page.items {
                    table.row([
                        cell(token.id),
                        cell(&token.name),
                        cell(word(&token.role)),
                        maybe(token.tenant.as_ref()),
                        cell(ago(token.created_at, now())),
                        maybe(token.expires_at),
                    ]);
                }
                table.render(
                    &output,
                    "no tokens\nnext: vend tokens create NAME --role developer --tenant TENANT",
                )
            });
        }
        Tokens::Revoke { name } => {
            let page = client.list::<wire::Token>("/v1/tokens", 10_000).await?;
            let named: Vec<&wire::Token> = page.items.iter().filter(|token| token.name == *name).collect();
            let [token] = named.as_slice() else {
                let count = named.len();
                return Err(
                    Failure::failed(format!("{count} tokens are called `{name}`")).next("vend tokens list")
                );
            };
            client.delete::<()>(&format!("/v1/tokens/{}", token.id)).await?;
            output.show(&serde_json::json!({ "revoked": name }), |_| {
                format!("revoked {}\n", clean(name))
            });
        }
    }
    Ok(())
}

/// A secret text from standard input, without the line break at its end.
pub fn value_from_stdin(what: &str) -> Result<Secret, Failure> {
    let stdin = std::io::stdin();
    let mut text = String::new();
    if stdin.is_terminal() {
        eprint!("{what} (not shown): ");
        let quiet = Quiet::new();
        let read = stdin.read_line(&mut text);
        drop(quiet);
        eprintln!();
        read.map_err(|error| Failure::failed("standard input cannot be read").cause(error.to_string()))?;
    } else {
        let mut limited = stdin.lock().take(MAX_VALUE_BYTES + 1);
        limited
            .read_to_string(&mut text)
            .map_err(|error| Failure::failed("standard input cannot be read").cause(error.to_string()))?;
    }
    let value = Secret::new(text.strip_suffix('\n').map(str::to_owned).unwrap_or(text));
    match value.expose().len() as u64 {
        0 => Err(Failure::usage(format!("standard input holds no {what}"))),
        length if length > MAX_VALUE_BYTES => {
            Err(Failure::usage(format!("the {what} is longer than 64 KiB")))
        }
        _ => Ok(value),
    }
}

/// A terminal that does not show what is typed, until dropped.
struct Quiet(Option<rustix::termios::Termios>);

impl Quiet {
    fn new() -> Self {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(std::io::stdin()).ok();
        if let Some(before) = &before {
            let mut quiet = before.clone();
            quiet.local_modes.remove(LocalModes::ECHO);
            // A terminal that cannot is no reason to stop: what is typed is shown.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet);
        }
        Self(before)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let now = rustix::termios::OptionalActions::Now;
            let _ = rustix::termios::tcsetattr(std::io::stdin(), now, before);
        }
    }
}

pub async fn login(_: &Login, global: &Global) -> Result<(), Failure> {
    let Some(url) = &global.url() else {
        return Err(Failure::usage("which platform?")
            .cause("the platform on this machine needs no token")
            .next("vend login --url URL"));
    };
    let token = value_from_stdin("token")?;
    let client = Client::with_token(url, token.clone())?;
    let whoami: Whoami = client.get("/v1/whoami").await?;
    let path = credentials::keep(url, &token)?;
    global.output().show(&whoami, |whoami| {
        format!(
            "you are {} at {url}; the token is in {}\n",
            clean(&whoami.actor),
            path.display()
        )
    });
    Ok(())
}

pub async fn whoami(global: &Global) -> Result<(), Failure> {
    let whoami: Whoami = global.client()?.get("/v1/whoami").await?;
    global.output().show(&whoami, |whoami| {
        let scope = match &whoami.tenant {
            Some(tenant) => format!("tenant {tenant}"),
            None => "the platform".to_owned(),
        };
        format!("{}, {} of {scope}\n", clean(&whoami.actor), word(&whoami.role))
    });
    Ok(())
}

pub async fn version(global: &Global) -> Result<(), Failure> {
    let own = env!("CARGO_PKG_VERSION");
    let platform: Result<wire::Version, Failure> = match global.client() {
        Ok(client) => client.get("/v1/version").await,
        Err(failure) => Err(failure),
    };
    let answer = serde_json::json!({
        "client": own,
        "platform": platform.as_ref().ok(),
    });
    global.output().show(&answer, |_| match &platform {
        Ok(platform) => format!("vend {own}, platform {}\n", clean(&platform.version)),
        Err(failure) => format!("vend {own}, {}\n", failure.what),
    });
    Ok(())
}

pub async fn health(global: &Global) -> Outcome {
    let health: Health = global.client()?.get("/v1/health").await?;
    let output = global.output();
    output.show(&health, |health| {
        let mut table = Table::new(["ROLE", "STATE", "WHY"]);
        for role in &health.roles {
            let state = match role.ok {
                true => ("ok".to_owned(), Tone::Good),
                false => ("failing".to_owned(), Tone::Bad),
            };
            table.row([cell(&role.role), state, maybe(role.reason.as_ref())]);
        }
        table.render(&output, "no roles")
    });
    Ok(if health.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
