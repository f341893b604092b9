//! One script in one container, and the layer that it leaves.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    },
    time::{Duration, Instant},
};

use camino::{Utf8Path, Utf8PathBuf};
use model::{
    Digest, TenantName,
    port::{BakeOrder, Commit},
};

use super::{Error, Inner, journal::Journal, time::Time, turn::Unwanted, unpack_inputs};
use crate::{
    agent::offline,
    cache::{Crop, DOWNLOADS, inside},
    container::{Bind, Exit, Net, Output, Preset, Rootfs, Spec},
    layer::{
        self, Record, Staging, archive,
        copy::{Copied, Copy, Deletions},
        io_error,
    },
    tree,
    work::Work,
};

/// Where scripts find themselves and their inputs.
const SOURCE: &str = "/srv/vend/source";
/// Where scripts find our own programs, before those of the image: nothing of the image is hidden, so packages put theirs
/// where they belong.
const PROGRAMS: &str = "/srv/vend/programs";
/// The name of a script that was given as text.
const INLINE: &str = "bake.sh";
/// Where the platform's own scripts find the logins of the machine's archives.
const LOGINS: &str = "etc/apt/auth.conf.d/machine.conf";
/// What the next script of the image finds, and the image does not have: it is another one every hour.
const ASIDE: &str = "var/lib/apt/lists";
/// Not a part of a layer: the caches, places that a container has of its own, and what says when and where something was
/// done instead of what, such as logs and ids of machines.
const SKIPPED: [&str; 28] = [
    // With the archives: what apt makes of its lists, tens of megabytes, is made again when it is missing.
    "var/cache/apt",
    // Kept for the next bake of the branch.
    DOWNLOADS[0],
    DOWNLOADS[1],
    "srv/vend",
    LOGINS,
    "dev",
    "proc",
    "sys",
    "run",
    "etc/resolv.conf",
    "etc/hostname",
    "etc/hosts",
    ".dockerenv",
    ASIDE,
    "etc/machine-id",
    "root/.bash_history",
    "root/.python_history",
    "root/.wget-hsts",
    "var/cache/ldconfig",
    "var/cache/man",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/log/alternatives.log",
    "var/log/apt",
    "var/log/btmp",
    "var/log/dpkg.log",
    "var/log/lastlog",
    "var/log/wtmp",
];

/// All about the making of one layer.
pub(super) struct Run {
    /// For people: the script's path, or what the image is called.
    pub name: String,
    /// Of the container.
    pub id: String,
    pub key: Digest,
    /// Keys of the layers below, top first.
    pub lowers: Vec<Digest>,
    pub source: Source,
    pub variables: BTreeMap<String, String>,
    pub commit: Option<Commit>,
    /// Of the script.
    pub script: Digest,
    /// Of the base: see [`Record::epoch`].
    pub epoch: i64,
    pub downloads: Downloads,
}

/// What tools downloaded before, by the names of caches.
pub(super) struct Downloads {
    /// What it goes on from, and leaves.
    pub own: String,
    /// What it begins with as long as it has none of its own, the first that there is. It is not written to.
    pub below: Vec<String>,
}

impl Downloads {
    /// Its own, and what it may begin with.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        [&self.own].into_iter().chain(&self.below).map(String::as_str)
    }
}

pub(super) enum Source {
    /// The last of the first `count` scripts of an order.
    Tree {
        order: Box<BakeOrder>,
        count: usize,
        script: Utf8PathBuf,
    },
    Text(String),
}

impl Source {
    /// `None`: the platform's own.
    pub fn tenant(&self) -> Option<&TenantName> {
        match self {
            Self::Tree { order, .. } => Some(&order.place.tenant),
            Self::Text(_) => None,
        }
    }
}

/// When a script is stopped, and of which time that is the end.
struct Limit {
    deadline: Instant,
    timeout: Duration,
}

