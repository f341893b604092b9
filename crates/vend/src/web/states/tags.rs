//! Tags of state machines and activities.

use serde_json::{Value, json};
use store::Tags;

use super::{
    arn::Kind,
    call::{Call, Owner},
    fault::Fault,
};

/// Tags of one thing.
const TAGS: usize = 50;

/// `tags` of a request.
pub fn given(value: &Value) -> Result<Tags, Fault> {
    let wrong = || Fault::validation("a tag has a key of 1 to 128 and a value of up to 256 characters");
    if value.is_null() {
        return Ok(Vec::new());
    }
    let mut tags = Tags::new();
    for tag in value.as_array().ok_or_else(wrong)? {
        let key = tag["key"]
            .as_str()
            .filter(|key| (1..=128).contains(&key.chars().count()));
        let text = tag["value"].as_str().unwrap_or_default();
        if text.chars().count() > 256 {
            return Err(wrong());
        }
        tags.push((key.ok_or_else(wrong)?.to_owned(), text.to_owned()));
    }
    match tags.len() > TAGS {
        true => Err(Fault::new("TooManyTags", "a resource has 50 tags at most")),
        false => Ok(tags),
    }
}

impl Call {
    /// Whose, and what it is called among the tags.
    async fn tagged(&self) -> Result<(Owner, String), Fault> {
        let text = self.text("resourceArn")?;
        let (owner, kind) = self.arn(text).await?;
        let owner = owner.ok_or_else(|| Fault::resource(text))?;
        let tenant = owner.tenant.clone();
        let object = self.state.store.read(move |db| {
            Ok::<_, store::Error>(match kind {
                Kind::Machine {
                    name,
                    qualifier: None,
                } => db
                    .state_machine(&tenant, &name)?
                    .map(|machine| format!("stateMachine:{}", machine.name)),
                Kind::Activity { name } => db
                    .activity(&tenant, &name)?
                    .map(|activity| format!("activity:{}", activity.name)),
                _ => None,
            })
        });
        let object = object.await?.ok_or_else(|| Fault::resource(text))?;
        Ok((owner, object))
    }

    pub async fn tag(&self) -> Result<Value, Fault> {
        let (owner, object) = self.tagged().await?;
        let (tags, by) = (given(self.value("tags"))?, self.by());
        let kept = self.state.store.write(move |tx| {
            let mut names: std::collections::BTreeSet<String> = tx
                .state_tags(&owner.tenant, &object)?
                .into_iter()
                .map(|(name, _)| name)
                .collect();
            names.extend(tags.iter().map(|(name, _)| name.clone()));
            if names.len() > TAGS {
                return Ok::<_, store::Error>(false);
            }
            tx.set_state_tags(&owner.tenant, &object, &tags, &by)?;
            Ok(true)
        });
        match kept.await? {
            true => Ok(json!({})),
            false => Err(Fault::new("TooManyTags", "a resource has 50 tags at most")),
        }
    }

    pub async fn untag(&self) -> Result<Value, Fault> {
        let (owner, object) = self.tagged().await?;
        let names = self.value("tagKeys").as_array().into_iter().flatten();
        let names: Vec<String> = names.filter_map(|name| Some(name.as_str()?.to_owned())).collect();
        let by = self.by();
        self.state
            .store
            .write(move |tx| tx.unset_state_tags(&owner.tenant, &object, &names, &by))
            .await?;
        Ok(json!({}))
    }

    pub async fn list_tags(&self) -> Result<Value, Fault> {
        let (owner, object) = self.tagged().await?;
        let tags = self
            .state
            .store
            .read(move |db| db.state_tags(&owner.tenant, &object))
            .await?;
        let tag = |(key, value): &(String, String)| json!({ "key": key, "value": value });
        Ok(json!({ "tags": tags.iter().map(tag).collect::<Vec<_>>() }))
    }
}
