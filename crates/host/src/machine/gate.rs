//! The platform's side of the listener: who is let in, and what becomes of the connection.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::body::Body;
use futures_util::future::BoxFuture;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use jiff::SignedDuration;
use model::{Digest, HostId, Secret, port::Fault};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use super::{
    Admission, Application, Authority, Error, JOINING, Machines, NAME, authority::Point, read_line, tls,
    write_line,
};
use crate::{agent, container::chain, now};

/// Handshakes and applications at one time; more wait in the kernel.
const AT_ONCE: usize = 64;
/// For a handshake, and for an application.
const QUICK: Duration = Duration::from_secs(10);
/// A machine that does not answer a ping for so long is gone.
const PING: Duration = Duration::from_secs(20);

/// The platform's memory of machines.
pub trait Desk: Send + Sync + 'static {
    /// Takes in the machine that shows an invitation, which is used up with that. Its key is known from then on.
    fn join(&self, guest: Newcomer) -> BoxFuture<'_, Result<Joined, Fault>>;

    /// Whose key it is; of two keys of a machine the older one is forgotten when the newer one comes.
    fn known(&self, key: Digest) -> BoxFuture<'_, Result<Option<HostId>, Fault>>;

    /// A machine is about to get a certificate for another key.
    fn renew(&self, machine: HostId, key: Digest) -> BoxFuture<'_, Result<(), Fault>>;

    /// It is there, and from where.
    fn came(&self, machine: HostId, address: SocketAddr) -> BoxFuture<'_, ()>;

    fn went(&self, machine: HostId) -> BoxFuture<'_, ()>;
}

/// Who wants to be taken in.
pub struct Newcomer {
    /// Of its invitation.
    pub secret: Secret,
    /// What it calls itself.
    pub name: String,
    /// Of its key.
    pub key: Digest,
    /// Of one that wants to build: what it is.
    pub builder: Option<BTreeMap<String, String>>,
}

/// Who was taken in.
pub struct Joined {
    pub id: HostId,
    /// Of a builder: what its invitation calls it.
    pub labels: BTreeMap<String, String>,
}

pub struct Gate {
    pub authority: Authority,
    pub desk: Arc<dyn Desk>,
    pub machines: Machines,
    /// How long a machine's certificate is good. It gets another one after a third of that.
    pub lasting: SignedDuration,
}

