//! The files of an image as a container sees them, without mounting it. Links are shown, never followed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, FileType, Metadata},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
};

use camino::{Utf8Path, Utf8PathBuf};

use crate::layer::{Error, copy::opaque, io_error};

/// Directories that lie over one another.
#[derive(Debug)]
pub(crate) struct View {
    /// Top first.
    layers: Vec<Utf8PathBuf>,
}

/// Something that is there.
#[derive(Debug)]
pub(crate) struct Found {
    pub path: Utf8PathBuf,
    pub metadata: Metadata,
}

/// A directory as a container sees it: where the layers have it, top first.
#[derive(Debug)]
pub(crate) struct Place(Vec<Utf8PathBuf>);

/// What has a name in a [`Place`].
#[derive(Debug)]
pub(crate) enum Inside {
    Directory(Place),
    /// A plain file, and where it lies.
    File(Utf8PathBuf),
}

/// The same while it is not known what the layers below say.
enum Known {
    Directory { place: Place, whole: bool },
    File(Utf8PathBuf),
    Other,
}

/// What one layer says about a path.
enum Said {
    Nothing,
    /// It is not there, whatever lies below.
    Gone,
    There(Found),
    /// Nothing itself, and what lies below is hidden.
    Hidden,
}

impl View {
    pub fn new(layers: Vec<Utf8PathBuf>) -> Self {
        Self { layers }
    }

    pub fn find(&self, path: &Utf8Path) -> Result<Option<Found>, Error> {
        for layer in &self.layers {
            match said(layer, path)? {
                Said::There(found) => return Ok(Some(found)),
                Said::Gone | Said::Hidden => return Ok(None),
                Said::Nothing => {}
            }
        }
        Ok(None)
    }

    /// The names in a directory.
    pub fn list(&self, path: &Utf8Path) -> Result<Vec<String>, Error> {
        // Whether it is there, by the layer that speaks first.
        let mut names: BTreeMap<String, bool> = BTreeMap::new();
        for layer in &self.layers {
            let found = match said(layer, path)? {
                Said::There(found) => found,
                Said::Gone | Said::Hidden => break,
                Said::Nothing => continue,
            };
            if !found.metadata.is_dir() {
                break;
            }
            for entry in found
                .path
                .read_dir_utf8()
                .map_err(io_error("read", &found.path))?
            {
                let entry = entry.map_err(io_error("read", &found.path))?;
                let metadata = fs::symlink_metadata(entry.path()).map_err(io_error("read", entry.path()))?;
                names
                    .entry(entry.file_name().to_owned())
                    .or_insert(!is_deletion(&metadata));
            }
            if opaque(&found.path) || ancestors_hide(layer, path) {
                break;
            }
        }
        Ok(names
            .into_iter()
            .filter(|(_, there)| *there)
            .map(|(name, _)| name)
            .collect())
    }

    /// The bytes of a plain file; `None` where there is none, or one that is larger than `most`.
    pub fn read(&self, path: &Utf8Path, most: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some(found) = self
            .find(path)?
            .filter(|found| found.metadata.is_file() && found.metadata.len() <= most)
        else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let file = fs::File::open(&found.path).map_err(io_error("read", &found.path))?;
        file.take(most)
            .read_to_end(&mut bytes)
            .map_err(io_error("read", &found.path))?;
        Ok(Some(bytes))
    }

    /// From where all of it can be walked, which looks at each file of each layer once.
    pub fn root(&self) -> Place {
        let hidden = self.layers.iter().position(opaque);
        Place(self.layers[..hidden.map_or(self.layers.len(), |at| at + 1)].to_vec())
    }

    /// Every path at which one of the topmost `count` layers says something, and all below where one hides what is below.
    pub fn touched(&self, count: usize) -> Result<BTreeSet<Utf8PathBuf>, Error> {
        let mut paths = BTreeSet::new();
        for layer in &self.layers[..count.min(self.layers.len())] {
            self.walk(layer, Utf8Path::new(""), &mut paths)?;
        }
        Ok(paths)
    }

