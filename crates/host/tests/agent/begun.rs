//! Services that are stopped, asked for or started anew while they start: never a process left, nor a start that says
//! that it went well.

use super::world::World;

/// Runs a script in a world with units, by their names.
async fn says(world: &World, units: &[(&str, &str)], script: &str) -> String {
    for (name, text) in units {
        world.file(&format!("/etc/systemd/system/{name}"), text);
    }
    let outcome = world.sh(script).await;
    outcome.stdout
}

/// Begins a start, and waits until its process is there.
const BEGIN: &str = "{ systemctl start NAME 2>/dev/null; echo start $?; } & \
                     until test -s /dev/shm/NAME; do sleep 0.02; done; ";

/// Nobody restarts it either.
const AFTER: &str =
    "wait; sleep 0.5; systemctl is-active NAME; kill -0 $(cat /dev/shm/NAME) 2>/dev/null && echo lives";

#[tokio::test]
async fn a_service_that_is_stopped_while_it_starts_is_inactive_and_gone() {
    let world = world!();
    world.configure(&[]).await;
    for (name, unit) in [
        // Before its main process.
        (
            "pre",
            "Restart=always\nExecStartPre=/bin/sh -c 'echo $$$$ >/dev/shm/pre; exec sleep 99'\nExecStart=/bin/sleep 99\n",
        ),
        (
            "once",
            "Type=oneshot\nRestart=on-failure\nExecStart=/bin/sh -c 'echo $$$$ >/dev/shm/once; exec sleep 99'\n",
        ),
        // Before it says that it is ready; a program that wipes its environment has no mark.
        (
            "ready",
            "Type=notify\nRestart=always\nExecStart=/usr/bin/env -i /bin/sh -c 'echo $$$$ >/dev/shm/ready; exec sleep 99'\n",
        ),
        // Before its daemon is known.
        (
            "fork",
            "Type=forking\nRestart=always\nPIDFile=/run/none\nExecStart=/bin/sh -c 'sleep 99 & echo $$! >/dev/shm/fork'\n",
        ),
        (
            "post",
            "Restart=always\nExecStart=/bin/sleep 99\nExecStartPost=/bin/sh -c 'echo $$$$ >/dev/shm/post; exec sleep 99'\n",
        ),
        // What does not obey is killed in the end.
        (
            "deaf",
            "TimeoutStopSec=1\nRestart=always\nExecStartPre=/bin/sh -c 'trap : TERM; echo $$$$ >/dev/shm/deaf; while :; do sleep 0.1; done'\n\
             ExecStart=/bin/sleep 99\n",
        ),
    ] {
        let unit = format!("[Service]\n{unit}ExecStopPost=/bin/touch /dev/shm/{name}-after\n");
        let script = format!("{BEGIN}systemctl stop NAME; echo stop $?; {AFTER}; ls /dev/shm/NAME-after");
        let told = says(
            &world,
            &[(&format!("{name}.service"), &unit)],
            &script.replace("NAME", name),
        )
        .await;
        let mut lines: Vec<&str> = told.lines().collect();
        // Who is answered first is not said.
        lines[..2].sort_unstable();
        let after = format!("/dev/shm/{name}-after");
        assert_eq!(
            lines,
            ["start 1", "stop 0", "inactive", &after],
            "{name}: {}",
            world.log(name)
        );
        assert!(!world.log(name).contains("starts again"), "{}", world.log(name));
    }
    assert!(
        world.until(|| world.processes().is_empty()).await,
        "{:?}",
        world.processes()
    );
}

