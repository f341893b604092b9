//! The revision: the source run through its buildspec, tests included.

mod given;
pub(super) mod place;
mod whole;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use host::build::{batch, fits, gate, report};
use jiff::{SignedDuration, Timestamp};
use model::{
    Digest, Place, Secret, Ticket,
    port::{BuildLimits, BuildOrder, Built, Commit, Fault, GIT_CREDENTIALS, PushEvent, TestReport},
    spec::{
        self,
        build::{Batch, Env, SecretRef, Task},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use store::{By, NewBuild, Store};

use super::{Attempt, World, chain, state::Sourced, stored, variables};

const FILE_ERROR: &str = spec::Buildspec::FILE_ERROR;

/// The secret that git's helper answers with: `USER:PASSWORD`.
const GIT_SECRET: &str = "git-credentials";

#[derive(Deserialize)]
struct Input {
    place: Place,
    commit: Commit,
    /// `None`: nobody told anything of the push, or a version before this one began the execution.
    #[serde(default)]
    event: Option<PushEvent>,
    spec: spec::Environment,
    source: Sourced,
}

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let input: Input = attempt.read()?;
    let Some(path) = &input.spec.build.buildspec else {
        // Nothing to build: the revision is the source.
        return Ok(json!({ "revision": input.source.digest, "log": null, "reports": [] }));
    };
    let buildspec = read(world, &input, path.as_str()).await?;
    let batch = buildspec.batch.clone().filter(|_| input.spec.build.batch);
    let Some(batch) = batch else {
        if buildspec.is_batch_only() {
            return Err(idle(path.as_str(), spec::Buildspec::RUN_BATCH));
        }
        let built = build(world, attempt, &input, buildspec, None).await?;
        return Ok(answer(built.artifact, &built, &built.reports));
    };
    // What is known of all of them is said before one runs.
    let specs = specs(world, &input, &buildspec, &batch).await?;
    let offers = place::offers(world, &input.place.tenant).await?;
    let before = before(world, attempt).await?;
    fits(&before.rest(&batch), &offers, |task| specs.get(&task.identifier))?;
    let count = batch.tasks.iter().filter(|task| !task.ignore_failure);
    let project = count
        .clone()
        .flat_map(|task| given::secrets(&input.spec.build, Some(task)));
    let counts = count.filter_map(|task| specs.get(&task.identifier));
    lacks(&world.store, &input.place, counts, project).await?;
    // As many as the queue of each machine takes at a time, and those that wait there in its order.
    let one = |task: Task| {
        let own = specs.get(&task.identifier).unwrap_or(&buildspec).clone();
        let input = &input;
        async move { build(world, attempt, input, own, Some(task)).await }
    };
    let most = input.spec.build.batch_timeout;
    let built = within(
        most,
        before.since,
        batch::run(&batch, batch.tasks.len(), one, |_| ()),
    )
    .await?;
    let Some((_, last)) = built.last() else {
        return Err(Fault::customer("no build of the batch succeeded"));
    };
    let reports = built.iter().flat_map(|(_, built)| built.reports.clone());
    let limits = world.platform.build_limits(&input.spec.build);
    let is_fan_out = batch.tasks.iter().any(Task::is_part);
    let reports = whole_reports(limits, is_fan_out, reports.collect())
        .map_err(|fault| fault.evidence(last.log.clone()))?;
    let revision = match input.spec.build.combine_artifacts {
        true => {
            let tmp = world.data.serve().join("tmp");
            whole::combined(&world.node, &tmp, &built).await?
        }
        false => last.artifact,
    };
    Ok(answer(revision, last, &reports))
}

/// What each build of a batch runs, by its identifier.
async fn specs(
    world: &World,
    input: &Input,
    whole: &spec::Buildspec,
    batch: &Batch,
) -> Result<BTreeMap<String, spec::Buildspec>, Fault> {
    let mut known: BTreeMap<&str, spec::Buildspec> = BTreeMap::new();
    let mut specs = BTreeMap::new();
    for task in &batch.tasks {
        let own = match task.buildspec.as_deref() {
            None => whole.clone(),
            Some(path) => match known.get(path) {
                Some(known) => known.clone(),
                None => {
                    let new = read(world, input, path).await?;
                    if new.is_batch_only() {
                        return Err(idle(path, spec::Buildspec::NOT_AGAIN));
                    }
                    known.insert(path, new.clone());
                    new
                }
            },
        };
        let own = given::apart(own, &input.spec.build, Some(task));
        specs.insert(task.identifier.clone(), own);
    }
    Ok(specs)
}

/// Refuses a buildspec that has only a batch, where it would be run as one build.
fn idle(path: &str, next: &str) -> Fault {
    Fault::order(format!("{path}: {}", spec::Buildspec::BATCH_ONLY)).next(next)
}

/// What a batch had begun before a restart of serve, or a retry.
struct Before {
    /// When its first build began. `None`: it begins now.
    since: Option<Timestamp>,
    /// Its builds that have begun, by their identifiers.
    builds: BTreeSet<String>,
}

impl Before {
    /// What is yet to begin of a batch. What has begun goes on where it is, also when that has other labels now.
    fn rest(&self, batch: &Batch) -> Batch {
        let mut rest = batch.clone();
        rest.tasks.retain(|task| !self.builds.contains(&task.identifier));
        rest
    }
}

async fn before(world: &World, attempt: &Attempt) -> Result<Before, Fault> {
    let execution = attempt.execution.clone();
    let builds = world.store.read(move |db| db.builds_of_execution(&execution));
    let builds = builds.await.map_err(stored)?;
    Ok(Before {
        since: builds.iter().map(|build| build.started_at).min(),
        builds: builds.into_iter().filter_map(|build| build.identifier).collect(),
    })
}

/// What is left of the time of a batch that began then.
fn left(most: SignedDuration, begun: Option<Timestamp>, now: Timestamp) -> Duration {
    /// Answers that are there already come in it, after a restart that was long in coming.
    const ANSWERS: Duration = Duration::from_secs(60);
    let most = most.try_into().unwrap_or(Duration::ZERO);
    let gone = begun.map_or(SignedDuration::ZERO, |begun| now.duration_since(begun));
    let gone = gone.try_into().unwrap_or(Duration::ZERO);
    most.saturating_sub(gone).max(most.min(ANSWERS))
}

/// A batch that ends before its time is over. Each build has a time of its own beside: from when its commands begin.
/// What still goes on afterwards is stopped on the way back.
async fn within<T>(
    most: SignedDuration,
    begun: Option<Timestamp>,
    batch: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let limit = left(most, begun, crate::clock::now());
    tokio::time::timeout(limit, batch).await.unwrap_or_else(|_| {
        let message = format!(
            "the batch did not end within {most:#}, which `build.batch_timeout` gives all its builds"
        );
        Err(Fault::customer(message).next("give it more: `build.batch_timeout` in vend.yaml"))
    })
}

/// What is asked of one build. The rest is asked of its batch: see [`whole_reports`].
fn own_limits(mut limits: BuildLimits, task: Option<&Task>) -> BuildLimits {
    if task.is_some() {
        // Not every build of a batch has to tell of lines.
        limits.coverage_percent = None;
    }
    if task.is_some_and(Task::is_part) {
        (limits.pass_rate_percent, limits.tests_asked) = (0.0, false);
    }
    limits
}

/// What the builds of a batch said of their tests, if that is what is asked of all of them together: how many lines their tests
/// reach, and of a fan-out how many passed. The rest was asked of each build.
fn whole_reports(
    mut limits: BuildLimits,
    is_fan_out: bool,
    reports: Vec<TestReport>,
) -> Result<Vec<TestReport>, Fault> {
    let reports = match is_fan_out {
        true => report::merge(reports),
        false => {
            (limits.pass_rate_percent, limits.tests_asked) = (0.0, false);
            reports
        }
    };
    gate(&limits, &reports)?;
    Ok(reports)
}

fn answer(revision: Digest, built: &Built, reports: &[TestReport]) -> Value {
    json!({ "revision": revision, "log": built.log, "reports": reports })
}

/// One build, with its row.
async fn build(
    world: &Arc<World>,
    attempt: &Attempt,
    input: &Input,
    buildspec: spec::Buildspec,
    task: Option<Task>,
) -> Result<Built, Fault> {
    let ticket = match &task {
        Some(task) => attempt.steady.part(&task.slug()),
        None => attempt.steady.clone(),
    };
    let project = &input.spec.build;
    let buildspec = given::apart(buildspec, project, task.as_ref());
    let own = given::secrets(project, task.as_ref());
    lacks(&world.store, &input.place, [&buildspec], own).await?;
    let mut secrets = secrets(&world.store, &input.place, &buildspec).await?;
    let (variables, own) = given::project(&world.store, &input.place, project, task.as_ref()).await?;
    secrets.extend(own);
    let new = NewBuild {
        ticket: ticket.clone(),
        place: input.place.clone(),
        execution: Some(attempt.execution.clone()),
        commit: input.commit.clone(),
        source: input.source.digest,
        identifier: task.as_ref().map(|task| task.identifier.clone()),
        log: format!("build/{ticket}").parse().ok(),
    };
    let by = By::platform(crate::clock::now());
    let row = world
        .store
        .write(move |tx| tx.begin_build(&new, &by))
        .await
        .map_err(stored)?;
    let limits = own_limits(world.platform.build_limits(&input.spec.build), task.as_ref());
    let order = BuildOrder {
        place: input.place.clone(),
        source: input.source.digest,
        buildspec,
        commit: input.commit.clone(),
        number: row.number,
        variables,
        secrets,
        limits,
        labels: BTreeMap::new(),
        image: input.spec.build.image.clone(),
        login: login(world, &input.place, &input.spec.build).await?,
        task,
        push: Some(input.event.clone().unwrap_or_default()),
        trunk: super::images::trunk(world, &input.place).await?,
    };
    // With all that a build elsewhere takes it is large.
    let built = Box::pin(place::build(world, &ticket, &order)).await;
    finish(world, ticket, built.clone()).await?;
    built
}

async fn finish(world: &World, ticket: Ticket, outcome: Result<Built, Fault>) -> Result<(), Fault> {
    let by = By::platform(crate::clock::now());
    let finished = world
        .store
        .write(move |tx| tx.finish_build(&ticket, outcome.as_ref(), &by));
    finished.await.map_err(stored)
}

async fn read(world: &World, input: &Input, path: &str) -> Result<spec::Buildspec, Fault> {
    let bytes = world.repository(&input.place).read(&input.commit.id, path).await;
    parsed(path, &bytes.map_err(|error| unread(path, &error))?)
}

fn unread(path: &str, error: &crate::git::Error) -> Fault {
    let is_missing =
        matches!(error, crate::git::Error::Failed { stderr, .. } if stderr.contains("does not exist"));
    let before = match is_missing {
        true => spec::Buildspec::FILE_MISSING,
        false => "",
    };
    Fault::order(format!("{before}cannot read {path}: {}", chain(error)))
}

fn parsed(path: &str, bytes: &[u8]) -> Result<spec::Buildspec, Fault> {
    let spec = spec::decode(path, bytes)
        .map_err(|problem| vec![problem])
        .and_then(|text| spec::Buildspec::parse(text, path));
    match spec {
        Ok((buildspec, _warnings)) => Ok(buildspec),
        Err(problems) => {
            let told = super::intake::told(&problems);
            Err(Fault::order(format!("{FILE_ERROR}{told}")).next("vend check"))
        }
    }
}

/// The secrets that a buildspec cannot do without; not those of which it names an old version, which may be all that there is.
fn named(env: &Env) -> impl Iterator<Item = &str> {
    let parameters = env.parameter_store.values();
    let latest = env
        .secrets_manager
        .values()
        .filter(|wanted| wanted.version.is_none());
    parameters
        .map(|name| name.trim_start_matches('/'))
        .chain(latest.map(SecretRef::name))
}

/// Refuses builds whose secrets, or their project's, are not all there, and names all that are not.
async fn lacks<'s>(
    store: &Store,
    place: &Place,
    specs: impl IntoIterator<Item = &'s spec::Buildspec>,
    project: impl Iterator<Item = &'s str>,
) -> Result<(), Fault> {
    let own = place.clone();
    let known = store.read(move |db| db.current_secrets(&own)).await;
    let known = known.map_err(stored)?;
    let wanted = specs.into_iter().flat_map(|spec| named(&spec.env)).chain(project);
    let lacking: BTreeSet<&str> = wanted.filter(|name| !known.contains_key(*name)).collect();
    match lacking.is_empty() {
        true => Ok(()),
        false => Err(missing(place, lacking)),
    }
}