    fn walk(
        &self,
        layer: &Utf8Path,
        below: &Utf8Path,
        paths: &mut BTreeSet<Utf8PathBuf>,
    ) -> Result<(), Error> {
        let directory = layer.join(below);
        for entry in directory.read_dir_utf8().map_err(io_error("read", &directory))? {
            let entry = entry.map_err(io_error("read", &directory))?;
            let path = below.join(entry.file_name());
            let kind = entry.file_type().map_err(io_error("read", entry.path()))?;
            if kind.is_dir() {
                self.walk(layer, &path, paths)?;
            }
            if !kind.is_dir() || opaque(entry.path()) {
                for view in self.layers.iter().skip_while(|own| *own != layer).skip(1) {
                    hidden(view, &path, paths)?;
                }
            }
            paths.insert(path);
        }
        Ok(())
    }
}

impl Place {
    /// The directories and plain files in it. `None` where the layers have more entries in it than are `left`.
    pub fn inside(&self, left: &mut u64) -> Result<Option<BTreeMap<String, Inside>>, Error> {
        let mut names: BTreeMap<String, Known> = BTreeMap::new();
        for layer in &self.0 {
            for entry in layer.read_dir_utf8().map_err(io_error("read", layer))? {
                let entry = entry.map_err(io_error("read", layer))?;
                let Some(fewer) = left.checked_sub(1) else {
                    return Ok(None);
                };
                *left = fewer;
                let kind = entry.file_type().map_err(io_error("read", entry.path()))?;
                let path = entry.path().to_owned();
                match names.get_mut(entry.file_name()) {
                    None => drop(names.insert(entry.file_name().to_owned(), Known::first(kind, path))),
                    Some(known) => known.further(kind, path),
                }
            }
        }
        let inside = names.into_iter().filter_map(|(name, known)| match known {
            Known::Directory { place, .. } => Some((name, Inside::Directory(place))),
            Known::File(path) => Some((name, Inside::File(path))),
            Known::Other => None,
        });
        Ok(Some(inside.collect()))
    }
}

impl Known {
    /// What the topmost layer says that knows the name.
    fn first(kind: FileType, path: Utf8PathBuf) -> Self {
        if kind.is_dir() {
            let whole = opaque(&path);
            let place = Place(vec![path]);
            Self::Directory { place, whole }
        } else if kind.is_file() {
            Self::File(path)
        } else {
            Self::Other
        }
    }

    /// What a layer below says counts only of a directory that is one there, too.
    fn further(&mut self, kind: FileType, path: Utf8PathBuf) {
        let Self::Directory { place, whole } = self else {
            return;
        };
        if !*whole && kind.is_dir() {
            *whole = opaque(&path);
            place.0.push(path);
        } else {
            *whole = true;
        }
    }
}

/// All that a layer has below a path that another layer hides.
fn hidden(layer: &Utf8Path, below: &Utf8Path, paths: &mut BTreeSet<Utf8PathBuf>) -> Result<(), Error> {
    let directory = layer.join(below);
    if !fs::symlink_metadata(&directory).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(());
    }
    for entry in directory.read_dir_utf8().map_err(io_error("read", &directory))? {
        let entry = entry.map_err(io_error("read", &directory))?;
        let path = below.join(entry.file_name());
        hidden(layer, &path, paths)?;
        paths.insert(path);
    }
    Ok(())
}

fn said(layer: &Utf8Path, path: &Utf8Path) -> Result<Said, Error> {
    let mut at = layer.to_owned();
    let mut hides = false;
    let mut metadata = fs::symlink_metadata(&at).map_err(io_error("read", &at))?;
    for part in path.components() {
        if !metadata.is_dir() {
            return Ok(Said::Gone);
        }
        hides |= opaque(&at);
        at.push(part);
        metadata = match fs::symlink_metadata(&at) {
            Ok(metadata) => metadata,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(if hides { Said::Hidden } else { Said::Nothing });
            }
            Err(error) => return Err(io_error("read", &at)(error)),
        };
        if is_deletion(&metadata) {
            return Ok(Said::Gone);
        }
    }
    Ok(Said::There(Found { path: at, metadata }))
}

fn ancestors_hide(layer: &Utf8Path, path: &Utf8Path) -> bool {
    path.ancestors().skip(1).any(|above| opaque(layer.join(above)))
}

fn is_deletion(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}
