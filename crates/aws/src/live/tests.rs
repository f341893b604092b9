//! Calls whose answers moto does not give as AWS does, against answers in the documented shape.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, mpsc},
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{release, turn, vault};
use crate::{Client, Machine, Source};

/// A service that gives these answers, in this order, and what it was asked: the operation and the body.
fn service(answers: Vec<(u16, Value)>) -> (Client, mpsc::Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (told, asked) = mpsc::channel();
    std::thread::spawn(move || {
        for ((status, answer), stream) in answers.into_iter().zip(listener.incoming()) {
            let mut stream = stream.unwrap();
            told.send(request(&stream)).unwrap();
            let body = answer.to_string();
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        }
    });
    let machine = Machine {
        variable: Arc::new(move |name| match name {
            "AWS_ENDPOINT_URL" => Some(format!("http://{address}")),
            "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("x".to_owned()),
            _ => None,
        }),
        now: || Timestamp::UNIX_EPOCH,
        bits: || 0,
    };
    let source = Arc::new(Source::chain(machine.clone(), None));
    (Client::new(machine, source, "eu-central-1"), asked)
}

fn request(stream: &TcpStream) -> (String, Value) {
    let mut reader = BufReader::new(stream);
    let (mut line, mut operation, mut length) = (String::new(), String::new(), 0);
    while reader.read_line(&mut line).unwrap() > 2 {
        let (name, value) = line.split_once(": ").unwrap_or_default();
        match name {
            "x-amz-target" => operation = value.trim().rsplit('.').next().unwrap().to_owned(),
            "content-length" => length = value.trim().parse().unwrap(),
            _ => {}
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (operation, serde_json::from_slice(&body).unwrap())
}

fn refused(code: &str) -> (u16, Value) {
    (
        400,
        json!({ "__type": format!("com.amazonaws#{code}"), "message": "m" }),
    )
}

fn question() -> release::Question {
    release::Question {
        token: "AQB4".into(),
        text: "t".into(),
    }
}

#[tokio::test]
async fn a_no_says_why_and_a_yes_says_who() {
    let (client, asked) = service(vec![(200, json!({})), (200, json!({})), refused("TaskTimedOut")]);
    assert!(
        release::reject(&client, &question(), "not on a Friday")
            .await
            .unwrap()
    );
    let (operation, body) = asked.recv().unwrap();
    assert_eq!(operation, "SendTaskFailure");
    assert_eq!(
        body,
        json!({ "taskToken": "AQB4", "error": "Vend.Refused", "cause": "not on a Friday" })
    );
    assert!(release::approve(&client, &question(), "arn:ada").await.unwrap());
    let (operation, body) = asked.recv().unwrap();
    assert_eq!(operation, "SendTaskSuccess");
    assert_eq!(
        body,
        json!({ "taskToken": "AQB4", "output": "{\"by\":\"arn:ada\"}" })
    );
    assert!(
        !release::approve(&client, &question(), "arn:ada").await.unwrap(),
        "too late"
    );
}

#[tokio::test]
async fn what_is_throttled_is_asked_again_as_it_was() {
    let started = json!({ "executionArn": "arn:x", "startDate": 1.5 });
    let (client, asked) = service(vec![
        refused("ThrottlingException"),
        (200, started),
        refused("ExecutionAlreadyExists"),
    ]);
    let push = release::Push {
        app: "shop".into(),
        branch: "main".into(),
        commit: "c".repeat(40),
        author: "a".into(),
        message: "m".into(),
        sender: "s".into(),
    };
    let name = release::name(&push.commit, "production", 1);
    let first = release::start(&client, "arn:flow", &name, &push).await.unwrap();
    assert_eq!(first.as_deref(), Some("arn:x"));
    assert_eq!(
        asked.recv().unwrap(),
        asked.recv().unwrap(),
        "the same name, the same input"
    );
    assert_eq!(
        release::start(&client, "arn:flow", &name, &push).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn all_pages_are_read_and_the_newest_is_first() {
    let one = |name: &str, at: f64| json!({ "executionArn": name, "name": name, "status": "SUCCEEDED", "startDate": at, "stopDate": at + 1.0 });
    let first = json!({ "executions": [one("b", 20.0)], "nextToken": "more" });
    let second = json!({ "executions": [one("c", 30.5), one("a", 10.0)] });
    let (client, asked) = service(vec![(200, first), (200, second)]);
    let all = release::list(&client, "arn:flow", 10).await.unwrap();
    let names: Vec<&str> = all.iter().map(|release| release.name.as_str()).collect();
    assert_eq!(names, ["c", "b", "a"]);
    assert_eq!(all[0].began, Timestamp::from_millisecond(30_500).ok());
    assert_eq!(asked.recv().unwrap().1.get("nextToken"), None);
    assert_eq!(asked.recv().unwrap().1["nextToken"], "more");
}

#[tokio::test]
async fn a_turn_is_anothers_or_ones_own() {
    let (client, asked) = service(vec![
        refused("ConditionalCheckFailedException"),
        (200, json!({})),
        refused("ConditionalCheckFailedException"),
    ]);
    let now = Timestamp::from_second(1_000).unwrap();
    assert!(
        turn::take(&client, "t", "production", "me", now)
            .await
            .unwrap()
            .is_none()
    );
    let turn = turn::take(&client, "t", "production", "me", now)
        .await
        .unwrap()
        .unwrap();
    let _ = asked.recv().unwrap();
    let (_, body) = asked.recv().unwrap();
    assert_eq!(body["Item"]["expires"]["N"], "4600");
    // It was taken by somebody else after its end: that one keeps it.
    turn.leave().await.unwrap();
    assert_eq!(asked.recv().unwrap().0, "DeleteItem");
}

#[tokio::test]
async fn a_secret_on_its_way_out_is_restored_first() {
    let (client, asked) = service(vec![
        refused("InvalidRequestException"),
        refused("InvalidRequestException"),
        (200, json!({})),
        (200, json!({})),
    ]);
    let shelf = vault::Shelf {
        prefix: "p/",
        key: "alias/k",
    };
    let value = model::Secret::new("v".into());
    let set = vault::set(&client, shelf, "n", &value, &"0".repeat(32))
        .await
        .unwrap();
    assert_eq!(set, vault::Set::Restored);
    let order: Vec<String> = asked.iter().map(|(operation, _)| operation).collect();
    assert_eq!(
        order,
        [
            "CreateSecret",
            "PutSecretValue",
            "RestoreSecret",
            "PutSecretValue"
        ]
    );
}

/// What is looked for in a history is what flows have.
#[test]
fn flows_ask_and_keep_as_it_is_looked_for() {
    let config: crate::synth::Config =
        toml::from_str("[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n")
            .unwrap();
    let text =
        "app: shop\nenvironments:\n  production: { branch: main, approval: { by: [ops@example.com] } }\n";
    let app = model::spec::App::parse(text, "vend.yaml", &|_| true).unwrap().0;
    let label = "production".parse().unwrap();
    let machine = crate::synth::machine(&config, &app, &app.environments[0], &[label]).unwrap();
    let states = &machine["States"];
    let asks = states["Approve"]["Arguments"]["Message"].as_str().unwrap();
    assert!(
        asks.contains("--task-token ' & $states.context.Task.Token"),
        "{asks}"
    );
    assert!(
        states["Approve"]["Resource"]
            .as_str()
            .unwrap()
            .ends_with("sns:publish.waitForTaskToken")
    );
    assert_eq!(states["Keep"]["Type"], "Wait");
    assert_eq!(states["Make"]["Assign"]["push"], "{% $states.input %}");
    assert!(
        asks.contains("$push.commit") && asks.contains("$push.author"),
        "{asks}"
    );
}
