//! The stacks of environments that come and go with their branches.

use aws::synth::{Asking, Config, Priorities, all, all_with};
use model::spec;

#[test]
fn a_branch_has_stacks_of_its_own_and_keeps_nothing() {
    let config: Config = toml::from_str(
        "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n\
         [apps.shop.environments.preview.scaling]\ndrain = 7\n",
    )
    .unwrap();
    let yaml = "app: shop\ndatabase: { engine: mariadb }\nenvironments: { live: {}, preview: { branches: 'feature/*' } }\n";
    let (app, _) = spec::App::parse(yaml, "vend.yaml", &|_| true).unwrap();
    let without = all(&config, &app, &mut Priorities::default()).unwrap();
    assert_eq!(without.of_branch().count(), 0);
    assert!(
        without.stacks[1].notes[0].contains("a push to one makes its stacks"),
        "{:?}",
        without.stacks[1].notes
    );
    let (mut kept, own) = (
        Priorities::default(),
        app.following("feature/login").unwrap().remove(0),
    );
    let with = all_with(&config, &app, Some(&own), &mut kept).unwrap();
    let names: Vec<&str> = with.of_branch().map(|stack| stack.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "vend-production-shop-feature-login-df7c7a-b-7d3c484c6392",
            "vend-flow-production-shop-feature-login-df7c7a-b-7d3c484c6392"
        ]
    );
    // What the others are does not change with it, priorities that are written down included.
    let others: Vec<_> = with
        .stacks
        .iter()
        .filter(|stack| !names.contains(&stack.name.as_str()))
        .collect();
    assert_eq!(others, without.stacks.iter().collect::<Vec<_>>());
    assert!(!serde_json::to_string(&kept).unwrap().contains("feature-login"));
    let environment = with.of_branch().next().unwrap();
    let mut rules = 0;
    for resource in &environment.template.resources {
        let body = resource.body();
        for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
            assert!(
                matches!(body[policy].as_str(), None | Some("Delete")),
                "{} keeps {body}",
                resource.id
            );
        }
        assert_ne!(body["Properties"]["DeletionProtection"], true, "{}", resource.id);
        if let Some(priority) = body["Properties"]["Priority"].as_u64() {
            rules += 1;
            assert!((25_001..=50_000).contains(&priority), "{priority}");
        }
    }
    assert!(rules > 0);
    // Its options are those of the entry.
    let delay = serde_json::json!({ "Key": "deregistration_delay.timeout_seconds", "Value": "7" });
    let attributes = environment.template.resources.iter();
    let mut attributes = attributes.filter_map(|own| own.properties["TargetGroupAttributes"].as_array());
    assert!(attributes.any(|all| all.contains(&delay)));
    // The receiver knows which branches have one.
    let pipeline = with
        .stacks
        .iter()
        .find(|stack| stack.name == "vend-pipeline-production-shop")
        .unwrap();
    let receiver = pipeline
        .template
        .resources
        .iter()
        .find(|own| own.id == "Receiver")
        .unwrap();
    let variables = &receiver.properties["Environment"]["Variables"];
    assert_eq!(
        (&variables["VEND_PREVIEWS"], &variables["VEND_BRANCHES"]),
        (
            &r#"[{"branches":["feature/*"],"expires":604800,"made":true}]"#.into(),
            &r#"{"live":["live"]}"#.into()
        )
    );
}

