//! State machines.

use std::sync::Arc;

use asl::{Flavour, Severity};
use serde_json::{Value, json};
use store::{MachineFilter, MachineVersion, NewMachine, StateMachine};

use super::{
    arn::{self, Kind},
    call::{Call, Owner, page, seconds},
    fault::Fault,
    tags,
};

/// What of a machine is kept as it came and means nothing here.
const SETTINGS: [&str; 3] = [
    "loggingConfiguration",
    "tracingConfiguration",
    "encryptionConfiguration",
];
/// The revision of a machine that was never updated: AWS takes this word for it, and shows none.
pub const INITIAL: &str = "INITIAL";
/// Most machines of one tenant, and most executions of a machine that DeleteStateMachine stops.
const MACHINES: u32 = 10_000;

/// What an ARN of a machine means: the machine, and the version that was asked for.
pub struct Meant {
    pub owner: Owner,
    pub machine: StateMachine,
    pub version: Option<MachineVersion>,
    pub alias: Option<String>,
}

impl Meant {
    pub fn definition(&self) -> &str {
        match &self.version {
            Some(version) => &version.definition,
            None => &self.machine.definition,
        }
    }

    pub fn role(&self) -> &str {
        match &self.version {
            Some(version) => &version.role,
            None => &self.machine.role,
        }
    }

    pub fn arn(&self) -> String {
        arn::machine(self.owner.account, &self.machine.name)
    }
}

impl Call {
    /// The machine, version or alias that an ARN names. An alias is one of its versions, by weight.
    pub async fn meant(&self, text: &str) -> Result<Meant, Fault> {
        let unknown = || Fault::machine(text);
        let (owner, kind) = self.arn(text).await?;
        let Kind::Machine { name, qualifier } = kind else {
            return Err(Fault::arn(text));
        };
        let owner = owner.ok_or_else(unknown)?;
        let (tenant, dice) = (owner.tenant.clone(), crate::clock::bits() % 100);
        let found = self.state.store.read(move |db| {
            let Some(machine) = db.state_machine(&tenant, &name)? else {
                return Ok::<_, store::Error>(None);
            };
            let Some(qualifier) = qualifier else {
                return Ok(Some((machine, None, None)));
            };
            let alias = db.machine_alias(machine.key, &qualifier)?;
            let number = match &alias {
                Some(alias) => chosen(&alias.routes, dice),
                None => qualifier.parse().ok(),
            };
            let Some(number) = number else { return Ok(None) };
            let version = db.machine_version(machine.key, number)?;
            Ok(version.map(|version| (machine, Some(version), alias.map(|alias| alias.name))))
        });
        let (machine, version, alias) = found.await?.ok_or_else(unknown)?;
        Ok(Meant {
            owner,
            machine,
            version,
            alias,
        })
    }

    fn wanted(&self, owner: &Owner, name: &str, express: bool) -> Result<NewMachine, Fault> {
        let definition = self.text("definition")?;
        self.unencrypted()?;
        self.unlogged(name);
        self.state.states.known.program(express, definition)?;
        let role = self.text("roleArn")?;
        if !role.starts_with("arn:") || role.len() > 256 {
            return Err(Fault::arn(role));
        }
        Ok(NewMachine {
            tenant: owner.tenant.clone(),
            name: arn::checked(name)?.to_owned(),
            express,
            definition: definition.to_owned(),
            role: role.to_owned(),
            settings: self.settings().to_string(),
            revision: INITIAL.to_owned(),
        })
    }

    /// Logs and traces go to services of AWS, which are not here.
    fn unlogged(&self, name: &str) {
        let level = self.value("loggingConfiguration")["level"].as_str();
        let traced = self.value("tracingConfiguration")["enabled"] == true;
        if traced || level.is_some_and(|level| level != "OFF") {
            tracing::warn!(
                state_machine.name = name,
                "a state machine asks for logs or traces, which nothing here writes: its history has what happened"
            );
        }
    }

    fn settings(&self) -> Value {
        let given = SETTINGS
            .into_iter()
            .filter(|name| self.value(name).is_object())
            .map(|name| (name.to_owned(), self.value(name).clone()));
        Value::Object(given.collect())
    }

