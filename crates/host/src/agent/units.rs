//! Unit files of a host, where they lie: read with their drop-ins, found under their aliases, linked into targets; and
//! the scripts in `/etc/init.d`, which count as services where they have no unit file.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    layout::Layout,
    unit::{self, Directory, KillMode, Kind, Line, Links, Parsed, Unit},
};

/// As systemd gives scripts.
const INIT_TIME: Duration = Duration::from_secs(300);

/// Unit files, by full name.
#[derive(Debug, Clone)]
pub struct Units {
    directories: Vec<PathBuf>,
    init: PathBuf,
}

impl Units {
    pub fn new(layout: &Layout) -> Self {
        Self {
            directories: layout.units.clone(),
            init: layout.init.clone(),
        }
    }

    /// The text of a unit with its drop-ins, and where it is. A template serves its instances.
    pub fn text(&self, name: &str) -> Option<(PathBuf, String)> {
        let names = [Some(name.to_owned()), template(name)];
        let mut names = names.into_iter().flatten();
        let (path, mut text) =
            names.find_map(|name| self.file(&name).map(|path| (path.clone(), bounded(&path))))?;
        for name in [template(name), Some(name.to_owned())].into_iter().flatten() {
            for file in self.drop_ins(&name) {
                text.push('\n');
                text.push_str(&bounded(&file));
            }
        }
        Some((path, text))
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return None;
        }
        self.directories
            .iter()
            .map(|directory| directory.join(name))
            .find(|path| path.symlink_metadata().is_ok())
    }

    fn drop_ins(&self, name: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        if !name.contains('/') {
            for directory in self.directories.iter().rev() {
                files.extend(listed(&directory.join(format!("{name}.d"))));
            }
        }
        files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
        files
    }

    /// Reads a unit anew: its file, or its script.
    ///
    /// # Errors
    /// As systemd says it.
    pub fn load(&self, name: &str) -> Result<Parsed, String> {
        let short = name.strip_suffix(".service").unwrap_or(name);
        match self.text(name) {
            Some((path, _)) if is_masked(&path) => Err(format!("Unit {name} is masked.")),
            Some((_, text)) => {
                let mut parsed = unit::parse(short, &text);
                self.link(name, &mut parsed.unit.links);
                Ok(parsed)
            }
            None => match self.script(name) {
                Some(script) => Ok(Parsed {
                    unit: of_script(short, &script),
                    notes: Vec::new(),
                }),
                None => Err(format!("Unit {name} not found.")),
            },
        }
    }

    /// What a unit has to do with others; `None` for one that is masked.
    pub fn links(&self, name: &str) -> Option<Links> {
        if self.file(name).is_some_and(|path| is_masked(&path)) {
            return None;
        }
        let mut links = match self.text(name) {
            Some((_, text)) => unit::parse(name, &text).unit.links,
            None => Links::default(),
        };
        self.link(name, &mut links);
        Some(links)
    }

    /// What the directories beside a unit's files add to what it wants.
    fn link(&self, name: &str, links: &mut Links) {
        for (suffix, list) in [("wants", &mut links.wants), ("requires", &mut links.requires)] {
            for directory in &self.directories {
                let names = listed(&directory.join(format!("{name}.{suffix}"))).into_iter();
                list.extend(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())));
            }
        }
    }

    /// The name that a unit is known under: an alias is a link to another file name.
    pub fn canonical(&self, name: &str) -> String {
        let mut name = name.to_owned();
        // As deep as aliases are ever nested, and an end for those in a circle.
        for _ in 0..4 {
            let target = self.file(&name).and_then(|path| fs::read_link(path).ok());
            let next = target
                .filter(|target| target != Path::new("/dev/null"))
                .and_then(|target| Some(target.file_name()?.to_str()?.to_owned()));
            match next {
                // A link from an instance to its template is the instance.
                Some(next) if next != name && template(&name).as_ref() != Some(&next) => name = next,
                _ => break,
            }
        }
        name
    }

    /// The script of a service that has no unit file.
    pub fn script(&self, name: &str) -> Option<PathBuf> {
        let name = name.strip_suffix(".service")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return None;
        }
        let script = self.init.join(name);
        (self.file(&format!("{name}.service")).is_none() && script.is_file()).then_some(script)
    }

    /// Every unit that has a file, in order.
    pub fn all(&self) -> BTreeSet<String> {
        let files = self.directories.iter().flat_map(|directory| listed(directory));
        files
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .filter(|name| kind(name).is_some())
            .collect()
    }

    /// Where an administrator's own units and links are.
    pub fn local(&self) -> PathBuf {
        self.directories.first().cloned().unwrap_or_default()
    }
}

/// The kinds of units.
pub const KINDS: [&str; 10] = [
    "service",
    "target",
    "timer",
    "socket",
    "mount",
    "automount",
    "path",
    "slice",
    "scope",
    "swap",
];

/// The kind of a unit by its name.
pub fn kind(name: &str) -> Option<&'static str> {
    let (_, suffix) = name.rsplit_once('.')?;
    KINDS.into_iter().find(|kind| *kind == suffix)
}

/// `a@b.service` is served by `a@.service`.
fn template(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('@')?;
    let (instance, suffix) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{prefix}@.{suffix}"))
}

/// What systemd makes of a script: it is started and stopped by it, and nobody knows its processes.
fn of_script(name: &str, script: &Path) -> Unit {
    let line = |verb: &str| Line {
        arguments: vec![script.to_string_lossy().into_owned(), verb.to_owned()],
        ignore_failure: false,
        named: false,
        literal: true,
        privileged: false,
    };
    let text = bounded(script);
    let described = text
        .lines()
        .find_map(|line| line.strip_prefix("# Short-Description:"));
    let provides = |verb: &str| {
        text.lines()
            .any(|line| line.trim_start().starts_with(verb) && line.contains(')'))
    };
    let reload = if provides("reload") {
        vec![line("reload")]
    } else {
        Vec::new()
    };
    Unit {
        description: described.map_or_else(|| name.to_owned(), |text| text.trim().to_owned()),
        kind: Kind::Forking,
        start: vec![line("start")],
        stop: vec![line("stop")],
        reload,
        remain_after_exit: true,
        guesses: false,
        kill_mode: KillMode::Main,
        start_timeout: INIT_TIME,
        stop_timeout: INIT_TIME,
        // Else a script that asks for its service would come back here.
        environment: vec![("SYSTEMCTL_SKIP_REDIRECT".to_owned(), "1".to_owned())],
        directories: Vec::<Directory>::new(),
        ..Unit::new(name)
    }
}

/// A unit that is a link to /dev/null, or empty.
pub fn is_masked(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"))
}

fn listed(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

pub fn bounded(path: &Path) -> String {
    let small =
        fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= unit::LIMIT as u64);
    let bytes = if small {
        fs::read(path).unwrap_or_default()
    } else {
        Vec::new()
    };
    String::from_utf8_lossy(&bytes).into_owned()
}
