//! What `systemctl` and `service` answer, with the words and the exit codes that scripts look at.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use host::agent::api::RunOrder;

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

/// Who is not root gets answers, and nothing done; what not everybody may read is not shown.
#[tokio::test]
async fn everybody_may_ask_and_only_root_may_order() {
    let world = host!(
        ("/etc/systemd/system/up.service", SLEEPS),
        ("/etc/systemd/system/own.service", SLEEPS),
        (
            "/etc/systemd/system/own.service.d/key.conf",
            "[Service]\nEnvironment=KEY=t0p-s3cret\n"
        )
    );
    world
        .sh("chmod 600 /etc/systemd/system/own.service.d/key.conf; systemctl start up; systemctl set-environment TOKEN=hush")
        .await;
    let many = "up ".repeat(65);
    let patterns = "'*' ".repeat(5);
    for (call, code, stdout, stderr) in [
        ("systemctl is-active up own", 0, "active\ninactive\n", ""),
        ("systemctl is-active own", 3, "inactive\n", ""),
        ("systemctl is-failed own", 1, "inactive\n", ""),
        ("systemctl is-enabled own", 1, "disabled\n", ""),
        ("systemctl is-system-running", 0, "running\n", ""),
        (
            "systemctl show -p ActiveState,SubState up",
            0,
            "ActiveState=active\nSubState=running\n",
            "",
        ),
        ("systemctl status up | sed -n 1p", 0, "● up.service - up\n", ""),
        ("service own status >/dev/null", 3, "", ""),
        ("systemctl list-units 'u*' | cut -d' ' -f1", 0, "up.service\n", ""),
        ("systemctl cat up | sed -n 2p", 0, "[Service]\n", ""),
        ("runlevel", 0, "N 2\n", ""),
        (
            "systemctl cat own",
            1,
            "",
            "Failed to open /etc/systemd/system/own.service: Permission denied\n",
        ),
        (
            "systemctl stop up",
            4,
            "",
            "Failed to stop up.service: Access denied\nSee system logs and 'systemctl status up.service' for details.\n",
        ),
        (
            "service own start",
            4,
            "",
            "Failed to start own.service: Access denied\nSee system logs and 'systemctl status own.service' for details.\n",
        ),
        ("systemctl enable own", 1, "", "Failed to enable: Access denied\n"),
        (
            "systemctl mask --now up",
            1,
            "",
            "Failed to mask: Access denied\n",
        ),
        ("systemctl kill up", 1, "", "Failed to kill: Access denied\n"),
        (
            "systemctl daemon-reload",
            1,
            "",
            "Failed to daemon-reload: Access denied\n",
        ),
        (
            "systemctl show-environment",
            1,
            "",
            "Failed to show-environment: Access denied\n",
        ),
        (
            "systemctl set-environment A=b",
            1,
            "",
            "Failed to set-environment: Access denied\n",
        ),
        (
            &format!("systemctl is-active {many}"),
            1,
            "",
            "Argument list too long\n",
        ),
        (
            &format!("systemctl show {patterns}"),
            1,
            "",
            "Argument list too long\n",
        ),
        ("telinit q", 4, "", "telinit: only root may do this\n"),
    ] {
        let order = RunOrder {
            command: ["sh", "-c", call].map(str::to_owned).to_vec(),
            user: Some("nobody".to_owned()),
            directory: None,
            environment: BTreeMap::new(),
            stdin: None,
            timeout_ms: 20_000,
        };
        let outcome = world.agent.run(&order).await.unwrap();
        assert_eq!(
            (outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()),
            (Some(code), stdout, stderr),
            "{call}"
        );
    }
    answers(
        &world,
        &[
            ("systemctl is-active up", 0, "active\n"),
            ("systemctl is-enabled own", 1, "disabled\n"),
            ("systemctl show-environment | grep -c TOKEN=hush", 0, "1\n"),
            ("systemctl cat own | grep -c KEY", 0, "1\n"),
        ],
    )
    .await;
}

