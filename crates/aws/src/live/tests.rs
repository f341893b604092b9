//! Calls whose answers moto does not give as AWS does, against answers in the documented shape.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::Duration,
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{release, turn, vault};
use crate::Client;

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
    (Client::at(address), asked)
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
        people: Vec::new(),
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
    let taken = refused("ConditionalCheckFailedException");
    let item = json!({ "owner": { "S": "somebody" }, "expires": { "N": "1600" } });
    let (client, asked) = service(vec![
        taken.clone(),
        (200, json!({ "Item": item })),
        taken.clone(),
        (200, json!({})),
        (200, json!({})),
        (200, json!({})),
        taken.clone(),
        taken,
    ]);
    let now = Timestamp::from_second(1_000).unwrap();
    let take = || turn::take(&client, "t", "production", "me".to_owned(), now);
    let turn::Taken::Held(Some(holder)) = take().await.unwrap() else {
        panic!("it is somebody's")
    };
    assert_eq!(holder.owner, "somebody");
    assert_eq!(holder.until, Timestamp::from_second(1_600).ok());
    let turn::Taken::Held(None) = take().await.unwrap() else {
        panic!("it was somebody's a moment ago")
    };
    let turn::Taken::Own(turn) = take().await.unwrap() else {
        panic!("it is free")
    };
    let bodies: Vec<(String, Value)> = (0..5).map(|_| asked.recv().unwrap()).collect();
    let order: Vec<&str> = bodies.iter().map(|(operation, _)| operation.as_str()).collect();
    assert_eq!(order, ["PutItem", "GetItem", "PutItem", "GetItem", "PutItem"]);
    assert_eq!(bodies[4].1["Item"]["expires"]["N"], "2200");
    // It is held for as long again, by its owner alone.
    let later = Timestamp::from_second(2_000).unwrap();
    assert!(turn.renew(later).await.unwrap());
    let (_, body) = asked.recv().unwrap();
    assert_eq!(body["Item"]["expires"]["N"], "3200");
    assert_eq!(body["ConditionExpression"], "#owner = :owner");
    assert_eq!(body["ExpressionAttributeValues"][":owner"]["S"], "me");
    assert!(
        !turn.renew(later).await.unwrap(),
        "somebody took it after its end"
    );
    let _ = asked.recv().unwrap();
    // That one keeps it.
    turn.leave().await.unwrap();
    let (operation, body) = asked.recv().unwrap();
    assert_eq!(operation, "DeleteItem");
    assert_eq!(body["ExpressionAttributeValues"][":owner"]["S"], "me");
}

#[tokio::test]
async fn a_turn_is_renewed_for_as_long_as_something_takes() {
    let (client, asked) = service(vec![(200, json!({})); 9]);
    let now = || Timestamp::from_second(5_000).unwrap();
    let taken = turn::take(&client, "t", "production", turn::owner("arn:ada", 1), now()).await;
    let turn::Taken::Own(turn) = taken.unwrap() else {
        panic!("it is free")
    };
    let (_, taken) = asked.recv().unwrap();
    let pause = Duration::from_millis(5);
    // It takes until it was renewed twice.
    let slow = async {
        let mut seen = Vec::new();
        while seen.len() < 2 {
            tokio::time::sleep(pause).await;
            seen.extend(asked.try_recv());
        }
        seen
    };
    for (operation, body) in turn.renewing(pause, slow, now).await {
        assert_eq!((operation.as_str(), &body["Item"]), ("PutItem", &taken["Item"]));
        assert_eq!(body["ConditionExpression"], "#owner = :owner");
    }
}

#[test]
fn no_two_processes_have_one_turn() {
    let own = turn::owner("arn:aws:iam::123456789012:user/ada", 7);
    assert_eq!(
        own,
        "vend aws arn:aws:iam::123456789012:user/ada 0000000000000007"
    );
    assert_ne!(own, turn::owner("arn:aws:iam::123456789012:user/ada", 8));
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
        asks.contains(" --task-token ' & $states.context.Task.Token, 'https'"),
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

/// The states inside of these, with those around them.
fn named(states: &serde_json::Map<String, Value>, all: &mut BTreeSet<String>) {
    for (name, state) in states {
        all.insert(name.clone());
        let branches = state["Branches"].as_array().into_iter().flatten();
        for inner in branches.chain([&state["ItemProcessor"]]) {
            inner["States"]
                .as_object()
                .into_iter()
                .for_each(|own| named(own, all));
        }
    }
}

/// Where a release is live is where its flow is once the traffic has moved for good, and nowhere else.
#[test]
fn a_release_is_live_from_there_on_where_the_half_before_is_kept() {
    let config: crate::synth::Config = toml::from_str(
        "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n\
         [foundations.other]\nregion = 'eu-central-1'\ndomain = 'b.example.com'\ndeploys_from = 'production'\n\
         network = { cidr = '10.7.0.0/16' }\n\
         [apps.shop]\npipeline = 'production'\n[apps.shop.environments.production]\nfoundation = 'production'\nalso = ['other']\n",
    )
    .unwrap();
    let text = "app: shop\ndeploy: { strategy: linear, migrate: { script: m.sh } }\n\
                environments:\n  production: { branch: main, approval: { required: 2 } }\n";
    let app = model::spec::App::parse(text, "vend.yaml", &|_| true).unwrap().0;
    let labels = ["production", "other"].map(|label| label.parse().unwrap());
    let machine = crate::synth::machine(&config, &app, &app.environments[0], &labels).unwrap();
    let states = machine["States"].as_object().unwrap();
    let mut reached = serde_json::Map::new();
    let mut next = vec!["Keep".to_owned()];
    while let Some(name) = next.pop() {
        let state = &states[&name];
        let lists = ["Catch", "Choices"].map(|field| state[field].as_array().into_iter().flatten());
        let ways = lists.into_iter().flatten().map(|own| &own["Next"]);
        let ways = ways.chain([&state["Next"], &state["Default"]]);
        let ways = ways
            .filter_map(Value::as_str)
            .filter(|name| !reached.contains_key(*name));
        next.extend(ways.map(str::to_owned).collect::<Vec<_>>());
        reached.insert(name, state.clone());
    }
    let (mut all, mut live) = (BTreeSet::new(), BTreeSet::new());
    named(states, &mut all);
    named(&reached, &mut live);
    assert!(live.contains("StopWait") && !live.contains("Failed"), "{live:?}");
    let release = |status: &str| release::Release {
        arn: "arn".into(),
        name: "0123456789ab-1".into(),
        status: status.into(),
        began: None,
        ended: None,
    };
    for name in all {
        let is_live = release("RUNNING").is_live(Some(&name));
        assert_eq!(is_live, live.contains(&name), "{name}");
    }
}
