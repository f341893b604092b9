//! An environment is closed by who may destroy it, a whole tenant by its operator: who may is told here that AWS serves it too.

use super::{Case, DEVELOPERS, Foreigner::NotFound, OPERATORS, case};
use axum::http::Method;
use serde_json::json;

pub(super) fn cases(environment: &str) -> Vec<Case> {
    let (put, delete) = (|| Method::PUT, || Method::DELETE);
    let (closure, tenant) = (format!("{environment}/closure"), "/v1/tenants/acme/closure");
    vec![
        case("environments.close", put(), &closure, NotFound, DEVELOPERS)
            .body(json!({ "page": "<p>Back at noon" }))
            .status(409),
        case("environments.open", delete(), &closure, NotFound, DEVELOPERS),
        case("tenants.close", put(), tenant, NotFound, OPERATORS)
            .body(json!({}))
            .status(409),
        case("tenants.open", delete(), tenant, NotFound, OPERATORS),
        case(
            "tenants.access",
            put(),
            "/v1/tenants/acme/access",
            NotFound,
            OPERATORS,
        )
        .body(json!({ "deny": ["192.0.2.0/24"] }))
        .status(409),
    ]
}
