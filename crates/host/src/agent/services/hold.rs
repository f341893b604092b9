//! What an agent leaves to the one that takes over from it in the same process: everything that it held in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    time::Duration,
};

use futures_util::future::join_all;
use model::{Secret, secret};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use super::{Services, daemon, processes::process, stop::Concern};
use crate::agent::{
    api::{Configuration, DaemonOrder, Origin, ServiceState, ServiceStatus},
    service::{Definition, Handle, Held, Left},
    timers::Age,
};

/// How long services that are being started or stopped are waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long nothing may begin at a time, and how long it may in between: what a service's end waits for may be a script
/// that waits to begin something.
const ROUND: Duration = Duration::from_secs(1);
const BETWEEN: Duration = Duration::from_millis(50);

/// Secrets are in it: it is only ever in memory.
#[derive(Serialize, Deserialize)]
pub struct Legacy {
    configuration: Option<Configuration>,
    #[serde(serialize_with = "secret::all_in_the_clear")]
    variables: BTreeMap<String, Secret>,
    targets: BTreeSet<String>,
    timers: Vec<String>,
    #[serde(default)]
    ages: BTreeMap<String, Age>,
    /// How long the host is up, in milliseconds.
    #[serde(default)]
    up: u64,
    /// Units, and the numbers of their open files.
    #[serde(default)]
    sockets: Vec<(String, Vec<i32>)>,
    daemons: BTreeMap<String, DaemonOrder>,
    order: Vec<String>,
    services: Vec<Held>,
    /// What is written here stays true while this is there.
    #[serde(skip)]
    _stillness: Option<Stillness>,
}

/// Nothing is started by this agent, and no service that it has told of is looked after, until this goes.
struct Stillness(watch::Sender<bool>);

impl Stillness {
    fn begin(still: &watch::Sender<bool>) -> Self {
        still.send_replace(true);
        Self(still.clone())
    }
}

impl Drop for Stillness {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

impl Legacy {
    /// The open files that must stay open.
    pub fn outputs(&self) -> impl Iterator<Item = i32> {
        let sockets = self
            .sockets
            .iter()
            .flat_map(|(_, numbers)| numbers.iter().copied());
        self.services.iter().filter_map(|held| held.output).chain(sockets)
    }
}

impl Services {
    /// What the next agent needs to know. First all starts come to their ends, those by sockets and timers too; and while
    /// the legacy is there, none begins. When it goes, because no other agent took over, all goes on.
    ///
    /// # Errors
    /// When the end of a start is not waited for any longer: what it would leave nobody would look after.
    pub async fn leave(&self) -> Result<Legacy, String> {
        self.leave_within(PATIENCE).await
    }

    async fn leave_within(&self, patience: Duration) -> Result<Legacy, String> {
        let deadline = Instant::now() + patience;
        timeout_at(deadline, self.booted())
            .await
            .map_err(|_| "the host is still being brought up")?;
        let (stillness, services) = self.hold_all(deadline, patience).await?;
        let registry = self.lock();
        Ok(Legacy {
            configuration: registry.configuration.clone(),
            variables: registry.variables.clone(),
            targets: registry.targets.clone(),
            timers: registry.timers.keys().cloned().collect(),
            ages: registry
                .timers
                .iter()
                .map(|(name, timer)| (name.clone(), timer.age()))
                .collect(),
            up: u64::try_from((self.began.elapsed() + registry.up_before).as_millis()).unwrap_or(u64::MAX),
            sockets: registry
                .sockets
                .iter()
                .map(|(unit, listening)| (unit.clone(), listening.numbers()))
                .collect(),
            daemons: registry.daemons.clone(),
            order: registry.order.clone(),
            services,
            _stillness: Some(stillness),
        })
    }

