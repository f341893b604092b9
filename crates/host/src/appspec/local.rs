//! One deployment on this machine, without any platform: what `codedeploy-local` of AWS's agent does, in its order, with
//! its directories and its words.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use model::{
    Secret,
    port::{LifecycleEvent, ScriptFailure},
    spec::{Appspec, deploy::FileExists},
};
use tokio::sync::watch;

use super::{
    Deployment, Group, ScriptLog, bundle,
    hooks::{Clock, Facts, Hooks},
    install::install,
};
use crate::{agent::reaper::Reaper, tree::Format};

/// In the order of `codedeploy-local`: without a load balancer there is nothing to do for traffic itself.
pub const EVENTS: [&str; 11] = [
    "BeforeBlockTraffic",
    "AfterBlockTraffic",
    "ApplicationStop",
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
    "BeforeAllowTraffic",
    "AfterAllowTraffic",
];

/// Run scripts of the revision that was installed before.
const BEFORE_THE_BUNDLE: [&str; 3] = ["BeforeBlockTraffic", "AfterBlockTraffic", "ApplicationStop"];

/// Run scripts of the new revision, and make no sense before it is installed.
const AFTER_INSTALL: [&str; 5] = [
    "AfterInstall",
    "ApplicationStart",
    "BeforeAllowTraffic",
    "AfterAllowTraffic",
    "ValidateService",
];

/// How the refusal of hooks goes on, after the appspec's name, that no event runs.
pub const UNKNOWN: &str = " file contains unknown lifecycle events: ";

/// What to deploy, and how.
#[derive(Debug, Clone)]
pub struct Order {
    /// Absolute.
    pub location: PathBuf,
    /// `None` is a directory.
    pub format: Option<Format>,
    pub file_exists: FileExists,
    pub group: String,
    pub group_name: String,
    pub application: String,
    /// Empty for all of [`EVENTS`].
    pub events: Vec<String>,
    pub appspec: Option<Utf8PathBuf>,
    /// `deployment-root`
    pub root: PathBuf,
    /// Where destinations begin that are not absolute.
    pub directory: Utf8PathBuf,
    /// How many deployments of a group stay on the disk.
    pub keep: usize,
    pub deployment: String,
}

/// Why a deployment failed.
#[derive(Debug)]
pub enum Failed {
    Script(ScriptFailure),
    Other(String),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Script(failure) => f.write_str(&failure.message),
            Self::Other(why) => f.write_str(why),
        }
    }
}

impl Order {
    /// The events to run, in their order. DownloadBundle and Install always run.
    ///
    /// # Errors
    /// With the agent's sentence, when an order makes no sense.
    pub fn ordered(&self) -> Result<Vec<String>, String> {
        if self.events.is_empty() {
            return Ok(EVENTS.map(str::to_owned).to_vec());
        }
        let given = self.events.join(",");
        let before = |name: &str| {
            let at = self.events.iter().position(|event| event == name);
            &self.events[..at.unwrap_or(0)]
        };
        let new = |event: &String| AFTER_INSTALL.contains(&event.as_str());
        if before("DownloadBundle")
            .iter()
            .any(|event| new(event) || event == "Install")
        {
            return Err(format!(
                "The only events that can be specified before DownloadBundle are {}. Please fix the order of your \
                 specified events: {given}",
                BEFORE_THE_BUNDLE.join(",")
            ));
        }
        if before("Install").iter().any(new) {
            return Err(format!(
                "The only events that can be specified before Install are {},DownloadBundle,BeforeInstall. Please fix \
                 the order of your specified events: {given}",
                BEFORE_THE_BUNDLE.join(",")
            ));
        }
        let missing = ["DownloadBundle", "Install"].map(str::to_owned).into_iter();
        let missing = missing.filter(|event| !self.events.contains(event));
        Ok(missing.chain(self.events.iter().cloned()).collect())
    }

    fn group(&self) -> Group {
        Group::new(&self.root, &self.group)
    }

    /// Where the deployment is.
    pub fn current(&self) -> Deployment {
        self.group().deployment(&self.deployment)
    }
}

/// A deployment that runs.
pub struct Local<'a> {
    pub order: &'a Order,
    pub reaper: &'a Reaper,
    pub clock: Clock,
    /// What scripts inherit.
    pub environment: Vec<(String, Secret)>,
    /// Ends the script that runs.
    pub unless: watch::Receiver<Option<ScriptFailure>>,
}

