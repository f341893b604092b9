use jiff::SignedDuration;

use super::*;

/// Caches of at most so many bytes in a directory of their own. `None` where user and group differ, which the copying of
/// files of containers does not know.
struct World {
    _temporary: tempfile::TempDir,
    node: Utf8PathBuf,
    caches: Caches,
    uid: u32,
}

impl World {
    fn new(limit_bytes: u64) -> Option<Self> {
        let temporary = tempfile::tempdir().unwrap();
        let node = Utf8PathBuf::from_path_buf(temporary.path().to_owned()).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        if uid != rustix::process::getegid().as_raw() {
            println!("skipped: user and group differ");
            return None;
        }
        let caches = Caches::open(&node, limit_bytes).unwrap();
        Some(Self {
            _temporary: temporary,
            node,
            caches,
            uid,
        })
    }

    /// An upper directory with what `make` writes there.
    fn upper(&self, make: impl FnOnce(&Utf8Path)) -> Utf8PathBuf {
        let upper = self.node.join("upper").join(random());
        fs::create_dir_all(&upper).unwrap();
        make(&upper);
        upper
    }

    fn harvest(&self, name: &str, directory: &str, once: bool, make: impl FnOnce(&Utf8Path)) -> Harvest {
        self.harvest_on(name, None, directory, once, make)
    }

    fn harvest_on(
        &self,
        name: &str,
        restored: Option<&Lease>,
        directory: &str,
        once: bool,
        make: impl FnOnce(&Utf8Path),
    ) -> Harvest {
        let crop = Crop {
            name,
            restored,
            upper: &self.upper(make),
            directories: &[directory.to_owned()],
            uid_base: self.uid,
            deletions: Deletions::Apply,
            once,
        };
        self.caches.harvest(&crop).unwrap()
    }

    fn write(&self, name: &str, file: &str, bytes: &str) -> Harvest {
        self.harvest(name, "pip", false, |upper| write(upper, file, bytes))
    }

    /// What somebody finds in a cache.
    fn found(&self, name: &str) -> Vec<String> {
        let Some(lease) = self.caches.lease(name).unwrap() else {
            return Vec::new();
        };
        let entries = lease.files.join("pip").read_dir_utf8().unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_owned())
            .collect();
        names.sort_unstable();
        names
    }

    /// Nobody used the cache since so many hours.
    fn age(&self, name: &str, hours: i64) {
        stock::touch(
            &self.node.join("cache").join(name),
            crate::now() - SignedDuration::from_hours(hours),
        );
    }

    fn sweep(&self, hours: i64, most_bytes: u64) -> (u64, u64) {
        let since = crate::now() - SignedDuration::from_hours(hours);
        let swept = self.caches.sweep(since, most_bytes).unwrap();
        (swept.caches, swept.bytes)
    }
}

fn write(upper: &Utf8Path, file: &str, bytes: &str) {
    fs::create_dir_all(upper.join("pip")).unwrap();
    fs::write(upper.join("pip").join(file), bytes).unwrap();
}

#[test]
fn generations_add_up_and_are_bounded() {
    let Some(world) = World::new(30) else { return };
    let caches = &world.caches;
    assert!(caches.lease("acme/tools").unwrap().is_none());
    world.write("acme/tools", "a", "0123456789");
    let first = caches.lease("acme/tools").unwrap().unwrap();
    world.write("acme/tools", "b", "0123456789");
    let second = caches.lease("acme/tools").unwrap().unwrap();
    assert!(first.files.join("pip/a").exists(), "leased generations stay");
    assert!(!first.files.join("pip/b").exists());
    assert!(second.files.join("pip/a").exists() && second.files.join("pip/b").exists());
    drop((first, second));
    assert_eq!(caches.bytes().unwrap(), 20);
    let machine = world.node.join("machine");
    fs::create_dir(&machine).unwrap();
    fs::write(machine.join("secret"), "x").unwrap();
    world.harvest("acme/tools", "pip", false, |upper| {
        std::os::unix::fs::symlink(&machine, upper.join("pip")).unwrap();
    });
    assert_eq!(world.found("acme/tools"), ["a", "b"], "links are not followed");
    assert_eq!(
        world.write("acme/tools", "c", "01234567890"),
        Harvest::TooLarge(30)
    );
    assert!(
        caches.lease("acme/tools").unwrap().is_none(),
        "too large: begun anew"
    );
    assert_eq!(caches.bytes().unwrap(), 0);
}

