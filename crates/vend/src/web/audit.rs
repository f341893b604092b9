//! The ledger, for auditors.

use std::io::{self, Write};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State as Held,
    http::header,
    response::{IntoResponse, Response},
};
use model::{
    ledger::{Checkpoint, Line},
    policy::Action,
    wire::{Page, PublicKey},
};
use store::LedgerFilter;
use tokio::sync::mpsc;

use super::{
    auth::Caller,
    input::Query,
    refusal::{Refusal, chain},
    scope::{Scope, numbered},
    state::State,
};

/// Of one piece of an export.
const PIECE: usize = 64 * 1024;

/// The whole chain as one JSON value a line, with a checkpoint at its end.
#[utoipa::path(get, path = "/v1/audit/export", operation_id = "audit.export", tag = "audit",
    responses((status = 200, body = String, content_type = "application/x-ndjson"), Refusal))]
pub async fn export(Held(state): Held<State>, caller: Caller) -> Result<Response, Refusal> {
    caller.may(Action::Audit, None, "ledger")?;
    let (send, mut receive) = mpsc::channel::<io::Result<Bytes>>(4);
    let now = state.now();
    let store = state.store.clone();
    state.tasks.spawn(async move {
        let last = send.clone();
        let written = store
            .read(move |db| {
                let mut out = Pieces {
                    buffer: Vec::with_capacity(PIECE),
                    send,
                };
                db.export_ledger(&mut out, now)?;
                out.flush().map_err(store::Error::Export)
            })
            .await;
        if let Err(error) = written {
            tracing::warn!(error = chain(&error), "an export of the ledger broke off");
            // The reader must see that it is not whole.
            let _ = last.send(Err(io::Error::other("the export broke off"))).await;
        }
    });
    let pieces = futures_util::stream::poll_fn(move |context| receive.poll_recv(context));
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(pieces)).into_response())
}

/// Sends what is written in pieces, as fast as the reader takes them. Used on a thread of its own.
struct Pieces {
    buffer: Vec<u8>,
    send: mpsc::Sender<io::Result<Bytes>>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.buffer);
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.send.blocking_send(Ok(piece.into())).map_err(gone)
    }
}

/// Lines of the ledger, newest first.
#[utoipa::path(get, path = "/v1/audit", operation_id = "audit.list", tag = "audit", params(Scope),
    responses((status = 200, body = Page<Line>), Refusal))]
pub async fn list(
    Held(state): Held<State>,
    caller: Caller,
    Query(scope): Query<Scope>,
) -> Result<Json<Page<Line>>, Refusal> {
    let mut scope = scope;
    if scope.tenant.is_none() {
        scope.tenant.clone_from(&caller.0.tenant);
    }
    caller.may(Action::Audit, scope.tenant.as_ref(), "tenant")?;
    let object = match (&scope.tenant, &scope.app, &scope.environment) {
        (Some(tenant), Some(app), Some(environment)) => Some(format!("{tenant}/{app}/{environment}")),
        (Some(tenant), Some(app), None) => Some(format!("{tenant}/{app}")),
        _ => None,
    };
    let limit = scope.limit();
    let filter = LedgerFilter {
        before: scope.before()?,
        tenant: scope.tenant,
        object,
        own: caller.0.tenant.is_some(),
        limit,
    };
    let lines = state.store.read(move |db| db.ledger(&filter)).await?;
    Ok(Json(numbered(lines, limit, |line| line.number, |line| line)))
}

/// Signs the chain as it is now.
#[utoipa::path(post, path = "/v1/audit/checkpoint", operation_id = "audit.checkpoint", tag = "audit",
    responses((status = 200, body = Checkpoint), Refusal))]
pub async fn checkpoint(Held(state): Held<State>, caller: Caller) -> Result<Json<Checkpoint>, Refusal> {
    caller.may(Action::Audit, None, "ledger")?;
    let now = state.now();
    let made = state
        .store
        .write(move |tx| match tx.checkpoint(now)? {
            Some(made) => Ok::<_, store::Error>(Some(made)),
            None => Ok(tx.checkpoints(1)?.pop()),
        })
        .await?;
    let made = made.ok_or_else(|| Refusal::conflict("the ledger has no line yet"))?;
    Ok(Json(made))
}

/// What checkpoints are verified with.
#[utoipa::path(get, path = "/v1/audit/public-key", operation_id = "audit.public-key", tag = "audit",
    responses((status = 200, body = PublicKey), Refusal))]
pub async fn public_key(Held(state): Held<State>, caller: Caller) -> Result<Json<PublicKey>, Refusal> {
    let own = caller.0.tenant.clone();
    caller.may(Action::View, own.as_ref(), "ledger")?;
    let key = state
        .store
        .read(|db| Ok::<_, store::Error>(db.ledger_key()))
        .await?;
    Ok(Json(PublicKey { key: key.to_string() }))
}
