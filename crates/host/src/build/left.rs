//! What a build leaves: artifacts, and what one that failed leaves to who watches it.

use std::{collections::BTreeMap, fs::File, sync::Mutex};

use camino::Utf8PathBuf;
use model::{
    Digest, Ticket,
    port::{BuildOrder, Built, Fault, PhaseReport, TestReport},
};

use super::{
    Error, Yard,
    console::{Broken, Kept, Outcome},
};
use crate::{layer::io_error, ticket::Stop, tree};

/// Of a build that failed, as far as it came.
#[derive(Debug, Clone, Default)]
pub struct Left {
    pub phases: Vec<PhaseReport>,
    /// Where it broke, if a command did.
    pub broken: Option<Broken>,
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
        let left = built.as_ref().err().map(|fault| Left {
            phases: fault.phases.clone(),
            ..left.unwrap_or_default()
        });
        (built, left)
    }

    /// Puts what there is on the shelf. An artifact that was cut short is none.
    pub(super) async fn leave(&self, shelf: &Shelf, mut outcome: Outcome) {
        if outcome.succeeded.is_none() {
            outcome.artifacts.clear();
        }
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
            // Known when it has ended.
            phases: Vec::new(),
            broken: outcome.broken,
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
