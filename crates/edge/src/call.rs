//! Requests of our own to the outside: authorities of certificates and providers of identities. HTTPS, one connection
//! each; they are asked seldom.

use std::{error::Error as StdError, io, sync::Arc, time::Duration};

use camino::Utf8Path;
use http_body_util::{BodyExt, Limited};
use hyper::{
    Request, Response,
    body::{Body, Bytes},
    client::conn::http1::handshake,
    header::{HOST, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls::{self, provider, roots};

/// Where most machines keep the roots that they trust.
const MACHINE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Bytes of an answer: a chain of certificates is some kB, and so are somebody's claims.
const ANSWER: usize = 1024 * 1024;

pub type Failure = Box<dyn StdError + Send + Sync>;

/// A client that trusts who signed with these roots, or with the machine's.
pub fn trusting(trusted: Option<&Utf8Path>) -> Result<Arc<ClientConfig>, tls::Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(tls::Error::Setup)?
        .with_root_certificates(roots(trusted.unwrap_or(Utf8Path::new(MACHINE)))?)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// One request and its whole answer, within `patience`.
pub async fn call<B>(
    config: Arc<ClientConfig>,
    request: Request<B>,
    patience: Duration,
) -> Result<Response<Bytes>, Failure>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Failure>,
{
    let late = || Err(io::Error::from(io::ErrorKind::TimedOut).into());
    tokio::time::timeout(patience, exchange(config, request))
        .await
        .unwrap_or_else(|_| late())
}

async fn exchange<B>(config: Arc<ClientConfig>, request: Request<B>) -> Result<Response<Bytes>, Failure>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Failure>,
{
    let mut request = request;
    let uri = std::mem::take(request.uri_mut());
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https"));
    let authority = authority.ok_or("the address is not one of HTTPS")?;
    *request.uri_mut() = uri
        .path_and_query()
        .map_or("/", |target| target.as_str())
        .parse()?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
    headers.insert(USER_AGENT, HeaderValue::from_static("vend-edge"));
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let stream = TcpStream::connect((host.as_str(), authority.port_u16().unwrap_or(443))).await?;
    let stream = TlsConnector::from(config)
        .connect(ServerName::try_from(host)?, stream)
        .await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER).collect().await?.to_bytes();
        drop(sender);
        Ok(Response::from_parts(parts, body))
    };
    // Driven here: the connection ends with this call.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}
