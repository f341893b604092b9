//! What runs on hosts and in bakes by scripts of ours, run here by a shell.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use aws::synth::{Config, Priorities, all, packer};
use model::spec;

use crate::{keys::made, template, tools::directory};

fn program(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn first_script() -> String {
    let launch = template("vend-production-shop-production")
        .resource("BlueLaunch")
        .unwrap();
    let text = &launch.properties["LaunchTemplateData"]["UserData"]["Fn::Base64"]["Fn::Sub"];
    text.as_str().unwrap().replace("${!", "${")
}

/// What services say goes to the journal, and CloudWatch's agent reads files: without the one between them no line with ERROR
/// would ever ring.
#[test]
fn what_services_say_is_where_the_agent_reads_it() {
    let script = first_script();
    let (_, own) = script
        .split_once("/usr/local/sbin/vend-log <<'END_OF_SCRIPT'\n")
        .unwrap();
    let own = own.split("END_OF_SCRIPT").next().unwrap();
    let file = own.lines().find_map(|line| line.strip_prefix("file=")).unwrap();
    assert!(file.starts_with("/var/log/") && file.ends_with(".log"), "{file}");
    assert!(script.contains("\"file_path\": \"/var/log/**.log\""));
    assert!(script.contains("systemctl enable --now vend-log.service"));
    let run = |name: &str, limit: &str| {
        let root = directory(name);
        let (bin, at) = (root.join("bin"), root.display().to_string());
        fs::create_dir_all(&bin).unwrap();
        // Three turns, each with what was said since the last one.
        program(
            &bin,
            "sleep",
            &format!("echo x >> {at}/turns; [ $(wc -l < {at}/turns) -le 3 ]"),
        );
        program(
            &bin,
            "journalctl",
            &format!(
                "[[ \"$*\" == *--cursor-file={at}/journal* && \"$*\" == *_TRANSPORT=stdout* ]] && echo \"ERROR $(wc -l < {at}/turns)\""
            ),
        );
        let text = own
            .replace("/var/log/vend", &at)
            .replace("/var/lib/vend", &at)
            .replace("64000000", limit);
        let path = format!("{}:/usr/bin:/bin", bin.display());
        Command::new("bash")
            .args(["-c", &text])
            .env("PATH", path)
            .status()
            .unwrap();
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
        (read("services.log"), read("services.log.1"))
    };
    let all = ("ERROR 1\nERROR 2\nERROR 3\n".to_owned(), String::new());
    assert_eq!(run("vend-log", "64000000"), all);
    // What is full makes room, and is not read twice: its name ends otherwise.
    let turned = ("ERROR 3\n".to_owned(), "ERROR 1\nERROR 2\n".to_owned());
    assert_eq!(run("vend-log-full", "10"), turned);
}

#[test]
fn an_image_under_another_key_or_of_other_accounts_is_another_image() {
    let spec = crate::matrix::matrix()
        .iter()
        .flat_map(|stack| stack.template.of("AWS::CodeBuild::Project"))
        .map(|project| project.properties["Source"]["BuildSpec"].to_string())
        .find(|text| text.contains("packer build"))
        .unwrap();
    let spec: String = serde_json::from_str(&spec).unwrap_or(spec);
    let line = spec
        .lines()
        .find(|line| line.trim().starts_with("inputs=$("))
        .unwrap();
    let root = directory("digest");
    fs::create_dir_all(root.join("vend")).unwrap();
    for name in ["image.pkr.hcl", "host.sh", "agents.sh", "inputs.tar"] {
        fs::write(root.join("vend").join(name), name).unwrap();
    }
    let digest = |key: &str, accounts: &str| {
        let done = Command::new("bash")
            .args(["-c", &format!("{line}\nprintf %s \"$inputs\"")])
            .envs([("VEND_KEY", key), ("VEND_ACCOUNTS", accounts)])
            .current_dir(&root)
            .output()
            .unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        assert_eq!(text.len(), 64, "{text}");
        text
    };
    let first = digest("arn:key/a", "[]");
    assert_eq!(first, digest("arn:key/a", "[]"));
    assert_ne!(first, digest("arn:key/b", "[]"));
    assert_ne!(first, digest("arn:key/a", "[\"222222222222\"]"));
}

/// CodeDeploy's agent could not be installed there, and an image whose bake always fails is no image.
#[test]
fn a_base_without_a_ruby_for_codedeploys_agent_is_refused_with_the_reason() {
    let why = made("image: { base: debian-13 }").unwrap_err();
    for part in ["image.base", "Ruby 3.3", "CodeDeploy's agent", "base: debian-12"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert!(
        made("image: { base: ubuntu-24.04 }")
            .unwrap_err()
            .contains("base: debian-12")
    );
    // Containers are of no base of ours.
    let text = "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n\
                [apps.shop.environments.live]\nruntime = 'fargate'\n";
    let config: Config = toml::from_str(text).unwrap();
    let yaml = "app: shop\nimage: { base: debian-13 }\nenvironments: { live: {} }\n";
    let (app, _) = spec::App::parse(yaml, "vend.yaml", &|_| true).unwrap();
    all(&config, &app, &mut Priorities::default()).unwrap();
}

/// What is deployed before the variables are there runs without them, and a restart ends it halfway.
#[test]
fn codedeploys_agent_starts_after_the_variables_are_there_and_not_without_them() {
    let app = crate::app("{ min: 1 }");
    let files = packer(&crate::config(""), &app, &app.environments[0]).unwrap();
    let (_, bake) = files.iter().find(|(name, _)| *name == "host.sh").unwrap();
    assert!(
        bake.contains("systemctl disable --now codedeploy-agent\n"),
        "{bake}"
    );
    let script = first_script();
    let (before, own) = script
        .split_once("\nsystemctl enable vend-environment.service\n")
        .unwrap();
    assert!(!before.contains("systemctl restart codedeploy-agent"));
    assert!(
        before.contains("Before=codedeploy-agent.service"),
        "as at each start after the first"
    );
    let calls = |name: &str, missing: bool| {
        let root = directory(name);
        let (bin, at) = (root.join("bin"), root.display().to_string());
        fs::create_dir_all(&bin).unwrap();
        program(&bin, "systemctl", &format!("echo \"$*\" >> {at}/calls"));
        program(
            &bin,
            "vend-environment",
            &format!("echo variables >> {at}/calls; ! {missing}"),
        );
        let text = own
            .replace("/usr/local/sbin", &bin.display().to_string())
            .replace("/var/lib/vend", &at);
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let text = format!("set -euo pipefail\n{text}");
        Command::new("bash")
            .args(["-c", &text])
            .env("PATH", path)
            .status()
            .unwrap();
        fs::read_to_string(root.join("calls")).unwrap()
    };
    let all = "variables\nenable codedeploy-agent.service\nrestart codedeploy-agent.service\n";
    assert_eq!(calls("agent-starts", false), all);
    assert_eq!(calls("agent-stays-off", true), "variables\n");
}

/// Auto Scaling stops a host of a warm pool as soon as it runs, and cloud-init runs user data once: what was broken off goes on at
/// the next start, and what has ended is not begun again.
/// Source: "Warm pools for Amazon EC2 Auto Scaling" of the Auto Scaling guide, lifecycle hooks; cloud-init's `scripts_user`.
#[test]
fn a_first_start_that_is_broken_off_goes_on_at_the_next() {
    let root = directory("broken-off");
    let (bin, at) = (root.join("bin"), root.display().to_string());
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(root.join("units")).unwrap();
    program(&bin, "systemctl", &format!("echo \"$*\" >> {at}/calls"));
    program(&bin, "vend-environment", &format!("[ -e {at}/secret ]"));
    let text = first_script();
    let own = text
        .find("\nsystemctl enable vend-environment.service\n")
        .unwrap();
    let middle = text.find("cat > /etc/vend/plain").unwrap();
    // The files between are not what this is about.
    let text = format!("{}{}", &text[..middle], &text[own..])
        .replace("/usr/local/sbin", &bin.display().to_string())
        .replace("/etc/systemd/system", &format!("{at}/units"))
        .replace("/var/lib/vend", &format!("{at}/state"))
        .replace("/etc/vend", &format!("{at}/vend"));
    program(&root, "part-001", &text);
    let run = |path: &Path| {
        let search = format!("{}:/usr/bin:/bin", bin.display());
        Command::new(path).env("PATH", search).status().unwrap().success()
    };
    assert!(!run(&root.join("part-001")));
    let unit = fs::read_to_string(root.join("units/vend-start.service")).unwrap();
    let line = |key: &str| {
        let value = unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        Path::new(value).to_owned()
    };
    let calls = || fs::read_to_string(root.join("calls")).unwrap();
    assert!(calls().contains("enable vend-start.service\n") && !calls().contains("codedeploy"));
    let ended = line("ConditionPathExists=!");
    assert!(!ended.exists());
    fs::write(root.join("secret"), "").unwrap();
    assert!(run(&line("ExecStart=")));
    assert!(ended.exists());
    let all = calls();
    assert!(
        all.ends_with("enable codedeploy-agent.service\nrestart codedeploy-agent.service\n"),
        "{all}"
    );
    assert_eq!(all.matches("vend-start").count(), 1, "{all}");
}

/// What a shell fails to do among the words of a command is lost: a secret that cannot be read must not become an empty one.
#[test]
fn a_secret_that_cannot_be_read_ends_the_script_and_changes_nothing() {
    let script = first_script();
    let (_, own) = script
        .split_once("/usr/local/sbin/vend-environment <<'END_OF_SCRIPT'\n")
        .unwrap();
    // What CloudFormation fills in.
    let own = own.split("END_OF_SCRIPT").next().unwrap();
    let own = own
        .replace("${AWS::Region}", "eu-central-1")
        .replace("${DatabaseCluster.Endpoint.Address}", "db.example")
        .replace("${DatabaseCluster.MasterUserSecret.SecretArn}", "arn:secret");
    let names: Vec<&str> = own.lines().filter(|line| line.contains("secret '")).collect();
    assert!(
        names.len() >= 2,
        "a secret of the app's, and the database's: {own}"
    );
    let root = directory("secrets");
    let (bin, at) = (root.join("bin"), root.display().to_string());
    fs::create_dir_all(&bin).unwrap();
    fs::write(root.join("plain"), "PORT=\"8080\"\n").unwrap();
    let environment = root.join("environment");
    let text = own.replace("/etc/vend", &at);
    let run = || {
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let done = Command::new("bash")
            .args(["-c", &text])
            .env("PATH", path)
            .status();
        done.unwrap().success()
    };
    program(&bin, "aws", "echo '{\"username\":\"u\",\"password\":\"p@s\"}'");
    assert!(run());
    let good = fs::read_to_string(&environment).unwrap();
    assert!(good.contains("u:p%40s@") && !good.contains("=\"\""), "{good}");
    for line in names {
        let name = line.split('\'').nth(1).unwrap();
        program(
            &bin,
            "aws",
            &format!(
                "[[ \"$*\" != *'{name}'* ]] || exit 255; echo '{{\"username\":\"u\",\"password\":\"q\"}}'"
            ),
        );
        assert!(!run(), "{name}");
        assert_eq!(fs::read_to_string(&environment).unwrap(), good, "{name}");
    }
}

/// At the endpoint of a network CodeDeploy knows its agents by their role, and at the public one by the instance: an agent that is
/// not told asks where there is no way.
#[test]
fn the_agent_asks_at_the_endpoint_where_its_role_may() {
    let mut seen = (0, 0);
    for stack in crate::matrix::matrix() {
        let Some(launch) = stack.template.resource("BlueLaunch") else {
            continue;
        };
        let role = stack.template.resource("HostRole").unwrap();
        let may = role
            .properties
            .to_string()
            .contains("codedeploy-commands-secure:PollHostCommand");
        let script = launch.properties["LaunchTemplateData"]["UserData"].to_string();
        assert_eq!(
            script.contains(":enable_auth_policy: true"),
            may,
            "{}",
            stack.name
        );
        *(if may { &mut seen.0 } else { &mut seen.1 }) += 1;
    }
    assert!(seen.1 > 10, "{seen:?}");
    let template = alone(
        "nat = 'none', endpoints = ['codedeploy', 'codedeploy-commands-secure', 'ec2messages', 'logs', \
                          'secretsmanager', 'ssm', 'ssmmessages']",
        "",
    )
    .unwrap();
    let role = template.resource("HostRole").unwrap().properties.to_string();
    assert!(role.contains("codedeploy-commands-secure:PollHostCommand"));
    let launch = template.resource("BlueLaunch").unwrap();
    let text = &launch.properties["LaunchTemplateData"]["UserData"]["Fn::Base64"]["Fn::Sub"];
    let text = text.as_str().unwrap().replace("${!", "${");
    let at = text.find("agent=/etc/codedeploy-agent").unwrap();
    let end = text.find("systemctl enable codedeploy-agent.service").unwrap();
    let root = directory("auth-policy");
    let file = root.join("codedeployagent.yml");
    // As the package installs it; the second run finds what the first one left.
    fs::write(&file, "---\n:verbose: false\n:max_revisions: 5").unwrap();
    let own = text[at..end].replace("/etc/codedeploy-agent/conf", &root.display().to_string());
    for _ in 0..2 {
        assert!(
            Command::new("bash")
                .args(["-euc", &own])
                .status()
                .unwrap()
                .success()
        );
        let said = fs::read_to_string(&file).unwrap();
        let said = said.trim_end();
        assert_eq!(
            said,
            "---\n:verbose: false\n:max_revisions: 5\n:enable_auth_policy: true"
        );
    }
}

/// An environment, `live`, on a foundation with this network.
fn alone(network: &str, options: &str) -> Result<aws::synth::Template, String> {
    let text = format!(
        "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\nnetwork = {{ {network} }}\n\
         [apps.shop.environments.live]\n{options}\n"
    );
    let config: Config = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let (app, _) =
        spec::App::parse("app: shop\nenvironments: { live: {} }\n", "vend.yaml", &|_| true).unwrap();
    let label = "production".parse().unwrap();
    let own = &app.environments[0];
    let made = aws::synth::environment(&config, &app.app, own, &label, &mut Priorities::default());
    made.map(|stack| stack.template)
        .map_err(|error| error.to_string())
}

#[test]
fn containers_without_a_way_to_their_image_are_refused() {
    let hosts = "'codedeploy', 'codedeploy-commands-secure', 'ec2messages', 'logs', 'secretsmanager', 'ssm', 'ssmmessages'";
    let none = |more: &str| format!("nat = 'none', endpoints = [{hosts}{more}]");
    let why = alone(&none(", 'ecr-api'"), "runtime = 'fargate'").unwrap_err();
    assert!(why.contains("need the endpoint `ecr-dkr`"), "{why}");
    let why = alone(&none(", 'ecr-api', 'ecr-dkr'"), "runtime = 'ec2'").unwrap_err();
    assert!(why.contains("no way to ECS"), "{why}");
    alone(&none(", 'ecr-api', 'ecr-dkr'"), "runtime = 'fargate'").unwrap();
    alone("nat = 'one'", "runtime = 'ec2'").unwrap();
}

/// Whose image is made where packages cannot be fetched is never released: what is new is not made there.
#[test]
fn images_of_hosts_are_not_baked_without_a_way_out() {
    let refused_in = |region: &str, nat: &str, runtime: &str| {
        let text = format!(
            "[foundations.production]\nregion = '{region}'\ndomain = 'a.example.com'\nnetwork = {{ nat = '{nat}', endpoints = \
             ['codedeploy', 'codedeploy-commands-secure', 'ec2messages', 'ecr-api', 'ecr-dkr', 'logs', 'secretsmanager', 'ssm', \
             'ssmmessages'] }}\n[apps.shop.environments.live]\nruntime = '{runtime}'\n"
        );
        let config: Config = toml::from_str(&text).unwrap();
        let (app, _) =
            spec::App::parse("app: shop\nenvironments: { live: {} }\n", "vend.yaml", &|_| true).unwrap();
        let made = all(&config, &app, &mut Priorities::default()).unwrap();
        let refused = made.stacks.into_iter().filter_map(|own| own.refused);
        refused.collect::<Vec<String>>()
    };
    let refused = |nat: &str, runtime: &str| refused_in("eu-central-1", nat, runtime);
    let why = refused("none", "host");
    assert!(why.len() == 1 && why[0].contains("there is no NAT"), "{why:?}");
    assert!(refused("none", "fargate").is_empty() && refused("instance", "host").is_empty());
    // Nor where Packer's images have no tags while they are made.
    for region in ["cn-north-1", "us-gov-west-1"] {
        let why = refused_in(region, "instance", "host");
        assert!(
            why.len() == 1 && why[0].contains("Packer tags nothing"),
            "{region}: {why:?}"
        );
        assert!(refused_in(region, "instance", "fargate").is_empty());
    }
}
