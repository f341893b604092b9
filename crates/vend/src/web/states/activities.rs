//! Activities, and what their workers say.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    arn::{self, Kind},
    call::{Call, Owner, page, seconds},
    fault::Fault,
    tags,
};

/// How long GetActivityTask waits for a task.
const POLL: Duration = Duration::from_secs(60);
/// Characters of an error's name and of its cause; bytes of an output.
const ERROR: usize = 256;
const CAUSE: usize = 32_768;
const OUTPUT: usize = 262_144;

impl Call {
    async fn activity(&self, text: &str) -> Result<(Owner, store::Activity), Fault> {
        let (owner, kind) = self.arn(text).await?;
        let Kind::Activity { name } = kind else {
            return Err(Fault::arn(text));
        };
        let owner = owner.ok_or_else(|| Fault::activity(text))?;
        let tenant = owner.tenant.clone();
        let found = self
            .state
            .store
            .read(move |db| db.activity(&tenant, &name))
            .await?;
        Ok((owner, found.ok_or_else(|| Fault::activity(text))?))
    }

    pub async fn create_activity(&self) -> Result<Value, Fault> {
        let owner = self.owner().await?;
        self.unencrypted()?;
        let name = arn::checked(self.text("name")?)?.to_owned();
        let (tags, by) = (tags::given(self.value("tags"))?, self.by());
        let tenant = owner.tenant.clone();
        let made = self.state.store.write(move |tx| {
            let made = tx.create_activity(&tenant, &name, &by)?;
            if !tags.is_empty() {
                tx.set_state_tags(&tenant, &format!("activity:{name}"), &tags, &by)?;
            }
            Ok::<_, store::Error>(made)
        });
        let made = made.await?;
        let text = arn::activity(owner.account, &made.name);
        self.state.states.known.add(&text);
        self.state.states.engine.activities_changed().await?;
        Ok(json!({ "activityArn": text, "creationDate": seconds(made.created_at) }))
    }

    pub async fn describe_activity(&self) -> Result<Value, Fault> {
        let text = self.text("activityArn")?;
        let (_, found) = self.activity(text).await?;
        Ok(json!({
            "activityArn": text, "name": found.name, "creationDate": seconds(found.created_at),
        }))
    }

    pub async fn list_activities(&self) -> Result<Value, Fault> {
        let owner = self.owner().await?;
        let limit = self.most()?;
        let after = self.maybe("nextToken")?.unwrap_or_default().to_owned();
        let tenant = owner.tenant.clone();
        let found = self
            .state
            .store
            .read(move |db| db.activities(&tenant, &after, limit))
            .await?;
        let next = found
            .last()
            .filter(|_| found.len() == limit as usize)
            .map(|last| last.name.clone());
        let items = found.iter().map(|activity| {
            json!({
                "activityArn": arn::activity(owner.account, &activity.name),
                "name": activity.name,
                "creationDate": seconds(activity.created_at),
            })
        });
        Ok(page("activities", items.collect(), next))
    }

    pub async fn delete_activity(&self) -> Result<Value, Fault> {
        let text = self.text("activityArn")?;
        let (owner, kind) = self.arn(text).await?;
        let Kind::Activity { name } = kind else {
            return Err(Fault::arn(text));
        };
        let Some(owner) = owner else { return Ok(json!({})) };
        let by = self.by();
        self.state
            .store
            .write(move |tx| {
                tx.forget_tags(&owner.tenant, &format!("activity:{name}"))?;
                tx.delete_activity(&owner.tenant, &name, &by)
            })
            .await?;
        self.state.states.known.remove(text);
        self.state.states.engine.activities_changed().await?;
        Ok(json!({}))
    }

    pub async fn get_task(&self) -> Result<Value, Fault> {
        let text = self.text("activityArn")?;
        self.activity(text).await?;
        let worker = self
            .maybe("workerName")?
            .map(|name| arn::checked(name).map(str::to_owned));
        let poll = self.state.states.engine.poll(text, worker.transpose()?);
        match tokio::time::timeout(POLL, poll).await {
            Ok(offer) => {
                let offer = offer?;
                Ok(json!({ "taskToken": offer.token, "input": offer.input.to_string() }))
            }
            Err(_) => Ok(json!({})),
        }
    }

    /// Who may answer: the tenant of the caller. One that belongs to no tenant says which it means.
    async fn answering(&self) -> Result<(u64, &str), Fault> {
        let token = self.text("taskToken")?;
        if token.is_empty() || token.len() > 2048 {
            return Err(engine::Error::Token.into());
        }
        Ok((self.owner().await?.account, token))
    }

    pub async fn task_succeeded(&self) -> Result<Value, Fault> {
        let (owner, token) = self.answering().await?;
        let output = self.text("output")?;
        let wrong = |why: &str| Fault::new("InvalidOutput", format!("Invalid Output: '{why}'"));
        if output.len() > OUTPUT {
            return Err(wrong("the output is longer than 262144 bytes"));
        }
        let output = asl::json::read(output).map_err(|error| wrong(&error.to_string()))?;
        self.state.states.engine.succeed(owner, token, output).await?;
        Ok(json!({}))
    }

    pub async fn task_failed(&self) -> Result<Value, Fault> {
        let (owner, token) = self.answering().await?;
        let short = |member: &str, most: usize| match self.maybe(member)? {
            Some(text) if text.chars().count() > most => Err(Fault::validation(format!(
                "1 validation error detected: Value at '{member}' failed to satisfy constraint: \
                 Member must have length less than or equal to {most}"
            ))),
            text => Ok(text.map(str::to_owned)),
        };
        let (error, cause) = (short("error", ERROR)?, short("cause", CAUSE)?);
        self.state.states.engine.fail(owner, token, error, cause).await?;
        Ok(json!({}))
    }

    pub async fn task_alive(&self) -> Result<Value, Fault> {
        let (owner, token) = self.answering().await?;
        self.state.states.engine.heartbeat(owner, token).await?;
        Ok(json!({}))
    }
}
