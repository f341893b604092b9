//! A real agent as PID 1 of a root file system of its own, with real processes.

#![allow(clippy::unwrap_used)]

#[path = "agent/world.rs"]
mod world;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use host::agent::api::{DaemonOrder, RunOrder, RunOutcome, ServiceState};
use model::{
    Secret, Ticket,
    port::{Deployed, EventStatus, LifecycleEvent, ScriptCode},
    spec::Checks,
};
use world::World;

macro_rules! world {
    () => {
        match World::start().await {
            Some(world) => world,
            None => return,
        }
    };
}

// After the macro, which it uses.
#[path = "agent/begun.rs"]
mod begun;
#[path = "agent/boot.rs"]
mod boot;
#[path = "agent/bundles.rs"]
mod bundles;
#[path = "agent/directives.rs"]
mod directives;
#[path = "agent/ends.rs"]
mod ends;
#[path = "agent/install.rs"]
mod install;
#[path = "agent/jobs.rs"]
mod jobs;
#[path = "agent/kinds.rs"]
mod kinds;
#[path = "agent/roots.rs"]
mod roots;
#[path = "agent/samples.rs"]
mod samples;
#[path = "agent/sockets.rs"]
mod sockets;
#[path = "agent/succession.rs"]
mod succession;
#[path = "agent/verbs.rs"]
mod verbs;
#[path = "agent/words.rs"]
mod words;

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

#[tokio::test]
async fn orphans_are_reaped() {
    let world = world!();
    for _ in 0..5 {
        let outcome = world
            .sh("for i in 1 2 3 4; do (sleep 0.05 & ) ; done; exit 7")
            .await;
        assert_eq!(outcome.code, Some(7));
    }
    let quiet = world.until(|| world.processes().is_empty()).await;
    assert!(quiet, "left: {:?}", world.processes());
}

#[tokio::test]
async fn a_one_off_command_has_input_output_and_an_end() {
    let world = world!();
    let order = |script: &str, timeout_ms| RunOrder {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        user: Some("nobody".to_owned()),
        directory: None,
        environment: BTreeMap::from([("WORD".to_owned(), secret("hello"))]),
        stdin: Some(secret("from stdin\n")),
        timeout_ms,
    };
    let outcome = world
        .agent
        .run(&order(
            "read line; echo \"$line $WORD\"; id -un >&2; exit 3",
            5000,
        ))
        .await
        .unwrap();
    let expected = RunOutcome {
        code: Some(3),
        stdout: "from stdin hello\n".to_owned(),
        stderr: "nobody\n".to_owned(),
    };
    assert_eq!(outcome, expected);
    let outcome = world
        .agent
        .run(&order("echo begun; trap '' TERM; sleep 100 & sleep 100", 300))
        .await
        .unwrap();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (None, "begun\n"));
    let outcome = world
        .agent
        .run(&order("head -c 3000000 /dev/zero; cat > /dev/null", 5000))
        .await
        .unwrap();
    assert_eq!((outcome.code, outcome.stdout.len()), (Some(0), 256 << 10));
    assert!(
        world
            .agent
            .run(&order("sleep 100", 0))
            .await
            .unwrap()
            .code
            .is_none()
    );
    assert!(world.until(|| world.processes().is_empty()).await);
}

