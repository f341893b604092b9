//! Images from scripts: one container and one layer per script. Knows nothing of hosts.
//!
//! A script runs as root in `/srv/vend/source`, where it finds itself, the other scripts and the inputs that `vend.yaml`
//! names, and nothing else of the source tree: what it cannot see cannot change the layer behind the key's back. It gets
//! `VEND_TENANT`, `VEND_APP`, `VEND_ENVIRONMENT`, `VEND_COMMIT_ID`, `VEND_COMMIT_AUTHOR`, `VEND_COMMIT_MESSAGE`,
//! `VEND_COMMIT_BRANCH` and `VEND_COMMIT_REPOSITORY`: the same names that a Packer build gets as environment variables.
//! `systemctl` is our own program there: it enables what starts with the hosts, and leaves services alone.

mod error;
mod ground;
mod held;
mod journal;
mod made;
mod room;
mod script;
mod source;
mod sweep;
mod time;
mod toolbox;
mod turn;

pub use error::Error;
pub(crate) use held::Held;
pub(crate) use room::{CACHES, GRACE, Looks};
pub use toolbox::Bare;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use camino::{Utf8Path, Utf8PathBuf};
use model::{
    AppName, Digest, Place, TenantName, Ticket,
    port::{BakeOrder, Baked, Bakery, Fault, Layer, LogRef, Resources},
    spec::Base,
};
use tracing::info;

use self::{
    held::InUse,
    journal::{Journal, finish},
    made::Made,
    script::{Downloads, Run},
    source::{Chosen, Index, Step},
    time::{Time, Waiting},
    turn::{Turn, Unwanted, Waits},
};
use crate::{
    base::{self, Bases, Quiet, Wanted},
    build::QUEUED,
    cache::{self, Caches},
    container::Containers,
    image::Images,
    layer::{self, Layers, Record},
    lives::{Life, Lives},
    logs, objects,
    queue::{self, Queue},
    ticket::Stop,
    tree,
    uids::Uids,
    work,
};

/// The image that builds run in: `debian-12` with the usual tools.
pub const STANDARD: &str = "standard";
const STANDARD_SCRIPT: &str = include_str!("bake/standard.sh");
/// What the platform's own images download. No tenant can have this name.
const PLATFORM_CACHE: &str = "+platform/bakes";
const PLATFORM_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Bakes images. Clones share everything.
#[derive(Debug, Clone)]
pub struct Oven(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: Utf8PathBuf,
    containers: Containers,
    objects: objects::Directory,
    logs: logs::Directory,
    layers: Layers,
    images: Images,
    bases: Bases,
    caches: Caches,
    lives: Lives,
    uids: Uids,
    /// The images that builds stand on.
    in_use: InUse,
    /// The layers that bakes stand on, or are about to make.
    ground: InUse,
    made: Made,
    /// See [`Kitchen::program`].
    program: Utf8PathBuf,
    limits: Resources,
    /// So many scripts run at a time.
    at_once: usize,
    places: Queue,
    waiting: Waiting,
    /// A sweep holds it alone. Who says that something is to stay, or makes an image of layers, holds it together with
    /// others, and not for long: a sweep makes the room that bakes wait for.
    quiet: Arc<tokio::sync::RwLock<()>>,
    /// Who bakes which layer now: a second one waits for the first.
    baking: Mutex<HashMap<Digest, Weak<Turn>>>,
    /// The sources that were read last. Small: a release asks for one source a few times in a row.
    sources: Mutex<Vec<(Digest, Arc<Index>)>>,
}

/// What an oven stands on.
#[derive(Debug, Clone)]
pub struct Kitchen {
    /// `<data>/node`.
    pub node: Utf8PathBuf,
    pub containers: Containers,
    pub objects: objects::Directory,
    pub logs: logs::Directory,
    pub layers: Layers,
    pub images: Images,
    pub bases: Bases,
    /// A program that calls [`systemctl::main`](crate::agent::systemctl::main) when it goes by that name. It has to run in
    /// the image: it is static.
    pub program: Utf8PathBuf,
    /// Of one script.
    pub limits: Resources,
    /// How many scripts run at a time.
    pub at_once: usize,
}

