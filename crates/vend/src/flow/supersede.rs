//! Nothing broken blocks the fix: a push takes the place of what goes nowhere before it, and says so.
//!
//! What goes well is not stopped: who pushes often would never see anything live.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use model::{DeploymentId, ExecutionId, HostId, Place, ledger::Line, port::Fault};
use serde_json::json;
use store::{
    ApprovalState, By, Db, Deployment, DeploymentState, Error, ExecutionFilter, ExecutionSummary, HostState,
    LedgerFilter, Push, Tx,
};
use tracing::{info, warn};

use super::{World, definition, deletion, late, runs, start, stored, workers};
use crate::reconcile::{
    bases::{AUTOMATIC, REFRESH},
    patience::HEAL,
    routes,
};

#[cfg(test)]
pub mod giving;
mod making;
#[cfg(test)]
mod old;

/// How the ledger calls it, and how the execution's failure.
pub const ACTION: &str = "execution.supersede";
pub const ERROR: &str = "Vend.Superseded";

struct Order {
    execution: ExecutionSummary,
    /// It is on its way back already, by this deployment, which is ended instead.
    undo: Option<DeploymentId>,
    cause: String,
}

/// Ends what is broken and what a push waits for. What it did is undone, and the push goes next.
pub async fn look(world: &World) -> Result<(), Fault> {
    let by = By::platform(crate::clock::now());
    let patience = SignedDuration::from_secs(world.platform.deployments.patience_s.into());
    let ordered = world.store.write(move |tx| order(tx, patience, &by));
    for order in ordered.await.map_err(stored)? {
        info!("{}: {}", order.execution.id, order.cause);
        if order.undo.is_some() {
            world.pokes.held.notify_waiters();
            continue;
        }
        workers::interrupt(&world.engine, order.execution.run, ERROR, &order.cause).await?;
    }
    Ok(())
}

/// What is to be ended everywhere, on record from now on.
fn order(tx: &mut Tx<'_>, patience: SignedDuration, by: &By) -> Result<Vec<Order>, Error> {
    let mut orders = Vec::new();
    for place in tx.places_held_up()? {
        let order = match judge(tx, &place, by.at, patience) {
            Ok(Some(order)) => order,
            Ok(None) => continue,
            // One that cannot be read holds nobody else's up.
            Err(error) => {
                warn!("nobody knows what holds up {place}: {error}");
                continue;
            }
        };
        if let Some(undo) = &order.undo {
            let (stopped, code) = (DeploymentState::Stopped, Some("MANUAL_STOP"));
            tx.finish_deployment(undo, stopped, code, Some(&order.cause), by)?;
        } else {
            let mut deed = deletion::deed(by, ACTION, Some(&place), order.execution.id.as_str());
            deed.detail = json!({ "cause": order.cause });
            tx.record(deed, by.at)?;
        }
        orders.push(order);
    }
    Ok(orders)
}

/// The execution of an environment that is to give way, if there is one that was not told yet.
fn judge(
    db: &Db<'_>,
    place: &Place,
    now: Timestamp,
    patience: SignedDuration,
) -> Result<Option<Order>, Error> {
    for execution in giving_way(db, place)? {
        let Some(push) = held_up(db, place, &execution)? else {
            continue;
        };
        if let Some((why, undo)) = goes_nowhere(db, place, &execution, (now, patience))? {
            let cause = cause(&push, &why);
            return Ok(Some(Order {
                execution,
                undo,
                cause,
            }));
        }
    }
    Ok(None)
}

/// What a push may take the place of. All else removes things, and is finished.
fn giving_way(db: &Db<'_>, place: &Place) -> Result<Vec<ExecutionSummary>, Error> {
    let mut open = db.executions(&ExecutionFilter {
        tenant: Some(place.tenant.clone()),
        app: Some(place.app.clone()),
        environment: Some(place.environment.clone()),
        open: Some(true),
        ..ExecutionFilter::default()
    })?;
    open.retain(|execution| is_forth(execution) || OLD.contains(&execution.kind.as_str()));
    Ok(open)
}

