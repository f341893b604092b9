//! Places of branches' environments: `limit` of `vend.yaml`, also where two are made at once.

use ::aws::{live::slot::Slots, site::Found, synth::Kind};

use super::{Exit, Failure, broken, project::Loaded};
use crate::output::clean;

/// Takes a place for the branch that was asked for, or says who has them.
pub async fn take(loaded: &Loaded) -> Result<(), Failure> {
    let Some((environment, preview)) = loaded
        .branch
        .as_ref()
        .and_then(|own| Some((own, own.preview.as_ref()?)))
    else {
        return Ok(());
    };
    let Some((table, site)) = loaded.table() else {
        return Ok(());
    };
    let slots = Slots {
        client: &site.client,
        table: &table,
        entry: preview.of.as_str(),
    };
    let missing = |error: ::aws::client::Error| match error.code() {
        "ResourceNotFoundException" => Failure::new(Exit::NotFound, format!("there is no stack {table}"))
            .cause("a branch's environment is made beside the app's pipeline".to_owned())
            .next("vend aws apply"),
        _ => broken(error),
    };
    let name = loaded.apart(environment);
    if slots.take(&name, preview.limit).await.map_err(missing)? {
        return Ok(());
    }
    let taken = slots.taken().await.map_err(broken)?;
    Err(Failure::new(
        Exit::Refused,
        format!(
            "{} has {} environments, and no more at a time",
            preview.of, preview.limit
        ),
    )
    .cause(format!("these are there: {}", clean(&taken.join(", "))))
    .next("delete a branch, or vend aws destroy --branch BRANCH"))
}

/// Gives back the place of what is gone.
pub async fn leave(loaded: &Loaded, gone: &Found) -> Result<(), Failure> {
    let mark = gone.mark.as_ref().filter(|mark| mark.kind == Kind::Environment);
    match mark.and_then(|mark| Some((mark.environment.as_deref()?, mark.preview.as_deref()?))) {
        Some((name, entry)) => give(loaded, entry, name).await,
        None => Ok(()),
    }
}

/// Gives back the place of the branch that was asked for, also where no stack of it was there.
pub async fn end(loaded: &Loaded) -> Result<(), Failure> {
    match loaded
        .branch
        .as_ref()
        .and_then(|own| Some((own, own.preview.as_ref()?)))
    {
        Some((environment, preview)) => give(loaded, preview.of.as_str(), &loaded.apart(environment)).await,
        None => Ok(()),
    }
}

async fn give(loaded: &Loaded, entry: &str, name: &str) -> Result<(), Failure> {
    let Some((table, site)) = loaded.table() else {
        return Ok(());
    };
    let slots = Slots {
        client: &site.client,
        table: &table,
        entry,
    };
    slots.leave(name).await.map_err(broken)
}
