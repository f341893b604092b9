//! Questions to people about one exact plan, and their answers.

use jiff::Timestamp;
use model::{ApprovalId, Digest, ExecutionId, Place, plan::Plan};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _, Hash, Json, Word, time},
};

#[derive(Debug, Clone, PartialEq)]
pub struct Approval {
    pub id: ApprovalId,
    pub place: Place,
    /// Who waits for the answer.
    pub execution: ExecutionId,
    pub task: u64,
    pub plan: Plan,
    /// Of the plan: what a decision is about.
    pub digest: Digest,
    /// So many must say yes.
    pub required: u32,
    /// Who may decide; empty: anybody with the role.
    pub approvers: Vec<String>,
    /// Who wrote or pushed what the plan brings.
    pub authors: Vec<String>,
    pub author_may_approve: bool,
    pub state: ApprovalState,
    /// Why it was rejected or is void.
    pub reason: Option<String>,
    pub opened_at: Timestamp,
    pub expires_at: Timestamp,
    pub changed_at: Timestamp,
    /// In their order.
    pub decisions: Vec<Decision>,
}

impl Approval {
    /// How many have said yes.
    pub fn given(&self) -> u32 {
        self.decisions.iter().filter(|decision| decision.yes).count() as u32
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalState {
    Open,
    Approved,
    Rejected,
    Expired,
    /// The plan changed, or nobody waits for the answer any more.
    Void,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// As in the ledger.
    pub actor: String,
    pub yes: bool,
    pub why: Option<String>,
    pub at: Timestamp,
}

/// A question to be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct NewApproval {
    pub id: ApprovalId,
    pub place: Place,
    pub execution: ExecutionId,
    pub task: u64,
    pub plan: Plan,
    pub required: u32,
    pub approvers: Vec<String>,
    pub authors: Vec<String>,
    pub author_may_approve: bool,
    pub expires_at: Timestamp,
}

const SELECT: &str = "SELECT p.*, t.name AS tenant, a.name AS app FROM approvals p
    JOIN apps a ON a.id = p.app_id JOIN tenants t ON t.id = a.tenant_id";

/// What names one person: the mail address in `Ann <ann@acme.example>` or `person:ann@acme.example`, in lower case.
fn person(text: &str) -> String {
    let text = text
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map_or(text, |(mail, _)| mail);
    text.strip_prefix("person:").unwrap_or(text).trim().to_lowercase()
}

impl Db<'_> {
    pub fn approval(&self, id: &ApprovalId) -> Result<Approval, Error> {
        let found = self.one(&format!("{SELECT} WHERE p.id = ?1"), [id.as_str()], approval)?;
        self.with_decisions(found.ok_or_else(|| Error::missing("approval", id))?)
    }

    /// All that wait for people, oldest first.
    pub fn open_approvals(&self) -> Result<Vec<Approval>, Error> {
        let found = self.all(
            &format!("{SELECT} WHERE p.state = 'open' ORDER BY p.opened_at"),
            [],
            approval,
        )?;
        found
            .into_iter()
            .map(|approval| self.with_decisions(approval))
            .collect()
    }

    /// Those of an environment, newest first.
    pub fn approvals(&self, place: &Place, limit: u32) -> Result<Vec<Approval>, Error> {
        let app = self.app_key(&place.tenant, &place.app)?;
        let found = self.all(
            &format!(
                "{SELECT} WHERE p.app_id = ?1 AND p.environment = ?2 ORDER BY p.opened_at DESC LIMIT ?3"
            ),
            params![app, place.environment.as_str(), limit],
            approval,
        )?;
        found
            .into_iter()
            .map(|approval| self.with_decisions(approval))
            .collect()
    }

    /// Those that an execution asked for, in their order.
    pub fn approvals_of_execution(&self, execution: &ExecutionId) -> Result<Vec<Approval>, Error> {
        let sql = format!("{SELECT} WHERE p.execution = ?1 ORDER BY p.opened_at, p.rowid");
        let found = self.all(&sql, [execution.as_str()], approval)?;
        found
            .into_iter()
            .map(|approval| self.with_decisions(approval))
            .collect()
    }

    /// When the next open one expires.
    pub fn next_approval_expiry(&self) -> Result<Option<Timestamp>, Error> {
        let micros: Option<i64> =
            self.value("SELECT min(expires_at) FROM approvals WHERE state = 'open'", [])?;
        Ok(micros.map(time).transpose()?)
    }

