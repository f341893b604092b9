//! The Flow port on Step Functions.

use std::time::Duration;

use hyper::Method;
use jiff::Timestamp;
use model::port::{Fault, Flow, FlowOrder, FlowState, FlowTask};
use serde_json::{Value, json};

use crate::{
    client::http::{self, Endpoint},
    sign::{Credentials, Signed, sign},
};

/// Longer than GetActivityTask waits.
const PATIENCE: Duration = Duration::from_secs(70);

/// Step Functions at an endpoint.
pub struct Steps {
    endpoint: Endpoint,
    credentials: Credentials,
    clock: fn() -> Timestamp,
}

impl Steps {
    /// `endpoint`: such as `https://states.eu-central-1.amazonaws.com`, or `http://127.0.0.1:7070/states`. Fails when it is
    /// not an address of HTTP.
    pub fn new(endpoint: &str, credentials: Credentials, clock: fn() -> Timestamp) -> Result<Self, Fault> {
        let wrong = || Fault::order(format!("{endpoint} is not an address of HTTP"));
        Ok(Self {
            endpoint: Endpoint::parse(endpoint).ok_or_else(wrong)?,
            credentials,
            clock,
        })
    }

    /// One call; what AWS refuses is a fault of the order, under the exception's name.
    async fn call(&self, operation: &str, input: Value) -> Result<Value, Refused> {
        let broken =
            |why: String| Refused::Broken(Fault::platform(format!("{}: {why}", self.endpoint.authority)));
        let call = self.request(operation, input.to_string());
        let answer = http::exchange(&self.endpoint, call, PATIENCE)
            .await
            .map_err(broken)?;
        let (is_ok, bytes) = (answer.status < 300, answer.body);
        let answer: Value = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
        if is_ok {
            return Ok(answer);
        }
        let text = |member: &str| answer[member].as_str().unwrap_or_default().to_owned();
        let name = text("__type");
        let name = name.rsplit('#').next().unwrap_or_default().to_owned();
        Err(Refused::Exception(name, text("message")))
    }

    fn request(&self, operation: &str, body: String) -> http::Call {
        let path = match self.endpoint.prefix.as_str() {
            "" => "/",
            prefix => prefix,
        };
        let target = format!("AWSStepFunctions.{operation}");
        let headers = [
            ("content-type", "application/x-amz-json-1.0"),
            ("host", self.endpoint.authority.as_str()),
            ("x-amz-target", target.as_str()),
        ];
        let request = Signed {
            method: "POST",
            path,
            query: "",
            headers: &headers,
            body: body.as_bytes(),
        };
        let signed = sign(&self.credentials, "states", &request, (self.clock)());
        let own = headers.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let headers = own.chain(signed).map(|(name, value)| (name.to_owned(), value));
        http::Call {
            method: Method::POST,
            target: path.to_owned(),
            headers: headers.collect(),
            body: body.into(),
        }
    }
}

enum Refused {
    /// AWS's name of it, and its message.
    Exception(String, String),
    Broken(Fault),
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Exception(name, message) => Fault::order(format!("{name}: {message}")),
            Refused::Broken(fault) => fault,
        }
    }
}

fn text(answer: &Value, member: &str) -> Result<String, Fault> {
    let found = answer[member].as_str().map(str::to_owned);
    found.ok_or_else(|| Fault::platform(format!("the answer has no {member}: {answer}")))
}

fn maybe(answer: &Value, member: &str) -> Option<String> {
    answer[member].as_str().map(str::to_owned)
}

