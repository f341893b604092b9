//! What of a source tree counts for an image: its scripts, and the inputs that they see.

mod names;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use camino::Utf8PathBuf;
use globset::GlobSet;
use model::{Digest, port::BakeOrder, spec::Base};
use sha2::{Digest as _, Sha256};

use super::{Error, script::Downloads};
use crate::{
    layer, objects, oci,
    tree::{self, Kind, Limits, Member},
};

/// Variables that a script may read. One that a script or an input may read is a part of what makes the layer ([`names`]);
/// the others change nothing in it, and so a new commit does not make a new image.
pub(super) const VARIABLES: [&str; 8] = [
    "VEND_TENANT",
    "VEND_APP",
    "VEND_ENVIRONMENT",
    "VEND_COMMIT_ID",
    "VEND_COMMIT_AUTHOR",
    "VEND_COMMIT_MESSAGE",
    "VEND_COMMIT_BRANCH",
    "VEND_COMMIT_REPOSITORY",
];

/// All members of one source tree, by path.
#[derive(Debug)]
pub(super) struct Index(BTreeMap<PathBuf, Entry>);

#[derive(Debug)]
struct Entry {
    /// What tells two versions of it apart: kind, mode and bytes.
    digest: Digest,
    is_file: bool,
    /// Of [`VARIABLES`], by index.
    names: BTreeSet<usize>,
}

/// One script of an image with the key of the layer that it makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub script: Utf8PathBuf,
    pub key: Digest,
    /// Of the script's own bytes and mode.
    pub digest: Digest,
}

impl Index {
    pub fn read(objects: &objects::Directory, source: &Digest) -> Result<Self, Error> {
        let mut object = objects.open_object(source)?;
        let mut entries = BTreeMap::new();
        tree::visit(&mut object, &Limits::SOURCE, |member, bytes| {
            if member.kind != Kind::Directory {
                entries.insert(member.path.clone(), entry(member, bytes)?);
            }
            Ok(())
        })?;
        object.finish()?;
        Ok(Self(entries))
    }

    /// The layers of an image on a base, bottom first: of each the one made on the branch's own downloads, unless only
    /// one is `there` that was made on those that the branch begins with.
    pub fn steps(
        &self,
        order: &BakeOrder,
        base: Digest,
        downloads: &Downloads,
        there: impl Fn(&Digest) -> Result<bool, layer::Error>,
    ) -> Result<Vec<Step>, Error> {
        // A script that runs later is not seen, unless it is an input; one that ran before is in the parent's key.
        let chosen = Chosen::new(order, 0)?;
        let inputs: Vec<(&PathBuf, &Entry)> =
            self.0.iter().filter(|(path, _)| chosen.contains(path)).collect();
        for pattern in &order.inputs {
            if !self.matches(pattern)? {
                return Err(Error::NoInput(pattern.clone()));
            }
        }
        let values = super::variables(order);
        let mut parent = base;
        let mut steps = Vec::new();
        for script in &order.scripts {
            let found = self.0.get(script.as_std_path()).filter(|entry| entry.is_file);
            let found = found.ok_or_else(|| Error::NoScript(script.clone()))?;
            let what = what(script, found, &inputs, &values);
            let made = |downloads: &str| {
                // What a script downloads comes out of a cache. Who could run the same script on a cache of his making, be it
                // another tenant, another app or another branch, must not make this one's layers.
                let head: [&[u8]; 4] = [
                    b"vend layer 5",
                    parent.as_bytes(),
                    base.as_bytes(),
                    downloads.as_bytes(),
                ];
                Digest::of_parts(head.into_iter().chain(what.iter().map(Vec::as_slice)))
            };
            let known = first_there(downloads.names().map(made), &there)?;
            parent = known.unwrap_or_else(|| made(&downloads.own));
            steps.push(Step {
                script: script.clone(),
                key: parent,
                digest: found.digest,
            });
        }
        Ok(steps)
    }

    /// What tells two versions of a file apart, or of a directory with all in it; `None` where there is nothing.
    pub fn digest_of(&self, path: &camino::Utf8Path) -> Option<Digest> {
        let mut below = self
            .0
            .iter()
            .filter(|(own, _)| own.starts_with(path.as_std_path()))
            .flat_map(|(own, entry)| {
                [
                    own.as_os_str().as_encoded_bytes().to_vec(),
                    entry.digest.hex().into(),
                ]
            })
            .peekable();
        below.peek()?;
        Some(Digest::of_parts(below))
    }

    fn matches(&self, pattern: &str) -> Result<bool, Error> {
        let globs = globs(&[pattern.to_owned()])?;
        Ok(self.0.keys().any(|path| within(&globs, path)))
    }
}

