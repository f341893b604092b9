//! How every process of a host starts: a clean environment, its own session, another user when asked.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, PipeReader, PipeWriter},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::{ChildStdin, Command, Stdio},
};

use model::Secret;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::{net::unix::pipe, sync::oneshot};

use super::{
    reaper::{Exit, Reaper},
    sockets::Lent,
    users::Identity,
};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to start.
pub struct Launch {
    pub program: OsString,
    /// Called so, where that differs from the program.
    pub name: Option<OsString>,
    pub arguments: Vec<OsString>,
    /// The whole environment, but for PATH, HOME, USER, LOGNAME, SHELL and LANG, which have defaults.
    pub environment: Vec<(String, Secret)>,
    pub identity: Option<Identity>,
    pub directory: Option<PathBuf>,
    pub umask: Option<u32>,
    /// Soft and hard limits by the number of the resource.
    pub limits: Vec<(u32, u64, u64)>,
    pub nice: Option<i32>,
    pub oom_score: Option<i32>,
    /// Open for it from number 3 on (`sd_listen_fds(3)`).
    pub sockets: Vec<Lent>,
}

impl Launch {
    pub fn new(
        program: impl Into<OsString>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        Self {
            program: program.into(),
            name: None,
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            identity: None,
            directory: None,
            umask: None,
            limits: Vec::new(),
            nice: None,
            oom_score: None,
            sockets: Vec::new(),
        }
    }

    /// A command line for `sh -c`.
    pub fn shell(line: &str) -> Self {
        Self::new("/bin/sh", ["-c", line])
    }
}

/// A process that runs, and the ends of its pipes.
pub struct Running {
    pub pid: i32,
    pub exit: oneshot::Receiver<Exit>,
    pub stdin: Option<ChildStdin>,
    pub stdout: Option<pipe::Receiver>,
    /// `None` when it shares the pipe of standard output.
    pub stderr: Option<pipe::Receiver>,
}

/// Starts a process with a closed standard input and both outputs in one pipe.
pub fn start(reaper: &Reaper, launch: &Launch) -> io::Result<Running> {
    spawn(reaper, launch, false)
}

/// Starts a process with three pipes.
pub fn start_with_pipes(reaper: &Reaper, launch: &Launch) -> io::Result<Running> {
    spawn(reaper, launch, true)
}

/// Signals a process and all of its group. One that is gone is fine. True when there was something to signal.
pub fn signal_group(pid: i32, signal: Signal) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| {
        let group = kill_process_group(pid, signal).is_ok();
        kill_process(pid, signal).is_ok() || group
    })
}

fn spawn(reaper: &Reaper, launch: &Launch, pipes: bool) -> io::Result<Running> {
    let mut command = program(launch);
    command.args(&launch.arguments).env_clear();
    environment(&mut command, launch);
    let sockets: Vec<i32> = sockets(launch).collect();
    lend(&mut command, launch, sockets.len());
    if let Some(directory) = &launch.directory {
        command.current_dir(directory);
    }
    let (reader, writer) = io::pipe()?;
    let errors = if pipes {
        let (errors, write) = io::pipe()?;
        command.stderr(write).stdout(writer);
        Some(errors)
    } else {
        let writer = lasting(&writer)?;
        command.stderr(writer.try_clone()?).stdout(writer);
        None
    };
    command.stdin(Stdio::piped());
    // The pipe on which a failure to execute is told must not have a number that a socket gets.
    let _taken = occupied(FIRST + sockets.len() as i32)?;
    child::prepare(&mut command, launch, sockets);
    let (mut child, exit) = reaper.spawn(&mut command)?;
    // The command holds the write ends: readers see the end only when it is gone.
    drop(command);
    Ok(Running {
        pid: child.id().cast_signed(),
        exit,
        stdin: if pipes { child.stdin.take() } else { None },
        stdout: Some(receiver(reader)?),
        stderr: errors.map(receiver).transpose()?,
    })
}

/// The end of a pipe that can be read from too: who holds it writes on, and waits where nobody reads for a while, instead of
/// being ended by it. So it outlives an agent that is killed.
fn lasting(writer: &PipeWriter) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    Ok(File::options().read(true).write(true).open(path)?.into())
}

/// The number of the first socket that a service is given.
const FIRST: i32 = 3;

/// What is executed. Only the process itself knows its number in time: with sockets, a shell tells it and becomes the
/// program.
fn program(launch: &Launch) -> Command {
    if !launch.sockets.is_empty() {
        let mut command = Command::new("/bin/sh");
        let script = "LISTEN_PID=$$; export LISTEN_PID; exec \"$0\" \"$@\"";
        command.arg("-c").arg(script).arg(&launch.program);
        return command;
    }
    let mut command = Command::new(&launch.program);
    if let Some(name) = &launch.name {
        command.arg0(name);
    }
    command
}

fn sockets(launch: &Launch) -> impl Iterator<Item = i32> {
    let files = launch.sockets.iter().flat_map(|lent| lent.files.iter());
    files.map(AsRawFd::as_raw_fd)
}