#[test]
fn links_of_an_earlier_build_lead_nowhere() {
    let Some(world) = World::new(1 << 20) else { return };
    let machine = world.node.join("machine");
    fs::create_dir_all(machine.join("sub")).unwrap();
    let link = |path: &Utf8Path| std::os::unix::fs::symlink(&machine, path).unwrap();
    world.harvest("acme", "pip", false, |upper| {
        fs::create_dir(upper.join("pip")).unwrap();
        link(&upper.join("pip/x"));
        link(&upper.join("pip/y"));
    });
    // What was a link is a directory now, and then a directory that is kept itself.
    for (directory, evil) in [("pip", "pip/x/evil"), ("pip/y/sub", "pip/y/sub/evil")] {
        world.harvest("acme", directory, false, |upper| {
            fs::create_dir_all(upper.join(evil).parent().unwrap()).unwrap();
            fs::write(upper.join(evil), "x").unwrap();
        });
    }
    assert!(!machine.join("evil").exists() && !machine.join("sub/evil").exists());
    let lease = world.caches.lease("acme").unwrap().unwrap();
    assert!(lease.files.join("pip/x/evil").exists() && lease.files.join("pip/y/sub/evil").exists());
}

#[test]
fn what_is_kept_once_is_the_first_s_however_many_are_at_it() {
    let Some(world) = World::new(1 << 20) else { return };
    let (writers, name) = (4, "acme/app-x/main-keys/6b");
    let begin = std::sync::Barrier::new(writers);
    let kept: usize = std::thread::scope(|scope| {
        let one = |number: usize| {
            let (world, begin) = (&world, &begin);
            scope.spawn(move || {
                let harvest = world.harvest(name, "pip", true, |upper| {
                    // Enough of them that all look before the first is done.
                    (0..200).for_each(|file| write(upper, &format!("{number}-{file}"), "x"));
                    begin.wait();
                });
                assert!(matches!(harvest, Harvest::Kept | Harvest::There));
                usize::from(harvest == Harvest::Kept)
            })
        };
        let all: Vec<_> = (0..writers).map(one).collect();
        all.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    assert_eq!(kept, 1);
    let found = world.found(name);
    let owner = found[0].split('-').next().unwrap();
    assert!(
        found.iter().all(|file| file.split('-').next() == Some(owner)),
        "two are mixed: {found:?}"
    );
    assert_eq!(found.len(), 200);
    assert_eq!(
        world.harvest(name, "pip", true, |upper| write(upper, "late", "x")),
        Harvest::There
    );
    assert!(!world.found(name).contains(&"late".to_owned()));
    let staged = world.node.join("cache").join(STAGING).read_dir_utf8().unwrap();
    assert_eq!(staged.count(), 0, "what was not kept is gone");
}

#[test]
fn what_was_cut_short_is_cleared_when_caches_are_opened() {
    let Some(world) = World::new(1 << 20) else { return };
    world.write("acme/app-x/main", "a", "1");
    // As a harvest leaves it whose process is killed.
    let half = world.caches.staging("").unwrap();
    fs::create_dir_all(half.join("pip")).unwrap();
    fs::write(half.join("pip/half"), "x").unwrap();
    let again = Caches::open(&world.node, 1 << 20).unwrap();
    assert!(!half.exists());
    assert!(
        again.lease("acme/app-x/main").unwrap().is_some(),
        "what is whole stays"
    );
    assert_eq!(again.bytes().unwrap(), 1);
}

#[test]
fn caches_begin_anew_when_somebody_removed_them_all() {
    let Some(world) = World::new(1 << 20) else { return };
    world.write("acme/app-x/main", "a", "1");
    fs::remove_dir_all(world.node.join("cache")).unwrap();
    world.write("acme/app-x/main", "b", "1");
    assert_eq!(world.found("acme/app-x/main"), ["b"]);
    world
        .caches
        .write_note("acme/app-x/main", "tests.json.zst", b"x")
        .unwrap();
    fs::remove_dir_all(world.node.join("cache").join(STAGING)).unwrap();
    world.caches.remove("acme/app-x").unwrap();
    assert_eq!(world.found("acme/app-x/main"), Vec::<String>::new());
}

#[test]
fn a_hole_that_is_larger_than_a_cache_is_not_filled() {
    let Some(world) = World::new(1 << 20) else { return };
    let kept = world.harvest("acme/app-x/main", "pip", false, |upper| {
        write(upper, "hole", "");
        let hole = fs::File::options().write(true).open(upper.join("pip/hole"));
        hole.unwrap().set_len(1 << 40).unwrap();
    });
    assert_eq!(kept, Harvest::TooLarge(1 << 20));
    assert_eq!(world.found("acme/app-x/main"), Vec::<String>::new());
}

#[test]
fn the_directories_of_a_cache_have_its_limit_together() {
    let Some(world) = World::new(1000) else { return };
    let upper = world.upper(|upper| {
        for directory in ["a", "b"] {
            fs::create_dir(upper.join(directory)).unwrap();
            let hole = fs::File::create(upper.join(directory).join("hole"));
            hole.unwrap().set_len(600).unwrap();
        }
    });
    let crop = Crop {
        name: "acme/app-x/main",
        restored: None,
        upper: &upper,
        directories: &["a".to_owned(), "b".to_owned()],
        uid_base: world.uid,
        deletions: Deletions::Apply,
        once: false,
    };
    let new = world.caches.staging("").unwrap();
    let taken = world.caches.take(&crop, &crop.written(), &new);
    assert!(matches!(taken, Err(Error::Large { .. })), "{taken:?}");
    assert_eq!(size(&new).unwrap(), 600, "what is too much is not written");
    assert_eq!(world.caches.harvest(&crop).unwrap(), Harvest::TooLarge(1000));
}

#[test]
fn a_file_with_names_in_several_directories_is_copied_once() {
    use std::os::unix::fs::MetadataExt as _;
    let Some(world) = World::new(1000) else { return };
    let upper = world.upper(|upper| {
        fs::create_dir_all(upper.join("a/inner")).unwrap();
        fs::create_dir(upper.join("a.b")).unwrap();
        fs::write(upper.join("a/file"), "x".repeat(300)).unwrap();
        fs::hard_link(upper.join("a/file"), upper.join("a/inner/file")).unwrap();
        fs::hard_link(upper.join("a/file"), upper.join("a.b/file")).unwrap();
    });
    // Also where one directory is within another, or named twice.
    let directories = ["a/inner", "a", "a.b", "a"].map(str::to_owned);
    let crop = Crop {
        name: "acme/app-x/main",
        restored: None,
        upper: &upper,
        directories: &directories,
        uid_base: world.uid,
        deletions: Deletions::Apply,
        once: false,
    };
    assert_eq!(world.caches.harvest(&crop).unwrap(), Harvest::Kept);
    let lease = world.caches.lease("acme/app-x/main").unwrap().unwrap();
    let inode = |name: &str| fs::metadata(lease.files.join(name)).unwrap().ino();
    assert_eq!(inode("a/file"), inode("a.b/file"));
    assert_eq!(inode("a/file"), inode("a/inner/file"));
}

#[test]
fn a_customer_s_files_are_kept_whatever_their_names() {
    let Some(world) = World::new(1 << 20) else { return };
    for name in ["lock", "partial", "other"] {
        world.write("acme/app-x/main", name, "1");
    }
    assert_eq!(world.found("acme/app-x/main"), ["lock", "other", "partial"]);
}

#[test]
fn a_branch_goes_on_from_another_s_without_changing_it() {
    let Some(world) = World::new(1 << 20) else { return };
    world.write("acme/app-x/main", "of-main", "1");
    let restored = world.caches.lease("acme/app-x/main").unwrap();
    world.harvest_on("acme/app-x/side", restored.as_ref(), "pip", false, |upper| {
        write(upper, "of-main", "forged");
        write(upper, "of-side", "1");
    });
    assert_eq!(world.found("acme/app-x/side"), ["of-main", "of-side"]);
    assert_eq!(world.found("acme/app-x/main"), ["of-main"]);
    let main = world.caches.lease("acme/app-x/main").unwrap().unwrap();
    assert_eq!(fs::read_to_string(main.files.join("pip/of-main")).unwrap(), "1");
}

#[test]
fn caches_that_nobody_uses_go_and_the_longest_unused_make_room() {
    let Some(world) = World::new(1 << 20) else { return };
    let (gone, key, side, main) = (
        "acme/app-x/gone",
        "acme/app-x/main-keys/31",
        "acme/app-x/side",
        "acme/app-x/main",
    );
    for (name, hours) in [(gone, 500), (key, 40), (side, 30), (main, 20)] {
        world.write(name, "file", "0123456789");
        world.age(name, hours);
    }
    world.caches.write_note(side, "tests.json.zst", b"ok").unwrap();
    world.age(side, 30);
    assert_eq!(world.caches.bytes().unwrap(), 40 + 2, "notes count");
    assert_eq!(
        world.sweep(336, 100),
        (1, 10),
        "only what is of no branch any more"
    );
    assert_eq!(world.found(gone), Vec::<String>::new());
    assert!(!world.node.join("cache").join(gone).exists());
    // A container stands on the oldest, so the next one goes.
    let stands = world.caches.lease(key).unwrap().unwrap();
    world.age(key, 40);
    assert_eq!(world.sweep(336, 30), (1, 10));
    assert!(stands.files.join("pip/file").exists());
    assert_eq!(world.found(side), Vec::<String>::new());
    assert!(
        world.caches.note(side, "tests.json.zst", 100).is_some(),
        "what cannot be made again stays"
    );
    drop(stands);
    world.age(key, 40);
    assert_eq!(world.sweep(336, 30), (0, 0), "there is room");
    assert_eq!(world.sweep(336, 20), (1, 10));
    assert_eq!((world.found(key).len(), world.found(main).len()), (0, 1));
    // What was used is not old, however long ago it was written.
    world.age(main, 500);
    drop(world.caches.lease(main).unwrap());
    assert_eq!(world.sweep(336, 20), (0, 0));
    world.age(side, 500);
    world.sweep(336, 20);
    assert!(world.caches.note(side, "tests.json.zst", 100).is_none());
    // What an older version left is known as nobody's.
    let old = world.node.join("cache/acme/builds/7");
    fs::create_dir_all(&old).unwrap();
    world.sweep(-1, u64::MAX);
    assert!(!world.node.join("cache/acme").exists());
    assert!(world.node.join("cache").join(STAGING).exists());
}

#[test]
fn a_file_among_caches_is_none_of_them() {
    let Some(world) = World::new(1 << 20) else { return };
    let (keys, key) = ("acme/app-x/main-keys", "acme/app-x/main-keys/6b");
    world.write(key, "file", "1");
    world.caches.write_note(keys, "tests.json.zst", b"x").unwrap();
    assert_eq!(world.caches.inner(keys).unwrap(), ["6b"]);
    world.caches.trim(keys, 1).unwrap();
    assert_eq!(world.found(key), ["file"]);
}

#[test]
fn notes_push_nobody_s_caches_out_and_go_where_the_generations_were_not_enough() {
    let Some(world) = World::new(1 << 20) else { return };
    let (quiet, old, new) = ("acme/app-x/main", "loud/app-x/old", "loud/app-x/new");
    for (name, hours, bytes) in [(quiet, 40, 20), (old, 30, 60), (new, 20, 60)] {
        world.write(name, "file", "0123456789");
        let note = vec![0; bytes];
        world.caches.write_note(name, "tests.json.zst", &note).unwrap();
        world.age(name, hours);
    }
    let has_note = |name| world.caches.note(name, "tests.json.zst", 100).is_some();
    // They have an eighth: who has more than others gives way, and keeps the newest.
    assert_eq!(world.sweep(336, 8 * 80), (1, 60));
    assert!(!has_note(old) && has_note(new) && has_note(quiet));
    for name in [quiet, old, new] {
        assert_eq!(world.found(name), ["file"]);
    }
    for (name, hours) in [(quiet, 40), (old, 30), (new, 20)] {
        world.age(name, hours);
    }
    assert_eq!(world.sweep(336, 8 * 79), (1, 60));
    assert!(!has_note(new) && has_note(quiet) && world.found(quiet) == ["file"]);
    // Then as ever the longest unused.
    world.age(quiet, 40);
    world.age(new, 20);
    assert_eq!(world.sweep(336, 160), (0, 0));
    world.caches.write_note(quiet, "tests.json.zst", &[0; 4]).unwrap();
    world.age(quiet, 40);
    assert_eq!(world.sweep(336, 32), (1, 10));
    assert!(has_note(quiet) && world.found(quiet) == [""; 0]);
}

#[test]
fn others_go_on_from_production_s_branch_alone() {
    for (own, trunk, expected) in [
        ("side", Some("release"), &["side", "release"][..]),
        ("release", Some("release"), &["release"]),
        ("main", Some("release"), &["main", "release"]),
        ("side", None, &["side", "main", "master"]),
        ("master", None, &["master"]),
        ("main", None, &["main"]),
    ] {
        assert_eq!(branches(own, trunk), expected, "{own} of {trunk:?}");
    }
}

#[test]
fn what_stayed_out_of_sight_goes_with_the_next_sweep() {
    let Some(world) = World::new(1 << 20) else { return };
    let aside = world.node.join("cache").join(STAGING);
    let (old, new) = (aside.join(format!("{OLD}x")), aside.join("begun"));
    for directory in [&old, &new] {
        fs::create_dir_all(directory.join("pip")).unwrap();
    }
    world.caches.sweep(jiff::Timestamp::UNIX_EPOCH, u64::MAX).unwrap();
    assert!(!old.exists() && new.exists(), "what is just being made stays");
    // One that stays holds up no other.
    let file = aside.join("file");
    fs::write(&file, "").unwrap();
    assert!(remove_trees([file, new.clone()]).is_err() && !new.exists());
}

#[test]
fn what_goes_is_out_of_sight_at_once() {
    let Some(world) = World::new(1 << 20) else { return };
    for whole in [true, false] {
        world.write("acme/tools", "a", "0123456789");
        let stock = world.caches.stock().unwrap();
        let aside = world.caches.take_away(&stock[0], whole).unwrap().unwrap();
        assert!(aside.len() == 1 && aside[0].exists(), "{aside:?}");
        assert_eq!(world.found("acme/tools"), [""; 0]);
        assert_eq!(world.caches.bytes().unwrap(), 0);
        // What was begun meanwhile is no part of it.
        world.write("acme/tools", "b", "0");
        Caches::open(&world.node, 1 << 20).unwrap();
        assert!(
            !aside[0].exists(),
            "a node that was killed in between leaves nothing"
        );
        assert_eq!(world.found("acme/tools"), ["b"]);
        world.caches.remove("acme/tools").unwrap();
    }
}
