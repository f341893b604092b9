//! The scripts of one lifecycle event.
//!
//! Stricter than CodeDeploy's agent: a location that leaves the revision is refused, and a script that does not end in
//! its time is killed after a grace. `sudo` needs no program where the agent is root.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read as _},
    os::{
        fd::OwnedFd,
        unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use model::{
    Secret,
    port::{LifecycleEvent, ScriptCode, ScriptFailure},
    spec::{Appspec, CARRIAGE_RETURN, UNIX_LINES, deploy::Script, has_carriage_return},
};
use rustix::process::geteuid;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, BufReader},
    net::unix::pipe,
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};

use super::{Deployment, ScriptLog, holders, plan, scriptlog::Part};
use crate::{
    agent::{
        reaper::{Exit, Reaper},
        run,
        spawn::{self, Launch, Running},
        trace::Trace,
    },
    logs::Mask,
};

/// A longer line comes in parts.
const LINE: usize = 64 << 10;

/// The time, from whoever has a clock.
pub type Clock = fn() -> jiff::Timestamp;

/// Whose scripts an event runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Current,
    LastSuccessful,
    MostRecent,
}

/// Whose scripts run, by event. Once the current revision is on the disk (a retry), it is always the current one.
/// `going_back`: a blue/green deployment that a rollback made.
pub fn whose(event: LifecycleEvent, going_back: bool, on_disk: bool) -> Whose {
    use LifecycleEvent::{
        AfterAllowTraffic, AfterBlockTraffic, ApplicationStop, BeforeAllowTraffic, BeforeBlockTraffic,
    };
    match event {
        _ if on_disk => Whose::Current,
        BeforeBlockTraffic | AfterBlockTraffic if going_back => Whose::MostRecent,
        BeforeBlockTraffic | AfterBlockTraffic | ApplicationStop => Whose::LastSuccessful,
        BeforeAllowTraffic | AfterAllowTraffic if going_back => Whose::LastSuccessful,
        _ => Whose::Current,
    }
}

/// What the scripts of an event get to know.
pub struct Facts {
    pub application: String,
    pub deployment: String,
    pub group_name: String,
    pub group: String,
    /// The host's environment, and whatever tells the revision apart.
    pub environment: Vec<(String, Secret)>,
}

/// What the scripts of an event may take together, in seconds.
pub fn total_timeout(spec: &Appspec, event: LifecycleEvent) -> Option<u64> {
    let scripts = spec.hooks.get(&event).filter(|scripts| !scripts.is_empty())?;
    Some(scripts.iter().map(|script| u64::from(script.timeout)).sum())
}

/// Runs the scripts of an event in their order, up to the first that fails. False when there are none.
pub struct Hooks<'a> {
    pub reaper: &'a Reaper,
    pub facts: &'a Facts,
    /// The deployment that runs: what scripts say is logged there, also when they are those of an earlier revision.
    pub current: &'a Deployment,
    pub clock: Clock,
    /// Values that must not be seen in logs.
    pub secrets: &'a [String],
    /// Where scripts run; where their agent runs when absent, as with CodeDeploy's.
    pub directory: Option<PathBuf>,
    /// Ends the scripts as soon as it holds a failure.
    pub unless: Option<watch::Receiver<Option<ScriptFailure>>>,
    /// Where it says which script runs, if its agent may be killed without it.
    pub trace: Option<PathBuf>,
}

