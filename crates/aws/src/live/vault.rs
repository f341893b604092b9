//! Secrets of an environment, in Secrets Manager: values go in, and only hosts get them out.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::Secret;
use serde_json::{Value, json};

use super::{pages, text};
use crate::{
    call,
    client::{Client, Error},
};

/// A secret that is unset can be set again for so long; AWS takes 7 to 30.
pub const KEPT_DAYS: u32 = 7;
/// Of one environment; vend.yaml ends far below.
const MOST: usize = 10_000;

/// Where an environment's secrets are: `vend/production/shop/production/`, and the key that encrypts them.
#[derive(Debug, Clone, Copy)]
pub struct Shelf<'a> {
    pub prefix: &'a str,
    /// `alias/vend-production`
    pub key: &'a str,
}

/// What setting a secret did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    Made,
    Changed,
    /// It had been unset, and was kept until now.
    Restored,
}

/// Sets a secret. `ticket`, 32 to 64 characters: the same again with the same value is the same version.
pub async fn set(
    client: &Client,
    shelf: Shelf<'_>,
    name: &str,
    value: &Secret,
    ticket: &str,
) -> Result<Set, Error> {
    let id = format!("{}{name}", shelf.prefix);
    let new = json!({
        "Name": id, "ClientRequestToken": ticket, "KmsKeyId": shelf.key, "SecretString": value.expose(),
    });
    match client.json(&call::CREATE_SECRET, new).await {
        Ok(_) => return Ok(Set::Made),
        Err(error) if error.code() == "ResourceExistsException" => {}
        // So it is when one of that name is on its way out.
        Err(error) if error.code() == "InvalidRequestException" => {}
        Err(error) => return Err(error),
    }
    let put = json!({ "SecretId": id, "ClientRequestToken": ticket, "SecretString": value.expose() });
    match client.json(&call::PUT_SECRET, put.clone()).await {
        Err(error) if error.code() == "InvalidRequestException" => {
            client
                .json(&call::RESTORE_SECRET, json!({ "SecretId": id }))
                .await?;
            client.json(&call::PUT_SECRET, put).await?;
            Ok(Set::Restored)
        }
        other => other.map(|_| Set::Changed),
    }
}

/// Unsets a secret. False: there is none.
pub async fn unset(client: &Client, shelf: Shelf<'_>, name: &str) -> Result<bool, Error> {
    let ask = json!({ "SecretId": format!("{}{name}", shelf.prefix), "RecoveryWindowInDays": KEPT_DAYS });
    match client.json(&call::DELETE_SECRET, ask).await {
        // One that is on its way out already is an invalid request.
        Err(error) if ["ResourceNotFoundException", "InvalidRequestException"].contains(&error.code()) => {
            Ok(false)
        }
        other => other.map(|_| true),
    }
}

/// The names of the secrets that are set, and when each was set last.
pub async fn list(client: &Client, shelf: Shelf<'_>) -> Result<BTreeMap<String, Option<Timestamp>>, Error> {
    let ask = json!({ "Filters": [{ "Key": "name", "Values": [shelf.prefix] }], "MaxResults": 100 });
    let all = pages(client, &call::LIST_SECRETS, &ask, "SecretList", MOST, "NextToken").await?;
    // The filter looks at the beginnings of words, so there may be others.
    let own = |secret: &Value| {
        let name = text(secret, "Name").strip_prefix(shelf.prefix)?.to_owned();
        Some((name, at(&secret["LastChangedDate"])))
    };
    Ok(all.iter().filter_map(own).collect())
}

/// A time as these services write it: seconds since 1970, with a fraction.
pub(super) fn at(value: &Value) -> Option<Timestamp> {
    let seconds = value.as_f64()?;
    Timestamp::from_millisecond((seconds * 1e3) as i64).ok()
}
