//! What runs on AWS, and what people do with it: releases, their questions, hosts, secrets, logs, the way back.
//!
//! Nothing of it needs a platform: a release is an execution of the environment's flow, and what it left is in the
//! parameters of the environment's stack. So whatever is asked here is asked of AWS, and nothing is kept.

pub mod data;
pub mod fleet;
pub mod frost;
pub mod half;
pub mod log;
pub mod release;
pub mod rule;
pub mod slot;
#[cfg(test)]
mod tests;
pub mod turn;
pub mod vault;

use serde_json::Value;

use crate::{
    call::Call,
    client::{Client, Error},
};

/// Pages of a list of JSON are read to their end, or to so many items.
pub(crate) async fn pages(
    client: &Client,
    call: &Call,
    ask: &Value,
    list: &str,
    most: usize,
    next: &str,
) -> Result<Vec<Value>, Error> {
    let mut ask = ask.clone();
    let mut all = Vec::new();
    loop {
        let mut page = client.json(call, ask.clone()).await?;
        if let Value::Array(items) = page[list].take() {
            all.extend(items);
        }
        let token = page[next].take();
        if token.is_null() || all.len() >= most {
            all.truncate(most);
            return Ok(all);
        }
        ask[next] = token;
    }
}

/// A text of an answer; empty where there is none.
fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_default().to_owned()
}
