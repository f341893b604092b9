//! What `systemctl` answers inside a host: the verbs that scripts and packages use.

use std::sync::{Mutex, PoisonError};

use super::{
    api::{ControlOrder, ControlOutcome, Origin, ServiceState, ServiceStatus},
    questions::is_question,
    service::Wish,
    services::{Services, short},
    unit,
    units::kind,
};

mod enable;
mod show;

/// Does one call of root's.
pub async fn control(services: &Services, order: &ControlOrder) -> ControlOutcome {
    Call::new(services, order, true).run().await
}

/// Answers a question of anybody's: files that not everybody may read are not shown.
pub async fn look(services: &Services, question: &ControlOrder) -> ControlOutcome {
    Call::new(services, question, false).run().await
}

struct Call<'a> {
    services: &'a Services,
    order: &'a ControlOrder,
    is_root: bool,
    /// What is not waited for.
    queue: Mutex<Vec<(String, Wish)>>,
}

impl<'a> Call<'a> {
    fn new(services: &'a Services, order: &'a ControlOrder, is_root: bool) -> Self {
        Self {
            services,
            order,
            is_root,
            queue: Mutex::default(),
        }
    }

    async fn run(self) -> ControlOutcome {
        let mut outcome = ControlOutcome::default();
        // An agent that has left its legacy would change what nobody inherits.
        let _concern = match is_question(&self.order.verb) {
            true => None,
            false => Some(self.services.at_peace().await),
        };
        self.answer(&mut outcome).await;
        let queue = self.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.services.queue(queue).await;
        outcome
    }

    async fn answer(&self, out: &mut ControlOutcome) {
        let Self { services, order, .. } = self;
        match order.verb.as_str() {
            "daemon-reload" | "daemon-reexec" => services.reread().await,
            "list-units" => self.list_units(out),
            "list-unit-files" => self.list_files(out),
            "list-timers" => self.list_timers(out),
            "is-system-running" => self.is_running(out),
            "get-default" => out.stdout.push_str("multi-user.target\n"),
            "show-environment" | "set-environment" | "unset-environment" | "import-environment" => {
                self.environment(out);
            }
            "default" | "isolate" | "poweroff" | "reboot" | "halt" | "kexec" | "rescue" | "emergency"
            | "suspend" => {
                let why = format!(
                    "systemctl {}: the platform decides that, not the host\n",
                    order.verb
                );
                fail(out, why);
            }
            "status" if order.units.is_empty() => self.list_units(out),
            "reset-failed" if order.units.is_empty() => services.forgive_all().await,
            "show" if order.units.is_empty() => {}
            _ if order.units.is_empty() => fail(out, "Too few arguments.\n".to_owned()),
            "is-active" | "is-failed" | "is-enabled" => self.any(out).await,
            _ => {
                let mut units = self.units(out);
                if order.verb.ends_with("start") {
                    // As systemd orders them: a service finds what was opened for it.
                    units.sort_by_key(|unit| kind(unit) != Some("socket"));
                }
                match order.verb.as_str() {
                    "start" if !order.no_block => self.start(&units, out).await,
                    _ => {
                        for unit in units {
                            self.one(&unit, out).await;
                        }
                    }
                }
            }
        }
    }

    /// One of them is enough.
    async fn any(&self, out: &mut ControlOutcome) {
        let mut best: Option<u8> = None;
        for unit in self.units(out) {
            out.code = 0;
            self.one(&unit, out).await;
            best = Some(best.map_or(out.code, |best| best.min(out.code)));
        }
        // A pattern that nothing matches is one that none is enough for.
        out.code = best.unwrap_or(if self.order.verb == "is-active" { 3 } else { 1 });
    }

