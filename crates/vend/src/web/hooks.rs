//! The door for webhooks of git hosts: stored before it is answered, verified in constant time, and silent about why
//! something is refused. The inbox is not.

use std::time::Duration;

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State as Held,
    http::{HeaderMap, StatusCode},
};
use jiff::Timestamp;
use model::{
    AppName, DeliveryId, Secret, TenantName,
    webhook::{self, Event, MAX_BODY_BYTES, Provider, Push},
};
use serde_json::{Value, json};
use store::{By, DeliveryVerdict, NewDelivery, Received};
use tokio::time::Instant;

use super::{
    commands::Pushed,
    input::{self, Path, Unread},
    refusal::Refusal,
    state::State,
};

/// How long a body may take to come.
const BODY: Duration = Duration::from_secs(60);
/// How old a signed time may be (standardwebhooks.com, "Verifying webhook authenticity").
const OLDEST_SECS: u64 = 300;
/// Of one header that is kept.
const MAX_HEADER_BYTES: usize = 4096;

type Answer = (StatusCode, Json<Value>);

/// The same words for everything that is refused, an app that is not there included.
fn refused() -> Answer {
    (StatusCode::FORBIDDEN, Json(json!({ "status": "refused" })))
}

/// `/hooks/{provider}/{tenant}/{app}`
pub async fn receive(
    Held(state): Held<State>,
    Path((provider, tenant, app)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer, Refusal> {
    let provider: Option<Provider> = serde_json::from_value(Value::String(provider)).ok();
    let (Some(provider), Ok(tenant), Ok(app)) = (provider, tenant.parse(), app.parse()) else {
        return Ok(refused());
    };
    let Ok(Ok(_turn)) = tokio::time::timeout(BODY, state.hook_calls.acquire()).await else {
        return Ok((StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "busy" }))));
    };
    let (own_tenant, own_app): (TenantName, AppName) = (tenant, app);
    let (tenant, app) = (own_tenant.clone(), own_app.clone());
    let secret = state
        .store
        .read(move |db| db.webhook_secret(&own_tenant, &own_app, provider))
        .await;
    let secret = match secret {
        Ok(secret) => secret,
        Err(store::Error::Missing { .. }) => return Ok(refused()),
        Err(error) => return Err(error.into()),
    };
    let headers = texts(&headers);
    let now = state.now();
    let (body, judged) = match read(body).await {
        Ok(body) => {
            let judged = verify(provider, &headers, &body, secret.as_ref(), now);
            (body, judged)
        }
        Err(reason) => (Bytes::new(), (DeliveryVerdict::Refused, Some(reason), None)),
    };
    keep(&state, provider, tenant, app, headers, body, judged).await
}

/// What was made of a delivery: the verdict, why, and what it says.
pub type Judged = (DeliveryVerdict, Option<String>, Option<Event>);

async fn keep(
    state: &State,
    provider: Provider,
    tenant: TenantName,
    app: AppName,
    headers: Vec<(String, String)>,
    body: Bytes,
    (verdict, reason, event): Judged,
) -> Result<Answer, Refusal> {
    let id = DeliveryId::from_bits(store::random_bits()?);
    let new = NewDelivery {
        id: id.clone(),
        delivery: Some(webhook::delivery_id(provider, &headers, &body)),
        tenant,
        app,
        provider,
        headers,
        body: body.into(),
        verdict,
        reason,
        event: event.clone(),
    };
    let by = By::new(format!("webhook:{}", provider_name(provider)), state.now());
    let received = state
        .store
        .write(move |tx| {
            let received = tx.receive_delivery(&new, &by)?;
            let is_new =
                !matches!(received, Received::Duplicate(_)) && new.verdict == DeliveryVerdict::Accepted;
            if let Some((branch, last)) = new.event.as_ref().and_then(Event::deletion).filter(|_| is_new) {
                // In one with the delivery: done twice, it would end a branch that has come again since.
                tx.branch_gone(&new.tenant, &new.app, branch, last, &by)?;
            }
            Ok::<_, store::Error>(received)
        })
        .await?;
    if let Received::Duplicate(first) = received {
        return Ok((
            StatusCode::OK,
            Json(json!({ "status": "duplicate", "delivery": first })),
        ));
    }
    let own = id.clone();
    let kept = state.store.read(move |db| db.delivery(&own)).await?;
    Ok(match (verdict, event) {
        (DeliveryVerdict::Refused, _) => refused(),
        (DeliveryVerdict::Accepted, Some(Event::Delete { .. })) => {
            let status = json!({ "status": "accepted", "delivery": id });
            (StatusCode::ACCEPTED, Json(status))
        }
        (DeliveryVerdict::Accepted, Some(Event::Push(push))) => {
            let sender = format!("{}:{}", provider_name(provider), push.sender);
            // It is stored: what fails now is done when the platform starts, or by a replay.
            if let Err(refusal) = hand_over(state, &kept, push, &sender).await {
                tracing::warn!(delivery = %id, why = refusal.detail, "a delivery is kept and could not be handed over");
            }
            (
                StatusCode::ACCEPTED,
                Json(json!({ "status": "accepted", "delivery": id })),
            )
        }
        _ => (
            StatusCode::OK,
            Json(json!({ "status": "ignored", "delivery": id })),
        ),
    })
}

fn provider_name(provider: Provider) -> &'static str {
    match provider {
        Provider::Github => "github",
        Provider::Gitlab => "gitlab",
    }
}

async fn read(body: Body) -> Result<Bytes, String> {
    let read = input::whole(body, MAX_BODY_BYTES, Instant::now() + BODY).await;
    read.map_err(|unread| match unread {
        Unread::Broken => format!("the body broke off, or has more than {MAX_BODY_BYTES} bytes"),
        Unread::Late => format!("the body did not come in {} s", BODY.as_secs()),
    })
}