    /// All that runs, as it is and stays, once nobody is concerned by the end of a service any more.
    async fn hold_all(
        &self,
        deadline: Instant,
        patience: Duration,
    ) -> Result<(Stillness, Vec<Held>), String> {
        loop {
            let settled = timeout_at(deadline, self.settled()).await;
            settled.map_err(|_| restless(&self.list(), patience))?;
            let stillness = Stillness::begin(&self.still);
            let handles: Vec<_> = {
                let registry = self.lock();
                registry
                    .entries
                    .values()
                    .map(|entry| entry.handle.clone())
                    .collect()
            };
            let round = deadline.min(Instant::now() + ROUND);
            let holding = handles
                .iter()
                .map(|handle| timeout_at(round, handle.hold(self.still.subscribe())));
            let held = join_all(holding).await;
            if held.iter().any(Result::is_err) {
                if Instant::now() >= deadline {
                    return Err(unsettled(&handles, &held, patience));
                }
                drop((held, stillness));
                sleep(BETWEEN).await;
                continue;
            }
            // One may have ended before it was asked.
            if self.is_settled() {
                return Ok((stillness, held.into_iter().flatten().flatten().collect()));
            }
        }
    }

    /// Waits while another agent may be about to take over.
    pub(super) async fn peace(&self) {
        // This room holds the sender.
        let _ = self.still.subscribe().wait_for(|still| !still).await;
    }

    /// Begins something when no other agent is about to take over: none does until it is done.
    pub async fn at_peace(&self) -> Concern {
        loop {
            self.peace().await;
            let concern = self.concern();
            if !*self.still.borrow() {
                return concern;
            }
        }
    }

    /// Goes on with what another agent left. `open` gives the open file of a number, once.
    pub fn inherit(&self, legacy: Legacy, mut open: impl FnMut(i32) -> Option<OwnedFd>) {
        {
            let mut registry = self.lock();
            registry.configuration = legacy.configuration;
            registry.variables = legacy.variables;
            registry.targets = legacy.targets;
            registry.daemons = legacy.daemons;
            registry.order = legacy.order;
            registry.up_before = Duration::from_millis(legacy.up);
        }
        for held in legacy.services {
            let left = Left {
                output: held.output.and_then(&mut open),
                heard: self.is_configured(),
                held,
            };
            match self.definition_of(&left.held) {
                Ok(definition) => drop(self.adopt(definition, Some(left))),
                Err(why) => tracing::warn!("{} is nobody's any more: {why}", left.held.name),
            }
        }
        for (unit, numbers) in legacy.sockets {
            let expected = numbers.len();
            let opened: Vec<OwnedFd> = numbers.into_iter().filter_map(&mut open).collect();
            // A service knows its sockets by their order: some of them are as good as none.
            let whole = (!opened.is_empty() && opened.len() == expected).then_some(opened);
            if let Err(why) = self.start_socket(&unit, whole) {
                tracing::warn!("{unit} does not listen any more: {why}");
            }
        }
        for timer in legacy.timers {
            let age = legacy.ages.get(&timer).copied().unwrap_or_default();
            if let Err(why) = self.start_timer(&timer, Some(age)) {
                tracing::warn!("{timer} does not go on: {why}");
            }
        }
    }