/// Runs the script and publishes its layer. The container is gone afterwards, whatever happens.
pub(super) async fn run(
    oven: &Inner,
    run: Run,
    time: &Time,
    journal: &mut Journal,
    mut unwanted: Unwanted<'_>,
) -> Result<(), Error> {
    journal.line(&format!("{}: running", run.name));
    let started = Instant::now();
    let limit = Limit {
        deadline: time.deadline(started),
        timeout: time.timeout,
    };
    let work = Work::open(&oven.containers, &oven.node.join("bakes"), run.id.clone()).await?;
    let made = make(oven, &run, &limit, work.directory(), journal, &mut unwanted).await;
    work.close().await?;
    let size = made?;
    journal.line(&format!(
        "{}: layer {} of {:.1} MiB in {:.1} s",
        run.name,
        run.key.short(),
        size as f64 / f64::from(1 << 20),
        started.elapsed().as_secs_f64(),
    ));
    Ok(())
}

async fn make(
    oven: &Inner,
    run: &Run,
    limit: &Limit,
    work: &Utf8Path,
    journal: &mut Journal,
    unwanted: &mut Unwanted<'_>,
) -> Result<u64, Error> {
    let source = work.join("source");
    fs::create_dir_all(&source).map_err(io_error("create", &source))?;
    let command = prepare(oven, run, &source).await?;
    let uids = oven.uids.take().ok_or(Error::Full)?;
    let cache = oven.caches.lease_first(run.downloads.names())?;
    let cache = cache.map(|(_, lease)| lease);
    let mut lowers: Vec<Utf8PathBuf> = Vec::new();
    for key in &run.lowers {
        lowers.extend(oven.layers.aside(key));
        lowers.push(oven.layers.files(key));
    }
    lowers.extend(cache.iter().map(|cache| cache.files.clone()));
    let rootfs = Rootfs {
        lowers,
        scratch: work.join("scratch"),
        disk_mib: Some(oven.limits.disk_mib),
    };
    let upper = rootfs.upper();
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| io_error("open a pipe in", work)(errno.into()))?;
    let spec = Spec {
        id: run.id.clone(),
        hostname: "bake".to_owned(),
        rootfs,
        uid_base: uids.base,
        args: command,
        env: environment(run),
        cwd: SOURCE.to_owned(),
        binds: binds(oven, run, source, work)?,
        resources: oven.limits.clone(),
        network: Some(Net::Outside),
        preset: Preset::Bake,
        stdin: None,
        output: Output::Fd(writer),
    };
    let offset = journal.writer()?.position();
    let exit = execute(oven, spec, run, limit, reader, journal, unwanted).await?;
    if exit.stopped {
        return Err(Error::Stopped(unwanted.stop.reason().unwrap_or_default()));
    }
    judge(oven, run, limit, exit, &oven.logs.tail(&journal.name, offset, 10))?;
    let size = publish(oven, run, &upper, uids.base).await?;
    let (caches, name, uid_base) = (oven.caches.clone(), run.downloads.own.clone(), uids.base);
    tokio::task::spawn_blocking(move || {
        caches.harvest(&Crop {
            name: &name,
            restored: cache.as_ref(),
            upper: &upper,
            directories: &DOWNLOADS.map(str::to_owned),
            uid_base,
            deletions: Deletions::Ignore,
            once: false,
        })
    })
    .await
    .map_err(|_| Error::Interrupted)??;
    Ok(size)
}

