//! What `systemctl` answers where nothing runs that it could ask: in an image that is being made, and of another root. What
//! is about files is done; what is about services is not, and says so.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    api::{ControlOrder, ControlOutcome},
    control::{fail, say},
    installation::{Installation, RUNLEVELS, is_on, of_runlevels, was_done},
    layout::Layout,
    units::{Units, kind},
};

/// What is asked of services.
const IGNORED: [&str; 10] = [
    "start",
    "stop",
    "restart",
    "try-restart",
    "condrestart",
    "reload",
    "reload-or-restart",
    "force-reload",
    "try-reload-or-restart",
    "kill",
];

/// Set to a yes, `systemctl` is to ask no manager (systemd's `docs/ENVIRONMENT.md`). Bakes set it.
pub const VARIABLE: &str = "SYSTEMD_OFFLINE";

/// Is nobody to be asked, as the environment says?
pub fn is_asked_for(value: Option<OsString>) -> bool {
    let value = value.unwrap_or_default().to_string_lossy().to_lowercase();
    matches!(value.as_str(), "1" | "yes" | "y" | "true" | "t" | "on")
}

/// Does one call on the files under a root.
pub fn systemctl(order: &ControlOrder, root: &Path) -> ControlOutcome {
    let layout = Layout::under(root);
    let call = Call {
        order,
        units: &Units::new(&layout),
        layout: &layout,
    };
    let mut out = ControlOutcome::default();
    call.answer(&mut out);
    out
}

struct Call<'a> {
    order: &'a ControlOrder,
    layout: &'a Layout,
    units: &'a Units,
}