/// What puts releases on hosts that were live before: all of them, or on more hosts.
const OLD: [&str; 4] = [HEAL, start::SCALE, start::WAKE, start::ROLLBACK];

/// Is it a release, or the live one's way to machines that lack it? Such a one goes nowhere for more reasons than a hook.
fn is_forth(execution: &ExecutionSummary) -> bool {
    let kind = execution.kind.as_str();
    kind == runs::RELEASE || late::KINDS.contains(&kind)
}

/// The push that waits for an execution: that of the release that comes after it, or the newest in the queue. A newer base
/// can wait.
pub(super) fn held_up(
    db: &Db<'_>,
    place: &Place,
    execution: &ExecutionSummary,
) -> Result<Option<Push>, Error> {
    let after = runs::behind(db, place)?.filter(|after| after.id != execution.id);
    let mut pushes = match after {
        Some(after) => db.pushes_of_execution(place, &after.id)?,
        None => Vec::new(),
    };
    pushes.extend(db.waiting_push(place)?);
    let is_someones = |push: &Push| !matches!(push.origin.as_str(), REFRESH | AUTOMATIC);
    Ok(pushes.into_iter().find(is_someones))
}

/// Why an execution goes nowhere that was not told yet to give way, and the deployment that undoes it already, if there is
/// one: that is ended then.
fn goes_nowhere(
    db: &Db<'_>,
    place: &Place,
    execution: &ExecutionSummary,
    time: (Timestamp, SignedDuration),
) -> Result<Option<(String, Option<DeploymentId>)>, Error> {
    let lines = told(db, &execution.id)?;
    if let Some(undo) = db.open_undo(&execution.id)? {
        let doing = Doing::undoing(db, execution, &undo, &lines)?;
        let why = silent(db, place, &undo, &doing, time)?;
        return Ok(why.map(|why| (why, Some(undo.id))));
    }
    if is_told(&lines) || is_left_alone(db, execution)? {
        return Ok(None);
    }
    let mut why = None;
    if is_forth(execution) {
        why = broken(db, place, &execution.id)?;
    }
    if why.is_none() {
        why = hangs(db, place, execution, entered(&lines), time)?;
    }
    if why.is_none() {
        why = making::hangs(db, place, execution, time)?;
    }
    Ok(why.map(|why| (why, None)))
}

fn cause(push: &Push, why: &str) -> String {
    let commit = push.commit.id.get(..8).unwrap_or(&push.commit.id);
    format!("push {} of {commit} supersedes it, because {why}", push.id)
}

/// What the ledger says of an execution, newest first.
pub fn told(db: &Db<'_>, execution: &ExecutionId) -> Result<Vec<Line>, Error> {
    db.ledger(&LedgerFilter {
        object: Some(execution.to_string()),
        limit: super::cancel::LINES,
        ..LedgerFilter::default()
    })
}

fn is_told(lines: &[Line]) -> bool {
    let orders = [ACTION, super::cancel::ACTION];
    lines.iter().any(|line| orders.contains(&line.action.as_str()))
}

/// The last thing that failed, of lines that are newest first.
pub fn last_failure(lines: &[Line]) -> Option<&Line> {
    let has_failed = |line: &&Line| line.action.ends_with("Failed") || line.action.ends_with("TimedOut");
    lines.iter().find(has_failed)
}

/// Since when it does what it does now.
fn entered(lines: &[Line]) -> Option<Timestamp> {
    let entered = |line: &&Line| line.action.ends_with("StateEntered");
    lines.iter().find(entered).map(|line| line.at)
}

