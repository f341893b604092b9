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

/// System calls with arguments as only a program that means to pass a filter makes them.
#[cfg(target_arch = "x86_64")]
#[test]
fn filters_read_an_int_as_the_kernel_does() {
    const SCRIPT: &str = r#"
        use integer;
        my ($close, $socket, $personality, $setrlimit, $prlimit) = (3, 41, 135, 160, 302);
        sub call { my $said = syscall(shift, @_); $said < 0 ? "error " . ($! + 0) : $said }
        sub open_socket {
            my $said = call($socket, shift, 1, 0);
            $said =~ /error/ ? $said : call($close, $said) eq "0" && "opened"
        }
        sub limit { pack("QQ", @_) }
        for my $high (0, 1 << 32, 1 << 63, -1 << 32) {
            my $name = sprintf("%x", $high);
            print "$name vsock ", open_socket(40 | $high), "\n";
            print "$name alg ", open_socket(38 | $high), "\n";
            print "$name unix ", open_socket(1 | $high), "\n";
            # One bit away from what is refused: up to the kernel, which knows or does not know such a family.
            my @near = map { my $family = $_; map { $family ^ 1 << $_ } 0..31 } 38, 40;
            my @hidden = grep { open_socket($_ | $high) eq "error 38" } @near;
            print "$name hidden [@hidden]\n";
            print "$name core ", call($setrlimit, 4 | $high, limit(0, 0)), "\n";
            print "$name files ", call($setrlimit, 7 | $high, limit(64, 99)), "\n";
            print "$name sparse ", call($setrlimit, (4 ^ 1 << 31) | $high, limit(0, 0)), "\n";
            my $old = limit(5, 5);
            print "$name lower ", call($prlimit, 0, 4 | $high, limit(0, 0), 0), "\n";
            print "$name swap ", call($prlimit, 0, 4 | $high, limit(0, 0), $old), " [", join(" ", unpack("QQ", $old)), "]\n";
            print "$name ask ", call($prlimit, 0, 4 | $high, 0, $old), " [", join(" ", unpack("QQ", $old)), "]\n";
            print "$name other ", call($prlimit, 0, 7 | $high, limit(64, 99), $old), " [", join(" ", unpack("QQ", $old)), "]\n";
            print "$name persona ", call($personality, 0xffffffff | $high), "\n";
            print "$name fixed ", call($personality, 0x40000 | $high), "\n";
        }
    "#;
    world(|node| async move {
        let containers = open(&node).await;
        let mut program = spec(&node, "t-calls", "");
        program.args = ["/usr/bin/perl", "-e", SCRIPT].map(String::from).to_vec();
        let exit = containers.run(program, LONG).await.unwrap();
        let said = log(&node, "t-calls");
        assert_eq!(exit.code, 0, "{said}");
        let expected: String = ["0", "100000000", "8000000000000000", "ffffffff00000000"]
            .into_iter()
            .flat_map(|high| {
                [
                    "vsock error 38",
                    "alg error 38",
                    "unix opened",
                    "hidden []",
                    "core 0",
                    "files 0",
                    "sparse error 22",
                    "lower 0",
                    "swap error 1 [5 5]",
                    "ask 0 [1 1]",
                    "other 0 [64 99]",
                    "persona 0",
                    "fixed error 38",
                ]
                .map(|line| format!("{high} {line}\n"))
            })
            .collect();
        assert_eq!(said, expected);
        containers.teardown_all().await.unwrap();
    });
}

