//! The stacks of one branch's own environment, beside those that are there.

use std::fs;

use super::{World, said};

#[test]
fn a_branch_has_stacks_that_come_and_go_alone() {
    let Some(world) = World::new() else { return };
    let app = fs::read_to_string(world.path().join("vend.yaml")).unwrap();
    world.write(
        "vend.yaml",
        &format!("{app}  preview: {{ branches: 'feature/*' }}\n"),
    );
    let own = [
        "vend-production-shop-feature-login-df7c7a-b-7d3c484c6392",
        "vend-flow-production-shop-feature-login-df7c7a-b-7d3c484c6392",
    ];
    let branch = ["--branch", "feature/login"];
    let names = || {
        let list = "print(json.dumps(sorted(s['StackName'] for s in client('cloudformation').describe_stacks()['Stacks'])))";
        let names: Vec<String> = serde_json::from_str(&world.python(list)).unwrap();
        names
    };
    world.good(&["apply", "--yes"]);
    let before = names();
    let kept = fs::read_to_string(world.path().join("aws/priorities.json")).unwrap();
    let plan = world.json(&[&["plan"], &branch[..]].concat());
    let planned: Vec<&str> = plan["stacks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["stack"].as_str().unwrap())
        .collect();
    assert_eq!(planned, own);
    world.good(&[&["apply", "--yes"], &branch[..]].concat());
    let mut both: Vec<String> = own
        .iter()
        .map(|name| (*name).to_owned())
        .chain(before.clone())
        .collect();
    both.sort();
    assert_eq!(names(), both);
    let balancer = "e = client('elbv2')\na = e.describe_load_balancers()['LoadBalancers'][0]['LoadBalancerArn']\n\
         print(json.dumps(sorted(r['Priority'] for l in e.describe_listeners(LoadBalancerArn=a)['Listeners'] \
         for r in e.describe_rules(ListenerArn=l['ListenerArn'])['Rules'] if not r['IsDefault'])))";
    let rules: Vec<String> = serde_json::from_str(&world.python(balancer)).unwrap();
    assert!(
        rules.contains(&"1".to_owned()) && rules.iter().any(|own| own.parse::<u32>().unwrap() > 25_000),
        "{rules:?}"
    );
    // Who plans the rest sees it stand, and whether it goes by itself.
    let standing = |why: &str| {
        let plan = world.json(&["plan"]);
        let all = plan["standing"].as_array().unwrap();
        assert_eq!(all.len(), own.len(), "{plan}");
        assert!(all.iter().all(|one| one["why"] == why), "{plan}");
        let only = all[0]["stack"].as_str().unwrap();
        assert_eq!(
            all[0]["next"],
            format!("vend aws destroy --gone --branches --only {only}")
        );
    };
    standing("branch");
    let with = fs::read_to_string(world.path().join("vend.yaml")).unwrap();
    let without: Vec<&str> = with.lines().filter(|line| !line.contains("branches:")).collect();
    world.write("vend.yaml", &format!("{}\n", without.join("\n")));
    standing("no-entry");
    world.write("vend.yaml", &with);
    // Once more changes nothing, and nothing of it is written down.
    let again = world.json(&[&["plan"], &branch[..]].concat());
    assert!(
        again["stacks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["doing"] == "nothing"),
        "{again}"
    );
    assert_eq!(
        fs::read_to_string(world.path().join("aws/priorities.json")).unwrap(),
        kept
    );
    // The files do not name it, and yet it is not what is gone from them; nor is another app's, which stays with the foundation.
    world.write("vend.yaml", &app.replace("app: shop", "app: shop-admin"));
    world.good(&["apply", "--yes"]);
    let with_other = names();
    world.good(&["destroy", "--gone", "--yes"]);
    assert_eq!(names(), with_other);
    let said = world.good(&["destroy", "--yes"]);
    assert!(
        !said.contains("-shop-production") && !said.contains(own[0]),
        "{said}"
    );
    assert_eq!(names(), both);
    world.write(
        "vend.yaml",
        &format!("{app}  preview: {{ branches: 'feature/*' }}\n"),
    );
    world.good(&["destroy", "--gone", "--yes"]);
    assert_eq!(names(), both);
    let said = world.good(&["status"]);
    assert!(said.contains("of a branch"), "{said}");
    // What says to be of another entry is not touched by its name.
    world.write(
        "vend.yaml",
        &format!("{app}  other: {{ branches: 'feature/*' }}\n"),
    );
    for command in ["apply", "destroy"] {
        let (_, said) = world.bad(&[&[command, "--yes"], &branch[..]].concat());
        assert!(said.contains("is another's"), "{said}");
    }
    assert_eq!(names(), both);
    world.write(
        "vend.yaml",
        &format!("{app}  preview: {{ branches: 'feature/*' }}\n"),
    );
    // Nothing protects it, and nothing else goes with it.
    let said = world.good(&[&["destroy", "--yes"], &branch[..]].concat());
    assert!(
        own.iter().all(|name| said.contains(&format!("goes: {name}"))),
        "{said}"
    );
    assert_eq!(names(), before);
    // Asked for by name, all of branches goes.
    world.good(&["apply", "--yes", "--branch", "feature/more"]);
    world.good(&["destroy", "--gone", "--branches", "--yes"]);
    assert_eq!(names(), before);
    for other in ["main", "other"] {
        let (code, said) = world.bad(&["apply", "--yes", "--branch", other]);
        assert!(
            code == 4 && said.contains("has no environment of its own"),
            "{said}"
        );
    }
}

const PREVIEW: &str = "app: shop\nhost: { port: 8080, size: small }\nenvironments:\n  production: { branch: main, scaling: { min: 1, max: 2 } }\n  \
    preview: { branches: 'feature/*', limit: 2 }\n";

impl World {
    /// With the pipeline of an app that has branches.
    fn with_branches() -> Option<Self> {
        let world = Self::new()?;
        world.write("vend.yaml", PREVIEW);
        world.good(&["apply", "--yes"]);
        Some(world)
    }

    /// Names of the stacks of branches.
    fn branches(&self) -> Vec<String> {
        let list = "print(json.dumps(sorted(s['StackName'] for s in client('cloudformation').describe_stacks()['Stacks'] if '-b-' in s['StackName'])))";
        serde_json::from_str(&self.python(list)).unwrap()
    }
}

#[test]
fn there_are_no_more_branches_than_the_file_says() {
    let Some(world) = World::with_branches() else {
        return;
    };
    for branch in ["feature/a", "feature/b"] {
        world.good(&["apply", "--yes", "--branch", branch]);
    }
    // What is there stays and changes.
    world.good(&["apply", "--yes", "--branch", "feature/a"]);
    let before = world.branches();
    let (_, said) = world.bad(&["apply", "--yes", "--branch", "feature/c"]);
    assert!(
        said.contains("preview has 2 environments") && said.contains("feature-a-"),
        "{said}"
    );
    assert_eq!(world.branches(), before);
    world.good(&["destroy", "--yes", "--branch", "feature/a"]);
    world.good(&["apply", "--yes", "--branch", "feature/c"]);
    let (_, said) = world.bad(&["apply", "--yes", "--branch", "feature/a"]);
    assert!(said.contains("no more at a time"), "{said}");
    // What goes with all that is gone gives its place back too.
    world.good(&["destroy", "--gone", "--branches", "--yes"]);
    assert!(world.branches().is_empty());
    for branch in ["feature/a", "feature/b"] {
        world.good(&["apply", "--yes", "--branch", branch]);
    }
}

#[test]
fn a_branchs_rule_gives_way_to_one_that_is_there_and_then_stays() {
    let Some(world) = World::with_branches() else {
        return;
    };
    let rules = |lines: &str| {
        world.python(&format!(
            "e = client('elbv2')\na = e.describe_load_balancers()['LoadBalancers'][0]['LoadBalancerArn']\n\
             l = [x['ListenerArn'] for x in e.describe_listeners(LoadBalancerArn=a)['Listeners'] if x['Port'] == 443][0]\n\
             hosts = lambda r: [h for c in r['Conditions'] for h in c.get('Values') or c.get('HostHeaderConfig', {{}}).get('Values', [])]\n{lines}"
        ))
    };
    let branch = ["--branch", "feature/login"];
    world.good(&[&["apply", "--yes"], &branch[..]].concat());
    let own = "own = [r for r in e.describe_rules(ListenerArn=l)['Rules'] if any('feature-login' in h for h in hosts(r))][0]\n";
    let first: u32 = rules(&format!("{own}print(own['Priority'])")).parse().unwrap();
    world.good(&[&["destroy", "--yes"], &branch[..]].concat());
    // Somebody else has it by now, and the next one.
    rules(&format!(
        "for p in [{first}, {first} + 1]:\n\
         \x20   e.create_rule(ListenerArn=l, Priority=p, Conditions=[{{'Field': 'host-header', 'Values': ['other' + str(p)]}}], \
         Actions=[{{'Type': 'fixed-response', 'FixedResponseConfig': {{'StatusCode': '200'}}}}])"
    ));
    world.good(&[&["apply", "--yes"], &branch[..]].concat());
    let moved: u32 = rules(&format!("{own}print(own['Priority'])")).parse().unwrap();
    assert_eq!(moved, first + 2);
    // When the others are gone it stays where it is.
    rules(
        "for r in e.describe_rules(ListenerArn=l)['Rules']:\n\
           \x20   if any('other' in h for h in hosts(r)): e.delete_rule(RuleArn=r['RuleArn'])",
    );
    let plan = world.json(&[&["plan"], &branch[..]].concat());
    assert!(
        plan["stacks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["doing"] == "nothing"),
        "{plan}"
    );
}

/// What the build of branches does, with the files that the pipeline was applied with and nothing else beside them.
#[test]
fn a_build_makes_and_takes_away_a_branch_by_the_calls_that_its_role_has() {
    let Some(world) = World::with_branches() else {
        return;
    };
    let bucket = "b = 'vend-production-templates-123456789012-eu-central-1'\ns3 = client('s3')\n";
    let fetched = world.python(&format!(
        "{bucket}p = client('cloudformation').get_template(StackName='vend-pipeline-production-shop')['TemplateBody']\n\
         p = p if isinstance(p, str) else json.dumps(p)\n\
         k = [o['Key'] for o in s3.list_objects_v2(Bucket=b, Prefix='branches/shop/')['Contents']]\n\
         print(json.dumps([k, p, {{x.split('/')[-1]: s3.get_object(Bucket=b, Key=x)['Body'].read().decode() for x in k}}]))"
    ));
    let fetched: serde_json::Value = serde_json::from_str(&fetched).unwrap();
    let digest = fetched[0][0].as_str().unwrap().split('/').nth(2).unwrap();
    assert!(
        fetched[1].as_str().unwrap().contains(digest),
        "the build does not look there"
    );
    fs::create_dir(world.path().join("files")).unwrap();
    for (name, text) in fetched[2].as_object().unwrap() {
        world.write(&format!("files/{name}"), text.as_str().unwrap());
    }
    assert_eq!(
        fs::read_to_string(world.path().join("files/vend.yaml")).unwrap(),
        PREVIEW
    );
    let calls = world.path().join("calls");
    let heard = || {
        let text = fs::read_to_string(&calls).unwrap();
        text.lines()
            .map(str::to_owned)
            .collect::<std::collections::BTreeSet<String>>()
    };
    fs::write(&calls, "").unwrap();
    world.good(&[
        "apply",
        "files",
        "--sourceless",
        "--branch=feature/login",
        "--yes",
    ]);
    let mut made = heard();
    assert_eq!(world.branches().len(), 2);
    let bakes = world.python(&format!(
        "{bucket}print(json.dumps([o['Key'] for o in s3.list_objects_v2(Bucket=b, Prefix='packer/shop/feature-login-')['Contents']]))"
    ));
    assert!(bakes.contains("inputs.txt"), "{bakes}");
    fs::write(&calls, "").unwrap();
    world.good(&[
        "destroy",
        "files",
        "--sourceless",
        "--branch=feature/login",
        "--yes",
    ]);
    made.append(&mut heard());
    assert!(world.branches().is_empty());
    let allowed: Vec<&str> = aws::call::BRANCHES.iter().map(|call| call.operation).collect();
    assert!(
        made.contains("CreateStack") && made.contains("UpdateItem") && made.contains("DescribeRules"),
        "{made:?}"
    );
    for call in made {
        assert!(
            allowed.contains(&call.as_str()),
            "{call} is not among what the build may call"
        );
    }
}

#[test]
fn a_push_by_hand_starts_what_makes_the_stacks_once() {
    let Some(world) = World::applied() else {
        return;
    };
    let app = fs::read_to_string(world.path().join("vend.yaml")).unwrap();
    world.git(&["checkout", "--quiet", "-b", "feature/login"]);
    let (code, said) = world.bad(&["push"]);
    assert!(
        code == 4 && said.contains("no environment follows the branch"),
        "{said}"
    );
    world.write(
        "vend.yaml",
        &format!("{app}  preview: {{ branches: 'feature/*', expires: 2h }}\n"),
    );
    let (code, said) = world.bad(&["push"]);
    assert!(
        code == 4 && said.contains("makes no stacks of branches"),
        "{said}"
    );
    world.good(&["apply", "--yes"]);
    let begun = world.json(&["push"]);
    assert_eq!(begun[0]["doing"], "started", "{begun}");
    assert_eq!(begun[0]["environment"], "feature-login-df7c7a-b-7d3c484c6392");
    assert_eq!(world.json(&["push"])[0]["doing"], "running");
    let commit = world.git(&["rev-parse", "HEAD"]);
    let found = world.python(&format!(
        "c = client('stepfunctions')\nm = 'arn:aws:states:eu-central-1:123456789012:stateMachine:vend-pipeline-production-shop-branches'\n\
         e = c.list_executions(stateMachineArn=m)['executions']\n\
         k = client('s3').list_objects_v2(Bucket='vend-production-artifacts-123456789012-eu-central-1', Prefix='source/shop/{commit}')['KeyCount']\n\
         print(json.dumps([k, [json.loads(c.describe_execution(executionArn=x['executionArn'])['input']) for x in e]]))"
    ));
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(
        (&found[0], found[1].as_array().unwrap().len()),
        (&1.into(), 1),
        "{found}"
    );
    let job = &found[1][0];
    assert_eq!(
        (
            &job["action"],
            &job["branch"],
            &job["expires"],
            &job["push"]["commit"]
        ),
        (
            &"apply".into(),
            &"feature/login".into(),
            &7200.into(),
            &commit.as_str().into()
        )
    );
}

/// What is said of one branch's environment: by the branch, or by the name that its stacks have.
#[test]
fn a_branchs_environment_is_worked_with() {
    let Some(world) = World::new() else { return };
    world.write(
        "vend.yaml",
        &PREVIEW.replace(
            "size: small",
            "size: small, env: { API_KEY: \"{{secret:api-key}}\" }",
        ),
    );
    world.good(&["apply", "--yes"]);
    // Its secrets are those of its entry, before there is a branch.
    let done = world.hearing(&["secrets", "set", "preview", "api-key"], "hush");
    assert!(
        said(&done).contains("set vend/production/shop/preview/api-key"),
        "{}",
        said(&done)
    );
    let name = "feature-login-df7c7a-b-7d3c484c6392";
    let (code, refused) = world.bad(&["logs", name]);
    assert!(
        code == 4 && refused.contains("no stack of shop is of"),
        "{refused}"
    );
    let (code, refused) = world.bad(&["logs", "preview"]);
    assert!(
        code == 4 && refused.contains("one environment for each branch (feature/*)"),
        "{refused}"
    );
    // A mistyped name is no branch of which there is nothing yet, also where the entry would take it.
    let (code, refused) = world.bad(&["secrets", "set", "feature/logn", "api-key"]);
    assert!(
        code == 4 && refused.contains("no environment `feature/logn`"),
        "{refused}"
    );
    world.good(&["apply", "--yes", "--branch", "feature/login"]);
    world.python(&format!(
        "import time\nl = client('logs')\ng = '/vend/production/shop/{name}'\n\
         l.create_log_stream(logGroupName=g, logStreamName='i-1')\n\
         l.put_log_events(logGroupName=g, logStreamName='i-1', logEvents=[{{'timestamp': int(time.time() * 1000) - 60000, 'message': 'hello'}}])\n\
         client('stepfunctions').start_execution(stateMachineArn='arn:aws:states:eu-central-1:123456789012:stateMachine:vend-flow-production-shop-{name}', \
         name='aaaaaaaaaaaa-1', input='{{}}')"
    ));
    for asked in [name, "feature/login"] {
        let list = world.json(&["secrets", "list", asked]);
        assert_eq!(
            (&list[0]["name"], &list[0]["is_set"]),
            (&"api-key".into(), &true.into())
        );
        assert!(world.good(&["logs", asked]).contains("hello"));
        let releases = world.json(&["releases", "-e", asked]);
        assert_eq!(
            (&releases[0]["environment"], &releases[0]["name"]),
            (&name.into(), &"aaaaaaaaaaaa-1".into())
        );
        assert!(
            world.good(&["hosts", "-e", asked]).contains("nothing"),
            "no half of it runs"
        );
    }
    world.good(&["secrets", "unset", "preview", "api-key"]);
    assert_eq!(world.json(&["secrets", "list", "preview"])[0]["is_set"], false);
}
