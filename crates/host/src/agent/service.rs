//! One service under supervision: started, kept running, stopped with all that it started. One task owns it; others
//! ask through a channel and read its status.

use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use model::Secret;
use rustix::process::Signal;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    api::{Origin, ServiceState, ServiceStatus},
    log::Log,
    reaper::{Exit, Reaper},
    sockets::Lent,
    unit::{KillMode, Unit, rate::Count},
};

use crate::now;

mod again;
pub(super) mod family;
mod job;
mod launch;
mod notify;
mod start;

use launch::Main;
pub use launch::{Collectors, Held, Left};

/// Within which a service has to end whose name something else gets.
const YIELD: Duration = Duration::from_secs(90);

/// systemd's word for a service that ended and is about to be started again.
const AGAIN: &str = "auto-restart";

/// What to run.
#[derive(Clone)]
pub struct Definition {
    pub unit: Unit,
    pub origin: Origin,
    /// Environment of its own, beyond the host's and the unit's.
    pub environment: Vec<(String, Secret)>,
}

/// What a service needs of the agent around it.
#[derive(Clone)]
pub struct Surroundings {
    pub reaper: Reaper,
    pub collectors: Collectors,
    pub log: Arc<Mutex<Log>>,
    /// Where it says what runs, for an agent that finds it after this one was killed.
    pub trace: Option<PathBuf>,
    /// The host's environment at the moment of a start.
    pub environment: Arc<dyn Fn() -> Vec<(String, Secret)> + Send + Sync>,
    /// What must not be seen in the log.
    pub secrets: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Sockets that were opened for it.
    pub sockets: Arc<dyn Fn() -> Vec<Lent> + Send + Sync>,
    /// Who does what concerns other units than this one.
    pub tell: Arc<dyn Fn(News) + Send + Sync>,
    /// Told of every service that ends though it should go on.
    pub deaths: watch::Sender<()>,
    /// Where notification sockets are.
    pub notify: PathBuf,
    /// One forking service starts at a time.
    pub forking: Arc<tokio::sync::Mutex<()>>,
}

impl Surroundings {
    pub fn note(&self, text: &str) {
        self.log
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .note(text);
    }
}

/// What a service did by itself, that others are concerned by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It ended, or did not start.
    Gone,
    /// A condition kept it from starting.
    Skipped,
    /// The wait for its next start is over: it waits for [`Wish::Again`].
    Due,
}

pub enum Wish {
    Start,
    /// A start that nobody asked for but who connects: it begins nothing anew, and one that waits to be started again
    /// goes on waiting.
    Wake,
    /// The start that it waits for.
    Again,
    /// That start cannot be, for this reason.
    Missed(String),
    Stop,
    /// Its next stop ends all of it and within [`YIELD`], whatever its unit says: something else gets its name.
    Yield,
    Restart,
    Reload,
    /// A signal for all of its processes, or for the main one alone.
    Signal(Signal, bool),
    /// Takes effect at the next start.
    Define(Box<Definition>),
    /// What must not be seen in its log is known: what it writes may be read.
    Hear,
    ResetFailed,
}

/// When a service last began to be up, and when it last ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turns {
    pub active: Option<std::time::Instant>,
    pub inactive: Option<std::time::Instant>,
}

impl Turns {
    pub fn hear(&mut self, others: Self) {
        self.active = self.active.max(others.active);
        self.inactive = self.inactive.max(others.inactive);
    }
}

type Answer = oneshot::Sender<Result<(), String>>;

struct Ask {
    wish: Wish,
    answer: Answer,
}

enum Letter {
    Ask(Ask),
    Hold(Hold),
}

/// What another agent must know to go on with it is asked for. From the answer on nothing changes while it is still.
struct Hold {
    answer: oneshot::Sender<Option<Held>>,
    still: watch::Receiver<bool>,
}

/// How others reach a service.
#[derive(Clone)]
pub struct Handle {
    letters: mpsc::Sender<Letter>,
    status: watch::Receiver<ServiceStatus>,
    turns: watch::Receiver<Turns>,
}

