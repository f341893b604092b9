//! What `systemctl` shows of units.

use super::{Call, fail, matcher};
use crate::agent::{
    api::{ControlOutcome, ServiceState, ServiceStatus},
    services::short,
    units::kind,
};

impl Call<'_> {
    pub(super) fn cat(&self, unit: &str, out: &mut ControlOutcome) {
        let units = self.services.units();
        match units.text(unit) {
            Some((path, _)) if !self.is_root && !units.is_everybodys(unit) => {
                fail(
                    out,
                    format!("Failed to open {}: Permission denied\n", path.display()),
                );
            }
            Some((path, text)) => out.stdout.push_str(&format!("# {}\n{text}\n", path.display())),
            None => fail(out, format!("No files found for {unit}.\n")),
        }
    }

    pub(super) fn status(&self, unit: &str, out: &mut ControlOutcome) {
        apart(out);
        let file = self.path(unit);
        let (status, active) = (self.state(unit), self.active(unit));
        if status.is_none() && file.is_empty() && active == ServiceState::Inactive {
            out.code = 4;
            out.stderr.push_str(&format!("Unit {unit} could not be found.\n"));
            return;
        }
        let mark = if active == ServiceState::Active {
            '●'
        } else {
            '○'
        };
        let described = status
            .as_ref()
            .map_or_else(|| self.description(unit), |status| status.description.clone());
        let path = if file.is_empty() { "vend" } else { &file };
        out.stdout.push_str(&format!("{mark} {unit} - {described}\n"));
        out.stdout
            .push_str(&format!("     Loaded: loaded ({path}; {})\n", self.enabled(unit)));
        match &status {
            Some(status) => self.life(status, out),
            None => {
                let sub = sub(unit, active);
                out.stdout
                    .push_str(&format!("     Active: {} ({sub})\n", active.word()));
            }
        }
        if active != ServiceState::Active {
            out.code = out.code.max(3);
        }
    }

    fn life(&self, status: &ServiceStatus, out: &mut ControlOutcome) {
        let (word, sub, since) = (status.state.word(), &status.sub, status.since);
        out.stdout
            .push_str(&format!("     Active: {word} ({sub}) since {since}\n"));
        if let Some(pid) = status.pid {
            out.stdout.push_str(&format!("   Main PID: {pid}\n"));
        }
        if status.restarts > 0 {
            out.stdout.push_str(&format!(
                "   Restarts: {}, {} crashes in a row\n",
                status.restarts, status.crashes
            ));
        }
        if let Some(exit) = &status.last_exit {
            out.stdout.push_str(&format!("  Last exit: {exit}\n"));
        }
    }

    /// Where a unit comes from; empty when it has no file.
    fn path(&self, unit: &str) -> String {
        let units = self.services.units();
        let path = units
            .text(unit)
            .map(|(path, _)| path)
            .or_else(|| units.script(unit));
        path.map_or_else(String::new, |path| path.display().to_string())
    }

    fn description(&self, unit: &str) -> String {
        let parsed = self.services.units().load(unit);
        parsed.map_or_else(|_| unit.to_owned(), |parsed| parsed.unit.description)
    }

    pub(super) fn show(&self, unit: &str, out: &mut ControlOutcome) {
        apart(out);
        for (key, value) in self.properties(unit) {
            if self.order.properties.is_empty() || self.order.properties.iter().any(|wanted| wanted == key) {
                let line = match self.order.value_only {
                    true => format!("{value}\n"),
                    false => format!("{key}={value}\n"),
                };
                out.stdout.push_str(&line);
            }
        }
    }

    fn properties(&self, unit: &str) -> Vec<(&'static str, String)> {
        let status = self.state(unit);
        let state = self.active(unit);
        let loaded = self.services.units().load(unit);
        let load = match &loaded {
            Err(why) if why.ends_with("masked.") => "masked",
            Err(_) if status.is_none() && state == ServiceState::Inactive => "not-found",
            _ => "loaded",
        };
        let of = |get: fn(&ServiceStatus) -> String, default: &str| {
            status.as_ref().map_or_else(|| default.to_owned(), get)
        };
        let result = match (self.services.failure(unit), state) {
            (Some(result), _) => result,
            (None, ServiceState::Failed) => "exit-code",
            _ => "success",
        };
        let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let parsed = loaded.ok().map(|parsed| parsed.unit);
        let names = |list: fn(&crate::agent::unit::Unit) -> &[String]| {
            parsed
                .as_ref()
                .map(|unit| list(unit).join(" "))
                .unwrap_or_default()
        };
        vec![
            ("Id", unit.to_owned()),
            ("Names", unit.to_owned()),
            ("LoadState", load.to_owned()),
            ("ActiveState", state.word().to_owned()),
            ("SubState", of(|status| status.sub.clone(), sub(unit, state))),
            ("MainPID", of(|status| status.pid.unwrap_or(0).to_string(), "0")),
            ("NRestarts", of(|status| status.restarts.to_string(), "0")),
            ("UnitFileState", self.enabled(unit).replace("not-found", "")),
            ("Result", result.to_owned()),
            (
                "Description",
                of(|status| status.description.clone(), &self.description(unit)),
            ),
            ("FragmentPath", self.path(unit)),
            ("Requires", names(|unit| &unit.links.requires)),
            ("Requisite", names(|unit| &unit.links.requisite)),
            ("BindsTo", names(|unit| &unit.links.binds_to)),
            ("PartOf", names(|unit| &unit.links.part_of)),
            ("Wants", names(|unit| &unit.links.wants)),
            ("After", names(|unit| &unit.links.after)),
            ("NeedDaemonReload", "no".to_owned()),
            (
                "CanReload",
                yes(parsed.as_ref().is_some_and(|unit| unit.can_reload())),
            ),
        ]
    }

    /// Is a unit among those that a list is asked for? `words` are systemd's for what it does.
    fn is_listed(&self, unit: &str, words: &[&str]) -> bool {
        let order = self.order;
        let named = |word: &String| match matcher(word) {
            Some(matcher) => matcher.is_match(unit),
            None => unit == word || unit.strip_suffix(".service") == Some(word),
        };
        (order.units.is_empty() || order.units.iter().any(named))
            && (order.types.is_empty()
                || kind(unit).is_some_and(|kind| order.types.iter().any(|own| own == kind)))
            && (order.states.is_empty() || order.states.iter().any(|state| words.contains(&state.as_str())))
    }

    pub(super) fn list_units(&self, out: &mut ControlOutcome) {
        for (unit, state) in self.services.loaded() {
            let (word, status) = (state.word(), self.state(&unit));
            let sub = match &status {
                Some(status) => status.sub.as_str(),
                None => sub(&unit, state),
            };
            let shown = self.order.all || !self.order.states.is_empty() || state != ServiceState::Inactive;
            if shown && self.is_listed(&unit, &["loaded", word, sub]) {
                let described = status
                    .as_ref()
                    .map_or_else(|| self.description(&unit), |status| status.description.clone());
                out.stdout
                    .push_str(&format!("{unit:<32} loaded {word:<10} {sub:<12} {described}\n"));
            }
        }
    }

    /// A pattern that nothing matches is a failure: scripts ask so whether there is a unit.
    pub(super) fn list_files(&self, out: &mut ControlOutcome) {
        let mut names = self.services.units().all();
        let services = self.services.list().into_iter();
        names.extend(services.map(|status| format!("{}.service", status.name)));
        for name in names {
            let state = self.enabled(&name);
            if self.is_listed(&name, &[state]) {
                out.stdout.push_str(&format!("{name:<40} {state}\n"));
            }
        }
        if out.stdout.is_empty() && !self.order.units.is_empty() {
            out.code = 1;
        }
    }

    pub(super) fn list_timers(&self, out: &mut ControlOutcome) {
        let timers = self.services.timers().into_iter();
        for (timer, unit, next) in timers.filter(|(timer, ..)| self.is_listed(timer, &[])) {
            let next = next.map_or_else(|| "-".to_owned(), |next| next.to_string());
            out.stdout.push_str(&format!("{next:<32} {timer:<32} {unit}\n"));
        }
    }

    pub(super) fn dependencies(&self, unit: &str, out: &mut ControlOutcome) {
        out.stdout.push_str(&format!("{unit}\n"));
        let links = self.services.units().links(unit).unwrap_or_default();
        for other in links.pulled_in() {
            let mark = if self.services.is_active(other) {
                '●'
            } else {
                '○'
            };
            let name = if kind(other) == Some("service") {
                short(other)
            } else {
                other
            };
            out.stdout.push_str(&format!("{mark} └─{name}\n"));
        }
    }
}

/// systemd's finer word for what a unit does that is no service.
fn sub(unit: &str, state: ServiceState) -> &'static str {
    match (state, kind(unit)) {
        (ServiceState::Active, Some("timer")) => "waiting",
        (ServiceState::Active, Some("socket")) => "listening",
        (ServiceState::Active, _) => "active",
        (ServiceState::Failed, _) => "failed",
        _ => "dead",
    }
}

/// An empty line before all but the first.
fn apart(out: &mut ControlOutcome) {
    if !out.stdout.is_empty() {
        out.stdout.push('\n');
    }
}
