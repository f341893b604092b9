//! The control side, on a Unix socket: tables come in, health and numbers go out.
//!
//! | method and path | answer |
//! |---|---|
//! | `PUT /v1/lines` | a whole table in [`lines`]: 200 [`InForce`], 422 [`Invalid`], 409 the same when stale, 500 [`Refusal`] |
//! | `PUT /v1/table` | the same for a [`Table`] as one value, which takes much more memory |
//! | `PATCH /v1/table` | the same for a [`model::route::Delta`] |
//! | `GET /v1/table` | 200 [`InForce`] |
//! | `GET /v1/lines` | 200, the table in force in [`lines`] |
//! | `GET /v1/routes` | 200, the same as one [`Table`] |
//! | `POST /v1/explain` | 200 [`crate::Explanation`] of a [`crate::Question`] |
//! | `GET /v1/health` | 200, a list of [`model::route::TargetHealth`] |
//! | `GET /v1/stats` | 200, a list of [`crate::GroupStats`] |
//! | `GET /v1/load` | 200 [`crate::Load`] |
//! | `GET /v1/certificates` | 200, a list of [`crate::CertificateSeen`] |
//! | `POST /v1/access` | 200 [`crate::AccessLines`], for a [`crate::AccessNewest`] |
//! | `PUT /v1/vault` | 200, a list of [`crate::Useless`], for a [`crate::Given`] |
//! | `GET /v1/names` | 200, a list of [`crate::NameSeen`] |
//! | `GET /v1/sockets` | 200, a list of [`crate::OwnSeen`] |
//! | `GET /v1/wanted` | 200, a list of the places whose hosts are asleep and wanted; waits until there is one, 20 s at most |
//! | `GET /metrics` | 200, Prometheus text |

use std::{convert::Infallible, sync::Arc, time::Duration};

use camino::Utf8PathBuf;
use http_body_util::{BodyExt, Either, Full, Limited, channel::Channel};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use model::route::{Invalid, Table};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    Load,
    access::{self, Newest},
    book::{self, Book},
    clock, dns,
    draft::Draft,
    explain::{Question, explain},
    lines::{self, Bad},
    live::{Change, Error, Shared, Wish},
    table::Rule,
    tls::Certificates,
    vault::{Given, Vault},
};

/// Bytes of a table: 100,000 hosts have room.
const TABLE: usize = 128 * 1024 * 1024;
/// Bytes of a question.
const QUESTION: usize = 64 * 1024;
/// How long who asks for what is wanted is kept: shorter than they wait.
const WANTED: Duration = Duration::from_secs(20);
/// Callers at the same time.
const CALLERS: usize = 64;

/// The table in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    pub version: u64,
    /// Whole tables may come in lines.
    #[serde(default)]
    pub lines: bool,
}

/// Why an order was not followed, where no [`Invalid`] says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub message: String,
}

/// An answer: at once, or in lines.
type Said = Either<Full<Bytes>, Channel<Bytes>>;

/// What the admin socket hands on.
#[derive(Clone)]
pub struct Admin {
    pub shared: Arc<Shared>,
    pub changes: mpsc::Sender<Change>,
    /// One for each folder of them.
    pub certificates: Vec<Arc<Certificates>>,
    pub vault: Arc<Vault>,
    /// Where the access log's short lines are: those that can be read again.
    pub log: Option<Utf8PathBuf>,
}

impl Admin {
    /// Answers until it is dropped.
    pub async fn run(self, listener: UnixListener) {
        let mut callers = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if callers.len() < CALLERS => match accepted {
                    Ok((stream, _)) => {
                        let admin = self.clone();
                        callers.spawn(async move {
                            let service = service_fn(move |request| admin.clone().answer(request));
                            // What a caller breaks off is its own affair.
                            let _ = http1::Builder::new()
                                .timer(hyper_util::rt::TokioTimer::new())
                                .serve_connection(TokioIo::new(stream), service)
                                .await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept callers at the admin socket");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = callers.join_next() => {}
            }
        }
    }

    /// Gives numbers away until it is dropped.
    pub async fn run_metrics(self, listener: std::net::TcpListener) {
        let listener = listener
            .set_nonblocking(true)
            .and_then(|()| tokio::net::TcpListener::from_std(listener));
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "cannot listen for who wants numbers"),
        };
        let mut callers = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if callers.len() < CALLERS => {
                    let Ok((stream, _)) = accepted else {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    };
                    let shared = Arc::clone(&self.shared);
                    let service = service_fn(move |request: Request<Incoming>| {
                        let known = request.method() == Method::GET && request.uri().path() == "/metrics";
                        let answer = match known {
                            true => metrics(&shared),
                            false => refusal(StatusCode::NOT_FOUND, "there is only GET /metrics"),
                        };
                        std::future::ready(Ok::<_, Infallible>(answer))
                    });
                    let mut server = http1::Builder::new();
                    server.timer(hyper_util::rt::TokioTimer::new());
                    callers.spawn(async move {
                        let _ = server.serve_connection(TokioIo::new(stream), service).await;
                    });
                }
                Some(_) = callers.join_next() => {}
            }
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Said>, Infallible> {
        if (request.method(), request.uri().path()) == (&Method::GET, "/v1/lines") {
            return Ok(Response::new(Either::Right(self.lines())));
        }
        Ok(self.say(request).await.map(Either::Left))
    }

