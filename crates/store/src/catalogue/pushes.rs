use jiff::Timestamp;
use model::{
    AppName, EnvironmentName, ExecutionId, Place, TenantName,
    port::{Commit, PushEvent},
};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _, Json, Word},
};

/// A commit that arrived on a branch, for one environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Push {
    /// Grows with time, over the whole platform.
    pub id: u64,
    pub tenant: TenantName,
    pub app: AppName,
    /// `None` until `vend.yaml` at the commit was read.
    pub environment: Option<EnvironmentName>,
    pub branch: String,
    pub commit: Commit,
    /// What brought it: `git`, `w-…` (a delivery), `redeploy`.
    pub origin: String,
    /// What was told of it, if anything was.
    pub event: Option<PushEvent>,
    pub pushed_by: String,
    pub state: PushState,
    /// Why it is in that state, where that is not obvious.
    pub reason: Option<String>,
    pub execution: Option<ExecutionId>,
    pub at: Timestamp,
    pub changed_at: Timestamp,
}

impl Push {
    pub fn place(&self) -> Option<Place> {
        Some(Place {
            tenant: self.tenant.clone(),
            app: self.app.clone(),
            environment: self.environment.clone()?,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PushState {
    Waiting,
    Running,
    /// A newer one went before it.
    Superseded,
    Done,
    Failed,
    /// Nothing follows the branch, or it is not to be released; the reason says.
    Ignored,
}

/// A push to be queued.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPush {
    pub tenant: TenantName,
    pub app: AppName,
    /// `None`: which environments follow the branch is not known yet; see [`Tx::assign_push`].
    pub environment: Option<EnvironmentName>,
    pub branch: String,
    pub commit: Commit,
    pub origin: String,
    pub event: Option<PushEvent>,
}

const SELECT: &str = "SELECT p.*, t.name AS tenant, a.name AS app FROM pushes p
    JOIN apps a ON a.id = p.app_id JOIN tenants t ON t.id = a.tenant_id";

impl Db<'_> {
    pub fn push(&self, id: u64) -> Result<Push, Error> {
        self.one(&format!("{SELECT} WHERE p.id = ?1"), [id], push)?
            .ok_or_else(|| Error::missing("push", id))
    }

    /// Of an app, or of one environment; newest first, below `before`.
    pub fn pushes(
        &self,
        tenant: &TenantName,
        app: &AppName,
        environment: Option<&EnvironmentName>,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<Push>, Error> {
        let sql = format!(
            "{SELECT} WHERE p.app_id = ?1 AND (?2 IS NULL OR p.environment = ?2) AND p.id < ?3
             ORDER BY p.id DESC LIMIT ?4"
        );
        let before = before.unwrap_or(i64::MAX as u64);
        let environment = environment.map(EnvironmentName::as_str);
        self.all(
            &sql,
            params![self.app_key(tenant, app)?, environment, before, limit],
            push,
        )
    }

    /// Those that an execution brings.
    pub fn pushes_of_execution(&self, place: &Place, execution: &ExecutionId) -> Result<Vec<Push>, Error> {
        let sql = format!(
            "{SELECT} WHERE p.app_id = ?1 AND p.environment = ?2 AND p.execution = ?3 AND p.state = 'running' ORDER BY p.id"
        );
        let key = self.app_key(&place.tenant, &place.app)?;
        let chosen = params![key, place.environment.as_str(), execution.as_str()];
        self.all(&sql, chosen, push)
    }

    /// The push that goes next in an environment: the newest that waits.
    pub fn waiting_push(&self, place: &Place) -> Result<Option<Push>, Error> {
        let sql = format!(
            "{SELECT} WHERE p.app_id = ?1 AND p.environment = ?2 AND p.state = 'waiting' ORDER BY p.id DESC LIMIT 1"
        );
        let app = self.app_key(&place.tenant, &place.app)?;
        self.one(&sql, params![app, place.environment.as_str()], push)
    }

    /// Waiting pushes whose environments are not known yet, oldest first.
    pub fn unassigned_pushes(&self) -> Result<Vec<Push>, Error> {
        let sql = format!("{SELECT} WHERE p.state = 'waiting' AND p.environment IS NULL ORDER BY p.id");
        self.all(&sql, [], push)
    }

    /// Environments with a waiting push and no execution under way, which are not moving elsewhere: where
    /// [`Tx::next_push`] finds work.
    pub fn places_to_release(&self) -> Result<Vec<Place>, Error> {
        self.all(
            "SELECT DISTINCT t.name AS tenant, a.name AS app, p.environment FROM pushes p
             JOIN apps a ON a.id = p.app_id JOIN tenants t ON t.id = a.tenant_id
             WHERE p.state = 'waiting' AND p.environment IS NOT NULL AND NOT EXISTS (
                 SELECT 1 FROM executions x WHERE x.tenant = t.name AND x.app = a.name
                 AND x.environment = p.environment AND x.ended_at IS NULL)
             AND NOT EXISTS (
                 SELECT 1 FROM moves m JOIN environments e ON e.id = m.environment_id
                 WHERE e.app_id = a.id AND e.name = p.environment)",
            [],
            |row| super::environments::place(row, "environment"),
        )
    }

    /// Environments where something is under way that a push waits for, in the queue or with an execution of its own, and
    /// which are not moving elsewhere: there no push goes next.
    pub fn places_held_up(&self) -> Result<Vec<Place>, Error> {
        self.all(
            "SELECT DISTINCT t.name AS tenant, a.name AS app, p.environment FROM pushes p
             JOIN apps a ON a.id = p.app_id JOIN tenants t ON t.id = a.tenant_id
             WHERE p.state IN ('waiting', 'running') AND p.environment IS NOT NULL AND EXISTS (
                 SELECT 1 FROM executions x WHERE x.tenant = t.name AND x.app = a.name
                 AND x.environment = p.environment AND x.ended_at IS NULL AND x.id IS NOT p.execution)
             AND NOT EXISTS (
                 SELECT 1 FROM moves m JOIN environments e ON e.id = m.environment_id
                 WHERE e.app_id = a.id AND e.name = p.environment)",
            [],
            |row| super::environments::place(row, "environment"),
        )
    }
}

impl Tx<'_> {
    /// Queues a push and gives its id.
    pub fn enqueue_push(&self, new: &NewPush, by: &By) -> Result<u64, Error> {
        let app = self.app_key(&new.tenant, &new.app)?;
        self.run(
            "INSERT INTO pushes (app_id, environment, branch, commit_json, origin, pushed_by, state, at, changed_at,
                 event)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?9)",
            params![
                app,
                new.environment.as_ref().map(EnvironmentName::as_str),
                new.branch,
                Json(&new.commit),
                new.origin,
                by.actor,
                Word(PushState::Waiting),
                At(by.at),
                new.event.as_ref().map(Json)
            ],
        )?;
        let id = self.connection.last_insert_rowid() as u64;
        let detail = json!({
            "push": id, "environment": new.environment, "branch": new.branch, "commit": new.commit.id,
            "origin": new.origin,
        });
        self.note(
            by,
            "push.receive",
            Some(&new.tenant),
            format!("{}/{}", new.tenant, new.app),
            detail,
        )?;
        Ok(id)
    }

