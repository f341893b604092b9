//! What caches take of the disk, and which of them go: those that nobody used in a long time, such as a branch's that is
//! gone, and the longest unused where room is short. What goes is made again by the next build; nobody is asked.
//!
//! Beside a cache's generations is a file with their bytes as text. It is written to when the cache is, and its time is
//! when something last stood on the cache. Other files beside them, the notes, count with the bytes that they have. Notes have
//! a part of the room, and whoever has most of them gives way: a cache that others wait for is not pushed out by them.

use std::{collections::BTreeMap, fs, io, sync::PoisonError, time::SystemTime};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::{Caches, OLD, STAGING};
use crate::layer::{Error, io_error, remove_trees};

const MARK: &str = "used";
/// A cache's name has at most so many parts: of a tenant, an app, a branch and a key.
const DEPTH: usize = 4;

/// Notes have one part of so many of the room.
const NOTES_PART: u64 = 8;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub caches: u64,
    pub bytes: u64,
}

/// A cache as it stands on the disk.
#[derive(Debug)]
pub(super) struct Stock {
    home: Utf8PathBuf,
    used_at: SystemTime,
    /// Of its generations.
    bytes: u64,
    notes_bytes: u64,
}

/// Notes that a cache has so many bytes, and was used now.
pub(super) fn record(home: &Utf8Path, bytes: u64) -> Result<(), Error> {
    let mark = home.join(MARK);
    fs::write(&mark, bytes.to_string()).map_err(io_error("write", &mark))
}

/// Makes sure that a cache is known as one, and notes that it was used now.
pub(super) fn begin(home: &Utf8Path) -> Result<(), Error> {
    match home.join(MARK).exists() {
        true => touch(home, crate::now()),
        false => record(home, 0)?,
    }
    Ok(())
}

/// Notes that a cache was used. One without a mark gets it when it is next written.
pub(super) fn touch(home: &Utf8Path, now: Timestamp) {
    let mark = fs::File::options().append(true).open(home.join(MARK));
    if let Ok(mark) = mark {
        let _ = mark.set_modified(now.into());
    }
}

impl Stock {
    fn all_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.notes_bytes)
    }
}

impl Caches {
    /// What all caches take of the disk.
    pub fn bytes(&self) -> Result<u64, Error> {
        Ok(self.stock()?.iter().map(Stock::all_bytes).sum())
    }

    /// Removes the caches that nobody used since then, and of the others the longest unused, until they take no more than
    /// `most_bytes`. What a container stands on stays.
    pub fn sweep(&self, unused_since: Timestamp, most_bytes: u64) -> Result<Swept, Error> {
        let _alone = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        // What was out of sight already and is still there is of no cache, and counted nowhere.
        self.remove_old()?;
        let mut stock = self.stock()?;
        stock.sort_by_key(|stock| stock.used_at);
        let all: u64 = stock.iter().map(Stock::all_bytes).sum();
        let mut swept = Swept::default();
        let since = SystemTime::from(unused_since);
        let (old, mut young): (Vec<_>, Vec<_>) = stock.into_iter().partition(|stock| stock.used_at < since);
        for mut stock in old {
            self.free(&mut stock, true, &mut swept)?;
        }
        self.fit_notes(&mut young, most_bytes / NOTES_PART, &mut swept)?;
        // The next build makes no notes again: what is within their part goes where the generations were not enough.
        for whole in [false, true] {
            for stock in &mut young {
                let frees = if whole { stock.all_bytes() } else { stock.bytes };
                if frees > 0 && all - swept.bytes > most_bytes {
                    self.free(stock, whole, &mut swept)?;
                }
            }
        }
        Ok(swept)
    }

    /// Removes notes until they have their part: each time the longest unused of whichever tenant has most.
    fn fit_notes(&self, stock: &mut [Stock], most_bytes: u64, swept: &mut Swept) -> Result<(), Error> {
        let mut owners: BTreeMap<String, Vec<&mut Stock>> = BTreeMap::new();
        for stock in stock.iter_mut().filter(|stock| stock.notes_bytes > 0) {
            let name = stock.home.strip_prefix(&self.root).unwrap_or(&stock.home);
            let owner = name.components().next().map(|owner| owner.to_string());
            owners.entry(owner.unwrap_or_default()).or_default().push(stock);
        }
        let bytes = |own: &Vec<&mut Stock>| own.iter().map(|stock| stock.notes_bytes).sum::<u64>();
        while owners.values().map(bytes).sum::<u64>() > most_bytes {
            let Some(own) = owners.values_mut().max_by_key(|own| bytes(own)) else {
                break;
            };
            // What it keeps since it is used again now counts no more this time.
            let stock = own.remove(0);
            if self.forget_notes(stock)? {
                swept.caches += 1;
                swept.bytes += std::mem::take(&mut stock.notes_bytes);
            }
        }
        Ok(())
    }

