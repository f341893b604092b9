//! `vend demo`: a platform of its own, a sample customer, and the whole corridor, step by step.
//!
//! It does what a person would do, through the same doors: the command line's client, git, a browser's request. It
//! knows nothing of how the platform is made.

mod stages;
mod steps;

use std::{
    io::IsTerminal as _,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use include_dir::{Dir, include_dir};
use model::wire;
use serde_json::json;
use tokio::{
    io::AsyncBufReadExt as _,
    process::Child,
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use self::steps::Steps;
use crate::{
    cli::{Client, Failure},
    config::Data,
    doctor,
    output::Output,
};

static GUESTBOOK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../examples/guestbook");

const APP: &str = "acme/guestbook";
/// A platform that is not ready by then will not be.
const READY_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub struct Demo {
    /// Approve production without asking. Needed where standard input is not a terminal: without it the demo stops
    /// before it begins, with exit code 2.
    #[arg(long, short)]
    yes: bool,
    /// Take everything down at the end instead of leaving it running until Ctrl-C.
    #[arg(long)]
    once: bool,
    /// Listen on 127.0.0.1:8080 and :7070 instead of free ports.
    #[arg(long)]
    fixed_ports: bool,
}

/// Runs the demo. Whatever happens, nothing is left running unless the demo ends well and is to stay.
pub async fn run(demo: &Demo, data: &Utf8Path) -> ExitCode {
    match whole(demo, data).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&Output::new(false, format!(" --data {data}"))),
    }
}

async fn whole(demo: &Demo, data: &Utf8Path) -> Result<(), Failure> {
    can_answer(demo.yes, std::io::stdin().is_terminal())?;
    let steps = Steps::new(9);
    let data = directory(data)?;
    prerequisites(&steps)?;
    let mut platform = start(&steps, &data, demo).await?;
    let outcome = tokio::select! {
        outcome = tour(&steps, &data, demo) => outcome,
        () = interrupted() => Err(Failure::failed("interrupted")),
    };
    if outcome.is_ok() && !demo.once {
        steps.say("The platform runs until Ctrl-C.");
        interrupted().await;
    }
    steps.say("Taking everything down: roles, hosts, networks, mounts.");
    stop(&mut platform).await;
    let left = crate::roles::teardown(&data).await;
    left.map_err(|error| Failure::failed("something could not be taken down").cause(error.to_string()))?;
    if outcome.is_ok() {
        use std::os::unix::fs::MetadataExt as _;

        // Most of a database's disk was never written: what counts is what the files take.
        let taken = |file: &std::fs::Metadata| file.len().min(file.blocks().saturating_mul(512));
        let bytes = crate::git::size(data.0.clone(), taken).await;
        steps.say(&format!(
            "Nothing is left running. Caches stay in {path} for the next run: {size}; `rm -rf {path}` removes them.",
            path = data.0,
            size = crate::output::size(bytes)
        ));
    }
    outcome
}

/// Production asks a person. Where nobody can answer, the demo does not begin: half of it would help nobody.
fn can_answer(yes: bool, terminal: bool) -> Result<(), Failure> {
    match yes || terminal {
        true => Ok(()),
        false => Err(Failure::usage("the demo was not started")
            .cause("it asks for production's approval, and standard input is not a terminal where somebody could answer")
            .next("vend demo --yes, which approves without asking")),
    }
}

fn directory(data: &Utf8Path) -> Result<Data, Failure> {
    let wrong = |cause: String| Failure::failed("cannot use the demo's directory").cause(cause);
    std::fs::create_dir_all(data).map_err(|error| wrong(error.to_string()))?;
    let path = data
        .canonicalize_utf8()
        .map_err(|error| wrong(error.to_string()))?;
    Ok(Data(path))
}

