//! How many environments of branches there are: a set of names for each entry of `vend.yaml`, in the table of turns, which
//! takes a new name only while there is room. So two pushes at once cannot both be the last one.

use serde_json::{Value, json};

use crate::{
    call,
    client::{Client, Error},
};

/// The names of one entry's environments.
#[derive(Clone, Copy)]
pub struct Slots<'s> {
    pub client: &'s Client,
    pub table: &'s str,
    pub entry: &'s str,
}

impl Slots<'_> {
    fn ask(&self, update: &str, name: &str) -> Value {
        json!({
            "TableName": self.table,
            "Key": self.key(),
            "UpdateExpression": format!("{update} #names :one"),
            "ExpressionAttributeNames": { "#names": "names" },
            "ExpressionAttributeValues": { ":one": { "SS": [name] } },
        })
    }

    fn key(&self) -> Value {
        json!({ "key": { "S": format!("branches/{}", self.entry) } })
    }

    /// Takes a place, or keeps the one it has. False: all of `limit` are taken by others.
    pub async fn take(&self, name: &str, limit: u32) -> Result<bool, Error> {
        let mut ask = self.ask("ADD", name);
        ask["ConditionExpression"] =
            json!("attribute_not_exists(#names) OR contains(#names, :name) OR size(#names) < :limit");
        ask["ExpressionAttributeValues"][":name"] = json!({ "S": name });
        ask["ExpressionAttributeValues"][":limit"] = json!({ "N": limit.to_string() });
        match self.client.json(&call::CHANGE_SLOTS, ask).await {
            Err(error) if error.code() == "ConditionalCheckFailedException" => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// Gives a place back. One that is not taken, in a table that may be gone, is as good.
    pub async fn leave(&self, name: &str) -> Result<(), Error> {
        match self
            .client
            .json(&call::CHANGE_SLOTS, self.ask("DELETE", name))
            .await
        {
            Err(error) if error.code() == "ResourceNotFoundException" => Ok(()),
            other => other.map(drop),
        }
    }

    /// Who has a place.
    pub async fn taken(&self) -> Result<Vec<String>, Error> {
        let ask = json!({ "TableName": self.table, "Key": self.key(), "ConsistentRead": true });
        let found = self.client.json(&call::LOOK_SLOTS, ask).await?;
        let names = found["Item"]["names"]["SS"].as_array().into_iter().flatten();
        Ok(names.filter_map(|name| Some(name.as_str()?.to_owned())).collect())
    }
}
