//! What a build cannot reach: this machine, and the builds beside it, of whomever they are.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Command},
    time::Duration,
};

use camino::Utf8PathBuf;
use host::{
    container::{Net, Output, Preset, Rootfs, Spec, tag_of},
    network::Outside,
};
use model::{
    Secret,
    port::{Network, Resources},
    spec::build::PhaseName::Build,
};

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

/// A machine in a private network beside this one, that answers at a port. It goes with this.
struct Beside {
    namespace: String,
    link: String,
    server: Child,
}

impl Beside {
    const OURS: &str = "10.213.77.1";
    const THEIRS: &str = "10.213.77.2";
    const PORT: u16 = 8098;

    fn start(tag: &str) -> Self {
        let (namespace, link) = (format!("beside-{tag}"), format!("bs{tag}"));
        let (ours, theirs) = (Self::OURS, Self::THEIRS);
        let commands = format!(
            "ip netns add {namespace} && ip link add {link} type veth peer name eth0 netns {namespace} \
             && ip addr add {ours}/30 dev {link} && ip link set {link} up \
             && ip -n {namespace} addr add {theirs}/30 dev eth0 && ip -n {namespace} link set eth0 up"
        );
        // What an earlier run that was killed left.
        gone(&namespace, &link);
        assert!(sh(&commands), "{commands}");
        let port = Self::PORT.to_string();
        let serve = ["netns", "exec", &namespace, "python3", "-m", "http.server", &port];
        let server = Command::new("ip").args(serve).spawn().unwrap();
        let beside = Self {
            namespace,
            link,
            server,
        };
        let address = format!("{theirs}:{port}").parse().unwrap();
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            std::thread::sleep(Duration::from_millis(100));
        }
        beside
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        gone(&self.namespace, &self.link);
    }
}

fn sh(command: &str) -> bool {
    Command::new("sh")
        .args(["-c", command])
        .status()
        .unwrap()
        .success()
}

fn gone(namespace: &str, link: &str) {
    sh(&format!(
        "ip link delete {link} 2> /dev/null; ip netns delete {namespace} 2> /dev/null; true"
    ));
}

/// A host of an environment, which answers at port 8097 of its address.
fn host(world: &World, lowers: Vec<Utf8PathBuf>, network: Network, address: Ipv4Addr) -> Spec {
    Spec {
        id: "h-apart".to_owned(),
        hostname: "apart".to_owned(),
        rootfs: Rootfs {
            lowers,
            scratch: world.node().join("test-apart"),
            disk_mib: Some(64),
        },
        uid_base: 300_000,
        args: ["/usr/bin/python3", "-m", "http.server", "8097"]
            .map(str::to_owned)
            .to_vec(),
        env: Vec::new(),
        cwd: "/tmp".to_owned(),
        binds: Vec::new(),
        resources: Resources {
            cpu: 1.0,
            memory_mib: 128,
            disk_mib: 64,
            pids: 32,
        },
        network: Some(Net::Host {
            network,
            address,
            only_port: None,
        }),
        preset: Preset::Host,
        stdin: None,
        output: Output::File(world.node().join("test-apart.log")),
    }
}

pub async fn builds_reach_no_host_and_no_private_network_that_nobody_allows(world: &World) {
    let standard = world.oven.standard().await.unwrap();
    let lowers = world.oven.images().lowers(&standard.image).unwrap();
    let network = Network {
        number: 7,
        subnet: Ipv4Addr::new(10, 213, 78, 0),
        prefix: 24,
    };
    let address = Ipv4Addr::new(10, 213, 78, 20);
    let spec = host(world, lowers, network.clone(), address);
    world.containers.start(spec).await.unwrap();
    let beside = Beside::start(&tag_of(world.node()));
    // The machine reaches both.
    for at in [
        format!("{address}:8097"),
        format!("{}:{}", Beside::THEIRS, Beside::PORT),
    ] {
        while TcpStream::connect_timeout(&at.parse().unwrap(), Duration::from_secs(1)).is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let listener = TcpListener::bind((Beside::OURS, 0)).unwrap();
    let own = format!("{}:{}", Beside::OURS, listener.local_addr().unwrap().port());
    let (theirs, port) = (Beside::THEIRS, Beside::PORT);
    let command = format!("python3 tries.py {address}:8097 {theirs}:{port} {own}");
    let tries = async || {
        let buildspec = buildspec(vec![phase(Build, &[&command], &[])]);
        let order = world.build_order(&[("tries.py", TRIES)], buildspec);
        let (_, log) = succeeds(world, &order).await;
        has(&log, &["\ntried all\n", &format!("did not reach {address} 8097")]);
        has(&log, &[&format!("did not reach {}", own.replace(':', " "))]);
        log.contains(&format!("\nreached {theirs} {port}\n"))
    };
    let open_to = async |networks: &[&str], services: &[String]| {
        let outside = Outside::Public {
            also: networks.iter().map(|text| text.parse().unwrap()).collect(),
            services: services.iter().map(|text| text.parse().unwrap()).collect(),
        };
        world.containers.networks().open_to(outside).await.unwrap();
    };
    assert!(!tries().await, "nobody allowed it");
    open_to(&["10.213.77.0/30", "10.213.0.0/16", "fd00::/8"], &[]).await;
    assert!(tries().await, "the operator allows it, and no more than that");
    open_to(&[], &[format!("{theirs}:{port}")]).await;
    assert!(tries().await, "the machine itself is set up to use it");
    open_to(&["10.214.0.0/16"], &[format!("{theirs}:1")]).await;
    assert!(!tries().await);
    world
        .containers
        .networks()
        .open_to(Outside::Anywhere)
        .await
        .unwrap();
    assert!(tries().await, "whoever sits at the machine may");
    open_to(&[], &[]).await;
    drop(beside);
    world.containers.delete("h-apart").await.unwrap();
    world.containers.networks().remove(&network).await.unwrap();
}