impl Handle {
    /// Asks, and waits until it is done.
    ///
    /// # Errors
    /// With the reason, as a person should read it.
    pub async fn ask(&self, wish: Wish) -> Result<(), String> {
        let (answer, outcome) = oneshot::channel();
        let gone = |_| "its supervisor ended".to_owned();
        let letter = Letter::Ask(Ask { wish, answer });
        self.letters.send(letter).await.map_err(|_| gone(()))?;
        outcome.await.map_err(|_| gone(()))?
    }

    /// What another agent must know to go on with it; `None` when it does not run. One that starts is waited for. From
    /// then on it is left as it is while `still`.
    pub async fn hold(&self, still: watch::Receiver<bool>) -> Option<Held> {
        let (answer, held) = oneshot::channel();
        self.letters
            .send(Letter::Hold(Hold { answer, still }))
            .await
            .ok()?;
        held.await.ok()?
    }

    pub fn status(&self) -> ServiceStatus {
        self.status.borrow().clone()
    }

    pub fn turns(&self) -> watch::Receiver<Turns> {
        self.turns.clone()
    }

    /// Waits until it neither runs nor is about to.
    pub async fn ended(&self) {
        let mut status = self.status.clone();
        let ended =
            |status: &ServiceStatus| matches!(status.state, ServiceState::Inactive | ServiceState::Failed);
        // A supervisor that ended has left nothing that runs.
        let _ = status.wait_for(ended).await;
    }
}

/// Begins to supervise a service: one that does not run yet, or that another agent started.
pub fn supervise(
    definition: Definition,
    surroundings: Surroundings,
    left: Option<Left>,
) -> (Handle, JoinHandle<()>) {
    let (letters, inbox) = mpsc::channel(16);
    let (sender, status) = watch::channel(ServiceStatus {
        name: definition.unit.name.clone(),
        description: definition.unit.description.clone(),
        origin: definition.origin,
        state: ServiceState::Inactive,
        sub: "dead".to_owned(),
        pid: None,
        crashes: 0,
        restarts: 0,
        last_exit: None,
        died_at: None,
        asked_at: None,
        since: now(),
    });
    let mut supervisor = Supervisor {
        definition,
        surroundings,
        status: sender,
        turns: watch::channel(Turns::default()).0,
        phase: Phase::Idle,
        inbox,
        starts: Count::default(),
        holds: Vec::new(),
        later: Vec::new(),
    };
    if let Some(left) = left {
        supervisor.resume(&left.held, left.output, left.heard);
    }
    let handle = Handle {
        letters,
        status,
        turns: supervisor.turns.subscribe(),
    };
    (handle, tokio::spawn(supervisor.run()))
}

enum Phase {
    Idle,
    Up(Main),
    /// A oneshot that remains after exit.
    Done,
    /// It ended and is started again at this instant.
    Waiting(Instant),
    /// The instant has come, and others get ready for it.
    Due,
}

enum Event {
    Ended(Exit),
    Again,
    Letter(Option<Letter>),
}

struct Supervisor {
    definition: Definition,
    surroundings: Surroundings,
    status: watch::Sender<ServiceStatus>,
    turns: watch::Sender<Turns>,
    phase: Phase,
    inbox: mpsc::Receiver<Letter>,
    /// How often it was started since somebody asked for it.
    starts: Count,
    /// That came while it started.
    holds: Vec<Hold>,
    /// The same, of those who ask.
    later: Vec<Ask>,
}

impl Supervisor {
    async fn run(mut self) {
        loop {
            while let Some(hold) = self.holds.pop() {
                self.rest(hold).await;
            }
            let event = match &mut self.phase {
                Phase::Up(main) => tokio::select! {
                    exit = &mut main.exit => Event::Ended(exit.unwrap_or(Exit::Unknown)),
                    letter = self.inbox.recv() => Event::Letter(letter),
                },
                Phase::Waiting(at) => tokio::select! {
                    () = sleep_until(*at) => Event::Again,
                    letter = self.inbox.recv() => Event::Letter(letter),
                },
                Phase::Idle | Phase::Done | Phase::Due => Event::Letter(self.inbox.recv().await),
            };
            match event {
                Event::Ended(exit) => self.ended(exit).await,
                Event::Again => {
                    self.phase = Phase::Due;
                    (self.surroundings.tell)(News::Due);
                }
                Event::Letter(Some(Letter::Ask(ask))) => self.answer(ask).await,
                Event::Letter(Some(Letter::Hold(hold))) => self.holds.push(hold),
                Event::Letter(None) => return self.stop().await,
            }
        }
    }

