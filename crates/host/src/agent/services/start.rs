//! Starting units with what they have to do with each other.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
};

use futures_util::poll;

use super::{Services, boot};
use crate::agent::{
    api::{Origin, ServiceState},
    depend::{self, Step},
    log::Log,
    service::{Definition, Handle, Wish},
    sockets::Listening,
    timers::{Age, Ticking},
    unit::{Links, Rate, condition, socket, timer},
    units::{is_masked, kind},
};

/// Units that make a machine out of hardware, and look after what a host does not own.
const OF_A_MACHINE: [&str; 11] = [
    "systemd-",
    "getty",
    "console-getty",
    "serial-getty",
    "dbus",
    "basic.target",
    "sysinit.target",
    "apt-daily",
    "e2scrub",
    "fstrim",
    "network",
];

/// What is wished of the unit that a start is about, and of all others.
pub(super) type Wishes = (fn() -> Wish, fn() -> Wish);

/// A start of a unit and all that it pulls in, known to those who stop one of them until it goes.
pub(super) struct UnderWay<'a> {
    services: &'a Services,
    number: u64,
}

/// A unit that a start is about, and all that is started for it, itself among that.
pub(super) struct Aim {
    pub unit: String,
    pub pulls: BTreeSet<String>,
}

impl<'a> UnderWay<'a> {
    pub(super) fn begin(services: &'a Services, steps: &[Step]) -> Self {
        let mut registry = services.lock();
        let units = match registry.closing {
            true => BTreeSet::new(),
            false => steps.iter().map(|step| step.unit.clone()).collect(),
        };
        registry.starts += 1;
        let number = registry.starts;
        registry.starting.insert(number, units);
        Self { services, number }
    }

    /// Has nobody asked to stop this unit since?
    fn wants(&self, unit: &str) -> bool {
        let registry = self.services.lock();
        registry
            .starting
            .get(&self.number)
            .is_some_and(|units| units.contains(unit))
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.services.lock().starting.remove(&self.number);
    }
}

impl Services {
    /// Starts, stops, …: a service that is known, or a unit that has a file or a script. A name without a kind is a
    /// service's.
    ///
    /// # Errors
    /// With the reason, as a person should read it.
    pub async fn ask(&self, name: &str, wish: Wish) -> Result<(), String> {
        let unit = self.full(name);
        match wish {
            Wish::Start => self.start(&unit).await,
            Wish::Wake => self.wake(&unit).await,
            Wish::Stop => self.stop(&unit).await,
            Wish::Restart => self.restart(&unit).await,
            _ if kind(&unit) != Some("service") => Err(format!("{unit} is no service.")),
            Wish::Reload => self.reload(&unit).await,
            wish => self.find(&unit)?.ask(wish).await,
        }
    }

    /// Has units started and stopped one after the other, which nobody waits for. Those that are started together are
    /// under way when this returns, so that who stops one next does. Whoever asks is at peace.
    pub async fn queue(&self, wishes: Vec<(String, Wish)>) {
        let (this, concern) = (self.clone(), self.concern());
        let mut job = Box::pin(async move {
            let _concern = concern;
            let mut wishes = wishes.into_iter().peekable();
            while let Some((unit, wish)) = wishes.next() {
                let mut units = vec![unit];
                let outcomes = match wish {
                    Wish::Start => {
                        let mut start = || wishes.next_if(|(_, wish)| matches!(wish, Wish::Start));
                        units.extend(std::iter::from_fn(|| start().map(|(unit, _)| unit)));
                        this.start_all(&units).await
                    }
                    wish => vec![this.ask(&units[0], wish).await],
                };
                for (unit, outcome) in units.iter().zip(outcomes) {
                    if let Err(why) = outcome {
                        Log::new(&this.layout.shared_logs(), short(unit)).note(&why);
                    }
                }
            }
        });
        if poll!(&mut job).is_pending() {
            // Ends with starts and stops, which have their own deadlines.
            tokio::spawn(job);
        }
    }

