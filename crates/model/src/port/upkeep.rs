use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Fault, LogRef};
use crate::{AppName, Digest, TenantName};

/// Keeps a machine from filling up.
pub trait Upkeep {
    /// Removes what nothing needs: neither `keep`, nor a host that exists, nor whoever used it in the last hours, because
    /// it may have come in after `keep` was listed.
    fn sweep(&self, keep: &Keep) -> impl Future<Output = Result<Swept, Fault>> + Send;

    /// Removes what is kept to be faster for an app, or a whole tenant, that is deleted.
    fn forget(
        &self,
        tenant: &TenantName,
        app: Option<&AppName>,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// What must not be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    pub images: BTreeSet<Digest>,
    /// Source trees and revisions.
    pub objects: BTreeSet<Digest>,
    /// Whatever their age.
    pub logs: BTreeSet<LogRef>,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
    pub images: Vec<Digest>,
    /// Images share layers: only those that no image needs any more.
    pub layers: u64,
    pub objects: u64,
    pub logs: u64,
    /// What builds and bakes kept for those after them.
    #[serde(default)]
    pub caches: u64,
    /// Of all of it.
    pub bytes: u64,
    /// Images were left alone because one was being taken in.
    pub busy: bool,
}

impl Swept {
    pub fn is_empty(&self) -> bool {
        self.images.is_empty() && self.layers == 0 && self.objects == 0 && self.logs == 0 && self.caches == 0
    }
}
