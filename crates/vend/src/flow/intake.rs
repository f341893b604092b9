//! From a stored push to a running execution: the files at the commit are read and checked, the environments that
//! follow the branch are found, and each takes the newest push that waits for it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use camino::Utf8Path;
use jiff::SignedDuration;
use model::{EnvironmentName, Place, Problem, port::Fault, spec};
use store::{By, Push, PushState};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{World, chain, deletion, engine, start, stored};
use crate::git::Repository;

const EVERY: Duration = Duration::from_secs(5);
/// A repository elsewhere that does not answer is asked again for this long.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);
const SPEC_FILE: &str = "vend.yaml";

pub async fn run(world: Arc<World>, engine: engine::Handle, cancel: CancellationToken) {
    loop {
        match once(&world).await {
            Ok(0) => {}
            Ok(_) => engine.tell(engine::News::Wake).await,
            Err(fault) => warn!("pushes could not be taken in: {fault}"),
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = world.pokes.pushes.notified() => {}
            () = sleep(EVERY) => {}
        }
    }
}

/// The number of executions that were started.
async fn once(world: &World) -> Result<usize, Fault> {
    for push in world
        .store
        .read(|db| db.unassigned_pushes())
        .await
        .map_err(stored)?
    {
        assign(world, &push).await?;
    }
    let mut started = 0;
    for place in world
        .store
        .read(|db| db.places_to_release())
        .await
        .map_err(stored)?
    {
        started += usize::from(begin(world, place).await?);
    }
    Ok(started)
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
        Err(error) if crate::clock::now().duration_since(push.at) < PATIENCE => {
            warn!(push.id, error = %chain(&error), "the repository does not answer yet");
            return Ok(());
        }
        Err(error) => Err(format!("cannot fetch the commit: {}", chain(&error))),
    };
    let (id, by) = (push.id, By::platform(crate::clock::now()));
    let app = match read {
        Ok(app) => app,
        Err(reason) => {
            info!(push.id, "push {} cannot be released: {reason}", push.id);
            let failed = world
                .store
                .write(move |tx| tx.finish_push(id, PushState::Failed, Some(&reason), &by));
            return failed.await.map_err(stored);
        }
    };
    let following: Vec<EnvironmentName> = app
        .environments
        .iter()
        .filter(|environment| environment.branch == push.branch)
        .map(|environment| environment.name.clone())
        .collect();
    let places: Vec<Place> = following.iter().map(place).collect();
    let known: Vec<String> = app
        .environments
        .iter()
        .map(|own| format!("{} (branch {})", own.name, own.branch))
        .collect();
    let reason = format!(
        "no environment follows branch {}; there are: {}",
        push.branch,
        known.join(", ")
    );
    let branch = push.branch.clone();
    let assigned = world.store.write(move |tx| {
        places
            .iter()
            .try_for_each(|place| tx.ensure_environment(place, &branch, &by).map(drop))?;
        tx.assign_push(id, &following, &reason, &by).map(drop)
    });
    assigned.await.map_err(stored)
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
    let tip = repository.fetch(&url, &push.branch).await?;
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

/// `vend.yaml` at the pushed commit, checked with the files that it names. The error is a text for people.
async fn read(world: &World, push: &Push) -> Result<spec::App, String> {
    let (repository, commit) = (repository(world, push), push.commit.id.as_str());
    let paths = repository.files(commit).await.map_err(|error| chain(&error))?;
    let paths: BTreeSet<String> = paths.into_iter().collect();
    if !paths.contains(SPEC_FILE) {
        return Err(format!("there is no {SPEC_FILE} at commit {}", &commit[..12]));
    }
    let text = read_text(&repository, commit, SPEC_FILE).await?;
    let (app, _) = spec::App::parse(&text, SPEC_FILE, &|path: &Utf8Path| paths.contains(path.as_str()))
        .map_err(|all| told(&all))?;
    if app.app != push.app {
        return Err(format!(
            "{SPEC_FILE} says `app: {}`, and this repository is of the app `{}`",
            app.app, push.app
        ));
    }
    let mut problems = Vec::new();
    for file in files(&app) {
        let text = read_text(&repository, commit, &file.path).await?;
        problems.extend(file.check(&text));
    }
    if problems.is_empty() {
        Ok(app)
    } else {
        Err(told(&problems))
    }
}

/// A file that `vend.yaml` names, and what reads it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    path: String,
    kind: Kind,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Buildspec,
    Appspec,
    Checks,
}

fn files(app: &spec::App) -> BTreeSet<Named> {
    let of = |environment: &spec::Environment| {
        [
            (environment.build.buildspec.clone(), Kind::Buildspec),
            (environment.deploy.appspec.clone(), Kind::Appspec),
            (environment.checks.clone(), Kind::Checks),
        ]
    };
    let all = app.environments.iter().flat_map(of);
    all.filter_map(|(path, kind)| {
        Some(Named {
            path: path?.into_string(),
            kind,
        })
    })
    .collect()
}

impl Named {
    fn check(&self, text: &str) -> Vec<Problem> {
        let problems = match self.kind {
            Kind::Buildspec => spec::Buildspec::parse(text, &self.path).err(),
            Kind::Appspec => spec::Appspec::parse(text, &self.path).err(),
            Kind::Checks => spec::Checks::parse(text, &self.path).err(),
        };
        problems.unwrap_or_default()
    }
}

async fn read_text(repository: &Repository, commit: &str, path: &str) -> Result<String, String> {
    let bytes = repository
        .read(commit, path)
        .await
        .map_err(|error| chain(&error))?;
    String::from_utf8(bytes).map_err(|_| format!("{path} is not UTF-8 text"))
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
async fn begin(world: &World, place: Place) -> Result<bool, Fault> {
    let own = place.clone();
    let newest = world
        .store
        .read(move |db| db.pushes(&own.tenant, &own.app, Some(&own.environment), None, 1))
        .await
        .map_err(stored)?;
    let Some(push) = newest.into_iter().find(|push| push.state == PushState::Waiting) else {
        return Ok(false);
    };
    let (tenant, app) = (place.tenant.clone(), place.app.clone());
    let is_to_go = world
        .store
        .read(move |db| deletion::covers(db, &tenant, &app))
        .await
        .map_err(stored)?;
    if is_to_go {
        ignore(world, push.id, "its app is being deleted").await?;
        return Ok(false);
    }
    let found = read(world, &push).await.and_then(|app| {
        let own = app
            .environments
            .into_iter()
            .find(|own| own.name == place.environment);
        own.ok_or_else(|| format!("{SPEC_FILE} has no environment {} any more", place.environment))
    });
    match found {
        Ok(spec) => Ok(start::release(world, place, push.id, spec)
            .await
            .map_err(stored)?
            .is_some()),
        Err(reason) => {
            let by = By::platform(crate::clock::now());
            let failed = world
                .store
                .write(move |tx| tx.finish_push(push.id, PushState::Failed, Some(&reason), &by));
            failed.await.map_err(stored)?;
            Ok(false)
        }
    }
}
