//! Domains and ports that releases ask for, and what became of that: each caller sees those of their own tenant.

use axum::{Json, extract::State as Held};
use model::{
    Place,
    wire::{Listener, Name, Page},
};

use super::{
    auth::Caller,
    input::Query,
    refusal::Refusal,
    scope::{Scope, keyed},
    state::{Names, State},
};
use crate::reconcile::routes::Asked;

fn wire(place: &Place, asked: Asked) -> Name {
    let listeners = asked.listeners.into_iter().map(|listens| Listener {
        address: listens.address,
        speaks: listens.speaks.word().to_owned(),
    });
    Name {
        name: asked.name,
        place: place.clone().into(),
        listeners: listeners.collect(),
        since: asked.since,
        problem: asked.problem.map(str::to_owned),
    }
}

/// Domains and ports that live releases ask for, and those that arrive: since when each is the environment's, or why it does
/// not lead there. Whose it is instead is not told.
#[utoipa::path(get, path = "/v1/names", operation_id = "names.list", tag = "environments", params(Scope),
    responses((status = 200, body = Page<Name>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    Query(scope): Query<Scope>,
) -> Result<Json<Page<Name>>, Refusal> {
    let scope = scope.within(&caller)?;
    let (own, names) = (scope.clone(), Names::clone(&state.names));
    let read = state.store.read(move |db| {
        let mut all = Vec::new();
        for environment in db.environments(own.of_app())? {
            if own.holds(&environment.place) {
                let asked = names(db, &environment)?.into_iter();
                all.extend(asked.map(|asked| wire(&environment.place, asked)));
            }
        }
        Ok::<_, store::Error>(all)
    });
    let key = |name: &Name| format!("{} {}", name.place, name.name);
    Ok(Json(keyed(
        read.await?,
        scope.cursor.as_deref(),
        scope.limit(),
        key,
    )))
}
