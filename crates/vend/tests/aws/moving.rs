//! An environment goes to AWS, against moto's server and a platform that answers as documented.

#[path = "back.rs"]
mod back;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Output},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use super::{World, said};

const AT: &str = "2026-11-21T10:00:00Z";
const HOST: &str = "shop.apps.example.com";
const COUNTED: &str = "2 tables, 5 rows, 0123456789abcdef";
const STACK: &str = "vend-production-shop-production";

/// What the platform knows of the move, and what it was asked.
#[derive(Default)]
struct Held {
    commit: String,
    database: bool,
    found: Option<Value>,
    /// All that goes there fails.
    fails: bool,
    /// Nothing is told of the move any more.
    deaf: bool,
    /// From when it is watched it is not healthy.
    sick: bool,
    /// What is live when it begins.
    live: u64,
    asked: Vec<String>,
    looks: u32,
    /// What it counted of data that was loaded; without it the load fails.
    loads: Option<&'static str>,
    /// Bytes of a dump that came.
    came: usize,
}

/// A platform with the one environment.
#[derive(Clone)]
struct Platform {
    address: std::net::SocketAddr,
    held: Arc<Mutex<Held>>,
}

impl Platform {
    fn start(commit: &str, database: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let held = Held {
            commit: commit.to_owned(),
            database,
            live: 1,
            ..Held::default()
        };
        let platform = Self {
            address: listener.local_addr().unwrap(),
            held: Arc::new(Mutex::new(held)),
        };
        let own = platform.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                own.answer(stream.unwrap());
            }
        });
        platform
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut head, mut length) = (String::new(), 0);
        let mut is_chunked = false;
        while reader.read_line(&mut head).unwrap() > 2 {
            let last = head.lines().last().unwrap().to_ascii_lowercase();
            is_chunked |= last == "transfer-encoding: chunked";
            if let Some(text) = last.strip_prefix("content-length: ") {
                length = text.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        if is_chunked {
            self.held.lock().unwrap().came = chunks(&mut reader);
        }
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let (status, more, answer) = self.held.lock().unwrap().answer(method, path, body);
        let kind = if status >= 400 {
            "application/problem+json"
        } else {
            "application/json"
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{more}Connection: close\r\n\r\n",
            answer.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&answer).unwrap();
    }

    /// What it was asked to change since the last time.
    fn changes(&self) -> Vec<String> {
        std::mem::take(&mut self.held.lock().unwrap().asked)
    }

    fn fails(&self) {
        self.held.lock().unwrap().fails = true;
    }

    fn found(&self) -> Option<Value> {
        self.held.lock().unwrap().found.clone()
    }
}

/// Reads a body that comes in chunks. Gives its bytes.
fn chunks(reader: &mut impl std::io::BufRead) -> usize {
    let mut all = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Ok(bytes) = usize::from_str_radix(line.trim(), 16) else {
            // It was cut short.
            return 0;
        };
        let mut chunk = vec![0; bytes + 2];
        if reader.read_exact(&mut chunk).is_err() {
            return 0;
        }
        all += bytes;
        if bytes == 0 {
            return all;
        }
    }
}

