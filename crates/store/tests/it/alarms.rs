//! What is told of alarms, and what of it is on record.

use model::alarm::AlarmState::{self, Alarm, Ok};
use store::{Error, Told};

use crate::world::{World, by};

#[tokio::test]
async fn an_alarm_is_as_it_was_told_last_and_only_changes_are_on_record() {
    let (world, dev) = World::dev().await;
    let (tenant, name) = (dev.tenant.clone(), "errors".parse::<model::AlarmName>().unwrap());
    let (own, called) = (tenant.clone(), name.clone());
    let told = world
        .write(move |tx| {
            tx.set_alarm(&own, &called, Ok, None, &by(1))?;
            tx.set_alarm(&own, &called, Ok, Some("all is well"), &by(2))?;
            tx.set_alarm(&own, &called, Alarm, Some("7 %"), &by(3))?;
            tx.set_alarm(&own, &called, Alarm, Some("8 %"), &by(4))
        })
        .await;
    assert_eq!((told.state, told.reason.as_deref()), (Alarm, Some("8 %")));
    assert_eq!((told.since, told.told_at), (by(3).at, by(4).at));

    let (own, called) = (tenant.clone(), name.clone());
    let (ignored, again) = world
        .write(move |tx| {
            let ignored = tx.ignore_alarm(&own, &called, by(9).at, "the fix", &by(5))?;
            // What is told meanwhile ends nothing of it.
            tx.set_alarm(&own, &called, Ok, None, &by(6))?;
            tx.set_alarm(&own, &called, Alarm, None, &by(7))?;
            let still = tx.alarm(&own, &called)?;
            assert_eq!(still.ignored, ignored.ignored);
            Result::Ok::<_, Error>((ignored, tx.ignore_alarm(&own, &called, by(8).at, "done", &by(8))?))
        })
        .await;
    assert!(ignored.is_ignored(by(8).at) && !ignored.is_ignored(by(9).at));
    assert_eq!(again.ignored, None);

    let (own, called) = (tenant.clone(), name.clone());
    world
        .write(move |tx| tx.remove_alarm(&own, &called, &by(10)))
        .await;
    let own = tenant.clone();
    assert!(
        world
            .store
            .read(move |db| db.alarms(&own))
            .await
            .unwrap()
            .is_empty()
    );
    let lines = world.store.read(|db| db.ledger_from(1, 1000)).await.unwrap();
    let actions: Vec<_> = lines
        .iter()
        .filter(|line| line.action.starts_with("alarm."))
        .map(|line| (line.action.as_str(), line.at))
        .collect();
    let expected = [
        ("alarm.set", 1),
        ("alarm.set", 3),
        ("alarm.ignore", 5),
        ("alarm.set", 6),
        ("alarm.set", 7),
        ("alarm.ignore", 8),
        ("alarm.remove", 10),
    ];
    assert_eq!(actions, expected.map(|(action, at)| (action, by(at).at)));
}

#[tokio::test]
async fn alarms_are_a_tenants_own_and_go_with_it() {
    let (world, dev) = World::dev().await;
    let (own, other) = (dev.tenant.clone(), "other".parse::<model::TenantName>().unwrap());
    let name: model::AlarmName = "errors".parse().unwrap();
    let (tenant, foreign, called) = (own.clone(), other.clone(), name.clone());
    world
        .write(move |tx| {
            tx.create_tenant(&foreign, &by(1))?;
            tx.set_alarm(&tenant, &called, Alarm, None, &by(2))?;
            tx.set_alarm(&foreign, &called, Ok, None, &by(3))
        })
        .await;
    let (tenant, foreign) = (own.clone(), other.clone());
    let states = world
        .store
        .read(move |db| Result::Ok::<_, Error>((db.alarms(&tenant)?, db.alarms(&foreign)?)))
        .await
        .unwrap();
    assert_eq!((states.0[&name].state, states.1[&name].state), (Alarm, Ok));
    // The next customer of that name begins with none.
    let foreign = other.clone();
    let left = world
        .write(move |tx| {
            tx.delete_tenant(&foreign, &by(4))?;
            tx.create_tenant(&foreign, &by(5))?;
            tx.alarms(&foreign)
        })
        .await;
    assert!(left.is_empty());
    let missing = world.store.write(move |tx| tx.alarm(&other, &name)).await;
    assert!(matches!(missing, Err(Error::Missing { what: "alarm", .. })));
}

fn told(teller: &str, alarms: &[(&str, AlarmState)]) -> Told {
    let reason = |state| (state == Alarm).then(|| format!("says {teller}"));
    let one = |(name, state): &(&str, AlarmState)| (name.parse().unwrap(), (*state, reason(*state)));
    Told {
        teller: teller.to_owned(),
        is_all: !teller.is_empty(),
        alarms: alarms.iter().map(one).collect(),
    }
}

