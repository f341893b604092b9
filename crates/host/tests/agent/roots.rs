//! The agent needs nothing of the root that it runs in: it is PID 1 of roots that have other C libraries than the one that
//! it was made with, or none.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use model::{Ticket, port::LifecycleEvent};

use super::world::World;

/// `$1` is a suite, or nothing for that of this machine; the rest are packages.
const FETCH: &str = r#"set -e
suite=$1; shift
if [ -n "$suite" ]; then
    mkdir -p lists/partial cache/archives/partial
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" >list
    # Not that of this machine: nothing is installed.
    : >status
    printf 'Dir::State::Status "%s/status";\nDir::Etc::SourceList "%s/list";\nDir::Etc::SourceParts "/none";\nDir::State::Lists "%s/lists";\nDir::Cache "%s/cache";\nAcquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n' "$PWD" "$PWD" "$PWD" "$PWD" >conf
    APT_CONFIG=$PWD/conf; export APT_CONFIG
    apt-get update -qq
fi
apt-get download -qq "$@"
mkdir files
for package in *.deb; do dpkg-deb -x "$package" files; done
"#;

/// What packages of Debian's hold, fetched once and kept beside the build; `None` where they cannot be had.
fn packages(suite: &str, packages: &[&str]) -> Option<PathBuf> {
    let name = format!("debian-{suite}-{}", packages.join("-"));
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if !kept.exists() {
        let fresh = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut fetch = Command::new("sh");
        fetch.args(["-c", FETCH, "sh", suite]).args(packages);
        let fetched = fetch.current_dir(fresh.path()).status();
        fetched.ok().filter(|status| status.success())?;
        // Another test may have been first.
        let _ = fs::rename(fresh.path().join("files"), &kept);
    }
    Some(kept)
}

const APPLETS: [&str; 11] = [
    "sh", "sleep", "echo", "cat", "su", "id", "ls", "env", "grep", "kill", "test",
];

/// Says who it is, and what it is asked for.
const WORKER: &str = "#!/bin/sh\ntrap 'echo asked; exit 0' TERM\ntrap 'echo reloaded' HUP\n\
    echo as $(id -un)\nwhile :; do sleep 0.1; done\n";

/// The same for a C library.
const SOURCE: &str = r#"#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
static volatile sig_atomic_t asked, reloaded;
static void heard(int number) { if (number == SIGTERM) asked = 1; else reloaded = 1; }
int main(void) {
    signal(SIGTERM, heard);
    signal(SIGHUP, heard);
    setvbuf(stdout, 0, _IONBF, 0);
    struct passwd *me = getpwuid(getuid());
    printf("as %s\n", me ? me->pw_name : "nobody knows");
    while (!asked) {
        if (reloaded) { reloaded = 0; puts("reloaded"); }
        usleep(50000);
    }
    puts("asked");
    return 0;
}
"#;

