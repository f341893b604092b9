//! What RFC 9113 forbids, section by section, in frames made by hand: each ends its stream or its connection as the
//! section says, reaches no target, and harms nobody else.

mod frames;

use frames::*;
use tokio::io::AsyncWriteExt;

use crate::world::{self, Edge, Origin, in_front_of, soon};

/// How a violation must end. A stream's error may be treated as the connection's (section 5.4.2). hyper's h2 says
/// PROTOCOL_ERROR where the section has a code of its own, which helps only who debugs: that is let pass.
#[derive(Debug, Clone, Copy)]
enum Ends {
    /// The connection, with one of these codes.
    Connection(&'static [u32]),
    /// The stream 1, with one of these codes.
    Stream(&'static [u32]),
    /// It is none: what is not known is passed over.
    Nothing,
}

use Ends::{Connection, Nothing, Stream};

fn connections() -> Vec<(&'static str, Ends, Vec<u8>)> {
    vec![
        ("4.1 an unknown type", Nothing, frame(0xfe, 0xff, 0, b"what?")),
        ("4.1 a reserved bit", Nothing, frame(PING, 0, 1 << 31, &[0; 8])),
        (
            "4.2 too large a frame",
            Stream(&[SIZE]),
            two(open(), frame(DATA, END_STREAM, 1, &[0; 16_385])),
        ),
        (
            "4.2 too large a head",
            Connection(&[SIZE]),
            frame(HEADERS, WHOLE, 1, &[0; 16_385]),
        ),
        (
            "4.3 a head that is no HPACK",
            Connection(&[COMPRESSION]),
            frame(HEADERS, WHOLE, 1, b"\xff\xff\xff\xff\xff\xff"),
        ),
        (
            "4.3 an index of nothing",
            Connection(&[COMPRESSION]),
            frame(HEADERS, WHOLE, 1, b"\x80"),
        ),
        (
            "4.3 a head in pieces of two streams",
            Connection(&[PROTOCOL]),
            two(frame(HEADERS, END_STREAM, 1, GET), request(3)),
        ),
        (
            "5.1 DATA of an idle stream",
            Connection(&[PROTOCOL]),
            frame(DATA, END_STREAM, 1, b"x"),
        ),
        (
            "5.1 RST_STREAM of an idle stream",
            Connection(&[PROTOCOL]),
            frame(RESET, 0, 1, &[0, 0, 0, 8]),
        ),
        (
            "5.1 WINDOW_UPDATE of an idle stream",
            Connection(&[PROTOCOL]),
            window(1, 1),
        ),
        (
            "5.1 CONTINUATION of an idle stream",
            Connection(&[PROTOCOL]),
            frame(CONTINUATION, END_HEADERS, 1, GET),
        ),
        (
            "5.1 DATA after the end",
            Stream(&[CLOSED]),
            two(request(1), frame(DATA, END_STREAM, 1, b"x")),
        ),
        (
            "5.1 HEADERS after the end",
            Stream(&[CLOSED]),
            two(request(1), request(1)),
        ),
        (
            "5.1 HEADERS after a reset",
            Stream(&[CLOSED]),
            [open(), frame(RESET, 0, 1, &[0, 0, 0, 8]), request(1)].concat(),
        ),
        (
            "5.1.1 a stream of the server's",
            Connection(&[PROTOCOL]),
            request(2),
        ),
        (
            "5.1.1 an older stream",
            Connection(&[PROTOCOL, CLOSED]),
            two(request(5), request(3)),
        ),
        (
            "6.1 DATA of no stream",
            Connection(&[PROTOCOL]),
            frame(DATA, 0, 0, b"x"),
        ),
        (
            "6.1 more padding than DATA",
            Connection(&[PROTOCOL]),
            two(open(), frame(DATA, PADDED | END_STREAM, 1, b"\x09x")),
        ),
        (
            "6.2 HEADERS of no stream",
            Connection(&[PROTOCOL]),
            frame(HEADERS, WHOLE, 0, GET),
        ),
        (
            "6.2 more padding than HEADERS",
            Connection(&[PROTOCOL]),
            frame(HEADERS, PADDED | WHOLE, 1, b"\xff\x82"),
        ),
        (
            "6.3 PRIORITY of no stream",
            Connection(&[PROTOCOL]),
            frame(PRIORITY, 0, 0, &[0; 5]),
        ),
        (
            "6.3 PRIORITY of a wrong size",
            Stream(&[SIZE]),
            two(open(), frame(PRIORITY, 0, 1, &[0; 4])),
        ),
        (
            "6.4 RST_STREAM of no stream",
            Connection(&[PROTOCOL]),
            frame(RESET, 0, 0, &[0; 4]),
        ),
        (
            "6.4 RST_STREAM of a wrong size",
            Connection(&[SIZE]),
            two(open(), frame(RESET, 0, 1, &[0; 3])),
        ),
        (
            "6.5 SETTINGS of a stream",
            Connection(&[PROTOCOL]),
            frame(SETTINGS, 0, 1, &[]),
        ),
        (
            "6.5 SETTINGS of a wrong size",
            Connection(&[SIZE]),
            frame(SETTINGS, 0, 0, &[0; 3]),
        ),
        (
            "6.5 an ACK that says more",
            Connection(&[SIZE]),
            frame(SETTINGS, ACK, 0, &[0; 6]),
        ),
        ("6.5.2 ENABLE_PUSH of 2", Connection(&[PROTOCOL]), setting(2, 2)),
        (
            "6.5.2 too large an INITIAL_WINDOW_SIZE",
            Connection(&[FLOW]),
            setting(4, 1 << 31),
        ),
        (
            "6.5.2 too small a MAX_FRAME_SIZE",
            Connection(&[PROTOCOL]),
            setting(5, 16_383),
        ),
        (
            "6.5.2 too large a MAX_FRAME_SIZE",
            Connection(&[PROTOCOL]),
            setting(5, 1 << 24),
        ),
        ("6.5.2 a setting that is not known", Nothing, setting(0xfe, 1)),
        (
            "6.6 PUSH_PROMISE from a client",
            Connection(&[PROTOCOL]),
            two(
                open(),
                frame(PUSH, END_HEADERS, 1, &[&[0, 0, 0, 2], GET].concat()),
            ),
        ),
        (
            "6.7 PING of a stream",
            Connection(&[PROTOCOL]),
            frame(PING, 0, 1, &[0; 8]),
        ),
        (
            "6.7 PING of a wrong size",
            Connection(&[SIZE]),
            frame(PING, 0, 0, &[0; 6]),
        ),
        (
            "6.8 GOAWAY of a stream",
            Connection(&[PROTOCOL]),
            frame(GOAWAY, 0, 1, &[0; 8]),
        ),
        (
            "6.9 WINDOW_UPDATE of a wrong size",
            Connection(&[SIZE]),
            frame(WINDOW, 0, 0, &[0; 3]),
        ),
        (
            "6.9 WINDOW_UPDATE by nothing",
            Connection(&[PROTOCOL]),
            window(0, 0),
        ),
        (
            "6.9 WINDOW_UPDATE of a stream by nothing",
            Stream(&[PROTOCOL]),
            two(open(), window(1, 0)),
        ),
        (
            "6.9.1 too large a window",
            Connection(&[FLOW]),
            two(window(0, i32::MAX as u32), window(0, i32::MAX as u32)),
        ),
        (
            "6.9.1 too large a window of a stream",
            Stream(&[FLOW]),
            [open(), window(1, i32::MAX as u32), window(1, i32::MAX as u32)].concat(),
        ),
        (
            "6.9.2 too large a window by SETTINGS",
            Connection(&[FLOW]),
            [open(), window(1, i32::MAX as u32 - 65_535), setting(4, 65_536)].concat(),
        ),
        (
            "6.10 CONTINUATION of no stream",
            Connection(&[PROTOCOL]),
            two(
                frame(HEADERS, 0, 1, GET),
                frame(CONTINUATION, END_HEADERS, 0, b""),
            ),
        ),
        (
            "6.10 CONTINUATION of another stream",
            Connection(&[PROTOCOL]),
            two(
                frame(HEADERS, 0, 1, GET),
                frame(CONTINUATION, END_HEADERS, 3, b""),
            ),
        ),
        (
            "6.10 CONTINUATION after the end",
            Connection(&[PROTOCOL]),
            two(open(), frame(CONTINUATION, END_HEADERS, 1, b"")),
        ),
    ]
}

/// Heads that RFC 7541 calls errors of decoding.
fn packed() -> Vec<(&'static str, Vec<u8>)> {
    let value = |packed: &[u8]| [GET, b"\x00\x01x", packed].concat();
    vec![
        ("2.3.3 an index beyond the table", b"\xfe".to_vec()),
        (
            "4.2 another size of the table at the end",
            [GET, b"\x20"].concat(),
        ),
        ("5.1 a number without an end", [GET, &[0xff; 16]].concat()),
        ("5.2 a padding of eight bits and more", value(b"\x82\x1f\xff")),
        ("5.2 a padding that is not of ones", value(b"\x81\x18")),
        ("5.2 the end of the text in it", value(b"\x84\xff\xff\xff\xff")),
        ("5.2 a text that is longer than the head", value(b"\x05ab")),
        (
            "6.3 a larger table than was allowed",
            [b"\x3f\xe2\x1f", GET].concat(),
        ),
    ]
}

/// Messages that section 8 calls malformed: their stream ends, or they are answered 400.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let host = |more: &[u8]| [more, b"\x41\x09shop.test"].concat();
    let long = field("content-length", "5");
    vec![
        (
            "8.1 trailers that are not the end",
            two(open(), frame(HEADERS, END_HEADERS, 1, &field("x", "y"))),
        ),
        (
            "8.1.1 less than its length",
            frame(HEADERS, WHOLE, 1, &[POST, &long].concat()),
        ),
        (
            "8.1.1 more than its length",
            two(
                frame(HEADERS, END_HEADERS, 1, &[POST, &long].concat()),
                frame(DATA, END_STREAM, 1, b"123456"),
            ),
        ),
        ("8.2.1 an upper-case name", fields(GET, &[("X-Upper", "1")])),
        ("8.2.1 a name with a space", fields(GET, &[("x y", "1")])),
        ("8.2.1 a name with a colon", fields(GET, &[("x:y", "1")])),
        ("8.2.1 an empty name", fields(GET, &[("", "1")])),
        (
            "8.2.1 a line break in a value",
            fields(GET, &[("x", "1\r\ny: 2")]),
        ),
        ("8.2.1 a zero in a value", fields(GET, &[("x", "1\0")])),
        ("8.2.2 connection", fields(GET, &[("connection", "close")])),
        ("8.2.2 keep-alive", fields(GET, &[("keep-alive", "1")])),
        (
            "8.2.2 proxy-connection",
            fields(GET, &[("proxy-connection", "close")]),
        ),
        (
            "8.2.2 transfer-encoding",
            fields(GET, &[("transfer-encoding", "chunked")]),
        ),
        ("8.2.2 upgrade", fields(GET, &[("upgrade", "x")])),
        ("8.2.2 te with more than trailers", fields(GET, &[("te", "gzip")])),
        ("8.3 an unknown pseudo-field", fields(GET, &[(":unknown", "1")])),
        (
            "8.3 a pseudo-field of answers",
            fields(GET, &[(":status", "200")]),
        ),
        (
            "8.3 a pseudo-field after others",
            fields(
                &[&b"\x82\x86"[..], &field("x", "y")].concat(),
                &[(":path", "/"), (":authority", "shop.test")],
            ),
        ),
        ("8.3.1 two methods", fields(GET, &[(":method", "POST")])),
        ("8.3.1 two schemes", fields(GET, &[(":scheme", "https")])),
        ("8.3.1 two paths", fields(GET, &[(":path", "/other")])),
        ("8.3.1 no method", fields(&host(b"\x86\x84"), &[])),
        ("8.3.1 no scheme", fields(&host(b"\x82\x84"), &[])),
        ("8.3.1 no path", fields(&host(b"\x82\x86"), &[])),
        (
            "8.3.1 an empty path",
            fields(&host(b"\x82\x86"), &[(":path", "")]),
        ),
        (
            "8.3.1 a path that is none",
            fields(&host(b"\x82\x86"), &[(":path", "x")]),
        ),
        ("8.3.1 no host", fields(b"\x82\x86\x84", &[])),
        (
            "8.3.1 user info in the authority",
            fields(b"\x82\x86\x84", &[(":authority", "a@shop.test")]),
        ),
        ("8.5 CONNECT with a path", fields(GET, &[(":protocol", "x")])),
    ]
}

/// What came back.
#[derive(Debug, Default)]
struct Seen {
    /// Of the connection's end, when it is an error.
    goaway: Option<u32>,
    /// Codes of resets of the stream 1.
    resets: Vec<u32>,
    /// First bytes of heads of answers, by stream: 0x88 is 200, 0x8c is 400.
    heads: Vec<(u32, u8)>,
    closed: bool,
}

/// Says this after the preface, and then asks for something good, in stream 101.
async fn say(edge: &Edge, bytes: &[u8]) -> Seen {
    let mut stream = edge.connect().await;
    let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[]), bytes, &request(101)].concat();
    // An edge that has heard enough does not listen to the rest.
    let _ = stream.write_all(&opening).await;
    let mut seen = Seen::default();
    while !seen.heads.iter().any(|(stream, _)| *stream == 101) {
        match soon("a frame", next(&mut stream)).await {
            None => {
                seen.closed = true;
                break;
            }
            Some((GOAWAY, _, payload)) => {
                seen.goaway = Some(code(&payload[4..])).filter(|code| *code != 0);
            }
            Some((RESET, 1, payload)) => seen.resets.push(code(&payload)),
            Some((HEADERS, stream, payload)) => seen.heads.push((stream, payload[0])),
            Some(_) => {}
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn violations_end_what_they_must_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let edge = in_front_of(&origin, &folder).await;
    let good = |seen: &Seen| {
        seen.heads
            .iter()
            .any(|(stream, first)| (*stream, *first) == (101, 0x88))
    };
    let mut wrong = Vec::new();
    for (name, ends, bytes) in connections() {
        let seen = say(&edge, &bytes).await;
        let gone = |codes: &[u32]| {
            seen.goaway
                .is_some_and(|code| code == PROTOCOL || codes.contains(&code))
        };
        let fine = match ends {
            Nothing => good(&seen) && seen.goaway.is_none() && seen.resets.is_empty(),
            Connection(codes) => seen.closed && gone(codes),
            Stream(codes) => {
                let reset = good(&seen) && seen.resets.iter().any(|code| codes.contains(code));
                reset || seen.closed && gone(codes)
            }
        };
        if !fine {
            wrong.push(format!("{name}: {ends:?}, {seen:?}"));
        }
    }
    for (name, head) in packed() {
        let seen = say(&edge, &frame(HEADERS, WHOLE, 1, &head)).await;
        if !(seen.closed
            && seen
                .goaway
                .is_some_and(|code| [COMPRESSION, PROTOCOL].contains(&code)))
        {
            wrong.push(format!("RFC 7541, {name}: {seen:?}"));
        }
    }
    for (name, bytes) in messages() {
        let before = origin.requests().len();
        let seen = say(&edge, &bytes).await;
        let refused = seen.resets.contains(&PROTOCOL) || seen.heads.contains(&(1, 0x8c));
        if !(good(&seen) && refused || seen.goaway == Some(PROTOCOL)) {
            wrong.push(format!("{name}: {seen:?}"));
        }
        let reached: Vec<String> = origin.requests().split_off(before);
        let whole = reached
            .iter()
            .filter(|request| request.starts_with("POST") || request.contains("x: 1"));
        if whole.count() > 0 {
            wrong.push(format!("{name} reached a target: {reached:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world::body(&edge.get("shop.test", "/").await), "origin");
    edge.stop().await;
}

#[tokio::test]
async fn a_wrong_preface_is_no_connection() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let edge = in_front_of(&origin, &folder).await;
    for start in [
        &b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\n\r\n\r\n\r\n",
    ] {
        let answer = edge
            .raw([start, &frame(SETTINGS, 0, 0, &[]), &request(1)].concat())
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert!(origin.requests().is_empty());
    edge.stop().await;
}

/// h2 lets the request pass and drops the field (section 8.1 wants the request refused): what counts is that no target
/// hears of it.
#[tokio::test]
async fn a_pseudo_field_in_trailers_goes_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let edge = in_front_of(&origin, &folder).await;
    let trailers = [field("x", "y"), field(":path", "/other")].concat();
    let seen = say(&edge, &two(open(), frame(HEADERS, WHOLE, 1, &trailers))).await;
    assert!(seen.heads.iter().any(|(stream, _)| *stream == 101), "{seen:?}");
    let reached = origin.requests().concat();
    assert!(
        !reached.contains("path") && !reached.contains("/other"),
        "{reached}"
    );
    edge.stop().await;
}

/// SETTINGS and PING are acknowledged (6.5.3, 6.7), and no more is sent than there is room for (6.9).
#[tokio::test]
async fn what_a_client_says_is_acknowledged_and_its_windows_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let edge = in_front_of(&origin, &folder).await;
    let mut stream = edge.connect().await;
    let ping = *b"are you?";
    let opening = [PREFACE, &setting(4, 2), &frame(PING, 0, 0, &ping), &request(1)].concat();
    stream.write_all(&opening).await.unwrap();
    let (mut data, mut settled, mut answered) = (Vec::new(), false, false);
    while !(settled && answered && data.len() == 2) {
        match soon("a frame", next(&mut stream)).await.unwrap() {
            (SETTINGS, 0, payload) => settled |= payload.is_empty(),
            (PING, 0, payload) => answered |= payload == ping,
            (DATA, 1, payload) => data.extend(payload),
            _ => {}
        }
        assert!(data.len() <= 2, "{data:?}");
    }
    // A smaller window than what was sent is one below nothing: two bytes more make none.
    let last = *b"and now?";
    let narrow = [setting(4, 0), window(1, 2), frame(PING, 0, 0, &last)].concat();
    stream.write_all(&narrow).await.unwrap();
    loop {
        match soon("a frame", next(&mut stream)).await.unwrap() {
            (PING, 0, payload) if payload == last => break,
            (DATA, ..) => panic!("there is no room"),
            _ => {}
        }
    }
    stream.write_all(&window(1, 100)).await.unwrap();
    while data.len() < 6 {
        if let (DATA, 1, payload) = soon("a frame", next(&mut stream)).await.unwrap() {
            data.extend(payload);
        }
    }
    assert_eq!(data, b"origin");
    drop(stream);
    edge.stop().await;
}
