//! The way into the console.

use clap::Args;
use model::wire::{Session, Version};
use serde::Serialize;

use super::{Failure, Global};

/// Print the address of the console. On the platform's own machine the link brings a token, good for half an hour.
#[derive(Debug, Args)]
pub struct Console {}

#[derive(Serialize)]
struct Answer {
    url: String,
    /// The link brings a token to sign in with.
    signs_in: bool,
}

pub async fn run(global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let url = client.get::<Version>("/v1/version").await?.url;
    let answer = match client.token() {
        Some(_) => Answer {
            url: format!("{url}/console/"),
            signs_in: false,
        },
        None => {
            let session: Session = client.post("/v1/session", &serde_json::json!({})).await?;
            // What stands after the # is not sent to anybody: the page reads it.
            let token = session.text.expose();
            Answer {
                url: format!("{url}/console/sign-in#token={token}"),
                signs_in: true,
            }
        }
    };
    global.output().show(&answer, |answer| match answer.signs_in {
        true => format!("{}\n", answer.url),
        false => format!("{}\nsign in there with your token\n", answer.url),
    });
    Ok(())
}
