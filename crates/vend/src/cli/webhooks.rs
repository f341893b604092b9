//! The inbox of webhooks, and a reader of stored payloads that needs no platform.

use std::{fs::File, io::Read as _, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand, ValueEnum};
use model::{
    Secret,
    webhook::{self, Event, Explanation, Provider},
    wire::{Delivery, DeliveryDetail, DeliveryVerdict, WebhookSecret},
};

use super::{
    Failure, Global, Most, Outcome,
    access::value_from_stdin,
    client::escape,
    now,
    releases::{short, word, word_of},
    target::{self, Target},
};
use crate::output::{Output, Table, Tone, ago, cell, clean, headline, maybe, size};

#[derive(Debug, Subcommand)]
pub enum Webhooks {
    /// List what git hosts delivered, newest first, and what became of it.
    List {
        /// TENANT or TENANT/APP
        target: Option<String>,
        #[command(flatten)]
        most: Most,
    },
    /// Show a delivery as it came, with its headers.
    Show { id: String },
    /// Handle a stored delivery again.
    Replay { id: String },
    /// Set what a git host and the platform both know. It is read from standard input.
    Secret {
        /// TENANT/APP
        target: String,
        #[arg(long, value_enum)]
        provider: ProviderName,
    },
    /// Explain a stored payload, without a platform.
    Read(Read),
}