impl Hooks<'_> {
    pub async fn run(
        &self,
        event: LifecycleEvent,
        of: &Deployment,
        spec: &Appspec,
        log: &mut ScriptLog,
    ) -> Result<bool, ScriptFailure> {
        let scripts = spec.hooks.get(&event).map_or(&[][..], Vec::as_slice);
        self.scripts(&event.to_string(), scripts, of, log).await
    }

    /// The same for an event of any name.
    pub async fn scripts(
        &self,
        event: &str,
        scripts: &[Script],
        of: &Deployment,
        log: &mut ScriptLog,
    ) -> Result<bool, ScriptFailure> {
        if scripts.is_empty() {
            return Ok(false);
        }
        if let Err(error) = log.begin(&self.current.scripts_log()) {
            return Err(failure(
                log,
                ScriptCode::UnknownError,
                "",
                format!("cannot write scripts.log: {error}"),
            ));
        }
        self.say(log, format!("LifecycleEvent - {event}\n"));
        for script in scripts {
            self.script(event, of, script, log).await?;
        }
        Ok(true)
    }

    async fn script(
        &self,
        event: &str,
        of: &Deployment,
        script: &Script,
        log: &mut ScriptLog,
    ) -> Result<(), ScriptFailure> {
        let location = script.location.as_str();
        let path = match find(of, location) {
            Ok(path) => path,
            Err((code, message)) => return Err(failure(log, code, location, message)),
        };
        self.say(log, format!("Script - {location}\n"));
        let launch = self.launch(event, script, &path);
        let user = script
            .runas
            .as_ref()
            .map(|user| format!(" run as user {user}"))
            .unwrap_or_default();
        let running = match start(self.reaper, &launch, &path) {
            Ok(running) => running,
            Err(error) => {
                let why = why_not(&error, Path::new(&launch.program));
                let hint = hint(&path);
                let message = format!("Script at specified location: {location}{user} {why}{hint}");
                return Err(failure(log, ScriptCode::ScriptFailed, location, message));
            }
        };
        self.mark(running.pid);
        let outcome = self.attend(running, script, &user, log).await;
        self.unmark();
        outcome.map_err(|mut failure| {
            if failure.code == ScriptCode::ScriptFailed {
                failure.message.push_str(&hint(&path));
            }
            failure
        })
    }

    /// Says which script runs, for an agent that comes after one that was killed.
    fn mark(&self, pid: i32) {
        let trace = Trace::begins("", "").runs(pid, None, None::<OwnedFd>);
        if let Some(path) = &self.trace
            && let Err(error) = trace.write(path)
        {
            tracing::warn!("an agent after this one will not find the script that runs: {error}");
        }
    }

    fn unmark(&self) {
        if let Some(path) = &self.trace {
            // What could not be written is not there.
            let _ = fs::remove_file(path);
        }
    }

    /// Waits for a script's end, or ends it.
    async fn attend(
        &self,
        mut running: Running,
        script: &Script,
        user: &str,
        log: &mut ScriptLog,
    ) -> Result<(), ScriptFailure> {
        let location = script.location.as_str();
        let deadline = Instant::now() + Duration::from_secs(script.timeout.into());
        let pipes = [&running.stdout, &running.stderr].map(|pipe| pipe.as_ref().and_then(holders::identity));
        let end = tokio::select! {
            end = self.follow(&mut running, deadline, log) => end,
            failure = self.broken() => {
                log.end_line();
                run::end(running.pid, &mut running.exit, false).await;
                return Err(failure);
            }
        };
        // Before they are ended.
        let holders = self.holders(&end, pipes);
        if end.exit.is_none() || end.open.is_some() {
            run::end(running.pid, &mut running.exit, end.exit.is_some()).await;
        }
        let (code, what) = match (end.exit, end.open) {
            (None, _) => (
                ScriptCode::ScriptTimedOut,
                format!(" failed to complete in {} seconds", script.timeout),
            ),
            // Here the agent names no user.
            (Some(_), Some(open)) => (ScriptCode::OutputsLeftOpen, format!(" failed to close {open}")),
            (Some(Exit::Code(0)), None) => return Ok(()),
            // The number of a process that a signal ended is empty, as in the agent.
            (Some(Exit::Code(code)), None) => (
                ScriptCode::ScriptFailed,
                format!("{user} failed with exit code {code}"),
            ),
            (Some(_), None) => (ScriptCode::ScriptFailed, format!("{user} failed with exit code ")),
        };
        if let (Some(open), false) = (end.open, holders.is_empty()) {
            let note = format!("{location} left its {open} open to {}", holders.join(", "));
            log.note(&note, (self.clock)());
        }
        let message = format!("Script at specified location: {location}{what}");
        Err(ScriptFailure {
            holders,
            ..failure(log, code, location, message)
        })
    }

    /// Which processes have the output that a script that ended left open. The agent names none: its sentence stays as
    /// it is, and they stand beside it.
    fn holders(&self, end: &End, [stdout, stderr]: [Option<holders::Pipe>; 2]) -> Vec<String> {
        let pipe = match (&end.exit, end.open) {
            (Some(_), Some("STDOUT")) => stdout,
            (Some(_), Some(_)) => stderr,
            _ => None,
        };
        let mask = Mask::new(self.secrets.iter().map(String::as_str));
        pipe.map(|pipe| holders::of(&pipe, &mask)).unwrap_or_default()
    }

    async fn broken(&self) -> ScriptFailure {
        if let Some(mut unless) = self.unless.clone()
            && let Ok(failure) = unless.wait_for(Option::is_some).await
            && let Some(failure) = failure.clone()
        {
            return failure;
        }
        std::future::pending().await
    }

    fn launch(&self, event: &str, script: &Script, path: &Path) -> Launch {
        let mut words: Vec<&OsStr> = Vec::new();
        if script.sudo && !geteuid().is_root() {
            words.push("sudo".as_ref());
        }
        if let Some(user) = &script.runas {
            words.extend::<[&OsStr; 3]>(["su".as_ref(), user.as_ref(), "-c".as_ref()]);
        }
        words.push(path.as_os_str());
        let mut launch = Launch::new(words[0], &words[1..]);
        let facts = self.facts;
        launch.environment.clone_from(&facts.environment);
        launch.directory.clone_from(&self.directory);
        for (name, value) in [
            ("APPLICATION_NAME", facts.application.as_str()),
            ("DEPLOYMENT_ID", &facts.deployment),
            ("DEPLOYMENT_GROUP_NAME", &facts.group_name),
            ("DEPLOYMENT_GROUP_ID", &facts.group),
            ("LIFECYCLE_EVENT", event),
        ] {
            launch
                .environment
                .push((name.to_owned(), Secret::new(value.to_owned())));
        }
        launch
    }

    /// Logs both outputs until they and the process ended, or the deadline.
    async fn follow(&self, running: &mut Running, deadline: Instant, log: &mut ScriptLog) -> End {
        let (parts, mut inbox) = mpsc::channel(64);
        let outputs = [
            ("stdout", running.stdout.take()),
            ("stderr", running.stderr.take()),
        ];
        let [mut stdout, mut stderr] = outputs
            .map(|(name, pipe)| {
                let (parts, secrets) = (parts.clone(), self.secrets.to_vec());
                async move {
                    if let Some(pipe) = pipe {
                        read_lines(name, pipe, &secrets, parts).await;
                    }
                }
            })
            .map(Box::pin);
        drop(parts);
        let (mut out, mut err) = (false, false);
        let following = async {
            loop {
                tokio::select! {
                    // First what was said, so that nothing is lost when an output ends.
                    biased;
                    Some(part) = inbox.recv() => log.append_part(&part, (self.clock)()),
                    () = &mut stdout, if !out => out = true,
                    () = &mut stderr, if !err => err = true,
                    else => break,
                }
            }
        };
        let _ = timeout_at(deadline, following).await;
        while let Ok(part) = inbox.try_recv() {
            log.append_part(&part, (self.clock)());
        }
        log.end_line();
        let exit = match timeout_at(deadline, &mut running.exit).await {
            Ok(exit) => Some(exit.unwrap_or(Exit::Unknown)),
            Err(_) => running.exit.try_recv().ok(),
        };
        let open = match (out, err) {
            (false, _) => Some("STDOUT"),
            (_, false) => Some("STDERR"),
            _ => None,
        };
        End { exit, open }
    }

    fn say(&self, log: &mut ScriptLog, line: String) {
        log.append(line, (self.clock)());
    }
}

