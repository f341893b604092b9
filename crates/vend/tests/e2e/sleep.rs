//! Environments that nobody asks for: their hosts go, and come back for the first who does.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{Arc, Barrier},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    guestbook::Guestbook,
    load::Load,
    platform::{Copy, Platform, can_run, eventually, get},
};

const VEND_YAML: &str = "app: shop
host: { health: { path: /, interval: 1s, timeout: 1s } }
deploy: { keep_old: 5m }
scaling: { min: 2 }
environments:
  dev: { branch: dev, sleep_after: 10s }
  production: { branch: main, scaling: { min: 1 } }
";

/// What it is; `changing` while anything is under way for it.
fn state(platform: &Platform, app: &str, environment: &str) -> String {
    let listed = platform.json(&["environments", "list", app]);
    let mut items = listed["items"].as_array().unwrap().iter();
    let found = items.find(|item| item["place"]["environment"] == environment);
    let found = found.unwrap();
    match found["execution"].is_null() {
        true => found["state"].as_str().unwrap().to_owned(),
        false => "changing".to_owned(),
    }
}

/// Asleep, and nothing of it runs.
fn falls_asleep(platform: &Platform, app: &str) {
    eventually("it sleeps", Duration::from_secs(60), || {
        (state(platform, app, "dev") == "sleeping").then_some(())
    });
    let hosts = platform.json(&["hosts", "list", &format!("{app}/dev")]);
    let stand = |host: &&Value| host["role"] == "app";
    let standing: Vec<&Value> = hosts["items"].as_array().unwrap().iter().filter(stand).collect();
    assert!(standing.is_empty(), "{standing:#?}");
}

fn of_kind(platform: &Platform, app: &str, kind: &str) -> Vec<Value> {
    let listed = platform.json(&["executions", "list", app]);
    let of_kind = |one: &&Value| one["kind"] == kind;
    listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(of_kind)
        .cloned()
        .collect()
}

/// So many visitors at the same moment; what each was answered.
fn visitors(count: usize, address: &str, host: &str) -> Vec<(u16, String)> {
    let start = Arc::new(Barrier::new(count));
    let visit = |_| {
        let (start, address, host) = (Arc::clone(&start), address.to_owned(), host.to_owned());
        std::thread::spawn(move || {
            start.wait();
            get(&address, &host, "/").unwrap_or_else(|error| (0, error.to_string()))
        })
    };
    let visits: Vec<_> = (0..count).map(visit).collect();
    visits.into_iter().map(|visit| visit.join().unwrap()).collect()
}

