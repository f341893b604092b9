//! What people can set in motion. Each command is in the store before it answers; what it starts goes on by itself.

use std::sync::Arc;

use axum::body::Body;
use engine::PLATFORM;
use futures_util::future::BoxFuture;
use model::{
    AppName, ApprovalId, DeploymentId, ExecutionId, HostId, Place, TenantName,
    plan::{Plan, PlanKind},
    port::{Fault, PushEvent},
    wire::{NewRollback, Refreshed},
};
use store::{By, Deployment, DeploymentState, NewBuilder, NewInvitation, NewPush, PushState, Tx};

use super::{Outcome, World, approve, cancel, deletion, moving, plan, runs, start, stored, target};
use crate::{
    machines::Pass,
    reconcile::{bases, left},
    web::{Commands, Moving, Pushed},
};

pub struct Flows {
    pub world: Arc<World>,
}

/// A rule of the store that forbids something is the caller's to mend; all else is the platform's.
pub(super) fn refused(error: store::Error) -> Fault {
    match error {
        store::Error::Refused { message, next } => Fault {
            next,
            ..Fault::order(message)
        },
        store::Error::Missing { .. } | store::Error::Exists { .. } => Fault::order(error.to_string()),
        other => stored(other),
    }
}

impl Commands for Flows {
    fn pushed(&self, push: Pushed) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(async move {
            let by = By::new(push.pusher, push.at);
            // Git writes zeros for a branch that was not there.
            let before = push.before.unwrap_or_else(|| "0".repeat(push.commit.id.len()));
            let new = NewPush {
                tenant: push.tenant,
                app: push.app,
                environment: None,
                branch: push.branch,
                commit: push.commit,
                origin: push.origin,
                event: Some(PushEvent {
                    before: Some(before),
                    account: push.account.map(|account| account.to_string()),
                }),
            };
            let (branch, short) = (
                new.branch.clone(),
                new.commit.id.chars().take(12).collect::<String>(),
            );
            let queued = self.world.store.write(move |tx| {
                let newest = tx.pushes(&new.tenant, &new.app, None, None, 50)?;
                let newest = newest.into_iter().find(|push| push.branch == new.branch);
                // What failed may be tried again: the commit need not be what was wrong.
                let same =
                    |push: &store::Push| push.commit.id == new.commit.id && push.state != PushState::Failed;
                match newest.filter(same) {
                    Some(push) if tx.still_counts(&push)? => Ok(false),
                    _ => tx.enqueue_push(&new, &by).map(|_| true),
                }
            });
            let is_new = queued.await.map_err(refused)?;
            self.world.pokes.pushes.notify_one();
            Ok(match is_new {
                true => format!("{branch} at {short} is on its way"),
                false => format!("{branch} at {short} was pushed before: nothing to do"),
            })
        })
    }

    fn gone(
        &self,
        tenant: TenantName,
        app: AppName,
        branch: String,
        by: By,
    ) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(async move {
            let own = branch.clone();
            let gone = self
                .world
                .store
                .write(move |tx| tx.branch_gone(&tenant, &app, &own, None, &by));
            let gone = gone.await.map_err(refused)?;
            self.world.pokes.branches.notify_one();
            let names = |places: &[Place]| {
                let names: Vec<&str> = places.iter().map(|place| place.environment.as_str()).collect();
                names.join(", ")
            };
            Ok(match (&gone.ending[..], &gone.kept[..]) {
                ([], []) => format!("{branch} is gone; what it released stays"),
                ([], kept) => format!("{branch} is gone; {} stays, because it is protected", names(kept)),
                (ending, _) => format!(
                    "{branch} is gone, and its environment {} goes with it",
                    names(ending)
                ),
            })
        })
    }

    fn plan_rollback(&self, place: Place, to: Option<u64>) -> BoxFuture<'_, Result<Plan, Fault>> {
        Box::pin(async move {
            let to = self.target(&place, to).await?;
            plan::of(&self.world, &place, PlanKind::Rollback, to).await
        })
    }

    fn invite(&self, new: NewInvitation, by: By) -> BoxFuture<'_, Result<Pass, Fault>> {
        Box::pin(async move { self.world.machines.invite(&self.world.store, new, by).await })
    }

    fn invite_builder(&self, new: NewBuilder, by: By) -> BoxFuture<'_, Result<Pass, Fault>> {
        Box::pin(async move {
            let machines = &self.world.machines;
            machines.invite_builder(&self.world.store, new, by).await
        })
    }

    fn remove_builder(&self, id: HostId, now: bool, by: By) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let own = id.clone();
            let removed = self.world.store.write(move |tx| match now {
                true => tx.expel_builder(&own, &by),
                false => tx.drain_builder(&own, &by),
            });
            removed.await.map_err(refused)?;
            if now {
                // Behind the row: one that dials again is a stranger.
                self.world.machines.live.close(&id);
            }
            self.world.pokes.builders.notify_one();
            Ok(())
        })
    }

    fn remove_machine(&self, id: HostId, by: By) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let drained = self.world.store.write(move |tx| tx.drain_machine(&id, &by));
            drained.await.map_err(refused)?;
            self.world.pokes.machines.notify_one();
            Ok(())
        })
    }

    fn rollback(
        &self,
        place: Place,
        order: NewRollback,
        by: By,
    ) -> BoxFuture<'_, Result<ExecutionId, Fault>> {
        Box::pin(async move {
            let to = self.target(&place, order.to).await?;
            let begun = start::rollback(&self.world, place, to, order.across_migrations, by);
            begun.await.map_err(refused)
        })
    }

    fn destroy(&self, place: Place, by: By) -> BoxFuture<'_, Result<ExecutionId, Fault>> {
        Box::pin(async move { start::destroy(&self.world, place, by).await.map_err(refused) })
    }

    fn delete_app(
        &self,
        tenant: TenantName,
        app: AppName,
        by: By,
    ) -> BoxFuture<'_, Result<Vec<ExecutionId>, Fault>> {
        Box::pin(async move { self.delete(tenant, Some(app), by).await })
    }

    fn delete_tenant(&self, tenant: TenantName, by: By) -> BoxFuture<'_, Result<Vec<ExecutionId>, Fault>> {
        Box::pin(async move { self.delete(tenant, None, by).await })
    }

    fn scale(&self, place: Place, hosts: u32, by: By) -> BoxFuture<'_, Result<ExecutionId, Fault>> {
        Box::pin(async move { start::scale(&self.world, place, hosts, by).await.map_err(refused) })
    }

    fn follow(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.world.routes.apply())
    }

    fn moved(&self, place: Place, step: Moving, by: By) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(moving::step(&self.world, place, step, by))
    }

    fn load(&self, place: Place, dump: Body, by: By) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(moving::load(&self.world, place, dump, by))
    }

    fn dump(&self, place: Place, by: By) -> BoxFuture<'_, Result<(String, Body), Fault>> {
        Box::pin(moving::dump(&self.world, place, by))
    }

    fn wake(&self, place: Place, by: By) -> BoxFuture<'_, Result<ExecutionId, Fault>> {
        Box::pin(async move { start::wake(&self.world, &place, by).await.map_err(refused) })
    }

    fn retry(&self, place: Place, by: By) -> BoxFuture<'_, Result<u64, Fault>> {
        Box::pin(async move {
            let queued = self.world.store.write(move |tx| {
                start::refuse_gone(tx, &place)?;
                let last = tx.pushes(&place.tenant, &place.app, Some(&place.environment), None, 1)?;
                let failed = last.into_iter().find(|push| push.state == PushState::Failed);
                let failed = failed.ok_or_else(|| store::Error::Refused {
                    message: format!("the last push to {place} has not failed"),
                    next: Some(format!("vend why {}/{}", place.tenant, place.app)),
                })?;
                let again = NewPush {
                    tenant: place.tenant.clone(),
                    app: place.app.clone(),
                    environment: Some(place.environment.clone()),
                    branch: failed.branch,
                    commit: failed.commit,
                    origin: "redeploy".into(),
                    event: failed.event,
                };
                // Who pushed stays its author: asking again does not make somebody else's commit one's own.
                let pusher = By::new(failed.pushed_by, by.at);
                let id = tx.enqueue_push(&again, &pusher)?;
                let mut deed = deletion::deed(&by, "push.retry", Some(&place), &place.to_string());
                deed.detail = serde_json::json!({ "push": id, "failed": failed.id });
                tx.record(deed, by.at)?;
                Ok(id)
            });
            let id = queued.await.map_err(refused)?;
            self.world.pokes.pushes.notify_one();
            Ok(id)
        })
    }

    fn cancel(&self, execution: ExecutionId, in_migration: bool, by: By) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let write = move |tx: &mut Tx<'_>| cancel::order(tx, &execution, in_migration, &by);
            let order = self.world.store.write(write).await.map_err(refused)?;
            if cancel::carry_out(&self.world.engine, order).await? {
                left::finish(&self.world).await?;
            }
            Ok(())
        })
    }

    fn refresh_bases(&self, base: Option<String>, by: By) -> BoxFuture<'_, Result<Refreshed, Fault>> {
        Box::pin(async move {
            let deed = deletion::deed(&by, "bases.refresh", None, base.as_deref().unwrap_or("all"));
            let recorded = self.world.store.write(move |tx| tx.record(deed, by.at));
            recorded.await.map_err(refused)?;
            let which = base.map_or(bases::Which::All, bases::Which::One);
            bases::round(&self.world, &which).await
        })
    }

    fn hold(&self, deployment: DeploymentId, held: bool, by: By) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let written = self
                .world
                .store
                .write(move |tx| tx.pause_deployment(&deployment, held, &by));
            written.await.map_err(refused)?;
            self.world.pokes.held.notify_waiters();
            // Whoever pushed the fix does not wait for what somebody holds.
            self.world.pokes.pushes.notify_one();
            Ok(())
        })
    }

    fn abort(
        &self,
        deployment: DeploymentId,
        in_migration: bool,
        by: By,
    ) -> BoxFuture<'_, Result<ExecutionId, Fault>> {
        Box::pin(async move {
            let actor = by.clone();
            let stopped = self
                .world
                .store
                .write(move |tx| stop_undo(tx, &deployment, &actor));
            let (found, is_stopped) = stopped.await.map_err(refused)?;
            if is_stopped {
                self.world.pokes.held.notify_waiters();
            }
            let execution = found.execution.filter(|_| !found.state.has_ended());
            let execution = execution.ok_or_else(|| {
                let state = found.state.word();
                Fault::order(format!("deployment {} has ended: it is {state}", found.id))
                    .next(format!("vend deployments list {}", found.place))
            })?;
            if !is_stopped {
                self.cancel(execution.clone(), in_migration, by).await?;
            }
            Ok(execution)
        })
    }

    fn voted(&self, approval: ApprovalId) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let read = self.world.store.read(move |db| {
                let approval = db.approval(&approval)?;
                let run = runs::open(db, db.execution_summary(&approval.execution)?.run)?;
                let token = run.and_then(|run| Some(run.orders.get(&approval.task)?.token.to_string()));
                Ok((approval, token))
            });
            let (approval, token) = read.await.map_err(refused)?;
            // Nobody waits for the answer any more.
            let Some(token) = token else { return Ok(()) };
            let engine = &self.world.engine;
            let answered = match approve::answer(&approval) {
                Ok(Outcome::Later | Outcome::Until(_)) => return Ok(()),
                Ok(Outcome::Done(output)) => engine.succeed(PLATFORM, &token, output).await,
                Err(fault) => {
                    let (error, cause) = runs::failure(&fault);
                    engine.fail(PLATFORM, &token, Some(error), Some(cause)).await
                }
            };
            match answered {
                Ok(()) | Err(engine::Error::TaskGone) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
    }
}

