//! What a bake stands on: a base, and layers that it finds or makes. They stay for as long as it goes on, so that no sweep has
//! to wait for it, however long it waits itself.

use std::time::Instant;

use model::{
    Digest,
    port::{BakeOrder, Baked},
    spec::Base,
};

use super::{Error, Held, Oven, journal::Journal, source};
use crate::{
    base::{self, Wanted},
    layer::{self, Record},
};

/// A base that goes between two looks is asked for again, so many times in all.
const TRIES: usize = 3;

impl Oven {
    /// Keeps these layers from being swept until what it gives is dropped, those too that are yet to be made.
    pub(super) async fn stay(&self, layers: impl IntoIterator<Item = Digest>) -> Vec<Held> {
        // A sweep that goes on has chosen already.
        let _together = self.together().await;
        layers.into_iter().map(|key| self.0.ground.hold(key)).collect()
    }

    /// The base of one of the platform's own images, made if it is not there.
    pub(super) async fn platform_base(
        &self,
        base: &Base,
        journal: &mut Journal,
    ) -> Result<(Record, Vec<Held>), Error> {
        let mut tries = TRIES;
        loop {
            let line = |line: &str| journal.line(line);
            let record = self.0.bases.ensured(Wanted::of(base), self.quiet(), line).await?;
            tries -= 1;
            if let Some(stays) = self.stays(record, tries).await? {
                return Ok(stays);
            }
        }
    }

    /// The base of an order, made or unpacked if it is not there.
    pub(super) async fn base(
        &self,
        order: &BakeOrder,
        journal: &mut Journal,
    ) -> Result<(Record, Vec<Held>), Error> {
        let base = base::parse(&order.base)?;
        if let Base::Named(_) | Base::Oci(_) = base {
            let mut tries = TRIES;
            loop {
                let (wanted, line) = (wanted(&base, order), |line: &str| journal.line(line));
                let (record, old) = self.0.bases.recent(wanted, self.quiet(), line).await?;
                if let Some(why) = old {
                    journal.line(&format!(
                        "the base {base} is what it was when it was last asked for; what it is now is not known: {why}"
                    ));
                }
                tries -= 1;
                if let Some(stays) = self.stays(record, tries).await? {
                    return Ok(stays);
                }
            }
        }
        let index = self.index(&order.source).await?;
        let (key, digest) = source::base_key(&index, &base).ok_or_else(|| source::no_base(&base))?;
        let stays = self.stay([key]).await;
        if let Some(record) = self.used(&key)? {
            return Ok((record, stays));
        }
        journal.line(&format!("unpacking the base {base}"));
        let (this, order) = (self.clone(), order.clone());
        let unpacked = tokio::task::spawn_blocking(move || {
            let home = this.workshop();
            this.0.bases.adopt(&base, key, digest, |files| {
                source::unpack_base(&this.0.objects, &order, &base, &home, files)
            })
        });
        Ok((unpacked.await.map_err(|_| Error::Interrupted)??, stays))
    }

    /// A base that is there stays from now on. `None`: its name means another one since just now, and a sweep was quicker; it
    /// is to be asked for again, so many times more.
    async fn stays(&self, base: Record, tries: usize) -> Result<Option<(Record, Vec<Held>)>, Error> {
        let stays = self.stay([base.key]).await;
        match self.0.layers.get(&base.key)? {
            Some(_) => Ok(Some((base, stays))),
            None if tries > 0 => Ok(None),
            None => Err(layer::Error::Missing(base.key).into()),
        }
    }

    /// The image that an order makes, if all of it is there.
    pub(super) async fn find_image(&self, order: &BakeOrder) -> Result<Option<Baked>, Error> {
        let started = Instant::now();
        let Some(base) = self.find_base(order).await? else {
            return Ok(None);
        };
        let mut keys = vec![base.key];
        keys.extend(self.steps(order, base.key).await?.iter().map(|step| step.key));
        let _stay = self.stay(keys.iter().copied()).await;
        for key in &keys {
            if self.0.layers.get(key)?.is_none() {
                return Ok(None);
            }
        }
        self.baked(&keys, true, started).await.map(Some)
    }

    async fn find_base(&self, order: &BakeOrder) -> Result<Option<Record>, Error> {
        let base = base::parse(&order.base)?;
        if let Base::Named(_) | Base::Oci(_) = base {
            return Ok(self.0.bases.find(wanted(&base, order))?);
        }
        let index = self.index(&order.source).await?;
        let (key, _) = source::base_key(&index, &base).ok_or_else(|| source::no_base(&base))?;
        self.used(&key)
    }

    /// A layer that is there counts as used now.
    fn used(&self, key: &Digest) -> Result<Option<Record>, Error> {
        let found = self.0.layers.get(key)?;
        if found.is_some() {
            self.0.layers.touch(key, crate::now())?;
        }
        Ok(found)
    }
}

fn wanted<'a>(base: &'a Base, order: &'a BakeOrder) -> Wanted<'a> {
    // The platform's own are the same for everybody.
    let tenant = matches!(base, Base::Oci(_)).then_some(&order.place.tenant);
    Wanted {
        base,
        tenant,
        login: order.login.as_ref(),
    }
}