fn lend(command: &mut Command, launch: &Launch, count: usize) {
    if count == 0 {
        return;
    }
    let names = launch
        .sockets
        .iter()
        .flat_map(|lent| lent.files.iter().map(|_| lent.name.as_str()));
    command
        .env("LISTEN_FDS", count.to_string())
        .env("LISTEN_FDNAMES", names.collect::<Vec<_>>().join(":"));
}

/// Sees to it that all numbers below are taken while the answer is held.
fn occupied(below: i32) -> io::Result<Vec<OwnedFd>> {
    let mut taken = Vec::new();
    if below <= FIRST {
        return Ok(taken);
    }
    loop {
        let file = OwnedFd::from(File::open("/dev/null")?);
        if file.as_raw_fd() >= below {
            return Ok(taken);
        }
        taken.push(file);
    }
}

fn receiver(reader: PipeReader) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(reader.into())
}

fn environment(command: &mut Command, launch: &Launch) {
    let identity = launch.identity.as_ref();
    let text = |value: Option<&String>, default: &str| value.cloned().unwrap_or_else(|| default.to_owned());
    let name = text(identity.and_then(|identity| identity.name.as_ref()), "root");
    command
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .env(
            "HOME",
            text(identity.and_then(|identity| identity.home.as_ref()), "/root"),
        )
        .env(
            "SHELL",
            text(identity.and_then(|identity| identity.shell.as_ref()), "/bin/sh"),
        )
        .env("USER", &name)
        .env("LOGNAME", &name);
    for (name, value) in &launch.environment {
        if !name.is_empty() && !name.contains(['=', '\0']) && !value.expose().contains('\0') {
            command.env(name, value.expose());
        }
    }
}

#[allow(unsafe_code)]
mod child {
    //! What happens between fork and exec.

    use std::{io, os::unix::process::CommandExt as _, process::Command};

    use super::Launch;

    /// The child leads a session of its own, drops to the identity, and is as killable as any process even when the
    /// agent is not.
    /// `sockets` have numbers beyond those that they get.
    pub fn prepare(command: &mut Command, launch: &Launch, sockets: Vec<i32>) {
        let identity = launch.identity.as_ref();
        let identity = identity.map(|identity| (identity.uid, identity.gid, identity.groups.clone()));
        let (umask, nice, limits) = (launch.umask, launch.nice, launch.limits.clone());
        let score = launch.oom_score.unwrap_or(0).clamp(-1000, 1000);
        // Made before the fork: nothing is allocated after it.
        let score = std::ffi::CString::new(score.to_string()).unwrap_or_default();
        // SAFETY: the closure runs in the forked child of a process that may have threads, so it makes only
        // async-signal-safe system calls on memory that was made before the fork: it neither allocates nor locks.
        unsafe {
            command.pre_exec(move || {
                if libc::setsid() < 0 {
                    return Err(io::Error::last_os_error());
                }
                killable(&score);
                limited(&limits, nice);
                for (number, socket) in (super::FIRST..).zip(&sockets) {
                    if libc::dup2(*socket, number) < 0 {
                        return Err(io::Error::last_os_error());
                    }
                }
                if let Some(umask) = umask {
                    libc::umask(umask);
                }
                if let Some((uid, gid, groups)) = &identity {
                    become_user(*uid, *gid, groups)?;
                }
                Ok(())
            });
        }
    }

    /// Limits that a host may not raise stay as they are.
    fn limited(limits: &[(u32, u64, u64)], nice: Option<i32>) {
        for (resource, soft, hard) in limits {
            let limit = libc::rlimit {
                rlim_cur: *soft,
                rlim_max: *hard,
            };
            // SAFETY: a system call on a value that outlives it.
            unsafe {
                let _ = libc::syscall(
                    libc::SYS_prlimit64,
                    0,
                    libc::c_long::from(*resource),
                    &raw const limit,
                    0,
                );
            }
        }
        if let Some(nice) = nice {
            // SAFETY: a system call on numbers: 0 is this process.
            unsafe {
                let _ = libc::syscall(libc::SYS_setpriority, 0, 0, libc::c_long::from(nice));
            }
        }
    }

    /// Takes back a protection from the out-of-memory killer that the agent itself may have.
    fn killable(score: &std::ffi::CStr) {
        // SAFETY: system calls on strings that outlive them.
        unsafe {
            let file = libc::open(
                c"/proc/self/oom_score_adj".as_ptr(),
                libc::O_WRONLY | libc::O_CLOEXEC,
            );
            if file >= 0 {
                let _ = libc::write(file, score.as_ptr().cast(), score.count_bytes());
                libc::close(file);
            }
        }
    }

    /// The raw system calls: glibc's own would signal threads, of which a forked child has none.
    fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
        let check = |result: i64| {
            if result < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(())
            }
        };
        // SAFETY: `groups` outlives the call and its length is passed with it; the others take plain numbers.
        unsafe {
            check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
            check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
            check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
        }
        Ok(())
    }
}