/// Calls as 32-bit code makes them, each by a program of its own that is a few instructions long.
#[cfg(target_arch = "x86_64")]
#[test]
fn code_of_32_bits_opens_no_more_than_other_code() {
    const SCRIPT: &str = r#"
        my ($socketcall, $socket, $bind) = (102, 359, 2);
        my ($unix, $alg, $vsock) = (1, 38, 40);
        my ($at, $head, $length) = (0x400000, 64 + 56, 33);
        my $memory = $at + $head + $length;
        # Ends with the negative of what the call answers; in its memory are a family, a type and a protocol.
        sub call {
            my ($family, @registers) = @_;
            my $code = join("", map { pack("CV", $_, shift(@registers)) } 0xb8, 0xbb, 0xb9, 0xba);
            # int 0x80; mov edi, eax; neg edi; mov eax, exit_group; syscall
            $code .= "\xcd\x80\x89\xc7\xf7\xdf" . pack("CV", 0xb8, 231) . "\x0f\x05";
            length($code) == $length or die;
            my $size = $head + $length + 12;
            open(my $program, ">:raw", "/call") or die;
            print $program "\x7fELF", pack("C3 x9 v2 V Q3 V v6", 2, 1, 1, 2, 62, 1, $at + $head, 64, 0, 0, 64, 56, 1, 0, 0, 0),
                pack("V2 Q6", 1, 5, 0, $at, $at, $size, $size, 4096), $code, pack("V3", $family, 1, 0);
            close($program) && chmod(0755, "/call") or die;
            system("/call");
            return "signal " . ($? & 127) if $? & 127;
            my $said = $? >> 8;
            $said > 200 ? "opened" : "error $said";
        }
        print "direct unix ", call($unix, $socket, $unix, 1, 0), "\n";
        print "direct vsock ", call($vsock, $socket, $vsock, 1, 0), "\n";
        print "direct alg ", call($alg, $socket, $alg, 5, 0), "\n";
        print "multiplexed unix ", call($unix, $socketcall, 1, $memory, 0), "\n";
        print "multiplexed vsock ", call($vsock, $socketcall, 1, $memory, 0), "\n";
        print "multiplexed bind ", call($unix, $socketcall, $bind, $memory, 0), "\n";
    "#;
    world(|node| async move {
        let containers = open(&node).await;
        let mut program = spec(&node, "t-narrow", "");
        program.args = ["/usr/bin/perl", "-e", SCRIPT].map(String::from).to_vec();
        let exit = containers.run(program, LONG).await.unwrap();
        let said = log(&node, "t-narrow");
        containers.teardown_all().await.unwrap();
        assert_eq!(exit.code, 0, "{said}");
        if said.starts_with("direct unix signal 11\n") {
            println!("skipped: the kernel runs no code of 32 bits");
            return;
        }
        let expected = [
            "direct unix opened",
            "direct vsock error 38",
            "direct alg error 38",
            "multiplexed unix error 1",
            "multiplexed vsock error 1",
            "multiplexed bind error 1",
        ];
        assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    });
}

/// As scripts of the platform's own have what lets apt into the machine's archives: a file of root's that nobody else reads.
#[test]
fn apt_takes_a_login_from_a_file_that_is_bound_in_and_tells_nobody() {
    const SCRIPT: &str = r#"
        cat > /archive.pl <<'END'
        my $door = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 8099, Listen => 9) or die;
        open(my $ready, ">", "/ready"); close($ready);
        while (my $one = $door->accept) {
            my ($asked, $line) = ("");
            while (defined($line = <$one>) && $line =~ /[^\r\n]/) { $asked .= $line }
            my $status = "401 Who?\r\nWWW-Authenticate: Basic realm=archive";
            if ($asked =~ /^Authorization: Basic YW5uOmh1bnRlcjI=\r?$/m) {
                $status = $asked =~ m{^GET /debian/\./Packages } ? "200 OK" : "404 No";
            }
            print $one "HTTP/1.1 $status\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            close($one);
        }
END
        perl -MIO::Socket::INET /archive.pl &
        while [ ! -e /ready ]; do sleep 0.1; done
        rm -f /etc/apt/sources.list.d/*
        echo 'deb [trusted=yes] http://127.0.0.1:8099/debian ./' > /etc/apt/sources.list
        apt-get update 2>&1 | cat; echo "apt ended with ${PIPESTATUS[0]}"
    "#;
    world(|node| async move {
        let containers = open(&node).await;
        let logins = node.join("logins");
        std::fs::write(
            &logins,
            "machine http://127.0.0.1:8099/debian/ login ann password hunter2\n",
        )
        .unwrap();
        std::fs::set_permissions(&logins, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        for (id, expected) in [
            ("t-login", "apt ended with 0"),
            ("t-stranger", "apt ended with 100"),
        ] {
            let mut one = spec(&node, id, SCRIPT);
            one.preset = Preset::Bake;
            one.resources.memory_mib = 512;
            one.rootfs.disk_mib = Some(512);
            if id == "t-login" {
                one.binds.push(Bind {
                    source: logins.clone(),
                    target: "/etc/apt/auth.conf.d/machine.conf".into(),
                    read_only: true,
                    id_mapped: true,
                });
            }
            let upper = one.rootfs.upper();
            containers.run(one, LONG).await.unwrap();
            let said = log(&node, id);
            assert!(said.contains(expected), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
            // The place of the bind is in the layer, what was bound is not.
            let left = std::fs::read_to_string(upper.join("etc/apt/auth.conf.d/machine.conf"));
            assert_eq!(left.unwrap_or_default(), "", "{id}");
        }
        containers.teardown_all().await.unwrap();
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