fn prerequisites(steps: &Steps) -> Result<(), Failure> {
    let step = steps.begin("This machine");
    let mut findings = doctor::examine();
    let missing = doctor::packages(&findings);
    if !missing.is_empty() {
        step.note(&format!(
            "installing {} (see `vend doctor` for why)",
            missing.join(", ")
        ));
        doctor::install(&missing)
            .map_err(|error| Failure::failed("packages are missing").cause(error.to_string()))?;
        findings = doctor::examine();
    }
    let absent: Vec<String> = findings
        .iter()
        .filter(|one| matches!(one.state, doctor::State::Missing(_)))
        .map(doctor::line)
        .collect();
    if !absent.is_empty() {
        return Err(Failure::failed("this machine lacks something")
            .cause(absent.join("\n"))
            .next("vend doctor"));
    }
    step.done("has what it takes");
    Ok(())
}

async fn start(steps: &Steps, data: &Data, demo: &Demo) -> Result<Child, Failure> {
    let step = steps.begin("The platform");
    let wrong = |error: std::io::Error| Failure::failed("cannot start the platform").cause(error.to_string());
    let log = data.0.join("platform.log");
    let out = std::fs::File::create(&log).map_err(wrong)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("up").arg("--data").arg(&data.0).stdin(Stdio::null());
    if !demo.fixed_ports {
        command.arg("--pick-ports");
    }
    command.stdout(out.try_clone().map_err(wrong)?).stderr(out);
    // Ctrl-C is for the demo, which then stops the platform in order.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let started = Instant::now();
    let mut platform = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn()
        .map_err(wrong)?;
    let client = client(data)?;
    loop {
        if client
            .get::<wire::Health>("/v1/health")
            .await
            .is_ok_and(|health| health.ok)
        {
            break;
        }
        let ended = platform.try_wait().map_err(wrong)?;
        if ended.is_some() || started.elapsed() > READY_WITHIN {
            return Err(silent(&log));
        }
        sleep(Duration::from_millis(20)).await;
    }
    step.done(&format!("serve, node and edge are up; log in {log}"));
    Ok(platform)
}

/// Why a platform does not answer, in its own last words.
fn silent(log: &Utf8Path) -> Failure {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().rfind(|line| line.starts_with("error: "));
    let cause = last.map_or_else(|| format!("{log} does not say why"), str::to_owned);
    Failure::failed("the platform does not come up")
        .cause(cause)
        .next(format!("less {log}"))
}

async fn tour(steps: &Steps, data: &Data, demo: &Demo) -> Result<(), Failure> {
    let client = client(data)?;
    let step = steps.begin("A tenant and its app");
    create(&client).await?;
    step.done(APP);

    let step = steps.begin("The customer's working copy");
    let copy = working_copy(data)?;
    step.done(copy.as_str());

    let step = steps.begin("Push to branch dev");
    let execution = push(data, &copy, "dev")?;
    stages::follow(&client, &step, &execution, None).await?;
    step.done(&greet(&client, "dev").await?);

    let step = steps.begin("Push to branch main: production asks for approval");
    let execution = push(data, &copy, "main")?;
    // Whoever pushed may not approve: somebody else does, with a token of their own.
    let approver = approver(&client, data).await?;
    let ask = stages::Ask {
        approver: &approver,
        yes: demo.yes,
    };
    stages::follow(&client, &step, &execution, Some(&ask)).await?;
    step.done(&greet(&client, "production").await?);

    let step = steps.begin("Change one line, push again");
    change(&copy)?;
    let execution = push(data, &copy, "dev")?;
    stages::follow(&client, &step, &execution, None).await?;
    step.done(&greet(&client, "dev").await?);

    let step = steps.begin("Roll back");
    let started: wire::Started = client
        .post(&format!("{}/rollback", environment("dev")), &json!({}))
        .await?;
    for execution in &started.executions {
        stages::follow(&client, &step, execution.as_str(), None).await?;
    }
    step.done(&greet(&client, "dev").await?);

    let step = steps.begin("The record");
    let lines = verify(data)?;
    step.done(&lines);
    summary(&client, steps, data, demo.once).await
}

