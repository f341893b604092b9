//! What a build leaves: artifacts and caches, and what one that failed leaves to who watches it.

use std::{collections::BTreeMap, fs::File, sync::Mutex};

use camino::{Utf8Path, Utf8PathBuf};
use model::{
    Digest, Ticket,
    port::{BuildOrder, Built, Fault, PhaseReport, TestReport},
};

use super::{
    Error, Restored, Yard,
    console::{Kept, Outcome},
    sandbox,
};
use crate::{
    layer::{copy::Deletions, io_error},
    ticket::Stop,
    tree,
};

/// So many caches with keys are kept of a branch.
const KEYS: usize = 5;

/// Of a build that failed after its runner came to its end.
#[derive(Debug)]
pub struct Left {
    pub phases: Vec<PhaseReport>,
    pub reports: Vec<TestReport>,
    /// A tar, where the build came to its artifacts.
    pub artifact: Option<Digest>,
    /// Tars of the secondary artifacts, by identifier.
    pub secondary: BTreeMap<String, Digest>,
}

/// Where it is put for who asks for it: a platform does not.
pub(super) type Shelf = Mutex<Option<Left>>;

/// Artifacts as objects.
pub(super) struct Objects {
    /// The one that becomes the revision, with its size and name.
    pub main: Option<(Digest, u64, Option<String>)>,
    pub secondary: BTreeMap<String, Digest>,
}

impl Yard {
    /// As [`Builder::build`](model::port::Builder::build), and says what a build that failed has left.
    pub async fn build_left(
        &self,
        ticket: &Ticket,
        order: &BuildOrder,
    ) -> (Result<Built, Fault>, Option<Left>) {
        let shelf = Shelf::default();
        let built = self.build_onto(ticket, order, Stop::never(), Some(&shelf)).await;
        let left = shelf
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        (built, left)
    }

    /// Puts what there is on the shelf. An artifact that was cut short is none.
    pub(super) async fn leave(&self, shelf: &Shelf, mut outcome: Outcome) {
        let (mut artifact, mut secondary) = (None, BTreeMap::new());
        for kept in std::mem::take(&mut outcome.artifacts) {
            let Ok((digest, _)) = self.keep(kept.path).await else {
                continue;
            };
            match kept.identifier {
                Some(identifier) => drop(secondary.insert(identifier, digest)),
                None => artifact = Some(digest),
            }
        }
        let left = Left {
            phases: outcome.phases,
            reports: outcome.reports,
            artifact,
            secondary,
        };
        *shelf.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(left);
    }

    pub(super) async fn objects(&self, artifacts: Vec<Kept>) -> Result<Objects, Error> {
        let mut objects = Objects {
            main: None,
            secondary: BTreeMap::new(),
        };
        for kept in artifacts {
            let (digest, size) = self.keep(kept.path).await?;
            match kept.identifier {
                Some(identifier) => drop(objects.secondary.insert(identifier, digest)),
                None => objects.main = Some((digest, size, kept.name)),
            }
        }
        Ok(objects)
    }

    /// Keeps the caches.
    pub(super) async fn harvest(
        &self,
        order: &BuildOrder,
        upper: &Utf8Path,
        uid_base: u32,
        restored: Restored,
    ) -> Result<(), Error> {
        let caches = self.0.oven.caches().clone();
        let downloads = sandbox::downloads_name(order);
        let keyed = sandbox::keyed(order, &order.commit.branch);
        let (kept, upper) = (sandbox::kept(order), upper.to_owned());
        tokio::task::spawn_blocking(move || {
            let directories = sandbox::DOWNLOADS.map(str::to_owned);
            caches.harvest(&downloads, &upper, &directories, uid_base, Deletions::Ignore)?;
            let Restored { own, names, .. } = restored;
            let Some(name) = names.save else {
                return Ok(());
            };
            if names.fixed && caches.lease(&name)?.is_some() {
                return Ok(());
            }
            caches.harvest_on(&name, own.as_ref(), &upper, &kept, uid_base, Deletions::Apply)?;
            drop(own);
            if names.fixed {
                caches.trim(&keyed, KEYS)
            } else {
                Ok(())
            }
        })
        .await
        .map_err(|_| Error::Interrupted)??;
        Ok(())
    }

    /// Checks the artifact's tar, which the customer's side wrote, and keeps it.
    async fn keep(&self, path: Utf8PathBuf) -> Result<(Digest, u64), Error> {
        let objects = self.0.objects.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let open = || File::open(&path).map_err(io_error("open", &path));
            tree::visit(open()?, &tree::Limits::SOURCE, |_, _| Ok(()))?;
            let file = open()?;
            let size = file.metadata().map_err(io_error("read", &path))?.len();
            Ok::<_, Error>((objects.keep(file, &path)?, size))
        });
        kept.await.map_err(|_| Error::Interrupted)?
    }
}
