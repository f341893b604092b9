//! Who waits for what `systemctl` starts and stops, and what becomes of it when nobody does.

use super::world::World;

const SLOW: &str = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep 2\n";

async fn host(units: &[(&str, &str)]) -> Option<World> {
    let world = World::start().await?;
    for (name, text) in units {
        world.file(&format!("/etc/systemd/system/{name}"), text);
    }
    world.configure(&[]).await;
    Some(world)
}

#[tokio::test]
async fn who_does_not_want_to_wait_does_not() {
    let units = [
        ("slow.service", SLOW),
        ("late.service", SLOW),
        ("also.service", SLOW),
        ("first.service", SLOW),
        ("next.service", SLOW),
        ("last.service", SLOW),
        ("off.service", SLOW),
    ];
    let Some(world) = host(&units).await else {
        return;
    };
    for (script, told) in [
        (
            "systemctl --no-block start slow; systemctl is-active slow",
            "activating\n",
        ),
        ("within 20 'systemctl is-active -q slow' && echo up", "up\n"),
        // Whoever stops it finds it under way.
        (
            "systemctl start --no-block late; systemctl stop late; sleep 3; systemctl is-active late",
            "inactive\n",
        ),
        // Also those whose turn has not come.
        (
            "systemctl start --no-block first next last; systemctl stop next; within 20 'systemctl is-active -q last'; \
             systemctl is-active first next",
            "active\ninactive\n",
        ),
        (
            "systemctl stop first last; systemctl start first next last 2>/dev/null & sleep 0.5; systemctl stop next last; \
             wait $!; echo $?; systemctl is-active first next last",
            "1\nactive\ninactive\ninactive\n",
        ),
        (
            "systemctl --no-block restart also slow; within 20 'systemctl is-active -q also' && \
             within 20 'test $(systemctl show -p SubState --value slow) = start' && echo anew",
            "anew\n",
        ),
        ("systemctl start --no-block none slow; echo $?", "5\n"),
        (
            "ln -sf /dev/null /etc/systemd/system/off.service; systemctl start --no-block off; echo $?",
            "1\n",
        ),
    ] {
        assert_eq!(world.told(script).await, told, "{script}");
    }
}

/// As of a hook that is ended at its deadline: what it asked for goes on.
#[tokio::test]
async fn what_was_asked_for_is_done_though_nobody_waits_any_more() {
    let units = [
        ("base.service", SLOW),
        (
            "above.service",
            "[Unit]\nRequires=base.service\nAfter=base.service\n[Service]\nExecStart=/bin/sleep 99\n",
        ),
        (
            "never.service",
            "[Service]\nType=notify\nTimeoutStartSec=infinity\nExecStart=/bin/sleep 99\n",
        ),
    ];
    let Some(world) = host(&units).await else {
        return;
    };
    for (script, told) in [
        (
            "systemctl start above; timeout -s KILL 0.5 systemctl restart base; echo $?; systemctl is-active above",
            "137\ninactive\n",
        ),
        (
            "within 20 'systemctl is-active -q above' && echo up; systemctl show -p NRestarts --value base",
            "up\n0\n",
        ),
        // More of them than may ask at one time.
        (
            "for i in $(seq 70); do timeout -s KILL 3 systemctl start never & done 2>/dev/null; wait; systemctl is-active never",
            "activating\n",
        ),
        // They leave places to who looks after the host.
        (
            "for i in $(seq 70); do timeout -s KILL 6 systemctl start never & done >/dev/null 2>&1; sleep 3; \
             systemctl is-active never 2>&1 | head -c 8; wait; systemctl is-active never",
            "48 callsactivating\n",
        ),
        (
            "systemctl stop never; systemctl is-active never base",
            "inactive\nactive\n",
        ),
    ] {
        assert_eq!(world.told(script).await, told, "{script}");
    }
}

#[tokio::test]
async fn what_a_timer_began_goes_on_when_it_is_stopped() {
    let units = [
        ("base.service", SLOW),
        (
            "job.service",
            "[Unit]\nRequires=base.service\nAfter=base.service\n[Service]\nType=oneshot\nExecStart=/bin/touch /run/done\n",
        ),
        ("job.timer", "[Timer]\nOnActiveSec=10ms\n"),
    ];
    let Some(world) = host(&units).await else {
        return;
    };
    let told = world
        .told(
            "systemctl start job.timer; within 9 'test $(systemctl is-active base) = activating'; systemctl stop job.timer; \
             within 20 'test -e /run/done' && echo ran; systemctl is-active job.timer",
        )
        .await;
    assert_eq!(told, "ran\ninactive\n");
}

/// A timer that could never start anything does not start, as with systemd.
#[tokio::test]
async fn a_timer_without_a_time_or_a_unit_is_refused() {
    let units = [
        ("job.service", SLOW),
        ("job.timer", "[Timer]\nOnCalendar=soon\nUnit=other.timer\n"),
        ("alone.timer", "[Timer]\nOnCalendar=daily\n"),
        (
            "passed.timer",
            "[Unit]\nConditionPathExists=/none\n[Timer]\nOnActiveSec=1h\nUnit=job.service\n",
        ),
        ("named.timer", "[Timer]\nOnActiveSec=1h\nUnit=alias.service\n"),
    ];
    let Some(world) = host(&units).await else {
        return;
    };
    for (script, told) in [
        ("systemctl start job.timer; echo $?", "1\n"),
        (
            "systemctl start alone.timer; echo $?; systemctl is-active alone.timer",
            "5\ninactive\n",
        ),
        (
            "ln -sf /dev/null /etc/systemd/system/off.timer; systemctl start off.timer; echo $?",
            "1\n",
        ),
        (
            "systemctl start passed.timer; echo $?; systemctl is-active passed.timer",
            "0\ninactive\n",
        ),
        (
            "ln -s job.service /etc/systemd/system/alias.service; systemctl start named.timer; systemctl list-timers | grep -o 'job.service$'",
            "job.service\n",
        ),
    ] {
        assert_eq!(world.told(script).await, told, "{script}");
    }
    let log = world.log("job.timer");
    for note in ["OnCalendar=soon is ignored", "Unit=other.timer is ignored"] {
        assert!(log.contains(note), "{log}");
    }
}