    fn definition_of(&self, held: &Held) -> Result<Definition, String> {
        let gone = || "its definition is gone".to_owned();
        match held.origin {
            // One whose file is gone goes on until it is stopped, too.
            Origin::Unit => {
                let file = self.read_definition(&format!("{}.service", held.name));
                Ok(file.unwrap_or_else(|_| Definition {
                    origin: Origin::Unit,
                    ..self.unconfigured(&held.name)
                }))
            }
            Origin::Procfile => {
                // One that is in the Procfile no longer goes on until it is stopped.
                Ok(match self.processes().get(&held.name) {
                    Some(command) => process(&held.name, command, &self.layout.app),
                    None => self.unconfigured(&held.name),
                })
            }
            Origin::Daemon => self.lock().daemons.get(&held.name).map(daemon).ok_or_else(gone),
        }
    }
}

/// Names those that have not answered: they start, stop or reload.
fn unsettled<T, E>(handles: &[Handle], held: &[Result<T, E>], patience: Duration) -> String {
    let silent = handles.iter().zip(held).filter(|(_, held)| held.is_err());
    let names: Vec<String> = silent.map(|(handle, _)| handle.status().name).collect();
    format!(
        "{} did not come to rest within {} s",
        names.join(", "),
        patience.as_secs()
    )
}

/// The same of those that are seen to start or stop.
fn restless(services: &[ServiceStatus], patience: Duration) -> String {
    let moving = |status: &&ServiceStatus| {
        matches!(
            status.state,
            ServiceState::Activating | ServiceState::Deactivating
        )
    };
    let names: Vec<&str> = services
        .iter()
        .filter(moving)
        .map(|status| status.name.as_str())
        .collect();
    let who = match names.is_empty() {
        true => "what was asked for".to_owned(),
        false => names.join(", "),
    };
    format!("{who} did not come to rest within {} s", patience.as_secs())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixStream, path::PathBuf};

    use rustix::process::{Pid, Signal, kill_process};
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::agent::{
        api::ControlOrder,
        control::control,
        files::Files,
        layout::Layout,
        reaper::{Reaper, Scope},
        service::Wish,
    };

    /// Services of units in a directory of their own, which goes with this.
    struct Place {
        services: Services,
        directory: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let layout = Layout::under(directory.path());
            layout.make().unwrap();
            let reaper = Reaper::new(Scope::Own);
            tokio::spawn(reaper.clone().run());
            Self {
                services: Services::new(layout, reaper, Files::begin().unwrap()),
                directory,
            }
        }

        fn unit(&self, name: &str, text: &str) {
            let path = self.directory.path().join("etc/systemd/system").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// A socket at this path, whose service only stays.
        fn socket(&self, name: &str) -> PathBuf {
            let path = self.directory.path().join(name);
            self.unit(
                &format!("{name}.socket"),
                &format!("[Socket]\nListenStream={}\n", path.display()),
            );
            self.unit(
                &format!("{name}.service"),
                "[Service]\nExecStart=/bin/sleep 1000\n",
            );
            path
        }

        async fn until(&self, holds: impl Fn(&Services) -> bool) -> bool {
            for _ in 0..500 {
                if holds(&self.services) {
                    return true;
                }
                sleep(Duration::from_millis(20)).await;
            }
            false
        }
    }

    const SOON: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn a_socket_that_was_left_without_its_files_is_opened_anew() {
        let place = Place::new();
        for (name, numbers) in [("none", vec![]), ("closed", vec![70_000, 70_001])] {
            let path = place.socket(name);
            let mut legacy = place.services.leave().await.unwrap();
            legacy.sockets = vec![(format!("{name}.socket"), numbers)];
            legacy._stillness = None;
            place.services.inherit(legacy, |_| None);
            let _client = UnixStream::connect(path).unwrap();
            let unit = format!("{name}.service");
            assert!(place.until(|services| services.is_active(&unit)).await, "{name}");
        }
        place.services.stop_all().await;
    }

    #[tokio::test]
    async fn nothing_starts_while_another_agent_may_take_over() {
        let place = Place::new();
        let path = place.socket("quiet");
        place.services.start("quiet.socket").await.unwrap();
        let legacy = place.services.leave().await.unwrap();
        let _client = UnixStream::connect(path).unwrap();
        let started = place.services.start("quiet.service");
        assert!(timeout(SOON, started).await.is_err());
        assert!(!place.services.is_active("quiet.service"));

        // The other one did not take over.
        drop(legacy);
        let woken = place.until(|services| services.is_active("quiet.service"));
        assert!(woken.await, "who connected meanwhile is not forgotten");
        let legacy = place.services.leave().await.unwrap();
        assert_eq!(legacy.services.len(), 1);
        let stopped = place.services.stop("quiet.service");
        assert!(
            timeout(SOON, stopped).await.is_err(),
            "it is left as it was told of"
        );
        drop(legacy);
        place.services.stop_all().await;
    }

