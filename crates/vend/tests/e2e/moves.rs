//! An environment's way to AWS as this platform sees it: who is served, where its data is, what is refused meanwhile.
//!
//! Nothing is on AWS here: the name there leads nowhere, and the database there is another server on this machine.

use std::{path::Path, process::Command, time::Duration};

use serde_json::{Value, json};

use crate::{
    corridor::{approved, open_approval},
    guestbook::Guestbook,
    mariadb::{Server, counted},
    platform::{Copy, Platform, can_run, eventually},
};

/// No such name is ever given away (RFC 6761).
const HOST: &str = "shop.aws.invalid";

/// The move of an environment, asked over the local socket.
struct Asked<'p> {
    platform: &'p Platform,
    dev: String,
}

impl Asked<'_> {
    fn curl(&self, method: &str, more: &str, body: Option<&Value>, file: Option<&Path>) -> (u16, String) {
        let parts: Vec<&str> = self.dev.split('/').collect();
        let path = format!(
            "/v1/tenants/{}/apps/{}/environments/{}/move{more}",
            parts[0], parts[1], parts[2]
        );
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--request",
            method,
            "--write-out",
            "\n%header{vend-counted}\n%{http_code}",
        ]);
        curl.arg("--unix-socket")
            .arg(self.platform.data().join("run/api.sock"));
        if let Some(file) = body.and_then(|body| body["file"].as_str()) {
            curl.arg("--upload-file").arg(file);
        } else if let Some(body) = body {
            curl.args([
                "--header",
                "content-type: application/json",
                "--data",
                &body.to_string(),
            ]);
        }
        if let Some(file) = file {
            curl.arg("--output").arg(file);
        }
        let done = curl.arg(format!("http://vend{path}")).output().unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        let (answer, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), answer.to_owned())
    }

    fn ask(&self, method: &str, more: &str, body: Option<Value>) -> (u16, Value) {
        let (status, answer) = self.curl(method, more, body.as_ref(), None);
        let answer = answer.rsplit_once('\n').map_or("", |(answer, _)| answer);
        (status, serde_json::from_str(answer).unwrap_or(Value::Null))
    }

    fn good(&self, method: &str, more: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.ask(method, more, body);
        assert!(status < 300, "{method} {more}: {status} {answer}");
        answer
    }

    fn refused(&self, method: &str, more: &str, body: Option<Value>) -> String {
        let (status, answer) = self.ask(method, more, body);
        assert!((400..500).contains(&status), "{method} {more}: {status} {answer}");
        answer["detail"].as_str().unwrap().to_owned()
    }

    /// Has the platform take in a dump. Gives the status, and what was counted or why not.
    fn load(&self, file: &Path) -> (u16, String) {
        let sent = Some(json!({ "file": file }));
        let (status, answer) = self.curl("PUT", "/load", sent.as_ref(), None);
        let (answer, _) = answer.rsplit_once('\n').unwrap();
        let answer: Value = serde_json::from_str(answer).unwrap_or(Value::Null);
        let said = answer["counted"].as_str().or(answer["detail"].as_str());
        (status, said.unwrap_or_default().to_owned())
    }

    fn forward(&self, share: u32) -> Option<Value> {
        Some(json!({ "share": share, "closed": false }))
    }
}

