use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path};

use ::zip::{ZipWriter, write::SimpleFileOptions};
use camino::Utf8Path;

use super::*;
use crate::tree::{Format, unpack_file};

const SMALL: Limits = Limits {
    entries: 20,
    total_bytes: 100_000,
    file_bytes: 50_000,
};

fn zipped(add: impl FnOnce(&mut ZipWriter<io::Cursor<Vec<u8>>>)) -> Vec<u8> {
    let mut writer = ZipWriter::new(io::Cursor::new(Vec::new()));
    add(&mut writer);
    writer.finish().unwrap().into_inner()
}

fn file(writer: &mut ZipWriter<io::Cursor<Vec<u8>>>, name: &str, mode: u32, bytes: &[u8]) {
    let options = SimpleFileOptions::default().unix_permissions(mode);
    writer.start_file(name, options).unwrap();
    writer.write_all(bytes).unwrap();
}

fn one(name: &str) -> Vec<u8> {
    zipped(|writer| file(writer, name, 0o644, b"x"))
}

fn unpacked(bytes: &[u8], format: Format) -> Result<tempfile::TempDir, Error> {
    let mut archive = tempfile::tempfile().unwrap();
    archive.write_all(bytes).unwrap();
    archive.rewind().unwrap();
    let into = tempfile::tempdir().unwrap();
    unpack_file(archive, format, Utf8Path::from_path(into.path()).unwrap(), &SMALL)?;
    Ok(into)
}

#[track_caller]
fn refused(bytes: &[u8], fragment: &str) {
    let error = unpacked(bytes, Format::Any).unwrap_err();
    let text = crate::logs::chain(&error);
    assert!(error.is_content() && text.contains(fragment), "{text}");
}

/// The same with other bytes, wherever they stand: names have the same length in both places.
fn patched(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    for at in 0..out.len() - from.len() {
        if out[at..].starts_with(from) {
            out[at..at + to.len()].copy_from_slice(to);
        }
    }
    out
}

#[test]
fn an_honest_zip_comes_out_as_it_went_in() {
    let bytes = zipped(|writer| {
        writer.add_directory("bin", SimpleFileOptions::default()).unwrap();
        file(writer, "bin/run.sh", 0o755, b"#!/bin/sh\n");
        file(writer, "deep/er/page", 0o600, &[b'a'; 40_000]);
        writer
            .add_symlink("bin/link", "../deep/er/page", SimpleFileOptions::default())
            .unwrap();
    });
    let into = unpacked(&bytes, Format::Zip).unwrap();
    let mode = |path: &str| fs::metadata(into.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("bin/run.sh"), mode("deep/er/page")), (0o755, 0o600));
    assert_eq!(fs::read(into.path().join("bin/link")).unwrap().len(), 40_000);
    assert!(unpacked(&zipped(|_| {}), Format::Any).is_ok());
}

#[test]
fn each_format_is_taken_for_what_it_is() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append_data(&mut header, "a", &b"x"[..]).unwrap();
    let tar = builder.into_inner().unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar).unwrap();
    let tgz = encoder.finish().unwrap();
    let zip = one("a");
    for (bytes, formats) in [
        (&tar, &[Format::Any, Format::Tar][..]),
        (&tgz, &[Format::Any, Format::Tar, Format::Tgz]),
        (&zip, &[Format::Any, Format::Zip]),
    ] {
        for format in [Format::Any, Format::Tar, Format::Tgz, Format::Zip] {
            let outcome = unpacked(bytes, format).map(|into| into.path().join("a").exists());
            assert_eq!(
                outcome.is_ok_and(|there| there),
                formats.contains(&format),
                "{format:?}"
            );
        }
    }
    refused(b"BZh91AY&SY", "bzip2");
}

#[test]
fn hostile_zips_are_refused() {
    let honest = one("aa/bb");
    refused(&patched(&honest, b"aa/bb", b"../bb"), "leads out of the tree");
    refused(&patched(&honest, b"aa/bb", b"/a/bb"), "absolute");
    refused(&patched(&honest, b"aa/bb", b"a/..b").to_vec()[..20], "");
    let link = |target: &str| {
        zipped(|writer| {
            writer
                .add_symlink("l", target, SimpleFileOptions::default())
                .unwrap();
            file(writer, "l2/x", 0o644, b"x");
        })
    };
    refused(&link("../../out"), "link out of the tree");
    refused(&patched(&link("/etc"), b"l2/x", b"l//x"), "");
    let twice = zipped(|writer| {
        file(writer, "a", 0o644, b"1");
        file(writer, "b", 0o644, b"2");
    });
    refused(&patched(&twice, b"b", b"a"), "twice");
    let bomb = zipped(|writer| file(writer, "a", 0o644, &vec![0; 60_000]));
    refused(&bomb, "the most is");
    let many = zipped(|writer| (0..21).for_each(|n| file(writer, &n.to_string(), 0o644, b"")));
    refused(&many, "more than 20 files");
    let total = zipped(|writer| (0..3).for_each(|n| file(writer, &n.to_string(), 0o644, &[0; 40_000])));
    refused(&total, "more than 100000 bytes");
    // It lists fewer bytes than it holds.
    let lying = zipped(|writer| file(writer, "a", 0o644, &[0; 0x4321]));
    refused(
        &patched(&lying, &0x4321_u32.to_le_bytes(), &0x21_u32.to_le_bytes()),
        "",
    );
    let mut two_ends = honest.clone();
    two_ends.extend_from_slice(&honest[honest.len() - 22..]);
    refused(&two_ends, "");
}

#[test]
fn a_file_is_not_reached_through_a_link() {
    let bytes = zipped(|writer| {
        writer
            .add_symlink("ll", "/etc", SimpleFileOptions::default())
            .unwrap();
        file(writer, "zz/vend-was-here", 0o644, b"x");
    });
    refused(&patched(&bytes, b"zz/vend", b"ll/vend"), "used as a directory");
    assert!(!Path::new("/etc/vend-was-here").exists());
}
