//! Machines that are not ours: a customer's own, on which an agent deploys as it does inside a host.
//!
//! The room exists because nothing on the platform's side can reach such a machine: it dials. A listener of its own
//! takes the connection, both sides show certificates of the platform's authority, and then the roles turn round: the
//! platform asks over that connection, and the machine's agent answers what an agent answers. A machine can ask the
//! platform nothing. [`authority`] signs, [`gate`] is the platform's side, [`join`] the machine's, and [`calls`] what the
//! platform does with a machine that is there. A [`builder`] is one that builds instead, and [`away`] is a build there. It
//! must know nothing of SQL, tenants and environments: who is known, a [`gate::Desk`] says.

pub mod authority;
pub mod away;
pub mod builder;
pub mod calls;
pub mod gate;
pub mod hold;
pub mod join;
mod tls;

use std::{collections::BTreeMap, io, path::PathBuf};

use model::{HostId, Secret, port::Fault};
use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};

pub use authority::{Authority, Invitation};
pub use calls::{Machines, Report, Seen};
pub use gate::{Desk, Gate};

/// The protocol (ALPN) of a machine that is not known yet: one line of JSON each way.
const JOINING: &[u8] = b"vend-join/1";
/// The protocol of one that is: HTTP/2, and the platform is the client.
const SERVING: &[u8] = b"vend-machine/1";

/// Longest line of the first protocol, in bytes.
const LINE: u64 = 16 << 10;

/// Longest name of a machine, in characters.
pub const NAME: usize = 100;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a certificate cannot be made")]
    Sign(#[from] rcgen::Error),
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Told(String),
    /// The machine cannot do what it is for, whatever it is to the platform.
    #[error("{0}")]
    Unable(String),
    #[error("the agent of {holder} works in {}", state.display())]
    Held { state: PathBuf, holder: hold::Holder },
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// What a machine says to be taken in. What it is for, its invitation says.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Application {
    #[serde(serialize_with = "model::secret::in_the_clear")]
    pub invitation: Secret,
    /// What it calls itself.
    pub name: String,
    /// Its public key: a point of P-256, uncompressed, in hex.
    pub key: String,
    /// Of one that wants to build: what it is, such as `arch: arm64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<BTreeMap<String, String>>,
}

/// What a machine that was taken in needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    pub machine: HostId,
    /// DER, in hex.
    pub certificate: String,
    pub authority: String,
    /// Of a builder: what its invitation calls it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

async fn write_line(stream: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> Result<(), Error> {
    let mut line = serde_json::to_vec(value).map_err(io::Error::from)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    Ok(stream.flush().await?)
}

async fn read_line<T: serde::de::DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<T, Error> {
    let mut line = Vec::new();
    BufReader::new(stream.take(LINE))
        .read_until(b'\n', &mut line)
        .await?;
    serde_json::from_slice(&line)
        .map_err(|error| Error::Told(format!("what was said is not understood: {error}")))
}
