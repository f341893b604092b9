//! The head of a request as targets get it, and what routing needs of it. HTTP/1.1 and HTTP/2 clients end up here.

use std::{io::Write, net::IpAddr};

use crate::{
    access::Note,
    clock,
    http1::frame::{Bad, TOO_FAR},
    listener::Only,
    worker::Ends,
};

/// Addresses that `X-Forwarded-For` may name when a request comes (ALB's limit, which answers 463 to more).
pub const STATIONS: usize = 30;

/// The methods that change how a request is handled; all others are `Other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    #[default]
    Get,
    Head,
    /// May be sent twice (RFC 9110, section 9.2.2).
    Idempotent,
    /// Not for a balancer: CONNECT and TRACE.
    Refused,
    Other,
}

impl Method {
    pub fn of(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "PUT" | "DELETE" | "OPTIONS" => Self::Idempotent,
            "CONNECT" | "TRACE" => Self::Refused,
            _ => Self::Other,
        }
    }
}

/// One request, ready to be sent. Re-used from one request of a connection to the next.
#[derive(Default)]
pub struct Ask {
    /// What the target gets: the head, and after it as much of the body as has come with it.
    pub wire: Vec<u8>,
    pub method: Method,
    /// Lower case, without port and final dot; empty when the request named none.
    pub host: String,
    /// Where the client connected to.
    pub port: u16,
    /// The client's address.
    pub peer: Option<IpAddr>,
    /// The client speaks TLS.
    pub tls: bool,
    /// It connected to an address that only this machine has.
    pub loopback: bool,
    /// The hosts that are to be had where it came; all when there are none.
    pub only: Option<Only>,
    /// It came to a socket for bytes, or datagrams, that is a rule's own.
    pub bytes: bool,
    /// The request id, for the log.
    pub id: String,
    /// What else the log says of it; none where there is no log.
    pub note: Option<Box<Note>>,
    method_name: String,
    target: String,
    path_len: usize,
    /// Bytes of the first line and the `Host` line of `wire`, which transforms replace.
    top: usize,
    /// The `Host` line that the client sent, where another stands in its place. A request that met no target elsewhere may
    /// yet go to one that is here.
    host_line: Vec<u8>,
}

impl Ask {
    /// What the log has to know is kept, if `logged`.
    pub fn noting(logged: bool) -> Self {
        Self {
            note: logged.then(Box::default),
            ..Self::default()
        }
    }

    /// Begins a request. `target` is a path with an optional query, or `*`.
    pub fn start(&mut self, method: &str, target: &str, ends: &Ends) {
        // What a large request has left behind is not kept for the next.
        self.wire.clear();
        self.wire.shrink_to(16 * 1024);
        self.host.clear();
        self.id.clear();
        if let Some(note) = &mut self.note {
            note.clear();
        }
        self.port = ends.local.port();
        self.peer = Some(ends.peer.ip().to_canonical());
        self.tls = ends.tls;
        self.loopback = ends.local.ip().to_canonical().is_loopback();
        self.only.clone_from(&ends.only);
        self.bytes = false;
        self.method = Method::of(method);
        self.method_name.clear();
        self.method_name.push_str(method);
        self.target.clear();
        self.target.push_str(target);
        self.path_len = target.find('?').unwrap_or(target.len());
        self.wire.extend_from_slice(method.as_bytes());
        self.wire.push(b' ');
        self.wire.extend_from_slice(target.as_bytes());
        self.wire.extend_from_slice(b" HTTP/1.1\r\n");
        self.top = 0;
        self.host_line.clear();
    }

