use std::os::unix::fs::{PermissionsExt as _, chown, lchown};

use super::*;
use crate::layer::archive;

const BASE: u32 = 1_000_000;

struct Pair {
    _directory: tempfile::TempDir,
    from: Utf8PathBuf,
    to: Utf8PathBuf,
}

fn pair() -> Option<Pair> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: not root");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = Utf8Path::from_path(directory.path()).unwrap().to_owned();
    let (from, to) = (root.join("from"), root.join("to"));
    for path in [&from, &to] {
        fs::create_dir(path).unwrap();
    }
    chown(&from, Some(BASE), Some(BASE)).unwrap();
    Some(Pair {
        _directory: directory,
        from,
        to,
    })
}

fn file(path: &Utf8Path, uid: u32, mode: u32) {
    fs::write(path, path.as_str()).unwrap();
    chown(path, Some(BASE + uid), Some(BASE)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn whiteout(path: &Utf8Path) {
    mknodat(
        CWD,
        path.as_std_path(),
        FileType::CharacterDevice,
        Mode::empty(),
        0,
    )
    .unwrap();
    chown(path, Some(BASE), Some(BASE)).unwrap();
}

fn set(path: &Utf8Path, name: &str, value: &[u8]) {
    lsetxattr(path.as_std_path(), name, value, XattrFlags::empty()).unwrap();
}

impl Copy<'_> {
    /// One tree alone. Gives its bytes.
    fn tree(&self, from: &Utf8Path, to: &Utf8Path) -> Result<u64, Error> {
        let mut so_far = Copied::default();
        self.further(&mut so_far, from, to)?;
        Ok(so_far.bytes)
    }
}

const WHOLE: Copy<'_> = Copy {
    uid_base: BASE,
    skip: &["skipped"],
    deletions: Deletions::Mark,
    epoch: None,
    most: 1 << 20,
};

#[test]
fn owners_modes_capabilities_and_deletions_come_through() {
    let Some(pair) = pair() else { return };
    let from = |name: &str| pair.from.join(name);
    file(&from("su"), 33, 0o4755);
    file(&from("ping"), 0, 0o755);
    let mut revision_3 = [0; 24];
    revision_3[..8].copy_from_slice(&[1, 0, 0, 3, 0, 0x20, 0, 0]);
    revision_3[20..].copy_from_slice(&BASE.to_le_bytes());
    set(&from("ping"), "security.capability", &revision_3);
    fs::hard_link(from("su"), from("su2")).unwrap();
    symlink("/etc/nowhere", from("link")).unwrap();
    lchown(from("link"), Some(BASE + 5), Some(BASE)).unwrap();
    whiteout(&from("gone"));
    fs::create_dir_all(from("opaque")).unwrap();
    chown(from("opaque"), Some(BASE), Some(BASE)).unwrap();
    set(&from("opaque"), "trusted.overlay.opaque", b"y");
    set(&from("opaque"), "trusted.overlay.origin", b"x");
    file(&from("skipped"), 0, 0o644);
    let bytes = WHOLE.tree(&pair.from, &pair.to).unwrap();
    let to = |name: &str| fs::symlink_metadata(pair.to.join(name)).unwrap();
    assert_eq!((to("su").uid(), to("su").mode() & 0o7777), (33, 0o4755));
    assert_eq!(to("su").ino(), to("su2").ino());
    assert_eq!(to("link").uid(), 5);
    assert!(to("gone").file_type().is_char_device() && to("gone").rdev() == 0);
    assert!(opaque(pair.to.join("opaque")));
    assert_eq!(names(&pair.to.join("opaque")).unwrap().len(), 1);
    let capability = value(&pair.to.join("ping"), c"security.capability").unwrap();
    assert_eq!(capability[..8], [1, 0, 0, 2, 0, 0x20, 0, 0]);
    assert_eq!(capability.len(), 20);
    assert!(!pair.to.join("skipped").exists());
    let expected = from("su").as_str().len() + from("ping").as_str().len();
    assert_eq!(bytes, expected as u64, "what has two names is copied once");
}

