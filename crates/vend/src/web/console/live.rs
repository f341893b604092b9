//! One way to answer for every page: whole to a browser that opens it, and its body again, each time that it has
//! changed, to the event stream of the open page.

use std::{convert::Infallible, future::ready, time::Duration};

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use maud::Markup;
use model::Digest;
use tokio::time::sleep;

use super::{door::Viewer, frame, seats::Seat};
use crate::web::{
    refusal::{Kind, Refusal},
    state::State,
};

/// How often an open page is looked at again.
const EVERY: Duration = Duration::from_millis(700);
/// Looks of one stream. A browser then asks again, and whoever may not look any more is told so.
const LOOKS: u32 = 80;

pub struct Page {
    pub title: String,
    pub body: Markup,
    /// Nothing on it will change any more.
    pub settled: bool,
}

/// What was asked for, by whom.
pub struct Ask {
    pub viewer: Viewer,
    stream: bool,
}

impl FromRequestParts<State> for Ask {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Response> {
        let accept = parts
            .headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok());
        Ok(Self {
            stream: accept.is_some_and(|accept| accept.starts_with("text/event-stream")),
            viewer: Viewer::from_request_parts(parts, state).await?,
        })
    }
}

struct Watch<F, P, T> {
    render: F,
    progress: P,
    /// What the page was made from, and what it was, when it was sent last.
    seen: Option<T>,
    sent: Option<Digest>,
    looks: u32,
    settled: bool,
    _seat: Option<Seat>,
}

/// The page as it is now, or the stream of what it becomes. It is made again when something was written.
pub async fn answer<F, R>(state: &State, ask: Ask, render: F) -> Result<Response, Refusal>
where
    F: Fn() -> R + Send + 'static,
    R: Future<Output = Result<Page, Refusal>> + Send + 'static,
{
    let commits = state.store.commits();
    answer_of(state, ask, move || ready(Ok(*commits.borrow())), render).await
}

/// The same of a page that is made only from what `progress` tells of: it is made again when that is another.
pub async fn answer_of<P, S, T, F, R>(
    state: &State,
    ask: Ask,
    progress: P,
    render: F,
) -> Result<Response, Refusal>
where
    P: Fn() -> S + Send + 'static,
    S: Future<Output = Result<T, Refusal>> + Send + 'static,
    T: PartialEq + Send + 'static,
    F: Fn() -> R + Send + 'static,
    R: Future<Output = Result<Page, Refusal>> + Send + 'static,
{
    if !ask.stream {
        let page = render().await?;
        let actor = &ask.viewer.0.0.actor;
        return Ok(frame::whole(&page.title, Some(actor), &page.body, !page.settled).into_response());
    }
    let seat = state.seats.take(&ask.viewer.0.0).ok_or_else(|| {
        Refusal::new(Kind::Unavailable, "too many pages are open").next("close some, or load the page again")
    })?;
    let watch = Watch {
        render,
        progress,
        seen: None,
        sent: None,
        looks: LOOKS,
        settled: false,
        _seat: Some(seat),
    };
    let events = stream::unfold(watch, |watch| next(watch));
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

/// Waits for the next change.
async fn next<P, S, T, F, R>(mut watch: Watch<F, P, T>) -> Option<(Result<Event, Infallible>, Watch<F, P, T>)>
where
    P: Fn() -> S,
    S: Future<Output = Result<T, Refusal>>,
    T: PartialEq,
    F: Fn() -> R,
    R: Future<Output = Result<Page, Refusal>>,
{
    if watch.settled {
        return None;
    }
    while watch.looks > 0 {
        watch.looks -= 1;
        // Before the page: what happens meanwhile makes it again.
        let now = Some((watch.progress)().await.ok()?);
        if now != watch.seen {
            let page = (watch.render)().await.ok()?;
            let body = page.body.into_string();
            let sent = Some(Digest::of(&body));
            watch.settled = page.settled;
            watch.seen = now;
            if sent != watch.sent || page.settled {
                let event = if page.settled { "last" } else { "body" };
                let event = Event::default().event(event).json_data(&body).ok()?;
                watch.sent = sent;
                return Some((Ok(event), watch));
            }
        }
        sleep(EVERY).await;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_page_is_made_again_only_when_something_happened() {
        let (looks, made) = (AtomicU32::new(0), AtomicU32::new(0));
        let progress = || {
            let look = looks.fetch_add(1, Ordering::Relaxed);
            ready(Ok(look / 2))
        };
        let render = || {
            let count = made.fetch_add(1, Ordering::Relaxed);
            ready(Ok(Page {
                title: String::new(),
                body: maud::html! { (count) },
                settled: false,
            }))
        };
        let mut watch = Watch {
            render,
            progress,
            seen: None,
            sent: None,
            looks: 4,
            settled: false,
            _seat: None,
        };
        let mut sent = 0;
        while let Some((_, after)) = next(watch).await {
            (watch, sent) = (after, sent + 1);
        }
        let counts = (looks.load(Ordering::Relaxed), made.load(Ordering::Relaxed));
        assert_eq!((counts, sent), ((4, 2), 2));
    }
}
