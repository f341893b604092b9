//! What one event does in the host's file system.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use camino::Utf8PathBuf;
use jiff::Timestamp;
use model::{
    DeploymentId, Secret,
    port::{Death, DeployOrder, LifecycleEvent, ScriptFailure},
    spec::{
        Appspec,
        deploy::{FileExists, Script},
    },
};
use tokio::sync::watch;

use super::{Inner, unknown};
use crate::{
    agent::{layout::Layout, trace::Trace},
    appspec::{
        self, Deployment, Error, Group, REVISIONS, ScriptLog, bundle,
        hooks::{Facts, Hooks},
        install::install,
    },
    now,
    tree::Format,
};

/// How long a Procfile's processes are watched after their start.
const WATCH: Duration = Duration::from_millis(50);

/// One order's places in the host.
pub struct Stage {
    pub current: Deployment,
    pub appspec: Option<Utf8PathBuf>,
    order: DeployOrder,
    group: Group,
    pub begun_at: Timestamp,
}

impl Stage {
    pub fn new(layout: &Layout, order: &DeployOrder) -> Self {
        let place = &order.place;
        let mut name = format!("{}.{}.{}", place.tenant, place.app, place.environment);
        if order.migration.is_some() {
            // What it unpacks is no revision that a deployment finds there: whose scripts run depends on that.
            name.push_str(".migrations");
        }
        let group = Group::new(&layout.deployments, &name);
        Self {
            current: group.deployment(order.deployment.as_str()),
            appspec: order.appspec.clone(),
            order: order.clone(),
            begun_at: now(),
            group,
        }
    }

    /// Where the revision's archive is put before it is unpacked.
    pub fn bundle(&self, layout: &Layout) -> PathBuf {
        layout
            .revisions()
            .join(format!("{}.tar", self.order.revision.hex()))
    }

    /// Whose scripts an event runs, and where their appspec is. `None`: there is nothing to run. What is there is another
    /// revision, which may have its appspec elsewhere, or none.
    fn scripts_of(&self, event: LifecycleEvent) -> Option<(Deployment, Utf8PathBuf)> {
        // A host to which no revision was brought is one that was kept, with the revision that it has.
        let allows = [
            LifecycleEvent::BeforeAllowTraffic,
            LifecycleEvent::AfterAllowTraffic,
        ];
        let going_back = allows.contains(&event);
        let of = self.group.scripts_of(Some(event), going_back, &self.current)?;
        let other = (of != self.current).then(|| of.appspec()).flatten();
        let path = other.unwrap_or_else(|| self.appspec.clone())?;
        Some((of, path))
    }

    /// Does a Procfile's app end here? Where the next one has a Procfile too, each process is exchanged at the start.
    fn ends_processes(&self) -> bool {
        self.appspec.is_some() || !self.order.events.contains(&LifecycleEvent::Install)
    }

    /// Why it is to end, if it is this deployment that nobody wants.
    pub fn unwanted_by(&self, order: Option<&(DeploymentId, String)>) -> Option<String> {
        let (_, reason) = order.filter(|(id, _)| *id == self.order.deployment)?;
        Some(format!("it was ended: {reason}"))
    }

    fn facts(&self) -> Facts {
        Facts {
            application: self.order.place.app.to_string(),
            deployment: self.order.deployment.to_string(),
            group_name: self.order.place.environment.to_string(),
            group: self.group.name().to_owned(),
            environment: Vec::new(),
        }
    }

    /// What scripts know of the host, and of the revision as CodeDeploy says it of one from a repository.
    fn environment(&self, host: Vec<(String, Secret)>) -> Vec<(String, Secret)> {
        let commit = self.order.commit.iter();
        let commit = commit.map(|id| ("BUNDLE_COMMIT".to_owned(), Secret::new(id.clone())));
        host.into_iter().chain(commit).collect()
    }
}