impl Oven {
    pub fn open(kitchen: Kitchen) -> Result<Self, Error> {
        kitchen.layers.clean()?;
        work::clean(&kitchen.node.join("bakes"))?;
        Ok(Self(Arc::new(Inner {
            caches: Caches::open(&kitchen.node, 4 << 30)?,
            lives: Lives::open(&kitchen.node)?,
            uids: Uids::default(),
            in_use: InUse::default(),
            ground: InUse::default(),
            made: Made::open(&kitchen.node)?,
            at_once: kitchen.at_once.max(1),
            places: Queue::new(kitchen.at_once),
            waiting: Waiting::default(),
            quiet: Arc::default(),
            baking: Mutex::default(),
            sources: Mutex::default(),
            node: kitchen.node,
            program: kitchen.program,
            containers: kitchen.containers,
            objects: kitchen.objects,
            logs: kitchen.logs,
            layers: kitchen.layers,
            images: kitchen.images,
            bases: kitchen.bases,
            limits: kitchen.limits,
        })))
    }

    pub fn images(&self) -> &Images {
        &self.0.images
    }

    /// Held by whoever makes an image, or says that something is to stay.
    pub(crate) async fn together(&self) -> tokio::sync::OwnedRwLockReadGuard<()> {
        Arc::clone(&self.0.quiet).read_owned().await
    }

