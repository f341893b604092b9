//! Rows of one table of an SQLite file that nobody vouches for ("Database File Format" of sqlite.org, sections 1 and 2).
//!
//! Only what lists of packages need: whole tables with rowids, in the order of their keys. What stands in a write-ahead
//! log beside the file is not seen; package managers leave none in an image.

const MAGIC: &[u8] = b"SQLite format 3\0";
/// Levels of a tree. One of a billion rows has six.
const DEPTH: usize = 12;

/// A file, page by page.
struct File<'a> {
    bytes: &'a [u8],
    page: usize,
    /// Bytes of a page without those reserved at its end.
    usable: usize,
    /// What may still be looked at, in pages and payload: a hostile file leads in circles.
    budget: usize,
}

/// Calls `each` with the first blob or text of every row of a table. `None`: it is no such file, or a broken one, and not
/// all rows were seen.
pub(super) fn blobs(bytes: &[u8], table: &str, each: &mut dyn FnMut(&[u8])) -> Option<()> {
    let mut file = File::open(bytes)?;
    let mut root = None;
    file.rows(1, 0, &mut |row| {
        // type, name, tbl_name, rootpage, sql
        let mut columns = Columns::of(row)?;
        let (kind, name, _, page) = (columns.next()?, columns.next()?, columns.next()?, columns.next()?);
        if kind.bytes == b"table" && name.bytes == table.as_bytes() {
            root = usize::try_from(page.integer()?).ok();
        }
        Some(())
    })?;
    file.rows(root?, 0, &mut |row| {
        if let Some(blob) = Columns::of(row)?.find(|column| column.kind >= 12) {
            each(blob.bytes);
        }
        Some(())
    })
}

impl<'a> File<'a> {
    fn open(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.starts_with(MAGIC) || bytes.len() < 100 {
            return None;
        }
        let page = match u16_at(bytes, 16)? {
            1 => 65_536,
            size if size.is_power_of_two() && size >= 512 => usize::from(size),
            _ => return None,
        };
        let usable = page
            .checked_sub(usize::from(bytes[20]))
            .filter(|usable| *usable >= 480)?;
        Some(Self {
            bytes,
            page,
            usable,
            budget: bytes.len().saturating_mul(2),
        })
    }

    fn spend(&mut self, bytes: usize) -> Option<()> {
        self.budget = self.budget.checked_sub(bytes.max(1))?;
        Some(())
    }

    /// Pages count from one.
    fn page(&mut self, number: usize) -> Option<&'a [u8]> {
        self.spend(self.page)?;
        let start = number.checked_sub(1)?.checked_mul(self.page)?;
        self.bytes.get(start..start.checked_add(self.usable)?)
    }

    /// Calls `each` with the payload of every row below a page.
    fn rows(&mut self, number: usize, depth: usize, each: &mut dyn FnMut(&[u8]) -> Option<()>) -> Option<()> {
        const LEAF: u8 = 0x0d;
        const INTERIOR: u8 = 0x05;
        if depth > DEPTH {
            return None;
        }
        let page = self.page(number)?;
        // The first page begins with the header of the file.
        let start = if number == 1 { 100 } else { 0 };
        let kind = *page.get(start)?;
        let header = match kind {
            LEAF => start + 8,
            INTERIOR => start + 12,
            _ => return None,
        };
        for cell in 0..usize::from(u16_at(page, start + 3)?) {
            let at = usize::from(u16_at(page, header + 2 * cell)?);
            if kind == INTERIOR {
                self.rows(u32_at(page, at)?, depth + 1, each)?;
            } else {
                let payload = self.payload(page, at)?;
                each(&payload)?;
            }
        }
        match kind {
            INTERIOR => self.rows(u32_at(page, start + 8)?, depth + 1, each),
            _ => Some(()),
        }
    }

    /// The payload of a cell of a leaf, what lies on overflow pages included.
    fn payload(&mut self, page: &[u8], at: usize) -> Option<Vec<u8>> {
        let mut rest = page.get(at..)?;
        let length = usize::try_from(varint(&mut rest)?).ok()?;
        varint(&mut rest)?;
        self.spend(length)?;
        let most = self.usable - 35;
        if length <= most {
            return Some(rest.get(..length)?.to_vec());
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let fitting = least + (length - least) % (self.usable - 4);
        let local = if fitting <= most { fitting } else { least };
        let mut payload = rest.get(..local)?.to_vec();
        let mut next = u32_at(rest, local)?;
        while payload.len() < length {
            let page = self.page(next)?;
            let take = (length - payload.len()).min(self.usable - 4);
            payload.extend(page.get(4..4 + take)?);
            next = u32_at(page, 0)?;
        }
        Some(payload)
    }
}

