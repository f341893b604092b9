//! What is kept on disk about a host: its order without its environment.

use std::{fs, io, net::Ipv4Addr};

use camino::Utf8Path;
use jiff::Timestamp;
use model::{
    Digest, HostId, Place,
    port::{HostOrder, HostRole, Network, Resources},
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub host: HostId,
    pub place: Place,
    pub role: HostRole,
    pub image: Digest,
    pub network: Network,
    pub address: Ipv4Addr,
    pub uid_base: u32,
    pub resources: Resources,
    pub port: u16,
    pub started_at: Timestamp,
}

impl Record {
    pub fn of(order: &HostOrder, started_at: Timestamp) -> Self {
        Self {
            host: order.host.clone(),
            place: order.place.clone(),
            role: order.role,
            image: order.image,
            network: order.network.clone(),
            address: order.address,
            uid_base: order.uid_base,
            resources: order.resources.clone(),
            port: order.port,
            started_at,
        }
    }

    /// Of the same order, whenever that was.
    pub fn is_same(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }

    /// Of the order without its secrets and its time.
    pub fn digest(&self) -> Digest {
        let timeless = Self {
            started_at: Timestamp::UNIX_EPOCH,
            ..self.clone()
        };
        Digest::of(serde_json::to_vec(&timeless).expect("a record has only plain fields"))
    }

    pub fn read(dir: &Utf8Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join("record.json")).ok()?).ok()
    }

    /// Every host that has a record.
    pub fn all(hosts: &Utf8Path) -> Vec<Self> {
        let entries = hosts.read_dir_utf8().into_iter().flatten().flatten();
        let mut all: Vec<Self> = entries.filter_map(|entry| Self::read(entry.path())).collect();
        all.sort_by(|a, b| a.host.cmp(&b.host));
        all
    }

    pub fn write(&self, dir: &Utf8Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let fresh = dir.join("record.new");
        fs::write(&fresh, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&fresh, dir.join("record.json"))
    }
}
