//! Machines: let in once, known by one key, of one tenant, and in one environment at a time.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use model::{Digest, HostId, Secret, TenantName};
use store::{Error, NewInvitation};

use crate::world::{World, at, by, tenant};

fn labels(role: &str) -> BTreeMap<String, String> {
    [("role".to_owned(), role.to_owned())].into()
}

async fn join(world: &World, owner: &TenantName, bits: u64, role: &str) -> HostId {
    let (id, secret) = (HostId::from_bits(bits), Secret::new(format!("secret {bits}")));
    let new = NewInvitation {
        tenant: owner.clone(),
        labels: labels(role),
        expires_at: at(0) + SignedDuration::from_hours(1),
    };
    let own = id.clone();
    let joined = world.store.write(move |tx| {
        tx.invite_machine(&secret, &new, &by(0))?;
        tx.join_machine(&own, &secret, "box", Digest::of(bits.to_be_bytes()), at(1))?;
        let again = tx.join_machine(&HostId::from_bits(99), &secret, "two", Digest::of("two"), at(1));
        assert!(
            matches!(again, Err(Error::Refused { .. })),
            "an invitation is used once"
        );
        Ok::<_, Error>(())
    });
    joined.await.unwrap();
    id
}

#[tokio::test]
async fn an_invitation_ends_and_an_unknown_one_lets_nobody_in() {
    let world = World::new();
    world.environment("acme/shop/dev").await;
    let done = world.store.write(|tx| {
        let secret = Secret::new("late".into());
        let new = NewInvitation {
            tenant: tenant("acme"),
            labels: labels("web"),
            expires_at: at(10),
        };
        tx.invite_machine(&secret, &new, &by(0))?;
        for (shown, when) in [("late", 10), ("other", 5)] {
            let shown = Secret::new(shown.into());
            let joined = tx.join_machine(&HostId::from_bits(1), &shown, "box", Digest::of("k"), at(when));
            assert!(matches!(joined, Err(Error::Refused { .. })), "{when}");
        }
        tx.machines(None)
    });
    assert_eq!(done.await.unwrap(), []);
}

#[tokio::test]
async fn a_machine_is_known_by_its_newest_key_and_by_none_once_it_is_removed() {
    let world = World::new();
    world.environment("acme/shop/dev").await;
    let id = join(&world, &tenant("acme"), 1, "web").await;
    let (old, new) = (Digest::of(1_u64.to_be_bytes()), Digest::of("new"));
    let done = world.store.write(move |tx| {
        tx.expect_key(&id, new, &by(2))?;
        assert_eq!(
            tx.machine_of_key(old, at(3))?,
            Some(id.clone()),
            "until the new one comes"
        );
        assert_eq!(tx.machine_of_key(new, at(4))?, Some(id.clone()));
        assert_eq!(tx.machine_of_key(old, at(5))?, None, "the old one is nobody's");
        tx.remove_machine(&id, &by(6))?;
        assert_eq!(tx.machine_of_key(new, at(7))?, None);
        Ok::<_, Error>(())
    });
    done.await.unwrap();
}

