//! The appspecs of AWS's guide and tutorials, as they are, deployed in a host. Their bundles' files are made from what
//! they name: the guide shows only the appspecs.

use std::{collections::BTreeSet, fs, path::Path};

use model::{
    Ticket,
    port::{EventStatus, LifecycleEvent},
    spec::Appspec,
};

use super::world::World;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance/appspec");

/// The appspecs for Linux that the agent takes.
fn samples() -> Vec<(String, String)> {
    let mut samples = Vec::new();
    for folder in ["docs", "repos"] {
        let Ok(entries) = fs::read_dir(Path::new(CASES).join(folder)) else {
            println!("skipped: no conformance cases at {CASES}");
            return Vec::new();
        };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if name.ends_with(".json") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            if Appspec::parse(&text, "appspec.yml").is_ok() {
                samples.push((name, text));
            }
        }
    }
    samples.sort();
    samples
}

/// Every file that an appspec names.
fn files(spec: &Appspec) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut names = BTreeSet::new();
    let script = "#!/bin/sh\necho \"$LIFECYCLE_EVENT\" >> /said\n";
    for hook in spec
        .hooks
        .values()
        .chain(spec.custom.iter().map(|(_, scripts)| scripts))
        .flatten()
    {
        if names.insert(hook.location.clone()) {
            files.push((hook.location.clone(), script.to_owned()));
        }
    }
    for file in &spec.files {
        let source = file.source.trim_start_matches("./").trim_matches('/').to_owned();
        // A name with an ending is a file.
        let name = match source.rsplit('/').next().is_some_and(|last| last.contains('.')) {
            true => source,
            false if source.is_empty() => "index.html".to_owned(),
            false => format!("{source}/some-file.txt"),
        };
        if names.insert(name.clone()) && !names.contains(&format!("./{name}")) {
            files.push((name, "content".to_owned()));
        }
    }
    files
}

#[tokio::test]
async fn bundles_of_others_deploy_unmodified() {
    let samples = samples();
    if samples.is_empty() {
        return;
    }
    for (name, text) in samples {
        let world = world!();
        world.configure(&[]).await;
        let users = "touch /said; chmod 666 /said; for name in codedeployuser ec2-user wheel operator adm mary bob; do \
                     grep -q ^$name: /etc/passwd || echo $name:x:4000:4000::/tmp:/bin/sh >> /etc/passwd; \
                     grep -q ^$name: /etc/shadow || echo $name:*:19000:::::: >> /etc/shadow; grep -q ^$name: /etc/group || echo $name:x:4000: >> /etc/group; done; \
                     command -v setfacl || { printf '#!/bin/sh\\nexit 0\\n' > /usr/bin/setfacl; chmod +x /usr/bin/setfacl; }";
        assert_eq!(world.sh(users).await.code, Some(0));
        let (spec, _) = Appspec::parse(&text, "appspec.yml").unwrap();
        let mut files = files(&spec);
        files.push(("appspec.yml".to_owned(), text));
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect();
        let events: Vec<LifecycleEvent> = LifecycleEvent::ALL.to_vec();
        for number in 1..=2 {
            let ticket = Ticket::from_bits(number);
            let deployed = world
                .deploy(&ticket, number, &files, Some("appspec.yml"), &events)
                .await;
            assert!(deployed.failure().is_none(), "{name}: {deployed:#?}");
            let installed = deployed
                .events
                .iter()
                .find(|report| report.event == LifecycleEvent::Install)
                .unwrap();
            assert_eq!(installed.status, EventStatus::Succeeded, "{name}");
        }
        for file in &spec.files {
            let there = world.sh(&format!("ls -A {} | head -1", file.destination)).await;
            assert!(
                !there.stdout.is_empty(),
                "{name}: nothing at {}",
                file.destination
            );
        }
        // The first time none of the revision before, then all of it.
        let said = world.sh("cat /said").await.stdout.lines().count();
        let hooks: usize = spec.hooks.values().map(Vec::len).sum();
        let earlier = [
            LifecycleEvent::ApplicationStop,
            LifecycleEvent::BeforeBlockTraffic,
            LifecycleEvent::AfterBlockTraffic,
        ];
        let old: usize = earlier
            .iter()
            .filter_map(|event| spec.hooks.get(event))
            .map(Vec::len)
            .sum();
        assert_eq!(said, 2 * hooks - old, "{name}");
    }
}