/// Does it what is finished, whoever wants it stopped? It undoes; or it migrates, of which nobody would know how far it
/// came.
pub fn is_left_alone(db: &Db<'_>, execution: &ExecutionSummary) -> Result<bool, Error> {
    let run = runs::open(db, execution.run)?;
    let is_finished = |resource: &str| definition::is_final(resource) || definition::is_migrating(resource);
    Ok(run.is_none_or(|run| {
        let mut orders = run.orders.values();
        runs::way_back(&run).is_some() || orders.any(|order| is_finished(&order.resource))
    }))
}

/// Why a release goes nowhere by itself, whatever its hooks do.
fn broken(db: &Db<'_>, place: &Place, execution: &ExecutionId) -> Result<Option<String>, Error> {
    let approvals = db.approvals_of_execution(execution)?;
    if approvals
        .iter()
        .any(|approval| approval.state == ApprovalState::Open)
    {
        return Ok(Some("it waits for people".into()));
    }
    let Some(own) = db.open_deployment(place, execution)? else {
        return Ok(None);
    };
    if let Some((who, _)) = &own.paused {
        return Ok(Some(format!("{who} paused it")));
    }
    let failed = db.hosts_of_release(place, own.release)?;
    let failed = failed.iter().find(|host| host.state == HostState::Failed);
    Ok(failed.map(|host| format!("it failed on host {}", host.id)))
}

/// What runs hooks.
const HOOKS: [&str; 5] = ["deploy", "roll", "machines", "step", "shift"];

/// Deployments that are looked at for how long hooks take here.
const RECENT: u32 = 5;

/// What a release does, and what was heard of it.
struct Doing<'a> {
    activities: Vec<&'a str>,
    /// Since when. What waits before it, for visitors or for people, is meant to wait.
    since: Timestamp,
    /// When a host told of an event for the last time.
    told: Option<Timestamp>,
}

impl Doing<'_> {
    /// What a way back in place does, from the beginning of this try on. Between two tries it waits for the platform, and
    /// nothing hangs.
    fn undoing(
        db: &Db<'_>,
        execution: &ExecutionSummary,
        undo: &Deployment,
        lines: &[Line],
    ) -> Result<Self, Error> {
        let is_tried = |order: &engine::Order| definition::activity(&order.resource) == Some("unwind");
        let run = runs::open(db, execution.run)?;
        let tried = run.is_some_and(|run| run.orders.values().any(is_tried));
        let before = last_failure(lines).map(|line| line.at);
        Ok(Self {
            activities: if tried { vec!["roll"] } else { Vec::new() },
            since: before.map_or(undo.started_at, |before| before.max(undo.started_at)),
            told: last(db, undo)?,
        })
    }

    /// For how long hosts that run hooks have told of nothing.
    fn silence(&self, now: Timestamp) -> SignedDuration {
        let in_hooks = self.activities.iter().any(|name| HOOKS.contains(name));
        let last = self.told.map_or(self.since, |told| told.max(self.since));
        match in_hooks {
            true => now.duration_since(last),
            false => SignedDuration::ZERO,
        }
    }
}

/// Why a release hangs in a hook: no host has told of anything for longer than it should take.
fn hangs(
    db: &Db<'_>,
    place: &Place,
    execution: &ExecutionSummary,
    entered: Option<Timestamp>,
    (now, patience): (Timestamp, SignedDuration),
) -> Result<Option<String>, Error> {
    let Some(own) = db.open_deployment(place, &execution.id)? else {
        return Ok(None);
    };
    let run = runs::open(db, execution.run)?;
    let orders = run.iter().flat_map(|run| run.orders.values());
    let doing = Doing {
        activities: orders
            .filter_map(|order| definition::activity(&order.resource))
            .collect(),
        since: entered.map_or(own.started_at, |entered| entered.max(own.started_at)),
        told: last(db, &own)?,
    };
    silent(db, place, &own, &doing, (now, patience))
}

/// When a host told of an event of a deployment for the last time.
fn last(db: &Db<'_>, own: &Deployment) -> Result<Option<Timestamp>, Error> {
    let events = db.deployment_events(&own.id)?.into_iter();
    let ends = events.map(|(_, report)| {
        let took = SignedDuration::try_from(Duration::from_millis(report.duration_ms)).unwrap_or_default();
        let ended = report.started_at.saturating_add(took);
        ended.unwrap_or(report.started_at)
    });
    Ok(ends.max())
}

