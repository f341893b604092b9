//! Moves are the platform's operator's: it is their load balancer that speaks to hosts elsewhere.

use super::{Case, EVERYBODY, Foreigner::NotFound, case};
use axum::http::Method;
use serde_json::json;

pub(super) fn cases(environment: &str) -> Vec<Case> {
    let (get, post, put, delete) = (|| Method::GET, || Method::POST, || Method::PUT, || Method::DELETE);
    vec![
        case(
            "environments.move.show",
            get(),
            &format!("{environment}/move"),
            NotFound,
            EVERYBODY,
        ),
        case(
            "environments.move.begin",
            post(),
            &format!("{environment}/move"),
            NotFound,
            &[],
        )
        .body(json!({ "host": "shop.aws.example" }))
        .status(201),
        case(
            "environments.move.forward",
            put(),
            &format!("{environment}/move"),
            NotFound,
            &[],
        )
        .body(json!({ "share": 10 })),
        case(
            "environments.move.dump",
            post(),
            &format!("{environment}/move/dump"),
            NotFound,
            &[],
        ),
        case(
            "environments.move.load",
            put(),
            &format!("{environment}/move/load"),
            NotFound,
            &[],
        ),
        case(
            "environments.move.arrived",
            post(),
            &format!("{environment}/move/arrived"),
            NotFound,
            &[],
        )
        .body(json!({ "counted": "2 tables" })),
        case(
            "environments.move.finish",
            post(),
            &format!("{environment}/move/finish"),
            NotFound,
            &[],
        )
        .status(202),
        case(
            "environments.move.reopen",
            post(),
            &format!("{environment}/move/reopen"),
            NotFound,
            &[],
        )
        .status(202),
        case(
            "environments.move.end",
            delete(),
            &format!("{environment}/move?lose_writes=true"),
            NotFound,
            &[],
        )
        .status(204),
    ]
}
