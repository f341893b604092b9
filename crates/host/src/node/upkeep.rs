//! Removes what nothing needs any more.
//!
//! Who asks says what must stay; this side adds what it knows itself: the images of its hosts, and that whatever was
//! used in the last hours may be wanted by somebody of whom the asker did not know yet.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{Router, extract::State, response::Response, routing::post};
use jiff::{SignedDuration, Timestamp};
use model::{
    AppName, TenantName,
    port::{Fault, Hosts as _, Keep, Swept, Upkeep},
};
use serde::{Deserialize, Serialize};

use super::{
    Node,
    api::{Order, answer},
    broken,
};
use crate::{
    bake::{CACHES, GRACE, Oven},
    logs, now, objects,
};

const LOGS: logs::Limits = logs::Limits {
    // As long as executions stay on record.
    age: SignedDuration::from_hours(90 * 24),
    bytes: 4 << 30,
    grace: SignedDuration::from_hours(24),
};

/// One sweep at a time. Clones are the same.
pub(crate) type Turn = Arc<tokio::sync::Mutex<()>>;

/// Which app or tenant is gone.
#[derive(Debug, Serialize, Deserialize)]
pub struct Forgetting {
    pub tenant: TenantName,
    pub app: Option<AppName>,
}

pub fn router() -> Router<Node> {
    Router::new()
        .route("/v1/upkeep/sweep", post(sweep))
        .route("/v1/upkeep/forget", post(forget))
        .layer(axum::extract::DefaultBodyLimit::max(LIMIT))
}

/// The largest order, in bytes: some 200,000 digests.
const LIMIT: usize = 16 << 20;

async fn sweep(State(node): State<Node>, Order(keep): Order<Keep>) -> Response {
    // Not cut short when the caller goes away.
    let swept = tokio::spawn(async move { Upkeep::sweep(&node, &keep).await });
    answer(match swept.await {
        Ok(swept) => swept,
        Err(_) => Err(Fault::platform("the sweep stopped half-way")),
    })
}

async fn forget(State(node): State<Node>, Order(which): Order<Forgetting>) -> Response {
    answer(Upkeep::forget(&node, &which.tenant, which.app.as_ref()).await)
}

impl Upkeep for Node {
    async fn sweep(&self, keep: &Keep) -> Result<Swept, Fault> {
        let _turn = self.upkeep.lock().await;
        let mut images = keep.images.clone();
        // A host that is here may be started again, whatever the asker knows.
        images.extend(self.hosts.list().await?.into_iter().map(|host| host.image));
        let now = now();
        // One part that fails does not keep the others from making room.
        let parts = [
            self.sweep_objects(keep, now).await,
            self.sweep_logs(keep, now).await,
            sweep_images(&self.oven, &images, now - GRACE).await,
            // After the images: caches have what those leave.
            self.sweep_caches(now).await,
        ];
        let mut swept = Swept::default();
        for part in parts {
            let part = part?;
            swept.images.extend(part.images);
            swept.layers += part.layers;
            swept.objects += part.objects;
            swept.logs += part.logs;
            swept.caches += part.caches;
            swept.bytes += part.bytes;
            swept.busy |= part.busy;
        }
        Ok(swept)
    }

    async fn forget(&self, tenant: &TenantName, app: Option<&AppName>) -> Result<(), Fault> {
        let (oven, tenant, app) = (self.oven.clone(), tenant.clone(), app.cloned());
        tokio::task::spawn_blocking(move || oven.forget(&tenant, app.as_ref()))
            .await
            .map_err(|_| Fault::platform("forgetting an app stopped half-way"))?
    }
}

impl Node {
    async fn sweep_objects(&self, keep: &Keep, now: Timestamp) -> Result<Swept, Fault> {
        let (objects, keep) = (self.objects.clone(), keep.objects.clone());
        let grace = Duration::from_secs(GRACE.as_secs().unsigned_abs());
        let swept = tokio::task::spawn_blocking(move || objects.sweep(&keep, now.into(), grace));
        let objects::Swept { objects, bytes } = swept
            .await
            .map_err(|_| Fault::platform("the sweep of objects stopped half-way"))?
            .map_err(|error| broken(&error))?;
        Ok(Swept {
            objects,
            bytes,
            ..Swept::default()
        })
    }

    async fn sweep_caches(&self, now: Timestamp) -> Result<Swept, Fault> {
        let (oven, budget_bytes) = (self.oven.clone(), self.image_budget_bytes);
        let swept = tokio::task::spawn_blocking(move || oven.sweep_caches(now - CACHES, budget_bytes));
        swept
            .await
            .map_err(|_| Fault::platform("the sweep of caches stopped half-way"))?
    }

    async fn sweep_logs(&self, keep: &Keep, now: Timestamp) -> Result<Swept, Fault> {
        let (logs, keep) = (self.logs.clone(), keep.logs.clone());
        let swept = tokio::task::spawn_blocking(move || logs.sweep(&keep, now, LOGS));
        let logs::Swept { logs, bytes } = swept
            .await
            .map_err(|_| Fault::platform("the sweep of logs stopped half-way"))?
            .map_err(|error| broken(&error))?;
        Ok(Swept {
            logs,
            bytes,
            ..Swept::default()
        })
    }
}

async fn sweep_images(
    oven: &Oven,
    keep: &BTreeSet<model::Digest>,
    unused_since: Timestamp,
) -> Result<Swept, Fault> {
    Ok(match oven.sweep(keep, unused_since).await? {
        Some(swept) => Swept {
            images: swept.images,
            layers: swept.layers,
            bytes: swept.bytes,
            ..Swept::default()
        },
        None => Swept {
            busy: true,
            ..Swept::default()
        },
    })
}
