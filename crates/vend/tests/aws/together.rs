//! Two apps on one foundation, each with a working tree of its own.

use std::fs;

use super::{FOUNDATION, World};

impl World {
    /// The tree of another app beside the first one's.
    fn tree(&self, app: &str, environments: &str, more: &str) {
        let files = [
            (
                "vend.yaml",
                format!(
                    "app: {app}\nhost: {{ port: 8080, size: small }}\nenvironments:\n  production: {{ branch: main }}\n{environments}"
                ),
            ),
            ("aws.toml", format!("{FOUNDATION}{more}")),
            ("appspec.yml", "version: 0.0\nos: linux\n".to_owned()),
            ("buildspec.yml", "version: 0.2\n".to_owned()),
        ];
        fs::create_dir_all(self.path().join(app)).unwrap();
        for (name, text) in files {
            self.write(&format!("{app}/{name}"), &text);
        }
    }

    /// What an app's file has written down.
    fn priorities(&self, app: &str) -> String {
        let file = self.path().join(app).join("aws/priorities.json");
        let all: serde_json::Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        all.to_string()
    }

    /// Priorities and first hosts of the rules on a port of the foundation's load balancer.
    fn rules(&self, port: u16) -> String {
        self.python(&format!(
            "e = client('elbv2')\na = e.describe_load_balancers()['LoadBalancers'][0]['LoadBalancerArn']\n\
             l = [x['ListenerArn'] for x in e.describe_listeners(LoadBalancerArn=a)['Listeners'] if x['Port'] == {port}][0]\n\
             hosts = lambda r: [h for c in r['Conditions'] for h in c.get('Values') or c.get('HostHeaderConfig', {{}}).get('Values', [])]\n\
             print(' '.join(sorted(r['Priority'] + ':' + hosts(r)[0].split('-')[0] for r in e.describe_rules(ListenerArn=l)['Rules'] \
             if not r['IsDefault'])))"
        ))
    }

    /// What a command asks, with the tree of an app.
    fn asked(&self, command: &[&str]) -> String {
        let calls = self.path().join("calls");
        fs::write(&calls, "").unwrap();
        self.good(command);
        fs::read_to_string(&calls).unwrap()
    }
}

#[test]
fn apps_that_do_not_know_each_other_get_different_priorities() {
    let Some(world) = World::new() else { return };
    for app in ["shop", "blog"] {
        world.tree(app, "", "");
        let calls = world.asked(&["apply", app, "--yes"]);
        // The first one makes the foundation, where there is no listener to ask yet.
        assert_eq!(calls.contains("DescribeRules"), app == "blog", "{calls}");
    }
    assert_eq!(world.rules(443), "1:shop 2:blog");
    assert_eq!(
        world.priorities("blog"),
        r#"{"production/https":{"blog/production/blog-production.apps.example.com":2}}"#
    );
    for app in ["shop", "blog"] {
        let calls = world.asked(&["apply", app, "--yes"]);
        assert!(!calls.contains("DescribeRules"), "{calls}");
    }
    // Another stack beside those that stand: of its own file 2 would be free.
    world.tree("shop", "  staging: { branch: staging }\n", "");
    world.good(&["apply", "shop", "--yes"]);
    assert_eq!(world.rules(443), "1:shop 2:blog 3:shop");
    // What stands gets a rule on another listener. (moto cannot add one to a stack.)
    let plain = "[apps.blog.environments.production]\nplain_http = true\n";
    world.tree("blog", "", plain);
    let calls = world.asked(&["plan", "blog"]);
    assert!(calls.contains("DescribeRules"), "{calls}");
    world.tree("blog", "", "");
    // A file that nobody kept is known again by the hosts of what stands.
    fs::remove_file(world.path().join("blog/aws/priorities.json")).unwrap();
    let plan = world.json(&["plan", "blog"]);
    let all = plan.as_array().unwrap();
    assert!(all.iter().all(|one| one["doing"] == "nothing"), "{plan}");
    world.good(&["apply", "blog", "--yes"]);
    assert!(world.priorities("blog").contains("apps.example.com\":2"));
}
