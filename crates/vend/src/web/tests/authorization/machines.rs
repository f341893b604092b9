//! Machines that join are let in by operators: those that run releases by their tenant's, those that build by the platform's.

use super::{
    Case, EVERYBODY,
    Foreigner::{Forbidden, NotFound, SeesNothing},
    OPERATORS, case,
};
use crate::web::tests::world;
use axum::http::Method;
use serde_json::json;

pub(super) fn cases() -> Vec<Case> {
    let (get, post, delete) = (|| Method::GET, || Method::POST, || Method::DELETE);
    let machine = format!("/v1/machines/{}", world::machine());
    let builder = format!("/v1/builders/{}", world::builder());
    vec![
        case(
            "machines.invite",
            post(),
            "/v1/tenants/acme/machines/invitations",
            NotFound,
            OPERATORS,
        )
        .body(json!({ "labels": { "role": "web" } }))
        .status(201),
        case("machines.list", get(), "/v1/machines", SeesNothing, EVERYBODY),
        case("machines.remove", delete(), &machine, NotFound, OPERATORS).status(202),
        case(
            "builders.invite",
            post(),
            "/v1/builders/invitations",
            Forbidden,
            &[],
        )
        .body(json!({ "labels": { "arch": "arm64" }, "tenants": ["acme"] }))
        .status(201),
        case("builders.list", get(), "/v1/builders", Forbidden, &[]),
        case("builders.remove", delete(), &builder, Forbidden, &[]).status(202),
        case(
            "builders.remove",
            delete(),
            &format!("{builder}?now=true"),
            Forbidden,
            &[],
        )
        .status(202),
    ]
}
