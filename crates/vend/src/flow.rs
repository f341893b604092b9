//! The way of a release: fixed steps, journaled, with undo. One file a stage, in the order of the corridor.
//!
//! A stage is an activity: it reads its typed input from the execution's state, does its one thing under a ticket, and
//! answers. Stages know nothing of one another, of the definition they stand in, or of who asked; the engine knows
//! nothing of what they do.

pub mod alarms;
pub mod cancel;
pub mod close;
pub mod commands;
pub mod compare;
pub mod definition;
pub mod deletion;
pub mod healthy;
pub mod images;
pub mod intake;
pub mod late;
pub mod machines;
pub mod moving;
pub mod runs;
pub mod spread;
pub mod start;
pub mod unreadable;
pub mod unwind;
pub mod variables;
pub mod watch;
pub mod workers;

mod analyse;
mod approve;
mod bake;
mod build;
mod deploy;
mod destroy;
mod gate;
mod judge;
#[cfg(test)]
mod laws;
pub mod migrate;
mod muster;
mod number;
pub mod part;
mod plan;
mod provision;
mod record;
mod regain;
mod rest;
mod roll;
mod room;
mod shift;
mod source;
mod state;
mod step;
pub mod supersede;
mod tally;
pub mod target;
mod turn;
mod validate;
mod wave;
mod way;
mod words;
mod zone;

pub use deploy::{fault as lifecycle_fault, said};
pub use judge::quantile_ms;
pub use model::stage::shares;
pub use provision::desired;
pub use start::refuse_rollback;

use std::sync::Arc;

use jiff::Timestamp;
use model::{AppName, ExecutionId, Place, TenantName, Ticket, port::Fault};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Notify;

use crate::{
    config::{Data, Platform},
    git::Repository,
};

/// What stages and reconcilers act on.
pub struct World {
    pub store: store::Store,
    /// What moves executions.
    pub engine: engine::Handle,
    pub node: host::client::Client,
    pub edge: edge::Client,
    /// Machines of customers' own.
    pub machines: crate::machines::Door,
    pub platform: Platform,
    pub data: Data,
    /// Which repositories elsewhere may be fetched.
    pub remotes: crate::git::remote::Remotes,
    pub pokes: Arc<Pokes>,
    pub routes: crate::reconcile::routes::Handle,
}

/// Reconcilers run by themselves; a poke makes one run now.
#[derive(Default)]
pub struct Pokes {
    pub pushes: Notify,
    pub fleet: Notify,
    pub machines: Notify,
    pub builders: Notify,
    /// Environments of branches that are gone are to go now.
    pub branches: Notify,
    /// What nothing needs is to go now.
    pub sweep: Notify,
    /// What waits for somebody's word is to be looked at again.
    pub held: Notify,
}

/// One attempt at one task.
pub struct Attempt {
    pub execution: ExecutionId,
    pub task: u64,
    /// The same when this attempt is made again after a crash. A retry has another.
    pub ticket: Ticket,
    /// The same for every retry too: for effects that must not happen twice in one execution, such as hooks.
    pub steady: Ticket,
    pub input: Value,
}

/// What an activity answers.
pub enum Outcome {
    Done(Value),
    /// The answer comes from elsewhere, such as a person's decision.
    Later,
    /// It is over then, and looked at meanwhile.
    Until(Timestamp),
}

impl World {
    pub fn repository(&self, place: &Place) -> Repository {
        self.repository_of(&place.tenant, &place.app)
    }

    pub fn repository_of(&self, tenant: &TenantName, app: &AppName) -> Repository {
        Repository::at(
            self.data
                .repositories()
                .join(tenant.as_str())
                .join(format!("{app}.git")),
        )
    }
}

impl Attempt {
    /// The same for what goes on beside stages, and from one to the next.
    pub fn of_all_stages(&self) -> Self {
        let steady = format!("t-{}-beside", &self.execution.as_str()[2..]);
        Self {
            execution: self.execution.clone(),
            task: self.task,
            ticket: self.ticket.clone(),
            steady: steady
                .parse()
                .expect("an execution's id and a word make a ticket"),
            input: Value::Null,
        }
    }

    /// The part of the execution's state that a stage needs.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_json::from_value(self.input.clone()).map_err(|error| {
            Fault::order(format!(
                "the execution's state is not what this stage expects: {error}"
            ))
        })
    }
}

/// Every activity, as [`run`] knows them.
pub const ACTIVITIES: [&str; 27] = [
    "source",
    "build",
    "bake",
    "plan",
    "approve",
    "confirm",
    "provision",
    "migrate",
    "deploy",
    "validate",
    "gate",
    "arrange",
    "roll",
    "settle",
    "step",
    "watch",
    "analyse",
    "shift",
    "machines",
    "record",
    "unwind",
    "rest",
    "unroute",
    "stop-hosts",
    "drop-database",
    "remove-network",
    "forget",
];

/// Runs the activity of this name.
pub async fn run(world: &Arc<World>, activity: &str, attempt: &Attempt) -> Result<Outcome, Fault> {
    let done = match activity {
        "source" => source::run(world, attempt).await?,
        "build" => build::run(world, attempt).await?,
        "bake" => bake::run(world, attempt).await?,
        "plan" => return plan::run(world, attempt).await,
        "approve" => return approve::ask(world, attempt).await,
        "confirm" => return plan::confirm(world, attempt).await,
        "provision" => muster::beside(world, attempt, provision::run(world, attempt)).await?,
        "migrate" => muster::beside(world, attempt, migrate::run(world, attempt)).await?,
        "deploy" => muster::beside(world, attempt, deploy::run(world, attempt)).await?,
        "validate" => muster::beside(world, attempt, validate::run(world, attempt)).await?,
        "gate" => return gate::pass(world, attempt).await,
        "arrange" => roll::arrange(world, attempt).await?,
        "roll" => roll::run(world, attempt).await?,
        "settle" => roll::settle(world, attempt).await?,
        "step" => step::run(world, attempt).await?,
        "watch" => return watch::run(world, attempt).await,
        "analyse" => analyse::run(world, attempt).await?,
        "shift" => shift::run(world, attempt).await?,
        "machines" => machines::run(world, attempt).await?,
        "record" => record::run(world, attempt).await?,
        "unwind" => unwind::run(world, attempt).await?,
        "rest" => rest::run(world, attempt).await?,
        "unroute" => destroy::unroute(world, attempt).await?,
        "stop-hosts" => destroy::stop_hosts(world, attempt).await?,
        "drop-database" => destroy::drop_database(world, attempt).await?,
        "remove-network" => destroy::remove_network(world, attempt).await?,
        "forget" => destroy::forget(world, attempt).await?,
        other => return Err(Fault::order(format!("there is no activity `{other}`"))),
    };
    Ok(Outcome::Done(done))
}

/// A store that fails is the platform's fault, and may work the next time.
pub(crate) fn stored(error: store::Error) -> Fault {
    Fault::platform(format!("the database did not do its part: {}", chain(&error)))
}

/// So is an edge that says nothing.
pub(crate) fn silent(error: edge::ClientError) -> Fault {
    Fault::platform(format!("the edge does not answer: {}", chain(&error)))
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
