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
use edge::{Client, ClientError};
use rustix::{
    process::{Signal, getpid, kill_process},
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{Failure, failed};
use crate::output::Output;
use rates::Rates;
use screen::{Keys, Look};

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
    /// Show only groups with this in their name, and rules with it in their host or place.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
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
        filter: wanted.filter.clone(),
        keys: Keys::None,
    };
    let every = Duration::from_secs(wanted.every.into());
    let live = !wanted.once && !output.json && output.terminal && std::io::stdin().is_terminal();
    if live {
        look.keys = Keys::Named;
        return watch(client, every, look, output).await;
    }
    if let Ok(size) = tcgetwinsize(std::io::stdout()) {
        look.width = usize::from(size.ws_col).max(1);
    }
    let mut before = client.load().await.map_err(unread)?;
    loop {
        tokio::time::sleep(every).await;
        let now = client.load().await.map_err(unread)?;
        let rates = shown(&Rates::between(&before, &now), &look);
        match output.json {
            true => output.text(&line(&rates)),
            false => output.say(&screen::draw(&rates, &look, output)),
        }
        if wanted.once {
            return Ok(());
        }
        before = now;
    }
}

/// What there is to see, in order.
fn shown(rates: &Rates, look: &Look) -> Rates {
    let mut shown = rates.clone();
    shown.only(&look.filter);
    shown.arrange(look.sort, look.lines);
    shown
}

/// A stream of values has one in a line.
fn line(rates: &Rates) -> String {
    serde_json::to_string(rates).expect("rates are plain data") + "\n"
}

/// An edge that runs on while its program is replaced may be of a version that does not know the question.
fn unread(error: ClientError) -> Failure {
    match error {
        ClientError::Refused { status: 404, .. } => Failure::failed(
            "the load balancer of this machine is older than this program, and cannot be asked what it does",
        )
        .next("restart the edge"),
        error => failed(error),
    }
}

/// On a terminal, until a key or a signal says that it is enough.
async fn watch(client: &Client, every: Duration, look: Look, output: &Output) -> Result<(), Failure> {
    let mut look = look;
    let mut before = client.load().await.map_err(unread)?;
    let heard = |kind| signal(kind).map_err(|error| Failure::failed(format!("cannot hear signals: {error}")));
    let (mut resized, mut left) = (heard(SignalKind::window_change())?, heard(SignalKind::hangup())?);
    let mut ended = std::pin::pin!(crate::roles::ended());
    let mut keys = Typed::new();
    let mut screen = Screen::take(output);
    let mut rates = Rates::default();
    let mut ticks = tokio::time::interval(every);
    ticks.tick().await;
    loop {
        let rows = fit(&mut look);
        let text = screen::draw(&shown(&rates, &look), &look, output);
        output.text(&frame(&text, rows));
        tokio::select! {
            () = &mut ended => return Ok(()),
            _ = left.recv() => return Ok(()),
            _ = resized.recv() => {}
            typed = keys.next() => match typed.map_or(Next::End, |typed| press(&mut look, &typed)) {
                Next::Look => {}
                Next::End => return Ok(()),
                Next::Rest => {
                    drop(screen);
                    let _ = kill_process(getpid(), Signal::STOP);
                    screen = Screen::take(output);
                }
            },
            _ = ticks.tick() => {
                let now = client.load().await.map_err(unread)?;
                rates = Rates::between(&before, &now);
                before = now;
            }
        }
    }
}

/// Makes the look as large as the terminal, and gives how many lines that has.
fn fit(look: &mut Look) -> usize {
    let Ok(size) = tcgetwinsize(std::io::stdout()) else {
        return look.lines + screen::AROUND;
    };
    let (rows, columns) = (usize::from(size.ws_row).max(1), usize::from(size.ws_col).max(1));
    look.width = columns;
    look.lines = rows.saturating_sub(screen::AROUND).max(1);
    rows
}

/// Text drawn over what was there, so that nothing flickers, and no longer than the terminal, which else would scroll.
fn frame(text: &str, rows: usize) -> String {
    let lines: Vec<&str> = text.lines().take(rows).collect();
    format!("\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\r\n"))
}

/// What comes of a key.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Look,
    End,
    /// The shell gets the terminal back for a while.
    Rest,
}