    /// The table in force, written as fast as it is read.
    fn lines(&self) -> Channel<Bytes> {
        let (version, groups, rules) = {
            let book = self.shared.book();
            (book.version, book.groups(), book.rules())
        };
        let (mut sender, body) = Channel::new(1);
        tokio::spawn(async move {
            let groups = groups
                .iter()
                .map(|group| (group.name().to_owned(), group.source()));
            for line in lines::table(version, groups, rules.iter().map(Rule::source)) {
                let line = line.expect("a table has only text keys");
                if sender.send_data(line.into()).await.is_err() {
                    return;
                }
            }
        });
        body
    }

    async fn say(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let live = self.shared.live.load_full();
        match (request.method(), request.uri().path()) {
            (&Method::PUT, "/v1/lines") => self.replace(request.into_body()).await,
            (&Method::PUT, "/v1/table") => {
                let whole = |table: Table| {
                    let book = Book::of(&table.into())?;
                    Ok(Wish::Table(Box::new(book)))
                };
                self.change(request.into_body(), whole).await
            }
            (&Method::PATCH, "/v1/table") => {
                self.change(request.into_body(), |delta| Ok(Wish::Delta(delta)))
                    .await
            }
            (&Method::GET, "/v1/routes") => {
                let table = self.shared.book().source();
                json(StatusCode::OK, &table)
            }
            (&Method::GET, "/v1/table") => json(
                StatusCode::OK,
                &InForce {
                    version: live.version,
                    lines: true,
                },
            ),
            (&Method::GET, "/v1/health") => {
                let (groups, leaving) = {
                    let book = self.shared.book();
                    (book.groups(), book.leaving(clock::ticks()))
                };
                json(StatusCode::OK, &book::health(&groups, &leaving))
            }
            (&Method::GET, "/v1/stats") => {
                let groups = self.shared.book().groups();
                json(StatusCode::OK, &book::stats(&groups))
            }
            (&Method::GET, "/v1/load") => json(StatusCode::OK, &Load::of(&self.shared)),
            (&Method::POST, "/v1/explain") => self.explain(request.into_body()).await,
            (&Method::GET, "/v1/certificates") => {
                let mut seen: Vec<_> = self.certificates.iter().flat_map(|held| held.seen()).collect();
                seen.extend(self.vault.seen());
                json(StatusCode::OK, &seen)
            }
            (&Method::POST, "/v1/access") => self.access(request.into_body()).await,
            (&Method::PUT, "/v1/vault") => self.keep(request.into_body()).await,
            (&Method::GET, "/v1/names") => json(StatusCode::OK, &dns::seen(&self.shared, clock::ticks())),
            (&Method::GET, "/v1/sockets") => json(StatusCode::OK, &self.shared.own.seen()),
            (&Method::GET, "/v1/wanted") => {
                json(StatusCode::OK, &self.shared.wanted.places_within(WANTED).await)
            }
            (&Method::GET, "/metrics") => metrics(&self.shared),
            _ => refusal(StatusCode::NOT_FOUND, "there is no such operation"),
        }
    }

