//! Versions of state machines.

use serde_json::{Value, json};

use super::{
    arn::Kind,
    call::{Call, page, seconds},
    fault::Fault,
};

impl Call {
    pub async fn publish(&self) -> Result<Value, Fault> {
        let meant = self.meant(self.text("stateMachineArn")?).await?;
        if let Some(revision) = self.maybe("revisionId")?
            && revision != meant.machine.revision
        {
            return Err(Fault::new(
                "ConflictException",
                "the revision is not the current one of the state machine",
            ));
        }
        let text = meant.arn();
        let description = self.maybe("description")?.unwrap_or_default().to_owned();
        let (by, tenant, name) = (self.by(), meant.owner.tenant, meant.machine.name);
        let made = self
            .state
            .store
            .write(move |tx| tx.publish_version(&tenant, &name, &description, &by))
            .await?;
        Ok(json!({
            "stateMachineVersionArn": format!("{text}:{}", made.version),
            "creationDate": seconds(made.created_at),
        }))
    }

    pub async fn list_versions(&self) -> Result<Value, Fault> {
        let meant = self.meant(self.text("stateMachineArn")?).await?;
        let (limit, before, key) = (self.most()?, self.number_token()?, meant.machine.key);
        let found = self
            .state
            .store
            .read(move |db| db.machine_versions(key, before, limit))
            .await?;
        let next = found.last().filter(|_| found.len() == limit as usize);
        let next = next.map(|last| last.version.to_string());
        let text = meant.arn();
        let items = found.iter().map(|version| {
            json!({
                "stateMachineVersionArn": format!("{text}:{}", version.version),
                "creationDate": seconds(version.created_at),
            })
        });
        Ok(page("stateMachineVersions", items.collect(), next))
    }

    pub async fn delete_version(&self) -> Result<Value, Fault> {
        let text = self.text("stateMachineVersionArn")?;
        let (owner, kind) = self.arn(text).await?;
        let Kind::Machine {
            name,
            qualifier: Some(qualifier),
        } = kind
        else {
            return Err(Fault::arn(text));
        };
        let number = qualifier.parse().map_err(|_| Fault::arn(text))?;
        let Some(owner) = owner else { return Ok(json!({})) };
        let by = self.by();
        self.state
            .store
            .write(move |tx| tx.delete_version(&owner.tenant, &name, number, &by))
            .await?;
        Ok(json!({}))
    }
}
