//! The program needs nothing of the system that it runs in: no library, no loader, no resolver.

use std::{net::UdpSocket, os::unix::fs::symlink};

use super::*;

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let mut number = [0; 8];
    number[..length].copy_from_slice(&bytes[at..at + length]);
    u64::from_le_bytes(number)
}

/// Segments of a program (`elf(5)`, 64 bits, little-endian): type, and where in the file.
fn segments(program: &[u8]) -> Vec<(u64, usize, usize)> {
    let (first, size, count) = (
        number(program, 32, 8),
        number(program, 54, 2),
        number(program, 56, 2),
    );
    let header = |index| usize::try_from(first + index * size).unwrap();
    let segment = |at: usize| {
        let place = [8, 32].map(|field| usize::try_from(number(program, at + field, 8)).unwrap());
        (number(program, at, 4), place[0], place[1])
    };
    (0..count).map(|index| segment(header(index))).collect()
}

#[test]
fn it_is_static() {
    const DYNAMIC: u64 = 2;
    const INTERPRETER: u64 = 3;
    const NEEDED: u64 = 1;
    let program = std::fs::read(env!("CARGO_BIN_EXE_vend")).unwrap();
    assert_eq!(&program[..6], b"\x7fELF\x02\x01");
    let segments = segments(&program);
    assert!(segments.len() > 2 && segments.iter().all(|(kind, ..)| *kind != INTERPRETER));
    for (_, at, length) in segments.iter().filter(|(kind, ..)| *kind == DYNAMIC) {
        let mut tags = program[*at..at + length]
            .chunks(16)
            .map(|entry| number(entry, 0, 8));
        assert!(tags.all(|tag| tag != NEEDED), "it needs a library");
    }
}

/// Debian's, fetched once and kept beside the build.
fn busybox() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("busybox-static");
    let program = directory.join("bin/busybox");
    if !program.exists() {
        std::fs::create_dir_all(&directory).unwrap();
        let fetched = Command::new("sh")
            .args([
                "-c",
                "apt-get download -qq busybox-static && dpkg-deb -x busybox-static_*.deb .",
            ])
            .current_dir(&directory)
            .status();
        fetched.ok().filter(|status| status.success())?;
    }
    Some(program)
}

/// Libraries of Debian 11, of 2020, with modules that find names of machines, and its busybox, fetched once and kept beside
/// the build.
fn older() -> Option<PathBuf> {
    const FETCH: &str = r##"set -e
        mkdir -p lists/partial cache/archives/partial files
        : >status
        echo 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bullseye main' >list
        cat >conf <<END
Dir::Etc::SourceList "$PWD/list";
Dir::Etc::SourceParts "$PWD/none";
Dir::State::Status "$PWD/status";
Dir::State::Lists "$PWD/lists";
Dir::Cache "$PWD/cache";
END
        APT_CONFIG=$PWD/conf; export APT_CONFIG
        apt-get update -qq
        apt-get download -qq libc6 libnss-myhostname libcap2 libcrypt1 busybox
        for package in *.deb; do dpkg-deb -x "$package" files; done"##;
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian-11-system");
    if !kept.exists() {
        let fresh = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut fetch = Command::new("sh");
        let fetched = fetch.args(["-c", FETCH]).current_dir(fresh.path()).status();
        fetched.ok().filter(|status| status.success())?;
        // Another test may have been first.
        let _ = std::fs::rename(fresh.path().join("files"), &kept);
    }
    Some(kept)
}

fn copy_all(from: &Path, into: &Path) {
    let copied = Command::new("cp")
        .arg("-a")
        .arg(from.join("."))
        .arg(into)
        .status();
    assert!(copied.unwrap().success(), "{}", from.display());
}

