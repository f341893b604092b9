//! Lines beside the examples that ALB's documentation has of its own.

use std::{rc::Rc, time::Duration};

use super::*;
use crate::{
    access::Connection, answer::Answer, balance::Group, http1::class, target::Target, tls::Agreed,
    worker::Ends,
};

const GROUP: &str =
    "arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/my-targets/73e2d6bc24d8a067";
const CERTIFICATE: &str =
    "arn:aws:acm:us-east-2:123456789012:certificate/12345678-1234-1234-1234-123456789012";
/// Fields that stand in quotation marks, by their number.
const QUOTED: [usize; 15] = [12, 13, 17, 18, 19, 22, 23, 24, 25, 26, 27, 28, 30, 31, 32];

/// The fields of a line, which is one of ALB's: all 33, and quotation marks where it has them.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut rest) = (Vec::new(), line);
    while !rest.is_empty() {
        let number = fields.len();
        let end = match rest.strip_prefix('"') {
            Some(inside) => {
                assert!(QUOTED.contains(&number), "field {number} of {line}");
                inside.find('"').expect("a quotation ends") + 2
            }
            None => {
                assert!(!QUOTED.contains(&number), "field {number} of {line}");
                rest.find(' ').unwrap_or(rest.len())
            }
        };
        fields.push(rest[..end].trim_matches('"').to_owned());
        assert!(rest[end..].is_empty() || rest[end..].starts_with(' '), "{line}");
        rest = rest[end..].strip_prefix(' ').unwrap_or_default();
    }
    assert_eq!(fields.len(), 33, "{line}");
    fields
}

/// A request, and what became of it.
struct Case {
    line: String,
    peer: &'static str,
    /// Where it arrived.
    local: &'static str,
    host: &'static str,
    agent: Option<&'static str>,
    trace: &'static str,
    tls: Option<Agreed>,
    version: &'static str,
    target: &'static str,
    status: u16,
    moved: (u64, u64),
    waited: (u64, u64),
    note: Note,
}

fn agreed(name: Option<&str>, certificate: Option<&str>) -> Option<Agreed> {
    Some(Agreed {
        cipher: "ECDHE-RSA-AES128-GCM-SHA256",
        protocol: "TLSv1.2",
        name: name.map(str::to_owned),
        certificate: certificate.map(str::to_owned),
    })
}

fn forwarded(priority: u32) -> Note {
    Note {
        priority: Some(priority),
        action: Some("forward"),
        ..Note::default()
    }
}

/// What is said of a case.
fn said(case: &Case) -> Vec<String> {
    let ends = Ends {
        peer: case.peer.parse().unwrap(),
        local: case.local.parse().unwrap(),
        tls: case.tls.is_some(),
        identity: None,
        connection: Some(Rc::new(Connection {
            id: 0x1234_abcd_5678_ef90,
            tls: case.tls.as_ref().map(|tls| Agreed {
                name: tls.name.clone(),
                certificate: tls.certificate.clone(),
                ..*tls
            }),
        })),
        only: None,
    };
    let mut ask = Ask::noting(true);
    ask.start("GET", "/", &ends);
    assert!(ask.name_host(case.host));
    if let Some(agent) = case.agent {
        ask.header(b"User-Agent", agent.as_bytes());
    }
    ask.header(b"X-Amzn-Trace-Id", case.trace.as_bytes());
    let Note {
        priority,
        login,
        action,
        ..
    } = case.note;
    let note = ask.note.as_mut().unwrap();
    (note.priority, note.login, note.action) = (priority, login, action);
    note.redirect.clone_from(&case.note.redirect);
    let target = Target::new(&model::route::Target {
        id: "h".into(),
        address: case.target.parse().unwrap(),
    });
    let group = Group::new(GROUP, Vec::new(), std::sync::Arc::default(), None);
    let record = Record {
        ends: &ends,
        version: case.version,
        ask: &ask,
        met: Some((&group, &target)),
        status: case.status,
        target_status: Some(case.status),
        bytes: 9,
        received: case.moved.0,
        sent: case.moved.1,
        waited: Some((
            Duration::from_millis(case.waited.0),
            Duration::from_millis(case.waited.1),
        )),
        // From the example's creation to its time.
        took: Duration::from_micros(11_822_641),
    };
    let mut line = String::new();
    alb(&mut line, &record, "2018-07-02T22:23:00.186641Z".parse().unwrap());
    fields(&line)
}