impl Call<'_> {
    fn answer(&self, out: &mut ControlOutcome) {
        let order = self.order;
        match order.verb.as_str() {
            // What is read anew, or listed, is read by who runs it, and nothing runs.
            "daemon-reload" | "daemon-reexec" | "reset-failed" | "list-units" | "list-timers" => {}
            "set-environment" | "unset-environment" | "import-environment" => self.ignore("", out),
            "is-system-running" => say(out, order.quiet, 1, "offline"),
            "get-default" => out.stdout.push_str(&format!("{}\n", self.default_target())),
            "list-unit-files" => self.list_files(out),
            _ if order.units.is_empty() => fail(out, "Too few arguments.\n".to_owned()),
            "is-enabled" => self.is_enabled(out),
            _ => {
                for word in &order.units {
                    self.one(word, out);
                }
            }
        }
    }

    fn one(&self, word: &str, out: &mut ControlOutcome) {
        let (installation, verb) = (self.installation(), self.order.verb.as_str());
        let unit = match verb {
            "enable" | "reenable" | "link" if word.starts_with('/') => installation.link(word, out),
            _ => Some(self.full(word)),
        };
        let Some(unit) = unit else { return };
        match verb {
            "enable" => self.enable(&unit, out),
            "disable" => self.disable(&unit, out),
            "reenable" => {
                installation.disable(&unit, out);
                self.enable(&unit, out);
            }
            "preset" => match installation.preset(&unit, self.order.preset) {
                Some(true) => self.enable(&unit, out),
                Some(false) => self.disable(&unit, out),
                None => {}
            },
            "link" => {}
            "mask" => {
                if installation.mask(&unit, out) && self.order.now {
                    self.ignore(&unit, out);
                }
            }
            "unmask" => installation.unmask(&unit, out),
            "set-default" => self.set_default(&unit, out),
            "is-active" => say(out, self.order.quiet, 3, "inactive"),
            "is-failed" => say(out, self.order.quiet, 1, "inactive"),
            "status" => say(out, false, 3, &format!("○ {unit}\n     Active: inactive (dead)")),
            verb if IGNORED.contains(&verb) => self.ignore(&unit, out),
            verb => fail(
                out,
                format!("Unknown command verb {verb}, or not available while nothing runs.\n"),
            ),
        }
    }

    fn installation(&self) -> Installation<'_> {
        Installation {
            layout: self.layout,
            units: self.units,
        }
    }

    fn full(&self, word: &str) -> String {
        let full = match kind(word) {
            Some(_) => word.to_owned(),
            None => format!("{word}.service"),
        };
        self.units.canonical(&full)
    }

    /// Is it not about the system that this runs in?
    fn is_other(&self) -> bool {
        self.layout.root != Path::new("/")
    }

    /// Says what does not happen, and why.
    fn ignore(&self, unit: &str, out: &mut ControlOutcome) {
        let why = match self.is_other() {
            false => "no service runs while an image is made".to_owned(),
            true => format!("no service runs under {}", self.layout.root.display()),
        };
        let verb = match (self.order.verb.as_str(), self.order.now) {
            ("disable" | "mask", true) => "stop",
            (_, true) => "start",
            (verb, false) => verb,
        };
        let call = format!("{verb} {unit}");
        out.stderr
            .push_str(&format!("systemctl {}: ignored, {why}\n", call.trim_end()));
    }

    fn enable(&self, unit: &str, out: &mut ControlOutcome) {
        let done = match self.units.script(unit) {
            Some(_) => self.script(unit, true, out),
            None => self.installation().enable(unit, out).is_some(),
        };
        if done && self.order.now {
            self.ignore(unit, out);
        }
    }

    fn disable(&self, unit: &str, out: &mut ControlOutcome) {
        match self.units.script(unit) {
            Some(_) => drop(self.script(unit, false, out)),
            None => self.installation().disable(unit, out),
        }
        if self.order.now {
            self.ignore(unit, out);
        }
    }

    /// What has no unit file is enabled as the old runlevels do it. Was it done?
    fn script(&self, unit: &str, enable: bool, out: &mut ControlOutcome) -> bool {
        let [program, arguments @ ..] = of_runlevels(unit, enable);
        let mut command = Command::new(program);
        if self.is_other() {
            command = Command::new("chroot");
            command.arg(&self.layout.root).arg(program);
        }
        let (variable, value) = RUNLEVELS;
        let failure = match command.args(arguments).env(variable, value).output() {
            Ok(ran) if ran.status.success() => None,
            Ok(ran) => Some(String::from_utf8_lossy(&ran.stderr).into_owned()),
            Err(error) => Some(error.to_string()),
        };
        was_done(&self.order.verb, unit, failure, out)
    }

    /// One of them is enough.
    fn is_enabled(&self, out: &mut ControlOutcome) {
        let mut code = 1;
        for word in &self.order.units {
            let unit = self.full(word);
            match self.installation().state(&unit) {
                Some(state) => {
                    say(out, self.order.quiet, 0, state);
                    code = if is_on(state) { 0 } else { code };
                }
                None => out.stderr.push_str(&format!(
                    "Failed to get unit file state for {unit}: No such file or directory\n"
                )),
            }
        }
        out.code = code;
    }

    /// A name that no unit file has is a failure: scripts ask so whether there is one.
    fn list_files(&self, out: &mut ControlOutcome) {
        let order = self.order;
        let wanted = |name: &String| {
            let named = |word: &String| {
                let pattern = globset::Glob::new(word).map(|glob| glob.compile_matcher());
                self.full(word) == *name || pattern.is_ok_and(|pattern| pattern.is_match(name))
            };
            (order.units.is_empty() || order.units.iter().any(named))
                && (order.types.is_empty()
                    || kind(name).is_some_and(|kind| order.types.iter().any(|own| own == kind)))
        };
        for name in self.units.all().into_iter().filter(wanted) {
            let state = self.installation().state(&name).unwrap_or("static");
            if order.states.is_empty() || order.states.iter().any(|own| own == state) {
                out.stdout.push_str(&format!("{name:<40} {state}\n"));
            }
        }
        if out.stdout.is_empty() && !order.units.is_empty() {
            out.code = 1;
        }
    }

    fn default_link(&self) -> PathBuf {
        self.units.local().join("default.target")
    }

    fn default_target(&self) -> String {
        match self.units.canonical("default.target").as_str() {
            "default.target" => "multi-user.target".to_owned(),
            target => target.to_owned(),
        }
    }

    fn set_default(&self, unit: &str, out: &mut ControlOutcome) {
        let link = self.default_link();
        // Of systemd's own targets there may be no files, and every host reaches them.
        let made = match (kind(unit), link.symlink_metadata()) {
            (Some("target"), Ok(_)) => fs::remove_file(&link),
            (Some("target"), Err(_)) => fs::create_dir_all(self.units.local()),
            _ => {
                return fail(
                    out,
                    format!("Failed to set default target: {unit} is no target.\n"),
                );
            }
        };
        let target = Path::new("/usr/lib/systemd/system").join(unit);
        match made.and_then(|()| symlink(&target, &link)) {
            Ok(()) => out.stderr.push_str(&format!(
                "Created symlink /etc/systemd/system/default.target → {}.\n",
                target.display()
            )),
            Err(error) => fail(out, format!("Failed to set default target: {error}\n")),
        }
    }
}

#[cfg(test)]
mod tests;
