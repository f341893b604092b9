//! What an app said last, while its host is still there: one that does not answer has most likely said why.

use model::{
    HostId,
    port::{Fault, LogRef, Logs as _},
};
use tracing::warn;

use super::World;

/// Lines that go into a sentence, and characters of each.
const LINES: usize = 3;
const LONGEST: usize = 200;
/// Pieces of a log that are looked at, at most.
const PIECES: usize = 256;

/// The fault with the last words of the app on this host.
pub async fn last(world: &World, mut fault: Fault, host: &str) -> Fault {
    let host: Result<HostId, _> = host.parse();
    let log = host
        .ok()
        .and_then(|host| format!("host/{host}/service").parse().ok());
    let Some(log) = log else { return fault };
    match tail(world, &log).await {
        Ok(lines) if lines.is_empty() => fault.message.push_str("; the app said nothing"),
        Ok(lines) => {
            let said = lines.join(" / ");
            fault.message.push_str(&format!("; the app last said: {said}"));
        }
        // The fault is the answer; that its app's log cannot be read is not.
        Err(error) => warn!("the log of an unhealthy host cannot be read: {error}"),
    }
    fault
}

async fn tail(world: &World, log: &LogRef) -> Result<Vec<String>, Fault> {
    let (mut last, mut offset) = (Vec::new(), 0);
    for _ in 0..PIECES {
        let piece = world.node.read(log, offset).await?;
        remember(&mut last, &piece.text);
        if piece.next <= offset {
            break;
        }
        offset = piece.next;
    }
    Ok(last)
}

/// Keeps the last lines. The agent's own remarks are not what the app said.
fn remember(last: &mut Vec<String>, text: &str) {
    let said = |line: &&str| !line.trim().is_empty() && !line.starts_with("[vend]");
    let cut = |line: &str| line.trim().chars().take(LONGEST).collect();
    last.extend(text.lines().filter(said).map(cut));
    last.drain(..last.len().saturating_sub(LINES));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_all_pieces_stay() {
        let mut last = Vec::new();
        remember(&mut last, "[vend] started, pid 5\none\n\ntwo\n");
        assert_eq!(last, ["one", "two"]);
        remember(
            &mut last,
            &format!("three\n  four\n[vend] stopped\n{}\n", "x".repeat(5000)),
        );
        assert_eq!(last[..2], ["three", "four"]);
        assert_eq!((last.len(), last[2].len()), (LINES, LONGEST));
    }
}
