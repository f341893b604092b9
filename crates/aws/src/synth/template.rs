//! A CloudFormation template as a value: resources with meaningful logical ids, in the order in which they are added.
//!
//! Source: the CloudFormation user guide, "Template anatomy" and "CloudFormation quotas".

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::{Error, yaml};

/// A template may not be longer, in bytes, when it is read from S3.
pub const MAX_BYTES: usize = 1_000_000;
/// A template may not be longer, in bytes, when it is sent with the call.
pub const MAX_INLINE_BYTES: usize = 51_200;
pub const MAX_RESOURCES: usize = 500;
pub const MAX_PARAMETERS: usize = 200;
pub const MAX_OUTPUTS: usize = 200;
const MAX_DESCRIPTION_BYTES: usize = 1024;

/// One stack's template. Its parts are written in the order in which they were added, so the same input gives the
/// same bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    pub about: String,
    /// Of the template as a whole: rules of a linter that do not hold for what is no resource, and why.
    metadata: Map<String, Value>,
    pub parameters: Vec<(String, Value)>,
    pub conditions: Vec<(String, Value)>,
    pub resources: Vec<Resource>,
    pub outputs: Vec<(String, Value)>,
}

/// The parameter that switches the protection of what a stack holds; [`Template::guard`].
pub const GUARD: &str = "Guarded";

/// One resource. `about` is its comment in YAML.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    pub id: String,
    pub kind: &'static str,
    pub about: String,
    pub properties: Value,
    /// `Retain` or `Snapshot`: what happens to the data when the resource goes.
    keep: Option<&'static str>,
    after: Vec<String>,
    condition: Option<String>,
    /// `CreationPolicy` and `UpdatePolicy`.
    policies: Vec<(&'static str, Value)>,
    metadata: Map<String, Value>,
}

impl Resource {
    pub fn new(
        id: impl Into<String>,
        kind: &'static str,
        about: impl Into<String>,
        properties: Value,
    ) -> Self {
        Self {
            id: id.into(),
            kind,
            about: about.into(),
            properties,
            keep: None,
            after: Vec::new(),
            condition: None,
            policies: Vec::new(),
            metadata: Map::new(),
        }
    }

    /// Neither deleting the stack nor replacing the resource takes its data.
    pub fn retained(mut self) -> Self {
        self.keep = Some("Retain");
        self
    }

    /// Does it stay when its stack goes?
    pub fn is_retained(&self) -> bool {
        self.keep == Some("Retain")
    }

    /// A last snapshot is taken before the resource goes.
    pub fn snapshot(mut self) -> Self {
        self.keep = Some("Snapshot");
        self
    }

    /// What would be kept is not.
    pub fn loosen(&mut self) {
        self.keep = self.keep.map(|_| "Delete");
    }

    pub fn after(mut self, id: impl Into<String>) -> Self {
        self.after.push(id.into());
        self
    }

    pub fn when(mut self, condition: impl Into<String>) -> Self {
        self.condition = Some(condition.into());
        self
    }

    pub fn policy(mut self, name: &'static str, value: Value) -> Self {
        self.policies.push((name, value));
        self
    }

    /// Says why a rule of a linter does not hold here; the linter reads it, and so do people.
    pub fn skip(mut self, rule: &str, why: &str) -> Self {
        match rule.starts_with("CKV") {
            true => push(
                &mut self.metadata,
                "checkov",
                "skip",
                json!({ "id": rule, "comment": why }),
            ),
            false => ignore(&mut self.metadata, rule, why),
        }
        self
    }