    /// The units that are meant: a pattern means those that are loaded and not inactive, with `--all` these too; a path, a
    /// file to link.
    fn units(&self, out: &mut ControlOutcome) -> Vec<String> {
        let mut units = Vec::new();
        for word in &self.order.units {
            if word.starts_with('/') && matches!(self.order.verb.as_str(), "enable" | "reenable" | "link") {
                units.extend(self.installation().link(word, out));
                continue;
            }
            match matcher(word).filter(|_| self.takes_patterns(word, out)) {
                None => units.push(self.services.full(word)),
                Some(matcher) => {
                    let loaded = self.services.loaded().into_iter();
                    let meant = loaded
                        .filter(|(_, state)| self.order.all || *state != ServiceState::Inactive)
                        .map(|(name, _)| name);
                    units.extend(meant.filter(|name| matcher.is_match(name)));
                }
            }
        }
        units
    }

    /// What is about files is not about what is loaded.
    fn takes_patterns(&self, word: &str, out: &mut ControlOutcome) -> bool {
        let verb = self.order.verb.as_str();
        let is_about_files = matches!(
            verb,
            "enable" | "disable" | "reenable" | "preset" | "mask" | "unmask" | "link" | "is-enabled"
        );
        if is_about_files {
            out.stderr.push_str(&format!(
                "Glob pattern passed to {verb}, but globs are not supported for this: {word}\n"
            ));
        }
        !is_about_files
    }

    async fn one(&self, unit: &str, out: &mut ControlOutcome) {
        let running = self.services.is_active(unit);
        match self.order.verb.as_str() {
            "start" => self.wish(unit, Wish::Start, out).await,
            "stop" => self.wish(unit, Wish::Stop, out).await,
            "restart" => self.wish(unit, Wish::Restart, out).await,
            "try-restart" | "condrestart" if !running => {}
            "try-restart" | "condrestart" => self.wish(unit, Wish::Restart, out).await,
            "reload" => self.wish(unit, Wish::Reload, out).await,
            "reload-or-restart" | "force-reload" | "try-reload-or-restart" => {
                self.reload_or_restart(unit, running, out).await;
            }
            "kill" => self.kill(unit, out).await,
            "reset-failed" if self.state(unit).is_none() => self.services.forgive(unit),
            "reset-failed" => self.wish(unit, Wish::ResetFailed, out).await,
            "enable" => self.enable(unit, out).await,
            "reenable" => self.reenable(unit, out).await,
            "preset" => self.preset(unit, out).await,
            "link" => {}
            "disable" => self.disable(unit, out).await,
            "mask" => self.mask(unit, out).await,
            "unmask" => self.installation().unmask(unit, out),
            "is-active" => self.is_active(unit, out),
            "is-failed" => self.is_failed(unit, out),
            "is-enabled" => self.is_enabled(unit, out),
            "status" => self.status(unit, out),
            "show" => self.show(unit, out),
            "cat" => self.cat(unit, out),
            "list-dependencies" => self.dependencies(unit, out),
            verb => fail(
                out,
                format!("Unknown command verb {verb}, or not available yet in a host.\n"),
            ),
        }
    }

    async fn wish(&self, unit: &str, wish: Wish, out: &mut ControlOutcome) {
        let is_job = matches!(wish, Wish::Start | Wish::Stop | Wish::Restart | Wish::Reload);
        let asked = match is_job && self.order.no_block {
            true => self.later(unit, wish),
            false => self.services.ask(unit, wish).await,
        };
        if let Err(why) = asked {
            self.failed(unit, &why, out);
        }
    }

    /// All in one: each of them can be stopped before its turn.
    async fn start(&self, units: &[String], out: &mut ControlOutcome) {
        let outcomes = self.services.start_all(units).await;
        for (unit, outcome) in units.iter().zip(outcomes) {
            if let Err(why) = outcome {
                self.failed(unit, &why, out);
            }
        }
    }

    fn failed(&self, unit: &str, why: &str, out: &mut ControlOutcome) {
        out.code = if why.ends_with("not found.") { 5 } else { 1 };
        let verb = &self.order.verb;
        out.stderr.push_str(&format!(
            "Failed to {verb} {unit}: {why}\nSee /var/log/vend/{}.log for details.\n",
            super::log::file_name(unit)
        ));
    }

    /// With `--no-block` only that there is such a unit is said; what becomes of it is in its log.
    fn later(&self, unit: &str, wish: Wish) -> Result<(), String> {
        self.services.verify(unit)?;
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push((unit.to_owned(), wish));
        Ok(())
    }

