//! Unit files in systemd's format, as far as simple services use it. Pure: text in, a unit and notes out.
//! <https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html>

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use rustix::process::Signal;

use super::reaper::Exit;

pub mod calendar;
pub mod condition;
pub mod rate;
mod read;
mod signal;
pub mod socket;
mod syntax;
pub mod timer;
mod variables;

pub use condition::Condition;
pub use rate::Rate;
pub use read::{Parsed, parse};
pub use signal::{signal, signal_name};
pub use syntax::{expand, expand_line, split};
pub use variables::variables;

/// Largest unit file that is read, in bytes.
pub const LIMIT: usize = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// Also `exec` and `idle`: running as soon as it is started.
    #[default]
    Simple,
    /// Running when it says so on its socket (`sd_notify(3)`).
    Notify,
    /// Running when its first process ended and left a daemon.
    Forking,
    /// Done when its processes ended.
    Oneshot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    #[default]
    Never,
    OnSuccess,
    OnFailure,
    OnAbnormal,
    /// After a signal alone.
    OnAbort,
    Always,
}

/// Which processes of a service a stop signals (`systemd.kill(5)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KillMode {
    #[default]
    All,
    /// The signal for the main process, SIGKILL for what is left.
    Mixed,
    /// The main process alone: what else it started goes on.
    Main,
    Nothing,
}

/// What a unit has to do with others, by their full names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    pub requires: Vec<String>,
    /// Must run already.
    pub requisite: Vec<String>,
    /// Required, and it does not run for longer than these.
    pub binds_to: Vec<String>,
    pub wants: Vec<String>,
    pub after: Vec<String>,
    pub before: Vec<String>,
    /// Stopped and restarted with these.
    pub part_of: Vec<String>,
    pub conflicts: Vec<String>,
    /// Reloaded with these.
    pub reloads_with: Vec<String>,
}

impl Links {
    /// What is started with it.
    pub fn pulled_in(&self) -> impl Iterator<Item = &String> {
        self.requires.iter().chain(&self.binds_to).chain(&self.wants)
    }

    /// What must not go away while it runs, when it comes after that.
    pub fn bound_after(&self) -> impl Iterator<Item = &String> {
        self.binds_to.iter().filter(|other| self.after.contains(other))
    }
}

/// A directory to make for a service, owned by its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    pub path: PathBuf,
    /// Which of the kinds of directories it is, as in `RuntimeDirectory=`.
    pub kind: &'static str,
}

/// One command line of a unit, after splitting and before variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub arguments: Vec<String>,
    /// `-`: its failure does not matter.
    pub ignore_failure: bool,
    /// `@`: the second argument is how it is called.
    pub named: bool,
    /// `:`: no variables are put in.
    pub literal: bool,
    /// `+`, `!`: not as the unit's user.
    pub privileged: bool,
}

impl Line {
    /// A command as it is, which no unit file says: no variables are put in.
    pub fn literal(arguments: Vec<String>) -> Self {
        Self {
            arguments,
            ignore_failure: false,
            named: false,
            literal: true,
            privileged: false,
        }
    }
}

/// A service unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Without `.service`.
    pub name: String,
    pub description: String,
    pub kind: Kind,
    pub start_pre: Vec<Line>,
    pub start: Vec<Line>,
    pub start_post: Vec<Line>,
    pub stop: Vec<Line>,
    pub reload: Vec<Line>,
    pub stop_post: Vec<Line>,
    /// Lines that decide whether it is started: 1 to 254 is a no.
    pub start_if: Vec<Line>,
    pub conditions: Vec<Condition>,
    pub links: Links,
    pub environment: Vec<(String, String)>,
    /// Path, and whether it may be missing.
    pub environment_files: Vec<(PathBuf, bool)>,
    pub directory: Option<PathBuf>,
    /// It runs without that directory, in the root, where it is not there.
    pub directory_may_miss: bool,
    pub user: Option<String>,
    pub group: Option<String>,
    pub umask: Option<u32>,
    pub restart: Restart,
    pub restart_delay: Duration,
    /// How often a socket may start it, or its own restarts.
    pub starts: Rate,
    /// It is not started again any more when that was too often. Others start ever more slowly, for ever.
    pub gives_up: bool,
    pub start_timeout: Duration,
    pub stop_timeout: Duration,
    pub pid_file: Option<PathBuf>,
    pub remain_after_exit: bool,
    /// Exit codes and signals that are a success besides 0.
    pub success: Vec<Exit>,
    /// Ends after which it is not started again, or in any case.
    pub never_after: Vec<Exit>,
    pub always_after: Vec<Exit>,
    pub directories: Vec<Directory>,
    /// Of those kinds that have one of their own.
    pub directory_modes: BTreeMap<&'static str, u32>,
    /// Its runtime directories stay when it stops.
    pub keeps_runtime: bool,
    /// Variables of the host's environment that it does not get.
    pub unset: Vec<String>,
    pub kill_mode: KillMode,
    pub kill_signal: Signal,
    /// Of a `notify-reload` unit.
    pub reload_signal: Option<Signal>,
    /// What does not end in time is killed.
    pub kills: bool,
    /// `ExecStart` alone runs as its user.
    pub privileged_helpers: bool,
    /// A forking unit without a PID file may have its daemon looked for.
    pub guesses: bool,
    /// Soft and hard limits by the number of the resource, as `setrlimit(2)` takes them.
    pub limits: Vec<(u32, u64, u64)>,
    pub nice: Option<i32>,
    pub oom_score: Option<i32>,
    /// Discards its output.
    pub quiet: bool,
    /// Units of `[Install]`.
    pub wanted_by: Vec<String>,
    pub required_by: Vec<String>,
    pub aliases: Vec<String>,
    pub also: Vec<String>,
    /// Which instance of a template is meant where none is named.
    pub default_instance: Option<String>,
}

