//! Bases that images stand on. Knows nothing of customers' scripts.
//!
//! A base is a layer without a parent. Those of the platform are made by `mmdebstrap`, and their key is the digest of
//! what is installed in them; those of others are unpacked, and their key is that of what they were unpacked from. A base
//! that is looked at again and has become another one is another layer: what stands on the old one stays as it was.

mod calm;
mod distribution;
mod forget;
mod login;
mod mirror;
mod proxy;
mod ready;
mod room;
mod settle;
mod tag;
#[cfg(test)]
mod tests;
mod trust;

pub use mirror::Mirror;
pub(crate) use proxy::{network_environment, passwords, proxies};
pub(crate) use ready::Quiet;
pub(crate) use room::Room;
pub use tag::Untold;

use std::{
    fs,
    io::{self, Write as _},
    process::Stdio,
    sync::{Arc, OnceLock},
    time::Duration,
};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::{SignedDuration, Timestamp};
use model::{
    Digest, Secret, TenantName,
    port::Fault,
    spec::{Base, NotABase},
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use self::{
    calm::Calm,
    distribution::Distribution,
    ready::{Ready, sealed},
    settle::{packages, settle},
};
use crate::{
    layer::{self, Layers, Record, Staging, archive, io_error, touch},
    oci::{self, Reach, limits::Limits, unpack::Deletions},
};

/// The base that is used where none is named.
pub const DEBIAN: &str = Base::NAMES[0];
/// Small, but what scripts and hooks expect of any machine is there.
const PACKAGES: &str = "apt,ca-certificates,curl,iproute2,netbase,procps";
/// Changes when what is written into a base changes.
const VERSION: &str = "vend base 2";
const DEADLINE: Duration = Duration::from_secs(30 * 60);
/// A base of a registry that nobody asked for so long is looked for anew, and its layer goes when no image needs it.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(30 * 24);
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

/// Bases: which layer each name means is in `<node>/bases/*.json`.
#[derive(Debug, Clone)]
pub struct Bases {
    root: Utf8PathBuf,
    layers: Layers,
    mirror: Mirror,
    reach: Reach,
    /// None where nobody said how much there is.
    room: Arc<OnceLock<Room>>,
}

/// Who wants which base.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub base: &'a Base,
    /// What one tenant's login got from a registry is not another's; `None` is the platform.
    pub tenant: Option<&'a TenantName>,
    /// How often that name was a deleted tenant's: what such a one got is not who has the name now's.
    pub life: u64,
    pub login: Option<&'a Secret>,
}

impl<'a> Wanted<'a> {
    /// A base that needs no login.
    pub fn of(base: &'a Base) -> Self {
        Self {
            base,
            tenant: None,
            life: 0,
            login: None,
        }
    }
}

/// Which layer a name means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// A [`Base`] as text.
    pub base: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantName>,
    /// Which of those that had the tenant's name asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<u64>,
    pub key: Digest,
    /// When it was last seen to be so: before it was asked.
    pub checked_at: Timestamp,
    /// What the tag named then, which is the image or an index that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<Digest>,
    /// The last time that it was asked and not told, if that was later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untold: Option<Untold>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no base `{name}`: {why}")]
    Unknown { name: String, why: NotABase },
    #[error("mmdebstrap is not installed")]
    Missing,
    #[error("mmdebstrap could not make {base} from {mirror}: {why}")]
    Failed {
        base: &'static str,
        mirror: String,
        why: String,
    },
    #[error("mmdebstrap did not make {base} from {mirror} in {} minutes", DEADLINE.as_secs() / 60)]
    TimedOut { base: &'static str, mirror: String },
    #[error(
        "there is no room for another image: images and caches take {:.1} of their {:.1} GiB of the disk",
        gib(*bytes),
        gib(*budget_bytes)
    )]
    NoRoom { bytes: u64, budget_bytes: u64 },
    #[error(transparent)]
    Layer(#[from] layer::Error),
    #[error(transparent)]
    Oci(#[from] oci::Error),
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let text = crate::logs::chain(&error);
        match error {
            Error::Unknown { .. } => {
                Self::customer(text).next(format!("write `base: {DEBIAN}` in vend.yaml"))
            }
            Error::Missing => Self::platform(text).next("apt-get install mmdebstrap"),
            Error::Failed { .. } | Error::TimedOut { .. } => {
                Self::platform(text).next("read its log, and see whether this machine reaches the mirror")
            }
            Error::NoRoom { .. } => Self::platform(text),
            Error::Layer(error) => error.into(),
            Error::Oci(error) => error.into(),
        }
    }
}

/// Reads the name of a base.
pub fn parse(name: &str) -> Result<Base, Error> {
    name.parse().map_err(|why| Error::Unknown {
        name: name.chars().take(80).collect(),
        why,
    })
}

