use model::Digest;

use super::*;
use crate::{
    fixtures,
    flow::{definition::tests::sample, runs::tests::Sim},
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn row(number: u64, state: HostState) -> store::Host {
    fixtures::host(number, 1, state)
}

/// Running, its agent answering, holding its environment.
fn seen(number: u64, runs: bool, answers: bool, configured: bool) -> HostSeen {
    HostSeen {
        host: HostId::from_bits(number),
        place: "acme/shop/dev".parse().unwrap(),
        role: HostRole::App,
        state: if runs { Seen::Running } else { Seen::Stopped },
        address: [10, 0, 0, 1].into(),
        image: Digest::of(""),
        started_at: at(0),
        memory_bytes: 0,
        cpu_ms: 0,
        pids: 1,
        disk_bytes: answers.then_some(1),
        disk_total_bytes: answers.then_some(2),
        configured,
    }
}

#[test]
fn only_what_should_run_and_does_not_is_dead() {
    let rows = [
        row(1, HostState::Serving),
        row(2, HostState::Serving),
        row(3, HostState::Ready),
        row(4, HostState::Kept),
        row(5, HostState::Updating),
        row(6, HostState::Serving),
    ];
    let seen = [
        seen(1, true, true, true),
        seen(2, false, false, false),
        // Its agent was started anew by itself, and knows nothing.
        seen(3, true, true, false),
        seen(6, true, false, false),
    ];
    let (mut silent, mut dies) = (HashMap::new(), Vec::new());
    for second in [100, 105, 114, 115] {
        let dead = dead(&rows, &seen, &mut silent, at(second));
        let dead = dead
            .iter()
            .map(|host| rows.iter().position(|row| row.id == host.id).unwrap() + 1);
        dies.push(dead.collect::<Vec<_>>());
    }
    assert_eq!(
        dies,
        [vec![2, 3, 4], vec![2, 3, 4], vec![2, 3, 4], vec![2, 3, 4, 6]]
    );
}

#[test]
fn one_answer_ends_a_silence() {
    let rows = [row(1, HostState::Serving)];
    let mut silent = HashMap::new();
    let other = || seen(2, true, true, true);
    for (second, answers) in [(0, false), (14, false), (15, true), (16, false), (30, false)] {
        let seen = [seen(1, true, answers, answers), other()];
        assert!(dead(&rows, &seen, &mut silent, at(second)).is_empty(), "{second}");
    }
    let seen = [seen(1, true, false, false), other()];
    assert_eq!(dead(&rows, &seen, &mut silent, at(31)).len(), 1);
}

#[test]
fn a_machine_too_busy_for_any_agent_is_no_death_of_all_hosts() {
    let rows = [row(1, HostState::Serving), row(2, HostState::Serving)];
    let mut silent = HashMap::new();
    let all = [seen(1, true, false, false), seen(2, true, false, false)];
    for second in [0, 15, 60, 89] {
        assert!(dead(&rows, &all, &mut silent, at(second)).is_empty(), "{second}");
    }
    assert_eq!(
        dead(&rows, &all, &mut silent, at(90)).len(),
        2,
        "one day it is said"
    );
    // What does not run at all is dead at once.
    let gone = [seen(1, false, false, false), seen(2, true, false, false)];
    assert_eq!(dead(&rows, &gone, &mut HashMap::new(), at(0)).len(), 1);
}

/// A host of a release, or else a database's, that serves.
fn serving(tx: &store::Tx<'_>, number: u64, release: Option<u64>) -> Result<(), store::Error> {
    let new = fixtures::new_host(number, &Sim::place(), release);
    tx.create_host(&new, &By::platform(at(0)))?;
    tx.set_host_state(&new.id, HostState::Serving, None, &By::platform(at(0)))
}

/// What hosts 1 to 3 are after a look, and whether the load balancer has to know.
async fn looked(sim: &Sim) -> (bool, Vec<(HostState, Option<String>)>) {
    let drained = sim.store.write(|tx| {
        let due = drain(tx, at(100), &Busy::of(&[]))?;
        assert!(due.drained.is_empty(), "whoever visits them has time");
        let hosts = (1..=3).map(|number| tx.host(&HostId::from_bits(number)));
        let hosts: Result<Vec<_>, store::Error> = hosts.collect();
        Ok::<_, store::Error>((due.left_routes, hosts?))
    });
    let (left_routes, hosts) = drained.await.unwrap();
    let going = hosts.iter().filter(|host| host.state == HostState::Draining);
    assert!(going.into_iter().all(|host| host.retire_at >= Some(at(100))));
    let told = hosts.into_iter().map(|host| (host.state, host.reason));
    (left_routes, told.collect())
}

#[tokio::test]
async fn what_serves_and_is_not_live_goes_once_nothing_is_under_way() {
    let sim = Sim::new().await;
    let seeded = sim.store.write(|tx| {
        let (place, by) = (Sim::place(), By::platform(at(0)));
        for number in [1, 2] {
            tx.create_release(&place, &fixtures::new_release(None), &by)?;
            serving(tx, number, Some(number))?;
        }
        tx.set_live(&place, 2, at(0), &by)?;
        // As a deployment leaves it that ended in the middle.
        tx.set_host_state(&HostId::from_bits(1), HostState::Serving, None, &by)?;
        serving(tx, 3, None)
    });
    seeded.await.unwrap();
    let execution = sim.begin(patience::HEAL, sample(false)).await;
    let serves = (HostState::Serving, None);
    let all = vec![serves.clone(), serves.clone(), serves.clone()];
    assert_eq!(looked(&sim).await, (false, all), "it may be about to be live");
    sim.stop(&execution).await;
    sim.ended(&execution).await;
    let goes = (HostState::Draining, Some(LEFT.to_owned()));
    assert_eq!(
        looked(&sim).await,
        (true, vec![goes.clone(), serves.clone(), serves.clone()])
    );
    assert_eq!(
        looked(&sim).await,
        (false, vec![goes, serves.clone(), serves]),
        "once"
    );
}

#[tokio::test]
async fn what_an_execution_left_half_made_goes_at_once_and_nobody_takes_it_for_a_host_to_be() {
    let sim = Sim::new().await;
    let seeded = sim.store.write(|tx| {
        let by = By::platform(at(0));
        tx.create_release(&Sim::place(), &fixtures::new_release(None), &by)?;
        tx.set_live(&Sim::place(), 1, at(0), &by)?;
        for (number, state) in [
            (1, HostState::Serving),
            (2, HostState::Ready),
            (3, HostState::Failed),
        ] {
            serving(tx, number, Some(1))?;
            tx.set_host_state(&HostId::from_bits(number), state, None, &by)?;
        }
        Ok::<_, store::Error>(())
    });
    seeded.await.unwrap();
    let execution = sim.begin(patience::HEAL, sample(false)).await;
    let goes = || {
        sim.store
            .write(|tx| Ok::<_, store::Error>(drain(tx, at(100), &Busy::of(&[]))?.drained))
    };
    assert!(goes().await.unwrap().is_empty(), "they are being made");
    sim.stop(&execution).await;
    sim.ended(&execution).await;
    let going: Vec<_> = goes()
        .await
        .unwrap()
        .into_iter()
        .map(|host| (host.id, host.state))
        .collect();
    let expected = [2, 3].map(|number| (HostId::from_bits(number), HostState::Draining));
    assert_eq!(going, expected);
}

#[tokio::test]
async fn what_failed_and_still_answers_somebody_has_the_time_of_its_requests() {
    let sim = Sim::new().await;
    let goes = sim.store.write(|tx| {
        tx.create_release(&Sim::place(), &fixtures::new_release(None), &By::platform(at(0)))?;
        for number in [1, 2, 3] {
            serving(tx, number, Some(1))?;
            let id = HostId::from_bits(number);
            // The third so long ago that all requests have had their time.
            let failed = at(if number == 3 { 10 } else { 90 });
            tx.set_host_state(
                &id,
                HostState::Failed,
                Some("a hook failed"),
                &By::platform(failed),
            )?;
        }
        // One that is ready has visitors as soon as it is in the table.
        serving(tx, 4, Some(1))?;
        tx.set_host_state(
            &HostId::from_bits(4),
            HostState::Ready,
            None,
            &By::platform(at(10)),
        )?;
        let busy = Busy::of(&[1, 3, 4].map(HostId::from_bits));
        drain(tx, at(100), &busy)?;
        let hosts = [1, 2, 3, 4].map(|number| tx.host(&HostId::from_bits(number)).unwrap());
        let drain = tx.release(&Sim::place(), 1)?.content.spec.deploy.drain;
        Ok::<_, store::Error>((drain, hosts.map(|host| host.retire_at.unwrap())))
    });
    let (drain, goes) = goes.await.unwrap();
    assert_eq!(drain.as_secs(), 30);
    assert_eq!(goes, [at(120), at(100), at(100), at(130)]);
}

#[tokio::test]
async fn what_serves_goes_on_until_the_live_release_has_somebody_who_does() {
    let sim = Sim::new().await;
    let seeded = sim.store.write(|tx| {
        let (place, by) = (Sim::place(), By::platform(at(0)));
        for _ in 0..2 {
            tx.create_release(&place, &fixtures::new_release(None), &by)?;
        }
        serving(tx, 1, Some(1))?;
        tx.set_live(&place, 2, at(0), &by)?;
        tx.set_host_state(&HostId::from_bits(1), HostState::Serving, None, &by)?;
        let missing = (left(tx)?.len(), lacks_hosts(tx, &place)?);
        serving(tx, 2, Some(2))?;
        Ok::<_, store::Error>((missing, (left(tx)?.len(), lacks_hosts(tx, &place)?)))
    });
    assert_eq!(seeded.await.unwrap(), ((0, true), (1, false)));
}
