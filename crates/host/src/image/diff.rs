//! What one image has and another has not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    os::unix::fs::MetadataExt as _,
};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use model::{
    Digest,
    port::{FileChange, ImageDiff, PackageChange},
};

use super::{
    bill::{self, Kind},
    view::{Found, View},
};
use crate::layer::{Error, archive, copy, io_error};

/// Files beyond are counted, not listed.
const LISTED: usize = 1000;
/// Nor are those whose paths and descriptions would make the list longer.
const LISTED_BYTES: usize = 4 << 20;
/// An attribute with more bytes is told by its digest.
const VALUE_SHOWN: usize = 32;
/// Attributes of one file that are told.
const ATTRIBUTES_SHOWN: usize = 8;

/// Versions of one package that are told.
const VERSIONS_SHOWN: usize = 8;

/// Both images, and how many layers at the bottom they have in common.
pub(crate) struct Sides {
    pub before: View,
    pub after: View,
    /// Of each, from the top, that the other does not have.
    pub own: (usize, usize),
    pub sizes: (u64, u64),
}

pub(crate) fn compare(sides: &Sides) -> Result<ImageDiff, Error> {
    let mut paths = sides.before.touched(sides.own.0)?;
    paths.extend(sides.after.touched(sides.own.1)?);
    let mut diff = ImageDiff {
        packages: packages(sides)?,
        size_before: sides.sizes.0,
        size_after: sides.sizes.1,
        ..ImageDiff::default()
    };
    let links = (links(&sides.before, &paths)?, links(&sides.after, &paths)?);
    let mut listed_bytes = 0;
    // A package that is installed anew gives all that it has another time. So times are told where they are all there is.
    for times in [false, true] {
        if times && (diff.files_changed > 0 || !diff.packages.is_empty()) {
            break;
        }
        for path in &paths {
            let entry = |view: &View, links| Entry::of(view, path, links, times);
            let (before, after) = (entry(&sides.before, &links.0)?, entry(&sides.after, &links.1)?);
            if same(before.as_ref(), after.as_ref())? {
                continue;
            }
            diff.files_changed += 1;
            if listed_bytes > LISTED_BYTES || diff.files.len() == LISTED {
                continue;
            }
            let change = change(path, before.as_ref(), after.as_ref())?;
            let said = [Some(&change.path), change.before.as_ref(), change.after.as_ref()];
            listed_bytes += said.into_iter().flatten().map(String::len).sum::<usize>();
            if listed_bytes <= LISTED_BYTES {
                diff.files.push(change);
            }
        }
    }
    Ok(diff)
}

fn change(
    path: &Utf8Path,
    before: Option<&Entry<'_>>,
    after: Option<&Entry<'_>>,
) -> Result<FileChange, Error> {
    let shown = |entry: Option<&Entry<'_>>, other| entry.map(|entry| entry.shown(other)).transpose();
    Ok(FileChange {
        path: path.to_string(),
        before: shown(before, after)?,
        after: shown(after, before)?,
    })
}

/// Of each file that has several names, those after the first, and that.
type Links = BTreeMap<Utf8PathBuf, Utf8PathBuf>;

fn links(view: &View, paths: &BTreeSet<Utf8PathBuf>) -> Result<Links, Error> {
    let mut first: BTreeMap<(u64, u64), &Utf8PathBuf> = BTreeMap::new();
    let mut links = Links::new();
    for path in paths {
        let Some(Found { metadata, .. }) = view.find(path)? else {
            continue;
        };
        if metadata.is_dir() || metadata.nlink() < 2 {
            continue;
        }
        let first = first.entry((metadata.dev(), metadata.ino())).or_insert(path);
        if *first != path {
            links.insert(path.clone(), first.clone());
        }
    }
    Ok(links)
}

/// What an image has at a path, as far as its digest tells.
struct Entry<'a> {
    found: Found,
    /// What they hold, as it is told.
    attributes: BTreeMap<String, String>,
    /// Another name of the same file.
    linked: Option<&'a Utf8PathBuf>,
    /// In seconds, where they are looked at.
    modified: Option<i64>,
}

impl<'a> Entry<'a> {
    fn of(view: &View, path: &Utf8Path, links: &'a Links, times: bool) -> Result<Option<Self>, Error> {
        let Some(found) = view.find(path)? else {
            return Ok(None);
        };
        let mut attributes = BTreeMap::new();
        for name in copy::names(&found.path)? {
            let text = name.to_string_lossy().into_owned();
            if archive::is_kept(&text) {
                let value = copy::value(&found.path, &name)?;
                let value = match value.len() {
                    ..=VALUE_SHOWN => hex::encode(value),
                    _ => Digest::of(value).to_string(),
                };
                attributes.insert(text, value);
            }
        }
        Ok(Some(Self {
            attributes,
            linked: links.get(path),
            modified: times.then(|| found.metadata.mtime().max(0)),
            found,
        }))
    }