    /// Keeps why a waiting push cannot go on yet. It goes on without a reason.
    pub fn delay_push(&self, id: u64, reason: &str) -> Result<(), Error> {
        self.run(
            "UPDATE pushes SET reason = ?2 WHERE id = ?1 AND state = 'waiting' AND environment IS NULL",
            params![id, reason],
        )
        .map(drop)
    }

    /// Says which environments a push is for: the first one takes the push itself, each other one a copy. None: it
    /// is ignored, for `reason`. Gives the ids of all of them.
    pub fn assign_push(
        &self,
        id: u64,
        environments: &[EnvironmentName],
        reason: &str,
        by: &By,
    ) -> Result<Vec<u64>, Error> {
        let push = self.push(id)?;
        if push.state != PushState::Waiting || push.environment.is_some() {
            return Err(Error::refused(format!("push {id} has its environment already")));
        }
        let Some((first, others)) = environments.split_first() else {
            self.finish_push(id, PushState::Ignored, Some(reason), by)?;
            return Ok(vec![]);
        };
        self.run(
            "UPDATE pushes SET environment = ?2, reason = NULL WHERE id = ?1",
            params![id, first.as_str()],
        )?;
        let mut ids = vec![id];
        for environment in others {
            let copy = NewPush {
                tenant: push.tenant.clone(),
                app: push.app.clone(),
                environment: Some(environment.clone()),
                branch: push.branch.clone(),
                commit: push.commit.clone(),
                origin: push.origin.clone(),
                event: push.event.clone(),
            };
            let pusher = By::new(&push.pushed_by, by.at);
            ids.push(self.enqueue_push(&copy, &pusher)?);
        }
        Ok(ids)
    }