/// Values of the buildspec's `secrets-manager` and `parameter-store` variables, from the vault.
async fn secrets(
    store: &Store,
    place: &Place,
    buildspec: &spec::Buildspec,
) -> Result<BTreeMap<String, Secret>, Fault> {
    let env = &buildspec.env;
    let mut secrets = BTreeMap::new();
    for (variable, name) in &env.parameter_store {
        let name = name.trim_start_matches('/');
        let value = variables::reveal(store, place, name, None).await?;
        secrets.insert(variable.clone(), value.ok_or_else(|| missing(place, [name]))?);
    }
    for (variable, wanted) in &env.secrets_manager {
        secrets.insert(variable.clone(), secret(store, place, wanted).await?);
    }
    // As on CodeBuild the helper may have nothing to answer with: what is public can be cloned all the same. The log says so.
    if env.git_credential_helper
        && let Some(value) = variables::reveal(store, place, GIT_SECRET, None).await?
    {
        secrets.insert(GIT_CREDENTIALS.to_owned(), value);
    }
    Ok(secrets)
}

/// What the registry of the build's image is asked with.
async fn login(world: &World, place: &Place, build: &spec::Build) -> Result<Option<Secret>, Fault> {
    match &build.login {
        Some(name) => super::images::secret(world, place, name).await.map(Some),
        None => Ok(None),
    }
}

