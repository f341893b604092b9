//! Bases that images stand on. Knows nothing of customers.
//!
//! A base is a layer without a parent, made once by `mmdebstrap`. Its key is the digest of what is installed in it, so a
//! base that is made again from newer packages is another one, and what stands on the old one stays as it was.

mod mirror;
mod trust;

pub use mirror::Mirror;

use std::{collections::BTreeMap, fs, io, process::Stdio, time::Duration};

use camino::{Utf8Path, Utf8PathBuf};
use model::{Digest, port::Fault};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::layer::{self, Layers, Record, Staging, io_error};

/// The one base that there is.
pub const DEBIAN: &str = "debian-12";
/// Small, but what scripts and hooks expect of any machine is there.
const PACKAGES: &str = "ca-certificates,curl,iproute2,netbase,procps";
/// Changes when what is written into a base changes.
const VERSION: &str = "vend base 1";
const DEADLINE: Duration = Duration::from_secs(30 * 60);
/// Runs a program with lower priority than what serves, and lets nothing of it live longer than its caller: all that it
/// starts is in a process namespace, whose first process dies with us.
const ALONE: [&str; 10] = [
    "setpriv",
    "--pdeathsig=KILL",
    "unshare",
    "--pid",
    "--fork",
    "--kill-child=KILL",
    "--mount-proc",
    "nice",
    "-n",
    "10",
];

/// Bases: which layer each name means is in `<node>/bases/<name>.json`.
#[derive(Debug, Clone)]
pub struct Bases {
    root: Utf8PathBuf,
    layers: Layers,
    mirror: Mirror,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no base `{0}`; there is {DEBIAN}")]
    Unknown(String),
    #[error("mmdebstrap is not installed")]
    Missing,
    #[error("mmdebstrap could not make {DEBIAN} from {mirror}: {last}")]
    Failed { mirror: String, last: String },
    #[error("mmdebstrap did not make {DEBIAN} from {mirror} in {} minutes", DEADLINE.as_secs() / 60)]
    TimedOut { mirror: String },
    #[error(transparent)]
    Layer(#[from] layer::Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let text = crate::logs::chain(&error);
        match error {
            Error::Unknown(_) => Self::customer(text).next(format!("write `base: {DEBIAN}` in vend.yaml")),
            Error::Missing => Self::platform(text).next("apt-get install mmdebstrap"),
            Error::Failed { .. } | Error::TimedOut { .. } => {
                Self::platform(text).next("see whether this machine reaches the mirror")
            }
            Error::Layer(error) => error.into(),
        }
    }
}

impl Bases {
    /// The bases under `<data>/node`.
    pub fn open(node: &Utf8Path, layers: Layers, mirror: Mirror) -> Result<Self, Error> {
        let root = node.join("bases");
        fs::create_dir_all(&root).map_err(io_error("create", &root))?;
        Ok(Self { root, layers, mirror })
    }

    /// The layer of a base, if it was made.
    pub fn find(&self, name: &str) -> Result<Option<Record>, Error> {
        if name != DEBIAN {
            return Err(Error::Unknown(name.chars().take(80).collect()));
        }
        let path = self.root.join(format!("{name}.json"));
        let key = match fs::read_to_string(&path) {
            Ok(text) => text.trim().trim_matches('"').parse::<Digest>().ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io_error("read", &path)(error).into()),
        };
        match key {
            Some(key) => Ok(self.layers.get(&key)?),
            None => Ok(None),
        }
    }

    /// The layers that bases are, which no sweep may remove.
    pub fn keys(&self) -> Result<Vec<Digest>, Error> {
        Ok(self.find(DEBIAN)?.map(|record| record.key).into_iter().collect())
    }

    /// The layer of a base, made if it was not. Who else wants it meanwhile waits. `progress` gets lines.
    pub async fn ensure(&self, name: &str, mut progress: impl FnMut(&str) + Send) -> Result<Record, Error> {
        if let Some(record) = self.find(name)? {
            return Ok(record);
        }
        let path = self.root.join(format!("{name}.lock"));
        let file = fs::File::create(&path).map_err(io_error("create", &path))?;
        if file.try_lock().is_err() {
            progress(&format!(
                "waiting for the base {name}, which is being made (once on this machine)"
            ));
        }
        // Let go with the file, whatever happens.
        let _lock = tokio::task::spawn_blocking(move || file.lock().map(|()| file))
            .await
            .unwrap_or_else(|_| Err(io::Error::other("interrupted")))
            .map_err(io_error("lock", &self.root))?;
        match self.find(name)? {
            Some(record) => Ok(record),
            None => self.make(name, progress).await,
        }
    }

    async fn make(&self, name: &str, mut progress: impl FnMut(&str) + Send) -> Result<Record, Error> {
        progress(&format!(
            "making the base {name} from {} (once on this machine)",
            self.mirror.debian
        ));
        let staging = self.layers.stage()?;
        self.bootstrap(&staging, &mut progress).await?;
        let this = self.clone();
        let name = name.to_owned();
        tokio::task::spawn_blocking(move || this.finish(&name, staging))
            .await
            .map_err(|_| io_error("finish", &self.root)(io::Error::other("interrupted")))?
    }

    async fn bootstrap(
        &self,
        staging: &Staging,
        progress: &mut (impl FnMut(&str) + Send),
    ) -> Result<(), Error> {
        let cache = self.root.join("archives");
        fs::create_dir_all(&cache).map_err(io_error("create", &cache))?;
        let mut child = tokio::process::Command::new(ALONE[0])
            .args(&ALONE[1..])
            .arg("mmdebstrap")
            .args(arguments(&cache, &staging.files(), &self.mirror))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Error::Missing,
                _ => io_error("run", Utf8Path::new("mmdebstrap"))(error).into(),
            })?;
        let mut lines = BufReader::new(child.stderr.take().expect("standard error is a pipe")).lines();
        let mut last = String::new();
        let work = async {
            while let Ok(Some(line)) = lines.next_line().await {
                let line: String = line.chars().take(500).collect();
                progress(&line);
                if line.starts_with("E:") || last.is_empty() {
                    last = line;
                }
            }
            child.wait().await
        };
        let mirror = || self.mirror.debian.clone();
        let status = tokio::time::timeout(DEADLINE, work)
            .await
            .map_err(|_| Error::TimedOut { mirror: mirror() })?
            .map_err(io_error("wait for", Utf8Path::new("mmdebstrap")))?;
        match status.success() {
            true => Ok(()),
            // nice(1): the program could not be found.
            false if status.code() == Some(127) => Err(Error::Missing),
            false => Err(Error::Failed {
                mirror: mirror(),
                last,
            }),
        }
    }

    fn finish(&self, name: &str, staging: Staging) -> Result<Record, Error> {
        let files = staging.files();
        let trusted = trust::install(&files)?;
        settle(&files)?;
        let mut parts = vec![VERSION.to_owned(), name.to_owned()];
        parts.extend(packages(&files)?);
        parts.extend(trusted);
        let record = Record {
            key: Digest::of_parts(&parts),
            parent: None,
            made_by: format!("base {name}"),
            size_bytes: layer::size(&files)?,
            commit: None,
            created_at: crate::now(),
        };
        self.layers.publish(staging, &record)?;
        let path = self.root.join(format!("{name}.json"));
        let new = self.root.join(format!(".{name}.json"));
        fs::write(&new, format!("\"{}\"\n", record.key))
            .and_then(|()| fs::rename(&new, &path))
            .map_err(io_error("write", &path))?;
        Ok(record)
    }
}

