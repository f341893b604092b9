//! What a line of the access log looks like. What a client sent can neither end a quotation nor a line.

use std::fmt::{Display, Write};

use jiff::Timestamp;

use super::{Note, Record};
use crate::head::Ask;

/// For eyes.
pub fn short(out: &mut String, record: &Record<'_>, now: Timestamp) {
    let ask = record.ask;
    let _ = write!(out, "{now:.3} {} \"", record.ends.peer);
    push_quoted(out, or_dash(ask.method_name()));
    out.push(' ');
    push_quoted(out, &ask.host);
    push_quoted(out, or_dash(ask.target()));
    let (status, bytes, us) = (record.status, record.bytes, record.took.as_micros());
    let _ = write!(out, " {}\" {status} {bytes} {us}us ", record.version);
    match record.met {
        Some((group, target)) => {
            let _ = write!(out, "{} {} {} ", group.name(), target.id(), target.address());
        }
        None => {
            let place = note(ask).and_then(Note::place_name);
            let _ = write!(out, "{} - - ", place.unwrap_or("-"));
        }
    }
    push_quoted(out, or_dash(&ask.id));
}

/// ALB's 33 fields, in its order.
pub fn alb(out: &mut String, record: &Record<'_>, now: Timestamp) {
    let ask = record.ask;
    let _ = write!(out, "{} {now:.6} vend-edge {} ", kind(record), record.ends.peer);
    let address = address(record);
    push_or_dash(out, address);
    match record.waited {
        Some((request, target)) => {
            let _ = write!(
                out,
                " {:.3} {:.3} 0.000 ",
                request.as_secs_f64(),
                target.as_secs_f64()
            );
        }
        None => out.push_str(" -1 -1 -1 "),
    }
    let _ = write!(out, "{} ", record.status);
    push_or_dash(out, record.target_status);
    let _ = write!(out, " {} {} \"", record.received, record.sent);
    push_request(out, record);
    out.push_str("\" \"");
    push_field(out, ask, "user-agent");
    let tls = record.ends.connection.as_ref().and_then(|c| c.tls.as_ref());
    let (cipher, protocol) = tls.map_or(("-", "-"), |tls| (tls.cipher, tls.protocol));
    let _ = write!(out, "\" {cipher} {protocol} {} \"", group(record).unwrap_or("-"));
    push_field(out, ask, "x-amzn-trace-id");
    out.push_str("\" \"");
    push_quoted(out, tls.and_then(|tls| tls.name.as_deref()).unwrap_or("-"));
    out.push_str("\" \"");
    push_quoted(out, tls.and_then(|tls| tls.certificate.as_deref()).unwrap_or("-"));
    out.push_str("\" ");
    let note = note(ask);
    push_or_dash(out, note.and_then(|note| note.priority));
    let created = now - jiff::SignedDuration::try_from(record.took).unwrap_or_default();
    let _ = write!(out, " {created:.6}");
    push_text(out, note.and_then(Note::actions).as_deref());
    push_text(out, note.and_then(|note| note.redirect.as_deref()));
    push_text(out, note.and_then(|note| note.reason));
    out.push_str(" \"");
    push_or_dash(out, address);
    out.push_str("\" \"");
    push_or_dash(out, record.target_status);
    out.push('"');
    let class = note.and_then(|note| note.class);
    push_text(out, class.map(|(class, _)| class));
    push_text(out, class.map(|(_, reason)| reason));
    match &record.ends.connection {
        Some(connection) => _ = write!(out, " TID_{:016x}", connection.id),
        None => out.push_str(" -"),
    }
    push_text(out, note.and_then(|note| note.new_host.as_deref()));
    push_text(out, note.and_then(|note| note.new_url.as_deref()));
    push_text(out, note.and_then(|note| note.transform));
}

