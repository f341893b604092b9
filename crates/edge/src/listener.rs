//! What a listener speaks, and the first steps of each of its connections: the word of a proxy before it, TLS, and then
//! HTTP or whatever passes through.

use std::{collections::HashMap, io, net::TcpListener, rc::Rc, sync::Arc};

use camino::Utf8PathBuf;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    answer::Answer,
    http1,
    link::Stream,
    login::pem,
    pass, proxy,
    tls::{self, CHALLENGE, Certificates, Tls},
    worker::{Ends, Worker},
};

/// One listening socket.
#[derive(Debug)]
pub struct Listener {
    /// Already bound. The supervisor holds it too: connections that arrive during a restart wait in its queue.
    pub socket: TcpListener,
    pub speaks: Speaks,
    /// Every connection begins with the word of a proxy (PROXY protocol, version 1 or 2), which says where it came from.
    /// Whoever can connect is believed.
    pub proxied: bool,
}

/// What is spoken at a listener.
#[derive(Debug, Clone)]
pub enum Speaks {
    /// HTTP/1.1 and HTTP/2, routed by rules.
    Http,
    /// The same in TLS.
    Https(Box<Tls>),
    /// Bytes, to the target group of the rule for this host.
    Tcp { host: String },
    /// TLS that is not ended here, to the target group of the rule for the host that the client names (SNI).
    Sni,
}

impl Listener {
    /// Plain HTTP.
    pub fn http(socket: TcpListener) -> Self {
        Self {
            socket,
            speaks: Speaks::Http,
            proxied: false,
        }
    }
}

/// A listener, ready for its connections.
#[derive(Clone)]
pub struct Door {
    speaks: Spoken,
    proxied: bool,
    /// The hosts that are to be had there; all when there are none.
    pub only: Option<Only>,
}

/// Hosts, or patterns of them.
pub type Only = Arc<[Box<str>]>;

impl Door {
    pub fn http() -> Self {
        Self {
            speaks: Spoken::Http,
            proxied: false,
            only: None,
        }
    }

    /// Bytes, to the target group of the rule for this host.
    pub fn bytes(host: &str) -> Self {
        Self {
            speaks: Spoken::Tcp(host.into()),
            ..Self::http()
        }
    }

    pub fn only<'a>(self, hosts: impl Iterator<Item = &'a str>) -> Self {
        Self {
            only: Some(hosts.map(Box::from).collect()),
            proxied: false,
            ..self
        }
    }

    pub fn is_secure(&self) -> bool {
        matches!(self.speaks, Spoken::Https(_))
    }
}

#[derive(Clone)]
enum Spoken {
    Http,
    Https(Arc<ServerConfig>),
    Tcp(Arc<str>),
    Sni,
}

/// Folders to watch.
type Watched = Vec<(Utf8PathBuf, Arc<Certificates>)>;

/// Makes listeners ready. Those with one folder of certificates share them.
pub fn doors(listeners: &[Listener]) -> Result<(Vec<Door>, Watched), tls::Error> {
    let mut folders: HashMap<Utf8PathBuf, Arc<Certificates>> = HashMap::new();
    let mut doors = Vec::new();
    for listener in listeners {
        let speaks = match &listener.speaks {
            Speaks::Http => Spoken::Http,
            Speaks::Tcp { host } => Spoken::Tcp(host.as_str().into()),
            Speaks::Sni => Spoken::Sni,
            Speaks::Https(tls) => {
                let path = &tls.certificates;
                let certificates = match folders.get(path) {
                    Some(known) => Arc::clone(known),
                    None => {
                        let new = Arc::new(Certificates::default());
                        new.read(path).map_err(|source| tls::Error::Read {
                            path: path.clone(),
                            source,
                        })?;
                        folders.insert(path.clone(), Arc::clone(&new));
                        new
                    }
                };
                Spoken::Https(tls::server(tls, certificates)?)
            }
        };
        doors.push(Door {
            speaks,
            proxied: listener.proxied,
            only: None,
        });
    }
    Ok((doors, folders.into_iter().collect()))
}

/// Serves one connection to its end.
pub async fn serve(worker: Rc<Worker>, door: &Door, stream: TcpStream, ends: Ends) {
    let patience = worker.limits.head_time;
    let greeted = tokio::time::timeout(patience, greet(door, stream, ends)).await;
    let (stream, ends) = match greeted {
        Ok(Ok(greeted)) => greeted,
        // It spoke no TLS, or no PROXY protocol, or nothing.
        Ok(Err(_)) | Err(_) => {
            worker
                .shared
                .totals
                .refused
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return;
        }
    };
    if let Stream::Tls(tls) = &stream
        && tls.get_ref().1.alpn_protocol() == Some(CHALLENGE)
    {
        // The handshake was the answer.
        return;
    }
    let client = worker.register(stream, None);
    match &door.speaks {
        Spoken::Http | Spoken::Https(_) => http1::serve(worker, client, ends).await,
        Spoken::Tcp(host) => pass::through(&worker, &client, ends, Some(host)).await,
        Spoken::Sni => pass::through(&worker, &client, ends, None).await,
    }
}

/// Turns a connection of a source away that has too many.
pub fn refuse(worker: &Worker, door: &Door, stream: &TcpStream) {
    worker
        .shared
        .totals
        .limited
        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    if matches!(door.speaks, Spoken::Http) {
        let mut out = Vec::new();
        Answer::too_many("too many connections from this address").write(
            &mut out,
            "Connection: close\r\n",
            false,
        );
        // A word on the way out; who does not listen misses it.
        let _ = stream.try_write(&out);
    }
}

async fn greet(door: &Door, stream: TcpStream, ends: Ends) -> io::Result<(Stream, Ends)> {
    let (mut stream, mut ends) = (stream, ends);
    if door.proxied
        && let Some((peer, local)) = proxy::read(&mut stream).await?
    {
        (ends.peer, ends.local) = (peer, local);
    }
    let Spoken::Https(config) = &door.speaks else {
        return Ok((Stream::Tcp(stream), ends));
    };
    // Answers of a handshake are small, and waited for.
    let _ = stream.set_nodelay(true);
    let tls = TlsAcceptor::from(Arc::clone(config)).accept(stream).await?;
    ends.tls = true;
    ends.identity = identity(&tls);
    Ok((Stream::Tls(Box::new(tls)), ends))
}

/// What ALB says of a client's certificate, as header lines.
fn identity(tls: &TlsStream<TcpStream>) -> Option<Rc<str>> {
    let leaf = tls.get_ref().1.peer_certificates()?.first()?;
    let facts = tls::facts(leaf)?;
    let tls::Facts {
        serial,
        issuer,
        subject,
        from,
        until,
    } = facts;
    let lines = format!(
        "X-Amzn-Mtls-Clientcert-Serial-Number: {serial}\r\n\
         X-Amzn-Mtls-Clientcert-Issuer: {issuer}\r\n\
         X-Amzn-Mtls-Clientcert-Subject: {subject}\r\n\
         X-Amzn-Mtls-Clientcert-Validity: NotBefore={from};NotAfter={until}\r\n\
         X-Amzn-Mtls-Clientcert-Leaf: {}\r\n",
        encoded(&pem("CERTIFICATE", leaf))
    );
    Some(lines.into())
}

/// Percent-encoded, with `+=/` safe, as ALB does.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 5 / 4);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'+' | b'=' | b'/' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
