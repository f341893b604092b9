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

    /// Whose scripts an event runs: `None` when there is no such deployment yet.
    pub fn scripts_of(&self, event: Option<LifecycleEvent>, current: &Deployment) -> Option<Deployment> {
        let on_disk = current.archive().is_dir();
        match event.map_or(Whose::Current, |event| whose(event, false, on_disk)) {
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
