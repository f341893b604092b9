//! Images for whoever asks about them, and in and out as archives of an OCI layout, which are never held in memory.

use std::io::{self, Write};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, State},
    response::{IntoResponse as _, Response},
    routing::{post, put},
};
use camino::{Utf8Path, Utf8PathBuf};
use futures_util::TryStreamExt as _;
use model::{
    Digest,
    port::{BaseOrder, BaseSeen, BasesSeen, Fault, ImageAbout, ImageDiff, ImageExport, ImageUsage, Shelf},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::{
    Node,
    api::{Order, answer},
    broken, refuse,
};
use crate::{
    base::{self, Wanted},
    image::Packing,
    layer,
    oci::layout::Layout,
    tree::{self, Limits},
};

/// An archive of a layout: a few large files. An image that is as large as one may be fits into it unpacked, with the headers of
/// its tars.
const ARCHIVE: Limits = Limits {
    entries: 5_000,
    total_bytes: 20 << 30,
    file_bytes: 18 << 30,
};
const PIECE: usize = 1 << 18;
/// Bytes of an export's order: all that was signed about the image is in it.
const SIGNED: usize = 32 << 20;

/// Two images.
#[derive(Debug, Serialize, Deserialize)]
pub struct Comparing {
    pub before: Digest,
    pub after: Digest,
}

pub fn router() -> Router<Node> {
    Router::new()
        .route("/v1/images/describe", post(describe))
        .route("/v1/images/bill", post(bill))
        .route("/v1/images/compare", post(compare))
        .route("/v1/images/usage", post(usage))
        .route(
            "/v1/images/export/{digest}",
            post(export).layer(DefaultBodyLimit::max(SIGNED)),
        )
        .route(
            "/v1/images/import",
            put(import).layer(DefaultBodyLimit::disable()),
        )
        .route("/v1/bases/list", post(bases))
        .route("/v1/bases/refresh", post(refresh))
}

async fn describe(State(node): State<Node>, Order(image): Order<Digest>) -> Response {
    answer(Shelf::describe(&node, &image).await)
}

async fn bill(State(node): State<Node>, Order(image): Order<Digest>) -> Response {
    answer(node.about(&image).await.map(|(_, bill)| bill))
}

async fn compare(State(node): State<Node>, Order(sides): Order<Comparing>) -> Response {
    answer(Shelf::compare(&node, &sides.before, &sides.after).await)
}

async fn usage(State(node): State<Node>, Order(()): Order<()>) -> Response {
    answer(Shelf::usage(&node).await)
}

async fn bases(State(node): State<Node>, Order(()): Order<()>) -> Response {
    answer(Shelf::bases(&node).await)
}

async fn refresh(State(node): State<Node>, Order(order): Order<BaseOrder>) -> Response {
    // Not cut short when the caller goes away.
    let refreshed = tokio::spawn(async move { Shelf::refresh(&node, &order).await });
    answer(
        refreshed
            .await
            .unwrap_or_else(|_| Err(Fault::platform("looking at a base stopped half-way"))),
    )
}

impl Shelf for Node {
    async fn describe(&self, image: &Digest) -> Result<ImageAbout, Fault> {
        Ok(self.about(image).await?.0)
    }

    async fn compare(&self, before: &Digest, after: &Digest) -> Result<ImageDiff, Fault> {
        let (images, before, after) = (self.oven.images().clone(), *before, *after);
        let _one = one_at_a_time().await;
        let _read = self.oven.read([before, after]).await;
        blocking(move || images.compare(&before, &after).map_err(missing)).await
    }

    async fn bases(&self) -> Result<BasesSeen, Fault> {
        let oven = self.oven.clone();
        blocking(move || {
            let all = oven.bases().all()?;
            let mut seen = BasesSeen::default();
            for image in oven.images().list()? {
                if let Some(base) = image.layers.first() {
                    seen.images.insert(image.digest, oven.content(base)?);
                }
            }
            for known in all {
                // What a build of a deleted tenant was still getting is nothing to who has the name now.
                if let (Some(tenant), Some(life)) = (&known.tenant, known.life)
                    && life != oven.life(tenant)?
                {
                    continue;
                }
                seen.bases.push(BaseSeen {
                    base: known.base,
                    tenant: known.tenant,
                    key: known.key,
                    content: oven.content(&known.key)?,
                    checked_at: known.checked_at,
                });
            }
            Ok(seen)
        })
        .await
    }

    async fn refresh(&self, order: &BaseOrder) -> Result<bool, Fault> {
        let base = base::parse(&order.base)?;
        let wanted = Wanted {
            base: &base,
            tenant: order.tenant.as_ref(),
            life: match &order.tenant {
                Some(tenant) => self.oven.life(tenant)?,
                None => 0,
            },
            login: order.login.as_ref(),
        };
        let line = |line: &str| tracing::debug!(line, "a base is looked at");
        Ok(self
            .oven
            .bases()
            .refreshed(wanted, self.oven.quiet(), line)
            .await?)
    }

    async fn usage(&self) -> Result<ImageUsage, Fault> {
        let (oven, budget_bytes) = (self.oven.clone(), self.image_budget_bytes);
        blocking(move || {
            Ok(ImageUsage {
                bytes: oven.bytes()?,
                budget_bytes,
            })
        })
        .await
    }
}

impl Node {
    async fn about(&self, image: &Digest) -> Result<(ImageAbout, serde_json::Value), Fault> {
        let (oven, image) = (self.oven.clone(), *image);
        let _one = one_at_a_time().await;
        let _read = self.oven.read([image]).await;
        blocking(move || {
            let (mut about, bill) = oven.images().describe(&image).map_err(missing)?;
            let bases = oven.bases();
            if let Some(base) = about.layers.first() {
                about.stale = bases.is_stale(&base.key, &bases.all()?)?;
            }
            Ok((about, bill))
        })
        .await
    }
}

/// Looking through an image takes as much memory as who made it wants, up to its limits.
async fn one_at_a_time() -> Option<SemaphorePermit<'static>> {
    static TURN: Semaphore = Semaphore::const_new(1);
    TURN.acquire().await.ok()
}

