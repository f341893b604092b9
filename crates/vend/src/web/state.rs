//! What every handler has at hand.

use std::{ops::Deref, sync::Arc};

use camino::Utf8PathBuf;
use jiff::Timestamp;
use model::Place;
use store::{By, Db, Store};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    alarms::Pace,
    auth::Sessions,
    commands::{Commands, Sight},
    console::Seats,
    git::{self, Announcer, Repositories},
    states::States,
};
use crate::{git::remote::Remotes, reconcile::routes::Asked};

/// Calls of git that run at once.
const GIT_CALLS: usize = 16;
/// Deliveries that are read at once: each may have 25 MiB in memory.
const HOOK_CALLS: usize = 4;
/// Posts of alerts that are read at once: each may have 4 MiB in memory, and several times that when it is read.
const ALERT_CALLS: usize = 8;
/// Histories that are read whole at once: each holds one of the store's readers for as long as it takes.
const DRAWINGS: usize = 2;
/// States that are tested at once: each computes for as long as its budgets let it.
const TESTS: usize = 2;

/// The URLs of an environment.
pub type Urls = Arc<dyn Fn(&Place) -> Vec<String> + Send + Sync>;

/// What became of the domains and ports that an environment asks for.
pub type Names = Arc<dyn Fn(&Db<'_>, &store::Environment) -> Result<Vec<Asked>, store::Error> + Send + Sync>;

/// What the room is given.
pub struct Setup {
    pub store: Store,
    pub commands: Arc<dyn Commands>,
    pub sight: Arc<dyn Sight>,
    /// `<data>/serve/git`
    pub repositories: Utf8PathBuf,
    /// Which repositories elsewhere may be fetched.
    pub remotes: Remotes,
    /// Where the TCP door is reached, such as `http://127.0.0.1:7070`, without a slash at the end.
    pub url: String,
    /// The user that owns the platform: as good as root on the local socket.
    pub owner: u32,
    /// Names under which an environment is reached, as URLs.
    pub urls: Urls,
    pub names: Names,
    /// The users' state machines.
    pub states: States,
    pub clock: fn() -> Timestamp,
    /// Ends everything that the room has started.
    pub stop: CancellationToken,
}

/// Clones share everything.
#[derive(Clone)]
pub struct State(Arc<Inner>);

pub struct Inner {
    pub store: Store,
    pub commands: Arc<dyn Commands>,
    pub sight: Arc<dyn Sight>,
    pub repositories: Repositories,
    pub remotes: Remotes,
    pub url: String,
    pub owner: u32,
    pub urls: Urls,
    pub names: Names,
    pub states: States,
    pub clock: fn() -> Timestamp,
    pub tasks: TaskTracker,
    pub git_calls: Semaphore,
    pub hook_calls: Semaphore,
    pub alert_calls: Semaphore,
    pub pace: Pace,
    pub seats: Arc<Seats>,
    pub drawings: Semaphore,
    /// Shared with tests that go on though nobody waits for them any more.
    pub tests: Arc<Semaphore>,
    pub announcer: Announcer,
    pub sessions: Sessions,
}

impl State {
    /// Must be called in a tokio runtime.
    pub fn new(setup: Setup) -> Result<Self, store::Error> {
        let tasks = TaskTracker::new();
        let repositories = Repositories::new(setup.repositories);
        let announcer = git::announcer(
            repositories.clone(),
            Arc::clone(&setup.commands),
            setup.clock,
            setup.stop,
            &tasks,
        );
        Ok(Self(Arc::new(Inner {
            store: setup.store,
            commands: setup.commands,
            sight: setup.sight,
            repositories,
            remotes: setup.remotes,
            url: setup.url,
            owner: setup.owner,
            urls: setup.urls,
            names: setup.names,
            states: setup.states,
            clock: setup.clock,
            tasks,
            git_calls: Semaphore::new(GIT_CALLS),
            hook_calls: Semaphore::new(HOOK_CALLS),
            alert_calls: Semaphore::new(ALERT_CALLS),
            pace: Pace::default(),
            seats: Arc::default(),
            drawings: Semaphore::new(DRAWINGS),
            tests: Arc::new(Semaphore::new(TESTS)),
            announcer,
            sessions: Sessions::new()?,
        })))
    }

    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub fn by(&self, principal: &model::policy::Principal) -> By {
        By::new(principal.actor.clone(), self.now())
    }

    /// Waits for calls of git that are under way after `stop`.
    pub async fn closed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Deref for State {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}