/// The four examples of requests that were forwarded; they have what came later, from `conn_trace_id` on, as `-`.
#[test]
fn albs_documented_examples_are_written_as_alb_writes_them() {
    let example = |kind, client, target, waited, status, moved, request, agent, cipher, trace, rest| {
        format!(
            "{kind} 2018-07-02T22:23:00.186641Z vend-edge {client} {target} {waited} 0.000 {status} {status} {moved} \
             \"{request}\" \"{agent}\" {cipher} {GROUP} \"{trace}\" {rest} \"{target}\" \"{status}\" \"-\" \"-\" \
             TID_1234abcd5678ef90 \"-\" \"-\" \"-\""
        )
    };
    let secure = "ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2";
    for case in [
        Case {
            line: example(
                "http",
                "192.168.131.39:2817",
                "10.0.0.1:80",
                "0.000 0.001",
                "200",
                "34 366",
                "GET http://www.example.com:80/ HTTP/1.1",
                "curl/7.46.0",
                "- -",
                "Root=1-58337262-36d228ad5d99923122bbe354",
                "\"-\" \"-\" 0 2018-07-02T22:22:48.364000Z \"forward\" \"-\" \"-\"",
            ),
            peer: "192.168.131.39:2817",
            local: "10.0.0.9:80",
            host: "www.example.com",
            agent: Some("curl/7.46.0"),
            trace: "Root=1-58337262-36d228ad5d99923122bbe354",
            tls: None,
            version: "HTTP/1.1",
            target: "10.0.0.1:80",
            status: 200,
            moved: (34, 366),
            waited: (0, 1),
            note: forwarded(0),
        },
        Case {
            line: example(
                "https",
                "192.168.131.39:2817",
                "10.0.0.1:80",
                "0.086 0.048",
                "200",
                "0 57",
                "GET https://www.example.com:443/ HTTP/1.1",
                "curl/7.46.0",
                secure,
                "Root=1-58337281-1d84f3d73c47ec4e58577259",
                &format!(
                    "\"www.example.com\" \"{CERTIFICATE}\" 1 2018-07-02T22:22:48.364000Z \"authenticate,forward\" \
                     \"-\" \"-\""
                ),
            ),
            peer: "192.168.131.39:2817",
            local: "10.0.0.9:443",
            host: "www.example.com",
            agent: Some("curl/7.46.0"),
            trace: "Root=1-58337281-1d84f3d73c47ec4e58577259",
            tls: agreed(Some("www.example.com"), Some(CERTIFICATE)),
            version: "HTTP/1.1",
            target: "10.0.0.1:80",
            status: 200,
            moved: (0, 57),
            waited: (86, 48),
            note: Note {
                login: true,
                ..forwarded(1)
            },
        },
        Case {
            line: example(
                "h2",
                "10.0.1.252:48160",
                "10.0.0.66:9000",
                "0.000 0.002",
                "200",
                "5 257",
                "GET https://10.0.2.105:773/ HTTP/2.0",
                "curl/7.46.0",
                secure,
                "Root=1-58337327-72bd00b0343d75b906739c42",
                "\"-\" \"-\" 1 2018-07-02T22:22:48.364000Z \"redirect\" \"https://example.com:80/\" \"-\"",
            ),
            peer: "10.0.1.252:48160",
            local: "10.0.2.105:773",
            host: "10.0.2.105",
            agent: Some("curl/7.46.0"),
            trace: "Root=1-58337327-72bd00b0343d75b906739c42",
            tls: agreed(None, None),
            version: "HTTP/2",
            target: "10.0.0.66:9000",
            status: 200,
            moved: (5, 257),
            waited: (0, 2),
            note: Note {
                action: Some("redirect"),
                redirect: Some("https://example.com:80/".into()),
                ..forwarded(1)
            },
        },
        Case {
            line: example(
                "ws",
                "10.0.0.140:40914",
                "10.0.1.192:8010",
                "0.001 0.003",
                "101",
                "218 587",
                "GET http://10.0.0.30:80/ HTTP/1.1",
                "-",
                "- -",
                "Root=1-58337364-23a8c76965a2ef7629b185e3",
                "\"-\" \"-\" 1 2018-07-02T22:22:48.364000Z \"forward\" \"-\" \"-\"",
            ),
            peer: "10.0.0.140:40914",
            local: "10.0.0.30:80",
            host: "10.0.0.30",
            agent: None,
            trace: "Root=1-58337364-23a8c76965a2ef7629b185e3",
            tls: None,
            version: "HTTP/1.1",
            target: "10.0.1.192:8010",
            status: 101,
            moved: (218, 587),
            waited: (1, 3),
            note: forwarded(1),
        },
        Case {
            line: example(
                "wss",
                "10.0.0.140:44244",
                "10.0.0.171:8010",
                "0.000 0.001",
                "101",
                "218 786",
                "GET https://10.0.0.30:443/ HTTP/1.1",
                "-",
                secure,
                "Root=1-58337364-23a8c76965a2ef7629b185e3",
                "\"-\" \"-\" 1 2018-07-02T22:22:48.364000Z \"forward\" \"-\" \"-\"",
            ),
            peer: "10.0.0.140:44244",
            local: "10.0.0.30:443",
            host: "10.0.0.30",
            agent: None,
            trace: "Root=1-58337364-23a8c76965a2ef7629b185e3",
            tls: agreed(None, None),
            version: "HTTP/1.1",
            target: "10.0.0.171:8010",
            status: 101,
            moved: (218, 786),
            waited: (0, 1),
            note: forwarded(1),
        },
    ] {
        assert_eq!(said(&case), fields(&case.line));
    }
}