impl Local<'_> {
    /// Runs one event. False when there was nothing to do.
    ///
    /// # Errors
    /// With the agent's sentence where it has one.
    pub async fn event(&self, event: &str, log: &mut ScriptLog) -> Result<bool, Failed> {
        let current = self.order.current();
        fs::create_dir_all(&current.directory).map_err(|error| {
            Failed::Other(format!("cannot make {}: {error}", current.directory.display()))
        })?;
        match event {
            "DownloadBundle" => self.download(&current).map(|()| true).map_err(Failed::Other),
            "Install" => {
                let remarks = self.install(&current).map_err(Failed::Other)?;
                remarks.iter().for_each(|remark| log.note(remark, (self.clock)()));
                Ok(true)
            }
            event => self.hooks(event, &current, log).await,
        }
    }

    fn download(&self, current: &Deployment) -> Result<(), String> {
        let (order, archive, group) = (self.order, current.archive(), self.order.group());
        group.tidy(current, order.keep);
        match order.format {
            None => copy(&order.location, &archive)?,
            Some(format) => {
                bundle::unpack(&order.location, format, &archive).map_err(|error| error.to_string())?;
                bundle::strip(&archive, order.appspec.as_deref()).map_err(|error| error.to_string())?;
                if self.appspec_for_install(&archive).is_none() {
                    return Err("appspec file is not found.".to_owned());
                }
            }
        }
        group
            .unpacked(current)
            .map_err(|error| format!("cannot keep the record: {error}"))
    }

    fn install(&self, current: &Deployment) -> Result<Vec<String>, String> {
        let archive = current.archive();
        let path = self
            .appspec_for_install(&archive)
            .unwrap_or_else(|| self.appspec());
        let spec = self.placed(super::read(current, &path)?);
        self.known(&spec, path.file_name().unwrap_or(path.as_str()))?;
        let archive = Utf8Path::from_path(&archive).ok_or("a path that is not UTF-8")?;
        let group = self.order.group();
        let remarks = install(archive, &spec, self.order.file_exists, &group.records())
            .map_err(|error| error.to_string())?;
        group
            .installed(current)
            .map_err(|error| format!("cannot keep the record: {error}"))?;
        Ok(remarks)
    }

    /// AWS's tool expands paths from where it is called; the agent of a host does from `/`.
    fn placed(&self, mut spec: Appspec) -> Appspec {
        let destinations = spec.files.iter_mut().map(|file| &mut file.destination);
        let objects = spec
            .permissions
            .iter_mut()
            .map(|permission| &mut permission.object);
        for path in destinations.chain(objects) {
            *path = self.order.directory.join(&*path).into_string();
        }
        spec
    }

    /// The agent refuses hooks that no event runs, and events that have no hook, when it knows all events. `file`: the
    /// appspec's name.
    fn known(&self, spec: &Appspec, file: &str) -> Result<(), String> {
        let asked = &self.order.events;
        let hooks = || spec.custom.iter().map(|(name, _)| name);
        let unknown: Vec<&String> = hooks().filter(|name| !asked.contains(name)).collect();
        if !unknown.is_empty() {
            return Err(format!("{file}{UNKNOWN}{unknown:?}"));
        }
        let mut missing: Vec<&str> = Vec::new();
        for name in asked {
            let is_known = EVENTS.contains(&name.as_str()) || hooks().any(|hook| hook == name);
            if !is_known && !missing.contains(&name.as_str()) {
                missing.push(name);
            }
        }
        match missing.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "You specified a lifecycle event which is not a default one and doesn't exist in your {file} file: {}",
                missing.join(",")
            )),
        }
    }

    async fn hooks(&self, event: &str, current: &Deployment, log: &mut ScriptLog) -> Result<bool, Failed> {
        let known = LifecycleEvent::ALL
            .into_iter()
            .find(|known| known.to_string() == event);
        let Some(of) = self.order.group().scripts_of(known, false, current) else {
            return Ok(false);
        };
        let spec = super::read(&of, &self.appspec()).map_err(Failed::Other)?;
        let own = || spec.custom.iter().find(|(name, _)| name == event);
        let scripts = match known.filter(|known| known.is_scriptable()) {
            Some(known) => spec.hooks.get(&known),
            None => own().map(|(_, scripts)| scripts),
        };
        let order = self.order;
        let facts = Facts {
            application: order.application.clone(),
            deployment: order.deployment.clone(),
            group_name: order.group_name.clone(),
            group: order.group.clone(),
            environment: self.environment.clone(),
        };
        let hooks = Hooks {
            reaper: self.reaper,
            facts: &facts,
            current,
            clock: self.clock,
            secrets: &[],
            directory: None,
            unless: Some(self.unless.clone()),
            trace: None,
        };
        let scripts = scripts.map_or(&[][..], Vec::as_slice);
        hooks
            .scripts(event, scripts, &of, log)
            .await
            .map_err(Failed::Script)
    }

    fn appspec(&self) -> Utf8PathBuf {
        let given = self.order.appspec.clone();
        given.unwrap_or_else(|| Utf8PathBuf::from("appspec.yml"))
    }

    /// Install alone looks for other names too.
    fn appspec_for_install(&self, archive: &Path) -> Option<Utf8PathBuf> {
        [self.appspec(), "appspec.yaml".into(), "appspec.yml".into()]
            .into_iter()
            .find(|path| archive.join(path).is_file())
    }
}

