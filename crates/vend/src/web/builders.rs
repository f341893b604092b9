//! Builders: machines that build beside the platform's own. They are the platform's, whoever's builds they get.

use axum::{Json, extract::State as Held, http::StatusCode};
use host::build::Offer;
use jiff::SignedDuration;
use model::{
    HostId,
    policy::Action,
    wire::{Builder, Building, Invitation, NewBuilder, Page},
};
use serde::Deserialize;
use store::RunsOn;

use super::{
    auth::Caller,
    input::{self, Paging, Path, Query},
    machines::{address, check, lasting, presence},
    refusal::Refusal,
    scope::keyed,
    state::State,
};

fn wire(state: &State, builder: store::Builder, running: &[store::Build]) -> Builder {
    let seen = state.sight.machine(&builder.id);
    Builder {
        builds: building(running, &RunsOn::Builder(builder.id.clone())),
        state: presence(builder.leaving, seen).to_owned(),
        address: address(seen, builder.address),
        id: Some(builder.id),
        name: builder.name,
        labels: builder.labels,
        tenants: builder.tenants,
        joined_at: Some(builder.joined_at),
        seen_at: seen.map(|_| state.now()).or(builder.seen_at),
    }
}

/// The platform's own machine, which builds what asks for nothing else.
fn own(state: &State, running: &[store::Build]) -> Builder {
    Builder {
        id: None,
        name: Offer::HERE.to_owned(),
        labels: state.sight.labels(),
        tenants: Default::default(),
        state: "connected".to_owned(),
        builds: building(running, &RunsOn::Own),
        address: None,
        joined_at: None,
        seen_at: None,
    }
}

fn building(running: &[store::Build], on: &RunsOn) -> Vec<Building> {
    let own = running.iter().filter(|build| build.runs_on.as_ref() == Some(on));
    own.map(|build| Building {
        place: build.place.clone().into(),
        number: build.number,
        started_at: build.started_at,
    })
    .collect()
}

/// Lets one builder in. The token is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/builders/invitations", operation_id = "builders.invite", tag = "hosts",
    request_body = NewBuilder, responses((status = 201, body = Invitation), Refusal))]
pub async fn invite(
    Held(state): Held<State>,
    caller: Caller,
    input::Json(new): input::Json<NewBuilder>,
) -> Result<(StatusCode, Json<Invitation>), Refusal> {
    caller.may(Action::Operate, None, "builders")?;
    check(&new.labels)?;
    let by = state.by(&caller.0);
    let expires_at = by.at + SignedDuration::from_secs(lasting(new.expires_in)?.into());
    let wanted = store::NewBuilder {
        labels: new.labels,
        tenants: new.tenants,
        expires_at,
    };
    let pass = state.commands.invite_builder(wanted, by).await?;
    let invitation = Invitation {
        token: pass.text,
        url: pass.url,
        expires_at,
    };
    Ok((StatusCode::CREATED, Json(invitation)))
}

/// All machines that build, the platform's own first.
#[utoipa::path(get, path = "/v1/builders", operation_id = "builders.list", tag = "hosts", params(Paging),
    responses((status = 200, body = Page<Builder>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Builder>>, Refusal> {
    caller.may(Action::View, None, "builders")?;
    let read = state
        .store
        .read(|db| Ok::<_, store::Error>((db.builders()?, db.running_builds()?)));
    let (builders, running) = read.await?;
    let others = builders
        .into_iter()
        .map(|builder| wire(&state, builder, &running));
    let all = [own(&state, &running)].into_iter().chain(others).collect();
    let key = |builder: &Builder| builder.id.as_ref().map(ToString::to_string).unwrap_or_default();
    Ok(Json(keyed(all, paging.cursor.as_deref(), paging.limit(), key)))
}

/// How a builder is removed.
#[derive(Debug, Clone, Copy, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// Its builds are taken from it and given to others, and its connection is closed at once.
    #[serde(default)]
    pub now: bool,
}

/// Removes a builder: it gets no new build, and once it has none nobody knows its key any more.
#[utoipa::path(delete, path = "/v1/builders/{id}", operation_id = "builders.remove", tag = "hosts",
    params(("id" = String, Path), Removal), responses((status = 202, body = Builder), Refusal))]
pub async fn remove(
    Held(state): Held<State>,
    caller: Caller,
    Path(id): Path<HostId>,
    Query(removal): Query<Removal>,
) -> Result<(StatusCode, Json<Builder>), Refusal> {
    caller.may(Action::Operate, None, "builders")?;
    let own = id.clone();
    let read = state
        .store
        .read(move |db| Ok::<_, store::Error>((db.builder(&own)?, db.running_builds()?)));
    let (found, running) = read.await?;
    let by = state.by(&caller.0);
    state.commands.remove_builder(id, removal.now, by).await?;
    let leaving = store::Builder {
        leaving: true,
        ..found
    };
    Ok((StatusCode::ACCEPTED, Json(wire(&state, leaving, &running))))
}