fn client(data: &Data) -> Result<Client, Failure> {
    Client::new(None, Some(data.0.as_std_path()))
}

fn environment(name: &str) -> String {
    format!("/v1/tenants/acme/apps/guestbook/environments/{name}")
}

/// A client of another person: somebody who may look at acme's plans and approve them, for an hour.
async fn approver(client: &Client, data: &Data) -> Result<Client, Failure> {
    let name = format!("ops-{}@acme.example", crate::clock::now().as_second());
    let new = json!({ "name": name, "role": "approver", "tenant": "acme", "expires_in": 3600 });
    let token: wire::CreatedToken = client.post("/v1/tokens", &new).await?;
    let endpoints =
        crate::up::endpoints(data).ok_or_else(|| Failure::failed("the platform has no address"))?;
    Client::with_token(&format!("http://{}", endpoints.api), token.text)
}

/// What is there from an earlier run is used.
async fn create(client: &Client) -> Result<(), Failure> {
    if client.get::<wire::Tenant>("/v1/tenants/acme").await.is_err() {
        let _: wire::Tenant = client.post("/v1/tenants", &json!({ "name": "acme" })).await?;
    }
    if client
        .get::<wire::App>("/v1/tenants/acme/apps/guestbook")
        .await
        .is_err()
    {
        let _: wire::App = client
            .post("/v1/tenants/acme/apps", &json!({ "name": "guestbook" }))
            .await?;
    }
    Ok(())
}

/// A fresh clone-like directory with the sample app, committed. Every run has a commit of its own.
fn working_copy(data: &Data) -> Result<Utf8PathBuf, Failure> {
    let copy = data.0.join("guestbook");
    let wrong =
        |error: std::io::Error| Failure::failed(format!("cannot write {copy}")).cause(error.to_string());
    if !copy.join(".git").exists() {
        std::fs::create_dir_all(&copy).map_err(wrong)?;
        GUESTBOOK.extract(&copy).map_err(wrong)?;
        executable(&copy).map_err(wrong)?;
        git(&copy, &["init", "--quiet", "--initial-branch=main"])?;
    }
    git(&copy, &["add", "--all"])?;
    git(
        &copy,
        &[
            "commit",
            "--quiet",
            "--allow-empty",
            "--message",
            "The guestbook as it is",
        ],
    )?;
    Ok(copy)
}

/// Files that are embedded in a binary lose their modes: what begins with `#!` is a script.
fn executable(copy: &Utf8PathBuf) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut directories = vec![copy.clone()];
    while let Some(directory) = directories.pop() {
        for entry in directory.read_dir_utf8()? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path().to_owned());
            } else if std::fs::read(entry.path())?.starts_with(b"#!") {
                std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(0o755))?;
            }
        }
    }
    Ok(())
}

/// One visible line of the app.
fn change(copy: &Utf8PathBuf) -> Result<(), Failure> {
    let path = copy.join("guestbook/version.py");
    let wrong =
        |error: std::io::Error| Failure::failed(format!("cannot change {path}")).cause(error.to_string());
    let text = std::fs::read_to_string(&path).map_err(wrong)?;
    let number = crate::clock::now().as_second();
    let changed: Vec<String> = text
        .lines()
        .map(|line| match line.starts_with("VERSION") {
            true => format!("VERSION = \"changed at {number}\""),
            false => line.to_owned(),
        })
        .collect();
    std::fs::write(&path, changed.join("\n") + "\n").map_err(wrong)?;
    git(
        copy,
        &["commit", "--quiet", "--all", "--message", "Change one line"],
    )
}