    pub async fn create_machine(&self) -> Result<Value, Fault> {
        let owner = self.owner().await?;
        let express = match self.maybe("type")? {
            None | Some("STANDARD") => false,
            Some("EXPRESS") => true,
            Some(_) => return Err(Fault::validation("the type is STANDARD or EXPRESS")),
        };
        let new = self.wanted(&owner, self.text("name")?, express)?;
        let (tags, publish) = (tags::given(self.value("tags"))?, self.flag("publish"));
        let description = self.maybe("versionDescription")?.unwrap_or_default().to_owned();
        let by = self.by();
        let made = self.state.store.write(move |tx| {
            let filter = MachineFilter {
                after: String::new(),
                limit: MACHINES,
            };
            let machine = match tx.state_machine(&new.tenant, &new.name)? {
                Some(found) if same(&found, &new) => found,
                Some(_) => return Ok::<_, store::Error>(Err(Refused::Exists)),
                None if tx.state_machines(&new.tenant, &filter)?.len() >= MACHINES as usize => {
                    return Ok(Err(Refused::TooMany));
                }
                None => tx.create_state_machine(&new, &by)?,
            };
            if !tags.is_empty() {
                tx.set_state_tags(&new.tenant, &format!("stateMachine:{}", new.name), &tags, &by)?;
            }
            let version = match publish {
                true => Some(tx.publish_version(&new.tenant, &new.name, &description, &by)?),
                false => None,
            };
            Ok(Ok((machine, version)))
        });
        let (machine, version) = match made.await? {
            Ok(made) => made,
            Err(Refused::TooMany) => {
                return Err(Fault::new(
                    "StateMachineLimitExceeded",
                    "there are too many state machines",
                ));
            }
            Err(Refused::Exists) => {
                let text = arn::machine(owner.account, self.text("name")?);
                return Err(Fault::new(
                    "StateMachineAlreadyExists",
                    format!("State Machine Already Exists: '{text}'"),
                ));
            }
        };
        let text = arn::machine(owner.account, &machine.name);
        let mut answer = json!({ "stateMachineArn": text, "creationDate": seconds(machine.created_at) });
        if let Some(version) = version {
            answer["stateMachineVersionArn"] = format!("{text}:{}", version.version).into();
        }
        Ok(answer)
    }

    pub async fn update_machine(&self) -> Result<Value, Fault> {
        let meant = self.meant(self.text("stateMachineArn")?).await?;
        self.unencrypted()?;
        let Meant { owner, machine, .. } = meant;
        self.unlogged(&machine.name);
        let given = self.maybe("definition")?;
        if let Some(definition) = given.filter(|given| *given != machine.definition) {
            self.state.states.known.program(machine.express, definition)?;
        }
        let definition = given.unwrap_or(&machine.definition).to_owned();
        let role = self.maybe("roleArn")?.unwrap_or(&machine.role).to_owned();
        let mut settings: Value = serde_json::from_str(&machine.settings).unwrap_or_default();
        let given = self.settings();
        let given = given.as_object().into_iter().flatten();
        given.for_each(|(name, value)| settings[name] = value.clone());
        let new = NewMachine {
            tenant: owner.tenant.clone(),
            name: machine.name.clone(),
            express: machine.express,
            definition,
            role,
            settings: settings.to_string(),
            revision: revision(),
        };
        let (by, publish) = (self.by(), self.flag("publish"));
        let description = self.maybe("versionDescription")?.unwrap_or_default().to_owned();
        let (machine, version) = self
            .state
            .store
            .write(move |tx| {
                let machine = tx.update_state_machine(&new, &by)?;
                let version = match publish {
                    true => Some(tx.publish_version(&new.tenant, &new.name, &description, &by)?),
                    false => None,
                };
                Ok::<_, store::Error>((machine, version))
            })
            .await?;
        let mut answer = json!({
            "updateDate": seconds(machine.updated_at), "revisionId": machine.revision,
        });
        if let Some(version) = version {
            let text = arn::machine(owner.account, &machine.name);
            answer["stateMachineVersionArn"] = format!("{text}:{}", version.version).into();
        }
        Ok(answer)
    }

    /// Stops what the machine has under way, and deletes it.
    pub async fn delete_machine(&self) -> Result<Value, Fault> {
        let meant = match self.meant(self.text("stateMachineArn")?).await {
            Ok(meant) => meant,
            Err(fault) if fault.name == "StateMachineDoesNotExist" => return Ok(json!({})),
            Err(fault) => return Err(fault),
        };
        let key = meant.machine.key;
        for execution in self.state.store.read(move |db| db.open_runs(key)).await? {
            // One that ends by itself in this moment is as good.
            let _ = self.state.states.engine.stop(execution, None, None).await;
        }
        let by = self.by();
        let (tenant, name) = (meant.owner.tenant, meant.machine.name);
        self.state
            .store
            .write(move |tx| tx.delete_state_machine(&tenant, &name, &by))
            .await?;
        Ok(json!({}))
    }

    pub async fn describe_machine(&self) -> Result<Value, Fault> {
        let text = self.text("stateMachineArn")?;
        let meant = self.meant(text).await?;
        let mut answer = described(&meant)?;
        answer["stateMachineArn"] = text.into();
        if self.metadata_only()? {
            bare(&mut answer);
        }
        Ok(answer)
    }

