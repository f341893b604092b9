//! Bases stay new: each that a live release stands on, and each of the platform's own that this machine has, for builds
//! too, is looked at once a day. What is live on one that has become another is made again as a push of its own commit,
//! through the normal flow. A registry's that nobody is live on is asked for by who bakes on it next, with his login.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use model::{
    Place, TenantName,
    port::{BaseOrder, BaseSeen, BasesSeen, Fault, Shelf},
    release::Release,
    spec::{self, Base, Refresh},
    wire::{Refreshed, RefreshedBase},
};
use store::{By, Error, NewPush, Store, Tx};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::flow::{World, images, stored};

/// Between two rounds; a round does little when nothing is old.
const EVERY: Duration = Duration::from_secs(3600);
/// From the start to the first round: pushes that wait go first.
const FIRST: Duration = Duration::from_secs(300);
/// How old a look at a base may be.
const AGE: SignedDuration = SignedDuration::from_hours(24);
/// So many pushes back one is looked for that was of the same commit.
const BEFORE: u32 = 50;
/// A push that was made because a base moved, and one that nobody is asked about.
pub const REFRESH: &str = "refresh";
pub const AUTOMATIC: &str = "refresh-automatic";

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    let work = async {
        sleep(FIRST).await;
        loop {
            if let Err(fault) = round(&world, &Which::Old).await {
                warn!("bases could not be looked at: {fault}");
            }
            sleep(EVERY).await;
        }
    };
    tokio::select! { () = cancel.cancelled() => {}, () = work => {} }
}

/// What is live, and on which image.
type Live = BTreeMap<Place, Release>;

/// Which bases are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Those that nobody looked at lately.
    Old,
    All,
    One(String),
}

/// Looks at bases, and queues what stands on those that have become others.
pub async fn round(world: &Arc<World>, which: &Which) -> Result<Refreshed, Fault> {
    let live = world.store.read(live).await.map_err(stored)?;
    let seen = world.node.bases().await?;
    let mut refreshed = Refreshed::default();
    for due in due(&live, &seen.bases, which, crate::clock::now()) {
        refreshed.bases.push(look(world, due).await);
    }
    let old = Stale {
        seen: world.node.bases().await?,
        automatically: world.platform.images.refresh_automatically,
    };
    let queued = renew(&world.store, &live, &old, which, crate::clock::now()).await?;
    if !queued.is_empty() {
        world.pokes.pushes.notify_one();
    }
    refreshed.queued = queued.into_iter().map(Into::into).collect();
    Ok(refreshed)
}

/// One base that cannot be looked at does not keep the others from it.
async fn look(world: &Arc<World>, Due { base, tenant, of }: Due) -> RefreshedBase {
    let looked = async {
        // What would come of it has to be kept somewhere.
        images::refuse_more(&world.node, &world.pokes.sweep).await?;
        let login = match &of {
            Some((place, image)) => images::login(world, place, image).await?,
            None => None,
        };
        let order = BaseOrder {
            base: base.clone(),
            tenant: tenant.clone(),
            login,
        };
        world.node.refresh(&order).await
    };
    let (changed, error) = match looked.await {
        Ok(changed) => (changed, None),
        Err(fault) => {
            warn!(base, "cannot look at a base: {fault}");
            (false, Some(fault.to_string()))
        }
    };
    if changed {
        info!(base, "the base {base} has become another one");
    }
    RefreshedBase {
        base,
        tenant,
        changed,
        error,
    }
}

fn live(db: &store::Db<'_>) -> Result<Live, Error> {
    let mut live = Live::new();
    for environment in db.environments(None)? {
        if let Some(release) = environment.live {
            let release = db.release(&environment.place, release)?;
            live.insert(environment.place, release.content);
        }
    }
    Ok(live)
}

/// What a registry gives depends on who asks.
fn tenant_of(base: &str, place: &Place) -> Option<TenantName> {
    matches!(base.parse(), Ok(Base::Oci(_))).then(|| place.tenant.clone())
}