/// Its C library would load them into the program, which they end: they were made for another version of it.
#[test]
fn it_asks_for_names_without_the_modules_of_the_system() {
    let (true, Some(older)) = (can_run(), older()) else {
        println!("skipped: Debian's packages cannot be fetched");
        return;
    };
    let system = tempfile::tempdir().unwrap();
    copy_all(&older, system.path());
    std::fs::copy(env!("CARGO_BIN_EXE_vend"), system.path().join("vend")).unwrap();
    std::fs::create_dir_all(system.path().join("etc")).unwrap();
    let etc = |name: &str, text: &str| std::fs::write(system.path().join("etc").join(name), text).unwrap();
    etc("nsswitch.conf", "hosts: myhostname files dns\n");
    etc("hosts", "127.0.0.1 vend.test\n");
    etc(
        "resolv.conf",
        "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    );
    let token = format!("vendjoin_{}_{}", "ab".repeat(32), "cd".repeat(32));
    for (name, expected) in [("vend.test", "refused"), ("none.test", "name resolution")] {
        let mut join = Command::new("chroot");
        join.arg(system.path()).args(["/vend", "agent", "--join"]);
        join.args([&format!("https://{name}:1"), "--token", &token]);
        let joined = join.output().unwrap();
        let said = String::from_utf8_lossy(&joined.stderr);
        assert_eq!(joined.status.code(), Some(1), "{:?}: {said}", joined.status);
        assert!(said.contains(expected), "{name}: {said}");
    }
}

/// A system of busybox and this program, without a library, as small musl distributions are.
fn small(busybox: &Path) -> tempfile::TempDir {
    let system = tempfile::tempdir().unwrap();
    let at = |path: &str| system.path().join(path);
    for directory in ["bin", "etc", "proc", "dev", "run", "tmp", "var", "srv"] {
        std::fs::create_dir(at(directory)).unwrap();
    }
    std::fs::copy(busybox, at("bin/busybox")).unwrap();
    for name in ["sh", "sleep", "echo"] {
        symlink("busybox", at("bin").join(name)).unwrap();
    }
    let program = env!("CARGO_BIN_EXE_vend");
    let own = at(program.trim_start_matches('/'));
    std::fs::create_dir_all(own.parent().unwrap()).unwrap();
    if std::fs::hard_link(program, &own).is_err() {
        std::fs::copy(program, &own).unwrap();
    }
    std::fs::write(at("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    system
}

/// Answers that every name is here (RFC 1035, 4.1), while this process lives.
fn resolver() -> Option<String> {
    let address = "127.0.0.99";
    let socket = UdpSocket::bind((address, 53)).ok()?;
    std::thread::spawn(move || {
        let mut asked = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut asked) {
            let name = asked[12..length].iter().position(|byte| *byte == 0).unwrap_or(0);
            let end = 12 + name + 5;
            let is_four = asked[end - 4..end] == [0, 1, 0, 1];
            let mut answer = asked[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_four), 0, 0, 0, 0]);
            if is_four {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 127, 0, 0, 1]);
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    Some(address.to_owned())
}

/// The same of Debian 11's programs and its library, which they are linked with.
fn old(files: &Path) -> tempfile::TempDir {
    let system = small(&files.join("bin/busybox"));
    copy_all(files, system.path());
    system
}

#[test]
fn it_joins_by_a_name_and_runs_an_app_in_systems_without_a_library_and_with_an_older_one() {
    let (true, Some(busybox), Some(older)) = (can_run(), busybox(), older()) else {
        println!("skipped: Debian's packages cannot be fetched");
        return;
    };
    let Some(resolver) = resolver() else {
        println!("skipped: nobody can answer for names here");
        return;
    };
    let platform = for_machines("");
    let (owner, app) = platform.tenant_with_app("anywhere");
    let by_file = ("etc/hosts", "127.0.0.1 vend.test\n".to_owned());
    let by_question = ("etc/resolv.conf", format!("nameserver {resolver}\n"));
    let mut all = Vec::new();
    for (system, (file, text)) in [
        (small(&busybox), by_file.clone()),
        (small(&busybox), by_question),
        (old(&older), by_file),
    ] {
        std::fs::write(system.path().join(file), text).unwrap();
        // Systems name modules that are not there for a program of another build.
        std::fs::write(
            system.path().join("etc/nsswitch.conf"),
            "hosts: myhostname files mymachines resolve dns\n",
        )
        .unwrap();
        let invited = platform.json(&["hosts", "invite", &owner, "--label", "role=web"]);
        let [url, token] = ["url", "token"].map(|key| invited[key].as_str().unwrap().to_owned());
        let mut on = Machine::new();
        on.system = system.path().to_owned();
        on.run(&[
            "--join",
            &url.replace("127.0.0.1", "vend.test"),
            "--token",
            &token,
        ]);
        all.push((on, system));
    }
    machines(&platform, &owner, 3);
    let work = Copy::new("one", VEND_YAML);
    work.write("Procfile", "web: echo up >/srv/up; exec sleep 1000\n");
    work.commit("A sleeper");
    platform.release(&work, &app, "dev");
    for (on, _) in &all {
        assert_eq!(text(&on.file("srv/up")), "up\n", "{}", on.said());
    }
    platform.vend(&["tenants", "delete", &owner, "--yes"]);
}