/// Stops a deployment that undoes another: its execution ends the scripts, and goes on with its end. Any other is left
/// as it is. Gives what it was before, and whether it is stopped.
fn stop_undo(tx: &Tx<'_>, id: &DeploymentId, by: &By) -> Result<(Deployment, bool), store::Error> {
    let found = tx.deployment(id)?;
    let undo = match found.execution.as_ref().filter(|_| !found.state.has_ended()) {
        Some(execution) => tx.open_undo(execution)?,
        None => None,
    };
    match undo {
        None => Ok((found, false)),
        Some(undo) if undo.id == *id => {
            let cause = cancel::cause(&by.actor);
            tx.finish_deployment(
                id,
                DeploymentState::Stopped,
                Some("MANUAL_STOP"),
                Some(&cause),
                by,
            )?;
            Ok((found, true))
        }
        Some(undo) => Err(store::Error::Refused {
            message: format!("{id} is being undone already, by {}", undo.id),
            next: Some(format!("vend deploy abort {}", undo.id)),
        }),
    }
}

impl Flows {
    /// The release to go back to: the one asked for, or the last that was live of those made before this one.
    async fn target(&self, place: &Place, to: Option<u64>) -> Result<u64, Fault> {
        let place = place.clone();
        let found = self.world.store.read(move |db| target::find(db, &place, to));
        found.await.map_err(refused)?
    }

