//! What handlers need from the rooms beside them, in two small traits. `flow` implements the first; the clients of
//! node and edge together implement the second. `web` knows neither by name.

use std::collections::BTreeMap;

use axum::body::Body;
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use model::{
    AppName, ApprovalId, DeploymentId, Digest, ExecutionId, HostId, Place, TenantName,
    plan::Plan,
    port::{
        BasesSeen, Commit, Fault, HostSeen, ImageAbout, ImageDiff, ImageExport, ImageTaken, LogChunk, LogRef,
    },
    route::TargetHealth,
    wire::{NewRollback, Refreshed, Side},
};
use store::{By, NewBuilder, NewInvitation};

use crate::machines::Pass;

/// Commits that arrived on one branch, from the built-in git server or a genuine webhook.
#[derive(Debug, Clone, PartialEq)]
pub struct Pushed {
    pub tenant: TenantName,
    pub app: AppName,
    pub branch: String,
    /// The branch's commit before; none for a new branch.
    pub before: Option<String>,
    pub commit: Commit,
    /// Who pushed, as the ledger writes it.
    pub pusher: String,
    /// What brought it: `git`, or the id of a delivery (`w-…`).
    pub origin: String,
    /// The number of the pusher's account at the git host.
    pub account: Option<u64>,
    /// Where to clone from when it is not the built-in repository.
    pub clone_url: Option<String>,
    pub at: Timestamp,
}

/// A step of an environment's way to AWS or back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moving {
    /// Its load balancer there has this name.
    Begin { host: String },
    /// Percent of the requests that are forwarded; or nobody is served for so long.
    Serve {
        share: u32,
        closed: Option<SignedDuration>,
    },
    /// Nothing of it runs here any more.
    Finish,
    /// It runs here again.
    Reopen,
    /// Its data has arrived on that side, and this was counted of it on AWS. `since`: nobody was served since then.
    Settle {
        side: Side,
        counted: String,
        since: Option<Timestamp>,
    },
    /// All is served here. `lose`: although its data is there.
    End { lose: bool },
}

/// Every motion that a person can start. A command is stored, with its line of the ledger, in one transaction before
/// it answers; what it starts goes on after the answer. `by` is who the line names.
pub trait Commands: Send + Sync + 'static {
    /// Stores a push and starts its release. The same commit on the same branch again, with no other in between,
    /// changes nothing: after a crash a push may be handed over twice. A push that is of no use is stored as ignored,
    /// with the reason, and is no fault: a fault means that it is handed over again. Answers with one line for people.
    fn pushed(&self, push: Pushed) -> BoxFuture<'_, Result<String, Fault>>;

    /// A branch is gone from the app's repository: the environments that came with it go. Answers with one line for
    /// people.
    fn gone(
        &self,
        tenant: TenantName,
        app: AppName,
        branch: String,
        by: By,
    ) -> BoxFuture<'_, Result<String, Fault>>;

    /// What going back would change. `to`: none for the release before the live one.
    fn plan_rollback(&self, place: Place, to: Option<u64>) -> BoxFuture<'_, Result<Plan, Fault>>;

    /// Lets one machine of a tenant in.
    fn invite(&self, new: NewInvitation, by: By) -> BoxFuture<'_, Result<Pass, Fault>>;

    /// Removes a machine, once it has nothing to do.
    fn remove_machine(&self, id: HostId, by: By) -> BoxFuture<'_, Result<(), Fault>>;

    /// Lets one builder in.
    fn invite_builder(&self, new: NewBuilder, by: By) -> BoxFuture<'_, Result<Pass, Fault>>;

    /// Removes a builder, once it has no build; `now`: its builds are taken from it.
    fn remove_builder(&self, id: HostId, now: bool, by: By) -> BoxFuture<'_, Result<(), Fault>>;

    fn rollback(&self, place: Place, order: NewRollback, by: By)
    -> BoxFuture<'_, Result<ExecutionId, Fault>>;

    /// Destroys an environment with its hosts, its database and its routes. Refuses a protected one.
    fn destroy(&self, place: Place, by: By) -> BoxFuture<'_, Result<ExecutionId, Fault>>;

    /// Deletes an app after its environments. Refuses when one is protected.
    fn delete_app(
        &self,
        tenant: TenantName,
        app: AppName,
        by: By,
    ) -> BoxFuture<'_, Result<Vec<ExecutionId>, Fault>>;

    /// Deletes a tenant after its apps. Refuses when an environment is protected.
    fn delete_tenant(&self, tenant: TenantName, by: By) -> BoxFuture<'_, Result<Vec<ExecutionId>, Fault>>;

    /// Changes the number of hosts of the live release.
    fn scale(&self, place: Place, hosts: u32, by: By) -> BoxFuture<'_, Result<ExecutionId, Fault>>;

    /// The load balancer does what rows say by now when this answers.
    fn follow(&self) -> BoxFuture<'_, Result<(), Fault>>;

    /// Takes a step of an environment's way to AWS or back. The load balancer has followed when this answers.
    fn moved(&self, place: Place, step: Moving, by: By) -> BoxFuture<'_, Result<(), Fault>>;

    /// The data of an environment that moves, compressed by gzip, and what was counted of it. Nobody writes to it from then on.
    fn dump(&self, place: Place, by: By) -> BoxFuture<'_, Result<(String, Body), Fault>>;

    /// Takes in what a dump on AWS wrote in place of the data here, and gives what was counted of it. Nobody writes to it then.
    fn load(&self, place: Place, dump: Body, by: By) -> BoxFuture<'_, Result<String, Fault>>;

    /// Starts the hosts of an environment that sleeps.
    fn wake(&self, place: Place, by: By) -> BoxFuture<'_, Result<ExecutionId, Fault>>;

    /// The last push to an environment failed: queues it again and gives its new number.
    fn retry(&self, place: Place, by: By) -> BoxFuture<'_, Result<u64, Fault>>;

    /// Ends an execution; what it did is undone. In the middle of a migration only when told so.
    fn cancel(&self, execution: ExecutionId, in_migration: bool, by: By) -> BoxFuture<'_, Result<(), Fault>>;

    /// Looks now whether bases have become others, and has what stands on them made again. `base`: one of them only.
    fn refresh_bases(&self, base: Option<String>, by: By) -> BoxFuture<'_, Result<Refreshed, Fault>>;

    /// Holds a deployment before its next step, or lets it go on.
    fn hold(&self, deployment: DeploymentId, held: bool, by: By) -> BoxFuture<'_, Result<(), Fault>>;

    /// Ends a deployment; what it did is undone by the execution that it gives. In the middle of a migration only when
    /// told so.
    fn abort(
        &self,
        deployment: DeploymentId,
        in_migration: bool,
        by: By,
    ) -> BoxFuture<'_, Result<ExecutionId, Fault>>;

    /// Somebody voted, and the vote is stored: look whether its execution can go on.
    fn voted(&self, approval: ApprovalId) -> BoxFuture<'_, Result<(), Fault>>;
}

