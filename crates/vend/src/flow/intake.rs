//! From a stored push to a running execution: the files at the commit are read and checked, the environments that
//! follow the branch are found, and each takes the newest push that waits for it.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use camino::Utf8Path;
use jiff::SignedDuration;
use model::{
    AppName, EnvironmentName, Place, Problem, TenantName,
    port::Fault,
    spec::{self, Files},
};
use store::{By, NewPush, Push, PushState, Tx};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{World, chain, deletion, start, stored, supersede};
use crate::git::Repository;

const EVERY: Duration = Duration::from_secs(5);
/// A repository elsewhere that does not answer is asked again for this long.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);
const SPEC_FILE: &str = "vend.yaml";

/// Apps that are taken in side by side, and of one tenant: a slow repository makes nobody else wait.
const AT_ONCE: usize = 8;
const OF_ONE_TENANT: usize = 2;

type Key = (TenantName, AppName);

/// What an app's pushes need next.
#[derive(Default)]
struct Work {
    pushes: Vec<Push>,
    places: Vec<Place>,
}

/// Which pushes and places a work was about.
type Tried = (Vec<u64>, Vec<Place>);

impl Work {
    fn tried(&self) -> Tried {
        let pushes = self.pushes.iter().map(|push| push.id);
        (pushes.collect(), self.places.clone())
    }
}

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    let mut under_way: JoinSet<Key> = JoinSet::new();
    let mut busy: BTreeSet<Key> = BTreeSet::new();
    // What was tried and is still there waits for time or news: trying it again at once would not end.
    let mut tried: BTreeMap<Key, Tried> = BTreeMap::new();
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        match waiting(&world).await {
            Ok(waiting) => {
                for (key, work) in chosen(waiting, &busy, &tried) {
                    busy.insert(key.clone());
                    tried.insert(key.clone(), work.tried());
                    let world = Arc::clone(&world);
                    under_way.spawn(async move {
                        take_in(&world, work).await;
                        key
                    });
                }
            }
            Err(fault) => warn!("pushes could not be taken in: {fault}"),
        }
        if let Err(fault) = supersede::look(&world).await {
            warn!("what is broken could not give way: {fault}");
        }
        tokio::select! {
            () = cancel.cancelled() => return under_way.shutdown().await,
            Some(ended) = under_way.join_next() => match ended {
                Ok(key) => drop(busy.remove(&key)),
                // Nobody knows whose it was: what is under way is begun anew, and finds what it has done.
                Err(error) => {
                    warn!(%error, "an intake broke off");
                    under_way.shutdown().await;
                    busy.clear();
                }
            },
            () = world.pokes.pushes.notified() => tried.clear(),
            _ = tick.tick() => tried.clear(),
        }
    }
}

/// What waits, by app.
async fn waiting(world: &World) -> Result<BTreeMap<Key, Work>, Fault> {
    let read = world
        .store
        .read(|db| Ok((db.unassigned_pushes()?, db.places_to_release()?)));
    let (pushes, places) = read.await.map_err(stored)?;
    let mut waiting: BTreeMap<Key, Work> = BTreeMap::new();
    for push in pushes {
        let key = (push.tenant.clone(), push.app.clone());
        waiting.entry(key).or_default().pushes.push(push);
    }
    for place in places {
        let key = (place.tenant.clone(), place.app.clone());
        waiting.entry(key).or_default().places.push(place);
    }
    Ok(waiting)
}

/// The apps that may begin beside those that are busy, and of which not the very same was tried just now. Those whose
/// oldest push has waited longest go first.
fn chosen(
    waiting: BTreeMap<Key, Work>,
    busy: &BTreeSet<Key>,
    tried: &BTreeMap<Key, Tried>,
) -> Vec<(Key, Work)> {
    let mut waiting: Vec<(Key, Work)> = waiting
        .into_iter()
        .filter(|(key, work)| tried.get(key) != Some(&work.tried()))
        .collect();
    waiting.sort_by_key(|(_, work)| work.pushes.first().map(|push| push.id));
    let mut taken = busy.clone();
    waiting.retain(|(key, _)| {
        let of_tenant = taken.iter().filter(|(tenant, _)| *tenant == key.0).count();
        taken.len() < AT_ONCE && of_tenant < OF_ONE_TENANT && taken.insert(key.clone())
    });
    waiting
}

