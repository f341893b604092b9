//! Where a build runs: on the platform's own machine when that has what the build asks for, else on a builder that has.

mod choice;

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use host::{
    build::{Offer, image, wanted},
    client::Client,
    machine::away::Away,
};
use model::{
    HostId, TenantName, Ticket,
    port::{BasesSeen, Blame, BuildOrder, Builder as _, Built, Fault, LogRef, Shelf as _, Work as _},
    spec::Base,
};
use store::{Build, RunsOn, Store, WorkState};
use tokio::time::Instant;
use tracing::warn;

use self::choice::{Asks, Choice, candidates, find};
use super::{World, stored};
use crate::flow::images;

/// Between two looks for a builder that is not connected, and at a build that waits for its turn.
const LOOK: Duration = Duration::from_secs(2);
/// At one that goes on: it may be made again, and waits for its turn again. At what one waits for that others may bring.
const SELDOM: Duration = Duration::from_secs(30);

/// What builds of a tenant may run on.
pub(super) async fn offers(world: &World, tenant: &TenantName) -> Result<Vec<Offer>, Fault> {
    let own = Offer::here(world.platform.builds.labels.clone());
    let others = candidates(&world.store, &world.machines.live, tenant).await?;
    Ok([own]
        .into_iter()
        .chain(others.into_iter().map(|builder| builder.offer))
        .collect())
}

/// Where a build is.
enum Placed {
    Here(Box<Build>),
    There(Box<Build>, HostId),
    Known(Box<Built>),
    Stopped,
}

/// Runs a build where it belongs. One that a machine has goes on there, also after a restart.
pub(super) async fn build(world: &World, ticket: &Ticket, order: &BuildOrder) -> Result<Built, Fault> {
    let log: LogRef = format!("build/{ticket}")
        .parse()
        .map_err(|_| Fault::order("the ticket cannot name a log"))?;
    loop {
        match placed(world, ticket, order, &log).await {
            Ok(Placed::Here(row)) => {
                if let Some(built) = here(world, &row, order).await? {
                    return Ok(built);
                }
            }
            Ok(Placed::Known(built)) => return Ok(*built),
            Ok(Placed::Stopped) => return Err(Fault::order("the build was stopped")),
            Ok(Placed::There(row, builder)) => {
                if let Some(built) = there(world, &row, &builder, &log, order).await? {
                    return Ok(built);
                }
            }
            Err(fault) => return Err(nowhere(world, ticket, log, fault).await),
        }
    }
}

