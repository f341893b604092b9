//! Sockets that the agent listens at for services, and units of kinds that only a machine has.

use super::world::World;

/// Answers one connection at its first socket with what it was told, and ends.
const SERVER: &str = r#"die "not mine" unless $ENV{LISTEN_PID} == $$;
open(my $listening, '+<&=', 3) or die $!;
accept(my $client, $listening) or die $!;
syswrite $client, "$ENV{LISTEN_FDS} $ENV{LISTEN_FDNAMES} $< $$\n";
"#;

const CLIENT: &str = "perl -MIO::Socket::UNIX -e 'my $s = IO::Socket::UNIX->new(\"/run/echo/sock\") or exit 7; print $s->getline'";

async fn asked(world: &World) -> (Option<i32>, String) {
    let outcome = world.sh(CLIENT).await;
    (outcome.code, outcome.stdout)
}

#[tokio::test]
async fn who_connects_first_starts_the_service_and_it_gets_the_sockets() {
    let world = world!();
    world.file("/srv/echo.pl", SERVER);
    world.file(
        "/etc/systemd/system/echo.socket",
        "[Socket]\nListenStream=/run/echo/sock\nListenStream=127.0.0.1:7007\nSocketMode=0600\nSocketUser=nobody\n\
         [Install]\nWantedBy=sockets.target\n",
    );
    world.file(
        "/etc/systemd/system/echo.service",
        "[Service]\nUser=nobody\nExecStart=/usr/bin/perl /srv/echo.pl\n",
    );
    let outcome = world.sh("systemctl enable --now echo.socket").await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let outcome = world
        .sh("systemctl is-active echo.socket echo.service; stat -c '%a %U' /run/echo/sock")
        .await;
    assert_eq!(outcome.stdout, "active\ninactive\n600 nobody\n");

    // It ends with every connection, so each has a process of its own.
    let mut pids = Vec::new();
    for _ in 0..3 {
        let (code, answer) = asked(&world).await;
        let pid = answer.strip_prefix("2 echo.socket:echo.socket 65534 ");
        pids.push(
            pid.unwrap_or_else(|| panic!("{code:?} {answer} {}", world.log("echo")))
                .to_owned(),
        );
    }
    pids.dedup();
    assert_eq!(pids.len(), 3);

    // The next agent listens at the same sockets.
    world.replace_agent().await;
    let (_, answer) = asked(&world).await;
    assert!(
        answer.starts_with("2 echo.socket:echo.socket 65534 "),
        "{answer} {}",
        world.log("echo")
    );

    let outcome = world.sh("systemctl disable --now echo.socket").await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(asked(&world).await.0, Some(7), "nobody listens");
}

/// Somebody who connects and waits.
fn waits_at(path: &str) -> String {
    let connect = "perl -MIO::Socket::UNIX -e 'my $s = IO::Socket::UNIX->new(shift) or exit 7; sleep 1000'";
    format!("{connect} {path} > /dev/null 2>&1 &")
}

#[tokio::test]
async fn a_service_that_does_not_stay_up_is_not_started_for_ever() {
    let world = world!();
    let limited = "[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=1min\n";
    for (name, unit, socket, starts, result) in [
        ("dies", "", "", 5, "service-start-limit-hit"),
        ("ends", limited, "", 2, "service-start-limit-hit"),
        (
            "often",
            "",
            "TriggerLimitBurst=3\nTriggerLimitIntervalSec=1min\n",
            3,
            "trigger-limit-hit",
        ),
    ] {
        let program = if name == "ends" { "true" } else { "false" };
        world.file(
            &format!("/etc/systemd/system/{name}.service"),
            &format!("{unit}[Service]\nExecStart=/bin/{program}\n"),
        );
        world.file(
            &format!("/etc/systemd/system/{name}.socket"),
            &format!("[Socket]\nListenStream=/run/{name}\n{socket}"),
        );
        let begin = format!(
            "systemctl start {name}.socket && {}",
            waits_at(&format!("/run/{name}"))
        );
        assert_eq!(world.sh(&begin).await.code, Some(0));
        let failed = format!("systemctl is-failed {name}.socket");
        let gave_up = world.until_async(async || world.sh(&failed).await.code == Some(0));
        let socket = format!("{name}.socket");
        assert!(gave_up.await, "{} {}", world.log(name), world.log(&socket));
        let told = format!("systemctl show -p Result --value {socket}; systemctl is-active {socket}");
        assert_eq!(world.sh(&told).await.stdout, format!("{result}\nfailed\n"));
        assert_eq!(
            world.log(name).matches("started, pid").count(),
            starts,
            "{}",
            world.log(name)
        );
        assert!(
            world.log(&socket).contains("nobody listens any more"),
            "{}",
            world.log(&socket)
        );
    }
    let again = "systemctl reset-failed dies.socket && ! systemctl is-failed -q dies.socket && \
                 systemctl start dies.socket ends.socket && systemctl is-active dies.socket ends.socket";
    assert_eq!(world.sh(again).await.stdout, "active\nactive\n");
}