/// One object.
pub fn json(out: &mut String, record: &Record<'_>, now: Timestamp) {
    let (ask, note) = (record.ask, note(record.ask));
    let connection = record.ends.connection.as_deref();
    let tls = connection.and_then(|connection| connection.tls.as_ref());
    let class = note.and_then(|note| note.class);
    let us = |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let object = serde_json::json!({
        "time": now.to_string(),
        "type": kind(record),
        "request_id": Some(&ask.id).filter(|id| !id.is_empty()),
        "trace_id": first(ask, "x-amzn-trace-id"),
        "connection": connection.map(|connection| format!("TID_{:016x}", connection.id)),
        "client": record.ends.peer.to_string(),
        "protocol": record.version,
        "tls": ask.tls,
        "tls_cipher": tls.map(|tls| tls.cipher),
        "tls_protocol": tls.map(|tls| tls.protocol),
        "domain_name": tls.and_then(|tls| tls.name.as_deref()).map(bounded),
        "certificate": tls.and_then(|tls| tls.certificate.as_deref()),
        "method": bounded(ask.method_name()),
        "host": bounded(&ask.host),
        "path": bounded(ask.path()),
        "query": bounded(ask.query()),
        "status": record.status,
        "target_status": record.target_status,
        "bytes": record.bytes,
        "received_bytes": record.received,
        "sent_bytes": record.sent,
        "duration_us": us(record.took),
        "request_us": record.waited.map(|(request, _)| us(request)),
        "target_us": record.waited.map(|(_, target)| us(target)),
        "user_agent": first(ask, "user-agent").as_deref().map(bounded),
        "place": note.and_then(Note::place_name),
        "rule": note.and_then(|note| note.priority),
        "actions": note.and_then(Note::actions),
        "redirect_url": note.and_then(|note| note.redirect.as_deref()),
        "error_reason": note.and_then(|note| note.reason),
        "error": note.and_then(|note| note.words),
        "classification": class.map(|(class, _)| class),
        "classification_reason": class.map(|(_, reason)| reason),
        "transformed_host": note.and_then(|note| note.new_host.as_deref()),
        "transformed_uri": note.and_then(|note| note.new_url.as_deref()),
        "transform_status": note.and_then(|note| note.transform),
        "group": group(record),
        "target": record.met.map(|(_, target)| target.id()),
        "address": address(record).map(|address| address.to_string()),
    });
    let _ = write!(out, "{object}");
}

fn note(ask: &Ask) -> Option<&Note> {
    ask.note.as_deref()
}

/// ALB's types of requests.
fn kind(record: &Record<'_>) -> &'static str {
    let ask = record.ask;
    let grpc = || {
        ask.fields("content-type")
            .any(|value| value.starts_with(b"application/grpc"))
    };
    match (record.version, ask.tls, record.status) {
        ("HTTP/2", true, _) if grpc() => "grpcs",
        ("HTTP/2", true, _) => "h2",
        (_, true, 101) => "wss",
        (_, false, 101) => "ws",
        (_, true, _) => "https",
        _ => "http",
    }
}

/// Of the target that was asked, or of the last that could not be.
fn address(record: &Record<'_>) -> Option<std::net::SocketAddr> {
    match record.met {
        Some((_, target)) => Some(target.address()),
        None => note(record.ask)?.target,
    }
}

fn group<'a>(record: &Record<'a>) -> Option<&'a str> {
    match record.met {
        Some((group, _)) => Some(group.name()),
        None => note(record.ask)?.group_name(),
    }
}

/// The request's first line as ALB has it, or as much of it as there was.
fn push_request(out: &mut String, record: &Record<'_>) {
    let (ask, local) = (record.ask, record.ends.local);
    push_quoted(out, or_dash(ask.method_name()));
    let _ = write!(out, " {}://", ask.scheme());
    match ask.host.is_empty() {
        false => {
            push_quoted(out, &ask.host);
            let _ = write!(out, ":{}", ask.port);
        }
        true => _ = write!(out, "{local}"),
    }
    if ask.method_name().is_empty() {
        // ALB's own spelling of what cannot be read.
        return out.push_str("- -");
    }
    push_quoted(out, ask.target());
    let version = match record.version {
        "HTTP/2" => "HTTP/2.0",
        version => version,
    };
    let _ = write!(out, " {version}");
}

/// The first value of a header that the target got.
fn first(ask: &Ask, name: &str) -> Option<String> {
    let value = ask.fields(name).next()?;
    Some(String::from_utf8_lossy(value).into_owned())
}

fn push_field(out: &mut String, ask: &Ask, name: &str) {
    match ask.fields(name).next() {
        Some(value) => push_quoted(out, &String::from_utf8_lossy(value)),
        None => out.push('-'),
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn push_or_dash(out: &mut String, value: Option<impl Display>) {
    match value {
        Some(value) => _ = write!(out, "{value}"),
        None => out.push('-'),
    }
}

/// A field in quotation marks, after a space.
fn push_text(out: &mut String, text: Option<&str>) {
    out.push_str(" \"");
    push_quoted(out, text.unwrap_or("-"));
    out.push('"');
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

#[cfg(test)]
#[path = "line/tests.rs"]
mod tests;
