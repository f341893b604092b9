//! A client of registries: pulls and pushes. Blocking: whoever calls it is on a thread that may wait.
//!
//! OCI distribution specification 1.1; tokens as in Docker's "Token Authentication Specification". A login is given to the
//! registry itself and to the token server that it names over the same or a better transport, never to where a blob is
//! redirected.

use std::{
    fmt,
    io::Read,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::Engine as _;
use model::{Digest, Secret, spec::Reference};
use serde::Deserialize;
use ureq::{
    Agent, Body, SendBody,
    config::RedirectAuthHeaders,
    http::{Request, Response, StatusCode, header},
    tls::{Certificate, PemItem, RootCerts, TlsConfig},
    unversioned::{resolver::DefaultResolver, transport::DefaultConnector},
};

use super::{DOCUMENT_BYTES, Descriptor, Document, Error, Reach, Source, attached, manifest, reach};

const CONNECT: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(60);
/// How long whoever has an image already waits for one answer about its tag.
pub const LOOK: Duration = Duration::from_secs(5);
/// For one blob.
const BLOB: Duration = Duration::from_secs(30 * 60);
/// The machine's own authorities.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
const ACCEPT: [&str; 4] = [
    manifest::INDEX,
    manifest::MANIFEST,
    manifest::DOCKER_LIST,
    manifest::DOCKER_MANIFEST,
];

/// Who asks.
#[derive(Clone)]
pub enum Login {
    Basic {
        user: String,
        password: Secret,
    },
    /// A token that the registry takes as it is.
    Token(Secret),
}

impl Login {
    /// `USER:PASSWORD`, or a token alone.
    pub fn read(secret: &Secret) -> Self {
        match secret.expose().trim().split_once(':') {
            Some((user, password)) => Self::Basic {
                user: user.to_owned(),
                password: Secret::new(password.to_owned()),
            },
            None => Self::Token(Secret::new(secret.expose().trim().to_owned())),
        }
    }

    fn header(&self) -> String {
        match self {
            Self::Basic { user, password } => {
                let pair = format!("{user}:{}", password.expose());
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
            }
            Self::Token(token) => format!("Bearer {}", token.expose()),
        }
    }
}

/// One repository of a registry.
pub struct Repository {
    agent: Agent,
    registry: String,
    /// `https://registry.example`
    origin: String,
    name: String,
    login: Option<Login>,
    /// May it write? Tokens are for what they are asked for.
    writes: bool,
    /// What the registry last took.
    authorization: Mutex<Option<String>>,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/v2/{}", self.origin, self.name)
    }
}

impl Repository {
    /// The repository of a reference. A registry on this machine's loopback is asked over HTTP, every other over HTTPS.
    pub fn open(reference: &Reference, login: Option<Login>, reach: Reach, writes: bool) -> Self {
        let host = match reference.registry.as_str() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let scheme = if is_loopback(host) { "http" } else { "https" };
        Self {
            agent: agent(reach, None),
            registry: reference.registry.clone(),
            origin: format!("{scheme}://{host}"),
            name: reference.name.clone(),
            login,
            writes,
            authorization: Mutex::default(),
        }
    }

    /// The repository for one who only looks, and does not wait longer than [`LOOK`] for an answer.
    pub fn look(reference: &Reference, login: Option<Login>, reach: Reach) -> Self {
        Self {
            agent: agent(reach.clone(), Some(LOOK)),
            ..Self::open(reference, login, reach, false)
        }
    }

    /// What a tag names, without getting it: registries count who gets. `None` where the registry does not say.
    pub fn named(&self, wanted: &str) -> Result<Option<Digest>, Error> {
        let url = format!("{}/v2/{}/manifests/{wanted}", self.origin, self.name);
        let response = self.ask("HEAD", &url, &[("accept", &ACCEPT.join(", "))], None, wanted)?;
        if response.status() != StatusCode::OK {
            return Ok(None);
        }
        let said = response.headers().get("docker-content-digest");
        Ok(said.and_then(|value| value.to_str().ok()?.parse().ok()))
    }

