//! Approvals: questions to people, and their votes.

use axum::{Json, extract::State as Held};
use model::{
    ApprovalId,
    policy::Action,
    wire::{Approval, ApprovalState, Decision, NewDecision, Page},
};

use super::{
    auth::Caller,
    executions::parse,
    input::{self, Path, Query},
    refusal::{Refusal, chain},
    scope::{Scope, keyed},
    state::State,
};

/// Approvals of one environment that are looked at.
const KEPT: u32 = 200;
/// Of the reason of a vote.
const MAX_WHY_BYTES: usize = 2_000;

fn wire(approval: store::Approval) -> Approval {
    Approval {
        id: approval.id,
        place: approval.place.into(),
        execution: approval.execution,
        state: match approval.state {
            store::ApprovalState::Open => ApprovalState::Open,
            store::ApprovalState::Approved => ApprovalState::Approved,
            store::ApprovalState::Rejected => ApprovalState::Rejected,
            store::ApprovalState::Expired => ApprovalState::Expired,
            store::ApprovalState::Void => ApprovalState::Void,
        },
        required: approval.required,
        by: approval.approvers,
        authors: approval.authors,
        author_may_approve: approval.author_may_approve,
        decisions: approval.decisions.into_iter().map(decision).collect(),
        reason: approval.reason,
        plan_digest: approval.digest,
        plan: approval.plan,
        created_at: approval.opened_at,
        expires_at: approval.expires_at,
    }
}

fn decision(decision: store::Decision) -> Decision {
    Decision {
        by: decision.actor,
        approve: decision.yes,
        why: decision.why,
        at: decision.at,
    }
}

/// Open approvals; with an environment named, those that were closed as well.
#[utoipa::path(get, path = "/v1/approvals", operation_id = "approvals.list", tag = "approvals", params(Scope),
    responses((status = 200, body = Page<Approval>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    Query(scope): Query<Scope>,
) -> Result<Json<Page<Approval>>, Refusal> {
    let scope = scope.within(&caller)?;
    let own = scope.clone();
    let mut found = state
        .store
        .read(move |db| {
            if own.open == Some(true) {
                return db.open_approvals();
            }
            let mut found = Vec::new();
            for environment in db.environments(own.of_app())? {
                if own.holds(&environment.place) {
                    found.extend(db.approvals(&environment.place, KEPT)?);
                }
            }
            Ok(found)
        })
        .await?;
    found.retain(|approval| scope.holds(&approval.place));
    if scope.open == Some(false) {
        found.retain(|approval| approval.state != store::ApprovalState::Open);
    }
    let found = found.into_iter().map(wire).collect();
    let key = |approval: &Approval| format!("{:020} {}", approval.created_at.as_millisecond(), approval.id);
    Ok(Json(keyed(found, scope.cursor.as_deref(), scope.limit(), key)))
}

async fn allowed(
    state: &State,
    caller: &Caller,
    action: Action,
    id: &ApprovalId,
) -> Result<store::Approval, Refusal> {
    let (own, what) = (id.clone(), format!("approval `{id}`"));
    let found = state.store.read(move |db| db.approval(&own)).await?;
    caller.may(action, Some(&found.place.tenant), &what)?;
    Ok(found)
}

#[utoipa::path(get, path = "/v1/approvals/{approval}", operation_id = "approvals.show", tag = "approvals",
    params(("approval" = String, Path)),
    responses((status = 200, body = Approval), Refusal))]
pub async fn show(
    Held(state): Held<State>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Approval>, Refusal> {
    let found = allowed(&state, &caller, Action::View, &parse(&id)?).await?;
    Ok(Json(wire(found)))
}

/// Says yes to the plan.
#[utoipa::path(post, path = "/v1/approvals/{approval}/approve", operation_id = "approvals.approve", tag = "approvals",
    params(("approval" = String, Path)), request_body = NewDecision,
    responses((status = 200, body = Approval), Refusal))]
pub async fn approve(
    Held(state): Held<State>,
    caller: Caller,
    Path(id): Path<String>,
    input::Json(new): input::Json<NewDecision>,
) -> Result<Json<Approval>, Refusal> {
    vote(&state, &caller, &id, true, new).await
}

/// Says no to the plan, and why.
#[utoipa::path(post, path = "/v1/approvals/{approval}/reject", operation_id = "approvals.reject", tag = "approvals",
    params(("approval" = String, Path)), request_body = NewDecision,
    responses((status = 200, body = Approval), Refusal))]
pub async fn reject(
    Held(state): Held<State>,
    caller: Caller,
    Path(id): Path<String>,
    input::Json(new): input::Json<NewDecision>,
) -> Result<Json<Approval>, Refusal> {
    if new.why.as_deref().is_none_or(|why| why.trim().is_empty()) {
        return Err(Refusal::invalid("a no must say why").next(format!("vend reject {id} --why …")));
    }
    vote(&state, &caller, &id, false, new).await
}

async fn vote(
    state: &State,
    caller: &Caller,
    id: &str,
    yes: bool,
    new: NewDecision,
) -> Result<Json<Approval>, Refusal> {
    let id: ApprovalId = parse(id)?;
    let found = allowed(state, caller, Action::Approve, &id).await?;
    if new.why.as_ref().is_some_and(|why| why.len() > MAX_WHY_BYTES) {
        return Err(Refusal::invalid(format!(
            "a reason has at most {MAX_WHY_BYTES} bytes"
        )));
    }
    let (by, own, digest) = (state.by(&caller.0), id.clone(), new.plan.unwrap_or(found.digest));
    let voted = state
        .store
        .write(move |tx| tx.decide(&own, &digest, yes, new.why.as_deref(), &by))
        .await?;
    // The vote is kept. The engine looks by itself, too: it may only be later.
    if let Err(fault) = state.commands.voted(id).await {
        tracing::warn!(
            error = chain(&fault),
            "a vote is kept, and the engine could not be told"
        );
    }
    Ok(Json(wire(voted)))
}
