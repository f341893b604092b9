//! The table on disk: what the edge starts from when every other role is dead.

use std::{
    fs::{self, File},
    io::{self, Write},
};

use camino::Utf8Path;
use model::route::Table;

/// Why there is no table to start from. A file that is not there is no error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not a route table")]
    Json {
        path: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path} holds a route table that is not valid")]
    Invalid {
        path: String,
        #[source]
        source: model::route::Invalid,
    },
}

/// The table that was last acknowledged.
pub fn read(path: &Utf8Path) -> Result<Option<Table>, Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            let path = path.to_string();
            return Err(Error::Read { path, source });
        }
    };
    let table: Table = serde_json::from_slice(&bytes).map_err(|source| Error::Json {
        path: path.to_string(),
        source,
    })?;
    table.check().map_err(|source| Error::Invalid {
        path: path.to_string(),
        source,
    })?;
    Ok(Some(table))
}

/// Replaces the snapshot in one step. When this returns, the new table survives a power cut.
pub fn write(path: &Utf8Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|p| !p.as_str().is_empty())
        .unwrap_or(Utf8Path::new("."));
    fs::create_dir_all(folder)?;
    let new = path.with_extension("json.new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

/// Puts an unreadable snapshot aside, so that its evidence stays and the next one can be written.
pub fn set_aside(path: &Utf8Path) -> io::Result<()> {
    fs::rename(path, path.with_extension("json.bad"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_back_and_a_broken_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path())
            .unwrap()
            .join("deep/table.json");
        assert!(read(&path).unwrap().is_none());
        let table = Table {
            version: 3,
            ..Table::default()
        };
        write(&path, &serde_json::to_vec(&table).unwrap()).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), table);
        fs::write(&path, "{\"version\":").unwrap();
        assert!(matches!(read(&path), Err(Error::Json { .. })));
        set_aside(&path).unwrap();
        assert!(read(&path).unwrap().is_none());
    }
}
