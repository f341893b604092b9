//! The program as a function: a Runtime API hands it events of an HTTP API, and moto's Step Functions gets the starts.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::World;

/// A small program that is taken for vend, which has more bytes than Lambda takes when it is not a release.
pub fn program() -> PathBuf {
    let own = Path::new(env!("CARGO_TARGET_TMPDIR")).join("receiver");
    if !own.exists() {
        let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let program = std::fs::read("/bin/true").unwrap();
        file.write_all(&[&program[..], b"VEND_PREVIEWS"].concat())
            .unwrap();
        // Others make the same at the same time.
        file.persist(&own).unwrap();
    }
    own
}

const SECRET: &str = "what the repository signs with";
const RUNTIME: &str = "/2018-06-01/runtime";

/// Lambda with the function in it.
struct Lambda {
    events: mpsc::Sender<Value>,
    answers: mpsc::Receiver<(String, Value)>,
    function: Child,
}

impl Drop for Lambda {
    fn drop(&mut self) {
        let _ = self.function.kill();
        let _ = self.function.wait();
    }
}

impl Lambda {
    /// `variables`: beside those that every function has.
    fn new(world: &World, variables: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (events, waiting) = mpsc::channel();
        let (told, answers) = mpsc::channel();
        std::thread::spawn(move || serve(&listener, &waiting, &told));
        let bootstrap = world.path().join("bootstrap");
        if !bootstrap.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_vend"), &bootstrap).unwrap();
        }
        let mut function = Command::new(bootstrap);
        function.env_clear().stdin(Stdio::null()).stderr(Stdio::null());
        function
            .env("AWS_LAMBDA_RUNTIME_API", address)
            .env("AWS_REGION", "eu-central-1");
        function
            .env("AWS_ENDPOINT_URL", &world.endpoint)
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
        function
            .env("AWS_SECRET_ACCESS_KEY", "x")
            .env("AWS_SESSION_TOKEN", "y");
        function.envs(variables.iter().copied());
        Self {
            events,
            answers,
            function: function.spawn().unwrap(),
        }
    }

    /// Where the function's answer went, and the answer.
    fn ask(&self, event: &Value) -> (String, Value) {
        self.events.send(event.clone()).unwrap();
        self.heard()
    }

    fn heard(&self) -> (String, Value) {
        self.answers.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    /// Status and body of what an HTTP API would answer.
    fn http(&self, event: &Value) -> (i64, Value) {
        let (path, answer) = self.ask(event);
        assert_eq!(
            path,
            format!("{RUNTIME}/invocation/8476a536-e9f4-11e8-9739-2dfe598c3fcd/response")
        );
        let body = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        (answer["statusCode"].as_i64().unwrap(), body)
    }
}

/// The Runtime API: hands out events, and hands on what it is told.
fn serve(listener: &TcpListener, events: &mpsc::Receiver<Value>, told: &mpsc::Sender<(String, Value)>) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let (line, body) = request(&stream);
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (status, body) = match (method, path) {
            ("GET", path) if path == format!("{RUNTIME}/invocation/next") => match events.recv() {
                Ok(event) => ("200 OK", event.to_string()),
                Err(_) => return,
            },
            ("POST", path) => {
                let _ = told.send((path.to_owned(), serde_json::from_str(&body).unwrap()));
                ("202 Accepted", r#"{"status":"OK"}"#.to_owned())
            }
            _ => ("404 Not Found", String::new()),
        };
        let _ = write!(
            stream,
            "HTTP/1.1 {status}\r\nLambda-Runtime-Aws-Request-Id: 8476a536-e9f4-11e8-9739-2dfe598c3fcd\r\n\
             Lambda-Runtime-Deadline-Ms: 4102444800000\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
}

/// The first line of a request, and its body.
fn request(stream: &TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut first).unwrap();
    while reader.read_line(&mut line).unwrap() > 2 {
        let header = line.to_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (first, String::from_utf8(body).unwrap())
}

/// A push as GitHub sends it, to a branch.
fn push(branch: &str) -> String {
    let recorded = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/conformance/webhooks/github/push.body.json"
    ));
    let mut body: Value = serde_json::from_str(&recorded.unwrap()).unwrap();
    body["ref"] = format!("refs/heads/{branch}").into();
    body.to_string()
}

