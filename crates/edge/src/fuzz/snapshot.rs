//! Snapshots and whole tables.

use crate::{
    book::Book,
    draft::{Draft, Gap},
    lines,
};

/// Reads a snapshot from any bytes: as they are, and with the checksums that its lines should have, which hardly any
/// bytes would. What comes of it is no more than what is in it, and as a whole table it is the same or none.
///
/// # Panics
/// When it is not so.
pub fn snapshot(bytes: &[u8]) {
    let lines = bytes
        .split_inclusive(|b| *b == b'\n')
        .map(|line| match line.strip_suffix(b"\n") {
            Some(text) => {
                let json = text.get(9..).unwrap_or_default();
                [format!("{:08x} ", crc32fast::hash(json)).as_bytes(), json, b"\n"].concat()
            }
            None => line.to_vec(),
        });
    let good: Vec<u8> = lines.flatten().collect();
    for bytes in [bytes, &good] {
        let mut book = Book::default();
        let read = lines::parse(bytes, |delta| {
            book.check(&delta)?;
            book.apply(&delta, 0);
            Ok(())
        });
        if let Ok(read) = &read {
            assert!(read.table <= read.all && read.all <= bytes.len() as u64);
        }
        let mut draft = Draft::default();
        let (first, second) = bytes.split_at(bytes.len() / 3);
        let whole = draft
            .take(first)
            .and_then(|()| draft.take(second))
            .and_then(|()| draft.end());
        if let Ok(whole) = whole {
            assert!(
                read.is_ok_and(|read| read.table == bytes.len() as u64),
                "there is more than a table"
            );
            assert!(Gap::between(&book, &whole).len() == 0 && book.version == whole.version);
        }
    }
}