    fn with_decisions(&self, mut approval: Approval) -> Result<Approval, Error> {
        approval.decisions = self.all(
            "SELECT * FROM decisions WHERE approval = ?1 ORDER BY at, person",
            [approval.id.as_str()],
            |row| {
                Ok(Decision {
                    actor: row.get("actor")?,
                    yes: row.get("yes")?,
                    why: row.get("why")?,
                    at: row.at("at")?,
                })
            },
        )?;
        Ok(approval)
    }
}

impl Tx<'_> {
    /// Asks. The same question of the same task is asked once: asked again, the answer is what became of it. Another
    /// plan of the same execution makes what was asked before void, answers included.
    pub fn open_approval(&self, new: &NewApproval, by: &By) -> Result<Approval, Error> {
        let digest = new.plan.digest();
        for old in self.approvals_of_execution(&new.execution)? {
            if old.task == new.task && old.digest == digest && old.state != ApprovalState::Void {
                return Ok(old);
            }
            if matches!(old.state, ApprovalState::Open | ApprovalState::Approved) {
                self.end_approval(&old, ApprovalState::Void, Some("the plan changed"), by)?;
            }
        }
        let app = self.app_key(&new.place.tenant, &new.place.app)?;
        self.insert(
            "INSERT INTO approvals VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, NULL, ?13, ?14, ?13)",
            params![
                new.id.as_str(),
                app,
                new.place.environment.as_str(),
                new.execution.as_str(),
                new.task,
                Json(&new.plan),
                Hash(digest),
                new.required.max(1),
                Json(&new.approvers),
                Json(&new.authors),
                new.author_may_approve,
                Word(ApprovalState::Open),
                At(by.at),
                At(new.expires_at)
            ],
            || Error::exists("approval", &new.id),
        )?;
        let detail = json!({
            "approval": new.id, "plan": digest, "required": new.required.max(1), "by": new.approvers,
            "expires_at": new.expires_at,
        });
        self.note(by, "approval.open", Some(&new.place.tenant), &new.place, detail)?;
        self.approval(&new.id)
    }

    /// A person's yes or no to the plan with this digest. One no rejects; enough yeses approve. The role is the
    /// caller's to check; everything else is refused here.
    pub fn decide(
        &self,
        id: &ApprovalId,
        digest: &Digest,
        yes: bool,
        why: Option<&str>,
        by: &By,
    ) -> Result<Approval, Error> {
        let asked = self.approval(id)?;
        asked.may_decide(digest, by)?;
        self.insert(
            "INSERT INTO decisions VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![id.as_str(), person(&by.actor), by.actor, yes, why, At(by.at)],
            || decided(id, by),
        )?;
        let place = &asked.place;
        let action = if yes {
            "approval.approve"
        } else {
            "approval.reject"
        };
        let detail = json!({ "approval": id, "plan": digest, "why": why });
        self.note(by, action, Some(&place.tenant), place, detail)?;
        let decided = self.approval(id)?;
        if !yes {
            let reason = format!(
                "rejected by {}{}",
                by.actor,
                why.map(|why| format!(": {why}")).unwrap_or_default()
            );
            self.set_approval_state(id, ApprovalState::Rejected, Some(&reason), by)?;
        } else if decided.given() >= decided.required {
            self.set_approval_state(id, ApprovalState::Approved, None, by)?;
        }
        self.approval(id)
    }

    /// Nobody waits for the answers of this execution any more.
    pub fn void_approvals(&self, execution: &ExecutionId, reason: &str, by: &By) -> Result<(), Error> {
        for approval in self.approvals_of_execution(execution)? {
            if approval.state == ApprovalState::Open {
                self.end_approval(&approval, ApprovalState::Void, Some(reason), by)?;
            }
        }
        Ok(())
    }

    pub(crate) fn void_open_approvals(&self, place: &Place, reason: &str, by: &By) -> Result<(), Error> {
        for approval in self.open_approvals()?.iter().filter(|open| open.place == *place) {
            self.end_approval(approval, ApprovalState::Void, Some(reason), by)?;
        }
        Ok(())
    }

    /// Ends every open one whose time is over, and gives them.
    pub fn expire_approvals(&self, by: &By) -> Result<Vec<Approval>, Error> {
        let due: Vec<ApprovalId> = self.all(
            "SELECT id FROM approvals WHERE state = 'open' AND expires_at <= ?1 ORDER BY expires_at",
            [At(by.at)],
            |row| row.parsed("id"),
        )?;
        due.iter()
            .map(|id| {
                self.end_approval(
                    &self.approval(id)?,
                    ApprovalState::Expired,
                    Some("nobody decided in time"),
                    by,
                )?;
                self.approval(id)
            })
            .collect()
    }

    fn end_approval(
        &self,
        approval: &Approval,
        state: ApprovalState,
        reason: Option<&str>,
        by: &By,
    ) -> Result<(), Error> {
        self.set_approval_state(&approval.id, state, reason, by)?;
        let action = if state == ApprovalState::Expired {
            "approval.expire"
        } else {
            "approval.void"
        };
        let detail = json!({ "approval": approval.id, "reason": reason });
        self.note(by, action, Some(&approval.place.tenant), &approval.place, detail)
    }

    fn set_approval_state(
        &self,
        id: &ApprovalId,
        state: ApprovalState,
        reason: Option<&str>,
        by: &By,
    ) -> Result<(), Error> {
        self.run(
            "UPDATE approvals SET state = ?2, reason = ?3, changed_at = ?4 WHERE id = ?1",
            params![id.as_str(), Word(state), reason, At(by.at)],
        )
        .map(drop)
    }
}

