//! Whole bundles of AWS's, with the scripts that they come with, deployed as they are.
//!
//! They are not here, as they are others' work: the fixtures of the agent and the sample application (both Apache-2.0),
//! and the scripts that the tutorials of the user guide print (CC BY-SA 4.0, its code MIT-0). To have them deployed:
//!
//! ```sh
//! for name in aws/aws-codedeploy-agent aws-samples/aws-codedeploy-samples awsdocs/aws-codedeploy-user-guide; do
//!     git clone --depth 1 https://github.com/$name DIRECTORY/${name#*/}
//! done
//! VEND_AWS_BUNDLES=DIRECTORY cargo test -p host --test agent bundles
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use model::{
    Ticket,
    port::{Deployed, LifecycleEvent, ScriptCode},
    spec::Appspec,
};

use super::world::World;

/// A directory with checkouts of the three repositories, each under its own name.
const VARIABLE: &str = "VEND_AWS_BUNDLES";

type Bundle = Vec<(String, String)>;

fn checkout(name: &str) -> Option<PathBuf> {
    let found = std::env::var_os(VARIABLE).map(|all| Path::new(&all).join(name));
    let found = found.filter(|path| path.is_dir());
    if found.is_none() {
        println!("skipped: no checkout of {name} in ${VARIABLE}");
    }
    found
}

/// All files below a directory.
fn bundle(root: &Path) -> Bundle {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for path in fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            if path.is_dir() {
                left.push(path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.push((
                name,
                String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned(),
            ));
        }
    }
    found.sort();
    found
}

/// What the host of the bundles has and this one has not: packages of another distribution. A package brings a service of
/// its name that runs.
const DISTRIBUTION: &str = r#"set -e
cat >/usr/bin/yum <<'EOF'
#!/bin/sh
[ "$1 $2" = "install -y" ] || exit 9
shift 2
for package; do
    service=${package%-server}
    [ "$service" = php ] && service=php-fpm
    printf '[Service]\nExecStart=/bin/sleep 1000\n' >/lib/systemd/system/$service.service
    echo "$package" >>/srv/installed
done
EOF
printf '#!/bin/sh\n[ "$1" = install ]\n' >/usr/bin/amazon-linux-extras
printf '#!/bin/sh\ncat >>/srv/sql\n' >/usr/bin/mysql
command -v sudo >/dev/null || printf '#!/bin/sh\nexec "$@"\n' >/usr/bin/sudo
chmod 755 /usr/bin/yum /usr/bin/amazon-linux-extras /usr/bin/mysql /usr/bin/sudo
echo deploy:x:4000: >>/etc/group
"#;

async fn host() -> Option<World> {
    let world = World::start().await?;
    world.configure(&[]).await;
    let made = world.sh(DISTRIBUTION).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    Some(world)
}

async fn deploy(world: &World, number: u64, bundle: &Bundle) -> Deployed {
    let files: Vec<(&str, &str)> = bundle
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    let ticket = Ticket::from_bits(number);
    let events = LifecycleEvent::ALL.to_vec();
    world
        .deploy(&ticket, number, &files, Some("appspec.yml"), &events)
        .await
}

/// What scripts said in a deployment.
async fn said(world: &World, number: u64) -> String {
    let name = Ticket::from_bits(number);
    let log = world.run().join(format!("logs/deploy-{name}.log"));
    fs::read_to_string(log).unwrap_or_default()
}

#[tokio::test]
async fn the_agents_own_fixtures_deploy() {
    let Some(agent) = checkout("aws-codedeploy-agent") else {
        return;
    };
    let fixture = |name: &str| bundle(&agent.join("tests/fixtures/bundles").join(name));
    let Some(world) = host().await else { return };
    for number in 1..=2 {
        let deployed = deploy(&world, number, &fixture("full_hooks_app")).await;
        assert!(deployed.failure().is_none(), "{deployed:#?}");
    }
    let log = said(&world, 2).await;
    for line in [
        "[stdout]Stopping application...",
        "[stdout]Running pre-install tasks...",
        "[stdout]Running post-install tasks...",
        "[stdout]Starting application...",
        "[stdout]Validating service...",
    ] {
        assert!(log.contains(line), "no {line} in {log}");
    }
    let there = world.sh("python3 /opt/myapp/server.py; ls /etc/myapp").await;
    assert_eq!(there.stdout, "Server running on port 8080\nsettings.json\n");

    let deployed = deploy(&world, 3, &fixture("simple_app")).await;
    assert!(deployed.failure().is_none(), "{deployed:#?}");
    let there = world
        .sh("grep -c 'Deployed with CodeDeploy' /var/www/html/src/index.html; ls /opt/myapp")
        .await;
    assert_eq!(
        there.stdout, "1\n",
        "and what the one before had put there is gone"
    );

    let deployed = deploy(&world, 4, &fixture("permissions_app")).await;
    assert!(deployed.failure().is_none(), "{deployed:#?}");
    let modes = world.sh("cd /etc/secure-app && stat -c '%n %a %U:%G' *").await;
    assert_eq!(
        modes.stdout,
        "public.conf 644 root:deploy\nsecrets.conf 640 root:deploy\n"
    );

    let deployed = deploy(&world, 5, &fixture("failing_hook_app")).await;
    let failure = deployed
        .failure()
        .and_then(|report| report.failure.clone())
        .unwrap();
    assert_eq!(failure.code, ScriptCode::ScriptFailed, "{failure:?}");
    assert!(
        failure.log.contains("[stderr]This script always fails"),
        "{failure:?}"
    );
}