/// Finds a place for a build, and waits until there is one. While it waits nothing is written but once why.
async fn placed(world: &World, ticket: &Ticket, order: &BuildOrder, log: &LogRef) -> Result<Placed, Fault> {
    let asks = Asks {
        tenant: order.place.tenant.clone(),
        wanted: wanted(order),
        here: Offer::here(world.platform.builds.labels.clone()),
    };
    let silent = world.platform.builds.silent();
    let (begun, mut told) = (Instant::now(), false);
    loop {
        let row = row(world, ticket).await?;
        if row.state == WorkState::Stopped {
            return Ok(Placed::Stopped);
        }
        // A batch that is tried again asks for all of its builds.
        if let Some(built) = row.built {
            return Ok(Placed::Known(Box::new(built)));
        }
        // One that may be tried again was opened again when it was asked for.
        if let (WorkState::Failed, Some(fault)) = (row.state, &row.fault) {
            return Err(fault.clone());
        }
        match row.runs_on.clone() {
            Some(RunsOn::Own) => return Ok(Placed::Here(Box::new(row))),
            Some(RunsOn::Builder(builder)) => return Ok(Placed::There(Box::new(row), builder)),
            None => {}
        }
        let Choice::Away(names) = find(&world.store, &world.machines.live, ticket, &asks).await? else {
            continue;
        };
        let names = names.join(", ");
        if begun.elapsed() >= silent {
            return Err(Fault::order(format!(
                "no builder that has what the build asks for is connected: {names}"
            ))
            .next(
                "see on it whether `vend agent --builder` runs; vend builders list; then vend push again",
            ));
        }
        if !told {
            let line = format!("Waiting: what has the build's labels is not connected: {names}");
            let why = format!("a builder that has its labels to connect: {names}");
            begin(world, &row, &line, Some(why), log).await?;
            told = true;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A build that has no place: a log that has begun says why, and ends.
async fn nowhere(world: &World, ticket: &Ticket, log: LogRef, fault: Fault) -> Fault {
    // `log_from`: it waited, or was a builder's.
    let has_begun = row(world, ticket).await.is_ok_and(|row| row.log_from.is_some());
    if !has_begun {
        return fault;
    }
    end(world, &log, &fault.message).await;
    fault.evidence(log)
}

async fn end(world: &World, log: &LogRef, line: &str) {
    if let Err(fault) = world.node.end_log(log, line).await {
        warn!(%log, "a log was not ended: {fault}");
    }
}

/// Nothing when the machine is not any more what the build asks for, and has not begun it, or when it was stopped before that:
/// where it belongs is to be looked up again.
async fn here(world: &World, row: &Build, order: &BuildOrder) -> Result<Option<Built>, Fault> {
    tokio::select! {
        room = room(world, row, order) => room?,
        () = stopped(world, &row.ticket) => return Ok(None),
    }
    let machine = Waiting {
        name: Offer::HERE,
        node: &world.node,
        own: &row.ticket,
        is_away: &|| false,
    };
    let built = tokio::select! {
        built = world.node.build(&row.ticket, order) => built,
        never = machine.note(&world.store, row) => match never {},
    };
    let own = Offer::here(world.platform.builds.labels.clone());
    if !is_misplaced(&built, &wanted(order), &own) {
        return built.map(Some);
    }
    // It may have begun there, and only its answer be lost.
    world.node.stop_work(&row.ticket, "it is placed anew").await?;
    let ticket = row.ticket.clone();
    let taken = world.store.write(move |tx| tx.take_build(&ticket));
    taken.await.map_err(stored)?;
    Ok(None)
}

/// Waits for room for the image that a build names itself, where that is yet to be got.
async fn room(world: &World, row: &Build, order: &BuildOrder) -> Result<(), Fault> {
    let Some(base) = image(order) else { return Ok(()) };
    let tenant = &order.place.tenant;
    if is_here(&world.node.bases().await?, &base, tenant) {
        // Whether its tag names another one by now is seen when the build asks, which then waits there.
        return match matches!(base, Base::Oci(_)) && base.moves() {
            true => images::clear(&world.node, &world.pokes.sweep).await,
            false => Ok(()),
        };
    }
    let note = |why: Option<String>| async {
        if let Some(why) = &why {
            warn!(place = %row.place, "a build waits for {why}");
        }
        let ticket = row.ticket.clone();
        let noted = world
            .store
            .write(move |tx| tx.build_waits(&ticket, why.as_deref()));
        noted.await.map_err(stored)
    };
    tokio::select! {
        waited = images::room(&world.node, &world.pokes.sweep, row.waits.clone(), note) => waited,
        () = came(world, &base, tenant) => note(None).await,
    }
}

/// Ends when an image is here: another build got it, or this one, which had begun before a restart of serve.
async fn came(world: &World, base: &Base, tenant: &TenantName) {
    loop {
        tokio::time::sleep(SELDOM).await;
        if let Ok(seen) = world.node.bases().await
            && is_here(&seen, base, tenant)
        {
            return;
        }
    }
}

/// What one tenant's login got is not another's.
fn is_here(seen: &BasesSeen, base: &Base, tenant: &TenantName) -> bool {
    let (name, of) = (base.to_string(), matches!(base, Base::Oci(_)).then_some(tenant));
    let mut seen = seen.bases.iter();
    seen.any(|seen| seen.base == name && seen.tenant.as_ref() == of)
}

/// Ends when nobody wants a build any more.
async fn stopped(world: &World, ticket: &Ticket) {
    loop {
        tokio::time::sleep(LOOK).await;
        if row(world, ticket)
            .await
            .is_ok_and(|row| row.state == WorkState::Stopped)
        {
            return;
        }
    }
}

/// A build that this machine had when it had other labels. One that it has begun ends there all the same; what it refuses as
/// none of its own has no answer, as all that is the platform's fault.
fn is_misplaced(built: &Result<Built, Fault>, wanted: &BTreeMap<String, String>, own: &Offer) -> bool {
    built.as_ref().is_err_and(|fault| fault.blame == Blame::Platform) && !own.has(wanted)
}

/// A machine that has a build, for whoever notes why that does not go on.
struct Waiting<'a> {
    /// What people call it.
    name: &'a str,
    node: &'a Client,
    /// The build's ticket there.
    own: &'a Ticket,
    /// It cannot be asked: it has to come back.
    is_away: &'a (dyn Fn() -> bool + Sync),
}

impl Waiting<'_> {
    /// Notes why a build does not go on, and that it does, whenever that changes.
    async fn note(&self, store: &Store, row: &Build) -> Infallible {
        let (mut noted, mut pause, mut due) = (row.waits.clone(), LOOK, Instant::now());
        loop {
            tokio::time::sleep(LOOK).await;
            let why = match (self.is_away)() {
                true => Some(format!("{} to come back", self.name)),
                false if Instant::now() < due && noted.is_none() => continue,
                // What cannot be asked now is asked again.
                false => match self.node.waits(self.own).await {
                    Ok(waits) => waits.then(|| {
                        format!(
                            "its turn on {}, which builds as many as it may at a time",
                            self.name
                        )
                    }),
                    Err(_) => continue,
                },
            };
            // It is asked less and less often while it goes on.
            pause = match why {
                Some(_) => LOOK,
                None => (pause * 2).min(SELDOM),
            };
            due = Instant::now() + pause;
            if why == noted {
                continue;
            }
            let (ticket, new) = (row.ticket.clone(), why.clone());
            match store
                .write(move |tx| tx.build_waits(&ticket, new.as_deref()))
                .await
            {
                Ok(()) => noted = why,
                Err(error) => warn!(ticket = %row.ticket, "a wait was not noted: {}", stored(error)),
            }
        }
    }
}

/// Nothing when the builder was removed meanwhile: the build is to be given to another one.
async fn there(
    world: &World,
    row: &Build,
    builder: &HostId,
    log: &LogRef,
    order: &BuildOrder,
) -> Result<Option<Built>, Fault> {
    let name = name(world, builder).await?;
    let log_from = match row.log_from {
        Some(log_from) => log_from,
        None => {
            begin(
                world,
                row,
                &format!("The build runs on the builder {name}"),
                None,
                log,
            )
            .await?
        }
    };
    let (there, own) = (away(world, builder, &name, log, log_from), row.ticket_there());
    let live = &world.machines.live;
    let machine = Waiting {
        name: &format!("the builder {name}"),
        node: &live.node(builder),
        own: &own,
        is_away: &|| live.address(builder).is_none(),
    };
    tokio::select! {
        built = there.build(&own, order) => built.map(Some),
        never = machine.note(&world.store, row) => match never {},
        () = taken(world, &row.ticket, builder) => {
            let line = format!("The builder {name} was removed while it had the build");
            world.node.say(log, &line).await?;
            Ok(None)
        }
    }
}

/// Ends when the build is not this builder's any more. One that is connected is not removed.
async fn taken(world: &World, ticket: &Ticket, builder: &HostId) {
    loop {
        tokio::time::sleep(LOOK).await;
        if world.machines.live.address(builder).is_none()
            && row(world, ticket)
                .await
                .is_ok_and(|row| row.builder() != Some(builder))
        {
            return;
        }
    }
}

/// Says where the build is, or why it waits. What its builder says comes behind that.
async fn begin(
    world: &World,
    row: &Build,
    line: &str,
    waits: Option<String>,
    log: &LogRef,
) -> Result<u64, Fault> {
    let log_from = world.node.say(log, line).await?;
    let ticket = row.ticket.clone();
    let kept = world.store.write(move |tx| {
        tx.set_log_from(&ticket, log_from)?;
        tx.build_waits(&ticket, waits.as_deref())
    });
    kept.await.map_err(stored)?;
    Ok(log_from)
}

/// Ends a build that nobody waits for any more, wherever it runs. Gives the fault that it ended with, when that is known.
pub(in crate::flow) async fn stop(
    world: &World,
    ticket: &Ticket,
    cause: &str,
) -> Result<Option<Fault>, Fault> {
    let own = ticket.clone();
    let found = world.store.read(move |db| db.build_of_ticket(&own));
    let Some(row) = found.await.map_err(stored)? else {
        return world.node.stop_work(ticket, cause).await;
    };
    let (builder, log) = match (&row.runs_on, &row.log, row.log_from) {
        (Some(RunsOn::Builder(builder)), Some(log), Some(_)) => (builder, log),
        // It waits for one, or none has been asked for it yet, and now none will be.
        (None, Some(log), Some(_)) | (Some(RunsOn::Builder(_)), Some(log), None) => {
            end(world, log, &format!("The build was stopped: {cause}")).await;
            return Ok(None);
        }
        (Some(RunsOn::Builder(_)), None, _) => return Ok(None),
        (Some(RunsOn::Own) | None, ..) => return world.node.stop_work(ticket, cause).await,
    };
    let name = name(world, builder).await?;
    // One that cannot be asked now is told when it comes back: then nobody wants that build of it.
    Ok(away(world, builder, &name, log, row.log_from.unwrap_or_default())
        .stop(&row.ticket_there(), cause)
        .await
        .unwrap_or_default())
}

fn away<'a>(
    world: &'a World,
    builder: &'a HostId,
    name: &'a str,
    log: &'a LogRef,
    log_from: u64,
) -> Away<'a> {
    Away {
        machines: &world.machines.live,
        machine: builder,
        name,
        here: &world.node,
        log,
        log_from,
        silent: world.platform.builds.silent(),
    }
}

async fn row(world: &World, ticket: &Ticket) -> Result<Build, Fault> {
    let own = ticket.clone();
    let found = world.store.read(move |db| db.build_of_ticket(&own));
    let found = found.await.map_err(stored)?;
    found.ok_or_else(|| Fault::platform("the build is not on record"))
}

/// What people call it; one that was removed has its id.
async fn name(world: &World, builder: &HostId) -> Result<String, Fault> {
    let own = builder.clone();
    match world.store.read(move |db| db.builder(&own)).await {
        Ok(found) => Ok(found.name),
        Err(store::Error::Missing { .. }) => Ok(builder.to_string()),
        Err(error) => Err(stored(error)),
    }
}

#[cfg(test)]
mod tests;
