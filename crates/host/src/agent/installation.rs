//! Which units start with the machine, as its files say: the links that `[Install]` sections ask for, masks and presets
//! (`systemd.unit(5)`, "\[Install\] section options"). Knows nothing of what runs: in a host the agent uses it, in an image
//! that is being made `systemctl` itself.

mod preset;

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{
    api::{ControlOutcome, Preset},
    boot,
    control::fail,
    layout::Layout,
    services::short,
    unit::{self, Unit},
    units::{Units, instance_of, is_masked, kind},
};

/// For `update-rc.d`, which else asks `systemctl` to enable the unit, and so on.
pub const RUNLEVELS: (&str, &str) = ("_SKIP_SYSTEMD_NATIVE", "1");

/// The command that enables or disables what has no unit file, as the old runlevels do it.
pub fn of_runlevels(unit: &str, enable: bool) -> [&str; 6] {
    const BOTH: &str = "update-rc.d \"$1\" defaults && exec update-rc.d \"$1\" \"$2\"";
    let how = if enable { "enable" } else { "disable" };
    ["/bin/sh", "-c", BOTH, "sh", short(unit), how]
}

/// Says of that command why it failed. Did it not?
pub fn was_done(verb: &str, unit: &str, failure: Option<String>, out: &mut ControlOutcome) -> bool {
    if let Some(why) = &failure {
        fail(out, format!("Failed to {verb} unit {unit}: update-rc.d: {why}\n"));
    }
    failure.is_none()
}

/// Does this state of a unit's file count as enabled (`systemctl(1)`, "is-enabled")?
pub fn is_on(state: &str) -> bool {
    matches!(state, "enabled" | "enabled-runtime" | "static" | "alias")
}

/// The unit files under a root.
pub struct Installation<'a> {
    /// Links are written as the machine with its root sees them.
    pub layout: &'a Layout,
    pub units: &'a Units,
}