/// Holds a file's lock until it is dropped.
struct Held(#[expect(dead_code, reason = "let go when it is dropped")] fs::File);

impl Bases {
    /// The bases under `<data>/node`. Registries are asked within `reach`.
    pub fn open(node: &Utf8Path, layers: Layers, mirror: Mirror, reach: Reach) -> Result<Self, Error> {
        let root = node.join("bases");
        fs::create_dir_all(&root).map_err(io_error("create", &root))?;
        Ok(Self {
            root,
            layers,
            mirror,
            reach,
            room: Arc::default(),
        })
    }

    /// What lets apt into the machine's archives: for the platform's own scripts, and no customer's.
    pub(crate) fn logins(&self) -> Option<&str> {
        self.mirror.logins.text()
    }

    /// The layer of a base of the platform or a registry, if it was made.
    pub fn find(&self, wanted: Wanted<'_>) -> Result<Option<Record>, Error> {
        Ok(self.here(wanted)?.map(|(_, record)| record))
    }

    fn here(&self, wanted: Wanted<'_>) -> Result<Option<(Known, Record)>, Error> {
        let Some(known) = self.known(&slug(wanted))? else {
            return Ok(None);
        };
        let record = self.layers.get(&known.key)?;
        Ok(record.map(|record| (known, record)))
    }

    /// All that is known of names, and so which layers no sweep may remove. What nobody asked for in a long time is
    /// forgotten.
    pub fn all(&self) -> Result<Vec<Known>, Error> {
        let mut all = Vec::new();
        for entry in self.root.read_dir_utf8().map_err(io_error("read", &self.root))? {
            let entry = entry.map_err(io_error("read", &self.root))?;
            let path = entry.path();
            let Some(slug) = path.file_name().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            let old = crate::now() - FORGOTTEN;
            if slug.starts_with("oci-") && !layer::used_since(path, old)? {
                fs::remove_file(path).map_err(io_error("remove", path))?;
                continue;
            }
            all.extend(self.known(slug)?);
        }
        Ok(all)
    }

    /// Whether a layer is a base that has become another one meanwhile.
    pub fn is_stale(&self, key: &Digest, all: &[Known]) -> Result<bool, Error> {
        let Some(record) = self.layers.get(key)? else {
            return Ok(false);
        };
        let name = record.made_by.strip_prefix(MADE_BY).unwrap_or_default();
        // Several may have asked for one name: tenants, and builds. Who asked last knows what it is now.
        let named = all.iter().filter(|known| known.base == name);
        let Some(known) = named.max_by_key(|known| known.checked_at) else {
            return Ok(false);
        };
        let current = self.layers.get(&known.key)?;
        // An image that came back from elsewhere has the same files under another key.
        let same =
            known.key == *key || current.is_some_and(|current| current.identity() == record.identity());
        Ok(!same)
    }

    /// The layer of a base of the platform or a registry, made if it was not. Who else wants it meanwhile waits.
    /// `progress` gets lines. The caller keeps sweeps away until he needs it no more.
    pub async fn ensure(
        &self,
        wanted: Wanted<'_>,
        progress: impl FnMut(&str) + Send,
    ) -> Result<Record, Error> {
        self.ensured(wanted, Quiet::Kept, progress).await
    }

    /// The same, where `quiet` says who keeps sweeps away until it is a layer that its name means.
    pub(crate) async fn ensured(
        &self,
        wanted: Wanted<'_>,
        quiet: Quiet<'_>,
        mut progress: impl FnMut(&str) + Send,
    ) -> Result<Record, Error> {
        let slug = slug(wanted);
        if let Some(record) = self.find(wanted)? {
            let _ = touch(&self.root.join(format!("{slug}.json")), crate::now());
            return Ok(record);
        }
        let _held = self.lock(&slug, wanted.base, &mut progress).await?;
        match self.find(wanted)? {
            Some(record) => Ok(record),
            None => self.make(wanted, quiet, progress).await,
        }
    }

    /// Looks whether a base has become another one, and makes that. Whether it has. The caller keeps sweeps away.
    pub async fn refresh(
        &self,
        wanted: Wanted<'_>,
        progress: impl FnMut(&str) + Send,
    ) -> Result<bool, Error> {
        self.refreshed(wanted, Quiet::Kept, progress).await
    }

    pub(crate) async fn refreshed(
        &self,
        wanted: Wanted<'_>,
        quiet: Quiet<'_>,
        mut progress: impl FnMut(&str) + Send,
    ) -> Result<bool, Error> {
        let slug = slug(wanted);
        let _held = self.lock(&slug, wanted.base, &mut progress).await?;
        let before = self.known(&slug)?.map(|known| known.key);
        // Forgotten with who wanted it, since somebody asked for it. Before the first of a name is deleted, nobody was.
        if before.is_none() && wanted.tenant.is_some() && wanted.life > 0 {
            return Ok(false);
        }
        let record = self.make(wanted, quiet, progress).await?;
        Ok(before.is_some_and(|before| before != record.key))
    }

    fn known(&self, slug: &str) -> Result<Option<Known>, Error> {
        let path = self.root.join(format!("{slug}.json"));
        match fs::read(&path) {
            // One that an older version wrote means nothing to this one: the base is made again.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path)(error).into()),
        }
    }

    async fn lock(
        &self,
        slug: &str,
        base: &Base,
        progress: &mut (impl FnMut(&str) + Send),
    ) -> Result<Held, Error> {
        let path = self.root.join(format!("{slug}.lock"));
        let file = fs::File::create(&path).map_err(io_error("create", &path))?;
        if file.try_lock().is_err() {
            progress(&format!(
                "waiting for the base {base}, which is being made (once on this machine)"
            ));
        }
        // Let go with the file, whatever happens.
        let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
        let locked = locked.unwrap_or_else(|_| Err(io::Error::other("interrupted")));
        Ok(Held(locked.map_err(io_error("lock", &self.root))?))
    }

    async fn make(
        &self,
        wanted: Wanted<'_>,
        quiet: Quiet<'_>,
        mut progress: impl FnMut(&str) + Send,
    ) -> Result<Record, Error> {
        /// What was there can go before it is known only where a sweep forgets it just then: not twice.
        const TRIES: usize = 3;
        let checked_at = crate::now();
        for _ in 0..TRIES {
            let (ready, named) = self.get(wanted, &mut progress).await?;
            let _quiet = quiet.kept().await;
            let this = self.clone();
            let Some(record) = blocking(move || this.put(ready)).await? else {
                continue;
            };
            let known = Known {
                base: wanted.base.to_string(),
                tenant: wanted.tenant.cloned(),
                life: wanted.tenant.map(|_| wanted.life),
                key: record.key,
                checked_at,
                named,
                untold: None,
            };
            self.know(wanted, &known)?;
            return Ok(record);
        }
        let gone = io::Error::other("it went while it was made");
        Err(io_error("keep", Utf8Path::new(&wanted.base.to_string()))(gone).into())
    }

    /// A base of the platform or a registry as it is now, and what its name names.
    async fn get(
        &self,
        wanted: Wanted<'_>,
        progress: &mut (impl FnMut(&str) + Send),
    ) -> Result<(Ready, Option<Digest>), Error> {
        match wanted.base {
            Base::Named(name) => {
                let distribution = Distribution::find(name).expect("every name has a distribution");
                Ok((self.bootstrap(distribution, progress).await?, None))
            }
            Base::Oci(reference) => {
                progress(&format!("asking {} for {}", reference.registry, wanted.base));
                let (ready, named) = self.fetch(wanted, reference).await?;
                Ok((ready, Some(named)))
            }
            base @ (Base::Layout { .. } | Base::Tar(_)) => {
                let why = "it is of a source tree, which is not here".to_owned();
                Err(oci::Error::Refused {
                    what: base.to_string(),
                    why,
                }
                .into())
            }
        }
    }

    fn know(&self, wanted: Wanted<'_>, known: &Known) -> Result<(), Error> {
        let path = self.root.join(format!("{}.json", slug(wanted)));
        let new = path.with_extension("new");
        let json = serde_json::to_vec_pretty(known).expect("what is known of a base is plain data");
        fs::write(&new, json)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(io_error("write", &path))?;
        Ok(())
    }

    async fn bootstrap(
        &self,
        distribution: &'static Distribution,
        progress: &mut (impl FnMut(&str) + Send),
    ) -> Result<Ready, Error> {
        let mirror = distribution.archive(&self.mirror).to_owned();
        progress(&format!(
            "making the base {} from {mirror} (once on this machine)",
            distribution.name
        ));
        let staging = self.layers.stage()?;
        let calm = Calm::over(&staging)?;
        let mut child = self.mmdebstrap(distribution, &calm.root())?;
        let mut lines = BufReader::new(child.stderr.take().expect("standard error is a pipe")).lines();
        // The first error is the cause: those after it say that what asked failed, too.
        let mut why = String::new();
        let work = async {
            while let Ok(Some(line)) = lines.next_line().await {
                let line: String = line.chars().take(500).collect();
                progress(&line);
                if why.is_empty() || (line.starts_with("E:") && !why.starts_with("E:")) {
                    why = line;
                }
            }
            child.wait().await
        };
        let base = distribution.name;
        let status = tokio::time::timeout(DEADLINE, work)
            .await
            .map_err(|_| Error::TimedOut {
                base,
                mirror: mirror.clone(),
            })?
            .map_err(io_error("wait for", Utf8Path::new("mmdebstrap")))?;
        match status.success() {
            true => {}
            // nice(1): the program could not be found.
            false if status.code() == Some(127) => return Err(Error::Missing),
            false => return Err(Error::Failed { base, mirror, why }),
        }
        calm.end()?;
        let this = self.clone();
        blocking(move || this.finish(distribution, staging)).await
    }

    fn mmdebstrap(
        &self,
        distribution: &Distribution,
        target: &Utf8Path,
    ) -> Result<tokio::process::Child, Error> {
        let cache = self.root.join("archives").join(distribution.name);
        fs::create_dir_all(&cache).map_err(io_error("create", &cache))?;
        let (suite, sources) = distribution.sources(&self.mirror);
        let mut command = tokio::process::Command::new(ALONE[0]);
        command
            .args(&ALONE[1..])
            .arg("mmdebstrap")
            .args(arguments(&cache));
        if let Some(key) = distribution.key() {
            let path = self.root.join(format!("{}.gpg", distribution.name));
            fs::write(&path, key).map_err(io_error("write", &path))?;
            command.arg(format!("--keyring={path}"));
        }
        let stdin = match self.mirror.logins.text() {
            Some(logins) => {
                command.arg(r#"--setup-hook=umask 077 && cat > "$1/etc/apt/auth.conf""#);
                given(logins).map_err(io_error("open a pipe to", Utf8Path::new("mmdebstrap")))?
            }
            None => Stdio::null(),
        };
        command
            .args([suite, target.as_str()])
            .args(sources)
            .env("SOURCE_DATE_EPOCH", distribution.epoch.to_string())
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Error::Missing,
                _ => io_error("run", Utf8Path::new("mmdebstrap"))(error).into(),
            })
    }

    fn finish(&self, distribution: &Distribution, staging: Staging) -> Result<Ready, Error> {
        let files = staging.files();
        let trusted = trust::install(&files)?;
        settle(&files)?;
        archive::settle_times(&files, distribution.epoch)?;
        let packages = packages(&files)?;
        let source = Digest::of_parts(&packages);
        let mut parts = vec![VERSION.to_owned(), distribution.name.to_owned()];
        parts.extend(packages);
        parts.extend(trusted);
        // Those that were made before had the logins in them: they are others.
        parts.extend(self.mirror.logins.text().map(|_| "no logins".to_owned()));
        let key = Digest::of_parts(&parts);
        if self.layers.get(&key)?.is_some() {
            return Ok(Ready::Here(key));
        }
        let base = Base::Named(distribution.name);
        Ok(sealed(&base, staging, key, source, distribution.epoch)?)
    }
}

