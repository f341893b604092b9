//! What a build cannot reach: this machine, and the builds beside it, of whomever they are.

use std::net::{TcpListener, TcpStream, UdpSocket};

use model::{Secret, spec::build::PhaseName::Build};

use crate::{
    world::{World, buildspec, phase},
    yard::{has, succeeds},
};

/// Tells of each address whether it answers, and the build's own.
const TRIES: &str = r#"
import socket, struct, sys
route = [line.split() for line in open('/proc/net/route')]
gateway = [socket.inet_ntoa(struct.pack('<L', int(line[2], 16))) for line in route if line[1] == '00000000'][0]
for host, port in [target.rsplit(':', 1) for target in sys.argv[1:]]:
    host = gateway if host == 'gateway' else host
    try:
        socket.create_connection((host, int(port)), 3).close()
        print('reached', host, port)
    except OSError as error:
        print('did not reach', host, port)
print('tried all')
"#;

/// Looks for processes, files, groups and devices that are not its own, and for ways to more rights.
const SEES: &str = r#"
for process in /proc/[0-9]*; do
    if tr '\0' ' ' < $process/cmdline 2>/dev/null | grep -q -e 'http.server [8]' -e '[m]mdebstrap'; then echo saw more: $process; fi
    if tr '\0' '\n' < $process/environ 2>/dev/null | grep -q '[s]een-by-no-one'; then echo saw more: $process; fi
done
[ $(ls -d /proc/[0-9]* | wc -l) -lt 20 ] && [ "$(tr '\0' ' ' < /proc/1/cmdline)" = '/usr/lib/vend/vend build-runner ' ] && echo saw itself
[ "$(awk '{print $2}' /proc/self/uid_map)" = 0 ] && echo saw more: user ids
grep -v ':/$' /proc/self/cgroup | grep -q vend && echo saw more: groups
ls /codebuild/output/src | grep -qvx shop && echo saw more: sources
for f in /run/vend* /var/lib/vend* /dev/sda /dev/vda /dev/loop0 /dev/kmsg /dev/mem; do [ -e $f ] && echo saw more: $f; done
mount -t tmpfs none /mnt 2>/dev/null && umount /mnt && mount -t cgroup2 none /mnt 2>/dev/null && echo saw more: mounts
echo 1 > /proc/sys/kernel/sysrq 2>/dev/null && echo saw more: sysctl
true
"#;

pub async fn builds_reach_neither_the_machine_nor_each_other(world: &World) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    TcpStream::connect(("127.0.0.1", port)).expect("it can be reached from the machine");
    // The address of the machine's own that the outside sees. Nothing is sent.
    let towards = UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = towards.connect("192.0.2.1:9").and_then(|()| towards.local_addr());
    let own = own.map_or("127.0.0.1".to_owned(), |address| address.ip().to_string());

    let files = [("tries.py", TRIES), ("a", "")];
    let serve = [
        "python3 -m http.server 8099 > /tmp/served 2>&1 &",
        "for i in $(seq 50); do curl -sf http://localhost:8099/ > /dev/null && break; sleep 0.2; done",
        "python3 -c \"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('192.0.2.1', 9)); print('serves at', s.getsockname()[0], 'now')\"",
        "sleep 1000",
    ];
    let mut neighbour = world.build_order(&files, buildspec(vec![phase(Build, &serve, &[])]));
    neighbour.place = "beta/shop/dev".parse().unwrap();
    neighbour
        .secrets
        .insert("TOKEN".to_owned(), Secret::new("seen-by-no-one-else".to_owned()));
    let ticket = world.ticket();
    let log = format!("build/{ticket}");
    let serving = world.build(&ticket, &neighbour);
    let trying = async {
        world.says(&log, "\nserves at ").await;
        let text = world.log(&log.parse().unwrap());
        let address = text
            .split("\nserves at ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        let address = address.expect("it says its address");
        let command = format!(
            "python3 tries.py gateway:{port} {own}:{port} {address}:8099 169.254.169.254:80 127.0.0.1:{port}; curl -sSf --max-time 60 -o /dev/null http://deb.debian.org/debian/dists/bookworm/Release && echo outside"
        );
        let commands = [command.as_str(), SEES];
        // Of another tenant, and of the same.
        for place in ["acme/shop/dev", "beta/shop/dev"] {
            let mut order = world.build_order(&files, buildspec(vec![phase(Build, &commands, &[])]));
            order.place = place.parse().unwrap();
            let (_, log) = succeeds(world, &order).await;
            has(
                &log,
                &[
                    &format!("did not reach {address} 8099"),
                    "did not reach 169.254.169.254 80",
                    "tried all",
                    "\noutside\n",
                    "\nsaw itself\n",
                ],
            );
            assert!(!log.contains("\nreached "), "{log}");
            assert_eq!(log.matches("\ndid not reach ").count(), 5, "{log}");
            assert!(!log.contains("\nsaw more"), "{log}");
        }
        world.answers.stop(&ticket, "it was seen").await.unwrap();
    };
    let (served, ()) = tokio::join!(serving, trying);
    assert!(served.is_err(), "it was stopped");
}
