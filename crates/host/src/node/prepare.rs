//! Makes the base and the build image when the node starts, so that the first push does not wait for them.
//!
//! Nothing depends on it: what is not there at first use is made then, by the same code.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use model::spec::Base;

use crate::{
    bake::Oven,
    base::{self, Wanted},
};

/// Whether it goes on. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Preparing(Arc<AtomicBool>);

impl Preparing {
    /// What is being made, for people.
    pub fn what(&self, oven: &Oven) -> Option<String> {
        let goes_on = self.0.load(Ordering::Relaxed);
        goes_on.then(
            || match oven.bases().find(Wanted::of(&Base::Named(base::DEBIAN))) {
                Ok(Some(_)) => "build image".to_owned(),
                _ => format!("base {}", base::DEBIAN),
            },
        )
    }
}

/// One after the other. Ends with the node: what is half-made is removed.
pub(super) async fn run(oven: Oven, preparing: Preparing, stop: CancellationToken) {
    if oven.find_standard().is_ok_and(|image| image.is_some()) {
        return;
    }
    info!("preparing the base and the build image; pushes that come meanwhile wait for them");
    preparing.0.store(true, Ordering::Relaxed);
    tokio::select! {
        () = stop.cancelled() => {}
        made = oven.standard() => match made {
            Ok(made) => info!(duration_ms = made.duration_ms, "the build image is ready"),
            Err(fault) => warn!(%fault, "the build image is not ready: the first build tries again"),
        },
    }
    preparing.0.store(false, Ordering::Relaxed);
}
