//! Whoever measures tells how alarms are and sees nothing; what they keep from going on is for developers.

use super::{Case, DEVELOPERS, EVERYBODY, Foreigner::NotFound, case};
use axum::http::Method;
use model::policy::Role::{self, Developer, Monitor, Operator};
use serde_json::json;

const TELLERS: &[Role] = &[Operator, Developer, Monitor];

pub(super) fn cases() -> Vec<Case> {
    let all = "/v1/tenants/acme/alarms";
    let one = "/v1/tenants/acme/alarms/errors";
    vec![
        case("alarms.list", Method::GET, all, NotFound, EVERYBODY),
        case("alarms.set", Method::PUT, one, NotFound, TELLERS)
            .body(json!({ "state": "alarm", "reason": "7 % fail" })),
        case("alarms.receive", Method::POST, all, NotFound, TELLERS)
            .body(json!({ "alerts": [{ "status": "firing", "labels": { "alertname": "errors" } }] })),
        case(
            "alarms.ignore",
            Method::POST,
            "/v1/tenants/acme/alarms/errors/ignore",
            NotFound,
            DEVELOPERS,
        )
        .body(json!({ "for_s": 60, "reason": "the fix" })),
        case("alarms.remove", Method::DELETE, one, NotFound, DEVELOPERS),
    ]
}