    async fn rest(&mut self, mut hold: Hold) {
        // Whoever asked may have left, and is not waited for then.
        if *hold.still.borrow() && hold.answer.send(self.held()).is_ok() {
            let _ = hold.still.wait_for(|still| !still).await;
        }
    }

    fn held(&self) -> Option<Held> {
        let (pid, main) = match &self.phase {
            Phase::Up(main) => (Some(main.pid), Some(main)),
            Phase::Done => (None, None),
            // It is started again at once.
            Phase::Waiting(_) | Phase::Due => (Some(i32::MAX), None),
            Phase::Idle => return None,
        };
        Some(Held {
            name: self.definition.unit.name.clone(),
            origin: self.definition.origin,
            pid,
            invocation: main.map(|main| main.invocation.clone()).unwrap_or_default(),
            session: main.and_then(|main| main.session),
            output: main.and_then(|main| main.output.as_ref()).map(AsRawFd::as_raw_fd),
        })
    }

    fn resume(&mut self, held: &Held, output: Option<OwnedFd>, heard: bool) {
        let quiet = self.definition.unit.quiet;
        self.publish(|status| status.asked_at = Some(now()));
        match launch::resume(held, output, &self.surroundings) {
            Some(mut main) => {
                if heard {
                    main.hear(&self.surroundings, quiet);
                }
                self.mark(&main);
                self.enter(ServiceState::Active, "running", Some(main.pid.cast_unsigned()));
                self.phase = Phase::Up(main);
            }
            None => {
                self.enter(ServiceState::Active, "exited", None);
                self.phase = Phase::Done;
            }
        }
        // When it began to be up, the other agent knew.
        self.turns.send_replace(Turns::default());
    }

    async fn answer(&mut self, ask: Ask) {
        let outcome = match ask.wish {
            Wish::Start | Wish::Wake | Wish::Again if matches!(self.phase, Phase::Up(_) | Phase::Done) => {
                Ok(())
            }
            Wish::Start => self.fresh_start().await,
            Wish::Again if matches!(self.phase, Phase::Due) => {
                self.publish(|status| status.restarts += 1);
                self.start().await
            }
            Wish::Again => Err("it is not to be started again any more".to_owned()),
            Wish::Missed(why) => {
                self.missed(why);
                Ok(())
            }
            Wish::Wake if matches!(self.phase, Phase::Waiting(_) | Phase::Due) => Ok(()),
            Wish::Wake => {
                self.publish(|status| status.asked_at = Some(now()));
                self.start().await
            }
            Wish::Stop => {
                self.stop().await;
                Ok(())
            }
            Wish::Yield => {
                let unit = &mut self.definition.unit;
                (unit.kill_mode, unit.kills) = (KillMode::All, true);
                unit.stop_timeout = unit.stop_timeout.min(YIELD);
                Ok(())
            }
            Wish::Restart => {
                self.stop().await;
                self.fresh_start().await
            }
            Wish::Reload => self.reload().await,
            Wish::Signal(signal, only_main) => match &self.phase {
                Phase::Up(main) => {
                    launch::signal(main, signal, only_main);
                    Ok(())
                }
                _ => Err("it does not run".to_owned()),
            },
            Wish::Define(definition) => {
                self.define(*definition);
                Ok(())
            }
            Wish::Hear => {
                if let Phase::Up(main) = &mut self.phase {
                    main.hear(&self.surroundings, self.definition.unit.quiet);
                }
                Ok(())
            }
            Wish::ResetFailed => {
                self.starts = Count::default();
                if self.status.borrow().state == ServiceState::Failed {
                    self.enter(ServiceState::Inactive, "dead", None);
                }
                Ok(())
            }
        };
        // Whoever asked may have left.
        let _ = ask.answer.send(outcome);
    }

    async fn fresh_start(&mut self) -> Result<(), String> {
        self.starts = Count::default();
        self.starts
            .another(self.definition.unit.starts, Instant::now().into_std());
        self.publish(|status| {
            status.crashes = 0;
            status.restarts = 0;
            status.asked_at = Some(now());
        });
        self.start().await
    }

