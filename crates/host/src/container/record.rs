//! What is kept on disk about containers, and who may work with it.

use std::{fs, net::Ipv4Addr, os::fd::OwnedFd, time::Duration};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::{Containers, Error, io, life::Birth};

/// What outlives this process about a container. Written before the container is made, removed after it is gone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub id: String,
    pub scratch: Utf8PathBuf,
    pub only_port: Option<(Ipv4Addr, u16)>,
    /// Goes on when this process ends; a build or bake does not.
    pub stays: bool,
    pub birth: Option<Birth>,
    /// Its program was let go. Without that, there is a process which waits and does nothing else.
    #[serde(default = "yes")]
    pub started: bool,
}

fn yes() -> bool {
    true
}

/// Takes the data directory for this process. Its predecessor may still be about to end.
pub(super) async fn lock(node: &Utf8Path) -> Result<OwnedFd, Error> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let path = node.join("lock");
    let file = fs::File::create(&path).map_err(io("create", &path))?;
    let taking = async {
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(Duration::from_millis(20)).await,
                taken => return taken.map_err(|error| io("lock", &path)(error.into())),
            }
        }
    };
    match tokio::time::timeout(PATIENCE, taking).await {
        Ok(taken) => taken.map(|()| file.into()),
        Err(_) => Err(Error::Locked(node.to_owned())),
    }
}

impl Containers {
    /// A runtime that outlived its node may have made something after it was looked for. It gets a record, so that it
    /// is removed as all else is.
    pub(super) fn record_orphans(&self) -> Result<(), Error> {
        let states = self
            .0
            .runtime
            .root
            .read_dir_utf8()
            .into_iter()
            .flatten()
            .flatten();
        let known = states.map(|state| state.file_name().to_owned());
        for id in known.chain(self.0.groups.list()) {
            if self.record(&id).is_some() {
                continue;
            }
            let bundle = self.bundle(&id);
            fs::create_dir_all(&bundle).map_err(io("create", &bundle))?;
            self.write(&Record {
                scratch: bundle.join("scratch"),
                id,
                only_port: None,
                stays: false,
                birth: None,
                started: false,
            })?;
        }
        Ok(())
    }

    pub(super) fn bundle(&self, id: &str) -> Utf8PathBuf {
        self.0.node.join("containers").join(id)
    }

    pub(super) fn records(&self) -> Vec<Record> {
        let dir = self.0.node.join("containers");
        let entries = dir.read_dir_utf8().into_iter().flatten().flatten();
        entries
            .filter_map(|entry| self.record(entry.file_name()))
            .collect()
    }

    pub(super) fn record(&self, id: &str) -> Option<Record> {
        let text = fs::read(self.bundle(id).join("record.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub(super) fn write(&self, record: &Record) -> Result<(), Error> {
        let (path, fresh) = (
            self.bundle(&record.id).join("record.json"),
            self.bundle(&record.id).join("record.new"),
        );
        let text = serde_json::to_vec(record).expect("a record has only plain fields");
        fs::write(&fresh, text).map_err(io("write", &fresh))?;
        fs::rename(&fresh, &path).map_err(io("write", &path))
    }
}