impl Unit {
    /// Is that how the main process of such a unit ends when all is well? A daemon may have no handler for the signals that
    /// ask for its end (`systemd.service(5)`, `Restart=`).
    pub fn ends_well(&self, exit: Exit) -> bool {
        const ASKED: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::TERM, Signal::PIPE];
        let asked =
            |signal: i32| self.kind != Kind::Oneshot && ASKED.iter().any(|asked| asked.as_raw() == signal);
        exit.is_success()
            || self.success.contains(&exit)
            || matches!(exit, Exit::Signal(signal) if asked(signal))
    }

    pub fn can_reload(&self) -> bool {
        !self.reload.is_empty() || self.reload_signal.is_some()
    }

    /// A unit that runs nothing yet.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            description: name.to_owned(),
            kind: Kind::Simple,
            start_pre: Vec::new(),
            start: Vec::new(),
            start_post: Vec::new(),
            stop: Vec::new(),
            reload: Vec::new(),
            stop_post: Vec::new(),
            start_if: Vec::new(),
            conditions: Vec::new(),
            links: Links::default(),
            environment: Vec::new(),
            environment_files: Vec::new(),
            directory: None,
            directory_may_miss: false,
            user: None,
            group: None,
            umask: None,
            restart: Restart::Never,
            restart_delay: Duration::from_millis(100),
            starts: Rate::STARTS,
            gives_up: false,
            start_timeout: Duration::from_secs(90),
            stop_timeout: Duration::from_secs(90),
            pid_file: None,
            remain_after_exit: false,
            success: Vec::new(),
            never_after: Vec::new(),
            always_after: Vec::new(),
            directories: Vec::new(),
            directory_modes: BTreeMap::new(),
            keeps_runtime: false,
            unset: Vec::new(),
            kill_mode: KillMode::All,
            kill_signal: Signal::TERM,
            reload_signal: None,
            kills: true,
            privileged_helpers: false,
            guesses: true,
            limits: Vec::new(),
            nice: None,
            oom_score: None,
            quiet: false,
            wanted_by: Vec::new(),
            required_by: Vec::new(),
            aliases: Vec::new(),
            also: Vec::new(),
            default_instance: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_service_as_people_write_it() {
        let text = "# shop\n[Unit]\nDescription=The shop %n\nAfter=network.target\n\n[Service]\nType=simple\n\
            User=www-data\nEnvironment=A=1 \"B=two words\"\nEnvironmentFile=-/etc/default/shop\n\
            WorkingDirectory=/srv/shop\nExecStartPre=-/bin/mkdir -p /run/shop\n\
            ExecStart=/usr/bin/python3 -m shop \\\n  --port ${PORT} '%i'\nRestart=on-failure\nRestartSec=2s\n\
            TimeoutStopSec=1min 30s\nProtectSystem=full\n[Install]\nWantedBy=multi-user.target\n";
        let Parsed { unit, notes } = parse("shop@blue", text);
        assert_eq!(unit.description, "The shop shop@blue.service");
        assert_eq!(unit.user.as_deref(), Some("www-data"));
        assert_eq!(
            unit.environment,
            [("A".into(), "1".into()), ("B".into(), "two words".into())]
        );
        assert_eq!(
            unit.environment_files,
            [(PathBuf::from("/etc/default/shop"), true)]
        );
        assert!(unit.start_pre[0].ignore_failure);
        assert_eq!(
            unit.start[0].arguments,
            ["/usr/bin/python3", "-m", "shop", "--port", "${PORT}", "blue"]
        );
        assert_eq!(
            (unit.restart, unit.restart_delay),
            (Restart::OnFailure, Duration::from_secs(2))
        );
        assert_eq!(unit.stop_timeout, Duration::from_secs(90));
        assert_eq!(unit.wanted_by, ["multi-user.target"]);
        assert_eq!(notes, ["ProtectSystem= is ignored"]);
    }

    #[test]
    fn an_empty_assignment_clears_and_drop_ins_win() {
        let text = "[Service]\nExecStart=/bin/one\n[Service]\nExecStart=\nExecStart=/bin/two\n";
        assert_eq!(parse("a", text).unit.start[0].arguments, ["/bin/two"]);
    }

    /// The order of lines does not matter, and nothing waits for longer than a day.
    #[test]
    fn a_oneshot_has_the_time_that_it_asks_for() {
        for (text, seconds) in [
            ("Type=oneshot\nTimeoutStartSec=5\n", 5),
            ("TimeoutStartSec=5\nType=oneshot\n", 5),
            ("TimeoutSec=5\nType=oneshot\n", 5),
            ("Type=oneshot\n", 86_400),
            ("Type=oneshot\nTimeoutStartSec=infinity\n", 86_400),
            ("TimeoutStartSec=0\n", 86_400),
            ("TimeoutStartSec=2w\n", 86_400),
            ("", 90),
        ] {
            let parsed = parse("a", &format!("[Service]\nExecStart=/bin/a\n{text}"));
            assert_eq!(parsed.unit.start_timeout, Duration::from_secs(seconds), "{text}");
        }
    }

    /// In any case of letters; what is no boolean changes nothing.
    #[test]
    fn yes_and_no_have_many_words() {
        for (value, expected) in [
            ("yes", Some(true)),
            ("True", Some(true)),
            ("ON", Some(true)),
            ("t", Some(true)),
            ("1", Some(true)),
            ("No", Some(false)),
            ("off", Some(false)),
            ("f", Some(false)),
            ("maybe", None),
            ("", None),
        ] {
            let text = format!(
                "[Service]\nExecStart=/bin/a\nRemainAfterExit={value}\nGuessMainPID={value}\nSendSIGKILL={value}\nRuntimeDirectoryPreserve={value}\n"
            );
            let Parsed { unit, notes } = parse("a", &text);
            let found = [
                unit.remain_after_exit,
                unit.guesses,
                unit.kills,
                unit.keeps_runtime,
            ];
            assert_eq!(
                found,
                expected.map_or([false, true, true, false], |yes| [yes; 4]),
                "{value}"
            );
            assert_eq!(
                notes.len(),
                if expected.is_some() { 0 } else { 4 },
                "{value}: {notes:?}"
            );
        }
    }

    #[test]
    fn a_section_that_is_none_is_named() {
        let parsed = parse(
            "a",
            "[Serivce]\nUser=a\n[X-Own]\nA=b\n[Service]\nExecStart=/bin/a\n",
        );
        assert_eq!(parsed.notes, ["the section [Serivce] is ignored"]);
    }

    #[test]
    fn garbage_gives_notes() {
        let parsed = parse(
            "a",
            "what\n[Service\n=\n[Service]\nType=dbus\nRestartSec=soon\nExecStart='open\n",
        );
        assert!(parsed.notes.len() >= 4, "{:?}", parsed.notes);
    }

    #[test]
    fn reads_how_often_it_may_be_started() {
        let new = "[Unit]\nStartLimitIntervalSec=1min\nStartLimitBurst=2\n[Service]\nExecStart=/bin/a\n";
        let old = "[Service]\nStartLimitInterval=60\nStartLimitBurst=2\nExecStart=/bin/a\n";
        for text in [new, old] {
            let parsed = parse("a", text);
            assert_eq!(parsed.unit.starts.to_string(), "2 in 60 s");
            assert!(parsed.notes.is_empty(), "{:?}", parsed.notes);
        }
        let parsed = parse("a", "[Unit]\nStartLimitBurst=many\n[Service]\nExecStart=/bin/a\n");
        assert_eq!(parsed.unit.starts, Rate::STARTS);
        assert_eq!(parsed.notes, ["StartLimitBurst=many is ignored"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,200}") {
            let _ = parse("a", &format!("[Service]\nExecStart={text}\nEnvironment={text}\nTimeoutSec={text}"));
        }
    }
}
