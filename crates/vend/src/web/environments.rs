//! Environments: what they are, and what people do to them.

use std::sync::Arc;

use axum::{Json, extract::State as Held, http::StatusCode};
use model::{
    AppName, EnvironmentName, ExecutionId, Place, TenantName,
    policy::Action,
    port::HostRole,
    wire::{
        Elsewhere, Environment, EnvironmentState, NewRollback, Page, PlanAnswer, Preview, Push, Scale, Split,
        Started,
    },
};
use store::{Arriving, Db, Host, HostState};

use super::{
    apps,
    auth::Caller,
    input::{self, Paging, Path, Query},
    refusal::Refusal,
    releases,
    scope::keyed,
    state::State,
    tenants,
};
use crate::flow;

/// The path of one environment.
pub type Named = Path<(TenantName, AppName, EnvironmentName)>;

/// More hosts than one network of 254 addresses has room for, twice over during a deployment.
const MAX_HOSTS: u32 = 100;

/// The environment's place, if the caller may do `action` to it.
pub fn allowed(caller: &Caller, action: Action, named: Named) -> Result<Place, Refusal> {
    let Path((tenant, app, environment)) = named;
    let place = Place {
        tenant,
        app,
        environment,
    };
    caller.may(action, Some(&place.tenant), &format!("environment `{place}`"))?;
    Ok(place)
}

/// The environment as people see it.
fn wire(db: &Db<'_>, environment: store::Environment, urls: &[String]) -> Result<Environment, store::Error> {
    let place = &environment.place;
    let running = db.open_execution(place, None)?;
    let destroying = running
        .as_ref()
        .is_some_and(|execution| execution.kind == store::DESTROY);
    let preview = environment.preview.as_ref().map(|preview| Preview {
        of: preview.of.clone(),
        expires_at: preview.expires_at(),
        ending: preview.ending.clone(),
    });
    let ending = environment.ending().is_some();
    let elsewhere = db.find_move(place)?.map(|own| Elsewhere {
        host: own.host,
        share: own.share,
        closed: own.closed,
        finished: own.finished_at.is_some(),
    });
    let mut hosts = db.standing_hosts(Some(place))?;
    hosts.retain(|host| host.role == HostRole::App && host.state == HostState::Serving);
    let serving = hosts.len();
    let split = match (environment.arriving, &running) {
        (Some(arriving), Some(execution)) => Some(split(db, place, arriving, &execution.id, &hosts)?),
        _ => None,
    };
    let spread = flow::spread::of(db, place)?;
    let count = |hosts: usize| u32::try_from(hosts).unwrap_or(u32::MAX);
    let wanted = match &spread {
        Some(spread) => count(spread.machines),
        None => environment
            .desired
            .or_else(|| environment.spec.as_ref().map(|spec| spec.scaling.min))
            .unwrap_or(count(serving)),
    };
    // No traffic goes to machines.
    let urls = if spread.is_some() { &[] } else { urls };
    Ok(Environment {
        state: match (environment.live, environment.asleep_at) {
            _ if destroying || ending => EnvironmentState::Destroying,
            (Some(_), Some(_)) => EnvironmentState::Sleeping,
            (Some(_), None) => EnvironmentState::Live,
            (None, _) => EnvironmentState::Empty,
        },
        asleep_since: environment.asleep_at,
        preview,
        elsewhere,
        closed: db.closure(place)?.map(tenants::closed),
        branch: environment.branch,
        protected: environment.protected,
        live: environment.live,
        split,
        hosts: wanted,
        urls: urls.to_vec(),
        execution: running.map(|execution| execution.id),
        created_at: environment.created_at,
        place: environment.place.into(),
    })
}

/// How the traffic is divided between the live release and the one that arrives.
fn split(
    db: &Db<'_>,
    place: &Place,
    arriving: Arriving,
    execution: &ExecutionId,
    serving: &[Host],
) -> Result<Split, store::Error> {
    let own = serving
        .iter()
        .filter(|host| host.release == Some(arriving.release));
    let of_hosts = (own.count() * 100).checked_div(serving.len()).unwrap_or(0);
    let percent = arriving.share.unwrap_or(u32::try_from(of_hosts).unwrap_or(100));
    let shares = flow::shares(&db.release(place, arriving.release)?.content.spec.deploy);
    let step = shares.iter().position(|share| Some(*share) == arriving.share);
    let number = |count: usize| u32::try_from(count).ok();
    let deployment = db.open_deployment(place, execution)?;
    let last = match &deployment {
        Some(deployment) => db.analyses(&deployment.id)?.pop(),
        None => None,
    };
    let verdict = last.and_then(|(_, analysis)| Some(analysis["verdict"].as_str()?.to_owned()));
    Ok(Split {
        release: arriving.release,
        percent,
        step: step.and_then(|step| number(step + 1)),
        steps: step.and_then(|_| number(shares.len())),
        verdict,
        paused_by: deployment.and_then(|deployment| Some(deployment.paused?.0)),
    })
}