    pub async fn list_machines(&self) -> Result<Value, Fault> {
        let owner = self.owner().await?;
        let limit = self.most()?;
        let after = self.maybe("nextToken")?.unwrap_or_default().to_owned();
        let filter = MachineFilter { after, limit };
        let tenant = owner.tenant.clone();
        let found = self
            .state
            .store
            .read(move |db| db.state_machines(&tenant, &filter))
            .await?;
        let next = found
            .last()
            .filter(|_| found.len() == limit as usize)
            .map(|last| last.name.clone());
        let item = |machine: &StateMachine| {
            json!({
                "stateMachineArn": arn::machine(owner.account, &machine.name),
                "name": machine.name,
                "type": kind(machine.express),
                "creationDate": seconds(machine.created_at),
            })
        };
        Ok(page("stateMachines", found.iter().map(item).collect(), next))
    }

    pub fn validate(&self) -> Result<Value, Fault> {
        let flavour = match self.maybe("type")? {
            Some("EXPRESS") => Flavour::Express,
            _ => Flavour::Standard,
        };
        let severity = match self.maybe("severity")? {
            Some("WARNING") => Severity::Warning,
            _ => Severity::Error,
        };
        let most = self.most()?.min(100) as usize;
        Ok(asl::validate(self.text("definition")?, flavour, severity, most).answer())
    }

    pub async fn test(&self) -> Result<Value, Fault> {
        let request: asl::TestRequest = serde_json::from_value(self.whole().clone())
            .map_err(|error| Fault::new("SerializationException", error.to_string()))?;
        let seed = [crate::clock::bits(), crate::clock::bits()];
        let at = self.state.now();
        let permit = Arc::clone(&self.state.tests).acquire_owned().await;
        let permit = permit.expect("nobody closes the semaphore");
        let tested = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            asl::test(&request, at, seed)
        });
        let response = tested
            .await
            .map_err(|error| Fault::new("InternalFailure", error.to_string()))?
            .map_err(|refusal| Fault::new(refusal.code, refusal.message))?;
        Ok(serde_json::to_value(response).expect("a response is plain data"))
    }
}

enum Refused {
    Exists,
    TooMany,
}

fn same(found: &StateMachine, new: &NewMachine) -> bool {
    found.definition == new.definition
        && found.express == new.express
        && found.role == new.role
        && found.settings == new.settings
}

fn chosen(routes: &[(u64, u32)], dice: u64) -> Option<u64> {
    let mut below = 0;
    routes.iter().find_map(|(version, weight)| {
        below += u64::from(*weight);
        (dice < below).then_some(*version)
    })
}

pub fn kind(express: bool) -> &'static str {
    match express {
        true => "EXPRESS",
        false => "STANDARD",
    }
}

fn revision() -> String {
    format!("{:016x}{:016x}", crate::clock::bits(), crate::clock::bits())
}

/// Takes the data of a machine out: AWS leaves an empty definition.
pub fn bare(answer: &mut Value) {
    answer["definition"] = "{}".into();
    if let Some(answer) = answer.as_object_mut() {
        answer.remove("variableReferences");
    }
}

/// All that is said of a machine, without its ARN.
pub fn described(meant: &Meant) -> Result<Value, Fault> {
    let machine = &meant.machine;
    let (settings, revision, created_at) = match &meant.version {
        Some(version) => (&version.settings, &version.revision, version.created_at),
        None => (&machine.settings, &machine.revision, machine.created_at),
    };
    let mut answer = json!({
        "name": machine.name,
        "status": "ACTIVE",
        "definition": meant.definition(),
        "roleArn": meant.role(),
        "type": kind(machine.express),
        "creationDate": seconds(created_at),
        "loggingConfiguration": { "level": "OFF", "includeExecutionData": false },
        "tracingConfiguration": { "enabled": false },
    });
    if meant.version.is_some() || revision != INITIAL {
        answer["revisionId"] = revision.as_str().into();
    }
    let settings: Value = serde_json::from_str(settings).unwrap_or_default();
    for (name, value) in settings.as_object().into_iter().flatten() {
        answer[name] = value.clone();
    }
    let definition = asl::json::read(meant.definition()).unwrap_or_default();
    let references = asl::references(&definition);
    if !references.is_empty() {
        answer["variableReferences"] = json!(references);
    }
    if let Some(version) = &meant.version {
        answer["description"] = version.description.as_str().into();
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::chosen;

    #[test]
    fn an_alias_is_its_versions_by_weight() {
        let routes = [(3, 90), (4, 10)];
        let count = |version| {
            (0..100)
                .filter(|dice| chosen(&routes, *dice) == Some(version))
                .count()
        };
        assert_eq!((count(3), count(4)), (90, 10));
        assert_eq!(chosen(&[], 0), None);
    }
}