    /// Whether the registry has a blob.
    pub fn has(&self, digest: &Digest) -> Result<bool, Error> {
        let url = format!("{}/v2/{}/blobs/{digest}", self.origin, self.name);
        let response = self.ask("HEAD", &url, &[], None, "a blob")?;
        Ok(response.status() == StatusCode::OK)
    }

    /// Sends a blob, unless the registry has it.
    pub fn send(&self, blob: &Descriptor, file: &std::fs::File) -> Result<bool, Error> {
        if self.has(&blob.digest)? {
            return Ok(false);
        }
        let url = format!("{}/v2/{}/blobs/uploads/", self.origin, self.name);
        let response = self.ask("POST", &url, &[("content-length", "0")], None, "an upload")?;
        self.expect(&response, StatusCode::ACCEPTED, "an upload")?;
        let location = response
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| self.wrong(&response, "an upload", "no place for the blob"))?;
        let mut url = match location.starts_with('/') {
            true => format!("{}{location}", self.origin),
            false => location.to_owned(),
        };
        // It gets the login too.
        if !self.is_own(&url) {
            return Err(self.wrong(&response, "an upload", "another registry's address"));
        }
        url.push_str(if url.contains('?') { "&digest=" } else { "?digest=" });
        url.push_str(&blob.digest.to_string());
        let length = blob.size.to_string();
        let headers = [
            ("content-length", length.as_str()),
            ("content-type", "application/octet-stream"),
        ];
        let response = self.ask("PUT", &url, &headers, Some(file), "an upload")?;
        self.expect(&response, StatusCode::CREATED, "an upload")?;
        Ok(true)
    }

    /// Names a manifest whose blobs are there, by a tag or by its own digest. Whether the registry lists it with those that
    /// are about the same image.
    pub fn tag(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<bool, Error> {
        let url = format!("{}/v2/{}/manifests/{tag}", self.origin, self.name);
        let send = |authorization: Option<&str>| {
            let mut request = self.agent.put(&url).header(header::CONTENT_TYPE, media_type);
            if let Some(value) = authorization {
                request = request.header(header::AUTHORIZATION, value);
            }
            request.send(bytes).map_err(|error| self.failed(&error))
        };
        let mut response = send(self.known().as_deref())?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let value = self.authorize(&response)?;
            response = send(value.as_deref())?;
        }
        self.expect(&response, StatusCode::CREATED, tag)?;
        Ok(response.headers().contains_key("oci-subject"))
    }

    /// Asks; once more with a login when the registry wants one.
    fn ask(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        file: Option<&std::fs::File>,
        what: &str,
    ) -> Result<Response<Body>, Error> {
        let response = self.once(method, url, headers, file, self.known().as_deref())?;
        let response = match response.status() {
            StatusCode::UNAUTHORIZED => {
                let value = self.authorize(&response)?;
                self.once(method, url, headers, file, value.as_deref())?
            }
            _ => response,
        };
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::Denied {
                registry: self.registry.clone(),
                what: format!("{} ({what})", self.name),
            }),
            _ => Ok(response),
        }
    }

    fn once(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        mut file: Option<&std::fs::File>,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, Error> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let sent = match &mut file {
            Some(file) => {
                use std::io::Seek as _;
                file.rewind().map_err(Error::Archive)?;
                let request = request.body(SendBody::from_reader(file));
                self.agent.run(request.map_err(|error| self.odd(&error))?)
            }
            None => self
                .agent
                .run(request.body(()).map_err(|error| self.odd(&error))?),
        };
        sent.map_err(|error| self.failed(&error))
    }

    fn known(&self) -> Option<String> {
        self.authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What the registry's challenge asks for (RFC 7235, "WWW-Authenticate").
    fn authorize(&self, response: &Response<Body>) -> Result<Option<String>, Error> {
        let challenges = response.headers().get_all(header::WWW_AUTHENTICATE);
        let mut found = None;
        for challenge in challenges.iter().filter_map(|value| value.to_str().ok()) {
            let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
            if scheme.eq_ignore_ascii_case("bearer") {
                found = Some(match &self.login {
                    Some(login @ Login::Token(_)) => login.header(),
                    _ => self.token(rest)?,
                });
            } else if scheme.eq_ignore_ascii_case("basic") && found.is_none() {
                found = self.login.as_ref().map(Login::header);
            }
        }
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = found.clone();
        Ok(found)
    }

    fn token(&self, challenge: &str) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let parameters = parameters(challenge);
        let get = |name: &str| {
            parameters
                .iter()
                .find(|(own, _)| own == name)
                .map(|(_, value)| value.as_str())
        };
        let realm = get("realm").unwrap_or_default();
        // A login is never sent in the clear because somebody said so.
        let is_safe = realm.starts_with("https://")
            || (realm.starts_with("http://") && self.origin.starts_with("http://"));
        if !is_safe {
            return Err(self.denied());
        }
        let actions = if self.writes { "pull,push" } else { "pull" };
        let own = format!("repository:{}:{actions}", self.name);
        let mut request = self
            .agent
            .get(realm)
            .query("scope", get("scope").filter(|_| !self.writes).unwrap_or(&own));
        if let Some(service) = get("service") {
            request = request.query("service", service);
        }
        if let Some(login) = &self.login {
            request = request.header(header::AUTHORIZATION, login.header());
        }
        let mut response = request.call().map_err(|error| self.failed(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(self.denied()),
            // Nobody looked at the login.
            _ => return Err(self.wrong(&response, "a token", "")),
        }
        let text = response.body_mut().with_config().limit(1 << 20).read_to_string();
        let answer: Option<Answer> = text.ok().and_then(|text| serde_json::from_str(&text).ok());
        let token = answer.and_then(|answer| answer.token.or(answer.access_token));
        token
            .map(|token| format!("Bearer {token}"))
            .ok_or_else(|| self.wrong(&response, "a token", "there is none in it"))
    }

    fn is_own(&self, url: &str) -> bool {
        url.strip_prefix(&self.origin)
            .is_some_and(|rest| rest.starts_with('/'))
    }

    fn expect(&self, response: &Response<Body>, status: StatusCode, what: &str) -> Result<(), Error> {
        match response.status() == status {
            true => Ok(()),
            false => Err(self.wrong(response, what, "")),
        }
    }

    fn wrong(&self, response: &Response<Body>, what: &str, said: &str) -> Error {
        Error::Answer {
            registry: self.registry.clone(),
            status: response.status().as_u16(),
            what: what.to_owned(),
            said: if said.is_empty() {
                String::new()
            } else {
                format!(": {said}")
            },
        }
    }

    fn denied(&self) -> Error {
        Error::Denied {
            registry: self.registry.clone(),
            what: self.name.clone(),
        }
    }

    fn odd(&self, error: &dyn std::error::Error) -> Error {
        Error::Unreachable {
            registry: self.registry.clone(),
            why: error.to_string(),
        }
    }

    fn failed(&self, error: &ureq::Error) -> Error {
        let text = error.to_string();
        match text.split_once(reach::PRIVATE) {
            Some((_, address)) => Error::Private {
                registry: self.registry.clone(),
                address: address.to_owned(),
            },
            None => Error::Unreachable {
                registry: self.registry.clone(),
                why: text,
            },
        }
    }
}

