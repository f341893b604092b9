//! What others wrote: cfn-lint, checkov and Packer, over the matrix, the example's stacks among it. Each is skipped where it is not there;
//! `cargo xtask test` installs all of them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use aws::synth::Stack;

use crate::{golden, matrix};

/// A program of one of the Python environments that `cargo xtask test` makes beside the build.
pub fn program(path: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().unwrap();
    let found = own
        .ancestors()
        .map(|directory| directory.join(path))
        .find(|path| path.exists());
    if found.is_none() {
        println!("skipped: {path} is not there; `cargo xtask test` installs it");
    }
    found
}

/// A directory of this test's own, emptied.
pub fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// How the names of stacks begin that the linters always read.
const NAMED: [&str; 5] = ["vend-", "example-", "local-", "wave-", "rack-"];

/// What the linters read: all with `MATRIX=all`, else the case `shop`, the example, what stands in places of its own, pipelines, and every
/// ninth of the others, because they take seconds for a template.
fn sample() -> impl Iterator<Item = &'static Stack> {
    let whole = std::env::var_os("MATRIX").is_some();
    let generated = |stack: &Stack| !NAMED.iter().any(|own| stack.name.starts_with(own));
    matrix::matrix()
        .iter()
        .enumerate()
        .filter(move |(n, stack)| whole || !generated(stack) || n % 9 == 0)
        .map(|(_, stack)| stack)
}

/// The sample, in both languages.
fn templates(directory: &Path) -> usize {
    let mut count = 0;
    for stack in sample() {
        fs::write(
            directory.join(format!("{}.yaml", stack.name)),
            stack.template.yaml(),
        )
        .unwrap();
        // cfn-lint reads both; that they say the same is checked below.
        fs::write(
            directory.join(format!("{}.json", stack.name)),
            stack.template.json(),
        )
        .unwrap();
        count += 1;
    }
    count
}

pub fn run(command: &mut Command) -> String {
    let done = command.output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(done.status.success(), "{command:?}: {}\n{text}", done.status);
    text
}

#[test]
fn cfn_lint_finds_nothing() {
    let Some(lint) = program("clients/bin/cfn-lint") else {
        return;
    };
    let directory = directory("cfn-lint");
    templates(&directory);
    let regions: BTreeSet<&str> = sample().map(|stack| stack.region.as_str()).collect();
    assert!(regions.len() > 1, "{regions:?}");
    for region in regions {
        let own = sample().filter(|stack| stack.region.as_str() == region);
        let files = own.map(|stack| directory.join(format!("{}.yaml", stack.name)));
        run(Command::new(&lint).args(["--regions", region, "--"]).args(files));
    }
}

