//! A platform to measure: started, driven and taken down through its own commands.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Nothing that is measured takes longer.
const PATIENCE: Duration = Duration::from_secs(600);

pub struct Platform {
    binary: PathBuf,
    data: PathBuf,
    child: Option<Child>,
    interrupted: Arc<AtomicBool>,
}

impl Platform {
    /// A platform of this data directory, which does not run yet.
    pub fn new(binary: &Path, data: &Path) -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))
                .context("cannot listen for signals")?;
        }
        std::fs::create_dir_all(data).with_context(|| format!("cannot create {}", data.display()))?;
        Ok(Self {
            binary: binary.to_owned(),
            data: data.to_owned(),
            child: None,
            interrupted,
        })
    }

    /// Starts `vend up` and waits until every role answers. The seconds that it took.
    pub fn up(&mut self) -> anyhow::Result<f64> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .context("cannot open the log")?;
        let mut command = Command::new(&self.binary);
        command
            .args(["up", "--pick-ports", "--data"])
            .arg(&self.data)
            .stdin(Stdio::null());
        command
            .stdout(log.try_clone().context("cannot share the log")?)
            .stderr(log);
        // Ctrl-C is for us: the platform is stopped in order.
        command.process_group(0);
        let started = Instant::now();
        self.child = Some(
            command
                .spawn()
                .with_context(|| format!("cannot run {}", self.binary.display()))?,
        );
        self.until("the platform is ready", Duration::from_millis(2), |platform| {
            Ok(platform
                .output(&["health", "--json"])?
                .status
                .success()
                .then_some(()))
        })?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Ends the roles in order; hosts go on running.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        if let Some(pid) = rustix::process::Pid::from_raw(child.id() as i32) {
            // One that has ended needs no signal.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        child.wait().context("cannot wait for `vend up`")?;
        Ok(())
    }

    /// Ends the roles, then removes every host, network and mount.
    pub fn down(&mut self) -> anyhow::Result<()> {
        self.stop()?;
        let output = self.output(&["down"])?;
        if !output.status.success() {
            bail!("vend down: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    pub fn log(&self) -> PathBuf {
        self.data.join("platform.log")
    }

    /// The process of `vend up`.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env("VEND_DATA", &self.data)
            .stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.command(arguments)
            .output()
            .with_context(|| format!("cannot run {}", self.binary.display()))
    }

    /// A command that must succeed.
    pub fn vend(&self, arguments: &[&str]) -> anyhow::Result<String> {
        said(&format!("vend {}", arguments.join(" ")), &self.output(arguments)?)
    }

    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.vend(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("vend {} says {text:?}", arguments.join(" ")))
    }

    pub fn items(&self, arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
        let page = self.json(arguments)?;
        let items = page["items"]
            .as_array()
            .with_context(|| format!("no list: {page}"))?;
        Ok(items.clone())
    }

    /// The edge's address.
    pub fn edge(&self) -> anyhow::Result<String> {
        let text =
            std::fs::read(self.data.join("run/endpoints.json")).context("the platform has no address")?;
        let endpoints: Value =
            serde_json::from_slice(&text).context("the platform's address is unreadable")?;
        Ok(endpoints["http"]
            .as_str()
            .context("the edge has no address")?
            .to_owned())
    }

    /// The execution once it has ended well.
    pub fn finished(&self, execution: &str) -> anyhow::Result<Value> {
        let detail = self.until(
            &format!("{execution} ends"),
            Duration::from_millis(50),
            |platform| {
                let detail = platform.json(&["executions", "show", execution])?;
                Ok((detail["state"] != "running").then_some(detail))
            },
        )?;
        match detail["state"].as_str() {
            Some("succeeded") => Ok(detail),
            state => bail!("{execution}: {state:?}: {} {}", detail["error"], detail["cause"]),
        }
    }

    /// Looks until there is something, or an end to patience.
    pub fn until<T>(
        &self,
        what: &str,
        every: Duration,
        mut look: impl FnMut(&Self) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        loop {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            if self.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if started.elapsed() > PATIENCE {
                bail!("not within {} s: {what}", PATIENCE.as_secs());
            }
            std::thread::sleep(every);
        }
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        println!("-- taking the platform down; its log is {}", self.log().display());
        if let Err(error) = self.down() {
            eprintln!("error: {error:#}");
        }
    }
}

/// What a command printed, if it went well.
pub fn said(name: &str, output: &Output) -> anyhow::Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{name}: {}: {text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(text)
}

/// A visitor's request on a connection of its own: status and body.
pub fn get(edge: &str, host: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(edge)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other("no status line"))?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    Ok((status, body.unwrap_or_default()))
}