#[test]
fn access_lists_are_shifted() {
    let Some(pair) = pair() else { return };
    let path = pair.from.join("file");
    file(&path, 0, 0o644);
    let entry = |tag: u16, permissions: u16, id: u32| {
        [
            &tag.to_le_bytes()[..],
            &permissions.to_le_bytes(),
            &id.to_le_bytes(),
        ]
        .concat()
    };
    let list = |id| {
        let none = u32::MAX;
        let entries = [
            entry(1, 6, none),
            entry(2, 4, id),
            entry(4, 4, none),
            entry(16, 4, none),
            entry(32, 4, none),
        ];
        [&2_u32.to_le_bytes()[..], &entries.concat()].concat()
    };
    set(&path, "system.posix_acl_access", &list(BASE + 7));
    WHOLE.tree(&pair.from, &pair.to).unwrap();
    assert_eq!(
        value(&pair.to.join("file"), c"system.posix_acl_access").unwrap(),
        list(7)
    );
}

#[test]
fn merging_deletes_replaces_and_adds() {
    let Some(pair) = pair() else { return };
    for directory in ["dir", "replaced"] {
        fs::create_dir(pair.to.join(directory)).unwrap();
        fs::write(pair.to.join(directory).join("old"), "old").unwrap();
        fs::create_dir(pair.from.join(directory)).unwrap();
        chown(pair.from.join(directory), Some(BASE), Some(BASE)).unwrap();
    }
    fs::write(pair.to.join("gone"), "old").unwrap();
    whiteout(&pair.from.join("gone"));
    file(&pair.from.join("dir/new"), 0, 0o600);
    set(&pair.from.join("replaced"), "trusted.overlay.opaque", b"y");
    Copy {
        deletions: Deletions::Ignore,
        ..WHOLE
    }
    .tree(&pair.from, &pair.to)
    .unwrap();
    assert!(pair.to.join("gone").exists() && pair.to.join("replaced/old").exists());
    Copy {
        deletions: Deletions::Apply,
        ..WHOLE
    }
    .tree(&pair.from, &pair.to)
    .unwrap();
    assert!(pair.to.join("dir/old").exists() && pair.to.join("dir/new").exists());
    assert!(!pair.to.join("replaced/old").exists() && !opaque(pair.to.join("replaced")));
    assert!(fs::symlink_metadata(pair.to.join("gone")).is_err());
}

#[test]
fn nothing_but_a_deletion_is_sealed_as_one() {
    let Some(deleting) = pair() else { return };
    whiteout(&deleting.from.join("gone"));
    archive::seal(&deleting.from).unwrap();
    for name in [".wh.gone", ".wh..wh..opq"] {
        let Some(other) = pair() else { return };
        file(&other.from.join(name), 0, 0o600);
        assert!(matches!(archive::seal(&other.from), Err(Error::Marked(path)) if path == name));
    }
}

#[test]
fn holes_count() {
    let Some(pair) = pair() else { return };
    file(&pair.from.join("a"), 0, 0o600);
    let hole = pair.from.join("hole");
    file(&hole, 0, 0o600);
    fs::File::options()
        .write(true)
        .open(&hole)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let copied = WHOLE.tree(&pair.from, &pair.to);
    assert!(matches!(copied, Err(Error::Large { path, .. }) if path == "hole"));
    assert!(!pair.to.join("hole").exists());
}

#[test]
fn a_stranger_s_file_is_an_error() {
    let Some(pair) = pair() else { return };
    file(&pair.from.join("x"), 0, 0o600);
    chown(pair.from.join("x"), Some(0), Some(0)).unwrap();
    assert!(matches!(
        WHOLE.tree(&pair.from, &pair.to),
        Err(Error::Stranger { id: 0, .. })
    ));
}

#[test]
fn a_tree_without_end_is_an_error() {
    let Some(pair) = pair() else { return };
    let mut path = pair.from.clone();
    for _ in 0..1000 {
        path.push("d");
        fs::create_dir(&path).unwrap();
        chown(&path, Some(BASE), Some(BASE)).unwrap();
    }
    assert!(matches!(WHOLE.tree(&pair.from, &pair.to), Err(Error::Deep(_))));
}
