//! Puts files where others are already. Knows nothing of what they are.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What stands in the way of a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} is a directory, and a file is to be there", .0.display())]
    Directory(PathBuf),
    #[error("cannot put {}", .path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Moves all that is in `from` to `to`, which is on the same file system: what has the same name there is replaced, and the rest
/// stays. A link there is replaced, and never followed; no directory gives way to a file.
pub fn over(from: &Path, to: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| Error::Io { path, source }
    };
    for entry in fs::read_dir(from).map_err(failed(from))? {
        let entry = entry.map_err(failed(from))?;
        let (own, target) = (entry.path(), to.join(entry.file_name()));
        let is_directory = entry.file_type().map_err(failed(&own))?.is_dir();
        let there = fs::symlink_metadata(&target).ok().map(|there| there.is_dir());
        match (is_directory, there) {
            (true, Some(true)) => {
                over(&own, &target)?;
                continue;
            }
            (false, Some(true)) => return Err(Error::Directory(target)),
            (true, Some(false)) => fs::remove_file(&target).map_err(failed(&target))?,
            (_, None) | (false, Some(false)) => {}
        }
        fs::rename(&own, &target).map_err(failed(&target))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_has_the_same_name_is_replaced_and_the_rest_stays() {
        let work = tempfile::tempdir().unwrap();
        let [from, again, to, elsewhere] = ["from", "again", "to", "elsewhere"].map(|name| {
            let path = work.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        });
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for name in ["app", "lib/a", "lib/deep/b", "linked/c", "new/d"] {
            write(from.join(name), "new");
        }
        for name in ["app", "mine", "lib/a", "lib/mine"] {
            write(to.join(name), "old");
        }
        // Nothing goes where somebody's link shows.
        symlink(&elsewhere, to.join("linked")).unwrap();
        over(&from, &to).unwrap();
        let read = |name: &str| fs::read_to_string(to.join(name)).unwrap();
        for name in ["app", "lib/a", "lib/deep/b", "linked/c", "new/d"] {
            assert_eq!(read(name), "new", "{name}");
        }
        assert_eq!(
            (read("mine"), read("lib/mine")),
            ("old".to_owned(), "old".to_owned())
        );
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);

        write(again.join("lib"), "a file");
        let refused = over(&again, &to).unwrap_err();
        assert!(
            matches!(&refused, Error::Directory(path) if path.ends_with("lib")),
            "{refused}"
        );
        assert_eq!(read("lib/mine"), "old");
    }
}