    /// Is there such a unit, as far as its file says?
    ///
    /// # Errors
    /// As systemd says it.
    pub fn verify(&self, unit: &str) -> Result<(), String> {
        match kind(unit) {
            Some("service") if self.origin(unit).is_some_and(|origin| origin != Origin::Unit) => Ok(()),
            Some("service" | "socket" | "timer") => self.units.load(unit).map(drop),
            _ => Ok(()),
        }
    }

    /// The whole name of a unit, under which it is known.
    pub fn full(&self, name: &str) -> String {
        let full = match kind(name) {
            Some(_) => name.to_owned(),
            None => format!("{name}.service"),
        };
        match self.knows(&full) {
            true => full,
            false => self.units.canonical(&full),
        }
    }

    /// Starts a unit after what it needs and wants.
    ///
    /// # Errors
    /// When it, or something that it requires, does not start.
    pub async fn start(&self, unit: &str) -> Result<(), String> {
        only(self.begin(&[unit], || Wish::Start).await)
    }

    /// Starts units together: all of them are under way at once. How each of them came out.
    pub async fn start_all(&self, units: &[String]) -> Vec<Result<(), String>> {
        let units: Vec<&str> = units.iter().map(String::as_str).collect();
        self.begin(&units, || Wish::Start).await
    }

    /// The same because somebody connected.
    ///
    /// # Errors
    /// As of [`Services::start`].
    pub async fn wake(&self, unit: &str) -> Result<(), String> {
        only(self.begin(&[unit], || Wish::Wake).await)
    }

    /// Starts units together, each once. How each of them came out.
    async fn begin(&self, units: &[&str], wish: fn() -> Wish) -> Vec<Result<(), String>> {
        let (steps, aims) = self.aims(units);
        let under_way = UnderWay::begin(self, &steps);
        self.go(&aims, steps, &under_way, (wish, wish)).await
    }

    /// What a start of units is made of, and which of it is for which of them.
    fn aims(&self, units: &[&str]) -> (Vec<Step>, Vec<Aim>) {
        let read = RefCell::new(BTreeMap::new());
        // Each is read once.
        let links = |name: &str| -> Option<Links> {
            let mut read = read.borrow_mut();
            let known = read.entry(name.to_owned());
            known.or_insert_with(|| self.links(name)).clone()
        };
        let names: Vec<String> = units.iter().map(|unit| (*unit).to_owned()).collect();
        let steps = depend::order(&names, links);
        let aims = names.into_iter().map(|unit| {
            let own = depend::order(std::slice::from_ref(&unit), links).into_iter();
            let pulls = own.map(|step| step.unit).collect();
            Aim { unit, pulls }
        });
        (steps, aims.collect())
    }

    /// Starts units in their order. How each of those came out that it is about.
    pub(super) async fn go(
        &self,
        aims: &[Aim],
        steps: Vec<Step>,
        under_way: &UnderWay<'_>,
        (own, other): Wishes,
    ) -> Vec<Result<(), String>> {
        let mut failed = BTreeSet::new();
        let mut outcomes = vec![Ok(()); aims.len()];
        for step in steps {
            let is_own = aims.iter().any(|aim| aim.unit == step.unit);
            let wish = if is_own { own() } else { other() };
            let mut wanting = aims.iter().filter(|aim| aim.pulls.contains(&step.unit));
            let is_wanted = under_way.wants(&step.unit) && wanting.any(|aim| under_way.wants(&aim.unit));
            let started = if failed.contains(&step.unit) {
                Err(format!("a unit that {} requires did not start", step.unit))
            } else if !is_wanted {
                Err("it was stopped while it started".to_owned())
            } else {
                Box::pin(self.start_one(&step.unit, wish)).await
            };
            if let Err(why) = started {
                failed.extend(step.required_by);
                if !is_own {
                    tracing::warn!("{} did not start: {why}", step.unit);
                }
                for (aim, outcome) in aims.iter().zip(&mut outcomes) {
                    if aim.unit == step.unit {
                        *outcome = Err(why.clone());
                    }
                }
            }
        }
        outcomes
    }

