//! Git over HTTP (gitprotocol-http(5), the smart protocol only), with git's own http-backend behind our rights.

mod announce;
mod backend;
mod repository;

pub use announce::{Announcer, announce_all, announcer};
pub use repository::Repositories;

use axum::{
    extract::Request,
    http::{HeaderMap, Method, header},
    response::Response,
};
use model::{AppName, TenantName, policy::Action};

use super::{
    auth::Caller,
    input::Path,
    refusal::{Kind, Refusal},
    state::State,
};
use backend::{Call, MAX_PUSH_BYTES, Service};

/// How long a call waits for its turn.
const TURN: std::time::Duration = std::time::Duration::from_secs(30);

/// `/git/{tenant}/{repository}/{*rest}`
pub async fn serve(
    axum::extract::State(state): axum::extract::State<State>,
    Path((tenant, repository, rest)): Path<(String, String, String)>,
    caller: Caller,
    request: Request,
) -> Result<Response, Refusal> {
    let missing = || Refusal::not_found("repository");
    let app = repository.strip_suffix(".git").ok_or_else(missing)?;
    let (tenant, app): (TenantName, AppName) = match (tenant.parse(), app.parse()) {
        (Ok(tenant), Ok(app)) => (tenant, app),
        _ => return Err(missing()),
    };
    let (service, advertise) = asked(request.method(), &rest, request.uri().query()).ok_or_else(missing)?;
    let action = match service {
        Service::UploadPack => Action::View,
        Service::ReceivePack => Action::Develop,
    };
    caller.may(action, Some(&tenant), "repository")?;
    let found = {
        let (tenant, app) = (tenant.clone(), app.clone());
        state.store.read(move |db| db.app(&tenant, &app)).await?
    };
    if let Some(elsewhere) = found.repository {
        return Err(Refusal::conflict(format!(
            "{tenant}/{app} is built from {elsewhere}; it has no repository here"
        )));
    }
    let path = state.repositories.ensure(&tenant, &app).await;
    path.map_err(|error| Refusal::internal(&error))?;
    let turn = tokio::time::timeout(TURN, state.git_calls.acquire()).await;
    let Ok(Ok(_turn)) = turn else {
        return Err(Refusal::new(Kind::Unavailable, "too many calls of git are under way").next("try again"));
    };
    let call = call(request.headers(), service, advertise, &tenant, &app, &caller);
    if call.content_length.is_some_and(|length| length > MAX_PUSH_BYTES) {
        return Err(Refusal::new(Kind::TooLarge, "a push may have 1 GiB"));
    }
    let after = (service == Service::ReceivePack && !advertise).then(|| {
        let announcer = state.announcer.clone();
        let actor = caller.0.actor.clone();
        let announce: backend::After =
            Box::new(move || Box::pin(async move { announcer.announce(tenant, app, actor).await }));
        announce
    });
    backend::run(
        &state.repositories,
        call,
        request.into_body(),
        after,
        &state.tasks,
    )
    .await
    .map_err(|error| Refusal::internal(&error))
}

/// What the method, the path and the query ask for: three calls, and nothing else, of the dumb protocol included.
fn asked(method: &Method, rest: &str, query: Option<&str>) -> Option<(Service, bool)> {
    const BOTH: [Service; 2] = [Service::UploadPack, Service::ReceivePack];
    let find = |name: &str| BOTH.into_iter().find(|service| service.name() == name);
    match (method, rest) {
        (&Method::GET, "info/refs") => Some((find(query?.strip_prefix("service=")?)?, true)),
        (&Method::POST, name) => Some((find(name)?, false)),
        _ => None,
    }
}

fn call(
    headers: &HeaderMap,
    service: Service,
    advertise: bool,
    tenant: &TenantName,
    app: &AppName,
    caller: &Caller,
) -> Call {
    let text = |name: &str| {
        let value = headers.get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    Call {
        service,
        advertise,
        repository: format!("/{tenant}/{app}.git"),
        content_type: text(header::CONTENT_TYPE.as_str()),
        content_length: text(header::CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok()),
        content_encoding: text(header::CONTENT_ENCODING.as_str()),
        protocol: text("git-protocol"),
        actor: caller.0.actor.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_smart_protocol_is_served() {
        let asks = |method: Method, rest: &str, query: Option<&str>| asked(&method, rest, query);
        let pack = Service::ReceivePack;
        assert_eq!(
            asks(Method::GET, "info/refs", Some("service=git-receive-pack")),
            Some((pack, true))
        );
        assert_eq!(asks(Method::POST, "git-receive-pack", None), Some((pack, false)));
        for (method, rest, query) in [
            (Method::GET, "info/refs", None),
            (Method::GET, "info/refs", Some("service=git-upload-archive")),
            (Method::GET, "info/refs", Some("service=git-receive-pack&x=1")),
            (Method::GET, "HEAD", None),
            (Method::GET, "objects/info/packs", None),
            (Method::POST, "info/refs", Some("service=git-upload-pack")),
            (Method::POST, "../other.git/git-upload-pack", None),
        ] {
            assert_eq!(asks(method, rest, query), None, "{rest}");
        }
    }
}