    /// Takes the newest waiting push of an environment for `execution`, unless an execution of that environment is
    /// under way. Older waiting ones are superseded. Start the execution in the same transaction, after this.
    pub fn next_push(&self, place: &Place, execution: &ExecutionId, by: &By) -> Result<Option<Push>, Error> {
        if self.is_busy(place)? {
            return Ok(None);
        }
        let Some(Push { id: newest, .. }) = self.waiting_push(place)? else {
            return Ok(None);
        };
        let app = self.app_key(&place.tenant, &place.app)?;
        let older: Vec<u64> = self.all(
            "SELECT id FROM pushes WHERE app_id = ?1 AND environment = ?2 AND state = 'waiting' AND id < ?3",
            params![app, place.environment.as_str(), newest],
            |row| row.get(0),
        )?;
        for id in older {
            self.finish_push(
                id,
                PushState::Superseded,
                Some(&format!("push {newest} is newer")),
                by,
            )?;
        }
        self.run(
            "UPDATE pushes SET state = ?2, execution = ?3, changed_at = ?4 WHERE id = ?1",
            params![newest, Word(PushState::Running), execution.as_str(), At(by.at)],
        )?;
        let detail = json!({ "push": newest, "execution": execution });
        self.note(by, "push.run", Some(&place.tenant), place, detail)?;
        self.push(newest).map(Some)
    }

    /// Ends a push. One that has ended stays as it is.
    pub fn finish_push(&self, id: u64, state: PushState, reason: Option<&str>, by: &By) -> Result<(), Error> {
        let push = self.push(id)?;
        if !matches!(push.state, PushState::Waiting | PushState::Running) {
            return Ok(());
        }
        if matches!(state, PushState::Waiting | PushState::Running) {
            return Err(Error::refused(format!("push {id} cannot end as {state:?}")));
        }
        self.run(
            "UPDATE pushes SET state = ?2, reason = ?3, changed_at = ?4 WHERE id = ?1",
            params![id, Word(state), reason, At(by.at)],
        )?;
        let action = match state {
            PushState::Superseded => "push.supersede",
            PushState::Done => "push.done",
            PushState::Failed => "push.fail",
            _ => "push.ignore",
        };
        let object = match push.place() {
            Some(place) => place.to_string(),
            None => format!("{}/{}", push.tenant, push.app),
        };
        self.note(
            by,
            action,
            Some(&push.tenant),
            object,
            json!({ "push": id, "reason": reason }),
        )
    }

    pub(super) fn ignore_waiting(&self, place: &Place, reason: &str, by: &By) -> Result<(), Error> {
        let app = self.app_key(&place.tenant, &place.app)?;
        let waiting: Vec<u64> = self.all(
            "SELECT id FROM pushes WHERE app_id = ?1 AND environment = ?2 AND state = 'waiting'",
            params![app, place.environment.as_str()],
            |row| row.get(0),
        )?;
        waiting
            .into_iter()
            .try_for_each(|id| self.finish_push(id, PushState::Ignored, Some(reason), by))
    }
}

fn push(row: &Row<'_>) -> rusqlite::Result<Push> {
    Ok(Push {
        id: row.get("id")?,
        tenant: row.parsed("tenant")?,
        app: row.parsed("app")?,
        environment: row.maybe_parsed("environment")?,
        branch: row.get("branch")?,
        commit: row.json("commit_json")?,
        origin: row.get("origin")?,
        event: row.maybe_json("event")?,
        pushed_by: row.get("pushed_by")?,
        state: row.word("state")?,
        reason: row.get("reason")?,
        execution: row.maybe_parsed("execution")?,
        at: row.at("at")?,
        changed_at: row.at("changed_at")?,
    })
}