    #[tokio::test]
    async fn what_is_asked_for_while_another_agent_may_take_over_is_not_promised() {
        let place = Place::new();
        place.unit("asked.service", "[Service]\nExecStart=/bin/sleep 1000\n");
        let order = |verb: &str, unit: &str| ControlOrder {
            verb: verb.to_owned(),
            units: vec![unit.to_owned()],
            no_block: true,
            ..ControlOrder::default()
        };
        let (start, set) = (order("start", "asked"), order("set-environment", "A=1"));
        let legacy = place.services.leave().await.unwrap();
        for order in [&start, &set] {
            let asked = timeout(SOON, control(&place.services, order)).await;
            assert!(asked.is_err(), "{} is done", order.verb);
        }
        assert!(place.services.variables().is_empty() && place.services.is_settled());
        let look = order("is-active", "asked");
        let looked = timeout(SOON, control(&place.services, &look));
        assert_eq!(looked.await.unwrap().stdout, "inactive\n");

        // The other one did not take over.
        let (services, asks) = (place.services.clone(), start.clone());
        let asked = tokio::spawn(async move { control(&services, &asks).await });
        drop(legacy);
        assert_eq!(asked.await.unwrap().code, 0);
        let started = place.until(|services| services.is_active("asked.service"));
        assert!(started.await);
        place.services.stop_all().await;
    }

    #[tokio::test]
    async fn of_several_that_start_together_each_can_be_stopped_before_its_turn() {
        let place = Place::new();
        let never = "[Service]\nType=notify\nExecStart=/bin/sleep 1000\n";
        place.unit("never.service", never);
        for name in ["next.service", "last.service"] {
            place.unit(name, "[Service]\nExecStart=/bin/sleep 1000\n");
        }
        for no_block in [true, false] {
            let order = ControlOrder {
                verb: "start".to_owned(),
                units: ["never", "next", "last"].map(str::to_owned).to_vec(),
                no_block,
                ..ControlOrder::default()
            };
            let services = place.services.clone();
            let asked = tokio::spawn(async move { control(&services, &order).await });
            let begun = place.until(|services| services.state("never.service") == ServiceState::Activating);
            assert!(begun.await);
            for unit in ["next.service", "never.service"] {
                place.services.stop(unit).await.unwrap();
            }
            let outcome = asked.await.unwrap();
            let said = "Failed to start next.service: it was stopped while it started";
            let told = (outcome.code, outcome.stderr.contains(said));
            assert_eq!(told, (u8::from(!no_block), !no_block), "{outcome:?}");
            assert!(place.until(|services| services.is_active("last.service")).await);
            assert_eq!(place.services.state("next.service"), ServiceState::Inactive);
            place.services.stop("last.service").await.unwrap();
        }
        place.services.stop_all().await;
    }

    #[tokio::test]
    async fn what_does_not_come_to_rest_is_not_left() {
        let place = Place::new();
        place.unit(
            "never.service",
            "[Service]\nType=notify\nExecStart=/bin/sleep 1000\n",
        );
        let services = place.services.clone();
        let starting = tokio::spawn(async move { services.start("never.service").await });
        let begun = place.until(|services| services.state("never.service") == ServiceState::Activating);
        assert!(begun.await);
        let refused = place.services.leave_within(SOON).await;
        assert!(refused.is_err_and(|why| why.starts_with("never did not come to rest")));
        // It is looked after as before.
        assert!(!starting.is_finished());
        let _ = place.services.ask("never", Wish::Stop).await;
        assert!(starting.await.unwrap().is_err());
        assert!(place.services.leave_within(SOON).await.is_ok());
        place.services.stop_all().await;
    }

