//! Answers that the edge gives itself: one line of text that says what happened.

use std::{borrow::Cow, io::Write};

use model::route::Redirect;

use crate::{
    clock,
    head::Ask,
    http1::frame::{HEAD_TOO_LARGE, TOO_FAR, TOO_LARGE},
    table::Fixed,
};

/// One answer, for HTTP/1.1 and HTTP/2 alike.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub content_type: Cow<'static, str>,
    pub location: Option<String>,
    pub body: Cow<'static, str>,
    /// Seconds after which it may be tried again.
    pub retry_after: Option<u16>,
    /// Values of `Set-Cookie`.
    pub cookies: Vec<String>,
    /// It is true only now: nobody may keep it.
    pub passing: bool,
    /// Why it is given in the place of a target's or a rule's, in one word for the log.
    pub reason: Option<&'static str>,
}

impl Answer {
    fn new(status: u16, body: &'static str) -> Self {
        Self {
            status,
            content_type: Cow::Borrowed("text/plain; charset=utf-8"),
            location: None,
            body: Cow::Borrowed(body),
            retry_after: None,
            cookies: Vec::new(),
            passing: false,
            reason: None,
        }
    }

    /// The same, for this reason.
    pub fn because(self, reason: &'static str) -> Self {
        Self {
            reason: Some(reason),
            ..self
        }
    }

    /// The request cannot be understood in one way only.
    pub fn bad_request(why: &'static str) -> Self {
        match why {
            why if why == TOO_LARGE.0 => Self::new(413, why).because("BodyTooLarge"),
            why if why == HEAD_TOO_LARGE.0 => Self::new(400, why).because("HeadTooLarge"),
            // ALB's own number.
            why if why == TOO_FAR.0 => Self::new(463, why).because("TooManyAddresses"),
            why => Self::new(400, why).because("MalformedRequest"),
        }
    }

    /// As HTTP/2 says it of a head (RFC 6585, section 5).
    pub fn head_too_large() -> Self {
        Self {
            status: 431,
            ..Self::bad_request(HEAD_TOO_LARGE.0)
        }
    }

    pub fn not_allowed() -> Self {
        Self::new(405, "this method is not supported here").because("MethodNotAllowed")
    }

    pub fn request_timeout() -> Self {
        Self::new(408, "the request did not arrive in time").because("RequestTimeout")
    }

    fn bad_gateway(why: &'static str) -> Self {
        Self::new(502, why)
    }

    /// There is nobody at the target's address.
    pub fn target_refused() -> Self {
        Self::bad_gateway("the target refused the connection").because("TargetConnectionRefused")
    }

    pub fn target_unreachable() -> Self {
        Self::bad_gateway("the target cannot be reached").because("TargetUnreachable")
    }

    pub fn target_closed() -> Self {
        Self::bad_gateway("the target closed the connection without an answer")
            .because("TargetClosedConnection")
    }

    pub fn target_invalid() -> Self {
        Self::bad_gateway("the target sent an invalid answer").because("TargetInvalidAnswer")
    }

    pub fn target_broke_off() -> Self {
        Self::bad_gateway("the target broke its answer off").because("TargetBrokeOff")
    }

    pub fn given_up() -> Self {
        Self::bad_gateway("the request was given up")
    }

    /// No rule is for the request.
    pub fn not_found() -> Self {
        Self::new(503, "host not found")
    }

    pub fn no_targets() -> Self {
        Self::new(503, "no targets are registered").because("NoTargets")
    }

    /// Somebody asks more than they may.
    pub fn too_many(why: &'static str) -> Self {
        Self {
            retry_after: Some(1),
            ..Self::new(429, why).because("TooManyRequests")
        }
    }

