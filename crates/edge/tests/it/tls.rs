//! TLS as clients see it: which certificate they get, what they may speak, and who they must be.

use std::{
    net::{SocketAddr, TcpListener as Socket},
    process::Command,
    sync::{Arc, Mutex},
};

use camino::{Utf8Path, Utf8PathBuf};
use edge::{Clients, Limits, Listener, Speaks, Tls, Version};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::world::{Edge, Origin, shop, soon, until};

/// Takes any certificate, and remembers the answer of OCSP that came with it.
#[derive(Debug, Default)]
struct Witness(Mutex<Vec<u8>>);

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = ocsp.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

struct Caller {
    config: Arc<ClientConfig>,
    witness: Arc<Witness>,
}

fn caller(
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&str],
    identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> Caller {
    let witness = Arc::new(Witness::default());
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&witness) as _);
    let mut config = match identity {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Caller {
        config: Arc::new(config),
        witness,
    }
}

fn plain() -> Caller {
    caller(rustls::ALL_VERSIONS, &["http/1.1"], None)
}

impl Caller {
    async fn connect(&self, address: SocketAddr, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        soon(
            "a handshake",
            TlsConnector::from(Arc::clone(&self.config)).connect(name, stream),
        )
        .await
    }

    /// One request on a connection that stays open.
    async fn get(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            .await?;
        let mut answer = vec![0; 4096];
        let count = soon("an answer", stream.read(&mut answer)).await?;
        Ok(String::from_utf8_lossy(&answer[..count]).into_owned())
    }
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

/// Writes a certificate for these hosts.
fn certificate(folder: &Utf8Path, name: &str, hosts: &[&str]) -> CertificateDer<'static> {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let made = CertificateParams::new(hosts).unwrap().self_signed(&key).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    // As an editor or a client of ACME would: beside, and then in one step.
    let path = folder.join(format!("{name}.pem"));
    std::fs::write(path.with_extension("new"), made.pem() + &key.serialize_pem()).unwrap();
    std::fs::rename(path.with_extension("new"), path).unwrap();
    made.der().clone()
}

/// Has openssl say that a certificate which signed itself is good, and puts that beside it.
fn answer_of_ocsp(folder: &Utf8Path, name: &str) -> Vec<u8> {
    let openssl = |arguments: &str| {
        let mut openssl = Command::new("openssl");
        let made = openssl.args(arguments.split(' ')).current_dir(folder).output();
        let made = made.unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap()
    };
    let pem = format!("{name}.pem");
    let serial = openssl(&format!("x509 -in {pem} -noout -serial"));
    let serial = serial.trim().trim_start_matches("serial=");
    let index = format!("V\t991231235959Z\t\t{serial}\tunknown\t/CN={name}\n");
    std::fs::write(folder.join("index"), index).unwrap();
    openssl(&format!("ocsp -issuer {pem} -cert {pem} -no_nonce -reqout asked"));
    openssl(&format!(
        "ocsp -index index -CA {pem} -rsigner {pem} -rkey {pem} -ndays 1 -reqin asked -respout {name}.ocsp"
    ));
    std::fs::read(folder.join(format!("{name}.ocsp"))).unwrap()
}

fn settings(folder: &tempfile::TempDir) -> Tls {
    Tls {
        certificates: Utf8Path::from_path(folder.path()).unwrap().join("certificates"),
        minimum: Version::Tls12,
        ciphers: Vec::new(),
        clients: None,
    }
}

