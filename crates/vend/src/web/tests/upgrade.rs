//! What was kept by a release that checked less.

use axum::http::StatusCode;
use model::policy::Role::Developer;
use serde_json::json;

use super::{states::call, world::World};

/// A definition that would be refused today, of a machine that was made when it was not.
#[tokio::test]
async fn a_machine_of_before_can_be_started_and_updated() {
    let world = World::new().await;
    let owner = world.bearer(Developer, Some("acme")).await;
    let twice = r#"{"StartAt":"P","States":{"P":{"Type":"Fail"},"P":{"Type":"Pass","End":true}}}"#;
    let role = "arn:aws:iam::1:role/r";
    for (name, kind) in [("kept", "STANDARD"), ("quick", "EXPRESS")] {
        let new = json!({ "name": name, "definition": twice, "roleArn": role, "type": kind });
        let (_, answer) = call(&world, &owner, "CreateStateMachine", &new).await;
        assert_eq!(answer["__type"], "InvalidDefinition", "{answer}");
        let new = store::NewMachine {
            tenant: "acme".parse().unwrap(),
            name: name.into(),
            express: kind == "EXPRESS",
            definition: twice.into(),
            role: role.into(),
            settings: "{}".into(),
            revision: "r".into(),
        };
        let by = store::By::platform(crate::clock::now());
        let made = world
            .state
            .store
            .write(move |tx| tx.create_state_machine(&new, &by));
        made.await.unwrap();
        let (_, all) = call(&world, &owner, "ListStateMachines", &json!({})).await;
        let all = all["stateMachines"].as_array().unwrap();
        let machine = all.iter().find(|machine| machine["name"] == name).unwrap();
        let machine = &machine["stateMachineArn"];
        let start = match kind {
            "EXPRESS" => "StartSyncExecution",
            _ => "StartExecution",
        };
        let other = twice.replace("Fail", "Succeed");
        for (operation, input, wanted) in [
            (start, json!({}), StatusCode::OK),
            (
                "UpdateStateMachine",
                json!({ "roleArn": "arn:aws:iam::1:role/s" }),
                StatusCode::OK,
            ),
            (
                "UpdateStateMachine",
                json!({ "definition": twice }),
                StatusCode::OK,
            ),
            (
                "UpdateStateMachine",
                json!({ "definition": other }),
                StatusCode::BAD_REQUEST,
            ),
        ] {
            let mut input = input;
            input["stateMachineArn"] = machine.clone();
            let (status, answer) = call(&world, &owner, operation, &input).await;
            assert_eq!(status, wanted, "{operation} {input}: {answer}");
        }
    }
}