/// A base that is to be looked at.
#[derive(Debug, PartialEq)]
struct Due {
    base: String,
    tenant: Option<TenantName>,
    /// Whose image stands on it, where one is live: its login is for the base's registry.
    of: Option<(Place, spec::Image)>,
}

/// Each base that may move and is to be looked at, once: those of live releases, and the platform's own that are here.
fn due(live: &Live, seen: &[BaseSeen], which: &Which, now: Timestamp) -> Vec<Due> {
    let used = live.iter().map(|(place, release)| {
        let image = release.spec.image.clone();
        Due {
            tenant: tenant_of(&image.base, place),
            base: image.base.clone(),
            of: Some((place.clone(), image)),
        }
    });
    let own = seen.iter().filter(|seen| seen.tenant.is_none()).map(|seen| Due {
        base: seen.base.clone(),
        tenant: None,
        of: None,
    });
    let mut asked = BTreeSet::new();
    let wanted = |due: &Due| {
        let moves = due.base.parse::<Base>().is_ok_and(|base| base.moves());
        let fresh = |seen: &BaseSeen| {
            seen.base == due.base && seen.tenant == due.tenant && seen.checked_at + AGE > now
        };
        let wanted = match which {
            Which::Old => !seen.iter().any(fresh),
            Which::All => true,
            Which::One(one) => *one == due.base,
        };
        moves && wanted && asked.insert((due.base.clone(), due.tenant.clone()))
    };
    used.chain(own).filter(wanted).collect()
}

/// Images on old bases.
struct Stale {
    seen: BasesSeen,
    /// The operator lets apps have them made again without anybody's yes.
    automatically: bool,
}

impl Stale {
    fn holds(&self, release: &Release) -> bool {
        self.seen.is_stale(&release.image, &release.spec.image.base)
    }
}

/// Queues each live release that stands on an old base once more, where its own `vend.yaml` wants that. Where.
async fn renew(
    store: &Store,
    live: &Live,
    stale: &Stale,
    which: &Which,
    now: Timestamp,
) -> Result<Vec<Place>, Fault> {
    let asked_for = |base: &String| !matches!(which, Which::One(one) if one != base);
    let wanted = live
        .iter()
        .filter(|(_, release)| stale.holds(release) && asked_for(&release.spec.image.base));
    // By itself nothing is queued twice a day: one that failed or was refused is for people to look at.
    let once_since = (*which == Which::Old).then(|| now - AGE);
    let mut queued = Vec::new();
    for (place, release) in wanted {
        let origin = match release.spec.image.refresh {
            Refresh::Manual => continue,
            Refresh::Automatic if stale.automatically => AUTOMATIC,
            Refresh::Release | Refresh::Automatic => REFRESH,
        };
        let (own, commit) = (place.clone(), release.commit.clone());
        let done = store.write(move |tx| queue(tx, &own, commit, origin, once_since, now));
        if done.await.map_err(stored)? {
            queued.push(place.clone());
        }
    }
    Ok(queued)
}

