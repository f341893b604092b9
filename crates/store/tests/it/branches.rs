//! Environments that come and go with their branches.

use model::{Place, Secret, spec};
use store::{Error, PushState, SecretScope, Status};

use crate::world::{World, app, at, begin, by, commit, end, place, push, start, tenant};

/// What a push to `branch` is for.
fn made(branch: &str) -> (Place, spec::Environment) {
    let text = "app: shop\nenvironments:\n  production: {}\n  preview: { branches: ['f/*', x], expires: 1h, limit: 2 }\n";
    let (app, _) = spec::App::parse(text, "vend.yaml", &|_| true).unwrap();
    let own = app.following(branch).unwrap().remove(0);
    (place(&format!("acme/shop/{}", own.name)), own)
}

async fn ensure(world: &World, branch: &str, second: i64) -> Result<Option<store::Environment>, Error> {
    let (place, spec) = made(branch);
    let ensured = world
        .store
        .write(move |tx| tx.ensure_preview(&place, &spec, 3, &by(second)));
    ensured.await
}

fn refusal(result: Result<Option<store::Environment>, Error>) -> String {
    match result {
        Err(Error::Refused { message, .. }) => message,
        other => panic!("{other:?}"),
    }
}

async fn actions(world: &World, object: &str) -> Vec<String> {
    let lines = world.store.read(|db| db.ledger_from(1, 1000)).await.unwrap();
    let own = lines.into_iter().filter(|line| line.object == object);
    own.map(|line| line.action).collect()
}

#[tokio::test]
async fn there_are_as_many_as_the_file_and_the_platform_allow() {
    let world = World::new();
    for other in [
        "acme/shop/production",
        "acme/blog/production",
        "other/shop/production",
    ] {
        world.environment(other).await;
    }
    let first = ensure(&world, "f/1", 1).await.unwrap().unwrap();
    let preview = first.preview.unwrap();
    assert_eq!(
        (preview.of.as_str(), preview.expires_at()),
        ("preview", at(1 + 3600))
    );
    assert_eq!(first.branch, "f/1");
    // Again is the same one.
    assert_eq!(
        ensure(&world, "f/1", 2).await.unwrap().unwrap().number,
        first.number
    );
    ensure(&world, "f/2", 3).await.unwrap();
    let full = refusal(ensure(&world, "f/3", 4).await);
    assert_eq!(
        full,
        "acme/shop has 2 environments of `preview` already: its `limit`"
    );
    // The tenant's other app has room of its own, and not beyond what the tenant has in all.
    let more = |branch: &str, name: &str| {
        let (mut spec, place) = (made(branch).1, place(&format!("acme/blog/{name}")));
        spec.preview.as_mut().unwrap().limit = 50;
        world
            .store
            .write(move |tx| tx.ensure_preview(&place, &spec, 3, &by(5)))
    };
    more("f/1", "a").await.unwrap();
    let full = refusal(more("f/2", "b").await);
    assert_eq!(
        full,
        "acme has 3 environments of branches already, and may have no more"
    );
    // Nothing of what was refused is left.
    let all = world.store.read(|db| db.environments(None)).await.unwrap();
    assert_eq!(all.len(), 6);
}

#[tokio::test]
async fn names_are_nobody_elses() {
    let world = World::new();
    world.environment("acme/shop/x").await;
    let taken = refusal(ensure(&world, "x", 1).await);
    assert_eq!(
        taken,
        "branch x would have the environment `x`, which is of branch main"
    );
    ensure(&world, "f/1", 1).await.unwrap();
    // Another branch of the same name, were there one.
    let (own, mut spec) = made("f/1");
    spec.branch = "f/other".into();
    let other = world
        .store
        .write(move |tx| tx.ensure_preview(&own, &spec, 3, &by(2)))
        .await;
    assert!(refusal(other).ends_with("which is of branch f/1"));
    // A file that names it itself does not take it over.
    let own = made("f/1").0;
    let named = world
        .store
        .write(move |tx| tx.ensure_environment(&own, "main", &by(2)).map(Some))
        .await;
    assert!(refusal(named).contains("is of branch f/1"));
    // Nor does a file that has for branches what is an environment: it would have its secrets.
    world.environment("acme/shop/preview").await;
    assert!(refusal(ensure(&world, "f/2", 3).await).contains("there is an environment of that name"));
}