    async fn explain(&self, body: Incoming) -> Response<Full<Bytes>> {
        let bytes = Limited::new(body, QUESTION)
            .collect()
            .await
            .map(|body| body.to_bytes());
        let question = bytes
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Question>(&bytes).ok());
        match question.map(|question| explain(&self.shared, &question)) {
            Some(Ok(explanation)) => json(StatusCode::OK, &explanation),
            Some(Err(why)) => refusal(StatusCode::BAD_REQUEST, why),
            None => refusal(StatusCode::BAD_REQUEST, "this is not a question"),
        }
    }

    async fn access(&self, body: Incoming) -> Response<Full<Bytes>> {
        let bytes = Limited::new(body, QUESTION)
            .collect()
            .await
            .map(|body| body.to_bytes());
        let Some(wanted) = bytes
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Newest>(&bytes).ok())
        else {
            return refusal(StatusCode::BAD_REQUEST, "this is not a question");
        };
        let Some(log) = self.log.clone() else {
            return refusal(StatusCode::NOT_FOUND, "there is no access log with short lines");
        };
        match tokio::task::spawn_blocking(move || access::newest(&log, &wanted)).await {
            Ok(Ok(lines)) => json(StatusCode::OK, &lines),
            Ok(Err(error)) => refusal(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the access log cannot be read: {error}"),
            ),
            Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the edge is shutting down"),
        }
    }

    async fn keep(&self, body: Incoming) -> Response<Full<Bytes>> {
        let bytes = Limited::new(body, TABLE)
            .collect()
            .await
            .map(|body| body.to_bytes());
        // What is wrong with it is not said: it would repeat a part of a secret.
        let given = bytes
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Given>(&bytes).ok());
        let Some(given) = given else {
            return refusal(StatusCode::BAD_REQUEST, "this is not what can be held");
        };
        let vault = Arc::clone(&self.vault);
        match tokio::task::spawn_blocking(move || vault.keep(&given)).await {
            Ok(Ok(useless)) => json(StatusCode::OK, &useless),
            Ok(Err(error)) => {
                let message = format!("the vault cannot be written: {error}");
                tracing::error!(message);
                refusal(StatusCode::INTERNAL_SERVER_ERROR, message)
            }
            Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the edge is shutting down"),
        }
    }

    async fn change<T: DeserializeOwned>(
        &self,
        body: Incoming,
        wish: fn(T) -> Result<Wish, Invalid>,
    ) -> Response<Full<Bytes>> {
        let bytes = match Limited::new(body, TABLE).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return refusal(StatusCode::BAD_REQUEST, format!("cannot read the table: {error}")),
        };
        let wanted = match serde_json::from_slice(&bytes) {
            Ok(wanted) => wanted,
            Err(error) => return refusal(StatusCode::BAD_REQUEST, format!("this is not a table: {error}")),
        };
        drop(bytes);
        match wish(wanted) {
            Ok(wish) => self.put(wish).await,
            Err(invalid) => json(StatusCode::UNPROCESSABLE_ENTITY, &invalid),
        }
    }

    async fn replace(&self, body: Incoming) -> Response<Full<Bytes>> {
        let (mut body, mut draft, mut read) = (Limited::new(body, TABLE), Draft::default(), Ok(()));
        while let Some(frame) = body.frame().await {
            match frame.map(|frame| frame.into_data()) {
                Ok(Ok(bytes)) if read.is_ok() => read = draft.take(&bytes),
                // What comes after something bad is passed over, so that whoever sends it hears what it is.
                Ok(_) => {}
                Err(error) => {
                    return refusal(StatusCode::BAD_REQUEST, format!("cannot read the table: {error}"));
                }
            }
        }
        match read.and_then(|()| draft.end()) {
            Ok(book) => self.put(Wish::Table(Box::new(book))).await,
            Err(Bad::Invalid(_, invalid)) => json(StatusCode::UNPROCESSABLE_ENTITY, &invalid),
            Err(Bad::Line(line)) => refusal(
                StatusCode::BAD_REQUEST,
                format!("line {line} is not one of a table as it was written"),
            ),
            Err(Bad::Read(error)) => {
                refusal(StatusCode::BAD_REQUEST, format!("cannot read the table: {error}"))
            }
        }
    }

    async fn put(&self, wish: Wish) -> Response<Full<Bytes>> {
        let (done, answer) = oneshot::channel();
        let sent = self.changes.send(Change { wish, done }).await.is_ok();
        let answer = match sent {
            true => answer.await.unwrap_or(Err(Error::Closing)),
            false => Err(Error::Closing),
        };
        match answer {
            Ok(version) => json(StatusCode::OK, &InForce { version, lines: true }),
            Err(Error::Invalid(invalid @ Invalid::Stale { .. })) => json(StatusCode::CONFLICT, &invalid),
            Err(Error::Invalid(invalid)) => json(StatusCode::UNPROCESSABLE_ENTITY, &invalid),
            Err(error @ Error::Closing) => refusal(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            Err(error @ (Error::Snapshot(_) | Error::Sync(_))) => {
                let cause = std::error::Error::source(&error)
                    .map(ToString::to_string)
                    .unwrap_or_default();
                tracing::error!(cause, "cannot write the snapshot");
                let message = format!("{error}: {cause}");
                refusal(StatusCode::INTERNAL_SERVER_ERROR, message)
            }
        }
    }
}

fn metrics(shared: &Shared) -> Response<Full<Bytes>> {
    let mut out = String::new();
    shared.totals.write(&mut out);
    shared.failures.write(&mut out);
    shared.names.write(&mut out);
    shared.datagrams.write(&mut out);
    shared.wanted.write(&mut out);
    shared.own.write(&mut out);
    let held = shared.book().groups();
    let escape = |name: &str| {
        name.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
    };
    let groups: Vec<_> = held
        .iter()
        .map(|group| (escape(group.name()), group.counted()))
        .collect();
    crate::metrics::write(&mut out, &groups);
    let (rules, leaving) = {
        let book = shared.book();
        (book.rules(), book.leaving(clock::ticks()))
    };
    crate::metrics::write_table(&mut out, &rules, &held, &leaving, escape);
    let mut response = Response::new(Full::from(out));
    let text = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(value).expect("answers have only text keys");
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn refusal(status: StatusCode, message: impl Into<String>) -> Response<Full<Bytes>> {
    json(
        status,
        &Refusal {
            message: message.into(),
        },
    )
}
