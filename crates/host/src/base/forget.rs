//! What a tenant's logins got from registries is known by the tenant's name, which may be another customer's next.

use std::{fs, io};

use camino::Utf8Path;
use model::TenantName;

use super::{Bases, Known};
use crate::layer::{self, io_error};

impl Bases {
    /// Forgets which layers a tenant's names mean. The layers stay for what stands on them, and go when nothing does.
    pub(crate) fn forget(&self, tenant: &TenantName) -> Result<(), layer::Error> {
        forget(&self.root, |own| own == tenant)
    }

    /// The same of all tenants, on a node that has its bases not open.
    pub(crate) fn forget_all(node: &Utf8Path) -> Result<(), layer::Error> {
        forget(&node.join("bases"), |_| true)
    }
}

fn forget(root: &Utf8Path, whose: impl Fn(&TenantName) -> bool) -> Result<(), layer::Error> {
    let entries = match root.read_dir_utf8() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(io_error("read", root))?,
    };
    for entry in entries {
        let entry = entry.map_err(io_error("read", root))?;
        let path = entry.path();
        if path.extension() != Some("json") {
            continue;
        }
        let known = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice::<Known>(&bytes).ok(),
            // A sweep forgets it, too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io_error("read", path)(error)),
        };
        if known
            .and_then(|known| known.tenant)
            .is_some_and(|own| whose(&own))
        {
            match fs::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(io_error("remove", path))?,
            }
        }
    }
    fs::File::open(root)
        .and_then(|root| root.sync_all())
        .map_err(io_error("flush", root))
}
