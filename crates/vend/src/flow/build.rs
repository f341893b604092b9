//! The revision: the source run through its buildspec, tests included.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    Place, Secret,
    port::{BuildOrder, Builder as _, Commit, Fault},
    spec,
};
use serde::Deserialize;
use serde_json::{Value, json};

use store::{By, NewBuild};

use super::{Attempt, World, chain, state::Sourced, stored, variables};

#[derive(Deserialize)]
struct Input {
    place: Place,
    commit: Commit,
    spec: spec::Environment,
    source: Sourced,
}

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let input: Input = attempt.read()?;
    let Some(path) = &input.spec.build.buildspec else {
        // Nothing to build: the revision is the source.
        return Ok(json!({ "revision": input.source.digest, "log": null, "reports": [] }));
    };
    let buildspec = read(world, &input, path.as_str()).await?;
    let secrets = secrets(world, &input.place, &buildspec).await?;
    let new = NewBuild {
        ticket: attempt.steady.clone(),
        place: input.place.clone(),
        execution: Some(attempt.execution.clone()),
        commit: input.commit.clone(),
        source: input.source.digest,
        log: format!("build/{}", attempt.steady).parse().ok(),
    };
    let by = By::platform(crate::clock::now());
    let row = world
        .store
        .write(move |tx| tx.begin_build(&new, &by))
        .await
        .map_err(stored)?;
    let order = BuildOrder {
        place: input.place.clone(),
        source: input.source.digest,
        buildspec,
        commit: input.commit,
        number: row.number,
        variables: BTreeMap::new(),
        secrets,
        limits: world
            .platform
            .build_limits(input.spec.build.timeout, input.spec.build.pass_rate),
    };
    let built = world.node.build(&attempt.steady, &order).await;
    let (ticket, outcome, by) = (
        attempt.steady.clone(),
        built.clone(),
        By::platform(crate::clock::now()),
    );
    let finished = world
        .store
        .write(move |tx| tx.finish_build(&ticket, outcome.as_ref(), &by));
    finished.await.map_err(stored)?;
    let built = built?;
    Ok(json!({ "revision": built.artifact, "log": built.log, "reports": built.reports }))
}

async fn read(world: &World, input: &Input, path: &str) -> Result<spec::Buildspec, Fault> {
    let bytes = world.repository(&input.place).read(&input.commit.id, path).await;
    let bytes = bytes.map_err(|error| Fault::order(format!("cannot read {path}: {}", chain(&error))))?;
    let text = String::from_utf8(bytes).map_err(|_| Fault::order(format!("{path} is not UTF-8 text")))?;
    match spec::Buildspec::parse(&text, path) {
        Ok((buildspec, _warnings)) => Ok(buildspec),
        Err(problems) => Err(Fault::order(super::intake::told(&problems)).next("vend check")),
    }
}

/// Values of the buildspec's `secrets-manager` and `parameter-store` variables, from the vault.
async fn secrets(
    world: &World,
    place: &Place,
    buildspec: &spec::Buildspec,
) -> Result<BTreeMap<String, Secret>, Fault> {
    let env = &buildspec.env;
    let wanted: Vec<(String, String)> = env
        .parameter_store
        .iter()
        .chain(&env.secrets_manager)
        .map(|(name, id)| (name.clone(), id.clone()))
        .collect();
    let mut secrets = BTreeMap::new();
    for (variable, id) in wanted {
        let mut parts = id.split(':');
        let name = parts
            .next()
            .unwrap_or_default()
            .trim_start_matches('/')
            .to_owned();
        let key = parts.next().filter(|key| !key.is_empty());
        let value = variables::reveal(world, place, &name, None)
            .await?
            .ok_or_else(|| missing(place, &name))?;
        let value = match key {
            None => value,
            Some(key) => field(&value, key).ok_or_else(|| {
                Fault::order(format!(
                    "the secret `{name}` is not a JSON object with the text field `{key}`"
                ))
            })?,
        };
        secrets.insert(variable, value);
    }
    Ok(secrets)
}

fn field(value: &Secret, key: &str) -> Option<Secret> {
    let value: Value = serde_json::from_str(value.expose()).ok()?;
    Some(Secret::new(value.get(key)?.as_str()?.to_owned()))
}

pub fn missing(place: &Place, name: &str) -> Fault {
    Fault::order(format!("there is no secret `{name}`")).next(format!(
        "vend secrets set {}/{} {name}, then vend push again",
        place.tenant, place.app
    ))
}