#[tokio::test]
async fn a_branch_that_is_gone_ends_what_came_with_it_and_nothing_else() {
    let world = World::new();
    let production = world.environment("acme/shop/production").await;
    let first = ensure(&world, "f/1", 1).await.unwrap().unwrap().place;
    let second = ensure(&world, "f/2", 1).await.unwrap().unwrap().place;
    let late = world
        .write({
            let production = production.clone();
            move |tx| {
                let mut new = push(&production, "late");
                (new.environment, new.branch) = (None, "f/1".into());
                tx.enqueue_push(&new, &by(2))
            }
        })
        .await;
    let after = |branch: &'static str, last: Option<String>, second: i64| {
        world.write(move |tx| {
            tx.branch_gone(
                &tenant("acme"),
                &app("shop"),
                branch,
                last.as_deref(),
                &by(second),
            )
        })
    };
    let gone = |branch, second| after(branch, None, second);
    let nothing = gone("main", 3).await;
    assert_eq!(
        (nothing.ending, nothing.pushes),
        (vec![], 0),
        "what the file names stays"
    );
    let overtaken = after("f/1", Some(commit("early").id), 3).await;
    assert_eq!(
        (overtaken.ending, overtaken.pushes),
        (vec![], 0),
        "it has come again since"
    );
    let found = after("f/1", Some(commit("late").id), 4).await;
    assert_eq!((found.ending, found.pushes), (vec![first.clone()], 1));
    let late = world.store.read(move |db| db.push(late)).await.unwrap();
    assert_eq!(
        (late.state, late.reason.as_deref()),
        (PushState::Ignored, Some("the branch is gone"))
    );
    let counts = |push: store::Push| world.store.read(move |db| db.still_counts(&push));
    assert!(
        !counts(late).await.unwrap(),
        "the same commit may come again with its branch"
    );
    let own = first.clone();
    let there = world
        .write(move |tx| tx.enqueue_push(&push(&own, "there"), &by(4)))
        .await;
    let there = world.store.read(move |db| db.push(there)).await.unwrap();
    assert!(!counts(there.clone()).await.unwrap());
    // Twice is once, and who said it first stays on record.
    gone("f/1", 5).await;
    let ending = world.store.read(|db| db.ending()).await.unwrap();
    let expected = (first.clone(), "its branch f/1 is gone".to_owned(), by(0).actor);
    assert_eq!(ending, [expected]);
    // A push to it waits until it is gone; then it comes again.
    assert_eq!(ensure(&world, "f/1", 6).await.unwrap(), None);
    let own = first.clone();
    world.write(move |tx| tx.delete_environment(&own, &by(7))).await;
    let again = ensure(&world, "f/1", 8).await.unwrap().unwrap();
    assert_eq!(again.preview.unwrap().ending, None);
    assert!(counts(there).await.unwrap());
    assert_eq!(
        actions(&world, &first.to_string()).await,
        [
            "environment.create",
            "environment.end",
            "push.ignore",
            "environment.delete",
            "environment.create"
        ]
    );
    // What is protected stays, also when it was protected in time.
    let own = second.clone();
    world.write(move |tx| tx.set_protected(&own, true, &by(9))).await;
    let kept = gone("f/2", 10).await;
    assert_eq!((kept.ending, kept.kept), (vec![], vec![second.clone()]));
    gone("f/1", 11).await;
    let own = first.clone();
    world.write(move |tx| tx.set_protected(&own, true, &by(12))).await;
    assert_eq!(world.store.read(|db| db.ending()).await.unwrap(), []);
}

#[tokio::test]
async fn it_expires_when_nobody_has_pushed_and_nothing_moves() {
    let world = World::new();
    world.environment("acme/shop/production").await;
    let own = ensure(&world, "f/1", 0).await.unwrap().unwrap().place;
    let expired = async |second: i64| {
        let read = world.store.read(move |db| db.expired(at(second))).await.unwrap();
        read.into_iter().map(|own| own.place).collect::<Vec<_>>()
    };
    assert_eq!(expired(3599).await, []);
    assert_eq!(expired(3600).await, std::slice::from_ref(&own));
    let pushed = |second: i64, origin: &'static str| {
        let mut new = push(&own, "more");
        (new.branch, new.origin) = ("f/1".into(), origin.into());
        world.write(move |tx| tx.enqueue_push(&new, &by(second)))
    };
    // A newer base is no use; a push is.
    pushed(50, "refresh").await;
    pushed(60, "refresh-automatic").await;
    assert_eq!(expired(3600).await, std::slice::from_ref(&own));
    pushed(100, "git").await;
    assert_eq!(expired(3699).await, []);
    assert_eq!(expired(3700).await, std::slice::from_ref(&own));
    // Not while something moves, nor when it is protected.
    let place = own.clone();
    world
        .write(move |tx| start(tx, 7, Some(&place), "{}", &by(200)))
        .await;
    assert_eq!(expired(9999).await, []);
    world.write(|tx| end(tx, 7, Status::Succeeded, 300)).await;
    assert_eq!(expired(9999).await, std::slice::from_ref(&own));
    let place = own.clone();
    world
        .write(move |tx| tx.set_protected(&place, true, &by(400)))
        .await;
    assert_eq!(expired(9999).await, []);
}

