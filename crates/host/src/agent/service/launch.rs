//! Starting and stopping the processes of one service.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::chown,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use model::Secret;
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::CapabilitySet,
};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{Definition, Surroundings};
use crate::agent::{
    log,
    reaper::Exit,
    spawn::{self, Launch, Running, signal_group},
    unit::{self, Kind, Line, Unit},
    users::{Identity, Users},
};
use crate::logs::Mask;

/// The tasks that copy outputs into logs. They end with the pipes that they read.
#[derive(Clone, Default)]
pub struct Collectors(Arc<Mutex<JoinSet<()>>>);

impl Collectors {
    /// Reads a pipe into a log; into nothing when there is none, so that the writer never stops. Tells its end.
    pub fn collect(
        &self,
        from: tokio::net::unix::pipe::Receiver,
        into: Option<Arc<Mutex<log::Log>>>,
        mask: Mask,
    ) -> oneshot::Receiver<()> {
        let (done, end) = oneshot::channel();
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
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
    if let Some(unmet) = unit.capabilities.iter().find(|wanted| !is_met(wanted)) {
        around.note(&format!("not started: ConditionCapability={unmet} is not met"));
        return Ok(Started::Skipped);
    }
    let job = Job::new(definition, around, invocation, None)?;
    job.directories()?;
    job.all(&unit.start_pre, unit.start_timeout).await?;
    let since = Instant::now();
    let main = match unit.kind {
        Kind::Oneshot => {
            job.all(&unit.start, unit.start_timeout).await?;
            None
        }
        Kind::Simple => {
            let line = unit.start.first().ok_or("its unit file has no ExecStart=")?;
            let running = job.begin(line)?;
            Some((running.process.pid, running.process.exit, running.logged))
        }
        Kind::Forking => {
            job.all(&unit.start, unit.start_timeout).await?;
            let pid = daemon(unit, invocation).await?;
            Some((pid, around.reaper.watch(pid), None))
        }
    };
    job.all(&unit.start_post, unit.start_timeout).await?;
    Ok(main.map_or(Started::Finished, |(pid, exit, logged)| {
        Started::Runs(Main {
            pid,
            exit,
            logged,
            invocation: invocation.to_owned(),
            since,
        })
    }))
}

/// Whether processes of the host can have a capability, or, with `!`, cannot. One that the kernel has no name for is
/// nobody's.
fn is_met(condition: &str) -> bool {
    let (wanted, name) = match condition.strip_prefix('!') {
        Some(name) => (false, name),
        None => (true, condition),
    };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapBnd:")?.trim(), 16).ok())
        .unwrap_or(0);
    let name = name.trim().to_ascii_uppercase();
    let flag = CapabilitySet::from_name(name.strip_prefix("CAP_").unwrap_or(&name));
    flag.is_some_and(|flag| bounding & flag.bits() != 0) == wanted
}

/// Ends a service: its ExecStop lines, SIGTERM, and SIGKILL when its time is over.
pub async fn stop(definition: &Definition, around: &Surroundings, mut main: Main) -> Exit {
    stop_lines(definition, around, Some(&main)).await;
    signal_group(main.pid, Signal::TERM);
    let exit = match timeout(definition.unit.stop_timeout, &mut main.exit).await {
        Ok(exit) => exit.unwrap_or(Exit::Unknown),
        Err(_) => {
            around.note("did not stop in time: killed");
            signal_group(main.pid, Signal::KILL);
            main.exit.await.unwrap_or(Exit::Unknown)
        }
    };
    sweep(&main.invocation).await;
    exit
}

/// The ExecStop lines. Their failure stops nothing.
pub async fn stop_lines(definition: &Definition, around: &Surroundings, main: Option<&Main>) {
    let invocation = main.map_or_else(invocation, |main| main.invocation.clone());
    let pid = main.map(|main| main.pid);
    let unit = &definition.unit;
    let outcome = match Job::new(definition, around, &invocation, pid) {
        Ok(job) => job.all(&unit.stop, unit.stop_timeout).await,
        Err(why) => Err(why),
    };
    if let Err(why) = outcome {
        around.note(&format!("ExecStop: {why}"));
    }
}

pub async fn reload(definition: &Definition, around: &Surroundings, main: &Main) -> Result<(), String> {
    let job = Job::new(definition, around, &main.invocation, Some(main.pid))?;
    job.all(&definition.unit.reload, definition.unit.start_timeout)
        .await
}

/// Ends what a service left behind: SIGTERM, a second, SIGKILL.
pub async fn sweep(invocation: &str) {
    for pid in processes_of(invocation) {
        signal_group(pid, Signal::TERM);
    }
    for _ in 0..20 {
        if processes_of(invocation).is_empty() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    for pid in processes_of(invocation) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Every process that carries an invocation id.
pub fn processes_of(invocation: &str) -> Vec<i32> {
    let mark = format!("INVOCATION_ID={invocation}");
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == mark.as_bytes())
        })
        .collect()
}

/// The daemon that a forking service left: as its PID file says, or the first process of it that lives.
async fn daemon(unit: &Unit, invocation: &str) -> Result<i32, String> {
    const PATIENCE: u32 = 100;
    for _ in 0..PATIENCE {
        let found = match &unit.pid_file {
            Some(file) => read_pid(file),
            None => processes_of(invocation).into_iter().min(),
        };
        match found {
            Some(pid) => return Ok(pid),
            None if unit.pid_file.is_none() => break,
            None => sleep(Duration::from_millis(50)).await,
        }
    }
    Err("Type=forking, but it left no daemon behind".to_owned())
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
}

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
        environment.insert("INVOCATION_ID".to_owned(), text(invocation));
        if let Some(pid) = main {
            environment.insert("MAINPID".to_owned(), text(&pid.to_string()));
        }
        Ok(Self {
            unit,
            around,
            environment,
            identity: identity(unit)?,
        })
    }

    fn directories(&self) -> Result<(), String> {
        for directory in &self.unit.directories {
            let failed = |error: std::io::Error| format!("cannot make {}: {error}", directory.display());
            fs::create_dir_all(directory).map_err(failed)?;
            if let Some(identity) = &self.identity {
                chown(directory, Some(identity.uid), Some(identity.gid)).map_err(failed)?;
            }
        }
        Ok(())
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
            Ok(Ok(Exit::Code(code))) if self.unit.success.contains(&code) => Ok(()),
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
        launch.directory = Some(self.unit.directory.clone().unwrap_or_else(|| "/".into()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_about_what_processes_can_have() {
        assert!(is_met("!CAP_NO_SUCH_THING") && !is_met("CAP_NO_SUCH_THING"));
        for name in ["CAP_CHOWN", "cap_sys_admin"] {
            assert_ne!(is_met(name), is_met(&format!("!{name}")));
        }
    }
}
