//! Where a build runs: on the platform's own machine when that has what the build asks for, else on a builder that has.

use std::{collections::BTreeMap, time::Duration};

use host::{
    build::{Offer, one_has, wanted},
    machine::{Machines, away::Away},
};
use model::{
    HostId, TenantName, Ticket,
    port::{Blame, BuildOrder, Builder as _, Built, Fault, LogRef, Work as _},
};
use store::{Build, By, Db, WorkState};
use tokio::time::Instant;
use tracing::warn;

use super::{World, stored};

/// Between two looks for a builder that is not connected.
const LOOK: Duration = Duration::from_secs(2);

/// A builder as it stands when a build is placed.
#[derive(Debug, Clone)]
struct Candidate {
    id: HostId,
    offer: Offer,
    connected: bool,
    /// So many builds it has.
    busy: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Here,
    There(HostId),
    /// Those that have what is wanted are not connected: their names.
    Away(Vec<String>),
}

/// The platform's own machine when it will do, else the builder with the fewest builds of those that are connected.
fn choose(wanted: &BTreeMap<String, String>, here: &Offer, builders: &[Candidate]) -> Result<Choice, Fault> {
    if here.has(wanted) {
        return Ok(Choice::Here);
    }
    let fit = || builders.iter().filter(|builder| builder.offer.has(wanted));
    let free = fit().filter(|builder| builder.connected);
    if let Some(builder) = free.min_by_key(|builder| builder.busy) {
        return Ok(Choice::There(builder.id.clone()));
    }
    let away: Vec<String> = fit().map(|builder| builder.offer.name.clone()).collect();
    if away.is_empty() {
        let all = builders.iter().map(|builder| &builder.offer);
        let all: Vec<Offer> = [here].into_iter().chain(all).cloned().collect();
        one_has(wanted, &all)?;
    }
    Ok(Choice::Away(away))
}

/// What builds of a tenant may run on.
pub(super) async fn offers(world: &World, tenant: &TenantName) -> Result<Vec<Offer>, Fault> {
    let own = Offer::here(world.platform.builds.labels.clone());
    let others = candidates(world, tenant).await?;
    Ok([own]
        .into_iter()
        .chain(others.into_iter().map(|builder| builder.offer))
        .collect())
}

async fn candidates(world: &World, tenant: &TenantName) -> Result<Vec<Candidate>, Fault> {
    let (live, tenant) = (world.machines.live.clone(), tenant.clone());
    let found = world.store.read(move |db| standing(db, &live, &tenant));
    found.await.map_err(stored)
}

/// The builders that a tenant's builds may run on.
fn standing(db: &Db<'_>, live: &Machines, tenant: &TenantName) -> Result<Vec<Candidate>, store::Error> {
    let running = db.running_builds()?;
    let busy = |id: &HostId| {
        let own = running.iter().filter(|build| build.builder.as_ref() == Some(id));
        own.count()
    };
    let builders = db.builders()?.into_iter();
    let builders = builders.filter(|builder| builder.serves(tenant) && !builder.leaving);
    Ok(builders
        .map(|builder| Candidate {
            connected: live.address(&builder.id).is_some(),
            busy: busy(&builder.id),
            offer: Offer {
                name: builder.name,
                labels: builder.labels,
            },
            id: builder.id,
        })
        .collect())
}

/// Where a build is.
enum Placed {
    Here,
    There(Box<Build>, HostId),
    Known(Box<Built>),
    Stopped,
}

