//! An edge with a plain and a secure listener, targets that do everything that targets do, clients of every kind, and the
//! lines of its log.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener as Socket},
    sync::Arc,
    time::Duration,
};

use camino::Utf8PathBuf;
use edge::{Format, Limits, Listener, Log, Speaks, Tls, Version};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::route::{Action, Redirect, Rewrite, Rule, Table, Transforms};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::world::{Edge, Origin, forward, group, read_request, refusing, rule, soon};

pub const FIELDS: [&str; 33] = [
    "type",
    "time",
    "elb",
    "client:port",
    "target:port",
    "request_processing_time",
    "target_processing_time",
    "response_processing_time",
    "elb_status_code",
    "target_status_code",
    "received_bytes",
    "sent_bytes",
    "request",
    "user_agent",
    "ssl_cipher",
    "ssl_protocol",
    "target_group_arn",
    "trace_id",
    "domain_name",
    "chosen_cert_arn",
    "matched_rule_priority",
    "request_creation_time",
    "actions_executed",
    "redirect_url",
    "error_reason",
    "target:port_list",
    "target_status_code_list",
    "classification",
    "classification_reason",
    "conn_trace_id",
    "transformed_host",
    "transformed_uri",
    "request_transform_status",
];

pub type Line = BTreeMap<&'static str, String>;

/// Splits a line at its spaces, but for those in quotation marks.
pub fn read(line: &str) -> Line {
    let (mut fields, mut field, mut inside, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '"' if !escaped => inside = !inside,
            ' ' if !inside => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
        escaped = c == '\\' && !escaped;
    }
    fields.push(field);
    assert_eq!(fields.len(), FIELDS.len(), "{line}");
    FIELDS.into_iter().zip(fields).collect()
}

/// Does with requests what their paths say.
pub async fn origin() -> Origin {
    Origin::raw(|mut stream| async move {
        while let Some(request) = read_request(&mut stream).await {
            let path = request.split(' ').nth(1).unwrap();
            let answer: &[u8] = match path.rsplit('/').next().unwrap() {
                "broken" => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
                "closed" => b"",
                "bad" => b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
                "late" => return tokio::time::sleep(Duration::from_secs(60)).await,
                "socket" => b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello",
                "missing" => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
            };
            if stream.write_all(answer).await.is_err() || !answer.ends_with(b"\r\n\r\nfine") {
                // The reset of a stream may take the head along that is before it.
                return tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    })
    .await
}

pub fn table(origin: SocketAddr) -> Table {
    let at = |priority, path: &str, action| Rule {
        paths: vec![path.to_owned()],
        ..rule(priority, "shop.test", action)
    };
    let rewrite = |regex: &str, replace: &str| {
        Some(Rewrite {
            regex: regex.to_owned(),
            replace: replace.to_owned(),
        })
    };
    let redirect = Redirect {
        status: 301,
        host: "other.test".into(),
        port: "8443".into(),
        protocol: "HTTPS".into(),
        ..Redirect::default()
    };
    let fixed = Action::FixedResponse {
        status: 418,
        content_type: "text/plain".into(),
        body: "short".into(),
    };
    Table {
        version: 1,
        rules: vec![
            at(1, "*/redirect", Action::Redirect(redirect)),
            at(2, "*/fixed", fixed),
            at(3, "*/empty", forward(&[("empty", 1)])),
            at(4, "*/refused", forward(&[("refused", 1)])),
            Rule {
                transforms: Transforms {
                    host: rewrite("^shop", "inner"),
                    url: rewrite("^/(.*)/moved$", "/$1/new"),
                },
                ..at(5, "*/moved", forward(&[("shop", 1)]))
            },
            rule(6, "shop.test", forward(&[("shop", 1)])),
        ],
        target_groups: BTreeMap::from([
            ("shop".to_owned(), group(&[origin])),
            ("empty".to_owned(), group(&[])),
            ("refused".to_owned(), group(&[refusing()])),
        ]),
    }
}

/// An edge with a plain listener and one with TLS.
pub struct World {
    pub edge: Edge,
    pub secure: SocketAddr,
    pub log: Utf8PathBuf,
    pub connector: TlsConnector,
    pub h2: TlsConnector,
}

impl World {
    pub async fn start(folder: &tempfile::TempDir, origin: &Origin, format: Format, limits: Limits) -> Self {
        let home = Utf8PathBuf::from_path_buf(folder.path().to_owned()).unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["shop.test".to_owned()]).unwrap();
        let certificates = home.join("certificates");
        std::fs::create_dir_all(&certificates).unwrap();
        let pem = made.cert.pem();
        std::fs::write(
            certificates.join("store.pem"),
            pem.clone() + &made.signing_key.serialize_pem(),
        )
        .unwrap();
        let secure = Listener {
            socket: Socket::bind("127.0.0.1:0").unwrap(),
            speaks: Speaks::Https(Box::new(Tls {
                certificates,
                minimum: Version::Tls12,
                ciphers: Vec::new(),
                clients: None,
            })),
            proxied: false,
        };
        let at = secure.socket.local_addr().unwrap();
        let log = home.join("alb.log");
        let plain = Listener::http(Socket::bind("127.0.0.1:0").unwrap());
        let edge = Edge::configured(folder, vec![plain, secure], |config| {
            config.limits = limits;
            config.access_log = Some(Log {
                format,
                ..Log::short(log.clone())
            });
        });
        edge.apply(&table(origin.address)).await;
        Self {
            edge,
            secure: at,
            log,
            connector: connector(&pem, b"http/1.1", rustls::ALL_VERSIONS),
            h2: connector(&pem, b"h2", rustls::ALL_VERSIONS),
        }
    }

    pub async fn tls(&self, connector: &TlsConnector) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.secure).await.unwrap();
        let name = ServerName::try_from("shop.test").unwrap();
        soon("a handshake", connector.connect(name, stream))
            .await
            .unwrap()
    }

    /// Ends the edge, and reads its lines: by the path of their requests.
    pub async fn lines(self) -> Vec<Line> {
        self.edge.stop().await;
        let log = std::fs::read_to_string(&self.log).unwrap();
        log.lines().map(read).collect()
    }
}

pub fn connector(
    pem: &str,
    alpn: &[u8],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// All that comes back for these bytes.
pub async fn raw(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub async fn http2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

/// The status of one request; its answer is read to its end, whatever that is.
pub async fn ask(h2: &mut SendRequest<Full<Bytes>>, method: &str, path: &str, body: &'static str) -> u16 {
    let request = Request::builder()
        .method(method)
        .uri(format!("https://shop.test{path}"))
        .header("user-agent", "probe/1")
        .body(Full::from(body))
        .unwrap();
    let answer = soon(path, h2.send_request(request)).await.unwrap();
    let status = answer.status().as_u16();
    let _ = soon(path, answer.into_body().collect()).await;
    status
}

pub fn limits() -> Limits {
    Limits {
        head_time: Duration::from_millis(400),
        upstream: Duration::from_millis(400),
        body: 1000,
        ..Limits::default()
    }
}

/// The line of the request for this path.
pub fn line<'a>(lines: &'a [Line], path: &str) -> &'a Line {
    let found = lines
        .iter()
        .find(|line| line["request"].split(' ').nth(1).unwrap().ends_with(path));
    found.unwrap_or_else(|| panic!("no line of {path}"))
}