#[tokio::test]
async fn an_environment_gets_machines_of_its_tenant_with_its_labels_that_nobody_else_has() {
    let world = World::new();
    let dev = world.environment("acme/shop/dev").await;
    let next = world.environment("acme/shop/next").await;
    world.environment("other/shop/dev").await;
    let web = join(&world, &tenant("acme"), 1, "web").await;
    let batch = join(&world, &tenant("acme"), 2, "batch").await;
    join(&world, &tenant("other"), 3, "web").await;
    let done = world.store.write(move |tx| {
        let claim = |place| -> Result<Vec<HostId>, Error> {
            let claimed = tx.claim_machines(place, &labels("web"), &by(2))?;
            Ok(claimed.into_iter().map(|machine| machine.id).collect())
        };
        assert_eq!(claim(&dev)?, std::slice::from_ref(&web));
        assert_eq!(claim(&dev)?, std::slice::from_ref(&web), "again");
        assert_eq!(claim(&next)?, [], "it has an environment");
        tx.drain_machine(&web, &by(3))?;
        assert_eq!(claim(&dev)?, [], "it leaves");
        assert_eq!(tx.machines_of(&dev)?.len(), 1, "and is there until it is gone");
        let other = tx.claim_machines(&dev, &labels("batch"), &by(4))?;
        assert_eq!(
            other.iter().map(|machine| &machine.id).collect::<Vec<_>>(),
            [&batch]
        );
        // What has other labels is not deployed to, and is there until somebody has stopped what runs there.
        let with = tx.claim_machines(&dev, &labels("web"), &by(5))?;
        assert_eq!(with, [], "{with:?}");
        let left: Vec<HostId> = tx.machines_of(&dev)?.into_iter().map(|own| own.id).collect();
        assert!(left.contains(&batch), "{left:?}");
        tx.free_machine(&batch, &by(6))?;
        assert_eq!(tx.machine(&batch)?.place, None);
        Ok::<_, Error>(())
    });
    done.await.unwrap();
}

#[tokio::test]
async fn the_authority_is_made_once_and_its_key_is_sealed() {
    let world = World::new();
    let done = world.store.write(|tx| {
        assert!(tx.authority()?.is_none());
        for key in ["first", "second"] {
            tx.keep_authority("certificate", &Secret::new(key.into()), &by(0))?;
        }
        tx.authority()
    });
    let (certificate, key) = done.await.unwrap().unwrap();
    assert_eq!((certificate.as_str(), key.expose()), ("certificate", "first"));
}

#[tokio::test]
async fn a_machine_that_is_late_is_claimed_alone_and_what_was_tried_is_forgotten_when_it_is_well() {
    let world = World::new();
    let dev = world.environment("acme/shop/dev").await;
    let next = world.environment("acme/shop/next").await;
    let late = join(&world, &tenant("acme"), 1, "web").await;
    let other = join(&world, &tenant("acme"), 2, "web").await;
    let done = world.store.write(move |tx| {
        tx.claim_machine(&dev, &late, &by(2))?;
        tx.claim_machine(&dev, &late, &by(3))?;
        let taken = tx.claim_machine(&next, &late, &by(3));
        assert!(matches!(taken, Err(Error::Refused { .. })), "{taken:?}");
        assert_eq!(tx.machines_of(&dev)?.len(), 1, "no other was taken along");

        let tried = |tx: &store::Tx<'_>| -> Result<_, Error> {
            let machine = tx.machine(&late)?;
            Ok((machine.tries, machine.tried_at, machine.failure))
        };
        tx.set_machine_tries(&late, 2, at(5))?;
        tx.settle_machine(&late, Some("no disk"))?;
        assert_eq!(tried(tx)?, (2, Some(at(5)), Some("no disk".to_owned())));
        tx.settle_machine(&late, None)?;
        assert_eq!(tried(tx)?, (0, None, None));
        // Who deploys to all of them begins anew with each, and what failed there is still so.
        tx.set_machine_tries(&late, 5, at(6))?;
        tx.settle_machine(&late, Some("no disk"))?;
        tx.claim_machines(&dev, &labels("web"), &by(7))?;
        assert_eq!(tried(tx)?, (0, None, Some("no disk".to_owned())));
        // Nobody's machine has nothing of before.
        tx.set_machine_tries(&late, 5, at(8))?;
        tx.free_machine(&late, &by(9))?;
        assert_eq!(tried(tx)?, (0, None, None));
        tx.drain_machine(&other, &by(9))?;
        let leaves = tx.claim_machine(&dev, &other, &by(9));
        assert!(matches!(leaves, Err(Error::Refused { .. })), "{leaves:?}");
        Ok::<_, Error>(())
    });
    done.await.unwrap();
}
