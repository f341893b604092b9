//! The processes of one start: its lines run one after the other, in one environment, into one log.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::{PermissionsExt as _, chown},
    },
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use model::Secret;
use rustix::process::Signal;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Definition, Surroundings,
    family::{self, family, session_of},
    launch::{Main, read_pid},
    notify::{self, Socket},
};
use crate::{
    agent::{
        reaper::Exit,
        spawn::{self, Launch, Running, signal_group},
        unit::{self, Directory, Line, Unit},
        users::{Identity, Users},
    },
    logs::Mask,
};

/// A process whose output goes into a log.
pub struct Logged {
    process: Running,
    /// All of it is there.
    logged: Option<oneshot::Receiver<()>>,
    output: Option<OwnedFd>,
}

/// What the lines of one start have in common.
pub struct Job<'a> {
    unit: &'a Unit,
    around: &'a Surroundings,
    environment: BTreeMap<String, Secret>,
    identity: Option<Identity>,
    invocation: String,
    /// Of a start: what it began, for whoever gives it up to end.
    begun: Option<&'a Begun>,
}

/// The processes that a start began and that have not ended.
pub type Begun = Mutex<BTreeSet<i32>>;

/// How a line went wrong.
enum Trouble {
    Failed(String),
    Late(String),
}

impl Trouble {
    fn why(self) -> String {
        match self {
            Self::Failed(why) | Self::Late(why) => why,
        }
    }
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
    pub fn new(
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
            begun: None,
        })
    }

    /// The job of a start: what it begins is for its caller to end, who is told of it.
    pub fn starts(mut self, begun: &'a Begun) -> Self {
        self.begun = Some(begun);
        self
    }

    pub fn set(&mut self, name: &str, value: &str) {
        let value = Secret::new(value.to_owned());
        self.environment.insert(name.to_owned(), value);
    }

    pub fn main(&mut self, pid: i32) {
        self.set("MAINPID", &pid.to_string());
    }

    pub fn directories(&self) -> Result<(), String> {
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
        output: Option<OwnedFd>,
    ) -> Main {
        Main {
            pid,
            exit,
            invocation: self.invocation.clone(),
            since: Instant::now(),
            session: session_of(pid),
            _notified: None,
            logged,
            output,
        }
    }

    fn first(&self) -> Result<&'a Line, String> {
        match self.unit.start.as_slice() {
            [line] => Ok(line),
            [] => Err("its unit file has no ExecStart=".to_owned()),
            // systemd.service(5): a drop-in that is to replace one begins with an empty `ExecStart=`.
            _ => {
                Err("its unit file has more than one ExecStart=, which only Type=oneshot may have".to_owned())
            }
        }
    }

    pub fn simple(&self) -> Result<Main, String> {
        let running = self.begin(self.first()?, true)?;
        Ok(self.running(
            running.process.pid,
            running.process.exit,
            running.logged,
            running.output,
        ))
    }

    /// Running when it says that it is ready.
    pub async fn notify(&mut self, deadline: Instant) -> Result<Main, String> {
        let socket = Socket::bind(&self.around.notify, &self.invocation)
            .map_err(|error| format!("cannot make its notification socket: {error}"))?;
        self.set("NOTIFY_SOCKET", &socket.path().to_string_lossy());
        let mut main = self.simple()?;
        loop {
            let message = tokio::select! {
                message = socket.next() => message,
                exit = &mut main.exit => {
                    self.keep(|begun| begun.remove(&main.pid));
                    main.said().await;
                    return Err(format!("it ended with {} before it was ready", exit.unwrap_or(Exit::Unknown)));
                }
                () = sleep_until(deadline) => {
                    let limit = self.unit.start_timeout.as_secs();
                    return Err(format!("it did not say that it is ready within {limit} s"));
                }
            };
            if let Some(status) = message.status {
                let secrets = (self.around.secrets)();
                let mask = Mask::new(secrets.iter().map(String::as_str));
                self.around
                    .note(&format!("says: {}", notify::shown(&status, &mask)));
            }
            if let Some(pid) = message.main.filter(|pid| *pid != main.pid) {
                main = self.running(
                    pid,
                    self.around.reaper.watch(pid),
                    main.logged.take(),
                    main.output.take(),
                );
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
    pub async fn forking(&self, deadline: Instant) -> Result<Option<Main>, String> {
        // Two that fork at the same time could be taken for each other; but neither waits for ever.
        let patience = Duration::from_secs(15);
        let _turn = timeout(patience, self.around.forking.lock()).await;
        let begun = family::ticks();
        self.first()?;
        self.start().await?;
        loop {
            let found = match &self.unit.pid_file {
                Some(file) => read_pid(file),
                None => self.left(begun),
            };
            match found {
                Some(pid) => return Ok(Some(self.running(pid, self.around.reaper.watch(pid), None, None))),
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
        let marked = family(&[], &[], &self.invocation);
        let marked = marked.iter().map(|member| member.pid).min();
        marked.or_else(|| {
            let orphans = family::orphans_since(begun);
            orphans.into_iter().find(|pid| !self.around.reaper.knows(*pid))
        })
    }

    /// Whether an ExecCondition line says no, and how: 1 to 254 do, anything else is a failure.
    pub async fn asks(&self, line: &Line) -> Result<Option<i32>, String> {
        let mut running = self.begin(line, false)?.process;
        let ended = timeout(self.unit.start_timeout, &mut running.exit).await;
        if ended.is_ok() {
            self.keep(|begun| begun.remove(&running.pid));
        }
        match ended {
            Ok(Ok(Exit::Code(0))) => Ok(None),
            Ok(Ok(Exit::Code(code @ 1..=254))) => Ok(Some(code)),
            Ok(exit) => Err(format!(
                "ExecCondition= ended with {}",
                exit.unwrap_or(Exit::Unknown)
            )),
            Err(_) => {
                self.late(running.pid);
                Err("ExecCondition= did not end in time".to_owned())
            }
        }
    }

    /// Lines around the main process: with `PermissionsStartOnly=`, not as its user.
    pub async fn helpers(&self, lines: &[Line], limit: Duration) -> Result<(), String> {
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

    /// Runs the ExecStart lines to their ends. They get the sockets.
    pub async fn start(&self) -> Result<(), String> {
        self.each(&self.unit.start, self.unit.start_timeout, true).await
    }

    /// Runs lines one after the other, up to the first whose failure matters.
    pub async fn all(&self, lines: &[Line], limit: Duration) -> Result<(), String> {
        self.each(lines, limit, false).await
    }

    async fn each(&self, lines: &[Line], limit: Duration, starts: bool) -> Result<(), String> {
        for line in lines {
            match self.to_end(line, limit, starts).await {
                // Whoever may fail may not hang.
                Err(Trouble::Failed(_)) if line.ignore_failure => {}
                Err(trouble) => return Err(trouble.why()),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    async fn to_end(&self, line: &Line, limit: Duration, starts: bool) -> Result<(), Trouble> {
        let mut running = self.begin(line, starts).map_err(Trouble::Failed)?.process;
        let program = line.arguments.first().map(String::as_str).unwrap_or_default();
        let ended = timeout(limit, &mut running.exit).await;
        if ended.is_ok() {
            self.keep(|begun| begun.remove(&running.pid));
        }
        match ended {
            Ok(Ok(exit)) if exit.is_success() => Ok(()),
            Ok(Ok(exit)) if self.unit.success.contains(&exit) => Ok(()),
            Ok(exit) => {
                let exit = exit.unwrap_or(Exit::Unknown);
                Err(Trouble::Failed(format!("{program} ended with {exit}")))
            }
            Err(_) => {
                self.late(running.pid);
                let limit = limit.as_secs();
                Err(Trouble::Late(format!("{program} did not end within {limit} s")))
            }
        }
    }

    /// What a start began, as it is now.
    fn keep(&self, change: impl FnOnce(&mut BTreeSet<i32>) -> bool) {
        if let Some(begun) = self.begun {
            change(&mut begun.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Of a start, what did not end in time gets the unit's own signal with all the others; else it is killed.
    fn late(&self, pid: i32) {
        if self.begun.is_none() {
            signal_group(pid, Signal::KILL);
        }
    }

    /// Starts one line, its output into the service's log. What `starts` the service gets its sockets.
    fn begin(&self, line: &Line, starts: bool) -> Result<Logged, String> {
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
            Some(directory) if self.unit.directory_may_miss && !directory.is_dir() => "/".into(),
            Some(directory) => directory.clone(),
            None => "/".into(),
        });
        if starts {
            launch.sockets = (self.around.sockets)();
        }
        launch.limits.clone_from(&self.unit.limits);
        launch.nice = self.unit.nice;
        launch.oom_score = self.unit.oom_score;
        launch.umask = Some(self.unit.umask.unwrap_or(0o022));
        let mut running = spawn::start(&self.around.reaper, &launch)
            .map_err(|error| format!("cannot start {program}: {error}"))?;
        self.keep(|begun| begun.insert(running.pid));
        let output = running
            .stdout
            .as_ref()
            .and_then(|output| output.as_fd().try_clone_to_owned().ok());
        let logged = running.stdout.take().map(|output| {
            let log = (!self.unit.quiet).then(|| self.around.log.clone());
            let secrets = (self.around.secrets)();
            let mask = Mask::new(secrets.iter().map(String::as_str));
            self.around.collectors.collect(output, log, mask)
        });
        Ok(Logged {
            process: running,
            logged,
            output,
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

/// What a file of variables holds; `None` when it cannot be read.
fn environment_file(path: &Path) -> Option<Vec<(String, Secret)>> {
    let small = fs::metadata(path).ok()?.len() <= unit::LIMIT as u64;
    let text = String::from_utf8(fs::read(path).ok().filter(|_| small)?).ok()?;
    let variables = unit::variables(&text).into_iter();
    Some(
        variables
            .map(|(name, value)| (name, Secret::new(value)))
            .collect(),
    )
}
