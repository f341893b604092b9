//! What an operator and a `vend.yaml` say to visitors and of the load balancer: closed, kept out, limited, measured, and how
//! hosts are spoken to.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::platform::{Copy, Platform, can_run, eventually, get};

const PAGE: &str = "<!doctype html><p>Back at noon";

/// Actions of the ledger that are about visitors, in their order.
fn written(platform: &Platform, tenant: &str) -> Vec<String> {
    let lines = platform.json(&["audit", "list", tenant]);
    let lines = lines["items"].as_array().unwrap().iter().rev();
    let actions = lines.filter_map(|line| line["action"].as_str());
    actions
        .filter(|action| {
            [".close", ".open", ".access"]
                .iter()
                .any(|end| action.ends_with(end))
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn visitors_get_what_is_said_to_them_while_nothing_is_released() {
    if !can_run() {
        return;
    }
    let platform = Platform::with("[access_log]\nformat = 'json'\n");
    let (tenant, app) = platform.tenant_with_app("doors");
    let yaml = |more: &str| {
        format!(
            "app: shop\nhost: {{ health: {{ path: /, interval: 1s, timeout: 1s }} }}\ndeploy: {{ keep_old: 10m }}\n{more}"
        )
    };
    let copy = Copy::new("one", &yaml(""));
    platform.release(&copy, &app, "main");
    let (place, host) = (
        format!("{app}/production"),
        format!("production.shop.{tenant}.localhost"),
    );
    let visit = || platform.get(&host, "/");
    assert_eq!(visit(), (200, "one\n".into()));

    // One environment, with a page; it is opened as what was closed.
    let page = copy.directory.path().join("page.html");
    std::fs::write(&page, PAGE).unwrap();
    platform.vend(&["edge", "close", &place, "--page", page.to_str().unwrap()]);
    assert_eq!(visit(), (503, PAGE.into()));
    let status = platform.vend(&["status", &app]);
    assert!(
        status.contains("production: closed for its visitors, "),
        "{status}"
    );
    let explained = platform.vend(&["edge", "explain", &format!("http://{host}/")]);
    assert!(explained.contains("the client gets 503"), "{explained}");
    platform.vend(&["edge", "open", &tenant]);
    assert_eq!(visit().0, 503, "the environment is closed by itself");
    platform.vend(&["edge", "open", &place]);
    assert_eq!(visit(), (200, "one\n".into()));

    // All of a tenant.
    platform.vend(&["edge", "close", &tenant]);
    assert_eq!(visit(), (503, "closed for maintenance\n".into()));
    let shown = platform.vend(&["tenants", "show", &tenant]);
    assert!(
        shown.contains("closed for its visitors, with its whole tenant"),
        "{shown}"
    );
    platform.vend(&["edge", "open", &tenant]);
    assert_eq!(visit().0, 200);

    // Who may ask, for a tenant.
    platform.vend(&["edge", "access", &tenant, "--deny", "127.0.0.0/8,192.0.2.7"]);
    let (code, text) = visit();
    assert_eq!(
        (code, text.trim_end()),
        (403, "this is not served to your address")
    );
    let explain =
        |source: &str| platform.vend(&["edge", "explain", &format!("http://{host}/"), "--source", source]);
    assert!(explain("127.0.0.1").contains("the client gets 403"));
    assert!(
        explain("198.51.100.1").contains("100.0 % go to"),
        "{}",
        explain("198.51.100.1")
    );
    let shown = platform.vend(&["edge", "access", &tenant]);
    assert!(
        shown.contains("everybody may ask, and not 127.0.0.0/8, 192.0.2.7/32"),
        "{shown}"
    );
    let wrong = platform.try_vend(&["edge", "access", &tenant, "--allow", "10.1.2.3/24"]);
    assert!(!wrong.status.success());
    platform.vend(&["edge", "access", &tenant, "--everybody"]);
    assert_eq!(visit().0, 200);
    let expected = [
        "environment.close",
        "environment.open",
        "tenant.close",
        "tenant.open",
        "tenant.access",
        "tenant.access",
    ];
    assert_eq!(
        written(&platform, &tenant),
        expected,
        "nothing was open that was opened"
    );

    // The same, of an environment, with a release.
    copy.write("vend.yaml", yaml("access: { allow: [192.0.2.0/24] }\n"));
    copy.commit("for the office");
    platform.release(&copy, &app, "main");
    assert_eq!(visit().0, 403);
    assert!(explain("192.0.2.9").contains("100.0 % go to"));

    // What is seen of it.
    let metrics = platform.endpoints()["metrics"].as_str().unwrap().to_owned();
    let (code, text) = get(&metrics, "metrics", "/metrics").unwrap();
    assert!(code == 200 && text.contains("vend_edge_"), "{code} {text}");
    let log = platform.data().join("edge/access.log");
    eventually("a line of the log is JSON", Duration::from_secs(30), || {
        let text = std::fs::read_to_string(&log).ok()?;
        let mut own = text.lines().rev().filter(|line| line.contains(&host));
        let last: Value = serde_json::from_str(own.next()?).unwrap();
        last.as_object().map(drop)
    });
    // Whatever the operator has it look like, a tenant reads its own lines.
    let own = platform.vend(&["logs", &tenant, "--access"]);
    assert!(
        own.lines().count() > 5 && own.contains(&format!("\"GET {host}/ HTTP/1.1\" 503 ")),
        "{own}"
    );
}

/// HTTP/2 by prior knowledge and nothing else: one frame of headers and one of data for each request (RFC 9113, section 4.1).
const SECOND: &str = r#"
use strict; use IO::Socket::INET;
$SIG{CHLD} = 'IGNORE';
my $server = IO::Socket::INET->new(LocalPort => $ENV{PORT}, Listen => 64, ReuseAddr => 1) or die $!;
sub frame { my ($type, $flags, $stream, $body) = @_;
    return substr(pack('N', length $body), 1) . pack('CCN', $type, $flags, $stream) . $body }
sub get { my ($socket, $length) = @_; my $all = '';
    while (length $all < $length) { sysread($socket, $all, $length - length $all, length $all) or exit 0 } return $all }
while (my $client = $server->accept) {
    next if fork;
    exit 0 if get($client, 24) !~ /^PRI \* HTTP\/2.0/;
    syswrite($client, frame(4, 0, 0, ''));
    while (1) {
        my ($high, $low, $type, $flags, $stream) = unpack('CnCCN', get($client, 9));
        my $body = get($client, $high << 16 | $low);
        syswrite($client, frame(4, 1, 0, '')) if $type == 4 && !($flags & 1);
        syswrite($client, frame(6, 1, 0, $body)) if $type == 6 && !($flags & 1);
        syswrite($client, frame(1, 4, $stream, "\x88") . frame(0, 1, $stream, "by HTTP/2\n"))
            if $type <= 1 && $flags & 1;
    }
}
"#;

#[test]
fn hosts_are_spoken_to_and_tenants_limited_as_files_say() {
    if !can_run() {
        return;
    }
    let platform = Platform::with("[edge.limits]\nrequests_per_tenant = 3\n");
    let (tenant, app) = platform.tenant_with_app("second");
    let copy = Copy::new(
        "two",
        "app: shop
host:
  health: { protocol: tcp, interval: 1s, timeout: 1s }
  traffic: { protocol: http2, algorithm: least-outstanding, ejection: { failures: 3 } }
",
    );
    copy.write("server.pl", SECOND);
    copy.commit("by HTTP/2");
    platform.release(&copy, &app, "main");
    let url = format!("http://production.shop.{tenant}.localhost/");
    let visit = || {
        let at = platform.http();
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--noproxy", "*", "--http2-prior-knowledge"]);
        curl.args([
            "--connect-to",
            &format!("::{at}"),
            "--write-out",
            "%{http_code}",
            &url,
        ]);
        let curl = curl.stdout(Stdio::piped()).spawn();
        curl.expect("curl is installed: apt-get install curl")
    };
    let said = |curl: Child| String::from_utf8(curl.wait_with_output().unwrap().stdout).unwrap();
    eventually("it is served by HTTP/2", Duration::from_secs(30), || {
        (said(visit()) == "by HTTP/2\n200").then_some(())
    });
    // Twice three at once, and no more of them than three a second afterwards.
    let visits: Vec<Child> = (0..60).map(|_| visit()).collect();
    let answers: Vec<String> = visits.into_iter().map(said).collect();
    let limited = answers.iter().filter(|answer| answer.ends_with("429")).count();
    assert!(limited > 0, "{answers:?}");
    let table = platform.json(&["edge", "routes"]);
    let groups = table["target_groups"].as_object().unwrap();
    let group = &groups[&format!("{app}/production/v1")];
    assert_eq!(group["protocol"], "http2", "{group:#}");
    assert_eq!(group["algorithm"], "least-outstanding", "{group:#}");
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}