struct End {
    exit: Option<Exit>,
    open: Option<&'static str>,
}

fn failure(log: &ScriptLog, code: ScriptCode, script: &str, message: String) -> ScriptFailure {
    ScriptFailure {
        code,
        script: script.to_owned(),
        message,
        log: log.text(),
        holders: Vec::new(),
    }
}

/// The script's file, executable.
fn find(of: &Deployment, location: &str) -> Result<PathBuf, (ScriptCode, String)> {
    let inside = plan::inside(location)
        .ok_or_else(|| (ScriptCode::ScriptMissing, plan::leaves("location", location)))?;
    let archive = of.archive();
    let path = archive.join(inside);
    let missing = || {
        let message = format!("Script does not exist at specified location: {}", path.display());
        (ScriptCode::ScriptMissing, message)
    };
    let real = path.canonicalize().map_err(|_| missing())?;
    let root = archive.canonicalize().map_err(|_| missing())?;
    if !real.starts_with(root) {
        return Err((ScriptCode::ScriptMissing, plan::leaves("location", location)));
    }
    let metadata = fs::metadata(&real).map_err(|_| missing())?;
    let mode = metadata.permissions().mode();
    if mode & 0o111 == 0 {
        fs::set_permissions(&real, fs::Permissions::from_mode(mode | 0o111)).map_err(|_| {
            let message = format!("Unable to set script at specified location: {location} as executable");
            (ScriptCode::ScriptNotExecutable, message)
        })?;
    }
    Ok(path)
}

/// A script has nothing to read: what asks hears at once that nobody answers.
fn start(reaper: &Reaper, launch: &Launch, path: &Path) -> io::Result<Running> {
    let mut running = execute(reaper, launch, path)?;
    drop(running.stdin.take());
    Ok(running)
}

