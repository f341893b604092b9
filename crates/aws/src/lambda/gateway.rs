//! What an HTTP API hands to a function, and takes from it: payload format 2.0.
//!
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// A request as the API saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `POST`
    pub method: String,
    /// Without the query, as it was sent.
    pub path: String,
    /// Names are in small letters. A header that stood twice is one, with a comma.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// None when the event is not a request of an HTTP API.
    pub fn read(event: &Value) -> Option<Self> {
        if event["version"] != "2.0" {
            return None;
        }
        let body = event["body"].as_str().unwrap_or_default();
        let body = match event["isBase64Encoded"].as_bool() {
            Some(true) => STANDARD.decode(body).ok()?,
            _ => body.as_bytes().to_vec(),
        };
        let headers = event["headers"].as_object().into_iter().flatten();
        let headers = headers.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        Some(Self {
            method: event["requestContext"]["http"]["method"].as_str()?.to_owned(),
            path: event["rawPath"].as_str()?.to_owned(),
            headers: headers.collect(),
            body,
        })
    }
}

/// What the caller gets: JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub status: u16,
    pub body: Value,
}

impl Response {
    pub fn new(status: u16, body: Value) -> Self {
        Self { status, body }
    }

    /// As the API takes it.
    pub fn event(&self) -> Value {
        json!({
            "statusCode": self.status,
            "headers": { "content-type": "application/json" },
            "body": self.body.to_string(),
            "isBase64Encoded": false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Value {
        json!({
            "version": "2.0",
            "routeKey": "POST /webhooks",
            "rawPath": "/webhooks",
            "rawQueryString": "",
            "headers": { "content-type": "application/json", "x-github-event": "push" },
            "requestContext": { "http": { "method": "POST", "path": "/webhooks", "sourceIp": "192.0.2.1" } },
            "body": "e30=",
            "isBase64Encoded": true,
        })
    }

    #[test]
    fn a_body_is_what_was_sent() {
        let request = Request::read(&event()).unwrap();
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", "/webhooks")
        );
        assert_eq!(request.body, b"{}");
        assert!(
            request
                .headers
                .contains(&("x-github-event".into(), "push".into()))
        );
        let mut plain = event();
        plain["isBase64Encoded"] = false.into();
        assert_eq!(Request::read(&plain).unwrap().body, b"e30=");
        plain.as_object_mut().unwrap().remove("body");
        assert_eq!(Request::read(&plain).unwrap().body, b"");
    }

    #[test]
    fn what_is_no_request_is_none() {
        for (key, value) in [
            ("version", json!("1.0")),
            ("body", json!("not base64!")),
            ("requestContext", json!(3)),
            ("rawPath", Value::Null),
        ] {
            let mut event = event();
            event[key] = value;
            assert_eq!(Request::read(&event), None, "{key}");
        }
        assert_eq!(Request::read(&json!({ "kind": "approval" })), None);
    }
}
