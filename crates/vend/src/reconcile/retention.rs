//! Nothing piles up, and what time ends is ended: old histories, answers, deliveries, tokens and questions go, images and
//! objects that nobody can need any more too, and the ledger's head is signed.
//!
//! What the machine may remove is never decided by age alone: the database says what the live releases, a rollback, a
//! host or an execution under way needs, and all of that stays.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use model::{
    Digest,
    port::{Fault, Keep, Swept, Upkeep},
};
use store::{By, Error, Keepers, Store, Tx};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    flow::{World, stored},
    output::size,
};

const EVERY: Duration = Duration::from_secs(60);
/// Between two sweeps, and from the start to the first: what was cut short by a restart is done again before it.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Executions stay on record this long after their end, and those that made a release for as long as it can be gone back to; the
/// ledger keeps what they did for ever.
const EXECUTIONS: SignedDuration = SignedDuration::from_hours(90 * 24);
const AT_ONCE: u32 = 200;
/// So many executions of one state machine stay on record, the newest.
const OF_A_MACHINE: u32 = 100_000;
/// Transactions of one round that forget executions of state machines: others write in between.
const ROUNDS: usize = 100;

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    let work = async { tokio::join!(tidy_often(&world), sweep_often(&world)) };
    // A transaction ends by itself, and the node goes on with a sweep: nothing is lost in the middle.
    tokio::select! { () = cancel.cancelled() => {}, _ = work => {} }
}

async fn tidy_often(world: &World) {
    loop {
        let now = crate::clock::now();
        if let Err(error) = world.store.write(move |tx| tidy(tx, now)).await {
            warn!(
                error = &error as &dyn std::error::Error,
                "cannot tidy the database"
            );
        }
        if let Err(error) = forget_runs(&world.store, now).await {
            warn!(
                error = &error as &dyn std::error::Error,
                "cannot forget old executions"
            );
        }
        sleep(EVERY).await;
    }
}

/// Executions of the users' state machines, which may be many.
async fn forget_runs(store: &Store, now: Timestamp) -> Result<(), Error> {
    for _ in 0..ROUNDS {
        let pruned = store.write(move |tx| tx.prune_runs(now - EXECUTIONS, OF_A_MACHINE, AT_ONCE));
        if pruned.await? == 0 {
            break;
        }
    }
    Ok(())
}

async fn sweep_often(world: &World) {
    loop {
        tokio::select! { () = sleep(SWEEP_EVERY) => {}, () = world.pokes.sweep.notified() => {} }
        match sweep(&world.store, &world.node).await {
            Ok(swept) if swept.is_empty() => {}
            Ok(swept) => info!(
                images = swept.images.len(),
                layers = swept.layers,
                objects = swept.objects,
                logs = swept.logs,
                caches = swept.caches,
                bytes = swept.bytes,
                "{} that nothing needs any more were removed",
                size(swept.bytes)
            ),
            Err(fault) => warn!("what nothing needs any more could not be removed: {fault}"),
        }
    }
}

/// Has the machine remove what nothing needs, and forgets the images that are gone.
async fn sweep(store: &Store, upkeep: &impl Upkeep) -> Result<Swept, Fault> {
    let needed = store.read(|db| db.keepers()).await.map_err(stored)?;
    let swept = upkeep.sweep(&keep(needed)).await?;
    let (gone, by) = (swept.images.clone(), By::platform(crate::clock::now()));
    let forgotten = store.write(move |tx| gone.iter().try_for_each(|image| forget(tx, image, &by)));
    forgotten.await.map_err(stored)?;
    Ok(swept)
}

fn keep(needed: Keepers) -> Keep {
    let mut keep = Keep {
        images: needed.images,
        objects: needed.revisions,
        logs: needed.logs,
    };
    keep.objects.extend(needed.sources);
    // What a running execution speaks of may be either.
    keep.images.extend(&needed.mentioned);
    keep.objects.extend(needed.mentioned);
    keep
}

fn forget(tx: &Tx<'_>, image: &Digest, by: &By) -> Result<(), Error> {
    match tx.delete_image(image, by) {
        // No row of it, or it is being baked again.
        Err(Error::Missing { .. } | Error::Refused { .. }) => Ok(()),
        other => other,
    }
}

