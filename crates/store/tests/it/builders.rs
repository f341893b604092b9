//! Builders: let in once, known by one key, given builds that are on record, and gone when they have none.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use model::{Digest, ExecutionId, HostId, Secret, TenantName, Ticket, port::Fault};
use store::{Builder, Error, NewBuild, NewBuilder, RunsOn, Tx};

use crate::world::{self, World, at, by, tenant};

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

async fn join(world: &World, bits: u64, tenants: &[&TenantName]) -> Builder {
    let (id, secret) = (HostId::from_bits(bits), Secret::new(format!("secret {bits}")));
    let new = NewBuilder {
        labels: labels(&[("fleet", "big"), ("arch", "of the invitation")]),
        tenants: tenants.iter().map(|name| (*name).clone()).collect(),
        expires_at: at(0) + SignedDuration::from_hours(1),
    };
    let joined = world.store.write(move |tx| {
        tx.invite_builder(&secret, &new, &by(0))?;
        let (own, key) = (labels(&[("arch", "arm64")]), Digest::of(bits.to_be_bytes()));
        let joined = tx.join_builder(&id, &secret, "box", key, &own, at(1))?;
        let again = tx.join_builder(
            &HostId::from_bits(99),
            &secret,
            "two",
            Digest::of("two"),
            &own,
            at(1),
        );
        assert!(
            matches!(again, Err(Error::Refused { .. })),
            "an invitation is used once"
        );
        // It is no machine of a tenant's.
        let other = tx.join_machine(&HostId::from_bits(98), &secret, "x", Digest::of("x"), at(1));
        assert!(matches!(other, Err(Error::Refused { .. })));
        Ok::<_, Error>(joined)
    });
    joined.await.unwrap()
}

