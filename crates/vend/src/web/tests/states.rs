//! The Step Functions API: who may do what, and the clients that people have.

use std::{collections::BTreeSet, net::ToSocketAddrs as _};

use axum::{
    Extension,
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode},
};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use model::policy::{
    Action,
    Role::{Approver, Auditor, Developer, Operator},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::world::{Who, World};
use crate::{
    flow::deletion,
    states::draw::{Drawing, Statuses, Tint},
    web::{self, listen::Peer, states::OPERATIONS},
};

/// One call with a token, or without.
pub async fn call(world: &World, who: &Who, operation: &str, input: &Value) -> (StatusCode, Value) {
    let mut request = Request::post("/")
        .header("x-amz-target", format!("AWSStepFunctions.{operation}"))
        .header("content-type", "application/x-amz-json-1.0");
    if let Who::Bearer(token) = who {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let peer = match who {
        Who::User(uid) => Peer::Local { uid: *uid },
        _ => Peer::Remote(([127, 0, 0, 1], 9).into()),
    };
    if matches!(who, Who::User(0)) {
        request = request.header("x-vend-tenant", "acme");
    }
    let router = web::router(world.state.clone()).layer(Extension(peer));
    let request = request.body(Body::from(input.to_string())).unwrap();
    let response = TowerToHyperService::new(router).call(request).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 10 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap())
}

const PASS: &str = r#"{"StartAt":"P","States":{"P":{"Type":"Pass","End":true}}}"#;

struct Things {
    machine: String,
    quick: String,
    alias: String,
    version: String,
    free: String,
    activity: String,
    execution: String,
    token: String,
    mapper: String,
    run: String,
}

/// What acme has: a machine with versions and an alias, an activity, an execution whose task a worker has.
async fn things(world: &World, owner: &Who) -> Things {
    let make = |operation: &'static str, input: Value, member: &'static str| async move {
        let (status, answer) = call(world, owner, operation, &input).await;
        assert_eq!(status, StatusCode::OK, "{operation}: {answer}");
        answer[member].as_str().unwrap_or_default().to_owned()
    };
    let activity = make("CreateActivity", json!({ "name": "work" }), "activityArn").await;
    let work =
        json!({ "StartAt": "W", "States": { "W": { "Type": "Task", "Resource": activity, "End": true } } });
    let role = "arn:aws:iam::1:role/r";
    let new = json!({ "name": "m", "definition": work.to_string(), "roleArn": role });
    let machine = make("CreateStateMachine", new, "stateMachineArn").await;
    let new = json!({ "name": "q", "definition": PASS, "roleArn": role, "type": "EXPRESS" });
    let quick = make("CreateStateMachine", new, "stateMachineArn").await;
    let of = json!({ "stateMachineArn": machine });
    let version = make("PublishStateMachineVersion", of.clone(), "stateMachineVersionArn").await;
    let change = json!({ "stateMachineArn": machine, "roleArn": "arn:aws:iam::1:role/s", "publish": true });
    let free = make("UpdateStateMachine", change, "stateMachineVersionArn").await;
    let routes = json!([{ "stateMachineVersionArn": version, "weight": 100 }]);
    let alias = json!({ "name": "live", "routingConfiguration": routes });
    let alias = make("CreateStateMachineAlias", alias, "stateMachineAliasArn").await;
    let execution = make("StartExecution", of, "executionArn").await;
    let token = make("GetActivityTask", json!({ "activityArn": activity }), "taskToken").await;
    let wait = json!({ "StartAt": "W", "States": { "W": { "Type": "Wait", "Seconds": 3600, "End": true } },
        "ProcessorConfig": { "Mode": "DISTRIBUTED", "ExecutionType": "STANDARD" } });
    let maps =
        json!({ "StartAt": "M", "States": { "M": { "Type": "Map", "ItemProcessor": wait, "End": true } } });
    let new = json!({ "name": "maps", "definition": maps.to_string(), "roleArn": role });
    let maps = make("CreateStateMachine", new, "stateMachineArn").await;
    let of = json!({ "stateMachineArn": maps, "input": "[1, 2]" });
    let mapper = make("StartExecution", of, "executionArn").await;
    let (_, runs) = call(world, owner, "ListMapRuns", &json!({ "executionArn": mapper })).await;
    let run = runs["mapRuns"][0]["mapRunArn"].as_str().unwrap().to_owned();
    Things {
        machine,
        quick,
        alias,
        version,
        free,
        activity,
        execution,
        token,
        mapper,
        run,
    }
}

/// For each operation: what is asked, and what an outsider is told. `None`: it is about the caller's own things only.
fn cases(things: &Things) -> Vec<(&'static str, Value, Option<&'static str>)> {
    let Things {
        machine,
        quick,
        alias,
        version,
        free,
        activity,
        execution,
        token,
        mapper,
        run,
    } = things;
    let (no_machine, no_execution) = (Some("StateMachineDoesNotExist"), Some("ExecutionDoesNotExist"));
    let (no_activity, no_resource) = (Some("ActivityDoesNotExist"), Some("ResourceNotFound"));
    let routes = json!([{ "stateMachineVersionArn": version, "weight": 100 }]);
    let role = "arn:aws:iam::1:role/r";
    vec![
        (
            "CreateStateMachine",
            json!({ "name": "n", "definition": PASS, "roleArn": role }),
            None,
        ),
        (
            "UpdateStateMachine",
            json!({ "stateMachineArn": machine, "roleArn": role }),
            no_machine,
        ),
        (
            "DescribeStateMachine",
            json!({ "stateMachineArn": machine }),
            no_machine,
        ),
        ("ListStateMachines", json!({}), None),
        (
            "ValidateStateMachineDefinition",
            json!({ "definition": PASS }),
            None,
        ),
        (
            "PublishStateMachineVersion",
            json!({ "stateMachineArn": machine }),
            no_machine,
        ),
        (
            "ListStateMachineVersions",
            json!({ "stateMachineArn": machine }),
            no_machine,
        ),
        (
            "CreateStateMachineAlias",
            json!({ "name": "next", "routingConfiguration": routes }),
            no_machine,
        ),
        (
            "UpdateStateMachineAlias",
            json!({ "stateMachineAliasArn": alias, "description": "d" }),
            no_resource,
        ),
        (
            "DescribeStateMachineAlias",
            json!({ "stateMachineAliasArn": alias }),
            no_resource,
        ),
        (
            "ListStateMachineAliases",
            json!({ "stateMachineArn": machine }),
            no_machine,
        ),
        (
            "StartExecution",
            json!({ "stateMachineArn": machine }),
            no_machine,
        ),
        (
            "StartSyncExecution",
            json!({ "stateMachineArn": quick }),
            no_machine,
        ),
        (
            "DescribeExecution",
            json!({ "executionArn": execution }),
            no_execution,
        ),
        (
            "DescribeStateMachineForExecution",
            json!({ "executionArn": execution }),
            no_execution,
        ),
        (
            "ListExecutions",
            json!({ "stateMachineArn": machine }),
            no_machine,
        ),
        (
            "GetExecutionHistory",
            json!({ "executionArn": execution }),
            no_execution,
        ),
        ("ListMapRuns", json!({ "executionArn": mapper }), no_execution),
        ("ListExecutions", json!({ "mapRunArn": run }), no_resource),
        ("DescribeMapRun", json!({ "mapRunArn": run }), no_resource),
        (
            "UpdateMapRun",
            json!({ "mapRunArn": run, "maxConcurrency": 2 }),
            no_resource,
        ),
        ("CreateActivity", json!({ "name": "other" }), None),
        (
            "DescribeActivity",
            json!({ "activityArn": activity }),
            no_activity,
        ),
        ("ListActivities", json!({}), None),
        ("GetActivityTask", json!({ "activityArn": activity }), no_activity),
        (
            "TagResource",
            json!({ "resourceArn": machine, "tags": [{ "key": "a", "value": "b" }] }),
            no_resource,
        ),
        (
            "UntagResource",
            json!({ "resourceArn": machine, "tagKeys": ["a"] }),
            no_resource,
        ),
        (
            "ListTagsForResource",
            json!({ "resourceArn": machine }),
            no_resource,
        ),
        (
            "SendTaskHeartbeat",
            json!({ "taskToken": token }),
            Some("TaskTimedOut"),
        ),
        (
            "SendTaskFailure",
            json!({ "taskToken": token }),
            Some("TaskTimedOut"),
        ),
        (
            "SendTaskSuccess",
            json!({ "taskToken": token, "output": "{}" }),
            Some("TaskTimedOut"),
        ),
        (
            "StopExecution",
            json!({ "executionArn": execution }),
            no_execution,
        ),
        (
            "RedriveExecution",
            json!({ "executionArn": execution }),
            no_execution,
        ),
        (
            "TestState",
            json!({ "definition": r#"{"Type":"Pass","End":true}"# }),
            None,
        ),
        // What is not theirs is not there, so that it need not be deleted.
        (
            "DeleteStateMachineVersion",
            json!({ "stateMachineVersionArn": free }),
            None,
        ),
        (
            "DeleteStateMachineAlias",
            json!({ "stateMachineAliasArn": alias }),
            no_resource,
        ),
        ("DeleteActivity", json!({ "activityArn": activity }), None),
        ("DeleteStateMachine", json!({ "stateMachineArn": machine }), None),
    ]
}

#[tokio::test]
async fn every_operation_refuses_those_who_may_not() {
    let world = World::new().await;
    let owner = world.bearer(Developer, Some("acme")).await;
    let things = things(&world, &owner).await;
    let cases = cases(&things);
    let known: BTreeSet<&str> = OPERATIONS.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        known,
        cases.iter().map(|(name, ..)| *name).collect(),
        "an operation has no case"
    );
    let foreigner = world.bearer(Operator, Some("other")).await;
    for (operation, input, told) in &cases {
        for who in [&Who::Nobody, &Who::Bearer("vend_00".into()), &Who::User(12345)] {
            let (status, answer) = call(&world, who, operation, input).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{operation} by {who:?}: {answer}");
        }
        let (status, answer) = call(&world, &foreigner, operation, input).await;
        match told {
            Some(name) => assert_eq!(answer["__type"], *name, "{operation}: {answer}"),
            None => assert_eq!(status, StatusCode::OK, "{operation}: {answer}"),
        }
        let acme = ":000000000001:";
        assert!(things.machine.contains(acme), "{}", things.machine);
        let told_of_acme = answer["__type"].is_null() && answer.to_string().contains(acme);
        assert!(!told_of_acme, "{operation}: {answer}");
    }
    for role in [Approver, Auditor] {
        let who = world.bearer(role, Some("acme")).await;
        for (operation, input, _) in &cases {
            let (_, action) = OPERATIONS
                .into_iter()
                .find(|(name, _)| name == operation)
                .unwrap();
            // A definition that is looked at is nobody's.
            let (_, answer) = call(&world, &who, operation, input).await;
            match action {
                Action::View => {
                    assert_eq!(answer["__type"], Value::Null, "{operation} by {role:?}: {answer}")
                }
                _ => assert_eq!(
                    answer["__type"], "AccessDeniedException",
                    "{operation} by {role:?}: {answer}"
                ),
            }
        }
    }
    // Nothing of what was refused has happened.
    let (_, found) = call(
        &world,
        &owner,
        "DescribeExecution",
        &json!({ "executionArn": things.execution }),
    )
    .await;
    assert_eq!(found["status"], "RUNNING");
    let (_, tags) = call(
        &world,
        &owner,
        "ListTagsForResource",
        &json!({ "resourceArn": things.machine }),
    )
    .await;
    assert_eq!(tags, json!({ "tags": [] }));
}

/// Releases run on the same engine, and are no part of anybody's account.
#[tokio::test]
async fn what_the_platform_runs_is_nobodys_to_see_or_to_answer() {
    let world = World::new().await;
    let states = &world.state.states;
    let own = |rest: &str| format!("arn:aws:states:local:000000000000:{rest}");
    let (activity, execution) = (own("activity:source"), own("execution:release:x-1"));
    states.known.add(&activity);
    let task = json!({ "Type": "Task", "Resource": activity, "End": true });
    let definition = json!({ "StartAt": "W", "States": { "W": task } }).to_string();
    let start = engine::Start {
        tenant: None,
        owner: engine::PLATFORM,
        machine: 0,
        machine_arn: own("stateMachine:release"),
        machine_name: "release".into(),
        role: "vend".into(),
        program: asl::Machine::parse(&definition).unwrap(),
        definition,
        name: "x-1".into(),
        arn: execution.clone(),
        origin: "{}".into(),
        input: json!({}),
        fresh: true,
    };
    let begun = states
        .engine
        .start_with(start, Box::new(|_, _| Ok(())))
        .await
        .unwrap();
    let offer = states.engine.poll(&activity, None).await.unwrap();
    let things = Things {
        machine: own("stateMachine:release"),
        quick: own("stateMachine:release"),
        alias: own("stateMachine:release:live"),
        version: own("stateMachine:release:1"),
        free: own("stateMachine:release:2"),
        activity,
        mapper: execution.clone(),
        run: own("mapRun:release/Map:x"),
        execution,
        token: offer.token.clone(),
    };
    let everybody = [
        Who::User(0),
        world.bearer(Operator, None).await,
        world.bearer(Operator, Some("acme")).await,
        world.bearer(Developer, Some("acme")).await,
    ];
    for who in &everybody {
        for (operation, input, told) in cases(&things) {
            let (_, answer) = call(&world, who, operation, &input).await;
            assert!(
                !answer.to_string().contains("x-1") || answer["__type"].is_string(),
                "{operation}: {answer}"
            );
            if told.is_some() {
                assert!(answer["__type"].is_string(), "{operation} by {who:?}: {answer}");
            }
        }
    }
    // It is as it was, and its own worker can answer.
    let answered = states.engine.succeed(engine::PLATFORM, &offer.token, json!({}));
    answered.await.unwrap();
    let run = world.state.store.read(move |db| db.run_by_key(begun.key)).await;
    let (run, _) = run
        .unwrap_or_else(|error: store::Error| panic!("{error}"))
        .unwrap();
    assert_eq!(run.status, store::Status::Succeeded);
}

#[tokio::test]
async fn every_operation_works_for_those_who_may() {
    for who in ["developer", "operator", "platform"] {
        let world = World::new().await;
        let owner = world.bearer(Developer, Some("acme")).await;
        let things = things(&world, &owner).await;
        let who = match who {
            "developer" => owner,
            "operator" => world.bearer(Operator, Some("acme")).await,
            _ => Who::User(0),
        };
        for (operation, mut input, _) in cases(&things) {
            if operation == "SendTaskSuccess" {
                // The task failed just now.
                let (_, answer) = call(&world, &who, operation, &input).await;
                assert_eq!(answer["__type"], "TaskTimedOut");
                continue;
            }
            if operation == "CreateStateMachineAlias" {
                input["description"] = "d".into();
            }
            let (status, answer) = call(&world, &who, operation, &input).await;
            assert_eq!(status, StatusCode::OK, "{operation} by {who:?}: {answer}");
            if operation == "CreateStateMachineAlias" {
                let next = json!({ "stateMachineAliasArn": answer["stateMachineAliasArn"] });
                call(&world, &who, "DeleteStateMachineAlias", &next).await;
            }
        }
    }
}

#[tokio::test]
async fn nothing_begins_for_a_tenant_that_is_to_go() {
    let world = World::new().await;
    let owner = world.bearer(Developer, Some("acme")).await;
    let things = things(&world, &owner).await;
    let start = json!({ "stateMachineArn": things.machine });
    for (filter, count) in [("NOT_REDRIVEN", 1), ("REDRIVEN", 0)] {
        let list = json!({ "stateMachineArn": things.machine, "redriveFilter": filter });
        let (_, answer) = call(&world, &owner, "ListExecutions", &list).await;
        assert_eq!(
            answer["executions"].as_array().unwrap().len(),
            count,
            "{filter}: {answer}"
        );
    }
    let (status, answer) = call(&world, &owner, "StartExecution", &start).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let order = deletion::Deletion {
        tenant: "acme".parse().unwrap(),
        app: None,
        actor: "person:root".into(),
    };
    let by = store::By::platform(crate::clock::now());
    let ordered = world.state.store.write(move |tx| {
        // What is on its way to AWS would be waited for without end.
        let moving = "acme/shop/dev".parse().unwrap();
        assert!(deletion::order(tx, &order, &by).is_err());
        tx.end_move(&moving, false, &by)?;
        deletion::order(tx, &order, &by)
    });
    ordered.await.unwrap();
    let sync = json!({ "stateMachineArn": things.quick });
    for (operation, input) in [("StartExecution", &start), ("StartSyncExecution", &sync)] {
        let (_, answer) = call(&world, &owner, operation, input).await;
        assert_eq!(answer["__type"], "StateMachineDeleting", "{answer}");
    }
    let (_, answer) = call(
        &world,
        &owner,
        "RedriveExecution",
        &json!({ "executionArn": things.execution }),
    )
    .await;
    assert_eq!(answer["__type"], "ExecutionNotRedrivable", "{answer}");
}

#[tokio::test]
async fn hostile_requests_are_refused_and_nothing_else() {
    let world = World::new().await;
    let who = world.bearer(Developer, Some("acme")).await;
    for (operation, _) in OPERATIONS {
        for input in [
            json!({}),
            json!([]),
            json!({ "stateMachineArn": 7, "name": [], "maxResults": -1, "taskToken": {} }),
            json!({ "stateMachineArn": "arn:aws:states:local:999999999999:stateMachine:x", "nextToken": "x".repeat(5000) }),
            json!({ "executionArn": "arn:aws:states:local:000000000001:execution:m:x:y", "activityArn": "\u{0}" }),
        ] {
            let (status, answer) = call(&world, &who, operation, &input).await;
            assert!(!status.is_server_error(), "{operation} {input}: {answer}");
        }
    }
    let (_, answer) = call(&world, &who, "DropEverything", &json!({})).await;
    assert_eq!(answer["__type"], "UnknownOperationException");
}

/// The directory of Python packages that `cargo xtask test` makes beside the build.
pub fn clients() -> Option<std::path::PathBuf> {
    let program = std::env::current_exe().unwrap();
    let found = program
        .ancestors()
        .map(|directory| directory.join("clients/bin/python"));
    found.into_iter().find(|python| python.exists())
}

#[tokio::test(flavor = "multi_thread")]
async fn real_clients_work() {
    let Some(python) = clients() else {
        println!("skipped: boto3 and the AWS CLI are not there; `cargo xtask test` installs them");
        return;
    };
    if ("sync-localhost", 0).to_socket_addrs().is_err() {
        println!("skipped: /etc/hosts has no `sync-localhost`; `vend doctor --install` adds it");
        return;
    }
    let world = World::at(crate::clock::now).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let endpoint = format!("http://127.0.0.1:{port}/states");
    let router = web::router(world.state.clone());
    tokio::spawn(web::tcp(listener, router, world.stop.clone()));
    let secret = world.token(Developer, Some("acme")).await;
    let other = world.token(Operator, Some("other")).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/states.py");
    let mut command = tokio::process::Command::new(python);
    command.arg(script).env("ENDPOINT", endpoint);
    command.env("NAMED", format!("http://localhost:{port}/states"));
    command.env("KEY", "VEND1").env("SECRET", secret);
    command.env("OTHER_KEY", "VEND2").env("OTHER_SECRET", other);
    let done = command.output().await.unwrap();
    let (out, error) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{out}{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_is_drawn_in_the_colours_of_its_states() {
    let world = World::new().await;
    let owner = world.bearer(Developer, Some("acme")).await;
    let other = world.bearer(Operator, Some("other")).await;
    let Things { execution, token, .. } = things(&world, &owner).await;
    let uri = format!("/v1/executions/{execution}/drawing");
    let tint = async || {
        let (status, found) = world.ask(&owner, Method::GET, &uri, None).await;
        assert_eq!(status, StatusCode::OK, "{found}");
        assert!(!found.to_string().contains("\"input\""), "payloads stay: {found}");
        let drawing: model::wire::Drawing = serde_json::from_value(found).unwrap();
        assert!(Drawing::of(&drawing.definition).is_ok());
        Statuses::read(&drawing.events).of("W")
    };
    assert_eq!(tint().await, Tint::Running);
    let done = json!({ "taskToken": token, "error": "E" });
    assert_eq!(
        call(&world, &owner, "SendTaskFailure", &done).await.0,
        StatusCode::OK
    );
    assert_eq!(tint().await, Tint::Failed);
    for uri in [uri.clone(), format!("{uri}.svg")] {
        let (status, _) = world.ask(&owner, Method::GET, &uri, None).await;
        assert_eq!(status, StatusCode::OK);
        let (status, _) = world.ask(&other, Method::GET, &uri, None).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        let missing = uri.replace(&execution, "arn:aws:states:local:000000000001:execution:m:none");
        let (status, _) = world.ask(&owner, Method::GET, &missing, None).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
}
