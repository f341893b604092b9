//! What flows tell people: each reader of a topic gets what it can show.

use serde_json::{Value, json};

use crate::{
    deployed,
    matrix::matrix,
    world::{LIVE, World, release_of},
};

/// The message of each protocol. SNS takes no JSON without a text for everybody else.
fn messages(input: &Value) -> Value {
    assert_eq!(input["MessageStructure"], "json", "{input}");
    let all: Value = serde_json::from_str(input["Message"].as_str().unwrap()).unwrap();
    assert!(
        all.as_object().unwrap().values().all(Value::is_string) && all["default"] != "",
        "{all}"
    );
    all
}

/// What a mail says.
pub fn mail(input: &Value) -> String {
    messages(input)["default"].as_str().unwrap().to_owned()
}

/// What Chatbot shows, which takes nothing but this shape.
fn chat(input: &Value) -> Value {
    let all = messages(input);
    let custom: Value = serde_json::from_str(all["https"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&custom["version"], &custom["source"]),
        (&json!("1.0"), &json!("custom"))
    );
    let content = &custom["content"];
    assert_eq!(content["textType"], "client-markdown");
    for key in ["title", "description"] {
        assert!(
            content[key].as_str().is_some_and(|text| !text.is_empty()),
            "{content}"
        );
    }
    content.clone()
}

#[test]
fn a_question_and_the_end_of_a_release_reach_mails_and_chat() {
    let mut world = World::new(&LIVE);
    let app = deployed("{}", "{ min: 2 }");
    assert_eq!(release_of(&app, "", &mut world).as_str(), "SUCCEEDED");
    let [asked, live] = world.told.as_slice() else {
        panic!("{:?}", world.told)
    };
    let question = chat(asked);
    assert_eq!(
        question["description"],
        "shop, production: commit abc123 by a, image ami-new."
    );
    assert_eq!(
        question["nextSteps"],
        json!([
            "vend aws approve production",
            "vend aws reject production --reason \"WHY\""
        ])
    );
    // Who reads a channel does not answer for others.
    for command in [
        "send-task-success --region eu-central-1 --task-output",
        "send-task-failure --region eu-central-1 --error Vend.Refused --cause \"WHY\" --task-token",
    ] {
        assert!(mail(asked).contains(command), "{}", mail(asked));
    }
    assert!(mail(asked).contains("--task-token") && !question.to_string().contains("token"));
    assert_eq!(
        chat(live)["description"],
        "shop, production: live at commit abc123"
    );
    assert_eq!(mail(live), "shop, production: live at commit abc123");

    let mut world = World::new(&LIVE);
    world.ringing = vec!["vend-production-shop-production-GreenErrors-<!here>".to_owned()];
    let linear = deployed("{ strategy: linear }", "{ min: 2 }");
    assert_eq!(release_of(&linear, "", &mut world).as_str(), "FAILED");
    let failed = chat(world.told.last().unwrap());
    let said = failed["description"].as_str().unwrap();
    assert!(
        said.starts_with("shop, production: not released, Vend.Alarm"),
        "{said}"
    );
    assert!(!said.contains('<'), "nobody is called by a name: {said}");
}

#[test]
fn operators_hear_of_flows_that_end_without_a_word() {
    let mut seen = 0;
    for stack in matrix() {
        let Some(rule) = stack.template.resource("FlowsEnded") else {
            continue;
        };
        seen += 1;
        let detail = &rule.properties["EventPattern"]["detail"];
        assert_eq!(detail["status"], json!(["FAILED", "TIMED_OUT", "ABORTED"]));
        let target = &rule.properties["Targets"][0];
        assert_eq!(target["Arn"]["Ref"], "OperationsTopic");
        assert!(target["RoleArn"].is_null(), "the topic's policy lets it in");
        let transformer = &target["InputTransformer"];
        let paths = transformer["InputPathsMap"].as_object().unwrap();
        let mut text = transformer["InputTemplate"].as_str().unwrap().to_owned();
        for path in paths.keys() {
            assert!(text.contains(&format!("<{path}>")), "{text}");
            text = text.replace(&format!("<{path}>"), "x");
        }
        chat(
            &json!({ "MessageStructure": "json", "Message": json!({ "default": "x", "https": text }).to_string() }),
        );
        let policy = stack.template.resource("OperationsTopicPolicy").unwrap();
        let statements = policy.properties["PolicyDocument"]["Statement"]
            .as_array()
            .unwrap();
        let events = |own: &&Value| own["Principal"]["Service"] == "events.amazonaws.com";
        let events = statements.iter().find(events).unwrap();
        assert!(
            events["Effect"] == "Allow" && events["Condition"].is_null(),
            "EventBridge fulfils no condition of a topic: {events}"
        );
    }
    assert!(seen > 50);
    // Every machine of the platform is one that the rule is for.
    let rule = &crate::template("vend-production")
        .resource("FlowsEnded")
        .unwrap()
        .properties;
    let machines = rule["EventPattern"]["detail"]["stateMachineArn"]
        .as_array()
        .unwrap();
    let starts: Vec<&str> = machines
        .iter()
        .map(|own| own["prefix"]["Fn::Sub"].as_str().unwrap())
        .map(|arn| arn.rsplit(':').next().unwrap())
        .collect();
    let stacks = matrix()
        .iter()
        .flat_map(|stack| stack.template.of("AWS::StepFunctions::StateMachine"));
    let mut count = 0;
    for machine in stacks {
        let name = machine.properties["StateMachineName"].as_str().unwrap();
        if name.contains("-production-") {
            assert!(
                starts.iter().any(|start| name.starts_with(start)),
                "{name} of {starts:?}"
            );
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}
