//! A host without a container: namespaces for processes and mounts, and a root that is an overlay of this machine's.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::body::Body;
use camino::Utf8Path;
use host::agent::{
    Client,
    api::{Configuration, Deploy, RunOrder, RunOutcome, ServiceStatus},
};
use model::{
    DeploymentId, Digest, HostId, Secret, Ticket,
    port::{DeployOrder, Deployed, LifecycleEvent},
};
use rustix::process::{Pid, Signal, kill_process};

const SET_UP: &str = r#"set -e
mount --make-rprivate /
ip link set lo up
mount -t tmpfs tmpfs "$1/fs"
mkdir "$1/fs/upper" "$1/fs/work" "$1/fs/root"
mount -t overlay overlay -o "lowerdir=$3,upperdir=$1/fs/upper,workdir=$1/fs/work" "$1/fs/root"
cd "$1/fs/root"
rm -rf srv/app etc/systemd/system/multi-user.target.wants lib/systemd/system/multi-user.target.wants
rm -rf etc/systemd/system/default.target.wants etc/systemd/system/graphical.target.wants
mkdir -p run/vend etc/systemd/system lib/systemd/system srv
mount --bind "$1/run" run/vend
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
for name in null zero full random urandom tty; do touch "dev/$name"; mount --bind "/dev/$name" "dev/$name"; done
ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
cp "$2" sbin/vend
for name in init telinit shutdown halt poweroff reboot runlevel; do rm -f "usr/sbin/$name" "usr/bin/$name"; done
for name in usr/bin/systemctl usr/sbin/service; do rm -f "$name"; ln "sbin/vend" "$name"; done
exec env -i /usr/sbin/chroot . /sbin/vend agent
"#;

pub struct World {
    child: Child,
    directory: tempfile::TempDir,
    pub agent: Client,
}

impl World {
    /// `None`, and a word about it, where namespaces cannot be made.
    pub async fn start() -> Option<Self> {
        Self::start_on(Path::new("/")).await
    }