#[tokio::test]
async fn garbage_on_the_socket_changes_nothing() {
    let world = world!();
    for garbage in [
        &b"\0\xff\xfe"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /v1/deploy HTTP/1.1\r\ncontent-length: 5\r\n\r\n{{{{{",
    ] {
        let mut stream = UnixStream::connect(world.socket()).unwrap();
        stream.write_all(garbage).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    let idle: Vec<UnixStream> = (0..30)
        .map(|_| UnixStream::connect(world.socket()).unwrap())
        .collect();
    assert_eq!(world.agent.health().await.unwrap().pid, 1);
    drop(idle);
}

#[tokio::test]
async fn a_crashing_process_is_restarted_and_it_shows() {
    let world = world!();
    world.file("/srv/app/ready", "");
    world
        .configure(&[
            ("web", "echo up on $PORT with $GREETING; sleep 1000"),
            ("bad", "echo no; exit 3"),
        ])
        .await;
    let pid = world.pid_of("web").await;
    world.sh(&format!("kill -9 {pid}")).await;
    assert!(
        world
            .until(|| world.log("web").matches("up on 8080 with hello").count() == 2)
            .await,
        "{}",
        world.log("web")
    );
    assert_ne!(world.pid_of("web").await, pid);
    let crashing = async || world.status("bad").await.crashes > 1;
    assert!(world.until_async(crashing).await);
    assert_eq!(
        world.status("bad").await.last_exit.as_deref(),
        Some("exit code 3")
    );
    assert!(world.log("bad").contains("starts again in"));
}

#[tokio::test]
async fn systemctl_answers_unmodified_scripts() {
    let world = world!();
    world.file(
        "/etc/systemd/system/shop.service",
        "[Unit]\nDescription=The shop\n[Service]\nEnvironment=KIND=unit\nUser=nobody\n\
         ExecStartPre=/bin/sh -c 'echo prepared %n'\n\
         ExecStart=/bin/sh -c 'echo $KIND $GREETING on $PORT; exec sleep 1000'\nExecReload=/bin/kill -0 $MAINPID\n\
         Restart=always\nProtectHome=yes\n[Install]\nWantedBy=multi-user.target\n",
    );
    world.file(
        "/etc/systemd/system/once.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/touch /run/once\nExecStop=/bin/rm /run/once\n",
    );
    world.file(
        "/lib/systemd/system/fork.service",
        "[Service]\nType=forking\nPIDFile=/run/fork.pid\nExecStart=/bin/sh -c 'sleep 1000 & echo $$! > /run/fork.pid'\n",
    );
    world.file("/etc/init.d/old", "#!/bin/sh\necho \"old $1\"\n");
    world.sh("chmod +x /etc/init.d/old").await;
    world.configure(&[]).await;
    for (script, code, output) in [
        ("systemctl is-active shop", 3, "inactive\n"),
        ("systemctl is-enabled shop.service", 1, "disabled\n"),
        (
            "systemctl daemon-reload && systemctl enable --now shop && systemctl is-active shop",
            0,
            "active\n",
        ),
        ("systemctl is-enabled shop", 0, "enabled\n"),
        ("systemctl reload shop", 0, ""),
        ("systemctl show -p ActiveState --value shop", 0, "active\n"),
        ("service shop restart; systemctl is-active shop", 0, "active\n"),
        (
            "systemctl status shop | head -1",
            0,
            "● shop.service - The shop\n",
        ),
        (
            "systemctl start once && ls /run/once && systemctl is-active once",
            0,
            "/run/once\nactive\n",
        ),
        ("systemctl stop once; ls /run/once 2>/dev/null", 2, ""),
        (
            "systemctl start fork && systemctl show -p MainPID --value fork | cmp - /run/fork.pid",
            0,
            "",
        ),
        ("systemctl stop fork; pgrep -x sleep | wc -l", 0, "1\n"),
        ("service old start && systemctl is-active old", 0, "active\n"),
        (
            "service old stop; service old status | head -1",
            0,
            "old status\n",
        ),
        ("systemctl mask fork; systemctl start fork 2>/dev/null", 1, ""),
        ("systemctl is-active -q multi-user.target", 0, ""),
        ("runlevel", 0, "N 2\n"),
        ("telinit q && init Q && init 3 && telinit 5", 0, ""),
        ("shutdown -c", 0, ""),
        // A host ends when the platform says so, whatever its scripts ask for.
        ("init 0 2>/dev/null", 1, ""),
        ("telinit 6 2>/dev/null", 1, ""),
        ("shutdown -h now 2>/dev/null", 1, ""),
        (
            "halt -f 2>/dev/null; poweroff 2>/dev/null; reboot 2>/dev/null",
            1,
            "",
        ),
        ("systemctl is-active shop old", 0, "active\ninactive\n"),
        ("systemctl start nothing", 5, ""),
        ("systemctl frobnicate shop 2>/dev/null", 1, ""),
    ] {
        let outcome = world.sh(script).await;
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (Some(code), output),
            "{script}: {}",
            outcome.stderr
        );
    }
    let log = world.log("old");
    assert!(log.contains("old start") && log.contains("old stop"), "{log}");
    let log = world.log("shop");
    assert!(
        log.contains("prepared shop.service") && log.contains("unit hello on 8080"),
        "{log}"
    );
    assert!(log.contains("ProtectHome= is ignored"), "{log}");
    let outcome = world.sh("reboot").await;
    assert!(outcome.stderr.contains("the platform decides"), "{outcome:?}");
    let outcome = world.sh("su nobody -s /bin/sh -c 'systemctl stop shop'").await;
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    assert!(outcome.stderr.contains("Access denied"), "{outcome:?}");
}

#[tokio::test]
async fn a_daemon_runs_for_the_node() {
    let world = world!();
    world.configure(&[]).await;
    let order = DaemonOrder {
        name: "database".to_owned(),
        command: ["sh", "-c", "echo as $(id -un) with $WORD; sleep 1000"]
            .map(str::to_owned)
            .to_vec(),
        user: Some("daemon".to_owned()),
        directory: Some("/tmp".to_owned()),
        environment: BTreeMap::from([("WORD".to_owned(), secret("quiet"))]),
        stop_timeout_ms: 5000,
    };
    world.agent.daemon(&order).await.unwrap();
    world.agent.daemon(&order).await.unwrap();
    assert!(
        world
            .until(|| world.log("database").contains("as daemon with quiet"))
            .await
    );
    let first = world.pid_of("database").await;
    world.agent.restart("database").await.unwrap();
    assert_ne!(world.pid_of("database").await, first);
    world.agent.stop("database").await.unwrap();
    assert_eq!(world.status("database").await.state, ServiceState::Inactive);
    assert!(world.agent.start("no-such").await.is_err());
    let bad = DaemonOrder {
        user: Some("nobody-here".to_owned()),
        name: "bad".to_owned(),
        ..order
    };
    assert!(
        world
            .agent
            .daemon(&bad)
            .await
            .unwrap_err()
            .to_string()
            .contains("no user nobody-here")
    );
}

const APPSPEC: &str = "version: 0.0\nos: linux\nfiles:\n  - source: app\n    destination: /srv/shop\npermissions:\n  \
    - object: /srv/shop\n    pattern: '*.sh'\n    mode: 700\n    owner: nobody\nhooks:\n  BeforeInstall:\n    \
    - location: hooks/say.sh\n  ApplicationStart:\n    - location: hooks/say.sh\n    - location: hooks/start.sh\n";

#[tokio::test]
async fn an_appspec_is_deployed_once_per_ticket() {
    let world = world!();
    world.configure(&[]).await;
    let say = "#!/bin/sh\necho \"$LIFECYCLE_EVENT of $APPLICATION_NAME in $DEPLOYMENT_GROUP_NAME, $GREETING from $BUNDLE_COMMIT\"\necho $LIFECYCLE_EVENT >> /said\n";
    let files = [
        ("appspec.yml", APPSPEC),
        ("app/run.sh", "#!/bin/sh\n"),
        ("app/lib/data", "1"),
        ("hooks/say.sh", say),
        (
            "hooks/start.sh",
            "#!/bin/sh\necho token $API_TOKEN\ntest -x /srv/shop/run.sh\n",
        ),
    ];
    let ticket = Ticket::from_bits(1);
    let first = world
        .deploy(
            &ticket,
            1,
            &files,
            Some("appspec.yml"),
            &LifecycleEvent::BEFORE_TRAFFIC,
        )
        .await;
    let statuses: Vec<EventStatus> = first.events.iter().map(|report| report.status).collect();
    use EventStatus::{Failed, Skipped, Succeeded};
    assert_eq!(
        statuses,
        [
            Skipped, Succeeded, Succeeded, Succeeded, Skipped, Succeeded, Skipped
        ],
        "{first:?}"
    );
    assert_eq!(
        world.sh("cat /said").await.stdout,
        "BeforeInstall\nApplicationStart\n"
    );
    assert_eq!(
        world.sh("stat -c '%a %U' /srv/shop/run.sh").await.stdout,
        "700 nobody\n"
    );
    let log = world.log(&format!("deploy-{ticket}"));
    assert!(
        log.contains("[stdout]BeforeInstall of shop in dev, hello from c0ffee\n"),
        "{log}"
    );
    assert!(log.contains("token ***"), "{log}");

    let again = world
        .deploy(
            &ticket,
            1,
            &files,
            Some("appspec.yml"),
            &LifecycleEvent::BEFORE_TRAFFIC,
        )
        .await;
    assert_eq!(again, first);
    assert_eq!(world.sh("wc -l < /said").await.stdout.trim(), "2");

    let files = [
        ("appspec.yml", APPSPEC),
        ("app/other", "2"),
        ("hooks/say.sh", say),
        ("hooks/start.sh", "#!/bin/sh\necho why it fails >&2\nexit 9\n"),
    ];
    let second = world
        .deploy(
            &Ticket::from_bits(2),
            2,
            &files,
            Some("appspec.yml"),
            &LifecycleEvent::BEFORE_TRAFFIC,
        )
        .await;
    let report = second
        .events
        .iter()
        .find(|report| report.status == Failed)
        .unwrap();
    let failure = report.failure.as_ref().unwrap();
    assert_eq!(
        (report.event, failure.code),
        (LifecycleEvent::ApplicationStart, ScriptCode::ScriptFailed)
    );
    assert_eq!(
        failure.message,
        "Script at specified location: hooks/start.sh failed with exit code 9"
    );
    assert!(failure.log.ends_with("[stderr]why it fails\n"), "{}", failure.log);
    assert_eq!(second.events.last().unwrap().status, Skipped);
    assert_eq!(world.sh("ls -R /srv/shop").await.stdout, "/srv/shop:\nother\n");
}

#[tokio::test]
async fn asking_twice_at_once_runs_a_hook_once() {
    let world = world!();
    world.configure(&[]).await;
    let appspec = "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: slow.sh\n";
    let files = [
        ("appspec.yml", appspec),
        ("slow.sh", "#!/bin/sh\nsleep 0.5; echo once >> /said\n"),
    ];
    let ticket = Ticket::from_bits(3);
    let events = LifecycleEvent::BEFORE_TRAFFIC;
    let ask = || world.deploy(&ticket, 3, &files, Some("appspec.yml"), &events);
    let gone = tokio::time::timeout(Duration::from_millis(200), ask()).await;
    assert!(gone.is_err(), "the first who asks goes away");
    let (one, two): (Deployed, Deployed) = tokio::join!(ask(), ask());
    assert_eq!(one, two);
    assert_eq!(world.sh("cat /said").await.stdout, "once\n");
}

#[tokio::test]
async fn a_procfile_app_is_swapped_and_must_stay_up() {
    let world = world!();
    world.configure(&[("web", "cat version; exec sleep 1000")]).await;
    let events = LifecycleEvent::BEFORE_TRAFFIC;
    for number in 1..=2_u64 {
        let version = format!("version {number}\n");
        let files = [("version", version.as_str())];
        let deployed = world
            .deploy(&Ticket::from_bits(number), number, &files, None, &events)
            .await;
        assert!(deployed.failure().is_none(), "{deployed:?}");
        assert!(world.until(|| world.log("web").contains(&version)).await);
        assert_eq!(
            world.sh("cat /srv/app/version; ls -A /srv").await.stdout,
            format!("{version}app\n")
        );
    }
    world.configure(&[("web", "echo cannot; exit 4")]).await;
    let deployed = world
        .deploy(&Ticket::from_bits(9), 9, &[("version", "3")], None, &events)
        .await;
    let failure = deployed.failure().unwrap().failure.clone().unwrap();
    assert!(
        failure
            .message
            .contains("the process web does not stay up: exit code 4"),
        "{failure:?}"
    );
    assert!(failure.log == "cannot", "{failure:?}");
}

#[tokio::test]
async fn an_selinux_context_is_a_remark_where_there_is_no_selinux() {
    let world = world!();
    let appspec = "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: /srv/shop\npermissions:\n  \
                   - object: /srv/shop/page\n    mode: \"600\"\n    context:\n      type: httpd_sys_content_t\n      \
                   range: s0\n";
    let files = [("appspec.yml", appspec), ("page", "hello")];
    let ticket = Ticket::from_bits(1);
    let events = [LifecycleEvent::DownloadBundle, LifecycleEvent::Install];
    let deployed = world
        .deploy(&ticket, 1, &files, Some("appspec.yml"), &events)
        .await;
    assert!(deployed.failure().is_none(), "{deployed:?}");
    assert_eq!(world.sh("stat -c %a /srv/shop/page").await.stdout, "600\n");
    let log = world.log(&format!("deploy-{ticket}"));
    assert!(
        log.contains("1 SELinux contexts of the appspec were left out"),
        "{log}"
    );
}

#[tokio::test]
async fn hostile_revisions_get_one_clear_error() {
    let world = world!();
    world.configure(&[]).await;
    let events = LifecycleEvent::BEFORE_TRAFFIC;
    let hook =
        "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: ../../../../../../bin/touch\n";
    for (number, files, message) in [
        (
            1,
            vec![(
                "appspec.yml",
                "version: 0.0\nos: linux\nfiles:\n  - source: ../x\n    destination: /out\n",
            )],
            "leaves the revision",
        ),
        (2, vec![("appspec.yml", hook)], "leaves the revision"),
        (3, vec![("appspec.yml", "version: [")], ""),
        (4, vec![("other", "")], "did not find an AppSpec file"),
        (
            5,
            vec![("appspec.yml", "version: 0.0\nos: linux\n"), ("a\nb", "")],
            "line break",
        ),
    ] {
        let deployed = world
            .deploy(
                &Ticket::from_bits(number),
                number,
                &files,
                Some("appspec.yml"),
                &events,
            )
            .await;
        let failure = deployed
            .failure()
            .unwrap_or_else(|| panic!("{number}"))
            .failure
            .clone()
            .unwrap();
        assert!(failure.message.contains(message), "{number}: {failure:?}");
    }
    assert_eq!(world.sh("ls -d /out").await.code, Some(2));
}

#[tokio::test]
async fn checks_say_what_they_found() {
    let world = world!();
    world.file("/srv/app/ready", "");
    world.file("/etc/shop.conf", "listen = 8080\nsecret = no\n");
    let python = "exec python3 -m http.server $PORT --bind 127.0.0.1 --directory /etc";
    world.configure(&[("web", python)]).await;
    let text = "file:\n  /etc/shop.conf:\n    exists: true\n    mode: \"0644\"\n    owner: root\n    filetype: file\n    \
        contains: [listen, \"/^listen = [0-9]+$/\", \"!password\"]\n  /etc/none:\n    exists: false\npackage:\n  \
        coreutils:\n    installed: true\n  no-such-package:\n    installed: false\nport:\n  tcp:8080:\n    listening: true\n    \
        ip: [127.0.0.1]\n  tcp:9:\n    listening: false\nprocess:\n  python3:\n    running: true\ncommand:\n  \
        echo $GREETING; exit 2:\n    exit-status: 2\n    stdout: [hello]\nhttp:\n  http://localhost:8080/shop.conf:\n    \
        status: 200\n    body: [listen]\n  http://127.0.0.1:8080/none:\n    status: 404\nuser:\n  nobody:\n    exists: true\n    \
        uid: 65534\n    groups: [nogroup]\n";
    let (checks, _) = Checks::parse(text, "checks.yml").unwrap();
    let passes = async || {
        world
            .agent
            .check(&checks, Duration::from_secs(60))
            .await
            .unwrap()
            .passed()
    };
    assert!(
        world.until_async(passes).await,
        "{:#?}",
        world.agent.check(&checks, Duration::from_secs(60)).await
    );
    let text = "command:\n  sleep 100:\n    exit-status: 0\n    timeout: 200\nhttp:\n  https://localhost/:\n    status: 200\n  \
        http://127.0.0.1:1/:\n    status: 200\nfile:\n  /etc/shop.conf:\n    exists: true\n    contains: [password, \"/(/\"]\n";
    let (checks, _) = Checks::parse(text, "checks.yml").unwrap();
    let verdict = world.agent.check(&checks, Duration::from_secs(60)).await.unwrap();
    let failed = verdict.results.iter().filter(|result| !result.passed).count();
    assert_eq!((failed, verdict.results.len()), (5, 6), "{verdict:#?}");
}

#[tokio::test]
async fn sigterm_stops_the_services_in_reverse_order() {
    let mut world = world!();
    world.file("/srv/app/ready", "");
    let obedient = |name: &str| {
        format!("trap 'echo {name} >> /run/vend/ended; exit 0' TERM; echo up; while :; do sleep 0.05; done")
    };
    let (a, b) = (obedient("a"), obedient("b"));
    world.configure(&[("a", &a), ("b", &b)]).await;
    assert!(
        world
            .until(|| world.log("a").contains("up") && world.log("b").contains("up"))
            .await
    );
    assert_eq!(world.terminate(), Some(0));
    assert_eq!(fs::read_to_string(world.run().join("ended")).unwrap(), "b\na\n");
}