/// The same push at another time.
fn later(push: &str) -> String {
    let mut later: Value = serde_json::from_str(push).unwrap();
    later["repository"]["pushed_at"] = 1_773_119_999.into();
    later.to_string()
}

/// The event that an HTTP API makes of a delivery.
fn event(delivery: &str, body: &str, secret: &str, is_encoded: bool) -> Value {
    let mut mac: Hmac<Sha256> = Hmac::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    json!({
        "version": "2.0",
        "routeKey": "POST /webhooks",
        "rawPath": "/webhooks",
        "rawQueryString": "",
        "headers": {
            "accept": "*/*",
            "content-length": body.len().to_string(),
            "content-type": "application/json",
            "host": "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com",
            "user-agent": "GitHub-Hookshot/044aadd",
            "x-amzn-trace-id": "Root=1-5e6722a7-cc56xmpl46db7ae02d4da47e",
            "x-forwarded-for": "192.0.2.1",
            "x-github-delivery": delivery,
            "x-github-event": "push",
            "x-hub-signature-256": signature,
        },
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "a1b2c3d4e5",
            "domainName": "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com",
            "http": {
                "method": "POST", "path": "/webhooks", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1",
                "userAgent": "GitHub-Hookshot/044aadd",
            },
            "requestId": "JKJaXmPLvHcESHA=",
            "routeKey": "POST /webhooks",
            "stage": "$default",
            "time": "10/Mar/2026:05:16:23 +0000",
            "timeEpoch": 1_773_119_783_000_i64,
        },
        "body": if is_encoded { STANDARD.encode(body) } else { body.to_owned() },
        "isBase64Encoded": is_encoded,
    })
}

/// Two flows and the secret, and the function beside them.
fn ready(world: &World) -> Lambda {
    world.python(&format!(
        "client('secretsmanager').create_secret(Name='vend/production/shop/webhook', SecretString='{SECRET}')\n\
         d = json.dumps({{'StartAt': 'A', 'States': {{'A': {{'Type': 'Succeed'}}}}}})\n\
         for e in ['production', 'staging', 'feature-login-df7c7a-b-7d3c484c6392']:\n\
         \x20   client('stepfunctions').create_state_machine(name=f'vend-flow-production-shop-{{e}}', definition=d, roleArn='arn:aws:iam::123456789012:role/f')\n\
         client('stepfunctions').create_state_machine(name='vend-pipeline-production-shop-branches', definition=d, roleArn='arn:aws:iam::123456789012:role/f')",
    ));
    Lambda::new(world, &VARIABLES)
}

const VARIABLES: [(&str, &str); 6] = [
    ("VEND_APP", "shop"),
    (
        "VEND_BRANCHES",
        r#"{"main":["production","staging"],"dev":["dev"]}"#,
    ),
    (
        "VEND_PREVIEWS",
        r#"[{"branches":["feature/*"],"expires":3600,"made":true},{"branches":["byhand/*"],"expires":3600,"made":false}]"#,
    ),
    (
        "VEND_BRANCH_MACHINE",
        "arn:aws:states:eu-central-1:123456789012:stateMachine:vend-pipeline-production-shop-branches",
    ),
    (
        "VEND_FLOW",
        "arn:aws:states:eu-central-1:123456789012:stateMachine:vend-flow-production-shop-",
    ),
    ("VEND_WEBHOOK_SECRET", "vend/production/shop/webhook"),
];