/// Names of branches whose stacks, flows, hosts or secrets would be another app's, run together as AWS has them.
#[test]
fn what_a_branch_has_is_called_like_nothing_else() {
    let config: Config =
        toml::from_str("[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n")
            .unwrap();
    let read = |app: &str, entries: &str| {
        let yaml = format!("app: {app}\nenvironments: {{ {entries} }}\n");
        spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap().0
    };
    let preview = "live: {}, preview: { branches: '**' }";
    let made = |app: &spec::App, branch: &str| {
        let own = app.following(branch).unwrap().remove(0);
        all_with(&config, app, Some(&own), &mut Priorities::default()).unwrap()
    };
    for (one, branch, other, entry) in [
        ("shop", "admin-production", "shop-admin", "production"),
        ("shop", "admin/production", "shop-admin", "production"),
        ("shop", "a-b-c", "shop-a-b", "c"),
        ("shop", "b-0123456789ab", "shop-b", "x"),
    ] {
        let own = made(&read(one, preview), branch);
        let names: Vec<String> = own.of_branch().map(|own| own.name.clone()).collect();
        assert_eq!(names.len(), 2);
        let static_one = all(
            &config,
            &read(other, &format!("{entry}: {{}}")),
            &mut Priorities::default(),
        )
        .unwrap();
        let of_other = made(&read(other, preview), entry);
        for name in static_one
            .stacks
            .iter()
            .chain(of_other.of_branch())
            .map(|own| &own.name)
        {
            assert!(!names.contains(name), "{branch} of {one} has {name} of {other}");
        }
        // Its host, its log and its lock are called like it, and its secrets lie at its entry's.
        let part = spec::name_apart(&one.parse().unwrap(), branch).to_string();
        for stack in own.of_branch() {
            let text = stack.template.yaml();
            assert!(stack.name.ends_with(&part) && text.contains(&part), "{text}");
            assert!(
                !text.contains(&format!("secret:vend/production/{one}/{part}")),
                "{text}"
            );
        }
        let environment = own.of_branch().next().unwrap().template.yaml();
        assert!(
            environment.contains(&format!("secret:vend/production/{one}/preview/*")),
            "{environment}"
        );
    }
    // And nothing that a file names may be called so.
    for (app, entry) in [
        ("shop", "x-b-0123456789ab"),
        ("shop", "b-0123456789ab"),
        ("shop-b", "abcdef012345"),
    ] {
        let refused = all(
            &config,
            &read(app, &format!("{entry}: {{}}")),
            &mut Priorities::default(),
        );
        let refused = refused.unwrap_err().to_string();
        assert!(
            refused.contains("as only names of branches' environments do"),
            "{refused}"
        );
    }
    let fine = read("shop", "b-login: {}, x-b-01234567: {}");
    assert!(all(&config, &fine, &mut Priorities::default()).is_ok());
}

/// What only branches need is made before the first of them is there.
#[test]
fn containers_of_branches_have_their_project() {
    let config: Config = toml::from_str(
        "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n\
         [apps.shop.environments.preview]\nruntime = 'fargate'\n",
    )
    .unwrap();
    let yaml = "app: shop\nenvironments: { live: {}, preview: { branches: 'feature/*' } }\n";
    let (app, _) = spec::App::parse(yaml, "vend.yaml", &|_| true).unwrap();
    let made = all(&config, &app, &mut Priorities::default()).unwrap();
    let pipeline = made
        .stacks
        .iter()
        .find(|own| own.name == "vend-pipeline-production-shop");
    assert!(
        pipeline
            .unwrap()
            .template
            .yaml()
            .contains("vend-pipeline-production-shop-pack")
    );
}

