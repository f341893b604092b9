//! Which machine a build is given to.

use std::collections::BTreeMap;

use host::{
    build::{Offer, one_has},
    machine::Machines,
};
use model::{HostId, TenantName, Ticket, port::Fault};
use store::{By, Db, Store};

use crate::flow::stored;

/// What a build asks of its machine.
#[derive(Clone)]
pub(super) struct Asks {
    pub tenant: TenantName,
    pub wanted: BTreeMap<String, String>,
    pub here: Offer,
}

/// A builder as it stands when a build is placed.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub id: HostId,
    pub offer: Offer,
    connected: bool,
    /// So many builds it has.
    busy: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
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

/// Finds a place for a build that has none, and puts it on record. Where there is none nothing is written: who waits looks
/// again and again.
pub(super) async fn find(
    store: &Store,
    live: &Machines,
    ticket: &Ticket,
    asks: &Asks,
) -> Result<Choice, Fault> {
    let builders = candidates(store, live, &asks.tenant).await?;
    match choose(&asks.wanted, &asks.here, &builders)? {
        away @ Choice::Away(_) => Ok(away),
        Choice::Here | Choice::There(_) => give(store, live, ticket, asks).await,
    }
}

/// Chooses, and gives the build to the machine that it chose: in one step, so that of several builds each sees where those
/// before it went.
async fn give(store: &Store, live: &Machines, ticket: &Ticket, asks: &Asks) -> Result<Choice, Fault> {
    let (live, ticket, asks) = (live.clone(), ticket.clone(), asks.clone());
    let by = By::platform(crate::clock::now());
    let given = store.write(move |tx| {
        let chosen = choose(&asks.wanted, &asks.here, &standing(tx, &live, &asks.tenant)?);
        match &chosen {
            Ok(Choice::Here) => tx.keep_build(&ticket)?,
            Ok(Choice::There(builder)) => tx.give_build(&ticket, builder, &by)?,
            // It has just gone away, or was removed.
            Ok(Choice::Away(_)) | Err(_) => {}
        }
        Ok::<_, store::Error>(chosen)
    });
    given.await.map_err(stored)?
}

pub(super) async fn candidates(
    store: &Store,
    live: &Machines,
    tenant: &TenantName,
) -> Result<Vec<Candidate>, Fault> {
    let (live, tenant) = (live.clone(), tenant.clone());
    let found = store.read(move |db| standing(db, &live, &tenant));
    found.await.map_err(stored)
}

/// The builders that a tenant's builds may run on.
fn standing(db: &Db<'_>, live: &Machines, tenant: &TenantName) -> Result<Vec<Candidate>, store::Error> {
    let busy = db.busy_builders()?;
    let builders = db.builders()?.into_iter();
    let builders = builders.filter(|builder| builder.serves(tenant) && !builder.leaving);
    Ok(builders
        .map(|builder| Candidate {
            connected: live.address(&builder.id).is_some(),
            busy: busy.get(&builder.id).copied().unwrap_or_default(),
            offer: Offer {
                name: builder.name,
                labels: builder.labels,
            },
            id: builder.id,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use model::Secret;

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

    #[tokio::test]
    async fn a_place_is_on_record_and_while_there_is_none_nothing_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = camino::Utf8Path::from_path(directory.path())
            .unwrap()
            .join("serve");
        let store = Store::open(&path).unwrap();
        let (live, ticket) = (Machines::default(), "t-1".parse::<Ticket>().unwrap());
        let new = crate::fixtures::new_build(&ticket);
        let begun = store.write(move |tx| {
            let by = By::platform(Timestamp::UNIX_EPOCH);
            tx.create_tenant(&new.place.tenant, &by)?;
            tx.create_app(&new.place.tenant, &new.place.app, None, &by)?;
            let secret = Secret::new("secret".into());
            let invited = store::NewBuilder {
                labels: labels("fleet=big"),
                tenants: Default::default(),
                expires_at: Timestamp::MAX,
            };
            tx.invite_builder(&secret, &invited, &by)?;
            let key = model::Digest::of("key");
            tx.join_builder(
                &HostId::from_bits(1),
                &secret,
                "box",
                key,
                &BTreeMap::new(),
                by.at,
            )?;
            tx.begin_build(&new, &by)
        });
        begun.await.unwrap();
        let asks = |wanted| Asks {
            tenant: "acme".parse().unwrap(),
            wanted: labels(wanted),
            here: Offer {
                name: Offer::HERE.into(),
                labels: labels("fleet=own"),
            },
        };
        // Nobody else can write meanwhile.
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let held = store.clone();
        let busy = tokio::spawn(async move {
            let wait = held.write(move |_| Ok::<_, store::Error>(gone.recv().is_ok()));
            wait.await
        });
        let big = asks("fleet=big");
        let looked = find(&store, &live, &ticket, &big);
        let looked = tokio::time::timeout(std::time::Duration::from_secs(20), looked).await;
        let away = looked.expect("who waits writes nothing").unwrap();
        assert_eq!(away, Choice::Away(vec!["box".into()]));
        go.send(()).unwrap();
        busy.await.unwrap().unwrap();

        let runs_on = || {
            let ticket = ticket.clone();
            let found = store.read(move |db| db.build_of_ticket(&ticket));
            async { found.await.unwrap().unwrap().runs_on }
        };
        assert_eq!(runs_on().await, None);
        let found = find(&store, &live, &ticket, &asks("fleet=own")).await.unwrap();
        assert_eq!((found, runs_on().await), (Choice::Here, Some(store::RunsOn::Own)));
    }
}