fn git(copy: &Utf8PathBuf, arguments: &[&str]) -> Result<(), Failure> {
    let identity = [
        "-c",
        "user.name=Ada Demo",
        "-c",
        "user.email=ada@acme.example",
        "-c",
        "commit.gpgsign=false",
    ];
    let output = Command::new("git")
        .current_dir(copy)
        .args(identity)
        .args(arguments)
        .output();
    let output = output.map_err(|error| Failure::failed("git cannot be run").cause(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Failure::failed(format!("git {} failed", arguments[0]))
            .cause(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// `vend push`, as a customer would type it. Gives the execution that the push started.
fn push(data: &Data, copy: &Utf8PathBuf, branch: &str) -> Result<String, Failure> {
    let output = Command::new("/proc/self/exe")
        .current_dir(copy)
        .args(["push", APP, "--branch", branch, "--force", "--json", "--data"])
        .arg(&data.0)
        .output();
    let output = output.map_err(|error| Failure::failed("cannot push").cause(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let push: Option<wire::Push> = serde_json::from_str(&text).ok();
    match push {
        Some(push) if output.status.success() => Ok(push.number.to_string()),
        _ => Err(Failure::failed("the push was not taken").cause(
            format!("{text}{}", String::from_utf8_lossy(&output.stderr))
                .trim()
                .to_owned(),
        )),
    }
}

/// What a visitor of the environment gets.
async fn greet(client: &Client, name: &str) -> Result<String, Failure> {
    let environment: wire::Environment = client.get(&environment(name)).await?;
    let live = environment
        .live
        .map_or("no release".to_owned(), |live| format!("v{live}"));
    Ok(format!(
        "{live} at {}",
        environment.urls.first().map_or("no address", String::as_str)
    ))
}

fn verify(data: &Data) -> Result<String, Failure> {
    let file = data.0.join("ledger.ndjson");
    for arguments in [&["audit", "export"][..], &["audit", "verify"]] {
        let output = Command::new("/proc/self/exe")
            .args(arguments)
            .arg(&file)
            .arg("--data")
            .arg(&data.0)
            .output();
        let output =
            output.map_err(|error| Failure::failed("cannot verify the ledger").cause(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() {
            let cause = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Failure::failed("the ledger does not verify").cause(cause));
        }
        if arguments[1] == "verify" {
            return Ok(text.lines().next().unwrap_or_default().to_owned());
        }
    }
    Ok(String::new())
}

async fn summary(client: &Client, steps: &Steps, data: &Data, once: bool) -> Result<(), Failure> {
    let environment: wire::Environment = client.get(&environment("dev")).await?;
    let url = environment.urls.first().cloned().unwrap_or_default();
    let flag = format!("--data {}", data.0);
    let program = std::env::current_exe().map_or_else(|_| "vend".into(), |path| path.display().to_string());
    steps.finish();
    if once {
        steps.say("=====> The guestbook was deployed, changed and rolled back; `demo` without --once leaves it running.");
        return Ok(());
    }
    steps.say(&format!("=====> The guestbook is deployed: {url}"));
    steps.say(&format!("next:  {program} status {APP} {flag}"));
    steps.say(&format!("undo:  {program} apps delete {APP} {flag}"));
    Ok(())
}

async fn stop(platform: &mut Child) {
    if let Some(pid) = platform
        .id()
        .and_then(|pid| rustix::process::Pid::from_raw(pid as i32))
    {
        // One that has ended needs no signal.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    // `vend up` bounds how long its roles may take.
    let _ = platform.wait().await;
}

async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
}

/// A line that a person types, or nothing when nobody can type.
async fn typed() -> Option<String> {
    let mut line = String::new();
    let mut input = tokio::io::BufReader::new(tokio::io::stdin());
    let read = input.read_line(&mut line).await.ok()?;
    (read > 0).then(|| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_can_answer_nothing_begins() {
        assert!(can_answer(true, false).is_ok() && can_answer(false, true).is_ok());
        let failure = can_answer(false, false).unwrap_err();
        assert_eq!(failure.exit as u8, 2);
        assert!(failure.next.is_some_and(|next| next.contains("--yes")));
    }
}
