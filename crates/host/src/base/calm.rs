//! A place to install thousands of packages' files in without waiting for the disk after each: `dpkg` flushes all that it
//! writes, and so most of the time that a base took was waiting. A layer is flushed once, when it is complete.

use std::{fs, io};

use camino::{Utf8Path, Utf8PathBuf};

use super::Error;
use crate::{
    layer::{Staging, io_error, remove_tree},
    mount,
};

/// The files of a layer in the making, seen through an overlay that flushes nothing. It ends with this value, or with
/// the process: its mounts are its own.
pub(super) struct Calm {
    work: Utf8PathBuf,
}

impl Calm {
    pub fn over(staging: &Staging) -> Result<Self, Error> {
        let calm = Self {
            work: staging.workshop(),
        };
        let place = |name: &str| {
            let path = calm.work.join(name);
            fs::create_dir_all(&path).map_err(io_error("create", &path))?;
            Ok::<Utf8PathBuf, Error>(path)
        };
        let (lower, work, root) = (place("lower")?, place("overlay")?, place("root")?);
        mount::unflushed(&lower, &staging.files(), &work, &root).map_err(failed)?;
        Ok(calm)
    }

    /// Where to write.
    pub fn root(&self) -> Utf8PathBuf {
        self.work.join("root")
    }

    /// What was written is in the staging, and nothing else.
    pub fn end(self) -> Result<(), Error> {
        mount::detach(&self.root()).map_err(failed)?;
        Ok(remove_tree(&self.work)?)
    }
}

impl Drop for Calm {
    fn drop(&mut self) {
        let _ = mount::detach(&self.root());
    }
}

fn failed(error: mount::Error) -> Error {
    let mount::Error { doing, path, source } = error;
    io_error(doing, Utf8Path::new(&path))(io::Error::new(source.kind(), source)).into()
}
