//! The load balancer as others' tools see it: curl, h2load, openssl, and Python's `websockets` and `grpcio`.

use std::{
    net::{SocketAddr, TcpListener as Socket},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use camino::Utf8Path;
use edge::{Listener, Speaks, Tls, Version};
use model::route::{HealthProtocol, Protocol};
use rcgen::{CertificateParams, KeyPair};
use tokio::net::TcpStream;

use crate::world::{Edge, Origin, forward, group, rule, shop, until};

/// What a command says, both ways. It is run beside the edge, not on its thread.
async fn run(program: &str, arguments: &[String]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap();
    let output = output.unwrap_or_else(|error| panic!("`{program}` is needed here: {error}"));
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_line_tools_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let home = Utf8Path::from_path(folder.path()).unwrap();
    let key = KeyPair::generate().unwrap();
    let made = CertificateParams::new(vec!["shop.test".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    std::fs::create_dir_all(home.join("certificates")).unwrap();
    std::fs::write(
        home.join("certificates/default.pem"),
        made.pem() + &key.serialize_pem(),
    )
    .unwrap();
    std::fs::write(home.join("roots.pem"), made.pem()).unwrap();
    let socket = Socket::bind("127.0.0.1:0").unwrap();
    let tls = Tls {
        certificates: home.join("certificates"),
        minimum: Version::Tls12,
        ciphers: Vec::new(),
        clients: None,
    };
    let https = Listener {
        socket,
        speaks: Speaks::Https(Box::new(tls)),
        proxied: false,
    };
    let plain = Socket::bind("127.0.0.1:0").unwrap();
    let http = plain.local_addr().unwrap().port();
    let edge = Edge::configured(&folder, vec![https, Listener::http(plain)], |config| {
        config.limits.body = 2_000_000;
    });
    let origin = Origin::named("origin").await;
    edge.apply(&shop(1, &[origin.address])).await;
    let port = edge.address.port();
    let curl = format!(
        "-sS --cacert {home}/roots.pem --resolve shop.test:{port}:127.0.0.1 --resolve shop.test:{http}:127.0.0.1 \
         -w |%{{http_version}}|%{{http_code}}"
    );
    let (secure, bare) = (
        format!("https://shop.test:{port}/"),
        format!("http://shop.test:{http}/"),
    );
    for (options, url, expected) in [
        ("--http1.1", &secure, "origin|1.1|200"),
        ("--http2", &secure, "origin|2|200"),
        ("--tls-max 1.2 --http2", &secure, "origin|2|200"),
        ("--http1.0", &bare, "origin|1.1|200"),
        ("--http1.1 -d some=form", &bare, "origin|1.1|200"),
        ("--http2-prior-knowledge", &bare, "origin|2|200"),
        // A client that would rather speak HTTP/2 stays with HTTP/1.1 where the edge does not switch.
        ("--http2", &bare, "origin|1.1|200"),
    ] {
        let said = run("curl", &words(&format!("{curl} {options} {url}"))).await;
        assert!(said.ends_with(expected), "{options} {url}: {said}");
    }
    // What is too large is said to be, whether or not its length was.
    std::fs::write(folder.path().join("large"), vec![b'x'; 5_000_000]).unwrap();
    let large = folder.path().join("large").display().to_string();
    for (options, url) in [
        ("--http1.1", &bare),
        ("--http1.1 -H Transfer-Encoding:chunked", &bare),
        ("--http2", &secure),
        ("--http2-prior-knowledge", &bare),
        ("--http2 -H Content-Length:", &secure),
    ] {
        let said = run(
            "curl",
            &words(&format!("{curl} {options} --data-binary @{large} {url}")),
        )
        .await;
        assert!(
            said.contains("the body of the request is too large|"),
            "{options} {url}: {said}"
        );
        assert!(said.ends_with("|413"), "{options} {url}: {said}");
    }
    // What no rule is for goes from 80 to 443 first, and is not found there.
    let other = format!("--resolve other.test:{http}:127.0.0.1 --resolve other.test:{port}:127.0.0.1 -k");
    for (options, url, expected) in [
        (
            "-w |%{redirect_url}",
            format!("http://other.test:{http}/a?b=c"),
            format!("|https://other.test:{port}/a?b=c"),
        ),
        (
            "-w |%{http_code}",
            format!("http://other.test:{http}/"),
            "|301".to_owned(),
        ),
        (
            "-w |%{http_code}",
            format!("https://other.test:{port}/"),
            "host not found|503".to_owned(),
        ),
        (
            "-L -w |%{http_code}",
            format!("http://other.test:{http}/"),
            "host not found|503".to_owned(),
        ),
    ] {
        let said = run("curl", &words(&format!("-sS {other} {options} {url}"))).await;
        assert_eq!(said, expected, "{options} {url}");
    }
    let said = run(
        "h2load",
        &words(&format!(
            "-n1000 -c4 -m10 -H :authority:shop.test https://127.0.0.1:{port}/"
        )),
    )
    .await;
    assert!(
        said.contains("1000 succeeded, 0 failed") && said.contains("1000 2xx"),
        "{said}"
    );
    for (version, alpn, expected) in [
        ("-tls1_3", "h2", "ALPN protocol: h2"),
        ("-tls1_2", "http/1.1", "ALPN protocol: http/1.1"),
        ("-tls1_2", "h2,http/1.1", "ALPN protocol: h2"),
    ] {
        let line = format!(
            "s_client -connect 127.0.0.1:{port} -servername shop.test -CAfile {home}/roots.pem {version} -alpn {alpn}"
        );
        let said = run("openssl", &words(&line)).await;
        assert!(
            said.contains(expected) && said.contains("Verify return code: 0 (ok)"),
            "{line}: {said}"
        );
    }
    let old = run(
        "openssl",
        &words(&format!("s_client -connect 127.0.0.1:{port} -tls1_1")),
    )
    .await;
    assert!(old.contains("Cipher is (NONE)"), "{old}");
    edge.stop().await;
}

/// A process that ends with the test.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The Python that `cargo xtask test` makes beside the build. Where it was made it must work, and in CI it was.
fn python() -> Option<PathBuf> {
    let own = std::env::current_exe().unwrap();
    let mut made = own.ancestors().map(|folder| folder.join("clients/bin"));
    let Some(programs) = made.find(|programs| programs.exists()) else {
        let ci = std::env::var_os("CI");
        assert!(ci.is_none(), "`cargo xtask test` has installed no clients");
        return None;
    };
    Some(programs.join("python"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn web_sockets_and_grpc_of_python_pass() {
    let Some(python) = python() else {
        println!("skipped: websockets and grpcio are not there; `cargo xtask test` installs them");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/peers.py");
    let free = || Socket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (sockets, calls): (SocketAddr, SocketAddr) = (free(), free());
    let serving = Command::new(&python)
        .args([
            script,
            "serve",
            &sockets.port().to_string(),
            &calls.port().to_string(),
        ])
        // It tells at length of every connection that only asks whether it is there.
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _serving = Serving(serving);
    until("both answer", || async {
        TcpStream::connect(sockets).await.is_ok() && TcpStream::connect(calls).await.is_ok()
    })
    .await;
    let edge = Edge::start(&folder);
    let mut table = shop(1, &[]);
    for (priority, name, address) in [(2, "ws", sockets), (3, "grpc", calls)] {
        let mut to = group(&[address]);
        to.health.protocol = HealthProtocol::Tcp;
        to.protocol = if name == "grpc" {
            Protocol::Grpc
        } else {
            Protocol::Http1
        };
        table.target_groups.insert(name.to_owned(), to);
        table
            .rules
            .push(rule(priority, &format!("{name}.test"), forward(&[(name, 1)])));
    }
    edge.apply(&table).await;
    let port = edge.address.port().to_string();
    let arguments = [script, "ask", &port].map(str::to_owned);
    let said = run(python.to_str().unwrap(), &arguments).await;
    assert!(said.ends_with("all was answered\n"), "{said}");
    edge.stop().await;
}