#[test]
fn a_share_goes_elsewhere_and_comes_back() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (customer, app) = platform.tenant_with_app("movers");
    let dev = format!("{app}/dev");
    let asked = Asked {
        platform: &platform,
        dev: dev.clone(),
    };
    let copy = Copy::new("before", "app: shop\nenvironments:\n  dev: { branch: dev }\n");
    platform.release(&copy, &app, "dev");
    copy.says("here");
    platform.release(&copy, &app, "dev");
    let host = format!("dev.shop.{customer}.localhost");
    let begin = || Some(json!({ "host": HOST }));
    let served = || platform.get(&host, "/").0;

    for (name, why) in [
        ("localhost", "not the name"),
        ("10.0.0.1", "not the name"),
        ("x.localhost", "round in circles"),
    ] {
        let refused = asked.refused("POST", "", Some(json!({ "host": name })));
        assert!(refused.contains(why), "{name}: {refused}");
    }
    assert_eq!(asked.ask("GET", "", None).0, 404);
    let begun = asked.good("POST", "", begin());
    assert_eq!((&begun["share"], &begun["release"]), (&json!(0), &json!(2)));
    assert!(asked.refused("POST", "", begin()).contains("already"));
    assert_eq!(served(), 200, "it is only probed there");
    eventually("it is seen that nobody is there", Duration::from_secs(60), || {
        (asked.good("GET", "", None)["healthy"] == false).then_some(())
    });

    // Nothing else becomes live meanwhile: what is pushed waits.
    let rollback = platform.try_vend(&["rollback", &dev]);
    let said = String::from_utf8_lossy(&rollback.stderr).into_owned();
    assert!(
        !rollback.status.success() && said.contains("is being moved to AWS, with v2"),
        "{said}"
    );
    copy.says("newer");
    let waiting = platform.push(&copy, &app, "dev");
    asked.good("PUT", "", asked.forward(100));
    assert_eq!(served(), 502, "all of it goes to a name that leads nowhere");
    assert!(asked.good("GET", "", None)["share"] == 100);
    let shown = platform.vend(&["environments", "show", &dev]);
    assert!(
        shown.contains(&format!("100 % is forwarded to {HOST}")),
        "{shown}"
    );
    asked.good("PUT", "", Some(json!({ "share": 0, "closed": true })));
    assert_eq!(served(), 503);
    asked.good("PUT", "", asked.forward(0));
    assert_eq!(platform.get(&host, "/"), (200, "here\n".into()));
    assert!(asked.refused("POST", "/finish", None).contains("not wholly"));
    assert!(platform.vend(&["why", &app]).contains("moved to AWS"));
    asked.good("DELETE", "", None);
    eventually("what has waited is released", Duration::from_secs(90), || {
        (platform.get(&host, "/").1 == "newer\n").then_some(())
    });
    assert_eq!(platform.ended(&app, waiting)["state"], "done");

    // Wholly gone, and here again.
    eventually("nothing moves", Duration::from_secs(90), || {
        (asked.ask("POST", "", begin()).0 == 201).then_some(())
    });
    copy.says("third");
    let waiting = platform.push(&copy, &app, "dev");
    asked.good("PUT", "", asked.forward(100));
    asked.good("POST", "/finish", None);
    eventually("nothing runs here", Duration::from_secs(90), || {
        let hosts = platform.json(&["hosts", "list", &dev]);
        hosts["items"].as_array().unwrap().is_empty().then_some(())
    });
    assert_eq!(served(), 502, "its names still lead there");
    assert_eq!(platform.ended(&app, waiting)["state"], "ignored");
    let scaled = platform.try_vend(&["scale", &dev, "2"]);
    assert!(String::from_utf8_lossy(&scaled.stderr).contains("runs on AWS"));
    asked.good("POST", "/reopen", None);
    eventually("it runs here", Duration::from_secs(90), || {
        let shown = platform.json(&["environments", "show", &dev]);
        (shown["state"] == "live" && shown["execution"].is_null()).then_some(())
    });
    asked.good("DELETE", "", None);
    assert_eq!(platform.get(&host, "/"), (200, "newer\n".into()));
    copy.says("fourth");
    platform.release(&copy, &app, "dev");
    assert_eq!(platform.get(&host, "/"), (200, "fourth\n".into()));
    let ledger = platform.vend(&["audit", "list", "--all", "--json"]);
    for action in ["begin", "serve", "finish", "reopen", "end"] {
        assert!(ledger.contains(&format!("move.{action}")), "{action}");
    }
    platform.vend(&["tenants", "delete", &customer, "--yes"]);
}