/// One value of a row, by its serial type.
struct Column<'a> {
    kind: u64,
    bytes: &'a [u8],
}

impl Column<'_> {
    fn integer(&self) -> Option<i64> {
        match self.kind {
            8 => Some(0),
            9 => Some(1),
            1..=6 => {
                let negative = self.bytes.first()? & 0x80 != 0;
                let start = if negative { -1_i64 } else { 0 };
                Some(
                    self.bytes
                        .iter()
                        .fold(start, |number, byte| (number << 8) | i64::from(*byte)),
                )
            }
            _ => None,
        }
    }
}

/// The values of a record (section 2.1).
struct Columns<'a> {
    kinds: &'a [u8],
    values: &'a [u8],
}

impl<'a> Columns<'a> {
    fn of(record: &'a [u8]) -> Option<Self> {
        let mut rest = record;
        let header = usize::try_from(varint(&mut rest)?).ok()?;
        let before = record.len() - rest.len();
        Some(Self {
            kinds: record.get(before..header)?,
            values: record.get(header..)?,
        })
    }
}

impl<'a> Iterator for Columns<'a> {
    type Item = Column<'a>;

    fn next(&mut self) -> Option<Column<'a>> {
        let kind = varint(&mut self.kinds)?;
        let length = match kind {
            0 | 8..=11 => 0,
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            _ => (kind - 12) / 2,
        };
        let length = usize::try_from(length).ok()?;
        let (bytes, rest) = self.values.split_at_checked(length)?;
        self.values = rest;
        Some(Column { kind, bytes })
    }
}

/// Up to nine bytes, the high bits first; takes them away.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for position in 0..9 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if position == 8 {
            return Some((number << 8) | u64::from(*byte));
        }
        number = (number << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(number)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let found = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(found.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let found = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_be_bytes(found.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for (bytes, expected) in [
            (&[0x7f][..], Some(127)),
            (&[0x81, 0x00], Some(128)),
            (&[0xff; 9], Some(u64::MAX)),
            (&[0x80], None),
        ] {
            let mut rest = bytes;
            assert_eq!(varint(&mut rest), expected);
        }
        let column = |kind, bytes| Column { kind, bytes }.integer();
        assert_eq!(column(1, &[0xff][..]), Some(-1));
        assert_eq!(column(2, &[0x01, 0x00][..]), Some(256));
        assert_eq!(column(13, b""), None);
    }

    #[test]
    fn a_file_that_leads_in_circles_ends() {
        // A page that is its own child, many times.
        let mut file = vec![0_u8; 1024];
        file[..16].copy_from_slice(MAGIC);
        file[16..18].copy_from_slice(&512_u16.to_be_bytes());
        file[100] = 0x05;
        file[103..105].copy_from_slice(&100_u16.to_be_bytes());
        file[108..112].copy_from_slice(&1_u32.to_be_bytes());
        for cell in 0..100 {
            file[112 + 2 * cell..114 + 2 * cell].copy_from_slice(&400_u16.to_be_bytes());
        }
        file[400..404].copy_from_slice(&1_u32.to_be_bytes());
        assert_eq!(blobs(&file, "Packages", &mut |_| {}), None);
    }
}
