//! What builds are given by `build.env`.

use aws::synth::{Priorities, all};
use model::spec;
use serde_json::{Value, json};

use crate::{
    config, of,
    world::{FIRST, World, release_of},
};

const APP: &str = "app: shop
build: { env: { PLAIN: a, TOKEN: '{{secret:token}}', OWN: all } }
environments:
  production: { scaling: { min: 2, max: 4 }, build: { env: { OWN: 'is {% $x %} ${AWS::Region} \"', MORE: m, VEND_ENVIRONMENT: me } } }
  staging: {}
";

fn app(text: &str) -> spec::App {
    spec::App::parse(text, "vend.yaml", &|_| true).unwrap().0
}

fn variable(name: &str, value: &str) -> Value {
    json!({ "Name": name, "Type": "PLAINTEXT", "Value": value })
}

fn token() -> Value {
    json!({ "Name": "TOKEN", "Type": "SECRETS_MANAGER", "Value": "vend/production/shop/build/token" })
}

#[test]
fn the_project_has_the_variables_that_are_the_same_for_all() {
    let of_project = |text: &str, id: &str| {
        let stack = aws::synth::pipeline(&config(""), &app(text)).unwrap();
        of(&stack.template, id)["Environment"]["EnvironmentVariables"].clone()
    };
    assert_eq!(of_project(APP, "Build"), json!([variable("PLAIN", "a"), token()]));
    let third = format!("{APP}  other: {{ build: {{ env: {{ TOKEN: null }} }} }}\n");
    assert_eq!(of_project(&third, "Build"), json!([variable("PLAIN", "a")]));
    assert!(of_project("app: shop\nenvironments: { production: {} }\n", "Build").is_null());
    let bake = of_project(APP, "Bake").to_string();
    assert!(!bake.contains("TOKEN"), "{bake}");
}

#[test]
fn nobody_s_text_makes_cloudformation_read_a_secret() {
    let text = "'is {{resolve:secretsmanager:any:SecretString}}'";
    let build =
        format!("app: shop\nbuild: {{ env: {{ A: {text} }} }}\nenvironments: {{ production: {{}} }}\n");
    let refused = aws::synth::pipeline(&config(""), &app(&build)).unwrap_err();
    assert!(refused.to_string().contains("holds `{{resolve:`"), "{refused}");
}

#[test]
fn a_build_is_given_its_environment_s_variables_as_they_are_written() {
    let mut world = World::new(&FIRST);
    let status = release_of(&app(APP), "", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    let given = |word: &str| {
        let own = world.given.iter().find(|(project, _)| project.ends_with(word));
        own.unwrap().1.as_array().unwrap().clone()
    };
    let build = given("-build");
    for own in [
        variable("PLAIN", "a"),
        token(),
        variable("OWN", "is {% $x %} ${AWS::Region} \""),
        variable("MORE", "m"),
        variable("VEND_ENVIRONMENT", "me"),
    ] {
        let same: Vec<&Value> = build.iter().filter(|one| one["Name"] == own["Name"]).collect();
        assert_eq!(same, [&own]);
    }
    assert!(given("-bake").iter().all(|one| one["Name"] != "PLAIN"));
}

/// Secrets Manager takes the end of such a name for that of an ARN that it made, and finds nothing.
#[test]
fn a_secret_of_a_container_whose_name_looks_like_the_end_of_an_arn_is_refused() {
    for (secret, runtime, taken) in [
        ("my-secret", "fargate", false),
        ("api-key-a1B2c3", "ec2", false),
        ("my-secret", "host", true),
        ("my_secret", "fargate", true),
        ("api-key", "fargate", true),
        ("secret", "fargate", true),
        ("my-sec.et", "fargate", true),
    ] {
        let config = config(&format!("runtime = '{runtime}'"));
        let yaml = format!(
            "app: shop
host: {{ env: {{ TOKEN: '{{{{secret:{secret}}}}}' }} }}
environments: {{ production: {{}} }}
"
        );
        let (app, _) = spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap();
        let made = all(&config, &app, &mut Priorities::default());
        let why = made.map(drop).map_err(|error| error.to_string());
        assert_eq!(why.is_ok(), taken, "{secret} {runtime}: {why:?}");
        if let Err(why) = why {
            for part in ["host.env", "`TOKEN`", secret, &secret.replace('-', "_")] {
                assert!(why.contains(part), "{part}: {why}");
            }
        }
    }
}
