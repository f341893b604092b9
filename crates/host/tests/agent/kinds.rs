//! An app that becomes another kind of app on hosts that are there: what ran before ends, and by its own scripts.

use model::{
    Ticket,
    port::{Deployed, EventStatus, LifecycleEvent},
};

use crate::world::World;

const APPSPEC: &str = "version: 0.0
os: linux
hooks:
  ApplicationStop: [{ location: stop.sh }]
  ApplicationStart: [{ location: start.sh }]
  BeforeBlockTraffic: [{ location: block.sh }]
  AfterAllowTraffic: [{ location: allow.sh }]
";

/// A revision with an appspec at this path, whose scripts say which one they are of.
async fn appspec(world: &World, number: u64, path: &str) -> Deployed {
    let script = |what: &str| format!("#!/bin/sh\necho {what} {number} >>/said\n");
    let texts = ["stop", "start", "block", "allow"].map(|what| (format!("{what}.sh"), script(what)));
    let scripts = texts.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    let files: Vec<(&str, &str)> = [(path, APPSPEC)].into_iter().chain(scripts).collect();
    let events = LifecycleEvent::BEFORE_TRAFFIC;
    let ticket = Ticket::from_bits(number);
    let deployed = world.deploy(&ticket, number, &files, Some(path), &events).await;
    assert!(deployed.failure().is_none(), "{deployed:?}");
    deployed
}

async fn procfile(world: &World, number: u64) -> Deployed {
    let (ticket, events) = (Ticket::from_bits(number), LifecycleEvent::BEFORE_TRAFFIC);
    let deployed = world
        .deploy(&ticket, number, &[("Procfile", "")], None, &events)
        .await;
    assert!(deployed.failure().is_none(), "{deployed:?}");
    deployed
}

/// One event of a deployment whose revision is not brought.
async fn only(world: &World, number: u64, event: LifecycleEvent, path: Option<&str>) -> EventStatus {
    let ticket = Ticket::from_bits(1000 + number);
    let deployed = world.deploy(&ticket, number, &[], path, &[event]).await;
    assert!(deployed.failure().is_none(), "{deployed:?}");
    deployed.events[0].status
}

impl World {
    async fn said(&self) -> String {
        self.sh("cat /said; rm -f /said").await.stdout.replace('\n', ",")
    }

    /// Workers that run.
    async fn workers(&self) -> String {
        self.sh("pgrep -cxf 'sleep 4711'").await.stdout
    }
}

const WORKER: (&str, &str) = ("worker", "exec sleep 4711");

#[tokio::test]
async fn what_ran_before_ends_whatever_comes_after_it() {
    let world = world!();
    world.configure(&[]).await;
    appspec(&world, 1, "appspec.yml").await;
    assert_eq!(world.said().await, "start 1,");
    // The file is elsewhere: that of before is read where it was.
    appspec(&world, 2, "deploy/appspec.yml").await;
    assert_eq!(world.said().await, "stop 1,start 2,");
    // Its scripts stop it, though what comes has none.
    world.configure(&[WORKER]).await;
    procfile(&world, 3).await;
    assert_eq!(
        (world.said().await, world.workers().await),
        ("stop 2,".into(), "1\n".into())
    );
    // The same kind again: each process is exchanged.
    procfile(&world, 4).await;
    assert_eq!(
        (world.said().await, world.workers().await),
        (String::new(), "1\n".into())
    );
    world.configure(&[]).await;
    appspec(&world, 5, "appspec.yml").await;
    assert_eq!(
        (world.said().await, world.workers().await),
        ("start 5,".into(), "0\n".into())
    );
}

#[tokio::test]
async fn a_procfile_app_that_nothing_follows_ends() {
    let world = world!();
    world.configure(&[WORKER]).await;
    procfile(&world, 1).await;
    assert_eq!(world.workers().await, "1\n");
    let status = only(&world, 1, LifecycleEvent::ApplicationStop, None).await;
    assert_eq!(
        (status, world.workers().await),
        (EventStatus::Succeeded, "0\n".into())
    );
    // What is stopped already is no event.
    let again = only(&world, 2, LifecycleEvent::ApplicationStop, None).await;
    assert_eq!(again, EventStatus::Skipped);
}

#[tokio::test]
async fn the_traffic_of_another_deployment_runs_scripts_of_the_revision_that_is_there() {
    let world = world!();
    world.configure(&[]).await;
    appspec(&world, 1, "deploy/appspec.yml").await;
    world.said().await;
    for event in [
        LifecycleEvent::BeforeBlockTraffic,
        LifecycleEvent::AfterAllowTraffic,
    ] {
        let number = 7 + event as u64;
        assert_eq!(
            only(&world, number, event, Some("appspec.yml")).await,
            EventStatus::Succeeded
        );
    }
    assert_eq!(world.said().await, "block 1,allow 1,");
}
