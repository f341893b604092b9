//! Why an app is as it is: one sentence for each environment, and the next command to type.

use model::{
    AppName, TenantName,
    wire::{Execution, ExecutionState, Why, WhyEnvironment},
};
use store::{ApprovalState, Db, PushState};

use super::{
    executions, logs,
    refusal::Refusal,
    releases,
    state::{Names, State},
};
use crate::{
    flow::{
        alarms, cancel, migrate, runs,
        spread::{self, Spread},
        supersede, target,
    },
    output::without_next,
    reconcile::patience,
};

/// Pushes that are looked at for those that no environment took.
const RECENT: u32 = 20;

pub async fn of(state: &State, tenant: TenantName, app: AppName) -> Result<Why, Refusal> {
    let names = Names::clone(&state.names);
    let read = state.store.read(move |db| why(db, &names, tenant, app));
    let mut why = read.await?;
    for environment in &mut why.environments {
        // A log that nobody wrote a line to is no evidence. A node that cannot be asked says nothing about it.
        if let Some(log) = environment.log.as_ref().and_then(|log| log.parse().ok())
            && state.sight.log(log, 0).await.is_ok_and(|chunk| chunk.next == 0)
        {
            without_log(environment);
        }
    }
    Ok(why)
}

fn without_log(why: &mut WhyEnvironment) {
    let reads = why.log.take().map(|log| format!("vend logs {log}"));
    if why.next == reads {
        let execution = why.push.as_ref().and_then(|push| push.execution.as_ref());
        why.next = execution.map(|execution| format!("vend executions show {execution}"));
    }
}

fn why(db: &Db<'_>, names: &Names, tenant: TenantName, app: AppName) -> Result<Why, store::Error> {
    db.app(&tenant, &app)?;
    let pushes = db.pushes(&tenant, &app, None, None, RECENT)?;
    let mut environments = Vec::new();
    for environment in db.environments(Some((&tenant, Some(&app))))? {
        environments.push(of_environment(db, names, environment, &pushes)?);
    }
    let notes = notes(db, &tenant, &app, &pushes)?;
    let nothing = environments.is_empty() && notes.is_empty();
    let next = match nothing {
        true => Some(format!("vend push {tenant}/{app}")),
        false => environments
            .iter()
            .find_map(|environment| environment.next.clone()),
    };
    Ok(Why {
        tenant,
        app,
        environments,
        notes,
        next,
    })
}

/// The newest pushes that no environment took, and the newest delivery if it was refused.
fn notes(
    db: &Db<'_>,
    tenant: &TenantName,
    app: &AppName,
    pushes: &[store::Push],
) -> Result<Vec<String>, store::Error> {
    let mut notes = Vec::new();
    let newest = db.deliveries(Some(tenant), Some(app), None, 1)?.pop();
    if let Some(delivery) = newest.filter(|delivery| delivery.verdict == store::DeliveryVerdict::Refused) {
        let reason = delivery.reason.unwrap_or_default();
        notes.push(format!(
            "the last webhook was refused: {reason} (vend webhooks show {})",
            delivery.id
        ));
    }
    for push in pushes.iter().take_while(|push| push.environment.is_none()) {
        let id = short(push);
        let reason = push.reason.as_deref().unwrap_or("its vend.yaml is being read");
        notes.push(format!("push of {id} to {}: {reason}", push.branch));
    }
    Ok(notes)
}

