//! crun as a process: the only place that knows its command line and its state directory.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    process::Stdio,
    time::Duration,
};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tokio::process::Command;

use super::{Error, Output, io};

/// No call of the runtime waits for what runs in a container.
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Runtime {
    /// Where it keeps the state of containers.
    pub root: Utf8PathBuf,
}

impl Runtime {
    /// Makes the container of a bundle; its first process waits to be started.
    pub async fn create(
        &self,
        id: &str,
        bundle: &Utf8Path,
        stdin: Option<OwnedFd>,
        output: Output,
    ) -> Result<u32, Error> {
        let pid_file = bundle.join("pid");
        let mut command = self.command(&bundle.join("crun.log"));
        command.args([
            "create",
            "--bundle",
            bundle.as_str(),
            "--pid-file",
            pid_file.as_str(),
            id,
        ]);
        command.stdin(stdin.map_or_else(Stdio::null, Stdio::from));
        let (stdout, stderr) = streams(output)?;
        command.stdout(stdout).stderr(stderr);
        self.call(command, "create", id, &bundle.join("crun.log")).await?;
        let pid = fs::read_to_string(&pid_file).map_err(io("read", &pid_file))?;
        pid.trim().parse().map_err(|_| Error::Runtime {
            doing: "create",
            id: id.to_owned(),
            why: format!("it wrote no process id but `{pid}`"),
        })
    }

    pub async fn start(&self, id: &str, bundle: &Utf8Path) -> Result<(), Error> {
        let log = bundle.join("crun.log");
        let mut command = self.command(&log);
        command
            .args(["start", id])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.call(command, "start", id, &log).await
    }

    /// Removes what the runtime keeps of a container whose processes are dead. One it does not know is removed.
    pub async fn delete(&self, id: &str, bundle: &Utf8Path) -> Result<(), Error> {
        let state = self.root.join(id);
        if !state.exists() {
            return Ok(());
        }
        let log = bundle.join("crun.log");
        let mut command = self.command(&log);
        command
            .args(["delete", "--force", id])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Err(error) = self.call(command, "delete", id, &log).await {
            // A creation that was cut short leaves a state that the runtime cannot read.
            tracing::warn!(id, %error, "the runtime cannot delete a container; its state is removed by hand");
            crate::mount::remove(&state)?;
        }
        Ok(())
    }

    /// Ends what a node that was killed still asked of the runtime: it would go on to make what is being removed.
    ///
    /// To be called by who has the node's lock, before it asks anything itself.
    pub fn end_calls(&self) -> std::io::Result<()> {
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| Pid::from_raw(name.parse().ok()?)) else {
                continue;
            };
            // First the process, then what it is: the number could be another's by now.
            let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
                continue;
            };
            if self.is_call(pid) {
                let _ = pidfd_send_signal(&process, Signal::KILL);
                let mut ended = [PollFd::new(&process, PollFlags::IN)];
                poll(
                    &mut ended,
                    Some(&DEADLINE.try_into().map_err(std::io::Error::other)?),
                )?;
            }
        }
        Ok(())
    }

    /// A process of this machine, and of no container: those can call themselves what they like.
    fn is_call(&self, pid: Pid) -> bool {
        let process = format!("/proc/{}", pid.as_raw_nonzero());
        let users = |process: &str| fs::read_link(format!("{process}/ns/user")).ok();
        let line = fs::read(format!("{process}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let ours: [&[u8]; 2] = [b"--root", self.root.as_str().as_bytes()];
        words.windows(2).any(|pair| pair == ours)
            && users(&process).is_some_and(|own| Some(own) == users("/proc/self"))
    }

    fn command(&self, log: &Utf8Path) -> Command {
        let mut command = Command::new("crun");
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .args([
                "--root",
                self.root.as_str(),
                "--cgroup-manager",
                "cgroupfs",
                "--log",
                log.as_str(),
            ])
            .kill_on_drop(true);
        command
    }

    async fn call(
        &self,
        mut command: Command,
        doing: &'static str,
        id: &str,
        log: &Utf8Path,
    ) -> Result<(), Error> {
        let failed = |why: String| Error::Runtime {
            doing,
            id: id.to_owned(),
            why,
        };
        let status = tokio::time::timeout(DEADLINE, command.status()).await;
        let status = status
            .map_err(|_| failed("it did not answer in 30 seconds".into()))?
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => Error::Missing("crun"),
                _ => failed(source.to_string()),
            })?;
        if status.success() {
            return Ok(());
        }
        let log = fs::read_to_string(log).unwrap_or_default();
        Err(failed(
            log.lines()
                .last()
                .unwrap_or("it gave no reason")
                .chars()
                .take(500)
                .collect(),
        ))
    }
}

/// The container's own output: it inherits what the runtime is given.
fn streams(output: Output) -> Result<(Stdio, Stdio), Error> {
    let file: fs::File = match output {
        Output::Discard => return Ok((Stdio::null(), Stdio::null())),
        Output::Fd(fd) => fd.into(),
        Output::File(path) => {
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir).map_err(io("create", dir))?;
            }
            let mut options = fs::OpenOptions::new();
            options.create(true).append(true).mode(0o600);
            options.open(&path).map_err(io("open", &path))?
        }
    };
    let second = file
        .try_clone()
        .map_err(io("duplicate the output of", "a container"))?;
    Ok((file.into(), second.into()))
}
