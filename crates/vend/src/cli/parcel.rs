//! What the platform gives as a tar: into a file, or through one into a directory. Nothing that is there is written over.

use std::{
    fs,
    io::{self, Write as _},
};

use axum::http::HeaderMap;
use camino::{Utf8Path, Utf8PathBuf};
use host::tree::Limits;
use http_body_util::BodyExt as _;

use super::{Client, Failure};

/// Where a tar goes.
pub struct Parcel<'a> {
    /// A file that ends in `.tar`, or a directory that is empty or not there.
    pub to: &'a Utf8Path,
    /// Replace the file that is there.
    pub force: bool,
    /// What may be unpacked.
    pub limits: &'static Limits,
}

impl Parcel<'_> {
    /// Streams what is at a path of the platform. Gives what is said about it.
    pub async fn take(&self, path: &str, client: &Client) -> Result<HeaderMap, Failure> {
        let to = self.to;
        if is_archive(to) {
            // A file that is to be replaced stays until there is another.
            let part = Utf8PathBuf::from(format!("{to}.part"));
            let said = fetch(path, &part, client).await?;
            fs::rename(&part, to).map_err(|error| local("write", to, &error))?;
            return Ok(said);
        }
        or_nothing(to, self.unpacked(path, client)).await
    }

    /// Through an archive in the directory itself, which has the room.
    async fn unpacked(&self, path: &str, client: &Client) -> Result<HeaderMap, Failure> {
        let to = self.to;
        fs::create_dir_all(to).map_err(|error| local("create", to, &error))?;
        // A name that nothing in it can have: whoever made it could not know it.
        let named = tempfile::Builder::new()
            .prefix(".parcel-")
            .suffix(".tar")
            .tempfile_in(to);
        let archive = named
            .map_err(|error| local("write to", to, &error))?
            .into_temp_path();
        let path_of =
            |path| Utf8Path::from_path(path).ok_or_else(|| Failure::failed("its path is not UTF-8"));
        let file = path_of(&archive)?;
        let said = fetch(path, file, client).await?;
        unpack(file, to, self.limits).inspect_err(|_| empty(to, file))?;
        Ok(said)
    }

    /// Refuses to write over what is there.
    pub fn is_free(&self) -> Result<(), Failure> {
        let to = self.to;
        let refused = |what: String, next: String| Err(Failure::failed(what).next(next));
        if is_archive(to) {
            return match (to.is_dir(), to.exists() && !self.force) {
                (true, _) => refused(format!("{to} is a directory"), "name another file".to_owned()),
                (_, true) => refused(
                    format!("{to} is there already"),
                    "name another file, or replace it with --force".to_owned(),
                ),
                _ => Ok(()),
            };
        }
        // `shop-1.0` is a directory, `shop.txt` a mistake.
        let is_file = |end: &str| end.starts_with(|c: char| c.is_ascii_alphabetic());
        if !to.exists() && to.extension().is_some_and(is_file) {
            return refused(
                format!("{to} does not end in .tar"),
                format!(
                    "it is a plain tar: {}.tar; or a directory, which may have this name when it is there",
                    to.as_str().trim_end_matches(".gz").trim_end_matches(".tar")
                ),
            );
        }
        match to.read_dir_utf8().map(Iterator::count) {
            Ok(0) => Ok(()),
            Ok(_) => refused(
                format!("the directory {to} is not empty"),
                format!("name another directory, or a file: {to}.tar"),
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => refused(
                format!("{to} is a file that does not end in .tar"),
                format!("name a directory, or a file: {to}.tar"),
            ),
            Err(error) => Err(local("read", to, &error)),
        }
    }
}

/// What makes a directory, and directories for it: when that fails, those that it made go again.
async fn or_nothing<T>(
    directory: &Utf8Path,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let absent: Vec<&Utf8Path> = directory.ancestors().take_while(|path| !path.exists()).collect();
    let done = work.await;
    if done.is_err() {
        // One that holds anything stays.
        absent.into_iter().for_each(|path| drop(fs::remove_dir(path)));
    }
    done
}

