//! Builds of a working tree on this machine, without a platform: a yard of its own, and what goes in and comes out as files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use camino::{Utf8Path, Utf8PathBuf};
use model::{
    Digest,
    port::{Built, LogChunk, LogRef, Resources},
};

use super::{
    Site, Yard,
    combine::{self, combine},
    over,
};
use crate::{
    bake::{self, Kitchen, Oven},
    base::{self, Bases, Mirror},
    container::{self, Containers},
    image::Images,
    layer::{self, Layers},
    logs,
    network::Outside,
    objects,
    oci::Reach,
    tree,
};

/// What objects of past builds may take.
const OBJECTS_BYTES: u64 = 20 << 30;

/// A place for builds, with its own images and caches.
#[derive(Debug)]
pub struct Workshop {
    pub yard: Yard,
    containers: Containers,
    objects: objects::Directory,
    logs: logs::Directory,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {path}")]
    Io {
        doing: &'static str,
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0} is not empty")]
    NotEmpty(Utf8PathBuf),
    #[error(transparent)]
    Container(#[from] container::Error),
    #[error(transparent)]
    Layer(#[from] layer::Error),
    #[error(transparent)]
    Objects(#[from] objects::Error),
    #[error(transparent)]
    Logs(#[from] logs::Error),
    #[error(transparent)]
    Bake(#[from] bake::Error),
    #[error(transparent)]
    Base(#[from] base::Error),
    #[error(transparent)]
    Build(#[from] super::Error),
    #[error(transparent)]
    Tree(#[from] tree::Error),
    #[error(transparent)]
    Combine(#[from] combine::Error),
    #[error(transparent)]
    Over(#[from] over::Error),
}

fn io_error(doing: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { doing, path, source }
}

impl Workshop {
    /// Opens `directory`, which no other process may use meanwhile. [`container::enter_private_mounts`] came first.
    /// `program` as in [`Site`].
    pub async fn open(
        directory: &Utf8Path,
        program: Utf8PathBuf,
        at_once: usize,
        limits: Resources,
    ) -> Result<Self, Error> {
        fs::create_dir_all(directory).map_err(io_error("create", directory))?;
        let containers = Containers::open(directory).await?;
        // Whoever runs this reaches what the machine reaches.
        let opened = containers.networks().open_to(Outside::Anywhere).await;
        opened.map_err(container::Error::from)?;
        let objects = objects::Directory::open(directory, OBJECTS_BYTES)?;
        let logs = logs::Directory::open(directory)?;
        let layers = Layers::open(directory)?;
        let oven = Oven::open(Kitchen {
            node: directory.to_owned(),
            containers: containers.clone(),
            objects: objects.clone(),
            logs: logs.clone(),
            images: Images::open(directory, layers.clone())?,
            bases: Bases::open(
                directory,
                layers.clone(),
                Mirror::of_this_machine(),
                // Whoever runs this reaches what the machine reaches.
                Reach::Anywhere,
            )?,
            layers,
            program: program.clone(),
            limits,
            at_once: 1,
        })?;
        let yard = Yard::open(Site {
            node: directory.to_owned(),
            containers: containers.clone(),
            objects: objects.clone(),
            logs: logs.clone(),
            oven,
            program,
            at_once,
            queued: super::QUEUED,
            labels: BTreeMap::new(),
            apart: false,
        })?;
        Ok(Self {
            yard,
            containers,
            objects,
            logs,
        })
    }

    /// Keeps a working tree: these files of it, or all when `None`. Every file gets the time `mtime`.
    pub fn keep(
        &self,
        directory: &Utf8Path,
        files: Option<BTreeSet<PathBuf>>,
        mtime: u64,
    ) -> Result<Digest, Error> {
        let root = directory.as_std_path();
        let files = match files {
            Some(files) => files,
            None => {
                let mut all = BTreeSet::new();
                walk(root, Path::new(""), &mut all).map_err(io_error("read", directory))?;
                all
            }
        };
        let file = tempfile(directory)?;
        let mut packer = tree::Packer::new(io::BufWriter::with_capacity(1 << 18, file), mtime);
        for name in files {
            let path = root.join(&name);
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            if metadata.is_symlink() {
                let target = fs::read_link(&path).map_err(io_error("read", directory))?;
                packer.symlink(&name, &target)?;
            } else if metadata.is_file() {
                packer.file(&name, &path)?;
            }
        }
        let (to, _) = packer.finish()?;
        let mut file = to
            .into_inner()
            .map_err(|error| io_error("pack", directory)(error.into_error()))?;
        file.seek(SeekFrom::Start(0))
            .map_err(io_error("pack", directory))?;
        Ok(self.objects.keep(file, directory)?)
    }

    /// Unpacks what a build left: the artifact into `directory`, each secondary one into a directory of its name in there. With
    /// `force` what is there of the same names is replaced.
    pub fn unpack(
        &self,
        artifact: Option<Digest>,
        secondary: &BTreeMap<String, Digest>,
        directory: &Utf8Path,
        force: bool,
    ) -> Result<(), Error> {
        placed(directory, force, |to| self.unpack_to(artifact, secondary, to))
    }

    fn unpack_to(
        &self,
        artifact: Option<Digest>,
        secondary: &BTreeMap<String, Digest>,
        directory: &Utf8Path,
    ) -> Result<(), Error> {
        let own = artifact.map(|digest| (directory.to_owned(), digest));
        let others = secondary
            .iter()
            .map(|(name, digest)| (directory.join(name), *digest));
        for (to, digest) in own.into_iter().chain(others) {
            fs::create_dir_all(&to).map_err(io_error("create", &to))?;
            let mut object = self.objects.open_object(&digest)?;
            tree::unpack(&mut object, &to, &tree::Limits::SOURCE)?;
            object.finish()?;
        }
        Ok(())
    }

    /// Unpacks what all builds of a batch left, side by side. `force` as in [`Workshop::unpack`].
    pub fn unpack_combined(
        &self,
        built: &[(String, Built)],
        directory: &Utf8Path,
        force: bool,
    ) -> Result<(), Error> {
        combine::fits(built.iter().map(|(_, built)| built.size_bytes))?;
        let mut parts = Vec::new();
        for (name, built) in built {
            let mut file = tempfile(directory)?;
            let mut object = self.objects.open_object(&built.artifact)?;
            io::copy(&mut object, &mut file).map_err(io_error("combine", directory))?;
            object.finish()?;
            parts.push((name.clone(), file));
        }
        let mut whole = tempfile(directory)?;
        combine(parts, &mut whole, || false)?;
        whole
            .seek(SeekFrom::Start(0))
            .map_err(io_error("combine", directory))?;
        placed(directory, force, |to| {
            fs::create_dir_all(to).map_err(io_error("create", to))?;
            Ok(tree::unpack(whole, to, &tree::Limits::SOURCE).map(drop)?)
        })
    }

    /// The next piece of a log.
    pub fn read(&self, log: &LogRef, offset: u64) -> Result<LogChunk, Error> {
        Ok(self.logs.chunk(log, offset)?)
    }

    /// Where its logs are, also when it is closed.
    pub fn logs(&self) -> &logs::Directory {
        &self.logs
    }

    /// Leaves nothing on the machine but the directory.
    pub async fn close(self) -> Result<(), Error> {
        Ok(self.containers.teardown_all().await?)
    }
}

/// Has `unpack` write into a directory; with `force` beside what is in it, over which all is put when it is whole.
fn placed(
    directory: &Utf8Path,
    force: bool,
    unpack: impl FnOnce(&Utf8Path) -> Result<(), Error>,
) -> Result<(), Error> {
    if !force {
        return unpack(directory);
    }
    fs::create_dir_all(directory).map_err(io_error("create", directory))?;
    let beside = tempfile::Builder::new().prefix(".vend-").tempdir_in(directory);
    let beside = beside.map_err(io_error("write to", directory))?;
    let own = Utf8Path::from_path(beside.path()).expect("below a path that is UTF-8, by a name that is");
    unpack(own)?;
    Ok(over::over(own.as_std_path(), directory.as_std_path())?)
}

/// A directory that is not there, or has nothing in it.
pub fn is_free(directory: &Utf8Path) -> Result<(), Error> {
    match directory.read_dir_utf8().map(Iterator::count) {
        Ok(1..) => Err(Error::NotEmpty(directory.to_owned())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("read", directory)(error)),
        _ => Ok(()),
    }
}

/// A file without a name, which goes with its last descriptor.
fn tempfile(directory: &Utf8Path) -> Result<fs::File, Error> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let memory = || rustix::fs::memfd_create("vend-source", flags).map(fs::File::from);
    let temporary = std::env::temp_dir();
    let open = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let on_disk = rustix::fs::openat(
        rustix::fs::CWD,
        &temporary,
        open,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    );
    on_disk
        .map(fs::File::from)
        .or_else(|_| memory())
        .map_err(|errno| io_error("pack", directory)(errno.into()))
}

/// Names of all files and links below a directory; links are not followed.
fn walk(root: &Path, name: &Path, all: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(name))? {
        let entry = entry?;
        let name = name.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => walk(root, &name, all)?,
            false => drop(all.insert(name)),
        }
    }
    Ok(())
}

/// Names of all files below a directory of a tree, such as its `.git`.
pub fn below(root: &Utf8Path, name: &str, all: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    match root.join(name).is_dir() {
        true => walk(root.as_std_path(), Path::new(name), all),
        false => Ok(()),
    }
}
