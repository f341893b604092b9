//! From the text of a unit file to a unit. Total: what is not understood becomes a note with its name.

use std::{path::PathBuf, time::Duration};

use rustix::process::Signal;

use super::{
    Condition, Directory, KillMode, Kind, Line, Restart, Unit, expand, signal, split,
    syntax::{commands, logical_lines, time},
};
use crate::agent::reaper::Exit;

/// Those of units of any kind: a unit's links are read whatever it is.
const SECTIONS: [&str; 10] = [
    "Unit",
    "Service",
    "Install",
    "Socket",
    "Timer",
    "Path",
    "Mount",
    "Automount",
    "Swap",
    "Slice",
];

/// What is longer, or has no end, ends after a day.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Notes beyond these are as good as none.
const NOTES: usize = 50;

/// A unit, and what of its file was not understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    pub unit: Unit,
    pub notes: Vec<String>,
}

/// Reads a unit file, with its drop-ins appended.
pub fn parse(name: &str, text: &str) -> Parsed {
    let mut reader = Reader {
        unit: Unit::new(name),
        notes: Vec::new(),
        section: String::new(),
        timed: false,
    };
    for line in logical_lines(text) {
        reader.line(&line);
    }
    if reader.unit.kind == Kind::Oneshot && !reader.timed {
        // systemd.service(5): a oneshot may take as long as it likes.
        reader.unit.start_timeout = LONGEST;
    }
    // Without a pause there is none that could become longer.
    reader.unit.gives_up |= reader.unit.restart_delay.is_zero();
    let runs =
        reader.unit.kind == Kind::Oneshot || name.rsplit_once('.').is_some_and(|(_, kind)| kind != "service");
    if reader.unit.start.is_empty() && !runs {
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
    /// It says how long a start may take.
    timed: bool,
}

impl Reader {
    fn line(&mut self, line: &str) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section.clone_into(&mut self.section);
            // systemd.unit(5): what begins so is for other programs.
            if !SECTIONS.contains(&section) && !section.starts_with("X-") {
                self.note(format!("the section [{section}] is ignored"));
            }
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
        let links = &mut self.unit.links;
        let list = match key {
            "Description" => {
                self.unit.description = expand(value, &self.unit.name);
                return;
            }
            "After" => &mut links.after,
            "Before" => &mut links.before,
            "Wants" | "Upholds" => &mut links.wants,
            "Requires" => &mut links.requires,
            "Requisite" => &mut links.requisite,
            "BindsTo" => &mut links.binds_to,
            "PartOf" => &mut links.part_of,
            "Conflicts" => &mut links.conflicts,
            "ReloadPropagatedFrom" => &mut links.reloads_with,
            "Documentation"
            | "RequiresMountsFor"
            | "DefaultDependencies"
            | "RefuseManualStart"
            | "SourcePath" => {
                return;
            }
            key if key.starts_with("StartLimit") => return self.starts(key, value),
            key if key.starts_with("Condition") || key.starts_with("Assert") => {
                return self.condition(key, value);
            }
            _ => return self.note(format!("{key}= is ignored")),
        };
        let name = &self.unit.name;
        match value.is_empty() {
            true => list.clear(),
            false => list.extend(value.split_whitespace().map(|unit| expand(unit, name))),
        }
    }

    fn starts(&mut self, key: &str, value: &str) {
        match key.trim_start_matches("StartLimit") {
            "Action" => {}
            rest if self.unit.starts.assign(rest, value) => self.unit.gives_up = true,
            _ => self.note(format!("{key}={value} is ignored")),
        }
    }

    fn condition(&mut self, key: &str, value: &str) {
        if value.is_empty() {
            let asserts = key.starts_with("Assert");
            self.unit
                .conditions
                .retain(|condition| condition.asserts != asserts);
            return;
        }
        match Condition::read(key, &expand(value, &self.unit.name)) {
            Some(condition) => self.unit.conditions.push(condition),
            None => self.note(format!("{key}= is ignored")),
        }
    }

    fn install(&mut self, key: &str, value: &str) {
        let list = match key {
            "WantedBy" => &mut self.unit.wanted_by,
            "RequiredBy" => &mut self.unit.required_by,
            "Alias" => &mut self.unit.aliases,
            "Also" => &mut self.unit.also,
            "DefaultInstance" => {
                self.unit.default_instance = some(value.to_owned());
                return;
            }
            _ => return self.note(format!("{key}= is ignored")),
        };
        let name = &self.unit.name;
        list.extend(value.split_whitespace().map(|unit| expand(unit, name)));
    }

    fn service(&mut self, key: &str, value: &str) {
        match key {
            "Type" => self.kind(value),
            "ExecCondition" => self.command(value, |unit| &mut unit.start_if),
            "ExecStartPre" => self.command(value, |unit| &mut unit.start_pre),
            "ExecStart" => self.command(value, |unit| &mut unit.start),
            "ExecStartPost" => self.command(value, |unit| &mut unit.start_post),
            "ExecStop" => self.command(value, |unit| &mut unit.stop),
            "ExecStopPost" => self.command(value, |unit| &mut unit.stop_post),
            "ExecReload" => self.command(value, |unit| &mut unit.reload),
            "Restart" => self.restart(value),
            "RestartSec" => self.time(key, value, |unit| &mut unit.restart_delay),
            "TimeoutStartSec" => {
                self.timed = true;
                self.limit(key, value, |unit| &mut unit.start_timeout);
            }
            "TimeoutStopSec" => self.limit(key, value, |unit| &mut unit.stop_timeout),
            "TimeoutSec" => {
                self.timed = true;
                self.limit(key, value, |unit| &mut unit.start_timeout);
                self.limit(key, value, |unit| &mut unit.stop_timeout);
            }
            "PIDFile" => self.unit.pid_file = Some(run_path(self.path(value))),
            "GuessMainPID" => self.truth(key, value, |unit| &mut unit.guesses),
            "RemainAfterExit" => self.truth(key, value, |unit| &mut unit.remain_after_exit),
            "PermissionsStartOnly" => self.truth(key, value, |unit| &mut unit.privileged_helpers),
            "SuccessExitStatus" => self.exits(key, value, |unit| &mut unit.success),
            "RestartPreventExitStatus" => self.exits(key, value, |unit| &mut unit.never_after),
            "RestartForceExitStatus" => self.exits(key, value, |unit| &mut unit.always_after),
            "KillMode" => self.kill_mode(value),
            "KillSignal" => self.signal(key, value, |unit, signal| unit.kill_signal = signal),
            "ReloadSignal" => self.signal(key, value, |unit, signal| unit.reload_signal = Some(signal)),
            "SendSIGKILL" => self.truth(key, value, |unit| &mut unit.kills),
            "StandardOutput" | "StandardError" => self.output(key, value),
            // Where older units say it.
            key if key.starts_with("StartLimit") => self.starts(key, value),
            _ => self.process(key, value),
        }
    }

    /// What the processes of the service get.
    fn process(&mut self, key: &str, value: &str) {
        let name = self.unit.name.clone();
        match key {
            "Environment" => self.environment(value),
            "EnvironmentFile" if value.is_empty() => self.unit.environment_files.clear(),
            "EnvironmentFile" => {
                let file = (self.path(value), value.starts_with('-'));
                self.unit.environment_files.push(file);
            }
            "UnsetEnvironment" => self.unit.unset.extend(split(value)),
            // The host's environment is given to every service.
            "PassEnvironment" => {}
            "WorkingDirectory" if value == "~" => self.unit.directory = Some(PathBuf::from("~")),
            "WorkingDirectory" => {
                self.unit.directory = Some(self.path(value)).filter(|path| path.is_absolute());
                self.unit.directory_may_miss = value.starts_with('-');
            }
            "User" => self.unit.user = some(expand(value, &name)),
            "Group" => self.unit.group = some(expand(value, &name)),
            "UMask" => self.unit.umask = u32::from_str_radix(value, 8).ok(),
            "Nice" => self.unit.nice = value.parse().ok(),
            "OOMScoreAdjust" => self.unit.oom_score = value.parse().ok(),
            // Kept over a restart, and no harm done by keeping it longer.
            "RuntimeDirectoryPreserve" if value == "restart" => self.unit.keeps_runtime = true,
            "RuntimeDirectoryPreserve" => self.truth(key, value, |unit| &mut unit.keeps_runtime),
            // What runs is the same without these: the signal is ignored or not, the name in a log that is not kept.
            "NotifyAccess" | "SyslogIdentifier" | "SyslogFacility" | "SyslogLevel" | "IgnoreSIGPIPE"
            | "SendSIGHUP" | "TTYPath" | "Slice" => {}
            _ => match DIRECTORIES
                .iter()
                .find(|(kind, _)| key.strip_prefix(*kind).is_some())
            {
                Some((kind, base)) => self.directories(kind, base, key, value),
                None => match key.strip_prefix("Limit") {
                    Some(resource) => self.resource(key, resource, value),
                    None => self.note(format!("{key}= is ignored")),
                },
            },
        }
    }

    fn path(&self, value: &str) -> PathBuf {
        PathBuf::from(expand(value.trim_start_matches(['-', '~']), &self.unit.name))
    }

    fn kind(&mut self, value: &str) {
        self.unit.kind = match value {
            "simple" | "exec" | "idle" => Kind::Simple,
            "notify" => Kind::Notify,
            "notify-reload" => {
                self.unit.reload_signal.get_or_insert(Signal::HUP);
                Kind::Notify
            }
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
            "on-abnormal" => Restart::OnAbnormal,
            "on-abort" => Restart::OnAbort,
            // Nobody watches here, so it never is.
            "on-watchdog" => Restart::Never,
            "always" => Restart::Always,
            _ => {
                self.note(format!("Restart={value} is not known: taken as no"));
                Restart::Never
            }
        };
    }

    fn kill_mode(&mut self, value: &str) {
        self.unit.kill_mode = match value {
            "control-group" => KillMode::All,
            "mixed" => KillMode::Mixed,
            "process" => KillMode::Main,
            "none" => KillMode::Nothing,
            _ => return self.note(format!("KillMode={value} is not known: taken as control-group")),
        };
    }

    fn signal(&mut self, key: &str, value: &str, set: impl Fn(&mut Unit, Signal)) {
        match signal(value) {
            Some(signal) => set(&mut self.unit, signal),
            None => self.note(format!("{key}={value} is no signal")),
        }
    }

    fn truth(&mut self, key: &str, value: &str, of: impl Fn(&mut Unit) -> &mut bool) {
        match truth(value) {
            Some(truth) => *of(&mut self.unit) = truth,
            None => self.note(format!("{key}={value} is neither yes nor no")),
        }
    }

    fn exits(&mut self, key: &str, value: &str, of: impl Fn(&mut Unit) -> &mut Vec<Exit>) {
        if value.is_empty() {
            of(&mut self.unit).clear();
        }
        for word in value.split_whitespace() {
            let exit = match word.parse() {
                Ok(code) => Some(Exit::Code(code)),
                Err(_) => signal(word).map(|signal| Exit::Signal(signal.as_raw())),
            };
            match exit {
                Some(exit) => of(&mut self.unit).push(exit),
                None => self.note(format!("{key}=: `{word}` is neither a code nor a signal")),
            }
        }
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
        for part in commands(value, &self.unit.name) {
            match part {
                Ok(line) => of(&mut self.unit).push(line),
                Err(part) => self.note(format!("`{part}` is not a command line")),
            }
        }
    }

    fn time(&mut self, key: &str, value: &str, of: impl FnOnce(&mut Unit) -> &mut Duration) {
        match time(value) {
            Some(time) => *of(&mut self.unit) = time.min(LONGEST),
            None => self.note(format!("{key}={value} is not a time")),
        }
    }

    /// A time-out: 0 is none, which is a day here.
    fn limit(&mut self, key: &str, value: &str, of: impl FnOnce(&mut Unit) -> &mut Duration) {
        let endless = value.trim() == "0";
        self.time(key, if endless { "infinity" } else { value }, of);
    }

    fn directories(&mut self, kind: &'static str, base: &str, key: &str, value: &str) {
        if key.len() > kind.len() {
            match (key.ends_with("Mode"), u32::from_str_radix(value, 8)) {
                (true, Ok(mode)) => drop(self.unit.directory_modes.insert(kind, mode & 0o7777)),
                _ => self.note(format!("{key}= is ignored")),
            }
            return;
        }
        if value.is_empty() {
            self.unit.directories.retain(|directory| directory.kind != kind);
        }
        for word in value.split_whitespace() {
            let word = expand(word.split(':').next().unwrap_or_default(), &self.unit.name);
            if word.starts_with('/') || word.split('/').any(|part| part == "..") {
                self.note(format!("`{word}` is not below {base}"));
            } else {
                let path = PathBuf::from(base).join(word);
                self.unit.directories.push(Directory { path, kind });
            }
        }
    }

    /// `LimitNOFILE=1024:65536`
    fn resource(&mut self, key: &str, resource: &str, value: &str) {
        let number = match RESOURCES.iter().find(|(name, _)| *name == resource) {
            Some((_, number)) => *number,
            None => return self.note(format!("{key}= is ignored")),
        };
        let limit = |text: &str| match text.trim() {
            "infinity" => Some(u64::MAX),
            text => bytes(text),
        };
        let (soft, hard) = value.split_once(':').unwrap_or((value, value));
        match (limit(soft), limit(hard)) {
            (Some(soft), Some(hard)) => self.unit.limits.push((number, soft, hard)),
            _ => self.note(format!("{key}={value} is no limit")),
        }
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < NOTES {
            self.notes.push(note);
        }
    }
}

const DIRECTORIES: [(&str, &str); 5] = [
    ("RuntimeDirectory", "/run"),
    ("StateDirectory", "/var/lib"),
    ("CacheDirectory", "/var/cache"),
    ("LogsDirectory", "/var/log"),
    ("ConfigurationDirectory", "/etc"),
];

const RESOURCES: [(&str, u32); 8] = [
    ("CPU", libc::RLIMIT_CPU),
    ("FSIZE", libc::RLIMIT_FSIZE),
    ("DATA", libc::RLIMIT_DATA),
    ("STACK", libc::RLIMIT_STACK),
    ("CORE", libc::RLIMIT_CORE),
    ("NOFILE", libc::RLIMIT_NOFILE),
    ("NPROC", libc::RLIMIT_NPROC),
    ("MEMLOCK", libc::RLIMIT_MEMLOCK),
];

/// A number with K, M, G or T behind it, of 1,024 each.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1_u64 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// systemd's words for yes and no.
pub(super) fn truth(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

fn run_path(path: PathBuf) -> PathBuf {
    match path.is_absolute() {
        true => path,
        false => PathBuf::from("/run").join(path),
    }
}
