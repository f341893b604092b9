//! Connections to targets of HTTP/2, which many requests share: none of them waits for what others do.

use h2::{RecvStream, server::SendResponse};
use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, Response, body::Bytes};
use model::route::TargetState;

use crate::{
    streams::{Doing, Target, client, request, send, table, text},
    world::{Edge, soon, until},
};

async fn edge(folder: &tempfile::TempDir, target: &Target) -> Edge {
    let edge = Edge::with(folder, edge::Limits::default(), 1);
    edge.apply(&table(&[target.address]).await).await;
    until("it is healthy", || async {
        let health = edge.client.health().await.unwrap();
        health.iter().all(|seen| seen.state == TargetState::Healthy)
    })
    .await;
    edge
}

/// More than a connection may have under way when nobody takes any of it: to a POST. Little to a GET.
fn large(request: Request<RecvStream>, mut answer: SendResponse<Bytes>) -> Doing {
    Box::pin(async move {
        let mut send = answer.send_response(Response::new(()), false).unwrap();
        let body = match *request.method() {
            Method::POST => Bytes::from(vec![b'x'; 8 << 20]),
            _ => "little".into(),
        };
        let _ = send.send_data(body, true);
        false
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_hold_up_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::that(large).await;
    let edge = edge(&folder, &target).await;
    let nothing = || Empty::new().boxed();
    let mut untaken = Vec::new();
    for _ in 0..8 {
        let mut h2 = client(&edge).await;
        untaken.push((send(&mut h2, request(Method::POST, nothing())).await, h2));
    }
    let mut h2 = client(&edge).await;
    let answer = send(&mut h2, request(Method::GET, nothing())).await;
    assert_eq!(text(answer).await, (200, "little".to_owned()));
    // Who was slow has all of it in the end.
    for (answer, _h2) in untaken {
        let body = soon("a body", answer.into_body().collect()).await.unwrap();
        assert_eq!(body.to_bytes().len(), 8 << 20);
    }
    assert_eq!(target.connections(), 1);
    edge.stop().await;
}

/// Says nothing before it is reset.
fn holds(_: Request<RecvStream>, mut answer: SendResponse<Bytes>) -> Doing {
    Box::pin(async move {
        let _ = std::future::poll_fn(|cx| answer.poll_reset(cx)).await;
        false
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_connection_has_another_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::that(holds).await;
    let edge = edge(&folder, &target).await;
    let mut open = Vec::new();
    let ask = async |open: &mut Vec<_>, number: usize| {
        let mut h2 = client(&edge).await;
        let request = request(Method::GET, Empty::new().boxed());
        let asked = tokio::spawn(async move { h2.send_request(request).await });
        until("it is there", || async { target.seen() == number }).await;
        open.push(asked);
    };
    for number in 1..=100 {
        ask(&mut open, number).await;
    }
    assert_eq!(target.connections(), 1);
    ask(&mut open, 101).await;
    assert_eq!(target.connections(), 2);
    // Where one has ended there is room again.
    open.remove(0).abort();
    until("it has ended", || async {
        let load = edge.client.load().await.unwrap();
        load.totals.open == 100
    })
    .await;
    ask(&mut open, 102).await;
    assert_eq!(target.connections(), 2);
    open.iter().for_each(tokio::task::JoinHandle::abort);
    edge.stop().await;
}