impl Gate {
    /// Takes connections until `stop`.
    ///
    /// # Errors
    ///
    /// Only when it cannot begin.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) -> Result<(), Error> {
        let (certificate, key) = self.authority.listener(now())?;
        let config = tls::listener(self.authority.certificate(), certificate, key)?;
        let acceptor = TlsAcceptor::from(config);
        let (room, tasks) = (Arc::new(Semaphore::new(AT_ONCE)), TaskTracker::new());
        loop {
            let place = Arc::clone(&room).acquire_owned().await.expect("nobody closes it");
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, address)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (this, acceptor, stop) = (Arc::clone(&self), acceptor.clone(), stop.clone());
            tasks.spawn(async move {
                let enter = this.enter(&acceptor, stream, address);
                let entered = timeout(QUICK, enter).await;
                drop(place);
                match entered {
                    Ok(Ok(Some((machine, stream)))) => tokio::select! {
                        () = stop.cancelled() => {}
                        () = this.hold(machine, stream, address) => {}
                    },
                    Ok(Ok(None)) | Err(_) => {}
                    Ok(Err(error)) => info!(%address, "a machine was not let in: {}", chain(&error)),
                }
            });
        }
        tasks.close();
        tasks.wait().await;
        Ok(())
    }

    /// A known machine, or none when the connection was for joining.
    async fn enter(
        &self,
        acceptor: &TlsAcceptor,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<Option<(HostId, TlsStream<TcpStream>)>, Error> {
        stream.set_nodelay(true)?;
        let mut stream = acceptor.accept(stream).await?;
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() == Some(JOINING) {
            let answer: Result<Admission, Fault> = self.admit(&mut stream).await;
            if let Err(fault) = &answer {
                info!(%address, "a machine was not taken in: {fault}");
            }
            write_line(&mut stream, &answer).await?;
            tokio::io::AsyncWriteExt::shutdown(&mut stream).await?;
            return Ok(None);
        }
        let certificate = session.peer_certificates().and_then(|shown| shown.first());
        let nobody = || Error::Told("it has shown no certificate".into());
        let key = tls::key_of(certificate.ok_or_else(nobody)?)?;
        let Some(machine) = self.desk.known(key).await? else {
            // It would dial for ever.
            if let Ok((client, connection)) = speak(stream).await {
                tokio::select! {
                    _ = connection => {}
                    _ = client.removed() => {}
                }
            }
            return Err(Error::Told(
                "its key is nobody's, or of a machine that was removed".into(),
            ));
        };
        Ok(Some((machine, stream)))
    }

    async fn admit(&self, stream: &mut TlsStream<TcpStream>) -> Result<Admission, Fault> {
        let wrong = |error: Error| Fault::order(chain(&error));
        let Application {
            invitation,
            name,
            key,
            builder,
        } = read_line(stream).await.map_err(wrong)?;
        let key = Point::read(&key).ok_or_else(|| Fault::order("the key is not one of P-256"))?;
        let name: String = name.chars().filter(|c| !c.is_control()).take(NAME).collect();
        let guest = Newcomer {
            secret: invitation,
            name,
            key: key.digest(),
            builder,
        };
        let Joined { id, labels } = self.desk.join(guest).await?;
        let certificate = self.authority.sign(&id, &key, now(), self.lasting);
        let certificate = certificate.map_err(|error| Fault::platform(chain(&error)))?;
        Ok(Admission {
            machine: id,
            certificate: hex::encode(certificate),
            authority: hex::encode(self.authority.certificate()),
            labels,
        })
    }

    /// Asks over a machine's connection until it breaks, another one takes its place, or the machine is removed.
    async fn hold(&self, machine: HostId, stream: TlsStream<TcpStream>, address: SocketAddr) {
        let (client, connection) = match speak(stream).await {
            Ok(both) => both,
            Err(error) => return warn!(%machine, "a machine does not speak as it should: {error}"),
        };
        let live = self.machines.enter(&machine, client.clone(), address);
        self.desk.came(machine.clone(), address).await;
        info!(%machine, %address, "the machine {machine} is there");
        tokio::select! {
            _ = connection => {}
            () = live.over() => {}
            () = self.keep_known(&machine, &client) => {}
        }
        if self.machines.leave(&machine, &live) {
            self.desk.went(machine.clone()).await;
            info!(%machine, "the machine {machine} is gone");
        }
    }

    /// A certificate for another key in time; ends when there is none before this one is over.
    async fn keep_known(&self, machine: &HostId, client: &agent::Client) {
        let lasting = Duration::try_from(self.lasting).unwrap_or_default();
        tokio::time::sleep(lasting / 3).await;
        let renewing = async {
            let mut pause = lasting / 100;
            while let Err(error) = self.renew(machine, client).await {
                warn!(%machine, "the certificate of {machine} is not renewed yet: {}", chain(&error));
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            // It dials again with the new one; this connection goes on with what it has.
            std::future::pending::<()>().await;
        };
        let _ = timeout(lasting - lasting / 3, renewing).await;
    }

    async fn renew(&self, machine: &HostId, client: &agent::Client) -> Result<(), Error> {
        let answer = |error: agent::Error| Error::Told(chain(&error));
        let text = client.new_key().await.map_err(answer)?;
        let key = Point::read(&text).ok_or_else(|| Error::Told("its new key is not one of P-256".into()))?;
        self.desk.renew(machine.clone(), key.digest()).await?;
        let certificate = self.authority.sign(machine, &key, now(), self.lasting)?;
        client
            .new_certificate(&hex::encode(certificate))
            .await
            .map_err(answer)
    }
}

/// What asks a machine over the connection that it dialled, and the connection, which lives while it is awaited.
async fn speak(
    stream: TlsStream<TcpStream>,
) -> Result<(agent::Client, impl Future<Output = Result<(), hyper::Error>>), hyper::Error> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .keep_alive_while_idle(true)
        .max_header_list_size(16 << 10)
        .handshake::<_, Body>(TokioIo::new(stream))
        .await?;
    Ok((agent::Client::dialled(sender), connection))
}
