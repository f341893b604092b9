//! What one event does in the host's file system.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use camino::Utf8PathBuf;
use jiff::Timestamp;
use model::{
    port::{Death, DeployOrder, LifecycleEvent, ScriptCode, ScriptFailure},
    spec::{Appspec, deploy::FileExists},
};
use tokio::sync::watch;

use super::{Inner, unknown};
use crate::{
    agent::layout::Layout,
    appspec::{
        self, Deployment, Error, ScriptLog, bundle,
        hooks::{Facts, Hooks, Whose, whose},
        install::{Records, install},
    },
    now,
    tree::Format,
};

/// So many revisions of a group stay on the disk, as with CodeDeploy's agent.
const REVISIONS: usize = 5;

/// How long a Procfile's processes are watched after their start.
const WATCH: Duration = Duration::from_millis(50);

/// One order's places in the host.
pub struct Stage {
    pub current: Deployment,
    pub appspec: Option<Utf8PathBuf>,
    order: DeployOrder,
    group: String,
    group_directory: PathBuf,
    instructions: PathBuf,
    pub begun_at: Timestamp,
}

impl Stage {
    pub fn new(layout: &Layout, order: &DeployOrder) -> Self {
        let place = &order.place;
        let group = format!("{}.{}.{}", place.tenant, place.app, place.environment);
        let group_directory = layout.deployments.join(&group);
        Self {
            current: Deployment {
                directory: group_directory.join(order.deployment.as_str()),
            },
            appspec: order.appspec.clone(),
            order: order.clone(),
            instructions: layout.instructions(),
            begun_at: now(),
            group_directory,
            group,
        }
    }

    /// Where the revision's tar is put before it is unpacked.
    pub fn bundle(&self, layout: &Layout) -> PathBuf {
        layout
            .revisions()
            .join(format!("{}.tar", self.order.revision.hex()))
    }

    fn pointer(&self, what: &str) -> PathBuf {
        self.instructions.join(format!("{}_{what}", self.group))
    }

    /// The deployment that a pointer names. Only one of this group can be meant.
    fn pointed(&self, what: &str) -> Option<Deployment> {
        let text = fs::read_to_string(self.pointer(what)).ok()?;
        let directory = PathBuf::from(text.trim_end());
        (directory.parent() == Some(&self.group_directory)).then_some(Deployment { directory })
    }

    fn point(&self, what: &str) -> io::Result<()> {
        fs::write(
            self.pointer(what),
            self.current.directory.as_os_str().as_encoded_bytes(),
        )
    }

    /// Whose scripts an event runs: `None` when there is no such deployment yet.
    fn scripts_of(&self, event: LifecycleEvent) -> Option<Deployment> {
        match whose(event, false, self.current.archive().is_dir()) {
            Whose::Current => Some(self.current.clone()),
            Whose::LastSuccessful => self.pointed("last_successful_install"),
            Whose::MostRecent => self.pointed("most_recent_install"),
        }
    }

    fn facts(&self) -> Facts {
        Facts {
            application: self.order.place.app.to_string(),
            deployment: self.order.deployment.to_string(),
            group_name: self.order.place.environment.to_string(),
            group: self.group.clone(),
            environment: Vec::new(),
        }
    }

    /// Removes the oldest revisions of the group but this one and the last that was installed.
    fn tidy(&self) {
        let Ok(entries) = fs::read_dir(&self.group_directory) else {
            return;
        };
        let last = self.pointed("last_successful_install");
        let keep = |path: &PathBuf| {
            *path != self.current.directory && last.as_ref().is_none_or(|last| *path != last.directory)
        };
        let mut others: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(keep)
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        others.sort();
        let too_many = (others.len() + 2).saturating_sub(REVISIONS);
        for (_, path) in others.into_iter().take(too_many) {
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!("an old revision stays at {}: {error}", path.display());
            }
        }
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
            .point("most_recent_install")
            .map_err(|error| unknown(format!("cannot keep the record: {error}"), log))?;
        stage.tidy();
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
            .point("last_successful_install")
            .map_err(|error| unknown(format!("cannot keep the record: {error}"), log))?;
        Ok(true)
    }

    async fn install_files(&self, stage: &Stage, spec: Appspec) -> Result<Vec<String>, String> {
        let archive =
            Utf8PathBuf::from_path_buf(stage.current.archive()).map_err(|_| "a path that is not UTF-8")?;
        let records = Records::of(&stage.instructions, &stage.group);
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

    /// The scripts of any other event.
    pub(super) async fn hooks(
        &self,
        stage: &Stage,
        event: LifecycleEvent,
        log: &mut ScriptLog,
    ) -> Result<bool, ScriptFailure> {
        let (Some(path), Some(of)) = (&stage.appspec, stage.scripts_of(event)) else {
            return Ok(false);
        };
        let spec = appspec::read(&of, path).map_err(|why| unknown(why, log))?;
        let mut facts = stage.facts();
        facts.environment = self.services.environment();
        let secrets = self.services.secrets();
        let (tell, told) = watch::channel(None);
        let hooks = Hooks {
            reaper: &self.reaper,
            facts: &facts,
            current: &stage.current,
            clock: now,
            secrets: &secrets,
            // What the start's own script does to a service is its business; what checks afterwards would wait in vain.
            unless: (event == LifecycleEvent::ValidateService).then_some(told),
        };
        let watching = async {
            let death = self.services.death(stage.begun_at, stage.begun_at).await;
            tell.send_replace(Some(died(&death)));
            std::future::pending().await
        };
        tokio::select! {
            outcome = hooks.run(event, &of, &spec, log) => outcome,
            never = watching => never,
        }
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
    copy_tree(archive, &fresh)?;
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

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())
}

/// A process that ended, as a failure of the event that it ended in.
fn died(death: &Death) -> ScriptFailure {
    ScriptFailure {
        code: ScriptCode::UnknownError,
        script: death.service.clone(),
        message: format!("the process {} does not stay up: {}", death.service, death.exit),
        log: death.last.clone(),
    }
}
