//! One-off commands: text in, exit and bounded output out, dead with all its children at the deadline.

use std::{io, time::Duration};

use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe,
    time::{Instant, timeout, timeout_at},
};

use super::{
    reaper::{Exit, Reaper},
    spawn::{self, Launch, signal_group},
};

/// Output beyond this is read and thrown away.
pub const OUTPUT: usize = 256 << 10;

/// From SIGTERM to SIGKILL.
pub const GRACE: Duration = Duration::from_secs(5);

/// What became of a command.
#[derive(Debug)]
pub struct Ran {
    /// `None` when the deadline passed first.
    pub exit: Option<Exit>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// It ended, but a child of it held its output open until the deadline.
    pub left_open: bool,
}

/// Runs a command to its end or to the deadline.
///
/// # Errors
/// When it cannot be started.
pub async fn run(reaper: &Reaper, launch: &Launch, stdin: Option<&[u8]>, limit: Duration) -> io::Result<Ran> {
    let deadline = Instant::now() + limit;
    let mut running = spawn::start_with_pipes(reaper, launch)?;
    let input = running.stdin.take();
    let feeding = feed(input, stdin.unwrap_or_default());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let reading = async {
        tokio::join!(
            gather(running.stdout.as_mut(), &mut stdout),
            gather(running.stderr.as_mut(), &mut stderr),
            feeding
        );
    };
    let closed = timeout_at(deadline, reading).await.is_ok();
    let exit = match timeout_at(deadline, &mut running.exit).await {
        Ok(exit) => Some(exit.unwrap_or(Exit::Unknown)),
        Err(_) => running.exit.try_recv().ok(),
    };
    if exit.is_none() || !closed {
        end(running.pid, &mut running.exit, exit.is_some()).await;
    }
    Ok(Ran {
        left_open: exit.is_some() && !closed,
        exit,
        stdout,
        stderr,
    })
}

/// Ends a process group: SIGTERM, a grace, SIGKILL.
pub async fn end(pid: i32, exit: &mut tokio::sync::oneshot::Receiver<Exit>, leader_is_gone: bool) {
    signal_group(pid, Signal::TERM);
    if !leader_is_gone && timeout(GRACE, exit).await.is_ok() {
        // The leader obeyed; its children may not have.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    signal_group(pid, Signal::KILL);
}

async fn gather(from: Option<&mut pipe::Receiver>, into: &mut Vec<u8>) {
    let Some(from) = from else { return };
    let mut buffer = vec![0; 8 << 10];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        let room = OUTPUT.saturating_sub(into.len());
        into.extend_from_slice(&buffer[..count.min(room)]);
    }
}

async fn feed(stdin: Option<std::process::ChildStdin>, text: &[u8]) {
    let Some(stdin) = stdin else { return };
    if let Ok(mut sender) = pipe::Sender::from_owned_fd(stdin.into()) {
        // A command that does not read its input is free not to.
        let _ = sender.write_all(text).await;
    }
}
