//! The Flow port on Step Functions.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, body::Bytes};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use model::port::{Fault, Flow, FlowOrder, FlowState, FlowTask};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use crate::sign::{Credentials, sign};

/// Longer than GetActivityTask waits.
const PATIENCE: Duration = Duration::from_secs(70);
/// Bytes of an answer: a page of a history has a thousand events.
const ANSWER: usize = 64 << 20;

/// Step Functions at an endpoint.
pub struct Steps {
    /// `127.0.0.1:7070`
    authority: String,
    path: String,
    credentials: Credentials,
    clock: fn() -> Timestamp,
}

impl Steps {
    /// `endpoint`: such as `http://127.0.0.1:7070/states`. Fails when it is not a plain HTTP address.
    pub fn new(endpoint: &str, credentials: Credentials, clock: fn() -> Timestamp) -> Result<Self, Fault> {
        let rest = endpoint
            .strip_prefix("http://")
            .ok_or_else(|| Fault::order(format!("{endpoint} does not start with http://")))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        Ok(Self {
            authority: authority.to_owned(),
            path: format!("/{path}"),
            credentials,
            clock,
        })
    }

    /// One call; what AWS refuses is a fault of the order, under the exception's name.
    async fn call(&self, operation: &str, input: Value) -> Result<Value, Refused> {
        let exchange = timeout(PATIENCE, self.exchange(operation, input.to_string().into_bytes()));
        let broken = |why: String| Refused::Broken(Fault::platform(format!("{}: {why}", self.authority)));
        let (is_ok, bytes) = exchange
            .await
            .map_err(|_| broken("it does not answer".into()))?
            .map_err(|error| broken(error.to_string()))?;
        let answer: Value = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
        if is_ok {
            return Ok(answer);
        }
        let text = |member: &str| answer[member].as_str().unwrap_or_default().to_owned();
        let name = text("__type");
        let name = name.rsplit('#').next().unwrap_or_default().to_owned();
        Err(Refused::Exception(name, text("message")))
    }

    async fn exchange(
        &self,
        operation: &str,
        body: Vec<u8>,
    ) -> Result<(bool, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let target = format!("AWSStepFunctions.{operation}");
        let headers = [
            ("content-type", "application/x-amz-json-1.0"),
            ("host", self.authority.as_str()),
            ("x-amz-target", target.as_str()),
        ];
        let at = (self.clock)();
        let signed = sign(&self.credentials, "states", &self.path, &headers, &body, at);
        let mut request = Request::post(&self.path);
        for (name, value) in headers
            .into_iter()
            .chain(signed.iter().map(|(name, value)| (*name, value.as_str())))
        {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let stream = TcpStream::connect(&self.authority).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender and the body; both are of this call.
        tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let is_ok = response.status().is_success();
        let body = Limited::new(response.into_body(), ANSWER).collect().await?;
        Ok((is_ok, body.to_bytes()))
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
