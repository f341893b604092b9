//! The other end of the admin socket, for `serve`.

use std::{convert::Infallible, io, time::Duration};

use camino::Utf8PathBuf;
use http_body_util::{BodyExt, Full, Limited, channel::Channel};
use hyper::{
    Method, Request, StatusCode,
    body::{Body, Bytes},
    client::conn::http1::handshake,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use model::route::{Delta, Invalid, Table, TargetHealth};
use serde::de::DeserializeOwned;

use crate::{
    AccessLines, AccessNewest, CertificateSeen, Explanation, Given, GroupStats, Load, NameSeen, OwnSeen,
    Question, Useless,
    admin::{InForce, Refusal},
    lines::{self, Reader},
    socket,
};

/// Longer than any table takes.
const PATIENCE: Duration = Duration::from_secs(30);
const ANSWER: usize = 256 * 1024 * 1024;

/// Why the edge did not do or say what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The table is wrong or older than the one in force. The old one stays; sending it again does not help.
    #[error(transparent)]
    Invalid(Invalid),
    /// The edge is not running, or not yet. It goes on with its snapshot when it is; sending again may help.
    #[error("the edge does not answer at {path}")]
    Unreachable {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    /// The edge could not do it; the old table stays.
    #[error("the edge refused with status {status}: {message}")]
    Refused { status: u16, message: String },
    #[error("the edge's answer cannot be read")]
    Answer(#[source] serde_json::Error),
}

/// Speaks to one edge; one connection per call, so that a restart of the edge is no event.
#[derive(Debug, Clone)]
pub struct Client {
    path: Utf8PathBuf,
}

impl Client {
    /// For the edge whose admin socket is at `path`.
    pub fn new(path: impl Into<Utf8PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Puts a table in force. When this returns its version, the table is on the edge's disk, every new request follows
    /// it, and no new request goes to a target that has left. The table in force may be sent again.
    pub async fn apply(&self, table: &Table) -> Result<u64, Error> {
        let in_force: InForce = match self.in_force().await?.lines {
            true => self.write(table).await?,
            // An edge that runs on while its program is replaced.
            false => {
                let body = serde_json::to_vec(table).map_err(Error::Answer)?;
                self.call(Method::PUT, "/v1/table", body).await?
            }
        };
        Ok(in_force.version)
    }

    /// Line by line, so that nowhere all of it is in memory as text.
    async fn write(&self, table: &Table) -> Result<InForce, Error> {
        let groups = table
            .target_groups
            .iter()
            .map(|(name, group)| (name.clone(), group.clone()));
        let lines = lines::table(table.version, groups, table.rules.iter().cloned());
        let (mut sender, body) = Channel::new(1);
        let write = async move {
            for line in lines {
                // Without its last lines a table is none.
                if sender.send_data(line?.into()).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        let (written, answer) = tokio::join!(write, self.send(Method::PUT, "/v1/lines", body));
        written.map_err(Error::Answer)?;
        serde_json::from_slice(&answer?).map_err(Error::Answer)
    }

    /// The same for a change of the table in force, which must be the one that the change starts from.
    pub async fn change(&self, delta: &Delta) -> Result<u64, Error> {
        let body = serde_json::to_vec(delta).map_err(Error::Answer)?;
        self.call::<InForce>(Method::PATCH, "/v1/table", body)
            .await
            .map(|table| table.version)
    }

    /// The table in force.
    pub async fn table(&self) -> Result<Table, Error> {
        let bytes = match self.send(Method::GET, "/v1/lines", Full::default()).await {
            Err(Error::Refused { status: 404, .. }) => {
                return self.call(Method::GET, "/v1/routes", Vec::new()).await;
            }
            bytes => bytes?,
        };
        let (mut table, mut reader) = (Table::default(), Reader::default());
        let mut sink = |piece: Delta| {
            table.version = piece.version;
            table.rules.extend(piece.rules);
            table.target_groups.extend(piece.target_groups);
            Ok(())
        };
        match reader.take(&bytes, &mut sink) {
            Ok(()) if reader.is_table() => Ok(table),
            _ => Err(Error::Answer(serde::de::Error::custom("it is not a whole table"))),
        }
    }

    /// The version of the table in force; 0 when there is none yet.
    pub async fn version(&self) -> Result<u64, Error> {
        self.in_force().await.map(|table| table.version)
    }

    async fn in_force(&self) -> Result<InForce, Error> {
        self.call(Method::GET, "/v1/table", Vec::new()).await
    }

    /// All targets of the table, and those that have left it with requests still under way.
    pub async fn health(&self) -> Result<Vec<TargetHealth>, Error> {
        self.call(Method::GET, "/v1/health", Vec::new()).await
    }

    /// All target groups in numbers.
    pub async fn stats(&self) -> Result<Vec<GroupStats>, Error> {
        self.call(Method::GET, "/v1/stats", Vec::new()).await
    }

    /// What it does, of all that has been asked for or is ill.
    pub async fn load(&self) -> Result<Load, Error> {
        self.call(Method::GET, "/v1/load", Vec::new()).await
    }

    /// What would become of a request.
    pub async fn explain(&self, question: &Question) -> Result<Explanation, Error> {
        let body = serde_json::to_vec(question).map_err(Error::Answer)?;
        self.call(Method::POST, "/v1/explain", body).await
    }

    /// All certificates, with what is wrong with them.
    pub async fn certificates(&self) -> Result<Vec<CertificateSeen>, Error> {
        self.call(Method::GET, "/v1/certificates", Vec::new()).await
    }

    /// The newest lines of the access log about somebody.
    pub async fn access(&self, wanted: &AccessNewest) -> Result<AccessLines, Error> {
        let body = serde_json::to_vec(wanted).map_err(Error::Answer)?;
        self.call(Method::POST, "/v1/access", body).await
    }

    /// Has certificates and secrets held, all that there are. Gives what of them cannot be used.
    pub async fn keep(&self, given: &Given) -> Result<Vec<Useless>, Error> {
        let body = serde_json::to_vec(given).map_err(Error::Answer)?;
        self.call(Method::PUT, "/v1/vault", body).await
    }

    /// All names that are answered, and those that are not, with the reason.
    pub async fn names(&self) -> Result<Vec<NameSeen>, Error> {
        self.call(Method::GET, "/v1/names", Vec::new()).await
    }

    /// Sockets that rules have for themselves.
    pub async fn sockets(&self) -> Result<Vec<OwnSeen>, Error> {
        self.call(Method::GET, "/v1/sockets", Vec::new()).await
    }

    /// The places whose hosts sleep and are wanted. Answers as soon as there is one, and with none after 20 s.
    pub async fn wanted(&self) -> Result<Vec<String>, Error> {
        self.call(Method::GET, "/v1/wanted", Vec::new()).await
    }

    /// Everything that is counted, as Prometheus text.
    pub async fn metrics(&self) -> Result<String, Error> {
        let bytes = self.send(Method::GET, "/metrics", Full::default()).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> Result<T, Error> {
        let bytes = self.send(method, path, Full::from(body)).await?;
        serde_json::from_slice(&bytes).map_err(Error::Answer)
    }

    async fn send<B>(&self, method: Method, path: &str, body: B) -> Result<Bytes, Error>
    where
        B: Body<Data = Bytes, Error = Infallible> + 'static,
    {
        let late = || Err(io::ErrorKind::TimedOut.into());
        let (status, bytes) = tokio::time::timeout(PATIENCE, self.exchange(method, path, body))
            .await
            .unwrap_or_else(|_| late())
            .map_err(|source| Error::Unreachable {
                path: self.path.clone(),
                source,
            })?;
        match status {
            StatusCode::OK => Ok(bytes),
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => {
                Err(serde_json::from_slice(&bytes).map_or_else(Error::Answer, Error::Invalid))
            }
            _ => Err(Error::Refused {
                status: status.as_u16(),
                message: serde_json::from_slice(&bytes).map_or_else(
                    |_| String::from_utf8_lossy(&bytes).into_owned(),
                    |refusal: Refusal| refusal.message,
                ),
            }),
        }
    }

    async fn exchange<B>(&self, method: Method, path: &str, body: B) -> io::Result<(StatusCode, Bytes)>
    where
        B: Body<Data = Bytes, Error = Infallible> + 'static,
    {
        let stream = socket::connect(&self.path).await?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "edge")
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(io::Error::other)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(io::Error::other)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER).collect().await;
            let body = body.map_err(io::Error::other)?;
            drop(sender);
            Ok((status, body.to_bytes()))
        };
        // The connection is driven here, not by a task of its own: it ends with this call.
        let (answer, _) = tokio::join!(answer, connection);
        answer
    }
}