fn decided(id: &ApprovalId, by: &By) -> Error {
    Error::refused_with(
        format!("{} has decided on {id} already", by.actor),
        format!("vend approvals show {id}"),
    )
}

impl Approval {
    fn may_decide(&self, digest: &Digest, by: &By) -> Result<(), Error> {
        let id = &self.id;
        let show = format!("vend approvals show {id}");
        if self.state != ApprovalState::Open {
            let reason = self
                .reason
                .as_ref()
                .map(|reason| format!(": {reason}"))
                .unwrap_or_default();
            let state = format!("{:?}", self.state).to_lowercase();
            return Err(Error::refused_with(
                format!("approval {id} is {state}{reason}"),
                format!("vend executions show {}", self.execution),
            ));
        }
        if self.expires_at <= by.at {
            let app = format!("{}/{}", self.place.tenant, self.place.app);
            return Err(Error::refused_with(
                format!("approval {id} has expired"),
                format!("vend push {app} asks again"),
            ));
        }
        if self.digest != *digest {
            return Err(Error::refused_with(
                format!("approval {id} is about another plan than the one that was shown"),
                show,
            ));
        }
        let who = person(&by.actor);
        if !self.approvers.is_empty() && !self.approvers.iter().any(|named| person(named) == who) {
            return Err(Error::refused_with(
                format!("{} is not among those who may decide on {id}", by.actor),
                format!(
                    "ask one of {} to type `vend approve {id}`",
                    self.approvers.join(", ")
                ),
            ));
        }
        if !self.author_may_approve && self.authors.iter().any(|author| person(author) == who) {
            let tenant = &self.place.tenant;
            return Err(Error::refused_with(
                format!(
                    "{} is an author of what {id} is about: somebody else must decide",
                    by.actor
                ),
                format!(
                    "ask an approver to type `vend approve {id}`; `vend tokens create NAME --role approver --tenant {tenant}` makes one"
                ),
            ));
        }
        if self
            .decisions
            .iter()
            .any(|decision| person(&decision.actor) == who)
        {
            return Err(decided(id, by));
        }
        Ok(())
    }
}

fn approval(row: &Row<'_>) -> rusqlite::Result<Approval> {
    Ok(Approval {
        id: row.parsed("id")?,
        place: crate::catalogue::place(row, "environment")?,
        execution: row.parsed("execution")?,
        task: row.get("task")?,
        plan: row.json("plan")?,
        digest: row.digest("digest")?,
        required: row.get("required")?,
        approvers: row.json("approvers")?,
        authors: row.json("authors")?,
        author_may_approve: row.get("author_may_approve")?,
        state: row.word("state")?,
        reason: row.get("reason")?,
        opened_at: row.at("opened_at")?,
        expires_at: row.at("expires_at")?,
        changed_at: row.at("changed_at")?,
        decisions: vec![],
    })
}
