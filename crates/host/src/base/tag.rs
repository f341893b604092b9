//! What a tag of a registry is now. Builds ask each time, so it costs little and holds up nobody.

use jiff::{SignedDuration, Timestamp};
use model::{
    Digest,
    spec::{Base, Reference},
};
use serde::{Deserialize, Serialize};

use super::{Bases, Error, Known, Quiet, Ready, Wanted, blocking, flatten, slug};
use crate::{
    layer::Record,
    oci::{
        self,
        limits::Limits,
        registry::{LOOK, Login, Repository},
    },
};

/// What was asked within this time is not asked again for a bake.
const RECENT: SignedDuration = SignedDuration::from_hours(24);

/// Why nobody knows what a name means by now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Untold {
    /// Before it was asked.
    pub at: Timestamp,
    pub why: String,
}

impl Bases {
    /// The layer of a base as its name means it now: a registry is asked each time what a tag names. One that cannot be
    /// asked leaves what it gave before, and why it could not; one that does not give it any more is an error. Those who
    /// want one name at a time share one answer, also when there is none.
    pub(crate) async fn current(
        &self,
        wanted: Wanted<'_>,
        quiet: Quiet<'_>,
        mut progress: impl FnMut(&str) + Send,
    ) -> Result<(Record, Option<String>), Error> {
        let since = crate::now();
        let moves = matches!(wanted.base, Base::Oci(_)) && wanted.base.moves();
        if !moves || self.find(wanted)?.is_none() {
            return Ok((self.ensured(wanted, quiet, progress).await?, None));
        }
        let _held = self.lock(&slug(wanted), wanted.base, &mut progress).await?;
        let Some((known, before)) = self.here(wanted)? else {
            return Ok((self.make(wanted, quiet, progress).await?, None));
        };
        // Whoever was asked for while we waited was asked for us, too.
        if known.checked_at >= since {
            return Ok((before, None));
        }
        if let Some(untold) = known.untold.as_ref().filter(|untold| untold.at >= since) {
            return Ok((before, Some(untold.why.clone())));
        }
        let at = crate::now();
        match self.make(wanted, quiet, progress).await {
            Ok(record) => Ok((record, None)),
            Err(
                error @ Error::Oci(
                    oci::Error::Unreachable { .. } | oci::Error::Answer { .. } | oci::Error::Archive(_),
                ),
            ) => {
                let why = crate::logs::chain(&error);
                let untold = Some(Untold { at, why: why.clone() });
                self.know(wanted, &Known { untold, ..known })?;
                Ok((before, Some(why)))
            }
            Err(error) => Err(error),
        }
    }

    /// As `current`, where nobody asked what the name means in the last day, or somebody was told since that it means
    /// another: for bakes, whose images stay. What that other got is not given: the registry is asked who wants it now.
    pub(crate) async fn recent(
        &self,
        wanted: Wanted<'_>,
        quiet: Quiet<'_>,
        progress: impl FnMut(&str) + Send,
    ) -> Result<(Record, Option<String>), Error> {
        let old = match self.here(wanted)? {
            Some((known, _)) if known.checked_at + RECENT < crate::now() => true,
            Some((_, record)) => self.is_stale(&record.key, &self.all()?)?,
            None => false,
        };
        match old {
            true => self.current(wanted, quiet, progress).await,
            false => Ok((self.ensured(wanted, quiet, progress).await?, None)),
        }
    }

    /// An image of a registry, and what its name names: got only if that is not what is here.
    pub(super) async fn fetch(
        &self,
        wanted: Wanted<'_>,
        reference: &Reference,
    ) -> Result<(Ready, Digest), Error> {
        let login = wanted.login.map(Login::read);
        if let Some((known, record)) = self.here(wanted)?
            && let Some(named) = known.named
            && self.look(reference, login.clone()).await? == Some(named)
        {
            return Ok((Ready::Here(record.key), named));
        }
        let (this, reference, base) = (self.clone(), reference.clone(), wanted.base.clone());
        blocking(move || this.pull(&base, &reference, login)).await
    }

    /// What a tag names now. Not waited for longer than [`LOOK`]: a build has what it was before.
    async fn look(&self, reference: &Reference, login: Option<Login>) -> Result<Option<Digest>, Error> {
        let repository = Repository::look(reference, login, self.reach.clone());
        let tag = reference.wanted();
        let look = blocking(move || Ok(repository.named(&tag)?));
        tokio::time::timeout(LOOK, look).await.unwrap_or_else(|_| {
            let why = format!("it did not answer in {} seconds", LOOK.as_secs());
            Err(oci::Error::Unreachable {
                registry: reference.registry.clone(),
                why,
            }
            .into())
        })
    }

    /// An image of a registry as one layer: its own, one over the other. And what its name names.
    fn pull(
        &self,
        base: &Base,
        reference: &Reference,
        login: Option<Login>,
    ) -> Result<(Ready, Digest), Error> {
        let repository = Repository::open(reference, login, self.reach.clone(), false);
        let image = oci::find(&repository, &reference.wanted())?;
        // Two names of one image may part one day.
        let name = base.to_string();
        let key = Digest::of_parts([b"vend base oci 1", name.as_bytes(), image.digest.as_bytes()]);
        if self.layers.get(&key)?.is_none() {
            self.needs_room()?;
        }
        let ready = self.ready(base, key, image.digest, |files| {
            flatten(&repository, &image, files, Limits::IMAGE)
        })?;
        Ok((ready, image.named))
    }
}