    /// The same for who has long to do before.
    pub(crate) fn quiet(&self) -> Quiet<'_> {
        Quiet::Asked(&self.0.quiet)
    }

    /// Where there is room for a while: emptied when a node starts.
    pub(crate) fn workshop(&self) -> Utf8PathBuf {
        self.0.node.join("bakes")
    }

    /// Does the bake under this ticket wait for others?
    pub fn waits(&self, ticket: &Ticket) -> bool {
        self.0.waiting.has(ticket)
    }

    /// What layers and caches take of the disk.
    pub(crate) fn bytes(&self) -> Result<u64, layer::Error> {
        Ok(self.layer_bytes()? + self.0.caches.bytes()?)
    }

    fn layer_bytes(&self) -> Result<u64, layer::Error> {
        Ok(self.0.layers.list()?.iter().map(|record| record.size_bytes).sum())
    }

    pub fn bases(&self) -> &Bases {
        &self.0.bases
    }

    /// An image of the platform's own: the base with one script, given as text. `name` is for people and for its log,
    /// which is `bake/NAME`.
    pub async fn platform(&self, name: &str, base: &str, script: &str) -> Result<Baked, Fault> {
        let log: LogRef = format!("bake/platform-{name}")
            .parse()
            .map_err(|_| Fault::order(format!("`{name}` cannot name an image of the platform")))?;
        let mut journal = Journal::new(&self.0.logs, log);
        let baked = self.bake_platform(name, base, script, &mut journal).await;
        finish(baked, journal)
    }

    /// The image that builds run in, if it was made.
    pub fn find_standard(&self) -> Result<Option<Digest>, layer::Error> {
        let debian = Base::Named(base::DEBIAN);
        let base = match self.0.bases.find(Wanted::of(&debian)) {
            Ok(Some(base)) => base,
            Ok(None) => return Ok(None),
            Err(base::Error::Layer(error)) => return Err(error),
            Err(_) => return Ok(None),
        };
        let key = platform_key(base.key, STANDARD, STANDARD_SCRIPT);
        match self.0.layers.get(&key)? {
            Some(_) => self.0.images.keep(&[base.key, key], crate::now()).map(Some),
            None => Ok(None),
        }
    }

    /// The image that builds run in.
    pub async fn standard(&self) -> Result<Baked, Fault> {
        self.platform(STANDARD, base::DEBIAN, STANDARD_SCRIPT).await
    }

    /// Removes what is cached for a tenant, or for one app of it, and what its logins got from registries. Of what was baked
    /// for it, which may run elsewhere, the next of that name finds nothing.
    pub fn forget(&self, tenant: &TenantName, app: Option<&AppName>) -> Result<(), Fault> {
        // First: what is still being made for it is made for who it was.
        self.0.lives.end(tenant, app).map_err(Error::from)?;
        let name = match app {
            Some(app) => format!("{tenant}/app-{app}"),
            None => {
                self.0.bases.forget(tenant).map_err(Error::from)?;
                tenant.to_string()
            }
        };
        Ok(self.0.caches.remove(&name).map_err(Error::from)?)
    }

    /// Which of those that had the names of this place has them now.
    pub(crate) fn life_of(&self, place: &Place) -> Result<Life, layer::Error> {
        self.0.lives.of(place)
    }

    /// What a layer holds, or its key when it is not here.
    pub(crate) fn content(&self, key: &Digest) -> Result<Digest, layer::Error> {
        let record = self.0.layers.get(key)?;
        Ok(record.map_or(*key, |record| record.identity()))
    }

    /// How often this name was a deleted tenant's.
    pub(crate) fn life(&self, tenant: &TenantName) -> Result<u64, layer::Error> {
        self.0.lives.of_tenant(tenant)
    }

    pub(crate) fn uids(&self) -> &Uids {
        &self.0.uids
    }

    pub(crate) fn caches(&self) -> &Caches {
        &self.0.caches
    }

    async fn bake_platform(
        &self,
        name: &str,
        base: &str,
        script: &str,
        journal: &mut Journal,
    ) -> Result<Baked, Error> {
        let started = Instant::now();
        let base = base::parse(base)?;
        let (base, _stays) = self.platform_base(&base, journal).await?;
        let key = platform_key(base.key, name, script);
        let _stay = self.stay([key]).await;
        let run = Run {
            name: name.to_owned(),
            id: format!("bake-{name}"),
            key,
            lowers: vec![base.key],
            source: script::Source::Text(script.to_owned()),
            variables: BTreeMap::new(),
            commit: None,
            script: Digest::of(script),
            epoch: base.epoch,
            downloads: platform_downloads(),
        };
        let mut time = Time::new(PLATFORM_TIMEOUT, QUEUED, None);
        let reused = self.layer(run, &mut time, journal, Stop::never()).await?;
        self.baked(&[base.key, key], reused, started).await
    }

    async fn bake_order(
        &self,
        ticket: &Ticket,
        order: &BakeOrder,
        journal: &mut Journal,
        mut stop: Stop,
    ) -> Result<Baked, Error> {
        let started = Instant::now();
        let life = self.0.lives.of(&order.place)?;
        let timeout = order.timeout.try_into().unwrap_or(Duration::ZERO);
        let noted = (ticket.clone(), self.0.waiting.clone());
        let mut time = Time::new(timeout, QUEUED, Some(noted));
        let (base, _stays) = self.base(order, life, journal, &mut stop).await?;
        let (steps, _stay) = self.steps(order, base.key, life).await?;
        if let Some(baked) = self.made_before(order, base.key, &steps, life, started).await? {
            return Ok(baked);
        }
        let mut keys = vec![base.key];
        let mut reused = true;
        for (number, Step { script, key, digest }) in steps.into_iter().enumerate() {
            let run = Run {
                name: script.to_string(),
                id: format!("bake-{}-{number}", Digest::of(ticket.as_str()).short()),
                key,
                lowers: keys.iter().rev().copied().collect(),
                source: script::Source::Tree {
                    order: Box::new(order.clone()),
                    count: number + 1,
                    script,
                },
                variables: source::VARIABLES
                    .map(str::to_owned)
                    .into_iter()
                    .zip(variables(order))
                    .collect(),
                commit: Some(order.commit.clone()),
                script: digest,
                epoch: base.epoch,
                downloads: downloads(order, life),
            };
            reused &= self.layer(run, &mut time, journal, stop.clone()).await?;
            keys.push(key);
        }
        self.baked(&keys, reused, started).await
    }

    /// Makes a layer, unless it is there or another bake makes it meanwhile. Whether it was there.
    async fn layer(
        &self,
        run: Run,
        time: &mut Time,
        journal: &mut Journal,
        mut stop: Stop,
    ) -> Result<bool, Error> {
        if let Some(reason) = stop.reason() {
            return Err(Error::Stopped(reason));
        }
        let turn = self.turn(run.key);
        let _turn = match turn.lock.try_lock() {
            Ok(turn) => turn,
            Err(_) => {
                journal.line(&format!(
                    "{}: waiting for another bake of the same layer",
                    run.name
                ));
                let _waits = Waits::new(&turn);
                tokio::select! {
                    turn = time.wait(turn.lock.lock()) => turn?,
                    reason = stop.asked() => return Err(Error::Stopped(reason)),
                }
            }
        };
        if self.0.layers.get(&run.key)?.is_some() {
            self.0.layers.touch(&run.key, crate::now())?;
            if journal.writer.is_some() {
                journal.line(&format!(
                    "{}: unchanged, layer {} is used again",
                    run.name,
                    run.key.short()
                ));
            }
            return Ok(true);
        }
        let mut unwanted = Unwanted { stop, turn: &turn };
        let _place = self.place(&run, time, journal, &mut unwanted).await?;
        let began = Instant::now();
        let done = script::run(&self.0, run, time, journal, unwanted).await;
        time.ran(began, Instant::now());
        done.map(|()| false)
    }

    /// The right to run a script. Who has to wait for it says so.
    async fn place(
        &self,
        run: &Run,
        time: &mut Time,
        journal: &mut Journal,
        unwanted: &mut Unwanted<'_>,
    ) -> Result<queue::Place, Error> {
        let (script, most) = (&run.name, self.0.at_once);
        let told = |_| {
            journal.line(&format!(
                "{script}: waiting: scripts of other images run, at most {most} at a time"
            ));
        };
        tokio::select! {
            place = time.wait(self.0.places.enter(run.source.tenant(), None, told)) => place,
            () = unwanted.wait() => Err(Error::Stopped(unwanted.stop.reason().unwrap_or_default())),
        }
    }

    fn turn(&self, key: Digest) -> Arc<Turn> {
        let mut baking = self.0.baking.lock().unwrap_or_else(PoisonError::into_inner);
        baking.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = baking.get(&key).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::<Turn>::default();
        baking.insert(key, Arc::downgrade(&turn));
        turn
    }

    async fn baked(&self, keys: &[Digest], reused: bool, started: Instant) -> Result<Baked, Error> {
        let _together = self.together().await;
        let image = self.0.images.keep(keys, crate::now())?;
        // Its own, by its own names: another app's layers may hold the same, and be what the image was first made of.
        let record = |key: &Digest| self.0.layers.get(key)?.ok_or(layer::Error::Missing(*key));
        let records: Vec<Record> = keys.iter().map(record).collect::<Result<_, _>>()?;
        let layers: Vec<Layer> = records.iter().map(Record::summary).collect();
        let first = self.0.images.get(&image)?;
        if first.is_some_and(|first| first.layers != keys) {
            self.0.made.keep(image, &layers)?;
        }
        Ok(Baked {
            image,
            layers,
            reused,
            duration_ms: since(started),
            log: None,
        })
    }
}

