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

    /// How many run of the Procfile's command, and of the unit's.
    async fn counts(&self) -> String {
        let count = "for seconds in 4711 4712; do pgrep -cxf \"sleep $seconds\"; done";
        self.sh(count).await.stdout.replace('\n', ",")
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

const UNIT: &str = "[Unit]
Description=The unit
[Service]
ExecStart=/bin/sh -c 'exec sleep 4712'
ExecReload=/bin/true
KillMode=none
SendSIGKILL=no
ExecStop=/bin/sh -c 'echo stopped by the unit >>/said'
";

/// A revision with the unit `worker`, if it has one, which is brought and asked for something.
async fn unit(world: &World, number: u64, unit: Option<&str>, verb: &str) -> Deployed {
    let appspec = "version: 0.0
os: linux
file_exists_behavior: OVERWRITE
files: [{ source: units, destination: /etc/systemd/system }]
hooks: { ApplicationStart: [{ location: start.sh }] }
";
    let start = format!("#!/bin/sh\nsystemctl daemon-reload\nsystemctl {verb} worker\n");
    let units = unit.map(|text| ("units/worker.service", text));
    let files = [
        ("appspec.yml", appspec),
        ("start.sh", &start),
        ("units/other", ""),
    ];
    let files: Vec<(&str, &str)> = files.into_iter().chain(units).collect();
    let (ticket, events) = (Ticket::from_bits(number), LifecycleEvent::BEFORE_TRAFFIC);
    world
        .deploy(&ticket, number, &files, Some("appspec.yml"), &events)
        .await
}

#[tokio::test]
async fn a_unit_and_a_process_of_one_name_follow_each_other() {
    let world = world!();
    world.configure(&[WORKER]).await;
    procfile(&world, 1).await;
    assert_eq!(world.counts().await, "1,0,");
    for (number, verb) in [(2, "start"), (4, "restart")] {
        world.configure(&[]).await;
        let deployed = unit(&world, number, Some(UNIT), verb).await;
        assert!(deployed.failure().is_none(), "{deployed:?}");
        assert_eq!(world.counts().await, "0,1,", "{verb}");
        let described = world.sh("systemctl show -p Description --value worker").await;
        assert_eq!(described.stdout, "The unit\n");

        // No script stops the unit: what gets its name ends it, by its own words, and also where these leave something.
        world.configure(&[WORKER]).await;
        procfile(&world, number + 1).await;
        assert_eq!(world.counts().await, "1,0,", "after {verb}");
        assert_eq!(world.said().await, "stopped by the unit,");
        // The unit's file is still there, and says nothing of the process.
        for verb in ["restart", "reload-or-restart"] {
            let asked = world.sh(&format!("systemctl {verb} worker")).await;
            assert_eq!((asked.code, asked.stderr.as_str()), (Some(0), ""));
            assert_eq!(world.counts().await, "1,0,", "{verb} of the process");
        }
        world.replace_agent().await;
        world.sh("systemctl restart worker").await;
        assert_eq!(world.counts().await, "1,0,", "with another agent");
    }
}

#[tokio::test]
async fn a_process_that_the_procfile_has_no_longer_cannot_be_started() {
    let world = world!();
    world.configure(&[WORKER]).await;
    procfile(&world, 1).await;
    world.configure(&[]).await;
    // Until it is stopped it is looked after, whoever does.
    world.replace_agent().await;
    assert_eq!(world.counts().await, "1,0,");
    let deployed = unit(&world, 2, None, "start").await;
    let failure = deployed.failure().expect("there is no such unit");
    assert_eq!(failure.event, LifecycleEvent::ApplicationStart);
    let said = failure.failure.as_ref().map(|failure| failure.log.as_str());
    assert!(
        said.is_some_and(|said| said.contains("Unit worker.service not found.")),
        "{failure:?}"
    );
    assert_eq!(world.counts().await, "0,0,");
}