impl Held {
    fn answer(&mut self, method: &str, path: &str, body: Value) -> (u16, String, Vec<u8>) {
        let what = path
            .strip_prefix("/v1/tenants/acme/apps/shop/environments/production")
            .unwrap();
        if method != "GET" && what != "/move/load" {
            let said = if body.is_null() {
                String::new()
            } else {
                body.to_string()
            };
            self.asked
                .push(format!("{method} {what} {said}").trim_end().to_owned());
        }
        let mut more = String::new();
        let answer = match (method, what.split('?').next().unwrap()) {
            ("GET", "") => json!({
                "place": { "tenant": "acme", "app": "shop", "environment": "production" }, "branch": "main",
                "state": "live", "protected": false, "live": 1, "hosts": 1, "urls": [], "created_at": AT,
            }),
            ("GET", "/releases/1") => json!({
                "place": { "tenant": "acme", "app": "shop", "environment": "production" }, "number": 1, "state": "live",
                "commit": { "id": self.commit, "author": "Ada <ada@example.com>", "message": "first", "branch": "main",
                            "repository": "acme/shop", "committed_at": AT },
                "image": format!("sha256:{}", "0".repeat(64)), "revision": format!("sha256:{}", "0".repeat(64)),
                "created_at": AT,
            }),
            ("POST", "/move") => {
                self.found = Some(json!({
                    "place": { "tenant": "acme", "app": "shop", "environment": "production" }, "host": body["host"],
                    "release": self.live, "share": 0, "closed": false, "healthy": true, "requests": 0, "errors": 0,
                    "began_at": AT, "began_by": "person:ada",
                }));
                if self.database {
                    self.the_move()["data"] = json!("here");
                }
                self.the_move().clone()
            }
            ("POST", "/move/dump") => {
                more = format!("vend-counted: {COUNTED}\r\n");
                return (200, more, b"a dump".to_vec());
            }
            ("PUT", "/move/load") => match self.loads {
                Some(counted) => json!({ "counted": counted }),
                None => {
                    let problem =
                        json!({ "type": "x", "title": "no", "status": 500, "detail": "the server is away" });
                    return (500, more, problem.to_string().into_bytes());
                }
            },
            ("POST", "/move/arrived") => {
                assert_eq!(
                    (&body["counted"], &body["closed_at"]),
                    (&json!(COUNTED), &json!(AT))
                );
                if self.loads.is_some_and(|loaded| loaded != COUNTED) {
                    let problem = json!({ "type": "x", "title": "no", "status": 409, "detail": "is not what was dumped" });
                    return (409, more, problem.to_string().into_bytes());
                }
                self.the_move()["data"] = body["side"].clone();
                self.the_move().clone()
            }
            ("PUT", "/move") if self.deaf && body["closed"] == false => {
                let problem =
                    json!({ "type": "x", "title": "no", "status": 500, "detail": "the disk is full" });
                return (500, more, problem.to_string().into_bytes());
            }
            ("PUT", "/move") => {
                let fails = self.fails;
                let found = self.the_move();
                (found["share"], found["closed"]) = (body["share"].clone(), body["closed"].clone());
                found["closed_at"] = if body["closed"] == true {
                    json!(AT)
                } else {
                    Value::Null
                };
                let before = found.clone();
                if fails {
                    (found["requests"], found["errors"]) = (json!(50), json!(20));
                }
                before
            }
            ("POST", "/move/finish") => {
                self.the_move()["finished_at"] = json!(AT);
                self.the_move().clone()
            }
            ("POST", "/move/reopen") => {
                self.the_move().as_object_mut().unwrap().remove("finished_at");
                self.the_move().clone()
            }
            ("DELETE", "/move") => {
                self.found = None;
                return (204, more, Vec::new());
            }
            (_, "/move") if self.found.is_some() => {
                // The first five looks are before the share is watched.
                self.looks += u32::from(self.sick);
                let healthy = self.looks <= 5;
                self.the_move()["healthy"] = json!(healthy);
                self.the_move().clone()
            }
            _ => {
                let problem = json!({ "type": "x", "title": "not found", "status": 404, "detail": what });
                return (404, more, problem.to_string().into_bytes());
            }
        };
        (200, more, answer.to_string().into_bytes())
    }

    fn the_move(&mut self) -> &mut Value {
        self.found.as_mut().unwrap()
    }
}

impl World {
    /// `vend move acme/shop/production`, with more.
    fn moving(&self, platform: &Platform, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vend"));
        command
            .args(["move", "acme/shop/production"])
            .args(arguments)
            .current_dir(self.path())
            .env_clear();
        command
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("HOME", self.path())
            .env("VEND_URL", format!("http://{}", platform.address))
            .env("VEND_TOKEN", "vend_token")
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "not-to-be-seen")
            .env("VEND_RECEIVER", super::receiver::program());
        command.output().unwrap()
    }

    fn moves(&self, platform: &Platform, arguments: &[&str]) -> String {
        let done = self.moving(platform, arguments);
        assert!(done.status.success(), "{arguments:?}: {}", said(&done));
        String::from_utf8(done.stdout).unwrap()
    }

    fn stops(&self, platform: &Platform, arguments: &[&str]) -> String {
        let done = self.moving(platform, arguments);
        assert!(!done.status.success(), "{arguments:?}: {}", said(&done));
        said(&done)
    }

    /// The flow's release waits for people; they say yes.
    fn approved(&self) {
        self.good(&["approve", "production", "--yes"]);
    }
}

const GO: [&str; 5] = ["--engine", "aws", "--yes", "--watch", "0"];

