//! What a flow waits for before it moves anything: its source, and people.

use model::spec;
use serde_json::json;

use crate::world::{FIRST, World, failure, release_of, run};

/// A webhook is there before whoever pushed has put the source where builds find it.
#[test]
fn a_flow_waits_for_its_source_and_says_what_it_waited_for() {
    let mut world = World::new(&FIRST);
    world.source_after = 5;
    assert_eq!(run("", &mut world).as_str(), "SUCCEEDED");
    let looks = |world: &World| world.calls.iter().filter(|call| *call == "s3:headObject").count();
    assert_eq!(looks(&world), 6);
    let mut world = World::new(&FIRST);
    world.source_after = 1_000;
    let said = failure(&run("", &mut world));
    assert!(
        said.contains("Vend.NoSource")
            && said.contains("source/shop/abc123.zip was not found in")
            && said.contains("ended with S3.")
            && said.contains("vend aws push"),
        "{said}"
    );
    assert!(
        !world.calls.iter().any(|call| call.starts_with("codebuild")),
        "{:?}",
        world.calls
    );
    world.is("BlueRuns", "no");
    // What is forbidden is not what is missing, and pushing it again would not help.
    let mut world = World::new(&FIRST);
    (world.source_after, world.denied) = (1_000, true);
    let said = failure(&run("", &mut world));
    assert!(
        said.contains("Vend.SourceDenied") && said.contains("(403)") && !said.contains("vend aws push"),
        "{said}"
    );
}

fn asking(more: &str) -> spec::App {
    let text = format!(
        "app: shop\nenvironments:\n  production:\n    approval: {{ required: 2{more} }}\n    scaling: {{ min: 2, max: 4 }}\n"
    );
    spec::App::parse(&text, "vend.yaml", &|_| true).unwrap().0
}

#[test]
fn two_people_are_two_and_neither_began_the_release() {
    let by = |name: &str| json!({ "by": format!("arn:aws:iam::1:user/{name}") });
    let mut world = World::new(&FIRST);
    // Nobody, the author, one, the same one again, something else, another.
    world.people = vec![
        json!({}),
        by("ada"),
        by("bob"),
        by("bob"),
        json!("yes"),
        by("eve"),
    ];
    let status = release_of(&asking(""), "", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    assert!(world.people.is_empty());
    let bob = r#"["arn:aws:iam::1:user/bob"]"#;
    assert_eq!(world.questions, ["[]", "[]", "[]", bob, bob, bob]);
    world.is("BlueImage", "ami-new");
    // Who is called like the beginning of the author's name is somebody else, and a session of a role is that role.
    let user = |name: &str| format!("arn:aws:iam::1:user/{name}");
    let role = |name: &str| format!("arn:aws:sts::1:assumed-role/{name}");
    for (sender, people) in [
        (user("ada"), vec![user("ad"), user("bob")]),
        (user("ops/ada"), vec![user("ops"), user("bob")]),
        (role("dev/ada"), vec![role("dev"), role("de"), user("bob")]),
    ] {
        let mut world = World::new(&FIRST);
        world.sender = Some(sender.clone());
        world.people = people.iter().map(|arn| json!({ "by": arn })).collect();
        let status = release_of(&asking(""), "", &mut world);
        assert_eq!(
            (status.as_str(), world.people.len()),
            ("SUCCEEDED", 0),
            "{sender}: {status:?}"
        );
    }
    // The author counts where vend.yaml says so.
    let mut world = World::new(&FIRST);
    world.people = vec![by("ada"), by("bob")];
    let status = release_of(&asking(", author_may_approve: true"), "", &mut world);
    assert_eq!(
        (status.as_str(), world.questions.len()),
        ("SUCCEEDED", 2),
        "{status:?}"
    );
}
