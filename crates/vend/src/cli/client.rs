//! The client of `/v1`: over the platform's local socket, or a URL with a token.

use std::{
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::body::{Body, Bytes};
use http_body_util::BodyExt as _;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, body::Incoming, header};
use hyper_util::rt::TokioIo;
use model::{
    Secret,
    wire::{Page, ProblemDetails},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::{TcpStream, UnixStream};

use super::{credentials, failure::Failure};

const CONNECT: Duration = Duration::from_secs(5);
/// A handler may wait for the node or a plan.
const ANSWER: Duration = Duration::from_secs(120);
/// What is large is made or taken in before it is answered.
const BULK: Duration = Duration::from_secs(3600);
/// A database comes in, and is loaded.
const POUR: Duration = Duration::from_secs(5 * 3600);
/// Of one JSON answer.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Which way the platform is reached.
#[derive(Debug, Clone)]
enum Door {
    /// The data directory of a platform on this machine.
    Local(PathBuf),
    /// Host and port.
    Remote(String),
}

pub struct Client {
    door: Door,
    token: Option<Secret>,
}

/// Where a platform on this machine keeps everything, when nobody says otherwise.
pub const DATA: &str = "/var/lib/vend";

impl Client {
    /// Of a URL if there is one, else of the platform on this machine.
    pub fn new(url: Option<&str>, data: Option<&Path>) -> Result<Self, Failure> {
        let token = credentials::from_environment()?;
        let Some(url) = url else {
            let data = data.unwrap_or_else(|| Path::new(DATA)).to_owned();
            return Ok(Self {
                door: Door::Local(data),
                token,
            });
        };
        let authority = authority(url)?;
        let token = match token {
            Some(token) => token,
            None => credentials::of(url)?.ok_or_else(|| {
                Failure::refused(format!("there is no token for {url}"))
                    .next(format!("vend login --url {url}"))
            })?,
        };
        Ok(Self {
            door: Door::Remote(authority),
            token: Some(token),
        })
    }

    /// With this token instead of the one found.
    pub fn with_token(url: &str, token: Secret) -> Result<Self, Failure> {
        let door = Door::Remote(authority(url)?);
        Ok(Self {
            door,
            token: Some(token),
        })
    }

    /// The token that it uses; none on the local socket without one.
    pub fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        decode(self.call(Method::GET, path, None).await?).await
    }

    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Failure> {
        decode(self.call(Method::POST, path, Some(encode(body))).await?).await
    }

    pub async fn put<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Failure> {
        decode(self.call(Method::PUT, path, Some(encode(body))).await?).await
    }

    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        decode(self.call(Method::DELETE, path, None).await?).await
    }

    /// Every item of a list, up to `most`.
    pub async fn list<T: DeserializeOwned>(&self, path: &str, most: usize) -> Result<Page<T>, Failure> {
        let mut all = Page {
            items: Vec::new(),
            next: None,
        };
        loop {
            let mark = if path.contains('?') { '&' } else { '?' };
            let limit = (most - all.items.len()).min(500);
            let mut page = format!("{path}{mark}limit={limit}");
            if let Some(cursor) = &all.next {
                page = format!("{page}&cursor={}", escape(cursor));
            }
            let page: Page<T> = self.get(&page).await?;
            all.items.extend(page.items);
            all.next = page.next;
            if all.next.is_none() || all.items.len() >= most {
                return Ok(all);
            }
        }
    }

    /// An answer that may be long, piece by piece, with its headers.
    pub async fn stream(&self, path: &str) -> Result<(HeaderMap, Incoming), Failure> {
        let request = self.request(&Method::GET, path, None)?;
        let (head, body) = self.send(request, BULK).await?.into_parts();
        Ok((head.headers, body))
    }

    /// Sends a file as it is.
    pub async fn upload<T: DeserializeOwned>(&self, path: &str, file: tokio::fs::File) -> Result<T, Failure> {
        let body = Body::from_stream(tokio_util::io::ReaderStream::with_capacity(file, 1 << 18));
        let request = self.request(&Method::PUT, path, Some(body))?;
        decode(self.send(request, BULK).await?).await
    }

    /// Sends what comes piece by piece, and waits for as long as a database takes to be loaded.
    pub async fn pour<T: DeserializeOwned>(&self, path: &str, body: Body) -> Result<T, Failure> {
        let request = self.request(&Method::PUT, path, Some(body))?;
        decode(self.send(request, POUR).await?).await
    }

    /// A POST whose answer is long and comes piece by piece, with one of its headers.
    pub async fn made<B: Serialize>(
        &self,
        path: &str,
        body: &B,
        header: &str,
    ) -> Result<(String, Incoming), Failure> {
        let request = self.request(&Method::POST, path, Some(Body::from(encode(body))))?;
        let response = self.send(request, BULK).await?;
        let value = response
            .headers()
            .get(header)
            .and_then(|value| value.to_str().ok());
        let value = value.unwrap_or_default().to_owned();
        Ok((value, response.into_body()))
    }

    /// A POST whose answer may take as long as an image.
    pub async fn work<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Failure> {
        let request = self.request(&Method::POST, path, Some(Body::from(encode(body))))?;
        decode(self.send(request, BULK).await?).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Incoming>, Failure> {
        let request = self.request(&method, path, body.map(Body::from))?;
        self.send(request, ANSWER).await
    }

    async fn send(&self, request: Request<Body>, within: Duration) -> Result<Response<Incoming>, Failure> {
        let answer = async {
            match &self.door {
                Door::Local(data) => exchange(local(data).await?, request).await,
                Door::Remote(authority) => exchange(remote(authority).await?, request).await,
            }
        };
        let response = tokio::time::timeout(within, answer)
            .await
            .map_err(|_| Failure::unreachable("the platform did not answer in time"))??;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(refusal(response).await),
        }
    }

    fn request(&self, method: &Method, path: &str, body: Option<Body>) -> Result<Request<Body>, Failure> {
        let host = match &self.door {
            Door::Local(_) => "vend",
            Door::Remote(authority) => authority,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host)
            .header(header::USER_AGENT, concat!("vend/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            let mut value = header::HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .map_err(|_| Failure::usage("the token holds characters that no token has"))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if method == Method::POST {
            let key = getrandom::u64().map_err(|error| Failure::failed(error.to_string()))?;
            request = request.header("idempotency-key", format!("{key:016x}"));
        }
        request
            .body(body.unwrap_or_default())
            .map_err(|error| Failure::usage(format!("not a request: {error}")))
    }
}