/// Every environment that the caller may see.
pub async fn all(state: &State, caller: &Caller) -> Result<Vec<Environment>, Refusal> {
    let tenant = caller.0.tenant.clone();
    caller.may(Action::View, tenant.as_ref(), "tenant")?;
    of(state, tenant, None).await
}

/// The environments of everybody, of a tenant, or of one app, which must be there.
async fn of(
    state: &State,
    tenant: Option<TenantName>,
    app: Option<AppName>,
) -> Result<Vec<Environment>, Refusal> {
    let urls = Arc::clone(&state.urls);
    let read = move |db: &Db<'_>| {
        if let (Some(tenant), Some(app)) = (&tenant, &app) {
            db.app(tenant, app)?;
        }
        let within = tenant.as_ref().map(|tenant| (tenant, app.as_ref()));
        let environments = db.environments(within)?.into_iter();
        let wire = |environment: store::Environment| {
            let urls = urls(&environment.place);
            wire(db, environment, &urls)
        };
        environments.map(wire).collect::<Result<_, store::Error>>()
    };
    Ok(state.store.read(read).await?)
}

/// The environment as it is now.
pub async fn of_place(state: &State, place: Place) -> Result<Environment, Refusal> {
    let urls = (state.urls)(&place);
    let read = move |db: &Db<'_>| wire(db, db.environment(&place)?, &urls);
    Ok(state.store.read(read).await?)
}

#[utoipa::path(get, path = "/v1/tenants/{tenant}/apps/{app}/environments", operation_id = "environments.list",
    tag = "environments", params(("tenant" = String, Path), ("app" = String, Path), Paging),
    responses((status = 200, body = Page<Environment>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    Path((tenant, app)): Path<(TenantName, AppName)>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Environment>>, Refusal> {
    caller.may(Action::View, Some(&tenant), &apps::named(&tenant, &app))?;
    let environments = of(&state, Some(tenant), Some(app)).await?;
    let key = |environment: &Environment| environment.place.environment.to_string();
    Ok(Json(keyed(
        environments,
        paging.cursor.as_deref(),
        paging.limit(),
        key,
    )))
}

#[utoipa::path(get, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}",
    operation_id = "environments.show", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    responses((status = 200, body = Environment), Refusal))]
pub async fn show(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
) -> Result<Json<Environment>, Refusal> {
    let place = allowed(&caller, Action::View, named)?;
    Ok(Json(of_place(&state, place).await?))
}

/// Destroys an environment with its hosts, its database and its routes.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}",
    operation_id = "environments.destroy", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    responses((status = 202, body = Started), Refusal))]
pub async fn destroy(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
) -> Result<(StatusCode, Json<Started>), Refusal> {
    let place = allowed(&caller, Action::Develop, named)?;
    let found = of_place(&state, place.clone()).await?;
    if found.protected {
        return Err(Refusal::conflict(format!("{place} is protected"))
            .next(format!("vend environments unprotect {place}")));
    }
    let execution = state.commands.destroy(place.clone(), state.by(&caller.0)).await?;
    let summary = format!("{place} is being destroyed");
    Ok(started(summary, execution))
}

fn started(summary: String, execution: ExecutionId) -> (StatusCode, Json<Started>) {
    let started = Started {
        executions: vec![execution],
        summary,
    };
    (StatusCode::ACCEPTED, Json(started))
}

#[utoipa::path(post, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/protect",
    operation_id = "environments.protect", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    responses((status = 200, body = Environment), Refusal))]
pub async fn protect(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
) -> Result<Json<Environment>, Refusal> {
    set_protected(&state, &caller, named, true).await
}

#[utoipa::path(post, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/unprotect",
    operation_id = "environments.unprotect", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    responses((status = 200, body = Environment), Refusal))]
pub async fn unprotect(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
) -> Result<Json<Environment>, Refusal> {
    set_protected(&state, &caller, named, false).await
}

