//! Install and hooks against what CodeDeploy's agent did: trees, instructions, clean-up files, messages, logs.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use camino::Utf8Path;
use host::{
    agent::{
        reaper::{Reaper, Scope},
        users::Users,
    },
    appspec::{
        Deployment, ScriptLog,
        hooks::{Facts, Hooks, Whose, total_timeout, whose},
        install::{Records, install},
    },
};
use model::{
    Secret,
    port::LifecycleEvent,
    spec::{Appspec, deploy::FileExists},
};
use serde_json::{Value, json};

#[path = "appspec/again.rs"]
mod again;
#[path = "appspec/kill.rs"]
mod kill;
#[path = "appspec/lines.rs"]
mod lines;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance/appspec");

/// Where we differ on purpose: the last column of the table of deliberate differences, `folder/case`.
const REFERENCE: &str = include_str!("../../../docs/reference/appspec.md");

fn different() -> Vec<&'static str> {
    let rows = REFERENCE.lines().filter(|line| line.starts_with("| "));
    let last = rows.filter_map(|row| row.trim_end_matches([' ', '|']).rsplit('|').next());
    let cases = last.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    cases
        .filter(|case| case.starts_with("hooks/") || case.starts_with("installer/"))
        .collect()
}

fn cases(folder: &str) -> Vec<(String, Value)> {
    let directory = Path::new(CASES).join(folder);
    let Ok(entries) = fs::read_dir(&directory) else {
        println!("skipped: no conformance cases at {}", directory.display());
        return Vec::new();
    };
    if !rustix::process::geteuid().is_root() {
        println!("skipped: the cases were recorded as root");
        return Vec::new();
    }
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
        })
        .collect()
}

fn differs(name: &str) -> bool {
    different()
        .iter()
        .any(|case| case.rsplit('/').next() == Some(name))
}

