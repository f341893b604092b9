//! The socket on which a service says that it is ready (`sd_notify(3)`). Whoever may write to it is told its name by
//! the service, in its environment.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tokio::{net::UnixDatagram, sync::oneshot};

use crate::logs::Mask;

/// Longest message that is read, as systemd does.
const MESSAGE: usize = 4096;

/// So many characters of a status are shown.
const STATUS: usize = 200;

/// What of a message matters.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub ready: bool,
    pub main: Option<i32>,
    /// As it was said: secrets may be in it.
    pub status: Option<String>,
}

/// A status for the log: without secrets, then no longer than it may be. A secret that was cut would not be known.
pub fn shown(status: &str, mask: &Mask) -> String {
    mask.conceal(status).chars().take(STATUS).collect()
}

/// One start's socket. Its name goes when this does.
pub struct Socket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Socket {
    /// # Errors
    /// When it cannot be made.
    pub fn bind(directory: &Path, invocation: &str) -> io::Result<Self> {
        let path = directory.join(format!("notify-{invocation}"));
        let socket = UnixDatagram::bind(&path)?;
        // Services of any user write to it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622))?;
        Ok(Self { socket, path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next message.
    pub async fn next(&self) -> Message {
        // What is longer shows by filling it.
        let mut buffer = [0; MESSAGE + 1];
        match self.socket.recv(&mut buffer).await {
            Ok(length) => read(&buffer[..length]),
            // A socket of our own does not fail; if it does, nobody is ever ready.
            Err(_) => std::future::pending().await,
        }
    }

    /// Goes on reading until `end`, so that no service ever waits for somebody to listen.
    pub async fn drain(self, end: oneshot::Receiver<()>) {
        tokio::select! {
            _ = end => {}
            () = async { loop { self.next().await; } } => {}
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// One that is too long is ignored: what it ends with is not what was said.
fn read(bytes: &[u8]) -> Message {
    if bytes.len() > MESSAGE {
        return Message::default();
    }
    let text = String::from_utf8_lossy(bytes);
    let mut message = Message::default();
    for line in text.lines() {
        match line.split_once('=') {
            Some(("READY", "1")) => message.ready = true,
            Some(("MAINPID", pid)) => message.main = pid.parse().ok().filter(|pid| *pid > 1),
            Some(("STATUS", status)) => message.status = Some(status.to_owned()),
            _ => {}
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_lines() {
        let message = read(b"STATUS=warming up\nREADY=1\nMAINPID=77\nX=y\n\xff");
        assert_eq!(
            message,
            Message {
                ready: true,
                main: Some(77),
                status: Some("warming up".to_owned())
            }
        );
        assert_eq!(read(b"READY=0\nMAINPID=1"), Message::default());
        let mut long = b"READY=1\nSTATUS=".to_vec();
        long.resize(MESSAGE, b'x');
        assert!(read(&long).ready);
        long.push(b'x');
        assert_eq!(read(&long), Message::default());
    }

    #[test]
    fn a_status_has_no_part_of_a_secret() {
        let mask = Mask::new(["hunter2-and-more"]);
        assert_eq!(shown("token hunter2-and-more read", &mask), "token *** read");
        let before = "x".repeat(STATUS - 5);
        let status = format!("{before}hunter2-and-more");
        assert_eq!(shown(&status, &mask), format!("{before}***"));
    }
}
