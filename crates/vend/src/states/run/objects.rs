//! An object store that is a directory: `BUCKET/KEY` in it is an object.

use std::{
    fs::{File, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

use serde_json::{Value, json};

/// Bytes of one object.
const MOST: u64 = 256 * 1024 * 1024;
/// Objects that one listing may have.
const LISTED: usize = 100_000;
/// How names of files begin and end that are being written: they are no objects.
const DRAFT: (&str, &str) = (".vend-", ".part");

/// Where distributed Maps read their items and write their results.
#[derive(Debug, Clone, Default)]
pub struct Objects(pub Option<PathBuf>);

impl Objects {
    /// The object that the parameters of GetObject mean.
    pub fn read(&self, parameters: &Value) -> io::Result<Vec<u8>> {
        let path = self.path(text(parameters, "Bucket"), text(parameters, "Key"))?;
        let mut bytes = Vec::new();
        File::open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 > MOST {
            true => Err(io::Error::other(format!("it has more than {MOST} bytes"))),
            false => Ok(bytes),
        }
    }

    /// What ListObjectsV2 says of the objects whose key begins with `Prefix`, all in one page and sorted.
    pub fn list(&self, parameters: &Value) -> io::Result<Vec<Value>> {
        let bucket = self.path(text(parameters, "Bucket"), "")?;
        let prefix = text(parameters, "Prefix");
        let mut found = Vec::new();
        each_file(&bucket, |path, file| {
            if let Some(key) = path.strip_prefix(&bucket).ok().and_then(Path::to_str)
                && key.starts_with(prefix)
                && !is_draft(path)
            {
                found.push(described(key, &file.metadata()?));
            }
            match found.len() > LISTED {
                true => Err(io::Error::other(format!("there are more than {LISTED} objects"))),
                false => Ok(()),
            }
        })?;
        found.sort_by(|left, right| left["Key"].as_str().cmp(&right["Key"].as_str()));
        Ok(found)
    }

    /// Writes an object, or replaces it: whole or not at all, and on the disk when this returns. Without a directory
    /// it is dropped.
    pub fn write(&self, bucket: &str, key: &str, bytes: &[u8]) -> io::Result<()> {
        let Some(root) = &self.0 else {
            return Ok(());
        };
        let path = self.path(bucket, key)?;
        let parent = path.parent().unwrap_or(root);
        std::fs::create_dir_all(parent)?;
        let mut draft = tempfile::Builder::new()
            .prefix(DRAFT.0)
            .suffix(DRAFT.1)
            // As any new file: the process says what of it others may do.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(parent)?;
        draft.write_all(bytes)?;
        draft.as_file().sync_all()?;
        draft.persist(&path).map_err(|failed| failed.error)?;
        // Directories above may be new too, that of the tenant itself among them.
        for directory in parent.ancestors().take_while(|above| above.starts_with(root)) {
            File::open(directory)?.sync_all()?;
        }
        root.parent()
            .filter(|above| !above.as_os_str().is_empty())
            .map_or(Ok(()), |above| File::open(above)?.sync_all())
    }

    /// Can the directory be read, and something be written in it?
    pub fn probe(&self) -> io::Result<()> {
        let Some(root) = &self.0 else { return Ok(()) };
        std::fs::read_dir(root)?;
        let draft = tempfile::Builder::new()
            .prefix(DRAFT.0)
            .suffix(DRAFT.1)
            .tempfile_in(root)?;
        draft.close()
    }

    /// Removes what was being written before `since` when its writer was killed. Takes as long as the directory is large,
    /// or until `stop` says so.
    pub fn sweep(&self, since: SystemTime, stop: impl Fn() -> bool) -> io::Result<()> {
        let Some(root) = self.0.as_ref().filter(|root| root.exists()) else {
            return Ok(());
        };
        each_file(root, |path, file| {
            if stop() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if is_draft(path) && file.metadata()?.modified()? < since {
                std::fs::remove_file(path)?;
            }
            Ok(())
        })
    }

    /// A path in the directory; a definition cannot lead out of it.
    fn path(&self, bucket: &str, key: &str) -> io::Result<PathBuf> {
        let Some(root) = &self.0 else {
            return Err(io::Error::other("there is no directory of objects"));
        };
        let plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        let names = Path::new(bucket).components().count() == 1;
        if !names || !plain(Path::new(bucket)) || !plain(Path::new(key)) || is_draft(Path::new(key)) {
            return Err(io::Error::other(format!(
                "\"{bucket}/{key}\" does not name an object"
            )));
        }
        Ok(root.join(bucket).join(key))
    }
}

/// Every regular file below a directory; links are not followed, and what goes meanwhile is passed over.
fn each_file(
    root: &Path,
    mut each: impl FnMut(&Path, &std::fs::DirEntry) -> io::Result<()>,
) -> io::Result<()> {
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory != root => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() {
                match each(&path, &entry) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    done => done?,
                }
            }
        }
    }
    Ok(())
}