/// A tree from a map of path to content, or to content and mode.
fn plant(root: &Path, files: &Value) {
    for (path, file) in files.as_object().unwrap() {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if let Some(target) = file.get("symlink").and_then(Value::as_str) {
            std::os::unix::fs::symlink(target, &path).unwrap();
            continue;
        }
        let content = file.as_str().or_else(|| file["content"].as_str()).unwrap();
        fs::write(&path, content).unwrap();
        let mode = file["mode"].as_str().unwrap_or("0644");
        let mode = u32::from_str_radix(mode, 8).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// What is there now, in the form of the cases.
fn tree(root: &Path, below: &str, users: &Users, into: &mut serde_json::Map<String, Value>) {
    let directory = root.join(below.trim_start_matches('/'));
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{below}/{}", entry.file_name().to_str().unwrap());
        let metadata = entry.path().symlink_metadata().unwrap();
        let kind = if metadata.is_symlink() {
            "symlink"
        } else if metadata.is_dir() {
            "dir"
        } else {
            "file"
        };
        let mut found = json!({
            "type": kind,
            "mode": format!("{:04o}", metadata.mode() & 0o7777),
            "owner": users.user_name(metadata.uid()),
            "group": users.group_name(metadata.gid()),
        });
        match kind {
            "file" => found["content"] = fs::read_to_string(entry.path()).unwrap().into(),
            "symlink" => {
                found["target"] = fs::read_link(entry.path()).unwrap().to_str().unwrap().into();
            }
            _ => tree(root, &path, users, into),
        }
        into.insert(path, found);
    }
}

/// A text with the directories of this run in the place of placeholders.
fn placed(text: &str, places: &[(&str, &Path)]) -> String {
    places.iter().fold(text.to_owned(), |text, (name, path)| {
        text.replace(name, path.to_str().unwrap())
    })
}

fn sorted(value: &Value) -> Vec<String> {
    let mut lines: Vec<String> = value
        .as_array()
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    lines.sort();
    lines
}

/// What is done to each path, in its order, and which paths come before the directory that they are in. In which order a
/// directory's own entries come is not the agent's to say.
fn steps(instructions: &Value) -> (BTreeMap<String, Vec<String>>, BTreeSet<String>) {
    let mut of: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut paths = Vec::new();
    for step in instructions.as_array().unwrap() {
        let path = ["file", "directory", "destination"]
            .iter()
            .find_map(|key| step[key].as_str())
            .unwrap();
        of.entry(path.to_owned())
            .or_default()
            .push(step["type"].to_string());
        paths.push(path);
    }
    (of, inside_first(&paths))
}

/// The lines of a clean-up file that come before the directory that they are in.
fn nested(lines: &Value) -> BTreeSet<String> {
    let lines: Vec<&str> = lines
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    inside_first(&lines)
}

fn inside_first(paths: &[&str]) -> BTreeSet<String> {
    let is_early = |(at, path): (usize, &&str)| {
        let parent = Path::new(path).parent()?.to_str()?;
        paths[at..].contains(&parent).then(|| (*path).to_owned())
    };
    paths.iter().enumerate().filter_map(is_early).collect()
}

fn parse(text: &str) -> Result<Appspec, String> {
    Appspec::parse(text, "appspec.yml")
        .map(|(spec, _)| spec)
        .map_err(|problems| problems[0].message.clone())
}

#[test]
fn installs_as_the_agent_does() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut wrong = Vec::new();
    for (name, case) in cases("installer") {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        plant(&root, &case["preexisting"]);
        let mut different = false;
        let records = Records::of(scratch.path(), "dg");
        for (number, deployment) in case["deployments"].as_array().unwrap().iter().enumerate() {
            let archive = scratch.path().join(format!("archive-{number}"));
            fs::create_dir(&archive).unwrap();
            if let Some(files) = deployment.get("touch_before") {
                plant(&root, files);
            }
            plant(&archive, &deployment["archive"]);
            let places: [(&str, &Path); 2] = [("${ROOT}", &root), ("${ARCHIVE}", &archive)];
            let expected: Value =
                serde_json::from_str(&placed(&case["expected"][number].to_string(), &places)).unwrap();
            let default = match deployment["file_exists_behavior"].as_str() {
                Some("OVERWRITE") => FileExists::Overwrite,
                Some("RETAIN") => FileExists::Retain,
                _ => FileExists::Disallow,
            };
            let text = placed(deployment["appspec"].as_str().unwrap(), &places);
            let outcome = parse(&text).and_then(|spec| {
                let archive = Utf8Path::from_path(&archive).unwrap();
                install(archive, &spec, default, &records).map_err(|error| error.to_string())
            });
            let problems = compare(&outcome.map(drop), &expected, &root, &records);
            if !problems.is_empty() && !differs(&name) {
                wrong.push(format!("{name}, deployment {number}: {problems:#?}"));
            }
            different |= !problems.is_empty();
        }
        assert!(
            different || !differs(&name),
            "{name} is listed as different and is not"
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn compare(outcome: &Result<(), String>, expected: &Value, root: &Path, records: &Records) -> Vec<String> {
    let mut problems = Vec::new();
    let expected_message = expected["message"].as_str();
    if outcome.is_ok() != expected["ok"].as_bool().unwrap()
        || outcome.as_ref().err().map(String::as_str) != expected_message
    {
        problems.push(format!("{outcome:?} instead of {expected_message:?}"));
    }
    let mut found = serde_json::Map::new();
    tree(root, "", &Users::read(), &mut found);
    if Value::from(found.clone()) != expected["tree_after"] {
        problems.push(format!("tree {found:?}"));
    }
    if let Some(install) = expected.get("install_json") {
        let found: Value = serde_json::from_slice(&fs::read(&records.install).unwrap()).unwrap();
        let (found, expected) = (&found["instructions"], &install["instructions"]);
        if sorted(found) != sorted(expected) || steps(found) != steps(expected) {
            problems.push(format!("install.json {found}"));
        }
    }
    if let Some(cleanup) = expected.get("cleanup_file") {
        let text = fs::read_to_string(&records.cleanup).unwrap();
        let found: Value = text.lines().collect();
        if sorted(&found) != sorted(cleanup) || nested(&found) != nested(cleanup) {
            problems.push(format!("cleanup {found}"));
        }
    }
    problems
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::UNIX_EPOCH
}

#[tokio::test]
async fn runs_hooks_as_the_agent_does() {
    let reaper = Reaper::new(Scope::Own);
    let reaping = tokio::spawn(reaper.clone().run());
    let mut wrong = Vec::new();
    for (name, case) in cases("hooks") {
        let scratch = tempfile::tempdir().unwrap();
        let problems = hook_case(&case, scratch.path(), &reaper).await;
        if !problems.is_empty() && !differs(&name) {
            wrong.push(format!("{name}: {problems:#?}"));
        }
        if differs(&name) {
            assert!(!problems.is_empty(), "{name} is listed as different and is not");
        }
    }
    reaping.abort();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn hook_case(case: &Value, root: &Path, reaper: &Reaper) -> Vec<String> {
    let scenario = &case["scenario"];
    let directory = |id: &str| Deployment {
        directory: root.join("dg-1").join(id),
    };
    for (id, on_disk) in scenario["on_disk"].as_object().unwrap() {
        let archive = directory(id).archive();
        fs::create_dir_all(&archive).unwrap();
        plant(&archive, &on_disk["archive"]);
        for (path, file) in on_disk["archive"].as_object().unwrap() {
            if file.is_string() {
                fs::set_permissions(archive.join(path), fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        fs::write(archive.join("appspec.yml"), on_disk["appspec"].as_str().unwrap()).unwrap();
    }
    let text = |key: &str| scenario[key].as_str();
    let event: LifecycleEvent = serde_json::from_value(scenario["lifecycle_event"].clone()).unwrap();
    let current = directory(text("deployment_id").unwrap());
    let back = text("deployment_creator") == Some("codeDeployRollback")
        && text("deployment_type") == Some("BLUE_GREEN");
    let of = match whose(event, back, current.archive().is_dir()) {
        Whose::Current => Some(current.clone()),
        Whose::LastSuccessful => text("last_successful").map(directory),
        Whose::MostRecent => text("most_recent").map(directory),
    };
    let environment = scenario["revision_envs"].as_object().cloned().unwrap_or_default();
    let facts = Facts {
        application: "my-app".into(),
        deployment: text("deployment_id").unwrap().into(),
        group_name: "my-group".into(),
        group: "dg-1".into(),
        environment: environment
            .into_iter()
            .map(|(name, value)| (name, Secret::new(value.as_str().unwrap().to_owned())))
            .collect(),
    };
    let hooks = Hooks {
        directory: None,
        unless: None,
        current: &current,
        reaper,
        facts: &facts,
        clock: now,
        secrets: &[],
        trace: None,
    };
    let mut log = ScriptLog::default();
    let cwd = std::env::current_dir().unwrap();
    let places: [(&str, &Path); 2] = [("${DEPLOYMENT_ROOT}", root), ("${AGENT_CWD}", &cwd)];
    let expected: Value = serde_json::from_str(&placed(&case["expected"].to_string(), &places)).unwrap();
    let Some(of) = of else {
        return vec![format!("no revision, expected {expected}")]
            .into_iter()
            .filter(|_| expected["is_noop"] != json!(true))
            .collect();
    };
    let appspec = match host::appspec::read(&of, Utf8Path::new("appspec.yml")) {
        Ok(appspec) => appspec,
        Err(why) => return unless(expected["message"] == json!(why), why),
    };
    let mut problems = Vec::new();
    if expected.get("total_timeout").is_some() {
        let total = json!(total_timeout(&appspec, event));
        problems.extend(unless(
            total == expected["total_timeout"],
            format!("total {total}"),
        ));
    }
    match hooks.run(event, &of, &appspec, &mut log).await {
        Ok(ran) => {
            problems.extend(unless(
                expected["ok"] == json!(true) && expected["is_noop"] == json!(!ran),
                "it succeeded".into(),
            ));
            let lines = json!(log.lines());
            problems.extend(unless(lines == expected["log"], format!("log {lines}")));
        }
        Err(failure) => {
            let found = json!([failure.code as u8, failure.script, failure.message, failure.log]);
            let wanted = json!([
                expected["error_code"],
                expected["script_name"],
                expected["message"],
                expected["log"]
            ]);
            problems.extend(unless(found == wanted, format!("{found} instead of {wanted}")));
        }
    }
    if let Some(lines) = expected.get("scripts_log_lines") {
        let text = fs::read_to_string(current.scripts_log()).unwrap();
        let stamp = now().strftime("%Y-%m-%d %H:%M:%S").to_string();
        let found: Value = text
            .lines()
            .map(|line| line.replacen(&stamp, "<TS>", 1))
            .collect();
        problems.extend(unless(found == *lines, format!("scripts.log {found}")));
    }
    problems
}

fn unless(good: bool, problem: String) -> Vec<String> {
    if good { Vec::new() } else { vec![problem] }
}

#[test]
fn every_difference_is_a_case() {
    assert!(!different().is_empty(), "the reference has its table");
    for case in different() {
        let (folder, name) = case.split_once('/').unwrap();
        let known = cases(folder);
        assert!(
            known.is_empty() || known.iter().any(|(own, _)| own == name),
            "{case}"
        );
    }
}

/// One script under `AfterInstall`. Gives what it came to: the code, the message, and the report's lines.
async fn one_script(root: &Path, keys: &str, script: &str) -> (u8, String, String, Vec<String>) {
    let reaper = Reaper::new(Scope::Own);
    let reaping = tokio::spawn(reaper.clone().run());
    let current = Deployment {
        directory: root.join("dg/d-1"),
    };
    fs::create_dir_all(current.archive()).unwrap();
    fs::write(current.archive().join("s.sh"), script).unwrap();
    let text = format!(
        "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: s.sh\n      timeout: 2\n{keys}"
    );
    let spec = parse(&text).unwrap();
    let facts = Facts {
        application: "shop".into(),
        deployment: "d-1".into(),
        group_name: "dev".into(),
        group: "dg".into(),
        environment: Vec::new(),
    };
    let hooks = Hooks {
        reaper: &reaper,
        facts: &facts,
        current: &current,
        clock: now,
        secrets: &[HIDDEN.to_owned()],
        trace: None,
        directory: None,
        unless: None,
    };
    let mut log = ScriptLog::streaming(&root.join("stream")).unwrap();
    let outcome = hooks
        .run(LifecycleEvent::AfterInstall, &current, &spec, &mut log)
        .await;
    reaping.abort();
    match outcome {
        Ok(_) => (0, String::new(), log.text(), Vec::new()),
        Err(failure) => (failure.code as u8, failure.message, failure.log, failure.holders),
    }
}

fn lives(pid: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    // What was killed and nobody has waited for yet does not live.
    state
        .rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// The agent leaves both to themselves; here they are ended, and the report is the agent's.
#[tokio::test]
async fn what_outlives_its_time_is_ended_and_named() {
    let scratch = tempfile::tempdir().unwrap();
    let pid = scratch.path().join("pid");
    for (number, (keys, script, code, told, note)) in [
        (
            "",
            "sleep 1000 & echo $! >PID; echo said\nexit 0\n",
            6,
            "s.sh failed to close STDOUT",
            "s.sh left its STDOUT open to pid PID (sleep 1000)",
        ),
        // The agent names the user only with an exit code.
        (
            "      runas: root\n",
            "sleep 1000 & echo $! >PID; echo said\nexit 0\n",
            6,
            "s.sh failed to close STDOUT",
            "s.sh left its STDOUT open to pid PID (sleep 1000)",
        ),
        (
            "",
            "sleep 1000 >/dev/null & echo $! >PID; echo said\nexit 0\n",
            6,
            "s.sh failed to close STDERR",
            "s.sh left its STDERR open to pid PID (sleep 1000)",
        ),
        (
            "",
            "trap '' TERM; echo $$ >PID; echo said\nsleep 1000; sleep 1000\n",
            3,
            "s.sh failed to complete in 2 seconds",
            "",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        if !keys.is_empty() && !rustix::process::geteuid().is_root() {
            continue;
        }
        let script = format!("#!/bin/sh\n{}", script.replace("PID", pid.to_str().unwrap()));
        let root = scratch.path().join(number.to_string());
        let (found, message, log, holders) = one_script(&root, keys, &script).await;
        let pid = fs::read_to_string(&pid).unwrap();
        assert_eq!(
            (found, message.as_str()),
            (code, format!("Script at specified location: {told}").as_str())
        );
        let named = format!("pid {} (sleep 1000)", pid.trim());
        let expected = if code == 6 { vec![named] } else { Vec::new() };
        assert_eq!(holders, expected);
        let lines = fs::read_to_string(root.join("stream")).unwrap();
        assert!(lines.contains(&note.replace("PID", pid.trim())), "{lines}");
        assert!(log.ends_with("[stdout]said\n"), "{log}");
        for _ in 0..500 {
            if !lives(&pid) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert!(!lives(&pid), "{script}");
    }
}

/// A secret of every script here.
const HIDDEN: &str = "the-hidden-word";

/// Words of a command may be secret.
#[tokio::test]
async fn what_left_an_output_open_is_named_without_secrets() {
    let scratch = tempfile::tempdir().unwrap();
    let script = "#!/bin/sh\nsh -c 'sleep 1000; :' the-hidden-word &\n";
    let (code, message, _, holders) = one_script(scratch.path(), "", script).await;
    assert_eq!(code, 6, "{message}");
    let told = format!(
        "{holders:?} {}",
        fs::read_to_string(scratch.path().join("stream")).unwrap()
    );
    assert!(told.contains(" (sh -c sleep 1000; : *"), "{told}");
    assert!(!told.contains(HIDDEN), "{told}");
}

/// Not executable, without an interpreter line, with nothing to read, in a process group of its own; `sudo` needs no
/// program where the agent is root, and with `runas` it is that user's.
#[tokio::test]
async fn a_script_finds_what_the_agent_gives_it() {
    let script = "read line && echo read\ntest \"$(ps -o pgid= -p $$ | tr -d ' ')\" = $$ && echo leads\n\
                  echo \"$(id -un) $LIFECYCLE_EVENT $DEPLOYMENT_GROUP_ID\"\n";
    for (keys, user) in [
        ("", "root"),
        ("      sudo: true\n", "root"),
        ("      runas: root\n      sudo: true\n", "root"),
    ] {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let (code, message, log, _) = one_script(scratch.path(), keys, script).await;
        assert_eq!((code, message.as_str()), (0, ""), "{keys}");
        assert!(
            log.contains(&format!("[stdout]{user} AfterInstall dg\n")),
            "{keys}: {log}"
        );
        assert!(!log.contains("[stdout]read"), "{log}");
        assert!(
            log.contains("[stdout]leads") || keys.contains("runas"),
            "{keys}: {log}"
        );
    }
}
