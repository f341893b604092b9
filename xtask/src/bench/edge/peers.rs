//! How each proxy is told to do the same: route by host, forward what browsers' addresses were, keep connections to
//! targets, write a buffered access log, speak TLS.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use super::{Setup, has, words};

/// One proxy.
pub struct Peer {
    pub name: &'static str,
    pub program: &'static str,
    /// More hosts take it minutes to start, or all of the memory.
    pub most: u32,
    /// Writes what it reads and says how it is started.
    pub start: fn(&Setup<'_>, &Path) -> anyhow::Result<Vec<String>>,
}

impl Peer {
    pub fn is_there(&self) -> bool {
        self.program == "vend" || has(self.program)
    }
}

/// Ours is the first: ratios are to it.
pub static PEERS: [Peer; 5] = [
    Peer {
        name: "vend",
        program: "vend",
        most: u32::MAX,
        start: vend,
    },
    Peer {
        name: "nginx, map",
        program: "nginx",
        most: 100_000,
        start: nginx,
    },
    // Without what the others write and add, only as far as a proxy can do less.
    Peer {
        name: "nginx, map, bare",
        program: "nginx",
        most: 100_000,
        start: bare,
    },
    Peer {
        name: "HAProxy, map",
        program: "haproxy",
        most: 100_000,
        start: haproxy,
    },
    Peer {
        name: "Caddy",
        program: "caddy",
        most: 1_000,
        start: caddy,
    },
];

fn vend(setup: &Setup<'_>, binary: &Path) -> anyhow::Result<Vec<String>> {
    let certificates = setup
        .certificate
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default();
    let listener = |port: u16, speaks: &str| {
        serde_json::json!({ "address": format!("127.0.0.1:{port}"), "speaks": speaks,
            "certificates": (speaks == "https").then_some(&certificates) })
    };
    let hosts = 0..setup.hosts;
    // As nginx's map: one pool of targets for all.
    let rules =
        hosts.map(|n| serde_json::json!({ "hosts": [format!("h{n}.test")], "forward": { "all": 1 } }));
    let config = serde_json::json!({
        "listeners": [listener(setup.http, "http"), listener(setup.https, "https")],
        "rules": rules.collect::<Vec<_>>(),
        "target_groups": { "all": { "targets": [setup.origin], "health": { "path": "/health" } } },
        "access_log": { "path": setup.home.join("access.log") },
        "workers": 1,
    });
    let file = setup.home.join("edge.json");
    fs::write(&file, config.to_string())?;
    let (binary, file, data) = (text(binary), text(&file), text(&setup.home.join("data")));
    Ok(words(&[&binary, "edge", "--config", &file, "--data", &data]))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn nginx(setup: &Setup<'_>, _: &Path) -> anyhow::Result<Vec<String>> {
    let log = format!("{}/access.log combined buffer=32k flush=1s", setup.home.display());
    let headers = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Port $server_port;
      proxy_set_header X-Request-Id $request_id;";
    mapped(setup, &log, headers)
}

fn bare(setup: &Setup<'_>, _: &Path) -> anyhow::Result<Vec<String>> {
    mapped(setup, "off", "")
}

fn mapped(setup: &Setup<'_>, log: &str, headers: &str) -> anyhow::Result<Vec<String>> {
    let mut map = String::new();
    for n in 0..setup.hosts {
        let _ = writeln!(map, "h{n}.test all;");
    }
    fs::write(setup.home.join("map"), map)?;
    let (home, origin, pem) = (setup.home.display(), setup.origin, setup.certificate.display());
    let (http, https) = (setup.http, setup.https);
    let config = format!(
        r#"daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error;
events {{ worker_connections 16384; }}
http {{
  map_hash_max_size 262144; map_hash_bucket_size 128;
  map $host $up {{ default ""; include {home}/map; }}
  upstream all {{ server {origin}; keepalive 256; keepalive_requests 100000000; }}
  access_log {log};
  keepalive_requests 100000000;
  ssl_certificate {pem}; ssl_certificate_key {pem}; ssl_session_cache shared:s:10m;
  ssl_protocols TLSv1.2 TLSv1.3;
  server {{
    listen 127.0.0.1:{http} backlog=4096; listen 127.0.0.1:{https} ssl http2 backlog=4096;
    location / {{
      if ($up = "") {{ return 503; }}
      proxy_pass http://$up; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host;
      {headers}
    }}
  }}
}}
"#
    );
    let file = write(setup, "nginx.conf", &config)?;
    Ok(words(&["nginx", "-c", &text(&file)]))
}

fn haproxy(setup: &Setup<'_>, _: &Path) -> anyhow::Result<Vec<String>> {
    let mut map = String::new();
    for n in 0..setup.hosts {
        let _ = writeln!(map, "h{n}.test all");
    }
    fs::write(setup.home.join("map"), map)?;
    let (home, origin, pem) = (setup.home.display(), setup.origin, setup.certificate.display());
    // The load comes beside what idles.
    let clients = setup.clients + 256;
    let (http, https) = (setup.http, setup.https);
    let config = format!(
        r"global
  nbthread 1
  maxconn {clients}
  log {home}/log.sock local0
defaults
  mode http
  log global
  option httplog
  option forwardfor
  timeout connect 3s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend in
  bind 127.0.0.1:{http} backlog 4096
  bind 127.0.0.1:{https} ssl crt {pem} alpn h2,http/1.1 backlog 4096
  unique-id-format %[uuid]
  unique-id-header X-Request-Id
  http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
  http-request set-header X-Forwarded-Port %[dst_port]
  use_backend %[req.hdr(host),field(1,:),lower,map({home}/map)]
backend all
  server one {origin} check inter 30s
"
    );
    let file = write(setup, "haproxy.cfg", &config)?;
    Ok(words(&["haproxy", "-db", "-f", &text(&file)]))
}

fn caddy(setup: &Setup<'_>, _: &Path) -> anyhow::Result<Vec<String>> {
    let (home, origin, pem) = (setup.home.display(), setup.origin, setup.certificate.display());
    let mut config = format!(
        "{{\n admin off\n auto_https off\n storage file_system {home}/store\n}}\n(to) {{\n reverse_proxy {origin}\n \
         log {{\n output file {home}/access.log\n }}\n}}\n"
    );
    for n in 0..setup.hosts {
        let (http, https) = (setup.http, setup.https);
        let _ = writeln!(config, "http://h{n}.test:{http} {{\n import to\n}}");
        let _ = writeln!(
            config,
            "https://h{n}.test:{https} {{\n tls {pem} {pem}\n import to\n}}"
        );
    }
    // wrk sends its address as the name.
    let _ = writeln!(
        config,
        "https://:{} {{\n tls {pem} {pem}\n import to\n}}",
        setup.https
    );
    let file = write(setup, "Caddyfile", &config)?;
    Ok(words(&[
        "env",
        "GOMAXPROCS=1",
        "caddy",
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        &text(&file),
    ]))
}

fn write(setup: &Setup<'_>, name: &str, config: &str) -> anyhow::Result<PathBuf> {
    let file = setup.home.join(name);
    fs::write(&file, config)?;
    Ok(file)
}
