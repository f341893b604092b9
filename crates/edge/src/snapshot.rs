//! The table on disk: what the edge starts from when every other role is dead.
//!
//! One file of [`lines`]. A change is one line at the end, so that it costs what it is and not what the table is. When
//! the changes outgrow the table, or most of it is another, the file is written anew beside and takes the old one's
//! place in one step.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    sync::Arc,
};

use camino::{Utf8Path, Utf8PathBuf};
use model::route::{Delta, Invalid};
use tokio::task::JoinHandle;

use crate::{
    balance::Group,
    lines::{self, Bad, LINE},
    table::Rule,
};

/// Changes below this are not worth a new file.
const SHORT: u64 = 1024 * 1024;

/// Why there is no table to start from. A file that is not there is no error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}")]
    Read {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("line {line} of {path} is not as it was written")]
    Damaged { path: Utf8PathBuf, line: usize },
    #[error("line {line} of {path} holds no valid change of the table")]
    Invalid {
        path: Utf8PathBuf,
        line: usize,
        #[source]
        source: Invalid,
    },
}

/// A whole table on disk, and its length.
type Made = (File, u64);

/// The file, open for more.
pub struct Log {
    path: Utf8PathBuf,
    file: Option<Arc<File>>,
    /// Bytes of the file, and of the table at its start.
    length: u64,
    table: u64,
    /// A new file in the making, and the lines that have been added to the old one since.
    making: Option<(JoinHandle<io::Result<Made>>, Vec<u8>)>,
}

impl Log {
    pub fn new(path: Utf8PathBuf) -> Self {
        Self {
            path,
            file: None,
            length: 0,
            table: 0,
            making: None,
        }
    }

    /// Gives the table and every change since to `sink`, in order. A last line that is not whole was never acknowledged:
    /// it is left out, and overwritten by the next.
    pub fn read(&mut self, sink: impl FnMut(Delta) -> Result<(), Invalid>) -> Result<(), Error> {
        let path = self.path.clone();
        let failed = |source| Error::Read {
            path: path.clone(),
            source,
        };
        let file = match OpenOptions::new().read(true).write(true).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(failed(source)),
        };
        let read = lines::parse(&file, sink).map_err(|bad| match bad {
            Bad::Read(source) => failed(source),
            Bad::Line(line) => Error::Damaged {
                path: path.clone(),
                line,
            },
            Bad::Invalid(line, source) => Error::Invalid {
                path: path.clone(),
                line,
                source,
            },
        })?;
        file.set_len(read.all).map_err(failed)?;
        (self.length, self.table) = (read.all, read.table);
        self.file = Some(Arc::new(file));
        Ok(())
    }

    /// Puts an unreadable snapshot aside, so that its evidence stays and the next one can be written.
    pub fn set_aside(&self) -> io::Result<()> {
        fs::rename(&self.path, format!("{}.bad", self.path))
    }

    /// Writes one change. It survives the end of the process, not yet of the machine.
    pub fn append(&mut self, delta: &Delta) -> io::Result<()> {
        let line = lines::line(delta)?;
        if line.len() > LINE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if self.file.is_none() {
            self.create()?;
        }
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        use std::os::unix::fs::FileExt;
        if let Err(error) = file.write_all_at(&line, self.length) {
            // Half a line would hide the next one.
            let _ = file.set_len(self.length);
            return Err(error);
        }
        self.length += line.len() as u64;
        if let Some((_, since)) = &mut self.making {
            since.extend_from_slice(&line);
        }
        Ok(())
    }

    fn create(&mut self) -> io::Result<()> {
        let made = write(&self.path, 0, &[], &[])?;
        self.replace(made, &[])?;
        sync_folder(&self.path)
    }

    /// Writes a whole table in the place of what is there. When this returns, it survives the end of the machine, but for
    /// what the inner result says.
    pub async fn write(
        &mut self,
        version: u64,
        rules: Vec<Rule>,
        groups: Vec<Group>,
    ) -> io::Result<io::Result<()>> {
        if let Some((making, _)) = self.making.take() {
            // It would be written to the same place; nobody needs it any more.
            let _ = making.await;
        }
        let path = self.path.clone();
        let making = tokio::task::spawn_blocking(move || write(&path, version, &rules, &groups));
        let made = making.await.map_err(io::Error::other)??;
        self.replace(made, &[])?;
        Ok(sync_folder(&self.path))
    }

    /// Waits until what was written survives a power cut.
    pub async fn sync(&self) -> io::Result<()> {
        let Some(file) = self.file.clone() else {
            return Ok(());
        };
        tokio::task::spawn_blocking(move || file.sync_data())
            .await
            .map_err(io::Error::other)?
    }

    /// The changes have outgrown the table.
    pub fn is_long(&self) -> bool {
        self.making.is_none() && self.length > SHORT.max(self.table * 2)
    }

    /// Begins to write the table anew, beside.
    pub fn rewrite(&mut self, version: u64, rules: Vec<Rule>, groups: Vec<Group>) {
        let path = self.path.clone();
        let making = tokio::task::spawn_blocking(move || write(&path, version, &rules, &groups));
        self.making = Some((making, Vec::new()));
    }

    /// When a new file is ready, takes it in the old one's place. Pending while there is none in the making.
    pub async fn rewritten(&mut self) {
        let Some((making, _)) = &mut self.making else {
            return std::future::pending().await;
        };
        let made = making.await;
        let since = self.making.take().map(|(_, since)| since).unwrap_or_default();
        let replaced = made
            .map_err(io::Error::other)
            .and_then(|made| made)
            .and_then(|made| self.replace(made, &since))
            .and_then(|()| sync_folder(&self.path));
        if let Err(error) = replaced {
            // The old file goes on; it is tried again when there are more changes.
            self.table = self.length;
            tracing::warn!(%error, path = %self.path, "cannot write the route table anew");
        }
    }

    /// Takes a new file, with these lines more, in the old one's place.
    fn replace(&mut self, (file, length): Made, since: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        if !since.is_empty() {
            file.write_all_at(since, length)?;
            file.sync_all()?;
        }
        fs::rename(new_path(&self.path), &self.path)?;
        // From here on the old one is gone, whatever comes.
        self.length = length + since.len() as u64;
        (self.file, self.table) = (Some(Arc::new(file)), length);
        Ok(())
    }
}