impl Oven {
    /// As [`Bakery::bake`], until it is to stop. A layer that others wait for is finished first.
    pub async fn bake_until(&self, ticket: &Ticket, order: &BakeOrder, stop: Stop) -> Result<Baked, Fault> {
        let log: LogRef = format!("bake/{ticket}")
            .parse()
            .map_err(|_| Fault::order("the ticket cannot name a log"))?;
        let mut journal = Journal::new(&self.0.logs, log);
        let baked = self.bake_order(ticket, order, &mut journal, stop).await;
        if let Ok(baked) = &baked {
            let (place, image, reused) = (&order.place, baked.image, baked.reused);
            info!(%place, %image, reused, duration_ms = baked.duration_ms, "the image of {place} is ready");
        }
        finish(baked, journal)
    }
}

impl Bakery for Oven {
    async fn bake(&self, ticket: &Ticket, order: &BakeOrder) -> Result<Baked, Fault> {
        self.bake_until(ticket, order, Stop::never()).await
    }

    async fn find(&self, order: &BakeOrder) -> Result<Option<Baked>, Fault> {
        Ok(self.find_image(order).await?)
    }
}

fn since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A branch's own downloads of its bakes. Builds have others: what a test may write, production's image must not find.
/// Layers are keyed by their name, and so by whose they are, which a name alone does not say: see [`Lives`].
fn downloads(order: &BakeOrder, life: Life) -> Downloads {
    let branches = cache::branches(&order.commit.branch, order.trunk.as_deref()).into_iter();
    let mut names = branches.map(|branch| format!("{}-bakes{life}", cache::of_branch(&order.place, branch)));
    Downloads {
        own: names.next().expect("a branch's own is the first"),
        below: names.collect(),
    }
}

fn platform_downloads() -> Downloads {
    Downloads {
        own: PLATFORM_CACHE.to_owned(),
        below: Vec::new(),
    }
}

fn platform_key(base: Digest, name: &str, script: &str) -> Digest {
    Digest::of_parts([
        b"vend platform 2",
        &base.as_bytes()[..],
        name.as_bytes(),
        script.as_bytes(),
    ])
}

/// The values of [`source::VARIABLES`], in their order.
fn variables(order: &BakeOrder) -> [String; 8] {
    // One variable of a process may have 128 KiB.
    const CHARS: usize = 8192;
    let commit = &order.commit;
    [
        order.place.tenant.as_str(),
        order.place.app.as_str(),
        order.place.environment.as_str(),
        &commit.id,
        &commit.author,
        &commit.message,
        &commit.branch,
        &commit.repository,
    ]
    .map(|value| value.chars().filter(|c| *c != '\0').take(CHARS).collect())
}

/// Unpacks what the last of the first `count` scripts sees of the source tree.
fn unpack_inputs(
    objects: &objects::Directory,
    order: &BakeOrder,
    count: usize,
    into: &Utf8Path,
) -> Result<(), Error> {
    let chosen = Chosen::new(order, count)?;
    let mut object = objects.open_object(&order.source)?;
    tree::unpack_some(&mut object, into, &tree::Limits::SOURCE, |member| {
        chosen.contains(&member.path)
    })?;
    Ok(object.finish()?)
}
