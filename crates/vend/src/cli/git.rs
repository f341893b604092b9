//! What git calls: a credential helper, so that a push over HTTP needs no password and no token in a file.
//! <https://git-scm.com/docs/git-credential#IOFMT>

use std::io::{BufRead as _, Read as _};

use clap::Subcommand;
use model::wire::{App, Session};

use super::{Failure, Global, target::Target};

/// Of what git says to a helper.
const MAX_REQUEST_BYTES: u64 = 64 * 1024;

#[derive(Debug, Subcommand)]
pub enum Git {
    /// Git's credential helper: answers `get` with a token of a few minutes.
    Credential {
        /// `get`, `store` or `erase`
        operation: String,
    },
    /// Print the URL of an app's repository.
    Url {
        /// TENANT/APP
        target: String,
    },
}

pub async fn run(command: &Git, global: &Global) -> Result<(), Failure> {
    match command {
        Git::Credential { operation } => credential(operation, global).await,
        Git::Url { target } => {
            let app: App = global.client()?.get(&Target::read(target)?.app_path()).await?;
            global.output().show(&app.git_url, |url| format!("{url}\n"));
            Ok(())
        }
    }
}

async fn credential(operation: &str, global: &Global) -> Result<(), Failure> {
    let mut host = None;
    let stdin = std::io::stdin().lock();
    for line in stdin.take(MAX_REQUEST_BYTES).lines() {
        let line = line.map_err(|error| Failure::failed("git said nothing").cause(error.to_string()))?;
        match line.split_once('=') {
            Some(("host", value)) => host = Some(value.to_owned()),
            Some(_) => {}
            None => break,
        }
    }
    // There is nothing to keep or to forget; an operation of a later git is no error (gitcredentials(7)).
    if operation != "get" {
        return Ok(());
    }
    let client = global.client()?;
    let url = client.get::<model::wire::Version>("/v1/version").await?.url;
    // A helper may be configured for every host: another one's password is not ours to give.
    if host
        .as_deref()
        .is_some_and(|host| !url.contains(&format!("//{host}")))
    {
        return Ok(());
    }
    let text = match client.token() {
        Some(token) => token.clone(),
        None => {
            let session: Session = client.post("/v1/session", &serde_json::json!({})).await?;
            session.text
        }
    };
    // To git, over a pipe.
    global
        .output()
        .text(&format!("username=vend\npassword={}\n", text.expose()));
    Ok(())
}