#[test]
fn an_environment_sleeps_and_wakes_without_losing_a_request() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("sleep");
    let host = format!("dev.shop.{tenant}.localhost");
    let dev = format!("{app}/dev");
    let copy = Copy::new("one", VEND_YAML);
    platform.release(&copy, &app, "main");
    platform.release(&copy, &app, "dev");
    copy.says("two");
    platform.release(&copy, &app, "dev");
    let refused = platform.try_vend(&["wake", &dev]);
    assert!(!refused.status.success(), "what is awake is not woken");

    falls_asleep(&platform, &app);
    let asked = std::time::Instant::now();
    let (good, wrong): (Vec<_>, Vec<_>) = visitors(50, &platform.http(), &host)
        .into_iter()
        .partition(|answer| *answer == (200, "two\n".into()));
    println!(
        "50 requests for a sleeper were answered within {:?}",
        asked.elapsed()
    );
    assert_eq!((good.len(), wrong.first()), (50, None));
    eventually("all its hosts serve", Duration::from_secs(60), || {
        (state(&platform, &app, "dev") == "live").then_some(())
    });
    let woken = of_kind(&platform, &app, "wake");
    assert_eq!(woken.len(), 1, "{woken:#?}");

    // What sleeps goes on sleeping when the control side starts anew, and a request waits for the control side too.
    falls_asleep(&platform, &app);
    platform.kill("serve");
    platform.wait_until_ready();
    assert_eq!(state(&platform, &app, "dev"), "sleeping");
    platform.pause("serve", Signal::STOP);
    let (address, name) = (platform.http(), host.clone());
    let waiting = std::thread::spawn(move || get(&address, &name, "/"));
    let page = browse(&platform.http(), &host);
    assert!(
        page.starts_with("HTTP/1.1 503 ") && page.contains("http-equiv=refresh"),
        "{page}"
    );
    assert!(!waiting.is_finished());
    platform.pause("serve", Signal::CONT);
    assert_eq!(waiting.join().unwrap().unwrap(), (200, "two\n".into()));

    // By hand, and by a deployment, which leaves it awake.
    falls_asleep(&platform, &app);
    platform.succeeds(&["wake", &dev]);
    assert_eq!(platform.get(&host, "/"), (200, "two\n".into()));
    falls_asleep(&platform, &app);
    copy.says("three");
    platform.release(&copy, &app, "dev");
    assert_eq!(state(&platform, &app, "dev"), "live");
    assert_eq!(platform.get(&host, "/"), (200, "three\n".into()));
    assert_eq!(
        state(&platform, &app, "production"),
        "live",
        "nobody said that it may sleep"
    );

    // The newest requests are shown: those of the load below would be all of them.
    let requests = platform.vend(&["logs", &dev, "--access"]);
    assert!(
        requests.contains(" 200 4 ") && requests.contains(&format!(" {app}/dev/v")),
        "{requests}"
    );
    assert!(
        requests.contains(" 503 "),
        "what the balancer answered itself is there too: {requests}"
    );

    // Visitors who come while a release of a sleeper is under way are answered by one release or the other, every one.
    falls_asleep(&platform, &app);
    copy.says("four");
    let number = platform.push(&copy, &app, "dev");
    let load = Load::on(&platform.http(), &host);
    assert_eq!(
        platform.ended(&app, number)["state"],
        "done",
        "{}",
        platform.log()
    );
    assert_eq!(platform.get(&host, "/"), (200, "four\n".into()));
    let (good, bad) = load.end();
    assert_eq!((good > 3, bad.first()), (true, None), "{good} answers");

    // Another tenant has nothing of it, and a tenant of the same name later will have nothing either.
    let (other, _) = platform.tenant_with_app("stranger");
    let token = platform.token("eve", "developer", &other);
    assert_eq!(platform.vend_as(&token, &["logs", &other, "--access"]), "");
    let ledger = platform.vend(&["audit", "list", &dev, "--all", "--json"]);
    assert!(ledger.contains("environment.sleep") && ledger.contains("environment.wake"));
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}

/// What a browser is shown.
fn browse(address: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

#[test]
fn a_database_sleeps_with_its_app_and_keeps_its_data() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let Guestbook {
        customer,
        app,
        dev,
        site,
        copy,
    } = Guestbook::new(&platform, "sleepers");
    let file = copy.directory.path().join("vend.yaml");
    let text = std::fs::read_to_string(file).unwrap();
    let sleepy = text.replacen("branch: dev", "branch: dev\n    sleep_after: 10s", 1);
    assert_ne!(text, sleepy);
    copy.write("vend.yaml", sleepy);
    copy.commit("It sleeps");
    platform.release(&copy, &app, "dev");
    site.sign("Ada", "Good night");

    falls_asleep(&platform, &app);
    let databases = || {
        let hosts = platform.json(&["hosts", "list", &dev]);
        let of_data = |host: &&Value| host["role"] == "database" && host["seen"] == "running";
        hosts["items"].as_array().unwrap().iter().filter(of_data).count()
    };
    assert_eq!(databases(), 0);
    assert!(site.entries().contains("Good night"));
    assert_eq!(databases(), 1);
    platform.vend(&["tenants", "delete", &customer, "--yes"]);
}
