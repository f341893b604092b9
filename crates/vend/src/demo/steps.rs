//! Numbered steps with their times: a line that moves on a terminal, plain lines elsewhere.

use std::{
    cell::Cell,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

pub struct Steps {
    total: u64,
    number: Cell<u64>,
    started: Instant,
    terminal: bool,
}

/// One step under way.
pub struct Step {
    title: String,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Steps {
    pub fn new(total: u64) -> Self {
        Self {
            total,
            number: Cell::new(0),
            started: Instant::now(),
            terminal: std::io::stderr().is_terminal(),
        }
    }

    pub fn begin(&self, title: &str) -> Step {
        self.number.set(self.number.get() + 1);
        let title = format!("{}/{}  {title}", self.number.get(), self.total);
        let bar = self.terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(
                ProgressStyle::with_template("{spinner} {prefix}  {elapsed}  {wide_msg}")
                    .expect("the template is one of indicatif's"),
            );
            bar.set_prefix(title.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        if bar.is_none() {
            crate::output::aloud(format_args!("{title}"));
        }
        Step {
            title,
            started: Instant::now(),
            bar,
        }
    }

    pub fn say(&self, line: &str) {
        crate::output::aloud(format_args!("{line}"));
    }

    pub fn finish(&self) {
        crate::output::aloud(format_args!(
            "\nFinished all in {:.1} s",
            self.started.elapsed().as_secs_f64()
        ));
    }
}

impl Step {
    /// Something that stays on the screen.
    pub fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("     {line}")),
            None => crate::output::aloud(format_args!("     {line}")),
        }
    }

    /// Is there a line that moves?
    pub fn is_watched(&self) -> bool {
        self.bar.is_some()
    }

    /// What goes on just now.
    pub fn now(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// Keeps the moving line away while `ask` talks to a person.
    pub fn pause<T>(&self, ask: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(ask),
            None => ask(),
        }
    }

    pub fn done(self, result: &str) {
        let took = self.started.elapsed().as_secs_f64();
        match &self.bar {
            Some(bar) => {
                bar.finish_and_clear();
                crate::output::aloud(format_args!("✓ {}  {took:.1} s  {result}", self.title));
            }
            None => crate::output::aloud(format_args!("     done in {took:.1} s: {result}")),
        }
    }
}
