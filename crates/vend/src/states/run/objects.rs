//! An object store that is a directory: `BUCKET/KEY` in it is an object.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

use serde_json::{Value, json};

/// Bytes of one object.
const MOST: u64 = 256 * 1024 * 1024;
/// Objects that one listing may have.
const LISTED: usize = 100_000;

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
        let (mut found, mut open) = (Vec::new(), vec![bucket.clone()]);
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory)? {
                let entry = entry?;
                let (path, kind) = (entry.path(), entry.file_type()?);
                if kind.is_dir() {
                    open.push(path);
                } else if let Some(key) = path.strip_prefix(&bucket).ok().and_then(Path::to_str)
                    && kind.is_file()
                    && key.starts_with(prefix)
                {
                    found.push(described(key, &entry.metadata()?));
                }
                if found.len() > LISTED {
                    return Err(io::Error::other(format!("there are more than {LISTED} objects")));
                }
            }
        }
        found.sort_by(|left, right| left["Key"].as_str().cmp(&right["Key"].as_str()));
        Ok(found)
    }

    /// Writes an object; without a directory it is dropped.
    pub fn write(&self, bucket: &str, key: &str, bytes: &[u8]) -> io::Result<()> {
        if self.0.is_none() {
            return Ok(());
        }
        let path = self.path(bucket, key)?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, bytes)
    }

    /// A path in the directory; a definition cannot lead out of it.
    fn path(&self, bucket: &str, key: &str) -> io::Result<PathBuf> {
        let Some(root) = &self.0 else {
            return Err(io::Error::other("there is no directory of objects"));
        };
        let plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        let names = Path::new(bucket).components().count() == 1;
        if !names || !plain(Path::new(bucket)) || !plain(Path::new(key)) {
            return Err(io::Error::other(format!(
                "\"{bucket}/{key}\" does not name an object"
            )));
        }
        Ok(root.join(bucket).join(key))
    }
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
}