/// What handlers look at outside the database.
pub trait Sight: Send + Sync + 'static {
    fn log(&self, log: LogRef, offset: u64) -> BoxFuture<'_, Result<LogChunk, Fault>>;

    /// The newest lines of the access log about somebody.
    fn access(&self, wanted: edge::AccessNewest) -> BoxFuture<'_, Result<edge::AccessLines, Fault>>;

    /// A registered machine, if it is connected.
    fn machine(&self, id: &HostId) -> Option<host::machine::Seen>;

    /// What the platform's own machine is, for builds.
    fn labels(&self) -> BTreeMap<String, String>;

    fn hosts(&self) -> BoxFuture<'_, Result<Vec<HostSeen>, Fault>>;

    fn targets(&self) -> BoxFuture<'_, Result<Vec<TargetHealth>, Fault>>;

    /// What the load balancer's own listeners cannot be had at, and why, for people.
    fn unbound(&self) -> BoxFuture<'_, Result<Vec<String>, Fault>>;

    /// What the node makes now that the first push will need, for people.
    fn preparing(&self) -> BoxFuture<'_, Result<Option<String>, Fault>>;

    fn image(&self, image: Digest) -> BoxFuture<'_, Result<ImageAbout, Fault>>;

    /// SPDX 2.3.
    fn bill(&self, image: Digest) -> BoxFuture<'_, Result<serde_json::Value, Fault>>;

    fn compare(&self, before: Digest, after: Digest) -> BoxFuture<'_, Result<ImageDiff, Fault>>;

    fn bases(&self) -> BoxFuture<'_, Result<BasesSeen, Fault>>;

    /// A tar that was kept: a source, or what a build left.
    fn object(&self, object: Digest) -> BoxFuture<'_, Result<Body, Fault>>;

    /// An image as a tar of an OCI layout.
    fn export(&self, image: Digest, how: ImageExport) -> BoxFuture<'_, Result<Body, Fault>>;

    /// Takes in an image from a tar of an OCI layout.
    fn import(&self, tar: Body) -> BoxFuture<'_, Result<ImageTaken, Fault>>;
}