fn new_path(path: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{path}.new"))
}

fn folder(path: &Utf8Path) -> &Utf8Path {
    path.parent()
        .filter(|p| !p.as_str().is_empty())
        .unwrap_or(Utf8Path::new("."))
}

fn sync_folder(path: &Utf8Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// Writes a whole table beside `path`, and says how long it is.
fn write(path: &Utf8Path, version: u64, rules: &[Rule], groups: &[Group]) -> io::Result<Made> {
    fs::create_dir_all(folder(path))?;
    let file = OpenOptions::new()
        .write(true)
        .read(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(new_path(path))?;
    let mut out = BufWriter::new(&file);
    let groups = groups
        .iter()
        .map(|group| (group.name().to_owned(), group.source()));
    for line in lines::table(version, groups, rules.iter().map(Rule::source)) {
        out.write_all(&line?)?;
    }
    out.flush()?;
    drop(out);
    file.sync_all()?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(folder: &tempfile::TempDir) -> Log {
        Log::new(Utf8Path::from_path(folder.path()).unwrap().join("deep/table.log"))
    }

    fn change(version: u64) -> Delta {
        Delta {
            from: Some(version - 1),
            version,
            ..Delta::default()
        }
    }

    fn versions(log: &mut Log) -> Result<Vec<u64>, Error> {
        let mut versions = Vec::new();
        log.read(|delta| {
            versions.push(delta.version);
            Ok(())
        })?;
        Ok(versions)
    }

    #[test]
    fn changes_read_back_and_a_torn_one_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        assert!(versions(&mut log(&folder)).unwrap().is_empty());
        let mut first = log(&folder);
        for version in 1..=3 {
            first.append(&change(version)).unwrap();
        }
        let whole = fs::read(&first.path).unwrap();
        let last = whole.len() - whole.split_inclusive(|b| *b == b'\n').next_back().unwrap().len();
        for cut in last..whole.len() {
            fs::write(&first.path, &whole[..cut]).unwrap();
            let mut again = log(&folder);
            assert_eq!(versions(&mut again).unwrap(), [0, 1, 2], "cut at {cut}");
            again.append(&change(3)).unwrap();
            assert_eq!(fs::read(&first.path).unwrap(), whole);
        }
    }

    #[test]
    fn damage_is_named_and_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = log(&folder);
        for version in 1..=3 {
            first.append(&change(version)).unwrap();
        }
        let mut bytes = fs::read(&first.path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&first.path, &bytes).unwrap();
        assert!(matches!(
            versions(&mut log(&folder)),
            Err(Error::Damaged { line: 2 | 3, .. })
        ));
        first.set_aside().unwrap();
        assert!(versions(&mut log(&folder)).unwrap().is_empty());
        fs::write(&first.path, "{\"version\": 9, \"rules\": [").unwrap();
        assert!(matches!(
            versions(&mut log(&folder)),
            Err(Error::Damaged { line: 1, .. })
        ));
    }

    #[tokio::test]
    async fn a_new_file_has_what_came_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = log(&folder);
        first.append(&change(1)).unwrap();
        first.rewrite(1, Vec::new(), Vec::new());
        first.append(&change(2)).unwrap();
        first.rewritten().await;
        first.append(&change(3)).unwrap();
        assert_eq!(versions(&mut log(&folder)).unwrap(), [1, 2, 3]);
    }
}
