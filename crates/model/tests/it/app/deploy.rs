//! How releases come to hosts: steps, zones, machines.

use super::*;

#[test]
fn steps_are_of_canary_and_linear() {
    use model::spec::{Analysis, Steps, Strategy};
    let deploy = |text: &str| {
        read(&format!("app: a\ndeploy: {text}")).unwrap().0.environments[0]
            .deploy
            .clone()
    };
    let steps = |percent, interval: &str, analysis| {
        let interval = interval.parse().unwrap();
        Some(Steps {
            percent,
            interval,
            analysis,
        })
    };
    let usual = Analysis::default();
    assert_eq!(deploy("{}").steps, None);
    assert_eq!(deploy("{ strategy: in-place }").strategy, Strategy::InPlace);
    assert_eq!(deploy("{ strategy: canary }").steps, steps(10, "10m", usual));
    assert_eq!(deploy("{ strategy: linear }").steps, steps(10, "1m", usual));
    let third = deploy(
        "{ strategy: linear, steps: 3, interval: 5s, analysis: { errors: 2.5%, slower: 50%, sample: 7 } }",
    );
    let analysis = Analysis {
        errors: 2.5,
        slower: 50,
        sample: 7,
    };
    assert_eq!(third.steps, steps(34, "5s", analysis));
}

#[test]
fn zones_are_watched_as_they_say() {
    let zones = |text: &str| {
        let placed = "placement: { registered: { role: web } }";
        let text = format!("app: a\n{placed}\ndeploy: {{ zones: {{ {text} }} }}\n");
        let (app, _) = App::parse(&text, "vend.yaml", &|_| true).unwrap();
        let zones = app.environments[0].deploy.zones.unwrap();
        (
            zones.minimum_healthy,
            zones.monitor.as_secs(),
            zones.first_monitor.as_secs(),
        )
    };
    assert_eq!(zones("monitor: 5m"), (MinimumHealthy::Percent(0), 300, 300));
    assert_eq!(
        zones("minimum_healthy: 1, first_monitor: 1h"),
        (MinimumHealthy::Count(1), 0, 3600)
    );
}

#[test]
fn alarms_are_named_once_and_say_what_is_not_known() {
    let read = |text: &str| {
        let text = format!("app: a\ndeploy: {{ alarms: {text} }}\n");
        App::parse(&text, "vend.yaml", &|_| true).map(|(app, _)| app.environments[0].deploy.alarms.clone())
    };
    let alarms = read("{ names: errors }").unwrap().unwrap();
    assert_eq!(
        (
            alarms.names[0].as_str(),
            alarms.ignore_unknown,
            alarms.stale_after
        ),
        ("errors", false, None)
    );
    let alarms = read("{ names: [errors, shop/p99], ignore_unknown: true, stale_after: 5m }");
    let alarms = alarms.unwrap().unwrap();
    assert_eq!(alarms.names.len(), 2);
    assert!(alarms.ignore_unknown);
    assert_eq!(alarms.stale_after.unwrap().as_secs(), 300);
    // An environment may do without those of the whole file.
    assert_eq!(read("~").unwrap(), None);
    let many: Vec<String> = (0..51).map(|number| format!("a{number}")).collect();
    for (text, said) in [
        (
            "{ stale_after: 5m }".to_owned(),
            "`deploy.alarms.names` is missing",
        ),
        ("{ names: [] }".to_owned(), "must name 1 to 50 alarms"),
        (
            format!("{{ names: [{}] }}", many.join(", ")),
            "must name 1 to 50 alarms",
        ),
        ("{ names: [a, a] }".to_owned(), "has `a` twice"),
        ("{ names: [\"-x\"] }".to_owned(), "is not the name of an alarm"),
        ("{ names: a, stale_after: 1s }".to_owned(), "stale_after"),
        (
            "{ names: a, ignore_unknown: maybe }".to_owned(),
            "must be true or false",
        ),
    ] {
        let problems = read(&text).unwrap_err();
        assert!(
            problems.iter().any(|problem| problem.message.contains(said)),
            "{text}: {problems:?}"
        );
    }
}

#[test]
fn nothing_is_baked_for_machines() {
    let text = "app: a\nimage: { scripts: [slow.sh], inputs: ['*'], refresh: automatic }\n\
                environments:\n  here: {}\n  there: { placement: { registered: { role: web } } }\n";
    let (app, _) = App::parse(text, "vend.yaml", &|_| true).unwrap();
    let scripts = |at: usize| app.environments[at].image.scripts.len();
    assert_eq!((scripts(0), scripts(1)), (1, 0));
    assert_eq!(app.environments[1].image.refresh, Refresh::Manual);
}

#[test]
fn machines_are_not_counted_by_the_scaling_of_hosts() {
    let app = good(concat!(
        "app: a\nplacement: { registered: { role: web } }\n",
        "deploy: { strategy: in-place, minimum_healthy: 50%, zones: { minimum_healthy: 50% } }",
    ));
    let deploy = &app.environments[0].deploy;
    assert_eq!(deploy.minimum_healthy, MinimumHealthy::Percent(50));
}

#[test]
fn a_timeout_that_nobody_wrote_fits_its_interval() {
    for (health, timeout) in [("interval: 1s", 1), ("interval: 10s", 2), ("path: /up", 2)] {
        let app = good(&format!("app: a\nhost: {{ health: {{ {health} }} }}"));
        let found = app.environments[0].host.health.timeout;
        assert_eq!(found, SignedDuration::from_secs(timeout), "{health}");
    }
}
