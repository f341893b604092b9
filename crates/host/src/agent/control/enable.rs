//! What starts with the host: links in the directories of targets.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Call, fail, say};
use crate::agent::{
    api::ControlOutcome,
    reaper::Exit,
    run,
    service::Wish,
    services::short,
    spawn::Launch,
    unit::Unit,
    units::{is_masked, kind},
};

impl Call<'_> {
    pub(super) fn is_enabled(&self, unit: &str, out: &mut ControlOutcome) {
        let word = self.enabled(unit);
        let code = u8::from(!matches!(
            word,
            "enabled" | "enabled-runtime" | "static" | "alias"
        ));
        if word == "not-found" {
            let why = format!("Failed to get unit file state for {unit}: No such file or directory\n");
            fail(out, why);
        } else {
            say(out, self.order.quiet, code, word);
        }
    }

    /// The state of a unit's file, in systemd's words.
    pub(super) fn enabled(&self, unit: &str) -> &'static str {
        let units = self.services.units();
        let Some((path, text)) = units.text(unit) else {
            return match (units.script(unit), self.state(unit)) {
                (Some(_), _) if self.script_is_enabled(unit) => "enabled",
                (Some(_), _) => "disabled",
                (None, Some(_)) => "enabled",
                (None, None) if kind(unit) == Some("target") => "static",
                (None, None) => "not-found",
            };
        };
        let parsed = crate::agent::unit::parse(short(unit), &text).unit;
        let linked = |link: &PathBuf| link.symlink_metadata().is_ok();
        if is_masked(&path) {
            "masked"
        } else if self.links(unit, &parsed).iter().any(linked) {
            "enabled"
        } else if self.is_generated(unit) {
            "enabled-runtime"
        } else if parsed.wanted_by.is_empty() && parsed.required_by.is_empty() && parsed.aliases.is_empty() {
            "static"
        } else {
            "disabled"
        }
    }

    /// Linked by a package's generator.
    fn is_generated(&self, unit: &str) -> bool {
        let directory = self.services.layout().systemd.join("generator");
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .into_iter()
            .any(|entry| entry.path().join(unit).is_symlink())
    }

    fn script_is_enabled(&self, unit: &str) -> bool {
        let scripts = crate::agent::boot::scripts(self.services.layout());
        scripts.iter().any(|script| script == unit)
    }

    /// Where the links of an enabled unit are.
    fn links(&self, unit: &str, parsed: &Unit) -> Vec<PathBuf> {
        let local = self.services.units().local();
        let safe = |target: &&String| !target.contains('/') && !target.starts_with('.');
        let into = |targets: &[String], suffix: &str| -> Vec<PathBuf> {
            let targets = targets.iter().filter(safe);
            targets
                .map(|target| local.join(format!("{target}.{suffix}")).join(unit))
                .collect()
        };
        let mut links = into(&parsed.wanted_by, "wants");
        links.extend(into(&parsed.required_by, "requires"));
        links.extend(parsed.aliases.iter().filter(safe).map(|alias| local.join(alias)));
        links
    }

    pub(super) async fn enable(&self, unit: &str, out: &mut ControlOutcome) {
        let units = self.services.units();
        let Some((path, text)) = units.text(unit) else {
            return self.enable_script(unit, "defaults", out).await;
        };
        if is_masked(&path) {
            return fail(
                out,
                format!("Failed to enable unit: Unit file {} is masked.\n", path.display()),
            );
        }
        let parsed = crate::agent::unit::parse(short(unit), &text).unit;
        if let Some((prefix, suffix)) = unit.split_once("@.") {
            return match &parsed.default_instance {
                Some(instance) => Box::pin(self.enable(&format!("{prefix}@{instance}.{suffix}"), out)).await,
                None => fail(
                    out,
                    format!("Failed to enable unit: {unit} is a template: name an instance of it.\n"),
                ),
            };
        }
        for link in self.links(unit, &parsed) {
            match make_link(&path, &link) {
                Ok(false) => {}
                Ok(true) => out.stderr.push_str(&format!(
                    "Created symlink {} → {}.\n",
                    link.display(),
                    path.display()
                )),
                Err(error) => fail(out, format!("Failed to enable unit {unit}: {error}\n")),
            }
        }
        for other in parsed.also.iter().filter(|other| other.as_str() != unit) {
            if units.text(other).is_some() && self.enabled(other) == "disabled" {
                Box::pin(self.enable(other, out)).await;
            }
        }
        if parsed.wanted_by.is_empty() && parsed.required_by.is_empty() && parsed.aliases.is_empty() {
            out.stderr.push_str(&format!(
                "Unit {unit} has no [Install] section: nothing to enable.\n"
            ));
        }
        if self.order.now {
            self.wish(unit, Wish::Start, out).await;
        }
    }

    /// Links a unit file that lies elsewhere to where units are, and gives its name.
    pub(super) fn link(&self, path: &str, out: &mut ControlOutcome) -> Option<String> {
        let file = Path::new(path);
        let name = file.file_name()?.to_str().filter(|name| kind(name).is_some());
        let Some(name) = name.filter(|_| file.is_file()) else {
            fail(
                out,
                format!(
                    "Failed to {} unit: Unit file {path} does not exist.\n",
                    self.order.verb
                ),
            );
            return None;
        };
        let link = self.services.units().local().join(name);
        match make_link(file, &link) {
            Ok(true) => out
                .stderr
                .push_str(&format!("Created symlink {} → {path}.\n", link.display())),
            Ok(false) => {}
            Err(error) => fail(out, format!("Failed to link unit {name}: {error}\n")),
        }
        Some(name.to_owned())
    }

    /// What has no unit file is enabled as the old runlevels do it.
    async fn enable_script(&self, unit: &str, how: &str, out: &mut ControlOutcome) {
        const LIMIT: Duration = Duration::from_secs(30);
        if self.services.units().script(unit).is_none() {
            let why = format!("Failed to enable unit: Unit file {unit} does not exist.\n");
            return fail(out, why);
        }
        let launch = Launch::new("update-rc.d", [short(unit), how]);
        let ran = run::run(self.services.reaper(), &launch, None, LIMIT).await;
        let why = match ran {
            Ok(ran) if ran.exit.is_some_and(Exit::is_success) => return,
            Ok(ran) => String::from_utf8_lossy(&ran.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        fail(
            out,
            format!("Failed to {} unit {unit}: update-rc.d: {why}\n", self.order.verb),
        );
    }

    pub(super) async fn disable(&self, unit: &str, out: &mut ControlOutcome) {
        if self.services.units().script(unit).is_some() {
            return self.enable_script(unit, "remove", out).await;
        }
        let local = self.services.units().local();
        let directories = fs::read_dir(&local)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.ends_with(".wants") || name.ends_with(".requires")
            });
        let mut links: Vec<PathBuf> = directories.map(|entry| entry.path().join(unit)).collect();
        if let Some((_, text)) = self.services.units().text(unit) {
            let parsed = crate::agent::unit::parse(short(unit), &text).unit;
            links.extend(parsed.aliases.iter().map(|alias| local.join(alias)));
        }
        for link in links.into_iter().filter(|link| link.is_symlink()) {
            match fs::remove_file(&link) {
                Ok(()) => out.stderr.push_str(&format!("Removed {}.\n", link.display())),
                Err(error) => fail(out, format!("Failed to disable unit {unit}: {error}\n")),
            }
        }
        if self.order.now {
            self.wish(unit, Wish::Stop, out).await;
        }
    }

    pub(super) async fn mask(&self, unit: &str, out: &mut ControlOutcome) {
        let local = self.services.units().local();
        let link = local.join(unit);
        let made = match link.symlink_metadata() {
            Ok(metadata) if !metadata.is_symlink() => {
                let why = format!("Failed to mask unit: File {} already exists.\n", link.display());
                return fail(out, why);
            }
            Ok(_) => fs::remove_file(&link),
            Err(_) => fs::create_dir_all(&local),
        };
        if let Err(error) = made.and_then(|()| symlink("/dev/null", &link)) {
            fail(out, format!("Failed to mask unit {unit}: {error}\n"));
        }
        if self.order.now {
            self.wish(unit, Wish::Stop, out).await;
        }
    }

    pub(super) fn unmask(&self, unit: &str, out: &mut ControlOutcome) {
        let link = self.services.units().local().join(unit);
        if is_masked(&link)
            && let Err(error) = fs::remove_file(&link)
        {
            fail(out, format!("Failed to unmask unit {unit}: {error}\n"));
        }
    }
}

/// False when it was there.
fn make_link(path: &Path, link: &Path) -> io::Result<bool> {
    if link.symlink_metadata().is_ok() {
        return Ok(false);
    }
    link.parent().map_or(Ok(()), fs::create_dir_all)?;
    symlink(path, link).map(|()| true)
}
