//! Heads of HTTP/1.1 messages: found, parsed, judged and written anew (RFC 9112, sections 2 to 7).
//!
//! Nothing passes as it came. A head is read into fields, fields are sorted by what they mean to a proxy, and what the
//! next reader gets is written from them, so that it cannot be read in another way than it was read here.

use std::mem::MaybeUninit;

use httparse::Header;

use super::{
    class,
    frame::{Bad, Body, Framing},
};
use crate::{
    head::{Ask, CONFUSING, Method, is_confusing},
    worker::Ends,
};

/// Fields of one head.
pub const FIELDS: usize = 100;

/// What is said of heads that `class` knows.
pub const TWO_LENGTHS: &str = "there are two Content-Length fields";
pub const SAME_LENGTHS: &str = "the same Content-Length is there twice";
pub const BAD_LENGTH: &str = "the Content-Length is not a number";
pub const TWO_CODINGS: &str = "there are two Transfer-Encoding fields";
pub const BAD_CODING: &str = "the only Transfer-Encoding is chunked";
pub const BOTH: &str = "there are both Transfer-Encoding and Content-Length";
pub const BAD_FIELD: &str = "a header value is malformed";
pub const BAD_VERSION: &str = "the HTTP version is not 1.0 or 1.1";
pub const BAD_METHOD: &str = "the method is malformed";
pub const BAD_TARGET: &str = "the request target is malformed";
pub const SPACE: &str = "there is a space in the request target";

/// Looks for the end of a head in bytes that arrive bit by bit, each byte once.
#[derive(Default)]
pub struct Scan {
    at: usize,
    line: usize,
}

impl Scan {
    /// The length of the head at the start of `data`, once it is there. Lines end in CR LF and nothing else.
    pub fn find(&mut self, data: &[u8]) -> Result<Option<usize>, Bad> {
        while let Some(found) = memchr::memchr(b'\n', data.get(self.at..).unwrap_or_default()) {
            let end = self.at + found;
            if end == self.line || data[end - 1] != b'\r' {
                return Err(Bad("a line does not end in CR LF"));
            }
            self.at = end + 1;
            if std::mem::replace(&mut self.line, self.at) + 1 == end {
                return Ok(Some(self.at));
            }
        }
        self.at = data.len();
        Ok(None)
    }
}

/// What a field is to a proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Goes on to the next reader.
    Plain,
    /// Ends here, and no more is to be known of it.
    Dropped,
    Connection,
    ContentLength,
    TransferEncoding,
    Host,
    Expect,
    Upgrade,
    Te,
    ForwardedFor,
    RequestId,
    TraceId,
}

impl Kind {
    fn of(name: &str) -> Self {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        match name.len() {
            2 if is("te") => Self::Te,
            4 if is("host") => Self::Host,
            6 if is("expect") => Self::Expect,
            7 if is("upgrade") => Self::Upgrade,
            10 if is("connection") => Self::Connection,
            10 if is("keep-alive") => Self::Dropped,
            12 if is("x-request-id") => Self::RequestId,
            14 if is("content-length") => Self::ContentLength,
            14 if is("http2-settings") => Self::Dropped,
            15 if is("x-forwarded-for") => Self::ForwardedFor,
            15 if is("x-amzn-trace-id") => Self::TraceId,
            16 if is("proxy-connection") || is("x-forwarded-port") => Self::Dropped,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            17 if is("x-forwarded-proto") => Self::Dropped,
            // Gateway interfaces make the same variable of `_` and `-`: such a field would pass for ours.
            16.. if name[..12].eq_ignore_ascii_case("x-amzn-oidc-") => Self::Dropped,
            17.. if name[..12].eq_ignore_ascii_case("x-amzn-mtls-") => Self::Dropped,
            12 | 14..=40 if name.contains('_') => Self::of_underscored(name),
            _ => Self::Plain,
        }
    }

    fn of_underscored(name: &str) -> Self {
        match Self::of(&name.replace('_', "-")) {
            Self::Plain => Self::Plain,
            _ => Self::Dropped,
        }
    }
}

/// May a field go on as it is? The others mean something to a proxy.
pub fn passes(name: &str) -> bool {
    Kind::of(name) == Kind::Plain
}

/// Fields with their kinds, as slices of the head.
struct Fields<'h, 'b> {
    headers: &'h [Header<'b>],
    kinds: [Kind; FIELDS],
}

