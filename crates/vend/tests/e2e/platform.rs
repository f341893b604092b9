//! A platform for a test: started, driven and taken down through its own commands.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;

pub struct Platform {
    child: Child,
    data: PathBuf,
    _lock: File,
}

/// A customer's working copy.
pub struct Copy {
    pub directory: tempfile::TempDir,
}

/// Whether this machine can run a platform at all. Says why not.
pub fn can_run() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: the platform's node must be root");
    }
    is_root
}

/// Which of the tests that run at a time this one is: each has a directory, and so networks, of its own.
fn slot() -> u8 {
    let slot = std::env::var("NEXTEST_TEST_GROUP_SLOT");
    slot.ok().and_then(|slot| slot.parse().ok()).unwrap_or(0)
}

/// The data directory, which stays for the tests that follow: bases are made once.
fn shared() -> PathBuf {
    let name = match slot() {
        0 => "platform".to_owned(),
        slot => format!("platform-{slot}"),
    };
    let own = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::env::var_os("VEND_TEST_DATA").map_or(own, PathBuf::from)
}

/// By themselves two directories have the same part of the default pool once in 64 times. Another clone on this machine, where
/// tests were killed, may have left its networks: so not the same for every clone either.
fn pool(data: &Path, slot: u8) -> String {
    let sum = data
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte));
    format!(
        "[network]\npool = \"10.{}.0.0/16\"\n",
        128 + (sum.wrapping_add(slot) % 64)
    )
}

