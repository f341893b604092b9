//! One request and its answer, over TCP or TLS. A connection for each: what is called here is called a few times a minute.

use std::{
    error::Error as StdError,
    sync::{Arc, LazyLock},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, body::Bytes};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

/// Bytes of an answer: a page of a history has a thousand events.
const ANSWER: usize = 64 << 20;
const CONNECT: Duration = Duration::from_secs(10);

/// Where a service answers: `https://states.eu-central-1.amazonaws.com`, `http://127.0.0.1:7070/states`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    is_tls: bool,
    /// Host, and port where it is not the scheme's own.
    pub authority: String,
    /// Before every path: empty, or starts with a slash and ends with none.
    pub prefix: String,
}

impl Endpoint {
    /// None when it is not an address of HTTP or HTTPS.
    pub fn parse(text: &str) -> Option<Self> {
        let (is_tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, rest) => (false, rest?),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        if authority.is_empty() || !authority.chars().all(plain) || path.contains(['?', '#']) {
            return None;
        }
        let path = path.trim_end_matches('/');
        Some(Self {
            is_tls,
            authority: authority.to_owned(),
            prefix: if path.is_empty() {
                String::new()
            } else {
                format!("/{path}")
            },
        })
    }

    /// Host without port.
    fn host(&self) -> &str {
        let host = match self.authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => &self.authority,
        };
        host.trim_matches(['[', ']'])
    }

    fn port(&self) -> u16 {
        let own = self
            .authority
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        own.unwrap_or(if self.is_tls { 443 } else { 80 })
    }
}

/// What goes over the line.
pub struct Call {
    pub method: Method,
    /// Path and query, encoded.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

pub struct Answer {
    pub status: u16,
    pub body: Bytes,
    pub headers: hyper::HeaderMap,
}

type Broken = Box<dyn StdError + Send + Sync>;

/// One exchange. The error says why there is no answer.
pub async fn exchange(endpoint: &Endpoint, call: Call, patience: Duration) -> Result<Answer, String> {
    let tls = match endpoint.is_tls {
        true => Some(config().map_err(str::to_owned)?),
        false => None,
    };
    match timeout(patience, answered(endpoint, call, tls)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(chain(error.as_ref())),
        Err(_) => Err(format!("it does not answer within {} s", patience.as_secs())),
    }
}

async fn answered(endpoint: &Endpoint, call: Call, tls: Option<TlsConnector>) -> Result<Answer, Broken> {
    let connect = TcpStream::connect((endpoint.host(), endpoint.port()));
    let stream = timeout(CONNECT, connect)
        .await
        .map_err(|_| format!("no connection within {} s", CONNECT.as_secs()))??;
    match tls {
        Some(tls) => {
            let name = ServerName::try_from(endpoint.host().to_owned())?;
            over(tls.connect(name, stream).await?, endpoint, call).await
        }
        None => over(stream, endpoint, call).await,
    }
}

async fn over<S>(stream: S, endpoint: &Endpoint, call: Call) -> Result<Answer, Broken>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut request = Request::builder().method(call.method).uri(&call.target);
    if !call.headers.iter().any(|(name, _)| name == "host") {
        request = request.header("host", &endpoint.authority);
    }
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(call.body))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER).collect().await?.to_bytes();
        drop(sender);
        Ok(Answer {
            status: parts.status.as_u16(),
            body,
            headers: parts.headers,
        })
    };
    // Driven here: the connection ends with this call.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}

/// What TLS trusts: the machine's roots, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`. Read once.
fn config() -> Result<TlsConnector, &'static str> {
    static CONFIG: LazyLock<Option<Arc<ClientConfig>>> = LazyLock::new(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return None;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider speaks the versions that it is built with")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Some(Arc::new(config))
    });
    let config = CONFIG.clone();
    let config = config
        .ok_or("this machine has no root certificates: install ca-certificates, or set SSL_CERT_FILE")?;
    Ok(TlsConnector::from(config))
}

/// An error with what caused it, in one line.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let own = error.to_string();
        if !text.contains(&own) {
            text = format!("{text}: {own}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_addresses_of_http() {
        let plain = Endpoint::parse("http://127.0.0.1:7070/states").unwrap();
        assert_eq!(
            (plain.host(), plain.port(), plain.prefix.as_str()),
            ("127.0.0.1", 7070, "/states")
        );
        let tls = Endpoint::parse("https://states.eu-central-1.amazonaws.com/").unwrap();
        assert_eq!((tls.port(), tls.prefix.as_str(), tls.is_tls), (443, "", true));
        let six = Endpoint::parse("http://[::1]:80").unwrap();
        assert_eq!((six.host(), six.port()), ("::1", 80));
        for bad in [
            "ftp://a",
            "http://",
            "https://a b",
            "http://a@b/",
            "http://a/?x",
            "a.example",
        ] {
            assert_eq!(Endpoint::parse(bad), None, "{bad}");
        }
    }
}