    /// Begins with what can be told of a request that could not be read, for the log. None of it is sent on.
    pub fn guess(&mut self, input: &[u8], ends: &Ends) {
        const ENOUGH: usize = 8 * 1024;
        let seen = String::from_utf8_lossy(&input[..input.len().min(ENOUGH)]);
        let mut words = seen.lines().next().unwrap_or_default().split(' ');
        let (method, target) = match (words.next(), words.next(), words.next(), words.next()) {
            (Some(method), Some(target), Some(version), None) if version.starts_with("HTTP/") => {
                (method, target)
            }
            _ => ("", ""),
        };
        self.start(method, target, ends);
        self.wire.clear();
        self.wire.extend_from_slice(seen.as_bytes());
        let host = self
            .fields("host")
            .next()
            .and_then(|host| str::from_utf8(host).ok());
        self.host = host.and_then(host_of).unwrap_or_default().to_ascii_lowercase();
    }

    /// Keeps the head for the log: what comes of the body takes its place.
    pub fn keep_head(&mut self) {
        if let Some(note) = &mut self.note {
            let end = memchr::memmem::find(&self.wire, b"\r\n\r\n").map_or(0, |end| end + 4);
            note.head.clear();
            note.head.extend_from_slice(&self.wire[..end]);
        }
    }

    /// The head that the target got.
    fn head(&self) -> &[u8] {
        match &self.note {
            Some(note) if !note.head.is_empty() => &note.head,
            _ => &self.wire,
        }
    }

    /// The `Host` line. False when it is not a host.
    #[must_use]
    pub fn name_host(&mut self, authority: &str) -> bool {
        let Some(host) = host_of(authority) else {
            return false;
        };
        self.host.push_str(host);
        self.host.make_ascii_lowercase();
        self.line_of_host(authority);
        true
    }

    /// The `Host` line that the target gets, the first of all.
    pub fn line_of_host(&mut self, authority: &str) {
        self.header(b"Host", authority.as_bytes());
        self.top = self.wire.len();
    }

    /// Does the target get another `Host` line than the client sent?
    pub fn is_changed(&self) -> bool {
        !self.host_line.is_empty()
    }

    /// The target gets this path and query, and this host, in place of the client's, and these lines as well. What was
    /// replaced before is replaced again: a request may be sent to several targets.
    pub fn transform(&mut self, url: Option<&str>, host: Option<&str>, more: &str) {
        if self.top == 0 {
            return;
        }
        let mut lines = self.wire[..self.top].split(|b| *b == b'\n').skip(1);
        if self.host_line.is_empty() {
            self.host_line = lines.next().unwrap_or_default().to_vec();
        }
        let host = match host {
            Some(host) => format!("Host: {host}\r").into_bytes(),
            None => self.host_line.clone(),
        };
        let first = format!(
            "{} {} HTTP/1.1\r\n",
            self.method_name,
            url.unwrap_or(&self.target)
        );
        let top = [first.as_bytes(), &host, b"\n", more.as_bytes()].concat();
        let length = top.len();
        self.wire.splice(..self.top, top);
        self.top = length;
    }