    /// The hosts of a group are starting. A browser shows this and asks again by itself.
    pub fn waking(html: bool) -> Self {
        const PAGE: &str = "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=2>\
            <title>Starting</title><p>This is starting, and will be here in a moment.";
        let plain = Self {
            retry_after: Some(2),
            ..Self::new(503, "this is starting; try again in a moment").because("TargetsStarting")
        };
        match html {
            true => Self {
                content_type: Cow::Borrowed("text/html; charset=utf-8"),
                body: Cow::Borrowed(PAGE),
                ..plain
            },
            false => plain,
        }
    }

    /// ALB's own number: what the client speaks is not what the group's targets do.
    pub fn incompatible() -> Self {
        Self::new(464, "the targets speak another version of HTTP than the request")
            .because("ProtocolMismatch")
    }

    pub fn target_late() -> Self {
        Self::new(504, "the target did not answer in time").because("TargetAnswerTimeout")
    }

    pub fn connect_timeout() -> Self {
        Self::new(504, "the target did not accept the connection in time").because("TargetConnectTimeout")
    }

    /// A transform found its pattern, and what came of it is no request.
    pub fn untransformed() -> Self {
        Self::new(500, "the request cannot be transformed as its rule says").because("TransformFailed")
    }

    /// People sign in here, and what they show must stay between them and us.
    pub fn insecure() -> Self {
        Self::new(403, "this is served over HTTPS only").because("InsecureConnection")
    }

    /// Who is there may not ask.
    pub fn not_let_in() -> Self {
        Self::new(403, "this is not served to your address")
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "sign in to see this")
    }

    /// ALB's own number.
    pub fn refused_by_provider() -> Self {
        Self::new(561, "the identity provider has not signed you in")
    }

    pub fn provider_failed() -> Self {
        Self::new(500, "the identity provider gives no usable answer").because("AuthUnhandledException")
    }

    /// To another address, with cookies.
    pub fn sent_to(location: String, cookies: Vec<String>) -> Self {
        Self {
            location: Some(location),
            cookies,
            ..Self::new(302, "")
        }
    }

    pub fn text(text: String) -> Self {
        Self {
            body: Cow::Owned(text),
            ..Self::new(200, "")
        }
    }

    pub fn fixed(fixed: &Fixed) -> Self {
        Self {
            content_type: Cow::Owned(fixed.content_type.to_string()),
            body: Cow::Owned(fixed.body.to_string()),
            ..Self::new(fixed.status, "")
        }
    }

    /// A redirect, with ALB's placeholders filled in. They hold what the parser let through: nothing that could end a
    /// header. A port that its protocol has anyway is left out.
    pub fn redirect(redirect: &Redirect, ask: &Ask) -> Self {
        let port = ask.port.to_string();
        let parts = [
            ("#{protocol}", ask.scheme()),
            ("#{host}", &ask.host),
            ("#{port}", &port),
            ("#{path}", ask.path().trim_start_matches('/')),
            ("#{query}", ask.query()),
        ];
        let fill = |text: &str| filled(text, &parts);
        let protocol = fill(&redirect.protocol).to_ascii_lowercase();
        let (host, port, path, query) = (
            fill(&redirect.host),
            fill(&redirect.port),
            fill(&redirect.path),
            fill(&redirect.query),
        );
        let usual = matches!((&*protocol, &*port), ("http", "80") | ("https", "443"));
        let port = if usual { String::new() } else { format!(":{port}") };
        let query = if query.is_empty() {
            query
        } else {
            format!("?{query}")
        };
        Self {
            location: Some(format!("{protocol}://{host}{port}{path}{query}")),
            ..Self::new(redirect.status, "")
        }
    }

    /// As HTTP/1.1. A HEAD request gets the same head and no body.
    pub fn write(&self, out: &mut Vec<u8>, connection: &str, head: bool) {
        let reason = hyper::StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Unknown");
        let date = clock::now().strftime("%a, %d %b %Y %H:%M:%S GMT");
        let (status, content_type) = (self.status, &self.content_type);
        let _ = write!(out, "HTTP/1.1 {status} {reason}\r\nDate: {date}\r\n");
        // RFC 9110, section 8.6: 204 has no content and so no length.
        let has_body = status != 204;
        if has_body {
            let _ = write!(out, "Content-Length: {}\r\n", self.body.len());
        }
        if has_body && !self.body.is_empty() {
            let _ = write!(out, "Content-Type: {content_type}\r\n");
        }
        if let Some(location) = &self.location {
            let _ = write!(out, "Location: {location}\r\n");
        }
        if self.passing {
            out.extend_from_slice(b"Cache-Control: no-store\r\n");
        }
        for cookie in &self.cookies {
            let _ = write!(out, "Set-Cookie: {cookie}\r\n");
        }
        if let Some(seconds) = self.retry_after {
            let _ = write!(out, "Retry-After: {seconds}\r\n");
        }
        out.extend_from_slice(connection.as_bytes());
        out.extend_from_slice(b"\r\n");
        if has_body && !head {
            out.extend_from_slice(self.body.as_bytes());
        }
    }
}

