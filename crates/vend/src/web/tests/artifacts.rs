//! What builds left is given to those who may see their execution, by the build and the name alone.

use axum::http::{Method, StatusCode};
use model::{Digest, policy::Role::Developer};

use super::world::{World, execution};

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_is_the_build_s_that_is_named() {
    let world = World::new().await;
    let who = world.bearer(Developer, Some("acme")).await;
    let at =
        |build: u64, query: &str| format!("/v1/executions/{}/builds/{build}/artifact{query}", execution());
    for (uri, expected) in [
        (at(1, ""), Ok("main")),
        (at(1, "?name=docs"), Ok("docs")),
        (at(1, "?name=main"), Err("there is no artifact `main` of build 1")),
        (at(1, "?name=swept"), Err("not kept any more")),
        (at(2, ""), Err("there is no build 2")),
    ] {
        let (status, answer) = world.ask(&who, Method::GET, &uri, None).await;
        match expected {
            Ok(object) => {
                assert_eq!(status, StatusCode::OK, "{uri}: {answer}");
                assert_eq!(answer, Digest::of(object).to_string(), "{uri}");
            }
            Err(why) => {
                assert_eq!(status, StatusCode::NOT_FOUND, "{uri}: {answer}");
                assert!(
                    answer["detail"].as_str().unwrap().contains(why),
                    "{uri}: {answer}"
                );
            }
        }
    }
}
