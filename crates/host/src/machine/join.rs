//! The machine's side: `vend agent --join URL --token T`. It keeps its key, dials, and answers what an agent answers.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{post, put},
};
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use model::{HostId, Secret, port::Fault};
use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Admission, Application, Error, Invitation, NAME, authority::Point, builder, read_line, tls, write_line,
};
use crate::{
    agent::{Guest, Layout},
    container::chain,
};

/// Who the machine is, in its state.
const IDENTITY: &str = "identity.json";
/// Who it was until its platform removed it.
const REMOVED: &str = "identity.removed";
/// For a connection and its handshake.
const QUICK: Duration = Duration::from_secs(15);
/// Between two attempts to reach the platform: it doubles up to this.
const PATIENCE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(250);
/// A platform that does not answer a ping for so long is gone.
const PING: Duration = Duration::from_secs(20);

/// Questions at a time. Each build of a builder is one for as long as it takes, and others must get through beside them.
const STREAMS: u32 = 100_000;

/// Who a machine is, and to whom.
#[derive(Clone, Serialize, Deserialize)]
struct Identity {
    /// `HOST:PORT` of the listener.
    platform: String,
    machine: HostId,
    /// Its own key, and what the platform says about it. In DER, in hex.
    #[serde(serialize_with = "model::secret::in_the_clear")]
    key: Secret,
    certificate: String,
    authority: String,
    /// Of a builder: what its invitation calls it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

/// Has the platform take in this machine, unless it has already. `url`: `https://HOST:PORT`, or without the scheme.
/// `own`: what a machine is that wants to build. It joins with nothing in its caches. Gives the machine's id.
///
/// # Errors
///
/// The platform cannot be reached, is another one than the invitation's, or refuses; the state cannot be kept.
pub async fn enrol(
    url: &str,
    token: Option<&Secret>,
    name: &str,
    own: Option<BTreeMap<String, String>>,
    state: &Path,
) -> Result<HostId, Error> {
    let platform = address(url)?;
    if let Some(known) = read(state)
        && known.platform == platform
    {
        return Ok(known.machine);
    }
    let missing =
        || Error::Told("this machine is not known there yet: give an invitation with --token".into());
    let invitation = Invitation::read(token.ok_or_else(missing)?.expose());
    let invitation = invitation.ok_or_else(|| Error::Told("the token is no invitation".into()))?;
    let key = KeyPair::generate()?;
    let config = tls::joining(invitation.authority)?;
    let mut stream = dial(&platform, config).await?;
    let builds = own.is_some();
    let application = Application {
        invitation: invitation.secret,
        name: name.chars().take(NAME).collect(),
        key: Point::of(&key).text(),
        builder: own,
    };
    write_line(&mut stream, &application).await?;
    let answer: Result<Admission, Fault> = read_line(&mut stream).await?;
    let admission = answer?;
    if builds {
        // Before it is known here, so that it is done again when it fails: tenants may be gone for whom this machine built
        // when it was known before, and their names others'.
        builder::forget_all(state)?;
    }
    let identity = Identity {
        platform,
        machine: admission.machine,
        key: Secret::new(hex::encode(key.serialize_der())),
        certificate: admission.certificate,
        authority: admission.authority,
        labels: admission.labels,
    };
    write(state, &identity)?;
    Ok(identity.machine)
}

/// What somebody wants of the agent of a machine.
pub enum Wish {
    Stop,
    /// That the program which is now in its place goes on in this process.
    Succeed,
}

/// Serves the platform until it is asked to stop, whatever becomes of the connection.
///
/// # Errors
///
/// It cannot begin, or the platform says that the machine was removed.
pub async fn serve(state: &Path, mut wishes: mpsc::Receiver<Wish>) -> Result<(), Error> {
    let ring = Ring::open(state)?;
    let guest =
        Guest::begin(Layout::machine(Path::new("/"), state)).map_err(|error| Error::Unable(chain(&error)))?;
    let router = guest.router().merge(keys(Arc::clone(&ring)));
    let stop = async {
        while let Some(Wish::Succeed) = wishes.recv().await {
            warn!("no other program takes over: {}", guest.succeed().await);
        }
    };
    let ended = tokio::select! {
        () = stop => Ok(()),
        () = stay(&ring, &router) => forget(state, "vend hosts invite"),
    };
    guest.end().await;
    ended
}

/// What it was is kept beside, and the next invitation, which `command` gives, lets it in again.
pub(super) fn forget(state: &Path, command: &str) -> Result<(), Error> {
    fs::rename(state.join(IDENTITY), state.join(REMOVED))?;
    Err(Error::Told(format!(
        "this machine was removed from its platform; `{command}` gives a new token to join with"
    )))
}

/// What has an agent with these options work in its directory again; `invite` gives an invitation. Nothing where no machine
/// has ever joined.
pub(super) fn again(state: &Path, options: &str, invite: &str) -> Option<String> {
    let path = state.display();
    match read(state) {
        Some(known) => Some(format!(
            "vend agent{options} --join https://{} --state {path}",
            known.platform
        )),
        None if state.join(REMOVED).exists() => Some(format!(
            "{invite}, and on this machine what it says with --state {path}"
        )),
        None => None,
    }
}

/// The machine's keys: the one that it has, and the one that it is about to get.
pub(super) struct Ring {
    state: PathBuf,
    identity: Mutex<Identity>,
    next: Mutex<Option<KeyPair>>,
    renewed: Notify,
    /// The platform knows it no more.
    removed: Notify,
}

pub(super) fn keys(ring: Arc<Ring>) -> Router {
    Router::new()
        .route("/v1/machine/key", post(new_key))
        .route("/v1/machine/certificate", put(new_certificate))
        .route("/v1/machine/removed", post(removed))
        .with_state(ring)
}

type Refused = (StatusCode, Json<Fault>);

fn refused(text: impl ToString) -> Refused {
    (
        StatusCode::UNPROCESSABLE_ENTITY,
        Json(Fault::platform(text.to_string())),
    )
}

async fn new_key(State(ring): State<Arc<Ring>>) -> Result<Json<String>, Refused> {
    let key = KeyPair::generate().map_err(refused)?;
    let text = Point::of(&key).text();
    *ring.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
    Ok(Json(text))
}

async fn new_certificate(
    State(ring): State<Arc<Ring>>,
    Json(certificate): Json<String>,
) -> Result<Json<()>, Refused> {
    let key = ring.next.lock().unwrap_or_else(PoisonError::into_inner).take();
    let key = key.ok_or_else(|| refused("no key waits for a certificate"))?;
    let mut identity = ring.identity();
    identity.key = Secret::new(hex::encode(key.serialize_der()));
    identity.certificate = certificate;
    // One that does not fit its key is refused before it replaces one that does.
    identity.config().map_err(|error| refused(chain(&error)))?;
    write(&ring.state, &identity).map_err(refused)?;
    *ring.identity.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    ring.renewed.notify_one();
    Ok(Json(()))
}

async fn removed(State(ring): State<Arc<Ring>>) -> Json<()> {
    ring.removed.notify_one();
    Json(())
}

impl Ring {
    pub(super) fn open(state: &Path) -> Result<Arc<Self>, Error> {
        let identity =
            read(state).ok_or_else(|| Error::Told("this machine has joined nothing yet".into()))?;
        Ok(Arc::new(Self {
            state: state.to_owned(),
            identity: Mutex::new(identity),
            next: Mutex::new(None),
            renewed: Notify::new(),
            removed: Notify::new(),
        }))
    }