    /// The values of a header field as the client sent them, in order. The name's case does not matter.
    pub fn fields<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let via = name.eq_ignore_ascii_case("x-forwarded-for");
        self.lines().filter_map(move |line| {
            let (key, value) = line.split_at_checked(name.len())?;
            let value = value
                .strip_prefix(b": ")
                .filter(|_| key.eq_ignore_ascii_case(name.as_bytes()))?;
            // The last address is our own word.
            match via {
                true => Some(&value[..value.windows(2).rposition(|pair| pair == b", ")?]),
                false => Some(value),
            }
        })
    }

    /// The lines of the head, but for the first.
    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.head().split(|b| *b == b'\n').skip(1);
        lines
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
            .take_while(|line| !line.is_empty())
    }

    /// Does the client name no other port than that of plain HTTP?
    pub fn is_at_usual_port(&self) -> bool {
        let host = self.fields("host").next().unwrap_or_default();
        let colon = host.iter().rposition(|b| *b == b':');
        let port = colon.and_then(|at| str::from_utf8(&host[at + 1..]).ok());
        port.and_then(|port| port.parse().ok())
            .is_none_or(|port: u16| port == 80)
    }

    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    pub fn header(&mut self, name: &[u8], value: &[u8]) {
        self.wire.extend_from_slice(name);
        self.wire.extend_from_slice(b": ");
        self.wire.extend_from_slice(value);
        self.wire.extend_from_slice(b"\r\n");
    }

    /// The lines that tell the target where the request came from. `via` is what `X-Forwarded-For` held before: as at
    /// ALB, no more than [`STATIONS`] addresses, so that nothing that asks itself through proxies goes round for ever.
    pub fn forwarded<'a>(&mut self, via: impl Iterator<Item = &'a [u8]>, ends: &Ends) -> Result<(), Bad> {
        self.wire.extend_from_slice(b"X-Forwarded-For: ");
        let mut stations = 0;
        for before in via {
            stations += before.split(|b| *b == b',').count();
            self.wire.extend_from_slice(before);
            self.wire.extend_from_slice(b", ");
        }
        if stations > STATIONS {
            return Err(TOO_FAR);
        }
        let _ = match ends.peer.ip().to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                write!(self.wire, "{a}.{b}.{c}.{d}")
            }
            ip @ IpAddr::V6(_) => write!(self.wire, "{ip}"),
        };
        let _ = write!(
            self.wire,
            "\r\nX-Forwarded-Proto: {}\r\nX-Forwarded-Port: {}\r\n",
            self.scheme(),
            ends.local.port()
        );
        if let Some(identity) = &ends.identity {
            self.wire.extend_from_slice(identity.as_bytes());
        }
        Ok(())
    }

    /// Keeps the ids that the client brought and makes those that are missing.
    pub fn identify(&mut self, request: Option<&[u8]>, trace: Option<&[u8]>, bits: (u64, u64)) {
        let good = |id: &&[u8]| !id.is_empty() && id.len() <= 128 && id.iter().all(u8::is_ascii_graphic);
        if let Some(id) = request.filter(good) {
            self.id.extend(id.iter().map(|b| char::from(*b)));
        } else {
            push_hex(&mut self.id, bits.0, 16);
            push_hex(&mut self.id, bits.1, 16);
        }
        self.wire.extend_from_slice(b"X-Request-Id: ");
        self.wire.extend_from_slice(self.id.as_bytes());
        self.wire.extend_from_slice(b"\r\nX-Amzn-Trace-Id: ");
        let good = |trace: &&[u8]| !trace.is_empty() && trace.len() <= 1024;
        let trace = trace.filter(good).unwrap_or_default();
        let fields = || trace.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        // As ALB: who has a root gets the number of this station beside it, in the place of an older one.
        let rooted = fields().any(|field| field.starts_with(b"Root="));
        let mut made = String::with_capacity(40);
        made.push_str(if rooted { "Self=1-" } else { "Root=1-" });
        push_hex(&mut made, clock::now().as_second().unsigned_abs(), 8);
        made.push('-');
        push_hex(&mut made, bits.0, 16);
        push_hex(&mut made, bits.1, 8);
        self.wire.extend_from_slice(made.as_bytes());
        for field in fields().filter(|field| !field.is_empty() && !field.starts_with(b"Self=")) {
            self.wire.push(b';');
            self.wire.extend_from_slice(field);
        }
        self.wire.extend_from_slice(b"\r\n");
    }

    pub fn end(&mut self) {
        self.wire.extend_from_slice(b"\r\n");
    }

    pub fn method_name(&self) -> &str {
        &self.method_name
    }

    pub fn path(&self) -> &str {
        &self.target[..self.path_len]
    }

    /// Without the question mark.
    pub fn query(&self) -> &str {
        self.target.get(self.path_len + 1..).unwrap_or_default()
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        &self.target
    }

    pub fn is_head(&self) -> bool {
        self.method == Method::Head
    }

    /// May it be sent again after so many bytes of it were? All of it must still be there, and either the target has none
    /// of it or a second time changes nothing.
    pub fn may_repeat(&self, sent: usize) -> bool {
        !self.wire.is_empty() && (sent == 0 || self.is_idempotent())
    }

    pub fn is_idempotent(&self) -> bool {
        matches!(self.method, Method::Get | Method::Head | Method::Idempotent)
    }
}

