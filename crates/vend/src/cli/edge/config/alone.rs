//! A life alone: the file is put in force, and what it becomes, until the load balancer is told to stop.

use std::time::Duration;

use camino::Utf8Path;
use edge::{Client, Limits};
use model::route::Table;
use tokio::sync::watch;

use super::{Config, Fixed, read};
use crate::{
    cli::{Failure, edge::failed},
    config::{Data, Workers, balancer},
    flow::chain,
    roles::ended,
};

/// How often the file is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Runs until it is told to stop.
pub async fn run(file: &Utf8Path, data: &Data) -> Result<(), Failure> {
    // Nothing is bound for a file that is wrong.
    let (config, table) = ready(file)?;
    let _held = hold(data)?;
    let (listeners, unbound) = config.listeners()?;
    for listener in &listeners {
        if let Ok(address) = listener.socket.local_addr() {
            crate::output::aloud(format_args!("listening at {address}"));
        }
    }
    let datagrams = config.datagrams()?;
    for datagrams in &datagrams {
        if let Ok(address) = datagrams.socket.local_addr() {
            crate::output::aloud(format_args!("listening at {address}, for datagrams"));
        }
    }
    let (sender, limited) = watch::channel(config.limits());
    let running = edge::Config {
        listeners,
        unbound,
        admin: data.edge_socket(),
        snapshot: data.edge().join("table.log"),
        // Rules say it here.
        plain_http: true,
        workers: Workers::or_cores(config.workers),
        access_log: config.log()?,
        metrics: config.metrics()?,
        limits: config.limits(),
        limited: Some(limited),
        acme: config.acme(data)?,
        datagrams,
        dns: config.names()?,
        secrets: config
            .secrets
            .clone()
            .unwrap_or_else(|| data.edge().join("secrets")),
        roots: config.roots.clone(),
        zone: config.zone.clone(),
        tidy: crate::tidy,
    };
    let client = Client::new(data.edge_socket());
    tokio::select! {
        ended = edge::run(running, ended()) => ended.map_err(|error| Failure::failed(chain(&error))),
        failure = keep(file, (config, table), &client, &sender) => Err(failure),
    }
}

/// What a file says in which nothing is wrong.
fn ready(file: &Utf8Path) -> Result<(Config, Table), Failure> {
    let mut config = read(file)?;
    let table = config.table()?;
    config.sound(&table)?;
    Ok((config, table))
}

/// Puts the file in force, and what it becomes. Returns only when the edge takes no table at all.
async fn keep(
    file: &Utf8Path,
    first: (Config, Table),
    client: &Client,
    limits: &watch::Sender<Limits>,
) -> Failure {
    let mut changed = written(file);
    let started = first.0.fixed();
    let mut wanted = Some(first);
    loop {
        if let Some((config, table)) = wanted.take() {
            match apply(table, client).await {
                Ok(()) => settle(&config, &started, limits),
                Err(failure) => tracing::error!(
                    why = failure.what,
                    cause = failure.cause,
                    "the file is not put in force"
                ),
            }
        }
        tokio::time::sleep(EVERY).await;
        let now = written(file);
        if now != changed {
            changed = now;
            match ready(file) {
                Ok(ready) => wanted = Some(ready),
                Err(failure) => tracing::error!(
                    why = failure.what,
                    cause = failure.cause,
                    "the old file stays in force"
                ),
            }
        }
    }
}

/// What else of a file in force counts now, and what does not.
pub(super) fn settle(config: &Config, started: &Fixed, limits: &watch::Sender<Limits>) {
    balancer::hold(config.limits(), limits);
    for key in config.later(started) {
        tracing::warn!(key, "`{key}` has changed: it takes effect at the next start");
    }
}

/// Keeps others off the folder of data: whoever comes second would take the control socket and the table of the first.
pub(super) fn hold(data: &Data) -> Result<std::fs::File, Failure> {
    let failed = |error: std::io::Error| Failure {
        cause: Some(error.to_string()),
        ..Failure::failed(format!("cannot use {}", data.0))
    };
    std::fs::create_dir_all(data.run()).map_err(failed)?;
    let file = std::fs::File::create(data.run().join("edge.lock")).map_err(failed)?;
    if file.try_lock().is_err() || crate::up::is_running(data) {
        return Err(Failure::failed(format!("{} has a load balancer already", data.0))
            .next("vend edge --config FILE --data ANOTHER"));
    }
    Ok(file)
}

fn written(file: &Utf8Path) -> Option<(std::time::SystemTime, u64)> {
    let about = std::fs::metadata(file).ok()?;
    Some((about.modified().ok()?, about.len()))
}

async fn apply(table: Table, client: &Client) -> Result<(), Failure> {
    let mut tries = 0;
    loop {
        // The door opens a moment after the start.
        match client.version().await {
            Ok(version) => {
                let table = Table {
                    version: version + 1,
                    ..table
                };
                return client.apply(&table).await.map(|_| ()).map_err(failed);
            }
            Err(error) if tries > 100 => return Err(failed(error)),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
