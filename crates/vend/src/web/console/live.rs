//! One way to answer for every page: whole to a browser that opens it, and its body again, each time that it has
//! changed, to the event stream of the open page.

use std::{convert::Infallible, sync::Arc, time::Duration};

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
use tokio::{sync::OwnedSemaphorePermit, time::sleep};

use super::{door::Viewer, frame};
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

struct Watch<F> {
    render: F,
    sent: String,
    looks: u32,
    settled: bool,
    _permit: OwnedSemaphorePermit,
}

/// The page as it is now, or the stream of what it becomes.
pub async fn answer<F, R>(state: &State, ask: Ask, render: F) -> Result<Response, Refusal>
where
    F: Fn() -> R + Send + 'static,
    R: Future<Output = Result<Page, Refusal>> + Send + 'static,
{
    if !ask.stream {
        let page = render().await?;
        let actor = &ask.viewer.0.0.actor;
        return Ok(frame::whole(&page.title, Some(actor), &page.body, !page.settled).into_response());
    }
    let permit = Arc::clone(&state.viewers).try_acquire_owned().map_err(|_| {
        Refusal::new(Kind::Unavailable, "too many pages are open").next("close some, or load the page again")
    })?;
    let watch = Watch {
        render,
        sent: String::new(),
        looks: LOOKS,
        settled: false,
        _permit: permit,
    };
    let events = stream::unfold(watch, |watch| next(watch));
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

/// Waits for the next change.
async fn next<F, R>(mut watch: Watch<F>) -> Option<(Result<Event, Infallible>, Watch<F>)>
where
    F: Fn() -> R,
    R: Future<Output = Result<Page, Refusal>>,
{
    if watch.settled {
        return None;
    }
    while watch.looks > 0 {
        watch.looks -= 1;
        let page = (watch.render)().await.ok()?;
        let body = page.body.into_string();
        watch.settled = page.settled;
        if body != watch.sent || page.settled {
            let event = if page.settled { "last" } else { "body" };
            let event = Event::default().event(event).json_data(&body).ok()?;
            watch.sent = body;
            return Some((Ok(event), watch));
        }
        sleep(EVERY).await;
    }
    None
}