async fn start(folder: &tempfile::TempDir, tls: Tls, origin: &Origin) -> Edge {
    let listener = Listener {
        socket: Socket::bind("127.0.0.1:0").unwrap(),
        speaks: Speaks::Https(Box::new(tls)),
        proxied: false,
    };
    let edge = Edge::listening(folder, vec![listener], Limits::default(), 1);
    edge.apply(&shop(1, &[origin.address])).await;
    edge
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_go_by_name_and_change_while_connections_are_open() {
    let folder = tempfile::tempdir().unwrap();
    let tls = settings(&folder);
    let path = tls.certificates.clone();
    let shop = certificate(&path, "shop", &["shop.test", "www.shop.test"]);
    let wild = certificate(&path, "wild", &["*.wild.test"]);
    let default = certificate(&path, "default", &["default.test"]);
    let origin = Origin::named("origin").await;
    let edge = start(&folder, tls, &origin).await;
    let caller = plain();
    for (name, expected) in [
        ("shop.test", &shop),
        ("SHOP.test", &shop),
        ("www.shop.test", &shop),
        ("a.wild.test", &wild),
        ("a.b.wild.test", &default),
        ("wild.test", &default),
        ("other.test", &default),
    ] {
        let stream = caller.connect(edge.address, name).await.unwrap();
        assert_eq!(shown(&stream), *expected, "{name}");
    }
    let mut open = caller.connect(edge.address, "shop.test").await.unwrap();
    assert!(Caller::get(&mut open).await.unwrap().ends_with("origin"));
    assert!(origin.requests()[0].contains("X-Forwarded-Proto: https\r\n"));

    let renewed = certificate(&path, "shop", &["shop.test"]);
    let fresh = || async { plain().connect(edge.address, "shop.test").await };
    until("the new one is shown", || async {
        shown(&fresh().await.unwrap()) == renewed
    })
    .await;
    assert!(
        Caller::get(&mut open).await.unwrap().ends_with("origin"),
        "what was open goes on"
    );

    // A file that is no good changes nothing, and is named.
    std::fs::write(path.join("shop.pem"), "nonsense").unwrap();
    until("the problem is seen", || async {
        let seen = edge.client.certificates().await.unwrap();
        seen.iter()
            .any(|c| c.name == "shop" && c.problem.is_some() && c.until.is_some())
    })
    .await;
    assert_eq!(shown(&fresh().await.unwrap()), renewed);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_protocols_and_sessions_are_agreed() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls {
        minimum: Version::Tls13,
        // Not what both sides would take by themselves.
        ciphers: vec!["TLS13_CHACHA20_POLY1305_SHA256".into()],
        ..settings(&folder)
    };
    certificate(&tls.certificates, "shop", &["shop.test"]);
    let stapled = answer_of_ocsp(&tls.certificates, "shop");
    let origin = Origin::named("origin").await;
    let edge = start(&folder, tls, &origin).await;
    let old = caller(&[&rustls::version::TLS12], &[], None);
    assert!(
        old.connect(edge.address, "shop.test").await.is_err(),
        "TLS 1.2 is refused"
    );

    let caller = caller(rustls::ALL_VERSIONS, &["h2", "http/1.1"], None);
    let stream = caller.connect(edge.address, "shop.test").await.unwrap();
    let session = stream.get_ref().1;
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(
        format!("{:?}", session.negotiated_cipher_suite().unwrap().suite()),
        "TLS13_CHACHA20_POLY1305_SHA256"
    );
    assert_eq!(*caller.witness.0.lock().unwrap(), stapled);
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let request = hyper::Request::get("https://shop.test/")
            .body(String::new())
            .unwrap();
        assert_eq!(
            soon("an answer", sender.send_request(request))
                .await
                .unwrap()
                .status(),
            200
        );
    }

    let again = plain();
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut stream = again.connect(edge.address, "shop.test").await.unwrap();
        // Tickets come with the first answer.
        assert!(Caller::get(&mut stream).await.unwrap().ends_with("origin"));
        kinds.push(stream.get_ref().1.handshake_kind());
    }
    assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
    edge.stop().await;
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, text) in [
            (rcgen::DnType::CountryName, "CH"),
            (rcgen::DnType::OrganizationName, "Acme, Inc."),
            (rcgen::DnType::CommonName, "root"),
        ] {
            params.distinguished_name.push(kind, text);
        }
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            rcgen::KeyUsagePurpose::KeyCertSign,
            rcgen::KeyUsagePurpose::CrlSign,
        ];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn sign(&self, serial: u8) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        self.sign_until(serial, 4090)
    }

    /// What was good until 2021.
    fn old(&self, serial: u8) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        self.sign_until(serial, 2021)
    }

    fn sign_until(&self, serial: u8, year: i32) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.serial_number = Some(vec![serial].into());
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        (
            signed.der().clone(),
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
    }

    fn revoke(&self, serial: u8) -> String {
        self.revoke_until(serial, 2090)
    }

    fn revoke_until(&self, serial: u8, year: i32) -> String {
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(year, 1, 1),
            crl_number: vec![1].into(),
            issuing_distribution_point: None,
            revoked_certs: vec![rcgen::RevokedCertParams {
                serial_number: vec![serial].into(),
                revocation_time: rcgen::date_time_ymd(2021, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_clients_with_a_good_certificate_are_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let home = Utf8PathBuf::from_path_buf(folder.path().to_owned()).unwrap();
    let authority = Authority::new();
    std::fs::write(home.join("trust.pem"), &authority.pem).unwrap();
    std::fs::write(home.join("revoked.pem"), authority.revoke(66)).unwrap();
    let tls = Tls {
        clients: Some(Clients {
            trust: home.join("trust.pem"),
            revoked: Some(home.join("revoked.pem")),
        }),
        ..settings(&folder)
    };
    certificate(&tls.certificates, "shop", &["shop.test"]);
    let origin = Origin::named("origin").await;
    let edge = start(&folder, tls, &origin).await;
    let ask = |identity| async {
        let caller = caller(rustls::ALL_VERSIONS, &[], identity);
        // In TLS 1.3 a client hears of its refusal when it reads.
        let mut stream = caller.connect(edge.address, "shop.test").await?;
        let answer = Caller::get(&mut stream).await?;
        if answer.is_empty() {
            Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof))
        } else {
            Ok(answer)
        }
    };
    assert!(ask(None).await.is_err(), "without a certificate");
    assert!(
        ask(Some(Authority::new().sign(5))).await.is_err(),
        "of another authority"
    );
    assert!(ask(Some(authority.sign(66))).await.is_err(), "revoked");
    assert!(origin.requests().is_empty());
    assert!(ask(Some(authority.old(68))).await.is_err(), "expired");
    assert!(ask(Some(authority.sign(67))).await.unwrap().ends_with("origin"));
    let mut stranger = edge.connect().await;
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let _ = soon("the end", stranger.read_to_end(&mut Vec::new())).await;
    until("all are counted", || async {
        let metrics = edge.client.metrics().await.unwrap();
        [
            "client_certificate_missing",
            "client_certificate_unknown_authority",
            "client_certificate_revoked",
            "client_certificate_expired",
            "not_tls",
        ]
        .iter()
        .all(|reason| metrics.contains(&format!("handshakes_failed_total{{reason=\"{reason}\"}} 1\n")))
    })
    .await;
    let request = origin.requests().remove(0);
    assert!(
        request.contains("X-Amzn-Mtls-Clientcert-Serial-Number: 43\r\n"),
        "{request}"
    );
    assert!(
        request.contains("X-Amzn-Mtls-Clientcert-Issuer: CN=root,O=Acme\\, Inc.,C=CH\r\n")
            && request.contains("X-Amzn-Mtls-Clientcert-Subject: CN=rcgen self signed cert\r\n")
            && request.contains("X-Amzn-Mtls-Clientcert-Validity: NotBefore="),
        "{request}"
    );
    assert!(
        request.contains("X-Amzn-Mtls-Clientcert-Leaf: -----BEGIN%20CERTIFICATE-----%0A"),
        "{request}"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_let_in_changes_with_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let home = Utf8PathBuf::from_path_buf(folder.path().to_owned()).unwrap();
    let (authority, another) = (Authority::new(), Authority::new());
    let (trust, revoked) = (home.join("trust.pem"), home.join("revoked.pem"));
    std::fs::write(&trust, &authority.pem).unwrap();
    // Its time was over in 2021: nobody is let in by it.
    std::fs::write(&revoked, authority.revoke_until(66, 2021)).unwrap();
    let tls = Tls {
        clients: Some(Clients {
            trust: trust.clone(),
            revoked: Some(revoked.clone()),
        }),
        ..settings(&folder)
    };
    certificate(&tls.certificates, "shop", &["shop.test"]);
    let origin = Origin::named("origin").await;
    let edge = start(&folder, tls, &origin).await;
    let address = edge.address;
    let is_let_in = |identity| async move {
        let caller = caller(rustls::ALL_VERSIONS, &[], Some(identity));
        match caller.connect(address, "shop.test").await {
            Ok(mut stream) => {
                matches!(Caller::get(&mut stream).await, Ok(answer) if answer.ends_with("origin"))
            }
            Err(_) => false,
        }
    };
    assert!(!is_let_in(authority.sign(67)).await, "the list is out of date");
    std::fs::write(&revoked, authority.revoke(66)).unwrap();
    until("a new list is in force", || is_let_in(authority.sign(67))).await;
    assert!(!is_let_in(authority.sign(66)).await);
    std::fs::write(&revoked, authority.revoke(67)).unwrap();
    until("another is revoked", || async {
        !is_let_in(authority.sign(67)).await
    })
    .await;
    // What cannot be used changes nothing.
    std::fs::write(&trust, "nonsense").unwrap();
    assert!(is_let_in(authority.sign(66)).await);
    std::fs::write(&trust, &another.pem).unwrap();
    std::fs::write(&revoked, another.revoke(1)).unwrap();
    until("another authority is trusted", || is_let_in(another.sign(5))).await;
    assert!(!is_let_in(authority.sign(66)).await);
    edge.stop().await;
}
