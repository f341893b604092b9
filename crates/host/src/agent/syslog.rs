//! `/dev/log`: what programs say to the system's log goes into the host's log `syslog`, where nothing else answers.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram as StdDatagram},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::net::UnixDatagram;

use super::{log::Log, services::Services};
use crate::{logs::Mask, now};

/// Longest message that is kept.
const MESSAGE: usize = 8 << 10;

/// A socket that every program may write to; `None` where one is already.
///
/// # Errors
/// When it cannot be made.
pub fn listen(path: &Path) -> io::Result<Option<UnixDatagram>> {
    if path.symlink_metadata().is_ok() {
        let refused = StdDatagram::unbound()?.connect(path).err();
        if refused.is_none_or(|error| error.kind() != io::ErrorKind::ConnectionRefused) {
            return Ok(None);
        }
        // Its listener is gone.
        fs::remove_file(path)?;
    }
    let socket = UnixDatagram::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(Some(socket))
}

/// Writes messages down for ever.
pub async fn serve(socket: UnixDatagram, services: Services) {
    let log = Arc::new(Mutex::new(Log::new(&services.layout().shared_logs(), "syslog")));
    let mut buffer = vec![0; MESSAGE];
    loop {
        let Ok(length) = socket.recv(&mut buffer).await else {
            return;
        };
        let secrets = services.secrets();
        let mut mask = Mask::new(secrets.iter().map(String::as_str));
        let mut line = format!("{} ", now().strftime("%Y-%m-%d %H:%M:%S")).into_bytes();
        line.extend(mask.feed(text(&buffer[..length])));
        line.extend(mask.finish());
        line.push(b'\n');
        log.lock().unwrap_or_else(PoisonError::into_inner).append(&line);
    }
}

/// A message without its priority and the time, which is known: `<30>Nov 21 07:34:13 name[1]: text`.
fn text(message: &[u8]) -> &[u8] {
    let message = match message.iter().take(5).position(|byte| *byte == b'>') {
        Some(end) if message.first() == Some(&b'<') => &message[end + 1..],
        _ => message,
    };
    // `Mmm dd hh:mm:ss `
    const STAMP: usize = 16;
    let stamped = message.get(..STAMP).is_some_and(|stamp| {
        stamp[3] == b' ' && stamp[6] == b' ' && stamp[9] == b':' && stamp[12] == b':' && stamp[15] == b' '
    });
    let message = if stamped { &message[STAMP..] } else { message };
    let end = message
        .iter()
        .rposition(|byte| !matches!(byte, 0 | b'\n' | b'\r' | b' '));
    &message[..end.map_or(0, |at| at + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_its_text() {
        assert_eq!(text(b"<30>Nov 21 07:34:13 cron[7]: hello\n\0"), b"cron[7]: hello");
        assert_eq!(text(b"<13>plain\n"), b"plain");
        assert_eq!(text(b"<"), b"<");
        assert_eq!(text(b""), b"");
    }
}