fn of_environment(
    db: &Db<'_>,
    names: &Names,
    environment: store::Environment,
    pushes: &[store::Push],
) -> Result<WhyEnvironment, store::Error> {
    let asked = names(db, &environment)?;
    let place = environment.place;
    let push = db
        .pushes(&place.tenant, &place.app, Some(&place.environment), None, 1)?
        .pop();
    let mut why = WhyEnvironment {
        environment: place.environment.clone(),
        live: environment.live,
        push: None,
        up_to_date: false,
        sentence: String::new(),
        error: None,
        said: Vec::new(),
        log: None,
        way_back: way_back(db, &place)?,
        next: None,
    };
    let Some(push) = push else {
        why.sentence = format!("nothing was pushed to its branch {} yet", environment.branch);
        why.next = Some(format!(
            "vend push {}/{} --branch {}",
            place.tenant, place.app, environment.branch
        ));
        return Ok(why);
    };
    // Old executions are forgotten, and what they released goes on.
    let summary = push.execution.as_ref().map(|id| db.execution_summary(id));
    let execution = match summary {
        Some(Ok(summary)) => Some(executions::wire(db, summary)?),
        None | Some(Err(store::Error::Missing { .. })) => None,
        Some(Err(error)) => return Err(error),
    };
    match (push.state, &execution) {
        (PushState::Waiting, _) => waiting(db, &mut why, &place)?,
        (PushState::Running, Some(execution)) => running(&mut why, execution),
        (PushState::Running, None) => why.sentence = "its release is being started".into(),
        (PushState::Superseded, _) => why.sentence = "a newer push took its place".into(),
        (PushState::Ignored, _) => why.sentence = "its last push is not released".into(),
        (PushState::Failed, _) => failed(db, &mut why, &push, execution.as_ref())?,
        (PushState::Done, _) => done(db, &mut why, &place, &push)?,
    }
    if let Some(reason) = push
        .reason
        .as_ref()
        .filter(|_| push.state != PushState::Done && why.error.is_none())
    {
        why.sentence = format!("{}: {reason}", why.sentence);
    }
    if let Some(failing) = patience::failing(db, &place)? {
        heals(&mut why, failing);
    }
    if !matches!(push.state, PushState::Waiting | PushState::Running)
        && let Some(spread) = spread::of(db, &place)?
    {
        torn(&mut why, &place, &spread);
    }
    let rule = environment
        .spec
        .as_ref()
        .and_then(|spec| spec.deploy.alarms.as_ref());
    if let Some(ring) = alarms::ring(db, &place.tenant, rule)? {
        why.sentence = format!("{}; no release is deployed now: {ring}", why.sentence);
        // What failed otherwise, or waits for people, comes first.
        why.next.get_or_insert_with(|| alarms::next(&place.tenant, &ring));
    }
    for (name, problem) in asked.into_iter().filter_map(|own| Some((own.name, own.problem?))) {
        why.sentence = format!("{}; {name} does not lead here: {problem}", why.sentence);
    }
    if let Some(own) = db.find_move(&place)?.filter(|own| own.closed) {
        let until = match own.closed_until {
            Some(until) => format!("until {}", until.strftime("%H:%M:%S UTC")),
            None => "until somebody ends that".to_owned(),
        };
        why.sentence = format!(
            "nobody is served (503): its data is on the way, or whoever carried it has stopped; {until}, if nobody says that it goes on"
        );
        why.next = Some(format!("vend move {place} --abort, or the same move again"));
    }
    if let Some(reason) = refused(pushes, &environment.branch, &push) {
        why.sentence = format!("{reason}; before it: {}", why.sentence);
        why.next
            .get_or_insert_with(|| "vend check, and push again".into());
        why.up_to_date = false;
    }
    why.push = Some(releases::push(push));
    Ok(why)
}

/// Why the newest push to the environment's branch came to none, as when its files are wrong. `last`: the last that came to this
/// one. The same commit may be refused to another environment, which is no matter of this one.
fn refused(pushes: &[store::Push], branch: &str, last: &store::Push) -> Option<String> {
    let newest = pushes.iter().find(|push| push.branch == branch);
    let push = newest
        .filter(|push| push.environment.is_none() && push.id > last.id && push.commit.id != last.commit.id)?;
    let reason = push.reason.as_ref()?;
    Some(format!("the push of {} is refused: {reason}", short(push)))
}

/// Its commit, as people say it.
fn short(push: &store::Push) -> &str {
    push.commit.id.get(..8).unwrap_or(&push.commit.id)
}

/// Why a rollback that names no release would be refused, for the sake of the data.
fn way_back(db: &Db<'_>, place: &model::Place) -> Result<Option<String>, store::Error> {
    match target::find(db, place, None)? {
        Ok(to) => migrate::in_the_way(db, place, to),
        Err(_) => Ok(None),
    }
}

/// Hosts are missing and cannot be replaced: that comes before everything else that is to be said.
fn heals(why: &mut WhyEnvironment, failing: patience::Failing) {
    let next = failing.next.strftime("%H:%M:%S UTC");
    let times = match failing.times {
        1 => "once".to_owned(),
        many => format!("{many} times"),
    };
    why.sentence = format!(
        "{}; hosts are missing, and replacing them failed {times}, it is tried again at {next}",
        why.sentence
    );
    why.error = failing.cause.or_else(|| why.error.take());
    why.next = Some(format!("vend executions show {}", failing.last));
}

