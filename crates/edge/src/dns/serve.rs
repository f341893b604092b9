//! The sockets: queries in, answers out.

use std::{io, net::SocketAddr, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

use super::{
    Dns,
    answer::{QUERY, Server, Way},
    limit::{Limit, Verdict},
};
use crate::{
    clock,
    live::Shared,
    own::{ALL, OwnSeen, Patience, Told},
    quota::{Quota, source},
};

/// Connections at the same time, of all and of one source.
const CONNECTIONS: usize = 256;
const PER_SOURCE: u32 = 16;
/// Between two queries of a connection, and for one to come and go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers until it is dropped.
pub async fn run(dns: Dns, shared: Arc<Shared>) {
    let server = Arc::new(Server::new(dns.zones, Arc::clone(&shared)));
    let limit = Arc::new(Limit::new(dns.rate));
    let (mut opening, mut tasks) = (JoinSet::new(), JoinSet::new());
    for at in dns.unbound {
        let shared = Arc::clone(&shared);
        opening.spawn(async move { open(bound(at, &shared).await) });
    }
    for sockets in dns.sockets {
        opening.spawn(async move { open(sockets) });
    }
    while let Some(opened) = opening.join_next().await {
        let opened = opened.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()));
        let (udp, tcp) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                tracing::error!(%error, "names cannot be served at one of their addresses");
                continue;
            }
        };
        tasks.spawn(datagrams(
            udp,
            Arc::clone(&server),
            Arc::clone(&limit),
            Arc::clone(&shared),
        ));
        tasks.spawn(connections(tcp, Arc::clone(&server)));
    }
    while tasks.join_next().await.is_some() {}
}

type Plain = (std::net::UdpSocket, std::net::TcpListener);

fn open((udp, tcp): Plain) -> io::Result<(UdpSocket, TcpListener)> {
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?))
}

/// Tries until both can be had.
async fn bound(at: SocketAddr, shared: &Shared) -> Plain {
    let (mut told, mut patience) = (Told::default(), Patience::default());
    loop {
        let tried = std::net::UdpSocket::bind(at).and_then(|udp| Ok((udp, std::net::TcpListener::bind(at)?)));
        let seen = OwnSeen {
            address: at,
            speaks: "dns".to_owned(),
            hosts: Vec::new(),
            place: ALL.to_owned(),
            problem: tried.as_ref().err().map(ToString::to_string),
        };
        told.tell((at, true), &seen);
        shared.own.note(seen);
        match tried {
            Ok(sockets) => return sockets,
            Err(_) => patience.wait().await,
        }
    }
}

async fn datagrams(socket: UdpSocket, server: Arc<Server>, limit: Arc<Limit>, shared: Arc<Shared>) {
    let mut packet = vec![0; QUERY + 1];
    loop {
        let (length, from) = match socket.recv_from(&mut packet).await {
            Ok(came) => came,
            Err(error) => {
                tracing::debug!(%error, "a datagram did not arrive");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let way = match limit.ask(from.ip(), clock::ticks()) {
            Verdict::Answer => Way::Udp,
            verdict => {
                shared.names.limited.fetch_add(1, Relaxed);
                if verdict == Verdict::Drop {
                    continue;
                }
                Way::Deferred
            }
        };
        // Nobody asks from port 0; it is what a forger leaves when it does not care.
        if from.port() != 0
            && let Some(answer) = server.answer(&packet[..length], way)
        {
            // A full socket loses datagrams, as any network may.
            let _ = socket.try_send_to(&answer, from);
        }
    }
}

async fn connections(listener: TcpListener, server: Arc<Server>) {
    let sources = Arc::new(Quota::<u128>::default());
    let mut callers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if callers.len() < CONNECTIONS => match accepted {
                Ok((stream, from)) => {
                    let (server, sources) = (Arc::clone(&server), Arc::clone(&sources));
                    callers.spawn(async move {
                        if sources.open(source(from.ip()), PER_SOURCE, clock::ticks()) {
                            // What a caller breaks off is its own affair.
                            let _ = converse(stream, from, &server).await;
                            sources.close(source(from.ip()), clock::ticks());
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept who asks for names");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = callers.join_next() => {}
        }
    }
}

/// Queries of one connection, in order (RFC 7766).
async fn converse(mut stream: TcpStream, from: SocketAddr, server: &Server) -> io::Result<()> {
    let _ = stream.set_nodelay(true);
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let mut packet = Vec::new();
    loop {
        let length = async {
            let length = usize::from(stream.read_u16().await?);
            if length > QUERY {
                return Err(io::ErrorKind::InvalidData.into());
            }
            packet.resize(length, 0);
            stream.read_exact(&mut packet).await
        };
        tokio::time::timeout(PATIENCE, length).await.map_err(late)??;
        let Some(answer) = server.answer(&packet, Way::Tcp) else {
            tracing::debug!(%from, "what came over TCP is no query");
            return Ok(());
        };
        let mut framed = Vec::with_capacity(answer.len() + 2);
        let length = u16::try_from(answer.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&answer);
        tokio::time::timeout(PATIENCE, stream.write_all(&framed))
            .await
            .map_err(late)??;
    }
}