/// `127.0.0.1:7070` of `http://127.0.0.1:7070/`. A token goes in the clear only where nobody can listen.
fn authority(url: &str) -> Result<String, Failure> {
    let Some(rest) = url.strip_prefix("http://") else {
        return Err(Failure::usage(format!("{url}: only http:// is available yet"))
            .next("ssh -L 7070:127.0.0.1:7070 MACHINE, then --url http://127.0.0.1:7070"));
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    let loopback = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    match loopback {
        true => Ok(format!("{host}:{port}")),
        false => Err(
            Failure::usage(format!("{url}: a token would go over the network in the clear"))
                .next("ssh -L 7070:127.0.0.1:7070 MACHINE, then --url http://127.0.0.1:7070"),
        ),
    }
}

async fn local(data: &Path) -> Result<UnixStream, Failure> {
    let unreachable = |error: &dyn std::fmt::Display| {
        let socket = data.join("run/api.sock");
        Failure::unreachable(format!("{}: {error}", socket.display())).next(format!(
            "vend up --data {0}, if the platform is to be in {0}; else name it by --data DIR or --url URL",
            super::quoted(&data.to_string_lossy())
        ))
    };
    // The path of a socket may have 108 bytes only, a data directory may be longer: go through the directory.
    let directory = std::fs::File::open(data.join("run")).map_err(|error| unreachable(&error))?;
    let short = format!("/proc/self/fd/{}/api.sock", directory.as_raw_fd());
    match tokio::time::timeout(CONNECT, UnixStream::connect(short)).await {
        Ok(connected) => connected.map_err(|error| unreachable(&error)),
        Err(_) => Err(unreachable(&"it does not accept")),
    }
}

async fn remote(authority: &str) -> Result<TcpStream, Failure> {
    let unreachable = |error: &dyn std::fmt::Display| {
        Failure::unreachable(format!("{authority}: {error}")).next("vend up, or name another --url")
    };
    match tokio::time::timeout(CONNECT, TcpStream::connect(authority)).await {
        Ok(connected) => connected.map_err(|error| unreachable(&error)),
        Err(_) => Err(unreachable(&"it does not accept")),
    }
}

async fn exchange<S>(stream: S, request: Request<Body>) -> Result<Response<Incoming>, Failure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| Failure::unreachable(format!("the connection broke: {error}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // It ends with the sender and the body; both are of this call.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(broken)
}

async fn body(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let limited = http_body_util::Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    let collected = limited
        .collect()
        .await
        .map_err(|error| Failure::unreachable(format!("the answer broke off: {error}")))?;
    Ok(collected.to_bytes())
}

async fn decode<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, Failure> {
    let empty = response.status() == StatusCode::NO_CONTENT;
    let bytes = body(response).await?;
    let text = if empty { b"null".as_slice() } else { &bytes };
    read(text).map_err(|error| {
        Failure::failed(format!("the answer is not as expected: {error}"))
            .next("vend version: client and platform may be of different versions")
    })
}

/// By way of a value: numbers keep their text in this program, which serde cannot read straight into a flattened field.
fn read<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    serde_json::from_value(serde_json::from_slice(text)?)
}

async fn refusal(response: Response<Incoming>) -> Failure {
    let status = response.status();
    match body(response).await {
        Ok(bytes) => match serde_json::from_slice::<ProblemDetails>(&bytes) {
            Ok(problem) => Failure::of(problem),
            Err(_) => Failure::failed(format!("the platform answered {status}")),
        },
        Err(failure) => failure,
    }
}

fn encode(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("wire types are plain data")
}

/// A text as part of a path or query (RFC 3986, section 2.1).
pub fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_flattened_fields_are_read() {
        let text = br#"{"id":18446744073709551615,"name":"ci","actor":"token:ci","role":"developer","created_at":"2026-01-01T00:00:00Z","text":"t"}"#;
        let created: model::wire::CreatedToken = read(text).unwrap();
        assert_eq!(created.token.id, u64::MAX);
    }

    #[test]
    fn tokens_go_only_where_nobody_listens() {
        assert_eq!(authority("http://127.0.0.1:7070/").unwrap(), "127.0.0.1:7070");
        assert_eq!(authority("http://localhost").unwrap(), "localhost:80");
        assert!(authority("http://[::1]:9").is_ok());
        for bad in [
            "http://example.com:7070",
            "https://127.0.0.1",
            "127.0.0.1",
            "http://127.0.0.1.example.com",
        ] {
            assert!(authority(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn escapes_what_means_something() {
        assert_eq!(escape("a/b c?ü"), "a%2Fb%20c%3F%C3%BC");
    }
}