/// Whoever connects and says nothing, or too much, or something else, is in nobody's way for long, and root's least.
#[tokio::test]
async fn nothing_that_is_said_where_everybody_may_ask_stops_the_agent() {
    let world = host!(("/etc/systemd/system/up.service", SLEEPS));
    let socket = format!("/proc/{}/root/run/systemd/vend.sock", world.pid());
    let send = |text: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // What is refused may be closed before all of it is written.
        let _ = stream.write_all(text);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.lines().next().unwrap_or_default().to_owned()
    };
    let post = |path: &str, length: usize, body: &str| {
        send(
            format!(
                "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            )
            .as_bytes(),
        )
    };
    let large = "x".repeat(1 << 20);
    assert_eq!(
        post("/v1/control", large.len(), &large),
        "HTTP/1.1 413 Payload Too Large"
    );
    for path in [
        "/v1/run",
        "/v1/configure",
        "/v1/services/up/start",
        "/v1/daemon",
        "/v1/deploy",
    ] {
        assert_eq!(post(path, 2, "{}"), "HTTP/1.1 404 Not Found", "{path}");
    }
    send(b"\0\xff\xfe");
    // All places are taken by those that say nothing more.
    let idle: Vec<UnixStream> = (0..40)
        .map(|_| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            let head = "POST /v1/control HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{";
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    answers(
        &world,
        &[("systemctl start up; systemctl is-active up", 0, "active\n")],
    )
    .await;
    drop(idle);
    let asked = "su nobody -s /bin/sh -c 'systemctl is-active up'";
    answers(&world, &[(asked, 0, "active\n")]).await;
}

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

#[tokio::test]
async fn patterns_mean_what_is_loaded() {
    let world = host!(
        ("/etc/systemd/system/app@.service", SLEEPS),
        (
            "/etc/systemd/system/app.socket",
            "[Socket]\nListenStream=/run/app\nService=app@9.service\n"
        ),
        (
            "/etc/systemd/system/apple.timer",
            "[Timer]\nOnCalendar=yearly\nUnit=other.service\n"
        ),
        ("/etc/systemd/system/other.service", SLEEPS)
    );
    const NAMES: &str = "| cut -d' ' -f1 | tr '\\n' ' '";
    let listed = |pattern: &str| format!("systemctl list-units {pattern} {NAMES}");
    answers(
        &world,
        &[
            ("systemctl start 'app@*'; systemctl is-active 'app@*'", 3, ""),
            ("systemctl start app@1 app@2 app.socket apple.timer other", 0, ""),
            (
                &listed("'app*'"),
                0,
                "app.socket app@1.service app@2.service apple.timer ",
            ),
            (
                &listed("'app@?.service' 'a*.timer'"),
                0,
                "app@1.service app@2.service apple.timer ",
            ),
            (
                "systemctl list-timers 'app*' | wc -l; systemctl list-timers 'x*' | wc -l",
                0,
                "1\n0\n",
            ),
            (
                "systemctl stop app@1; systemctl restart 'app@*.service'; systemctl is-active app@1 app@2",
                0,
                "inactive\nactive\n",
            ),
            (
                "systemctl restart --all 'app@*.service'; systemctl is-active app@1 app@2",
                0,
                "active\nactive\n",
            ),
            (
                "systemctl stop 'app*'; systemctl is-active app@1 app@2 app.socket apple.timer other",
                0,
                "inactive\ninactive\ninactive\ninactive\nactive\n",
            ),
            ("systemctl stop 'app*'", 0, ""),
            // Files are not loaded.
            ("systemctl enable 'oth*' 2>/dev/null", 1, ""),
            ("systemctl is-enabled other", 1, "disabled\n"),
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

/// Of what has only a script, whether the agent is asked or, in an image that is made, nobody.
#[tokio::test]
async fn scripts_are_enabled_as_the_old_runlevels_do_it() {
    const OLD: &str = "#!/bin/sh\n### BEGIN INIT INFO\n# Provides: old\n# Required-Start:\n# Required-Stop:\n\
                       # Default-Start: 2 3 4 5\n# Default-Stop: 0 1 6\n### END INIT INFO\n";
    let world = host!(("/etc/init.d/old", OLD));
    world.sh("chmod +x /etc/init.d/old").await;
    for offline in ["0", "1"] {
        let call = |verb: &str| {
            format!("SYSTEMD_OFFLINE={offline} systemctl {verb} old && ls /etc/rc2.d | grep old | cut -c1")
        };
        let (enable, disable) = (call("enable"), call("disable"));
        answers(
            &world,
            &[(&enable, 0, "S\n"), (&disable, 0, "K\n"), (&enable, 0, "S\n")],
        )
        .await;
        let without = format!(
            "mv /usr/sbin/update-rc.d /away; SYSTEMD_OFFLINE={offline} systemctl disable old; code=$?; \
             mv /away /usr/sbin/update-rc.d; exit $code"
        );
        let failed = world.sh(&without).await;
        assert_eq!(failed.code, Some(1), "{failed:?}");
        assert!(
            failed
                .stderr
                .contains("Failed to disable unit old.service: update-rc.d: ")
                && failed.stderr.contains("not found"),
            "{failed:?}"
        );
    }
}