/// What a terminal sends for keys that mean something by themselves.
mod key {
    pub const INTERRUPT: u8 = 3;
    pub const END: u8 = 4;
    pub const SUSPEND: u8 = 26;
    pub const ESCAPE: u8 = 27;
    pub const QUIT: u8 = 28;
    pub const DELETE: [u8; 2] = [8, 127];
}

/// Does what was typed.
fn press(look: &mut Look, typed: &[u8]) -> Next {
    let mut rest = typed;
    while let Some((key, after)) = rest.split_first() {
        rest = after;
        match *key {
            key::ESCAPE if !rest.is_empty() => rest = behind(rest),
            key::INTERRUPT | key::END | key::QUIT => return Next::End,
            key::SUSPEND => return Next::Rest,
            key if look.keys == Keys::Typing => type_in(look, key),
            b'q' => return Next::End,
            key::ESCAPE if look.filter.is_empty() => return Next::End,
            key::ESCAPE => look.filter.clear(),
            b'/' => (look.filter, look.keys) = (String::new(), Keys::Typing),
            b'g' | b'\t' => look.rules = !look.rules,
            key => look.sort = Sort::of(key).unwrap_or(look.sort),
        }
    }
    Next::Look
}

/// What is left behind a key without a letter, as an arrow, whose escape is gone already (ECMA-48, section 5.4). It means
/// nothing here.
fn behind(sequence: &[u8]) -> &[u8] {
    let length = match sequence {
        [b'[', rest @ ..] => {
            2 + rest
                .iter()
                .take_while(|byte| !(0x40..=0x7e).contains(*byte))
                .count()
        }
        [b'O', ..] => 2,
        _ => 1,
    };
    sequence.get(length..).unwrap_or_default()
}

/// A key of the text that is looked for. Names, hosts and places are ASCII.
fn type_in(look: &mut Look, key: u8) {
    const LONGEST: usize = 253;
    match key {
        b'\r' | b'\n' => look.keys = Keys::Named,
        key::ESCAPE => (look.filter, look.keys) = (String::new(), Keys::Named),
        key if key::DELETE.contains(&key) => _ = look.filter.pop(),
        key if key.is_ascii_graphic() && look.filter.len() < LONGEST => look.filter.push(key.into()),
        _ => {}
    }
}

/// What is typed, as it comes.
struct Typed {
    keys: mpsc::UnboundedReceiver<Vec<u8>>,
    held: Vec<u8>,
}

impl Typed {
    /// An escape may be the first byte of a key whose others come later, over a slow line.
    const MORE: Duration = Duration::from_millis(50);

