//! What people do with an environment on AWS, from the first push to the way back, against moto's server.

use std::process::Command;

use serde_json::Value;

use super::{World, said};

const APP: &str = "app: shop
host: { port: 8080, size: small, env: { API_KEY: \"{{secret:api-key}}\" } }
build: { env: { TOKEN: \"{{secret:registry-token}}\" } }
environments:
  production: { branch: main, scaling: { min: 1, max: 3 } }
  staging: { branch: next }
";

impl World {
    /// With an environment applied, and a commit in git.
    pub fn applied() -> Option<Self> {
        Self::applied_as(APP)
    }

    /// The same, as this `vend.yaml` says.
    pub fn applied_as(app: &str) -> Option<Self> {
        let world = Self::new()?;
        world.write("vend.yaml", app);
        world.good(&["apply", "--yes"]);
        world.git(&["init", "--quiet", "--initial-branch=main"]);
        world.commit("first");
        Some(world)
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.arg("-C").arg(self.path()).args(arguments);
        git.env("GIT_CONFIG_GLOBAL", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "Ada")
                .env(format!("GIT_{who}_EMAIL"), "ada@example.com");
        }
        let done = git.output().unwrap();
        assert!(done.status.success(), "{}", said(&done));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// The id of a new commit.
    pub fn commit(&self, message: &str) -> String {
        self.write("said.txt", message);
        self.git(&["add", "vend.yaml", "appspec.yml", "buildspec.yml", "said.txt"]);
        self.git(&["commit", "--quiet", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Does production's migration leave data that no earlier release knows?
    pub fn irreversible(&self, is_so: bool) {
        let drops = "production: { deploy: { migrate: { script: scripts/drop.sh, irreversible: true } }, branch: main,";
        let text = match is_so {
            true => APP.replace("production: { branch: main,", drops),
            false => APP.to_owned(),
        };
        self.write("vend.yaml", &text);
    }

    /// moto's Step Functions really runs machines from here on; the flow is one that asks, and then keeps the half before.
    /// (It has no JSONata, so the flow's own definition cannot be run there; `asl` runs it in the tests of `aws`.)
    pub fn asks(&self) {
        self.python(
            "import urllib.request as u\n\
             u.urlopen(u.Request(sys.argv[1] + '/moto-api/config', method='POST', headers={'content-type': 'application/json'}, \
             data=b'{\"stepfunctions\": {\"execute_state_machine\": true}}'))\n\
             f = client('stepfunctions')\n\
             t = client('sns').create_topic(Name='ops')['TopicArn']\n\
             say = \"States.Format('shop: commit {} by {}.\\n\\nYes:\\naws --task-token {}\\n\\nNo:\\naws --task-token {}', $.commit, $.author, $$.Task.Token, $$.Task.Token)\"\n\
             d = {'StartAt': 'Approve', 'States': {\n\
             \x20 'Approve': {'Type': 'Task', 'Resource': 'arn:aws:states:::sns:publish.waitForTaskToken', 'ResultPath': None, 'TimeoutSeconds': 600,\n\
             \x20   'Parameters': {'TopicArn': t, 'Message.$': say}, 'Next': 'Keep'},\n\
             \x20 'Keep': {'Type': 'Wait', 'Seconds': 600, 'End': True}}}\n\
             f.create_state_machine(name='vend-flow-production-shop-production', definition=json.dumps(d), roleArn='arn:aws:iam::123456789012:role/r')",
        );
    }

    /// Gives parameters of the environment's stack values, as its flow does.
    pub fn release(&self, values: &str) {
        self.release_of("vend-production-shop-production", values);
    }

    fn release_of(&self, stack: &str, values: &str) {
        self.python(&format!(
            "c = client('cloudformation')\nn = '{stack}'\nv = dict(x.split('=') for x in '{values}'.split())\n\
             old = c.describe_stacks(StackName=n)['Stacks'][0]['Parameters']\n\
             new = [{{'ParameterKey': p['ParameterKey'], 'ParameterValue': v[p['ParameterKey']]}} if p['ParameterKey'] in v \
             else {{'ParameterKey': p['ParameterKey'], 'UsePreviousValue': True}} for p in old]\n\
             c.update_stack(StackName=n, UsePreviousTemplate=True, Parameters=new, Capabilities=['CAPABILITY_NAMED_IAM'])"
        ));
    }

    /// A healthy target of a half; `kind` is what the groups of the stack take.
    pub fn host(&self, stack: &str, half: &str, kind: &str) {
        self.python(&format!(
            "s = client('cloudformation').describe_stacks(StackName='{stack}')['Stacks'][0]\n\
             t = [x['OutputValue'] for x in s['Outputs'] if x['OutputKey'] == '{half}TargetsArn'][0]\n\
             run = lambda: client('ec2').run_instances(ImageId='ami-12c6146b', MinCount=1, MaxCount=1)['Instances'][0]['InstanceId']\n\
             client('elbv2').register_targets(TargetGroupArn=t, Targets=[{{'Id': run() if '{kind}' == 'instance' else '10.3.0.5'}}])"
        ));
    }

    fn parameters(&self) -> Value {
        let text = self.python(
            "s = client('cloudformation').describe_stacks(StackName='vend-production-shop-production')['Stacks'][0]\n\
             print(json.dumps({p['ParameterKey']: p['ParameterValue'] for p in s['Parameters']}))",
        );
        serde_json::from_str(&text).unwrap()
    }
}

#[test]
fn a_commit_is_pushed_once() {
    let Some(world) = World::applied() else { return };
    let commit = world.git(&["rev-parse", "HEAD"]);
    let begun = world.json(&["push", "--detach"]);
    assert_eq!(
        begun.as_array().unwrap().len(),
        1,
        "staging follows another branch: {begun}"
    );
    assert_eq!(
        (&begun[0]["environment"], &begun[0]["doing"]),
        (&"production".into(), &"started".into())
    );
    // What builds fetch is the commit's tree.
    let names = world.python(&format!(
        "import io, zipfile\nb = client('s3').get_object(Bucket='vend-production-artifacts-123456789012-eu-central-1', \
         Key='source/shop/{commit}.zip')['Body'].read()\nprint(sorted(zipfile.ZipFile(io.BytesIO(b)).namelist()))"
    ));
    assert_eq!(names, "['appspec.yml', 'buildspec.yml', 'said.txt', 'vend.yaml']");
    // What the flow is given has all that a webhook's would have.
    let release = begun[0]["release"].as_str().unwrap();
    let input = world.python(&format!(
        "print(client('stepfunctions').describe_execution(executionArn='{release}')['input'])"
    ));
    let input: Value = serde_json::from_str(&input).unwrap();
    assert_eq!(input["commit"], commit.as_str());
    assert_eq!(
        (&input["author"], &input["message"]),
        (&"Ada <ada@example.com>".into(), &"first".into())
    );
    assert!(
        input["sender"].as_str().unwrap().starts_with("arn:aws:"),
        "{input}"
    );
    assert_eq!(world.json(&["push", "--detach"])[0]["doing"], "running");
    // What lies there beside the commit is not forgotten silently; nobody who names a commit means it.
    let note = "what is changed and not committed does not go with it";
    assert!(world.good(&["push", "--detach"]).contains(note));
    let named = world.good(&["push", "--detach", "--commit", &commit]);
    assert!(!named.contains(note), "{named}");
    // One that did not succeed is released again, under another name.
    world.python(&format!(
        "client('stepfunctions').stop_execution(executionArn='{release}')"
    ));
    let second = world.json(&["push", "--detach"]);
    assert_eq!(second[0]["doing"], "started");
    assert_ne!(second[0]["release"], release);
    let all = world.json(&["releases", "--environment", "production"]);
    let states: Vec<&str> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["status"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["RUNNING", "ABORTED"]);

    let (code, refused) = world.bad(&["push", "--branch", "nobody"]);
    assert!(
        code == 4 && refused.contains("production follows main, staging follows next"),
        "{refused}"
    );
    let (code, refused) = world.bad(&["push", "--commit", "0000000"]);
    assert!(
        code == 4 && refused.contains("has no commit `0000000`"),
        "{refused}"
    );
    let asked = world.json(&["push", "--detach", "--environment", "staging"]);
    assert_eq!(
        (&asked[0]["environment"], &asked[0]["doing"]),
        (&"staging".into(), &"started".into())
    );
}

/// Who reads JSON learns how it ended too, in one document and by the exit code.
#[test]
fn a_push_is_followed_in_json_too() {
    let Some(world) = World::applied() else { return };
    world.asks();
    let waits = world.json(&["push"]);
    assert_eq!(
        (&waits[0]["doing"], &waits[0]["end"]),
        (&"started".into(), &"waits".into()),
        "{waits}"
    );
    assert!(
        waits[0]["question"]
            .as_str()
            .unwrap()
            .starts_with("shop: commit "),
        "{waits}"
    );
    world.good(&["approve", "production", "--yes"]);
    assert_eq!(world.json(&["push"])[0]["end"], "live");
    world.python(
        "f = client('stepfunctions')\n\
         m = 'arn:aws:states:eu-central-1:123456789012:stateMachine:vend-flow-production-shop-production'\n\
         d = {'StartAt': 'Build', 'States': {'Build': {'Type': 'Fail', 'Error': 'Vend.Build', 'Cause': 'exit code 7'}}}\n\
         f.update_state_machine(stateMachineArn=m, definition=json.dumps(d))",
    );
    world.commit("breaks");
    let done = world.vend(&["push", "--json"]);
    let failed: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{}", said(&done)));
    assert_eq!(done.status.code(), Some(1), "{failed}");
    assert_eq!(
        (&failed[0]["end"], &failed[0]["status"]),
        (&"failed".into(), &"FAILED".into()),
        "{failed}"
    );
    assert_eq!(failed[0]["cause"], "exit code 7");
    // Nobody waited, so nobody knows.
    let begun = world.json(&["push", "--detach"]);
    assert!(
        begun[0]["doing"] == "started" && begun[0]["end"].is_null(),
        "{begun}"
    );
    // No branch is checked out.
    world.git(&["checkout", "--quiet", "--detach"]);
    let (code, refused) = world.bad(&["push"]);
    assert!(code == 1 && refused.contains("--branch NAME"), "{refused}");
}

#[test]
fn a_question_is_answered() {
    let Some(world) = World::applied() else { return };
    world.asks();
    let (code, refused) = world.bad(&["approve", "production", "--yes"]);
    assert!(
        code == 4 && refused.contains("nothing of production waits"),
        "{refused}"
    );
    let commit = world.git(&["rev-parse", "HEAD"]);
    // It is followed until somebody has to answer.
    let said = world.good(&["push"]);
    assert!(
        said.contains("production: Approve")
            && said.contains(&format!("waits: shop: commit {commit} by Ada <ada@example.com>.")),
        "{said}"
    );
    assert!(
        said.contains("vend aws approve production") && !said.contains("task-token"),
        "{said}"
    );
    assert_eq!(world.json(&["releases"])[0]["waits_for_people"], true);
    let (code, refused) = world.bad(&["approve", "production"]);
    assert!(code == 2 && refused.contains("--yes"), "{refused}");
    // Who takes everything down is told before they are asked.
    world.good(&["unprotect"]);
    let (code, said) = world.bad(&["destroy"]);
    assert!(
        code == 2 && said.contains("a release of production is under way"),
        "{said}"
    );
    assert!(
        world
            .good(&["approve", "production", "--yes"])
            .contains("approved")
    );
    assert!(world.good(&["push"]).contains("production: live"));
    assert_eq!(world.json(&["releases"])[0]["is_live"], true);

    // Who wrote the commit is called as they like, and chooses nothing by it.
    world.commit("second");
    let eve = "--author=Eve --task-token AQB4stolen <eve@example.com>";
    world.git(&["commit", "--quiet", "--amend", "--no-edit", eve]);
    let other = world.git(&["rev-parse", "HEAD"]);
    world.good(&["push"]);
    world.good(&["reject", "production", "--reason", "not on a Friday"]);
    let all = world.json(&["releases"]);
    let no = all
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["push"]["commit"] == other.as_str())
        .unwrap();
    assert_eq!(
        (&no["status"], &no["error"]),
        (&"FAILED".into(), &"Vend.Refused".into())
    );
    assert_eq!(no["is_rejected"], true);
    // moto does not keep the cause.
    let said = world.good(&["releases"]);
    assert!(
        said.contains(" rejected ") && said.contains(" is rejected: "),
        "{said}"
    );
}

#[test]
fn traffic_goes_back_to_the_half_before() {
    let Some(world) = World::applied() else { return };
    let (code, refused) = world.bad(&["rollback", "production", "--yes"]);
    assert!(
        code == 4 && refused.contains("no release to go back to"),
        "{refused}"
    );
    let (code, refused) = world.bad(&["scale", "production", "2"]);
    assert!(
        code == 1 && refused.contains("nothing of production runs yet"),
        "{refused}"
    );
    world.release("BlueRuns=yes BlueImage=ami-12c6146b BlueWeight=0 GreenRuns=yes GreenImage=ami-785db401 GreenWeight=100");
    let hosts = world.json(&["hosts", "--environment", "production"]);
    let halves: Vec<_> = hosts
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["word"].as_str().unwrap(), one["weight"].as_u64().unwrap()))
        .collect();
    assert_eq!(halves, [("Blue", 0), ("Green", 100)]);

    // Nobody is sent where nothing is well.
    let (code, refused) = world.bad(&["rollback", "production", "--yes"]);
    assert!(
        code == 1 && refused.contains("has 0 healthy hosts in its blue half, and needs 1"),
        "{refused}"
    );
    world.host("vend-production-shop-production", "Blue", "instance");
    let hosts = world.json(&["hosts", "--environment", "production"]);
    assert_eq!(hosts[0]["hosts"][0]["health"], "healthy", "{hosts}");

    // Who moves it is not disturbed: a release, another person, and the same one elsewhere.
    let table = "vend-pipeline-production-shop";
    let holds = |owner: &str, until: &str| {
        world.python(&format!(
            "client('dynamodb').put_item(TableName='{table}', Item={{'key': {{'S': 'turn/production'}}, 'owner': {{'S': '{owner}'}}, 'expires': {{'N': '{until}'}}}})"
        ))
    };
    let me = world.python("print(client('sts').get_caller_identity()['Arn'])");
    let elsewhere = format!("vend aws {me} 0123456789abcdef");
    for owner in ["arn:aws:states:a-release", "vend aws", &elsewhere] {
        holds(owner, "4102444800");
        let (code, refused) = world.bad(&["rollback", "production", "--yes"]);
        let held = format!("{owner} has its turn until 2100-01-01T00:00:00Z");
        assert!(code == 1 && refused.contains(&held), "{refused}");
        let still = world.python(&format!(
            "print(client('dynamodb').scan(TableName='{table}')['Items'][0]['owner']['S'])"
        ));
        assert_eq!(still, owner);
    }
    assert_eq!(world.parameters()["GreenWeight"], "100");
    // Whose process is gone does not have it for ever.
    holds(&elsewhere, "1000000000");

    let (code, refused) = world.bad(&["rollback", "production"]);
    assert!(
        code == 2 && refused.contains("from ami-785db401 (Green) back to ami-12c6146b (Blue)"),
        "{refused}"
    );
    // Not where the half before does not know the data any more.
    world.irreversible(true);
    let (code, refused) = world.bad(&["rollback", "production", "--yes"]);
    assert!(
        code == 3
            && refused.contains("the migration scripts/drop.sh is marked irreversible")
            && refused.contains("vend aws rollback production --across-migrations"),
        "{refused}"
    );
    assert_eq!(world.parameters()["GreenWeight"], "100");
    // What went live last goes out of everybody's way.
    world.python(&format!(
        "client('dynamodb').put_item(TableName='{table}', Item={{'key': {{'S': 'newest/production'}}, 'owner': {{'S': 'r'}}, 'began': {{'N': '1'}}}})"
    ));
    let said = world.good(&["rollback", "production", "--yes", "--across-migrations"]);
    assert!(
        said.contains("vend aws retire production")
            && said.contains("undo: vend aws rollback production --across-migrations"),
        "{said}"
    );
    world.irreversible(false);
    let now = world.parameters();
    assert_eq!(
        (&now["BlueWeight"], &now["GreenWeight"]),
        (&"100".into(), &"0".into())
    );
    assert_eq!(
        (&now["BlueRuns"], &now["GreenRuns"]),
        (&"yes".into(), &"yes".into())
    );
    let held = world.python(&format!(
        "print(client('dynamodb').scan(TableName='{table}')['Count'])"
    ));
    assert_eq!(held, "0", "the turn is left, and nothing is the newest");
    // What runs without traffic is the way back: nobody loses it without being asked.
    let (code, refused) = world.bad(&["retire", "production"]);
    assert!(
        code == 2 && refused.contains("(Green) stops") && refused.contains("--yes"),
        "{refused}"
    );
    assert_eq!(world.parameters()["GreenRuns"], "yes");
    world.good(&["retire", "production", "--yes"]);
    let now = world.parameters();
    assert_eq!(
        (&now["BlueRuns"], &now["GreenRuns"]),
        (&"yes".into(), &"no".into())
    );
    assert!(
        world
            .good(&["retire", "production"])
            .contains("nothing of production runs without traffic")
    );
    // The stack is as its template says.
    assert_eq!(
        world.status("vend-production-shop-production")["doing"]["doing"],
        "nothing"
    );
}

#[test]
fn hosts_are_scaled_between_their_bounds() {
    let Some(world) = World::applied() else { return };
    world.release("BlueRuns=yes BlueImage=ami-12c6146b BlueWeight=100");
    // moto does not see that a parameter changes a group.
    world.python(
        "o = client('cloudformation').describe_stacks(StackName='vend-production-shop-production')['Stacks'][0]['Outputs']\n\
         g = [x['OutputValue'] for x in o if x['OutputKey'] == 'BlueGroupName'][0]\n\
         client('autoscaling').update_auto_scaling_group(AutoScalingGroupName=g, MinSize=1, MaxSize=3)",
    );
    for (hosts, more) in [("0", "between 1 and 3"), ("4", "between 1 and 3")] {
        let (code, refused) = world.bad(&["scale", "production", hosts]);
        assert!(code == 2 && refused.contains(more), "{refused}");
    }
    let said = world.good(&["scale", "production", "3"]);
    assert!(said.contains("production gets 3 hosts"), "{said}");
    let there = world.python(
        "a = client('autoscaling').describe_auto_scaling_groups()['AutoScalingGroups']\n\
         print(sorted(g['DesiredCapacity'] for g in a))",
    );
    assert_eq!(there, "[0, 0, 0, 3]");
    assert!(world.good(&["scale", "production", "3"]).contains("already"));
    let hosts = world.json(&["hosts", "--environment", "production"]);
    assert_eq!(hosts[0]["hosts"].as_array().unwrap().len(), 3, "{hosts}");
}

/// Containers, in two foundations that get the same releases.
#[test]
fn what_is_said_of_an_environment_is_done_in_each_of_its_targets() {
    let Some(world) = World::new() else { return };
    world.write("vend.yaml", &APP.replace("  staging: { branch: next }\n", ""));
    let foundation = |name: &str, cidr: &str| {
        format!(
            "[foundations.{name}]\nregion = \"eu-central-1\"\ndomain = \"{name}.example.com\"\nnetwork = {{ cidr = \"{cidr}\" }}\n"
        )
    };
    let app = "[apps.shop]\npipeline = \"first\"\n[apps.shop.environments.production]\nfoundation = \"first\"\nalso = [\"second\"]\nruntime = \"fargate\"\n";
    let (first, second) = (
        foundation("first", "10.3.0.0/16"),
        foundation("second", "10.4.0.0/16"),
    );
    world.write("aws.toml", &format!("{first}{second}{app}"));
    world.good(&["apply", "--yes"]);
    let done = world.hearing(&["secrets", "set", "production", "api-key"], "one");
    assert!(done.status.success(), "{}", said(&done));
    let names = world
        .python("print(sorted(s['Name'] for s in client('secretsmanager').list_secrets()['SecretList']))");
    assert_eq!(
        names,
        "['vend/first/shop/production/api-key', 'vend/second/shop/production/api-key']"
    );
    for stack in ["vend-first-shop-production", "vend-second-shop-production"] {
        world.release_of(
            stack,
            "BlueRuns=yes BlueImage=a BlueWeight=0 GreenRuns=yes GreenImage=b GreenWeight=100",
        );
        for half in ["Blue", "Green"] {
            world.host(stack, half, "ip");
        }
        // moto does not see that a parameter makes a service.
        world.python(&format!(
            "e = client('ecs')\nt = e.list_task_definitions()['taskDefinitionArns'][0]\n\
             for s in ['blue', 'green']: e.create_service(cluster='{stack}', serviceName=s, desiredCount=1, taskDefinition=t)"
        ));
    }
    let (code, refused) = world.bad(&["scale", "production", "9"]);
    assert!(code == 2 && refused.contains("between 1 and 3"), "{refused}");
    world.good(&["scale", "production", "2"]);
    let counts = world.python(
        "e = client('ecs')\nout = []\nfor c in sorted(e.list_clusters()['clusterArns']):\n\
         \x20   for s in sorted(e.list_services(cluster=c)['serviceArns']):\n\
         \x20       d = e.describe_services(cluster=c, services=[s])['services'][0]\n\
         \x20       out.append((c.split('/')[-1], d['serviceName'], d['desiredCount'] == 2))\nprint(json.dumps(out))",
    );
    let counts: Value = serde_json::from_str(&counts).unwrap();
    let scaled: Vec<_> = counts
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one[2] == true)
        .map(|one| (one[0].as_str().unwrap(), one[1].as_str().unwrap()))
        .collect();
    assert_eq!(
        scaled,
        [
            ("vend-first-shop-production", "green"),
            ("vend-second-shop-production", "green")
        ],
        "{counts}"
    );
    let (code, refused) = world.bad(&["rollback", "production", "--yes", "--only", "vend-third"]);
    assert!(
        code == 4 && refused.contains("vend-first-shop-production, vend-second-shop-production"),
        "{refused}"
    );
    // One alone, as after a failure of the second.
    let one = [
        "rollback",
        "production",
        "--yes",
        "--only",
        "vend-first-shop-production",
    ];
    for _ in ["there", "and back"] {
        assert_eq!(
            world.json(&one)["stacks"],
            serde_json::json!(["vend-first-shop-production"])
        );
    }
    let done = world.json(&["rollback", "production", "--yes"]);
    assert_eq!(
        done["stacks"],
        serde_json::json!(["vend-first-shop-production", "vend-second-shop-production"])
    );
}

#[test]
fn logs_are_read_to_their_end() {
    let Some(world) = World::applied() else { return };
    world.python(
        "import time\nl = client('logs')\nnow = int(time.time() * 1000)\ng = '/vend/production/shop/production'\n\
         l.create_log_stream(logGroupName=g, logStreamName='i-1')\n\
         old = [{'timestamp': now - 7200000, 'message': 'old'}]\n\
         l.put_log_events(logGroupName=g, logStreamName='i-1', logEvents=old)\n\
         for k in range(0, 12000, 6000): l.put_log_events(logGroupName=g, logStreamName='i-1', \
         logEvents=[{'timestamp': now - 60000 + n, 'message': f'line {n:05} \\x1b]0;title\\x07'} for n in range(k, k + 6000)])",
    );
    let said = world.good(&["logs", "production"]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 12_000, "{}", &said[..200]);
    assert!(
        lines[0].contains("i-1 line 00000") && lines[11_999].contains("line 11999"),
        "{}",
        lines[0]
    );
    assert!(
        !said.contains('\x07') && !said.contains("\x1b]"),
        "a terminal is not told what to do"
    );
    let filtered = world.good(&["logs", "production", "--since", "3h", "--filter", "old"]);
    assert_eq!(filtered.lines().count(), 1, "{filtered}");
    let one = world.good(&["logs", "production", "--filter", "\"line 11999\"", "--json"]);
    let line: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(
        (
            &line["stream"],
            line["text"].as_str().unwrap().contains("line 11999")
        ),
        (&"i-1".into(), true)
    );
    for kind in ["build", "bake", "flow"] {
        assert_eq!(world.good(&["logs", "production", "--kind", kind]), "", "{kind}");
    }
    let (code, refused) = world.bad(&["logs", "production", "--kind", "tests"]);
    assert!(
        code == 4 && refused.contains("there is no log group /vend/production/shop/tests"),
        "{refused}"
    );
}