    async fn delete(
        &self,
        tenant: TenantName,
        app: Option<AppName>,
        by: By,
    ) -> Result<Vec<ExecutionId>, Fault> {
        let what = deletion::Deletion {
            tenant,
            app,
            actor: by.actor.clone(),
        };
        let own = what.clone();
        self.world
            .store
            .write(move |tx| deletion::order(tx, &own, &by))
            .await
            .map_err(refused)?;
        deletion::once(&self.world, &what).await
    }
}

#[cfg(test)]
mod tests {
    use store::Store;

    use super::*;
    use crate::flow::supersede::giving;

    #[tokio::test]
    async fn a_way_back_is_stopped_by_its_own_name_and_on_record() {
        let directory = tempfile::tempdir().unwrap();
        let path = camino::Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        let store = Store::open(&path).unwrap();
        let stopped = store.write(|tx| {
            let place: Place = "acme/shop/dev".parse().unwrap();
            let execution = ExecutionId::from_bits(2);
            giving::seed(tx, &place, &execution)?;
            let own = giving::deployment();
            // Nothing undoes it yet: it is its execution that is cancelled.
            assert!(!stop_undo(tx, &own, &giving::by())?.1);
            let undo = giving::undo(tx, &place, &execution)?;
            let refused = stop_undo(tx, &own, &giving::by()).unwrap_err();
            assert!(stop_undo(tx, &undo, &giving::by())?.1);
            assert!(!stop_undo(tx, &undo, &giving::by())?.1, "once");
            Ok::<_, store::Error>((refused, tx.deployment(&undo)?, tx.deployment(&own)?))
        });
        let (refused, undo, own) = stopped.await.unwrap();
        let store::Error::Refused { next, .. } = refused else {
            panic!("{refused}")
        };
        assert_eq!(next, Some(format!("vend deploy abort {}", undo.id)));
        assert_eq!(undo.state, DeploymentState::Stopped);
        assert_eq!(undo.reason.as_deref(), Some("person:ann cancelled it"));
        assert!(!own.state.has_ended());
    }
}
