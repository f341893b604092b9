use std::collections::BTreeMap;

use model::{Digest, ExecutionId, HostId, port::Commit, spec};
use store::{By, NewMigration, NewRelease, Store};

use super::*;

#[test]
fn a_log_without_a_line_is_not_named() {
    let mut why = WhyEnvironment {
        environment: "dev".parse().unwrap(),
        live: None,
        push: None,
        up_to_date: false,
        sentence: String::new(),
        error: None,
        said: Vec::new(),
        log: Some("bake/t-1".to_owned()),
        way_back: None,
        next: Some("vend logs bake/t-1".to_owned()),
    };
    let mut other = why.clone();
    without_log(&mut why);
    assert_eq!((why.log, why.next), (None, None));
    other.next = Some("vend secrets set acme/shop db".to_owned());
    without_log(&mut other);
    assert_eq!(other.log, None);
    assert_eq!(other.next.as_deref(), Some("vend secrets set acme/shop db"));
}

#[tokio::test]
async fn what_stands_in_the_way_back_is_named_with_its_release() {
    let by = By::new("person:ann", jiff::Timestamp::UNIX_EPOCH);
    let directory = tempfile::tempdir().unwrap();
    let path = camino::Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
    let store = Store::open(&path).unwrap();
    let told = store.write(move |tx| {
        let place: model::Place = "acme/shop/dev".parse().unwrap();
        tx.create_tenant(&place.tenant, &by)?;
        tx.create_app(&place.tenant, &place.app, None, &by)?;
        tx.ensure_environment(&place, "main", &by)?;
        let text = "app: shop\ndeploy: { migrate: { script: mood.py, irreversible: true } }\n";
        let app = spec::App::parse(text, "vend.yaml", &|_| true).unwrap().0;
        let spec = app.environments[0].clone();
        let commit = Commit {
            id: "0".repeat(40),
            author: String::new(),
            message: String::new(),
            branch: "main".into(),
            repository: String::new(),
            committed_at: by.at,
        };
        let mut told = Vec::new();
        for number in 1..=2 {
            let new = NewRelease {
                commit: commit.clone(),
                source: Digest::of("source"),
                image: Digest::of("image"),
                revision: Digest::of("revision"),
                spec: spec.clone(),
                secrets: BTreeMap::new(),
                execution: None,
            };
            tx.create_release(&place, &new, &by)?;
            tx.set_live(&place, number, by.at, &by)?;
            told.push(way_back(tx, &place)?);
        }
        let new = NewMigration {
            place: place.clone(),
            release: 2,
            execution: ExecutionId::from_bits(2),
            host: HostId::from_bits(4),
            born_at: by.at,
        };
        tx.begin_migration(&new, spec.deploy.migrate.as_ref().unwrap(), &by)?;
        tx.end_migration(&place, 2, None, None, &by)?;
        told.push(way_back(tx, &place)?);
        Ok::<_, store::Error>(told)
    });
    let across = "v1 of acme/shop/dev may not work with the data: the migration mood.py of v2 has run, and is marked \
                  irreversible";
    assert_eq!(told.await.unwrap(), [None, None, Some(across.to_owned())]);
}

#[tokio::test]
async fn a_domain_that_is_anothers_is_named_and_not_whose_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = camino::Utf8PathBuf::from_path_buf(directory.path().join("serve")).unwrap();
    let store = Store::open(&path).unwrap();
    let names: Names =
        std::sync::Arc::new(|db, own| crate::reconcile::routes::asked(db, &Default::default(), own));
    let told = store.write(move |tx| {
        let by = By::platform(jiff::Timestamp::UNIX_EPOCH);
        let text = "app: shop\ndomains: [{ host: bank.example.com }, { host: a.localhost }]\n";
        let app = spec::App::parse(text, "vend.yaml", &|_| true).unwrap().0;
        let mut told = Vec::new();
        for name in ["first", "late"] {
            let place: model::Place = format!("{name}/shop/production").parse().unwrap();
            tx.create_tenant(&place.tenant, &by)?;
            tx.create_app(&place.tenant, &place.app, None, &by)?;
            let environment = tx.ensure_environment(&place, "main", &by)?;
            let commit = crate::fixtures::commit("main", by.at);
            let push = store::NewPush {
                tenant: place.tenant.clone(),
                app: place.app.clone(),
                environment: Some(environment.place.environment),
                branch: "main".into(),
                commit: commit.clone(),
                origin: "git".into(),
                event: None,
            };
            tx.enqueue_push(&push, &by)?;
            let new = NewRelease {
                commit,
                source: Digest::of("source"),
                image: Digest::of("image"),
                revision: Digest::of("revision"),
                spec: app.environments[0].clone(),
                secrets: Default::default(),
                execution: None,
            };
            tx.create_release(&place, &new, &by)?;
            tx.set_live(&place, 1, by.at, &by)?;
            if name == "first" {
                let (place, since) = (place.clone(), by.at);
                let owner = store::Owner { place, since };
                tx.set_owners(&[("bank.example.com".to_owned(), owner)].into())?;
            }
            let why = why(tx, &names, place.tenant.clone(), place.app.clone())?;
            told.push(why.environments[0].sentence.clone());
        }
        Ok::<_, store::Error>(told)
    });
    let told = told.await.unwrap();
    assert!(!told[0].contains("bank.example.com"), "{told:?}");
    assert!(
        told[1].contains("bank.example.com does not lead here"),
        "{told:?}"
    );
    assert!(!told[1].contains("first/shop"), "{told:?}");
    let platforms = "a.localhost does not lead here: it is the platform's own";
    assert!(told.iter().all(|told| told.contains(platforms)), "{told:?}");
}

#[test]
fn last_words_are_the_scripts_own_and_few() {
    let log: String = (0..40).map(|n| format!("line {n}\n\n")).collect();
    let said = last_lines(&format!(
        "Script - start.sh\n{log}[vend] the script ended\nBoom: no module\n"
    ));
    assert_eq!(said.len(), LAST_WORDS);
    assert_eq!(said.last().map(String::as_str), Some("Boom: no module"));
    assert_eq!(last_lines(&"x".repeat(5000))[0].len(), LONGEST_WORD);
    assert_eq!(last_lines(""), Vec::<String>::new());
}