/// Runs a build where it belongs. One that a builder has goes on there, also after a restart.
pub(super) async fn build(world: &World, ticket: &Ticket, order: &BuildOrder) -> Result<Built, Fault> {
    let log: LogRef = format!("build/{ticket}")
        .parse()
        .map_err(|_| Fault::order("the ticket cannot name a log"))?;
    loop {
        match placed(world, ticket, order, &log).await {
            Ok(Placed::Here) => return world.node.build(ticket, order).await,
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

/// Finds a place for a build, and waits until there is one.
async fn placed(world: &World, ticket: &Ticket, order: &BuildOrder, log: &LogRef) -> Result<Placed, Fault> {
    let (wanted, here) = (wanted(order), Offer::here(world.platform.builds.labels.clone()));
    let silent = world.platform.builds.silent();
    let (begun, mut told) = (Instant::now(), false);
    loop {
        let row = row(world, ticket).await?;
        if row.state == WorkState::Stopped {
            return Ok(Placed::Stopped);
        }
        if let Some(builder) = row.builder.clone() {
            // A batch that is tried again asks for all of its builds; here the node repeats its answer.
            return Ok(match row.built {
                Some(built) => Placed::Known(Box::new(built)),
                None => Placed::There(Box::new(row), builder),
            });
        }
        match give(world, ticket, &order.place.tenant, &wanted, &here).await? {
            Choice::Here => return Ok(Placed::Here),
            // It is on record before the builder hears of it.
            Choice::There(_) => {}
            Choice::Away(names) => {
                let names = names.join(", ");
                if begun.elapsed() >= silent {
                    return Err(Fault::order(format!(
                        "no builder that has what the build asks for is connected: {names}"
                    ))
                    .next("see on it whether `vend agent --builder` runs; vend builders list; then vend push again"));
                }
                if !told {
                    let line = format!("Waiting: what has the build's labels is not connected: {names}");
                    begin(world, &row, &line, log).await?;
                    told = true;
                }
                tokio::time::sleep(LOOK).await;
            }
        }
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

/// Chooses, and gives the build to the builder that it chose: in one step, so that of several builds each sees where those
/// before it went.
async fn give(
    world: &World,
    ticket: &Ticket,
    tenant: &TenantName,
    wanted: &BTreeMap<String, String>,
    here: &Offer,
) -> Result<Choice, Fault> {
    let (live, tenant, ticket) = (world.machines.live.clone(), tenant.clone(), ticket.clone());
    let (wanted, here, by) = (wanted.clone(), here.clone(), By::platform(crate::clock::now()));
    let given = world.store.write(move |tx| {
        let chosen = choose(&wanted, &here, &standing(tx, &live, &tenant)?);
        if let Ok(Choice::There(builder)) = &chosen {
            tx.give_build(&ticket, builder, &by)?;
        }
        Ok::<_, store::Error>(chosen)
    });
    given.await.map_err(stored)?
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
        None => begin(world, row, &format!("The build runs on the builder {name}"), log).await?,
    };
    let (there, own) = (away(world, builder, &name, log, log_from), row.ticket_there());
    let built = tokio::select! {
        built = there.build(&own, order) => built,
        () = taken(world, &row.ticket, builder) => {
            let line = format!("The builder {name} was removed while it had the build");
            world.node.say(log, &line).await?;
            return Ok(None);
        }
    };
    if built.as_ref().is_err_and(|fault| fault.blame == Blame::Platform) {
        // The next try finds another one, or waits for this one.
        let ticket = row.ticket.clone();
        let taken = world.store.write(move |tx| tx.take_build(&ticket));
        taken.await.map_err(stored)?;
    }
    built.map(Some)
}

/// Ends when the build is not this builder's any more. One that is connected is not removed.
async fn taken(world: &World, ticket: &Ticket, builder: &HostId) {
    loop {
        tokio::time::sleep(LOOK).await;
        if world.machines.live.address(builder).is_none()
            && row(world, ticket)
                .await
                .is_ok_and(|row| row.builder.as_ref() != Some(builder))
        {
            return;
        }
    }
}

/// Says where the build is. What its builder says comes behind that.
async fn begin(world: &World, row: &Build, line: &str, log: &LogRef) -> Result<u64, Fault> {
    let log_from = world.node.say(log, line).await?;
    let ticket = row.ticket.clone();
    let kept = world.store.write(move |tx| tx.set_log_from(&ticket, log_from));
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
    let (builder, log) = match (&row.builder, &row.log, row.log_from) {
        (Some(builder), Some(log), Some(_)) => (builder, log),
        // It waits for one, or none has been asked for it yet, and now none will be.
        (None, Some(log), Some(_)) | (Some(_), Some(log), None) => {
            end(world, log, &format!("The build was stopped: {cause}")).await;
            return Ok(None);
        }
        (Some(_), None, _) => return Ok(None),
        (None, ..) => return world.node.stop_work(ticket, cause).await,
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
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    fn candidate(bits: u64, text: &str, connected: bool, busy: usize) -> Candidate {
        Candidate {
            id: HostId::from_bits(bits),
            offer: Offer {
                name: format!("box{bits}"),
                labels: labels(text),
            },
            connected,
            busy,
        }
    }

    #[test]
    fn a_build_goes_to_what_has_its_labels_and_the_least_to_do() {
        let here = Offer {
            name: "this machine".into(),
            labels: labels("arch=amd64 os=linux fleet=own"),
        };
        let there = |bits| Choice::There(HostId::from_bits(bits));
        let (arm, big) = ("arch=arm64 os=linux", "arch=amd64 fleet=big");
        let busy = [
            candidate(1, arm, true, 2),
            candidate(2, arm, true, 1),
            candidate(3, arm, false, 0),
            candidate(4, big, true, 9),
        ];
        let gone = [candidate(1, arm, false, 0), candidate(2, arm, false, 0)];
        for (wanted, builders, expected) in [
            ("", &busy[..], Choice::Here),
            ("fleet=own", &busy, Choice::Here),
            ("arch=arm64", &busy, there(2)),
            ("fleet=big", &busy, there(4)),
            ("arch=arm64", &busy[..1], there(1)),
            (
                "arch=arm64",
                &gone,
                Choice::Away(vec!["box1".into(), "box2".into()]),
            ),
        ] {
            assert_eq!(choose(&labels(wanted), &here, builders), Ok(expected), "{wanted}");
        }
        let nobody = choose(&labels("arch=arm64 fleet=big"), &here, &busy).unwrap_err();
        assert!(
            nobody
                .message
                .starts_with("no builder has all of the labels `arch: arm64, fleet: big`"),
            "{nobody}"
        );
        let alone = choose(&labels("arch=s390x"), &here, &[]).unwrap_err();
        assert!(alone.message.contains("builds run on this machine"), "{alone}");
    }
}
