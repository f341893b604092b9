//! The agent is replaced while what it runs goes on.

use std::{collections::BTreeMap, fs, time::Duration};

use axum::body::Body;
use host::agent::api::{DaemonOrder, Origin, ServiceState};
use model::Digest;

use super::world::{World, program};

#[tokio::test]
async fn a_new_agent_takes_over_and_nothing_is_restarted() {
    let world = world!();
    world.file("/srv/app/ready", "");
    world.file(
        "/etc/systemd/system/unit.service",
        "[Service]\nRestart=always\nRestartSec=100ms\nExecStart=/bin/sh -c 'while :; do echo tick; sleep 0.1; done'\n",
    );
    world.file(
        "/etc/systemd/system/once.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
    );
    world.file(
        "/etc/systemd/system/often.timer",
        "[Timer]\nOnCalendar=hourly\nUnit=once.service\n",
    );
    let web = "trap 'echo with $API_TOKEN of $GREETING' USR1; echo up; while :; do sleep 0.05; done";
    world.configure(&[("web", web)]).await;
    let daemon = DaemonOrder {
        name: "daemon".to_owned(),
        command: ["sleep", "1000"].map(str::to_owned).to_vec(),
        user: None,
        directory: None,
        environment: BTreeMap::new(),
        stop_timeout_ms: 1000,
    };
    world.agent.daemon(&daemon).await.unwrap();
    let outcome = world.sh("systemctl start unit once often.timer").await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(world.until(|| world.log("web").contains("up")).await);
    let names = ["web", "unit", "daemon"];
    let mut before = Vec::new();
    for name in names {
        before.push(world.pid_of(name).await);
    }

    let bytes = fs::read(program()).unwrap();
    let limit = Duration::from_secs(60);
    let wrong = world
        .agent
        .succeed(&Digest::of(b"another"), Body::from(bytes), limit)
        .await;
    assert!(wrong.is_err(), "a program that is not what its digest says");
    world.replace_agent().await;

    let health = world.agent.health().await.unwrap();
    assert!(health.pid == 1 && health.configured, "{health:?}");
    for (name, pid) in names.into_iter().zip(before) {
        assert_eq!(world.pid_of(name).await, pid, "{name} goes on");
        assert_eq!(world.status(name).await.restarts, 0, "{name}");
    }
    assert_eq!(world.status("daemon").await.origin, Origin::Daemon);
    assert_eq!(world.status("once").await.state, ServiceState::Active);
    let timers = world.sh("systemctl list-timers").await.stdout;
    assert!(timers.contains("often.timer"), "{timers}");

    // Their outputs are still read, masked as before; and they are still looked after.
    let ticks = world.log("unit").matches("tick").count();
    assert!(
        world
            .until(|| world.log("unit").matches("tick").count() > ticks + 3)
            .await
    );
    world.sh("systemctl kill --kill-whom=main -s USR1 web").await;
    assert!(
        world
            .until(|| world.log("web").contains("with *** of hello"))
            .await,
        "{}",
        world.log("web")
    );
    let pid = world.pid_of("unit").await;
    world.sh(&format!("kill -9 {pid}")).await;
    let again = async || {
        let status = world.status("unit").await;
        status.restarts == 1 && status.pid.is_some_and(|new| new != pid)
    };
    assert!(world.until_async(again).await, "{:?}", world.status("unit").await);
    let outcome = world
        .sh("systemctl stop unit; pgrep -f '[e]cho tick' | wc -l")
        .await;
    assert_eq!(outcome.stdout.trim(), "0");
}

/// Says that it is ready after a while, and then answers with its number.
const SLOW: &str = r#"use IO::Socket::UNIX;
$| = 1; print "begun\n"; sleep 3;
my $told = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Peer => $ENV{NOTIFY_SOCKET}) or die $!;
$told->send("READY=1");
open(my $listening, '+<&=', 3) or die $!;
while (accept(my $client, $listening)) { syswrite $client, "$$\n"; }
"#;

#[tokio::test]
async fn what_starts_when_the_agent_is_replaced_is_taken_over_too() {
    let world = world!();
    world.file("/srv/slow.pl", SLOW);
    world.file(
        "/etc/systemd/system/slow.socket",
        "[Socket]\nListenStream=/run/slow\n",
    );
    world.file(
        "/etc/systemd/system/slow.service",
        "[Service]\nType=notify\nExecStart=/usr/bin/perl /srv/slow.pl\n",
    );
    let ask = "perl -MIO::Socket::UNIX -e 'my $s = IO::Socket::UNIX->new(\"/run/slow\") or exit 7; print $s->getline'";
    let begin = format!("systemctl start slow.socket && {ask} > /dev/null 2>&1 &");
    assert_eq!(world.sh(&begin).await.code, Some(0));
    assert!(world.until(|| world.log("slow").contains("begun")).await);
    assert_eq!(world.status("slow").await.state, ServiceState::Activating);

    world.replace_agent().await;
    assert_eq!(world.status("slow").await.state, ServiceState::Active);
    let pid = world.pid_of("slow").await;
    let outcome = world.sh(ask).await;
    assert_eq!(outcome.stdout.trim().parse(), Ok(pid), "{}", world.log("slow"));
    let begun = world.log("slow").matches("begun").count();
    assert_eq!(begun, 1, "{}", world.log("slow"));

    // Another one cannot be executed: all goes on as before.
    let bytes = b"#!/nowhere\n".to_vec();
    let digest = Digest::of(&bytes);
    let limit = Duration::from_secs(60);
    world
        .agent
        .succeed(&digest, Body::from(bytes), limit)
        .await
        .unwrap();
    let outcome = world.sh(&format!("systemctl stop slow && {ask}")).await;
    let next = outcome.stdout.trim().parse::<u32>();
    assert!(next.is_ok_and(|next| next != pid), "{outcome:?}");
    assert!(world.status("slow").await.state == ServiceState::Active);
}