impl<'h, 'b> Fields<'h, 'b> {
    fn new(headers: &'h [Header<'b>]) -> Self {
        let mut kinds = [Kind::Plain; FIELDS];
        for (kind, header) in kinds.iter_mut().zip(headers) {
            *kind = Kind::of(header.name);
        }
        Self { headers, kinds }
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &'b [u8]> {
        self.with_kinds()
            .filter(move |(_, k)| *k == kind)
            .map(|(header, _)| header.value)
    }

    /// The one field of this kind; several are an error.
    fn one(&self, kind: Kind, several: &'static str) -> Result<Option<&'b [u8]>, Bad> {
        let mut fields = self.of(kind);
        match (fields.next(), fields.next()) {
            (first, None) => Ok(first),
            _ => Err(Bad(several)),
        }
    }

    fn with_kinds(&self) -> impl Iterator<Item = (&'h Header<'b>, Kind)> {
        self.headers.iter().zip(self.kinds)
    }

    /// Does the `Connection` field name this option?
    fn connection_has(&self, option: &str) -> bool {
        self.of(Kind::Connection).any(|value| has_token(value, option))
    }

    /// What goes on: plain fields that `Connection` does not name.
    fn plain(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> {
        let named = self.of(Kind::Connection).any(|value| {
            tokens(value).any(|t| {
                !["keep-alive", "close", "upgrade", "te"]
                    .iter()
                    .any(|k| is_token(t, k))
            })
        });
        self.with_kinds()
            .filter(move |(header, kind)| {
                *kind == Kind::Plain && !(named && self.connection_has(header.name))
            })
            .map(|(header, _)| (header.name, header.value))
    }

    /// Transfer-Encoding and Content-Length together, twice, or in any but the plainest form are refused.
    fn framing(&self, http10: bool) -> Result<Option<Body>, Bad> {
        let coding = self.one(Kind::TransferEncoding, TWO_CODINGS)?;
        let length = self.one(Kind::ContentLength, TWO_LENGTHS).map_err(|bad| {
            let mut lengths = self.of(Kind::ContentLength);
            let first = lengths.next();
            match lengths.all(|length| Some(length) == first) {
                true => Bad(SAME_LENGTHS),
                false => bad,
            }
        })?;
        match (coding, length) {
            (Some(_), Some(_)) => Err(Bad(BOTH)),
            (Some(_), None) if http10 => Err(Bad("HTTP/1.0 has no Transfer-Encoding")),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Body::chunked())),
            (Some(_), None) => Err(Bad(BAD_CODING)),
            (None, Some(length)) => match number(length).ok_or(Bad(BAD_LENGTH))? {
                0 => Ok(Some(Body::Empty)),
                length => Ok(Some(Body::Length(length))),
            },
            (None, None) => Ok(None),
        }
    }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

fn is_token(token: &[u8], wanted: &str) -> bool {
    token.eq_ignore_ascii_case(wanted.as_bytes())
}

fn has_token(value: &[u8], wanted: &str) -> bool {
    tokens(value).any(|token| is_token(token, wanted))
}

/// Digits only: no sign, no space, no list.
fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 18 && text.iter().all(u8::is_ascii_digit);
    digits.then(|| text.iter().fold(0, |sum, b| sum * 10 + u64::from(b - b'0')))
}

fn bad(error: httparse::Error) -> Bad {
    Bad(match error {
        httparse::Error::TooManyHeaders => "there are too many header fields",
        httparse::Error::HeaderName => "a header name is malformed",
        httparse::Error::HeaderValue => BAD_FIELD,
        httparse::Error::Version => BAD_VERSION,
        _ => "the head of the message is malformed",
    })
}

/// The same for a request: which part of its first line it is.
fn bad_request(error: httparse::Error, head: &[u8]) -> Bad {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let words = line.split(|b| *b == b' ');
    let last = words.clone().next_back().unwrap_or_default();
    match error {
        httparse::Error::Version
            if words.clone().count() > 3 && [&b"HTTP/1.0"[..], b"HTTP/1.1"].contains(&last) =>
        {
            Bad(SPACE)
        }
        httparse::Error::Token => {
            let method = words.clone().next().unwrap_or_default();
            let good = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
            match !method.is_empty() && method.iter().all(good) {
                true => Bad(BAD_TARGET),
                false => Bad(BAD_METHOD),
            }
        }
        error => bad(error),
    }
}