impl Flow for Steps {
    async fn ensure(&self, order: &FlowOrder) -> Result<String, Fault> {
        let new = json!({ "name": order.name, "definition": order.definition, "roleArn": order.role });
        let arn = match self.call("CreateStateMachine", new).await {
            Ok(answer) => text(&answer, "stateMachineArn")?,
            Err(Refused::Exception(name, message)) if name == "StateMachineAlreadyExists" => {
                // The message ends with the ARN, in quotation marks.
                let arn = message.split('\'').find(|part| part.starts_with("arn:"));
                arn.ok_or_else(|| Fault::platform(message.clone()))?.to_owned()
            }
            Err(refused) => return Err(refused.into()),
        };
        // Not everybody who speaks the protocol refuses another definition under the same name.
        let found = self
            .call("DescribeStateMachine", json!({ "stateMachineArn": arn }))
            .await?;
        if found["definition"] != order.definition.as_str() || found["roleArn"] != order.role.as_str() {
            let change =
                json!({ "stateMachineArn": arn, "definition": order.definition, "roleArn": order.role });
            self.call("UpdateStateMachine", change).await?;
        }
        Ok(arn)
    }

    async fn start(&self, machine: &str, name: &str, input: &Value) -> Result<String, Fault> {
        let new = json!({ "stateMachineArn": machine, "name": name, "input": input.to_string() });
        text(&self.call("StartExecution", new).await?, "executionArn")
    }

    async fn state(&self, execution: &str) -> Result<FlowState, Fault> {
        let found = self
            .call("DescribeExecution", json!({ "executionArn": execution }))
            .await?;
        Ok(match found["status"].as_str().unwrap_or_default() {
            "RUNNING" | "PENDING_REDRIVE" => FlowState::Running,
            "SUCCEEDED" => {
                let output = text(&found, "output")?;
                let output = serde_json::from_str(&output)
                    .map_err(|error| Fault::platform(format!("the output is not JSON: {error}")))?;
                FlowState::Succeeded { output }
            }
            "FAILED" => FlowState::Failed {
                error: maybe(&found, "error"),
                cause: maybe(&found, "cause"),
            },
            "TIMED_OUT" => FlowState::TimedOut,
            "ABORTED" => FlowState::Aborted,
            other => return Err(Fault::platform(format!("the status {other} is not known"))),
        })
    }

    async fn stop(&self, execution: &str, cause: &str) -> Result<(), Fault> {
        let stop = json!({ "executionArn": execution, "cause": cause });
        self.call("StopExecution", stop).await?;
        Ok(())
    }

    async fn events(&self, execution: &str) -> Result<Vec<String>, Fault> {
        let mut events = Vec::new();
        let mut ask = json!({ "executionArn": execution, "maxResults": 1000 });
        loop {
            let page = self.call("GetExecutionHistory", ask.clone()).await?;
            let kinds = page["events"].as_array().into_iter().flatten();
            events.extend(kinds.filter_map(|event| maybe(event, "type")));
            match page["nextToken"].as_str() {
                Some(next) => ask["nextToken"] = next.into(),
                None => return Ok(events),
            }
        }
    }

    async fn activity(&self, name: &str) -> Result<String, Fault> {
        text(
            &self.call("CreateActivity", json!({ "name": name })).await?,
            "activityArn",
        )
    }

    async fn poll(&self, activity: &str, worker: &str) -> Result<Option<FlowTask>, Fault> {
        let ask = json!({ "activityArn": activity, "workerName": worker });
        let found = self.call("GetActivityTask", ask).await?;
        let Some(token) = maybe(&found, "taskToken") else {
            return Ok(None);
        };
        let input = serde_json::from_str(&text(&found, "input")?)
            .map_err(|error| Fault::platform(format!("the input is not JSON: {error}")))?;
        Ok(Some(FlowTask { token, input }))
    }

    async fn answer(&self, token: &str, answer: Result<&Value, &Fault>) -> Result<(), Fault> {
        match answer {
            Ok(output) => {
                let done = json!({ "taskToken": token, "output": output.to_string() });
                self.call("SendTaskSuccess", done).await?
            }
            Err(fault) => {
                let done = json!({ "taskToken": token, "error": fault.error_name(), "cause": fault.message });
                self.call("SendTaskFailure", done).await?
            }
        };
        Ok(())
    }
}
