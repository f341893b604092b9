//! Unit files in systemd's format, as far as simple services use it. Pure: text in, a unit and notes out.
//! <https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html>

use std::{path::PathBuf, time::Duration};

mod syntax;

pub use syntax::{expand, expand_line, split};

/// Largest unit file that is read, in bytes.
pub const LIMIT: usize = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// Also `exec`, `notify` and `idle`: running as soon as it is started.
    #[default]
    Simple,
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
    Always,
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
    /// Capabilities without which it is not started, silently; `!` in front of those with which it is not.
    pub capabilities: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Path, and whether it may be missing.
    pub environment_files: Vec<(PathBuf, bool)>,
    pub directory: Option<PathBuf>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub umask: Option<u32>,
    pub restart: Restart,
    pub restart_delay: Duration,
    pub start_timeout: Duration,
    pub stop_timeout: Duration,
    pub pid_file: Option<PathBuf>,
    pub remain_after_exit: bool,
    /// Exit codes that are a success besides 0.
    pub success: Vec<i32>,
    /// Directories to make for it, owned by its user.
    pub directories: Vec<PathBuf>,
    /// Discards its output.
    pub quiet: bool,
    /// Targets of `[Install]`.
    pub wanted_by: Vec<String>,
    pub aliases: Vec<String>,
}

impl Unit {
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
            capabilities: Vec::new(),
            environment: Vec::new(),
            environment_files: Vec::new(),
            directory: None,
            user: None,
            group: None,
            umask: None,
            restart: Restart::Never,
            restart_delay: Duration::from_millis(100),
            start_timeout: Duration::from_secs(90),
            stop_timeout: Duration::from_secs(90),
            pid_file: None,
            remain_after_exit: false,
            success: Vec::new(),
            directories: Vec::new(),
            quiet: false,
            wanted_by: Vec::new(),
            aliases: Vec::new(),
        }
    }
}

/// A unit, and what of its file was not understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    pub unit: Unit,
    pub notes: Vec<String>,
}

/// Reads a unit file, with its drop-ins appended. Total: what is not understood becomes a note.
pub fn parse(name: &str, text: &str) -> Parsed {
    let mut reader = Reader {
        unit: Unit::new(name),
        notes: Vec::new(),
        section: String::new(),
    };
    for line in syntax::logical_lines(text) {
        reader.line(&line);
    }
    if reader.unit.start.is_empty() && reader.unit.kind != Kind::Oneshot {
        reader.notes.push("it has no ExecStart=".to_owned());
    }
    Parsed {
        unit: reader.unit,
        notes: reader.notes,
    }
}

struct Reader {
    unit: Unit,
    notes: Vec<String>,
    section: String,
}