fn tidy(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), Error> {
    tx.expire_approvals(&By::platform(now))?;
    tx.prune_executions(now - EXECUTIONS, AT_ONCE)?;
    tx.prune_hosts(now - EXECUTIONS)?;
    tx.prune_deliveries(now - EXECUTIONS)?;
    tx.prune_commands(now)?;
    tx.prune_tokens(now)?;
    tx.prune_secrets()?;
    tx.checkpoint(now)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use model::{AppName, ExecutionId, Place, TenantName, Ticket, port::Baked, spec};
    use store::{Batch, Begin, NewBake, NewExecution, NewRelease};

    use super::*;
    use crate::fixtures;

    /// A machine that has some images and removes what it may.
    struct Machine {
        has: Vec<Digest>,
        asked: Mutex<Keep>,
    }

    impl Upkeep for Machine {
        async fn sweep(&self, keep: &Keep) -> Result<Swept, Fault> {
            *self.asked.lock().unwrap() = keep.clone();
            let images = self.has.iter().filter(|image| !keep.images.contains(image));
            Ok(Swept {
                images: images.copied().collect(),
                ..Swept::default()
            })
        }

        async fn forget(&self, _: &TenantName, _: Option<&AppName>) -> Result<(), Fault> {
            unreachable!("nothing is deleted")
        }
    }

    fn at(second: i64) -> By {
        By::platform(Timestamp::from_second(1_790_000_000 + second).unwrap())
    }

    fn place() -> Place {
        "acme/shop/dev".parse().unwrap()
    }

    fn image(n: u64) -> Digest {
        Digest::of(format!("image {n}"))
    }

    /// Has been baked under ticket `n` of an execution.
    fn baked(tx: &Tx<'_>, n: u64, execution: &ExecutionId) -> Result<(), Error> {
        let ticket = Ticket::of(execution, n, 0);
        let new = NewBake {
            ticket: ticket.clone(),
            place: place(),
            execution: Some(execution.clone()),
            commit: fixtures::commit("dev", at(0).at),
            base: "debian-12".to_owned(),
            log: format!("bake/{ticket}").parse().ok(),
        };
        tx.begin_bake(&new, &at(1))?;
        let baked = Baked {
            image: image(n),
            layers: vec![],
            reused: false,
            duration_ms: 1,
            log: None,
        };
        tx.finish_bake(&ticket, Ok(&baked), &at(2))
    }

    fn released(tx: &Tx<'_>, n: u64) -> Result<(), Error> {
        let (app, _) =
            spec::App::parse("app: shop\n", "vend.yaml", &|path| path == "Procfile").expect("it is right");
        let new = NewRelease {
            commit: fixtures::commit("dev", at(0).at),
            source: Digest::of(format!("source {n}")),
            image: image(n),
            revision: Digest::of(format!("revision {n}")),
            spec: app.environments[0].clone(),
            secrets: Default::default(),
            execution: None,
        };
        tx.create_release(&place(), &new, &at(3))?;
        tx.set_live(&place(), n, at(4).at, &at(4))
    }

    #[tokio::test]
    async fn only_what_nothing_needs_is_removed_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = camino::Utf8PathBuf::from_path_buf(directory.path().join("serve")).unwrap();
        let store = Store::open(&path).unwrap();
        let (over, open) = (ExecutionId::from_bits(1), ExecutionId::from_bits(2));
        let (mentioned, running) = (Digest::of("mentioned"), open.clone());
        let written = store.write(move |tx| {
            let place = place();
            tx.create_tenant(&place.tenant, &at(0))?;
            tx.create_app(&place.tenant, &place.app, None, &at(0))?;
            tx.ensure_environment(&place, "dev", &at(0))?;
            for n in 1..=7 {
                baked(tx, n, &over)?;
                released(tx, n)?;
            }
            let begin = Begin {
                key: 1,
                tenant: None,
                machine: 0,
                name: running.to_string(),
                arn: "x".into(),
                origin: "{}".into(),
                definition: "{}".into(),
                input: format!(r#"{{"revision":"{mentioned}"}}"#),
                at: at(5).at,
                kin: None,
            };
            tx.append(&Batch {
                begins: vec![begin],
                ..Batch::default()
            })?;
            let execution = NewExecution {
                id: running.clone(),
                place: Some(place),
                kind: "release".into(),
                run: 1,
                deadline_at: None,
            };
            tx.start_execution(&execution, &at(5))?;
            baked(tx, 8, &running)
        });
        written.await.unwrap();
        let machine = Machine {
            has: (1..=8).map(image).collect(),
            asked: Mutex::default(),
        };
        let swept = sweep(&store, &machine).await.unwrap();
        assert_eq!(
            swept.images,
            [image(1)],
            "the live release, five back and the bake under way stay"
        );
        let asked = machine.asked.lock().unwrap().clone();
        for kept in ["source 2", "revision 7", "mentioned"] {
            assert!(asked.objects.contains(&Digest::of(kept)), "{kept}");
        }
        assert!(!asked.objects.contains(&Digest::of("revision 1")));
        let log = format!("bake/{}", Ticket::of(&open, 8, 0)).parse().unwrap();
        assert!(asked.logs.contains(&log), "{:?}", asked.logs);
        let rows = store.read(|db| db.images()).await.unwrap();
        let rows: Vec<Digest> = rows.iter().map(|row| row.digest).collect();
        assert!(rows.len() == 7 && !rows.contains(&image(1)), "{rows:?}");
        // What another sweep finds was removed before: nothing is forgotten twice.
        assert_eq!(sweep(&store, &machine).await.unwrap().images.len(), 1);
    }
}