/// The file in the first block that begins as a script, after it was named as one to create.
fn printed(tutorial: &str, name: &str, begin: &str) -> String {
    let named = tutorial
        .find(&format!("reate a `{name}`"))
        .or_else(|| tutorial.find(&format!("reate an `{name}`")))
        .or_else(|| tutorial.find(&format!("create a file named `{name}`")))
        .unwrap_or_else(|| panic!("the tutorial has no {name}"));
    let mut lines = tutorial[named..]
        .lines()
        .skip_while(|line| line.trim() != begin)
        .peekable();
    let indent = lines
        .peek()
        .map_or(0, |line| line.len() - line.trim_start().len());
    let lines = lines.take_while(|line| !line.trim_start().starts_with("```"));
    let text: Vec<&str> = lines.map(|line| line.get(indent..).unwrap_or("")).collect();
    format!("{}\n", text.join("\n"))
}

#[tokio::test]
async fn the_wordpress_tutorial_deploys() {
    let Some(guide) = checkout("aws-codedeploy-user-guide") else {
        return;
    };
    let page = guide.join("doc_source/tutorials-wordpress-configure-content.md");
    let tutorial = fs::read_to_string(page).unwrap();
    let scripts = [
        "install_dependencies",
        "start_server",
        "stop_server",
        "create_test_db",
        "change_permissions",
    ];
    let mut bundle: Bundle = scripts
        .iter()
        .map(|name| {
            let file = format!("{name}.sh");
            let text = printed(&tutorial, &file, "#!/bin/bash");
            (format!("scripts/{file}"), text)
        })
        .collect();
    bundle.push((
        "appspec.yml".into(),
        printed(&tutorial, "appspec.yml", "version: 0.0"),
    ));
    bundle.push(("index.php".into(), "<?php".into()));
    let Some(world) = host().await else { return };
    let states = "systemctl is-active mariadb httpd php-fpm; stat -c %a /var/www/html/WordPress/index.php";
    let deployed = deploy(&world, 1, &bundle).await;
    assert!(
        deployed.failure().is_none(),
        "{deployed:#?}\n{}",
        said(&world, 1).await
    );
    let now = world.sh(states).await;
    assert_eq!(now.stdout, "active\nactive\nactive\n777\n", "{now:?}");
    let done = world.sh("cat /srv/installed /srv/sql").await.stdout;
    assert_eq!(
        done,
        "httpd\nmariadb-server\nphp\nCREATE DATABASE IF NOT EXISTS test;\n"
    );
    // The first one's own script stops it, and the second one's starts it anew.
    let deployed = deploy(&world, 2, &bundle).await;
    assert!(
        deployed.failure().is_none(),
        "{deployed:#?}\n{}",
        said(&world, 2).await
    );
    assert_eq!(world.sh(states).await.stdout, now.stdout);
}

#[tokio::test]
async fn the_sample_application_deploys() {
    let Some(samples) = checkout("aws-codedeploy-samples") else {
        return;
    };
    let bundle = bundle(&samples.join("applications/SampleApp_Linux"));
    let text = |name: &str| {
        bundle
            .iter()
            .find(|(path, _)| path == name)
            .map(|(_, text)| text.as_str())
    };
    let (appspec, _) = Appspec::parse(text("appspec.yml").unwrap(), "appspec.yml").unwrap();
    let Some(world) = host().await else { return };
    let named = appspec
        .hooks
        .values()
        .flatten()
        .map(|script| script.location.as_str());
    let sources = appspec
        .files
        .iter()
        .map(|file| file.source.trim_start_matches('/'));
    let missing: Vec<&str> = named.chain(sources).filter(|name| text(name).is_none()).collect();
    let deployed = deploy(&world, 1, &bundle).await;
    if !missing.is_empty() {
        // As that checkout is, no agent can deploy it: it says why.
        println!("the checkout lacks {missing:?}");
        assert!(deployed.failure().is_some(), "{deployed:#?}");
        return;
    }
    assert!(deployed.failure().is_none(), "{deployed:#?}");
    let now = world.sh("systemctl is-active httpd; ls /var/www/html").await;
    assert_eq!(now.stdout, "active\nindex.html\n");
    let deployed = deploy(&world, 2, &bundle).await;
    assert!(deployed.failure().is_none(), "{deployed:#?}");
}