/// The text with these words replaced. What comes in their place is not looked through for others.
fn filled(text: &str, words: &[(&str, &str)]) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("#{") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let known = words.iter().find(|(word, _)| rest.starts_with(word));
        let (word, value) = known.copied().unwrap_or(("#{", "#{"));
        out.push_str(value);
        rest = &rest[word.len()..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Ends;

    /// What ALB documents of redirects: each part may be kept, changed, or made of the parts of the request; a port that is
    /// usual is not said.
    #[test]
    fn redirects_are_made_of_the_parts_of_the_request() {
        let location = |asked: &str, tls: bool, edit: &dyn Fn(&mut Redirect)| {
            let ends = Ends {
                peer: "192.0.2.9:1".parse().unwrap(),
                local: if tls { "192.0.2.1:443" } else { "192.0.2.1:80" }
                    .parse()
                    .unwrap(),
                tls,
                identity: None,
                connection: None,
                only: None,
            };
            let mut ask = Ask::default();
            ask.start("GET", asked, &ends);
            assert!(ask.name_host("shop.test"));
            let mut redirect = Redirect::default();
            edit(&mut redirect);
            let answer = Answer::redirect(&redirect, &ask);
            assert_eq!(answer.status, redirect.status);
            answer.location.unwrap()
        };
        type Edit = fn(&mut Redirect);
        let cases: [(&str, bool, Edit, &str); 11] = [
            ("/a/b?c=d", false, |_| (), "http://shop.test/a/b?c=d"),
            ("/", true, |_| (), "https://shop.test/"),
            (
                "/a?b",
                false,
                |to| (to.protocol, to.port) = ("HTTPS".into(), "443".into()),
                "https://shop.test/a?b",
            ),
            (
                "/a",
                false,
                |to| to.protocol = "HTTPS".into(),
                "https://shop.test:80/a",
            ),
            (
                "/a",
                true,
                |to| to.port = "8443".into(),
                "https://shop.test:8443/a",
            ),
            (
                "/a",
                false,
                |to| to.host = "www.#{host}".into(),
                "http://www.shop.test/a",
            ),
            (
                "/a/b",
                false,
                |to| to.path = "/new/#{path}".into(),
                "http://shop.test/new/a/b",
            ),
            (
                "/a?x=1",
                false,
                |to| to.query = "#{query}&from=#{host}".into(),
                "http://shop.test/a?x=1&from=shop.test",
            ),
            (
                "/a?x=1",
                false,
                |to| to.query = String::new(),
                "http://shop.test/a",
            ),
            (
                "/a?x=1",
                false,
                |to| {
                    (to.status, to.path, to.query) =
                        (307, "/#{port}/#{protocol}/#{host}".into(), "p=#{path}".into())
                },
                "http://shop.test/80/http/shop.test?p=a",
            ),
            // What a visitor asks for is no pattern.
            ("/#{query}?x=1", false, |_| (), "http://shop.test/#{query}?x=1"),
        ];
        for (asked, tls, edit, expected) in cases {
            assert_eq!(location(asked, tls, &edit), expected);
        }
    }
}