/// Puts script and inputs in place. Gives the command that runs the script.
async fn prepare(oven: &Inner, run: &Run, into: &Utf8Path) -> Result<Vec<String>, Error> {
    let script = match &run.source {
        Source::Text(text) => {
            let path = into.join(INLINE);
            fs::write(&path, text).map_err(io_error("write", &path))?;
            Utf8PathBuf::from(INLINE)
        }
        Source::Tree { order, count, script } => {
            let (objects, order, to) = (oven.objects.clone(), order.clone(), into.to_owned());
            let count = *count;
            tokio::task::spawn_blocking(move || unpack_inputs(&objects, &order, count, &to))
                .await
                .map_err(|_| Error::Interrupted)??;
            script.clone()
        }
    };
    // Not through a link, wherever one may lead.
    let file = tree::open_beneath(into, &script)?;
    file.set_permissions(fs::Permissions::from_mode(0o755))
        .map_err(io_error("change", &script))?;
    // Without a `#!` line a script is for sh. The shell around it takes orphans, as the first process has to.
    let inside = Utf8Path::new(SOURCE).join(&script);
    let mut start = Vec::new();
    file.take(2)
        .read_to_end(&mut start)
        .map_err(io_error("read", &script))?;
    let has_interpreter = start == b"#!";
    let command = if has_interpreter {
        "\"$0\"; exit $?"
    } else {
        "/bin/sh \"$0\"; exit $?"
    };
    Ok(["/bin/sh", "-c", command, inside.as_str()]
        .map(str::to_owned)
        .to_vec())
}

