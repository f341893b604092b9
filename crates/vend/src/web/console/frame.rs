//! What every page has around it, and how times and states are written.

use axum::{
    extract::Request,
    http::{HeaderValue, header},
    middleware::Next,
    response::{Html, IntoResponse, Response},
};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

use crate::web::refusal::Refusal;

/// Nothing from elsewhere, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub async fn guarded(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    // A refusal of a handler would be written again as JSON by the outermost layer.
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        response = trouble(&refusal, response.status());
    }
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn trouble(refusal: &Refusal, status: axum::http::StatusCode) -> Response {
    let body = html! {
        h1 { "This cannot be shown" }
        p { (refusal.detail) }
        @if let Some(next) = &refusal.next { p { "Next: " code { (next) } } }
        p { a href="/console/" { "Back to the overview" } }
    };
    (status, whole("Trouble", None, &body, false)).into_response()
}

/// A whole document. `live`: the script keeps its body up to date.
pub fn whole(title: &str, actor: Option<&str>, body: &Markup, live: bool) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Vend" }
                link rel="stylesheet" href="/console/console.css";
                script src="/console/console.js" defer {}
            }
            body {
                a.skip href="#main" { "To the content" }
                header {
                    nav aria-label="Pages" {
                        a.brand href="/console/" { "Vend" }
                        a href="/console/" { "Environments" }
                        a href="/console/machines" { "State machines" }
                    }
                    @if let Some(actor) = actor {
                        form method="post" action="/console/sign-out" {
                            span { (actor) } " " button type="submit" { "Sign out" }
                        }
                    }
                }
                main #main data-live[live] { (body) }
            }
        }
    };
    Html(page.into_string())
}

/// To the second, UTC.
pub fn at(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The same where there is little room: it is not broken in two.
pub fn cell(time: Timestamp) -> Markup {
    html! { time { (at(time)) } }
}

/// From one time to another: `3.2 s`, `4 min 10 s`, `2 h 5 min`.
pub fn took(from: Timestamp, to: Option<Timestamp>) -> String {
    let Some(to) = to else { return String::new() };
    let milliseconds = to.duration_since(from).as_millis().max(0);
    let seconds = milliseconds / 1000;
    match seconds {
        0..60 => format!("{seconds}.{} s", milliseconds % 1000 / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A state in its word and its colour.
pub fn state(word: &str) -> Markup {
    let class = match word.to_ascii_lowercase().as_str() {
        "succeeded" | "live" | "done" => "good",
        "failed" | "timed-out" | "timed_out" => "bad",
        "running" | "destroying" => "busy",
        _ => "plain",
    };
    html! { span.{ "state " (class) } { (word.to_ascii_lowercase().replace('_', "-")) } }
}

/// A word of the wire, as JSON writes it.
pub fn word(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// A table, or one sentence when there is nothing to put into it.
pub fn table(heads: &[&str], rows: Vec<Markup>, nothing: &str) -> Markup {
    if rows.is_empty() {
        return html! { p.faint { (nothing) } };
    }
    html! {
        div.scroll {
            table {
                thead { tr { @for head in heads { th scope="col" { (head) } } } }
                tbody { @for row in rows { tr { (row) } } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let from = Timestamp::UNIX_EPOCH;
        let after = |milliseconds| Some(Timestamp::from_millisecond(milliseconds).unwrap());
        for (milliseconds, text) in [
            (0, "0.0 s"),
            (3_210, "3.2 s"),
            (250_000, "4 min 10 s"),
            (7_500_000, "2 h 5 min"),
        ] {
            assert_eq!(took(from, after(milliseconds)), text);
        }
        assert_eq!(took(from, None), "");
    }

    #[test]
    fn what_people_wrote_is_escaped() {
        let page = whole("<t>", Some("a&b"), &html! { (state("<x>")) }, true).0;
        assert!(
            page.contains("&lt;t&gt;") && page.contains("a&amp;b") && page.contains("&lt;x&gt;"),
            "{page}"
        );
    }
}
