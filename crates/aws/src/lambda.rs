//! A function of Lambda's own: the Runtime API of a custom runtime, spoken with the same HTTP as everything here.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

mod gateway;

use std::time::Duration;

use hyper::{Method, body::Bytes};
use serde_json::{Value, json};

use crate::client::http::{self, Call, Endpoint};

pub use gateway::{Request, Response};

/// Lambda freezes the function between two events: the answer to "what next" may take as long as it likes.
const NEXT: Duration = Duration::from_secs(24 * 3_600);
const TELL: Duration = Duration::from_secs(10);
const PATH: &str = "/2018-06-01/runtime";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} is not the address of a Runtime API")]
    Address(String),
    #[error("the Runtime API cannot be reached: {0}")]
    Unreachable(String),
    #[error("the Runtime API answers {0}")]
    Status(u16),
    #[error("an event came without its id")]
    NoId,
}

/// Lambda, as a function sees it.
pub struct Runtime {
    endpoint: Endpoint,
}

/// One call of the function.
pub struct Invocation {
    pub id: String,
    pub event: Bytes,
}

impl Runtime {
    /// `address`: what `AWS_LAMBDA_RUNTIME_API` says, host and port.
    pub fn new(address: &str) -> Result<Self, Error> {
        let endpoint = Endpoint::parse(&format!("http://{address}"));
        let endpoint = endpoint.filter(|endpoint| endpoint.prefix.is_empty());
        Ok(Self {
            endpoint: endpoint.ok_or_else(|| Error::Address(address.to_owned()))?,
        })
    }

    /// Waits for the next event.
    pub async fn next(&self) -> Result<Invocation, Error> {
        let call = Call {
            method: Method::GET,
            target: format!("{PATH}/invocation/next"),
            headers: Vec::new(),
            body: Bytes::new(),
        };
        let answer = self.exchange(call, NEXT).await?;
        let id = answer.headers.get("lambda-runtime-aws-request-id");
        let id = id.and_then(|id| id.to_str().ok()).filter(|id| is_id(id));
        Ok(Invocation {
            id: id.ok_or(Error::NoId)?.to_owned(),
            event: answer.body,
        })
    }

    /// What the event came to.
    pub async fn answer(&self, id: &str, answer: &Value) -> Result<(), Error> {
        self.tell(&format!("invocation/{id}/response"), answer).await
    }

    /// The event came to nothing; who called hears of it.
    pub async fn fail(&self, id: &str, kind: &str, why: &str) -> Result<(), Error> {
        self.tell(&format!("invocation/{id}/error"), &failure(kind, why))
            .await
    }

    /// The function cannot begin.
    pub async fn stillborn(&self, kind: &str, why: &str) -> Result<(), Error> {
        self.tell("init/error", &failure(kind, why)).await
    }

    async fn tell(&self, what: &str, body: &Value) -> Result<(), Error> {
        let call = Call {
            method: Method::POST,
            target: format!("{PATH}/{what}"),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.to_string().into(),
        };
        self.exchange(call, TELL).await.map(drop)
    }

    async fn exchange(&self, call: Call, patience: Duration) -> Result<http::Answer, Error> {
        let answer = http::exchange(&self.endpoint, call, patience).await;
        match answer.map_err(Error::Unreachable)? {
            answer if answer.status < 300 => Ok(answer),
            answer => Err(Error::Status(answer.status)),
        }
    }
}

/// It becomes part of a path.
fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn failure(kind: &str, why: &str) -> Value {
    json!({ "errorType": kind, "errorMessage": why, "stackTrace": [] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_ids_are_parts_of_paths() {
        assert!(Runtime::new("127.0.0.1:9001").is_ok());
        for bad in ["", "a b", "127.0.0.1:9001/x", "127.0.0.1?x"] {
            assert!(Runtime::new(bad).is_err(), "{bad}");
        }
        assert!(is_id("8476a536-e9f4-11e8-9739-2dfe598c3fcd"));
        for bad in ["", "../x", "a/b", "a b"] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