/// What is not the image's: the script's source, our own programs, and for the platform's own scripts what lets apt into
/// the machine's archives. Customers' would show it to anybody.
fn binds(oven: &Inner, run: &Run, source: Utf8PathBuf, work: &Utf8Path) -> Result<Vec<Bind>, Error> {
    let bind = |source, target: String| Bind {
        source,
        target: target.into(),
        read_only: true,
        id_mapped: true,
    };
    let mut binds = vec![
        bind(source, SOURCE.to_owned()),
        bind(oven.program.clone(), format!("{PROGRAMS}/systemctl")),
    ];
    if let (Source::Text(_), Some(logins)) = (&run.source, oven.bases.logins()) {
        let path = work.join("logins");
        fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(logins.as_bytes()))
            .map_err(io_error("write", &path))?;
        binds.push(bind(path, format!("/{LOGINS}")));
    }
    Ok(binds)
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn environment(run: &Run) -> Vec<(String, String)> {
    let mut environment: BTreeMap<String, String> = crate::base::network_environment();
    environment.insert("PATH".to_owned(), format!("{PROGRAMS}:{PATH}"));
    for (name, value) in [
        (offline::VARIABLE, "1"),
        ("HOME", "/root"),
        ("USER", "root"),
        ("LANG", "C.UTF-8"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("PIP_ROOT_USER_ACTION", "ignore"),
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ] {
        environment.insert(name.to_owned(), value.to_owned());
    }
    // Tools that know it write the same today and tomorrow (reproducible-builds.org, "SOURCE_DATE_EPOCH").
    environment.insert("SOURCE_DATE_EPOCH".to_owned(), run.epoch.to_string());
    environment.extend(run.variables.clone());
    environment.into_iter().collect()
}

/// Runs the container to its end while its output goes to the log.
async fn execute(
    oven: &Inner,
    spec: Spec,
    run: &Run,
    limit: &Limit,
    output: OwnedFd,
    journal: &mut Journal,
    unwanted: &mut Unwanted<'_>,
) -> Result<Exit, Error> {
    let mut writer = journal.writer.take().ok_or(Error::Interrupted)?;
    let pump = tokio::task::spawn_blocking(move || {
        let copied = io::copy(&mut fs::File::from(output), &mut writer);
        (writer, copied)
    });
    let left = limit.deadline.saturating_duration_since(Instant::now());
    let ended = oven.containers.run_until(spec, left, unwanted.wait()).await;
    let (writer, copied) = pump.await.map_err(|_| Error::Interrupted)?;
    journal.writer = Some(writer);
    copied.map_err(io_error("write the log of", Utf8Path::new(&run.name)))?;
    Ok(ended?)
}

fn judge(oven: &Inner, run: &Run, limit: &Limit, exit: Exit, last: &str) -> Result<(), Error> {
    let (script, last) = (run.name.clone(), last.to_owned());
    match exit {
        Exit { timed_out: true, .. } => Err(Error::TimedOut {
            script,
            timeout: limit.timeout,
            last,
        }),
        Exit { code: 0, .. } => Ok(()),
        Exit { oom: true, .. } => Err(Error::Memory {
            script,
            memory_mib: oven.limits.memory_mib,
        }),
        Exit { code, .. } => Err(Error::Failed { script, code, last }),
    }
}

async fn publish(oven: &Inner, run: &Run, upper: &Utf8Path, uid_base: u32) -> Result<u64, Error> {
    let (layers, upper) = (oven.layers.clone(), upper.to_owned());
    let (key, parent) = (run.key, run.lowers.first().copied());
    let (made_by, commit) = (run.name.clone(), run.commit.clone());
    let (script, epoch) = (run.script, run.epoch);
    let most = oven.limits.disk_mib.saturating_mul(1 << 20);
    tokio::task::spawn_blocking(move || {
        let staging = layers.stage()?;
        let copy = Copy {
            uid_base,
            skip: &SKIPPED,
            deletions: Deletions::Mark,
            epoch: Some(epoch),
            most,
        };
        let size_bytes = take(copy, &upper, &staging)?;
        let record = Record {
            key,
            parent,
            made_by,
            size_bytes,
            commit,
            created_at: crate::now(),
            content: Some(archive::seal(&staging.files())?.digest),
            source: Some(script),
            epoch,
        };
        layers.publish(staging, &record)?;
        Ok(size_bytes)
    })
    .await
    .map_err(|_| Error::Interrupted)?
}

/// Copies what is the layer's, and beside it what only the next script finds. Gives the bytes of the former; the most bytes
/// are those of both.
fn take(copy: Copy<'_>, upper: &Utf8Path, staging: &Staging) -> Result<u64, layer::Error> {
    let mut so_far = Copied::default();
    copy.further(&mut so_far, upper, &staging.files())?;
    let size_bytes = so_far.bytes;
    if let Some(open) = inside(upper, ASIDE) {
        let aside = staging.aside().join(ASIDE);
        fs::create_dir_all(&aside).map_err(io_error("create", &aside))?;
        let from = Utf8PathBuf::from(format!("/proc/self/fd/{}/.", open.as_raw_fd()));
        Copy { skip: &[], ..copy }.further(&mut so_far, &from, &aside)?;
    }
    Ok(size_bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;
    use crate::layer::Layers;

    #[test]
    fn a_layer_and_what_is_kept_beside_it_have_one_limit_together() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: not root");
            return;
        }
        const BASE: u32 = 1_000_000;
        let directory = tempfile::tempdir().unwrap();
        let node = Utf8Path::from_path(directory.path()).unwrap();
        let upper = node.join("upper");
        fs::create_dir_all(upper.join(ASIDE)).unwrap();
        let (app, lists) = (upper.join("app"), upper.join(ASIDE).join("lists"));
        fs::write(&app, [1; 600]).unwrap();
        fs::write(&lists, [2; 400]).unwrap();
        for path in lists.ancestors().take(6).chain([app.as_path()]) {
            chown(path, Some(BASE), Some(BASE)).unwrap();
        }
        let layers = Layers::open(node).unwrap();
        let take = |most| {
            let copy = Copy {
                uid_base: BASE,
                skip: &SKIPPED,
                deletions: Deletions::Mark,
                epoch: Some(0),
                most,
            };
            let staging = layers.stage().unwrap();
            let taken = take(copy, &upper, &staging);
            let kept = staging.aside().join(ASIDE).join("lists").exists();
            assert!(!staging.files().join(ASIDE).exists());
            taken.map(|bytes| (bytes, kept))
        };
        assert_eq!(take(1000).unwrap(), (600, true));
        assert!(matches!(take(999), Err(layer::Error::Large { most: 999, .. })));
    }
}