/// A root with this busybox for all its programs.
fn root(busybox: &Path) -> tempfile::TempDir {
    let kept = tempfile::tempdir().unwrap();
    let root = kept.path();
    for directory in [
        "bin", "sbin", "lib", "usr/bin", "usr/sbin", "etc", "proc", "dev", "run", "tmp", "var", "srv",
    ] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for name in APPLETS {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let users = "root:x:0:0::/root:/bin/sh\nwww:x:33:33::/srv:/bin/sh\n";
    fs::write(root.join("etc/passwd"), users).unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nwww:x:33:\n").unwrap();
    let worker = root.join("bin/worker");
    fs::write(&worker, WORKER).unwrap();
    fs::set_permissions(worker, fs::Permissions::from_mode(0o755)).unwrap();
    kept
}

fn copy(from: &Path, into: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(into).status();
    assert!(copied.unwrap().success(), "{}", from.display());
}

/// Nothing of any library: one static program.
fn bare() -> Option<tempfile::TempDir> {
    let files = packages("", &["busybox-static"])?;
    Some(root(&files.join("bin/busybox")))
}

/// Debian 11's library, of 2020, and its busybox, which is linked with it.
fn old() -> Option<tempfile::TempDir> {
    let files = packages("bullseye", &["libc6", "libcrypt1", "busybox"])?;
    let kept = root(&files.join("bin/busybox"));
    fs::remove_dir(kept.path().join("lib")).unwrap();
    for directory in ["lib", "lib64"] {
        copy(&files.join(directory), kept.path());
    }
    // Where Debian 11 has one of them.
    let more = files.join("usr/lib/x86_64-linux-gnu");
    if more.exists() {
        copy(&more.join("."), &kept.path().join("lib/x86_64-linux-gnu"));
    }
    Some(kept)
}

/// musl, and a program that is linked with it.
fn musl() -> Option<tempfile::TempDir> {
    let kept = bare()?;
    let files = packages("", &["musl", "musl-dev"])?;
    let libraries = files.join("usr/lib/x86_64-linux-musl");
    let library = files.join("lib/x86_64-linux-musl/libc.so");
    let source = kept.path().join("tmp/worker.c");
    fs::write(&source, SOURCE).unwrap();
    let mut compile = Command::new("gcc");
    compile
        .args(["-nostdinc", "-nostdlib", "-no-pie", "-isystem"])
        .arg(files.join("usr/include/x86_64-linux-musl"))
        .arg("-Wl,-dynamic-linker,/lib/ld-musl-x86_64.so.1")
        .arg("-o")
        .arg(kept.path().join("bin/worker"))
        .args(["crt1.o", "crti.o"].map(|object| libraries.join(object)))
        .arg(&source)
        .arg("-L")
        .arg(library.parent().unwrap())
        .arg("-lc")
        .arg(libraries.join("crtn.o"));
    compile.status().ok().filter(|status| status.success())?;
    fs::copy(library, kept.path().join("lib/ld-musl-x86_64.so.1")).unwrap();
    Some(kept)
}

#[tokio::test]
async fn it_is_pid_1_of_a_root_with_one_static_program() {
    works_in(bare(), "/bin/busybox").await;
}

#[tokio::test]
async fn it_is_pid_1_of_a_root_with_an_older_glibc() {
    works_in(old(), "libc-2.31.so").await;
}

#[tokio::test]
async fn it_is_pid_1_of_a_root_with_musl() {
    works_in(musl(), "/lib/ld-musl-x86_64.so.1").await;
}

/// `library` is in the memory of what it runs there.
async fn works_in(root: Option<tempfile::TempDir>, library: &str) {
    let Some(root) = root else {
        println!("skipped: Debian's packages cannot be fetched, or there is no compiler");
        return;
    };
    let Some(mut world) = World::start_on(root.path()).await else {
        return;
    };
    world.file("/srv/app/ready", "");
    let unit = "[Service]\nUser=www\nRestart=always\nRestartSec=100ms\nExecStart=/bin/worker\nExecReload=/bin/kill -HUP $MAINPID\n";
    world.file("/etc/systemd/system/small.service", unit);
    world
        .configure(&[("web", "echo up on $PORT; exec sleep 1000")])
        .await;
    assert!(world.until(|| world.log("web").contains("up on 8080")).await);
    let outcome = world
        .sh("systemctl start small && systemctl is-active small")
        .await;
    assert_eq!(outcome.stdout, "active\n", "{outcome:?}");
    let says = async |what: &str, times: usize| {
        let said = world
            .until(|| world.log("small").matches(what).count() == times)
            .await;
        assert!(said, "{what}: {}", world.log("small"));
    };
    says("as www\n", 1).await;
    let first = world.pid_of("small").await;
    let memory = world.sh(&format!("grep -c {library} /proc/{first}/maps")).await;
    assert_eq!(memory.code, Some(0), "{memory:?}");

    // A signal is handed on, a death is followed by another start.
    let outcome = world.sh("systemctl reload small").await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    says("reloaded\n", 1).await;
    world.sh(&format!("kill -9 {first}")).await;
    says("as www\n", 2).await;
    assert_ne!(world.pid_of("small").await, first);

    // What loses its parent is waited for.
    world.sh("for i in 1 2 3; do (sleep 0.05 &); done").await;
    let waits = |stat: &String| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.starts_with(" Z"))
    };
    let reaped = || {
        let processes = world.processes();
        !processes.iter().any(waits) && processes.iter().filter(|stat| stat.contains("(sleep)")).count() <= 2
    };
    assert!(world.until(reaped).await, "{:?}", world.processes());

    let files = [
        (
            "appspec.yml",
            "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: /srv/page\nhooks:\n  AfterInstall:\n    - location: hook.sh\n",
        ),
        (
            "hook.sh",
            "#!/bin/sh\ntest -e /srv/page/page && echo $LIFECYCLE_EVENT >/srv/hooked\n",
        ),
        ("page", "new"),
    ];
    let deployed = world
        .deploy(
            &Ticket::from_bits(1),
            1,
            &files,
            Some("appspec.yml"),
            &LifecycleEvent::BEFORE_TRAFFIC,
        )
        .await;
    assert!(deployed.failure().is_none(), "{deployed:?}");
    assert_eq!(world.sh("cat /srv/hooked").await.stdout, "AfterInstall\n");

    assert_eq!(world.terminate(), Some(0));
    assert!(world.log("small").contains("asked\n"), "{}", world.log("small"));
}
