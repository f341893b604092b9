//! Connections that speak TLS or do not, and a certificate that they trust.

use std::{net::SocketAddr, sync::Arc};

use camino::Utf8Path;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Writes a certificate for these hosts, under the name of the first, and gives a client that trusts it alone.
pub fn certificate(folder: &Utf8Path, hosts: &[&str]) -> TlsConnector {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let made = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join(format!("{}.pem", hosts[0]));
    std::fs::write(path.with_extension("new"), made.pem() + &key.serialize_pem()).unwrap();
    std::fs::rename(path.with_extension("new"), path).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    // Without a word on protocols: HTTP/2 begins with its preface all the same.
    TlsConnector::from(Arc::new(
        builder.with_root_certificates(roots).with_no_client_auth(),
    ))
}

/// Until who trusts only this one is shown it.
pub async fn in_force(at: SocketAddr, host: &'static str, certificate: &TlsConnector) {
    super::until("the new certificate is in force", || async {
        let stream = TcpStream::connect(at).await.unwrap();
        let name = ServerName::try_from(host).unwrap();
        certificate.connect(name, stream).await.is_ok()
    })
    .await;
}

pub async fn connect(at: SocketAddr, host: &'static str, tls: Option<&TlsConnector>) -> Box<dyn Wire> {
    let stream = TcpStream::connect(at).await.unwrap();
    match tls {
        Some(tls) => {
            let name = ServerName::try_from(host).unwrap();
            Box::new(tls.connect(name, stream).await.unwrap())
        }
        None => Box::new(stream),
    }
}