/// Machines that lack the live release get it by themselves, until that has failed too often or somebody stopped it: then
/// somebody must lay it on them again.
fn torn(why: &mut WhyEnvironment, place: &model::Place, spread: &Spread) {
    let sentence = spread.sentence();
    if !sentence.is_empty() {
        why.sentence = format!("{}, and {sentence}", why.sentence);
    }
    if let Some(outlook) = spread.outlook() {
        why.sentence = format!("{}; {outlook}", why.sentence);
    }
    let Some(live) = spread.live.filter(|_| !spread.is_whole()) else {
        return;
    };
    why.up_to_date = false;
    let again = format!("vend rollback {place} --to v{live}");
    why.next = match (&spread.joining, &spread.tried) {
        (Some(joining), _) => Some(format!("vend executions show {joining} --follow")),
        (None, Some(tried)) if !spread.is_torn() => Some(match &tried.deployment {
            Some(deployment) => format!("vend deployments show {deployment}"),
            None => format!("vend deployments list {place}"),
        }),
        (None, None) if !spread.is_torn() && spread.ill == 0 => return,
        _ => Some(again),
    };
    if let Some(failure) = spread.tried.as_ref().and_then(|tried| tried.failure.clone()) {
        why.error = Some(failure);
    }
}

fn waiting(db: &Db<'_>, why: &mut WhyEnvironment, place: &model::Place) -> Result<(), store::Error> {
    why.sentence = match db.open_execution(place, None)? {
        Some(execution) => {
            let (kind, id) = (&execution.kind, &execution.id);
            why.next = Some(format!("vend executions show {id} --follow"));
            let run = runs::open(db, execution.run)?;
            let failed = run.as_ref().and_then(runs::way_back).unwrap_or_default();
            match run.is_some_and(|run| runs::is_making(&run)) {
                true => format!(
                    "the last push waits until {kind} {id} has ended, which is still built or baked (vend executions \
                     cancel {id})"
                ),
                false if failed >= cancel::ENOUGH => format!(
                    "the last push waits until {kind} {id} has ended, whose way back has failed {failed} times (vend \
                     executions cancel {id} leaves it half way)"
                ),
                false if supersede::is_left_alone(db, &execution)? => {
                    format!("the last push waits until {kind} {id} has ended")
                }
                false => format!(
                    "the last push waits until {kind} {id} has ended (vend executions cancel {id} ends it now)"
                ),
            }
        }
        None if db.find_move(place)?.is_some() => {
            why.next = Some(format!("vend move {place} --abort"));
            "the last push waits while the environment is moved to AWS".into()
        }
        None => "the last push is about to be released".into(),
    };
    Ok(())
}

fn running(why: &mut WhyEnvironment, execution: &Execution) {
    let stage = execution.stage.as_deref().unwrap_or("the next stage");
    why.sentence = match &execution.waiting {
        Some(waiting) => format!("the last push waits for {waiting}"),
        None => format!("the last push is on its way: {stage}"),
    };
    let approval = execution.waiting.as_deref().and_then(|waiting| {
        let (_, command) = waiting.split_once("(vend approve ")?;
        Some(format!("vend approve {}", command.trim_end_matches(')')))
    });
    why.next = Some(approval.unwrap_or_else(|| format!("vend executions show {} --follow", execution.id)));
}

/// The release that an execution made.
fn brought(
    db: &Db<'_>,
    place: &model::Place,
    execution: Option<&Execution>,
) -> Result<Option<u64>, store::Error> {
    let Some(execution) = execution else {
        return Ok(None);
    };
    let release = db.release_of_execution(place, &execution.id)?;
    Ok(release.map(|release| release.content.number))
}

fn failed(
    db: &Db<'_>,
    why: &mut WhyEnvironment,
    push: &store::Push,
    execution: Option<&Execution>,
) -> Result<(), store::Error> {
    let place = model::Place {
        tenant: push.tenant.clone(),
        app: push.app.clone(),
        environment: why.environment.clone(),
    };
    let stays = match why.live {
        Some(live) if spread::of(db, &place)?.is_some() => format!("v{live} is live"),
        // Its hosts were through all, and those before them had parted.
        Some(live) if brought(db, &place, execution)? == Some(live) => {
            format!("v{live}, which it brought, is live all the same and stays")
        }
        Some(live) => format!("v{live} still serves"),
        None => "nothing serves yet".to_owned(),
    };
    why.sentence = format!("the last push failed, {stays}");
    why.error = push.reason.clone();
    let Some(execution) = execution else {
        why.next = Some(format!("vend push {}/{}", push.tenant, push.app));
        return Ok(());
    };
    if execution.state == ExecutionState::Cancelled {
        why.sentence = format!("the last push was cancelled, {stays}");
    }
    let cause = execution.cause.as_ref().or(execution.error.as_ref());
    let suggested = cause.and_then(|cause| {
        let (error, next) = without_next(cause);
        why.error = Some(error);
        next
    });
    if let Some(no) = rejection(db, execution)? {
        why.sentence = format!("{no}; {stays}");
        why.next = Some(format!("vend push {}/{}, or ask them", push.tenant, push.app));
        return Ok(());
    }
    why.said = last_words(db, why, push, execution)?;
    // The failed work's own log, else the last one that was written.
    let builds = db.builds_of_execution(&execution.id)?.into_iter();
    let bakes = db.bakes_of_execution(&execution.id)?.into_iter();
    let faults = builds
        .map(|build| (build.fault, build.log))
        .chain(bakes.map(|bake| (bake.fault, bake.log)));
    let faulty = faults
        .rev()
        .find_map(|(fault, log)| fault.map(|fault| (fault.next, fault.evidence.or(log))));
    let worked = faulty.is_some();
    let (next, log) = match faulty {
        Some((next, log)) => (next, log.map(|log| log.to_string())),
        None => {
            let logs = logs::of_execution(db, &execution.id)?;
            // No build and no bake failed: what the others wrote is about something else.
            let mut logs = logs
                .into_iter()
                .filter(|entry| !matches!(entry.kind.as_str(), "build" | "bake"));
            (None, logs.next_back().map(|entry| entry.log))
        }
    };
    // What failed knows its own evidence; the newest log is only a guess.
    let next = next.or(suggested).map(|next| of_app(next, push));
    let named = next.as_ref().and_then(|next| next.strip_prefix("vend logs "));
    let named = named.filter(|log| log.starts_with("host/") || log.contains("/t-"));
    why.log = match &next {
        Some(_) if !worked => named.map(str::to_owned),
        Some(_) => named.map(str::to_owned).or(log),
        None => log,
    };
    why.next = next.or_else(|| match &why.log {
        Some(log) => Some(format!("vend logs {log}")),
        None => Some(format!("vend executions show {}", execution.id)),
    });
    Ok(())
}

