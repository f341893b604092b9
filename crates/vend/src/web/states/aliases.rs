//! Aliases: names for one version of a state machine, or for two by weight.

use serde_json::{Value, json};
use store::{Alias, StateMachine};

use super::{
    arn::{self, Kind},
    call::{Call, Owner, page, seconds},
    fault::Fault,
};

/// A machine and the alias of it that an ARN names.
struct Found {
    owner: Owner,
    machine: StateMachine,
    alias: Alias,
}

impl Call {
    async fn alias(&self, member: &str) -> Result<Found, Fault> {
        let text = self.text(member)?;
        let (owner, kind) = self.arn(text).await?;
        let Kind::Machine {
            name,
            qualifier: Some(qualifier),
        } = kind
        else {
            return Err(Fault::arn(text));
        };
        let unknown = || Fault::resource(text);
        let owner = owner.ok_or_else(unknown)?;
        let tenant = owner.tenant.clone();
        let found = self.state.store.read(move |db| {
            let Some(machine) = db.state_machine(&tenant, &name)? else {
                return Ok::<_, store::Error>(None);
            };
            let alias = db.machine_alias(machine.key, &qualifier)?;
            Ok(alias.map(|alias| (machine, alias)))
        });
        let (machine, alias) = found.await?.ok_or_else(unknown)?;
        Ok(Found {
            owner,
            machine,
            alias,
        })
    }

    /// `routingConfiguration`: one or two versions of one machine, with weights that are 100 together.
    async fn routes(&self) -> Result<(Owner, StateMachine, Vec<(u64, u32)>), Fault> {
        let wrong = || {
            Fault::validation(
                "the routing configuration names one or two versions of one state machine, with weights that are 100 together",
            )
        };
        let given = self.value("routingConfiguration").as_array().ok_or_else(wrong)?;
        let (mut routes, mut of) = (Vec::new(), None);
        for route in given {
            let text = route["stateMachineVersionArn"].as_str().ok_or_else(wrong)?;
            let weight = route["weight"]
                .as_u64()
                .filter(|weight| *weight <= 100)
                .ok_or_else(wrong)?;
            let meant = self.meant(text).await?;
            let version = meant
                .version
                .filter(|_| meant.alias.is_none())
                .ok_or_else(wrong)?;
            let (owner, machine) = of.get_or_insert((meant.owner, meant.machine.clone()));
            if machine.key != meant.machine.key || routes.iter().any(|(other, _)| *other == version.version) {
                return Err(wrong());
            }
            let _ = owner;
            routes.push((version.version, weight as u32));
        }
        let fits =
            (1..=2).contains(&routes.len()) && routes.iter().map(|(_, weight)| weight).sum::<u32>() == 100;
        let (owner, machine) = of.filter(|_| fits).ok_or_else(wrong)?;
        Ok((owner, machine, routes))
    }

    pub async fn create_alias(&self) -> Result<Value, Fault> {
        let name = arn::checked(self.text("name")?)?.to_owned();
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            // It would be a version's.
            return Err(Fault::name(&name));
        }
        let (owner, machine, routes) = self.routes().await?;
        let text = format!("{}:{name}", arn::machine(owner.account, &machine.name));
        let description = self.maybe("description")?.unwrap_or_default().to_owned();
        let by = self.by();
        let made = self
            .state
            .store
            .write(move |tx| match tx.machine_alias(machine.key, &name)? {
                Some(found) if found.routes == routes && found.description == description => Ok(Some(found)),
                Some(_) => Ok(None),
                None => tx
                    .put_alias(&machine, &name, &description, &routes, &by)
                    .map(Some),
            });
        let made: Option<Alias> = made.await.map_err(|error: store::Error| error)?;
        let made = made.ok_or_else(|| Fault::new("ConflictException", "an alias of this name exists"))?;
        Ok(json!({ "stateMachineAliasArn": text, "creationDate": seconds(made.created_at) }))
    }

    pub async fn update_alias(&self) -> Result<Value, Fault> {
        let found = self.alias("stateMachineAliasArn").await?;
        let routes = match self.value("routingConfiguration") {
            Value::Null => found.alias.routes.clone(),
            _ => {
                let (_, machine, routes) = self.routes().await?;
                if machine.key != found.machine.key {
                    return Err(Fault::validation("the versions are of another state machine"));
                }
                routes
            }
        };
        let description = self
            .maybe("description")?
            .unwrap_or(&found.alias.description)
            .to_owned();
        let (by, machine, name) = (self.by(), found.machine, found.alias.name);
        let made = self
            .state
            .store
            .write(move |tx| tx.put_alias(&machine, &name, &description, &routes, &by))
            .await?;
        Ok(json!({ "updateDate": seconds(made.updated_at) }))
    }

    pub async fn describe_alias(&self) -> Result<Value, Fault> {
        let text = self.text("stateMachineAliasArn")?;
        let Found {
            owner,
            machine,
            alias,
        } = self.alias("stateMachineAliasArn").await?;
        let of = arn::machine(owner.account, &machine.name);
        let route = |(version, weight): &(u64, u32)| json!({ "stateMachineVersionArn": format!("{of}:{version}"), "weight": weight });
        Ok(json!({
            "stateMachineAliasArn": text,
            "name": alias.name,
            "description": alias.description,
            "routingConfiguration": alias.routes.iter().map(route).collect::<Vec<_>>(),
            "creationDate": seconds(alias.created_at),
            "updateDate": seconds(alias.updated_at),
        }))
    }

    pub async fn list_aliases(&self) -> Result<Value, Fault> {
        let meant = self.meant(self.text("stateMachineArn")?).await?;
        let (limit, key) = (self.most()?, meant.machine.key);
        let after = self.maybe("nextToken")?.unwrap_or_default().to_owned();
        let found = self
            .state
            .store
            .read(move |db| db.machine_aliases(key, &after, limit))
            .await?;
        let next = found
            .last()
            .filter(|_| found.len() == limit as usize)
            .map(|last| last.name.clone());
        let text = meant.arn();
        let items = found.iter().map(|alias| {
            json!({
                "stateMachineAliasArn": format!("{text}:{}", alias.name),
                "creationDate": seconds(alias.created_at),
            })
        });
        Ok(page("stateMachineAliases", items.collect(), next))
    }

    pub async fn delete_alias(&self) -> Result<Value, Fault> {
        let found = self.alias("stateMachineAliasArn").await?;
        let by = self.by();
        let deleted = self
            .state
            .store
            .write(move |tx| tx.delete_alias(&found.machine, &found.alias.name, &by));
        deleted.await?;
        Ok(json!({}))
    }
}