    /// What the resource is for, in words that a reader of the template needs beside single properties.
    pub fn note(mut self, key: &str, value: Value) -> Self {
        let entry = self.metadata.entry("vend").or_insert_with(|| json!({}));
        entry[key] = value;
        self
    }

    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// The resource as CloudFormation reads it.
    pub fn body(&self) -> Value {
        let fields = self.fields().into_iter();
        Value::Object(
            fields
                .map(|(name, value)| (name.to_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// What stands under its id, in order.
    pub(super) fn fields(&self) -> Vec<(&'static str, Cow<'_, Value>)> {
        let own = |value: Value| Cow::Owned(value);
        let mut fields = vec![("Type", own(json!(self.kind)))];
        if let Some(condition) = &self.condition {
            fields.push(("Condition", own(json!(condition))));
        }
        match self.after.as_slice() {
            [] => {}
            [one] => fields.push(("DependsOn", own(json!(one)))),
            many => fields.push(("DependsOn", own(json!(many)))),
        }
        if let Some(keep) = self.keep {
            // A creation that is rolled back takes what it made with it: a name that is kept would be taken the next time.
            let at_the_end = if keep == "Retain" {
                "RetainExceptOnCreate"
            } else {
                keep
            };
            fields.push(("DeletionPolicy", own(json!(at_the_end))));
            fields.push(("UpdateReplacePolicy", own(json!(keep))));
        }
        let policies = self.policies.iter();
        fields.extend(policies.map(|(name, value)| (*name, Cow::Borrowed(value))));
        if !self.metadata.is_empty() {
            fields.push(("Metadata", own(Value::Object(self.metadata.clone()))));
        }
        if self.properties.as_object().is_some_and(|own| !own.is_empty()) {
            fields.push(("Properties", Cow::Borrowed(&self.properties)));
        }
        fields
    }
}

/// cfn-lint's own word, which has no room for a reason, and the reason beside it.
fn ignore(metadata: &mut Map<String, Value>, rule: &str, why: &str) {
    push(metadata, "cfn-lint", "config", json!(rule));
    push(metadata, "vend", "ignored", json!({ "id": rule, "comment": why }));
}

/// cfn-lint wants its ignored rules one level deeper than checkov its skipped ones.
fn push(metadata: &mut Map<String, Value>, tool: &str, key: &str, item: Value) {
    let entry = metadata.entry(tool).or_insert_with(|| json!({}));
    let list = match tool {
        "cfn-lint" => &mut entry[key]["ignore_checks"],
        _ => &mut entry[key],
    };
    match list.as_array_mut() {
        Some(list) => list.push(item),
        None => *list = json!([item]),
    }
}

impl Template {
    pub fn new(about: impl Into<String>) -> Self {
        Self {
            about: about.into(),
            metadata: Map::new(),
            parameters: Vec::new(),
            conditions: Vec::new(),
            resources: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// Says why a rule of cfn-lint does not hold for the template's own parts, such as outputs.
    pub fn skip(&mut self, rule: &str, why: &str) {
        ignore(&mut self.metadata, rule, why);
    }

    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    pub fn add(&mut self, resource: Resource) {
        self.resources.push(resource);
    }

    pub fn parameter(&mut self, id: impl Into<String>, value: Value) {
        self.parameters.push((id.into(), value));
    }

    pub fn condition(&mut self, id: impl Into<String>, value: Value) {
        self.conditions.push((id.into(), value));
    }

    /// The value of a property that protects: on, unless the stack is told to do without for now. CloudFormation can take back
    /// nothing that is protected, so a stack is changed without, and gets it when all that it holds is made.
    pub fn guard(&mut self, on: impl Into<Value>, off: impl Into<Value>) -> Value {
        if !self.is_guarded() {
            let own = json!({
                "Type": "String",
                "Default": "yes",
                "AllowedValues": ["yes", "no"],
                "Description": "Does what refuses deletion do so? Not while it is being made",
            });
            self.parameter(GUARD, own);
            self.condition("IsGuarded", json!({ "Fn::Equals": [re(GUARD), "yes"] }));
        }
        json!({ "Fn::If": ["IsGuarded", on.into(), off.into()] })
    }

    /// Does it hold something that refuses to be deleted?
    pub fn is_guarded(&self) -> bool {
        self.parameters.iter().any(|(id, _)| id == GUARD)
    }

    /// Is the resource of this id one that refuses to be deleted?
    pub fn guards(&self, id: &str) -> bool {
        let resource = self.resource(id);
        resource.is_some_and(|own| own.properties.to_string().contains("\"IsGuarded\""))
    }

    /// A value for people and for other stacks, exported as `STACK-ID`.
    pub fn export(&mut self, id: &str, about: &str, value: Value) {
        let name = sub(format!("${{AWS::StackName}}-{id}"));
        let output = json!({ "Description": about, "Value": value, "Export": { "Name": name } });
        self.outputs.push((id.to_owned(), output));
    }

    /// A value for people only.
    pub fn output(&mut self, id: &str, about: &str, value: Value) {
        self.outputs
            .push((id.to_owned(), json!({ "Description": about, "Value": value })));
    }

    /// The resource of this id.
    pub fn resource(&self, id: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.id == id)
    }

    /// These resources with all that they need, and nothing else; a template that CloudFormation takes by itself.
    pub fn part(&self, ids: &[&str]) -> Self {
        let mut wanted: Vec<&str> = ids.to_vec();
        let mut at = 0;
        while at < wanted.len() {
            if let Some(resource) = self.resource(wanted[at]) {
                let body = resource.body();
                let mut names: Vec<&str> = resource.after.iter().map(String::as_str).collect();
                let found: Vec<String> = references(&body);
                names.extend(found.iter().map(String::as_str));
                for own in self
                    .resources
                    .iter()
                    .filter(|own| names.contains(&own.id.as_str()))
                {
                    if !wanted.contains(&own.id.as_str()) {
                        wanted.push(&own.id);
                    }
                }
            }
            at += 1;
        }
        let mut part = self.clone();
        part.resources
            .retain(|resource| wanted.contains(&resource.id.as_str()));
        part
    }

    /// The resources of this type.
    pub fn of<'t>(&'t self, kind: &'t str) -> impl Iterator<Item = &'t Resource> {
        self.resources
            .iter()
            .filter(move |resource| resource.kind == kind)
    }

    /// The template as CloudFormation reads it.
    pub fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("AWSTemplateFormatVersion".into(), json!("2010-09-09"));
        body.insert("Description".into(), json!(self.about));
        if !self.metadata.is_empty() {
            body.insert("Metadata".into(), Value::Object(self.metadata.clone()));
        }
        for (name, part) in [("Parameters", &self.parameters), ("Conditions", &self.conditions)] {
            if !part.is_empty() {
                body.insert(name.into(), part.iter().cloned().collect::<Map<_, _>>().into());
            }
        }
        let resources = self
            .resources
            .iter()
            .map(|resource| (resource.id.clone(), resource.body()));
        body.insert("Resources".into(), resources.collect::<Map<_, _>>().into());
        if !self.outputs.is_empty() {
            let outputs: Map<String, Value> = self.outputs.iter().cloned().collect();
            body.insert("Outputs".into(), outputs.into());
        }
        Value::Object(body)
    }

    /// Readable YAML, each resource under its comment.
    pub fn yaml(&self) -> String {
        yaml::template(self)
    }

    /// The same in JSON.
    pub fn json(&self) -> String {
        format!("{:#}\n", self.body())
    }

    /// Refuses what CloudFormation would refuse for its number or size, and an id that stands twice.
    pub fn check(&self, name: &str) -> Result<(), Error> {
        let too_large = |what, count, most| Error::TooLarge {
            stack: name.to_owned(),
            what,
            count,
            most,
        };
        let limits = [
            ("resources", self.resources.len(), MAX_RESOURCES),
            ("parameters", self.parameters.len(), MAX_PARAMETERS),
            ("outputs", self.outputs.len(), MAX_OUTPUTS),
            ("bytes of description", self.about.len(), MAX_DESCRIPTION_BYTES),
        ];
        for (what, count, most) in limits {
            if count > most {
                return Err(too_large(what, count, most));
            }
        }
        let mut ids: Vec<&str> = self
            .resources
            .iter()
            .map(|resource| resource.id.as_str())
            .collect();
        ids.sort_unstable();
        if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::Twice {
                stack: name.to_owned(),
                id: twice[0].to_owned(),
            });
        }
        match self
            .resources
            .iter()
            .find(|one| asks_for_secrets(&one.properties))
        {
            Some(one) => Err(Error::Reference {
                stack: name.to_owned(),
                id: one.id.clone(),
            }),
            None => Ok(()),
        }
    }
}

/// Would CloudFormation put something in the place of a text, with the rights of who makes the stack? Nothing can keep it
/// from that, and what it puts there is to be read by whoever may look at the resource. Only the secret of a sign-in is
/// asked for so, by us. Source: "Get values stored in other services using dynamic references".
fn asks_for_secrets(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("{{resolve:"),
        Value::Array(items) => items.iter().any(asks_for_secrets),
        Value::Object(own) => own
            .iter()
            .any(|(key, value)| key != "ClientSecret" && asks_for_secrets(value)),
        _ => false,
    }
}

/// The names that a part of a template refers to.
fn references(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    match value {
        Value::Object(own) => {
            for (key, value) in own {
                match (key.as_str(), value) {
                    ("Ref", Value::String(name)) => found.push(name.clone()),
                    ("Fn::GetAtt", Value::String(path)) => {
                        found.extend(path.split('.').next().map(str::to_owned))
                    }
                    ("Fn::Sub", Value::String(text)) => found.extend(filled(text)),
                    _ => found.extend(references(value)),
                }
            }
        }
        Value::Array(items) => found.extend(items.iter().flat_map(references)),
        _ => {}
    }
    found
}

/// What `${…}` names in a text.
fn filled(text: &str) -> impl Iterator<Item = String> {
    let parts = text.split("${").skip(1).filter_map(|part| part.split('}').next());
    parts.filter_map(|part| part.split('.').next().map(str::to_owned))
}

/// The value of a parameter, or the main name of a resource.
pub fn re(id: impl Into<String>) -> Value {
    json!({ "Ref": id.into() })
}

/// An attribute of a resource: `att("Key.Arn")`.
pub fn att(id: impl Into<String>) -> Value {
    json!({ "Fn::GetAtt": id.into() })
}

/// Text with `${…}` filled in.
pub fn sub(text: impl Into<String>) -> Value {
    json!({ "Fn::Sub": text.into() })
}

/// What another stack exports.
pub fn import(stack: &str, id: &str) -> Value {
    json!({ "Fn::ImportValue": format!("{stack}-{id}") })
}

/// A logical id out of names: `logical(&["blue", "http-rule"])` is `BlueHttpRule`.
pub fn logical(parts: &[&str]) -> String {
    let mut id = String::new();
    for word in parts
        .iter()
        .flat_map(|part| part.split(|c: char| !c.is_ascii_alphanumeric()))
    {
        let mut letters = word.chars();
        id.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        id.push_str(letters.as_str());
    }
    id
}

/// An id for an item of a list that people write: what it is, and four digits of what it says, so that the others keep
/// theirs when one goes.
pub fn listed(prefix: &str, text: &str) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(text.as_bytes());
    let words: String = logical(&[text]).chars().take(40).collect();
    format!("{prefix}{words}{:02x}{:02x}", digest[0], digest[1])
}
