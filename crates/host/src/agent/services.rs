//! All services of a host, by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use model::{Secret, port::Death};
use tokio::{sync::watch, task::JoinHandle};

use super::{
    api::{Configuration, DaemonOrder, Origin, ServiceState, ServiceStatus},
    boot,
    files::Files,
    layout::Layout,
    log::{self, Log},
    reaper::Reaper,
    service::{self, Collectors, Definition, Handle, Left, News, Surroundings, Turns, Wish},
    sockets::{Lent, Listening},
    timers::Ticking,
    trace::Trace,
    unit::{Line, Restart, Unit},
    units::Units,
};

mod hold;
mod processes;
mod recover;
mod start;
mod stop;

pub use hold::Legacy;
pub use start::short;

/// A unit that was started again so often in a row does not stay up.
const CRASHES: u32 = 3;

struct Entry {
    handle: Handle,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Registry {
    entries: BTreeMap<String, Entry>,
    /// In the order in which they were first started.
    order: Vec<String>,
    configuration: Option<Configuration>,
    /// What `systemctl set-environment` set.
    variables: BTreeMap<String, Secret>,
    targets: BTreeSet<String>,
    timers: BTreeMap<String, Ticking>,
    sockets: BTreeMap<String, Listening>,
    /// Socket units that listen no more, with systemd's word for why.
    given_up: BTreeMap<String, &'static str>,
    daemons: BTreeMap<String, DaemonOrder>,
    /// The units of each start under way, by its number. A stop takes its unit out: then that start leaves it out.
    starting: BTreeMap<u64, BTreeSet<String>>,
    /// The host goes down: nothing is started any more.
    closing: bool,
    /// How many starts there were.
    starts: u64,
    /// How long the host was up when this agent took over from another one.
    up_before: Duration,
}

#[derive(Clone)]
pub struct Services {
    layout: Layout,
    units: Units,
    files: Files,
    began: Instant,
    forking: Arc<tokio::sync::Mutex<()>>,
    reaper: Reaper,
    collectors: Collectors,
    registry: Arc<Mutex<Registry>>,
    deaths: watch::Sender<()>,
    /// What is enabled is being started.
    booting: watch::Sender<bool>,
    /// Another agent is about to take over.
    still: watch::Sender<bool>,
    /// How many ends and starts of services others are still concerned by, or were asked for.
    concerns: watch::Sender<usize>,
}

impl Services {
    pub fn new(layout: Layout, reaper: Reaper, files: Files) -> Self {
        Self {
            units: Units::new(&layout),
            layout,
            files,
            began: Instant::now(),
            forking: Arc::default(),
            reaper,
            collectors: Collectors::default(),
            registry: Arc::default(),
            deaths: watch::channel(()).0,
            booting: watch::channel(false).0,
            still: watch::channel(false).0,
            concerns: watch::channel(0).0,
        }
    }

    /// Keeps the configuration. True when it is the first.
    pub fn configure(&self, configuration: Configuration) -> bool {
        self.lock().configuration.replace(configuration).is_none()
    }

    pub fn is_configured(&self) -> bool {
        self.lock().configuration.is_some()
    }

    /// The configured environment, with PORT.
    pub fn environment(&self) -> Vec<(String, Secret)> {
        environment(&self.registry)
    }

    /// Values that no log should show: those of the variables that the order calls secret, those whose variables are
    /// named so, and the passwords in addresses.
    pub fn secrets(&self) -> Vec<String> {
        secrets(&self.registry)
    }

    pub fn list(&self) -> Vec<ServiceStatus> {
        self.lock()
            .entries
            .values()
            .map(|entry| entry.handle.status())
            .collect()
    }