fn copy(location: &Path, archive: &Path) -> Result<(), String> {
    let real = location
        .canonicalize()
        .map_err(|error| format!("cannot find {}: {error}", location.display()))?;
    let parent = archive.parent().unwrap_or(archive).canonicalize();
    if parent.is_ok_and(|parent| parent.starts_with(&real)) {
        return Err(format!(
            "cannot copy directory {} to itself {}",
            real.display(),
            archive.display()
        ));
    }
    bundle::check_links(&real).map_err(|error| error.to_string())?;
    if archive.symlink_metadata().is_ok() {
        fs::remove_dir_all(archive)
            .map_err(|error| format!("cannot remove {}: {error}", archive.display()))?;
    }
    bundle::copy(&real, archive).map_err(|error| format!("cannot copy {}: {error}", real.display()))
}

/// An id as `codedeploy-local` makes them, from nine random bytes.
pub fn deployment_id(random: [u8; 9]) -> String {
    const LETTERS: &[u8; 36] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let letters = random.map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
    format!("d-{}-local", letters.iter().collect::<String>())
}

/// A log beside those of the agent.
pub fn log(order: &Order) -> ScriptLog {
    ScriptLog::default().also_in(&order.root, &order.deployment)
}

/// The clock of this machine, for whoever runs a deployment by hand.
pub fn clock() -> Timestamp {
    crate::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(events: &str) -> Order {
        Order {
            location: "/bundle".into(),
            format: None,
            file_exists: FileExists::Disallow,
            group: "g".into(),
            group_name: "LocalFleet".into(),
            application: "a".into(),
            events: events.split_terminator(',').map(str::to_owned).collect(),
            appspec: None,
            root: "/root".into(),
            directory: "/work".into(),
            keep: 5,
            deployment: deployment_id([0; 9]),
        }
    }

    #[test]
    fn events_run_in_an_order_that_makes_sense() {
        assert_eq!(order("").ordered().unwrap(), EVENTS);
        for (given, expected) in [
            (
                "BeforeInstall,ApplicationStart",
                "DownloadBundle,Install,BeforeInstall,ApplicationStart",
            ),
            (
                "ApplicationStop,DownloadBundle",
                "Install,ApplicationStop,DownloadBundle",
            ),
            (
                "DownloadBundle,BeforeInstall,Install,Own",
                "DownloadBundle,BeforeInstall,Install,Own",
            ),
        ] {
            assert_eq!(order(given).ordered().unwrap().join(","), expected);
        }
        for (given, fragment) in [
            (
                "Install,DownloadBundle",
                "before DownloadBundle are BeforeBlockTraffic,AfterBlockTraffic,ApplicationStop.",
            ),
            (
                "ValidateService,DownloadBundle",
                "specified events: ValidateService,DownloadBundle",
            ),
            (
                "AfterInstall,Install",
                "before Install are BeforeBlockTraffic,AfterBlockTraffic,ApplicationStop,DownloadBundle,BeforeInstall.",
            ),
        ] {
            let why = order(given).ordered().unwrap_err();
            assert!(why.contains(fragment), "{why}");
        }
        assert_eq!(deployment_id([0; 9]), "d-AAAAAAAAA-local");
    }
}