#[test]
fn data_is_dumped_loaded_elsewhere_and_counted_alike() {
    if !can_run() {
        return;
    }
    let Some(there) = Server::start() else { return };
    let platform = Platform::start();
    let Guestbook {
        customer,
        app,
        dev,
        site,
        copy,
    } = Guestbook::new(&platform, "carriers");
    platform.release(&copy, &app, "dev");
    let asked = Asked {
        platform: &platform,
        dev,
    };
    site.sign("Ada", "Good morning");
    site.sign("Grace", "Zoë was here");
    asked.good("POST", "", Some(json!({ "host": HOST })));
    assert!(asked.refused("PUT", "", asked.forward(10)).contains("data"));
    assert!(asked.refused("POST", "/dump", None).contains("is served"));
    asked.good("PUT", "", Some(json!({ "share": 0, "closed": true })));
    let file = there.folder.path().join("dump.gz");
    let (status, said) = asked.curl("POST", "/dump", None, Some(&file));
    assert_eq!(status, 200, "{said}");
    let dumped = said.trim().to_owned();
    assert!(dumped.contains(" tables, "), "{dumped}");
    let loaded = counted(&there.load(&file).unwrap());
    assert_eq!(loaded, dumped);
    assert!(there.sql("app", "SELECT * FROM entries").contains("Zoë was here"));
    let other = asked.refused("POST", "/arrived", Some(json!({ "counted": "1 tables" })));
    assert!(other.contains("not what was dumped"), "{other}");
    let settled = asked.good("POST", "/arrived", Some(json!({ "counted": loaded })));
    assert_eq!(settled["data"], "away");
    assert!(asked.refused("PUT", "", asked.forward(0)).contains("data"));
    asked.good("PUT", "", asked.forward(100));
    assert!(asked.refused("DELETE", "", None).contains("would be lost"));
    comes_back(&asked, &there);
    site.sign("Alan", "It is written here again");
    let entries = site.entries();
    for entry in [
        "Zo\\u00eb was here",
        "It was written there",
        "It is written here again",
    ] {
        assert!(entries.contains(entry), "{entry}: {entries}");
    }
    assert_eq!(asked.ask("GET", "", None).0, 404, "the move has ended");
    let ledger = platform.vend(&["audit", "list", "--all", "--json"]);
    for action in ["dump", "settle", "overwrite", "load", "end"] {
        assert!(ledger.contains(&format!("move.{action}")), "{action}");
    }
    platform.vend(&["tenants", "delete", &customer, "--yes"]);
}

/// What was written there since comes here, in place of what was here.
fn comes_back(asked: &Asked<'_>, there: &Server) {
    there.sql(
        "app",
        "INSERT INTO entries (name, message) VALUES ('Mary', 'It was written there'); CREATE TABLE of_there (a INT); SET GLOBAL read_only = 1",
    );
    let back = there.folder.path().join("back.gz");
    let dumped = counted(&there.send(&back, "").unwrap());
    let close = || Some(json!({ "share": 100, "closed": true, "closed_s": 600 }));
    assert!(asked.load(&back).1.contains("is served"), "its data would change");
    let closed_at = asked.good("PUT", "", close())["closed_at"].clone();
    // Half a dump is no data, and from then on nothing here may be served.
    let half = there.folder.path().join("half.gz");
    let bytes = std::fs::read(&back).unwrap();
    std::fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();
    let (status, why) = asked.load(&half);
    assert!(status >= 500, "{status} {why}");
    let nothing_here = asked.refused("DELETE", "?lose_writes=true", None);
    assert!(nothing_here.contains("has not arrived"), "{nothing_here}");
    let arrived =
        |counted: &str, at: &Value| Some(json!({ "counted": counted, "side": "here", "closed_at": at }));
    let nothing = asked.refused("POST", "/arrived", arrived(&dumped, &closed_at));
    assert!(nothing.contains("not what was counted"), "{nothing}");
    assert_eq!(asked.load(&back), (200, dumped.clone()));
    // Somebody was served meanwhile, and may have written there.
    asked.good("PUT", "", asked.forward(100));
    let again = asked.good("PUT", "", close())["closed_at"].clone();
    assert_ne!(again, closed_at);
    asked.refused("POST", "/arrived", arrived(&dumped, &again));
    assert_eq!(asked.load(&back), (200, dumped.clone()));
    let old = asked.refused("POST", "/arrived", arrived(&dumped, &closed_at));
    assert!(old.contains("what arrived is old"), "{old}");
    let settled = asked.good("POST", "/arrived", arrived(&dumped, &again));
    assert_eq!(
        (&settled["data"], &settled["torn"]),
        (&json!("here"), &json!(false))
    );
    assert!(asked.refused("PUT", "", asked.forward(100)).contains("data"));
    asked.good("DELETE", "", None);
}

