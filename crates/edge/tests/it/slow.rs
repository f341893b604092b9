//! Targets that read slowly.

use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use h2::{RecvStream, server::SendResponse};
use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response,
    body::{Bytes, Frame},
};

use crate::{
    streams::{Doing, Target, client, request, send, table, text},
    world::Edge,
};

/// Bytes of a body that its target reads slowly: what nobody may hold.
const LONG: u64 = 24 * 1024 * 1024;
/// How far ahead of the target its client may be: windows and buffers of both connections, of 1 MiB each or less.
const AHEAD: u64 = 8 * 1024 * 1024;

/// What has been sent of it, and read.
static SENT: AtomicU64 = AtomicU64::new(0);

/// The byte that stands there in the body: no part of it looks like another.
fn at(position: u64) -> u8 {
    (position / 251 + position * 7) as u8
}

/// Reads the request slowly, and says how much of it was as it should be.
fn slow(request: Request<RecvStream>, mut answer: SendResponse<Bytes>) -> Doing {
    Box::pin(async move {
        let mut body = request.into_body();
        let (mut read, mut ahead) = (0_u64, 0);
        while let Some(Ok(data)) = body.data().await {
            if !(read..).zip(&data).all(|(position, byte)| at(position) == *byte) {
                break;
            }
            read += data.len() as u64;
            let _ = body.flow_control().release_capacity(data.len());
            ahead = ahead.max(SENT.load(SeqCst).saturating_sub(read));
            // Whoever could send more does so meanwhile.
            if read % (256 * 1024) < data.len() as u64 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        let mut send = answer.send_response(Response::new(()), false).unwrap();
        let _ = send.send_data(format!("{read} {}", ahead <= AHEAD).into(), true);
        false
    })
}

/// A body of so many bytes, made as it is asked for.
struct Long;

impl hyper::body::Body for Long {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let sent = SENT.fetch_add(16 * 1024, SeqCst);
        let part: Bytes = (sent..sent + 16 * 1024).map(at).collect();
        std::task::Poll::Ready((sent < LONG).then(|| Ok(Frame::data(part))))
    }
}

/// Who sends waits for who reads: nothing is piled up between them, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_reads_slowly_holds_its_client_back() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Target::that(slow).await;
    let edge = Edge::with(&folder, edge::Limits::default(), 1);
    edge.apply(&table(&[slow.address]).await).await;
    let mut h2 = client(&edge).await;
    let answer = send(&mut h2, request(Method::POST, Long.boxed())).await;
    assert_eq!(text(answer).await, (200, format!("{LONG} true")));
    assert_eq!(slow.seen(), 1);
    edge.stop().await;
}