/// What makes a layer beside all that is below it and what was downloaded before.
fn what(
    script: &Utf8PathBuf,
    found: &Entry,
    inputs: &[(&PathBuf, &Entry)],
    values: &[String; VARIABLES.len()],
) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = vec![script.as_str().into(), found.digest.hex().into()];
    for (path, entry) in inputs {
        parts.push(path.as_os_str().as_encoded_bytes().to_vec());
        parts.push(entry.digest.hex().into());
    }
    let named = inputs
        .iter()
        .flat_map(|(_, entry)| &entry.names)
        .chain(&found.names);
    let named: BTreeSet<usize> = named.copied().collect();
    parts.extend(named.into_iter().map(|name| values[name].clone().into_bytes()));
    parts
}

fn first_there(
    keys: impl Iterator<Item = Digest>,
    there: impl Fn(&Digest) -> Result<bool, layer::Error>,
) -> Result<Option<Digest>, layer::Error> {
    for key in keys {
        if there(&key)? {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// The key of a base that is in the source tree, and the digest of what it is made from.
pub(super) fn base_key(index: &Index, base: &Base) -> Option<(Digest, Digest)> {
    let (kind, path, tag) = match base {
        Base::Tar(path) => ("tar", path, ""),
        Base::Layout { path, tag } => ("layout", path, tag.as_deref().unwrap_or_default()),
        Base::Named(_) | Base::Oci(_) => return None,
    };
    let digest = index.digest_of(path)?;
    Some((
        Digest::of_parts(["vend base tree 1", kind, tag, &digest.hex()]),
        digest,
    ))
}

pub(super) fn no_base(base: &Base) -> Error {
    match base {
        Base::Tar(path) | Base::Layout { path, .. } => Error::NoBase(path.clone()),
        other => Error::NoBase(other.to_string().into()),
    }
}

/// Unpacks a base that is in the source tree. `home` is for what is needed meanwhile.
pub(super) fn unpack_base(
    objects: &objects::Directory,
    order: &BakeOrder,
    base: &Base,
    home: &camino::Utf8Path,
    into: &camino::Utf8Path,
) -> Result<(), oci::Error> {
    let path = match base {
        Base::Tar(path) | Base::Layout { path, .. } => path.as_std_path(),
        Base::Named(_) | Base::Oci(_) => return Ok(()),
    };
    let work = tempfile::tempdir_in(home).map_err(|source| oci::Error::Io {
        doing: "make a directory in",
        path: home.into(),
        source,
    })?;
    let work = camino::Utf8Path::from_path(work.path()).expect("it is in a directory whose name is text");
    let broken = |error: &dyn std::error::Error| oci::Error::Refused {
        what: base.to_string(),
        why: crate::logs::chain(error),
    };
    let mut object = objects
        .open_object(&order.source)
        .map_err(|error| broken(&error))?;
    tree::unpack_some(&mut object, work, &Limits::SOURCE, |member| {
        member.path.starts_with(path)
    })
    .map_err(|error| broken(&error))?;
    match base {
        Base::Layout { path, tag } => {
            let layout = oci::layout::Layout::open(&work.join(path))?;
            let image = layout.find(tag.as_deref())?;
            crate::base::flatten(&layout, &image, into, oci::limits::Limits::IMAGE)
        }
        _ => {
            let name = camino::Utf8Path::from_path(path).expect("the path of a base is text");
            let mut file = tree::open_beneath(work, name).map_err(|error| broken(&error))?;
            oci::unpack_tar(&mut file, into)
        }
    }
}

/// The members of a source tree that scripts see.
pub(super) struct Chosen<'a> {
    inputs: GlobSet,
    scripts: &'a [Utf8PathBuf],
}

impl<'a> Chosen<'a> {
    /// What the last of the first `count` scripts sees.
    pub fn new(order: &'a BakeOrder, count: usize) -> Result<Self, Error> {
        Ok(Self {
            inputs: globs(&order.inputs)?,
            scripts: &order.scripts[..count],
        })
    }

    pub fn contains(&self, path: &Path) -> bool {
        self.scripts.iter().any(|script| script.as_std_path() == path) || within(&self.inputs, path)
    }
}

fn globs(patterns: &[String]) -> Result<GlobSet, Error> {
    tree::globs(patterns).map_err(Error::Pattern)
}

/// A pattern that matches a directory means all in it.
fn within(globs: &GlobSet, path: &Path) -> bool {
    path.ancestors()
        .any(|ancestor| !ancestor.as_os_str().is_empty() && globs.is_match(ancestor))
}

fn entry(member: &Member, bytes: &mut dyn std::io::Read) -> Result<Entry, tree::Error> {
    let mut hash = Sha256::new();
    let executable = member.mode & 0o111 != 0;
    hash.update(match &member.kind {
        Kind::Symlink(target) => [b"link ", target.as_os_str().as_encoded_bytes()].concat(),
        Kind::Hardlink(target) => [b"hard ", target.as_os_str().as_encoded_bytes()].concat(),
        _ => format!("file {executable} ").into_bytes(),
    });
    let names = names::of(bytes, |bytes| hash.update(bytes)).map_err(tree::Error::Archive)?;
    Ok(Entry {
        digest: Digest::from_bytes(hash.finalize().into()),
        is_file: member.kind == Kind::File,
        names,
    })
}

#[cfg(test)]
mod tests;
