//! Names, ports and domains of an app: asked for with `dig`, datagrams and `curl`, as visitors do.

use std::{
    net::{TcpListener, UdpSocket},
    process::Command,
    time::Duration,
};

use crate::platform::{Copy, Platform, can_run, eventually, get, tenant};

/// Beside its HTTP, the app repeats datagrams.
const DATAGRAMS: &str = r#"
if (!fork()) {
    my $udp = IO::Socket::INET->new(LocalPort => 5514, Proto => 'udp') or die $!;
    while (defined $udp->recv(my $data, 2048)) { $udp->send("TEXT $data"); }
    exit 0;
}
while (1) {"#;

fn free() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn says(copy: &Copy, text: &str) {
    copy.says(text);
    let path = copy.directory.path().join("server.pl");
    let server = std::fs::read_to_string(path).unwrap();
    let both = server.replacen("\nwhile (1) {", &DATAGRAMS.replace("TEXT", text), 1);
    assert_ne!(both, server);
    copy.write("server.pl", both);
    copy.commit("and datagrams");
}

/// What one client socket gets for what it sends. A datagram may be lost while hosts come and go.
fn ask(client: &UdpSocket, text: &str) -> String {
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    eventually("a datagram comes back", Duration::from_secs(30), || {
        client.send(text.as_bytes()).unwrap();
        let mut packet = [0; 200];
        let length = client.recv(&mut packet).ok()?;
        Some(String::from_utf8_lossy(&packet[..length]).into_owned())
    })
}

fn dig(at: &str, name: &str) -> String {
    let (ip, port) = at.rsplit_once(':').unwrap();
    let output = Command::new("dig")
        .args([
            &format!("@{ip}"),
            "-p",
            port,
            "+norec",
            "+tries=1",
            "+noall",
            "+answer",
            name,
        ])
        .output()
        .expect("dig is installed: apt-get install dnsutils");
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn client(port: u16) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(("127.0.0.1", port)).unwrap();
    client
}

#[test]
fn an_app_has_names_ports_and_a_domain_with_listeners_of_its_own() {
    if !can_run() {
        return;
    }
    let tenant = tenant("names");
    let domain = format!("shop.{tenant}.example");
    let (port, http, https) = (free(), free(), free());
    let platform = Platform::with(&format!(
        "[dns]\nlisten = ['127.0.0.1:0']\naddresses = ['127.0.0.1']\n\
         [listen]\nhttps = '127.0.0.1:0'\n\
         [listen.dedicated.'{domain}']\nhttp = '127.0.0.1:{http}'\nhttps = '127.0.0.1:{https}'\n"
    ));
    let app = format!("{tenant}/shop");
    platform.vend(&["tenants", "create", &tenant]);
    platform.vend(&["apps", "create", &app]);
    let copy = Copy::new(
        "one",
        &format!(
            "app: shop
host: {{ health: {{ path: /, interval: 1s, timeout: 1s }} }}
deploy: {{ keep_old: 10m }}
listeners: [{{ protocol: udp, port: {port}, host_port: 5514, name: hosts, ttl: 5s }}]
domains: [{{ host: {domain}, dedicated_balancer: true }}]
"
        ),
    );
    says(&copy, "one");
    platform.release(&copy, &app, "main");

    // Names, with the environment and without it.
    let at = platform.endpoints()["dns"][0].as_str().unwrap().to_owned();
    let (long, short) = (
        format!("production.shop.{tenant}.localhost"),
        format!("shop.{tenant}.localhost"),
    );
    for name in [&long, &short] {
        assert!(
            dig(&at, name).contains(" 60 IN A 127.0.0.1"),
            "{}",
            dig(&at, name)
        );
        assert_eq!(platform.get(name, "/"), (200, "one\n".into()));
    }
    // The port's name leads to the host itself.
    let hosts = platform.json(&["hosts", "list", &format!("{app}/production")]);
    let address = hosts["items"][0]["address"].as_str().unwrap().to_owned();
    let of_port = dig(&at, &format!("udp-{port}.{long}"));
    assert!(
        of_port.contains(&format!(" 5 IN A {address}")),
        "{of_port} {hosts:#}"
    );
    let names = platform.vend(&["edge", "names"]);
    assert!(
        names.contains(&short) && names.contains("1 of 1 healthy"),
        "{names}"
    );
    let sockets = platform.vend(&["edge", "sockets"]);
    assert!(sockets.contains(&format!("127.0.0.1:{port}")), "{sockets}");

    // The domain, at the listener for all and at its own, where nothing else is to be had.
    assert_eq!(platform.get(&domain, "/"), (200, "one\n".into()));
    let own = format!("127.0.0.1:{http}");
    assert_eq!(get(&own, &domain, "/").unwrap(), (200, "one\n".into()));
    assert_eq!(get(&own, &long, "/").unwrap().0, 503);
    let folder = platform.data().join("edge/certificates");
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args([
            "-subj",
            "/CN=test",
            "-addext",
            &format!("subjectAltName=DNS:{domain}"),
            "-days",
            "2",
        ])
        .arg("-keyout")
        .arg(folder.join(format!("{domain}.key")))
        .arg("-out")
        .arg(folder.join(format!("{domain}.crt")))
        .output()
        .expect("openssl is installed: apt-get install openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // The load balancer has a user of its own.
    readable(&folder.join(format!("{domain}.key")));
    let shared: u16 = platform.endpoints()["https"]
        .as_str()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    for port in [https, shared] {
        eventually("the certificate is there", Duration::from_secs(60), || {
            let got = Command::new("curl")
                .args([
                    "-sS",
                    "--noproxy",
                    "*",
                    "--resolve",
                    &format!("{domain}:{port}:127.0.0.1"),
                    "--cacert",
                ])
                .arg(folder.join(format!("{domain}.crt")))
                .arg(format!("https://{domain}:{port}/"))
                .output()
                .expect("curl is installed: apt-get install curl");
            (got.stdout == b"one\n").then_some(())
        });
    }

    // From now on the domain is asked over HTTPS; names without a certificate, and its listener of its own, answer as before.
    assert_eq!(platform.get(&domain, "/").0, 301);
    assert_eq!(platform.get(&long, "/"), (200, "one\n".into()));
    assert_eq!(get(&own, &domain, "/").unwrap(), (200, "one\n".into()));
    let explained = platform.vend(&[
        "edge",
        "explain",
        "http://127.0.0.1/",
        "--header",
        &format!("Host: {domain}"),
    ]);
    assert!(
        explained.contains("sent to HTTPS before any rule") && explained.contains("`plain_http = true`"),
        "{explained}"
    );

    // Datagrams: who has begun with a release stays with it while there is a newer one.
    let first = client(port);
    assert_eq!(ask(&first, "a"), "one a");
    says(&copy, "two");
    platform.release(&copy, &app, "main");
    assert_eq!(platform.get(&long, "/"), (200, "two\n".into()));
    assert_eq!(ask(&first, "b"), "one b", "its flow goes on");
    assert_eq!(ask(&client(port), "c"), "two c", "new flows follow the release");

    // All of it is there again when the load balancer is, whatever became of the others.
    platform.kill("serve");
    platform.kill("edge");
    eventually("names are answered again", Duration::from_secs(30), || {
        dig(&at, &short).contains("127.0.0.1").then_some(())
    });
    assert_eq!(ask(&client(port), "d"), "two d");
    assert_eq!(
        eventually("it listens", Duration::from_secs(30), || get(&own, &domain, "/")
            .ok()),
        (200, "two\n".into())
    );
}

fn readable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}