/// What the edge answers itself: no target, no times, and why.
#[test]
fn what_no_target_has_answered_has_no_times_and_a_reason() {
    let ends = Ends {
        peer: "192.0.2.9:9".parse().unwrap(),
        local: "192.0.2.1:80".parse().unwrap(),
        tls: false,
        identity: None,
        connection: None,
        only: None,
    };
    let malformed = Answer::bad_request(crate::http1::parse::BOTH);
    // Head, answer, and then: request line, agent, error, class and its reason.
    for (head, answer, line, agent, error, class) in [
        (
            "GET /a HTTP/1.1\r\nHost: A.test\r\nuser-agent: x\r\n",
            &malformed,
            "GET http://a.test:80/a HTTP/1.1",
            "x",
            "MalformedRequest",
            ("Ambiguous", "BothTeClPresent"),
        ),
        (
            "GET\u{0}/ HTTP/1.1\r\n",
            &Answer::bad_request("what it is"),
            "- http://192.0.2.1:80- -",
            "-",
            "MalformedRequest",
            ("-", "-"),
        ),
        (
            "",
            &Answer::request_timeout(),
            "- http://192.0.2.1:80- -",
            "-",
            "RequestTimeout",
            ("-", "-"),
        ),
        (
            "GET /a b HTTP/1.1\r\nHost: \"\r\n",
            &Answer::bad_request(crate::http1::parse::SPACE),
            "- http://192.0.2.1:80- -",
            "-",
            "MalformedRequest",
            ("Acceptable", "SpaceInUri"),
        ),
        (
            "",
            &Answer::too_many("too many"),
            "- http://192.0.2.1:80- -",
            "-",
            "TooManyRequests",
            ("-", "-"),
        ),
    ] {
        let mut ask = Ask::noting(true);
        ask.guess(head.as_bytes(), &ends);
        ask.note.as_mut().unwrap().answer(answer);
        let record = Record {
            ends: &ends,
            version: "HTTP/1.1",
            ask: &ask,
            met: None,
            status: answer.status,
            target_status: None,
            bytes: 0,
            received: 7,
            sent: 8,
            waited: None,
            took: Duration::ZERO,
        };
        let mut out = String::new();
        alb(&mut out, &record, "2018-07-02T22:23:00.186641Z".parse().unwrap());
        let status = answer.status.to_string();
        assert_eq!(
            fields(&out),
            [
                "http",
                "2018-07-02T22:23:00.186641Z",
                "vend-edge",
                "192.0.2.9:9",
                "-",
                "-1",
                "-1",
                "-1",
                &status,
                "-",
                "7",
                "8",
                line,
                agent,
                "-",
                "-",
                "-",
                "-",
                "-",
                "-",
                "-",
                "2018-07-02T22:23:00.186641Z",
                "-",
                "-",
                error,
                "-",
                "-",
                class.0,
                class.1,
                "-",
                "-",
                "-",
                "-",
            ]
        );
        out.clear();
        json(&mut out, &record, "2018-07-02T22:23:00.186641Z".parse().unwrap());
        let object: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (&object["status"], &object["target_status"]),
            (&answer.status.into(), &().into())
        );
        assert_eq!(
            (&object["error_reason"], &object["error"]),
            (&error.into(), &(&*answer.body).into())
        );
        out.clear();
        short(&mut out, &record, "2018-07-02T22:23:00.186641Z".parse().unwrap());
        assert!(
            crate::access::newest::about(&out).is_some_and(|(_, place)| place == "-"),
            "{out}"
        );
    }
}

