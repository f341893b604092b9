//! What a bake stands on: a base, and layers that it finds or makes. They stay for as long as it goes on, so that no sweep has
//! to wait for it, however long it waits itself.

use std::{
    sync::{Arc, PoisonError},
    time::Instant,
};

use model::{
    Digest,
    port::{BakeOrder, Baked},
    spec::Base,
};

use super::{
    Error, Held, Looks, Oven, downloads,
    journal::Journal,
    script::Downloads,
    since,
    source::{self, Index, Step},
};
use crate::{
    base::{self, Wanted},
    layer::{self, Record},
    lives::Life,
    ticket::Stop,
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
        life: Life,
        journal: &mut Journal,
        stop: &mut Stop,
    ) -> Result<(Record, Vec<Held>), Error> {
        let base = base::parse(&order.base)?;
        if let Base::Named(_) | Base::Oci(_) = base {
            let (mut tries, mut looks) = (TRIES, Looks::default());
            loop {
                let (wanted, line) = (wanted(&base, order, life), |line: &str| journal.line(line));
                let (record, old) = match self.0.bases.recent(wanted, self.quiet(), line).await {
                    Err(full @ base::Error::NoRoom { .. }) => {
                        let line = |line: &str| journal.line(line);
                        tokio::select! {
                            waited = self.wait_for_room(&mut looks, full, line) => waited?,
                            reason = stop.asked() => return Err(Error::Stopped(reason)),
                        }
                        continue;
                    }
                    got => got?,
                };
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

    /// The layers of an image on a base, which stay until what comes with them is dropped: those that are there, and those
    /// that are yet to be made.
    pub(super) async fn steps(
        &self,
        order: &BakeOrder,
        base: Digest,
        life: Life,
    ) -> Result<(Vec<Step>, Vec<Held>), Error> {
        let index = self.index(&order.source).await?;
        // A sweep that goes on has chosen already: what is found now is there as long as it is held.
        let _together = self.together().await;
        let there = |key: &Digest| Ok(self.0.layers.get(key)?.is_some());
        let steps = index.steps(order, base, &downloads(order, life), there)?;
        let stay = steps.iter().map(|step| self.0.ground.hold(step.key)).collect();
        Ok((steps, stay))
    }

    /// The image that an order makes, if all of it is there.
    pub(super) async fn find_image(&self, order: &BakeOrder) -> Result<Option<Baked>, Error> {
        let started = Instant::now();
        let life = self.0.lives.of(&order.place)?;
        let Some(base) = self.find_base(order, life).await? else {
            return Ok(None);
        };
        let Some((base, _stays)) = self.stays(base, 1).await? else {
            return Ok(None);
        };
        let (steps, _stay) = self.steps(order, base.key, life).await?;
        if let Some(baked) = self.made_before(order, base.key, &steps, life, started).await? {
            return Ok(Some(baked));
        }
        let keys: Vec<Digest> = [base.key]
            .into_iter()
            .chain(steps.iter().map(|step| step.key))
            .collect();
        match self.has(&keys)? {
            true => self.baked(&keys, true, started).await.map(Some),
            false => Ok(None),
        }
    }

    /// The image that an order would make, where layers of its own are gone and it is known that the branch, or who it begins
    /// with, made it.
    pub(super) async fn made_before(
        &self,
        order: &BakeOrder,
        base: Digest,
        steps: &[Step],
        life: Life,
        started: Instant,
    ) -> Result<Option<Baked>, Error> {
        if self.has(steps.iter().map(|step| &step.key))? {
            return Ok(None);
        }
        let index = self.index(&order.source).await?;
        let _together = self.together().await;
        for name in downloads(order, life).names() {
            let alone = Downloads {
                own: name.to_owned(),
                below: Vec::new(),
            };
            let steps = index.steps(order, base, &alone, |_| Ok(false))?;
            let known = steps.last().map(|top| self.0.made.find(&top.key)).transpose()?;
            let Some(known) = known.flatten() else { continue };
            let Some(image) = self.0.images.get(&known.image)? else {
                continue;
            };
            if self.has(&image.layers)? {
                self.0.images.keep(&image.layers, crate::now())?;
                return Ok(Some(Baked {
                    image: known.image,
                    layers: known.layers,
                    reused: true,
                    duration_ms: since(started),
                    log: None,
                }));
            }
        }
        Ok(None)
    }

    fn has<'a>(&self, layers: impl IntoIterator<Item = &'a Digest>) -> Result<bool, layer::Error> {
        for key in layers {
            if self.0.layers.get(key)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn index(&self, source: &Digest) -> Result<Arc<Index>, Error> {
        const KEPT: usize = 8;
        let known = |sources: &Vec<(Digest, Arc<Index>)>| {
            sources
                .iter()
                .find(|(known, _)| known == source)
                .map(|(_, index)| Arc::clone(index))
        };
        if let Some(index) = known(&self.0.sources.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(index);
        }
        let (objects, digest) = (self.0.objects.clone(), *source);
        let index = tokio::task::spawn_blocking(move || Index::read(&objects, &digest))
            .await
            .map_err(|_| Error::Interrupted)??;
        let index = Arc::new(index);
        let mut sources = self.0.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.len() >= KEPT {
            sources.remove(0);
        }
        sources.push((*source, Arc::clone(&index)));
        Ok(index)
    }

    async fn find_base(&self, order: &BakeOrder, life: Life) -> Result<Option<Record>, Error> {
        let base = base::parse(&order.base)?;
        if let Base::Named(_) | Base::Oci(_) = base {
            return Ok(self.0.bases.find(wanted(&base, order, life))?);
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

fn wanted<'a>(base: &'a Base, order: &'a BakeOrder, life: Life) -> Wanted<'a> {
    // The platform's own are the same for everybody.
    let tenant = matches!(base, Base::Oci(_)).then_some(&order.place.tenant);
    Wanted {
        base,
        tenant,
        life: life.tenant,
        login: order.login.as_ref(),
    }
}
