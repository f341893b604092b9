//! `edge.yaml`: the guide's samples, and what is said of wrong ones.

use jiff::SignedDuration;
use tokio::sync::watch;

use super::{
    alone::{hold, settle},
    *,
};

fn guide() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guides/edge.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("```yaml\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

fn config(text: &str) -> Result<Config, String> {
    let value = model::spec::plain("edge.yaml", text).map_err(|problems| problems[0].to_string())?;
    written_as(value).map_err(|(steps, why)| format!("{}: {why}", steps.join(".")))
}

#[test]
fn the_guide_shows_files_that_work() {
    let (parts, blocks): (Vec<String>, Vec<String>) =
        guide().into_iter().partition(|block| block.starts_with("rules:"));
    let mut recipe = config(&format!("listeners: []\n{}", parts.concat())).unwrap();
    assert_eq!(recipe.table().unwrap().rules.len(), 1);
    let mut whole = config(&blocks.concat()).unwrap();
    let table = whole.table().unwrap();
    assert_eq!((table.rules.len(), table.target_groups.len()), (5, 3));
    assert_eq!(
        table.rules[2].authenticate.as_ref().unwrap().client_secret,
        "intranet"
    );
    assert_eq!(table.rules[2].priority, 3, "in the order of the file");
    assert!(whole.sound(&table).is_ok());
    let data = Data("/tmp".into());
    let acme = whole.acme(&data).unwrap().unwrap();
    assert_eq!(acme.certificates, "/etc/vend/certificates");
    assert_eq!(whole.limits().source_requests, 100);
}

#[test]
fn datagrams_and_names_are_bound_as_written() {
    let text = "
listeners:
  - { address: '127.0.0.1:0', speaks: http }
  - { address: '127.0.0.1:0', speaks: udp, host: game.test }
rules: [{ hosts: [game.test], forward: { game: 1 } }]
target_groups: { game: { targets: ['127.0.0.1:9'], direct: 10s, health: { port: 80 } } }
";
    let mut file = config(text).unwrap();
    assert_eq!(file.listeners().unwrap().0.len(), 1);
    assert_eq!(file.datagrams().unwrap()[0].host, "game.test");
    let group = &file.table().unwrap().target_groups["game"];
    assert_eq!(
        (group.direct, group.health.port),
        (Some(SignedDuration::from_secs(10)), Some(80))
    );
    assert!(file.names().unwrap().is_none());
    let dns = |more: &str| {
        config(&format!("{text}dns: {{ listen: ['127.0.0.1:0'], {more} }}"))
            .unwrap()
            .names()
    };
    assert!(
        dns("zones: [game.test], addresses: [192.0.2.1]")
            .unwrap()
            .is_some()
    );
    assert!(
        dns("zones: [game.test]")
            .unwrap_err()
            .what
            .contains("has no addresses")
    );
    assert!(
        dns("addresses: [192.0.2.1]")
            .unwrap_err()
            .what
            .contains("`dns` needs `zones`")
    );
}

#[test]
fn what_is_wrong_is_found_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = Utf8Path::from_path(folder.path()).unwrap().join("edge.yaml");
    for (text, place) in [
        (
            "listeners: []\nrules:\n  - hosts: [a.test]\n    redirect: { status: many }\n",
            "4:25: `rules.0.redirect.status`: invalid type",
        ),
        (
            "listeners:\n  - { address: '1.2.3.4:80', speaks: ftp }\n",
            "2:38: `listeners.0.speaks`: unknown variant `ftp`",
        ),
        ("listeners: []\nrule: 5\n", "2:7: `rule`: unknown field"),
        (
            "listeners: []\ntarget_groups:\n  a: { targets: [x] }\n",
            "3:18: `target_groups.a.targets.0`: invalid socket address",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let cause = read(&file).err().unwrap().cause.unwrap();
        assert!(cause.starts_with(place), "{cause}");
    }
}

#[test]
fn what_is_read_at_the_start_only_is_named() {
    let text = "listeners: [{ address: '127.0.0.1:0', speaks: http }]\n";
    let started = config(text).unwrap();
    let now =
        format!("{text}metrics: '127.0.0.1:9'\naccess_log: {{ path: a }}\nlimits: {{ body: 7 }}\nrules: []");
    let now = config(&now).unwrap();
    assert_eq!(now.later(&started.fixed()), ["access_log", "metrics"]);
    assert_eq!(started.later(&started.fixed()), [""; 0]);
    let (sender, limits) = watch::channel(started.limits());
    let now = config(&format!("{text}limits: {{ body: 7, head: 2048, idle: 5s }}\n")).unwrap();
    assert_eq!(now.later(&started.fixed()), [""; 0], "limits hold at once");
    settle(&now, &started.fixed(), &sender);
    let limits = *limits.borrow();
    assert_eq!((limits.body, limits.head, limits.idle.as_secs()), (7, 2048, 5));
}

#[test]
fn an_address_that_somebody_else_has_is_tried_again() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let one = format!("{{ address: '{at}', speaks: sni, proxied: true }}");
    let both = config(&format!(
        "listeners: [{one}, {{ address: '127.0.0.1:0', speaks: http }}]\n"
    ));
    let (bound, unbound) = both.unwrap().listeners().unwrap();
    assert_eq!((bound.len(), unbound.len()), (1, 1));
    assert_eq!(unbound[0].address, at);
    assert!(unbound[0].proxied && matches!(unbound[0].speaks, Speaks::Sni));
    let alone = config(&format!("listeners: [{one}]\n")).unwrap().listeners();
    let why = alone.unwrap_err();
    assert_eq!(why.what, format!("cannot listen at {at}"), "nobody could come");
}

