//! The receiver: this program as a function of Lambda, where an app's pipeline on AWS hears of pushes. It verifies them as
//! `serve` does, and starts the flows of the branch's environments.
//!
//! It keeps nothing. An execution's name is made from what is signed of a delivery, so that Step Functions itself takes it once,
//! however often it is sent or this function is called for it.

mod push;

use std::{collections::BTreeMap, process::ExitCode, sync::Arc};

use aws::{
    Client, Machine, Source, call, client,
    lambda::{self, Invocation, Request, Response, Runtime},
};
use jiff::{SignedDuration, Timestamp};
use model::{AppName, EnvironmentName, Secret, spec};
use serde::Deserialize;
use serde_json::{Value, json};

/// The name of the program in Lambda: of a custom runtime it is always this.
pub const NAME: &str = "bootstrap";
/// The variable in which the entries of branches are.
pub const PREVIEWS: &str = "VEND_PREVIEWS";
/// How long a secret is used before it is asked for again.
const FRESH: SignedDuration = SignedDuration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the variable {0} is not set, or not as the pipeline's stack sets it")]
    Variable(&'static str),
    #[error(transparent)]
    Runtime(#[from] lambda::Error),
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("the event is no request of the receiver's API")]
    Event,
}

impl Error {
    /// As Lambda is told.
    fn kind(&self) -> &'static str {
        match self {
            Self::Variable(_) => "Vend.Variable",
            Self::Runtime(_) => "Vend.Runtime",
            Self::Client(_) => "Vend.Service",
            Self::Event => "Vend.Event",
        }
    }
}

/// What branches' environments are made from.
#[derive(Debug, Deserialize)]
struct Preview {
    branches: Vec<String>,
    /// Seconds after the last push.
    expires: u64,
    /// Does a push make the stacks? Else people do.
    made: bool,
}

/// What the pipeline's stack tells the function by its variables.
struct Receiver {
    app: AppName,
    /// The ARN of a flow, but for the environment at its end.
    flow: String,
    /// The environments of each branch.
    branches: BTreeMap<String, Vec<EnvironmentName>>,
    /// Branches that fit one of these have an environment of their own.
    previews: Vec<Preview>,
    /// The ARN of the machine that makes it and takes it away.
    branch_machine: String,
    /// Where the secret of webhooks is.
    secret: String,
    client: Client,
    fresh: Option<(Secret, Timestamp)>,
}

/// Answers events until Lambda ends it.
pub fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    say("error", &error.to_string());
    ExitCode::FAILURE
}

async fn run() -> Result<(), Error> {
    let address = variable("AWS_LAMBDA_RUNTIME_API")?;
    let lambda = Runtime::new(&address)?;
    let mut receiver = match Receiver::new() {
        Ok(receiver) => receiver,
        Err(error) => {
            lambda.stillborn(error.kind(), &error.to_string()).await?;
            return Err(error);
        }
    };
    loop {
        let Invocation { id, event } = lambda.next().await?;
        match receiver.take(&event).await {
            Ok(answer) => lambda.answer(&id, &answer.event()).await?,
            Err(error) => {
                say("error", &error.to_string());
                lambda.fail(&id, error.kind(), &error.to_string()).await?;
            }
        }
    }
}

fn variable(name: &'static str) -> Result<String, Error> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.ok_or(Error::Variable(name))
}

/// Lambda changes a function's code and its variables one after the other: this program may find those of an older one,
/// which did not know of this.
fn previews() -> Result<Vec<Preview>, Error> {
    match variable(PREVIEWS) {
        Ok(text) => serde_json::from_str(&text).map_err(|_| Error::Variable(PREVIEWS)),
        Err(_) => Ok(Vec::new()),
    }
}

/// A line of the function's log: JSON, as its log group is set to.
fn say(level: &str, message: &str) {
    eprintln!("{}", json!({ "level": level, "message": message }));
}

impl Receiver {
    fn new() -> Result<Self, Error> {
        let read = |name| -> Result<_, Error> {
            serde_json::from_str(&variable(name)?).map_err(|_| Error::Variable(name))
        };
        let machine = Machine {
            variable: Arc::new(|name| std::env::var(name).ok()),
            now: crate::clock::now,
            bits: crate::clock::bits,
        };
        let source = Arc::new(Source::chain(machine.clone(), None));
        Ok(Self {
            app: variable("VEND_APP")?
                .parse()
                .map_err(|_| Error::Variable("VEND_APP"))?,
            flow: variable("VEND_FLOW")?,
            branches: read("VEND_BRANCHES")?,
            previews: previews()?,
            branch_machine: variable("VEND_BRANCH_MACHINE").unwrap_or_default(),
            secret: variable("VEND_WEBHOOK_SECRET")?,
            client: Client::new(machine, source, &variable("AWS_REGION")?),
            fresh: None,
        })
    }

    /// The environment of a branch that has one of its own, of the first entry that it fits; none where an environment
    /// follows it by name.
    fn own(&self, branch: &str) -> Option<(&Preview, EnvironmentName)> {
        let mut fitting = self.previews.iter();
        let fits = |own: &&Preview| spec::matches_branch(&own.branches, branch);
        let preview = fitting.find(fits).filter(|_| !self.branches.contains_key(branch));
        preview.map(|preview| (preview, spec::name_apart(&self.app, branch)))
    }

    async fn take(&mut self, event: &[u8]) -> Result<Response, Error> {
        let event: Value = serde_json::from_slice(event).map_err(|_| Error::Event)?;
        let request = Request::read(&event).ok_or(Error::Event)?;
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/webhooks") => push::receive(self, &request).await,
            _ => Ok(Response::new(404, json!({ "status": "not found" }))),
        }
    }

    /// The secret of webhooks. It may change at any time, so it is not kept for long.
    async fn secret(&mut self, now: Timestamp) -> Result<Secret, Error> {
        if let Some((secret, at)) = &self.fresh
            && now.duration_since(*at) < FRESH
        {
            return Ok(secret.clone());
        }
        let ask = json!({ "SecretId": self.secret });
        let answer = self.client.json(&call::GET_SECRET, ask).await?;
        let secret = answer["SecretString"].as_str().unwrap_or_default();
        let secret = Secret::new(secret.to_owned());
        self.fresh = Some((secret.clone(), now));
        Ok(secret)
    }
}
