//! `vend edge top`: what the load balancer of this machine does now, again and again.
//!
//! What came between two looks is a [`Rates`]; [`screen`] makes of it what a terminal of some size shows. Only this file
//! knows the terminal, and gives it back as it was.

mod rates;
mod screen;

use std::{
    io::{IsTerminal as _, Read as _},
    time::Duration,
};

use clap::{Args, ValueEnum};
use edge::Client;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::{Failure, failed};
use crate::output::Output;
use rates::Rates;
use screen::Look;

#[derive(Debug, Args)]
pub struct Top {
    /// Show one look, and end.
    #[arg(long)]
    once: bool,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3600))]
    every: u32,
    /// What is first.
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Show rules in the place of target groups.
    #[arg(long)]
    rules: bool,
    /// Lines at most, where there is no terminal that says it.
    #[arg(long, default_value_t = 20)]
    lines: usize,
}

/// What lines are sorted by: the largest first, but for names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    #[default]
    Requests,
    /// 5xx of targets and of the load balancer.
    Errors,
    P50,
    P99,
    /// Requests under way.
    Active,
    Bytes,
    /// Targets that are not well.
    Unhealthy,
    Name,
}

impl Sort {
    /// Of a key.
    fn of(key: u8) -> Option<Self> {
        Some(match key {
            b'r' => Self::Requests,
            b'e' => Self::Errors,
            b'5' => Self::P50,
            b'9' => Self::P99,
            b'a' => Self::Active,
            b'b' => Self::Bytes,
            b'u' => Self::Unhealthy,
            b'n' => Self::Name,
            _ => return None,
        })
    }
}

pub async fn top(client: &Client, wanted: &Top, output: &Output) -> Result<(), Failure> {
    let mut look = Look {
        sort: wanted.sort,
        rules: wanted.rules,
        lines: wanted.lines.max(1),
        width: 120,
        keys: false,
    };
    let every = Duration::from_secs(wanted.every.into());
    let live = !wanted.once && !output.json && output.terminal && std::io::stdin().is_terminal();
    if live {
        return watch(client, every, look, output).await;
    }
    if let Ok(size) = tcgetwinsize(std::io::stdout()) {
        look.width = usize::from(size.ws_col).max(1);
    }
    let mut before = client.load().await.map_err(failed)?;
    loop {
        tokio::time::sleep(every).await;
        let now = client.load().await.map_err(failed)?;
        let mut rates = Rates::between(&before, &now);
        rates.arrange(look.sort, look.lines);
        match (output.json, wanted.once) {
            // A stream of values has one in a line.
            (true, false) => {
                let line = serde_json::to_string(&rates).expect("rates are plain data");
                output.text(&format!("{line}\n"));
            }
            _ => output.show(&rates, |rates| screen::draw(rates, &look, output)),
        }
        if wanted.once {
            return Ok(());
        }
        before = now;
    }
}

/// On a terminal, until a key or a signal says that it is enough.
async fn watch(client: &Client, every: Duration, look: Look, output: &Output) -> Result<(), Failure> {
    let mut look = look;
    let mut before = client.load().await.map_err(failed)?;
    let mut keys = keys();
    let _screen = Screen::take(output);
    let mut ended = std::pin::pin!(crate::roles::ended());
    let mut rates = Rates::default();
    let mut ticks = tokio::time::interval(every);
    ticks.tick().await;
    look.keys = true;
    loop {
        if let Ok(size) = tcgetwinsize(std::io::stdout()) {
            look.width = usize::from(size.ws_col).max(1);
            look.lines = usize::from(size.ws_row).saturating_sub(screen::AROUND).max(1);
        }
        let mut shown = rates.clone();
        shown.arrange(look.sort, look.lines);
        // Drawn over what was there, so that nothing flickers.
        let text = screen::draw(&shown, &look, output).replace('\n', "\x1b[K\r\n");
        output.text(&format!("\x1b[H{text}\x1b[J"));
        tokio::select! {
            () = &mut ended => return Ok(()),
            key = keys.recv() => match key {
                None | Some(b'q' | 3 | 4 | 27) => return Ok(()),
                Some(b'g' | b'\t') => look.rules = !look.rules,
                Some(key) => look.sort = Sort::of(key).unwrap_or(look.sort),
            },
            _ = ticks.tick() => {
                let now = client.load().await.map_err(failed)?;
                rates = Rates::between(&before, &now);
                before = now;
            }
        }
    }
}

/// What is typed, byte by byte.
fn keys() -> mpsc::UnboundedReceiver<u8> {
    let (sender, keys) = mpsc::unbounded_channel();
    // It waits for a key until the program ends.
    std::thread::spawn(move || {
        let mut key = [0];
        while matches!(std::io::stdin().read(&mut key), Ok(1)) && sender.send(key[0]).is_ok() {}
    });
    keys
}

/// The terminal, with nothing else on it, until this is dropped.
struct Screen<'a> {
    output: &'a Output,
    before: Option<Termios>,
}

impl<'a> Screen<'a> {
    fn take(output: &'a Output) -> Self {
        let before = tcgetattr(std::io::stdin()).ok();
        if let Some(mut modes) = before.clone() {
            modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &modes);
        }
        // Another page of the terminal, without a cursor.
        output.text("\x1b[?1049h\x1b[?25l\x1b[2J");
        Self { output, before }
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
        self.output.text("\x1b[?25h\x1b[?1049l");
    }
}
