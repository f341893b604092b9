//! What processes say: the last words of those that die, and of nobody's secrets anything.

use std::{fs, time::Duration};

use model::{Ticket, port::LifecycleEvent};

use crate::world::World;

#[tokio::test]
async fn a_death_after_the_start_is_told_with_its_last_words() {
    let world = world!();
    let events = LifecycleEvent::BEFORE_TRAFFIC;
    let since = world.agent.health().await.unwrap().started_at;
    let late = "[ -e /srv/table ] && exec sleep 999; \
                sleep 0.5; echo connecting; echo no such table >&2; exit 4";
    world
        .configure(&[("web", "exec sleep 1000"), ("work", late)])
        .await;
    let deployed = world
        .deploy(&Ticket::from_bits(1), 1, &[("a", "")], None, &events)
        .await;
    assert!(
        deployed.failure().is_none(),
        "it was up for long enough: {deployed:?}"
    );
    let death = world.agent.death(since).await.unwrap().unwrap();
    assert_eq!(
        death.to_string(),
        "the process work does not stay up: exit code 4; it last said:\nconnecting\nno such table"
    );
    let later = since + jiff::SignedDuration::from_hours(1);
    assert_eq!(
        world.agent.death(later).await.unwrap(),
        None,
        "of what died before, nothing"
    );

    // From here on it stays up: the next deployment is not to be about it.
    world.file("/srv/table", "");
    while world.sh("pgrep -fx 'sleep 999' | wc -l").await.stdout != "1\n" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let unit = "[Service]\nExecStart=/bin/sh -c 'sleep 0.5; echo wrong password; exit 5'\nRestart=no\n";
    world.file("/etc/systemd/system/shop.service", unit);
    let steady = "[Service]\nExecStart=/bin/sh -c 'exit 6'\n";
    world.file("/etc/systemd/system/other.service", steady);
    world.sh("systemctl start other").await;
    let appspec = "version: 0.0\nos: linux\nhooks:\n  ApplicationStart:\n    - location: start.sh\n  \
                   ValidateService:\n    - location: wait.sh\n";
    let files = [
        ("appspec.yml", appspec),
        ("start.sh", "systemctl start shop\n"),
        ("wait.sh", "echo waiting; sleep 1000\n"),
    ];
    let deployed = world
        .deploy(
            &Ticket::from_bits(2),
            2,
            &files,
            Some("appspec.yml"),
            &events[1..],
        )
        .await;
    let report = deployed.failure().unwrap();
    let failure = report.failure.clone().unwrap();
    assert_eq!(report.event, LifecycleEvent::ValidateService);
    assert_eq!(failure.message, "the process shop does not stay up: exit code 5");
    assert_eq!(
        (failure.script.as_str(), failure.log.as_str()),
        ("shop", "wrong password")
    );
    assert_eq!(
        world.sh("pgrep -fx 'sleep 1000' | wc -l").await.stdout,
        "1\n",
        "the script was ended"
    );
}

#[tokio::test]
async fn secrets_are_in_no_file() {
    let world = world!();
    world.file("/srv/app/ready", "");
    world
        .configure(&[("web", "echo $API_TOKEN; exec sleep 1000")])
        .await;
    world.pid_of("web").await;
    assert!(
        world.until(|| world.log("web").contains("***")).await,
        "{}",
        world.log("web")
    );
    // What was written since the host began, and nothing of the machine's own.
    let written = world.written();
    assert!(written[0].join("srv/app/ready").exists(), "{written:?}");
    let mut grep = std::process::Command::new("grep");
    let found = grep.args(["-rIl", "-D", "skip", "t0p-s3cret"]).args(written);
    let found = found.output().unwrap();
    assert_eq!(
        (found.status.code(), String::from_utf8_lossy(&found.stdout)),
        (Some(1), "".into())
    );
    assert!(
        !String::from_utf8_lossy(&fs::read(format!("/proc/{}/cmdline", world.pid())).unwrap())
            .contains("t0p")
    );
}

#[tokio::test]
async fn named_secrets_are_masked_however_they_are_written() {
    let world = world!();
    world.file("/srv/app/ready", "");
    let script = "echo \"pin $PIN ship $SHIP flag $FLAG greeting $GREETING\"; \
                  printf blue-; sleep 0.3; printf whale; sleep 0.3; echo -17 in pieces; \
                  printf %s \"user:$SHIP\" | base64; echo queue $QUEUE; \
                  echo logs in with ${QUEUE#*:*:} | cut -d@ -f1; echo end; exec sleep 1000";
    world.configure(&[("web", script)]).await;
    assert!(world.until(|| world.log("web").contains("end\n")).await);
    let log = world.log("web");
    assert!(log.contains("queue ***\nlogs in with ***\n"), "{log}");
    assert!(
        log.contains("pin *** ship *** flag yes greeting hello\n"),
        "{log}"
    );
    assert!(log.contains("*** in pieces\n"), "{log}");
    for hidden in ["4711", "whale", "blue", "bHVlLXdoYWxl", "under-the-sea"] {
        assert!(!log.contains(hidden), "{hidden} in {log}");
    }
    // Of `user:`, of which nobody said that it is secret.
    assert!(log.contains("dXNlcj"), "{log}");
}
