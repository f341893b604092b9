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
    let all = plan["stacks"].as_array().unwrap();
    assert!(all.iter().all(|one| one["doing"] == "nothing"), "{plan}");
    world.good(&["apply", "blog", "--yes"]);
    assert!(world.priorities("blog").contains("apps.example.com\":2"));
}

impl World {
    /// Is a stack protected, as an app's tree sees it?
    fn is_protected(&self, app: &str, stack: &str) -> bool {
        let all = self.json(&["status", app]);
        let mut all = all.as_array().unwrap().iter();
        let line = all.find(|line| line["name"] == stack);
        line.unwrap_or_else(|| panic!("no {stack}"))["is_protected"] == true
    }
}

/// moto does not delete the policies of a stack.
const NO_POLICIES: &str = "i = client('iam')\n\
    for own in i.list_policies(Scope='Local')['Policies']: i.delete_policy(PolicyArn=own['Arn'])";

#[test]
fn an_app_leaves_what_others_have_and_stand_on() {
    let Some(world) = World::new() else { return };
    let port = |port: u16| format!("listeners:\n  - {{ protocol: tcp, port: {port} }}\n");
    world.tree("shop", &port(5514), "");
    world.tree("blog", &port(5515), "");
    // The foundation is not the first of its name.
    world.good(&["apply", "shop", "--yes", "--only", "vend-production"]);
    world.good(&["unprotect", "shop"]);
    world.good(&["destroy", "shop", "--yes"]);
    world.python(NO_POLICIES);
    for app in ["shop", "blog"] {
        world.good(&["apply", app, "--yes"]);
    }
    let bucket = "b = 'vend-production-artifacts-123456789012-eu-central-1'\ns = client('s3')\n";
    world.python(&format!("{bucket}s.put_object(Bucket=b, Key='blog', Body=b'x')"));
    let said = world.good(&["unprotect", "shop"]);
    assert!(
        said.contains("vend-production stays as it is: other apps stand on it"),
        "{said}"
    );
    let is_protected = |app: &str, stack: &str| world.is_protected(app, stack);
    assert!(!is_protected("shop", "vend-production-shop-production"));
    assert!(is_protected("blog", "vend-production-blog-production"));
    assert!(is_protected("blog", "vend-production"));
    // What others have is neither told nor compared.
    for command in ["outputs", "drift"] {
        let done = world.vend(&[command, "shop", "--json"]);
        let said = String::from_utf8(done.stdout).unwrap();
        assert!(said.contains("vend-production-shop-production"), "{said}");
        assert!(!said.contains("\"vend-production-blog-production\""), "{said}");
    }
    // What is another's, or what others stand on, is not done in silence.
    let (code, said) = world.bad(&["unprotect", "shop", "--only", "vend-production-blog-production"]);
    assert!(code == 4 && said.contains("of this app"), "{said}");
    let (code, said) = world.bad(&["destroy", "shop", "--yes", "--only", "vend-production"]);
    assert!(
        code == 3 && said.contains("other apps stand on vend-production"),
        "{said}"
    );
    let said = world.good(&["destroy", "shop", "--yes"]);
    assert!(!said.contains("S3::Bucket"), "{said}");
    let there = world.python(&format!(
        "{bucket}print(s.list_objects_v2(Bucket=b)['KeyCount'], len(s.list_buckets()['Buckets']))"
    ));
    assert_eq!(there, "1 3");
    assert!(is_protected("blog", "vend-production"));
    // Who names it means it.
    world.good(&["unprotect", "blog", "--only", "vend-production"]);
    assert!(!is_protected("blog", "vend-production"));
    assert!(is_protected("blog", "vend-production-blog-production"));
}

/// A first foundation made the zone; `zone` lends it to the second.
#[test]
fn a_zone_that_is_lent_stays() {
    let Some(world) = World::new() else { return };
    world.good(&["apply", "--yes", "--only", "vend-production"]);
    world.good(&["unprotect"]);
    world.good(&["destroy", "--yes", "--keep-data"]);
    let zones = "z = client('route53').list_hosted_zones()['HostedZones']\n";
    let zone = world.python(&format!("{zones}print(z[0]['Id'].split('/')[-1])"));
    world.write("aws.toml", &format!("{FOUNDATION}zone = \"{zone}\"\n"));
    let said = world.good(&["destroy", "--yes"]);
    let kept = format!("kept: {zone} (AWS::Route53::HostedZone): `zone` of aws.toml lends it");
    assert!(said.replace("/hostedzone/", "").contains(&kept), "{said}");
    let left = world.python(&format!(
        "{zones}print(len(z), len(client('s3').list_buckets()['Buckets']))"
    ));
    assert_eq!(left, "1 0");
    world.write("aws.toml", FOUNDATION);
    world.good(&["destroy", "--yes"]);
    assert_eq!(world.python(&format!("{zones}print(len(z))")), "0");
}

/// Each file says what the foundation shall be, and each apply would undo the other's.
#[test]
fn what_others_stand_on_is_changed_by_who_says_so() {
    let Some(world) = World::new() else { return };
    world.tree("shop", "", "");
    world.good(&["apply", "shop", "--yes"]);
    // Whoever is alone on it is asked nothing.
    world.tree("shop", "", "firewall = true\n");
    world.good(&["apply", "shop", "--yes"]);
    world.tree("blog", "", "firewall = true\n");
    world.good(&["apply", "blog", "--yes"]);
    world.tree("blog", "", "firewall = true\nbudget = 100\n");
    let told = "the file of shop made it as it is; other apps on it: shop";
    let said = world.good(&["plan", "blog"]);
    assert!(
        said.contains(&format!(
            "note vend-production: {told} (vend aws apply --shared vend-production"
        )),
        "{said}"
    );
    let only = ["apply", "blog", "--yes", "--only", "vend-production"];
    let (code, said) = world.bad(&only);
    assert!(
        code == 3
            && said.contains(&format!("vend-production: {told}"))
            && said.contains("vend aws apply blog --only vend-production --shared vend-production"),
        "{said}"
    );
    let is_as = |app: &str, doing: &str| assert_eq!(world.json(&["plan", app])["stacks"][0]["doing"], doing);
    is_as("shop", "nothing");
    world.good(&[&only[..], &["--shared", "vend-production"]].concat());
    is_as("blog", "nothing");
    // Who made it as it is may change it.
    world.tree("blog", "", "firewall = true\nbudget = 200\n");
    world.good(&only);
    let (code, said) = world.bad(&["apply", "shop", "--yes"]);
    assert!(
        code == 3 && said.contains("the file of blog made it as it is"),
        "{said}"
    );
}
