//! What an operator says to visitors: closed, open, and who may ask.

use camino::Utf8PathBuf;
use clap::Args;
use model::wire::{Allowed, Closed, Closing, Environment, Tenant};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    cli::{
        Client, Failure, Global, now,
        target::{self, Target},
    },
    output::{Tone, ago, clean},
};

#[derive(Debug, Args)]
pub struct Close {
    /// TENANT, for all that it has, or TENANT/APP/ENVIRONMENT
    target: String,
    /// The page that visitors get, HTML of at most 8 KiB. Without it they get one line.
    #[arg(long, value_name = "FILE")]
    page: Option<Utf8PathBuf>,
}

#[derive(Debug, Args)]
pub struct Open {
    /// TENANT or TENANT/APP/ENVIRONMENT
    target: String,
}

#[derive(Debug, Args)]
pub struct Access {
    tenant: String,
    /// Only these addresses and networks may ask.
    #[arg(long, value_name = "NETWORK", value_delimiter = ',')]
    allow: Vec<String>,
    /// These may not, also where they are allowed.
    #[arg(long, value_name = "NETWORK", value_delimiter = ',')]
    deny: Vec<String>,
    /// Everybody may.
    #[arg(long, conflicts_with_all = ["allow", "deny"])]
    everybody: bool,
}

/// A tenant, or an environment by its path.
enum Door {
    Tenant(String),
    Environment(String),
}

impl Door {
    fn read(text: &str) -> Result<Self, Failure> {
        match text.contains('/') {
            false => Ok(Self::Tenant(format!(
                "/v1/tenants/{}",
                target::tenant(Some(text))?
            ))),
            true => Ok(Self::Environment(Target::read(text)?.environment_path()?)),
        }
    }
}

pub async fn close(command: &Close, global: &Global) -> Result<(), Failure> {
    let page = match &command.page {
        None => None,
        Some(file) => Some(
            std::fs::read_to_string(file)
                .map_err(|error| Failure::usage(format!("cannot read {file}")).cause(error.to_string()))?,
        ),
    };
    let closing = Closing { page };
    let client = global.client()?;
    match Door::read(&command.target)? {
        Door::Tenant(path) => {
            let tenant: Tenant = client.put(&format!("{path}/closure"), &closing).await?;
            say(&tenant, tenant.closed.as_ref(), &command.target, global);
        }
        Door::Environment(path) => {
            let environment: Environment = client.put(&format!("{path}/closure"), &closing).await?;
            say(&environment, environment.closed.as_ref(), &command.target, global);
        }
    }
    Ok(())
}

pub async fn open(command: &Open, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    match Door::read(&command.target)? {
        Door::Tenant(path) => {
            let tenant: Tenant = away(&client, &path).await?;
            say(&tenant, tenant.closed.as_ref(), &command.target, global);
        }
        Door::Environment(path) => {
            let environment: Environment = away(&client, &path).await?;
            say(&environment, environment.closed.as_ref(), &command.target, global);
        }
    }
    Ok(())
}

async fn away<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T, Failure> {
    client.delete(&format!("{path}/closure")).await
}

fn say(value: &impl Serialize, closed: Option<&Closed>, target: &str, global: &Global) {
    let output = global.output();
    output.show(value, |_| match closed {
        None => format!("{target} is open\n"),
        Some(closed) => output.tone(Tone::Wait, &format!("{target} is {}\n", closed_text(closed))),
    });
}

/// `closed for its visitors since 5 minutes ago, by person:ops@acme.example`
pub fn closed_text(closed: &Closed) -> String {
    let whole = if closed.whole {
        ", with its whole tenant"
    } else {
        ""
    };
    format!(
        "closed for its visitors{whole}, {}, by {}",
        ago(closed.since, now()),
        clean(&closed.by)
    )
}

pub async fn access(command: &Access, global: &Global) -> Result<(), Failure> {
    let (client, output) = (global.client()?, global.output());
    let name = target::tenant(Some(&command.tenant))?;
    let path = format!("/v1/tenants/{name}");
    let wanted = Allowed {
        allow: command.allow.clone(),
        deny: command.deny.clone(),
    };
    let tenant: Tenant = match command.everybody || !wanted.is_empty() {
        true => client.put(&format!("{path}/access"), &wanted).await?,
        false => client.get(&path).await?,
    };
    output.show(&tenant, |tenant| {
        format!("{}: {}\n", tenant.name, access_text(tenant.access.as_ref()))
    });
    Ok(())
}

/// `only 192.0.2.0/24 may ask, and not 192.0.2.7/32`
pub fn access_text(access: Option<&Allowed>) -> String {
    let Some(Allowed { allow, deny }) = access.filter(|access| !access.is_empty()) else {
        return "everybody may ask".to_owned();
    };
    let who = match allow.is_empty() {
        true => "everybody may ask".to_owned(),
        false => format!("only {} may ask", allow.join(", ")),
    };
    match deny.is_empty() {
        true => who,
        false => format!("{who}, and not {}", deny.join(", ")),
    }
}
