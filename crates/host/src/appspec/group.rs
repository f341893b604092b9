//! A deployment group's directory on a host: its deployments, and which of them was the last, as CodeDeploy's agent
//! keeps it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use model::port::LifecycleEvent;

use super::{
    Deployment,
    hooks::{Whose, whose},
    install::Records,
};

/// So many revisions of a group stay on the disk, as with CodeDeploy's agent.
pub const REVISIONS: usize = 5;

/// A group, under the directory of all deployments.
#[derive(Debug, Clone)]
pub struct Group {
    name: String,
    directory: PathBuf,
    instructions: PathBuf,
}

impl Group {
    /// `root` is `deployment-root`.
    pub fn new(root: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            directory: root.join(name),
            instructions: root.join("deployment-instructions"),
        }
    }

    pub fn deployment(&self, id: &str) -> Deployment {
        Deployment {
            directory: self.directory.join(id),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn records(&self) -> Records {
        Records::of(&self.instructions, &self.name)
    }

    /// Its deployment was unpacked. From now on there is one to run scripts of when this one is rolled back.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn unpacked(&self, deployment: &Deployment) -> io::Result<()> {
        self.point("most_recent_install", deployment)
    }

    /// Its deployment was installed, whatever becomes of it afterwards.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn installed(&self, deployment: &Deployment) -> io::Result<()> {
        self.point("last_successful_install", deployment)
    }

    /// Whose scripts an event runs: `None` when there is no such deployment yet. `going_back`: see [`whose`].
    pub fn scripts_of(
        &self,
        event: Option<LifecycleEvent>,
        going_back: bool,
        current: &Deployment,
    ) -> Option<Deployment> {
        let on_disk = current.archive().is_dir();
        match event.map_or(Whose::Current, |event| whose(event, going_back, on_disk)) {
            Whose::Current => Some(current.clone()),
            Whose::LastSuccessful => self.pointed("last_successful_install"),
            Whose::MostRecent => self.pointed("most_recent_install"),
        }
    }

    fn pointer(&self, what: &str) -> PathBuf {
        self.instructions.join(format!("{}_{what}", self.name))
    }

    /// The deployment that a pointer names. Only one of this group can be meant.
    fn pointed(&self, what: &str) -> Option<Deployment> {
        let text = fs::read_to_string(self.pointer(what)).ok()?;
        let directory = PathBuf::from(text.trim_end());
        (directory.parent() == Some(&self.directory)).then_some(Deployment { directory })
    }

    fn point(&self, what: &str, deployment: &Deployment) -> io::Result<()> {
        fs::create_dir_all(&self.instructions)?;
        fs::write(
            self.pointer(what),
            deployment.directory.as_os_str().as_encoded_bytes(),
        )
    }

    /// Removes the oldest deployments beyond `keep`, but neither this one nor the last that was installed.
    pub fn tidy(&self, current: &Deployment, keep: usize) {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        let mut others: Vec<(SystemTime, PathBuf)> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| *path != current.directory)
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        let too_many = (others.len() + 1).saturating_sub(keep);
        let last = self.pointed("last_successful_install");
        others.retain(|(_, path)| last.as_ref().is_none_or(|last| *path != last.directory));
        others.sort();
        for (_, path) in others.into_iter().take(too_many) {
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!("an old revision stays at {}: {error}", path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn make(group: &Group, id: &str, age_s: u64) -> Deployment {
        let deployment = group.deployment(id);
        fs::create_dir_all(deployment.archive()).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 - age_s);
        fs::File::open(&deployment.directory)
            .unwrap()
            .set_modified(at)
            .unwrap();
        deployment
    }

    fn left(group: &Group) -> Vec<String> {
        let entries = fs::read_dir(&group.directory).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Of the others, the oldest go until there are as many as may stay with the current one; never the last installed.
    #[test]
    fn old_revisions_go_but_never_the_last_that_was_installed() {
        let root = tempfile::tempdir().unwrap();
        let group = Group::new(root.path(), "shop");
        for (id, age_s) in [("d-1", 60), ("d-2", 50), ("d-3", 40), ("d-4", 30), ("d-5", 20)] {
            make(&group, id, age_s);
        }
        group.installed(&group.deployment("d-1")).unwrap();
        let current = make(&group, "d-6", 0);
        group.tidy(&current, REVISIONS);
        assert_eq!(left(&group), ["d-1", "d-3", "d-4", "d-5", "d-6"]);
        group.tidy(&current, 2);
        assert_eq!(left(&group), ["d-1", "d-6"]);
    }

    #[test]
    fn a_script_of_the_revision_before_runs_until_the_new_one_is_there() {
        let root = tempfile::tempdir().unwrap();
        let group = Group::new(root.path(), "shop");
        let stop = Some(LifecycleEvent::ApplicationStop);
        let (first, second) = (group.deployment("d-1"), group.deployment("d-2"));
        let whose = |current: &Deployment| group.scripts_of(stop, false, current).map(|of| of.directory);
        assert_eq!(whose(&first), None, "there is none before the first");
        // Installed counts, whatever became of the deployment afterwards.
        group.installed(&first).unwrap();
        assert_eq!(whose(&second), Some(first.directory.clone()));
        fs::create_dir_all(second.archive()).unwrap();
        assert_eq!(whose(&second), Some(second.directory.clone()));
        // Back on hosts that were kept: no revision is brought to them.
        let allow = Some(LifecycleEvent::AfterAllowTraffic);
        let fourth = group.deployment("d-4");
        let of = |back| group.scripts_of(allow, back, &fourth).map(|of| of.directory);
        assert_eq!(of(true), Some(first.directory.clone()));
        assert_eq!(of(false), Some(fourth.directory.clone()));
        // A record that names another place names nothing.
        let third = group.deployment("d-3");
        fs::write(group.pointer("last_successful_install"), "/etc/d-1").unwrap();
        assert_eq!(whose(&third), None);
    }
}