    async fn start_one(&self, unit: &str, wish: Wish) -> Result<(), String> {
        self.peace().await;
        match kind(unit) {
            Some("service") => {
                let handle = self.find(unit)?;
                let is_again = matches!(wish, Wish::Again);
                self.fits(unit, is_again)?;
                // By itself it is started again as what it was.
                if !is_again {
                    let conflicts = self.refresh(unit, &handle).await?;
                    for other in conflicts.iter().filter(|other| self.stands(other)) {
                        Box::pin(self.stop(other)).await?;
                    }
                }
                self.remember(short(unit));
                handle.ask(wish).await
            }
            Some("target") => {
                self.lock().targets.insert(unit.to_owned());
                Ok(())
            }
            Some("timer") if self.is_active(unit) => Ok(()),
            Some("timer") => self.start_timer(unit, None),
            Some("socket") => self.start_socket(unit, None),
            Some(kind) => self.leave_out(unit, kind),
            None => Ok(()),
        }
    }

    /// Is there what must be there before a service may run?
    fn fits(&self, unit: &str, is_again: bool) -> Result<(), String> {
        if self.is_active(unit) {
            return Ok(());
        }
        let links = self.links(unit).unwrap_or_default();
        if let Some(other) = links.requisite.iter().find(|other| !self.is_reached(other)) {
            return Err(format!("{other} does not run, and Requisite= does not start it"));
        }
        if let Some(other) = links.bound_after().find(|other| !self.is_reached(other)) {
            return Err(format!("{other}, to which it is bound, does not run"));
        }
        let waits = |other: &&String| {
            links.after.contains(other) && self.state(other) == ServiceState::Activating && is_again
        };
        match links.requires.iter().find(waits) {
            Some(other) => Err(format!("{other}, which it requires, is not up yet")),
            None => Ok(()),
        }
    }

    /// What a host cannot have, or what every machine reaches, is in nobody's way.
    fn is_reached(&self, unit: &str) -> bool {
        match kind(unit) {
            Some("service" | "timer" | "socket") => self.is_active(unit),
            Some("target") => self.is_active(unit) || self.units.text(unit).is_none(),
            _ => true,
        }
    }

    /// What only a machine has. A script that starts it goes on, and the unit's log says what does not happen.
    fn leave_out(&self, unit: &str, kind: &str) -> Result<(), String> {
        let what = match kind {
            "path" => "nothing watches its paths, so they start nothing",
            "mount" | "automount" => {
                "nothing is mounted: what a host's directories are is the platform's to say"
            }
            "swap" => "there is no swap in a host",
            _ => return Ok(()),
        };
        if self.units.text(unit).is_none() {
            return Err(format!("Unit {unit} not found."));
        }
        Log::new(&self.layout.shared_logs(), unit).note(what);
        tracing::warn!("{unit}: {what}");
        Ok(())
    }

    /// Listens for a service, unless that runs already and has sockets of its own. `opened`: by another agent.
    pub(super) fn start_socket(&self, unit: &str, opened: Option<Vec<OwnedFd>>) -> Result<(), String> {
        if self.is_active(unit) {
            return Ok(());
        }
        let not_found = || format!("Unit {unit} not found.");
        let (path, text) = self.units.text(unit).ok_or_else(not_found)?;
        if is_masked(&path) {
            return Err(format!("Unit {unit} is masked."));
        }
        let socket = socket::parse(unit.strip_suffix(".socket").unwrap_or(unit), &text);
        let mut log = Log::new(&self.layout.shared_logs(), unit);
        for note in &socket.notes {
            log.note(&format!("unit file: {note}"));
        }
        let service = &socket.unit;
        if socket.accepts {
            log.note("Accept=yes: a service for each connection is not available, so nothing listens");
        } else if socket.addresses.is_empty() {
            log.note("it has no address that is understood, so nothing listens");
        } else if opened.is_none() && self.is_active(service) {
            log.note(&format!("{service} runs already, with sockets of its own"));
        } else {
            let listening = Listening::start(unit, socket, opened, self.clone())?;
            let mut registry = self.lock();
            registry.given_up.remove(unit);
            registry.sockets.insert(unit.to_owned(), listening);
        }
        Ok(())
    }