#[test]
fn an_environment_moves_step_by_step_and_goes_on_where_it_was() {
    let Some(world) = World::applied() else { return };
    let commit = world.git(&["rev-parse", "HEAD"]);
    let platform = Platform::start(&commit, false);
    let plan = world.moves(&platform, &["--engine", "aws", "--plan"]);
    let golden = include_str!("moving.txt").replace("COMMIT", &commit[..12]);
    assert_eq!(plan, golden, "the plan");
    assert_eq!(platform.changes(), [] as [&str; 0], "a plan changes nothing");

    let missing = world.stops(&platform, &GO);
    assert!(
        missing.contains("vend aws secrets set production api-key"),
        "{missing}"
    );
    assert_eq!(
        platform.changes(),
        [format!("POST /move {{\"host\":\"{HOST}\"}}")]
    );
    world.hearing(&["secrets", "set", "production", "api-key"], "a value\n");
    let missing = world.stops(&platform, &GO);
    assert!(
        missing.contains("vend aws secrets set build registry-token"),
        "{missing}"
    );
    world.hearing(&["secrets", "set", "build", "registry-token"], "a value\n");

    world.asks();
    let waits = world.stops(&platform, &GO);
    assert!(
        waits.contains("is not live on AWS") && waits.contains("vend aws approve production"),
        "{waits}"
    );
    assert_eq!(
        platform.changes(),
        [] as [&str; 0],
        "it is held already, and nothing goes there yet"
    );
    world.approved();

    // Each share is a step of its own, from where it was.
    let first = world.moves(&platform, &[&GO[..], &["--weights", "10"]].concat());
    assert!(
        first.contains("10 % to shop.apps.example.com") && first.contains("--abort"),
        "{first}"
    );
    let rest = world.moves(&platform, &GO);
    assert!(
        rest.contains("is live there") && rest.contains("--finish"),
        "{rest}"
    );
    let shares = [10, 50, 100].map(|share| format!("PUT /move {{\"share\":{share},\"closed\":false}}"));
    assert_eq!(platform.changes(), shares);
    assert_eq!(
        world.json(&["releases"]).as_array().unwrap().len(),
        1,
        "it was released once"
    );

    let done = world.moves(&platform, &["--abort"]);
    assert!(
        done.contains("is served here") && platform.found().is_none(),
        "{done}"
    );
    assert_eq!(platform.changes(), ["DELETE /move?lose_writes=false"]);
}

#[test]
fn data_goes_at_once_or_not_at_all() {
    let text = "app: shop\nhost: { port: 8080, size: small }\ndatabase: { engine: mariadb }\nenvironments:\n  production: { branch: main }\n";
    let Some(world) = World::applied_as(text) else {
        return;
    };
    let commit = world.git(&["rev-parse", "HEAD"]);
    world.asks();
    let platform = Platform::start(&commit, true);
    let plan = world.moves(&platform, &["--engine", "aws", "--plan"]);
    assert!(
        plan.contains("nobody is served (503)") && plan.contains("100 % to shop.apps.example.com at once"),
        "{plan}"
    );
    world.stops(&platform, &GO);
    world.approved();
    platform.changes();
    world.release("BlueRuns=yes BlueImage=ami-12c6146b BlueWeight=100");
    let nobody = world.stops(&platform, &GO);
    assert!(nobody.contains("no host there is healthy"), "{nobody}");
    world.host(STACK, "Blue", "instance");
    let objects = "b = 'vend-production-artifacts-123456789012-eu-central-1'\n\
                   print([v['Key'] for v in client('s3').list_object_versions(Bucket=b).get('Versions', []) if 'move' in v['Key']])";

    // Why it did not arrive is said, whatever comes of the way back.
    platform.held.lock().unwrap().deaf = true;
    let lost = world.stops(&platform, &GO);
    assert!(
        lost.contains("counted nothing") && lost.contains("the disk is full") && lost.contains("--abort"),
        "{lost}"
    );
    platform.held.lock().unwrap().deaf = false;

    // It was loaded, and nobody knows what: everybody is served here again.
    platform.changes();
    let lost = world.stops(&platform, &GO);
    assert!(
        lost.contains("counted nothing") && lost.contains("served here again"),
        "{lost}"
    );
    let (close, open) = (
        "PUT /move {\"share\":0,\"closed\":true,\"closed_s\":900}",
        "PUT /move {\"share\":0,\"closed\":false}",
    );
    assert_eq!(platform.changes(), [close, "POST /move/dump {}", open]);
    assert_eq!(world.python(objects), "[]", "no data is left in the bucket");

    world.python(&format!(
        "client('ssm').put_parameter(Name='/test/counted', Type='String', Value='{COUNTED}')"
    ));
    let moved = world.moves(&platform, &GO);
    assert!(
        moved.contains(&format!("{COUNTED}: loaded"))
            && moved.contains("undo: vend move acme/shop/production --engine embedded"),
        "{moved}"
    );
    let arrived =
        format!("POST /move/arrived {{\"counted\":\"{COUNTED}\",\"side\":\"away\",\"closed_at\":\"{AT}\"}}");
    let all = "PUT /move {\"share\":100,\"closed\":false}";
    assert_eq!(platform.changes(), [close, "POST /move/dump {}", &arrived, all]);
    assert_eq!(world.python(objects), "[]");
    // Typed again, nothing is carried twice.
    world.moves(&platform, &GO);
    assert_eq!(platform.changes(), [] as [&str; 0]);
    // Nothing runs here any more: it comes up again before anybody is served here.
    let done = world.moves(&platform, &["--finish"]);
    assert!(
        done.contains("back: vend move acme/shop/production --engine embedded"),
        "{done}"
    );
    platform.changes();
    back::comes_back(&world, &platform, objects);

    // Once more there: what refused to write for the way back takes what comes.
    world.moves(&platform, &GO);
    assert_eq!(back::frozen(&world), "no");
    platform.changes();
    world.moves(&platform, &["--abort", "--lose-writes"]);
    assert_eq!(platform.changes(), ["DELETE /move?lose_writes=true"]);
}