/// Why a deployment hangs that does this.
fn silent(
    db: &Db<'_>,
    place: &Place,
    own: &Deployment,
    doing: &Doing<'_>,
    (now, patience): (Timestamp, SignedDuration),
) -> Result<Option<String>, Error> {
    let quiet = doing.silence(now);
    // Between two events a host's requests may take their time to end, by what its own release says.
    let hosts = db.standing_hosts(Some(place))?.into_iter();
    let mut releases: BTreeSet<u64> = hosts.filter_map(|host| host.release).collect();
    releases.insert(own.release);
    let mut drain = SignedDuration::ZERO;
    for release in releases {
        drain = drain.max(routes::delay(db, place, Some(release))?);
    }
    let meant = patience.saturating_add(drain);
    let allowed = meant.max(usual(db, place)?.saturating_mul(2));
    Ok((quiet > allowed).then(|| {
        let (quiet, allowed) = (quiet.as_secs(), allowed.as_secs());
        format!("it hangs in a hook: no host has told of anything for {quiet} s, and {allowed} s are enough")
    }))
}

/// The longest that all hooks of one host took in the last deployments that went well.
fn usual(db: &Db<'_>, place: &Place) -> Result<SignedDuration, Error> {
    let mut longest = SignedDuration::ZERO;
    for deployment in db.deployments(place, RECENT)? {
        if deployment.state != DeploymentState::Succeeded {
            continue;
        }
        let mut hosts: BTreeMap<HostId, Duration> = BTreeMap::new();
        for (host, report) in db.deployment_events(&deployment.id)? {
            *hosts.entry(host).or_default() += Duration::from_millis(report.duration_ms);
        }
        let most = hosts.into_values().max().unwrap_or_default();
        longest = longest.max(SignedDuration::try_from(most).unwrap_or(SignedDuration::MAX));
    }
    Ok(longest)
}

#[cfg(test)]
mod tests {
    use model::Digest;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn only_what_hooks_are_silent_for_counts() {
        let now = at(3600);
        for (what, activities, since, told, silent_s) in [
            ("a hook that hangs in the first hosts", ["deploy"], 10, None, 3590),
            (
                "a host told of something meanwhile",
                ["deploy"],
                10,
                Some(3000),
                600,
            ),
            (
                "all steps of a canary came in between",
                ["shift"],
                3590,
                Some(20),
                10,
            ),
            ("a zone was watched for an hour", ["machines"], 3598, Some(5), 2),
            ("somebody held it, and let it go", ["roll"], 3600, Some(40), 0),
            ("hosts of the next wave hang", ["roll"], 3000, Some(2990), 600),
            ("nobody knows how far a migration came", ["migrate"], 10, None, 0),
            ("visitors are watched", ["analyse"], 10, Some(5), 0),
        ] {
            let doing = Doing {
                activities: activities.to_vec(),
                since: at(since),
                told: told.map(at),
            };
            assert_eq!(doing.silence(now).as_secs(), silent_s, "{what}");
        }
    }

    #[test]
    fn what_it_does_began_when_it_entered_the_state() {
        let line = |number, action: &str| Line {
            number,
            at: at(i64::try_from(number).unwrap()),
            actor: "platform".into(),
            action: action.to_owned(),
            tenant: None,
            object: "x-1".into(),
            detail: "{}".into(),
            previous: Digest::of(""),
            digest: Digest::of(""),
        };
        let lines = [
            line(9, "execution.TaskFailed"),
            line(8, "execution.TaskStateEntered"),
            line(7, "execution.WaitStateEntered"),
        ];
        assert_eq!(entered(&lines), Some(at(8)));
        assert_eq!(entered(&lines[..1]), None);
    }
}