impl Installation<'_> {
    /// The state of a unit's file or script, in systemd's words; `None` where there is neither.
    pub fn state(&self, unit: &str) -> Option<&'static str> {
        let Some((path, text)) = self.units.text(unit) else {
            self.units.script(unit)?;
            let scripts = boot::scripts(self.layout);
            return Some(match scripts.iter().any(|script| script == unit) {
                true => "enabled",
                false => "disabled",
            });
        };
        let parsed = unit::parse(short(unit), &text).unit;
        let linked = |link: &PathBuf| link.symlink_metadata().is_ok();
        Some(if is_masked(&path) {
            "masked"
        } else if self.links(unit, &parsed).iter().any(linked) {
            "enabled"
        } else if self.is_generated(unit) {
            "enabled-runtime"
        } else if !is_installed(&parsed) {
            "static"
        } else {
            "disabled"
        })
    }

    /// Linked by a package's generator.
    fn is_generated(&self, unit: &str) -> bool {
        let directory = self.layout.systemd.join("generator");
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .into_iter()
            .any(|entry| entry.path().join(unit).is_symlink())
    }

    /// Where the links of an enabled unit are.
    fn links(&self, unit: &str, parsed: &Unit) -> Vec<PathBuf> {
        let local = self.units.local();
        let into = |targets: &[String], suffix: &str| -> Vec<PathBuf> {
            let targets = targets.iter().filter(is_plain);
            targets
                .map(|target| local.join(format!("{target}.{suffix}")).join(unit))
                .collect()
        };
        let mut links = into(&parsed.wanted_by, "wants");
        links.extend(into(&parsed.required_by, "requires"));
        links.extend(self.alias_links(parsed));
        links
    }

    /// Where the links of a unit's other names are.
    fn alias_links(&self, parsed: &Unit) -> impl Iterator<Item = PathBuf> {
        let aliases = parsed.aliases.iter().filter(is_plain);
        aliases.map(|alias| self.units.local().join(alias))
    }

    /// Enables a unit and what it names with `Also=`. Gives its name, of a template that of its default instance; `None`
    /// when it cannot be enabled.
    pub fn enable(&self, unit: &str, out: &mut ControlOutcome) -> Option<String> {
        let name = match self.named(unit) {
            Ok(name) => name,
            Err(why) => {
                fail(out, format!("Failed to enable unit: {why}\n"));
                return None;
            }
        };
        if !self.install(&name, &mut BTreeSet::new(), out) {
            out.stderr.push_str(&format!(
                "Unit {name} has no [Install] section: nothing to enable.\n"
            ));
        }
        Some(name)
    }

    /// The name under which a unit is enabled.
    fn named(&self, unit: &str) -> Result<String, String> {
        let Some((path, text)) = self.units.text(unit) else {
            return Err(format!("Unit file {unit} does not exist."));
        };
        if is_masked(&path) {
            return Err(format!("Unit file {} is masked.", self.seen(&path).display()));
        }
        let Some((prefix, suffix)) = unit.split_once("@.") else {
            return Ok(unit.to_owned());
        };
        match unit::parse(short(unit), &text).unit.default_instance {
            Some(instance) => Ok(format!("{prefix}@{instance}.{suffix}")),
            None => Err(format!("{unit} is a template: name an instance of it.")),
        }
    }

    /// Makes a unit's links, and those of the units that it names. False when it asks for none.
    fn install(&self, unit: &str, done: &mut BTreeSet<String>, out: &mut ControlOutcome) -> bool {
        let Some((path, text)) = self.units.text(unit).filter(|_| done.insert(unit.to_owned())) else {
            return true;
        };
        let parsed = unit::parse(short(unit), &text).unit;
        for link in self.links(unit, &parsed) {
            self.make(&path, &link, unit, out);
        }
        for other in &parsed.also {
            // What is masked or missing is no reason to leave out the rest.
            if let Ok(other) = self.named(other) {
                self.install(&other, done, out);
            }
        }
        is_installed(&parsed) || !parsed.also.is_empty()
    }

    /// Links a unit file that lies elsewhere to where units are, and gives its name.
    pub fn link(&self, path: &str, out: &mut ControlOutcome) -> Option<String> {
        let file = self.layout.root.join(path.trim_start_matches('/'));
        let name = file.file_name()?.to_str().filter(|name| kind(name).is_some());
        let Some(name) = name.filter(|_| file.is_file()) else {
            fail(
                out,
                format!("Failed to link unit: Unit file {path} does not exist.\n"),
            );
            return None;
        };
        let there = self
            .layout
            .units
            .iter()
            .any(|directory| directory.join(name) == file);
        if !there {
            self.make(&file, &self.units.local().join(name), name, out);
        }
        Some(name.to_owned())
    }

    /// Takes away the links to a unit, of a template to all of its instances, and to what it names with `Also=`.
    pub fn disable(&self, unit: &str, out: &mut ControlOutcome) {
        self.remove(unit, &mut BTreeSet::new(), out);
    }

    fn remove(&self, unit: &str, done: &mut BTreeSet<String>, out: &mut ControlOutcome) {
        if !done.insert(unit.to_owned()) {
            return;
        }
        let local = self.units.local();
        let of_targets = entries(&local)
            .filter(|(name, _)| name.ends_with(".wants") || name.ends_with(".requires"))
            .flat_map(|(_, directory)| entries(&directory))
            .filter(|(name, _)| name == unit || instance_of(name).as_deref() == Some(unit));
        let mut links: Vec<PathBuf> = of_targets.map(|(_, link)| link).collect();
        let parsed = self
            .units
            .text(unit)
            .map(|(_, text)| unit::parse(short(unit), &text).unit);
        let parsed = parsed.unwrap_or_else(|| Unit::new(unit));
        links.extend(self.alias_links(&parsed));
        for link in links.into_iter().filter(|link| link.is_symlink()) {
            match fs::remove_file(&link) {
                Ok(()) => out
                    .stderr
                    .push_str(&format!("Removed {}.\n", self.seen(&link).display())),
                Err(error) => fail(out, format!("Failed to disable unit {unit}: {error}\n")),
            }
        }
        for other in &parsed.also {
            self.remove(other, done, out);
        }
    }

    /// Is there a link now that keeps a unit from starting?
    pub fn mask(&self, unit: &str, out: &mut ControlOutcome) -> bool {
        let local = self.units.local();
        let link = local.join(unit);
        let made = match link.symlink_metadata() {
            Ok(metadata) if !metadata.is_symlink() => Err(io::Error::other(format!(
                "File {} already exists.",
                self.seen(&link).display()
            ))),
            Ok(_) => fs::remove_file(&link),
            Err(_) => fs::create_dir_all(&local),
        };
        let made = made.and_then(|()| symlink("/dev/null", &link));
        if let Err(error) = &made {
            fail(out, format!("Failed to mask unit {unit}: {error}\n"));
        }
        made.is_ok()
    }

    pub fn unmask(&self, unit: &str, out: &mut ControlOutcome) {
        let link = self.units.local().join(unit);
        if is_masked(&link)
            && let Err(error) = fs::remove_file(&link)
        {
            fail(out, format!("Failed to unmask unit {unit}: {error}\n"));
        }
    }

    /// Whether a preset (`systemd.preset(5)`) has a unit enabled or disabled now; `None`: neither.
    pub fn preset(&self, unit: &str, mode: Preset) -> Option<bool> {
        let on = preset::is_on(&self.layout.presets, unit);
        match mode {
            Preset::EnableOnly if !on => None,
            Preset::DisableOnly if on => None,
            _ => Some(on),
        }
    }

    fn make(&self, path: &Path, link: &Path, unit: &str, out: &mut ControlOutcome) {
        let target = self.seen(path);
        match make_link(&target, link) {
            Ok(false) => {}
            Ok(true) => out.stderr.push_str(&format!(
                "Created symlink {} → {}.\n",
                self.seen(link).display(),
                target.display()
            )),
            Err(error) => fail(out, format!("Failed to enable unit {unit}: {error}\n")),
        }
    }

    /// A path as the machine with this root has it.
    fn seen(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(&self.layout.root).unwrap_or(path);
        Path::new("/").join(below)
    }
}

/// Is it the name of a file here, and not of one elsewhere?
fn is_plain(name: &&String) -> bool {
    !name.contains('/') && !name.starts_with('.')
}

/// Is there something that a unit is linked into?
fn is_installed(unit: &Unit) -> bool {
    !(unit.wanted_by.is_empty() && unit.required_by.is_empty() && unit.aliases.is_empty())
}

/// What a directory holds, by name, in order.
fn entries(directory: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect();
    all.sort();
    all.into_iter()
}

/// False when it was there.
pub fn make_link(path: &Path, link: &Path) -> io::Result<bool> {
    if link.symlink_metadata().is_ok() {
        return Ok(false);
    }
    link.parent().map_or(Ok(()), fs::create_dir_all)?;
    symlink(path, link).map(|()| true)
}