/// Headers as texts. What is no text, or longer than any that means something, is left out.
fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let texts = headers.iter().filter_map(|(name, value)| {
        let value = value
            .to_str()
            .ok()
            .filter(|value| value.len() <= MAX_HEADER_BYTES)?;
        Some((name.to_string(), value.to_owned()))
    });
    texts.collect()
}

/// Is it genuine, and what does it say? Whoever hears of pushes asks this, here or as a function on AWS.
pub fn verify(
    provider: Provider,
    headers: &[(String, String)],
    body: &[u8],
    secret: Option<&Secret>,
    now: Timestamp,
) -> Judged {
    let refused = |reason: String| (DeliveryVerdict::Refused, Some(reason), None);
    let Some(secret) = secret else {
        let provider = provider_name(provider);
        return refused(format!(
            "no {provider} secret is set for this app: vend webhooks secret TENANT/APP --provider {provider}"
        ));
    };
    if let Err(refusal) = webhook::verify(provider, headers, body, secret) {
        return refused(refusal.to_string());
    }
    if let Some(reason) = stale(headers, secret, now) {
        return refused(reason);
    }
    judge(webhook::read(provider, headers, body))
}

/// A signature over a time is good for some minutes: who has recorded a delivery cannot send it later.
fn stale(headers: &[(String, String)], secret: &Secret, now: Timestamp) -> Option<String> {
    if !secret.expose().starts_with("whsec_") {
        return None;
    }
    let (_, stamp) = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("webhook-timestamp"))?;
    match stamp.trim().parse::<i64>() {
        Ok(stamp) if now.as_second().abs_diff(stamp) <= OLDEST_SECS => None,
        Ok(_) => Some(format!(
            "it was signed more than {OLDEST_SECS} s ago, or a clock is wrong"
        )),
        Err(_) => Some("`webhook-timestamp` is not a time".to_owned()),
    }
}

/// What a genuine delivery comes to.
pub fn judge(read: Result<Event, webhook::Refusal>) -> Judged {
    let ignored = |event: Event, reason: String| (DeliveryVerdict::Ignored, Some(reason), Some(event));
    match read {
        Err(refusal) => (DeliveryVerdict::Refused, Some(refusal.to_string()), None),
        Ok(Event::Push(push)) if push.branch.is_none() => {
            let reason = format!("{} is a tag, and a tag releases nothing", push.reference);
            ignored(Event::Push(push), reason)
        }
        Ok(event @ Event::Push(_)) => (DeliveryVerdict::Accepted, None, Some(event)),
        Ok(event @ Event::Delete { .. }) if event.gone().is_some() => {
            (DeliveryVerdict::Accepted, None, Some(event))
        }
        Ok(event @ Event::Delete { .. }) => {
            ignored(event, "a tag is gone, and a tag releases nothing".into())
        }
        Ok(Event::Ignored { kind, reason }) => {
            let said = reason.clone();
            ignored(Event::Ignored { kind, reason }, said)
        }
        Ok(Event::Ping) => ignored(Event::Ping, "a question whether we are there: yes".into()),
    }
}

/// Hands a push of a stored delivery over, and notes on the delivery what it became.
pub async fn hand_over(
    state: &State,
    delivery: &store::Delivery,
    push: Push,
    pusher: &str,
) -> Result<(), Refusal> {
    let Some(branch) = push.branch else { return Ok(()) };
    let new = push.before.bytes().all(|b| b == b'0');
    let pushed = Pushed {
        tenant: delivery.tenant.clone(),
        app: delivery.app.clone(),
        branch: branch.clone(),
        before: (!new).then_some(push.before),
        commit: push.commit.clone(),
        pusher: pusher.to_owned(),
        origin: delivery.id.to_string(),
        account: push.account,
        clone_url: Some(push.clone_url),
        at: state.now(),
    };
    state.commands.pushed(pushed).await?;
    let (id, tenant, app, commit) = (
        delivery.id.clone(),
        delivery.tenant.clone(),
        delivery.app.clone(),
        push.commit.id,
    );
    state
        .store
        .write(move |tx| {
            let pushes = tx.pushes(&tenant, &app, None, None, 50)?;
            let of_branch = pushes.iter().find(|push| push.branch == branch);
            let became = pushes
                .iter()
                .find(|push| push.origin == id.as_str())
                .or(of_branch.filter(|push| push.commit.id == commit));
            match became {
                Some(push) => tx.set_delivery_push(&id, push.id),
                None => Ok(()),
            }
        })
        .await?;
    Ok(())
}

/// Hands over what a platform that was killed had accepted and not handed over.
pub async fn resume(state: &State) -> Result<(), store::Error> {
    let newest = state
        .store
        .read(|db| db.deliveries(None, None, None, 200))
        .await?;
    // Oldest first, as they came.
    for delivery in newest.into_iter().rev() {
        let left = delivery.verdict == DeliveryVerdict::Accepted && delivery.push.is_none();
        let Some(Event::Push(push)) = delivery.event.clone().filter(|_| left) else {
            continue;
        };
        let sender = format!("{}:{}", provider_name(delivery.provider), push.sender);
        match hand_over(state, &delivery, push, &sender).await {
            Ok(()) => tracing::info!(delivery = %delivery.id, "handed over a delivery that was left"),
            Err(refusal) => {
                tracing::warn!(delivery = %delivery.id, why = refusal.detail, "a delivery could not be handed over");
            }
        }
    }
    Ok(())
}