    /// Of many attributes those are told that the other side has not.
    fn shown(&self, other: Option<&Entry<'_>>) -> Result<String, Error> {
        let mut text = shown(&self.found)?;
        let is_same = |(name, value): &(&String, &String)| {
            other.is_some_and(|other| other.attributes.get(*name) == Some(*value))
        };
        let (same, own): (Vec<_>, Vec<_>) = self.attributes.iter().partition(is_same);
        for (name, value) in own.iter().chain(&same).take(ATTRIBUTES_SHOWN) {
            text.push_str(&format!(", {name} {value}"));
        }
        if self.attributes.len() > ATTRIBUTES_SHOWN {
            let more = self.attributes.len() - ATTRIBUTES_SHOWN;
            text.push_str(&format!(" and {more} more attributes"));
        }
        if let Some(first) = self.linked {
            text.push_str(&format!(", the same file as {first}"));
        }
        if let Some(time) = self.modified.and_then(|at| Timestamp::from_second(at).ok()) {
            text.push_str(&format!(", of {time}"));
        }
        Ok(text)
    }
}

fn packages(sides: &Sides) -> Result<Vec<PackageChange>, Error> {
    // Apps may have one package several times.
    type Versions = BTreeMap<(Kind, String), BTreeSet<String>>;
    let of = |view: &View| -> Result<Versions, Error> {
        let mut versions = Versions::new();
        for package in bill::contents(view)?.packages {
            let own = versions.entry((package.kind, package.name)).or_default();
            own.insert(package.version);
        }
        Ok(versions)
    };
    let shown = |versions: &BTreeSet<String>| {
        let some = versions.iter().take(VERSIONS_SHOWN).map(String::as_str);
        let mut text = some.collect::<Vec<_>>().join(", ");
        if versions.len() > VERSIONS_SHOWN {
            text.push_str(&format!(" and {} more", versions.len() - VERSIONS_SHOWN));
        }
        text
    };
    let (before, after) = (of(&sides.before)?, of(&sides.after)?);
    let mut names: Vec<&(Kind, String)> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let changed = names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name));
    Ok(changed
        .map(|name| PackageChange {
            kind: name.0.word().to_owned(),
            name: name.1.clone(),
            before: before.get(name).map(shown),
            after: after.get(name).map(shown),
        })
        .collect())
}

fn same(before: Option<&Entry<'_>>, after: Option<&Entry<'_>>) -> Result<bool, Error> {
    let (Some(before), Some(after)) = (before, after) else {
        return Ok(before.is_none() && after.is_none());
    };
    if before.linked != after.linked
        || before.modified != after.modified
        || before.attributes != after.attributes
    {
        return Ok(false);
    }
    let (before, after) = (&before.found, &after.found);
    if before.path == after.path {
        return Ok(true);
    }
    let (a, b) = (&before.metadata, &after.metadata);
    if (a.mode(), a.uid(), a.gid()) != (b.mode(), b.uid(), b.gid()) {
        return Ok(false);
    }
    if a.is_symlink() {
        return Ok(link(&before.path)? == link(&after.path)?);
    }
    match a.is_file() {
        true => Ok(a.len() == b.len() && same_bytes(&before.path, &after.path)?),
        false => Ok(true),
    }
}

fn same_bytes(one: &Utf8Path, other: &Utf8Path) -> Result<bool, Error> {
    let open = |path: &Utf8Path| fs::File::open(path).map_err(io_error("read", path));
    let (mut one_file, mut other_file) = (open(one)?, open(other)?);
    let (mut one_bytes, mut other_bytes) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = fill(&mut one_file, &mut one_bytes).map_err(io_error("read", one))?;
        let other_read = fill(&mut other_file, &mut other_bytes).map_err(io_error("read", other))?;
        if one_bytes[..read] != other_bytes[..other_read] {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

fn link(path: &Utf8Path) -> Result<String, Error> {
    let target = fs::read_link(path).map_err(io_error("read", path))?;
    Ok(target.to_string_lossy().into_owned())
}

fn shown(found: &Found) -> Result<String, Error> {
    let metadata = &found.metadata;
    let rest = format!(
        "{:o} {}:{}",
        metadata.mode() & 0o7777,
        metadata.uid(),
        metadata.gid()
    );
    Ok(if metadata.is_symlink() {
        format!("link to {}", link(&found.path)?)
    } else if metadata.is_dir() {
        format!("directory {rest}")
    } else if metadata.is_file() {
        format!("file {rest} {} bytes", metadata.len())
    } else {
        format!("special {rest}")
    })
}
