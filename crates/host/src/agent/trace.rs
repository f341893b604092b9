//! What an agent that was killed leaves for the next one to find: which processes are whose.
//!
//! Only on machines of customers' own, where an agent is one process among others: with a PID 1 the kernel ends all that
//! it has started. Where traces lie is empty after a restart of the machine, and no secret is in them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, Signal, test_kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::{
    api::Origin,
    log::file_name,
    run,
    service::{
        Held,
        family::{Member, family},
    },
    spawn::signal_group,
};

/// A process that an agent looks after, or is about to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Where its numbers mean something.
    world: String,
    name: String,
    invocation: String,
    /// `None` while it is being started.
    main: Option<Member>,
    session: Option<i32>,
    /// The pipe that it writes to, as the kernel knows it.
    output: Option<(u64, u64)>,
}

impl Trace {
    /// Of a service that is about to start.
    pub fn begins(name: &str, invocation: &str) -> Self {
        Self {
            world: world(),
            name: name.to_owned(),
            invocation: invocation.to_owned(),
            main: None,
            session: None,
            output: None,
        }
    }

    /// Of what runs with this main process. `output`: one end of its pipe.
    pub fn runs(self, pid: i32, session: Option<i32>, output: Option<impl AsFd>) -> Self {
        let output = output.and_then(|output| rustix::fs::fstat(output).ok());
        Self {
            main: Member::of(pid),
            session,
            output: output.map(|stat| (stat.st_dev, stat.st_ino)),
            ..self
        }
    }

    pub fn read(path: &Path) -> Option<Self> {
        let trace: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (trace.world == world()).then_some(trace)
    }

    /// Whole or not at all.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let fresh = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(fresh, path)
    }

    /// Where the trace of a service is.
    pub fn of_service(traces: &Path, name: &str) -> PathBuf {
        traces.join(format!("service-{}.json", file_name(name)))
    }

    /// Where that of the script is which runs: there is one at a time.
    pub fn of_script(traces: &Path) -> PathBuf {
        traces.join("script.json")
    }

    /// Of all services of an agent that left without a word.
    pub fn services(traces: &Path) -> Vec<Self> {
        let entries = fs::read_dir(traces).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("service-") && name.ends_with(".json")
        });
        paths.filter_map(|path| Self::read(&path)).collect()
    }

    /// What its agent knew of it. The number of a process that is another one by now is nobody's.
    pub fn held(&self) -> Held {
        let main = self.leader();
        Held {
            name: self.name.clone(),
            origin: Origin::Procfile,
            pid: Some(main.unwrap_or(i32::MAX)),
            invocation: self.invocation.clone(),
            session: self.session.filter(|_| main.is_some()),
            output: None,
        }
    }

    /// Another end to read from the pipe that it writes to, if one of its processes still has it.
    pub fn output(&self) -> Option<OwnedFd> {
        let wanted = self.output?;
        let held = self.held();
        let mains: Vec<i32> = held.pid.into_iter().collect();
        let sessions: Vec<i32> = held.session.into_iter().chain(mains.iter().copied()).collect();
        let members = family(&mains, &sessions, &held.invocation);
        members.iter().find_map(|member| {
            let files = fs::read_dir(format!("/proc/{}/fd", member.pid)).ok()?;
            files.flatten().find_map(|file| open_pipe(&file.path(), wanted))
        })
    }

    /// Ends the group that the process led, as a script's is ended when its time is over.
    pub async fn end_group(&self) {
        if !self.signal_group(Signal::TERM) {
            return;
        }
        let deadline = Instant::now() + run::GRACE;
        while self.has_group() && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        self.signal_group(Signal::KILL);
    }

    /// True when there was something to signal.
    fn signal_group(&self, signal: Signal) -> bool {
        self.leader().is_some_and(|pid| signal_group(pid, signal))
    }

    fn has_group(&self) -> bool {
        let group = self.leader().and_then(Pid::from_raw);
        group.is_some_and(|group| test_kill_process_group(group).is_ok())
    }

    fn leader(&self) -> Option<i32> {
        self.main.filter(|main| !main.is_another()).map(|main| main.pid)
    }
}

fn open_pipe(path: &Path, wanted: (u64, u64)) -> Option<OwnedFd> {
    let is_wanted = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == wanted;
    fs::metadata(path)
        .ok()
        .filter(|metadata| is_wanted(metadata.clone()))?;
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    // Between the two looks it may have become another one.
    is_wanted(file.metadata().ok()?).then(|| file.into())
}

/// The boot of the machine, and the processes that see each other.
fn world() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot.trim(), space.display())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, pipe},
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn what_runs_is_found_with_its_output_and_a_number_that_is_anothers_is_nobodys() {
        let (reader, writer) = pipe().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "read line; echo $line; exec sleep 1000"])
            .env("INVOCATION_ID", "of-a-trace")
            .stdin(Stdio::piped())
            .stdout(writer)
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        let directory = tempfile::tempdir().unwrap();
        let path = Trace::of_service(directory.path(), "web");
        let begun = Trace::begins("web", "of-a-trace");
        assert_eq!((begun.held().pid, begun.held().session), (Some(i32::MAX), None));
        begun.runs(pid, Some(pid), Some(&reader)).write(&path).unwrap();
        drop(reader);

        let found = Trace::services(directory.path()).remove(0);
        assert_eq!((found.held().pid, found.held().session), (Some(pid), Some(pid)));
        let mut output = File::from(found.output().unwrap());
        writeln!(child.stdin.take().unwrap(), "said").unwrap();
        let mut said = [0; 5];
        let read = (0..500).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            output.read_exact(&mut said).ok()
        });
        assert_eq!((read, &said), (Some(()), b"said\n"));

        let elsewhere = Trace {
            world: "another boot".into(),
            ..found.clone()
        };
        elsewhere.write(&path).unwrap();
        assert_eq!(Trace::read(&path), None);
        let main = found.main.map(|main| main.earlier());
        let another = Trace {
            main,
            ..found.clone()
        };
        assert_eq!(
            (another.held().pid, another.held().session),
            (Some(i32::MAX), None)
        );
        assert!(!another.signal_group(Signal::KILL));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            found.held().pid,
            Some(pid),
            "it is gone, and its number is nobody else's"
        );
    }
}
