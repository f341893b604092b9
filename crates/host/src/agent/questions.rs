//! What anybody in the host may ask of `systemctl`: how services are, never that they change.
//!
//! A socket of its own, because on root's every call is an order that is obeyed. Whoever connects may be hostile: what comes
//! in is small, ends soon, and gets no more than half of the agent's time, however often it is asked.

use std::{io, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    routing::post,
};
use tokio::{
    net::UnixListener,
    sync::Mutex,
    time::{Instant, sleep_until},
};

use super::{
    api::{ControlOrder, ControlOutcome},
    control,
    layout::Layout,
    server,
    services::Services,
};

/// Connections at one time; more wait.
const CONNECTIONS: usize = 16;

/// The longest that one of them lasts.
const LIMIT: Duration = Duration::from_secs(10);

/// Largest question, in bytes.
const BODY: usize = 16 << 10;

/// The most words of a question, the most bytes of each, and the most of them that are patterns: one of these may mean
/// every unit.
const WORDS: usize = 64;
const WORD: usize = 256;
const PATTERNS: usize = 4;

#[derive(Clone)]
struct Desk {
    services: Services,
    /// One question at a time, and not before this.
    next: Arc<Mutex<Instant>>,
}

/// A socket that everybody in the host can connect to.
pub fn listen(layout: &Layout) -> io::Result<UnixListener> {
    server::bind(&layout.questions(), 0o666)
}

/// Answers for ever.
pub async fn serve(listener: UnixListener, services: Services) {
    let next = Arc::new(Mutex::new(Instant::now()));
    let router = Router::new()
        .route("/v1/control", post(ask))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(Desk { services, next });
    server::accept(listener, router, CONNECTIONS, Some(LIMIT)).await;
}

async fn ask(State(desk): State<Desk>, Json(order): Json<ControlOrder>) -> Json<ControlOutcome> {
    let mut next = desk.next.lock().await;
    sleep_until(*next).await;
    let began = Instant::now();
    let outcome = answer(&desk.services, &order).await;
    // As long as it took: also of an asker who is gone by now.
    *next = Instant::now() + began.elapsed();
    Json(outcome)
}

async fn answer(services: &Services, order: &ControlOrder) -> ControlOutcome {
    let lists = [&order.units, &order.properties, &order.types, &order.states];
    let words = || lists.into_iter().flatten();
    let patterns = words().filter(|word| control::is_pattern(word)).count();
    if words().count() > WORDS || patterns > PATTERNS || words().any(|word| word.len() > WORD) {
        return refusal(1, "Argument list too long\n".to_owned());
    }
    match is_question(&order.verb) {
        true => control::look(services, order).await,
        false => denied(services, order),
    }
}

/// Environments are not among them: their values are root's to see.
pub fn is_question(verb: &str) -> bool {
    matches!(
        verb,
        "is-active"
            | "is-failed"
            | "is-enabled"
            | "is-system-running"
            | "status"
            | "show"
            | "cat"
            | "get-default"
            | "list-units"
            | "list-unit-files"
            | "list-timers"
            | "list-dependencies"
    )
}

/// In systemd's words, with its codes: 4 for what would start or stop something, else 1.
fn denied(services: &Services, order: &ControlOrder) -> ControlOutcome {
    let verb = &order.verb;
    let is_job = ["start", "stop", "restart", "reload"]
        .iter()
        .any(|ending| verb.ends_with(ending));
    match order.units.first().filter(|_| is_job) {
        Some(unit) => {
            let unit = services.full(unit);
            let hint = format!("See system logs and 'systemctl status {unit}' for details.");
            refusal(4, format!("Failed to {verb} {unit}: Access denied\n{hint}\n"))
        }
        None => refusal(1, format!("Failed to {verb}: Access denied\n")),
    }
}

fn refusal(code: u8, stderr: String) -> ControlOutcome {
    ControlOutcome {
        code,
        stdout: String::new(),
        stderr,
    }
}
