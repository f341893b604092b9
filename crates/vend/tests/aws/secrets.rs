//! Secrets of environments and of builds, against moto's server.

use super::{World, said};

/// The contract of `vend secrets`, which a platform's own vault keeps, too: names are shown and values are not, a value that
/// is set again is another version, what is not there cannot be unset, and a name is a name.
#[test]
fn secrets_go_in_and_do_not_come_out() {
    let Some(world) = World::applied() else { return };
    let list = || world.json(&["secrets", "list", "production"]);
    assert_eq!(
        (&list()[0]["name"], &list()[0]["is_set"]),
        (&"api-key".into(), &false.into())
    );
    let set = |name: &str, value: &str| world.hearing(&["secrets", "set", "production", name], value);
    let value = |name: &str| {
        world.python(&format!(
            "print(client('secretsmanager').get_secret_value(SecretId='vend/production/shop/production/{name}')['SecretString'])"
        ))
    };
    for text in ["one\n", "two", "two"] {
        let done = set("api-key", text);
        assert!(
            done.status.success() && !said(&done).contains(text.trim()),
            "{}",
            said(&done)
        );
        assert_eq!(value("api-key"), text.trim());
    }
    // Of another environment whose name begins alike, and many: all pages are read.
    world.python(
        "s = client('secretsmanager')\ns.create_secret(Name='vend/production/shop/production-2/x', SecretString='x')\n\
         for n in range(130): s.create_secret(Name=f'vend/production/shop/production/many-{n:03}', SecretString='x')",
    );
    let all = list();
    assert_eq!(all.as_array().unwrap().len(), 131);
    assert_eq!(
        (&all[0]["name"], &all[0]["is_set"]),
        (&"api-key".into(), &true.into())
    );
    assert_eq!(all[0]["variables"][0], "API_KEY");
    assert!(!all.to_string().contains("two"));
    let key = world.python(
        "print(client('secretsmanager').describe_secret(SecretId='vend/production/shop/production/api-key')['KmsKeyId'])",
    );
    assert_eq!(key, "alias/vend-production");

    for name in ["", "../x", "a b", "-x"] {
        let done = set(name, "x");
        assert_eq!(done.status.code(), Some(2), "{name}: {}", said(&done));
    }
    assert_eq!(set("empty", "").status.code(), Some(2));
    let said = world.good(&["secrets", "unset", "production", "api-key"]);
    assert!(said.contains("vend.yaml still wants it"), "{said}");
    assert_eq!(list()[0]["is_set"], false);
    let (code, refused) = world.bad(&["secrets", "unset", "production", "api-key"]);
    assert!(code == 4 && refused.contains("no secret `api-key`"), "{refused}");
    assert!(set("api-key", "three").status.success());
    assert_eq!(value("api-key"), "three");
    let (code, _) = world.bad(&["secrets", "list", "nowhere"]);
    assert_eq!(code, 4);
}

/// Builds of all environments have one shelf, where CodeBuild looks.
#[test]
fn secrets_of_builds_are_set_where_codebuild_reads_them() {
    let Some(world) = World::applied() else { return };
    let list = || world.json(&["secrets", "list", "build"]);
    let token = || (list()[0]["name"].clone(), list()[0]["is_set"].clone());
    assert_eq!(token(), ("registry-token".into(), false.into()));
    assert_eq!(list()[0]["variables"], serde_json::json!(["TOKEN"]));
    let done = world.hearing(&["secrets", "set", "build", "registry-token"], "hush");
    let done = said(&done);
    assert!(
        done.contains("set vend/production/shop/build/registry-token; builds that start")
            && !done.contains("hush"),
        "{done}"
    );
    assert_eq!(token(), ("registry-token".into(), true.into()));
    // The name that the project has is the name that was set; moto makes no projects of templates.
    world.good(&["synth", ".", "--out", "synthesised"]);
    let pipeline = world
        .path()
        .join("synthesised/vend-pipeline-production-shop.yaml");
    let pipeline = std::fs::read_to_string(pipeline).unwrap();
    assert!(
        pipeline.contains("vend/production/shop/build/registry-token"),
        "{pipeline}"
    );
    let gone = world.good(&["secrets", "unset", "build", "registry-token"]);
    assert!(gone.contains("builds that start without it fail"), "{gone}");
    let (code, _) = world.bad(&["secrets", "unset", "build", "registry-token"]);
    assert_eq!(code, 4);
}
