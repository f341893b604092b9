//! One foundation's account and region, and who calls there.

use serde::Serialize;
use tokio::sync::OnceCell;

use crate::{
    bucket, call,
    client::{Client, Error, Form},
    mark::Mark,
    stack::{self, Stack},
};

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Caller {
    pub account: String,
    pub arn: String,
}

/// Where a foundation is.
pub struct Site {
    pub client: Client,
    caller: OnceCell<Caller>,
}

impl Site {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            caller: OnceCell::new(),
        }
    }

    /// Asked once, and only when somebody needs it.
    pub async fn caller(&self) -> Result<&Caller, Error> {
        let ask = async || {
            let answer = self.client.query(&call::CALLER, Form::default()).await?;
            Ok(Caller {
                account: answer.text("Account").to_owned(),
                arn: answer.text("Arn").to_owned(),
            })
        };
        self.caller.get_or_try_init(ask).await
    }

    /// The ARN of a state machine.
    pub async fn machine(&self, name: &str) -> Result<String, Error> {
        let account = &self.caller().await?.account;
        let (partition, region) = (self.client.partition(), self.client.region());
        Ok(format!(
            "arn:{partition}:states:{region}:{account}:stateMachine:{name}"
        ))
    }

    /// The bucket of a foundation's templates.
    pub async fn templates(&self, platform: &str, foundation: &str) -> Result<String, Error> {
        let account = &self.caller().await?.account;
        let region = self.client.region();
        Ok(format!("{platform}-{foundation}-templates-{account}-{region}"))
    }

    /// Puts something into the bucket of a foundation's templates.
    pub async fn put(
        &self,
        platform: &str,
        foundation: &str,
        key: &str,
        bytes: Vec<u8>,
    ) -> Result<(), Error> {
        let bucket = self.templates(platform, foundation).await?;
        bucket::put(&self.client, &bucket, key, bytes).await
    }

    /// Does the account have the foundation's roles? They are the account's, whatever the region. Who may not ask does not know.
    pub async fn has_roles(&self, platform: &str, foundation: &str) -> bool {
        let mut form = Form::default();
        form.add("RoleName", &role_name(platform, foundation));
        self.client.query(&call::ROLE, form).await.is_ok()
    }

    /// The role with which CloudFormation makes environments.
    pub async fn stacks_role(&self, platform: &str, foundation: &str) -> Result<String, Error> {
        let account = &self.caller().await?.account;
        let partition = self.client.partition();
        Ok(format!(
            "arn:{partition}:iam::{account}:role/{platform}/{}",
            role_name(platform, foundation)
        ))
    }
}

/// Of the role with which CloudFormation makes environments.
fn role_name(platform: &str, foundation: &str) -> String {
    format!("{platform}-{foundation}-stacks")
}

/// A stack that is there, with what it says about itself.
pub struct Found {
    pub stack: Stack,
    pub mark: Option<Mark>,
}

/// All stacks of the site's region.
pub async fn found(site: &Site) -> Result<Vec<Found>, Error> {
    let all = stack::all(&site.client).await?;
    Ok(all.into_iter().map(Found::from).collect())
}

impl From<Stack> for Found {
    fn from(stack: Stack) -> Self {
        let outputs = stack.outputs.iter().map(|output| (&*output.id, &*output.value));
        let mark = Mark::read(outputs);
        // One whose creation failed has none; it is in the way of the next, and of a limit, all the same.
        let is_born = !stack.status.is_stillborn();
        let mark = mark.or_else(|| Mark::of_tags(&stack.tags).filter(|_| !is_born));
        Self { stack, mark }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::Kind;

    #[test]
    fn whose_a_stack_is_whose_creation_failed_is_said_by_its_tags() {
        let of = |status: &str| {
            let mut stack = Stack::fixture(status);
            let tags = [
                ("platform", "vend"),
                ("foundation", "f"),
                ("kind", "environment"),
                ("app", "shop"),
            ];
            stack.tags = tags
                .map(|(key, value)| (format!("vend:{key}"), value.to_owned()))
                .to_vec();
            Found::from(stack).mark
        };
        let mark = of("ROLLBACK_COMPLETE").unwrap();
        assert_eq!(
            (mark.kind, mark.app.as_deref()),
            (Kind::Environment, Some("shop"))
        );
        // What stands says it itself, or is of somebody who gives the same tags.
        assert_eq!(of("CREATE_COMPLETE"), None);
    }
}