impl Source for Repository {
    fn document(&self, wanted: &str) -> Result<(Vec<u8>, Option<String>), Error> {
        let url = format!("{}/v2/{}/manifests/{wanted}", self.origin, self.name);
        let accept = ACCEPT.join(", ");
        let mut response = self.ask("GET", &url, &[("accept", &accept)], None, wanted)?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(Error::Missing(format!(
                "image {}/{}:{wanted}",
                self.registry, self.name
            )));
        }
        self.expect(&response, StatusCode::OK, wanted)?;
        let media_type = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let media_type = media_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_owned());
        let bytes = response
            .body_mut()
            .with_config()
            .limit(DOCUMENT_BYTES)
            .read_to_vec();
        Ok((bytes.map_err(|error| self.failed(&error))?, media_type))
    }

    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + '_>, Error> {
        let url = format!("{}/v2/{}/blobs/{}", self.origin, self.name, blob.digest);
        let response = self.ask("GET", &url, &[], None, "a blob")?;
        self.expect(&response, StatusCode::OK, "a blob")?;
        let body = response.into_body();
        Ok(Box::new(
            body.into_with_config()
                .limit(blob.size.saturating_add(1))
                .reader(),
        ))
    }

    /// As the registry lists them, or the tag in the place of that list. Of a list with pages the first is read.
    fn referrers(&self, image: &Digest) -> Result<Vec<Descriptor>, Error> {
        let url = format!("{}/v2/{}/referrers/{image}", self.origin, self.name);
        let mut response = self.ask(
            "GET",
            &url,
            &[("accept", manifest::INDEX)],
            None,
            "a list of referrers",
        )?;
        if response.status() != StatusCode::OK {
            return attached::listed(self, image);
        }
        let bytes = response
            .body_mut()
            .with_config()
            .limit(DOCUMENT_BYTES)
            .read_to_vec();
        let bytes = bytes.map_err(|error| self.failed(&error))?;
        match manifest::parse(&bytes, Some(manifest::INDEX))? {
            Document::Index(entries) => Ok(entries),
            Document::Manifest(_) => Err(self.wrong(&response, "a list of referrers", "it is none")),
        }
    }
}

