//! Registered machines: the listener that they dial, with the platform's memory of who they are.
//!
//! Builders join in the same way.
//!
//! Here the store meets `host::machine`, which speaks with machines and knows nothing of tenants. A machine's tenant and
//! labels come from its invitation; what it says of itself is shown to people and decides nothing.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use futures_util::future::BoxFuture;
use host::machine::{
    Authority, Desk, Gate, Invitation, Machines,
    authority::Kept,
    gate::{Joined, Newcomer},
};
use jiff::SignedDuration;
use model::{Digest, HostId, Secret, port::Fault, spec::is_label};
use store::{By, NewBuilder, NewInvitation, Store};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

use crate::{
    clock,
    config::Platform,
    flow::{chain, stored},
};

/// What others see of the listener. Clones are the same.
#[derive(Clone, Default)]
pub struct Door {
    /// Machines that are connected.
    pub live: Machines,
    open: Option<Open>,
}

#[derive(Clone)]
struct Open {
    authority: Digest,
    address: String,
}

/// What lets one machine in, for whoever takes it there.
pub struct Pass {
    pub text: Secret,
    /// What the machine dials.
    pub url: String,
}

impl Door {
    /// Invites one machine of a tenant.
    pub async fn invite(&self, store: &Store, new: NewInvitation, by: By) -> Result<Pass, Fault> {
        let (pass, secret) = self.pass()?;
        let kept = store.write(move |tx| tx.invite_machine(&secret, &new, &by));
        kept.await.map_err(refused)?;
        Ok(pass)
    }

    /// Invites one builder.
    pub async fn invite_builder(&self, store: &Store, new: NewBuilder, by: By) -> Result<Pass, Fault> {
        let (pass, secret) = self.pass()?;
        let kept = store.write(move |tx| tx.invite_builder(&secret, &new, &by));
        kept.await.map_err(refused)?;
        Ok(pass)
    }

    /// A new one, and the secret in it.
    fn pass(&self) -> Result<(Pass, Secret), Fault> {
        let open = self.open.as_ref().ok_or_else(|| {
            Fault::order("this platform has no listener for machines")
                .next("set `machines.listen` in platform.toml, such as \"0.0.0.0:7443\", and start it again")
        })?;
        let invitation = Invitation::make(open.authority);
        let pass = Pass {
            text: invitation.text(),
            url: format!("https://{}", open.address),
        };
        Ok((pass, invitation.secret))
    }
}

fn refused(error: store::Error) -> Fault {
    match error {
        store::Error::Refused { message, next } => Fault {
            next,
            ..Fault::order(message)
        },
        store::Error::Missing { .. } => Fault::order(error.to_string()),
        other => stored(other),
    }
}

/// Opens the listener, when the operator has one.
pub async fn open(
    store: &Store,
    platform: &Platform,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Door, Fault> {
    let Some(listen) = platform.machines.listen else {
        return Ok(Door::default());
    };
    let broken = |error: host::machine::Error| Fault::platform(chain(&error));
    let authority = authority(store).await?;
    let listener = tokio::net::TcpListener::bind(listen).await;
    let listener = listener
        .map_err(|error| Fault::platform(format!("cannot listen for machines at {listen}: {error}")))?;
    let address = listener
        .local_addr()
        .map_err(|error| Fault::platform(error.to_string()))?;
    let open = Open {
        authority: authority.digest(),
        address: platform
            .machines
            .address
            .clone()
            .unwrap_or_else(|| address.to_string()),
    };
    let live = Machines::default();
    let gate = Arc::new(Gate {
        authority,
        desk: Arc::new(Register(store.clone())),
        machines: live.clone(),
        lasting: SignedDuration::from_secs(platform.machines.certificate_s.into()),
    });
    info!(%address, "machines may join");
    let stop = stop.clone();
    tasks.spawn(async move {
        if let Err(failed) = gate.serve(listener, stop).await.map_err(broken) {
            error!("the listener for machines has stopped: {failed}");
        }
    });
    Ok(Door {
        live,
        open: Some(open),
    })
}

/// The platform's own, made at its first use.
async fn authority(store: &Store) -> Result<Authority, Fault> {
    let broken = |error: host::machine::Error| Fault::platform(chain(&error));
    let read = || async { store.read(|db| db.authority()).await.map_err(stored) };
    let mut known = read().await?;
    if known.is_none() {
        let fresh = Authority::make(clock::now()).map_err(broken)?;
        let by = By::platform(clock::now());
        let kept = store.write(move |tx| tx.keep_authority(&fresh.certificate, &fresh.key, &by));
        kept.await.map_err(stored)?;
        known = read().await?;
    }
    let (certificate, key) = known.ok_or_else(|| Fault::platform("the authority was not kept"))?;
    Authority::open(&Kept { certificate, key }).map_err(broken)
}

/// What a builder says of itself that is taken from it: what machine it is. What it is for, its invitation says.
fn believable(mut own: BTreeMap<String, String>) -> BTreeMap<String, String> {
    own.retain(|name, value| ["arch", "os"].contains(&name.as_str()) && is_label(value));
    own
}

/// Who machines are, by the store.
struct Register(Store);

impl Desk for Register {
    fn join(&self, guest: Newcomer) -> BoxFuture<'_, Result<Joined, Fault>> {
        Box::pin(async move {
            let (id, now) = (HostId::from_bits(clock::bits()), clock::now());
            let Newcomer {
                secret,
                name,
                key,
                builder,
            } = guest;
            let joined = self.0.write(move |tx| match builder.map(believable) {
                Some(own) => {
                    let joined = tx.join_builder(&id, &secret, &name, key, &own, now)?;
                    let store::Builder { id, labels, .. } = joined;
                    Ok(Joined { id, labels })
                }
                None => {
                    let id = tx.join_machine(&id, &secret, &name, key, now)?.id;
                    let labels = BTreeMap::new();
                    Ok(Joined { id, labels })
                }
            });
            joined.await.map_err(refused)
        })
    }

    fn known(&self, key: Digest) -> BoxFuture<'_, Result<Option<HostId>, Fault>> {
        Box::pin(async move {
            let now = clock::now();
            let known = self.0.write(move |tx| match tx.machine_of_key(key, now)? {
                None => tx.builder_of_key(key, now),
                machine => Ok(machine),
            });
            known.await.map_err(stored)
        })
    }

    fn renew(&self, machine: HostId, key: Digest) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let by = By::platform(clock::now());
            let kept = self.0.write(move |tx| match tx.expect_key(&machine, key, &by) {
                Err(store::Error::Missing { .. }) => tx.expect_builder_key(&machine, key, &by),
                kept => kept,
            });
            kept.await.map_err(stored)
        })
    }

    fn came(&self, machine: HostId, address: SocketAddr) -> BoxFuture<'_, ()> {
        Box::pin(self.seen(machine, Some(address.ip().to_string())))
    }

    fn went(&self, machine: HostId) -> BoxFuture<'_, ()> {
        Box::pin(self.seen(machine, None))
    }
}

impl Register {
    async fn seen(&self, machine: HostId, address: Option<String>) {
        let now = clock::now();
        let kept = self.0.write(move |tx| {
            tx.see_machine(&machine, address.as_deref(), now)?;
            tx.see_builder(&machine, address.as_deref(), now)
        });
        if let Err(error) = kept.await {
            error!("cannot keep when a machine was seen: {}", chain(&error));
        }
    }
}
