//! New hosts that have a share of the traffic are judged by the old ones, in the same minutes.

use std::time::Duration;

use serde_json::Value;

use crate::{
    load::Load,
    platform::{Platform, can_run, eventually},
    strategies::{App, Stage, nothing_was_lost},
};

#[test]
fn a_canary_that_is_worse_than_the_old_hosts_is_taken_back() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "canary");
    let app = App::new(
        "strategy: canary, percent: 30%, interval: 2s, analysis: { sample: 10 }",
        1,
    );
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    // Nobody comes: it is watched for longer, and goes on without a verdict.
    app.says("quiet");
    let number = platform.push(&app.copy, &stage.app, "dev");
    let split = eventually("the traffic is divided", Duration::from_secs(60), || {
        let environments = platform.json(&["environments", "list", &stage.app]);
        let split = environments["items"][0]["split"].clone();
        (split["verdict"] == "unknown").then_some(split)
    });
    assert_eq!(
        (&split["release"], &split["percent"]),
        (&2.into(), &30.into()),
        "{split}"
    );
    let status = platform.vend(&["status", &stage.app]);
    let told = "dev: v2 gets 30 % of the traffic, v1 70 % (step 1 of 1, last analysis: unknown)";
    assert!(status.contains(told), "{status}");
    platform.ended(&stage.app, number);
    let status = platform.vend(&["status", &stage.app]);
    assert!(!status.contains("of the traffic"), "{status}");
    let quiet = stage.deployment();
    let verdicts: Vec<&Value> = quiet["analyses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|own| &own["verdict"])
        .collect();
    assert_eq!(verdicts, ["unknown"; 4], "{quiet:#}");
    let (load, troubled) = (
        Load::on(&platform.http(), &stage.host),
        Load::at(&platform.http(), &stage.host, "/trouble"),
    );
    app.server("two", 200, 500);
    let (push, failed) = stage.fails(&app);
    let reason = push["reason"].as_str().unwrap();
    assert!(
        reason.contains("taken back at 30 %") && reason.contains("requests fail"),
        "{reason}"
    );
    assert_eq!(failed["code"], "ALARM_ACTIVE");
    let id = failed["id"].as_str().unwrap();
    let detail = platform.json(&["deployments", "show", id]);
    // With too few visitors in the first minutes it was watched again.
    let analysis = detail["analyses"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&analysis["verdict"], &analysis["percent"]),
        (&"worse".into(), &30.into()),
        "{detail:#}"
    );
    assert!(
        analysis["new"]["failed"].as_u64() > Some(0) && analysis["old"]["failed"] == 0,
        "{analysis:#}"
    );
    let ledger = platform.vend(&["audit", "list", "--all", "--json"]);
    assert!(ledger.contains("deployment.analyse"), "the verdict is on record");
    stage.serves("quiet");
    // What was as good goes on, and says so.
    app.says("three");
    platform.release(&app.copy, &stage.app, "dev");
    let good = stage.deployment();
    let last = good["analyses"].as_array().unwrap().last().unwrap();
    assert_eq!(last["verdict"], "as-good", "{good:#}");
    nothing_was_lost(load);
    let (_, bad) = troubled.end();
    assert!(!bad.is_empty(), "those who asked for trouble found it");
    stage.end();
}

/// Whoever asks the new hosts waits, and is answered well.
#[test]
fn a_release_that_answers_slowly_is_taken_back_at_its_first_step() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "slow");
    let app = App::new("strategy: blue-green", 1);
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let load = Load::on(&platform.http(), &stage.host);
    for (strategy, share) in [
        ("canary, percent: 30%, interval: 3s", 30),
        ("linear, steps: 3, interval: 3s", 34),
    ] {
        let deploy = format!("strategy: {strategy}, analysis: {{ sample: 5 }}");
        let watched = app.vend_yaml.replace("strategy: blue-green", &deploy);
        app.copy.write("vend.yaml", watched);
        app.says("slow");
        let path = app.copy.directory.path().join("server.pl");
        let server = std::fs::read_to_string(path).unwrap();
        let slow = server.replace("1.5 if $path eq '/slow'", "1 if $path ne '/health'");
        assert_ne!(slow, server);
        app.copy.write("server.pl", slow);
        app.copy.commit("slow");
        let (push, failed) = stage.fails(&app);
        let reason = push["reason"].as_str().unwrap();
        assert!(
            reason.contains(&format!("taken back at {share} % of the traffic")),
            "{reason}"
        );
        let (_, said) = reason.split_once("its 99th percentile is ").expect(reason);
        let (new, said) = said.split_once(" ms, and ").expect(reason);
        let (old, _) = said.split_once(" ms on the old hosts").expect(reason);
        let [new, old] = [new, old].map(|ms| ms.parse::<f64>().expect(reason));
        assert_eq!(failed["code"], "ALARM_ACTIVE", "{failed:#}");
        let shown = platform.json(&["deployments", "show", failed["id"].as_str().unwrap()]);
        let analyses = shown["analyses"].as_array().unwrap();
        let last = analyses.last().unwrap();
        assert_eq!(
            (&last["verdict"], &last["step"], &last["percent"]),
            (&"worse".into(), &1.into(), &share.into()),
            "{shown:#}"
        );
        let p99 = |side: &str| last[side]["p99_ms"].as_f64().unwrap().round();
        assert_eq!((new, old), (p99("new"), p99("old")), "{reason}");
        // Both sides were asked in these seconds, nobody in vain.
        assert!(new > 2.0 * old && old > 0.0, "{reason}");
        assert_eq!(
            (&last["new"]["failed"], &last["old"]["failed"]),
            (&0.into(), &0.into())
        );
        stage.serves("one");
    }
    nothing_was_lost(load);
    stage.end();
}
