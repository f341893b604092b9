//! The contract of the Flow port, on every adapter: this engine, Step Functions' protocol against this platform, and the
//! same against moto, which has no workers.

use std::time::Duration;

use aws::{Credentials, Steps};
use model::{
    Secret,
    policy::Role::Developer,
    port::{Blame, Fault, Flow, FlowOrder, FlowState},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{states::clients, world::World};
use crate::web;

fn order(name: &str, definition: &Value) -> FlowOrder {
    FlowOrder {
        name: name.into(),
        definition: definition.to_string(),
        role: "arn:aws:iam::123456789012:role/r".into(),
    }
}

fn pass(result: i64) -> Value {
    json!({ "StartAt": "P", "States": { "P": { "Type": "Pass", "Result": result, "End": true } } })
}

async fn ended(flow: &impl Flow, execution: &str) -> FlowState {
    for _ in 0..1000 {
        let state = flow.state(execution).await.unwrap();
        if state != FlowState::Running {
            return state;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{execution} does not end");
}

fn is_order(outcome: Result<impl std::fmt::Debug, Fault>) {
    let fault = outcome.unwrap_err();
    assert_eq!(fault.blame, Blame::Order, "{fault}");
}

/// What holds without workers.
async fn contract(flow: &impl Flow) {
    let machine = flow.ensure(&order("m", &pass(1))).await.unwrap();
    assert_eq!(flow.ensure(&order("m", &pass(1))).await.unwrap(), machine);
    let execution = flow.start(&machine, "first", &json!({})).await.unwrap();
    assert_eq!(
        ended(flow, &execution).await,
        FlowState::Succeeded { output: json!(1) }
    );
    let events = [
        "ExecutionStarted",
        "PassStateEntered",
        "PassStateExited",
        "ExecutionSucceeded",
    ];
    assert_eq!(flow.events(&execution).await.unwrap(), events);
    is_order(flow.start(&machine, "first", &json!({ "other": true })).await);
    // A machine that is changed is the same machine.
    assert_eq!(flow.ensure(&order("m", &pass(2))).await.unwrap(), machine);
    let execution = flow.start(&machine, "second", &json!({})).await.unwrap();
    assert_eq!(
        ended(flow, &execution).await,
        FlowState::Succeeded { output: json!(2) }
    );
    let fail = json!({ "StartAt": "F", "States": { "F": { "Type": "Fail", "Error": "E", "Cause": "C" } } });
    let failing = flow.ensure(&order("failing", &fail)).await.unwrap();
    let execution = flow.start(&failing, "x", &json!({})).await.unwrap();
    let (error, cause) = (Some("E".to_owned()), Some("C".to_owned()));
    assert_eq!(ended(flow, &execution).await, FlowState::Failed { error, cause });
    let wait = json!({ "StartAt": "W", "States": { "W": { "Type": "Wait", "Seconds": 600, "End": true } } });
    let waiting = flow.ensure(&order("waiting", &wait)).await.unwrap();
    let execution = flow.start(&waiting, "x", &json!({})).await.unwrap();
    assert_eq!(flow.state(&execution).await.unwrap(), FlowState::Running);
    flow.stop(&execution, "enough").await.unwrap();
    assert_eq!(ended(flow, &execution).await, FlowState::Aborted);
    is_order(
        flow.ensure(&order("bad", &json!({ "StartAt": "X", "States": {} })))
            .await,
    );
    is_order(flow.start(&format!("{machine}-not"), "x", &json!({})).await);
}

/// What holds of workers.
async fn with_workers(flow: &impl Flow) {
    let activity = flow.activity("work").await.unwrap();
    assert_eq!(flow.activity("work").await.unwrap(), activity);
    let work =
        json!({ "StartAt": "W", "States": { "W": { "Type": "Task", "Resource": activity, "End": true } } });
    let machine = flow.ensure(&order("work", &work)).await.unwrap();
    let good = flow.start(&machine, "good", &json!({ "n": 1 })).await.unwrap();
    let same = flow.start(&machine, "good", &json!({ "n": 1 })).await.unwrap();
    assert_eq!(
        good, same,
        "it is under way: the same start again is the same execution"
    );
    let task = flow.poll(&activity, "me").await.unwrap().unwrap();
    assert_eq!(task.input, json!({ "n": 1 }));
    flow.answer(&task.token, Ok(&json!({ "n": 2 }))).await.unwrap();
    is_order(flow.answer(&task.token, Ok(&json!({ "n": 3 }))).await);
    assert_eq!(
        ended(flow, &good).await,
        FlowState::Succeeded {
            output: json!({ "n": 2 })
        }
    );
    let bad = flow.start(&machine, "bad", &json!({})).await.unwrap();
    let task = flow.poll(&activity, "me").await.unwrap().unwrap();
    flow.answer(&task.token, Err(&Fault::customer("it does not work")))
        .await
        .unwrap();
    let (error, cause) = (
        Some("Vend.Customer".to_owned()),
        Some("it does not work".to_owned()),
    );
    assert_eq!(ended(flow, &bad).await, FlowState::Failed { error, cause });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_on_this_engine() {
    let world = World::at(crate::clock::now).await;
    let known = world.state.states.known.clone();
    let local = engine::Local {
        store: world.state.store.clone(),
        engine: world.state.states.engine.clone(),
        tenant: "acme".parse().unwrap(),
        owner: 1,
        clock: crate::clock::now,
        actor: "platform".into(),
        known: Box::new(move |arn| known.add(arn)),
    };
    contract(&local).await;
    with_workers(&local).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_over_the_protocol() {
    let world = World::at(crate::clock::now).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/states", listener.local_addr().unwrap());
    tokio::spawn(web::tcp(
        listener,
        web::router(world.state.clone()),
        world.stop.clone(),
    ));
    let credentials = Credentials {
        key_id: "VEND1".into(),
        secret: Secret::new(world.token(Developer, Some("acme")).await),
        token: None,
        region: "local".into(),
    };
    let steps = Steps::new(&endpoint, credentials, crate::clock::now).unwrap();
    contract(&steps).await;
    with_workers(&steps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_on_moto() {
    let Some(python) = clients() else {
        println!("skipped: moto is not there; `cargo xtask test` installs it");
        return;
    };
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut server = tokio::process::Command::new(&python);
    server.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
    server.env("MOTO_STEPFUNCTIONS_CONFIG", "{}").kill_on_drop(true);
    server
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let _server = server.spawn().unwrap();
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let script = "import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], method='POST', \
                  headers={'content-type': 'application/json'}, data=b'{\"stepfunctions\": {\"execute_state_machine\": true}}'))";
    let config = format!("http://127.0.0.1:{port}/moto-api/config");
    let configured = tokio::process::Command::new(&python)
        .args(["-c", script, &config])
        .status()
        .await;
    assert!(configured.unwrap().success());
    let credentials = Credentials {
        key_id: "test".into(),
        secret: Secret::new("test".into()),
        token: None,
        region: "us-east-1".into(),
    };
    let endpoint = format!("http://127.0.0.1:{port}");
    let steps = Steps::new(&endpoint, credentials, crate::clock::now).unwrap();
    contract(&steps).await;
}