/// Takes an app's pushes in, in their order, and starts what is to be released.
async fn take_in(world: &World, work: Work) {
    for push in &work.pushes {
        if let Err(fault) = assign(world, push).await {
            warn!(push.id, "push {} could not be taken in: {fault}", push.id);
        }
    }
    let mut places: BTreeSet<Place> = work.places.into_iter().collect();
    if let Some(push) = work.pushes.first() {
        let (tenant, app) = (push.tenant.clone(), push.app.clone());
        let own = world.store.read(|db| db.places_to_release()).await;
        let own = own.unwrap_or_default().into_iter();
        places.extend(own.filter(|place| place.tenant == tenant && place.app == app));
    }
    for place in places {
        let name = place.to_string();
        if let Err(fault) = begin(world, place).await {
            warn!("the release of {name} could not be begun: {fault}");
        }
    }
}

/// Finds the environments that a push is for, or ends it with the reason.
async fn assign(world: &World, push: &Push) -> Result<(), Fault> {
    let place = |environment: &EnvironmentName| Place {
        tenant: push.tenant.clone(),
        app: push.app.clone(),
        environment: environment.clone(),
    };
    let read = match arrive(world, push).await {
        Ok(None) => read(world, push).await,
        Ok(Some(tip)) => {
            let reason = format!(
                "{} has moved on to {}: that commit's own delivery brings it",
                push.branch,
                &tip[..12]
            );
            return ignore(world, push.id, &reason).await;
        }
        Err(error) if !error.is_final() && crate::clock::now().duration_since(push.at) < PATIENCE => {
            let (id, reason) = (push.id, format!("cannot fetch the commit yet: {}", chain(&error)));
            warn!(push.id, "{reason}");
            let delayed = world.store.write(move |tx| tx.delay_push(id, &reason));
            return delayed.await.map_err(stored);
        }
        Err(error) => Err(format!("cannot fetch the commit: {}", chain(&error))),
    };
    let (id, by) = (push.id, By::platform(crate::clock::now()));
    let app = match read {
        Ok(app) => app,
        Err(reason) => return fail(world, id, reason).await,
    };
    let following = match app.following(&push.branch) {
        Ok(following) => following,
        Err(clash) => return fail(world, id, clash.to_string()).await,
    };
    let reason = nobody(&app, &push.branch);
    let places: Vec<(Place, spec::Environment)> =
        following.into_iter().map(|own| (place(&own.name), own)).collect();
    let most = world.platform.branches.most_per_tenant;
    let assigned = world
        .store
        .write(move |tx| settle(tx, id, &places, most, &reason, &by));
    assigned.await.map_err(stored)
}