    #[tokio::test]
    async fn what_a_dead_service_left_behind_is_named_while_it_is_ended() {
        let place = Place::new();
        let left = place.directory.path().join("left");
        // What is ignored stays so in programs that are executed.
        let unit = format!(
            "[Service]\nExecStart=/bin/sh -c 'trap \"\" TERM; sleep 1000 & echo $$! >{}; exit 1'\n",
            left.display()
        );
        place.unit("gone.service", &unit);
        place.services.start("gone.service").await.unwrap();
        let ends = place.until(|services| services.state("gone.service") == ServiceState::Deactivating);
        assert!(ends.await, "{:?}", place.services.status("gone"));
        let status = place.services.status("gone").unwrap();
        assert_eq!((status.sub.as_str(), status.pid), ("stop-sigterm", None));
        let refused = place.services.leave_within(SOON).await;
        assert!(refused.is_err_and(|why| why.starts_with("gone did not come to rest")));

        let pid = fs::read_to_string(left).unwrap().trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        let ended = place.until(|services| services.state("gone.service") == ServiceState::Failed);
        assert!(ended.await, "{:?}", place.services.status("gone"));
    }

    #[tokio::test]
    async fn a_service_that_reloads_is_named() {
        let place = Place::new();
        place.unit(
            "busy.service",
            "[Service]\nExecStart=/bin/sleep 1000\nExecReload=/bin/sleep 3\n",
        );
        place.services.start("busy.service").await.unwrap();
        let services = place.services.clone();
        let reloading = tokio::spawn(async move { services.ask("busy", Wish::Reload).await });
        let mut refused = None;
        while !reloading.is_finished() && refused.is_none() {
            refused = place.services.leave_within(SOON).await.err();
        }
        assert!(refused.is_some_and(|why| why.starts_with("busy did not come to rest")));
        reloading.await.unwrap().unwrap();
        place.services.stop_all().await;
    }

    #[tokio::test]
    async fn stops_are_remembered_only_by_the_starts_that_they_concern() {
        let place = Place::new();
        place.unit(
            "waits.service",
            "[Service]\nType=notify\nExecStart=/bin/sleep 1000\n",
        );
        let services = place.services.clone();
        let starting = tokio::spawn(async move { services.start("waits.service").await });
        let begun = place.until(|services| services.state("waits.service") == ServiceState::Activating);
        assert!(begun.await);
        for number in 0..100 {
            let _ = place.services.stop(&format!("none{number}.target")).await;
        }
        let known: usize = place.services.lock().starting.values().map(BTreeSet::len).sum();
        assert_eq!(known, 1);
        place.services.stop("waits.service").await.unwrap();
        assert!(starting.await.unwrap().is_err());
        assert!(place.services.lock().starting.is_empty());
    }

    #[tokio::test]
    async fn nothing_is_started_while_the_host_goes_down() {
        let place = Place::new();
        for name in ["due.service", "here.service"] {
            place.unit(name, "[Service]\nExecStart=/bin/sleep 1000\n");
        }
        place.services.start("here.service").await.unwrap();
        place.services.stop_all().await;
        assert!(place.services.start("due.service").await.is_err());
        assert_ne!(place.services.state("due.service"), ServiceState::Active);
    }

    #[tokio::test]
    async fn nothing_begins_once_the_host_goes_down() {
        let place = Place::new();
        let mark = place.directory.path().join("begun");
        let unit = format!(
            "[Service]\nType=oneshot\nExecStart=/bin/touch {}\n",
            mark.display()
        );
        place.unit("late.service", &unit);
        place.services.stop_all().await;
        // As a restart that is due, or a socket to which somebody connects.
        for wish in [Wish::Start, Wish::Wake] {
            let _ = place.services.ask("late.service", wish).await;
            assert!(!mark.exists(), "it was started");
        }
    }
}
