//! What `systemctl` answers inside a host: the verbs that scripts and packages use, on simple services.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use super::{
    api::{ControlOrder, ControlOutcome, ServiceState, ServiceStatus},
    service::Wish,
    services::{Services, is_masked},
};

/// Does one call.
pub async fn control(services: &Services, order: &ControlOrder) -> ControlOutcome {
    let mut outcome = ControlOutcome::default();
    let call = Call { services, order };
    match order.verb.as_str() {
        "daemon-reload" | "daemon-reexec" => {}
        "list-units" | "list-unit-files" => call.list(&mut outcome),
        "is-system-running" => outcome.stdout.push_str("running\n"),
        "default" | "isolate" | "poweroff" | "reboot" | "halt" => {
            outcome.code = 1;
            outcome.stderr = format!(
                "systemctl {}: the platform decides that, not the host\n",
                order.verb
            );
        }
        _ if order.units.is_empty() && order.verb != "show" && order.verb != "reset-failed" => {
            outcome.code = 1;
            outcome.stderr = "Too few arguments.\n".to_owned();
        }
        _ => {
            for unit in &order.units {
                call.one(unit, &mut outcome).await;
            }
        }
    }
    outcome
}

struct Call<'a> {
    services: &'a Services,
    order: &'a ControlOrder,
}