    /// Every unit that is known, and what it does.
    pub fn loaded(&self) -> BTreeMap<String, ServiceState> {
        let registry = self.lock();
        let services = registry.entries.iter().map(|(name, entry)| {
            let state = entry.handle.status().state;
            (format!("{name}.service"), state)
        });
        let timers = registry.timers.keys();
        let others = timers.chain(registry.sockets.keys()).chain(&registry.targets);
        let failed = registry.given_up.keys();
        let up = others.map(|unit| (unit.clone(), ServiceState::Active));
        let down = failed.map(|unit| (unit.clone(), ServiceState::Failed));
        services.chain(down).chain(up).collect()
    }

    /// Waits for a service of the app to end though it should go on: a process of the Procfile that ended from `since` on,
    /// or a unit that was started from `asked` on and is not, or not any more, kept up by its own restarts.
    pub async fn death(&self, since: Timestamp, asked: Timestamp) -> Death {
        let mut deaths = self.deaths.subscribe();
        let is_dead = |status: &ServiceStatus| {
            let recent = status.died_at.is_some_and(|died_at| died_at >= since);
            recent
                && match status.origin {
                    Origin::Procfile => true,
                    Origin::Unit => {
                        let gave_up = status.state == ServiceState::Failed || status.crashes >= CRASHES;
                        gave_up && status.asked_at.is_some_and(|asked_at| asked_at >= asked)
                    }
                    Origin::Daemon => false,
                }
        };
        loop {
            if let Some(status) = self.list().iter().find(|status| is_dead(status)) {
                return Death {
                    service: status.name.clone(),
                    exit: status.last_exit.clone().unwrap_or_default(),
                    last: log::last_words(&self.layout.shared_logs(), &status.name),
                };
            }
            // This room holds the sender.
            let _ = deaths.changed().await;
        }
    }

    pub fn reaper(&self) -> &Reaper {
        &self.reaper
    }

    pub fn units(&self) -> &Units {
        &self.units
    }

    /// How long the host is up.
    pub fn uptime(&self) -> Duration {
        self.began.elapsed() + self.lock().up_before
    }

    /// A variable of every service that starts from now on; `None` takes it away.
    pub fn set_variable(&self, name: &str, value: Option<&str>) {
        let mut registry = self.lock();
        match value {
            Some(value) => {
                let value = Secret::new(value.to_owned());
                registry.variables.insert(name.to_owned(), value);
            }
            None => drop(registry.variables.remove(name)),
        }
    }

    /// Those that were set so.
    pub fn variables(&self) -> BTreeMap<String, Secret> {
        self.lock().variables.clone()
    }

    pub fn status(&self, name: &str) -> Option<ServiceStatus> {
        self.lock().entries.get(name).map(|entry| entry.handle.status())
    }

    /// How one that is known is reached, by its name or its unit's.
    fn handle(&self, unit: &str) -> Option<Handle> {
        let registry = self.lock();
        registry
            .entries
            .get(short(unit))
            .map(|entry| entry.handle.clone())
    }

    /// When a service began to be up and ended; `None` of what is not known.
    pub fn turns(&self, unit: &str) -> Option<watch::Receiver<Turns>> {
        self.handle(unit).map(|handle| handle.turns())
    }

    /// Waits until a service neither runs nor is about to.
    pub async fn ended(&self, unit: &str) {
        if let Some(handle) = self.handle(unit) {
            handle.ended().await;
        }
    }

    /// A service that was stopped is looked after no longer.
    async fn forget(&self, name: &str) {
        let entry = {
            let mut registry = self.lock();
            registry.order.retain(|other| other != name);
            registry.entries.remove(name)
        };
        // Somebody may have started it since. Who still asks it for something is answered; then its supervisor ends.
        if let Some(entry) = entry {
            let _ = entry.handle.ask(Wish::Stop).await;
        }
    }

    /// Keeps a daemon running, restarting it if its definition is another than before.
    pub async fn run_daemon(&self, order: &DaemonOrder) -> Result<(), String> {
        if order.name.is_empty() || order.command.is_empty() {
            return Err("a daemon needs a name and a command".to_owned());
        }
        self.lock().daemons.insert(order.name.clone(), order.clone());
        let handle = self.define(daemon(order)).await?;
        self.remember(&order.name);
        handle.ask(Wish::Start).await
    }

