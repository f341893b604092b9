//! What one listener answers handshakes with. Who is let in may change while it runs.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use super::{Certificates, EVERY, Error, Stamp, Tls, settings, stamp};

/// The settings of one listener, as they are now.
#[derive(Debug)]
pub struct Server {
    tls: Tls,
    certificates: Arc<Certificates>,
    current: ArcSwap<ServerConfig>,
    /// Of the files that `current` was made of.
    stamps: Mutex<Vec<Option<Stamp>>>,
}

impl Server {
    pub fn new(tls: &Tls, certificates: Arc<Certificates>) -> Result<Arc<Self>, Error> {
        // Before they are read: what changes meanwhile is seen at the next look.
        let stamps = stamps(tls);
        let config = settings(tls, Arc::clone(&certificates))?;
        Ok(Arc::new(Self {
            tls: tls.clone(),
            certificates,
            current: ArcSwap::new(config),
            stamps: Mutex::new(stamps),
        }))
    }

    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// Looks at the files of who is let in until it is dropped.
    pub async fn watch(self: Arc<Self>) {
        while self.tls.clients.is_some() {
            tokio::time::sleep(EVERY).await;
            let server = Arc::clone(&self);
            // Its only failure is a panic, which has been told.
            let _ = tokio::task::spawn_blocking(move || server.read()).await;
        }
    }

    /// Takes over what has changed. Sessions of before are not resumed: their clients show themselves again.
    fn read(&self) {
        let now = stamps(&self.tls);
        let mut known = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == now {
            return;
        }
        let trust = self.tls.clients.as_ref().map(|clients| clients.trust.as_str());
        match settings(&self.tls, Arc::clone(&self.certificates)) {
            Ok(config) => {
                tracing::info!(trust, "who is let in has changed");
                self.current.store(config);
            }
            Err(error) => tracing::error!(
                trust,
                error = %error,
                cause = std::error::Error::source(&error).map(tracing::field::display),
                "who is let in stays as it was: a file cannot be used"
            ),
        }
        *known = now;
    }
}

fn stamps(tls: &Tls) -> Vec<Option<Stamp>> {
    let clients = tls.clients.iter();
    let files = clients.flat_map(|clients| [Some(clients.trust.as_path()), clients.revoked.as_deref()]);
    files.flatten().map(stamp).collect()
}
