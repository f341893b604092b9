//! What starts with the host: links in the directories of targets, and what `--now` adds to them.

use std::time::Duration;

use model::Secret;

use super::{Call, fail, say};
use crate::agent::{
    api::ControlOutcome,
    installation::{Installation, RUNLEVELS, is_on, of_runlevels, was_done},
    reaper::Exit,
    run,
    service::Wish,
    spawn::Launch,
    units::kind,
};

impl Call<'_> {
    pub(super) fn installation(&self) -> Installation<'_> {
        Installation {
            layout: self.services.layout(),
            units: self.services.units(),
        }
    }

    pub(super) fn is_enabled(&self, unit: &str, out: &mut ControlOutcome) {
        let word = self.enabled(unit);
        if word == "not-found" {
            let why = format!("Failed to get unit file state for {unit}: No such file or directory\n");
            fail(out, why);
        } else {
            say(out, self.order.quiet, u8::from(!is_on(word)), word);
        }
    }

    /// The state of a unit's file, in systemd's words.
    pub(super) fn enabled(&self, unit: &str) -> &'static str {
        match (self.installation().state(unit), self.state(unit)) {
            (Some(word), _) => word,
            (None, Some(_)) => "enabled",
            (None, None) if kind(unit) == Some("target") => "static",
            (None, None) => "not-found",
        }
    }

    pub(super) async fn enable(&self, unit: &str, out: &mut ControlOutcome) {
        let enabled = match self.services.units().script(unit) {
            Some(_) => self.script(unit, true, out).await.then(|| unit.to_owned()),
            None => self.installation().enable(unit, out),
        };
        if let Some(unit) = enabled.filter(|_| self.order.now) {
            self.wish(&unit, Wish::Start, out).await;
        }
    }

    pub(super) async fn preset(&self, unit: &str, out: &mut ControlOutcome) {
        match self.installation().preset(unit, self.order.preset) {
            Some(true) => self.enable(unit, out).await,
            Some(false) => self.disable(unit, out).await,
            None => {}
        }
    }

    pub(super) async fn reenable(&self, unit: &str, out: &mut ControlOutcome) {
        self.installation().disable(unit, out);
        self.enable(unit, out).await;
    }

    /// What has no unit file is enabled as the old runlevels do it. Was it done?
    async fn script(&self, unit: &str, enable: bool, out: &mut ControlOutcome) -> bool {
        const LIMIT: Duration = Duration::from_secs(60);
        let [program, arguments @ ..] = of_runlevels(unit, enable);
        let mut launch = Launch::new(program, arguments);
        let (variable, value) = RUNLEVELS;
        launch
            .environment
            .push((variable.to_owned(), Secret::new(value.to_owned())));
        let failure = match run::run(self.services.reaper(), &launch, None, LIMIT).await {
            Ok(ran) if ran.exit.is_some_and(Exit::is_success) => None,
            Ok(ran) => Some(String::from_utf8_lossy(&ran.stderr).into_owned()),
            Err(error) => Some(error.to_string()),
        };
        was_done(&self.order.verb, unit, failure, out)
    }

    pub(super) async fn disable(&self, unit: &str, out: &mut ControlOutcome) {
        match self.services.units().script(unit) {
            Some(_) => drop(self.script(unit, false, out).await),
            None => self.installation().disable(unit, out),
        }
        if self.order.now {
            self.wish(unit, Wish::Stop, out).await;
        }
    }

    pub(super) async fn mask(&self, unit: &str, out: &mut ControlOutcome) {
        if self.installation().mask(unit, out) && self.order.now {
            self.wish(unit, Wish::Stop, out).await;
        }
    }
}