    /// A socket unit listens no more. `result` is systemd's word for why.
    pub fn give_up(&self, unit: &str, result: &'static str, why: &str) {
        Log::new(&self.layout.shared_logs(), unit).note(&format!(
            "{why}: nobody listens any more until {unit} is started again"
        ));
        tracing::warn!("{unit} gives up: {why}");
        let listening = {
            let mut registry = self.lock();
            registry.given_up.insert(unit.to_owned(), result);
            registry.sockets.remove(unit)
        };
        drop(listening);
    }

    /// Why a unit listens no more, when it gave up.
    pub fn failure(&self, unit: &str) -> Option<&'static str> {
        self.lock().given_up.get(unit).copied()
    }

    pub fn forgive(&self, unit: &str) {
        self.lock().given_up.remove(unit);
    }

    /// Nothing has failed any more.
    pub async fn forgive_all(&self) {
        let handles: Vec<Handle> = {
            let mut registry = self.lock();
            registry.given_up.clear();
            registry
                .entries
                .values()
                .map(|entry| entry.handle.clone())
                .filter(|handle| handle.status().state == ServiceState::Failed)
                .collect()
        };
        for handle in handles {
            // One that is not looked after any more has nothing to be forgiven.
            let _ = handle.ask(Wish::ResetFailed).await;
        }
    }

    /// What a service does.
    pub fn state(&self, unit: &str) -> ServiceState {
        self.status(short(unit))
            .map_or(ServiceState::Inactive, |status| status.state)
    }

    /// How often a socket may start a service, as that says.
    pub fn starts(&self, unit: &str) -> Rate {
        let loaded = self.units.load(unit);
        loaded.map_or(Rate::STARTS, |parsed| parsed.unit.starts)
    }

    /// `age`: of one that another agent had started.
    pub(super) fn start_timer(&self, unit: &str, age: Option<Age>) -> Result<(), String> {
        let conditions = self.units.load(unit)?.unit.conditions;
        let not_found = || format!("Unit {unit} not found.");
        let (_, text) = self.units.text(unit).ok_or_else(not_found)?;
        let name = unit.strip_suffix(".timer").unwrap_or(unit);
        let mut timer = timer::parse(name, &text);
        timer.unit = self.full(&timer.unit);
        let mut log = Log::new(&self.layout.shared_logs(), unit);
        timer
            .notes
            .iter()
            .for_each(|note| log.note(&format!("unit file: {note}")));
        if age.is_none() {
            if !timer.is_one() {
                return Err(format!(
                    "Unit {unit} has a bad unit file setting: nothing makes it due"
                ));
            }
            self.verify(&timer.unit)?;
            // Known from now on, it is seen when others start it.
            let _ = self.find(&timer.unit);
            match condition::unmet(&conditions) {
                Some(unmet) if unmet.asserts => return Err(format!("{unmet} does not hold")),
                Some(unmet) => {
                    log.note(&format!("not started: {unmet} does not hold"));
                    return Ok(());
                }
                None => {}
            }
        }
        let stamps = self.layout.root.join("var/lib/systemd/timers");
        let ticking = Ticking::start(unit, timer, self.clone(), age, &stamps);
        self.lock().timers.insert(unit.to_owned(), ticking);
        Ok(())
    }

    /// A timer that is never due again and does not stay for that.
    pub fn timer_is_over(&self, unit: &str) {
        let timer = self.lock().timers.remove(unit);
        drop(timer);
    }

    pub fn is_active(&self, unit: &str) -> bool {
        match kind(unit) {
            Some("service") => self
                .status(short(unit))
                .is_some_and(|status| status.state == ServiceState::Active),
            Some("timer") => self.lock().timers.contains_key(unit),
            Some("socket") => self.lock().sockets.contains_key(unit),
            Some("target") => self.lock().targets.contains(unit),
            _ => false,
        }
    }

    /// Timers, what they start, and when.
    pub fn timers(&self) -> Vec<(String, String, Option<jiff::Timestamp>)> {
        let registry = self.lock();
        let timers = registry.timers.iter();
        timers
            .map(|(name, timer)| (name.clone(), timer.unit.clone(), timer.next()))
            .collect()
    }

    /// What a unit has to do with others, without what only a machine has.
    pub(super) fn links(&self, unit: &str) -> Option<Links> {
        let mut links = match self.origin(unit) {
            Some(origin) if origin != Origin::Unit => return None,
            _ => self.units.links(unit)?,
        };
        let ours = |name: &String| !OF_A_MACHINE.iter().any(|start| name.starts_with(start));
        let Links {
            requires,
            requisite,
            binds_to,
            wants,
            part_of,
            after,
            before,
            ..
        } = &mut links;
        for list in [&mut *requires, requisite, binds_to, wants] {
            list.retain(ours);
        }
        for list in [requires, requisite, binds_to, wants, part_of, after, before] {
            list.iter_mut()
                .for_each(|name| *name = self.units.canonical(name));
        }
        Some(links)
    }

    fn origin(&self, unit: &str) -> Option<Origin> {
        self.status(short(unit)).map(|status| status.origin)
    }

    pub(super) fn knows(&self, unit: &str) -> bool {
        self.lock().entries.contains_key(short(unit))
    }

    pub(super) fn find(&self, unit: &str) -> Result<Handle, String> {
        if let Some(handle) = self.handle(unit) {
            return Ok(handle);
        }
        // Whoever starts it reads it anew, and says then what was not understood.
        let (definition, _) = self.read_quietly(unit)?;
        Ok(self.adopt(definition, None))
    }

    /// A unit file may have changed since. Gives what it conflicts with.
    pub(super) async fn refresh(&self, unit: &str, handle: &Handle) -> Result<Vec<String>, String> {
        if handle.status().origin != Origin::Unit {
            return Ok(Vec::new());
        }
        let definition = self.read_definition(unit)?;
        let conflicts = definition.unit.links.conflicts.clone();
        handle.ask(Wish::Define(Box::new(definition))).await?;
        Ok(conflicts)
    }

    pub(super) fn read_definition(&self, unit: &str) -> Result<Definition, String> {
        let (definition, notes) = self.read_quietly(unit)?;
        if !notes.is_empty() {
            let mut log = Log::new(&self.layout.shared_logs(), short(unit));
            notes
                .iter()
                .for_each(|note| log.note(&format!("unit file: {note}")));
        }
        Ok(definition)
    }

    /// With what was not understood.
    fn read_quietly(&self, unit: &str) -> Result<(Definition, Vec<String>), String> {
        let parsed = self.units.load(unit)?;
        let definition = Definition {
            unit: parsed.unit,
            origin: Origin::Unit,
            environment: Vec::new(),
        };
        Ok((definition, parsed.notes))
    }

    /// Reads what units are made of anew.
    pub async fn reread(&self) {
        let (layout, reaper) = (self.layout.clone(), self.reaper.clone());
        // A work that broke off has said so.
        let _ = self.files.run(move || boot::reload(&layout, &reaper)).await;
    }

    /// As at boot: what packages want to be there, then what is enabled.
    pub(super) async fn start_enabled(&self) {
        self.reread().await;
        // Who is started there may need what is listened at already.
        for targets in [
            &["sockets.target"][..],
            // All three at once: a unit that fails is not started again by the next.
            &["multi-user.target", "graphical.target", "default.target"],
            &["timers.target"],
        ] {
            let reached = self.begin(targets, || Wish::Start).await;
            for (target, outcome) in targets.iter().zip(reached) {
                if let Err(why) = outcome {
                    tracing::warn!("{target} was not reached: {why}");
                }
            }
        }
        for unit in boot::scripts(&self.layout) {
            if self.units.script(&unit).is_some()
                && let Err(why) = self.start(&unit).await
            {
                tracing::warn!(service = %unit, "{unit} did not start: {why}");
            }
        }
        let mut registry = self.lock();
        let reached = [
            "default.target",
            "basic.target",
            "sysinit.target",
            "network.target",
            "network-online.target",
        ];
        registry.targets.extend(reached.map(str::to_owned));
    }
}

/// How the only one came out.
pub(super) fn only(mut outcomes: Vec<Result<(), String>>) -> Result<(), String> {
    outcomes.pop().unwrap_or(Ok(()))
}

/// A service's name as people say it.
pub fn short(unit: &str) -> &str {
    unit.strip_suffix(".service").unwrap_or(unit)
}
