//! The way to targets that are elsewhere: behind a load balancer that is known by its name, and reached over TLS only.
//!
//! Its addresses change without a word, so each new connection asks for them. Who answers must show a certificate for the
//! name.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use camino::Utf8PathBuf;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::call;

/// Whom to trust, read when it is first needed.
#[derive(Default)]
pub struct Trust {
    roots: OnceLock<Utf8PathBuf>,
    client: OnceLock<Arc<ClientConfig>>,
}

impl Trust {
    /// Trusts who signed with these roots instead of the machine's. Said once, before the first connection.
    pub fn only(&self, roots: Utf8PathBuf) {
        let _ = self.roots.set(roots);
    }

    /// A new connection.
    ///
    /// # Errors
    /// When the name has no address, nobody listens there, or who listens cannot show that the name is theirs.
    pub async fn connect(&self, name: &str, port: u16) -> io::Result<Box<TlsStream<TcpStream>>> {
        let client = self.client()?;
        let server = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let stream = TcpStream::connect((name, port)).await?;
        let stream = TlsConnector::from(client).connect(server, stream).await?;
        Ok(Box::new(stream))
    }

    fn client(&self) -> io::Result<Arc<ClientConfig>> {
        if let Some(client) = self.client.get() {
            return Ok(Arc::clone(client));
        }
        let made = call::trusting(self.roots.get().map(AsRef::as_ref)).map_err(io::Error::other)?;
        Ok(Arc::clone(self.client.get_or_init(|| made)))
    }
}