fn agent(reach: Reach, whole: Option<Duration>) -> Agent {
    let authorities: Vec<Certificate<'static>> = std::fs::read(BUNDLE)
        .map(|bytes| {
            let items = ureq::tls::parse_pem(&bytes);
            items
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect()
        })
        .unwrap_or_default();
    // A machine without the bundle trusts nobody: registries in TLS are then refused.
    let roots = RootCerts::from(authorities);
    // The cryptography that the load balancer has too: one library in the binary.
    let tls = TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(5)
        .redirect_auth_headers(RedirectAuthHeaders::Never)
        .timeout_global(whole)
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(ANSWER))
        .timeout_send_body(Some(BLOB))
        .timeout_recv_body(Some(BLOB))
        .user_agent("vend")
        .tls_config(tls)
        .build();
    let lookup = reach::Lookup {
        reach,
        names: DefaultResolver::default(),
    };
    Agent::with_parts(config, DefaultConnector::default(), lookup)
}

fn is_loopback(host: &str) -> bool {
    let name = host
        .rsplit_once(':')
        .map_or(host, |(name, port)| match port.ends_with(']') {
            true => host,
            false => name,
        });
    let address = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// `name="value"` pairs of a challenge; values may hold commas, and `\` before a quote.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(after) => quoted(after),
            None => {
                let end = after.find([',', ' ']).unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        found.push((name.trim().to_ascii_lowercase(), value));
        rest = after.trim_start_matches([',', ' ']);
    }
    found
}

fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, next)| next)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let found = parameters(
            r#"realm="https://a.example/token?x=1,2",service=reg, Scope="repository:a/b:pull,push",odd="a\"b""#,
        );
        let pairs: Vec<(&str, &str)> = found
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            pairs,
            [
                ("realm", "https://a.example/token?x=1,2"),
                ("service", "reg"),
                ("scope", "repository:a/b:pull,push"),
                ("odd", "a\"b"),
            ]
        );
        assert!(parameters("").is_empty());
        assert_eq!(parameters("x=\"").len(), 1);
    }

    #[test]
    fn only_loopback_is_asked_in_the_clear() {
        for (host, expected) in [
            ("localhost:5000", true),
            ("127.0.0.1", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("registry.example:5000", false),
            ("10.0.0.1:5000", false),
            ("localhost.example", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }

    #[test]
    fn logins_are_pairs_or_tokens() {
        let pair = Login::read(&Secret::new("ada:pass:word\n".to_owned()));
        assert_eq!(pair.header(), "Basic YWRhOnBhc3M6d29yZA==");
        let token = Login::read(&Secret::new("abc".to_owned()));
        assert_eq!(token.header(), "Bearer abc");
    }
}
