//! Unit files of a host, where they lie: read with their drop-ins, found under their aliases, linked into targets; and
//! the scripts in `/etc/init.d`, which count as services where they have no unit file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt as _,
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
    root: PathBuf,
    directories: Vec<PathBuf>,
    init: PathBuf,
}

impl Units {
    pub fn new(layout: &Layout) -> Self {
        Self {
            root: layout.root.clone(),
            directories: layout.units.clone(),
            init: layout.init.clone(),
        }
    }

    /// The text of a unit with its drop-ins, and where it is. A template serves its instances.
    pub fn text(&self, name: &str) -> Option<(PathBuf, String)> {
        let names = [Some(name.to_owned()), instance_of(name)];
        let mut names = names.into_iter().flatten();
        let (path, mut text) =
            names.find_map(|name| self.file(&name).map(|path| (path.clone(), self.read(&path))))?;
        for file in self.drop_ins(name) {
            text.push('\n');
            text.push_str(&self.read(&file));
        }
        Some((path, text))
    }

    /// May everybody in the host read all that the text of a unit is made of?
    pub fn is_everybodys(&self, name: &str) -> bool {
        let names = [Some(name.to_owned()), instance_of(name)];
        let file = names.into_iter().flatten().find_map(|name| self.file(&name));
        file.into_iter()
            .chain(self.drop_ins(name))
            .all(|path| is_readable(&path))
    }

    /// An absolute link is one of the machine whose root this is.
    fn read(&self, path: &Path) -> String {
        match fs::read_link(path) {
            Ok(target) if target.is_absolute() && !target.starts_with(&self.root) => {
                bounded(&self.root.join(target.strip_prefix("/").unwrap_or(&target)))
            }
            _ => bounded(path),
        }
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

    /// In the order of their file names, wherever they lie. Of two with the same name, that of the more special unit and
    /// of the administrator counts; a link to `/dev/null` takes one away (`systemd.unit(5)`).
    fn drop_ins(&self, name: &str) -> Vec<PathBuf> {
        let mut files = BTreeMap::new();
        for owner in owners(name) {
            let beside = self
                .directories
                .iter()
                .map(|directory| directory.join(format!("{owner}.d")));
            for path in beside.flat_map(|directory| listed(&directory)) {
                let name = path.file_name().map(ToOwned::to_owned);
                if path.extension().is_some_and(|extension| extension == "conf") {
                    files.entry(name).or_insert(path);
                }
            }
        }
        files.into_values().collect()
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
                Some(next) if next != name && instance_of(&name).as_ref() != Some(&next) => name = next,
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

/// By the bits for others, of the file itself and of every directory on the way to it.
fn is_readable(path: &Path) -> bool {
    let has = |path: &Path, bit| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & bit != 0);
    path.canonicalize()
        .is_ok_and(|real| has(&real, 0o004) && real.ancestors().skip(1).all(|above| has(above, 0o001)))
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

/// The template that a unit is an instance of: `a@b.service` is served by `a@.service`.
pub fn instance_of(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('@')?;
    let (instance, suffix) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{prefix}@.{suffix}"))
}

/// Whose drop-ins a unit gets, the most special first: `a-b@c.service`, `a-b@.service`, `a-.service`, `service`.
fn owners(name: &str) -> Vec<String> {
    let mut owners: Vec<String> = [Some(name.to_owned()), instance_of(name)]
        .into_iter()
        .flatten()
        .collect();
    if let Some((stem, kind)) = name.rsplit_once('.') {
        let prefix = stem.split('@').next().unwrap_or(stem);
        let dashes = prefix
            .rmatch_indices('-')
            .map(|(at, _)| format!("{}.{kind}", &prefix[..=at]));
        owners.extend(dashes.filter(|owner| owner != name));
        owners.push(kind.to_owned());
    }
    owners
}

/// What systemd makes of a script: it is started and stopped by it, and nobody knows its processes.
fn of_script(name: &str, script: &Path) -> Unit {
    let line = |verb: &str| Line::literal(vec![script.to_string_lossy().into_owned(), verb.to_owned()]);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_come_in_the_order_of_their_names_and_hide_each_other() {
        let root = tempfile::tempdir().unwrap();
        let (etc, lib) = (root.path().join("etc"), root.path().join("lib"));
        let units = Units {
            root: root.path().to_owned(),
            directories: vec![etc.clone(), lib.clone()],
            init: root.path().join("init.d"),
        };
        for (path, text) in [
            ("lib/a-b@.service", "file"),
            ("lib/a-b@.service.d/50-x.conf", "hidden by the administrator's"),
            ("etc/a-b@.service.d/50-x.conf", "50 of the template"),
            ("lib/a-b@one.service.d/90-y.conf", "90 of the instance"),
            ("etc/a-b@one.service.d/10-z.conf", "10 of the instance"),
            ("etc/a-b@one.service.d/60-none", "no drop-in"),
            ("etc/a-.service.d/70-p.conf", "70 of the prefix"),
            ("etc/service.d/20-all.conf", "20 of all services"),
            ("etc/service.d/90-y.conf", "hidden by the instance's"),
            ("lib/service.d/95-gone.conf", "taken away"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        std::os::unix::fs::symlink("/dev/null", etc.join("service.d/95-gone.conf")).unwrap();
        let (path, text) = units.text("a-b@one.service").unwrap();
        assert_eq!(path, lib.join("a-b@.service"));
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        let expected = [
            "file",
            "10 of the instance",
            "20 of all services",
            "50 of the template",
            "70 of the prefix",
            "90 of the instance",
        ];
        assert_eq!(lines, expected);
    }
}