    async fn reload_or_restart(&self, unit: &str, running: bool, out: &mut ControlOutcome) {
        // A process of the Procfile cannot, whatever the file of a unit of its name says.
        let is_unit = self
            .state(unit)
            .is_none_or(|status| status.origin == Origin::Unit);
        let file = self.services.units().load(unit);
        let can_reload = is_unit && file.is_ok_and(|parsed| parsed.unit.can_reload());
        match (self.order.verb.starts_with("try-"), running, can_reload) {
            (true, false, _) => {}
            (_, true, true) => self.wish(unit, Wish::Reload, out).await,
            _ => self.wish(unit, Wish::Restart, out).await,
        }
    }

    async fn kill(&self, unit: &str, out: &mut ControlOutcome) {
        let name = self.order.signal.as_deref().unwrap_or("TERM");
        match unit::signal(name) {
            Some(signal) => {
                self.wish(unit, Wish::Signal(signal, self.order.only_main), out)
                    .await
            }
            None => fail(out, format!("Failed to parse signal string {name}.\n")),
        }
    }

    fn environment(&self, out: &mut ControlOutcome) {
        for word in &self.order.units {
            match (self.order.verb.as_str(), word.split_once('=')) {
                ("set-environment", Some((name, value))) => self.services.set_variable(name, Some(value)),
                ("unset-environment", _) => {
                    let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
                    self.services.set_variable(name, None);
                }
                ("set-environment", None) => fail(out, format!("`{word}` is not an assignment.\n")),
                // A caller's own environment is not sent here.
                _ => {}
            }
        }
        if self.order.verb == "show-environment" {
            for (name, value) in self.services.variables() {
                out.stdout.push_str(&format!("{name}={}\n", value.expose()));
            }
        }
    }

    fn state(&self, unit: &str) -> Option<ServiceStatus> {
        match kind(unit) {
            Some("service") => self.services.status(short(unit)),
            _ => None,
        }
    }

    /// systemd's word for what a unit does, of whatever kind.
    fn active(&self, unit: &str) -> ServiceState {
        match self.state(unit) {
            Some(status) => status.state,
            None if self.services.is_active(unit) => ServiceState::Active,
            None if self.services.failure(unit).is_some() => ServiceState::Failed,
            None => ServiceState::Inactive,
        }
    }

    fn is_running(&self, out: &mut ControlOutcome) {
        let failed = self
            .services
            .list()
            .iter()
            .any(|status| status.state == ServiceState::Failed);
        let (code, word) = if failed { (1, "degraded") } else { (0, "running") };
        say(out, self.order.quiet, code, word);
    }

    fn is_active(&self, unit: &str, out: &mut ControlOutcome) {
        let state = self.active(unit);
        let code = if state == ServiceState::Active { 0 } else { 3 };
        say(out, self.order.quiet, code, state.word());
    }

    fn is_failed(&self, unit: &str, out: &mut ControlOutcome) {
        let state = self.active(unit);
        let code = u8::from(state != ServiceState::Failed);
        say(out, self.order.quiet, code, state.word());
    }
}

/// Of a pattern, what it matches.
fn matcher(word: &str) -> Option<globset::GlobMatcher> {
    // As in names of units, where it stands for a byte, a backslash is one.
    let mut pattern = globset::GlobBuilder::new(word);
    let pattern = pattern.backslash_escape(false).build();
    let pattern = is_pattern(word).then(|| pattern.ok()).flatten();
    pattern.map(|pattern| pattern.compile_matcher())
}

/// Does a word stand for every unit that it matches?
pub fn is_pattern(word: &str) -> bool {
    word.contains(['*', '?', '['])
}

pub fn say(out: &mut ControlOutcome, quiet: bool, code: u8, word: &str) {
    out.code = out.code.max(code);
    if !quiet {
        out.stdout.push_str(word);
        out.stdout.push('\n');
    }
}

pub fn fail(out: &mut ControlOutcome, message: String) {
    out.code = 1;
    out.stderr.push_str(&message);
}
