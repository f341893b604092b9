//! Several logs at once, as they grow, each line with the host that it is of.

use model::wire::LogText;

use super::{BEFORE, LITTLE, last, path, say};
use crate::{
    cli::{Client, Failure, executions::POLL},
    output::Output,
};

/// One of the logs.
struct Tail<'a> {
    log: &'a str,
    offset: u64,
    /// A line without its end.
    open: String,
}

/// The last lines of each, and then what is added to any of them, until all have come to their end.
pub(super) async fn follow(
    logs: &[&str],
    first: Option<usize>,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    let mut tails = Vec::new();
    for log in logs {
        let (mut offset, mut text) = (0, String::new());
        loop {
            let chunk: LogText = client.get(&path(log, offset)).await?;
            text.push_str(&chunk.text);
            text = last(&text, first.unwrap_or(BEFORE)).to_owned();
            let read = chunk.next.saturating_sub(offset);
            offset = chunk.next;
            // One that is written to all the time has no end.
            if read < LITTLE {
                break;
            }
        }
        let mut tail = Tail {
            log,
            offset,
            open: String::new(),
        };
        say(&tail.lines(&text), output);
        tails.push(tail);
    }
    loop {
        let (mut moved, mut goes_on) = (false, false);
        for tail in &mut tails {
            let chunk: LogText = client.get(&path(tail.log, tail.offset)).await?;
            let is_new = chunk.next != tail.offset;
            moved |= is_new;
            goes_on |= is_new || !chunk.ended;
            tail.offset = chunk.next;
            say(&tail.lines(&chunk.text), output);
        }
        if !goes_on {
            for tail in tails.iter_mut().filter(|tail| !tail.open.is_empty()) {
                say(&tail.lines("\n"), output);
            }
            return Ok(());
        }
        if !moved {
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Tail<'_> {
    /// The lines that have come to their end, each with its host.
    fn lines(&mut self, text: &str) -> String {
        self.open.push_str(text);
        let whole = self.open.rfind('\n').map_or(0, |end| end + 1);
        let host = self.log.split('/').nth(1).unwrap_or(self.log);
        let lines = self.open[..whole]
            .lines()
            .map(|line| format!("{host}  {line}\n"))
            .collect();
        self.open.drain(..whole);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_with_their_host_when_they_are_whole() {
        let mut tail = Tail {
            log: "host/h-1/service",
            offset: 0,
            open: String::new(),
        };
        assert_eq!(tail.lines("a\nb"), "h-1  a\n");
        assert_eq!(tail.lines("c\n\n"), "h-1  bc\nh-1  \n");
        assert_eq!(tail.lines(""), "");
    }
}
