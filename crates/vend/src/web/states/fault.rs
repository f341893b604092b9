//! AWS's exceptions.

use axum::http::StatusCode;
use serde_json::{Value, json};

/// Why a call is refused: the exception's name, and its message.
#[derive(Debug)]
pub struct Fault {
    pub name: &'static str,
    pub message: String,
    /// Further members, such as `reason`.
    pub more: Vec<(&'static str, String)>,
}

impl Fault {
    pub fn new(name: &'static str, message: impl Into<String>) -> Self {
        Self {
            name,
            message: message.into(),
            more: Vec::new(),
        }
    }

    pub fn with(mut self, member: &'static str, value: &str) -> Self {
        self.more.push((member, value.to_owned()));
        self
    }

    pub fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    /// A member that must be there is not.
    pub fn absent(member: &str) -> Self {
        Self::validation(format!(
            "1 validation error detected: Value null at '{member}' failed to satisfy constraint: \
             Member must not be null"
        ))
    }

    pub fn unknown_operation() -> Self {
        Self::new("UnknownOperationException", "the operation is not known")
    }

    pub fn denied(message: impl Into<String>) -> Self {
        Self::new("AccessDeniedException", message)
    }

    pub fn arn(text: &str) -> Self {
        Self::new("InvalidArn", format!("Invalid Arn: 'Invalid ARN prefix: {text}'"))
    }

    pub fn machine(arn: &str) -> Self {
        Self::new(
            "StateMachineDoesNotExist",
            format!("State Machine Does Not Exist: '{arn}'"),
        )
    }

    pub fn execution(arn: &str) -> Self {
        Self::new(
            "ExecutionDoesNotExist",
            format!("Execution Does Not Exist: '{arn}'"),
        )
    }

    pub fn activity(arn: &str) -> Self {
        Self::new(
            "ActivityDoesNotExist",
            format!("Activity Does Not Exist: '{arn}'"),
        )
    }

    pub fn resource(arn: &str) -> Self {
        Self::new("ResourceNotFound", format!("Resource not found: '{arn}'")).with("resourceName", arn)
    }

    pub fn name(text: &str) -> Self {
        Self::new("InvalidName", format!("Invalid Name: '{text}'"))
    }

    /// Is it the platform that could not, so that asking again may help?
    pub fn is_ours(&self) -> bool {
        matches!(self.name, "InternalFailure" | "ServiceUnavailable")
    }

    pub fn status(&self) -> StatusCode {
        match self.name {
            "InternalFailure" => StatusCode::INTERNAL_SERVER_ERROR,
            "ServiceUnavailable" => StatusCode::SERVICE_UNAVAILABLE,
            "MissingAuthenticationToken" | "UnrecognizedClientException" | "InvalidSignatureException" => {
                StatusCode::FORBIDDEN
            }
            _ => StatusCode::BAD_REQUEST,
        }
    }

    pub fn body(&self) -> Value {
        let mut body = json!({ "__type": self.name, "message": self.message });
        for (member, value) in &self.more {
            body[*member] = value.as_str().into();
        }
        body
    }
}

impl From<store::Error> for Fault {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Refused { message, .. } => Self::new("ConflictException", message),
            other => {
                tracing::error!(
                    error = &other as &dyn std::error::Error,
                    "the store did not do its part"
                );
                Self::new(
                    "InternalFailure",
                    "the platform has a fault; its log has the cause",
                )
            }
        }
    }
}

impl From<engine::Error> for Fault {
    fn from(error: engine::Error) -> Self {
        match error {
            engine::Error::Token => Self::new("InvalidToken", "Invalid Token: 'Invalid token'"),
            engine::Error::TaskGone => Self::new(
                "TaskTimedOut",
                "Task Timed Out: 'Provided task does not exist anymore'",
            ),
            full @ engine::Error::Full(_) => Self::new("ThrottlingException", full.to_string()),
            // Its tenant went meanwhile.
            engine::Error::Refused(error) => Self::denied(error.to_string()),
            other => {
                tracing::error!(
                    error = &other as &dyn std::error::Error,
                    "the engine did not do its part"
                );
                Self::new("ServiceUnavailable", "the engine could not keep it; try again")
            }
        }
    }
}