/// Half of it is nothing: the directory is as it was, but for the archive, which goes by itself.
fn empty(directory: &Utf8Path, archive: &Utf8Path) {
    let entries = directory.read_dir_utf8().into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.path() != archive) {
        let path = entry.path();
        let _ = match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        };
    }
}

fn is_archive(to: &Utf8Path) -> bool {
    to.extension() == Some("tar")
}

/// Streams what is at a path of the platform into a file. Gives what is said about it.
pub async fn fetch(path: &str, to: &Utf8Path, client: &Client) -> Result<HeaderMap, Failure> {
    let (said, mut body) = client.stream(path).await?;
    let mut file = io::BufWriter::new(fs::File::create(to).map_err(|error| local("create", to, &error))?);
    let written = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::failed(format!("it broke off: {error}")))?;
            if let Some(bytes) = frame.data_ref() {
                file.write_all(bytes)
                    .map_err(|error| local("write", to, &error))?;
            }
        }
        file.flush().map_err(|error| local("write", to, &error))
    };
    let written = written.await;
    if written.is_err() {
        // Half of it is nothing.
        let _ = fs::remove_file(to);
    }
    written.map(|()| said)
}

pub fn unpack(archive: &Utf8Path, into: &Utf8Path, limits: &Limits) -> Result<(), Failure> {
    let file = fs::File::open(archive).map_err(|error| local("open", archive, &error))?;
    let unpacked = host::tree::unpack(file, into, limits);
    unpacked
        .map(drop)
        .map_err(|error| Failure::failed(crate::flow::chain(&error)))
}

/// What this machine did not do.
pub fn local(doing: &str, path: &Utf8Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot {doing} {path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_free(to: &Utf8Path, force: bool) -> Result<(), Failure> {
        let limits = &Limits::SOURCE;
        Parcel { to, force, limits }.is_free()
    }

    #[tokio::test]
    async fn what_fails_leaves_no_directory_that_was_not_there() {
        let work = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(work.path()).unwrap();
        let there = root.join("there");
        fs::create_dir(&there).unwrap();
        for directory in [
            root.join("new"),
            root.join("new/and/deep"),
            there.clone(),
            there.join("new"),
        ] {
            let failing = async {
                fs::create_dir_all(&directory).unwrap();
                Err::<(), _>(Failure::failed("there is no such artifact"))
            };
            or_nothing(&directory, failing).await.unwrap_err();
            assert!(there.exists() && !root.join("new").exists(), "{directory}");
            assert!(!there.join("new").exists());
        }
        let directory = there.join("kept");
        let done = or_nothing(&directory, async {
            fs::create_dir_all(&directory).unwrap();
            Ok(())
        });
        done.await.unwrap();
        assert!(directory.exists());
    }

    #[test]
    fn nothing_that_is_there_is_written_over() {
        let work = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(work.path()).unwrap();
        let (file, directory) = (root.join("a.tar"), root.join("layout"));
        assert!(is_free(&file, false).is_ok() && is_free(&directory, false).is_ok());
        assert!(is_free(&root.join("shop-1.0"), false).is_ok());
        for odd in ["site.txt", "a.tar.gz", "a.tgz"].map(|name| root.join(name)) {
            let next = is_free(&odd, false).unwrap_err().next.unwrap();
            assert!(next.contains(".tar;") && !next.contains(".tar.tar"), "{next}");
            fs::create_dir(&odd).unwrap();
            assert!(is_free(&odd, false).is_ok());
        }
        fs::create_dir(&directory).unwrap();
        assert!(is_free(&directory, false).is_ok());
        fs::write(&file, "mine").unwrap();
        fs::write(directory.join("mine"), "mine").unwrap();
        for path in [&file, &directory, &directory.join("mine")] {
            let failure = is_free(path, false).unwrap_err();
            assert!(failure.next.is_some(), "{failure:?}");
        }
        assert!(is_free(&file, true).is_ok() && is_free(&directory, true).is_err());
    }
}
