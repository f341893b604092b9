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
    // What is longer shows by filling it.
    let mut buffer = vec![0; MESSAGE + 1];
    loop {
        let Ok(length) = socket.recv(&mut buffer).await else {
            return;
        };
        let secrets = services.secrets();
        let mask = Mask::new(secrets.iter().map(String::as_str));
        let mut line = format!("{} ", now().strftime("%Y-%m-%d %H:%M:%S")).into_bytes();
        line.extend(shown(&buffer[..length], mask));
        line.push(b'\n');
        log.lock().unwrap_or_else(PoisonError::into_inner).append(&line);
    }
}

/// What is kept of a message, without secrets. Of one that is longer than that, what may be the beginning of a secret is
/// left out: the rest of it is cut off, so nobody can know.
fn shown(message: &[u8], mut mask: Mask) -> Vec<u8> {
    match message.get(..MESSAGE) {
        Some(kept) if message.len() > MESSAGE => mask.feed(text(kept)),
        _ => {
            let mut shown = mask.feed(text(message));
            shown.extend(mask.finish());
            shown
        }
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

    #[test]
    fn a_secret_across_the_end_of_what_is_kept_is_left_out() {
        let secret = "correct horse battery";
        let check = |before: usize, expected: &str| {
            let message = format!("<13>{}{secret} and more", "x".repeat(before));
            let shown = shown(
                &message.as_bytes()[..message.len().min(MESSAGE + 1)],
                Mask::new([secret]),
            );
            let shown = String::from_utf8(shown).unwrap();
            assert_eq!(shown.trim_start_matches('x'), expected, "{before}");
        };
        check(100, "*** and more");
        for cut in 1..secret.len() {
            check(MESSAGE - 4 - cut, "");
        }
        check(MESSAGE - 4 - secret.len(), "***");
    }
}
