//! Reads the members of a zip file, one after the other, and refuses what no honest tree holds.
//!
//! Only what is listed at the end of the file counts; sizes are believed as far as the limits go, and then measured.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read, Seek as _, SeekFrom},
    os::unix::ffi::OsStrExt as _,
};

use ::zip::{CompressionMethod, ZipArchive, read::ZipFile};

use super::{
    Error, Kind, Limits, Member, Totals,
    archive::{PATH_BYTES, clean, inside, shown, within},
};

/// The most bytes of the list of members that one member may need.
const LISTED: u64 = 4096;

/// The kinds of files in a Unix mode.
const KIND: u32 = 0o170_000;
const LINK: u32 = 0o120_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// Calls `each` with every member and a reader of its bytes.
pub fn visit(
    mut file: File,
    limits: &Limits,
    each: &mut dyn FnMut(&Member, &mut dyn Read) -> Result<(), Error>,
) -> Result<Totals, Error> {
    let listed = listed(&mut file, limits)?;
    let mut archive = ZipArchive::new(file).map_err(broken)?;
    if archive.len() as u64 != listed {
        return Err(Error::Refused {
            path: "the list of members".to_owned(),
            reason: "it names a member twice, or not all of them can be read",
        });
    }
    let mut totals = Totals::default();
    let mut seen = HashSet::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(broken)?;
        let member = member(&mut entry)?;
        totals.entries += 1;
        totals.bytes = totals.bytes.saturating_add(member.size);
        within(limits, &totals, &member)?;
        if !seen.insert(member.path.clone()) {
            return Err(refuse(&entry, "it is there twice"));
        }
        let mut bytes = (&mut entry).take(member.size);
        each(&member, &mut bytes)?;
        let missing = bytes.limit() > 0 && member.kind == Kind::File;
        if member.kind == Kind::File && (missing || entry.read(&mut [0]).map_err(Error::Archive)? > 0) {
            return Err(refuse(&entry, "its size is not what is listed"));
        }
    }
    Ok(totals)
}

/// How many members the end of the file lists. A list that would take more memory than the limits allow is refused
/// before anything reads it, and so is a file with two ends: readers would choose between them.
fn listed(file: &mut File, limits: &Limits) -> Result<u64, Error> {
    const END: &[u8] = b"PK\x05\x06";
    const WHOLE: usize = 22;
    const COMMENT: u64 = 65_535;
    let length = file.metadata().map_err(Error::Archive)?.len();
    // The record of a larger file stands right in front of this one, and a pointer between them.
    let from = length.saturating_sub(COMMENT + WHOLE as u64 + 20);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(from)).map_err(Error::Archive)?;
    file.take(length - from)
        .read_to_end(&mut tail)
        .map_err(Error::Archive)?;
    let damaged = || broken("it has no list of its members");
    let (at, end) = tail
        .windows(WHOLE)
        .enumerate()
        .rfind(|(_, window)| window.starts_with(END))
        .ok_or_else(damaged)?;
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let (mut members, mut bytes, mut list) =
        (number(&end[10..12]), number(&end[12..16]), number(&end[16..20]));
    if (at + WHOLE) as u64 + number(&end[20..22]) != tail.len() as u64 {
        return Err(damaged());
    }
    let mut after = from + at as u64;
    if members == 0xffff || bytes == 0xffff_ffff || list == 0xffff_ffff {
        let pointer = at
            .checked_sub(20)
            .map(|start| &tail[start..at])
            .ok_or_else(damaged)?;
        let mut record = [0; 56];
        file.seek(SeekFrom::Start(number(&pointer[8..16])))
            .map_err(Error::Archive)?;
        file.read_exact(&mut record).map_err(Error::Archive)?;
        if !pointer.starts_with(b"PK\x06\x07") || !record.starts_with(b"PK\x06\x06") {
            return Err(damaged());
        }
        (members, bytes) = (number(&record[32..40]), number(&record[40..48]));
        list = number(&record[48..56]);
        after = number(&pointer[8..16]);
    }
    if members > limits.entries || bytes > limits.entries.saturating_mul(LISTED) {
        return Err(Error::TooLarge(format!("more than {} files", limits.entries)));
    }
    let mut first = [0; 4];
    file.seek(SeekFrom::Start(list)).map_err(Error::Archive)?;
    file.read_exact(&mut first).map_err(Error::Archive)?;
    let begins = first == *b"PK\x01\x02" || (members == 0 && first[..2] == *b"PK");
    if !begins || list.checked_add(bytes) != Some(after) {
        return Err(damaged());
    }
    file.rewind().map_err(Error::Archive)?;
    Ok(members)
}

fn member(entry: &mut ZipFile<'_, File>) -> Result<Member, Error> {
    if entry.encrypted() {
        return Err(refuse(entry, "it is encrypted"));
    }
    if !matches!(
        entry.compression(),
        CompressionMethod::Stored | CompressionMethod::Deflated
    ) {
        return Err(refuse(entry, "it is compressed in a way that is not known"));
    }
    let path = clean(entry.name_raw()).map_err(|reason| refuse(entry, reason))?;
    let mode = entry.unix_mode();
    let kind = match mode.unwrap_or(0) & KIND {
        _ if entry.name_raw().ends_with(b"/") => Kind::Directory,
        DIRECTORY => Kind::Directory,
        LINK => {
            let mut target = Vec::new();
            let most = PATH_BYTES as u64 + 1;
            entry
                .take(most)
                .read_to_end(&mut target)
                .map_err(Error::Archive)?;
            let target = inside(&path, &target).map_err(|reason| refuse(entry, reason))?;
            if target.as_os_str().as_bytes().is_empty() {
                return Err(refuse(entry, "it is a link to nothing"));
            }
            Kind::Symlink(target)
        }
        0 | REGULAR => Kind::File,
        _ => return Err(refuse(entry, "it is a device or a pipe")),
    };
    if path.as_os_str().is_empty() && kind != Kind::Directory {
        return Err(refuse(entry, "it has no name"));
    }
    let permissions = mode.map(|mode| mode & 0o777).filter(|mode| *mode != 0);
    let size = if kind == Kind::File { entry.size() } else { 0 };
    let default = if kind == Kind::Directory { 0o755 } else { 0o644 };
    Ok(Member {
        path,
        kind,
        mode: permissions.unwrap_or(default),
        size,
        mtime: mtime(entry),
    })
}

/// Seconds since 1970 of the time in the list, which has no zone: taken for UTC.
fn mtime(entry: &ZipFile<'_, File>) -> u64 {
    let seconds = entry.last_modified().and_then(|time| {
        let date = jiff::civil::date(
            time.year().try_into().ok().filter(|year| *year <= 2107)?,
            time.month()
                .try_into()
                .ok()
                .filter(|month| (1..=12).contains(month))?,
            1,
        );
        let day = i8::try_from(time.day()).ok()?;
        let date = date.with().day(day).build().ok()?;
        let clock = jiff::civil::Time::new(
            time.hour().try_into().ok()?,
            time.minute().try_into().ok()?,
            time.second().try_into().ok()?,
            0,
        );
        let moment = date.to_datetime(clock.ok()?);
        let moment = moment.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        u64::try_from(moment.timestamp().as_second()).ok()
    });
    seconds.unwrap_or(0)
}

fn refuse(entry: &ZipFile<'_, File>, reason: &'static str) -> Error {
    Error::Refused {
        path: shown(entry.name_raw()),
        reason,
    }
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Archive(io::Error::other(error))
}

#[cfg(test)]
mod tests;