impl Inner {
    /// DownloadBundle: unpacks the revision.
    pub(super) async fn download(&self, stage: &Stage, log: &mut ScriptLog) -> Result<bool, ScriptFailure> {
        let tar = stage.bundle(&self.layout);
        let archive = stage.current.archive();
        let appspec = stage.appspec.clone();
        let unpacked = self.files.run(move || -> Result<(), Error> {
            if tar.is_file() {
                bundle::unpack(&tar, Format::Any, &archive)?;
                if appspec.is_some() {
                    bundle::strip(&archive, appspec.as_deref())?;
                }
                super::discard(&tar);
            }
            Ok(())
        });
        let outcome = match unpacked.await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        outcome.map_err(|why| unknown(why, log))?;
        stage
            .current
            .keep_appspec(stage.appspec.as_deref())
            .and_then(|()| stage.group.unpacked(&stage.current))
            .map_err(|error| unknown(format!("cannot keep the record: {error}"), log))?;
        stage.group.tidy(&stage.current, REVISIONS);
        Ok(true)
    }

    /// Install: the appspec's files, or the whole revision for an app that has none.
    pub(super) async fn install(&self, stage: &Stage, log: &mut ScriptLog) -> Result<bool, ScriptFailure> {
        let outcome = match &stage.appspec {
            Some(path) => match appspec::read(&stage.current, path) {
                Ok(spec) => self.install_files(stage, spec).await,
                Err(why) => Err(why),
            },
            None => self.install_app(stage).await.map(|()| Vec::new()),
        };
        for remark in outcome.map_err(|why| unknown(why, log))? {
            log.note(&remark, now());
        }
        stage
            .group
            .installed(&stage.current)
            .map_err(|error| unknown(format!("cannot keep the record: {error}"), log))?;
        Ok(true)
    }

