//! Containers as they are: real crun, real namespaces, real limits.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::time::{Duration, Instant};

use host::container::{Bind, Exit, Net, Preset, tag_of};
use support::{debian, log, machine_state, open, spec, world};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_container_is_isolated_and_leaves_nothing() {
    world(|node| async move {
        let containers = open(&node).await;
        let secret = node.join("secret");
        std::fs::write(&secret, "of the machine").unwrap();
        let script = r#"
            echo "uid $(id -u) host $(hostname) pid $$"
            cat /proc/self/uid_map
            grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status
            stat -c 'owner %u:%g' /etc/passwd
            touch /etc/new && echo written
            touch /bound 2>&1; cat /bound
            mount -t tmpfs none /mnt 2>&1
            unshare -U true 2>&1
            mknod /dev/x c 1 1 2>&1
            ls /sys/class/net
            echo 1 > /proc/sys/kernel/hostname 2>&1
            ls -l /dev/kmsg /proc/kcore 2>&1
            exit 7
        "#;
        let mut one = spec(&node, "t-one", script);
        one.binds.push(Bind {
            source: secret,
            target: "/bound".into(),
            read_only: true,
            id_mapped: false,
        });
        let upper = one.rootfs.upper();
        let exit = containers.run(one, LONG).await.unwrap();
        let text = log(&node, "t-one");
        println!("{text}");
        assert_eq!(
            exit,
            Exit {
                code: 7,
                oom: false,
                timed_out: false,
                stopped: false,
            }
        );
        for expected in [
            "uid 0 host t-one pid 1",
            "200000      65536",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "owner 0:0",
            "written",
            "of the machine",
        ] {
            assert!(text.contains(expected), "{expected}");
        }
        assert!(upper.join("etc/new").exists());
        containers.delete("t-one").await.unwrap();
        assert!(!upper.exists());
        assert!(containers.list().is_empty());
        containers.teardown_all().await.unwrap();
        assert_eq!(machine_state(&tag_of(&node)), Vec::<String>::new());
    });
}

#[test]
fn limits_hold() {
    world(|node| async move {
        let containers = open(&node).await;
        let memory = spec(&node, "t-memory", "head -c 200M /dev/zero | tail");
        let exit = containers.run(memory, LONG).await.unwrap();
        assert!(exit.oom && exit.code != 0, "{exit:?}");

        let pids = spec(
            &node,
            "t-pids",
            "for i in $(seq 60); do sleep 5 & done; echo done",
        );
        containers.run(pids, LONG).await.unwrap();
        assert!(log(&node, "t-pids").contains("Resource temporarily unavailable"));

        let disk = spec(&node, "t-disk", "head -c 100M /dev/zero > /fill");
        let exit = containers.run(disk, LONG).await.unwrap();
        assert!(
            exit.code != 0 && log(&node, "t-disk").contains("No space left"),
            "{exit:?}"
        );

        // Where crashes go to a program of the machine, only this limit keeps them from it, and nobody inside undoes it.
        let dumps = spec(
            &node,
            "t-dumps",
            "ulimit -c 0; ulimit -S -c 0; ulimit -n 100; grep -E 'core|open' /proc/self/limits; ulimit -c",
        );
        let exit = containers.run(dumps, LONG).await.unwrap();
        let said = log(&node, "t-dumps");
        let limit = |name: &str| {
            let line = said
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_default();
            line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            (limit("Max core file size"), exit.code),
            ("1 1".to_owned(), 0),
            "{said}"
        );
        assert_eq!(limit("Max open files"), "100 100", "{said}");

        let forever = spec(
            &node,
            "t-forever",
            "(trap '' TERM; sleep 1000) & trap '' TERM; sleep 1000",
        );
        let exit = containers.run(forever, Duration::from_secs(1)).await.unwrap();
        assert_eq!(
            exit,
            Exit {
                code: 137,
                oom: false,
                timed_out: true,
                stopped: false,
            }
        );
        containers.teardown_all().await.unwrap();
        assert_eq!(machine_state(&tag_of(&node)), Vec::<String>::new());
    });
}

#[test]
fn builds_reach_the_world_outside_and_nothing_of_the_machine() {
    world(|node| async move {
        let containers = open(&node).await;
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let machine = support::own_address();
        let script = format!(
            "hex=$(while read -r _ to via _; do [ $to = 00000000 ] && echo $via; done < /proc/net/route)
             gateway=$((16#${{hex:6:2}})).$((16#${{hex:4:2}})).$((16#${{hex:2:2}})).$((16#${{hex:0:2}}))
             for machine in $gateway {machine}; do
                 echo trying $machine; timeout 2 bash -c \"echo > /dev/tcp/$machine/{port}\" && echo REACHED
             done
             timeout 2 bash -c 'echo > /dev/tcp/169.254.169.254/80' && echo REACHED
             cat /proc/net/if_inet6
             apt-get update && echo UPDATED"
        );
        let mut outside = spec(&node, "t-outside", &script);
        outside.network = Some(Net::Outside);
        outside.preset = Preset::Bake;
        outside.resources.memory_mib = 512;
        outside.rootfs.disk_mib = Some(512);
        containers.run(outside, LONG).await.unwrap();
        let text = log(&node, "t-outside");
        println!("{text}");
        assert!(text.contains("trying 100.") && !text.contains("REACHED"));
        assert!(text.contains("UPDATED"));
        containers.teardown_all().await.unwrap();
        assert_eq!(machine_state(&tag_of(&node)), Vec::<String>::new());
    });
}

#[test]
fn a_teardown_lets_hosts_end_in_order() {
    world(|node| async move {
        let containers = open(&node).await;
        let script = "trap 'sleep 1; echo flushed >> /kept/end; exit 0' TERM; echo up > /kept/begin; \
                      while :; do sleep 0.1; done";
        let kept = node.join("kept");
        std::fs::create_dir(&kept).unwrap();
        let mut host = spec(&node, "t-orderly", script);
        host.preset = Preset::Host;
        host.binds.push(Bind {
            source: kept.clone(),
            target: "/kept".into(),
            read_only: false,
            id_mapped: true,
        });
        containers.start(host).await.unwrap();
        while !kept.join("begin").exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        containers.teardown_all().await.unwrap();
        assert_eq!(std::fs::read_to_string(kept.join("end")).unwrap(), "flushed\n");
        assert_eq!(machine_state(&tag_of(&node)), Vec::<String>::new());
    });
}

/// Prints; asserts no times.
#[test]
fn how_long_a_start_takes() {
    world(|node| async move {
        let containers = open(&node).await;
        debian();
        let mut times = Vec::new();
        for number in 0..12 {
            let id = format!("t-{number}");
            let mut one = spec(&node, &id, "sleep 100");
            one.network = Some(Net::Outside);
            one.preset = Preset::Host;
            let begin = Instant::now();
            containers.start(one).await.unwrap();
            let started = begin.elapsed();
            let begin = Instant::now();
            containers.delete(&id).await.unwrap();
            times.push((started, begin.elapsed()));
        }
        println!("start, delete: {times:.1?}");
        containers.teardown_all().await.unwrap();
    });
}
