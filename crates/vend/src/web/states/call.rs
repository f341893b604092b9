//! One call: who, what, on what.

use axum::http::HeaderMap;
use jiff::Timestamp;
use model::{
    TenantName,
    policy::{Action, Principal, decide},
};
use serde_json::Value;
use store::By;

use super::{
    arn::{Arn, Kind},
    fault::Fault,
};
use crate::web::state::State;

/// How callers that belong to no tenant say whose things they mean.
const TENANT: &str = "x-vend-tenant";

pub struct Call {
    pub state: State,
    pub who: Principal,
    action: Action,
    named: Option<TenantName>,
    input: Value,
    /// The task of a state machine that calls, by a name that no other has: what it starts is started once, though the
    /// call may come again.
    pub task: Option<String>,
}

/// A tenant, and the number that stands for it.
#[derive(Debug, Clone)]
pub struct Owner {
    pub tenant: TenantName,
    pub account: u64,
}

impl Call {
    pub fn new(
        state: State,
        who: Principal,
        action: Action,
        headers: &HeaderMap,
        input: Value,
    ) -> Result<Self, Fault> {
        let named = match headers.get(TENANT) {
            None => None,
            Some(name) => {
                let name = name.to_str().ok().and_then(|name| name.parse().ok());
                Some(name.ok_or_else(|| Fault::validation("the X-Vend-Tenant header is no tenant's name"))?)
            }
        };
        if !input.is_object() {
            return Err(Fault::new(
                "SerializationException",
                "the request is not an object",
            ));
        }
        Ok(Self {
            state,
            who,
            action,
            named,
            input,
            task: None,
        })
    }

    pub async fn run(&self, operation: &str) -> Result<Value, Fault> {
        match operation {
            "CreateStateMachine" => self.create_machine().await,
            "UpdateStateMachine" => self.update_machine().await,
            "DeleteStateMachine" => self.delete_machine().await,
            "DescribeStateMachine" => self.describe_machine().await,
            "ListStateMachines" => self.list_machines().await,
            "ValidateStateMachineDefinition" => self.validate(),
            "PublishStateMachineVersion" => self.publish().await,
            "ListStateMachineVersions" => self.list_versions().await,
            "DeleteStateMachineVersion" => self.delete_version().await,
            "CreateStateMachineAlias" => self.create_alias().await,
            "UpdateStateMachineAlias" => self.update_alias().await,
            "DescribeStateMachineAlias" => self.describe_alias().await,
            "ListStateMachineAliases" => self.list_aliases().await,
            "DeleteStateMachineAlias" => self.delete_alias().await,
            "StartExecution" => self.start().await,
            "StartSyncExecution" => self.start_sync().await,
            "StopExecution" => self.stop().await,
            "RedriveExecution" => self.redrive().await,
            "TestState" => self.test().await,
            "DescribeExecution" => self.describe_execution().await,
            "DescribeStateMachineForExecution" => self.describe_machine_of().await,
            "ListExecutions" => self.list_executions().await,
            "GetExecutionHistory" => self.history().await,
            "ListMapRuns" => self.list_map_runs().await,
            "DescribeMapRun" => self.describe_map_run().await,
            "UpdateMapRun" => self.update_map_run().await,
            "CreateActivity" => self.create_activity().await,
            "DescribeActivity" => self.describe_activity().await,
            "ListActivities" => self.list_activities().await,
            "DeleteActivity" => self.delete_activity().await,
            "GetActivityTask" => self.get_task().await,
            "SendTaskSuccess" => self.task_succeeded().await,
            "SendTaskFailure" => self.task_failed().await,
            "SendTaskHeartbeat" => self.task_alive().await,
            "TagResource" => self.tag().await,
            "UntagResource" => self.untag().await,
            "ListTagsForResource" => self.list_tags().await,
            _ => Err(Fault::unknown_operation()),
        }
    }

