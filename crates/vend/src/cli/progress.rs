//! The line that moves while an execution goes on: the stage and the last line of its log. On anything but a terminal
//! there is none, and what stays on the screen is all that is written.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use model::wire::{ExecutionDetail, LogText};

use super::{Client, Failure, logs, stages};
use crate::output::{Output, clean};

/// Pieces of a log that are read at most between two looks at the execution.
const PIECES: usize = 8;

pub struct Progress<'o> {
    output: &'o Output,
    bar: Option<ProgressBar>,
    /// The newest log, how far it was read, and its last line.
    log: String,
    offset: u64,
    line: String,
}

impl<'o> Progress<'o> {
    pub fn begin(output: &'o Output) -> Self {
        let bar = output.terminal.then(|| {
            let style = ProgressStyle::with_template("{spinner} {prefix}  {wide_msg}")
                .expect("the template is one of indicatif's");
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            output,
            bar,
            log: String::new(),
            offset: 0,
            line: String::new(),
        }
    }

    /// Something that stays on the screen.
    pub fn say(&self, text: &str) {
        match &self.bar {
            _ if text.is_empty() => {}
            Some(bar) => bar.suspend(|| self.output.say(text)),
            None => self.output.say(text),
        }
    }

    /// Shows where the execution is. A log that cannot be read is not worth stopping for.
    pub async fn look(&mut self, detail: &ExecutionDetail, client: &Client) {
        let Some(bar) = self.bar.clone() else { return };
        if let Some(newest) = detail.logs.last()
            && self.tail(newest, client).await.is_err()
        {
            self.line.clear();
        }
        let open: Vec<String> = stages::of(detail)
            .into_iter()
            .filter(|stage| stage.ended.is_none())
            .map(|stage| stage.name)
            .collect();
        bar.set_prefix(open.join(", "));
        bar.set_message(match &detail.execution.waiting {
            Some(waiting) => format!("waits for {}", clean(waiting)),
            None => self.line.clone(),
        });
    }

    async fn tail(&mut self, log: &str, client: &Client) -> Result<(), Failure> {
        if self.log != log {
            (self.log, self.offset) = (log.to_owned(), 0);
            self.line.clear();
        }
        for _ in 0..PIECES {
            let piece: LogText = client.get(&logs::path(log, self.offset)).await?;
            if let Some(line) = piece.text.lines().rev().find(|line| !line.trim().is_empty()) {
                self.line = clean(line);
            }
            if piece.next <= self.offset {
                break;
            }
            self.offset = piece.next;
        }
        Ok(())
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
