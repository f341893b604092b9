//! Hands over what was pushed.
//!
//! What was handed over is remembered in the repository itself, so that a platform killed between git's work and
//! ours finds, when it is back, what it still owes. One task does it, one repository after the other, so that two
//! pushes to one branch are handed over in their order.

use std::sync::Arc;

use jiff::Timestamp;
use model::{AppName, TenantName};
use store::By;
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::repository::{Error, Moved, Repositories};
use crate::web::{
    commands::{Commands, Pushed},
    refusal::chain,
    state::State,
};

/// Repositories that wait to be looked at.
const QUEUE: usize = 64;

struct Request {
    tenant: TenantName,
    app: AppName,
    actor: String,
    answer: oneshot::Sender<Vec<String>>,
}

/// Asks the one task to look at a repository.
#[derive(Clone)]
pub struct Announcer(mpsc::Sender<Request>);

impl Announcer {
    /// Hands over every branch that moved, and gives a line for people for each.
    pub async fn announce(&self, tenant: TenantName, app: AppName, actor: String) -> Vec<String> {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            tenant,
            app,
            actor,
            answer,
        };
        let stopping =
            || vec!["the platform is stopping; it goes on with this push when it is back".to_owned()];
        if self.0.send(request).await.is_err() {
            return stopping();
        }
        answered.await.unwrap_or_else(|_| stopping())
    }
}

/// Starts the task.
pub fn announcer(
    repositories: Repositories,
    commands: Arc<dyn Commands>,
    clock: fn() -> Timestamp,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> Announcer {
    let (send, mut receive) = mpsc::channel::<Request>(QUEUE);
    tasks.spawn(async move {
        loop {
            let request = tokio::select! {
                () = stop.cancelled() => return,
                request = receive.recv() => request,
            };
            let Some(request) = request else { return };
            let lines = hand_over(&repositories, commands.as_ref(), clock, &request).await;
            let lines = lines.unwrap_or_else(|error| {
                tracing::error!(
                    tenant = %request.tenant, app = %request.app, error = chain(&error),
                    "what was pushed could not be read; it is tried again with the next push"
                );
                vec!["the platform could not read what was pushed; its log says why".to_owned()]
            });
            // Who asked may have gone.
            let _ = request.answer.send(lines);
        }
    });
    Announcer(send)
}

/// Looks at every built-in repository: what a platform does when it starts, and now and then.
pub async fn announce_all(state: &State) -> Result<(), store::Error> {
    let apps = state.store.read(|db| db.apps(None)).await?;
    for app in apps.into_iter().filter(|app| app.repository.is_none()) {
        if state.repositories.path(&app.tenant, &app.name).exists() {
            let announced = state.announcer.announce(app.tenant, app.name, "platform".into());
            for line in announced.await {
                tracing::info!("handed over a push that was left: {line}");
            }
        }
    }
    Ok(())
}

async fn hand_over(
    repositories: &Repositories,
    commands: &dyn Commands,
    clock: fn() -> Timestamp,
    request: &Request,
) -> Result<Vec<String>, Error> {
    let (tenant, app) = (&request.tenant, &request.app);
    let mut lines = Vec::new();
    for moved in repositories.moved(tenant, app).await? {
        let Moved {
            branch,
            before,
            after,
        } = &moved;
        let Some(commit) = after else {
            let by = By::new(request.actor.clone(), clock());
            match commands
                .gone(tenant.clone(), app.clone(), branch.clone(), by)
                .await
            {
                Ok(line) => {
                    repositories.announced(tenant, app, &moved).await?;
                    lines.push(line);
                }
                // It stays owed.
                Err(fault) => lines.push(format!("{branch}: {fault}")),
            }
            continue;
        };
        repositories.point_head(tenant, app, branch).await?;
        let push = Pushed {
            tenant: tenant.clone(),
            app: app.clone(),
            branch: branch.clone(),
            before: before.clone(),
            commit: repositories.commit(tenant, app, branch, commit).await?,
            pusher: request.actor.clone(),
            origin: "git".into(),
            account: None,
            clone_url: None,
            at: clock(),
        };
        match commands.pushed(push).await {
            Ok(line) => {
                repositories.announced(tenant, app, &moved).await?;
                lines.push(line);
            }
            // It stays owed.
            Err(fault) => lines.push(format!("{branch}: {fault}")),
        }
    }
    Ok(lines)
}
