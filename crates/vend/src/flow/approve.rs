//! The question to people about one exact plan. The answer comes from them, later: see `Commands::voted`.

use std::sync::Arc;

use model::{
    ApprovalId, Place,
    plan::Plan,
    port::{Commit, Fault},
    spec,
};
use serde::Deserialize;
use serde_json::json;
use store::{ApprovalState, By, NewApproval};

use super::{Attempt, Outcome, World, stored};

#[derive(Deserialize)]
struct Input {
    place: Place,
    plan: Planned,
    approval_rule: Option<spec::Approval>,
    commit: Commit,
    /// As in the ledger.
    pusher: String,
}

#[derive(Deserialize)]
struct Planned {
    plan: Plan,
}

pub async fn ask(world: &Arc<World>, attempt: &Attempt) -> Result<Outcome, Fault> {
    let input: Input = attempt.read()?;
    let Some(rule) = input.approval_rule else {
        return Ok(Outcome::Done(json!({ "by": [] })));
    };
    let by = By::platform(crate::clock::now());
    // A commit's author is what the commit says; who pushed it is what we know. All that the plan brings counts, not
    // only its last commit.
    let plan = input.plan.plan;
    let mut authors = vec![input.commit.author, input.pusher];
    for commit in &plan.commits {
        if !authors.contains(&commit.author) {
            authors.push(commit.author.clone());
        }
    }
    let new = NewApproval {
        id: ApprovalId::from_bits(crate::clock::bits()),
        execution: attempt.execution.clone(),
        task: attempt.task,
        place: input.place,
        plan,
        required: rule.required,
        approvers: rule.by,
        authors,
        author_may_approve: rule.author_may_approve,
        expires_at: by.at + rule.expires,
    };
    let approval = world
        .store
        .write(move |tx| tx.open_approval(&new, &by))
        .await
        .map_err(stored)?;
    answer(&approval)
}

/// What a decided approval means for its execution.
pub fn answer(approval: &store::Approval) -> Result<Outcome, Fault> {
    match approval.state {
        ApprovalState::Open => Ok(Outcome::Later),
        ApprovalState::Approved => {
            let by: Vec<&str> = approval
                .decisions
                .iter()
                .map(|decision| decision.actor.as_str())
                .collect();
            Ok(Outcome::Done(json!({ "approval": approval.id, "by": by })))
        }
        ApprovalState::Rejected => {
            let no = approval.decisions.iter().find(|decision| !decision.yes);
            let (who, why) = no.map_or(("somebody", ""), |no| {
                (no.actor.as_str(), no.why.as_deref().unwrap_or_default())
            });
            Err(Fault::customer(format!("{who} rejected it: {why}")).next("push a change, or ask them"))
        }
        ApprovalState::Expired | ApprovalState::Void => {
            Err(Fault::customer("nobody approved it in time").next("push again to ask again"))
        }
    }
}
