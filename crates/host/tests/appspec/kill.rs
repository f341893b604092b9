//! An Install that somebody ends.

use std::{collections::BTreeSet, fs, path::Path};

use camino::Utf8Path;
use host::appspec::install::{Records, install};
use model::spec::deploy::FileExists;

use super::parse;

/// Where the killed one installs to, for the process that is killed.
const WORLD: &str = "VEND_TEST_INSTALL";

fn installed(world: &Path, archive: &str, spec: &str) {
    let text = spec.replace("WORLD", world.to_str().unwrap());
    let archive = world.join(archive);
    install(
        Utf8Path::from_path(&archive).unwrap(),
        &parse(&text).unwrap(),
        FileExists::Disallow,
        &Records::of(world, "dg"),
    )
    .unwrap();
}

/// An Install that ends in the middle of a file: the next one takes away what it left, and nothing that is a customer's.
#[test]
fn what_a_killed_install_began_goes_with_the_next() {
    const SPEC: &str = "version: 0.0\nos: linux\nfiles:\n  - { source: /, destination: WORLD/srv }\n";
    if let Some(world) = std::env::var_os(WORLD) {
        return installed(Path::new(&world), "first", SPEC);
    }
    let scratch = tempfile::tempdir().unwrap();
    let world = scratch.path();
    let srv = world.join("srv");
    for (file, content) in [
        ("first/big", vec![7; 1 << 20]),
        ("second/small", b"new".to_vec()),
        // As one of ours was called, and nearly as one is.
        ("srv/.big.vend-install", b"own".to_vec()),
        ("srv/.big.0123456789abcdef.vend-install", b"own".to_vec()),
    ] {
        let path = world.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    // The kernel ends it when a file becomes longer than 64 KiB.
    let killed = std::process::Command::new("bash")
        .args(["-c", "ulimit -c 0; ulimit -f 64; exec \"$@\"", "bash"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "kill::what_a_killed_install_began_goes_with_the_next"])
        .env(WORLD, world)
        .status()
        .unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&killed);
    assert_eq!(signal, Some(libc::SIGXFSZ), "{killed}");
    let names = || {
        let entries = fs::read_dir(&srv).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<BTreeSet<_>>()
    };
    let own = [".big.vend-install", ".big.0123456789abcdef.vend-install"].map(str::to_owned);
    let begun: Vec<_> = names().into_iter().filter(|name| !own.contains(name)).collect();
    assert_eq!(begun.len(), 1, "{begun:?}");
    assert!(begun[0].ends_with(".vend-install"), "{begun:?}");

    installed(world, "second", SPEC);
    let left = names();
    assert_eq!(left, own.into_iter().chain(["small".to_owned()]).collect());
    for name in left.iter().filter(|name| name.starts_with('.')) {
        assert_eq!(fs::read(srv.join(name)).unwrap(), b"own", "{name}");
    }
    // What has its name is on record by that alone.
    let record = fs::read_to_string(Records::of(world, "dg").cleanup).unwrap();
    assert_eq!(record, format!("{}/small\n", srv.display()));
}