/// With the unit's own signal, in the unit's own time.
#[tokio::test]
async fn a_start_that_takes_too_long_ends_as_a_stop_does() {
    let world = world!();
    world.configure(&[]).await;
    for (name, kind) in [("late", "oneshot"), ("unready", "notify")] {
        let unit = format!(
            "[Service]\nType={kind}\nTimeoutStartSec=1\nTimeoutStopSec=5\nKillSignal=SIGINT\nRestart=no\n\
             ExecStart=/bin/sh -c 'trap \"sleep 1; echo int >>/dev/shm/{name}; exit 0\" INT; trap \"echo term >>/dev/shm/{name}\" TERM; \
             while :; do sleep 0.1; done'\n"
        );
        let script = format!(
            "systemctl start {name} 2>/dev/null; echo $?; systemctl is-active {name}; cat /dev/shm/{name}"
        );
        let told = says(&world, &[(&format!("{name}.service"), &unit)], &script).await;
        assert_eq!(told, "1\nfailed\nint\n", "{}", world.log(name));
    }
    // A failure that does not matter is none; a hang is one.
    let unit = "[Service]\nTimeoutStartSec=1\nExecStartPre=-/bin/sleep 99\nExecStart=/bin/sleep 99\n";
    let script = "systemctl start hangs 2>/dev/null; echo $?; systemctl is-active hangs";
    assert_eq!(
        says(&world, &[("hangs.service", unit)], script).await,
        "1\nfailed\n"
    );
    // Started again and again, until somebody stops it.
    let unit = "[Service]\nType=notify\nTimeoutStartSec=1\nRestart=on-failure\nExecStart=/bin/sh -c 'echo x >>/dev/shm/again; exec sleep 99'\n";
    let script = "systemctl start again 2>/dev/null; echo $?; sleep 2; test $(wc -l </dev/shm/again) -gt 1 && echo again; \
                  systemctl stop again; echo $?; sleep 1; systemctl is-active again; pgrep -fx 'sleep 99'";
    assert_eq!(
        says(&world, &[("again.service", unit)], script).await,
        "1\nagain\n0\ninactive\n"
    );
}

#[tokio::test]
async fn who_asks_while_a_service_starts_is_answered_when_it_has() {
    let world = world!();
    world.configure(&[]).await;
    let slow = "[Service]\nExecStartPre=/bin/sh -c 'echo $$$$ >>/dev/shm/slow; sleep 1'\nExecStart=/bin/sleep 99\nExecReload=/bin/touch /dev/shm/reloaded\n";
    let begin = BEGIN.replace("NAME", "slow");
    let script = format!(
        "{begin}systemctl start slow; echo also $?; systemctl stop slow; rm /dev/shm/slow; \
         {begin}systemctl reload slow; echo reload $?; wait; ls /dev/shm/reloaded; systemctl stop slow; rm /dev/shm/slow; \
         {begin}systemctl restart slow; echo restart $?; wait; systemctl is-active slow; wc -l </dev/shm/slow"
    );
    let told = says(&world, &[("slow.service", slow)], &script).await;
    let mut lines: Vec<&str> = told.lines().collect();
    lines[..2].sort_unstable();
    lines[2..4].sort_unstable();
    lines[5..7].sort_unstable();
    let expected = [
        "also 0",
        "start 0",
        "reload 0",
        "start 0",
        "/dev/shm/reloaded",
        "restart 0",
        "start 0",
        "active",
        "2",
    ];
    assert_eq!(lines, expected, "{}", world.log("slow"));
}

/// What it needs is still being started.
#[tokio::test]
async fn a_service_that_is_stopped_before_its_turn_does_not_start() {
    let world = world!();
    world.configure(&[]).await;
    let units = [
        (
            "a.service",
            "[Unit]\nRequires=b.service\n[Service]\nExecStart=/bin/touch /dev/shm/a-ran\n",
        ),
        (
            "b.service",
            "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo $$$$ >/dev/shm/a; sleep 1'\n",
        ),
    ];
    let script = format!(
        "{BEGIN}systemctl stop NAME; echo stop $?; wait; systemctl is-active NAME; ls /dev/shm/a-ran 2>/dev/null"
    );
    let told = says(&world, &units, &script.replace("NAME", "a")).await;
    assert_eq!(told, "stop 0\nstart 1\ninactive\n");
}