/// What the proxy needs to know of a request, beside the `Ask`.
#[derive(Default)]
pub struct Request {
    pub http10: bool,
    /// The client wants to send more requests.
    pub keep: bool,
    pub body: Body,
    /// It asks for another protocol, and may have it.
    pub upgrade: bool,
}

/// Reads the head of a request and writes what targets get.
pub fn request(head: &[u8], ends: &Ends, bits: (u64, u64), ask: &mut Ask) -> Result<Request, Bad> {
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    parsed
        .parse_with_uninit_headers(head, &mut slots)
        .map_err(|error| bad_request(error, head))?;
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Bad("the head of the message is malformed"));
    };
    let fields = Fields::new(parsed.headers);
    let http10 = version == 0;
    let body = fields.framing(http10)?.unwrap_or_default();
    let keep = match http10 {
        true => fields.connection_has("keep-alive"),
        false => !fields.connection_has("close"),
    };
    let upgrade = wanted_upgrade(&fields, http10, method, &body);
    let expect = fields.one(Kind::Expect, "there are two Expect fields")?;
    if expect.is_some_and(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Bad("the expectation is not 100-continue"));
    }

    let (authority, target) = split_target(method, target)?;
    ask.start(method, target, ends);
    if is_confusing(ask.path()) {
        return Err(Bad(CONFUSING));
    }
    name_host(ask, &fields, authority, http10, ends)?;
    for (name, value) in fields.plain() {
        ask.header(name.as_bytes(), value);
    }
    match &body {
        Body::Length(length) => ask.header(b"Content-Length", length.to_string().as_bytes()),
        Body::Chunked(_) => ask.header(b"Transfer-Encoding", b"chunked"),
        _ if fields.of(Kind::ContentLength).next().is_some() => ask.header(b"Content-Length", b"0"),
        _ => {}
    }
    if expect.is_some() && !http10 && !body.is_over() {
        ask.header(b"Expect", b"100-continue");
    }
    if let Some(protocol) = upgrade {
        ask.header(b"Connection", b"Upgrade");
        ask.header(b"Upgrade", protocol);
    } else if !http10 && fields.of(Kind::Te).any(|value| has_token(value, "trailers")) {
        ask.header(b"Connection", b"TE");
        ask.header(b"TE", b"trailers");
    }
    ask.forwarded(fields.of(Kind::ForwardedFor), ends)?;
    let (id, trace) = (fields.of(Kind::RequestId).next(), fields.of(Kind::TraceId).next());
    ask.identify(id, trace, bits);
    ask.end();
    if matches!(ask.method, Method::Get | Method::Head)
        && let Some(note) = &mut ask.note
    {
        note.class = match &body {
            Body::Length(_) => Some(class::BODY),
            Body::Chunked(_) => Some(class::CHUNKS),
            _ => fields.of(Kind::ContentLength).next().map(|_| class::EMPTY_BODY),
        };
    }
    Ok(Request {
        http10,
        keep,
        body,
        upgrade: upgrade.is_some(),
    })
}

/// The protocol that a request may change to. HTTP/2 is not one of them: through an upgrade it would pass requests by.
fn wanted_upgrade<'b>(fields: &Fields<'_, 'b>, http10: bool, method: &str, body: &Body) -> Option<&'b [u8]> {
    let protocol = fields.of(Kind::Upgrade).next()?;
    let may = !http10 && method == "GET" && body.is_over() && fields.connection_has("upgrade");
    let http2 = protocol.len() >= 2 && protocol[..2].eq_ignore_ascii_case(b"h2");
    (may && !http2 && !protocol.contains(&b',')).then_some(protocol)
}

/// Splits the absolute form (RFC 9112, section 3.2.2), in which the authority wins over the `Host` field.
fn split_target<'a>(method: &str, target: &'a str) -> Result<(Option<&'a str>, &'a str), Bad> {
    if target.contains('#') {
        return Err(Bad("the request target holds a fragment"));
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") || method == "CONNECT" {
        return Ok((None, target));
    }
    let scheme = target.find("://").map(|end| (&target[..end], &target[end + 3..]));
    match scheme {
        Some((scheme, rest))
            if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") =>
        {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let path = match &rest[end..] {
                "" => "/",
                path if path.starts_with('/') => path,
                _ => return Err(Bad("the request target has no path")),
            };
            Ok((Some(&rest[..end]), path))
        }
        _ => Err(Bad("the request target is not a path")),
    }
}