/// Who rejected the plan of an execution, when, and why.
fn rejection(db: &Db<'_>, execution: &Execution) -> Result<Option<String>, store::Error> {
    let approvals = db.approvals_of_execution(&execution.id)?;
    let rejected = approvals
        .iter()
        .rev()
        .find(|approval| approval.state == ApprovalState::Rejected);
    let no = rejected.and_then(|approval| {
        let no = approval.decisions.iter().find(|decision| !decision.yes)?;
        Some(format!(
            "v{} was rejected by {} on {}: {}",
            approval.plan.to,
            no.actor,
            no.at.strftime("%Y-%m-%d at %H:%M UTC"),
            no.why.as_deref().unwrap_or("no reason was given")
        ))
    });
    Ok(no)
}

/// Lines of a failed script's output that are shown.
const LAST_WORDS: usize = 12;
const LONGEST_WORD: usize = 300;

/// What failed on the first host where something failed: the last lines that its script wrote.
fn last_words(
    db: &Db<'_>,
    why: &WhyEnvironment,
    push: &store::Push,
    execution: &Execution,
) -> Result<Vec<String>, store::Error> {
    let place = model::Place {
        tenant: push.tenant.clone(),
        app: push.app.clone(),
        environment: why.environment.clone(),
    };
    let deployments = db.deployments(&place, RECENT)?;
    // One that was undone has another beside it, in which nothing failed.
    let own = deployments
        .into_iter()
        .filter(|deployment| deployment.execution.as_ref() == Some(&execution.id));
    let mut failure = None;
    for deployment in own {
        let events = db.deployment_events(&deployment.id)?;
        failure = failure.or(events.into_iter().find_map(|(_, event)| event.failure));
    }
    Ok(failure.map_or_else(Vec::new, |failure| last_lines(&failure.log)))
}

fn last_lines(log: &str) -> Vec<String> {
    let said: Vec<&str> = crate::flow::said(log).collect();
    let last = &said[said.len().saturating_sub(LAST_WORDS)..];
    last.iter()
        .map(|line| line.chars().take(LONGEST_WORD).collect())
        .collect()
}

/// A build knows the secret that it lacks, and not the app that it is of.
fn of_app(next: String, push: &store::Push) -> String {
    match next.strip_prefix("vend secrets set ") {
        Some(name) if !name.contains([' ', ',']) => {
            format!("vend secrets set {}/{} {name}", push.tenant, push.app)
        }
        _ => next,
    }
}

fn done(
    db: &Db<'_>,
    why: &mut WhyEnvironment,
    place: &model::Place,
    push: &store::Push,
) -> Result<(), store::Error> {
    let made = match &push.execution {
        Some(execution) => db.release_of_execution(place, execution)?,
        None => None,
    };
    match (made.map(|release| release.content.number), why.live) {
        (Some(made), Some(live)) if made != live => {
            why.sentence = format!("the last push became v{made}, and v{live} serves: somebody went back");
            why.next = Some(format!("vend rollback {place} --to v{made}"));
        }
        (_, Some(live)) => {
            why.up_to_date = true;
            why.sentence = format!("the last push is live as v{live}");
        }
        (_, None) => why.sentence = "the last push was released, and nothing is live any more".into(),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
