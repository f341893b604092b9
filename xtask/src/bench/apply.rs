//! What an apply asks of AWS: requests that a server of moto's gets from the program, and how long the program takes beside it.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use super::{Bench, Table};

const APP: &str =
    "app: shop\nhost: { port: 8080, size: small }\nenvironments:\n  production: { branch: main }\n";
const FOUNDATION: &str =
    "[foundations.production]\nregion = \"eu-central-1\"\ndomain = \"apps.example.com\"\n";

/// moto's server with a working tree.
struct World {
    server: Child,
    port: u16,
    tree: PathBuf,
    binary: PathBuf,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

pub fn run(binary: &Path, options: &Bench, table: &mut Table) -> anyhow::Result<()> {
    let world = World::new(&crate::clients()?.join("bin/python"), binary)?;
    let (first, _) = world.apply("4 stacks made or changed")?;
    let rounds = if options.quick { 1 } else { 5 };
    let (mut requests, mut seconds) = (vec![], vec![]);
    for _ in 0..rounds {
        let (asked, took) = world.apply("0 stacks made or changed, 4 as they were")?;
        requests.push(asked as f64);
        seconds.push(took.as_secs_f64());
    }
    table.row("requests of an apply that makes 4 stacks", "", &[first as f64]);
    table.row("requests of an apply that changes none of them", "", &requests);
    table.row("an apply that changes nothing, beside moto", "s", &seconds);
    Ok(())
}

impl World {
    fn new(python: &Path, binary: &Path) -> anyhow::Result<Self> {
        let tree = crate::target().join("bench/apply");
        if tree.exists() {
            fs::remove_dir_all(&tree).context("cannot empty the working tree")?;
        }
        fs::create_dir_all(&tree)?;
        for (name, text) in [
            ("vend.yaml", APP),
            ("aws.toml", FOUNDATION),
            ("appspec.yml", "version: 0.0\nos: linux\n"),
            ("buildspec.yml", "version: 0.2\n"),
        ] {
            fs::write(tree.join(name), text)?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = Command::new(python);
        server
            .arg(crate::root().join("crates/vend/tests/aws/server.py"))
            .arg(port.to_string())
            .stdout(Stdio::null())
            .stderr(fs::File::create(tree.join("requests"))?);
        let mut world = Self {
            server: server
                .spawn()
                .with_context(|| format!("cannot run {}", python.display()))?,
            port,
            tree,
            binary: binary.to_owned(),
        };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = world.server.try_wait()? {
                bail!("moto ends before it serves: {status}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(world)
    }

    /// The server writes a line for each request before it answers.
    fn requests(&self) -> anyhow::Result<usize> {
        let text = fs::read_to_string(self.tree.join("requests"))?;
        Ok(text.lines().filter(|line| line.contains(" HTTP/1.1\" ")).count())
    }

    /// A small program that is taken for vend.
    fn receiver(&self) -> anyhow::Result<PathBuf> {
        let own = self.tree.join("receiver");
        if !own.exists() {
            let program = fs::read("/bin/true").context("cannot read a program")?;
            let bytes = [&program[..], b"VEND_PREVIEWS"].concat();
            fs::write(&own, bytes).context("cannot write the receiver's program")?;
        }
        Ok(own)
    }

    /// Requests and time of an apply, which must say this.
    fn apply(&self, says: &str) -> anyhow::Result<(usize, Duration)> {
        let before = self.requests()?;
        let mut command = Command::new(&self.binary);
        command.args(["aws", "apply", "--yes"]).current_dir(&self.tree);
        command.env_clear().env("HOME", &self.tree);
        command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port));
        command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
        command.env("AWS_SECRET_ACCESS_KEY", "example");
        command.env("VEND_RECEIVER", self.receiver()?);
        let from = Instant::now();
        let done = command.output().context("cannot run the program")?;
        let took = from.elapsed();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        if !done.status.success() || !said.contains(says) {
            bail!("{}: {said}{}", done.status, String::from_utf8_lossy(&done.stderr));
        }
        Ok((self.requests()? - before, took))
    }
}