fn name_host(
    ask: &mut Ask,
    fields: &Fields<'_, '_>,
    authority: Option<&str>,
    http10: bool,
    ends: &Ends,
) -> Result<(), Bad> {
    let field = fields.one(Kind::Host, "there are two Host fields")?;
    let field = match field {
        Some(value) => Some(str::from_utf8(value).map_err(|_| Bad("the Host field is not a host"))?),
        None if http10 => None,
        None => return Err(Bad("there is no Host field")),
    };
    match authority.or(field) {
        Some(host) if ask.name_host(host) => Ok(()),
        Some(_) => Err(Bad("the Host field is not a host")),
        None => {
            // The target speaks HTTP/1.1 and must get one; for rules there is none.
            ask.line_of_host(&ends.local.to_string());
            Ok(())
        }
    }
}

/// What the proxy needs to know of an answer.
pub struct Reply {
    pub status: u16,
    pub body: Body,
    /// The connection to the target may serve another request afterwards.
    pub keep: bool,
}

impl Reply {
    /// 100 to 199, after which the real answer comes.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// How the body goes on to a client that reads HTTP/1.1 (or 1.0, which has no chunks).
    pub fn framing(&self, http10: bool) -> Framing {
        match self.body {
            Body::Chunked(_) | Body::UntilClose if !http10 => Framing::Chunked,
            _ => Framing::Plain,
        }
    }

    /// The end of the connection is the only end that the client can see.
    pub fn ends_by_close(&self, http10: bool) -> bool {
        http10 && matches!(self.body, Body::Chunked(_) | Body::UntilClose)
    }
}

/// Reads the head of an answer and gives each field that goes on to `sink`, after status and reason to `start`.
pub fn reply<'b, T>(
    head: &'b [u8],
    to_head: bool,
    start: impl FnOnce(u16, &'b str) -> T,
    sink: impl FnMut(&mut T, &'b str, &'b [u8]),
) -> Result<(Reply, T), Bad> {
    let mut sink = sink;
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, head, &mut slots)
        .map_err(bad)?;
    let (Some(status), Some(reason), Some(version)) = (parsed.code, parsed.reason, parsed.version) else {
        return Err(Bad("the head of the answer is malformed"));
    };
    if !(100..=999).contains(&status) {
        return Err(Bad("the status is not a status"));
    }
    let fields = Fields::new(parsed.headers);
    let http10 = version == 0;
    // RFC 9112, section 6.3: these have no body, whatever their fields say.
    let bare = status < 200 || status == 204;
    let none = to_head || bare || status == 304;
    let framing = fields.framing(http10)?;
    let mut out = start(status, reason);
    for (name, value) in fields.plain() {
        sink(&mut out, name, value);
    }
    // Their values mean nothing here, but to the client.
    for (header, kind) in fields.with_kinds() {
        let kept = match kind {
            Kind::ContentLength => !bare,
            Kind::Upgrade => status == 101,
            Kind::RequestId | Kind::TraceId | Kind::ForwardedFor => true,
            _ => false,
        };
        if kept {
            sink(&mut out, header.name, header.value);
        }
    }
    let body = match framing {
        _ if none => Body::Empty,
        Some(body) => body,
        None => Body::UntilClose,
    };
    let keep = match http10 {
        true => fields.connection_has("keep-alive"),
        false => !fields.connection_has("close"),
    };
    let keep = keep && !matches!(body, Body::UntilClose);
    Ok((Reply { status, body, keep }, out))
}

/// Reads trailer fields and writes those that may pass. Fields that say how to read or route a message may not.
pub fn trailers(lines: &[u8]) -> Result<Vec<u8>, Bad> {
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    let lines = [lines, b"\r\n"].concat();
    let mut slots = [httparse::EMPTY_HEADER; 32];
    let httparse::Status::Complete((_, headers)) =
        httparse::parse_headers(&lines, &mut slots).map_err(|_| Bad("a trailer field is malformed"))?
    else {
        return Err(Bad("a trailer field is malformed"));
    };
    let mut out = Vec::with_capacity(lines.len());
    for header in headers
        .iter()
        .filter(|header| Kind::of(header.name) == Kind::Plain)
    {
        out.extend_from_slice(header.name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(header.value);
        out.extend_from_slice(b"\r\n");
    }
    Ok(out)
}