    fn new() -> Self {
        let (sender, keys) = mpsc::unbounded_channel();
        // It waits for a key until the program ends.
        std::thread::spawn(move || {
            let mut typed = [0; 64];
            while let Ok(count @ 1..) = std::io::stdin().read(&mut typed) {
                if sender.send(typed[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            keys,
            held: Vec::new(),
        }
    }

    /// Whole keys; none when there will be no more. What it holds is not lost when it is not waited for to the end.
    async fn next(&mut self) -> Option<Vec<u8>> {
        if self.held.is_empty() {
            self.held = self.keys.recv().await?;
        }
        while is_begun(&self.held) {
            match tokio::time::timeout(Self::MORE, self.keys.recv()).await {
                Ok(Some(more)) => self.held.extend(more),
                Ok(None) | Err(_) => break,
            }
        }
        Some(std::mem::take(&mut self.held))
    }
}

/// Is the last of it the beginning of a key without a letter?
fn is_begun(typed: &[u8]) -> bool {
    let Some(escape) = typed.iter().rposition(|byte| *byte == key::ESCAPE) else {
        return false;
    };
    match &typed[escape + 1..] {
        [] | [b'O'] => true,
        [b'[', rest @ ..] => !rest.iter().any(|byte| (0x40..=0x7e).contains(byte)),
        _ => false,
    }
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
            // Without signals of keys, which would end it with the terminal as it is.
            modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_that_does_not_know_the_question_is_to_be_restarted() {
        let refused = |status| ClientError::Refused {
            status,
            message: "there is no such thing".into(),
        };
        assert_eq!(unread(refused(404)).next.as_deref(), Some("restart the edge"));
        assert_eq!(unread(refused(500)).next, None);
    }

    #[test]
    fn keys_do_what_the_last_line_says() {
        let mut look = Look {
            sort: Sort::Requests,
            rules: false,
            lines: 9,
            width: 80,
            filter: String::new(),
            keys: Keys::Named,
        };
        for end in [b"q", b"\x1b", b"\x03", b"\x04", b"\x1c"] {
            assert_eq!(press(&mut look, end), Next::End, "{end:?}");
        }
        assert_eq!(press(&mut look, b"\x1a"), Next::Rest);
        // An arrow is no escape, and takes no key that comes with it.
        for arrow in [&b"\x1b[A"[..], b"\x1bOA", b"\x1b[1;5C", b"\x1bx", b"\x1b["] {
            assert_eq!(press(&mut look, arrow), Next::Look);
        }
        assert_eq!((look.rules, look.sort), (false, Sort::Requests));
        assert_eq!(press(&mut look, b"\x1b[Ag\x1b[15~n"), Next::Look);
        assert_eq!((look.rules, look.sort), (true, Sort::Name));
        // What is typed behind a slash is text, until Enter.
        for typed in [&b"/queue"[..], b"\x7f\x7fu\x08\n", b"e"] {
            assert_eq!(press(&mut look, typed), Next::Look);
        }
        assert_eq!(
            (&*look.filter, look.sort, look.keys),
            ("que", Sort::Errors, Keys::Named)
        );
        assert_eq!(press(&mut look, b"\x1b"), Next::Look);
        assert_eq!(look.filter, "");
        press(&mut look, b"/x");
        assert_eq!(press(&mut look, b"\x1b"), Next::Look);
        assert_eq!((&*look.filter, look.keys), ("", Keys::Named));
        press(&mut look, b"/");
        assert_eq!(press(&mut look, b"\x03"), Next::End);
    }

    #[tokio::test]
    async fn an_arrow_that_comes_in_parts_is_one_key_and_an_escape_alone_is_one_too() {
        let (sender, keys) = mpsc::unbounded_channel();
        let mut typed = Typed {
            keys,
            held: Vec::new(),
        };
        for part in [&b"\x1b"[..], b"[1;", b"5Cg"] {
            sender.send(part.to_vec()).unwrap();
        }
        assert_eq!(typed.next().await.as_deref(), Some(&b"\x1b[1;5Cg"[..]));
        sender.send(b"\x1b".to_vec()).unwrap();
        assert_eq!(typed.next().await.as_deref(), Some(&b"\x1b"[..]));
        // Who stops waiting for the rest loses nothing.
        sender.send(b"\x1b".to_vec()).unwrap();
        tokio::select! {
            biased;
            _ = typed.next() => panic!("it waits for more"),
            () = std::future::ready(()) => {}
        }
        sender.send(b"OA".to_vec()).unwrap();
        assert_eq!(typed.next().await.as_deref(), Some(&b"\x1bOA"[..]));
        drop(sender);
        assert_eq!(typed.next().await, None);
        for (typed, begun) in [
            (&b"a"[..], false),
            (b"\x1bx", false),
            (b"\x1b[A", false),
            (b"a\x1b[", true),
        ] {
            assert_eq!(is_begun(typed), begun, "{typed:?}");
        }
    }

    #[test]
    fn a_frame_is_never_longer_than_the_terminal() {
        assert_eq!(frame("a\nb\nc\n", 2), "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
        assert_eq!(frame("a\n\n", 9), "\x1b[Ha\x1b[K\r\n\x1b[K\x1b[J");
    }

    #[test]
    fn a_value_is_one_line_of_the_documented_fields() {
        let rates = Rates::between(&rates::tests::load(1_000, 1), &rates::tests::load(3_000, 3));
        let line = line(&rates);
        assert_eq!(line.find('\n'), Some(line.len() - 1));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let guide = include_str!("../../../../../docs/guides/edge.md");
        let example = guide
            .lines()
            .find(|line| line.starts_with("{\"seconds\":"))
            .unwrap();
        let example: serde_json::Value = serde_json::from_str(example).unwrap();
        let keys = |value: &serde_json::Value| -> std::collections::BTreeSet<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(keys(&value), keys(&example));
        for list in ["groups", "rules"] {
            assert_eq!(keys(&value[list][0]), keys(&example[list][0]), "{list}");
        }
    }
}
