//! The object store of state machines: directories of the operator.
//!
//! `DIRECTORY/ACCOUNT/BUCKET/KEY` is an object, where `ACCOUNT` is the number of the tenant as it stands in ARNs. No
//! tenant can name another's.

use std::{io, time::SystemTime};

use camino::Utf8PathBuf;
use serde_json::Value;

use crate::states::run::Objects;

pub struct Buckets(pub Utf8PathBuf);

impl Buckets {
    fn of(&self, owner: u64) -> Objects {
        Objects(Some(self.0.join(format!("{owner:012}")).into()))
    }

    /// Can objects be read and written? Blocks.
    pub fn probe(&self) -> io::Result<()> {
        Objects(Some(self.0.clone().into())).probe()
    }

    /// Removes what an earlier process was writing, before `since`, when it was killed; until `stop` says
    /// so. Blocks.
    pub fn sweep(&self, since: SystemTime, stop: impl Fn() -> bool) -> io::Result<()> {
        Objects(Some(self.0.clone().into())).sweep(since, stop)
    }
}

impl engine::Objects for Buckets {
    fn read(&self, owner: u64, parameters: &Value) -> io::Result<Vec<u8>> {
        self.of(owner).read(parameters)
    }

    fn list(&self, owner: u64, parameters: &Value) -> io::Result<Vec<Value>> {
        self.of(owner).list(parameters)
    }

    fn write(&self, owner: u64, bucket: &str, key: &str, bytes: &[u8]) -> io::Result<()> {
        self.of(owner).write(bucket, key, bytes)
    }
}

#[cfg(test)]
mod tests {
    use engine::Objects as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_directory_that_is_of_no_use_is_noticed() {
        let held = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(held.path().to_owned()).unwrap();
        Buckets(root.clone()).probe().unwrap();
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
        std::fs::write(root.join("file"), "").unwrap();
        for wrong in ["nowhere", "file"] {
            assert!(Buckets(root.join(wrong)).probe().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_tenant_has_buckets_of_its_own() {
        let held = tempfile::tempdir().unwrap();
        let buckets = Buckets(Utf8PathBuf::from_path_buf(held.path().to_owned()).unwrap());
        buckets.write(7, "b", "k/x", b"mine").unwrap();
        let read = |owner: u64, bucket: &str, key: &str| {
            buckets.read(owner, &json!({ "Bucket": bucket, "Key": key }))
        };
        assert_eq!(read(7, "b", "k/x").unwrap(), b"mine");
        assert!(held.path().join("000000000007/b/k/x").exists());
        for (owner, bucket, key) in [
            (8, "b", "k/x"),
            (8, "..", "000000000007/b/k/x"),
            (8, "b", "../../000000000007/b/k/x"),
        ] {
            assert!(read(owner, bucket, key).is_err(), "{bucket} {key}");
        }
    }
}