    /// What a builder's invitation calls it.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        self.identity().labels
    }

    fn identity(&self) -> Identity {
        self.identity
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Identity {
    fn config(&self) -> Result<Arc<rustls::ClientConfig>, Error> {
        let der = |text: &str| {
            hex::decode(text).map_err(|_| Error::Told("the machine's identity is damaged".into()))
        };
        let certificate = |text: &str| der(text).map(CertificateDer::from);
        let key = PrivatePkcs8KeyDer::from(der(self.key.expose())?);
        tls::serving(
            &certificate(&self.authority)?,
            certificate(&self.certificate)?,
            key.into(),
        )
    }
}

/// Dials again and again, until the platform says that it knows the machine no more. With a new certificate another connection is made, and the one before ends what it has.
pub(super) async fn stay(ring: &Ring, router: &Router) {
    let (mut pause, mut after) = (SHORT, None::<CancellationToken>);
    loop {
        let identity = ring.identity();
        let dialled = async { dial(&identity.platform, identity.config()?).await };
        let dialled = dialled.await;
        if let Some(before) = after.take() {
            before.cancel();
        }
        match dialled {
            Ok(stream) => {
                info!(platform = %identity.platform, "connected as {}", identity.machine);
                let begun = tokio::time::Instant::now();
                let leaving = CancellationToken::new();
                let mut serving = tokio::spawn(answer(stream, router.clone(), leaving.clone()));
                tokio::select! {
                    _ = &mut serving => {}
                    () = ring.renewed.notified() => {
                        // The next connection comes first, and what this one is asked for still goes on in it.
                        after = Some(leaving);
                    }
                    () = ring.removed.notified() => return,
                }
                if begun.elapsed() > PATIENCE {
                    pause = SHORT;
                }
            }
            Err(error) => {
                warn!(platform = %identity.platform, "cannot reach the platform: {}", chain(&error))
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PATIENCE);
    }
}

async fn dial(platform: &str, config: Arc<rustls::ClientConfig>) -> Result<TlsStream<TcpStream>, Error> {
    let dialling = async {
        let stream = TcpStream::connect(platform).await?;
        stream.set_nodelay(true)?;
        Ok(TlsConnector::from(config)
            .connect(tls::platform(), stream)
            .await?)
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the platform does not answer");
    timeout(QUICK, dialling).await.map_err(late)?
}

/// Answers over a connection until it breaks; once it is to be left, no new question is taken.
async fn answer(stream: TlsStream<TcpStream>, router: Router, leaving: CancellationToken) {
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(STREAMS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = leaving.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        warn!("the connection to the platform broke: {}", chain(&error));
    }
}

fn address(url: &str) -> Result<String, Error> {
    let rest = url.strip_prefix("https://").unwrap_or(url).trim_end_matches('/');
    let port = rest.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) if !rest.contains('/') => Ok(rest.to_owned()),
        _ => Err(Error::Told(format!(
            "`{url}` is not like https://platform.example:7443"
        ))),
    }
}

fn read(state: &Path) -> Option<Identity> {
    serde_json::from_slice(&fs::read(state.join(IDENTITY)).ok()?).ok()
}

/// Whole or not at all, and nobody else's to read.
fn write(state: &Path, identity: &Identity) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state)?;
    let fresh = state.join("identity.new");
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(&serde_json::to_vec(identity)?)?;
    file.sync_all()?;
    fs::rename(fresh, state.join(IDENTITY))
}
