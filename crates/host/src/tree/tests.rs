use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use camino::Utf8Path;

use super::*;

const SMALL: Limits = Limits {
    entries: 20,
    total_bytes: 100_000,
    file_bytes: 50_000,
};

struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Writes names that an honest tool refuses to write.
    fn add(mut self, kind: u8, name: &str, target: &str, bytes: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(0o4755);
        header.set_size(bytes.len() as u64);
        header.set_mtime(1_000_000);
        header.set_cksum();
        self.0.append(&header, bytes).unwrap();
        self
    }

    fn file(self, name: &str, bytes: &[u8]) -> Self {
        self.add(b'0', name, "", bytes)
    }

    fn unpack(self) -> Result<(tempfile::TempDir, Totals), Error> {
        let bytes = self.0.into_inner().unwrap();
        let into = tempfile::tempdir().unwrap();
        let totals = unpack(&bytes[..], Utf8Path::from_path(into.path()).unwrap(), &SMALL)?;
        Ok((into, totals))
    }

    #[track_caller]
    fn refused(self, fragment: &str) {
        let error = self.unpack().unwrap_err();
        assert!(error.is_content(), "{error}");
        assert!(error.to_string().contains(fragment), "{error}");
    }
}

#[test]
fn an_honest_tree_comes_out_as_it_went_in() {
    let (into, totals) = Tar::new()
        .add(
            b'g',
            "pax_global_header",
            "",
            b"52 comment=88edd4b000000000000000000000000000000000\n",
        )
        .add(b'5', "./", "", b"")
        .file("./a/b/run.sh", b"#!/bin/sh\n")
        .add(b'5', "a/c/", "", b"")
        .add(b'2', "a/link", "b/run.sh", b"")
        .add(b'1', "a/hard", "a/b/run.sh", b"")
        .file("a/b/run.sh", b"replaced")
        .unpack()
        .unwrap();
    let at = |path: &str| into.path().join(path);
    assert_eq!(fs::read(at("a/b/run.sh")).unwrap(), b"replaced");
    assert_eq!(fs::read(at("a/hard")).unwrap(), b"#!/bin/sh\n");
    assert_eq!(fs::read_link(at("a/link")).unwrap(), Path::new("b/run.sh"));
    assert!(at("a/c").is_dir());
    let mode = fs::metadata(at("a/b/run.sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755, "no set-user-id bit comes out of an archive");
    assert_eq!(
        totals,
        Totals {
            entries: 6,
            bytes: 18
        }
    );
}

#[test]
fn nothing_is_written_outside() {
    let outside = tempfile::tempdir().unwrap();
    let absolute = outside.path().join("x");
    Tar::new().file("../x", b"").refused("leads out of the tree");
    Tar::new().file("a/../../x", b"").refused("leads out of the tree");
    Tar::new()
        .file(absolute.to_str().unwrap(), b"")
        .refused("is absolute");
    Tar::new()
        .add(b'2', "l", outside.path().to_str().unwrap(), b"")
        .file("l/x", b"")
        .refused("is none");
    Tar::new()
        .add(b'2', "a/l", "../..", b"")
        .refused("link out of the tree");
    Tar::new()
        .add(b'2', "l", "a", b"")
        .add(b'5', "a", "", b"")
        .file("l/x", b"")
        .refused("is none");
    Tar::new()
        .add(b'1', "l", "/etc/passwd", b"")
        .refused("is absolute");
    Tar::new()
        .add(b'1', "l", "../../etc/passwd", b"")
        .refused("leads out");
    Tar::new()
        .add(b'2', "s", "f", b"")
        .add(b'1', "h", "s", b"")
        .refused("no file of the archive");
    assert!(!absolute.exists());
}

/// An absolute link is about the root where the tree is used. That of who unpacks it stays as it was.
#[test]
fn absolute_links_are_kept_and_never_followed() {
    let outside = tempfile::tempdir().unwrap();
    let at = |name: &str| outside.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("secret"), "of the machine").unwrap();
    fs::create_dir(at("directory")).unwrap();
    fs::set_permissions(at("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let (into, _) = Tar::new()
        .add(b'2', "bin/python", "/usr/bin/python3", b"")
        .add(b'2', "bin/python3", "python", b"")
        .add(b'2', "gone", "/no/such/place", b"")
        .add(b'2', "up", "/../..", b"")
        .add(b'2', "secret", &at("secret"), b"")
        .add(b'2', "over", &at("secret"), b"")
        .file("over", b"replaces the link")
        .unpack()
        .unwrap();
    let root = Utf8Path::from_path(into.path()).unwrap();
    for (name, target) in [
        ("bin/python", "/usr/bin/python3"),
        ("bin/python3", "python"),
        ("up", "/../.."),
    ] {
        assert_eq!(fs::read_link(root.join(name)).unwrap(), Path::new(target));
    }
    assert_eq!(
        fs::read_to_string(root.join("over")).unwrap(),
        "replaces the link"
    );
    for hostile in ["secret", "bin/python3", "gone"] {
        let error = open_beneath(root, hostile.into()).unwrap_err();
        assert!(error.to_string().contains("through a link"), "{error}");
    }
    let mut again = Vec::new();
    pack(root, 0, &mut again).unwrap();
    visit(&again[..], &SMALL, |_, _| Ok(())).unwrap();

    let through = || Tar::new().add(b'2', "d", &at("directory"), b"");
    through().file("d/x", b"").refused("is none");
    through().add(b'5', "d/x", "", b"").refused("is none");
    through().add(b'5', "d", "", b"").refused("is none");
    through().add(b'2', "d/x", "y", b"").refused("is none");
    through()
        .add(b'1', "h", "d", b"")
        .refused("no file of the archive");
    through().add(b'1', "h", "d/../secret", b"").refused("leads out");
    Tar::new()
        .add(b'2', "s", &at("secret"), b"")
        .add(b'1', "h", "s", b"")
        .refused("no file of the archive");
    // Through an absolute link, and out before it.
    Tar::new()
        .add(b'5', "a/b/c", "", b"")
        .add(b'2', "a/b/c/top", "../../..", b"")
        .add(b'2', "abs", "/usr", b"")
        .add(b'2', "out", "a/b/c/top/../abs", b"")
        .refused("link out of the tree");
    assert_eq!(fs::read_dir(at("directory")).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(at("secret")).unwrap(), "of the machine");
    assert_eq!(
        fs::metadata(at("secret")).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn links_that_lead_out_only_together_are_found() {
    Tar::new()
        .add(b'5', "a/b/c", "", b"")
        .add(b'2', "a/b/c/top", "../../..", b"")
        .add(b'2', "out", "a/b/c/top/..", b"")
        .refused("link out of the tree");
}

#[test]
fn devices_and_strange_things_are_refused() {
    Tar::new().add(b'3', "null", "", b"").refused("is a device");
    Tar::new().add(b'4', "disk", "", b"").refused("is a device");
    Tar::new().add(b'6', "pipe", "", b"").refused("is a pipe");
    Tar::new()
        .add(b'S', "sparse", "", b"")
        .refused("is a sparse file");
    Tar::new().add(b'0', "", "", b"").refused("has no name");
    Tar::new()
        .add(b'5', "d", "", b"")
        .file("d", b"")
        .refused("replace a directory");
    Tar::new().file("f", b"").file("f/x", b"").refused("is none");
    let deep = "a/".repeat(49);
    let long = "x".repeat(300);
    Tar::new()
        .add(b'L', "l", "", long.as_bytes())
        .file("short", b"")
        .refused("too long");
    assert!(Tar::new().file(&format!("{deep}x"), b"").unpack().is_ok());
}

#[test]
fn bombs_are_refused() {
    let many = (0..21).fold(Tar::new(), |tar, number| tar.file(&number.to_string(), b""));
    many.refused("more than 20 files");
    Tar::new().file("big", &[0; 50_001]).refused("the most is 50000");
    let thrice = ["a", "b", "c"]
        .iter()
        .fold(Tar::new(), |tar, name| tar.file(name, &[0; 40_000]));
    thrice.refused("more than 100000 bytes");
    Tar::new()
        .add(b'L', "l", "", &[b'x'; 70_000])
        .refused("file name of 70000");
    Tar::new()
        .add(b'x', "l", "", b"16 size=9999999\n")
        .file("f", b"")
        .refused("more than 8 GiB");
}

#[test]
fn other_formats_are_named() {
    for (bytes, name) in [
        (&b"PK\x03\x04"[..], "zip"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ] {
        let error = unpack(bytes, "/nonexistent".into(), &SMALL).unwrap_err();
        assert!(
            matches!(error, Error::Io { .. }),
            "the directory is looked at first: {error}"
        );
        let error = visit(bytes, &SMALL, |_, _| Ok(())).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(visit(&b"not a tar at all, not by far"[..], &SMALL, |_, _| Ok(())).is_err());
}

#[test]
fn packing_is_the_same_for_the_same_files() {
    let make = |order: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        for name in order {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, name).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        }
        std::os::unix::fs::symlink("a/b", directory.path().join("link")).unwrap();
        let mut bytes = Vec::new();
        pack(
            Utf8Path::from_path(directory.path()).unwrap(),
            1_700_000_000,
            &mut bytes,
        )
        .unwrap();
        bytes
    };
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let one = make(&["a/b", "a.txt", "z", &long]);
    assert_eq!(one, make(&[&long, "z", "a.txt", "a/b"]));
    let into = tempfile::tempdir().unwrap();
    let root = Utf8Path::from_path(into.path()).unwrap();
    unpack(&one[..], root, &SMALL).unwrap();
    assert_eq!(fs::read_to_string(root.join(&long)).unwrap(), long);
    let metadata = fs::metadata(root.join("a/b")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o750);
    let mut again = Vec::new();
    pack(root, 1_700_000_000, &mut again).unwrap();
    assert_eq!(one, again);
}

#[test]
fn any_bytes_give_a_value_or_an_error() {
    use proptest::prelude::*;
    proptest!(|(mut bytes in proptest::collection::vec(any::<u8>(), 0..2000), at in 0usize..1500, byte: u8)| {
        let _ = visit(&bytes[..], &SMALL, |_, reader| io::copy(reader, &mut io::sink()).map(drop).map_err(Error::Archive));
        let mut tar = Tar::new().file("a", &bytes).0.into_inner().unwrap();
        let at = at.min(tar.len() - 1);
        tar[at] = byte;
        let _ = visit(&tar[..], &SMALL, |_, _| Ok(()));
        bytes.clear();
    });
}
