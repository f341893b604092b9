//! Whose a domain and a port are, whatever the numbers of environments.

use jiff::Timestamp;
use model::{Digest, Secret};
use store::{By, NewRelease, Tx};

use super::*;
use crate::fixtures;

const THIEF: &str = "aaa/shop/production";
const FIRST: &str = "vic/shop/production";
const LAST: &str = "zoe/shop/production";

const DOMAIN: &str = "bank.example.com";
const PORT: &str = "tcp-15432";
const NAMED: &str =
    "domains: [{ host: bank.example.com, certificate: { chain: '{{secret:chain}}', key: '{{secret:key}}' },
  dedicated_balancer: true }]
listeners: [{ protocol: tcp, port: 15432 }]";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

/// A store with these environments, whose numbers are in this order, and a certificate in the vault of each.
async fn world(places: &[&'static str]) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let path = camino::Utf8PathBuf::from_path_buf(directory.path().join("serve")).unwrap();
    let store = Store::open(&path).unwrap();
    let places = places.to_vec();
    let written = store.write(move |tx| {
        let by = By::platform(at(0));
        for text in &places {
            let place: Place = text.parse().unwrap();
            tx.create_tenant(&place.tenant, &by)?;
            tx.create_app(&place.tenant, &place.app, None, &by)?;
            tx.ensure_environment(&place, "main", &by)?;
            for name in ["chain", "key"] {
                tx.set_secret(&(&place).into(), name, &Secret::new(format!("of {text}")), &by)?;
            }
        }
        Ok::<_, store::Error>(())
    });
    written.await.unwrap();
    (directory, store)
}

/// The number of a new release with these keys.
fn release(tx: &Tx<'_>, place: &Place, keys: &str, by: &By) -> Result<u64, store::Error> {
    let (app, _) = App::parse(&format!("app: shop\n{keys}\n"), "vend.yaml", &|_| true).unwrap();
    let new = NewRelease {
        commit: fixtures::commit("main", by.at),
        source: Digest::of("source"),
        image: Digest::of("image"),
        revision: Digest::of("revision"),
        spec: app.environments[0].clone(),
        secrets: BTreeMap::new(),
        execution: None,
    };
    Ok(tx.create_release(place, &new, by)?.content.number)
}

/// A release with these keys gets the traffic. It sleeps, so that its port is open without any host.
async fn live(store: &Store, place: &str, keys: &'static str, second: i64) {
    let place: Place = place.parse().unwrap();
    let written = store.write(move |tx| {
        let by = By::platform(at(second));
        let number = release(tx, &place, keys, &by)?;
        tx.set_live(&place, number, by.at, &by)?;
        tx.sleep(&place, by.at, &by)
    });
    written.await.unwrap();
}

/// Who has the domain, the port, the domain's own listener and its certificate, after the next pass.
async fn pass(store: &Store) -> [Option<String>; 4] {
    let mut platform = Platform::default();
    let own = crate::config::Dedicated {
        http: Some("127.0.0.9:8080".parse().unwrap()),
        ..Default::default()
    };
    platform.listen.dedicated.insert(DOMAIN.to_owned(), own);
    let read = store.read(move |db| {
        let (served, changed) = read(db, &platform)?;
        Ok::<_, store::Error>((vault::given(db, &served)?, served, changed))
    });
    let (given, served, changed) = read.await.unwrap();
    let owners = changed.owners;
    let written = store.write(move |tx| owners.as_ref().map_or(Ok(()), |owners| tx.set_owners(owners)));
    written.await.unwrap();
    let table = table(7, &served);
    table.check().unwrap();
    let rule = |has: &dyn Fn(&Rule) -> bool| {
        let mut rules = table.rules.iter().filter(|rule| has(rule));
        let place = rules.next().map(|rule| rule.place.to_string());
        assert!(rules.next().is_none(), "one has it");
        place
    };
    let listens = |rule: &Rule, port: u16| rule.own.listeners.iter().any(|own| own.address.port() == port);
    let pem = given.certificates.get(DOMAIN).map(|pem| pem.expose().to_owned());
    [
        rule(&|rule| rule.hosts == [DOMAIN]),
        rule(&|rule| listens(rule, 15432)),
        rule(&|rule| listens(rule, 8080)),
        pem.map(|pem| pem.lines().next().unwrap().replace("of ", "")),
    ]
}

/// What the environment's people are told of each name that it asks for: is it theirs, and why not?
async fn told(store: &Store, place: &str) -> Vec<(String, bool, Option<&'static str>)> {
    let place: Place = place.parse().unwrap();
    let read = store.read(move |db| asked(db, &Platform::default(), &db.environment(&place)?));
    let told = read.await.unwrap().into_iter();
    told.map(|own| (own.name, own.since.is_some(), own.problem))
        .collect()
}

fn all(place: &str) -> [Option<String>; 4] {
    [(); 4].map(|()| Some(place.to_owned()))
}

#[tokio::test]
async fn the_first_environment_keeps_a_domain_and_a_port_from_one_with_a_smaller_number() {
    let (_directory, store) = world(&[THIEF, FIRST, LAST]).await;
    live(&store, FIRST, NAMED, 1).await;
    assert_eq!(pass(&store).await, all(FIRST));
    live(&store, THIEF, NAMED, 2).await;
    assert_eq!(pass(&store).await, all(FIRST));
    live(&store, FIRST, NAMED, 3).await;
    live(&store, LAST, NAMED, 3).await;
    assert_eq!(pass(&store).await, all(FIRST), "its next release has them too");
    assert_eq!(
        told(&store, FIRST).await,
        [DOMAIN, PORT].map(|name| (name.to_owned(), true, None))
    );
    for (told, name) in told(&store, THIEF).await.into_iter().zip([DOMAIN, PORT]) {
        assert_eq!((&*told.0, told.1), (name, false));
        let problem = told.2.unwrap();
        assert!(problem.starts_with("another environment"), "{problem}");
    }
    // Who asks no more has it no more, and gets it back after those who have waited.
    live(&store, FIRST, "", 4).await;
    assert_eq!(pass(&store).await, all(THIEF));
    live(&store, FIRST, NAMED, 5).await;
    assert_eq!(pass(&store).await, all(THIEF));
    let gone = store.write(|tx| tx.delete_environment(&THIEF.parse().unwrap(), &By::platform(at(6))));
    gone.await.unwrap();
    assert_eq!(pass(&store).await, all(LAST), "it has waited longest");
}

#[tokio::test]
async fn what_nobody_has_on_record_is_whose_live_releases_have_had_it_longest() {
    let (_directory, store) = world(&[THIEF, FIRST]).await;
    for (place, keys, second) in [
        (THIEF, NAMED, 1),
        (THIEF, "", 2),
        (FIRST, NAMED, 3),
        (THIEF, NAMED, 4),
        (FIRST, NAMED, 5),
    ] {
        live(&store, place, keys, second).await;
    }
    assert_eq!(pass(&store).await, all(FIRST));
}

#[tokio::test]
async fn what_arrives_takes_nothing_from_what_is_live_and_keeps_what_it_has() {
    let (_directory, store) = world(&[THIEF, FIRST]).await;
    let arrive = async |place: &str, keys: &'static str| {
        let place: Place = place.parse().unwrap();
        let written = store.write(move |tx| {
            let by = By::platform(at(1));
            let number = release(tx, &place, keys, &by)?;
            let arriving = Arriving {
                release: number,
                share: Some(10),
            };
            tx.share_traffic(&place, Some(arriving), &by)
        });
        written.await.unwrap();
    };
    arrive(THIEF, NAMED).await;
    // Nobody has them before the next pass.
    assert_eq!(
        told(&store, THIEF).await,
        [DOMAIN, PORT].map(|name| (name.to_owned(), false, None))
    );
    live(&store, FIRST, NAMED, 2).await;
    assert_eq!(pass(&store).await, all(FIRST), "in one pass with it");
    // Nothing of the live release is given up before it is replaced.
    arrive(FIRST, "").await;
    assert_eq!(pass(&store).await, all(FIRST));
}

#[test]
fn own_names_come_first_and_nobody_gets_anothers() {
    let thief = "domains: [{ host: shop.example.com }, { host: other.example.com }]";
    let evil = Served {
        owns: BTreeSet::from(["other.example.com".to_owned()]),
        ..served("evil/shop/production", 2, thief)
    };
    let table = table(7, &[evil, served("acme/shop/production", 3, KEYS)]);
    table.check().unwrap();
    let with = |host: &str| {
        let mut rules = table.rules.iter().filter(|rule| rule.hosts == [host]);
        let place = rules.next().map(|rule| rule.place.to_string());
        assert!(rules.next().is_none(), "one rule has {host}");
        place
    };
    assert_eq!(with("shop.example.com").as_deref(), Some("acme/shop/production"));
    assert_eq!(with("other.example.com").as_deref(), Some("evil/shop/production"));
    let own = table.rules.iter().filter(|rule| rule.hosts.len() == 2);
    assert_eq!(own.count(), 2);
    assert!(
        table.rules[..2].iter().all(|rule| rule.hosts.len() == 2),
        "own names come first"
    );
}
