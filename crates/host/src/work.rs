//! A directory to work in and a container, which go away together: whatever happens, also when nobody waits any more.

use camino::{Utf8Path, Utf8PathBuf};
use tracing::warn;

use crate::{
    container::{self, Containers},
    layer::{self, io_error, remove_tree},
};

/// One piece of work. Dropped before it is closed, it is cleared away in the background.
#[derive(Debug)]
pub(crate) struct Work {
    containers: Containers,
    id: String,
    directory: Utf8PathBuf,
    open: bool,
}

impl Work {
    /// An empty directory `<home>/<id>`. What an interrupted piece of work of the same name left is removed.
    pub async fn open(containers: &Containers, home: &Utf8Path, id: String) -> Result<Self, Error> {
        let work = Self {
            directory: home.join(&id),
            containers: containers.clone(),
            id,
            open: true,
        };
        work.clear().await?;
        std::fs::create_dir_all(&work.directory).map_err(io_error("create", &work.directory))?;
        Ok(work)
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn directory(&self) -> &Utf8Path {
        &self.directory
    }

    pub async fn close(mut self) -> Result<(), Error> {
        self.open = false;
        self.clear().await
    }

    async fn clear(&self) -> Result<(), Error> {
        self.containers.delete(&self.id).await?;
        Ok(remove_tree(&self.directory)?)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.open {
            let (containers, id) = (self.containers.clone(), self.id.clone());
            let rest = Self {
                containers,
                id,
                directory: self.directory.clone(),
                open: false,
            };
            // Owned by itself: it ends when the container is gone.
            runtime.spawn(async move {
                if let Err(error) = rest.clear().await {
                    warn!(
                        container = rest.id,
                        error = crate::logs::chain(&error),
                        "what interrupted work left stays"
                    );
                }
            });
        }
    }
}

/// Removes what works of a node that was killed left behind. To be called before any is opened.
pub(crate) fn clean(home: &Utf8Path) -> Result<(), layer::Error> {
    remove_tree(home)?;
    std::fs::create_dir_all(home).map_err(io_error("create", home))
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Container(#[from] container::Error),
    #[error(transparent)]
    Layer(#[from] layer::Error),
}
