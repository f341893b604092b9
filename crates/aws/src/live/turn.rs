//! Whose turn an environment is: the same item of the same table that flows take, so that nobody moves an environment while
//! a release does.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    call,
    client::{Client, Error},
};

/// After so long a turn whose owner is gone is anybody's. CloudFormation changes weights within minutes.
const HELD: SignedDuration = SignedDuration::from_hours(1);

/// A turn that is held.
#[must_use]
pub struct Turn<'c> {
    client: &'c Client,
    table: String,
    key: String,
    owner: String,
}

fn text(text: &str) -> Value {
    json!({ "S": text })
}

/// Takes an environment's turn. None: a release has it. `owner`: who takes it again has it again, as after a crash.
pub async fn take<'c>(
    client: &'c Client,
    table: &str,
    environment: &str,
    owner: &str,
    now: Timestamp,
) -> Result<Option<Turn<'c>>, Error> {
    let seconds = |at: Timestamp| json!({ "N": at.as_second().to_string() });
    let key = format!("turn/{environment}");
    let ask = json!({
        "TableName": table,
        "Item": { "key": text(&key), "owner": text(owner), "expires": seconds(now + HELD) },
        "ConditionExpression": "attribute_not_exists(#key) OR #expires < :now OR #owner = :owner",
        "ExpressionAttributeNames": { "#key": "key", "#expires": "expires", "#owner": "owner" },
        "ExpressionAttributeValues": { ":now": seconds(now), ":owner": text(owner) },
    });
    match client.json(&call::TAKE_TURN, ask).await {
        Err(error) if error.code() == "ConditionalCheckFailedException" => Ok(None),
        other => other.map(|_| {
            Some(Turn {
                client,
                table: table.to_owned(),
                key,
                owner: owner.to_owned(),
            })
        }),
    }
}

impl Turn<'_> {
    /// Lets the next one in. What somebody else has by now stays theirs.
    pub async fn leave(self) -> Result<(), Error> {
        let ask = json!({
            "TableName": self.table,
            "Key": { "key": text(&self.key) },
            "ConditionExpression": "#owner = :owner",
            "ExpressionAttributeNames": { "#owner": "owner" },
            "ExpressionAttributeValues": { ":owner": text(&self.owner) },
        });
        match self.client.json(&call::LEAVE_TURN, ask).await {
            Err(error) if error.code() == "ConditionalCheckFailedException" => Ok(()),
            other => other.map(drop),
        }
    }
}
