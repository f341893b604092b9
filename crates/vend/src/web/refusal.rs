//! Why a request is not done. One shape for every reason: problem+json (RFC 9457).

use std::collections::BTreeMap;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use model::{
    Problem,
    port::{Blame, Fault},
    wire::ProblemDetails,
};
use utoipa::{
    PartialSchema as _,
    openapi::{ContentBuilder, RefOr, ResponseBuilder},
};

/// The kinds of refusals. Each has a status of its own or shares one with a kind that needs the same remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Invalid,
    Unauthenticated,
    Forbidden,
    NotFound,
    NotAllowed,
    Conflict,
    TooLarge,
    Unprocessable,
    Internal,
    Unavailable,
    Busy,
}

impl Kind {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Invalid => (
                StatusCode::BAD_REQUEST,
                "invalid-request",
                "The request is not valid",
            ),
            Self::Unauthenticated => (
                StatusCode::UNAUTHORIZED,
                "unauthenticated",
                "Who you are is not known",
            ),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "You may not do this"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "There is no such thing"),
            Self::NotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "This cannot be done with it",
            ),
            Self::Conflict => (StatusCode::CONFLICT, "conflict", "It is not possible now"),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                "The request is too large",
            ),
            Self::Unprocessable => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "unprocessable",
                "What was asked for cannot be done",
            ),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "The platform failed",
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "A part of the platform cannot be reached",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "Too much is asked at once",
            ),
        }
    }
}

/// A request that is not done: what kind, why, and the next command to type.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub kind: Kind,
    pub detail: String,
    pub next: Option<String>,
    pub problems: Vec<Problem>,
}

impl Refusal {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            next: None,
            problems: Vec::new(),
        }
    }

    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, detail)
    }

    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, detail)
    }

    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, detail)
    }

    /// The same words for what is not there and for what the caller must not know of.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(Kind::NotFound, format!("there is no {what} that you may see"))
    }

    /// A failure of the platform itself. The cause goes to the log, not to the caller.
    pub fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = chain(cause), "a request failed");
        Self::new(
            Kind::Internal,
            "the platform could not do it; its log has the cause under the id of this request",
        )
    }

    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    fn details(self, request: Option<String>) -> ProblemDetails {
        let (status, name, title) = self.kind.parts();
        ProblemDetails {
            r#type: format!("urn:vend:problem:{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail,
            next: self.next,
            request,
            problems: self.problems,
        }
    }

    /// The answer, with the id of the request in it.
    pub fn answer(self, request: Option<String>) -> Response {
        let (status, ..) = self.kind.parts();
        let mut response = (status, Json(self.details(request))).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::UNAUTHORIZED {
            // Both schemes: programs send bearer tokens, git sends Basic with the token as password.
            headers.append(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"vend\", charset=\"UTF-8\""),
            );
            headers.append(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"vend\""),
            );
        }
        response
    }
}

impl IntoResponse for Refusal {
    /// The outermost layer renders it again with the id of the request, which is not known here.
    fn into_response(self) -> Response {
        let mut response = self.clone().answer(None);
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        let kind = match fault.blame {
            Blame::Customer => Kind::Unprocessable,
            Blame::Order => Kind::Conflict,
            Blame::Platform => Kind::Unavailable,
        };
        Self {
            next: fault.next,
            ..Self::new(kind, fault.message)
        }
    }
}

/// The message of an error and of everything that caused it.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// The command that shows which there are.
fn listing(what: &str, name: &str) -> Option<String> {
    let list = match what {
        "tenant" => "vend tenants list".to_owned(),
        "app" => "vend apps list".to_owned(),
        "execution" => "vend executions list".to_owned(),
        "approval" => "vend approvals list".to_owned(),
        "host" => "vend hosts list".to_owned(),
        "deployment" => "vend deployments list TENANT/APP/ENVIRONMENT".to_owned(),
        "image" => "vend images list".to_owned(),
        "environment" => {
            let mut parts = name.split('/');
            format!("vend environments list {}/{}", parts.next()?, parts.next()?)
        }
        _ => return None,
    };
    Some(list)
}

impl From<store::Error> for Refusal {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Missing { what, name } => {
                let refusal = Self::not_found(format_args!("{what} `{name}`"));
                Self {
                    next: listing(what, &name),
                    ..refusal
                }
            }
            store::Error::Exists { .. } => Self::conflict(error.to_string()),
            store::Error::Refused { message, next } => Self {
                next,
                ..Self::conflict(message)
            },
            other => Self::internal(&other),
        }
    }
}

impl utoipa::IntoResponses for Refusal {
    /// Every operation may be refused, always in the same shape.
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let content = ContentBuilder::new()
            .schema(Some(ProblemDetails::schema()))
            .build();
        let response = |description: &str| {
            let built = ResponseBuilder::new()
                .description(description)
                .content("application/problem+json", content.clone());
            RefOr::T(built.build())
        };
        BTreeMap::from([
            ("4XX".to_owned(), response("The request is refused")),
            ("5XX".to_owned(), response("The platform failed")),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_comes_with_the_list_of_what_is() {
        let next = |what: &'static str, name: &str| {
            Refusal::from(store::Error::Missing {
                what,
                name: name.to_owned(),
            })
            .next
        };
        assert_eq!(next("app", "acme/shop").as_deref(), Some("vend apps list"));
        assert_eq!(
            next("environment", "acme/shop/dev").as_deref(),
            Some("vend environments list acme/shop")
        );
        assert_eq!(next("environment", "dev"), None);
        assert_eq!(next("activity", "x"), None);
    }
}