#[derive(Debug, Args)]
pub struct Read {
    #[arg(long, value_enum)]
    provider: ProviderName,
    /// A header of the delivery, as `Name: value`. May be given several times.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// What the git host and the receiver both know. For tests: other users of the machine see it.
    #[arg(long)]
    secret: Option<String>,
    /// The raw body.
    file: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ProviderName {
    Github,
    Gitlab,
}

impl From<ProviderName> for Provider {
    fn from(name: ProviderName) -> Self {
        match name {
            ProviderName::Github => Self::Github,
            ProviderName::Gitlab => Self::Gitlab,
        }
    }
}

pub async fn run(command: &Webhooks, global: &Global) -> Outcome {
    let output = global.output();
    match command {
        Webhooks::Read(read) => return explain(read, &output),
        Webhooks::List { target, most } => {
            let path = format!("/v1/webhooks?{}", target::scope(target.as_deref())?);
            let page = global.client()?.list::<Delivery>(&path, most.number()).await?;
            output.show(&page, |page| {
                let mut table = Table::new(["DELIVERY", "APP", "FROM", "WHEN", "VERDICT", "SIZE", "WHY"]);
                for delivery in &page.items {
                    table.row([
                        cell(&delivery.id),
                        cell(format!("{}/{}", delivery.tenant, delivery.app)),
                        cell(word(&delivery.provider)),
                        cell(ago(delivery.received_at, now())),
                        (word(&delivery.verdict), tone(delivery.verdict)),
                        cell(size(delivery.size_bytes)),
                        maybe(delivery.reason.as_deref().map(|reason| headline(reason, 80))),
                    ]);
                }
                table.render(&output, "no webhooks came in yet") + most.rest(page)
            });
        }
        Webhooks::Show { id } => {
            let path = format!("/v1/webhooks/{}", escape(id));
            let detail: DeliveryDetail = global.client()?.get(&path).await?;
            output.show(&detail, |detail| detail_text(detail, &output));
        }
        Webhooks::Replay { id } => {
            let path = format!("/v1/webhooks/{}/replay", escape(id));
            let delivery: Delivery = global.client()?.post(&path, &serde_json::json!({})).await?;
            output.show(&delivery, |delivery| {
                let why = delivery
                    .reason
                    .as_deref()
                    .map(|why| format!(": {why}"))
                    .unwrap_or_default();
                clean(&format!("{} {}{why}", delivery.id, word(&delivery.verdict))) + "\n"
            });
        }
        Webhooks::Secret { target, provider } => {
            let target = Target::read(target)?;
            let path = format!("{}/webhook-secrets/{}", target.app_path(), word_of(*provider));
            let secret = WebhookSecret {
                value: value_from_stdin("secret")?,
            };
            global.client()?.put::<_, ()>(&path, &secret).await?;
            output.show(&serde_json::json!({ "set": word_of(*provider) }), |_| {
                format!("set the {} secret of {target}\n", word_of(*provider))
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the platform would make of a payload.
fn explain(read: &Read, output: &Output) -> Outcome {
    let header = |header: &String| {
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| Failure::usage(format!("`{header}` is not a header: write `Name: value`")))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    let headers = read
        .headers
        .iter()
        .map(header)
        .collect::<Result<Vec<_>, Failure>>()?;
    let failed = |error: std::io::Error| Failure::file(&read.file, &error);
    let mut body = Vec::new();
    let file = File::open(&read.file).map_err(failed)?;
    let limit = webhook::MAX_BODY_BYTES as u64 + 1;
    file.take(limit).read_to_end(&mut body).map_err(failed)?;
    let secret = read.secret.clone().map(Secret::new);
    let explanation = webhook::explain(read.provider.into(), &headers, &body, secret.as_ref());
    output.show(&explanation, |explanation| explanation_text(explanation, output));
    Ok(match explanation.refusal {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
    })
}

fn explanation_text(explanation: &Explanation, output: &Output) -> String {
    let mut text = format!(
        "from      {}\nevent     {}\ndelivery  {}\nsignature {}: {}\n",
        word(&explanation.provider),
        clean(explanation.kind.as_deref().unwrap_or("-")),
        clean(&explanation.delivery),
        word(&explanation.signature.verdict),
        clean(&explanation.signature.why),
    );
    if let Some(event) = &explanation.event {
        text.push_str(&event_text(event));
    }
    if let Some(refusal) = &explanation.refusal {
        let word = output.tone(Tone::Bad, "refused");
        text.push_str(&format!("{word}   {}\n", clean(refusal)));
    }
    text.push_str(&format!("would     {}\n", clean(&explanation.action)));
    text
}

fn tone(verdict: DeliveryVerdict) -> Tone {
    match verdict {
        DeliveryVerdict::Accepted => Tone::Good,
        DeliveryVerdict::Refused => Tone::Bad,
        DeliveryVerdict::Ignored => Tone::Faint,
    }
}

fn detail_text(detail: &DeliveryDetail, output: &Output) -> String {
    let delivery = &detail.delivery;
    let verdict = output.tone(tone(delivery.verdict), &word(&delivery.verdict));
    let mut text = format!(
        "delivery  {}\napp       {}/{}\nfrom      {}\nwhen      {}\nverdict   {verdict}\n",
        delivery.id,
        delivery.tenant,
        delivery.app,
        word(&delivery.provider),
        delivery.received_at,
    );
    if let Some(reason) = &delivery.reason {
        text.push_str(&format!("why       {}\n", clean(reason)));
    }
    if let Some(event) = &detail.event {
        text.push_str(&event_text(event));
    }
    for (name, value) in &detail.headers {
        text.push_str(&format!("{}\n", clean(&format!("{name}: {value}"))));
    }
    text.push_str(&format!("\n{}\n", crate::output::tame(&detail.body)));
    text
}

/// Who pushed; where the provider does not say, who wrote the commit.
fn whom(push: &webhook::Push) -> &str {
    let known = [push.sender.as_str(), push.commit.author.as_str()];
    known
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or("somebody")
}

fn event_text(event: &Event) -> String {
    let line = match event {
        Event::Push(push) => {
            let on = match &push.branch {
                Some(branch) => format!("branch {branch}"),
                None => push.reference.clone(),
            };
            format!(
                "push of {} to {on} by {}: {}",
                short(&push.commit.id),
                whom(push),
                headline(&push.commit.message, 80)
            )
        }
        Event::Delete { reference, .. } => format!("{reference} was deleted"),
        Event::Ignored { kind, reason } => format!("{kind} is of no interest: {reason}"),
        Event::Ping => "a question whether we are there".to_owned(),
    };
    format!("says      {}\n", clean(&line))
}