async fn set_protected(
    state: &State,
    caller: &Caller,
    named: Named,
    protected: bool,
) -> Result<Json<Environment>, Refusal> {
    let place = allowed(caller, Action::Administer, named)?;
    let (by, own) = (state.by(&caller.0), place.clone());
    state
        .store
        .write(move |tx| tx.set_protected(&own, protected, &by))
        .await?;
    Ok(Json(of_place(state, place).await?))
}

#[utoipa::path(post, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/scale",
    operation_id = "environments.scale", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    request_body = Scale, responses((status = 202, body = Started), Refusal))]
pub async fn scale(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
    input::Json(scale): input::Json<Scale>,
) -> Result<(StatusCode, Json<Started>), Refusal> {
    let place = allowed(&caller, Action::Develop, named)?;
    if !(1..=MAX_HOSTS).contains(&scale.hosts) {
        return Err(Refusal::invalid(format!(
            "an environment has 1 to {MAX_HOSTS} hosts"
        )));
    }
    of_place(&state, place.clone()).await?;
    let by = state.by(&caller.0);
    let execution = state.commands.scale(place.clone(), scale.hosts, by).await?;
    let many = if scale.hosts == 1 { "" } else { "s" };
    let summary = format!("{place} gets {} host{many}", scale.hosts);
    Ok(started(summary, execution))
}

/// Starts the hosts of an environment that sleeps, as the first request for it would.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/wake",
    operation_id = "environments.wake", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    responses((status = 202, body = Started), Refusal))]
pub async fn wake(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
) -> Result<(StatusCode, Json<Started>), Refusal> {
    let place = allowed(&caller, Action::Develop, named)?;
    of_place(&state, place.clone()).await?;
    let execution = state.commands.wake(place.clone(), state.by(&caller.0)).await?;
    Ok(started(format!("{place} wakes"), execution))
}

/// Releases the last push again, when it failed.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/retry",
    operation_id = "environments.retry", tag = "environments",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    responses((status = 202, body = Push), Refusal))]
pub async fn retry(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
) -> Result<(StatusCode, Json<Push>), Refusal> {
    let place = allowed(&caller, Action::Develop, named)?;
    of_place(&state, place.clone()).await?;
    let number = state.commands.retry(place, state.by(&caller.0)).await?;
    let push = state.store.read(move |db| db.push(number)).await?;
    Ok((StatusCode::ACCEPTED, Json(releases::push(push))))
}

/// Goes back to a kept release.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/rollback",
    operation_id = "environments.rollback", tag = "releases",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    request_body = NewRollback, responses((status = 202, body = Started), Refusal))]
pub async fn rollback(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
    input::Json(order): input::Json<NewRollback>,
) -> Result<(StatusCode, Json<Started>), Refusal> {
    let place = allowed(&caller, Action::Develop, named)?;
    of_place(&state, place.clone()).await?;
    let by = state.by(&caller.0);
    let to = match order.to {
        Some(number) => format!("v{number}"),
        None => "the release before".to_owned(),
    };
    let execution = state.commands.rollback(place.clone(), order, by).await?;
    Ok(started(format!("{place} goes back to {to}"), execution))
}

/// What going back would change, and why it would be refused. Changes nothing.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/apps/{app}/environments/{environment}/rollback/plan",
    operation_id = "environments.rollback.plan", tag = "releases",
    params(("tenant" = String, Path), ("app" = String, Path), ("environment" = String, Path)),
    request_body = NewRollback, responses((status = 200, body = PlanAnswer), Refusal))]
pub async fn plan_rollback(
    Held(state): Held<State>,
    caller: Caller,
    named: Named,
    input::Json(order): input::Json<NewRollback>,
) -> Result<Json<PlanAnswer>, Refusal> {
    let place = allowed(&caller, Action::View, named)?;
    of_place(&state, place.clone()).await?;
    let plan = state.commands.plan_rollback(place.clone(), order.to).await?;
    let (to, across) = (plan.to, order.across_migrations);
    let may = caller.may(
        Action::Develop,
        Some(&place.tenant),
        &format!("environment `{place}`"),
    );
    // As the rollback itself would be: who may not, and then what is in its way.
    let (refused, next) = match may {
        Err(refusal) => (Some(refusal.detail), refusal.next),
        Ok(()) => {
            let asked = state
                .store
                .read(move |db| match flow::refuse_rollback(db, &place, to, across) {
                    Err(store::Error::Refused { message, next }) => Ok((Some(message), next)),
                    other => other.map(|()| (None, None)),
                });
            asked.await?
        }
    };
    Ok(Json(PlanAnswer {
        digest: plan.digest(),
        plan,
        refused,
        next,
    }))
}