    /// A member of the request that is a text.
    pub fn maybe(&self, member: &str) -> Result<Option<&str>, Fault> {
        match self.input.get(member) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Fault::new(
                "SerializationException",
                format!("{member} is not a string"),
            )),
        }
    }

    pub fn whole(&self) -> &Value {
        &self.input
    }

    pub fn text(&self, member: &str) -> Result<&str, Fault> {
        self.maybe(member)?.ok_or_else(|| Fault::absent(member))
    }

    pub fn flag(&self, member: &str) -> bool {
        self.input.get(member).and_then(Value::as_bool).unwrap_or(false)
    }

    /// `includedData`: is nothing but metadata wanted? On AWS that needs no key to decrypt the rest.
    pub fn metadata_only(&self) -> Result<bool, Fault> {
        match self.maybe("includedData")? {
            None | Some("ALL_DATA") => Ok(false),
            Some("METADATA_ONLY") => Ok(true),
            Some(other) => Err(Fault::validation(format!(
                "1 validation error detected: Value '{other}' at 'includedData' failed to satisfy constraint: Member must \
                 satisfy enum value set: [ALL_DATA, METADATA_ONLY]"
            ))),
        }
    }

    /// Refuses a key for what is kept: nothing here would use it.
    pub fn unencrypted(&self) -> Result<(), Fault> {
        let wanted = self.value("encryptionConfiguration");
        match wanted["type"].as_str() {
            None | Some("AWS_OWNED_KEY") => Ok(()),
            Some(_) => Err(Fault::new(
                "InvalidEncryptionConfiguration",
                "There is no KMS here: what state machines keep is as safe as the platform's data directory. Leave \
                 encryptionConfiguration out, or say AWS_OWNED_KEY.",
            )),
        }
    }

    pub fn value(&self, member: &str) -> &Value {
        self.input.get(member).unwrap_or(&Value::Null)
    }

    /// `maxResults`: 0 and absent stand for 100; never more than 1000.
    pub fn most(&self) -> Result<u32, Fault> {
        match self.input.get("maxResults") {
            None | Some(Value::Null) => Ok(100),
            Some(value) => match value.as_u64() {
                Some(0) => Ok(100),
                Some(most @ 1..=1000) => Ok(most as u32),
                _ => Err(Fault::validation(
                    "1 validation error detected: Value at 'maxResults' failed to satisfy constraint: \
                     Member must have value less than or equal to 1000",
                )),
            },
        }
    }

    /// `nextToken` of a list that goes by numbers.
    pub fn number_token(&self) -> Result<Option<u64>, Fault> {
        let read = |text: &str| {
            text.parse()
                .map_err(|_| Fault::new("InvalidToken", format!("Invalid Token: '{text}'")))
        };
        self.maybe("nextToken")?.map(read).transpose()
    }

    pub fn by(&self) -> By {
        self.state.by(&self.who)
    }

    /// The tenant that things without an ARN are for.
    pub async fn owner(&self) -> Result<Owner, Fault> {
        let tenant = self.who.tenant.clone().or_else(|| self.named.clone());
        let tenant = tenant.ok_or_else(|| {
            Fault::validation(
                "you belong to no tenant: say whose things you mean in the header X-Vend-Tenant",
            )
        })?;
        self.allow(&tenant)?;
        let own = tenant.clone();
        let account = self.state.store.read(move |db| db.tenant_number(&own)).await;
        match account {
            Ok(account) => Ok(Owner { tenant, account }),
            Err(store::Error::Missing { .. }) => Err(Fault::denied(format!("there is no tenant {tenant}"))),
            Err(error) => Err(error.into()),
        }
    }

    /// Whose thing an ARN names. `None`: nobody's that the caller may know of.
    pub async fn arn(&self, text: &str) -> Result<(Option<Owner>, Kind), Fault> {
        let Arn { account, kind } = Arn::parse(text)?;
        let tenant = self
            .state
            .store
            .read(move |db| db.tenant_numbered(account))
            .await?;
        let theirs = |tenant: &TenantName| self.who.tenant.as_ref().is_none_or(|own| own == tenant);
        let Some(tenant) = tenant.filter(theirs) else {
            return Ok((None, kind));
        };
        self.allow(&tenant)?;
        Ok((Some(Owner { tenant, account }), kind))
    }

    fn allow(&self, tenant: &TenantName) -> Result<(), Fault> {
        if decide(&self.who, self.action, Some(tenant)) {
            return Ok(());
        }
        let (actor, action) = (&self.who.actor, self.action);
        Err(Fault::denied(format!(
            "{actor} may not do this ({action:?}) in tenant {tenant}"
        )))
    }
}

/// A time as the protocol has it: seconds since 1970, with three decimals.
pub fn seconds(at: Timestamp) -> Value {
    (at.as_millisecond() as f64 / 1000.0).into()
}

/// A page: the items under `name`, and the token of the next one if there is one.
pub fn page(name: &str, items: Vec<Value>, next: Option<String>) -> Value {
    let mut page = serde_json::Map::new();
    page.insert(name.into(), items.into());
    if let Some(next) = next {
        page.insert("nextToken".into(), next.into());
    }
    page.into()
}