/// A tenant name that no earlier test has used.
pub fn tenant(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let clock = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64 % 1_000_000_000;
    format!("{prefix}-{}{}", clock, NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Platform {
    /// Starts `vend up` and waits until every role answers. Blocks while another test has the directory.
    pub fn start() -> Self {
        Self::with("")
    }

    /// With more in its `platform.toml`.
    pub fn with(more: &str) -> Self {
        Self::start_with(|_| more.to_owned())
    }

    /// With more in its `platform.toml`, which may depend on what is in its data directory.
    pub fn start_with(more: impl FnOnce(&Path) -> String) -> Self {
        let data = shared();
        std::fs::create_dir_all(&data).unwrap();
        let lock = File::create(data.join("test.lock")).unwrap();
        lock.lock().unwrap();
        // The git hosts and registries of the tests are on this machine.
        const HERE: &str = "[sources]\nallow = [\"127.0.0.0/8\"]\n[registries]\nallow = [\"127.0.0.0/8\"]\n";
        let pool = match slot() {
            0 => String::new(),
            slot => pool(&data, slot),
        };
        std::fs::write(data.join("platform.toml"), format!("{HERE}{pool}{}", more(&data))).unwrap();
        let platform = Self {
            child: up(Path::new(env!("CARGO_BIN_EXE_vend")), &data),
            data,
            _lock: lock,
        };
        platform.wait_until_ready();
        platform
    }

    /// Goes on as another program: the process, its sockets and the hosts stay, every role starts anew.
    pub fn upgrade(&mut self, program: &Path) {
        let mut replace = Command::new(program);
        replace.args(["up", "--replace", "--data"]).arg(&self.data);
        let output = replace.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(self.child.try_wait().unwrap().is_none(), "the supervisor ended");
    }

    fn end(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }

    pub fn wait_until_ready(&self) {
        eventually("the platform is ready", Duration::from_secs(60), || {
            let health = self.try_vend(&["health", "--json"]);
            health.status.success().then_some(())
        });
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn try_vend(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vend"));
        command
            .args(arguments)
            .env("VEND_DATA", &self.data)
            .stdin(Stdio::null());
        command
    }

    pub fn set_secret(&self, app: &str, name: &str, value: &str) {
        let mut command = self.command(&["secrets", "set", app, name]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// A command that must succeed; what it printed.
    pub fn vend(&self, arguments: &[&str]) -> String {
        let output = self.try_vend(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let wrong = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "vend {arguments:?}: {}\n{text}{wrong}\n{}",
            output.status,
            self.log()
        );
        text
    }

    /// A command of somebody with a token, over TCP.
    pub fn vend_as(&self, token: &str, arguments: &[&str]) -> String {
        let url = format!("http://{}", self.endpoints()["api"].as_str().unwrap());
        let output = self
            .command(arguments)
            .env("VEND_URL", url)
            .env("VEND_TOKEN", token)
            .output()
            .unwrap();
        let wrong = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "vend {arguments:?}: {wrong}\n{}",
            self.log()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn token(&self, name: &str, role: &str, tenant: &str) -> String {
        self.vend(&["tokens", "create", name, "--role", role, "--tenant", tenant])
            .trim()
            .to_owned()
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.vend(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("vend {arguments:?}: {error}: {text}"))
    }

    /// A tenant with one app, ready to be pushed to.
    pub fn tenant_with_app(&self, prefix: &str) -> (String, String) {
        self.tenant_with(prefix, "shop")
    }

    pub fn tenant_with(&self, prefix: &str, app: &str) -> (String, String) {
        let tenant = tenant(prefix);
        let app = format!("{tenant}/{app}");
        self.vend(&["tenants", "create", &tenant]);
        self.vend(&["apps", "create", &app]);
        (tenant, app)
    }

    /// Pushes the working copy and gives the number of the push.
    pub fn push(&self, copy: &Copy, app: &str, branch: &str) -> u64 {
        let output = self
            .command(&["push", app, "--branch", branch, "--force", "--json"])
            .current_dir(copy.directory.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let wrong = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "vend push: {text}{wrong}\n{}",
            self.log()
        );
        let push: Value = serde_json::from_str(&text).unwrap();
        push["number"].as_u64().unwrap()
    }

    /// The push once it has ended, however it did.
    pub fn ended(&self, app: &str, number: u64) -> Value {
        eventually(
            &format!("push {number} of {app} ends"),
            Duration::from_secs(600),
            || {
                let pushes = self.json(&["pushes", "list", app]);
                let own = pushes["items"]
                    .as_array()?
                    .iter()
                    .find(|push| push["number"] == number)?
                    .clone();
                let state = own["state"].as_str()?.to_owned();
                (!["waiting", "running"].contains(&state.as_str())).then_some(own)
            },
        )
    }

    /// Pushes and waits until it is live.
    pub fn release(&self, copy: &Copy, app: &str, branch: &str) {
        let number = self.push(copy, app, branch);
        let push = self.ended(app, number);
        assert_eq!(
            push["state"],
            "done",
            "{push:#}\n{}\n{}",
            self.vend(&["why", app]),
            self.log()
        );
    }

    /// The execution once it has ended.
    pub fn finished(&self, execution: &str) -> Value {
        eventually(&format!("{execution} ends"), Duration::from_secs(600), || {
            let detail = self.json(&["executions", "show", execution]);
            let state = detail["state"].as_str()?.to_owned();
            (!["queued", "running"].contains(&state.as_str())).then_some(detail)
        })
    }

    /// What the command begins comes to a good end.
    pub fn succeeds(&self, arguments: &[&str]) {
        let started = self.json(arguments);
        let ended = self.finished(started["executions"][0].as_str().unwrap());
        assert_eq!(ended["state"], "succeeded", "{ended:#}\n{}", self.log());
    }

    pub fn endpoints(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.data.join("run/endpoints.json")).unwrap()).unwrap()
    }

    /// The edge's address.
    pub fn http(&self) -> String {
        self.endpoints()["http"].as_str().unwrap().to_owned()
    }

    /// A visitor's GET: status and body.
    pub fn get(&self, host: &str, path: &str) -> (u16, String) {
        get(&self.http(), host, path)
            .unwrap_or_else(|error| panic!("GET {host}{path}: {error}\n{}", self.log()))
    }

    /// Kills a role the hard way. `vend up` starts it again.
    pub fn kill(&self, role: &str) {
        self.signal(role, rustix::process::Signal::KILL);
    }

    /// Asks a role to end in order. `vend up` starts it again.
    pub fn restart(&self, role: &str) {
        let before = self.pid(role);
        self.signal(role, rustix::process::Signal::TERM);
        eventually(&format!("another {role} runs"), Duration::from_secs(60), || {
            self.pid(role).filter(|pid| Some(*pid) != before)
        });
    }

    /// Lets a role stand still, or go on.
    pub fn pause(&self, role: &str, signal: rustix::process::Signal) {
        self.signal(role, signal);
    }

    fn signal(&self, role: &str, signal: rustix::process::Signal) {
        let pid = self
            .pid(role)
            .unwrap_or_else(|| panic!("{role} does not run\n{}", self.log()));
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        // It may have ended by itself in between.
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// The process of a role of this platform.
    pub fn pid(&self, role: &str) -> Option<i32> {
        let parent = self.child.id().to_string();
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(Result::ok)
            .find_map(|entry| {
                let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
                let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
                let is_child = stat.rsplit(')').next()?.split_whitespace().nth(1)? == parent;
                let line = std::fs::read(entry.path().join("cmdline")).ok()?;
                (is_child && line.split(|b| *b == 0).nth(1)? == role.as_bytes()).then_some(pid)
            })
    }

    /// The end of the platform's own log, for failed assertions.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.data.join("test.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.end();
        let down = Command::new(env!("CARGO_BIN_EXE_vend"))
            .arg("down")
            .arg("--data")
            .arg(&self.data)
            .output();
        let down = down.unwrap();
        if !std::thread::panicking() {
            let left = left_behind(&self.data);
            assert!(left.is_empty(), "`vend down` left {left:?}");
            assert!(
                down.status.success(),
                "vend down: {}",
                String::from_utf8_lossy(&down.stderr)
            );
        }
    }
}

/// What a platform that was taken down must not leave: links, firewall tables, control groups, mounts, processes.
fn left_behind(data: &Path) -> Vec<String> {
    let node = camino::Utf8PathBuf::from_path_buf(data.join("node").canonicalize().unwrap()).unwrap();
    let tag = host::container::tag_of(&node);
    let names = |directory: &str| -> Vec<String> {
        let entries = std::fs::read_dir(directory)
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        entries.map(|entry| entry.path().display().to_string()).collect()
    };
    let mut left = names("/sys/class/net");
    for hierarchy in names("/sys/fs/cgroup") {
        left.extend(names(&hierarchy));
    }
    left.extend(names("/sys/fs/cgroup"));
    let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
    left.extend(String::from_utf8_lossy(&tables.stdout).lines().map(str::to_owned));
    let own = [
        format!("vend{tag}"),
        format!("vh{tag}"),
        format!("vend-{tag}"),
        format!("vend_{tag}"),
    ];
    left.retain(|name| own.iter().any(|own| name.contains(own)));
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    left.extend(
        mounts
            .lines()
            .filter(|line| line.contains(node.as_str()))
            .map(str::to_owned),
    );
    for process in names("/proc") {
        let line = std::fs::read(Path::new(&process).join("cgroup")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&format!("vend-{tag}")) {
            left.push(process);
        }
    }
    left
}

fn up(program: &Path, data: &Path) -> Child {
    let log = File::create(data.join("test.log")).unwrap();
    Command::new(program)
        .args(["up", "--pick-ports", "--data"])
        .arg(data)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// One request on a connection of its own.
pub fn get(address: &str, host: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no status line: {text:?}")))?;
    let body = text
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .unwrap_or_default();
    Ok((status, body))
}

/// Waits for something that must come, and fails with its name when it does not.
pub fn eventually<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            started.elapsed() < within,
            "not within {} s: {what}",
            within.as_secs()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A server in the Perl that every Debian base has: it says `text`, its database's host and its secret.
const SERVER: &str = r#"
use strict; use warnings; use IO::Socket::INET;
$SIG{CHLD} = 'IGNORE';
my $server = IO::Socket::INET->new(LocalPort => $ENV{PORT}, Listen => 128, ReuseAddr => 1) or die $!;
while (1) {
    my $client = $server->accept() or next;
    next if fork();
    my ($path, $length) = ('/', 0);
    while (my $line = <$client>) {
        $path = $1 if $line =~ m{^GET (\S+)};
        print "request $1\n" if $line =~ /^X-Request-Id: (\S+)/i;
        last if $line =~ /^\r?\n$/;
    }
    my $body = "TEXT\n";
    $body = ($ENV{API_KEY} // 'none') . "\n" if $path eq '/secret';
    print $client "HTTP/1.1 200 OK\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
    close $client; exit 0;
}
"#;

impl Copy {
    /// An app without a build, a bake or a database: what it is about is the platform.
    pub fn new(text: &str, vend_yaml: &str) -> Self {
        let copy = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        copy.git(&["init", "-q", "-b", "main"]);
        copy.write("vend.yaml", vend_yaml);
        copy.write("Procfile", "web: exec perl server.pl\n");
        copy.says(text);
        copy
    }

    /// Changes what the server says, and commits.
    pub fn says(&self, text: &str) {
        self.write("server.pl", SERVER.replace("TEXT", text));
        self.commit(text);
    }

    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn commit(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
    }

    pub fn git(&self, arguments: &[&str]) {
        let output = Command::new("git")
            .current_dir(self.directory.path())
            .args([
                "-c",
                "user.name=Ada",
                "-c",
                "user.email=ada@acme.example",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "git {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