    async fn install_files(&self, stage: &Stage, spec: Appspec) -> Result<Vec<String>, String> {
        let archive =
            Utf8PathBuf::from_path_buf(stage.current.archive()).map_err(|_| "a path that is not UTF-8")?;
        let records = stage.group.records();
        let installed = self
            .files
            .run(move || install(&archive, &spec, FileExists::Disallow, &records));
        match installed.await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn install_app(&self, stage: &Stage) -> Result<(), String> {
        let (archive, app) = (stage.current.archive(), self.layout.app.clone());
        match self.files.run(move || put_app(&archive, &app)).await {
            Ok(outcome) => outcome.map_err(|error| format!("cannot put the app in its place: {error}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// ApplicationStart of an app with a Procfile: its processes anew, watched until they are likely to stay.
    pub(super) async fn start(&self, log: &mut ScriptLog) -> Result<bool, ScriptFailure> {
        let since = now();
        let names = self
            .services
            .restart_processes()
            .await
            .map_err(|why| unknown(why, log))?;
        if names.is_empty() {
            return Ok(false);
        }
        log.note(&format!("started {}", names.join(", ")), now());
        match tokio::time::timeout(WATCH, self.services.death(since, since)).await {
            Ok(death) => Err(died(&death)),
            Err(_) => Ok(true),
        }
    }

    /// ApplicationStop: the scripts of the revision that is there, and the processes of its Procfile, if they are not to be
    /// exchanged.
    pub(super) async fn stop_app(&self, stage: &Stage, log: &mut ScriptLog) -> Result<bool, ScriptFailure> {
        let ran = self.hooks(stage, LifecycleEvent::ApplicationStop, log).await?;
        if !stage.ends_processes() {
            return Ok(ran);
        }
        let stopped = self.services.stop_processes(|_| true).await;
        if !stopped.is_empty() {
            log.note(&format!("stopped {}", stopped.join(", ")), now());
        }
        Ok(ran || !stopped.is_empty())
    }

    /// The scripts of any other event.
    pub(super) async fn hooks(
        &self,
        stage: &Stage,
        event: LifecycleEvent,
        log: &mut ScriptLog,
    ) -> Result<bool, ScriptFailure> {
        let Some((of, path)) = stage.scripts_of(event) else {
            return Ok(false);
        };
        let spec = appspec::read(&of, &path).map_err(|why| unknown(why, log))?;
        let mut facts = stage.facts();
        facts.environment = stage.environment(self.services.environment());
        let secrets = self.services.secrets();
        let (tell, told) = watch::channel(None);
        let hooks = Hooks {
            reaper: &self.reaper,
            facts: &facts,
            current: &stage.current,
            clock: now,
            secrets: &secrets,
            directory: None,
            unless: Some(told),
            trace: self.layout.traces.as_deref().map(Trace::of_script),
        };
        // What the start's own script does to a service is its business; what checks afterwards would wait in vain.
        let checks = event == LifecycleEvent::ValidateService;
        let watching = async {
            let failure = tokio::select! {
                death = self.services.death(stage.begun_at, stage.begun_at), if checks => died(&death),
                reason = self.unwanted(stage) => ended(reason),
            };
            tell.send_replace(Some(failure));
            std::future::pending().await
        };
        tokio::select! {
            outcome = hooks.run(event, &of, &spec, log) => outcome,
            never = watching => never,
        }
    }

    /// Waits until nobody wants the deployment any more.
    async fn unwanted(&self, stage: &Stage) -> String {
        let mut orders = self.unwanted.subscribe();
        // This room holds the sender.
        let order = orders
            .wait_for(|order| stage.unwanted_by(order.as_ref()).is_some())
            .await;
        order
            .ok()
            .and_then(|order| stage.unwanted_by(order.as_ref()))
            .unwrap_or_default()
    }

    /// Migrate: the release's own script, at the root of its revision.
    pub(super) async fn migrate(&self, stage: &Stage, log: &mut ScriptLog) -> Result<bool, ScriptFailure> {
        let Some(migration) = &stage.order.migration else {
            return Ok(false);
        };
        let script = Script {
            location: migration.script.to_string(),
            runas: migration.runas.clone(),
            sudo: false,
            timeout: u32::try_from(migration.timeout.as_secs()).unwrap_or(u32::MAX),
        };
        let mut facts = stage.facts();
        facts.environment = stage.environment(self.services.environment());
        let secrets = self.services.secrets();
        let hooks = Hooks {
            reaper: &self.reaper,
            facts: &facts,
            current: &stage.current,
            clock: now,
            secrets: &secrets,
            directory: Some(stage.current.archive()),
            unless: None,
            trace: self.layout.traces.as_deref().map(Trace::of_script),
        };
        hooks.scripts("Migrate", &[script], &stage.current, log).await
    }
}

/// Puts a copy of the archive in the place of the app, at once where the file system can exchange two directories.
fn put_app(archive: &Path, app: &Path) -> io::Result<()> {
    let parent = app.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)?;
    let fresh = parent.join(".vend-app-new");
    let old = parent.join(".vend-app-old");
    for left in [&fresh, &old] {
        if left.symlink_metadata().is_ok() {
            fs::remove_dir_all(left)?;
        }
    }
    bundle::copy(archive, &fresh)?;
    if app.symlink_metadata().is_ok() {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let exchanged = renameat_with(CWD, &fresh, CWD, app, RenameFlags::EXCHANGE);
        if exchanged.is_ok() {
            return fs::remove_dir_all(&fresh);
        }
        // A directory of the image itself cannot be moved by overlayfs: it is covered instead.
        fs::remove_dir_all(app)?;
    }
    fs::rename(&fresh, app)
}

/// A process that ended, as a failure of the event that it ended in.
fn ended(reason: String) -> ScriptFailure {
    ScriptFailure::unknown(reason, String::new())
}

fn died(death: &Death) -> ScriptFailure {
    let message = format!("the process {} does not stay up: {}", death.service, death.exit);
    ScriptFailure {
        script: death.service.clone(),
        ..ScriptFailure::unknown(message, death.last.clone())
    }
}
