//! The inbox of webhooks.

use axum::{Json, extract::State as Held};
use model::{
    AppName, DeliveryId, TenantName,
    policy::Action,
    webhook::{self, Event, Provider},
    wire::{Delivery, DeliveryDetail, DeliveryVerdict, Page, WebhookSecret},
};

use super::{
    apps::named,
    auth::Caller,
    executions::parse,
    hooks,
    input::{self, Path, Query},
    refusal::Refusal,
    scope::{Scope, numbered},
    state::State,
};

/// Of a body in the answer.
const SHOWN_BYTES: usize = 64 * 1024;

fn wire(delivery: store::Delivery) -> Delivery {
    Delivery {
        id: delivery.id,
        provider: delivery.provider,
        tenant: delivery.tenant,
        app: delivery.app,
        received_at: delivery.received_at,
        provider_id: delivery.delivery,
        verdict: match delivery.verdict {
            store::DeliveryVerdict::Accepted => DeliveryVerdict::Accepted,
            store::DeliveryVerdict::Ignored => DeliveryVerdict::Ignored,
            store::DeliveryVerdict::Refused => DeliveryVerdict::Refused,
        },
        reason: delivery.reason,
        size_bytes: delivery.body_bytes,
        push: delivery.push,
        replays: delivery.replays,
    }
}

/// Deliveries, newest first.
#[utoipa::path(get, path = "/v1/webhooks", operation_id = "webhooks.list", tag = "webhooks", params(Scope),
    responses((status = 200, body = Page<Delivery>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    Query(scope): Query<Scope>,
) -> Result<Json<Page<Delivery>>, Refusal> {
    let scope = scope.within(&caller)?;
    let (limit, before) = (scope.limit(), scope.before()?);
    let found = state
        .store
        .read(move |db| db.deliveries(scope.tenant.as_ref(), scope.app.as_ref(), before, limit))
        .await?;
    Ok(Json(numbered(found, limit, |delivery| delivery.seq, wire)))
}

async fn allowed(
    state: &State,
    caller: &Caller,
    action: Action,
    id: &str,
) -> Result<store::Delivery, Refusal> {
    let (id, what): (DeliveryId, _) = (parse(id)?, format!("delivery `{id}`"));
    let found = state.store.read(move |db| db.delivery(&id)).await?;
    caller.may(action, Some(&found.tenant), &what)?;
    Ok(found)
}

#[utoipa::path(get, path = "/v1/webhooks/{delivery}", operation_id = "webhooks.show", tag = "webhooks",
    params(("delivery" = String, Path)),
    responses((status = 200, body = DeliveryDetail), Refusal))]
pub async fn show(
    Held(state): Held<State>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<DeliveryDetail>, Refusal> {
    let found = allowed(&state, &caller, Action::View, &id).await?;
    let own = found.id.clone();
    let mut body = state.store.read(move |db| db.delivery_body(&own)).await?;
    body.truncate(SHOWN_BYTES);
    Ok(Json(DeliveryDetail {
        headers: found.headers.clone(),
        event: found.event.clone(),
        body: String::from_utf8_lossy(&body).into_owned(),
        delivery: wire(found),
    }))
}

/// Handles a stored delivery again, as if it had just come.
#[utoipa::path(post, path = "/v1/webhooks/{delivery}/replay", operation_id = "webhooks.replay", tag = "webhooks",
    params(("delivery" = String, Path)),
    responses((status = 200, body = Delivery), Refusal))]
pub async fn replay(
    Held(state): Held<State>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Delivery>, Refusal> {
    let found = allowed(&state, &caller, Action::Develop, &id).await?;
    let own = found.id.clone();
    let body = state.store.read(move |db| db.delivery_body(&own)).await?;
    let by = state.by(&caller.0);
    let read = webhook::read(found.provider, &found.headers, &body);
    let (verdict, reason, event) = hooks::judge(read);
    let (own, kept) = (found.id.clone(), event.clone());
    let (tenant, app) = (found.tenant.clone(), found.app.clone());
    state
        .store
        .write(move |tx| {
            tx.replay_delivery(&own, verdict, reason.as_deref(), kept.as_ref(), &by)?;
            match kept.as_ref().and_then(Event::deletion) {
                Some((branch, last)) => tx.branch_gone(&tenant, &app, branch, last, &by).map(drop),
                None => Ok(()),
            }
        })
        .await?;
    if let Some(Event::Push(push)) = event {
        hooks::hand_over(&state, &found, push, &caller.0.actor).await?;
    }
    let own = found.id;
    Ok(Json(wire(state.store.read(move |db| db.delivery(&own)).await?)))
}

/// Sets what deliveries for an app are verified with.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/apps/{app}/webhook-secrets/{provider}",
    operation_id = "webhooks.secret", tag = "webhooks",
    params(("tenant" = String, Path), ("app" = String, Path), ("provider" = String, Path)),
    request_body = WebhookSecret, responses((status = 200, body = ()), Refusal))]
pub async fn secret(
    Held(state): Held<State>,
    caller: Caller,
    Path((tenant, app, provider)): Path<(TenantName, AppName, Provider)>,
    input::Json(new): input::Json<WebhookSecret>,
) -> Result<Json<()>, Refusal> {
    caller.may(Action::Develop, Some(&tenant), &named(&tenant, &app))?;
    if new.value.expose().len() < 16 {
        return Err(
            Refusal::invalid("a webhook's secret has at least 16 characters").next("openssl rand -hex 32")
        );
    }
    let by = state.by(&caller.0);
    state
        .store
        .write(move |tx| tx.set_webhook_secret(&tenant, &app, provider, Some(&new.value), &by))
        .await?;
    Ok(Json(()))
}