    /// Stops everything, the last started first, each within its own time.
    pub async fn stop_all(&self) {
        let order = {
            let mut registry = self.lock();
            // What is on its way up does not go on, and what is due meanwhile does not begin.
            registry.closing = true;
            registry.starting.values_mut().for_each(BTreeSet::clear);
            std::mem::take(&mut registry.order)
        };
        for name in order.iter().rev() {
            let entry = self.lock().entries.remove(name);
            if let Some(Entry { handle, task }) = entry {
                let _ = handle.ask(Wish::Stop).await;
                drop(handle);
                let _ = task.await;
            }
        }
    }

    /// Starts what is enabled, as at boot, while the host is told to be up: [`Services::booted`] waits for it.
    pub fn boot(&self) {
        self.booting.send_replace(true);
        let this = self.clone();
        // Ends with the starts, which have their own deadlines.
        tokio::spawn(async move {
            this.start_enabled().await;
            this.booting.send_replace(false);
        });
    }

    /// Waits until all that was enabled was started.
    pub async fn booted(&self) {
        // This room holds the sender.
        let _ = self.booting.subscribe().wait_for(|booting| !booting).await;
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    async fn define(&self, definition: Definition) -> Result<Handle, String> {
        self.peace().await;
        self.make_way(&definition).await?;
        let name = &definition.unit.name;
        match self.handle(name) {
            Some(handle) => {
                handle.ask(Wish::Define(Box::new(definition))).await?;
                Ok(handle)
            }
            None => Ok(self.adopt(definition, None)),
        }
    }

    /// What has the name as something else, or runs under it as an alias, ends first, as what it is: of two with one name only
    /// one would be known.
    async fn make_way(&self, definition: &Definition) -> Result<(), String> {
        let name = &definition.unit.name;
        let alias = self.units.canonical(&format!("{name}.service"));
        for other in [name, short(&alias)] {
            if let Some(handle) = self
                .handle(other)
                .filter(|handle| handle.status().origin != definition.origin)
            {
                handle.ask(Wish::Yield).await?;
                self.stop(&format!("{other}.service")).await?;
                self.forget(other).await;
            }
        }
        Ok(())
    }

    fn adopt(&self, definition: Definition, left: Option<Left>) -> Handle {
        let name = definition.unit.name.clone();
        let registry = Arc::downgrade(&self.registry);
        let (other, third) = (registry.clone(), registry.clone());
        let unit = format!("{name}.service");
        let surroundings = Surroundings {
            reaper: self.reaper.clone(),
            collectors: self.collectors.clone(),
            log: Arc::new(Mutex::new(Log::new(&self.layout.shared_logs(), &name))),
            trace: self
                .layout
                .traces
                .as_deref()
                .map(|traces| Trace::of_service(traces, &name)),
            environment: Arc::new(move || {
                registry
                    .upgrade()
                    .map(|registry| environment(&registry))
                    .unwrap_or_default()
            }),
            secrets: Arc::new(move || {
                other
                    .upgrade()
                    .map(|registry| secrets(&registry))
                    .unwrap_or_default()
            }),
            sockets: Arc::new(move || {
                third
                    .upgrade()
                    .map(|registry| lent(&registry, &unit))
                    .unwrap_or_default()
            }),
            deaths: self.deaths.clone(),
            tell: self.ear(format!("{name}.service")),
            notify: self.layout.systemd.clone(),
            forking: Arc::clone(&self.forking),
        };
        let (handle, task) = service::supervise(definition, surroundings, left);
        let entry = Entry {
            handle: handle.clone(),
            task,
        };
        self.lock().entries.insert(name, entry);
        handle
    }

    /// Who hears of one service. It does not keep this room.
    fn ear(&self, unit: String) -> Arc<dyn Fn(News) + Send + Sync> {
        let registry = Arc::downgrade(&self.registry);
        let room = Self {
            registry: Arc::default(),
            ..self.clone()
        };
        Arc::new(move |news| {
            if let Some(registry) = registry.upgrade() {
                let room = Self {
                    registry,
                    ..room.clone()
                };
                room.hear(unit.clone(), news);
            }
        })
    }

    fn remember(&self, name: &str) {
        let mut registry = self.lock();
        registry.order.retain(|other| other != name);
        registry.order.push(name.to_owned());
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Services that run, and services that failed or crash again and again.
    pub fn count(&self) -> (usize, usize) {
        let services = self.list();
        let active = services
            .iter()
            .filter(|service| service.state == ServiceState::Active)
            .count();
        let failed = |service: &&ServiceStatus| service.state == ServiceState::Failed || service.crashes > 2;
        (active, services.iter().filter(failed).count())
    }
}

fn environment(registry: &Mutex<Registry>) -> Vec<(String, Secret)> {
    let registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
    let variables = registry.variables.iter();
    let variables = variables.map(|(name, value)| (name.clone(), value.clone()));
    let Some(configuration) = &registry.configuration else {
        return variables.collect();
    };
    let mut environment = vec![("PORT".to_owned(), Secret::new(configuration.port.to_string()))];
    environment.extend(
        configuration
            .environment
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    environment.extend(variables);
    environment
}

/// The sockets that are open for a service.
fn lent(registry: &Mutex<Registry>, unit: &str) -> Vec<Lent> {
    let registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
    let own = registry
        .sockets
        .values()
        .filter(|listening| listening.socket.unit == unit);
    own.map(Listening::lent).collect()
}

fn secrets(registry: &Mutex<Registry>) -> Vec<String> {
    let registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(configuration) = &registry.configuration else {
        return Vec::new();
    };
    let hidden = configuration
        .environment
        .iter()
        .flat_map(|(name, value)| hidden(name, value.expose(), configuration.secrets.contains(name)));
    hidden.map(str::to_owned).collect()
}

/// What of a variable no log may show: of one that was called a secret all of it, and the password that it may hold.
fn hidden<'a>(name: &str, value: &'a str, is_secret: bool) -> impl Iterator<Item = &'a str> + use<'a> {
    let whole = hideable(value, SHORTEST).filter(|_| is_secret);
    whole.into_iter().chain(guessed(name, value))
}

/// A secret with fewer bytes is not masked: its value would be in all kinds of texts, and masking it would tell it.
const SHORTEST: usize = 4;

fn hideable(value: &str, shortest: usize) -> Option<&str> {
    (value.len() >= shortest).then_some(value)
}

/// What of a variable that nobody called a secret is likely to be one, by its name or its form.
fn guessed<'a>(name: &str, value: &'a str) -> Option<&'a str> {
    const WORDS: [&str; 8] = [
        "PASS",
        "SECRET",
        "TOKEN",
        "KEY",
        "CREDENTIAL",
        "PRIVATE",
        "SALT",
        "AUTH",
    ];
    // A guess that is wrong must not hide common words.
    const SHORTEST: usize = 6;
    let name = name.to_ascii_uppercase();
    if WORDS.iter().any(|word| name.contains(word)) {
        return hideable(value, SHORTEST);
    }
    let (_, rest) = value.split_once("://")?;
    let (user, _) = rest.split_once('@')?;
    hideable(user.split_once(':')?.1, SHORTEST)
}

fn daemon(order: &DaemonOrder) -> Definition {
    Definition {
        unit: Unit {
            start: vec![Line::literal(order.command.clone())],
            user: order.user.clone(),
            directory: order.directory.as_ref().map(PathBuf::from),
            restart: Restart::Always,
            restart_delay: Duration::from_millis(500),
            stop_timeout: Duration::from_millis(order.stop_timeout_ms),
            ..Unit::new(&order.name)
        },
        origin: Origin::Daemon,
        environment: order
            .environment
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    }
}