/// A push reaches the account of the pipeline, and no other: there, people make them.
#[test]
fn branches_of_another_account_are_made_by_people() {
    let config: Config = toml::from_str(
        "[foundations.tools]\nregion = 'eu-central-1'\naccount = '111111111111'\ndomain = 'a.example.com'\n\
         network = { cidr = '10.8.0.0/16' }\n\
         [foundations.production]\nregion = 'eu-central-1'\naccount = '222222222222'\ndomain = 'b.example.com'\n\
         deploys_from = 'tools'\n[apps.shop]\npipeline = 'tools'\n\
         [apps.shop.environments]\nlive = { foundation = 'production' }\npreview = { foundation = 'production' }\n",
    )
    .unwrap();
    let yaml = "app: shop\nenvironments: { live: {}, preview: { branches: 'feature/*' } }\n";
    let (app, _) = spec::App::parse(yaml, "vend.yaml", &|_| true).unwrap();
    let made = all(&config, &app, &mut Priorities::default()).unwrap();
    assert!(!made.makes_branches());
    let pipeline = made
        .stacks
        .iter()
        .find(|own| own.name == "vend-pipeline-tools-shop")
        .unwrap();
    assert!(
        pipeline.notes[0].contains("another account"),
        "{:?}",
        pipeline.notes
    );
    let variables = &pipeline.template.resource("Receiver").unwrap().properties["Environment"]["Variables"];
    assert!(
        variables["VEND_PREVIEWS"]
            .as_str()
            .unwrap()
            .contains(r#""made":false"#),
        "{variables}"
    );
}

#[test]
fn the_build_of_branches_runs_the_receivers_program_from_the_applied_files() {
    let config: Config =
        toml::from_str("[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n")
            .unwrap();
    let yaml = "app: shop\nenvironments: { live: {}, preview: { branches: 'feature/*' } }\n";
    let (app, _) = spec::App::parse(yaml, "vend.yaml", &|_| true).unwrap();
    let mut made = all(&config, &app, &mut Priorities::default()).unwrap();
    made.receive("receiver/abc-x86_64.zip", "x86_64", "0123");
    let pipeline = made
        .stacks
        .iter()
        .find(|own| own.name == "vend-pipeline-production-shop")
        .unwrap();
    let environment = &pipeline.template.resource("Branches").unwrap().properties["Environment"];
    assert_eq!(environment["Type"], "LINUX_CONTAINER");
    let text = environment["EnvironmentVariables"].to_string();
    assert!(
        text.contains("receiver/abc-x86_64.zip") && text.contains(r#""Value":"0123""#),
        "{text}"
    );
}

/// Rules that are there are kept where they are, and nothing is put on what somebody else has.
#[test]
fn a_branchs_rules_go_where_nobody_is() {
    let config: Config = toml::from_str(
        "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n\
             [apps.shop.environments.preview]\nplain_http = true\n",
    )
    .unwrap();
    let yaml = "app: shop\nenvironments: { live: {}, preview: { branches: 'feature/*' } }\n";
    let (app, _) = spec::App::parse(yaml, "vend.yaml", &|_| true).unwrap();
    let own = app.following("feature/login").unwrap().remove(0);
    let made = || all_with(&config, &app, Some(&own), &mut Priorities::default()).unwrap();
    let priorities = |made: &aws::synth::Output| {
        let stack = made.of_branch().next().unwrap();
        let rules = stack.template.of("AWS::ElasticLoadBalancingV2::ListenerRule");
        rules
            .map(|rule| {
                (
                    rule.id.clone(),
                    u32::try_from(rule.properties["Priority"].as_u64().unwrap()).unwrap(),
                )
            })
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let first = priorities(&made());
    let (label, https): (aws::synth::Label, _) = ("production".parse().unwrap(), first["Rule"]);
    let names = [
        (label.clone(), "HttpListener".to_owned()),
        (label.clone(), "HttpsListener".to_owned()),
    ];
    let own = made();
    assert_eq!(own.listeners(&|stack| own.is_of_branch(stack)), names);
    let settle = |made: &mut aws::synth::Output, rules: &std::collections::BTreeMap<_, _>, is_there: bool| {
        let asking = Asking {
            stacks: &|stack| stack.preview.is_some(),
            is_there: &|_| is_there,
            known: &Priorities::default(),
        };
        let mut file = Priorities::default();
        let is_settled = made.settle((&label, "HttpsListener"), rules, &asking, &mut file);
        assert_eq!(file, Priorities::default(), "nothing of it is written down");
        is_settled
    };
    let settled = |rules: &[(u32, &str)], is_there: bool| {
        let mut made = made();
        let rules = rules
            .iter()
            .map(|(own, host)| (*own, vec![(*host).to_owned()]))
            .collect();
        assert!(settle(&mut made, &rules, is_there));
        priorities(&made)
    };
    let after = |rules: &[(u32, &str)]| settled(rules, true);
    assert_eq!(after(&[]), first);
    let moved = after(&[(https, "other.a.example.com")]);
    let next = if https == 50_000 { 25_001 } else { https + 1 };
    assert_eq!(moved["Rule"], next);
    assert_eq!(moved["PlainRule"], first["PlainRule"]);
    let host = format!(
        "shop-{}.a.example.com",
        spec::name_apart(&app.app, "feature/login")
    );
    assert_eq!(
        after(&[(https, "other.a.example.com"), (40_000, &host)])["Rule"],
        40_000
    );
    // What is left of a stack that is gone is nobody's to keep.
    assert_eq!(settled(&[(40_000, &host)], false), first);
    assert_eq!(settled(&[(https, &host)], false)["Rule"], next);
    // Not a rule of any file.
    let full = (25_001..=50_000).map(|own| (own, vec!["x".to_owned()])).collect();
    assert!(!settle(&mut made(), &full, true));
}
