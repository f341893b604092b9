//! What a build cannot reach: this machine, and the builds beside it.

use std::net::{TcpListener, TcpStream, UdpSocket};

use model::spec::build::PhaseName::Build;

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
    let neighbour = world.build_order(&files, buildspec(vec![phase(Build, &serve, &[])]));
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
            "python3 tries.py gateway:{port} {own}:{port} {address}:8099; curl -sSf --max-time 60 -o /dev/null http://deb.debian.org/debian/dists/bookworm/Release && echo outside"
        );
        let order = world.build_order(&files, buildspec(vec![phase(Build, &[&command], &[])]));
        let (_, log) = succeeds(world, &order).await;
        has(
            &log,
            &[
                &format!("did not reach {address} 8099"),
                "tried all",
                "\noutside\n",
            ],
        );
        assert!(!log.contains("\nreached "), "{log}");
        assert_eq!(log.matches("\ndid not reach ").count(), 3, "{log}");
        world.answers.stop(&ticket, "it was seen").await.unwrap();
    };
    let (served, ()) = tokio::join!(serving, trying);
    assert!(served.is_err(), "it was stopped");
}