impl Call<'_> {
    async fn one(&self, unit: &str, out: &mut ControlOutcome) {
        let Some(name) = service_name(unit) else {
            // Targets, sockets, timers, mounts: nothing of that kind exists here.
            return self.other(unit, out);
        };
        let before = self.services.status(name).map(|status| status.state);
        let running = before == Some(ServiceState::Active);
        match self.order.verb.as_str() {
            "start" => self.wish(name, Wish::Start, out).await,
            "stop" if before.is_none() && self.services.unit_file(name).is_some() => {}
            "stop" => self.wish(name, Wish::Stop, out).await,
            "restart" => self.wish(name, Wish::Restart, out).await,
            "try-restart" | "condrestart" if !running => {}
            "try-restart" | "condrestart" => self.wish(name, Wish::Restart, out).await,
            "reload" => self.wish(name, Wish::Reload, out).await,
            "reload-or-restart" | "force-reload" | "try-reload-or-restart" => {
                self.reload_or_restart(name, running, out).await
            }
            "kill" => self.wish(name, Wish::Stop, out).await,
            "reset-failed" => self.wish(name, Wish::ResetFailed, out).await,
            "enable" | "reenable" | "preset" => self.enable(name, out).await,
            "disable" => self.disable(name, out).await,
            "mask" => self.mask(name, out),
            "unmask" => self.unmask(name, out),
            "is-active" => self.is_active(name, out),
            "is-failed" => self.is_failed(name, out),
            "is-enabled" => self.is_enabled(name, out),
            "status" => self.status(name, out),
            "show" => self.show(name, out),
            "cat" => self.cat(name, out),
            verb => {
                out.code = 1;
                out.stderr = format!("Unknown command verb {verb}, or not available yet in a host.\n");
            }
        }
    }

    async fn wish(&self, name: &str, wish: Wish, out: &mut ControlOutcome) {
        if let Err(why) = self.services.ask(name, wish).await {
            out.code = if why.ends_with("not found.") { 5 } else { 1 };
            let verb = &self.order.verb;
            out.stderr.push_str(&format!(
                "Failed to {verb} {name}.service: {why}\nSee /var/log/vend/{}.log for details.\n",
                super::log::file_name(name)
            ));
        }
    }

    async fn reload_or_restart(&self, name: &str, running: bool, out: &mut ControlOutcome) {
        let can_reload = self
            .services
            .load(name)
            .is_ok_and(|parsed| !parsed.unit.reload.is_empty());
        match (self.order.verb.starts_with("try-"), running, can_reload) {
            (true, false, _) => {}
            (_, true, true) => self.wish(name, Wish::Reload, out).await,
            _ => self.wish(name, Wish::Restart, out).await,
        }
    }

    fn other(&self, unit: &str, out: &mut ControlOutcome) {
        match self.order.verb.as_str() {
            "is-active" | "is-failed" => say(out, self.order.quiet, 3, "inactive"),
            "is-enabled" => say(out, self.order.quiet, 1, "disabled"),
            "stop" | "disable" | "mask" | "unmask" | "reset-failed" => {}
            verb => {
                out.code = 1;
                out.stderr.push_str(&format!(
                    "systemctl {verb} {unit}: only services are available in a host.\n"
                ));
            }
        }
    }

    fn state(&self, name: &str) -> Option<ServiceStatus> {
        self.services.status(name)
    }

    fn is_active(&self, name: &str, out: &mut ControlOutcome) {
        let state = self
            .state(name)
            .map_or(ServiceState::Inactive, |status| status.state);
        let code = if state == ServiceState::Active { 0 } else { 3 };
        say(out, self.order.quiet, code, state.word());
    }

    fn is_failed(&self, name: &str, out: &mut ControlOutcome) {
        let state = self
            .state(name)
            .map_or(ServiceState::Inactive, |status| status.state);
        let code = u8::from(state != ServiceState::Failed);
        say(out, self.order.quiet, code, state.word());
    }

    fn is_enabled(&self, name: &str, out: &mut ControlOutcome) {
        let word = self.enabled(name);
        let code = u8::from(!matches!(word, "enabled" | "static" | "alias"));
        if word == "not-found" {
            out.code = 1;
            out.stderr.push_str(&format!(
                "Failed to get unit file state for {name}.service: No such file or directory\n"
            ));
        } else {
            say(out, self.order.quiet, code, word);
        }
    }

    fn enabled(&self, name: &str) -> &'static str {
        let Some((path, text)) = self.services.unit_file(name) else {
            return if self.state(name).is_some() {
                "enabled"
            } else {
                "not-found"
            };
        };
        let unit = super::unit::parse(name, &text).unit;
        if is_masked(&path) {
            "masked"
        } else if self
            .links(name, &unit.wanted_by)
            .iter()
            .any(|link| link.symlink_metadata().is_ok())
        {
            "enabled"
        } else if unit.wanted_by.is_empty() && unit.aliases.is_empty() {
            "static"
        } else {
            "disabled"
        }
    }

    /// Where the links of an enabled unit are.
    fn links(&self, name: &str, targets: &[String]) -> Vec<PathBuf> {
        let local = self.local();
        let safe = |target: &&String| !target.contains('/') && !target.starts_with('.');
        targets
            .iter()
            .filter(safe)
            .map(|target| {
                local
                    .join(format!("{target}.wants"))
                    .join(format!("{name}.service"))
            })
            .collect()
    }

    fn local(&self) -> PathBuf {
        self.services.layout().units.first().cloned().unwrap_or_default()
    }

    async fn enable(&self, name: &str, out: &mut ControlOutcome) {
        let Some((path, text)) = self.services.unit_file(name) else {
            return fail(
                out,
                format!("Failed to enable unit: Unit file {name}.service does not exist.\n"),
            );
        };
        let unit = super::unit::parse(name, &text).unit;
        for link in self.links(name, &unit.wanted_by) {
            let made = link.parent().map_or(Ok(()), fs::create_dir_all);
            let made = made.and_then(|()| {
                if link.symlink_metadata().is_ok() {
                    Ok(())
                } else {
                    symlink(&path, &link)
                }
            });
            match made {
                Ok(()) => out.stderr.push_str(&format!(
                    "Created symlink {} → {}.\n",
                    link.display(),
                    path.display()
                )),
                Err(error) => fail(out, format!("Failed to enable unit {name}.service: {error}\n")),
            }
        }
        if unit.wanted_by.is_empty() {
            out.stderr.push_str(&format!(
                "Unit {name}.service has no [Install] section: nothing to enable.\n"
            ));
        }
        if self.order.now {
            self.wish(name, Wish::Start, out).await;
        }
    }

    async fn disable(&self, name: &str, out: &mut ControlOutcome) {
        let local = self.local();
        let Ok(entries) = fs::read_dir(&local) else { return };
        for entry in entries.filter_map(Result::ok) {
            let link = entry.path().join(format!("{name}.service"));
            let of_target = entry.file_name().to_string_lossy().ends_with(".wants");
            if of_target
                && link
                    .symlink_metadata()
                    .is_ok_and(|metadata| metadata.is_symlink())
            {
                match fs::remove_file(&link) {
                    Ok(()) => out.stderr.push_str(&format!("Removed {}.\n", link.display())),
                    Err(error) => fail(out, format!("Failed to disable unit {name}.service: {error}\n")),
                }
            }
        }
        if self.order.now {
            self.wish(name, Wish::Stop, out).await;
        }
    }

    fn mask(&self, name: &str, out: &mut ControlOutcome) {
        let link = self.local().join(format!("{name}.service"));
        let made = match link.symlink_metadata() {
            Ok(metadata) if !metadata.is_symlink() => {
                return fail(
                    out,
                    format!("Failed to mask unit: File {} already exists.\n", link.display()),
                );
            }
            Ok(_) => fs::remove_file(&link),
            Err(_) => fs::create_dir_all(self.local()),
        };
        if let Err(error) = made.and_then(|()| symlink("/dev/null", &link)) {
            fail(out, format!("Failed to mask unit {name}.service: {error}\n"));
        }
    }

    fn unmask(&self, name: &str, out: &mut ControlOutcome) {
        let link = self.local().join(format!("{name}.service"));
        if is_masked(&link)
            && let Err(error) = fs::remove_file(&link)
        {
            fail(out, format!("Failed to unmask unit {name}.service: {error}\n"));
        }
    }

    fn cat(&self, name: &str, out: &mut ControlOutcome) {
        match self.services.unit_file(name) {
            Some((path, text)) => out.stdout.push_str(&format!("# {}\n{text}\n", path.display())),
            None => fail(out, format!("No files found for {name}.service.\n")),
        }
    }

    fn status(&self, name: &str, out: &mut ControlOutcome) {
        let file = self.services.unit_file(name);
        let Some(status) = self.state(name) else {
            match file {
                Some((path, _)) => {
                    let enabled = self.enabled(name);
                    out.stdout.push_str(&format!(
                        "○ {name}.service\n     Loaded: loaded ({}; {enabled})\n     Active: inactive (dead)\n",
                        path.display()
                    ));
                    out.code = 3;
                }
                None => {
                    out.code = 4;
                    out.stderr
                        .push_str(&format!("Unit {name}.service could not be found.\n"));
                }
            }
            return;
        };
        let mark = if status.state == ServiceState::Active {
            '●'
        } else {
            '○'
        };
        out.stdout
            .push_str(&format!("{mark} {name}.service - {}\n", status.description));
        let path = file.map_or_else(|| "vend".to_owned(), |(path, _)| path.display().to_string());
        out.stdout
            .push_str(&format!("     Loaded: loaded ({path}; {})\n", self.enabled(name)));
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
        out.code = out.code.max(if status.state == ServiceState::Active {
            0
        } else {
            3
        });
    }

    fn show(&self, name: &str, out: &mut ControlOutcome) {
        let status = self.state(name);
        let loaded = status.is_some() || self.services.unit_file(name).is_some();
        let state = status
            .as_ref()
            .map_or(ServiceState::Inactive, |status| status.state);
        let text = |value: &str| value.to_owned();
        let properties = [
            ("Id", format!("{name}.service")),
            ("LoadState", text(if loaded { "loaded" } else { "not-found" })),
            ("ActiveState", text(state.word())),
            (
                "SubState",
                status
                    .as_ref()
                    .map_or_else(|| text("dead"), |status| status.sub.clone()),
            ),
            (
                "MainPID",
                status
                    .as_ref()
                    .and_then(|status| status.pid)
                    .unwrap_or(0)
                    .to_string(),
            ),
            (
                "NRestarts",
                status.as_ref().map_or(0, |status| status.restarts).to_string(),
            ),
            ("UnitFileState", text(self.enabled(name)).replace("not-found", "")),
            (
                "Result",
                text(if state == ServiceState::Failed {
                    "exit-code"
                } else {
                    "success"
                }),
            ),
            (
                "Description",
                status.map_or_else(|| text(name), |status| status.description),
            ),
            (
                "FragmentPath",
                self.services
                    .unit_file(name)
                    .map_or_else(String::new, |(path, _)| path.display().to_string()),
            ),
            ("NeedDaemonReload", text("no")),
            ("CanReload", text("no")),
        ];
        for (key, value) in properties {
            if self.order.properties.is_empty() || self.order.properties.iter().any(|wanted| wanted == key) {
                let line = if self.order.value_only {
                    format!("{value}\n")
                } else {
                    format!("{key}={value}\n")
                };
                out.stdout.push_str(&line);
            }
        }
    }

    fn list(&self, out: &mut ControlOutcome) {
        for status in self.services.list() {
            if self.order.all
                || self.order.verb == "list-unit-files"
                || status.state != ServiceState::Inactive
            {
                let name = format!("{}.service", status.name);
                let (word, sub) = (status.state.word(), &status.sub);
                out.stdout.push_str(&match self.order.verb.as_str() {
                    "list-unit-files" => format!("{name:<32} {}\n", self.enabled(&status.name)),
                    _ => format!("{name:<32} loaded {word:<10} {sub:<12} {}\n", status.description),
                });
            }
        }
    }
}

/// The name of a service unit; `None` for another kind of unit.
fn service_name(unit: &str) -> Option<&str> {
    const KINDS: [&str; 8] = [
        "target", "socket", "timer", "mount", "path", "slice", "device", "scope",
    ];
    match unit.rsplit_once('.') {
        Some((name, "service")) => Some(name),
        Some((_, kind)) if KINDS.contains(&kind) => None,
        _ => Some(unit),
    }
}

fn say(out: &mut ControlOutcome, quiet: bool, code: u8, word: &str) {
    out.code = out.code.max(code);
    if !quiet {
        out.stdout.push_str(word);
        out.stdout.push('\n');
    }
}

fn fail(out: &mut ControlOutcome, message: String) {
    out.code = 1;
    out.stderr.push_str(&message);
}