/// Before the name of a base in the record of its layer.
pub(crate) const MADE_BY: &str = "base ";

/// Is it the layer of a registry's image, as somebody asked for it?
pub(crate) fn is_of_registry(record: &Record) -> bool {
    let base = record.made_by.strip_prefix(MADE_BY);
    base.is_some_and(|base| base.starts_with("oci:"))
}

/// All layers of an image, one over the other.
pub(crate) fn flatten(
    source: &dyn oci::Source,
    image: &oci::Image,
    into: &Utf8Path,
    limits: Limits,
) -> Result<(), oci::Error> {
    let mut left = limits.whole();
    (0..image.manifest.layers.len())
        .try_for_each(|number| oci::unpack_layer(source, image, number, into, Deletions::Apply, &mut left))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| io_error("finish", Utf8Path::new("a base"))(io::Error::other("interrupted")))?
}

/// What a process reads that is told a short secret, which no command line and no file of the machine has.
fn given(text: &str) -> io::Result<Stdio> {
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(text.as_bytes())?;
    Ok(reader.into())
}

/// The file name of what is known of a base.
fn slug(wanted: Wanted<'_>) -> String {
    match wanted.base {
        Base::Named(name) => (*name).to_owned(),
        other => {
            let tenant = wanted.tenant.map(TenantName::as_str).unwrap_or_default();
            // Whole: who writes the name of a base could find one whose digest begins like another's.
            let parts = [tenant, &wanted.life.to_string(), &other.to_string()];
            format!("oci-{}", Digest::of_parts(parts).hex())
        }
    }
}

fn arguments(cache: &Utf8Path) -> Vec<String> {
    let cache = crate::build::shell::quoted(cache.as_str());
    vec![
        "--variant=minbase".to_owned(),
        format!("--include={PACKAGES}"),
        "--format=directory".to_owned(),
        "--skip=download/empty".to_owned(),
        "--skip=essential/unlink".to_owned(),
        // Downloads are kept: a base that is made again needs only what is new.
        r#"--setup-hook=mkdir -p "$1/var/cache/apt/archives""#.to_owned(),
        format!("--setup-hook=sync-in {cache} /var/cache/apt/archives"),
        format!("--customize-hook=sync-out /var/cache/apt/archives {cache}"),
    ]
}