fn is_draft(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(DRAFT.0) && name.ends_with(DRAFT.1))
}

fn text<'a>(parameters: &'a Value, name: &str) -> &'a str {
    parameters[name].as_str().unwrap_or_default()
}

fn described(key: &str, metadata: &std::fs::Metadata) -> Value {
    let modified = metadata
        .modified()
        .ok()
        .and_then(|at| jiff::Timestamp::try_from(at).ok());
    let seconds = modified.map_or(0, |at| at.as_second());
    json!({
        "Etag": format!("\"{:x}-{seconds:x}\"", metadata.len()),
        "Key": key,
        "LastModified": seconds,
        "Size": metadata.len(),
        "StorageClass": "STANDARD",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("root")).unwrap();
        std::fs::write(directory.path().join("secret"), "x").unwrap();
        let objects = Objects(Some(directory.path().join("root")));
        objects.write("bucket", "a/b.json", b"[]").unwrap();
        let object = |bucket: &str, key: &str| objects.read(&json!({ "Bucket": bucket, "Key": key }));
        assert_eq!(object("bucket", "a/b.json").unwrap(), b"[]");
        for (bucket, key) in [
            ("..", "secret"),
            ("bucket", "../../secret"),
            ("bucket", "/etc/passwd"),
            ("a/b", "c"),
            ("", "x"),
        ] {
            assert!(object(bucket, key).is_err(), "{bucket} {key}");
        }
        let listed = objects
            .list(&json!({ "Bucket": "bucket", "Prefix": "a/" }))
            .unwrap();
        assert_eq!(
            (listed.len(), &listed[0]["Key"], &listed[0]["Size"]),
            (1, &json!("a/b.json"), &json!(2))
        );
        assert!(
            objects
                .list(&json!({ "Bucket": "bucket", "Prefix": "c" }))
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn an_object_is_replaced_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let objects = Objects(Some(directory.path().join("root")));
        objects.write("bucket", "a/b.json", b"before").unwrap();
        let mut reader = File::open(directory.path().join("root/bucket/a/b.json")).unwrap();
        objects.write("bucket", "a/b.json", b"after").unwrap();
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "before", "whoever reads it reads what it was");
        let object = json!({ "Bucket": "bucket", "Key": "a/b.json" });
        assert_eq!(objects.read(&object).unwrap(), b"after");

        objects.write("bucket", "a", b"x").unwrap_err();
        let left = std::fs::read_dir(directory.path().join("root/bucket")).unwrap();
        assert_eq!(left.count(), 1, "nothing is left of what failed");

        // As a process that was killed leaves it.
        let file = directory.path().join("root/bucket/a/.vend-x.part");
        std::fs::write(&file, "half").unwrap();
        let listed = objects.list(&json!({ "Bucket": "bucket" })).unwrap();
        assert_eq!((listed.len(), &listed[0]["Key"]), (1, &json!("a/b.json")));
        let draft = json!({ "Bucket": "bucket", "Key": "a/.vend-x.part" });
        assert!(objects.read(&draft).is_err());

        // Older than what writes now: a crash left it.
        let left = std::fs::metadata(&file).unwrap().modified().unwrap();
        objects.sweep(left, || false).unwrap();
        assert!(file.exists(), "somebody may be writing it");
        let later = left + std::time::Duration::from_secs(1);
        let stopped = objects.sweep(later, || true).unwrap_err();
        assert_eq!(stopped.kind(), io::ErrorKind::Interrupted);
        objects.sweep(later, || false).unwrap();
        assert!(!file.exists());
        assert!(objects.read(&object).is_ok());
    }
}
