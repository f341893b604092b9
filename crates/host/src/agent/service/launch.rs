//! Starting and stopping the processes of one service.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use model::Secret;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Definition, Surroundings,
    family::{self, Member, family, session_of},
    notify::Socket,
};
use crate::agent::{
    log,
    reaper::Exit,
    spawn::{self, Launch, Running, signal_group},
    unit::{self, Directory, KillMode, Kind, Line, Unit, condition},
    users::{Identity, Users},
};
use crate::logs::Mask;

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
        from: tokio::net::unix::pipe::Receiver,
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
    _notified: Option<oneshot::Sender<()>>,
    /// All that it wrote is in the log.
    logged: Option<oneshot::Receiver<()>>,
}

impl Main {
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

/// Starts a service until it counts as running, or, for a oneshot, to its end.
pub async fn start(
    definition: &Definition,
    around: &Surroundings,
    invocation: &str,
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
    let mut job = Job::new(definition, around, invocation, None)?;
    job.directories()?;
    for line in &unit.start_if {
        if let Some(code) = job.asks(line).await? {
            around.note(&format!("not started: ExecCondition= says {code}"));
            return Ok(Started::Skipped);
        }
    }
    let deadline = Instant::now() + unit.start_timeout;
    job.helpers(&unit.start_pre, unit.start_timeout).await?;
    let main = match unit.kind {
        Kind::Oneshot => {
            job.all(&unit.start, unit.start_timeout).await?;
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

/// Ends a service: its ExecStop lines, its signal, and SIGKILL when its time is over.
pub async fn stop(definition: &Definition, around: &Surroundings, mut main: Main) -> Exit {
    let unit = &definition.unit;
    stop_lines(definition, around, Some(&main)).await;
    let members = family(Some(main.pid), main.session, &main.invocation);
    match unit.kill_mode {
        KillMode::All => members.iter().for_each(|member| member.signal(unit.kill_signal)),
        KillMode::Mixed | KillMode::Main => signal_one(main.pid, unit.kill_signal),
        KillMode::Nothing => {}
    }
    let exit = match timeout(unit.stop_timeout.max(SHORTEST_STOP), &mut main.exit).await {
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
    if unit.kills && matches!(unit.kill_mode, KillMode::All | KillMode::Mixed) {
        end(members, unit.kill_mode == KillMode::Mixed).await;
    }
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
        let (code, status) = match exit {
            Exit::Code(code) => ("exited", code.to_string()),
            Exit::Signal(signal) => ("killed", signal.to_string()),
            Exit::Unknown => ("exited", String::new()),
        };
        let result = if exit.is_success() { "success" } else { "exit-code" };
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
        false => family(Some(main.pid), main.session, &main.invocation)
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
pub async fn sweep(unit: &Unit, main: Option<&Main>, invocation: &str) {
    if matches!(unit.kill_mode, KillMode::All | KillMode::Mixed) {
        let (pid, session) = (main.map(|main| main.pid), main.and_then(|main| main.session));
        let left = family(pid, session, invocation);
        end(left, unit.kill_mode == KillMode::Mixed).await;
    }
}

/// SIGTERM, a second, SIGKILL; or SIGKILL at once.
async fn end(members: Vec<Member>, at_once: bool) {
    if !at_once {
        members.iter().for_each(|member| member.signal(Signal::TERM));
        for _ in 0..20 {
            if !members.iter().any(|member| member.lives()) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    members.iter().for_each(|member| member.signal(Signal::KILL));
}

/// The process that took over from a main process that ended, as its PID file says: a server that replaces its own
/// program while it serves.
pub fn successor(unit: &Unit, around: &Surroundings, old: &Main) -> Option<Main> {
    let pid = read_pid(unit.pid_file.as_deref()?).filter(|pid| *pid != old.pid)?;
    let family = family(Some(old.pid), old.session, &old.invocation);
    family.iter().any(|member| member.pid == pid).then(|| Main {
        pid,
        exit: around.reaper.watch(pid),
        invocation: old.invocation.clone(),
        since: old.since,
        session: session_of(pid),
        _notified: None,
        logged: None,
    })
}

fn read_pid(file: &Path) -> Option<i32> {
    let small = fs::metadata(file).ok()?.len() < 64;
    let pid: i32 = fs::read_to_string(file)
        .ok()
        .filter(|_| small)?
        .trim()
        .parse()
        .ok()?;
    (pid > 1 && Path::new(&format!("/proc/{pid}")).exists()).then_some(pid)
}

/// A process whose output goes into a log.
struct Logged {
    process: Running,
    /// All of it is there.
    logged: Option<oneshot::Receiver<()>>,
}

/// What the lines of one start have in common.
struct Job<'a> {
    unit: &'a Unit,
    around: &'a Surroundings,
    environment: BTreeMap<String, Secret>,
    identity: Option<Identity>,
    invocation: String,
}

/// What systemd tells a service of its directories.
const VARIABLES: [(&str, &str); 5] = [
    ("RuntimeDirectory", "RUNTIME_DIRECTORY"),
    ("StateDirectory", "STATE_DIRECTORY"),
    ("CacheDirectory", "CACHE_DIRECTORY"),
    ("LogsDirectory", "LOGS_DIRECTORY"),
    ("ConfigurationDirectory", "CONFIGURATION_DIRECTORY"),
];

impl<'a> Job<'a> {
    fn new(
        definition: &'a Definition,
        around: &'a Surroundings,
        invocation: &str,
        main: Option<i32>,
    ) -> Result<Self, String> {
        let unit = &definition.unit;
        let mut environment: BTreeMap<String, Secret> = (around.environment)().into_iter().collect();
        let text = |value: &str| Secret::new(value.to_owned());
        environment.extend(
            unit.environment
                .iter()
                .map(|(name, value)| (name.clone(), text(value))),
        );
        for (file, optional) in &unit.environment_files {
            match environment_file(file) {
                Some(variables) => environment.extend(variables),
                None if *optional => {}
                None => return Err(format!("its environment file {} cannot be read", file.display())),
            }
        }
        environment.extend(definition.environment.iter().cloned());
        for name in &unit.unset {
            environment.remove(name);
        }
        environment.insert("INVOCATION_ID".to_owned(), text(invocation));
        if let Some(pid) = main {
            environment.insert("MAINPID".to_owned(), text(&pid.to_string()));
        }
        for (kind, variable) in VARIABLES {
            let paths = unit.directories.iter().filter(|directory| directory.kind == kind);
            let paths: Vec<&str> = paths.filter_map(|directory| directory.path.to_str()).collect();
            if !paths.is_empty() {
                environment.insert(variable.to_owned(), text(&paths.join(":")));
            }
        }
        Ok(Self {
            unit,
            around,
            environment,
            identity: identity(unit)?,
            invocation: invocation.to_owned(),
        })
    }

    fn set(&mut self, name: &str, value: &str) {
        let value = Secret::new(value.to_owned());
        self.environment.insert(name.to_owned(), value);
    }

    fn main(&mut self, pid: i32) {
        self.set("MAINPID", &pid.to_string());
    }

    fn directories(&self) -> Result<(), String> {
        for Directory { path, kind } in &self.unit.directories {
            let failed = |error: std::io::Error| format!("cannot make {}: {error}", path.display());
            fs::create_dir_all(path).map_err(failed)?;
            if let Some(identity) = &self.identity {
                chown(path, Some(identity.uid), Some(identity.gid)).map_err(failed)?;
            }
            let mode = self.unit.directory_modes.get(kind).copied().unwrap_or(0o755);
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
        }
        Ok(())
    }

    fn running(
        &self,
        pid: i32,
        exit: oneshot::Receiver<Exit>,
        logged: Option<oneshot::Receiver<()>>,
    ) -> Main {
        Main {
            pid,
            exit,
            invocation: self.invocation.clone(),
            since: Instant::now(),
            session: session_of(pid),
            _notified: None,
            logged,
        }
    }

    fn first(&self) -> Result<&'a Line, String> {
        self.unit
            .start
            .first()
            .ok_or_else(|| "its unit file has no ExecStart=".to_owned())
    }

    fn simple(&self) -> Result<Main, String> {
        let running = self.begin(self.first()?)?;
        Ok(self.running(running.process.pid, running.process.exit, running.logged))
    }

    /// Running when it says that it is ready.
    async fn notify(&mut self, deadline: Instant) -> Result<Main, String> {
        let socket = Socket::bind(&self.around.notify, &self.invocation)
            .map_err(|error| format!("cannot make its notification socket: {error}"))?;
        self.set("NOTIFY_SOCKET", &socket.path().to_string_lossy());
        let mut main = self.simple()?;
        loop {
            let message = tokio::select! {
                message = socket.next() => message,
                exit = &mut main.exit => {
                    main.said().await;
                    return Err(format!("it ended with {} before it was ready", exit.unwrap_or(Exit::Unknown)));
                }
                () = sleep_until(deadline) => {
                    let limit = self.unit.start_timeout.as_secs();
                    return Err(format!("it did not say that it is ready within {limit} s"));
                }
            };
            if let Some(status) = message.status {
                self.around.note(&format!("says: {status}"));
            }
            if let Some(pid) = message.main.filter(|pid| *pid != main.pid) {
                main = self.running(pid, self.around.reaper.watch(pid), main.logged.take());
            }
            if message.ready {
                break;
            }
        }
        let (end, ended) = oneshot::channel();
        self.around.collectors.spawn(socket.drain(ended));
        main._notified = Some(end);
        Ok(main)
    }

    /// Running when its first process ended: the daemon that it left is found by its PID file, its mark, or as the
    /// only one that appeared meanwhile. `None` when there is none and the unit does without.
    async fn forking(&self, deadline: Instant) -> Result<Option<Main>, String> {
        // Two that fork at the same time could be taken for each other; but neither waits for ever.
        let patience = Duration::from_secs(15);
        let _turn = timeout(patience, self.around.forking.lock()).await;
        let begun = family::ticks();
        self.all(&self.unit.start, self.unit.start_timeout).await?;
        loop {
            let found = match &self.unit.pid_file {
                Some(file) => read_pid(file),
                None => self.left(begun),
            };
            match found {
                Some(pid) => return Ok(Some(self.running(pid, self.around.reaper.watch(pid), None))),
                None if self.unit.pid_file.is_none() || Instant::now() >= deadline => break,
                None => sleep(Duration::from_millis(20)).await,
            }
        }
        match self.unit.remain_after_exit {
            true => Ok(None),
            false => Err("Type=forking, but it left no daemon behind".to_owned()),
        }
    }

    fn left(&self, begun: u64) -> Option<i32> {
        if !self.unit.guesses {
            return None;
        }
        let marked = family(None, None, &self.invocation);
        let marked = marked.iter().map(|member| member.pid).min();
        marked.or_else(|| {
            let orphans = family::orphans_since(begun);
            orphans.into_iter().find(|pid| !self.around.reaper.knows(*pid))
        })
    }

    /// Whether an ExecCondition line says no, and how: 1 to 254 do, anything else is a failure.
    async fn asks(&self, line: &Line) -> Result<Option<i32>, String> {
        let mut running = self.begin(line)?.process;
        match timeout(self.unit.start_timeout, &mut running.exit).await {
            Ok(Ok(Exit::Code(0))) => Ok(None),
            Ok(Ok(Exit::Code(code @ 1..=254))) => Ok(Some(code)),
            Ok(exit) => Err(format!(
                "ExecCondition= ended with {}",
                exit.unwrap_or(Exit::Unknown)
            )),
            Err(_) => {
                signal_group(running.pid, Signal::KILL);
                Err("ExecCondition= did not end in time".to_owned())
            }
        }
    }

    /// Lines around the main process: with `PermissionsStartOnly=`, not as its user.
    async fn helpers(&self, lines: &[Line], limit: Duration) -> Result<(), String> {
        if !self.unit.privileged_helpers {
            return self.all(lines, limit).await;
        }
        let lines: Vec<Line> = lines
            .iter()
            .map(|line| Line {
                privileged: true,
                ..line.clone()
            })
            .collect();
        self.all(&lines, limit).await
    }

    /// Runs lines one after the other, up to the first whose failure matters.
    async fn all(&self, lines: &[Line], limit: Duration) -> Result<(), String> {
        for line in lines {
            let outcome = self.to_end(line, limit).await;
            match outcome {
                Err(why) if !line.ignore_failure => return Err(why),
                _ => {}
            }
        }
        Ok(())
    }

    async fn to_end(&self, line: &Line, limit: Duration) -> Result<(), String> {
        let mut running = self.begin(line)?.process;
        let program = line.arguments.first().map(String::as_str).unwrap_or_default();
        match timeout(limit, &mut running.exit).await {
            Ok(Ok(exit)) if exit.is_success() => Ok(()),
            Ok(Ok(exit)) if self.unit.success.contains(&exit) => Ok(()),
            Ok(exit) => Err(format!("{program} ended with {}", exit.unwrap_or(Exit::Unknown))),
            Err(_) => {
                signal_group(running.pid, Signal::KILL);
                Err(format!("{program} did not end within {} s", limit.as_secs()))
            }
        }
    }

    /// Starts one line, its output into the service's log.
    fn begin(&self, line: &Line) -> Result<Logged, String> {
        let mut words = unit::expand_line(line, |name| self.environment.get(name).map(Secret::expose));
        if words.is_empty() {
            return Err("an empty command line".to_owned());
        }
        let program = words.remove(0);
        let mut launch = Launch::new(&program, Vec::<String>::new());
        if line.named && !words.is_empty() {
            launch.name = Some(words.remove(0).into());
        }
        launch.arguments = words.into_iter().map(Into::into).collect();
        launch.environment = self
            .environment
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        launch.identity = self.identity.clone().filter(|_| !line.privileged);
        let home = self
            .identity
            .as_ref()
            .and_then(|identity| identity.home.as_deref());
        launch.directory = Some(match &self.unit.directory {
            Some(directory) if directory == Path::new("~") => home.unwrap_or("/root").into(),
            Some(directory) => directory.clone(),
            None => "/".into(),
        });
        launch.limits.clone_from(&self.unit.limits);
        launch.nice = self.unit.nice;
        launch.oom_score = self.unit.oom_score;
        launch.umask = Some(self.unit.umask.unwrap_or(0o022));
        let mut running = spawn::start(&self.around.reaper, &launch)
            .map_err(|error| format!("cannot start {program}: {error}"))?;
        let logged = running.stdout.take().map(|output| {
            let log = (!self.unit.quiet).then(|| self.around.log.clone());
            let secrets = (self.around.secrets)();
            let mask = Mask::new(secrets.iter().map(String::as_str));
            self.around.collectors.collect(output, log, mask)
        });
        Ok(Logged {
            process: running,
            logged,
        })
    }
}

fn identity(unit: &Unit) -> Result<Option<Identity>, String> {
    if unit.user.is_none() && unit.group.is_none() {
        return Ok(None);
    }
    let user = unit.user.as_deref().unwrap_or("0");
    match Users::read().identity(user, unit.group.as_deref()) {
        Some(identity) => Ok(Some(identity)),
        None => Err(format!(
            "there is no user {user} or no group {}",
            unit.group.as_deref().unwrap_or(user)
        )),
    }
}

/// `NAME=value` lines, with quotes and comments.
fn environment_file(path: &Path) -> Option<Vec<(String, Secret)>> {
    let small = fs::metadata(path).ok()?.len() <= unit::LIMIT as u64;
    let text = String::from_utf8(fs::read(path).ok().filter(|_| small)?).ok()?;
    let variable = |line: &str| {
        let line = line.trim();
        let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
        let value = unit::split(value).join(" ");
        (!line.starts_with(['#', ';'])).then(|| (name.trim().to_owned(), Secret::new(value)))
    };
    Some(text.lines().filter_map(variable).collect())
}
