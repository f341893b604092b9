//! What `systemctl` and `service` answer, with the words and the exit codes that scripts look at.

use super::world::World;

/// Scripts with what they print and how they end, one after the other in one host.
async fn answers(world: &World, cases: &[(&str, i32, &str)]) {
    for (script, code, output) in cases {
        let outcome = world.sh(script).await;
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (Some(*code), *output),
            "{script}: {}",
            outcome.stderr
        );
    }
}

async fn host(units: &[(&str, &str)]) -> Option<World> {
    let world = World::start().await?;
    for (path, text) in units {
        world.file(path, text);
    }
    world.configure(&[]).await;
    Some(world)
}

macro_rules! host {
    ($($units:tt)*) => {
        match host(&[$($units)*]).await {
            Some(world) => world,
            None => return,
        }
    };
}

const SLEEPS: &str = "[Service]\nExecStart=/bin/sleep 99\n[Install]\nWantedBy=multi-user.target\n";

/// Of several units one is enough, and a question is not an order: it is answered in the order in which it was asked.
#[tokio::test]
async fn states_are_asked_for() {
    let world = host!(
        ("/etc/systemd/system/up.service", SLEEPS),
        ("/lib/systemd/system/down.service", SLEEPS),
        (
            "/etc/systemd/system/door.socket",
            "[Socket]\nListenStream=/run/door\nService=up.service\n"
        ),
        (
            "/etc/systemd/system/bad.service",
            "[Service]\nType=oneshot\nExecStart=/bin/false\n"
        )
    );
    answers(
        &world,
        &[
            ("systemctl is-system-running", 0, "running\n"),
            ("systemctl start up bad 2>/dev/null", 1, ""),
            ("systemctl is-active up", 0, "active\n"),
            ("systemctl is-active down bad", 3, "inactive\nfailed\n"),
            ("systemctl is-active down up", 0, "inactive\nactive\n"),
            ("systemctl is-active up door.socket", 0, "active\ninactive\n"),
            ("systemctl is-active -q down", 3, ""),
            ("systemctl is-active --quiet none", 3, ""),
            ("systemctl is-failed up bad", 0, "active\nfailed\n"),
            ("systemctl is-failed up", 1, "active\n"),
            (
                "systemctl enable up 2>/dev/null; systemctl is-enabled down up",
                0,
                "disabled\nenabled\n",
            ),
            ("systemctl is-enabled down", 1, "disabled\n"),
            (
                "systemctl is-enabled none 2>&1",
                1,
                "Failed to get unit file state for none.service: No such file or directory\n",
            ),
            ("systemctl mask down; systemctl is-enabled down", 1, "masked\n"),
            (
                "systemctl show -p LoadState,ActiveState down none",
                0,
                "LoadState=masked\nActiveState=inactive\n\nLoadState=not-found\nActiveState=inactive\n",
            ),
            ("systemctl show -pSubState --value up", 0, "running\n"),
            ("systemctl show -p Result --value bad", 0, "exit-code\n"),
            ("systemctl show", 0, ""),
            ("systemctl status up >/dev/null", 0, ""),
            ("systemctl status bad >/dev/null", 3, ""),
            (
                "systemctl status none 2>&1",
                4,
                "Unit none.service could not be found.\n",
            ),
            (
                "systemctl status | cut -d' ' -f1 | grep 'service$'",
                0,
                "bad.service\nup.service\n",
            ),
            ("systemctl stop none 2>/dev/null", 5, ""),
            ("systemctl restart none 2>/dev/null", 5, ""),
            ("systemctl reload none 2>/dev/null", 5, ""),
            ("systemctl start down 2>/dev/null", 1, ""),
            ("systemctl unmask down; systemctl start down", 0, ""),
            ("systemctl reload up 2>/dev/null", 1, ""),
            ("systemctl is-system-running", 1, "degraded\n"),
            (
                "systemctl reset-failed; systemctl is-active bad; systemctl is-system-running",
                0,
                "inactive\nrunning\n",
            ),
            ("systemctl --version | cut -d' ' -f1,2", 0, "systemd 252\n"),
            ("systemctl --user start up 2>/dev/null", 1, ""),
            ("systemctl is-active", 1, ""),
            (
                "systemctl disable --now up 2>/dev/null; systemctl is-enabled up; systemctl is-active up",
                3,
                "disabled\ninactive\n",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn lists_hold_what_is_asked_for() {
    let world = host!(
        ("/etc/systemd/system/one.service", SLEEPS),
        ("/etc/systemd/system/two.service", SLEEPS),
        (
            "/etc/systemd/system/bad.service",
            "[Service]\nType=oneshot\nExecStart=/bin/false\n"
        ),
        ("/etc/systemd/system/one.timer", "[Timer]\nOnCalendar=yearly\n")
    );
    const NAMES: &str = "| cut -d' ' -f1 | grep -x 'one.*\\|two.*\\|bad.*' | tr '\\n' ' '";
    let names = |call: &str| format!("systemctl {call} {NAMES}");
    let cases = [
        (
            "start one one.timer bad 2>/dev/null; systemctl list-units",
            "bad.service one.service one.timer ",
        ),
        ("list-units --failed", "bad.service "),
        ("list-units --state=running", "one.service "),
        (
            "list-units --type=service --state failed,running",
            "bad.service one.service ",
        ),
        ("list-units -ttimer", "one.timer "),
        ("list-units one", "one.service "),
        ("list-units 'o*'", "one.service one.timer "),
        ("stop one; systemctl list-units one", ""),
        ("list-units -al one", "one.service "),
        (
            "list-unit-files --full -all",
            "bad.service one.service one.timer two.service ",
        ),
        ("list-unit-files two.service", "two.service "),
        (
            "enable two 2>/dev/null; systemctl list-unit-files --state=enabled",
            "two.service ",
        ),
    ];
    for (call, expected) in cases {
        answers(&world, &[(&names(call), 0, expected)]).await;
    }
    answers(
        &world,
        &[
            ("systemctl list-unit-files none.service", 1, ""),
            ("systemctl list-unit-files one.service >/dev/null", 0, ""),
        ],
    )
    .await;
}

/// Files elsewhere, templates, aliases and drop-ins.
#[tokio::test]
async fn units_are_enabled_by_many_names() {
    let world = host!(
        ("/srv/app/mine.service", SLEEPS),
        (
            "/etc/systemd/system/many@.service",
            "[Service]\nExecStart=/bin/sh -c 'echo %n of %p for %i; exec sleep 99'\n[Install]\nWantedBy=multi-user.target\nDefaultInstance=first\n"
        ),
        ("/etc/systemd/system/plain@.service", SLEEPS),
        (
            "/etc/systemd/system/real.service",
            "[Service]\nEnvironment=A=file\nExecStart=/bin/sh -c 'echo $A ${B-none}; exec sleep 99'\n[Install]\nAlias=other.service\n"
        ),
        (
            "/lib/systemd/system/real.service.d/20-b.conf",
            "[Service]\nEnvironment=B=20 A=20\n"
        ),
        (
            "/etc/systemd/system/real.service.d/10-a.conf",
            "[Service]\nEnvironment=A=10\n"
        ),
        ("/etc/systemd/system/multi-user.target.d/none.conf", "")
    );
    answers(
        &world,
        &[
            ("systemctl enable --now /srv/app/mine.service 2>/dev/null; systemctl is-active mine; systemctl is-enabled mine", 0, "active\nenabled\n"),
            ("systemctl enable /srv/app/none.service 2>/dev/null", 1, ""),
            ("systemctl enable --now many@.service 2>/dev/null; systemctl is-active many@first many@second", 0, "active\ninactive\n"),
            ("systemctl start many@second; systemctl is-active many@second", 0, "active\n"),
            ("systemctl is-active 'many@*'", 0, "active\nactive\n"),
            ("systemctl enable plain@.service 2>/dev/null", 1, ""),
            ("systemctl enable real 2>/dev/null; systemctl start other; systemctl is-active real other", 0, "active\nactive\n"),
            ("systemctl show -p Id --value other", 0, "real.service\n"),
            ("systemctl cat real | grep -c ^Environment", 0, "3\n"),
        ],
    )
    .await;
    for (name, said) in [
        ("real", "20 20\n"),
        ("many_first", "many@first.service of many for first\n"),
    ] {
        assert!(
            world.until(|| world.log(name).contains(said)).await,
            "{}",
            world.log(name)
        );
    }
    // A change counts from the next start on, with or without being asked to look.
    world.file(
        "/etc/systemd/system/real.service.d/30-c.conf",
        "[Service]\nEnvironment=A=30\n",
    );
    answers(
        &world,
        &[("systemctl daemon-reload && systemctl restart real", 0, "")],
    )
    .await;
    assert!(
        world.until(|| world.log("real").contains("30 20\n")).await,
        "{}",
        world.log("real")
    );
}

#[tokio::test]
async fn a_script_beside_a_unit_does_what_units_cannot() {
    let script = "#!/bin/sh\necho \"script $1\"\ntest \"$1\" != broken\n";
    let world = host!(
        ("/etc/systemd/system/both.service", SLEEPS),
        ("/etc/init.d/both", script),
        ("/etc/init.d/alone", script)
    );
    answers(
        &world,
        &[
            ("chmod +x /etc/init.d/both /etc/init.d/alone", 0, ""),
            ("service both start; service both configtest; systemctl is-active both", 0, "script configtest\nactive\n"),
            ("service both broken", 1, "script broken\n"),
            ("service both status | head -1", 0, "● both.service - both\n"),
            ("service both --full-restart; systemctl is-active both", 0, "active\n"),
            ("service both force-stop; for i in $(seq 100); do systemctl is-active -q both || break; sleep 0.05; done; systemctl is-failed both", 0, "failed\n"),
            ("service alone status", 0, "script status\n"),
            ("service alone reload", 0, "script reload\n"),
            ("service none start 2>/dev/null", 5, ""),
            ("service 2>/dev/null", 1, ""),
        ],
    )
    .await;
}