/// A file without an interpreter line is a shell script.
fn execute(reaper: &Reaper, launch: &Launch, path: &Path) -> io::Result<Running> {
    match spawn::start_with_pipes(reaper, launch) {
        Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => {
            let mut shell = Launch::new("/bin/sh", [path]);
            shell.environment.clone_from(&launch.environment);
            shell.directory.clone_from(&launch.directory);
            spawn::start_with_pipes(reaper, &shell)
        }
        outcome => outcome,
    }
}

/// In the words of the agent, whose language names errors after errno.
fn why_not(error: &io::Error, path: &Path) -> String {
    let (name, text) = match error.raw_os_error() {
        Some(libc::ENOENT) => ("Errno::ENOENT", "No such file or directory"),
        Some(libc::EACCES) => ("Errno::EACCES", "Permission denied"),
        Some(libc::ENOEXEC) => ("Errno::ENOEXEC", "Exec format error"),
        _ => return format!("could not be started: {error}"),
    };
    format!(
        "failed with error {name} with message {text} - {}",
        path.display()
    )
}

/// What a failure's own words do not say of a script that was written on Windows: beside them, as they are the agent's.
fn hint(path: &Path) -> String {
    // The kernel reads no more of it (`BINPRM_BUF_SIZE`).
    const LINE: u64 = 256;
    // What it was a moment ago it need not be now: nobody waits for a pipe.
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = fs::File::options().read(true).custom_flags(flags).open(path);
    let file = file
        .ok()
        .filter(|file| file.metadata().is_ok_and(|about| about.is_file()));
    let mut begins = Vec::new();
    let read = file.and_then(|file| file.take(LINE).read_to_end(&mut begins).ok());
    match read.is_some() && has_carriage_return(&begins) {
        true => format!(": {CARRIAGE_RETURN}: {UNIX_LINES}"),
        false => String::new(),
    }
}

async fn read_lines(
    source: &'static str,
    pipe: pipe::Receiver,
    secrets: &[String],
    parts: mpsc::Sender<Part>,
) {
    let mut reader = BufReader::new(pipe);
    let mut mask = Mask::new(secrets.iter().map(String::as_str));
    let mut open = Vec::new();
    let mut begins = true;
    loop {
        let more = read_line(&mut reader, &mut mask, &mut open).await;
        while let Some((length, ends)) = next_part(&open, more) {
            let rest = open.split_off(length);
            let bytes = std::mem::replace(&mut open, rest);
            let part = Part {
                source,
                text: String::from_utf8_lossy(&bytes).into_owned(),
                begins,
                ends,
            };
            begins = ends;
            // Nobody listens any more only after the deadline.
            if parts.send(part).await.is_err() {
                return;
            }
        }
        if !more {
            break;
        }
    }
}

/// How much of this can be told by now, and whether that is a line's end. `more` may come.
fn next_part(open: &[u8], more: bool) -> Option<(usize, bool)> {
    if let Some(end) = open.iter().position(|byte| *byte == b'\n') {
        return Some((end + 1, true));
    }
    if open.len() >= LINE {
        // No letter is cut in two, and something is left for the line's end.
        let follows = |at: &usize| open[*at] & 0b1100_0000 == 0b1000_0000;
        let cut = (LINE - 4..LINE).rev().find(|at| !follows(at));
        return Some((cut.unwrap_or(LINE - 4), false));
    }
    (!more && !open.is_empty()).then_some((open.len(), true))
}

/// Adds what can be read now, without secrets. False at the end.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin), mask: &mut Mask, into: &mut Vec<u8>) -> bool {
    match reader.fill_buf().await {
        Ok(bytes) if !bytes.is_empty() => {
            let count = bytes.len();
            into.extend(mask.feed(bytes));
            reader.consume(count);
            true
        }
        _ => {
            into.extend(mask.finish());
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_revisions_scripts_run() {
        use LifecycleEvent::{ApplicationStop, BeforeAllowTraffic, BeforeBlockTraffic, BeforeInstall};
        for (event, back, expected) in [
            (ApplicationStop, false, Whose::LastSuccessful),
            (ApplicationStop, true, Whose::LastSuccessful),
            (BeforeBlockTraffic, false, Whose::LastSuccessful),
            (BeforeBlockTraffic, true, Whose::MostRecent),
            (BeforeAllowTraffic, false, Whose::Current),
            (BeforeAllowTraffic, true, Whose::LastSuccessful),
            (BeforeInstall, true, Whose::Current),
        ] {
            assert_eq!(whose(event, back, false), expected, "{event} {back}");
            assert_eq!(whose(event, back, true), Whose::Current, "{event} {back}");
        }
    }
}