#[tokio::test]
async fn a_service_that_waits_to_be_restarted_goes_on_waiting() {
    let world = world!();
    world.file(
        "/etc/systemd/system/slower.service",
        "[Service]\nRestart=on-failure\nRestartSec=300ms\nExecStart=/bin/false\n",
    );
    world.file(
        "/etc/systemd/system/slower.socket",
        "[Socket]\nListenStream=/run/slower\n",
    );
    let begin = format!("systemctl start slower.socket && {}", waits_at("/run/slower"));
    assert_eq!(world.sh(&begin).await.code, Some(0));
    let crashed = world.until_async(async || {
        let services = world.agent.services().await.unwrap();
        services
            .iter()
            .any(|status| status.name == "slower" && status.crashes >= 4)
    });
    assert!(crashed.await, "{}", world.log("slower"));
    let status = world.status("slower").await;
    assert_eq!(status.restarts + 1, status.crashes, "{}", world.log("slower"));
    assert!(
        world.log("slower").contains("starts again in 2400 ms"),
        "{}",
        world.log("slower")
    );
    let outcome = world.sh("systemctl is-active slower.socket").await;
    assert_eq!(outcome.stdout, "active\n");
}

#[tokio::test]
async fn what_a_host_has_not_is_said_by_name_and_fails_no_script() {
    let world = world!();
    let socket = |more: &str| {
        format!("[Socket]\nListenStream=127.0.0.1:7008\n{more}[Install]\nWantedBy=sockets.target\n")
    };
    world.file("/etc/systemd/system/each.socket", &socket("Accept=yes\n"));
    world.file(
        "/etc/systemd/system/each@.service",
        "[Service]\nExecStart=/bin/cat\n",
    );
    world.file(
        "/etc/systemd/system/busy.socket",
        &socket("ListenNetlink=kobject-uevent\n"),
    );
    world.file(
        "/etc/systemd/system/busy.service",
        "[Service]\nExecStart=/bin/sleep 1000\n",
    );
    world.file("/etc/systemd/system/look.path", "[Path]\nPathExists=/etc\n");
    world.file(
        "/etc/systemd/system/srv-data.mount",
        "[Mount]\nWhat=/dev/vdb\nWhere=/srv/data\n",
    );
    let script = "set -e
        systemctl enable each.socket
        systemctl start each.socket
        systemctl start busy.service
        systemctl start busy.socket
        systemctl start look.path
        systemctl start srv-data.mount
        systemctl start busy.socket busy.service
        systemctl stop each.socket look.path srv-data.mount";
    let outcome = world.sh(script).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    for (unit, said) in [
        (
            "each.socket",
            "Accept=yes: a service for each connection is not available, so nothing listens",
        ),
        (
            "busy.socket",
            "busy.service runs already, with sockets of its own",
        ),
        ("busy.socket", "ListenNetlink=kobject-uevent is ignored"),
        ("look.path", "nothing watches its paths"),
        ("srv-data.mount", "nothing is mounted"),
    ] {
        assert!(world.log(unit).contains(said), "{unit}: {}", world.log(unit));
    }
    let outcome = world.sh("systemctl start none.socket").await;
    assert_eq!(outcome.code, Some(5), "{outcome:?}");
    // Nobody has the address: what is not served does not listen either.
    let script = "perl -MIO::Socket::INET -e 'exit(IO::Socket::INET->new(\"127.0.0.1:7008\") ? 0 : 7)'";
    assert_eq!(world.sh(script).await.code, Some(7));
}