impl Reader {
    fn line(&mut self, line: &str) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section.clone_into(&mut self.section);
            return;
        }
        let Some((key, value)) = line.split_once('=') else {
            self.note(format!("`{line}` is neither a section nor an assignment"));
            return;
        };
        let (key, value) = (key.trim(), value.trim());
        match self.section.as_str() {
            "Unit" => self.about(key, value),
            "Service" => self.service(key, value),
            "Install" => self.install(key, value),
            _ => {}
        }
    }

    fn about(&mut self, key: &str, value: &str) {
        match key {
            "Description" => self.unit.description = expand(value, &self.unit.name),
            // There is no order between services: they are restarted until they work.
            "Documentation" | "After" | "Before" | "Wants" | "Requires" | "PartOf" | "BindsTo" => {}
            "ConditionCapability" if value.is_empty() => self.unit.capabilities.clear(),
            "ConditionCapability" => self.unit.capabilities.push(value.to_owned()),
            key if key.starts_with("StartLimit") => {}
            _ => self.note(format!("{key}= is ignored")),
        }
    }

    fn install(&mut self, key: &str, value: &str) {
        match key {
            "WantedBy" | "RequiredBy" => self
                .unit
                .wanted_by
                .extend(value.split_whitespace().map(str::to_owned)),
            "Alias" => self
                .unit
                .aliases
                .extend(value.split_whitespace().map(str::to_owned)),
            _ => self.note(format!("{key}= is ignored")),
        }
    }

    fn service(&mut self, key: &str, value: &str) {
        let name = self.unit.name.clone();
        let path = |value: &str| PathBuf::from(expand(value.trim_start_matches(['-', '~']), &name));
        match key {
            "Type" => self.kind(value),
            "ExecStartPre" => self.command(value, |unit| &mut unit.start_pre),
            "ExecStart" => self.command(value, |unit| &mut unit.start),
            "ExecStartPost" => self.command(value, |unit| &mut unit.start_post),
            "ExecStop" => self.command(value, |unit| &mut unit.stop),
            "ExecReload" => self.command(value, |unit| &mut unit.reload),
            "Environment" => self.environment(value),
            "EnvironmentFile" if value.is_empty() => self.unit.environment_files.clear(),
            "EnvironmentFile" => self
                .unit
                .environment_files
                .push((path(value), value.starts_with('-'))),
            "WorkingDirectory" => self.unit.directory = Some(path(value)).filter(|path| path.is_absolute()),
            "User" => self.unit.user = some(expand(value, &name)),
            "Group" => self.unit.group = some(expand(value, &name)),
            "UMask" => self.unit.umask = u32::from_str_radix(value, 8).ok(),
            "Restart" => self.restart(value),
            "RestartSec" => self.time(key, value, |unit| &mut unit.restart_delay),
            "TimeoutStartSec" => self.time(key, value, |unit| &mut unit.start_timeout),
            "TimeoutStopSec" => self.time(key, value, |unit| &mut unit.stop_timeout),
            "TimeoutSec" => {
                self.time(key, value, |unit| &mut unit.start_timeout);
                self.time(key, value, |unit| &mut unit.stop_timeout);
            }
            "PIDFile" => self.unit.pid_file = Some(run_path(path(value))),
            "RemainAfterExit" => self.unit.remain_after_exit = truth(value),
            "SuccessExitStatus" => {
                self.unit.success.extend(
                    value
                        .split_whitespace()
                        .filter_map(|code| code.parse::<i32>().ok()),
                );
            }
            "RuntimeDirectory" => self.directories("/run", value),
            "StateDirectory" => self.directories("/var/lib", value),
            "CacheDirectory" => self.directories("/var/cache", value),
            "LogsDirectory" => self.directories("/var/log", value),
            "StandardOutput" | "StandardError" => self.output(key, value),
            "NotifyAccess" | "KillMode" | "SyslogIdentifier" | "RuntimeDirectoryMode" => {}
            _ => self.note(format!("{key}= is ignored")),
        }
    }

    fn kind(&mut self, value: &str) {
        self.unit.kind = match value {
            "simple" | "exec" | "notify" | "notify-reload" | "idle" => Kind::Simple,
            "forking" => Kind::Forking,
            "oneshot" => Kind::Oneshot,
            _ => {
                self.note(format!("Type={value} is not available: taken as simple"));
                Kind::Simple
            }
        };
    }

    fn restart(&mut self, value: &str) {
        self.unit.restart = match value {
            "no" => Restart::Never,
            "on-success" => Restart::OnSuccess,
            "on-failure" => Restart::OnFailure,
            "on-abnormal" | "on-abort" | "on-watchdog" => Restart::OnAbnormal,
            "always" => Restart::Always,
            _ => {
                self.note(format!("Restart={value} is not known: taken as no"));
                Restart::Never
            }
        };
    }

    fn output(&mut self, key: &str, value: &str) {
        match value {
            "null" => self.unit.quiet = true,
            "journal" | "inherit" | "syslog" | "journal+console" | "syslog+console" => {}
            _ => self.note(format!(
                "{key}={value} is not available: the output goes to the service's log"
            )),
        }
    }

    fn environment(&mut self, value: &str) {
        if value.is_empty() {
            self.unit.environment.clear();
        }
        for word in split(value) {
            match word.split_once('=') {
                Some((key, value)) => {
                    let value = expand(value, &self.unit.name);
                    self.unit.environment.push((key.to_owned(), value));
                }
                None => self.note(format!("Environment=: `{word}` is not an assignment")),
            }
        }
    }

    fn command(&mut self, value: &str, of: impl Fn(&mut Unit) -> &mut Vec<Line>) {
        if value.is_empty() {
            of(&mut self.unit).clear();
            return;
        }
        match syntax::command(value, &self.unit.name) {
            Some(line) => of(&mut self.unit).push(line),
            None => self.note(format!("`{value}` is not a command line")),
        }
    }

    fn time(&mut self, key: &str, value: &str, of: impl Fn(&mut Unit) -> &mut Duration) {
        match syntax::time(value) {
            Some(time) => *of(&mut self.unit) = time,
            None => self.note(format!("{key}={value} is not a time")),
        }
    }

    fn directories(&mut self, base: &str, value: &str) {
        for word in value.split_whitespace() {
            let word = expand(word.split(':').next().unwrap_or_default(), &self.unit.name);
            if word.starts_with('/') || word.split('/').any(|part| part == "..") {
                self.note(format!("`{word}` is not below {base}"));
            } else {
                self.unit.directories.push(PathBuf::from(base).join(word));
            }
        }
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < 50 {
            self.notes.push(note);
        }
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn truth(value: &str) -> bool {
    matches!(value, "yes" | "true" | "on" | "1")
}

fn run_path(path: PathBuf) -> PathBuf {
    if path.is_absolute() {
        path
    } else {
        PathBuf::from("/run").join(path)
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

    #[test]
    fn garbage_gives_notes() {
        let parsed = parse(
            "a",
            "what\n[Service\n=\n[Service]\nType=dbus\nRestartSec=soon\nExecStart='open\n",
        );
        assert!(parsed.notes.len() >= 4, "{:?}", parsed.notes);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,200}") {
            let _ = parse("a", &format!("[Service]\nExecStart={text}\nEnvironment={text}\nTimeoutSec={text}"));
        }
    }
}