    /// Removes what is beside a cache's generations, unless it was used since.
    fn forget_notes(&self, stock: &Stock) -> Result<bool, Error> {
        let _used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if marked_at(&stock.home).is_some_and(|at| at > stock.used_at) {
            return Ok(false);
        }
        for note in notes(&stock.home) {
            fs::remove_file(&note).map_err(io_error("remove", &note))?;
        }
        Ok(true)
    }

    /// Removes a cache as a whole, or its generations, where nobody stands on it.
    fn free(&self, stock: &mut Stock, whole: bool, swept: &mut Swept) -> Result<(), Error> {
        let Some(aside) = self.take_away(stock, whole)? else {
            return Ok(());
        };
        remove_trees(aside)?;
        swept.caches += 1;
        swept.bytes += std::mem::take(&mut stock.bytes);
        if whole {
            swept.bytes += std::mem::take(&mut stock.notes_bytes);
        }
        Ok(())
    }

    /// Sets aside a cache as a whole, or its generations: what is beside them is not made again by the next build. `None`: somebody stands on it, or used it since.
    pub(super) fn take_away(&self, stock: &Stock, whole: bool) -> Result<Option<Vec<Utf8PathBuf>>, Error> {
        // Nobody begins to stand on it, nor writes it, meanwhile.
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let home = &stock.home;
        let within = |own: &Utf8PathBuf| own.starts_with(home) || home.starts_with(own);
        let again = marked_at(home).is_some_and(|at| at > stock.used_at);
        if again || used.keys().any(within) {
            return Ok(None);
        }
        let mut aside = Vec::new();
        if whole {
            aside.extend(self.set_aside(home)?);
            self.remove_empty(home);
        } else {
            for generation in directories(home)? {
                aside.extend(self.set_aside(&generation)?);
            }
            record(home, 0)?;
            touch(home, stock.used_at.try_into().unwrap_or(Timestamp::UNIX_EPOCH));
        }
        Ok(Some(aside))
    }

    /// Removes what was set aside and could not be removed then. Another who removes it just now is no harm.
    fn remove_old(&self) -> Result<(), Error> {
        let aside = directories(&self.root.join(STAGING))?.into_iter();
        remove_trees(aside.filter(|path| path.file_name().is_some_and(|name| name.starts_with(OLD))))
    }

    /// Removes the directories above a cache that hold no other.
    fn remove_empty(&self, home: &Utf8Path) {
        let above = home.ancestors().skip(1);
        for path in above.take_while(|path| *path != self.root) {
            if fs::remove_dir(path).is_err() {
                break;
            }
        }
    }

    pub(super) fn stock(&self) -> Result<Vec<Stock>, Error> {
        let mut found = Vec::new();
        for home in directories(&self.root)? {
            if home.file_name() != Some(STAGING) {
                collect(home, DEPTH - 1, &mut found)?;
            }
        }
        Ok(found)
    }
}

/// Finds the caches at and below a directory, to so many parts of a name more.
fn collect(home: Utf8PathBuf, deeper: usize, found: &mut Vec<Stock>) -> Result<(), Error> {
    let before = found.len();
    if let Some(used_at) = marked_at(&home) {
        let bytes = fs::read_to_string(home.join(MARK)).ok();
        found.push(Stock {
            used_at,
            bytes: bytes.and_then(|text| text.parse().ok()).unwrap_or(0),
            notes_bytes: notes_bytes(&home),
            home,
        });
        return Ok(());
    }
    if deeper > 0 {
        for inner in directories(&home)? {
            collect(inner, deeper - 1, found)?;
        }
    }
    // It holds no cache, and is none that this version knows.
    if found.len() == before
        && let Ok(used_at) = fs::metadata(&home).and_then(|metadata| metadata.modified())
    {
        let (bytes, notes_bytes) = (0, notes_bytes(&home));
        found.push(Stock {
            home,
            used_at,
            bytes,
            notes_bytes,
        });
    }
    Ok(())
}

fn marked_at(home: &Utf8Path) -> Option<SystemTime> {
    fs::metadata(home.join(MARK)).ok()?.modified().ok()
}

/// The files beside a cache's generations.
fn notes(home: &Utf8Path) -> impl Iterator<Item = Utf8PathBuf> {
    let entries = home.read_dir_utf8().into_iter().flatten().flatten();
    let notes = entries.filter(|entry| entry.file_name() != MARK);
    let notes = notes.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    notes.map(|entry| entry.into_path())
}

fn notes_bytes(home: &Utf8Path) -> u64 {
    let metadata = notes(home).filter_map(|note| fs::symlink_metadata(note).ok());
    metadata.map(|metadata| metadata.len()).sum()
}

/// The directories in a directory; none when it went meanwhile.
fn directories(path: &Utf8Path) -> Result<Vec<Utf8PathBuf>, Error> {
    let entries = match path.read_dir_utf8() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let entries = entries.flatten();
    let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(inner.map(|entry| entry.path().to_owned()).collect())
}
