//! What a listener speaks, and the first steps of each of its connections: the word of a proxy before it, TLS, and then
//! HTTP or whatever passes through.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
};

use camino::Utf8PathBuf;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    access::Connection,
    answer::Answer,
    head::Ask,
    http1,
    link::Stream,
    login::pem,
    pass, proxy,
    tls::{self, Agreed, CHALLENGE, Certificates, Failure, Server, Tls},
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

/// One that is wanted where nothing could be bound yet. It is tried again for as long as the edge runs.
#[derive(Debug, Clone)]
pub struct Unbound {
    pub address: SocketAddr,
    pub speaks: Speaks,
    pub proxied: bool,
}

impl Unbound {
    /// The listener, at a socket that could be had.
    pub fn at(self, socket: TcpListener) -> Listener {
        let Self { speaks, proxied, .. } = self;
        Listener {
            socket,
            speaks,
            proxied,
        }
    }
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

    /// What it shows, where it speaks TLS.
    pub fn certificates(&self) -> Option<&Arc<Certificates>> {
        match &self.speaks {
            Spoken::Https(server) => Some(server.certificates()),
            _ => None,
        }
    }

    /// What is spoken there, for people.
    pub fn name(&self) -> &'static str {
        match self.speaks {
            Spoken::Http => "http",
            Spoken::Https(..) => "https",
            Spoken::Tcp(..) => "tcp",
            Spoken::Sni => "sni",
        }
    }
}

#[derive(Clone)]
enum Spoken {
    Http,
    Https(Arc<Server>),
    Tcp(Arc<str>),
    Sni,
}

/// What may change under the listeners: folders of certificates, and who is let in.
pub struct Watched {
    pub folders: Vec<(Utf8PathBuf, Arc<Certificates>)>,
    pub servers: Vec<Arc<Server>>,
}

/// Makes listeners ready, by what they speak and whether a proxy has the first word. Those with one folder of
/// certificates share them.
pub fn doors<'a>(
    listeners: impl Iterator<Item = (&'a Speaks, bool)>,
) -> Result<(Vec<Door>, Watched), tls::Error> {
    let mut folders: HashMap<Utf8PathBuf, Arc<Certificates>> = HashMap::new();
    let (mut doors, mut servers) = (Vec::new(), Vec::new());
    for (speaks, proxied) in listeners {
        let speaks = match speaks {
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
                let server = Server::new(tls, certificates)?;
                servers.push(Arc::clone(&server));
                Spoken::Https(server)
            }
        };
        doors.push(Door {
            speaks,
            proxied,
            only: None,
        });
    }
    let folders = folders.into_iter().collect();
    Ok((doors, Watched { folders, servers }))
}

/// Serves one connection to its end.
pub async fn serve(worker: Rc<Worker>, door: &Door, stream: TcpStream, ends: Box<Ends>) {
    let until = Instant::now() + worker.limits().head_time;
    let (mut stream, mut ends) = (stream, ends);
    let failed = |(failure, cause): Failed, ends: &Ends| {
        let failures = &worker.shared.failures;
        failures.count(failure, ends, cause.as_ref(), worker.tick());
    };
    let introduced = within(until, introduce(door, &mut stream, &mut ends)).await;
    if let Err(failure) = introduced {
        return failed(failure, &ends);
    }
    // Behind a proxy all come from one address: whose they are is known now.
    let Ok(_seat) = worker.seat(ends.peer.ip()) else {
        return refuse(&worker, door, &stream, &ends);
    };
    let greeted = within(until, greet(&worker, door, stream, &mut ends)).await;
    let stream = match greeted {
        Ok(stream) => stream,
        Err(failure) => return failed(failure, &ends),
    };
    if let Stream::Tls(tls) = &stream
        && tls.get_ref().1.alpn_protocol() == Some(CHALLENGE)
    {
        // The handshake was the answer.
        return;
    }
    let client = worker.register(stream, None);
    match &door.speaks {
        Spoken::Http | Spoken::Https(..) => http1::serve(worker, client, ends).await,
        Spoken::Tcp(host) => Box::pin(pass::through(&worker, &client, ends, Some(host))).await,
        Spoken::Sni => Box::pin(pass::through(&worker, &client, ends, None)).await,
    }
}

/// Turns a connection of a source away that has too many. Where more than a line of text would be needed to say so, it is
/// only closed: a handshake for each of them would be what the limit is to prevent.
fn refuse(worker: &Worker, door: &Door, stream: &TcpStream, ends: &Ends) {
    worker
        .shared
        .totals
        .limited
        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    if !matches!(door.speaks, Spoken::Http) {
        let failures = &worker.shared.failures;
        return failures.count(Failure::TooMany, ends, None, worker.tick());
    }
    let answer = Answer::too_many("too many connections from this address");
    let mut out = Vec::new();
    answer.write(&mut out, "Connection: close\r\n", false);
    // A word on the way out; who does not listen misses it.
    let _ = stream.try_write(&out);
    if let Some(log) = &worker.log {
        let mut ask = Ask::noting(true);
        ask.guess(b"", ends);
        log.refused(&mut ask, ends, "HTTP/1.1", &answer, (0, out.len() as u64));
    }
}

type Failed = (Failure, Option<io::Error>);

/// A step that has until then.
async fn within<T>(until: Instant, step: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    timeout_at(until, step)
        .await
        .unwrap_or(Err((Failure::Late, None)))
}

/// What a proxy says of a connection comes before everything else.
async fn introduce(door: &Door, stream: &mut TcpStream, ends: &mut Ends) -> Result<(), Failed> {
    if door.proxied {
        let said = proxy::read(stream).await;
        if let Some((peer, local)) = said.map_err(|error| (Failure::NoProxy, Some(error)))? {
            (ends.peer, ends.local) = (peer, local);
        }
    }
    Ok(())
}

/// TLS, where that is spoken.
async fn greet(worker: &Worker, door: &Door, stream: TcpStream, ends: &mut Ends) -> Result<Stream, Failed> {
    let stream = match &door.speaks {
        Spoken::Https(server) => {
            // Answers of a handshake are small, and waited for.
            let _ = stream.set_nodelay(true);
            let tls = Box::pin(TlsAcceptor::from(server.config()).accept(stream)).await;
            let tls = tls.map_err(|error| (Failure::of(&error), Some(error)))?;
            ends.tls = true;
            ends.identity = identity(&tls);
            note(worker, ends, || {
                Some(Agreed::of(tls.get_ref().1, server.certificates()))
            });
            return Ok(Stream::Tls(Box::new(tls)));
        }
        _ => Stream::Tcp(stream),
    };
    note(worker, ends, || None);
    Ok(stream)
}

/// Keeps what the log says of a connection, where there is one.
fn note(worker: &Worker, ends: &mut Ends, agreed: impl FnOnce() -> Option<Agreed>) {
    if worker.is_logging() {
        ends.connection = Some(Rc::new(Connection {
            id: worker.id(),
            tls: agreed(),
        }));
    }
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