#[tokio::test]
async fn what_a_builder_is_no_invitation_says_and_whose_builds_it_gets_one_does() {
    let world = World::new();
    world.environment("acme/shop/dev").await;
    let (acme, other) = (tenant("acme"), tenant("other"));
    let limited = join(&world, 1, &[&acme]).await;
    assert_eq!(limited.labels, labels(&[("arch", "arm64"), ("fleet", "big")]));
    assert!(limited.serves(&acme) && !limited.serves(&other));
    let open = join(&world, 2, &[]).await;
    assert!(open.serves(&acme) && open.serves(&other));
    let unknown = world.store.write(move |tx| {
        let new = NewBuilder {
            labels: BTreeMap::new(),
            tenants: BTreeSet::from([tenant("nobody")]),
            expires_at: at(10),
        };
        tx.invite_builder(&Secret::new("x".into()), &new, &by(0))
    });
    assert!(matches!(unknown.await, Err(Error::Missing { .. })));
    let late = world.store.write(|tx| {
        let secret = Secret::new("late".into());
        let new = NewBuilder {
            labels: BTreeMap::new(),
            tenants: BTreeSet::new(),
            expires_at: at(10),
        };
        tx.invite_builder(&secret, &new, &by(0))?;
        let key = Digest::of("late");
        let joined = tx.join_builder(&HostId::from_bits(5), &secret, "x", key, &BTreeMap::new(), at(10));
        assert!(matches!(joined, Err(Error::Refused { .. })));
        tx.builders()
    });
    assert_eq!(late.await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_builder_is_known_by_its_newest_key_and_by_none_once_it_is_removed() {
    let world = World::new();
    world.environment("acme/shop/dev").await;
    let id = join(&world, 1, &[]).await.id;
    let (old, new) = (Digest::of(1_u64.to_be_bytes()), Digest::of("new"));
    let done = world.store.write(move |tx| {
        tx.expect_builder_key(&id, new, &by(2))?;
        assert_eq!(
            tx.builder_of_key(old, at(3))?,
            Some(id.clone()),
            "it may not have come yet"
        );
        assert_eq!(tx.builder_of_key(new, at(4))?, Some(id.clone()));
        assert_eq!(tx.builder_of_key(old, at(5))?, None);
        tx.see_builder(&id, Some("192.0.2.1"), at(6))?;
        let seen = tx.builder(&id)?;
        assert_eq!(
            (seen.address.as_deref(), seen.seen_at),
            (Some("192.0.2.1"), Some(at(6)))
        );
        tx.remove_builder(&id, &by(7))?;
        assert_eq!(tx.builder_of_key(new, at(8))?, None);
        tx.builders()
    });
    assert_eq!(done.await.unwrap(), []);
}

#[tokio::test]
async fn a_build_that_is_given_again_has_another_ticket_there_and_one_that_leaves_gets_none() {
    let world = World::new();
    world.environment("acme/shop/dev").await;
    let (first, second) = (join(&world, 1, &[]).await.id, join(&world, 2, &[]).await.id);
    let ticket: Ticket = "t-1".parse().unwrap();
    let new = NewBuild {
        ticket: ticket.clone(),
        place: "acme/shop/dev".parse().unwrap(),
        execution: None,
        commit: world::commit("a"),
        source: Digest::of("source"),
        identifier: None,
        log: None,
    };
    let done = world.store.write(move |tx| {
        tx.begin_build(&new, &by(1))?;
        assert_eq!(tx.running_builds()?[0].runs_on, None);
        tx.give_build(&ticket, &first, &by(2))?;
        let given = tx.running_builds()?.remove(0);
        assert_eq!((given.builder(), given.log_from), (Some(&first), None));
        assert_eq!(given.ticket_there(), ticket);
        tx.set_log_from(&ticket, 10)?;
        assert_eq!(tx.running_builds()?[0].log_from, Some(10));
        tx.take_build(&ticket)?;
        assert_eq!(tx.running_builds()?[0].runs_on, None);
        tx.give_build(&ticket, &first, &by(3))?;
        let again = tx.running_builds()?.remove(0);
        assert_eq!((again.ticket_there(), again.log_from), (ticket.part("b2"), None));
        tx.take_build(&ticket)?;
        tx.drain_builder(&second, &by(4))?;
        let refused = tx.give_build(&ticket, &second, &by(5));
        assert!(matches!(refused, Err(Error::Refused { .. })));
        assert!(tx.builder(&second)?.leaving);
        Ok::<_, Error>(())
    });
    done.await.unwrap();
}

#[tokio::test]
async fn the_next_tenant_of_a_name_has_no_builder_of_the_one_before() {
    let world = World::new();
    let (acme, other) = (tenant("acme"), tenant("other"));
    for name in [acme.clone(), other.clone()] {
        world.write(move |tx| tx.create_tenant(&name, &by(0))).await;
    }
    let alone = join(&world, 1, &[&acme]).await.id;
    let both = join(&world, 2, &[&acme, &other]).await.id;
    let all = join(&world, 3, &[]).await.id;
    let done = world.store.write(move |tx| {
        for (secret, tenants) in [("alone", vec![&acme]), ("both", vec![&acme, &other])] {
            let new = NewBuilder {
                labels: BTreeMap::new(),
                tenants: tenants.into_iter().cloned().collect(),
                expires_at: at(100),
            };
            tx.invite_builder(&Secret::new(secret.into()), &new, &by(2))?;
        }
        tx.delete_tenant(&acme, &by(3))?;
        tx.create_tenant(&acme, &by(4))?;
        let builds = |found: Builder| found.serves(&acme) && !found.leaving;
        assert!(!builds(tx.builder(&alone)?) && !builds(tx.builder(&both)?) && builds(tx.builder(&all)?));
        let left = tx.builder(&alone)?;
        assert!(left.leaving && !left.serves(&other), "it is nobody else's");
        assert!(tx.builder(&both)?.serves(&other) && !tx.builder(&both)?.leaving);
        let own = BTreeMap::new();
        let joins = |bits, secret: &str| {
            let (id, secret) = (HostId::from_bits(bits), Secret::new(secret.to_owned()));
            tx.join_builder(&id, &secret, "box", Digest::of(bits.to_be_bytes()), &own, at(5))
        };
        assert!(matches!(joins(4, "alone"), Err(Error::Refused { .. })));
        assert_eq!(joins(5, "both")?.tenants, BTreeSet::from([other.clone()]));
        Ok::<_, Error>(())
    });
    done.await.unwrap();
}

#[tokio::test]
async fn one_that_is_removed_at_once_has_its_builds_taken_and_no_key() {
    let world = World::new();
    world.environment("acme/shop/dev").await;
    let (first, second) = (join(&world, 1, &[]).await.id, join(&world, 2, &[]).await.id);
    let done = world.store.write(move |tx| {
        for (name, builder) in [("t-1", &first), ("t-2", &second)] {
            let new = NewBuild {
                ticket: name.parse().unwrap(),
                place: "acme/shop/dev".parse().unwrap(),
                execution: None,
                commit: world::commit("a"),
                source: Digest::of("source"),
                identifier: None,
                log: None,
            };
            tx.begin_build(&new, &by(1))?;
            tx.give_build(&new.ticket, builder, &by(2))?;
        }
        tx.expel_builder(&first, &by(3))?;
        assert!(matches!(tx.builder(&first), Err(Error::Missing { .. })));
        assert_eq!(tx.builder_of_key(Digest::of(1_u64.to_be_bytes()), at(4))?, None);
        let builders: Vec<_> = tx
            .running_builds()?
            .into_iter()
            .map(|build| build.runs_on)
            .collect();
        assert_eq!(builders, [None, Some(RunsOn::Builder(second.clone()))]);
        Ok::<_, Error>(())
    });
    done.await.unwrap();
}

#[tokio::test]
async fn where_a_build_is_and_why_it_waits_is_told_until_it_has_another_place() {
    let world = World::new();
    world.environment("acme/shop/dev").await;
    let (busy, idle) = (join(&world, 1, &[]).await.id, join(&world, 2, &[]).await.id);
    let execution = ExecutionId::from_bits(7);
    let tickets: Vec<Ticket> = ["t-1", "t-2", "t-3"].map(|text| text.parse().unwrap()).into();
    let done = world.store.write(move |tx| {
        for (ticket, name) in tickets.iter().zip(["here", "there", "waits"]) {
            let new = NewBuild {
                ticket: ticket.clone(),
                place: "acme/shop/dev".parse().unwrap(),
                execution: Some(execution.clone()),
                commit: world::commit("a"),
                source: Digest::of("source"),
                identifier: Some(name.to_owned()),
                log: None,
            };
            tx.begin_build(&new, &by(1))?;
            tx.build_waits(ticket, Some("a place"))?;
        }
        tx.keep_build(&tickets[0])?;
        tx.give_build(&tickets[1], &busy, &by(2))?;
        let told = |tx: &Tx<'_>| -> Result<Vec<_>, Error> {
            let all = tx.ran_in_execution(&execution)?.into_iter();
            Ok(all
                .map(|one| (one.identifier.unwrap(), one.runs_on, one.builder, one.waits))
                .collect())
        };
        let (here, there) = (
            (Some(RunsOn::Own), None),
            (Some(RunsOn::Builder(busy.clone())), Some("box".to_owned())),
        );
        let waits = Some("a place".to_owned());
        assert_eq!(
            told(tx)?,
            [
                ("here".to_owned(), here.0, here.1, None),
                ("there".to_owned(), there.0.clone(), there.1.clone(), None),
                ("waits".to_owned(), None, None, waits.clone()),
            ]
        );
        let open = |tx: &Tx<'_>| -> Result<Vec<_>, Error> {
            let all = tx.waits_in_execution(&execution)?.into_iter();
            Ok(all
                .map(|one| (one.number, one.identifier.unwrap(), one.why))
                .collect())
        };
        let expected = [
            (1, "here".to_owned(), None),
            (2, "there".to_owned(), None),
            (3, "waits".to_owned(), waits),
        ];
        assert_eq!(open(tx)?, expected);
        assert_eq!(tx.busy_builders()?, BTreeMap::from([(busy.clone(), 1)]));
        let own = |id| {
            tx.running_builds_of(id)
                .map(|all| all.iter().map(|one| one.number).collect::<Vec<_>>())
        };
        assert_eq!((own(&busy)?, own(&idle)?), (vec![2], vec![]));
        // One that was here has no place when it is given up there, and is another's then.
        tx.take_build(&tickets[0])?;
        assert_eq!(told(tx)?[0], ("here".to_owned(), None, None, None));
        tx.keep_build(&tickets[1])?;
        assert_eq!(told(tx)?[1], ("there".to_owned(), Some(RunsOn::Own), None, None));
        assert_eq!(tx.busy_builders()?, BTreeMap::new());
        tx.finish_build(&tickets[1], Err(&Fault::customer("it broke")), &by(3))?;
        assert_eq!(open(tx)?, [expected[0].clone(), expected[2].clone()]);
        Ok::<_, Error>(())
    });
    done.await.unwrap();
}