fn missing(error: layer::Error) -> Fault {
    match error {
        layer::Error::Missing(digest) => {
            Fault::order(format!("there is no image {digest}")).next("vend images list")
        }
        error => error.into(),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Fault::platform("work on an image stopped half-way"))?
}

/// An image as a tar of an OCI layout.
async fn export(
    State(node): State<Node>,
    Path(image): Path<Digest>,
    Order(how): Order<ImageExport>,
) -> Response {
    let packing = match how.compression.as_str() {
        "gzip" => Packing::Gzip,
        "zstd" => Packing::Zstd,
        "none" => Packing::Plain,
        _ => return refuse(Fault::order("the compression is `gzip`, `zstd` or `none`")),
    };
    let read = node.oven.read([image]).await;
    let written = blocking(move || {
        let _read = read;
        let work = node.workspace()?;
        let root = directory(&work);
        node.oven
            .images()
            .export_of(&image, &root, packing, &how)
            .map_err(|error| match error {
                crate::oci::Error::Layer(error) => missing(error),
                error => error.into(),
            })?;
        Ok(work)
    });
    match written.await {
        Ok(work) => packed(work).into_response(),
        Err(fault) => refuse(fault),
    }
}

/// A directory as a tar. What breaks ends in an error, so that the receiver never takes it for the whole.
fn packed(work: tempfile::TempDir) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(4);
    tokio::task::spawn_blocking(move || {
        let mut to = io::BufWriter::with_capacity(PIECE, Pieces(&sender));
        let packed = tree::pack(&directory(&work), 0, &mut to);
        let flushed = packed.map_err(io::Error::other).and_then(|_| to.flush());
        if let Err(error) = flushed {
            let _ = sender.blocking_send(Err(error));
        }
    });
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    Body::from_stream(pieces)
}

struct Pieces<'a>(&'a mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len())
            .map_err(|_| io::Error::other("nobody reads it any more"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes in an image from a tar of an OCI layout.
async fn import(State(node): State<Node>, body: Body) -> Response {
    let stream = body.into_data_stream().map_err(io::Error::other);
    let reader = SyncIoBridge::new(StreamReader::new(stream));
    let (unpacking, oven) = (node.clone(), node.oven);
    // As slowly as it comes: it holds up nobody.
    let unpacked = blocking(move || {
        let work = unpacking.workspace()?;
        tree::unpack(reader, &directory(&work), &ARCHIVE)?;
        Ok(work)
    });
    let taken = async {
        let work = unpacked.await?;
        let together = oven.together().await;
        blocking(move || {
            let layout = Layout::open(&directory(&work))?;
            let image = oven.images().import(&layout, None)?;
            // Kept for itself from now on: what came with it holds up no sweep.
            let _read = oven.hold(image);
            drop(together);
            Ok(oven.images().told(&layout, None, &image))
        })
        .await
    };
    match taken.await {
        Ok(taken) => Json(taken).into_response(),
        Err(fault) => refuse(fault),
    }
}

impl Node {
    /// A directory for a while. What a node that was killed left is removed by the next.
    fn workspace(&self) -> Result<tempfile::TempDir, Fault> {
        let home = self.oven.workshop();
        tempfile::tempdir_in(&home).map_err(|error| broken(&error))
    }
}

fn directory(work: &tempfile::TempDir) -> Utf8PathBuf {
    Utf8Path::from_path(work.path())
        .expect("it is in a directory whose name is text")
        .to_owned()
}