/// The inputs of a flow's executions.
fn inputs(world: &World, environment: &str) -> Vec<Value> {
    let text = world.python(&format!(
        "c = client('stepfunctions')\nm = 'arn:aws:states:eu-central-1:123456789012:stateMachine:vend-flow-production-shop-{environment}'\n\
         print(json.dumps([json.loads(c.describe_execution(executionArn=e['executionArn'])['input']) for e in c.list_executions(stateMachineArn=m)['executions']]))",
    ));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_push_starts_the_flows_of_its_branch_once() {
    let Some(world) = World::new() else { return };
    let lambda = ready(&world);
    let main = push("main");
    let first = event("72d3162e-cc78-11e3-81ab-4c9367dc0958", &main, SECRET, true);
    let (status, body) = lambda.http(&first);
    assert_eq!((status, &body["status"]), (202, &json!("accepted")), "{body}");
    assert_eq!(body["environments"], json!(["production", "staging"]));
    let pushed: Value = serde_json::from_str(&main).unwrap();
    for environment in ["production", "staging"] {
        let inputs = inputs(&world, environment);
        assert_eq!(inputs.len(), 1);
        assert_eq!(
            (&inputs[0]["app"], &inputs[0]["branch"], &inputs[0]["commit"]),
            (&json!("shop"), &json!("main"), &pushed["after"])
        );
    }
    // Sent again, by hand or because an answer was lost.
    let (status, _) = lambda.http(&first);
    assert!(status == 200 || status == 202, "{status}");
    assert_eq!(inputs(&world, "production").len(), 1);
    // What is signed is the same push, whatever the id beside it says that whoever has it writes; and as text, too.
    let replayed = event("9f0c1b2a-cc78-11e3-81ab-4c9367dc0958", &main, SECRET, false);
    let (status, _) = lambda.http(&replayed);
    assert!(status == 200 || status == 202, "{status}");
    assert_eq!(inputs(&world, "production").len(), 1);
    // Another push is another one, also of the same commit.
    let other = event(
        "9f0c1b2a-cc78-11e3-81ab-4c9367dc0958",
        &later(&main),
        SECRET,
        false,
    );
    assert_eq!(lambda.http(&other).0, 202);
    assert_eq!(inputs(&world, "production").len(), 2);
    // Nobody follows this branch.
    let idle = event(
        "00000000-cc78-11e3-81ab-4c9367dc0958",
        &push("idle"),
        SECRET,
        true,
    );
    assert_eq!(lambda.http(&idle), (200, json!({ "status": "ignored" })));
    assert_eq!(inputs(&world, "production").len(), 2);
}

/// The jobs of the machine that makes stacks of branches, the oldest first.
fn jobs(world: &World) -> Vec<Value> {
    let text = world.python(
        "c = client('stepfunctions')\nm = 'arn:aws:states:eu-central-1:123456789012:stateMachine:vend-pipeline-production-shop-branches'\n\
         e = sorted(c.list_executions(stateMachineArn=m)['executions'], key=lambda e: e['startDate'])\n\
         print(json.dumps([json.loads(c.describe_execution(executionArn=x['executionArn'])['input']) for x in e]))",
    );
    serde_json::from_str(&text).unwrap()
}

/// What a deletion of a branch says.
fn deletion(branch: &str) -> String {
    let mut gone: Value = serde_json::from_str(&push(branch)).unwrap();
    gone["before"] = gone["after"].clone();
    (gone["after"], gone["deleted"]) = ("0".repeat(40).into(), true.into());
    gone.to_string()
}

#[test]
fn a_branch_comes_by_its_push_and_goes_by_its_deletion_once() {
    const OWN: &str = "feature-login-df7c7a-b-7d3c484c6392";
    let Some(world) = World::new() else { return };
    let lambda = ready(&world);
    let body = push("feature/login");
    let first = event("a", &body, SECRET, true);
    assert_eq!(
        lambda.http(&first),
        (202, json!({ "status": "accepted", "environments": [OWN] }))
    );
    let commit = serde_json::from_str::<Value>(&body).unwrap()["after"].clone();
    let all = jobs(&world);
    assert_eq!(all.len(), 1);
    let job = &all[0];
    assert_eq!(
        (
            &job["action"],
            &job["environment"],
            &job["branch"],
            &job["expires"]
        ),
        (
            &json!("apply"),
            &json!(OWN),
            &json!("feature/login"),
            &json!(3600)
        )
    );
    assert_eq!(
        (&job["push"]["commit"], &job["push"]["branch"]),
        (&commit, &json!("feature/login"))
    );
    assert!(
        job["release"]
            .as_str()
            .unwrap()
            .starts_with(&commit.as_str().unwrap()[..12]),
        "{job}"
    );
    // Its flow is started by the machine, when the stacks are there: never past it.
    assert!(inputs(&world, OWN).is_empty());
    // Sent again, forged, or of a branch that has none: nothing more.
    assert!([200, 202].contains(&lambda.http(&first).0));
    assert_eq!(lambda.http(&event("b", &body, "another secret", true)).0, 403);
    assert_eq!(
        lambda
            .http(&event("c", &deletion("feature/login"), "another secret", true))
            .0,
        403
    );
    assert_eq!(lambda.http(&event("d", &deletion("main"), SECRET, true)).0, 200);
    assert_eq!(lambda.http(&event("e", &deletion("other"), SECRET, true)).0, 200);
    assert_eq!(jobs(&world).len(), 1);
    // It goes, once.
    let gone = event("f", &deletion("feature/login"), SECRET, true);
    assert_eq!(
        lambda.http(&gone),
        (202, json!({ "status": "accepted", "environments": [OWN] }))
    );
    assert!([200, 202].contains(&lambda.http(&gone).0));
    // The header is not signed: with another one the same body is the same deletion.
    let replayed = event("another", &deletion("feature/login"), SECRET, true);
    assert!([200, 202].contains(&lambda.http(&replayed).0));
    // Where it does not say at which commit, the push that says it counts, and not this.
    let name = r#"{"ref":"feature/login","ref_type":"branch","repository":{"full_name":"a/b"}}"#;
    let mut named = event("named", name, SECRET, true);
    named["headers"]["x-github-event"] = "delete".into();
    assert_eq!(lambda.http(&named), (200, json!({ "status": "ignored" })));
    let all = jobs(&world);
    assert_eq!(all.len(), 2);
    let job = all.iter().find(|job| job["action"] == "destroy").unwrap();
    let event_id = job["event"].as_str().unwrap();
    assert_eq!(event_id.len(), 64);
    assert_eq!(
        job,
        &json!({ "action": "destroy", "environment": OWN, "branch": "feature/login", "commit": commit, "event": event_id })
    );
    // What was pushed before it does not come again by being sent again; a branch that is restored is another push.
    assert!([200, 202].contains(&lambda.http(&event("g", &body, SECRET, true)).0));
    assert_eq!(jobs(&world).len(), 2);
    assert_eq!(lambda.http(&event("h", &later(&body), SECRET, true)).0, 202);
    assert_eq!(jobs(&world).len(), 3);
}

/// Where a push does not reach, people make the stacks, and a push is for the flow alone.
#[test]
fn what_people_make_is_left_to_them() {
    let Some(world) = World::new() else { return };
    let lambda = ready(&world);
    let by_hand = model::spec::name_apart(&"shop".parse().unwrap(), "byhand/x");
    world.python(&format!(
        "d = json.dumps({{'StartAt': 'A', 'States': {{'A': {{'Type': 'Succeed'}}}}}})\n\
         client('stepfunctions').create_state_machine(name='vend-flow-production-shop-{by_hand}', definition=d, roleArn='arn:aws:iam::123456789012:role/f')",
    ));
    let own = event("a", &push("byhand/x"), SECRET, true);
    assert_eq!(lambda.http(&own).1["environments"], json!([by_hand]));
    assert_eq!(inputs(&world, by_hand.as_str())[0]["branch"], "byhand/x");
    let none = event("b", &push("byhand/y"), SECRET, true);
    assert_eq!(lambda.http(&none), (200, json!({ "status": "ignored" })));
    let gone = event("c", &deletion("byhand/x"), SECRET, true);
    assert_eq!(lambda.http(&gone), (200, json!({ "status": "ignored" })));
    assert!(jobs(&world).is_empty());
}

#[test]
fn what_is_not_signed_with_the_secret_starts_nothing() {
    let Some(world) = World::new() else { return };
    let lambda = ready(&world);
    let main = push("main");
    let refused = (403, json!({ "status": "refused" }));
    let forged = event("1", &main, "another secret", true);
    assert_eq!(lambda.http(&forged), refused);
    let mut changed = event("2", &main, SECRET, false);
    changed["body"] = push("other").into();
    assert_eq!(lambda.http(&changed), refused);
    let without = |name: &str| {
        let mut event = event("3", &main, SECRET, true);
        event["headers"].as_object_mut().unwrap().remove(name);
        event
    };
    assert_eq!(lambda.http(&without("x-hub-signature-256")), refused);
    assert_eq!(lambda.http(&without("x-github-event")), refused);
    let mut elsewhere = event("4", &main, SECRET, true);
    elsewhere["rawPath"] = "/".into();
    assert_eq!(lambda.http(&elsewhere).0, 404);
    assert!(inputs(&world, "production").is_empty());
}

#[test]
fn what_cannot_be_done_is_said_to_lambda_and_the_next_event_is_taken() {
    let Some(world) = World::new() else { return };
    let lambda = ready(&world);
    // `dev` has no flow: its stack is not there yet.
    let dev = event("5", &push("dev"), SECRET, true);
    let (path, error) = lambda.ask(&dev);
    assert!(path.ends_with("/error"), "{path}");
    assert_eq!(error["errorType"], "Vend.Service", "{error}");
    assert!(
        error["errorMessage"]
            .as_str()
            .unwrap()
            .contains("StateMachineDoesNotExist"),
        "{error}"
    );
    let (path, error) = lambda.ask(&json!({ "kind": "approval" }));
    assert!(
        path.ends_with("/error") && error["errorType"] == "Vend.Event",
        "{path} {error}"
    );
    assert_eq!(lambda.http(&event("6", &push("main"), SECRET, true)).0, 202);
    // A function without its variables says so before it takes an event.
    let lost = Lambda::new(&world, &[("VEND_APP", "shop")]);
    let (path, error) = lost.heard();
    assert_eq!(
        (path, &error["errorType"]),
        (format!("{RUNTIME}/init/error"), &json!("Vend.Variable"))
    );
}

/// Lambda changes code and variables one after the other.
#[test]
fn a_function_that_is_told_of_no_patterns_takes_what_it_knows() {
    let Some(world) = World::new() else { return };
    drop(ready(&world));
    let variables: Vec<_> = VARIABLES
        .into_iter()
        .filter(|(name, _)| *name != "VEND_PREVIEWS")
        .collect();
    let lambda = Lambda::new(&world, &variables);
    assert_eq!(lambda.http(&event("1", &push("main"), SECRET, true)).0, 202);
    let own = event("2", &push("feature/login"), SECRET, true);
    assert_eq!(lambda.http(&own), (200, json!({ "status": "ignored" })));
}

/// What `apply` puts where the template says that the code is.
#[test]
fn the_function_is_made_from_the_program_that_was_put_there() {
    let Some(world) = World::new() else { return };
    world.good(&[
        "apply",
        "--yes",
        "--only",
        "vend-production",
        "--only",
        "vend-pipeline-production-shop",
    ]);
    let found = world.python(
        "import io, zipfile\nf = client('lambda').get_function(FunctionName='vend-pipeline-production-shop')['Configuration']\n\
         s3 = client('s3')\nb = 'vend-production-templates-123456789012-eu-central-1'\n\
         k = sorted(o['Key'] for o in s3.list_objects_v2(Bucket=b)['Contents'] if not o['Key'].startswith('stacks/'))\n\
         z = zipfile.ZipFile(io.BytesIO(s3.get_object(Bucket=b, Key=k[-1])['Body'].read()))\n\
         i = z.getinfo('bootstrap')\n\
         print(json.dumps([f['Runtime'], f['Architectures'], k, len(z.read('bootstrap')), oct(i.external_attr >> 16)]))",
    );
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found[0], "provided.al2023");
    let key = found[2].as_array().unwrap().last().unwrap().as_str().unwrap();
    let architecture = found[1][0].as_str().unwrap();
    assert!(
        key.starts_with("receiver/") && key.ends_with(&format!("-{architecture}.zip")),
        "{found}"
    );
    assert_eq!(found[3], std::fs::metadata(program()).unwrap().len(), "{found}");
    assert_eq!(found[4], "0o100755", "{found}");
    let bakes = found[2]
        .as_array()
        .unwrap()
        .iter()
        .filter(|key| key.as_str().unwrap().starts_with("packer/shop/production/"));
    assert!(bakes.count() >= 4, "{found}");
    // Another script of the image is another bake, and nothing else.
    let yaml = "app: shop\nimage: { scripts: [more.sh] }\nhost: { port: 8080, size: small }\nenvironments:\n  production: { branch: main, scaling: { min: 1, max: 2 } }\n";
    world.write("vend.yaml", yaml);
    world.write("more.sh", "true\n");
    let pipeline = world.json(&["plan", "--only", "vend-pipeline-production-shop"]);
    assert_eq!(pipeline["stacks"][0]["doing"], "change", "{pipeline}");
    // A program for nothing here is refused before anything is asked.
    world.write("script", "#!/bin/sh\n");
    let (_, said) = world.bad(&["plan", "--receiver", "script"]);
    assert!(
        said.contains("cannot be the receiver") && said.contains("x86-64"),
        "{said}"
    );
    let (_, said) = world.bad(&["plan", "--receiver", "/bin/true"]);
    assert!(said.contains("it is not vend"), "{said}");
}