/// Can this be the host of a request, without a port?
pub fn is_host(host: &str) -> bool {
    !host.is_empty() && host_of(host) == Some(host)
}

/// What is said of such a path.
pub const CONFUSING: &str = "the path means another one to whoever resolves it";

/// Does a path mean another one to whoever resolves dot segments, decoded once or with parameters behind a semicolon, or
/// takes a backslash or an encoded slash for a slash? Rules look at paths as
/// they are, so such a path could pass one rule by and arrive as if by another.
pub fn is_confusing(path: &str) -> bool {
    // Some leave out what is behind a semicolon, others decode first.
    let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    if memchr::memchr3(b'.', b'\\', b'%', path.as_bytes()).is_none() {
        return false;
    }
    if path.contains('\\') || path.split('/').any(is_dots) {
        return true;
    }
    if !path.contains('%') {
        return false;
    }
    let codes = path.to_ascii_lowercase();
    let plain = codes.replace("%2e", ".").replace("%2f", "/").replace("%3b", ";");
    codes.contains("%5c") || codes.contains("%00") || plain.split('/').any(is_dots)
}

/// The last `digits` hexadecimal digits of a number.
fn push_hex(out: &mut String, bits: u64, digits: u32) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for digit in (0..digits).rev() {
        out.push(char::from(HEX[(bits >> (digit * 4)) as usize & 15]));
    }
}

/// The host of an authority (RFC 3986, section 3.2) without port and final dot. User info is refused: it only serves to
/// make a host look like another.
fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let close = rest.find(']')?;
            let inside = rest[..close].bytes();
            if !inside
                .into_iter()
                .all(|b| b.is_ascii_hexdigit() || b":.".contains(&b))
            {
                return None;
            }
            authority.split_at(close + 2)
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let good = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
            if !host.bytes().all(good) {
                return None;
            }
            (host.strip_suffix('.').unwrap_or(host), port)
        }
    };
    let port = port
        .strip_prefix(':')
        .unwrap_or(if port.is_empty() { "" } else { "?" });
    let good = host.len() <= 253 && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    good.then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_mean_another_are_known() {
        for (path, expected) in [
            ("/a/b.c", false),
            ("/a/../b", true),
            ("/a/..", true),
            ("/./a", true),
            ("/a/...", false),
            ("/a/.hidden", false),
            ("/%2e%2E/a", true),
            ("/.%2e/a", true),
            ("/%2e%2e%2e/a", false),
            ("/a%2fb", false),
            ("/a/..;/b", true),
            ("/a/.;x=1/b", true),
            ("/a/..%3Bx/b", true),
            ("/..%2fa", true),
            ("/a/b%2F..", true),
            ("/a%2f%2e%2e%2fb", true),
            ("/%2e%2e%2fa", true),
            ("/a%2f.b", false),
            ("/a..;/b", false),
            ("/a;..", false),
            ("/%252e%252e/a", false),
            ("/%2%2ee/a", false),
            ("/a\\b", true),
            ("/a%5Cb", true),
            ("/a%00", true),
            ("/%é", false),
            ("*", false),
        ] {
            assert_eq!(is_confusing(path), expected, "{path}");
        }
    }

    #[test]
    fn hosts_lose_port_and_final_dot() {
        for (authority, host) in [
            ("Example.com", Some("Example.com")),
            ("example.com:8080", Some("example.com")),
            ("example.com.", Some("example.com")),
            ("example.com.:80", Some("example.com")),
            ("[::1]:80", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("", Some("")),
            ("user@example.com", None),
            ("a b", None),
            ("a,b", None),
            ("example.com:80:80", None),
            ("example.com:x", None),
            ("[::1]x", None),
            ("[::1", None),
            ("a/b", None),
        ] {
            assert_eq!(host_of(authority), host, "{authority}");
        }
    }
}
