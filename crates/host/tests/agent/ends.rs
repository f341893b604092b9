//! A service whose main process dies leaves nothing behind, wherever its others are.

use host::agent::api::ServiceState;

use super::World;

/// Its main process dies while another one of it starts one after the other, each in a session of its own.
#[tokio::test]
async fn what_is_started_while_a_service_is_ended_is_ended_too() {
    let world = world!();
    world.configure(&[]).await;
    world.file(
        "/srv/storm",
        "(i=0; while [ $i -lt 3000 ]; do setsid sleep 1000 & i=$((i+1)); done; wait) &\nexec sleep 1000\n",
    );
    world.file(
        "/etc/systemd/system/storm.service",
        "[Service]\nKillMode=mixed\nExecStart=/bin/sh /srv/storm\n",
    );
    for _ in 0..5 {
        world
            .sh("systemctl start storm; sleep 0.1; systemctl kill -s KILL --kill-whom=main storm")
            .await;
        let failed = async || world.status("storm").await.state == ServiceState::Failed;
        assert!(world.until_async(failed).await);
        // The unit says so when they are gone, and not before.
        let mut left = world.processes();
        left.retain(|stat| !stat.contains(") Z "));
        assert_eq!(left, Vec::<String>::new());
    }
}

/// A daemon is found by its PID file before it begins a session of its own, and what it starts there has wiped its
/// environment: as nginx does it.
#[tokio::test]
async fn a_daemon_that_was_found_early_leaves_nothing() {
    let world = world!();
    world.configure(&[]).await;
    world.file(
        "/srv/early",
        "(sh -c 'echo $PPID' > /run/early.pid; sleep 0.5; exec setsid sh /srv/daemon) &\nsleep 0.1\n",
    );
    world.file(
        "/srv/daemon",
        "env -i sleep 1000 &\nenv -i sleep 1000 &\ntouch /run/is-up\nexec sleep 1000\n",
    );
    world.file(
        "/etc/systemd/system/early.service",
        "[Service]\nType=forking\nKillMode=mixed\nPIDFile=/run/early.pid\nExecStart=/bin/sh /srv/early\n",
    );
    world
        .sh("systemctl start early; until [ -e /run/is-up ]; do sleep 0.1; done; kill -9 $(cat /run/early.pid)")
        .await;
    let failed = async || world.status("early").await.state == ServiceState::Failed;
    assert!(world.until_async(failed).await);
    let mut left = world.processes();
    left.retain(|stat| !stat.contains(") Z "));
    assert_eq!(left, Vec::<String>::new());
}