    /// The same on another root file system.
    pub async fn start_on(root: &Path) -> Option<Self> {
        let program = program();
        if !rustix::process::geteuid().is_root() || !program.exists() {
            println!(
                "skipped: needs root, and the example `agent` built ({})",
                program.display()
            );
            return None;
        }
        let directory = tempfile::Builder::new().prefix("vend-agent-").tempdir().unwrap();
        for name in ["fs", "run"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let errors = fs::File::create(directory.path().join("errors")).unwrap();
        let child = Command::new("unshare")
            .args([
                "--fork",
                "--pid",
                "--mount",
                // Its ports are its own, whatever listens on the machine.
                "--net",
                "--kill-child",
                "sh",
                "-c",
                SET_UP,
                "sh",
            ])
            .args([directory.path(), &program, root])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .unwrap();
        let socket = directory.path().join("run/agent.sock");
        let agent = Client::new(Utf8Path::from_path(&socket).unwrap());
        let mut world = Self {
            child,
            directory,
            agent,
        };
        for _ in 0..500 {
            if world.agent.health().await.is_ok() {
                return Some(world);
            }
            if world.child.try_wait().unwrap().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let errors = fs::read_to_string(world.directory.path().join("errors")).unwrap();
        if errors.contains("unshare failed") || errors.contains("mount:") {
            println!("skipped: no namespaces or overlays here: {errors}");
            return None;
        }
        panic!("the agent does not answer: {errors}");
    }

    pub fn socket(&self) -> PathBuf {
        self.run().join("agent.sock")
    }

    pub fn run(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// All that was written since the host began: the upper directory of its root, and what is shared with it.
    pub fn written(&self) -> [PathBuf; 2] {
        let (maker, directory) = (self.child.id(), self.directory.path().display());
        [
            format!("/proc/{maker}/root{directory}/fs/upper").into(),
            self.run(),
        ]
    }

    /// PID 1 of the host, as this machine knows it.
    pub fn pid(&self) -> i32 {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.child.id())).unwrap();
        children.trim().parse().unwrap()
    }

    /// A file in the host.
    pub fn file(&self, path: &str, text: &str) {
        let path = PathBuf::from(format!("/proc/{}/root{path}", self.pid()));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Command names of all processes of the host but PID 1.
    pub fn processes(&self) -> Vec<String> {
        let entries = fs::read_dir(format!("/proc/{}/root/proc", self.pid())).unwrap();
        entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name != "1" && name.bytes().all(|b| b.is_ascii_digit()))
            .filter_map(|pid| fs::read_to_string(format!("/proc/{}/root/proc/{pid}/stat", self.pid())).ok())
            .collect()
    }

    pub fn log(&self, service: &str) -> String {
        let path = self.run().join(format!("logs/{service}.log"));
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }

    pub async fn configure(&self, processes: &[(&str, &str)]) {
        let secret = |text: &str| Secret::new(text.to_owned());
        let owned = |(name, command): &(&str, &str)| ((*name).to_owned(), (*command).to_owned());
        let configuration = Configuration {
            environment: BTreeMap::from([
                ("GREETING".to_owned(), secret("hello")),
                ("API_TOKEN".to_owned(), secret("t0p-s3cret")),
                ("PIN".to_owned(), secret("4711")),
                ("SHIP".to_owned(), secret("blue-whale-17")),
                ("FLAG".to_owned(), secret("yes")),
                ("QUEUE".to_owned(), secret("amqp://shop:under-the-sea@mq/v")),
            ]),
            secrets: ["API_TOKEN", "PIN", "SHIP", "FLAG", "QUEUE", "ABSENT"]
                .map(str::to_owned)
                .into(),
            port: 8080,
            processes: processes.iter().map(owned).collect(),
        };
        self.agent.configure(&configuration).await.unwrap();
    }

    pub async fn sh(&self, script: &str) -> RunOutcome {
        let order = RunOrder {
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            user: None,
            directory: None,
            environment: BTreeMap::new(),
            stdin: None,
            timeout_ms: 20_000,
        };
        self.agent.run(&order).await.unwrap()
    }

    pub async fn status(&self, service: &str) -> ServiceStatus {
        let services = self.agent.services().await.unwrap();
        services
            .into_iter()
            .find(|status| status.name == service)
            .unwrap()
    }

    pub async fn pid_of(&self, service: &str) -> u32 {
        for _ in 0..300 {
            if let Some(pid) = self.status(service).await.pid {
                return pid;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{service} does not run: {:?}", self.status(service).await);
    }

    /// Runs a script in which `within SECONDS CONDITION` waits until that holds, and fails when it does not.
    pub async fn told(&self, script: &str) -> String {
        const WITHIN: &str = "within() { for _ in $(seq $(($1 * 50))); do eval \"$2\" 2>/dev/null && return; sleep 0.02; done; false; }";
        self.sh(&format!("{WITHIN}\n{script}")).await.stdout
    }

    pub async fn until(&self, holds: impl Fn() -> bool) -> bool {
        self.until_async(async || holds()).await
    }

    /// Has the agent replaced by the same program, and waits until the new one answers.
    pub async fn replace_agent(&self) {
        let bytes = fs::read(program()).unwrap();
        let began = self.agent.health().await.unwrap().started_at;
        let limit = Duration::from_secs(60);
        let digest = Digest::of(&bytes);
        self.agent
            .succeed(&digest, Body::from(bytes), limit)
            .await
            .unwrap();
        let is_new = async || {
            let health = self.agent.health().await;
            health.is_ok_and(|health| health.started_at > began)
        };
        assert!(self.until_async(is_new).await, "the new agent answers");
    }

    pub async fn until_async(&self, holds: impl AsyncFn() -> bool) -> bool {
        for _ in 0..500 {
            if holds().await {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    pub async fn deploy(
        &self,
        ticket: &Ticket,
        deployment: u64,
        files: &[(&str, &str)],
        appspec: Option<&str>,
        events: &[LifecycleEvent],
    ) -> Deployed {
        let tar = tar_of(files);
        let revision = Digest::of(&tar);
        if !self.agent.knows(ticket).await.unwrap() {
            let limit = Duration::from_secs(20);
            self.agent
                .put_revision(&revision, Body::from(tar), limit)
                .await
                .unwrap();
        }
        let order = DeployOrder {
            deployment: DeploymentId::from_bits(deployment),
            place: "acme/shop/dev".parse().unwrap(),
            host: HostId::from_bits(1),
            revision,
            appspec: appspec.map(Into::into),
            events: events.to_vec(),
            migration: None,
            ignores_stop: false,
            commit: Some("c0ffee".into()),
        };
        let deploy = Deploy {
            ticket: ticket.clone(),
            order,
        };
        let reports = self.agent.deploy(&deploy).await.unwrap();
        Deployed {
            events: reports.events,
            log: format!("deploy/{ticket}").parse().unwrap(),
        }
    }

    /// SIGTERM to PID 1, and how it ended.
    pub fn terminate(&mut self) -> Option<i32> {
        kill_process(Pid::from_raw(self.pid()).unwrap(), Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // PID 1 goes with its parent, the namespace with PID 1, and the mounts with the namespace.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    profile.join("examples/agent")
}

fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder
            .append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap()
}
