//! Whose turn an environment is: the same item of the same table that flows take, so that nobody moves an environment while
//! a release does.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    call,
    client::{Client, Error},
};

/// For so long a turn is taken, and for so long again each time it is renewed: whose owner is gone is anybody's after it.
/// Clocks may differ from AWS's by five minutes at most, or it refuses what they sign.
const HELD: SignedDuration = SignedDuration::from_mins(20);

/// A turn is renewed so often while something is waited for.
const RENEWED: Duration = Duration::from_secs(240);

/// A turn that is held.
#[must_use]
pub struct Turn<'c> {
    client: &'c Client,
    table: String,
    key: String,
    owner: String,
}

/// Who has a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The ARN of a release, or what [`owner`] makes.
    pub owner: String,
    /// Then it is anybody's, if it is not renewed. None: nobody can read when.
    pub until: Option<Timestamp>,
}

pub enum Taken<'c> {
    Own(Turn<'c>),
    /// Somebody else has it. None: had it a moment ago.
    Held(Option<Holder>),
}

fn text(text: &str) -> Value {
    json!({ "S": text })
}

fn seconds(at: Timestamp) -> Value {
    json!({ "N": at.as_second().to_string() })
}

/// The owner of turns of one process: who typed the command, and `bits` that no other process has.
pub fn owner(arn: &str, bits: u64) -> String {
    format!("vend aws {arn} {bits:016x}")
}

/// Takes an environment's turn. `owner`: who takes it again has it again, as after an answer that was lost.
pub async fn take<'c>(
    client: &'c Client,
    table: &str,
    environment: &str,
    owner: String,
    now: Timestamp,
) -> Result<Taken<'c>, Error> {
    let turn = Turn {
        client,
        table: table.to_owned(),
        key: format!("turn/{environment}"),
        owner,
    };
    let is_free = "attribute_not_exists(#key) OR #expires < :now OR #owner = :owner";
    let ask = json!({
        "ConditionExpression": is_free,
        "ExpressionAttributeNames": { "#key": "key", "#expires": "expires", "#owner": "owner" },
        "ExpressionAttributeValues": { ":now": seconds(now), ":owner": text(&turn.owner) },
    });
    match turn.put(ask, now).await? {
        true => Ok(Taken::Own(turn)),
        false => turn.holder().await.map(Taken::Held),
    }
}

impl Turn<'_> {
    /// False: the condition does not hold.
    async fn put(&self, mut ask: Value, now: Timestamp) -> Result<bool, Error> {
        ask["TableName"] = json!(self.table);
        ask["Item"] =
            json!({ "key": text(&self.key), "owner": text(&self.owner), "expires": seconds(now + HELD) });
        held(self.client.json(&call::TAKE_TURN, ask).await)
    }

    async fn holder(&self) -> Result<Option<Holder>, Error> {
        let ask =
            json!({ "TableName": self.table, "Key": { "key": text(&self.key) }, "ConsistentRead": true });
        let found = self.client.json(&call::LOOK_TURN, ask).await?;
        let item = &found["Item"];
        let until = || Timestamp::from_second(item["expires"]["N"].as_str()?.parse().ok()?).ok();
        Ok(item["owner"]["S"].as_str().map(|owner| Holder {
            owner: owner.to_owned(),
            until: until(),
        }))
    }

    /// Holds it for as long again as at first. False: it ran out, and is somebody else's or nobody's.
    pub async fn renew(&self, now: Timestamp) -> Result<bool, Error> {
        let ask = json!({
            "ConditionExpression": "#owner = :owner",
            "ExpressionAttributeNames": { "#owner": "owner" },
            "ExpressionAttributeValues": { ":owner": text(&self.owner) },
        });
        self.put(ask, now).await
    }

    /// Renews it for as long as something takes.
    pub async fn during<T>(&self, doing: impl Future<Output = T>, now: fn() -> Timestamp) -> T {
        self.renewing(RENEWED, doing, now).await
    }

    pub(super) async fn renewing<T>(
        &self,
        every: Duration,
        doing: impl Future<Output = T>,
        now: fn() -> Timestamp,
    ) -> T {
        let renewing = async {
            loop {
                tokio::time::sleep(every).await;
                // What has begun goes on either way; who begins the next looks whether it is still theirs.
                let _ = self.renew(now()).await;
            }
        };
        tokio::select! {
            done = doing => done,
            () = renewing => unreachable!("it is renewed for ever"),
        }
    }

    /// Forgets which release went live last: its half has no traffic any more, and one that began before it is not older than what
    /// has.
    pub async fn forget_newest(&self) -> Result<(), Error> {
        let newest = self.key.replacen("turn/", "newest/", 1);
        let ask = json!({ "TableName": self.table, "Key": { "key": text(&newest) } });
        self.client.json(&call::LEAVE_TURN, ask).await.map(drop)
    }

    /// Lets the next one in. What somebody else has by now stays theirs.
    pub async fn leave(self) -> Result<(), Error> {
        let ask = json!({
            "TableName": self.table,
            "Key": { "key": text(&self.key) },
            "ConditionExpression": "#owner = :owner",
            "ExpressionAttributeNames": { "#owner": "owner" },
            "ExpressionAttributeValues": { ":owner": text(&self.owner) },
        });
        held(self.client.json(&call::LEAVE_TURN, ask).await).map(drop)
    }
}

/// Did the condition of a call hold?
fn held(outcome: Result<Value, Error>) -> Result<bool, Error> {
    match outcome {
        Err(error) if error.code() == "ConditionalCheckFailedException" => Ok(false),
        other => other.map(|_| true),
    }
}
