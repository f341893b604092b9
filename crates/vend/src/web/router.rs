//! The contents page: every operation, in the order in which a platform is used.

use std::{any::Any, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{any, get, post},
};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi as _;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt as _},
    routes,
};

use super::{
    alarms, approvals, apps, artifacts, audit, builders, console, deployments, doors, drawings, environments,
    executions, git, hooks, hosts, idempotency, images, input, logs, machines, moves, names, platform,
    refusal::{Kind, Refusal},
    releases, secrets,
    state::State,
    states, tenants, tokens, webhooks,
};

/// Of a request of `/v1`.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// How long a handler of `/v1` may take to start its answer.
const DEADLINE: Duration = Duration::from_secs(100);

#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "Vend",
    version = "v1",
    description = "A virtual host vending machine. Every refusal is problem+json (RFC 9457). Lists have pages: ask again with `cursor` set to `next`. A POST with an `Idempotency-Key` is done once."
))]
struct Document;

fn operations() -> OpenApiRouter<State> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(platform::version))
        .routes(routes!(platform::health))
        .routes(routes!(tokens::whoami))
        .routes(routes!(tokens::session))
        .routes(routes!(tokens::create, tokens::list))
        .routes(routes!(tokens::revoke))
        .routes(routes!(tenants::create, tenants::list))
        .routes(routes!(tenants::show, tenants::delete))
        .routes(routes!(doors::close_tenant, doors::open_tenant))
        .routes(routes!(doors::access))
        .routes(routes!(apps::create, apps::list))
        .routes(routes!(apps::show, apps::delete))
        .routes(routes!(apps::pushes))
        .routes(routes!(apps::why))
        .routes(routes!(secrets::list))
        .routes(routes!(secrets::set, secrets::unset))
        .routes(routes!(environments::list))
        .routes(routes!(environments::show, environments::destroy))
        .routes(routes!(environments::protect))
        .routes(routes!(environments::unprotect))
        .routes(routes!(doors::close_environment, doors::open_environment))
        .routes(routes!(environments::scale))
        .routes(routes!(environments::wake))
        .routes(routes!(environments::retry))
        .routes(routes!(environments::rollback))
        .routes(routes!(environments::plan_rollback))
        .routes(routes!(moves::show, moves::begin, moves::forward, moves::end))
        .routes(routes!(moves::finish))
        .routes(routes!(moves::reopen))
        .routes(routes!(releases::list))
        .routes(routes!(releases::show))
        .routes(routes!(executions::list))
        .routes(routes!(executions::show))
        .routes(routes!(executions::cancel))
        .routes(routes!(executions::plan))
        .routes(routes!(drawings::show))
        .routes(routes!(drawings::svg))
        .routes(routes!(approvals::list))
        .routes(routes!(approvals::show))
        .routes(routes!(approvals::approve))
        .routes(routes!(approvals::reject))
        .routes(routes!(deployments::list))
        .routes(routes!(deployments::show))
        .routes(routes!(deployments::pause))
        .routes(routes!(deployments::resume))
        .routes(routes!(deployments::abort))
        .routes(routes!(alarms::list, alarms::receive).layer(DefaultBodyLimit::max(alarms::MAX_ALERTS_BYTES)))
        .routes(routes!(alarms::set, alarms::remove))
        .routes(routes!(alarms::ignore))
        .routes(routes!(hosts::list))
        .routes(routes!(hosts::images))
        .routes(routes!(machines::invite))
        .routes(routes!(machines::list))
        .routes(routes!(machines::remove))
        .routes(routes!(builders::invite))
        .routes(routes!(builders::list))
        .routes(routes!(builders::remove))
        .routes(routes!(images::show))
        .routes(routes!(images::bill))
        .routes(routes!(images::diff))
        .routes(routes!(images::bases))
        .routes(routes!(hosts::edge))
        .routes(routes!(names::list))
        .routes(routes!(logs::access))
        .routes(routes!(logs::list))
        .routes(routes!(logs::read))
        .routes(routes!(webhooks::list))
        .routes(routes!(webhooks::show))
        .routes(routes!(webhooks::replay))
        .routes(routes!(webhooks::secret))
        .routes(routes!(audit::list))
        .routes(routes!(audit::export))
        .routes(routes!(audit::checkpoint))
        .routes(routes!(audit::public_key))
}

/// What is as large as an artifact, an image, a base or a database, and takes its time.
fn bulk() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(artifacts::show))
        .routes(routes!(artifacts::revision))
        .routes(routes!(images::export))
        .routes(routes!(moves::dump))
        .routes(routes!(moves::load))
        .routes(routes!(moves::arrived))
        .routes(routes!(images::import))
        .routes(routes!(images::refresh))
}

/// The document of `/v1`, made from the handlers.
pub fn openapi() -> utoipa::openapi::OpenApi {
    operations().merge(bulk()).into_openapi()
}

/// Everything that is served. The doors ([`super::unix`], [`super::tcp`]) say who is at the other end.
pub fn router(state: State) -> Router {
    let (v1, mut document) = operations().split_for_parts();
    let (bulk, more) = bulk().split_for_parts();
    document.merge(more);
    let document = document.to_json().expect("the document is plain data");
    let document = ([("content-type", "application/json")], document);
    v1.layer(middleware::from_fn_with_state(state.clone(), idempotency::once))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(in_time))
        .merge(bulk.layer(DefaultBodyLimit::disable()))
        .route("/v1/openapi.json", get(|| async move { document }))
        .route("/healthz", get(platform::alive))
        .route("/git/{tenant}/{repository}/{*rest}", any(git::serve))
        .route("/hooks/{provider}/{tenant}/{app}", post(hooks::receive))
        // Clients of Step Functions post to the root of their endpoint; nobody else finds anything there.
        .route("/", post(states::serve).get(input::nowhere))
        .route("/states", post(states::serve))
        .route("/states/", post(states::serve))
        .merge(console::pages())
        .fallback(input::nowhere)
        .method_not_allowed_fallback(input::wrong_method)
        .with_state(state)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(finish))
}

/// No handler keeps its caller waiting for ever.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal::new(Kind::Unavailable, "it took too long")
            .next("try again")
            .into_response(),
    }
}

fn panicked(cause: Box<dyn Any + Send>) -> Response<Body> {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    let text = text.or(cause.downcast_ref::<&str>().copied()).unwrap_or_default();
    tracing::error!(cause = text, "a handler panicked");
    Refusal::new(Kind::Internal, "the platform has a fault; its log has the cause").into_response()
}

/// The outermost layer: gives each request an id, says what became of it, and writes refusals with that id.
async fn finish(request: Request, next: Next) -> Response {
    let start = std::time::Instant::now();
    let bits = store::random_bits().unwrap_or_default();
    let id = format!("r-{bits:016x}");
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        response = refusal.answer(Some(id.clone()));
    }
    let (status, duration_ms) = (response.status(), start.elapsed().as_millis() as u64);
    match status.is_server_error() {
        true => {
            tracing::warn!(request = id, %method, path, status = status.as_u16(), duration_ms, "answered")
        }
        false => {
            tracing::debug!(request = id, %method, path, status = status.as_u16(), duration_ms, "answered")
        }
    }
    if let Ok(value) = HeaderValue::try_from(id) {
        response.headers_mut().insert("x-request-id", value);
    }
    if status == StatusCode::OK {
        // Answers are about one caller, and about now.
        response
            .headers_mut()
            .entry("cache-control")
            .or_insert(HeaderValue::from_static("no-store"));
    }
    response
}
