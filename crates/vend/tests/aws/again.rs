//! A commit that was released before is released again, once.

use super::World;

#[test]
fn an_earlier_commit_is_released_again() {
    let Some(world) = World::applied() else { return };
    world.asks();
    let first = world.git(&["rev-parse", "HEAD"]);
    for message in ["", "second"] {
        if !message.is_empty() {
            world.commit(message);
        }
        world.good(&["push"]);
        world.good(&["approve", "production", "--yes"]);
    }
    let (code, refused) = world.bad(&["rollback", "production", "--yes", "--to", "abcdef"]);
    assert!(code == 4 && refused.contains("no release of abcdef"), "{refused}");
    world.irreversible(true);
    let back = ["rollback", "production", "--yes", "--to", &first[..8]];
    for asked in [&back[..3], &back] {
        let (code, refused) = world.bad(asked);
        let next = format!(
            "vend aws rollback production{} --across-migrations",
            &asked[3..]
                .iter()
                .map(|word| format!(" {word}"))
                .collect::<String>()
        );
        assert!(code == 3 && refused.contains(&next), "{refused}");
    }
    assert_eq!(world.json(&["releases"]).as_array().unwrap().len(), 2);
    let done = world.json(&["rollback", "production", "--yes", "--across-migrations"]);
    assert_eq!(
        (&done["done"], &done["commit"]),
        (&"started".into(), &first.as_str().into())
    );
    let newest = &world.json(&["releases", "--limit", "1"])[0];
    assert_eq!(newest["push"]["commit"], first.as_str());
    assert_eq!(newest["arn"], done["release"]);
    // Whoever asks twice gets one.
    for own in [
        &["rollback", "production", "--yes", "--across-migrations"][..],
        &[&back[..], &["--across-migrations"]].concat(),
    ] {
        let again = world.json(own);
        assert_eq!(
            (&again["done"], &again["release"]),
            (&"running".into(), &done["release"])
        );
    }
    assert_eq!(world.json(&["releases"]).as_array().unwrap().len(), 3);
}
