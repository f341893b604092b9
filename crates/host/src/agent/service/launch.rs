//! Starting and stopping the processes of one service.

use std::{
    fs,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::{
    net::unix::pipe,
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

pub use super::job::Begun;
use super::{
    Definition, Surroundings,
    family::{Member, family, session_of},
    job::Job,
};
use crate::{
    agent::{
        api::Origin,
        log,
        reaper::Exit,
        unit::{KillMode, Kind, Unit, condition, signal_name},
    },
    logs::Mask,
};

/// The tasks that copy outputs into logs. They end with the pipes that they read.
#[derive(Clone, Default)]
pub struct Collectors(Arc<Mutex<JoinSet<()>>>);

impl Collectors {
    /// Runs something to its end.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Reads a pipe into a log; into nothing when there is none, so that the writer never stops. Tells its end.
    pub fn collect(
        &self,
        from: pipe::Receiver,
        into: Option<Arc<Mutex<log::Log>>>,
        mask: Mask,
    ) -> oneshot::Receiver<()> {
        let (done, end) = oneshot::channel();
        self.spawn(async move {
            log::collect(from, into, mask).await;
            // Nobody may wait for it.
            let _ = done.send(());
        });
        end
    }
}

/// The process that a service is.
pub struct Main {
    pub pid: i32,
    pub exit: oneshot::Receiver<Exit>,
    /// In the environment of each process of this start, which is how they are found again.
    pub invocation: String,
    pub since: Instant,
    /// Its session, where its processes are found when it is gone.
    pub session: Option<i32>,
    /// Ends the reading of its notifications.
    pub(super) _notified: Option<oneshot::Sender<()>>,
    /// All that it wrote is in the log.
    pub(super) logged: Option<oneshot::Receiver<()>>,
    /// The end of its output that is read, for the agent that takes over from this one.
    pub output: Option<OwnedFd>,
}

impl Main {
    /// Where its processes are found when it is gone: in the session that it was in when it was found, and in that which
    /// it leads. A daemon may be found by its PID file before it begins a session of its own.
    fn sessions(&self) -> Vec<i32> {
        self.session.into_iter().chain([self.pid]).collect()
    }

    /// Has what it writes copied into its log, if nobody does so yet.
    pub fn hear(&mut self, around: &Surroundings, quiet: bool) {
        if self.logged.is_some() {
            return;
        }
        let output = self.output.as_ref().and_then(|output| output.try_clone().ok());
        let output = output.and_then(|output| pipe::Receiver::from_owned_fd(output).ok());
        self.logged = output.map(|output| {
            let secrets = (around.secrets)();
            let mask = Mask::new(secrets.iter().map(String::as_str));
            let log = (!quiet).then(|| around.log.clone());
            around.collectors.collect(output, log, mask)
        });
    }

    /// Waits until what it wrote is in the log; not for long, as others may hold its output open.
    pub async fn said(&mut self) {
        const PATIENCE: Duration = Duration::from_millis(100);
        if let Some(logged) = self.logged.take() {
            let _ = timeout(PATIENCE, logged).await;
        }
    }
}

pub enum Started {
    Runs(Main),
    Finished,
    /// A condition of its unit does not hold, which is no failure (`systemd.unit(5)`).
    Skipped,
}

/// A new invocation id: 128 random bits.
pub fn invocation() -> String {
    let mut bytes = [0; 16];
    // Without randomness the processes are still found, only less surely apart from older ones.
    let _ = getrandom::fill(&mut bytes);
    hex::encode(bytes)
}

/// What one agent knows of a service that runs, for the agent that takes over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub name: String,
    pub origin: Origin,
    /// `None` for a oneshot that remains.
    pub pid: Option<i32>,
    pub invocation: String,
    pub session: Option<i32>,
    /// The number of an open file: its output.
    pub output: Option<i32>,
}

/// A service that another agent has left.
pub struct Left {
    pub held: Held,
    pub output: Option<OwnedFd>,
    /// It is known what must not be seen in its log. Else its output waits for [`Hear`](super::Wish::Hear).
    pub heard: bool,
}

/// Goes on with a service that another agent started. Its output is not read yet.
pub fn resume(held: &Held, output: Option<OwnedFd>, around: &Surroundings) -> Option<Main> {
    let pid = held.pid?;
    Some(Main {
        pid,
        exit: around.reaper.watch(pid),
        invocation: held.invocation.clone(),
        since: Instant::now(),
        session: held.session,
        _notified: None,
        logged: None,
        output,
    })
}

/// Starts a service until it counts as running, or, for a oneshot, to its end. `begun` is told what it begins: when it
/// fails, or is dropped, [`abandon`] ends that.
pub async fn start(
    definition: &Definition,
    around: &Surroundings,
    invocation: &str,
    begun: &Begun,
) -> Result<Started, String> {
    let unit = &definition.unit;
    match condition::unmet(&unit.conditions) {
        Some(unmet) if unmet.asserts => return Err(format!("{unmet} does not hold")),
        Some(unmet) => {
            around.note(&format!("not started: {unmet} does not hold"));
            return Ok(Started::Skipped);
        }
        None => {}
    }
    let mut job = Job::new(definition, around, invocation, None)?.starts(begun);
    job.directories()?;
    for line in &unit.start_if {
        if let Some(code) = job.asks(line).await? {
            around.note(&format!("not started: ExecCondition= says {code}"));
            return Ok(Started::Skipped);
        }
    }
    job.helpers(&unit.start_pre, unit.start_timeout).await?;
    let deadline = Instant::now() + unit.start_timeout;
    let main = match unit.kind {
        Kind::Oneshot => {
            job.start().await?;
            None
        }
        Kind::Simple => Some(job.simple()?),
        Kind::Notify => Some(job.notify(deadline).await?),
        Kind::Forking => job.forking(deadline).await?,
    };
    if let Some(main) = &main {
        job.main(main.pid);
    }
    job.helpers(&unit.start_post, unit.start_timeout).await?;
    Ok(main.map_or(Started::Finished, Started::Runs))
}

/// Sends a signal to what a start has begun.
pub fn signal_begun(begun: &Begun, invocation: &str, signal: Signal) {
    let members = family(&pids(begun), &[], invocation);
    members.iter().for_each(|member| member.signal(signal));
}

fn pids(begun: &Begun) -> Vec<i32> {
    let begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
    begun.iter().copied().collect()
}

/// Ends what a start began that failed or that nobody wants any more, as a stop does it.
pub async fn abandon(unit: &Unit, around: &Surroundings, begun: &Begun, invocation: &str) {
    Hunt::begin(unit, &pids(begun), Vec::new(), invocation)
        .end(around)
        .await;
}

/// Ends a service: its ExecStop lines, its signal, and SIGKILL when its time is over.
pub async fn stop(definition: &Definition, around: &Surroundings, mut main: Main) -> Exit {
    let unit = &definition.unit;
    stop_lines(definition, around, Some(&main)).await;
    let hunt = Hunt::begin(unit, &[main.pid], main.sessions(), &main.invocation);
    let exit = match timeout_at(hunt.deadline, &mut main.exit).await {
        Ok(exit) => exit.unwrap_or(Exit::Unknown),
        Err(_) if !unit.kills || unit.kill_mode == KillMode::Nothing => {
            around.note("did not stop in time, and its unit says that it may not be killed");
            Exit::Unknown
        }
        Err(_) => {
            around.note("did not stop in time: killed");
            signal_one(main.pid, Signal::KILL);
            main.exit.await.unwrap_or(Exit::Unknown)
        }
    };
    hunt.end(around).await;
    after(definition, around, &main.invocation, exit).await;
    exit
}

/// `TimeoutStopSec=0` means that nothing waits for ever: it still gets the time that a signal needs.
const SHORTEST_STOP: Duration = Duration::from_secs(2);

/// The ExecStop lines. Their failure stops nothing.
pub async fn stop_lines(definition: &Definition, around: &Surroundings, main: Option<&Main>) {
    let invocation = main.map_or_else(invocation, |main| main.invocation.clone());
    let pid = main.map(|main| main.pid);
    let unit = &definition.unit;
    let outcome = match Job::new(definition, around, &invocation, pid) {
        Ok(job) => job.helpers(&unit.stop, unit.stop_timeout).await,
        Err(why) => Err(why),
    };
    if let Err(why) = outcome {
        around.note(&format!("ExecStop: {why}"));
    }
}

/// What follows the end of a service, however it came: the ExecStopPost lines, and no runtime directory.
pub async fn after(definition: &Definition, around: &Surroundings, invocation: &str, exit: Exit) {
    let unit = &definition.unit;
    if !unit.stop_post.is_empty() {
        // systemd.exec(5): the status of one that was killed is the signal's name.
        let (code, status) = match exit {
            Exit::Code(code) => ("exited", code.to_string()),
            Exit::Signal(signal) => ("killed", signal_name(signal)),
            Exit::Unknown => ("exited", String::new()),
        };
        let result = match exit {
            exit if unit.ends_well(exit) => "success",
            Exit::Signal(_) => "signal",
            Exit::Code(_) | Exit::Unknown => "exit-code",
        };
        let outcome = match Job::new(definition, around, invocation, None) {
            Ok(mut job) => {
                job.set("SERVICE_RESULT", result);
                job.set("EXIT_CODE", code);
                job.set("EXIT_STATUS", &status);
                job.helpers(&unit.stop_post, unit.stop_timeout).await
            }
            Err(why) => Err(why),
        };
        if let Err(why) = outcome {
            around.note(&format!("ExecStopPost: {why}"));
        }
    }
    if !unit.keeps_runtime {
        let runtime = unit
            .directories
            .iter()
            .filter(|directory| directory.kind == "RuntimeDirectory");
        for directory in runtime {
            // What is not there need not go.
            let _ = fs::remove_dir_all(&directory.path);
        }
    }
}

pub async fn reload(
    definition: &Definition,
    around: &Surroundings,
    main: Option<&Main>,
) -> Result<(), String> {
    let unit = &definition.unit;
    if let (Some(signal), Some(main)) = (unit.reload_signal.filter(|_| unit.reload.is_empty()), main) {
        signal_one(main.pid, signal);
        return Ok(());
    }
    let invocation = main.map_or_else(invocation, |main| main.invocation.clone());
    let job = Job::new(definition, around, &invocation, main.map(|main| main.pid))?;
    job.all(&unit.reload, unit.start_timeout).await
}

/// Sends a signal to a service's processes.
pub fn signal(main: &Main, signal: Signal, only_main: bool) {
    match only_main {
        true => signal_one(main.pid, signal),
        false => family(&[main.pid], &main.sessions(), &main.invocation)
            .iter()
            .for_each(|member| member.signal(signal)),
    }
}

fn signal_one(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Ends what a service left behind when its main process ended by itself.
pub async fn sweep(unit: &Unit, around: &Surroundings, main: &Main) {
    if matches!(unit.kill_mode, KillMode::All | KillMode::Mixed) {
        let hunt = Hunt::begin(unit, &[], main.sessions(), &main.invocation);
        hunt.end(around).await;
    }
}

/// The processes of a service that are to end (`systemd.kill(5)`): they have got their signal.
struct Hunt<'a> {
    unit: &'a Unit,
    main: Vec<Member>,
    members: Vec<Member>,
    sessions: Vec<i32>,
    invocation: &'a str,
    deadline: Instant,
}

impl<'a> Hunt<'a> {
    /// Sends the unit's signal to those whom its KillMode means.
    fn begin(unit: &'a Unit, main: &[i32], sessions: Vec<i32>, invocation: &'a str) -> Self {
        let members = family(main, &sessions, invocation);
        let main: Vec<Member> = members
            .iter()
            .copied()
            .filter(|member| main.contains(&member.pid))
            .collect();
        let signalled = match unit.kill_mode {
            KillMode::All => &members[..],
            KillMode::Mixed | KillMode::Main => &main[..],
            KillMode::Nothing => &[],
        };
        signalled
            .iter()
            .for_each(|member| member.signal(unit.kill_signal));
        Self {
            unit,
            main,
            deadline: Instant::now() + unit.stop_timeout.max(SHORTEST_STOP),
            members,
            sessions,
            invocation,
        }
    }

    /// Waits for those that were signalled, and kills what is left when their time is over.
    async fn end(self, around: &Surroundings) {
        let signalled = match self.unit.kill_mode {
            KillMode::All => &self.members[..],
            KillMode::Mixed | KillMode::Main => &self.main[..],
            KillMode::Nothing => return,
        };
        while signalled.iter().any(|member| member.lives()) && Instant::now() < self.deadline {
            sleep(LOOK_EVERY).await;
        }
        if !self.unit.kills {
            return;
        }
        let look = || self.left();
        let left = look().len();
        if left > 0 && self.unit.kill_mode != KillMode::Mixed {
            around.note(&format!("{left} processes did not end in time: killed"));
        }
        let stuck = exterminate(look, |member| member.signal(Signal::KILL), Instant::now() + DYING).await;
        if stuck > 0 {
            around.note(&format!("{stuck} processes were killed and do not end"));
        }
    }

    /// Those that are to end and live, with what they started meanwhile.
    fn left(&self) -> Vec<Member> {
        let mut left = match self.unit.kill_mode {
            KillMode::Main | KillMode::Nothing => self.main.clone(),
            KillMode::All | KillMode::Mixed => {
                let mut all = self.members.clone();
                all.extend(family(&[], &self.sessions, self.invocation));
                all
            }
        };
        left.sort_unstable_by_key(|member| member.pid);
        left.dedup();
        left.retain(|member| member.lives());
        left
    }
}

/// What was killed is gone after so long, or hangs in the kernel, where nothing helps.
const DYING: Duration = Duration::from_secs(5);

/// Kills until nothing is left: a process may start another one between the look at which it is found and its end. Gives
/// how many are left at the deadline.
async fn exterminate<M>(look: impl Fn() -> Vec<M>, kill: impl Fn(&M), deadline: Instant) -> usize {
    loop {
        let left = look();
        if left.is_empty() || Instant::now() >= deadline {
            return left.len();
        }
        left.iter().for_each(&kill);
        // Another look at once finds what they started; a dying one takes a moment.
        sleep(Duration::from_millis(1)).await;
    }
}

/// How often it is looked whether processes have ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The process that took over from a main process that ended, as its PID file says: a server that replaces its own
/// program while it serves.
pub fn successor(unit: &Unit, around: &Surroundings, old: &Main) -> Option<Main> {
    let pid = read_pid(unit.pid_file.as_deref()?).filter(|pid| *pid != old.pid)?;
    let family = family(&[old.pid], &old.sessions(), &old.invocation);
    family.iter().any(|member| member.pid == pid).then(|| Main {
        pid,
        exit: around.reaper.watch(pid),
        invocation: old.invocation.clone(),
        since: old.since,
        session: session_of(pid),
        _notified: None,
        logged: None,
        output: None,
    })
}

pub(super) fn read_pid(file: &Path) -> Option<i32> {
    let small = fs::metadata(file).ok()?.len() < 64;
    let pid: i32 = fs::read_to_string(file)
        .ok()
        .filter(|_| small)?
        .trim()
        .parse()
        .ok()?;
    (pid > 1 && Path::new(&format!("/proc/{pid}")).exists()).then_some(pid)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn what_is_started_while_others_are_killed_is_killed_too() {
        // Each starts the next one in the moment of its end, five times; the last one does not die.
        for (last, dies, left) in [(5, true, 0), (5, false, 1)] {
            let living = RefCell::new(vec![0]);
            let killed = RefCell::new(Vec::new());
            let kill = |number: &u32| {
                killed.borrow_mut().push(*number);
                if *number < last {
                    *living.borrow_mut() = vec![number + 1];
                } else if dies {
                    living.borrow_mut().clear();
                }
            };
            let look = || living.borrow().clone();
            // One that does not die is given up at once.
            let deadline = Instant::now() + if dies { DYING } else { Duration::from_millis(200) };
            assert_eq!(exterminate(look, kill, deadline).await, left);
            let mut killed = killed.into_inner();
            killed.dedup();
            assert_eq!(killed, [0, 1, 2, 3, 4, 5]);
        }
    }
}