#[tokio::test]
async fn what_the_platform_failed_at_is_on_record_where_it_was_until_it_is_tried_again() {
    let world = World::new();
    world.environment("acme/shop/dev").await;
    let builder = join(&world, 1, &[]).await.id;
    let execution = ExecutionId::from_bits(7);
    let new = NewBuild {
        ticket: "t-1".parse().unwrap(),
        place: "acme/shop/dev".parse().unwrap(),
        execution: Some(execution.clone()),
        commit: world::commit("a"),
        source: Digest::of("source"),
        identifier: None,
        log: None,
    };
    let done = world.store.write(move |tx| {
        let place = |tx: &Tx<'_>| -> Result<_, Error> {
            let ran = tx.ran_in_execution(&execution)?.remove(0);
            Ok((ran.runs_on, ran.waits))
        };
        tx.begin_build(&new, &by(1))?;
        tx.give_build(&new.ticket, &builder, &by(2))?;
        tx.finish_build(&new.ticket, Err(&Fault::platform("it is silent")), &by(3))?;
        assert_eq!(place(tx)?, (Some(RunsOn::Builder(builder.clone())), None));
        assert_eq!(tx.busy_builders()?, BTreeMap::new());
        tx.begin_build(&new, &by(4))?;
        assert_eq!(place(tx)?, (None, None), "it may go elsewhere");
        tx.keep_build(&new.ticket)?;
        tx.finish_build(&new.ticket, Err(&Fault::customer("it broke")), &by(5))?;
        tx.begin_build(&new, &by(6))?;
        assert_eq!(
            place(tx)?,
            (Some(RunsOn::Own), None),
            "what is known is not tried again"
        );
        Ok::<_, Error>(())
    });
    done.await.unwrap();
}