fn arguments(cache: &Utf8Path, target: &Utf8Path, mirror: &Mirror) -> Vec<String> {
    let cache = crate::build::shell::quoted(cache.as_str());
    let mut arguments = vec![
        "--variant=minbase".to_owned(),
        format!("--include={PACKAGES}"),
        "--format=directory".to_owned(),
        "--skip=download/empty".to_owned(),
        "--skip=essential/unlink".to_owned(),
        // Downloads are kept: a base that is made again needs only what is new.
        r#"--setup-hook=mkdir -p "$1/var/cache/apt/archives""#.to_owned(),
        format!("--setup-hook=sync-in {cache} /var/cache/apt/archives"),
        format!("--customize-hook=sync-out /var/cache/apt/archives {cache}"),
        "bookworm".to_owned(),
        target.to_string(),
    ];
    arguments.extend(mirror.lines());
    arguments
}

/// What makes a fresh Debian fit to be a layer.
fn settle(files: &Utf8Path) -> Result<(), Error> {
    // Containers have their own.
    for path in ["etc/hostname", "etc/resolv.conf", "var/lib/dbus/machine-id"] {
        let _ = fs::remove_file(files.join(path));
    }
    for path in ["dev", "run", "tmp", "var/cache/apt/archives"] {
        empty(&files.join(path))?;
    }
    let write = |path: &str, text: &str, mode: u32| {
        let path = files.join(path);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)))
            .map_err(io_error("write", &path))
    };
    write("etc/machine-id", "", 0o444)?;
    // A layer that ran `apt-get update` stays small.
    write(
        "etc/apt/apt.conf.d/90vend",
        "Acquire::GzipIndexes \"true\";\nAcquire::Languages \"none\";\n",
        0o644,
    )?;
    // A layer is flushed once, when it is complete.
    write("etc/dpkg/dpkg.cfg.d/90vend", "force-unsafe-io\n", 0o644)?;
    // Installing a package in a bake starts nothing: there is no machine yet (`invoke-rc.d`, Debian policy 9.3.3.1).
    write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)?;
    Ok(())
}

fn empty(directory: &Utf8Path) -> Result<(), Error> {
    for entry in directory.read_dir_utf8().map_err(io_error("read", directory))? {
        let entry = entry.map_err(io_error("read", directory))?;
        let kind = entry.file_type().map_err(io_error("read", entry.path()))?;
        let removed = if kind.is_dir() {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        };
        removed.map_err(io_error("remove", entry.path()))?;
    }
    Ok(())
}

/// `name version architecture` of every installed package, sorted.
fn packages(files: &Utf8Path) -> Result<Vec<String>, Error> {
    let path = files.join("var/lib/dpkg/status");
    let status = fs::read_to_string(&path).map_err(io_error("read", &path))?;
    let mut packages: Vec<String> = status
        .split("\n\n")
        .filter_map(|package| {
            let field = |name: &str| package.lines().find_map(|line| line.strip_prefix(name));
            Some(format!(
                "{} {} {}",
                field("Package: ")?,
                field("Version: ")?,
                field("Architecture: ")?
            ))
        })
        .collect();
    packages.sort_unstable();
    Ok(packages)
}

/// How what runs in a container reaches the world outside: the machine's proxies, and for the tools that bring
/// certificates of their own, where those of the system are.
pub(crate) fn network_environment() -> BTreeMap<String, String> {
    const NAMES: [&str; 8] = [
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "ftp_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "all_proxy",
    ];
    const BUNDLE: [&str; 5] = [
        "CURL_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "PIP_CERT",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
    ];
    let proxies = NAMES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let bundle = BUNDLE.map(|name| (name.to_owned(), "/etc/ssl/certs/ca-certificates.crt".to_owned()));
    proxies.chain(bundle).collect()
}