#[test]
fn what_is_said_of_a_malformed_head_has_albs_name() {
    let ends = Ends {
        peer: "192.0.2.9:9".parse().unwrap(),
        local: "192.0.2.1:80".parse().unwrap(),
        tls: false,
        identity: None,
        connection: None,
        only: None,
    };
    for (head, reason) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
            "MultipleContentLength",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
            "DuplicateContentLength",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n",
            "BadContentLength",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "BothTeClPresent",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "MultipleTransferEncodingChunked",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n",
            "BadTransferEncoding",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{1}\r\n", "BadHeader"),
        ("GET / HTTP/3.1\r\nHost: a\r\n", "BadVersion"),
        ("G@T / HTTP/1.1\r\nHost: a\r\n", "BadMethod"),
        ("GET /\u{7f} HTTP/1.1\r\nHost: a\r\n", "BadUri"),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n", "SpaceInUri"),
    ] {
        let mut ask = Ask::noting(true);
        let head = format!("{head}\r\n");
        let bad = crate::http1::parse::request(head.as_bytes(), &ends, (1, 2), &mut ask)
            .err()
            .unwrap();
        assert_eq!(
            class::of(bad.0).map(|(_, reason)| reason),
            Some(reason),
            "{head}: {bad}"
        );
    }
    for (head, reason) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n", None),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n",
            Some("GetHeadZeroContentLength"),
        ),
        (
            "HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n",
            Some("UndefinedContentLengthSemantics"),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n",
            Some("UndefinedTransferEncodingSemantics"),
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n", None),
    ] {
        let mut ask = Ask::noting(true);
        let head = format!("{head}\r\n");
        assert!(crate::http1::parse::request(head.as_bytes(), &ends, (1, 2), &mut ask).is_ok());
        let class = ask.note.as_ref().unwrap().class;
        assert_eq!(class.map(|(_, reason)| reason), reason, "{head}");
    }
}