#[test]
fn listeners_say_nothing_that_nobody_looks_at() {
    let sound = |listeners: &str| {
        let file = config(&format!("listeners: [{listeners}]\n")).unwrap();
        file.sound(&Table::default()).map_err(|failure| failure.what)
    };
    let with = |more: &str| format!("{{ address: '127.0.0.1:0', {more} }}");
    assert_eq!(
        sound(&with(
            "speaks: https, certificates: /c, minimum: 1.3, proxied: true"
        )),
        Ok(())
    );
    assert_eq!(sound(&with("speaks: udp, host: game.test")), Ok(()));
    for (listeners, why) in [
        (String::new(), "`listeners` is empty: nobody could come"),
        (
            with("speaks: http, certificates: /c"),
            "has `certificates`, which is of `https`",
        ),
        (
            with("speaks: sni, minimum: 1.2"),
            "has `minimum`, which is of `https`",
        ),
        (
            with("speaks: https, host: a.test"),
            "has `host`, which is of `tcp` and `udp`",
        ),
        (
            with("speaks: udp, host: a.test, proxied: true"),
            "has `proxied`, which is of what has connections",
        ),
    ] {
        let said = sound(&listeners).unwrap_err();
        assert!(said.contains(why), "{said}");
    }
    let none = config("listeners: [{ address: '127.0.0.1:0', speaks: http }]\nworkers: 0\n");
    assert!(none.unwrap_err().contains("somebody must serve"));
}

#[test]
fn the_word_of_a_proxy_is_only_for_who_can_hear_it() {
    let sound = |listeners: &str| {
        let text = format!(
            "listeners: [{listeners}]
rules: [{{ hosts: ['*.game.test'], forward: {{ game: 1 }} }}]
target_groups:
  game: {{ targets: ['127.0.0.1:9'], proxy: v2 }}
  spare: {{ targets: ['127.0.0.1:9'], proxy: v2 }}
"
        );
        let mut file = config(&text).unwrap();
        let table = file.table().unwrap();
        file.sound(&table).map_err(|failure| failure.what)
    };
    let http = "{ address: '127.0.0.1:0', speaks: http }";
    let of =
        |speaks: &str, host: &str| format!("{{ address: '127.0.0.1:0', speaks: {speaks}, host: {host} }}");
    let sni = "{ address: '127.0.0.1:0', speaks: sni }";
    for listeners in [
        of("tcp", "A.game.test"),
        sni.to_owned(),
        format!(
            "{http}, {}, {}",
            of("udp", "a.game.test"),
            of("tcp", "b.game.test")
        ),
    ] {
        assert_eq!(sound(&listeners), Ok(()), "{listeners}");
    }
    for listeners in [
        http.to_owned(),
        of("udp", "a.game.test"),
        format!("{http}, {}", of("tcp", "other.test")),
    ] {
        let said = sound(&listeners).unwrap_err();
        assert!(said.contains("`game` has `proxy`"), "{listeners}: {said}");
    }
}

#[test]
fn a_folder_of_data_has_one_load_balancer() {
    let folder = tempfile::tempdir().unwrap();
    let data = Data(Utf8Path::from_path(folder.path()).unwrap().join("data"));
    let held = hold(&data).unwrap();
    assert!(hold(&data).unwrap_err().what.contains("already"));
    drop(held);
    hold(&data).unwrap();
}

#[test]
fn what_is_wrong_is_said() {
    let listener = "listeners: [{ address: '127.0.0.1:0', speaks: http }]\n";
    for (text, expected) in [
        (
            "listeners: [{ address: x, speaks: http }]",
            "invalid socket address",
        ),
        (
            "listeners: [{ address: '127.0.0.1:0', speaks: ftp }]",
            "unknown variant `ftp`",
        ),
        (&format!("{listener}rule: []"), "unknown field `rule`"),
    ] {
        let error = config(text).err().unwrap();
        assert!(error.contains(expected), "{error}");
    }
    for (rules, expected) in [
        (
            "rules: [{ hosts: [a.test] }]",
            "one of forward, redirect and answer",
        ),
        (
            "rules: [{ hosts: [a.test], forward: { none: 1 } }]",
            "which is not in the table",
        ),
    ] {
        let error = config(&format!("{listener}{rules}"))
            .unwrap()
            .table()
            .err()
            .unwrap();
        assert!(error.what.contains(expected), "{}", error.what);
    }
}
