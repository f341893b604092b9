//! The units of systemd: what systemd says of them, and the edge with the sockets that they have it lent.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::platform::{eventually, get};

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/systemd");

/// Runs a program of systemd; none where it is not installed, as in a container without it.
fn systemd(program: &str, arguments: &[&str]) -> Option<std::process::Output> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: `{program}` is not installed: apt-get install systemd");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

fn units(ends: &[&str]) -> Vec<PathBuf> {
    let files = std::fs::read_dir(UNITS).unwrap().map(|file| file.unwrap().path());
    let mut units: Vec<_> = files
        .filter(|path| {
            ends.iter()
                .any(|end| path.extension().is_some_and(|own| own == *end))
        })
        .collect();
    units.sort();
    units
}

/// The only value of a key in a unit.
fn value(unit: &str, key: &str) -> String {
    let text = std::fs::read_to_string(Path::new(UNITS).join(unit)).unwrap();
    let mut values = text
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = values
        .next()
        .unwrap_or_else(|| panic!("{unit} has no `{key}`"))
        .to_owned();
    assert_eq!(values.next(), None, "{unit} has `{key}` twice");
    value
}

#[test]
fn systemd_takes_the_units_without_a_word() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let own = root.join("etc/systemd/system");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::create_dir_all(root.join("usr/bin")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_vend"), root.join("usr/bin/vend")).unwrap();
    std::fs::create_dir_all(root.join("usr/lib/systemd")).unwrap();
    let copied = Command::new("cp")
        .args(["-r", "/usr/lib/systemd/system"])
        .arg(root.join("usr/lib/systemd/system"))
        .output()
        .unwrap();
    if !copied.status.success() {
        println!("skipped: there are no units of systemd's own: apt-get install systemd");
        return;
    }
    let at = format!("--root={}", root.display());
    let mut line = vec!["verify".to_owned(), at.clone()];
    for unit in units(&["service", "socket"]) {
        let to = own.join(unit.file_name().unwrap());
        std::fs::copy(&unit, &to).unwrap();
        line.push(to.display().to_string());
    }
    assert_eq!(line.len(), 2 + 7, "{line:?}");
    let words: Vec<&str> = line.iter().map(String::as_str).collect();
    let Some(verified) = systemd("systemd-analyze", &words) else {
        return;
    };
    let said = String::from_utf8_lossy(&[verified.stdout, verified.stderr].concat()).into_owned();
    assert!(verified.status.success() && said.is_empty(), "{said}");

    // The users that they name come to be, with the folders that they write.
    std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
    let file = |name: &str| format!("{UNITS}/{name}");
    for (program, create) in [
        ("systemd-sysusers", vec![at.clone(), file("vend.sysusers.conf")]),
        (
            "systemd-tmpfiles",
            vec![at, "--create".into(), file("vend.tmpfiles.conf")],
        ),
    ] {
        let words: Vec<&str> = create.iter().map(String::as_str).collect();
        let Some(made) = systemd(program, &words) else {
            return;
        };
        let said = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(
            made.status.success() && said.lines().all(|line| line.starts_with("Creating")),
            "{said}"
        );
    }
    let users = std::fs::read_to_string(root.join("etc/passwd")).unwrap();
    for unit in ["vend-serve.service", "vend-edge.service"] {
        assert!(users.contains(&format!("{}:x:", value(unit, "User"))), "{users}");
        assert!(root.join(&value(unit, "ReadWritePaths")[1..]).is_dir(), "{unit}");
    }
}

/// Ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.0.id() as i32).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A certificate for every name below `localhost`, as a file of the edge's folder.
fn certificate(data: &Path) {
    let folder = data.join("edge/certificates");
    std::fs::create_dir_all(&folder).unwrap();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ])
        .arg("-keyout")
        .arg(folder.join("default.key"))
        .arg("-out")
        .arg(folder.join("default.crt"))
        .output()
        .expect("openssl is installed: apt-get install openssl");
    assert!(made.status.success(), "{made:?}");
}

fn secure(at: SocketAddr) -> String {
    let curl = Command::new("curl")
        .args([
            "--silent",
            "--insecure",
            "--noproxy",
            "*",
            "--write-out",
            "%{http_code}",
        ])
        .args(["--connect-to", &format!("::{at}"), "https://localhost/"])
        .output()
        .expect("curl is installed: apt-get install curl");
    String::from_utf8(curl.stdout).unwrap()
}

#[test]
fn the_edge_takes_the_sockets_that_the_units_lend() {
    let (directory, http, https) = (tempfile::tempdir().unwrap(), free(), free());
    certificate(directory.path());
    for unit in ["vend-edge.socket", "vend-edge-https.socket"] {
        assert_eq!(
            (
                value(unit, "Backlog").as_str(),
                value("vend-edge.service", "Requires").as_str()
            ),
            ("4096", "vend-edge.socket")
        );
    }
    assert_eq!(value("vend-edge-https.socket", "Service"), "vend-edge.service");
    let names = ["vend-edge.socket", "vend-edge-https.socket"].map(|unit| value(unit, "FileDescriptorName"));
    let command = value("vend-edge.service", "ExecStart");
    let words: Vec<&str> = command.split(' ').collect();
    let ["/usr/bin/vend", arguments @ .., "/var/lib/vend"] = &words[..] else {
        panic!("{command}")
    };
    // As the units say it, but for where the program and its data are.
    let started = Command::new("systemd-socket-activate")
        .args(["--listen", &http.to_string(), "--listen", &https.to_string()])
        .arg(format!("--fdname={}", names.join(":")))
        .arg(env!("CARGO_BIN_EXE_vend"))
        .args(arguments)
        .arg(directory.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _running = match started {
        Ok(child) => Running(child),
        Err(_) => {
            println!("skipped: `systemd-socket-activate` is not installed: apt-get install systemd");
            return;
        }
    };
    // The first who comes starts it, and waits in the socket meanwhile.
    let (status, _) = eventually("it answers", Duration::from_secs(30), || {
        get(&http.to_string(), "localhost", "/").ok()
    });
    assert_eq!(status, 301, "to where TLS is spoken");
    assert_eq!(secure(https), "host not found503");
    let sockets = Command::new(env!("CARGO_BIN_EXE_vend"))
        .args(["edge", "sockets", "--json", "--data"])
        .arg(directory.path())
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&sockets.stdout).trim(),
        "[]",
        "both were lent: {sockets:?}"
    );
}

/// Where `LISTEN_PID` names another process the descriptors are somebody else's, as sd_listen_fds(3) has it.
#[test]
fn what_was_lent_to_another_process_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let edge = Command::new(env!("CARGO_BIN_EXE_vend"))
        .args(["edge", "--data"])
        .arg(directory.path())
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "http")
        .env("LISTEN_PID", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&edge.stderr).into_owned();
    assert!(
        !edge.status.success() && said.contains("which lend it its socket"),
        "{said}"
    );
}
