//! Roles: who may take one, what each permission is for, and the boundary that none of them passes.

use serde_json::{Map, Value, json};

use super::template::{Resource, sub};

/// One permission with its reason. A permission without a reason cannot be written.
#[derive(Debug, Clone)]
pub struct Grant {
    pub sid: &'static str,
    pub why: &'static str,
    pub actions: Vec<&'static str>,
    pub resources: Vec<Value>,
    condition: Option<Value>,
}

/// Allows `actions`, separated by blanks, on `resources`.
pub(super) fn grant(
    sid: &'static str,
    why: &'static str,
    actions: &'static str,
    resources: impl IntoIterator<Item = Value>,
) -> Grant {
    let actions = actions.split_whitespace().collect();
    Grant {
        sid,
        why,
        actions,
        resources: resources.into_iter().collect(),
        condition: None,
    }
}

/// What a registry's login takes, wherever images are pulled or pushed.
pub(super) fn log_in() -> Grant {
    grant(
        "LogIn",
        "A registry's token knows no single resources",
        "ecr:GetAuthorizationToken",
        [json!("*")],
    )
}

impl Grant {
    pub(super) fn when(mut self, condition: Value) -> Self {
        self.condition = Some(condition);
        self
    }

    fn statement(&self) -> Value {
        let mut statement = Map::new();
        statement.insert("Sid".into(), json!(self.sid));
        statement.insert("Effect".into(), json!("Allow"));
        statement.insert("Action".into(), json!(self.actions));
        statement.insert("Resource".into(), one_or_many(&self.resources));
        if let Some(condition) = &self.condition {
            statement.insert("Condition".into(), condition.clone());
        }
        statement.into()
    }
}

fn one_or_many(values: &[Value]) -> Value {
    match values {
        [one] => one.clone(),
        many => json!(many),
    }
}

/// A role of the platform: under its path, inside the boundary.
pub(super) struct Role {
    id: String,
    about: String,
    trust: Value,
    /// Path below the platform's own, with a slash at its end.
    path: &'static str,
    name: Option<Value>,
    managed: Vec<Value>,
    grants: Vec<Grant>,
}

impl Role {
    /// A role that an AWS service takes, for this account only.
    pub(super) fn of_service(id: impl Into<String>, about: impl Into<String>, service: &str) -> Self {
        let trust = json!({
            "Effect": "Allow",
            "Principal": { "Service": service },
            "Action": "sts:AssumeRole",
            "Condition": { "StringEquals": { "aws:SourceAccount": { "Ref": "AWS::AccountId" } } },
        });
        Self::new(id, about, trust)
    }

    /// A role of a service that does not say for which account it calls.
    pub(super) fn of_silent_service(id: impl Into<String>, about: impl Into<String>, service: &str) -> Self {
        let trust =
            json!({ "Effect": "Allow", "Principal": { "Service": service }, "Action": "sts:AssumeRole" });
        Self::new(id, about, trust)
    }

    pub(super) fn new(id: impl Into<String>, about: impl Into<String>, trust: Value) -> Self {
        let (id, about) = (id.into(), about.into());
        Self {
            id,
            about,
            trust,
            path: "",
            name: None,
            managed: Vec::new(),
            grants: Vec::new(),
        }
    }

    pub(super) fn named(mut self, name: Value) -> Self {
        self.name = Some(name);
        self
    }

    pub(super) fn path(mut self, path: &'static str) -> Self {
        self.path = path;
        self
    }

    pub(super) fn attach(mut self, policy: Value) -> Self {
        self.managed.push(policy);
        self
    }

    pub(super) fn grant(mut self, grant: Grant) -> Self {
        self.grants.push(grant);
        self
    }

    pub(super) fn grants(mut self, grants: impl IntoIterator<Item = Grant>) -> Self {
        self.grants.extend(grants);
        self
    }

    pub(super) fn resource(self, platform: &str, boundary: Value) -> Resource {
        let mut properties = Map::new();
        if let Some(name) = self.name {
            properties.insert("RoleName".into(), name);
        }
        properties.insert("Path".into(), json!(format!("/{platform}/{}", self.path)));
        properties.insert("PermissionsBoundary".into(), boundary);
        properties.insert("AssumeRolePolicyDocument".into(), document(vec![self.trust]));
        if !self.managed.is_empty() {
            properties.insert("ManagedPolicyArns".into(), json!(self.managed));
        }
        if !self.grants.is_empty() {
            let statements = self.grants.iter().map(Grant::statement).collect();
            let policy = json!([{ "PolicyName": "duty", "PolicyDocument": document(statements) }]);
            properties.insert("Policies".into(), policy);
        }
        explained(
            Resource::new(self.id, "AWS::IAM::Role", self.about, properties.into()),
            &self.grants,
        )
    }
}

/// Grants as a policy of their own: a role's inline policies have 10,240 characters together, a managed one 6,144.
pub(super) fn managed(
    id: impl Into<String>,
    about: impl Into<String>,
    platform: &str,
    grants: &[Grant],
) -> Resource {
    let statements = grants.iter().map(Grant::statement).collect();
    let properties = json!({ "Path": format!("/{platform}/"), "PolicyDocument": document(statements) });
    explained(
        Resource::new(id, "AWS::IAM::ManagedPolicy", about, properties),
        grants,
    )
}

/// The reason of each statement beside the statements.
fn explained(resource: Resource, grants: &[Grant]) -> Resource {
    let why: Map<String, Value> = grants
        .iter()
        .map(|grant| (grant.sid.to_owned(), json!(grant.why)))
        .collect();
    match why.is_empty() {
        true => resource,
        false => resource.note("why", why.into()),
    }
}

pub(super) fn document(statements: Vec<Value>) -> Value {
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// `arn:PARTITION:SERVICE:REGION:ACCOUNT:REST` of the stack's own region and account.
pub(super) fn arn(service: &str, rest: &str) -> Value {
    sub(format!(
        "arn:${{AWS::Partition}}:{service}:${{AWS::Region}}:${{AWS::AccountId}}:{rest}"
    ))
}

/// The same for services that know no region.
pub(super) fn global_arn(service: &str, rest: &str) -> Value {
    sub(format!(
        "arn:${{AWS::Partition}}:{service}::${{AWS::AccountId}}:{rest}"
    ))
}
