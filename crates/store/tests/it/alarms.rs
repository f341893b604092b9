//! What is told of alarms, and what of it is on record.

use model::alarm::AlarmState::{Alarm, Ok};
use store::Error;

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