async fn secret(store: &Store, place: &Place, wanted: &SecretRef) -> Result<Secret, Fault> {
    let name = wanted.name();
    let version = version(store, place, wanted).await?;
    let value = variables::reveal(store, place, name, version)
        .await?
        .ok_or_else(|| missing(place, [name]))?;
    match &wanted.json_key {
        None => Ok(value),
        Some(key) => field(&value, key).ok_or_else(|| {
            Fault::order(format!(
                "the secret `{name}` is not a JSON object with the text field `{key}`"
            ))
            .next(format!(
                "vend secrets set {}/{} {name}, with a JSON object such as {{\"{key}\":\"VALUE\"}}",
                place.tenant, place.app
            ))
        }),
    }
}

/// The number of the version that is wanted; `None` is the newest. Versions here are numbered from 1.
async fn version(store: &Store, place: &Place, wanted: &SecretRef) -> Result<Option<u64>, Fault> {
    if let Some(id) = &wanted.version {
        let number = id.trim_start_matches('v').parse().ok();
        let name = wanted.name();
        return number.map(Some).ok_or_else(|| {
            Fault::order(format!(
                "the secret `{name}` has no version `{id}`: versions are numbers"
            ))
        });
    }
    match wanted.stage.as_deref() {
        None | Some("AWSCURRENT") => Ok(None),
        Some("AWSPREVIOUS") => {
            let (own, name) = (place.clone(), wanted.name().to_owned());
            let previous = store.read(move |db| db.previous_secret(&own, &name)).await;
            previous.map_err(stored)?.map(Some).ok_or_else(|| {
                Fault::order(format!(
                    "the secret `{}` has no version before this one",
                    wanted.name()
                ))
            })
        }
        Some(stage) => Err(Fault::order(format!(
            "the secret `{}` has no stage `{stage}`: there are AWSCURRENT and AWSPREVIOUS",
            wanted.name()
        ))),
    }
}

/// A field of a secret that is a JSON object. A number or a boolean is text as it is written: RDS writes `"port": 5432`.
fn field(value: &Secret, key: &str) -> Option<Secret> {
    let value: Value = serde_json::from_str(value.expose()).ok()?;
    let text = match value.get(key)? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    Some(Secret::new(text))
}

/// All that are not there, at once.
pub fn missing<'a>(place: &Place, names: impl IntoIterator<Item = &'a str>) -> Fault {
    let names: Vec<&str> = names.into_iter().collect();
    let set = |name: &&str| format!("vend secrets set {}/{} {name}", place.tenant, place.app);
    let sets: Vec<String> = names.iter().map(set).collect();
    let what = match names.as_slice() {
        [one] => format!("there is no secret `{one}`"),
        several => format!("there are no secrets `{}`", several.join("`, `")),
    };
    Fault::order(what).next(format!("{}, then vend push again", sets.join(", ")))
}

#[cfg(test)]
mod tests;
