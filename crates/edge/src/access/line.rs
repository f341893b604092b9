//! What a line of the access log looks like. What a client sent can neither end a quotation nor a line.

use std::fmt::Write;

use super::Record;
use crate::{clock, head::Ask};

/// For eyes.
pub fn short(out: &mut String, record: &Record<'_>) {
    let ask = record.ask;
    let _ = write!(out, "{:.3} {} \"", clock::now(), record.peer);
    push_quoted(out, ask.method_name());
    out.push(' ');
    push_quoted(out, &ask.host);
    push_quoted(out, ask.target());
    let (status, bytes, us) = (record.status, record.bytes, record.took.as_micros());
    let _ = write!(out, " {}\" {status} {bytes} {us}us ", record.version);
    match record.lease {
        Some(lease) => {
            let target = &lease.target;
            let _ = write!(
                out,
                "{} {} {} ",
                lease.group.name(),
                target.id(),
                target.address()
            );
        }
        None => {
            let _ = write!(out, "{} - - ", ask.place().unwrap_or("-"));
        }
    }
    push_quoted(out, &ask.id);
}

/// ALB's fields: type, time, balancer, client, target, three times, two statuses, two sizes, request, agent, cipher,
/// protocol, group, trace, host, certificate, rule, creation, action, redirect, error, targets, statuses, two classes.
pub fn alb(out: &mut String, record: &Record<'_>) {
    let ask = record.ask;
    let kind = match (record.version, ask.tls) {
        ("HTTP/2", true) => "h2",
        (_, true) => "https",
        _ => "http",
    };
    let now = clock::now();
    let created = now - jiff::SignedDuration::try_from(record.took).unwrap_or_default();
    let _ = write!(out, "{kind} {now:.6} vend-edge {} ", record.peer);
    let seconds = record.took.as_secs_f64();
    let status = record.status;
    match record.lease {
        Some(lease) => {
            let _ = write!(
                out,
                "{} 0.000 {seconds:.3} 0.000 {status} {status} ",
                lease.target.address()
            );
        }
        None => {
            let _ = write!(out, "- -1 -1 -1 {status} - ");
        }
    }
    let _ = write!(out, "- {} \"", record.bytes);
    push_quoted(out, ask.method_name());
    let _ = write!(out, " {}://", ask.scheme());
    push_quoted(out, &ask.host);
    let _ = write!(out, ":{}", ask.port);
    push_quoted(out, ask.target());
    let version = if record.version == "HTTP/2" {
        "HTTP/2.0"
    } else {
        record.version
    };
    let _ = write!(out, " {version}\" \"");
    push_quoted(out, &first(ask, "user-agent"));
    out.push_str("\" - - ");
    out.push_str(record.lease.map_or("-", |lease| lease.group.name()));
    out.push_str(" \"");
    push_quoted(out, &first(ask, "x-amzn-trace-id"));
    out.push_str("\" \"");
    push_quoted(out, &ask.host);
    let rule = record
        .lease
        .map_or("-".to_owned(), |lease| lease.rule.priority.to_string());
    let _ = write!(out, "\" \"-\" {rule} {created:.6} ");
    match record.lease {
        Some(lease) => {
            let _ = write!(
                out,
                "\"forward\" \"-\" \"-\" \"{}\" \"{status}\" \"-\" \"-\"",
                lease.target.address()
            );
        }
        None => out.push_str("\"-\" \"-\" \"-\" \"-\" \"-\" \"-\" \"-\""),
    }
}

/// One object.
pub fn json(out: &mut String, record: &Record<'_>) {
    let ask = record.ask;
    let lease = record.lease;
    let object = serde_json::json!({
        "time": clock::now().to_string(),
        "request_id": ask.id,
        "client": record.peer.to_string(),
        "protocol": record.version,
        "tls": ask.tls,
        "method": bounded(ask.method_name()),
        "host": bounded(&ask.host),
        "path": bounded(ask.path()),
        "query": bounded(ask.query()),
        "status": record.status,
        "bytes": record.bytes,
        "duration_us": u64::try_from(record.took.as_micros()).unwrap_or(u64::MAX),
        "user_agent": bounded(&first(ask, "user-agent")),
        "place": ask.place(),
        "rule": lease.map(|lease| lease.rule.priority),
        "group": lease.map(|lease| lease.group.name()),
        "target": lease.map(|lease| lease.target.id()),
        "address": lease.map(|lease| lease.target.address().to_string()),
    });
    let _ = write!(out, "{object}");
}

/// The first value of a header that the target got; `-` when there is none.
fn first(ask: &Ask, name: &str) -> String {
    let value = ask.fields(name).next();
    value.map_or("-".to_owned(), |value| {
        String::from_utf8_lossy(value).into_owned()
    })
}

/// At most 1 KiB.
fn bounded(text: &str) -> &str {
    text.char_indices()
        .nth(1024)
        .map_or(text, |(end, _)| &text[..end])
}

fn push_quoted(out: &mut String, text: &str) {
    for c in bounded(text).chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
    }
}