#[test]
fn cfn_lint_would_find_something() {
    let Some(lint) = program("clients/bin/cfn-lint") else {
        return;
    };
    let path = directory("cfn-lint-broken").join("broken.yaml");
    let stack = matrix::matrix()
        .iter()
        .find(|stack| stack.name == "foundation-0")
        .unwrap();
    fs::write(
        &path,
        stack
            .template
            .yaml()
            .replace("EnableKeyRotation", "EnableKeyRotations"),
    )
    .unwrap();
    let done = Command::new(lint)
        .args(["--regions", "eu-central-1", "--"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(!done.status.success() && String::from_utf8_lossy(&done.stdout).contains("E3002"));
}

#[test]
fn yaml_and_json_say_the_same() {
    let Some(python) = program("clients/bin/python") else {
        return;
    };
    let directory = directory("both");
    let count = templates(&directory);
    let script = "import sys, json, glob\n\
        from cfnlint.decode import cfn_yaml, cfn_json\n\
        names = glob.glob(sys.argv[1] + '/*.yaml')\n\
        plain = lambda node: json.loads(json.dumps(node, default=str))\n\
        def long(node):\n\
        \x20   if isinstance(node, dict):\n\
        \x20       return {key: '.'.join(value) if key == 'Fn::GetAtt' and isinstance(value, list) else long(value) for key, value in node.items()}\n\
        \x20   return [long(item) for item in node] if isinstance(node, list) else node\n\
        for name in names:\n\
        \x20   a, b = cfn_yaml.load(name), json.load(open(name[:-4] + 'json'))\n\
        \x20   assert long(plain(a)) == long(b), name\n\
        print(len(names))\n";
    let said = run(Command::new(python).args(["-c", script]).arg(&directory));
    assert_eq!(said.trim(), count.to_string());
}

/// The foundation and an environment, applied. Without a database: moto's does not know the secret that RDS makes.
#[test]
fn what_moto_makes_is_there() {
    let Some(python) = program("clients/bin/python") else {
        return;
    };
    let directory = directory("moto");
    let config =
        toml::from_str("[foundations.production]\nregion = 'eu-central-1'\ndomain = 'apps.example.com'\n")
            .unwrap();
    let text = "app: shop\nlisteners: [{ protocol: udp, port: 5514 }]\nenvironments: { production: { scaling: { max: 2 } } }\n";
    let (app, _) = model::spec::App::parse(text, "vend.yaml", &|_| true).unwrap();
    let output = aws::synth::all(&config, &app, &mut aws::synth::Priorities::default()).unwrap();
    for stack in &output.stacks {
        fs::write(
            directory.join(format!("{}.yaml", stack.name)),
            stack.template.yaml(),
        )
        .unwrap();
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/synth/applied.py");
    let mut command = Command::new(python);
    let said = run(command
        .arg(script)
        .arg(&directory)
        .args(["vend-production", "vend-production-shop-production"]));
    println!("{said}");
    let figures = said.lines().find(|line| line.starts_with('{')).unwrap();
    let figures: serde_json::Value = serde_json::from_str(figures).unwrap();
    // moto may learn more types; it must not make fewer.
    assert!(figures["seen"].as_u64().unwrap() > 40, "{said}");
}

/// An action that knows no resources is allowed on all of them or not at all. What each knows is AWS's service authorization
/// reference, as cfn-lint brings it.
#[test]
fn what_knows_no_resources_is_allowed_on_all() {
    let Some(python) = program("clients/bin/python") else {
        return;
    };
    let script = "import cfnlint, os\n\
        print(open(os.path.join(os.path.dirname(cfnlint.__file__), 'data/AdditionalSpecs/Policies.json')).read())";
    let text = run(Command::new(python).args(["-c", script]));
    let known: serde_json::Value = serde_json::from_str(&text).unwrap();
    let is_of_nothing = |action: &str| {
        let (service, name) = action.split_once(':').unwrap();
        let own = &known[service]["Actions"][name.to_lowercase()];
        own.is_object() && own["Resources"].is_null()
    };
    assert!(is_of_nothing("logs:StopQuery") && !is_of_nothing("logs:StartQuery"));
    let (mut wrong, mut seen) = (BTreeSet::new(), 0);
    for stack in matrix::matrix() {
        for role in stack.template.of("AWS::IAM::Role") {
            let policies = role.properties["Policies"].as_array().into_iter().flatten();
            for one in policies.flat_map(|own| own["PolicyDocument"]["Statement"].as_array().unwrap()) {
                let actions = one["Action"].as_array().unwrap().iter();
                for action in actions.filter_map(|own| own.as_str()) {
                    seen += 1;
                    if is_of_nothing(action) && one["Resource"] != "*" {
                        wrong.insert(format!("{} {action}", role.id));
                    }
                }
            }
        }
    }
    assert!(seen > 5_000, "{seen}");
    assert_eq!(wrong, BTreeSet::new());
}

#[test]
fn checkov_finds_nothing() {
    let Some(checkov) = program("checkov/bin/checkov") else {
        return;
    };
    let directory = directory("checkov");
    for stack in sample() {
        fs::write(
            directory.join(format!("{}.yaml", stack.name)),
            stack.template.yaml(),
        )
        .unwrap();
    }
    let mut command = Command::new(checkov);
    command.args([
        "--framework",
        "cloudformation",
        "--compact",
        "--quiet",
        "--skip-download",
        "--directory",
    ]);
    run(command.arg(&directory));
}

#[test]
fn packer_takes_every_template() {
    let Some(packer) = Some(PathBuf::from("/usr/bin/packer")).filter(|path| path.exists()) else {
        println!("skipped: packer is not there; `cargo xtask test` installs it");
        return;
    };
    for name in ["guestbook", "shop", "wave", "rack"] {
        let files = golden::files(name);
        let images = files.keys().filter(|path| path.ends_with("/image.pkr.hcl"));
        for (index, image) in images.enumerate() {
            let directory = directory(&format!("packer-{name}-{index}"));
            fs::create_dir_all(directory.join("vend")).unwrap();
            fs::create_dir_all(directory.join("infra")).unwrap();
            let from = image.trim_end_matches("image.pkr.hcl");
            for (path, text) in files.iter().filter(|(path, _)| path.starts_with(from)) {
                let own = &path[from.len()..];
                let place = if own == "image.pkr.hcl" {
                    own.to_owned()
                } else {
                    format!("vend/{own}")
                };
                fs::write(directory.join(place), text).unwrap();
            }
            fs::write(directory.join("vend/inputs.tar"), "").unwrap();
            for script in ["infra/install.sh", "infra/preInstall.sh"] {
                fs::write(directory.join(script), "#!/bin/sh\n").unwrap();
            }
            let key = "arn:aws:kms:eu-central-1:111111111111:key/0a1b2c3d-0000-1111-2222-333344445555";
            let mut validate = Command::new(&packer);
            validate
                .current_dir(&directory)
                .env("CHECKPOINT_DISABLE", "1")
                .arg("validate");
            for (name, value) in [
                ("region", "eu-central-1"),
                ("subnet", "subnet-1"),
                ("profile", "p"),
                ("key", key),
                ("commit", "abc"),
            ] {
                validate.args(["-var", &format!("{name}={value}")]);
            }
            run(validate.arg("."));
            run(Command::new(&packer)
                .args(["fmt", "-check"])
                .arg(directory.join("image.pkr.hcl")));
            for script in ["agents.sh", "host.sh"] {
                run(Command::new("bash")
                    .arg("-n")
                    .arg(directory.join("vend").join(script)));
            }
        }
    }
}

#[test]
fn the_script_of_hosts_is_bash() {
    let data = matrix::matrix()
        .iter()
        .find_map(|stack| stack.template.resource("BlueLaunch").cloned())
        .unwrap();
    let text = data.properties["LaunchTemplateData"]["UserData"]["Fn::Base64"]["Fn::Sub"]
        .as_str()
        .unwrap();
    let path = directory("user-data").join("script.sh");
    fs::write(
        &path,
        text.replace("${!", "${")
            .replace("${AWS::Region}", "eu-central-1"),
    )
    .unwrap();
    run(Command::new("bash").arg("-n").arg(path));
}