/// Gives a push to the environments that it is for, `most` of branches in the tenant. One that cannot have it fails with
/// its cause and by itself: what one branch has taken must not hold up what follows another.
fn settle(
    tx: &Tx<'_>,
    id: u64,
    places: &[(Place, spec::Environment)],
    most: u32,
    nobody: &str,
    by: &By,
) -> Result<(), store::Error> {
    let (mut names, mut refused) = (Vec::new(), Vec::new());
    for (place, spec) in places {
        if tx.find_move(place)?.is_some_and(|own| own.finished_at.is_some()) {
            refused.push(format!("{place} is on AWS: vend aws push"));
            continue;
        }
        match tx.ensure_preview(place, spec, most, by) {
            Ok(Some(_)) => names.push(place.environment.clone()),
            Ok(None) => {
                let reason =
                    "the environment of its branch is just being taken down, and is made anew afterwards";
                return tx.delay_push(id, reason);
            }
            Err(store::Error::Refused { message, next }) => {
                let refusal = Fault {
                    next,
                    ..Fault::order(message)
                };
                refused.push(refusal.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    if names.is_empty() && !refused.is_empty() {
        return tx.finish_push(id, PushState::Failed, Some(&refused.join("\n")), by);
    }
    let push = tx.push(id)?;
    tx.assign_push(id, &names, nobody, by)?;
    for reason in refused {
        // Of no environment: the one of that name is another branch's.
        let copy = NewPush {
            tenant: push.tenant.clone(),
            app: push.app.clone(),
            environment: None,
            branch: push.branch.clone(),
            commit: push.commit.clone(),
            origin: push.origin.clone(),
            event: push.event.clone(),
        };
        let copy = tx.enqueue_push(&copy, &By::new(&push.pushed_by, by.at))?;
        tx.finish_push(copy, PushState::Failed, Some(&reason), by)?;
    }
    Ok(())
}

/// Why a push to this branch is for nobody.
fn nobody(app: &spec::App, branch: &str) -> String {
    let environments = app
        .environments
        .iter()
        .map(|own| format!("{} (branch {})", own.name, own.branch));
    let patterns = app.patterns.iter();
    let patterns =
        patterns.map(|own| format!("{} (branches {})", own.environment.name, own.branches.join(" ")));
    let known: Vec<String> = environments.chain(patterns).collect();
    format!(
        "no environment follows branch {branch}; there are: {}",
        known.join(", ")
    )
}

async fn fail(world: &World, push: u64, reason: String) -> Result<(), Fault> {
    info!(push, "push {push} cannot be released: {reason}");
    let by = By::platform(crate::clock::now());
    let failed = world
        .store
        .write(move |tx| tx.finish_push(push, PushState::Failed, Some(&reason), &by));
    failed.await.map_err(stored)
}

/// Fetches the commit when the app's repository is elsewhere. Gives the commit that the branch is at when it has moved
/// on since: a delivery that was recorded and is sent again must not bring an old commit back.
async fn arrive(world: &World, push: &Push) -> Result<Option<String>, crate::git::Error> {
    let (tenant, app) = (push.tenant.clone(), push.app.clone());
    let url = world
        .store
        .read(move |db| Ok::<_, store::Error>(db.app(&tenant, &app)?.repository))
        .await;
    let Ok(Some(url)) = url else { return Ok(None) };
    let repository = repository(world, push);
    repository.create().await?;
    let tip = repository
        .fetch(&world.remotes.of(&push.tenant), &url, &push.branch)
        .await?;
    // A person who asks for an old commit means it.
    if ["person:", "token:"]
        .iter()
        .any(|kind| push.pushed_by.starts_with(kind))
    {
        return Ok(None);
    }
    let has_moved_on = tip != push.commit.id && repository.is_ancestor(&push.commit.id, &tip).await?;
    Ok(has_moved_on.then_some(tip))
}

fn repository(world: &World, push: &Push) -> Repository {
    world.repository_of(&push.tenant, &push.app)
}

/// The tree of a commit, for the same check that `vend check` makes of a working tree.
struct AtCommit {
    repository: Repository,
    commit: String,
    paths: BTreeSet<String>,
    runtime: tokio::runtime::Handle,
    /// Why a file that is there could not be read. The check would say that it is not there.
    unread: OnceCell<crate::git::Error>,
}

impl Files for AtCommit {
    fn exists(&self, path: &Utf8Path) -> bool {
        let path = path.as_str().trim_end_matches('/');
        // Of a directory git knows only what is in it.
        let inside = format!("{path}/");
        self.paths.contains(path)
            || self
                .paths
                .range(inside.clone()..)
                .next()
                .is_some_and(|first| first.starts_with(&inside))
    }

    fn read(&self, path: &Utf8Path) -> Option<Vec<u8>> {
        self.paths.contains(path.as_str()).then_some(())?;
        let read = self.repository.read(&self.commit, path.as_str());
        let read = self.runtime.block_on(read);
        read.map_err(|error| self.unread.set(error)).ok()
    }

    /// Scripts may be many and large, and a push is judged by errors alone.
    fn script(&self, _path: &Utf8Path) -> Option<Vec<u8>> {
        None
    }
}

/// `vend.yaml` at the pushed commit, checked with the files that it names. The error is a text for people.
async fn read(world: &World, push: &Push) -> Result<spec::App, String> {
    let (repository, commit) = (repository(world, push), push.commit.id.clone());
    let paths = repository.files(&commit).await.map_err(|error| chain(&error))?;
    let tree = AtCommit {
        repository,
        commit,
        paths: paths.into_iter().collect(),
        runtime: tokio::runtime::Handle::current(),
        unread: OnceCell::new(),
    };
    // The check is synchronous, and git is asked while it goes on.
    let checked = tokio::task::spawn_blocking(move || (spec::checked(&tree), tree.unread.into_inner())).await;
    let (checked, unread) = checked.map_err(|error| format!("the files could not be checked: {error}"))?;
    if let Some(error) = unread {
        return Err(chain(&error));
    }
    match checked.app {
        Some(app) if checked.report.ok && app.app == push.app => Ok(app),
        Some(app) if checked.report.ok => Err(format!(
            "{SPEC_FILE} says `app: {}`, and this repository is of the app `{}`",
            app.app, push.app
        )),
        _ => Err(refusal(&checked)),
    }
}

/// What is wrong. Where it is buildspecs alone, as CodeBuild begins it.
fn refusal(checked: &spec::Checked) -> String {
    let problems = &checked.report.problems;
    let is_of_build = |problem: &Problem| checked.buildspecs.iter().any(|path| *path == problem.file);
    let mut errors = problems.iter().filter(|problem| problem.is_error());
    match errors.all(is_of_build) {
        true => format!("{}{}", spec::Buildspec::FILE_ERROR, told(problems)),
        false => told(problems),
    }
}

/// All problems as one text, a line each.
pub fn told(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .filter(|problem| problem.is_error())
        .map(Problem::to_string)
        .collect();
    lines.join("\n")
}

async fn ignore(world: &World, push: u64, reason: &str) -> Result<(), Fault> {
    let (reason, by) = (reason.to_owned(), By::platform(crate::clock::now()));
    let ignored = world
        .store
        .write(move |tx| tx.finish_push(push, PushState::Ignored, Some(&reason), &by));
    ignored.await.map_err(stored)
}

/// Starts the release of the newest push that waits for an environment.
async fn begin(world: &World, place: Place) -> Result<(), Fault> {
    let own = place.clone();
    let newest = world.store.read(move |db| db.waiting_push(&own));
    let Some(push) = newest.await.map_err(stored)? else {
        return Ok(());
    };
    let (tenant, app) = (place.tenant.clone(), place.app.clone());
    let is_to_go = world
        .store
        .read(move |db| deletion::covers(db, &tenant, &app))
        .await
        .map_err(stored)?;
    if is_to_go {
        return ignore(world, push.id, "its app is being deleted").await;
    }
    let found = read(world, &push).await.and_then(|app| {
        // One of a branch does not stand in the file.
        let of_branch = app.following(&push.branch).unwrap_or_default();
        let mut all = app.environments.into_iter().chain(of_branch);
        let own = all.find(|own| own.name == place.environment);
        own.ok_or_else(|| format!("{SPEC_FILE} has no environment {} any more", place.environment))
    });
    match found {
        Ok(spec) => start::release(world, place, push, spec).await.map_err(stored),
        Err(reason) => fail(world, push.id, reason).await,
    }
}

#[cfg(test)]
mod tests;