#[tokio::test]
async fn it_has_the_secrets_of_what_it_was_made_from() {
    let world = World::new();
    let production = world.environment("acme/shop/production").await;
    let own = ensure(&world, "f/1", 0).await.unwrap().unwrap().place;
    let set = |environment: Option<&str>, name: &'static str, value: &'static str| {
        let scope = SecretScope {
            tenant: tenant("acme"),
            app: app("shop"),
            environment: environment.map(|name| name.parse().unwrap()),
        };
        world.write(move |tx| tx.set_secret(&scope, name, &Secret::new(value.into()), &by(1)))
    };
    for name in ["a", "b", "c"] {
        set(None, name, "of the app").await;
    }
    let of_previews = set(Some("preview"), "b", "of previews").await;
    set(Some("preview"), "c", "of previews").await;
    set(Some(own.environment.as_str()), "c", "its own").await;
    set(Some("production"), "d", "of production").await;
    let value = |place: &Place, name: &'static str, version: Option<u64>| {
        let place = place.clone();
        let read = world.store.read(move |db| db.reveal(&place, name, version));
        async move { read.await.ok().map(|secret| secret.expose().to_owned()) }
    };
    for (name, expected) in [("a", "of the app"), ("b", "of previews"), ("c", "its own")] {
        assert_eq!(value(&own, name, None).await.as_deref(), Some(expected), "{name}");
    }
    assert_eq!(value(&own, "d", None).await, None, "production's are its own");
    assert_eq!(value(&production, "b", None).await.as_deref(), Some("of the app"));
    assert_eq!(value(&production, "b", Some(of_previews)).await, None);
    assert_eq!(
        value(&own, "b", Some(of_previews)).await.as_deref(),
        Some("of previews")
    );
    // An environment of the entry's name has them to itself from then on.
    world.environment("acme/shop/preview").await;
    assert_eq!(value(&own, "b", None).await.as_deref(), Some("of the app"));
    assert_eq!(value(&own, "b", Some(of_previews)).await, None);
}

#[tokio::test]
async fn what_it_was_made_from_does_not_change() {
    let world = World::new();
    world.environment("acme/shop/production").await;
    let own = ensure(&world, "f/1", 1).await.unwrap().unwrap().place;
    let (place, mut spec) = made("f/1");
    spec.preview.as_mut().unwrap().of = "other".parse().unwrap();
    let other = world
        .store
        .write(move |tx| tx.ensure_preview(&place, &spec, 3, &by(2)))
        .await;
    assert!(refusal(other).ends_with("was made from `preview` of vend.yaml, and would be of `other`"));
    let found = world.store.read(move |db| db.environment(&own)).await.unwrap();
    assert_eq!(found.preview.unwrap().of.as_str(), "preview");
}

#[tokio::test]
async fn what_is_being_destroyed_cannot_be_protected_any_more() {
    let world = World::new();
    let own = world.environment("acme/shop/production").await;
    let protect = |second: i64| {
        let own = own.clone();
        world
            .store
            .write(move |tx| tx.set_protected(&own, true, &by(second)))
    };
    // A release that moves is no hindrance.
    let place = own.clone();
    world
        .write(move |tx| start(tx, 6, Some(&place), "{}", &by(1)))
        .await;
    protect(2).await.unwrap();
    let place = own.clone();
    world
        .write(move |tx| tx.set_protected(&place, false, &by(3)))
        .await;
    let place = own.clone();
    world
        .write(move |tx| begin(tx, 7, (Some(&place), store::DESTROY), "{}", &by(4)))
        .await;
    match protect(5).await {
        Err(Error::Refused { message, .. }) => {
            assert!(message.contains("is being destroyed already"), "{message}")
        }
        other => panic!("{other:?}"),
    }
    world.write(|tx| end(tx, 7, Status::Failed, 6)).await;
    protect(7).await.unwrap();
}