    /// A start that cannot be counts as one that failed.
    fn missed(&mut self, why: String) {
        if matches!(self.phase, Phase::Due) {
            self.surroundings.note(&format!("did not start: {why}"));
            self.publish(|status| status.last_exit = Some(why));
            self.phase = Phase::Idle;
            self.after_end(Exit::Unknown, Duration::ZERO);
        }
    }

    /// Others may be concerned: what no unit file is about concerns none.
    fn tell(&self, news: News) {
        if self.definition.origin == Origin::Unit {
            (self.surroundings.tell)(news);
        }
    }

    fn define(&mut self, definition: Definition) {
        self.definition = definition;
        let description = self.definition.unit.description.clone();
        self.publish(|status| status.description = description);
    }

    /// The main process ended by itself.
    async fn ended(&mut self, exit: Exit) {
        let Phase::Up(mut main) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return;
        };
        if let Some(next) = launch::successor(&self.definition.unit, &self.surroundings, &main) {
            self.surroundings.note(&format!(
                "pid {} ended with {exit}, pid {} took over",
                main.pid, next.pid
            ));
            self.publish(|status| status.pid = Some(next.pid.cast_unsigned()));
            self.phase = Phase::Up(next);
            return;
        }
        self.surroundings.note(&format!("ended with {exit}"));
        self.tell(News::Gone);
        // What it left behind may take as long to end as a stop may.
        self.enter(ServiceState::Deactivating, "stop-sigterm", None);
        if self.definition.unit.ends_well(exit) {
            launch::stop_lines(&self.definition, &self.surroundings, None).await;
        }
        launch::sweep(&self.definition.unit, &self.surroundings, &main).await;
        main.said().await;
        launch::after(&self.definition, &self.surroundings, &main.invocation, exit).await;
        self.publish(|status| status.last_exit = Some(exit.to_string()));
        self.after_end(exit, main.since.elapsed());
    }

    fn died(&self, unexpected: bool) {
        if unexpected {
            self.publish(|status| status.died_at = Some(now()));
            self.surroundings.deaths.send_replace(());
        }
    }

    async fn stop(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Up(main) => {
                self.enter(ServiceState::Deactivating, "stop", Some(main.pid.cast_unsigned()));
                let exit = launch::stop(&self.definition, &self.surroundings, main).await;
                self.surroundings.note(&format!("stopped, {exit}"));
            }
            Phase::Done => {
                self.enter(ServiceState::Deactivating, "stop", None);
                launch::stop_lines(&self.definition, &self.surroundings, None).await;
                let invocation = launch::invocation();
                launch::after(&self.definition, &self.surroundings, &invocation, Exit::Code(0)).await;
            }
            Phase::Idle | Phase::Waiting(_) | Phase::Due => {}
        }
        self.enter(ServiceState::Inactive, "dead", None);
    }

    async fn reload(&mut self) -> Result<(), String> {
        let main = match &self.phase {
            Phase::Up(main) => Some(main),
            Phase::Done => None,
            _ => return Err("it does not run, so it cannot be reloaded".to_owned()),
        };
        let unit = &self.definition.unit;
        if unit.reload.is_empty() && unit.reload_signal.is_none() {
            return Err("it has no ExecReload=: use restart".to_owned());
        }
        launch::reload(&self.definition, &self.surroundings, main).await
    }

    fn enter(&self, state: ServiceState, sub: &str, pid: Option<u32>) {
        let rests = |state| matches!(state, ServiceState::Inactive | ServiceState::Failed);
        let (rested, rests) = (rests(self.status.borrow().state), rests(state));
        if rested != rests {
            let now = Some(std::time::Instant::now());
            self.turns.send_modify(|turns| match rests {
                true => turns.inactive = now,
                false => turns.active = now,
            });
        }
        let is_over = rests || sub == AGAIN;
        if let Some(trace) = self.surroundings.trace.as_ref().filter(|_| is_over) {
            // There may be none.
            let _ = fs::remove_file(trace);
        }
        self.publish(|status| {
            status.state = state;
            sub.clone_into(&mut status.sub);
            status.pid = pid;
            status.since = now();
        });
    }

    fn publish(&self, change: impl FnOnce(&mut ServiceStatus)) {
        self.status.send_modify(change);
    }
}