#[tokio::test]
async fn an_alarm_rings_until_the_last_who_said_so_says_that_it_is_well() {
    let (world, dev) = World::dev().await;
    let own = dev.tenant.clone();
    let steps: [(Told, AlarmState, Option<&str>); 7] = [
        (told("east", &[("errors", Alarm)]), Alarm, Some("says east")),
        (told("west", &[("errors", Alarm)]), Alarm, Some("says west")),
        // One of them is well, and why it rings is what the other one says.
        (told("west", &[("errors", Ok)]), Alarm, Some("says east")),
        // Who never said that it rings ends nothing.
        (told("north", &[("errors", Ok)]), Alarm, Some("says east")),
        // What a teller does not name any more is well for it.
        (told("east", &[("latency", Ok)]), Ok, None),
        (told("", &[("errors", Alarm)]), Alarm, Some("says ")),
        (told("east", &[("errors", Ok)]), Alarm, Some("says ")),
    ];
    for (second, (told, state, reason)) in (1..).zip(steps) {
        let (tenant, what) = (own.clone(), format!("{told:?}"));
        let found = world
            .write(move |tx| {
                tx.hear_alarms(&tenant, &told, &by(second))?;
                tx.alarm(&tenant, &"errors".parse().unwrap())
            })
            .await;
        assert_eq!((found.state, found.reason.as_deref()), (state, reason), "{what}");
    }
    // By hand it is well for all of them.
    let tenant = own.clone();
    let found = world
        .write(move |tx| {
            tx.hear_alarms(&tenant, &told("east", &[("errors", Alarm)]), &by(20))?;
            tx.set_alarm(&tenant, &"errors".parse().unwrap(), Ok, None, &by(21))?;
            tx.hear_alarms(&tenant, &told("west", &[("errors", Ok)]), &by(22))?;
            tx.alarm(&tenant, &"errors".parse().unwrap())
        })
        .await;
    assert_eq!((found.state, found.since), (Ok, by(21).at));
    let lines = world.store.read(|db| db.ledger_from(1, 1000)).await.unwrap();
    let errors = lines
        .iter()
        .filter(|line| line.object == "errors" && line.action == "alarm.set");
    assert_eq!(errors.count(), 4, "only what changed is on record");
}

#[tokio::test]
async fn what_there_is_no_room_for_is_passed_over_and_the_rest_is_kept() {
    let (world, dev) = World::dev().await;
    let own = dev.tenant.clone();
    let names: Vec<String> = (0..1001).map(|number| format!("a{number:04}")).collect();
    let all: Vec<(&str, AlarmState)> = names.iter().map(|name| (name.as_str(), Alarm)).collect();
    let (tenant, first) = (own.clone(), told("first", &all));
    let heard = world
        .write(move |tx| tx.hear_alarms(&tenant, &first, &by(1)))
        .await;
    assert_eq!(heard.alarms.len(), 1000);
    assert_eq!(heard.passed_over, ["a1000".parse().unwrap()]);
    assert!(heard.uncounted.is_empty());
    // More say so than are remembered: it rings until somebody says otherwise by hand.
    let tenant = own.clone();
    let (uncounted, state) = world
        .write(move |tx| {
            let hear = |teller: &str, alarms: &[(&str, AlarmState)]| {
                tx.hear_alarms(&tenant, &told(teller, alarms), &by(2))
            };
            let tellers: Vec<String> = (2..=10).map(|number| format!("g{number}")).collect();
            let mut uncounted = Vec::new();
            for teller in &tellers {
                uncounted.extend(hear(teller, &all_of(&names))?.uncounted);
            }
            uncounted.extend(hear("last", &[("a0000", Alarm)])?.uncounted);
            // One that is remembered may say it again.
            uncounted.extend(hear("g2", &all_of(&names))?.uncounted);
            for teller in tellers.iter().map(String::as_str).chain(["first", "last"]) {
                hear(teller, &[])?;
            }
            let states = tx.alarms(&tenant)?;
            let of = |name: &str| states[&name.parse().unwrap()].state;
            Result::Ok::<_, Error>((uncounted, (of("a0000"), of("a0001"))))
        })
        .await;
    assert_eq!(uncounted, ["a0000".parse().unwrap()]);
    assert_eq!(state, (Alarm, Ok));
}

fn all_of(names: &[String]) -> Vec<(&str, AlarmState)> {
    names
        .iter()
        .take(1000)
        .map(|name| (name.as_str(), Alarm))
        .collect()
}
