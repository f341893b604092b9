//! `vend aws` against moto's server: a platform is planned, applied, changed, protected and destroyed by the program itself.
//! What moto lacks is in `aws/server.py`. Skipped where moto is not there; `cargo xtask test` installs it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "aws/again.rs"]
mod again;
#[path = "aws/branch.rs"]
mod branch;
#[path = "aws/changed.rs"]
mod changed;
#[path = "aws/eject.rs"]
mod eject;
#[path = "aws/kept.rs"]
mod kept;
#[path = "aws/live.rs"]
mod live;
#[path = "aws/mistakes.rs"]
mod mistakes;
#[path = "aws/moving.rs"]
mod moving;
#[path = "aws/names.rs"]
mod names;
#[path = "aws/people.rs"]
mod people;
#[path = "aws/protect.rs"]
mod protect;
#[path = "aws/receiver.rs"]
mod receiver;
#[path = "aws/resources.rs"]
mod resources;
#[path = "aws/secrets.rs"]
mod secrets;
#[path = "aws/tags.rs"]
mod tags;
#[path = "aws/together.rs"]
mod together;

use std::{
    fs,
    io::Write as _,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

/// Python with moto.
fn python() -> Option<PathBuf> {
    let own = std::env::current_exe().unwrap();
    let found = own
        .ancestors()
        .map(|directory| directory.join("clients/bin/python"))
        .find(|path| path.exists());
    if found.is_none() {
        println!("skipped: moto is not there; `cargo xtask test` installs it");
    }
    found
}

/// moto with a working tree.
struct World {
    server: Child,
    endpoint: String,
    python: PathBuf,
    tree: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

const FOUNDATION: &str =
    "[foundations.production]\nregion = \"eu-central-1\"\ndomain = \"apps.example.com\"\n";

impl World {
    fn new() -> Option<Self> {
        let python = python()?;
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/aws/server.py");
        let tree = tempfile::tempdir().unwrap();
        let mut server = Command::new(&python);
        server
            .args([script, &port.to_string()])
            .env("CALLS", tree.path().join("calls"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(tree.path().join("moto.log")).unwrap());
        let mut world = Self {
            server: server.spawn().unwrap(),
            endpoint: format!("http://127.0.0.1:{port}"),
            python,
            tree,
        };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            // Somebody else may have taken its port.
            if let Some(status) = world.server.try_wait().unwrap() {
                let said = fs::read_to_string(world.path().join("moto.log")).unwrap();
                panic!("moto ends before it serves: {status}: {said}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let app = "app: shop\nhost: { port: 8080, size: small }\nenvironments:\n  production: { branch: main, scaling: { min: 1, max: 2 } }\n";
        world.write("vend.yaml", app);
        world.write("aws.toml", FOUNDATION);
        world.write("appspec.yml", "version: 0.0\nos: linux\n");
        world.write("buildspec.yml", "version: 0.2\n");
        Some(world)
    }

    fn path(&self) -> &Path {
        self.tree.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    fn vend(&self, arguments: &[&str]) -> Output {
        self.hearing(arguments, "")
    }

    /// A command with something on its standard input.
    fn hearing(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vend"));
        command
            .arg("aws")
            .args(arguments)
            .current_dir(self.path())
            .env_clear();
        command
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("HOME", self.path());
        command
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "not-to-be-seen");
        command.env("VEND_RECEIVER", receiver::program());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let done = child.wait_with_output().unwrap();
        let said = said(&done);
        assert!(!said.contains("not-to-be-seen"), "{said}");
        let bare = fs::read_to_string(self.path().join("calls.bare")).unwrap_or_default();
        assert!(bare.is_empty(), "calls without a token: {bare}");
        done
    }

    /// What a command that succeeds says.
    fn good(&self, arguments: &[&str]) -> String {
        let done = self.vend(arguments);
        assert!(
            done.status.success(),
            "{arguments:?}: {}\n{}",
            done.status,
            said(&done)
        );
        String::from_utf8(done.stdout).unwrap()
    }

    /// What a command that fails says, with its exit code.
    fn bad(&self, arguments: &[&str]) -> (i32, String) {
        let done = self.vend(arguments);
        assert!(!done.status.success(), "{arguments:?}: {}", said(&done));
        (done.status.code().unwrap(), said(&done))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.good(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// Runs a few lines of Python with clients of AWS: `client("s3")`.
    fn python(&self, lines: &str) -> String {
        let head = "import boto3, json, sys\nclient = lambda name: boto3.client(name, endpoint_url=sys.argv[1], \
                    region_name='eu-central-1', aws_access_key_id='x', aws_secret_access_key='y')\n";
        let mut command = Command::new(&self.python);
        let done = command
            .args(["-c", &format!("{head}{lines}"), &self.endpoint])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", said(&done));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// The status of a stack by its name.
    fn status(&self, name: &str) -> Value {
        let all = self.json(&["status"]);
        all.as_array()
            .unwrap()
            .iter()
            .find(|line| line["name"] == name)
            .unwrap_or(&Value::Null)
            .clone()
    }
}

fn said(done: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    )
}

/// The stacks of the app in the order in which they are made.
const STACKS: [&str; 4] = [
    "vend-production",
    "vend-pipeline-production-shop",
    "vend-production-shop-production",
    "vend-flow-production-shop-production",
];

#[test]
fn a_platform_comes_changes_and_goes() {
    let Some(world) = World::new() else { return };
    let plan = world.json(&["plan"]);
    let doing: Vec<&str> = plan["stacks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["doing"].as_str().unwrap())
        .collect();
    assert_eq!(doing, ["create"; 4]);
    let cents = |one: &Value| one["price"]["cents"].as_u64().unwrap();
    let sum: u64 = plan["stacks"].as_array().unwrap().iter().map(cents).sum();
    assert_eq!(
        (&plan["month"]["cents"], &plan["month"]["cents_before"]),
        (&sum.into(), &0.into())
    );
    let notes: Vec<&str> = plan["stacks"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|one| one["notes"].as_array().unwrap())
        .map(|note| note.as_str().unwrap())
        .collect();
    let said = world.good(&["plan"]);
    assert!(notes.iter().all(|note| said.contains(note)), "{notes:?}: {said}");
    assert_eq!(
        world.python("print(len(client('cloudformation').describe_stacks()['Stacks']))"),
        "0"
    );
    let (code, refused) = world.bad(&["apply"]);
    assert!(code == 2 && refused.contains("--yes"), "{refused}");
    world.good(&["apply", "--yes"]);
    what_is_unchanged_costs_one_call(&world);
    for name in STACKS {
        let line = world.status(name);
        assert_eq!(line["doing"]["doing"], "nothing", "{line}");
    }
    assert_eq!(world.status(STACKS[0])["is_protected"], true);
    resources::every_resource_is_there(&world);
    outputs_are_said(&world);
    tags::every_stack_says_whose_it_is(&world);

    world.write("aws.toml", &format!("{FOUNDATION}firewall = true\n"));
    let plan = world.json(&["plan"]);
    let changed: Vec<&str> = plan["stacks"][0]["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert!(
        changed.contains(&"Firewall") && !changed.contains(&"Vpc"),
        "{changed:?}"
    );
    assert_eq!(
        cents(&plan["stacks"][0]) - plan["stacks"][0]["cents_before"].as_u64().unwrap(),
        800
    );
    assert_eq!(plan["stacks"][1]["doing"], "nothing");
    let said = world.good(&["apply", "--yes"]);
    assert!(
        said.contains("1 stacks made or changed, 3 as they were"),
        "{said}"
    );

    let (code, refused) = world.bad(&["destroy", "--yes"]);
    assert!(code == 3 && refused.contains("vend aws unprotect"), "{refused}");
    let done = world.vend(&["destroy", "--yes", "--json"]);
    let problem: Value = serde_json::from_slice(&done.stderr).unwrap();
    assert_eq!(
        (&problem["type"], &problem["status"], &problem["next"]),
        (
            &"urn:vend:problem:refused".into(),
            &403.into(),
            &"vend aws unprotect".into()
        )
    );
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("stacks are protected: vend-"),
        "{problem}"
    );
    assert!(world.good(&["unprotect"]).contains("with Balancer"));
    world.python(
        "s3 = client('s3')\nb = 'vend-production-artifacts-123456789012-eu-central-1'\n\
         s3.put_bucket_versioning(Bucket=b, VersioningConfiguration={'Status': 'Enabled'})\n\
         for n in range(1100): s3.put_object(Bucket=b, Key=f'a <&\\' ü/{n % 900}', Body=b'x')\n\
         s3.delete_object(Bucket=b, Key='a <&\\' ü/1')\ns3.create_multipart_upload(Bucket=b, Key='open one')",
    );
    let said = world.good(&["destroy", "--yes"]);
    assert!(said.contains("with 1102 objects"), "{said}");
    assert!(said.contains("kept:") && said.contains("AWS::KMS::Key"), "{said}");
    assert_eq!(
        world.python("print(len(client('s3').list_buckets()['Buckets']))"),
        "0"
    );
    let order: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("goes: "))
        .collect();
    assert_eq!(order, STACKS.iter().rev().copied().collect::<Vec<_>>());
    // Once more: nothing is there, but the key that stayed.
    let said = world.good(&["destroy", "--yes", "--forget"]);
    assert!(said.contains("goes in 30 days"), "{said}");
    // What no stack holds is told, with how to end it, and that of others is not.
    world.python(
        "ec2 = client('ec2')\n\
         host = ec2.run_instances(ImageId='ami-12c6146b', MinCount=1, MaxCount=1)['Instances'][0]['InstanceId']\n\
         for app in ('shop', 'other'):\n  \
           image = ec2.create_image(InstanceId=host, Name=app)['ImageId']\n  \
           ec2.create_tags(Resources=[image], Tags=[{'Key': 'vend:platform', 'Value': 'vend'}, {'Key': 'vend:app', 'Value': app}])\n  \
           client('secretsmanager').create_secret(Name=f'vend/production/{app}/production/token', SecretString='s')",
    );
    let said = world.good(&["destroy", "--yes", "--forget"]);
    let stays: Vec<&str> = said.lines().filter(|line| line.starts_with("stays: ")).collect();
    assert!(
        stays.len() == 2 && stays[0].starts_with("stays: image ami-"),
        "{said}"
    );
    assert_eq!(stays[1], "stays: secret vend/production/shop/production/token");
    for command in [
        "aws ec2 deregister-image --delete-associated-snapshots",
        "aws secretsmanager delete-secret",
    ] {
        assert!(
            said.contains(&format!("  ends with: {command} --region eu-central-1 ")),
            "{said}"
        );
    }
}

/// An apply that changes nothing asks once for all stacks of its one region.
fn what_is_unchanged_costs_one_call(world: &World) {
    let calls = world.path().join("calls");
    let lines = || {
        let text = fs::read_to_string(&calls).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<String>>()
    };
    // The server may write a call down more than once: this is one.
    fs::write(&calls, "").unwrap();
    world.python("client('cloudformation').describe_stacks()");
    let one = lines();
    assert!(!one.is_empty());
    fs::write(&calls, "").unwrap();
    let said = world.good(&["apply", "--yes"]);
    assert!(
        said.contains("0 stacks made or changed, 4 as they were"),
        "{said}"
    );
    assert_eq!(lines(), one);
}

/// The outputs that the document sends its reader to, as a person and as a program reads them.
fn outputs_are_said(world: &World) {
    let all = world.json(&["outputs"]);
    let of = |stack: &str, key: &str| {
        let stacks = all.as_array().unwrap().iter();
        let own = stacks.clone().find(|one| one["stack"] == stack)?;
        let mut outputs = own["outputs"].as_array()?.iter();
        Some(
            outputs.find(|one| one["id"] == key)?["value"]
                .as_str()?
                .to_owned(),
        )
    };
    // WebhookSecret, too, if moto made secrets of templates.
    for (stack, key) in [
        (STACKS[0], "KeyArn"),
        (STACKS[1], "WebhookUrl"),
        (STACKS[2], "BlueTargetsArn"),
    ] {
        let value = of(stack, key).unwrap_or_else(|| panic!("{stack} {key}: {all:#}"));
        assert!(!value.is_empty(), "{key}");
        assert!(world.good(&["outputs"]).contains(&value), "{value}");
    }
}

#[test]
fn a_creation_that_failed_is_said_and_begun_again() {
    let Some(world) = World::new() else { return };
    let bucket = "b = 'vend-production-logs-123456789012-eu-central-1'\n";
    world.python(&format!(
        "{bucket}client('s3').create_bucket(Bucket=b, CreateBucketConfiguration={{'LocationConstraint': 'eu-central-1'}})"
    ));
    let (code, said) = world.bad(&["apply", "--yes", "--only", "vend-production"]);
    assert!(
        code == 1 && said.contains("LogsBucket (AWS::S3::Bucket)") && said.contains("ROLLBACK_COMPLETE"),
        "{said}"
    );
    assert_eq!(world.status(STACKS[0])["doing"]["doing"], "create-again");
    world.python(&format!("{bucket}client('s3').delete_bucket(Bucket=b)"));
    world.good(&["apply", "--yes", "--only", "vend-production"]);
    assert_eq!(world.status(STACKS[0])["doing"]["doing"], "nothing");
}

#[test]
fn a_destruction_that_failed_is_said_and_goes_on() {
    let Some(world) = World::new() else { return };
    world.good(&["apply", "--yes", "--only", "vend-production"]);
    world.good(&["unprotect"]);
    let subnet = world.python(
        "ec2 = client('ec2')\nv = [x['VpcId'] for x in ec2.describe_vpcs()['Vpcs'] if x['CidrBlock'] == '10.3.0.0/16'][0]\n\
         print(ec2.create_subnet(VpcId=v, CidrBlock='10.3.240.0/24')['Subnet']['SubnetId'])",
    );
    let (code, said) = world.bad(&["destroy", "--yes"]);
    assert!(
        code == 1 && said.contains("DELETE_FAILED") && said.contains("Vpc (AWS::EC2::VPC)"),
        "{said}"
    );
    assert_eq!(world.status(STACKS[0])["status"], "DELETE_FAILED");
    // The data of a stack that is still there is still there.
    assert_eq!(
        world.python("print(len(client('s3').list_buckets()['Buckets']))"),
        "3"
    );
    world.python(&format!("client('ec2').delete_subnet(SubnetId='{subnet}')"));
    world.good(&["destroy", "--yes", "--forget"]);
    assert_eq!(
        world.python("print(len(client('s3').list_buckets()['Buckets']))"),
        "0"
    );
    assert_eq!(world.status(STACKS[0])["status"], Value::Null);
}

#[test]
fn a_change_that_cannot_be_rolled_back_is_left_by_continuing() {
    let Some(world) = World::new() else { return };
    world.good(&["apply", "--yes", "--only", "vend-production"]);
    let said = world.good(&["continue", "vend-production"]);
    assert!(said.contains("there is nothing to continue"), "{said}");
    world.python("client('ssm').put_parameter(Name='/test/hindered', Value='Balancer', Type='String')");
    world.write("aws.toml", &format!("{FOUNDATION}firewall = true\n"));
    let (code, said) = world.bad(&["apply", "--yes", "--only", "vend-production"]);
    assert!(
        code == 1
            && said.contains("UPDATE_ROLLBACK_FAILED")
            && said.contains("vend aws continue vend-production"),
        "{said}"
    );
    // What hindered it is still there: the answer names it.
    let (code, said) = world.bad(&["continue", "vend-production"]);
    assert!(
        code == 1 && said.contains("vend aws continue vend-production --skip Balancer"),
        "{said}"
    );
    assert!(said.contains("somebody hinders it"), "{said}");
    let said = world.good(&["continue", "vend-production", "--skip", "Balancer"]);
    assert!(said.contains("UPDATE_ROLLBACK_COMPLETE"), "{said}");
    // And then the change is made as if nothing had been.
    world.python("client('ssm').delete_parameter(Name='/test/hindered')");
    world.good(&["apply", "--yes", "--only", "vend-production"]);
    assert_eq!(world.status(STACKS[0])["doing"]["doing"], "nothing");
}

#[test]
fn who_calls_is_found_or_it_is_said_where_it_was_looked() {
    let Some(world) = World::new() else { return };
    let checks = world.json(&["doctor"]);
    let check = |what: &str| {
        let all = checks[0]["checks"].as_array().unwrap();
        all.iter().find(|check| check["what"] == what).unwrap()["verdict"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    for what in ["credentials", "region", "services", "sizes", "networks"] {
        assert_eq!(check(what), "good", "{what}: {checks}");
    }
    // moto simulates no policies, and knows no quota of processors.
    for what in ["permissions", "processors"] {
        assert_eq!(check(what), "unknown", "{what}: {checks}");
    }
    world.write(
        "aws.toml",
        &FOUNDATION.replace("domain", "account = \"999999999999\"\ndomain"),
    );
    let (code, said) = world.bad(&["doctor"]);
    assert!(code == 1 && said.contains("aws.toml says 999999999999"), "{said}");
    // A role is taken with the profile's keys.
    fs::create_dir_all(world.path().join(".aws")).unwrap();
    world.write(".aws/config", "[profile ops]\nrole_arn = arn:aws:iam::222222222222:role/ops\nsource_profile = keys\nexternal_id = x\n");
    world.write(
        ".aws/credentials",
        "[keys]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = not-to-be-seen\n",
    );
    world.write(
        "aws.toml",
        &FOUNDATION.replace("domain", "access = { profile = \"ops\" }\ndomain"),
    );
    let checks = world.json(&["doctor"]);
    let said = checks[0]["checks"][0]["said"].as_str().unwrap();
    assert!(said.contains("222222222222:assumed-role/ops/vend"), "{said}");
    world.write(
        "aws.toml",
        &FOUNDATION.replace("domain", "access = { profile = \"nobody\" }\ndomain"),
    );
    let (_, said) = world.bad(&["plan"]);
    assert!(said.contains("the profile `nobody` is in no file"), "{said}");
}

#[test]
fn tls_is_spoken_with_who_is_trusted_only() {
    let Some(mut world) = World::new() else { return };
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/aws/server.py");
    let trusted = world.path().join("trusted.pem");
    let mut server = Command::new(&world.python);
    server
        .args([script, &port.to_string()])
        .arg(&trusted)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _ = world.server.kill();
    let _ = world.server.wait();
    world.server = server.spawn().unwrap();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(100));
    }
    let status = |trusted: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vend"));
        command
            .args(["aws", "status"])
            .current_dir(world.path())
            .env_clear()
            .env("SSL_CERT_FILE", trusted);
        command.env("AWS_ENDPOINT_URL", format!("https://127.0.0.1:{port}"));
        command.env("VEND_RECEIVER", receiver::program());
        command
            .env("AWS_ACCESS_KEY_ID", "x")
            .env("AWS_SECRET_ACCESS_KEY", "y")
            .output()
            .unwrap()
    };
    let done = status(&trusted);
    assert!(
        done.status.success() && said(&done).contains("not applied"),
        "{}",
        said(&done)
    );
    let done = status(Path::new("/etc/ssl/certs/ca-certificates.crt"));
    assert!(said(&done).contains("certificate"), "{}", said(&done));
}
