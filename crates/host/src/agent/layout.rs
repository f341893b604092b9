//! Where the agent keeps things inside a host. One value, so that tests run a whole agent under a scratch directory.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, symlink},
    path::{Path, PathBuf},
};

#[derive(Debug, Clone)]
pub struct Layout {
    /// What all else is below, and what absolute links in unit files are meant to begin at. `/`.
    pub root: PathBuf,
    /// Shared with the node: the socket and the logs. `/run/vend`.
    pub run: PathBuf,
    /// What the agent must remember when its host restarts. `/var/lib/vend`.
    pub state: PathBuf,
    /// `/opt/codedeploy-agent/deployment-root`, as scripts expect it.
    pub deployments: PathBuf,
    /// Where an app without an appspec is put. `/srv/app`.
    pub app: PathBuf,
    /// Where people look for logs: a link to the ones under `run`. `/var/log/vend`.
    pub logs: PathBuf,
    /// Unit files, the first directory wins.
    pub units: Vec<PathBuf>,
    pub init: PathBuf,
    /// What programs look for to know that `systemctl` answers. `/run/systemd`.
    pub systemd: PathBuf,
    /// Programs of packages that make units.
    pub generators: Vec<PathBuf>,
    /// Which units are enabled when they are installed (`systemd.preset(5)`), the first directory wins.
    pub presets: Vec<PathBuf>,
    /// `tmpfiles.d` of packages, the first directory wins.
    pub temporary: Vec<PathBuf>,
    /// `/dev/log`
    pub syslog: PathBuf,
    /// Where Debian's package manager keeps which files packages must not replace.
    pub diversions: PathBuf,
    /// Where programs go that answer under other names. `/usr/sbin`.
    pub programs: PathBuf,
    /// Where an agent that is no PID 1 says what it runs, for the next one should it be killed.
    pub traces: Option<PathBuf>,
}

impl Layout {
    /// Inside a host.
    pub fn host() -> Self {
        Self::under(Path::new("/"))
    }

    /// Below a directory.
    pub fn under(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            run: root.join("run/vend"),
            state: root.join("var/lib/vend"),
            deployments: root.join("opt/codedeploy-agent/deployment-root"),
            app: root.join("srv/app"),
            logs: root.join("var/log/vend"),
            units: [
                "etc/systemd/system",
                "run/systemd/system",
                "run/systemd/generator",
                "usr/local/lib/systemd/system",
                "lib/systemd/system",
                "usr/lib/systemd/system",
                "run/systemd/generator.late",
            ]
            .map(|directory| root.join(directory))
            .to_vec(),
            init: root.join("etc/init.d"),
            systemd: root.join("run/systemd"),
            generators: [
                "etc/systemd/system-generators",
                "usr/lib/systemd/system-generators",
            ]
            .map(|directory| root.join(directory))
            .to_vec(),
            presets: [
                "etc/systemd/system-preset",
                "run/systemd/system-preset",
                "usr/local/lib/systemd/system-preset",
                "usr/lib/systemd/system-preset",
            ]
            .map(|directory| root.join(directory))
            .to_vec(),
            temporary: ["etc/tmpfiles.d", "run/tmpfiles.d", "usr/lib/tmpfiles.d"]
                .map(|directory| root.join(directory))
                .to_vec(),
            syslog: root.join("dev/log"),
            diversions: root.join("var/lib/dpkg/diversions"),
            programs: root.join("usr/sbin"),
            traces: None,
        }
    }

    /// On a machine that is somebody's own: it has an init of its own, whose units and directories are left alone.
    pub fn machine(root: &Path, state: &Path) -> Self {
        let run = root.join("run/vend-machine");
        Self {
            state: state.join("agent"),
            logs: root.join("var/log/vend-machine"),
            units: Vec::new(),
            init: run.join("init/init.d"),
            systemd: run.join("systemd"),
            generators: Vec::new(),
            presets: Vec::new(),
            temporary: Vec::new(),
            syslog: run.join("log"),
            diversions: run.join("diversions"),
            programs: run.join("programs"),
            traces: Some(run.join("traces")),
            run,
            ..Self::under(root)
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.run.join("agent.sock")
    }

    /// Where everybody in the host may ask how its services are. Beside what says that `systemctl` answers: `run` is root's.
    pub fn questions(&self) -> PathBuf {
        self.systemd.join("vend.sock")
    }

    /// The logs that the node reads too.
    pub fn shared_logs(&self) -> PathBuf {
        self.run.join("logs")
    }

    /// Revisions that arrived and are not unpacked yet.
    pub fn revisions(&self) -> PathBuf {
        self.state.join("revisions")
    }

    pub fn tickets(&self) -> PathBuf {
        self.state.join("tickets")
    }

    /// Clean-up and install files, and which deployment of a group was the last.
    pub fn instructions(&self) -> PathBuf {
        self.deployments.join("deployment-instructions")
    }

    /// Scripts say `shutdown` and `init` too: where nothing answers, this program does.
    fn names(&self) {
        let Ok(program) = fs::read_link("/proc/self/exe") else {
            return;
        };
        for name in super::systemctl::NAMES {
            let link = self.programs.join(name);
            if link.symlink_metadata().is_err() {
                // An image that cannot be written to does without.
                let _ = symlink(&program, link);
            }
        }
    }

    /// A package that brings a `systemctl` of its own must not put it over the one that answers (`dpkg-divert(1)`).
    fn divert(&self) {
        let Ok(mut text) = fs::read_to_string(&self.diversions) else {
            return;
        };
        let before = text.len();
        for path in ["/bin/systemctl", "/usr/bin/systemctl", "/usr/sbin/service"] {
            if !text.lines().any(|line| line == path) {
                text.push_str(&format!("{path}\n{path}.package\n:\n"));
            }
        }
        if text.len() > before {
            let fresh = self.diversions.with_extension("vend");
            let written = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &self.diversions));
            if let Err(error) = written {
                tracing::warn!("packages may replace systemctl: {error}");
            }
        }
    }

    /// Makes the directories that are missing.
    pub fn make(&self) -> io::Result<()> {
        for directory in [
            &self.run,
            &self.state,
            &self.shared_logs(),
            &self.revisions(),
            &self.tickets(),
        ]
        .into_iter()
        .chain(&self.traces)
        {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        for directory in [&self.deployments, &self.instructions(), &self.systemd] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(directory)?;
        }
        // Whoever brought them before a restart brings them again.
        for left in fs::read_dir(self.revisions())? {
            fs::remove_file(left?.path())?;
        }
        if std::process::id() == 1 {
            self.names();
            self.divert();
            // Maintainer scripts ask systemctl where this is.
            fs::create_dir_all(self.systemd.join("system"))?;
        }
        if let Some(parent) = self.logs.parent() {
            fs::create_dir_all(parent)?;
        }
        if self.logs.symlink_metadata().is_err() {
            symlink(self.shared_logs(), &self.logs)?;
        }
        Ok(())
    }
}