/// Nothing is queued behind what goes on or waits already: that stands on the new base anyway. Nor when one was queued
/// for the same reason since `once_since`.
fn queue(
    tx: &mut Tx<'_>,
    place: &Place,
    commit: model::port::Commit,
    origin: &str,
    once_since: Option<Timestamp>,
    now: Timestamp,
) -> Result<bool, Error> {
    let last = tx.pushes(&place.tenant, &place.app, Some(&place.environment), None, 1)?;
    let lately = |push: &store::Push| {
        matches!(push.origin.as_str(), REFRESH | AUTOMATIC)
            && once_since.is_some_and(|since| push.changed_at > since)
    };
    let waits = |push: &store::Push| push.state == store::PushState::Waiting;
    let moves = tx.find_move(place)?.is_some();
    if moves || tx.is_busy(place)? || last.iter().any(|push| waits(push) || lately(push)) {
        return Ok(false);
    }
    // The same push once more: its builds are told the same.
    let before = tx.pushes(&place.tenant, &place.app, Some(&place.environment), None, BEFORE)?;
    let same = before.into_iter().find(|push| push.commit.id == commit.id);
    let push = NewPush {
        tenant: place.tenant.clone(),
        app: place.app.clone(),
        environment: Some(place.environment.clone()),
        branch: commit.branch.clone(),
        commit,
        origin: origin.to_owned(),
        event: same.and_then(|push| push.event),
    };
    tx.enqueue_push(&push, &By::platform(now))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use model::{Digest, spec};
    use store::NewRelease;

    use super::*;
    use crate::fixtures;

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    fn place(environment: &str) -> Place {
        format!("acme/shop/{environment}").parse().unwrap()
    }

    /// A store with one live release of an image in each environment, whose `image:` is as given.
    async fn world(environments: &[(&'static str, &'static str)]) -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let path = camino::Utf8PathBuf::from_path_buf(directory.path().join("serve")).unwrap();
        let store = Store::open(&path).unwrap();
        let environments = environments.to_vec();
        let written = store.write(move |tx| {
            let by = By::platform(now());
            let first = place(environments[0].0);
            tx.create_tenant(&first.tenant, &by)?;
            tx.create_app(&first.tenant, &first.app, None, &by)?;
            for (name, image) in &environments {
                let place = place(name);
                tx.ensure_environment(&place, name, &by)?;
                let text = format!("app: shop\nimage: {image}\nenvironments: {{ {name}: }}\n");
                let (app, _) = spec::App::parse(&text, "vend.yaml", &|_| true).expect("it is right");
                let commit = fixtures::commit(name, now());
                let new = NewRelease {
                    commit,
                    source: Digest::of("source"),
                    image: Digest::of(name),
                    revision: Digest::of("revision"),
                    spec: app.environments[0].clone(),
                    secrets: Default::default(),
                    execution: None,
                };
                tx.create_release(&place, &new, &by)?;
                tx.set_live(&place, 1, now(), &by)?;
            }
            Ok::<(), Error>(())
        });
        written.await.unwrap();
        (directory, store)
    }

    /// All bases are others than those of these images.
    fn moved(images: &[&str]) -> BasesSeen {
        let seen = |base: &str| BaseSeen {
            base: base.to_owned(),
            tenant: None,
            key: Digest::of("new"),
            content: Digest::of("new"),
            checked_at: now(),
        };
        let images = images.iter().map(|image| (Digest::of(image), Digest::of("old")));
        BasesSeen {
            bases: ["debian-12", "debian-13"].map(seen).into(),
            images: images.collect(),
        }
    }

    #[tokio::test]
    async fn what_stands_on_an_old_base_is_queued_once_as_its_owner_wants() {
        let (_directory, store) = world(&[
            ("dev", "{ refresh: automatic }"),
            ("production", "{ base: debian-13 }"),
            ("staging", "{ refresh: manual }"),
            ("test", "{}"),
        ])
        .await;
        let live = store.read(live).await.unwrap();
        let stale = Stale {
            seen: moved(&["dev", "production", "staging"]),
            automatically: true,
        };
        let one = Which::One("debian-13".to_owned());
        let queued = renew(&store, &live, &stale, &one, now()).await.unwrap();
        assert_eq!(
            queued,
            [place("production")],
            "only what stands on the base that was asked for"
        );
        let queued = renew(&store, &live, &stale, &Which::Old, now()).await.unwrap();
        assert_eq!(queued, [place("dev")], "the other waits already");
        let queued = renew(&store, &live, &stale, &Which::All, now()).await.unwrap();
        assert_eq!(queued, [], "both wait already");
        let pushes = store
            .read(|db| db.pushes(&"acme".parse().unwrap(), &"shop".parse().unwrap(), None, None, 10))
            .await
            .unwrap();
        let found: Vec<(&str, &str)> = pushes
            .iter()
            .map(|push| (push.branch.as_str(), push.origin.as_str()))
            .collect();
        assert_eq!(found, [("dev", AUTOMATIC), ("production", REFRESH)]);
        // Somebody looked at both and let neither through: that is not tried again the same day, unless somebody asks.
        let ended = store.write(|tx| {
            for name in ["dev", "production"] {
                let started = tx.next_push(
                    &place(name),
                    &model::ExecutionId::from_bits(1),
                    &By::platform(now()),
                )?;
                let push = started.expect("one waits");
                tx.finish_push(
                    push.id,
                    store::PushState::Failed,
                    Some("no"),
                    &By::platform(now()),
                )?;
            }
            Ok::<(), Error>(())
        });
        ended.await.unwrap();
        let queued = renew(&store, &live, &stale, &Which::Old, now()).await.unwrap();
        assert_eq!(queued, []);
        let queued = renew(&store, &live, &stale, &Which::All, now()).await.unwrap();
        assert_eq!(queued.len(), 2);
    }

    #[tokio::test]
    async fn an_operator_has_people_asked_whatever_an_app_says() {
        let (_directory, store) = world(&[("dev", "{ refresh: automatic }")]).await;
        let live = store.read(live).await.unwrap();
        let stale = Stale {
            seen: moved(&["dev"]),
            automatically: false,
        };
        let queued = renew(&store, &live, &stale, &Which::Old, now()).await.unwrap();
        assert_eq!(queued, [place("dev")]);
        let pushes = store
            .read(|db| db.pushes(&"acme".parse().unwrap(), &"shop".parse().unwrap(), None, None, 10))
            .await
            .unwrap();
        assert_eq!(pushes[0].origin, REFRESH);
    }

    #[tokio::test]
    async fn each_base_is_looked_at_once_a_day() {
        let (_directory, store) = world(&[
            ("dev", "{}"),
            ("production", "{}"),
            ("staging", "{ base: \"oci:registry.example/a:1\" }"),
            ("test", "{ base: \"tar:base.tar\" }"),
        ])
        .await;
        let live = store.read(live).await.unwrap();
        let names = |seen: &[BaseSeen]| -> Vec<String> {
            let due = due(&live, seen, &Which::Old, now());
            due.into_iter().map(|due| due.base).collect()
        };
        assert_eq!(names(&[]), ["debian-12", "oci:registry.example/a:1"]);
        let seen = |base: &str, tenant: Option<&str>, hours: i64| BaseSeen {
            base: base.to_owned(),
            tenant: tenant.map(|tenant| tenant.parse().unwrap()),
            key: Digest::of("key"),
            content: Digest::of("key"),
            checked_at: now() - SignedDuration::from_hours(hours),
        };
        assert_eq!(names(&[seen("debian-12", None, 1)]), ["oci:registry.example/a:1"]);
        let both = [
            seen("debian-12", None, 30),
            seen("oci:registry.example/a:1", Some("acme"), 1),
        ];
        assert_eq!(names(&both), ["debian-12"]);
        assert_eq!(
            names(&[seen("oci:registry.example/a:1", Some("rival"), 1)]).len(),
            2
        );
        let asked = |which: &Which| due(&live, &both, which, now()).len();
        assert_eq!(asked(&Which::All), 2);
        assert_eq!(asked(&Which::One("debian-12".to_owned())), 1);
        assert_eq!(asked(&Which::One("tar:base.tar".to_owned())), 0, "it cannot move");
        // What builds stand on is nobody's release, and grows old like the others.
        let mut all = both.to_vec();
        all.extend([
            seen("debian-13", None, 30),
            seen("ubuntu-24.04", None, 1),
            seen("oci:registry.example/ci:1", Some("acme"), 30),
        ]);
        assert_eq!(names(&all), ["debian-12", "debian-13"]);
        let one = Which::One("ubuntu-24.04".to_owned());
        assert_eq!(
            due(&live, &all, &one, now()),
            [Due {
                base: "ubuntu-24.04".to_owned(),
                tenant: None,
                of: None
            }]
        );
    }
}