#[test]
fn a_share_that_fails_comes_back_at_once() {
    let Some(world) = World::applied() else { return };
    let platform = Platform::start(&world.git(&["rev-parse", "HEAD"]), false);
    world.hearing(&["secrets", "set", "production", "api-key"], "a value\n");
    world.hearing(&["secrets", "set", "build", "registry-token"], "a value\n");
    world.asks();
    world.stops(&platform, &GO);
    world.approved();
    platform.fails();
    let failed = world.stops(&platform, &GO);
    assert!(failed.contains("20 of 50 requests failed there"), "{failed}");
    let shares = platform.changes();
    let put = |share: u32| format!("PUT /move {{\"share\":{share},\"closed\":false}}");
    assert_eq!(shares[1..], [10, 0].map(put));

    // The share at which it was broken off is looked at before there are more.
    {
        let mut held = platform.held.lock().unwrap();
        held.fails = false;
        let found = held.the_move();
        (found["share"], found["healthy"]) = (json!(10), json!(true));
        held.sick = true;
    }
    let failed = world.stops(&platform, &GO);
    assert!(failed.contains("does not serve well"), "{failed}");
    assert_eq!(platform.changes(), [put(0)], "50 % never went there");
}

#[test]
fn what_is_not_what_is_live_does_not_move() {
    let Some(world) = World::applied() else { return };
    let commit = world.git(&["rev-parse", "HEAD"]);
    let platform = Platform::start(&commit, false);
    for (arguments, why) in [
        (&["--engine", "aws", "--weights", "50,10"][..], "weights grow"),
        (&["--engine", "aws", "--json"], "not in JSON"),
        (&["--engine", "aws"], "nobody is here to be asked"),
        (&["--abort"], "not found"),
        (&[], "--engine"),
    ] {
        let refused = world.stops(&platform, arguments);
        assert!(refused.contains(why), "{arguments:?}: {refused}");
    }
    world.write(
        "vend.yaml",
        "app: shop\nenvironments:\n  production: { branch: main }\n",
    );
    let other = world.stops(&platform, &GO);
    assert!(
        other.contains("is not that of v1") && other.contains("git switch"),
        "{other}"
    );
    world.git(&["checkout", "vend.yaml"]);
    platform.held.lock().unwrap().live = 2;
    let another = world.stops(&platform, &GO);
    assert!(
        another.contains("v2 of") && another.contains("type it again"),
        "{another}"
    );
    assert_eq!(
        platform.changes(),
        [format!("POST /move {{\"host\":\"{HOST}\"}}")],
        "it is held, and no more"
    );
    let unknown = Platform::start(&"0".repeat(40), false);
    let away = world.stops(&unknown, &GO);
    assert!(away.contains("git fetch"), "{away}");
    assert_eq!((platform.changes(), unknown.changes()), (Vec::new(), Vec::new()));
}