#[test]
fn who_is_served_by_nobody_for_too_long_is_served_again() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (customer, app) = platform.tenant_with_app("lapsed");
    let asked = Asked {
        platform: &platform,
        dev: format!("{app}/dev"),
    };
    let copy = Copy::new("here", "app: shop\nenvironments:\n  dev: { branch: dev }\n");
    platform.release(&copy, &app, "dev");
    let host = format!("dev.shop.{customer}.localhost");
    asked.good("POST", "", Some(json!({ "host": HOST })));
    let close = |seconds: u32| Some(json!({ "share": 0, "closed": true, "closed_s": seconds }));
    assert!(asked.refused("PUT", "", close(5)).contains("60 to 86400"));
    let closed = asked.good("PUT", "", close(60));
    assert!(
        closed["closed_at"].is_string() && closed["closed_until"].is_string(),
        "{closed}"
    );
    assert_eq!(platform.get(&host, "/").0, 503);
    // Whoever closed it is gone; so is what was the platform then.
    platform.restart("serve");
    platform.wait_until_ready();
    eventually("it is served again", Duration::from_secs(120), || {
        (platform.get(&host, "/") == (200, "here\n".into())).then_some(())
    });
    let now = asked.good("GET", "", None);
    assert_eq!(
        (&now["closed"], &now["closed_until"]),
        (&json!(false), &Value::Null)
    );
    let ledger = platform.vend(&["audit", "list", "--all", "--json"]);
    assert!(ledger.contains("move.lapse"), "{ledger}");
    asked.good("DELETE", "", None);
    platform.vend(&["tenants", "delete", &customer, "--yes"]);
}

#[test]
fn a_release_that_waits_for_people_and_a_move_keep_each_other_out() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (customer, app) = platform.tenant_with_app("asked");
    let asked = Asked {
        platform: &platform,
        dev: format!("{app}/production"),
    };
    let approver = platform.token("ops@acme.example", "approver", &customer);
    let yaml = "app: shop\nenvironments:\n  production: { branch: main, approval: { required: 1 } }\n";
    let copy = Copy::new("none", yaml);
    for text in ["zero", "one"] {
        copy.says(text);
        let push = platform.push(&copy, &app, "main");
        approved(&platform, &approver, &open_approval(&platform, &app), &app, push);
    }
    // People are asked: whatever they answer, the move would be of another release than they thought.
    copy.says("two");
    let second = platform.push(&copy, &app, "main");
    let question = open_approval(&platform, &app);
    let refused = asked.refused("POST", "", Some(json!({ "host": HOST })));
    assert!(refused.contains("is under way"), "{refused}");
    platform.vend_as(&approver, &["reject", &question, "--why", "it moves first"]);
    assert_eq!(platform.ended(&app, second)["state"], "failed");
    // It moves: nobody is asked about what waits, and no answer to an old question counts.
    eventually("nothing is under way", Duration::from_secs(60), || {
        (asked.ask("POST", "", Some(json!({ "host": HOST }))).0 == 201).then_some(())
    });
    let url = format!("http://{}", platform.endpoints()["api"].as_str().unwrap());
    let mut late = platform.command(&["approve", &question, "--yes"]);
    let late = late
        .env("VEND_URL", url)
        .env("VEND_TOKEN", &approver)
        .output()
        .unwrap();
    assert!(!late.status.success());
    copy.says("three");
    let third = platform.push(&copy, &app, "main");
    eventually("what waits says for what", Duration::from_secs(60), || {
        platform
            .vend(&["why", &app])
            .contains("moved to AWS")
            .then_some(())
    });
    let all = platform.json(&["approvals", "list", &app]);
    let is_open = |own: &Value| own["state"] == "open";
    assert!(
        !all["items"].as_array().unwrap().iter().any(is_open),
        "nobody is asked: {all}"
    );
    let rollback = platform.try_vend(&["rollback", &asked.dev]);
    let said = String::from_utf8_lossy(&rollback.stderr).into_owned();
    assert!(
        !rollback.status.success() && said.contains("is being moved to AWS, with v2"),
        "{said}"
    );
    asked.good("DELETE", "", None);
    approved(&platform, &approver, &open_approval(&platform, &app), &app, third);
    let host = format!("production.shop.{customer}.localhost");
    assert_eq!(platform.get(&host, "/"), (200, "three\n".into()));
    platform.vend(&["tenants", "delete", &customer, "--yes"]);
}
