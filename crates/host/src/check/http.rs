//! HTTP checks: a small client for `http://` to this host and what it can reach by address.
//!
//! Names are looked up in `/etc/hosts` only: a static binary has no resolver, and a check is about the host itself.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    header::{HOST, LOCATION},
};
use hyper_util::rt::TokioIo;
use model::{port::CheckResult, spec::check::HttpCheck};
use tokio::net::TcpStream;

use super::Results;

/// Redirects that are followed.
const REDIRECTS: usize = 10;

/// So much of a body is read, in bytes.
const BODY: usize = 4 << 20;

struct Answer {
    status: StatusCode,
    headers: String,
    body: String,
    location: Option<String>,
}

pub async fn http(url: &str, check: &HttpCheck) -> Vec<CheckResult> {
    let mut results = Results::new("http", url);
    let limit = super::timeout(check.timeout_ms);
    match fetch(url, !check.no_follow_redirects, limit).await {
        Ok(answer) => {
            results.equal("status", &check.status, &answer.status.as_u16());
            results.matches("headers", &check.headers, &answer.headers);
            results.matches("body", &check.body, &answer.body);
        }
        Err(why) => results.add("status", false, check.status, why),
    }
    results.results
}

async fn fetch(url: &str, follow: bool, limit: Duration) -> Result<Answer, String> {
    let following = async {
        let mut uri: Uri = url.parse().map_err(|_| "not an address".to_owned())?;
        for _ in 0..=REDIRECTS {
            let answer = request(&uri).await?;
            match answer
                .location
                .as_deref()
                .filter(|_| follow && answer.status.is_redirection())
            {
                Some(location) => uri = target(&uri, location)?,
                None => return Ok(answer),
            }
        }
        Err(format!("more than {REDIRECTS} redirects"))
    };
    let late = |_| format!("no answer within {} ms", limit.as_millis());
    tokio::time::timeout(limit, following).await.map_err(late)?
}

async fn request(uri: &Uri) -> Result<Answer, String> {
    if uri.scheme_str() != Some("http") {
        return Err("only http:// is available yet".to_owned());
    }
    let authority = uri.authority().ok_or("it has no host")?;
    let address = SocketAddr::new(resolve(authority.host())?, authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| format!("{address}: {error}"))?;
    let broken = |error: hyper::Error| format!("{address}: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, authority.as_str())
        .header("user-agent", "vend-check")
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY)
            .collect()
            .await
            .map_err(|error| format!("{address}: {error}"))?;
        let lines = head
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
        Ok(Answer {
            status: head.status,
            headers: lines.collect(),
            location: head
                .headers
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
            body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        })
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // Once it ended, the answer is there or never will be.
        end = connection => {
            end.map_err(broken)?;
            answer.await
        }
    }
}

fn target(from: &Uri, location: &str) -> Result<Uri, String> {
    let absolute = if location.starts_with('/') {
        let authority = from.authority().map_or("", |authority| authority.as_str());
        format!("http://{authority}{location}")
    } else {
        location.to_owned()
    };
    absolute
        .parse()
        .map_err(|_| "it redirects to what is not an address".to_owned())
}

fn resolve(host: &str) -> Result<IpAddr, String> {
    let host = host.trim_matches(['[', ']']);
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    hosts
        .lines()
        .find_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|name| name == host).then_some(address)
        })
        .ok_or_else(|| format!("{host} is neither an address nor in /etc/hosts"))
}
