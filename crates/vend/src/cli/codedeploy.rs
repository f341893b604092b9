//! `vend codedeploy-local`: a deployment on this machine, with the flags and the words of AWS's `codedeploy-local`.
//! Needs no platform.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use camino::Utf8PathBuf;
use clap::{ArgAction, Args, ValueEnum};
use host::{
    agent::reaper::{Reaper, Scope},
    appspec::{
        REVISIONS,
        local::{self, Failed, Local, Order},
    },
    tree::Format,
};
use jiff::{SignedDuration, Timestamp};
use model::{
    Problem, Secret,
    port::ScriptFailure,
    spec::{
        self,
        deploy::{AgentConfiguration, FileExists},
    },
};
use serde::Serialize;
use tokio::sync::watch;

use super::{Global, Outcome, check};
use crate::output::{clean, duration};

/// Where AWS's agent keeps its configuration.
const CONFIGURATION: &str = "/etc/codedeploy-agent/conf/codedeployagent.yml";

/// Largest configuration file, in bytes.
const LARGEST: u64 = 1 << 20;

#[derive(Debug, Args)]
#[command(version, disable_version_flag = true)]
pub struct Codedeploy {
    /// The bundle: a directory, or a file of the format that --type names.
    #[arg(short = 'l', long, value_name = "PATH", default_value = ".")]
    bundle_location: String,
    /// What the bundle is.
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "directory")]
    kind: Kind,
    /// What to do with a file that is there and that no earlier deployment brought.
    #[arg(
        short = 'b',
        long,
        value_name = "BEHAVIOR",
        default_value = "DISALLOW",
        ignore_case = true
    )]
    file_exists_behavior: Behaviour,
    /// The directory of this deployment's group, below the deployment root.
    #[arg(
        short = 'g',
        long,
        value_name = "ID",
        default_value = "default-local-deployment-group"
    )]
    deployment_group: String,
    /// What scripts see as DEPLOYMENT_GROUP_NAME.
    #[arg(short = 'd', long, value_name = "NAME", default_value = "LocalFleet")]
    deployment_group_name: String,
    /// What scripts see as APPLICATION_NAME [default: the bundle's location].
    #[arg(short = 'a', long, value_name = "NAME")]
    application_name: Option<String>,
    /// Lifecycle events to run instead of all, in this order. DownloadBundle and Install always run.
    #[arg(short = 'e', long, value_name = "EVENTS", value_delimiter = ',')]
    events: Vec<String>,
    /// The agent's configuration, of which root_dir and max_revisions count
    /// [default: /etc/codedeploy-agent/conf/codedeployagent.yml, where it exists].
    #[arg(short = 'c', long, value_name = "FILE")]
    agent_configuration_file: Option<PathBuf>,
    /// The appspec's name in the bundle.
    #[arg(short = 'A', long, value_name = "PATH")]
    appspec_filename: Option<Utf8PathBuf>,
    /// Print the version of this program.
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Tgz,
    Tar,
    Zip,
    Directory,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
enum Behaviour {
    Disallow,
    Overwrite,
    Retain,
}

/// What became of the deployment, for programs.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    deployment: String,
    folder: PathBuf,
    log: PathBuf,
    events: Vec<Event>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<ScriptFailure>,
    /// What gets over the failure, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// What of the appspec means something else than it seems to, as `vend check` says it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Problem>,
}

#[derive(Debug, Serialize)]
struct Event {
    event: String,
    /// `succeeded`, `failed`, or `skipped` when it had nothing to do.
    status: &'static str,
    started_at: Timestamp,
    duration_ms: u64,
}

pub async fn run(codedeploy: &Codedeploy, global: &Global) -> Outcome {
    let order = match order(codedeploy) {
        Ok(order) => order,
        Err(why) => return Ok(refused(&why, other_kind(codedeploy))),
    };
    let events = match order.ordered() {
        Ok(events) => events,
        Err(why) => return Ok(refused(&why, None)),
    };
    let folder = order.current().directory;
    if !global.json {
        crate::output::aloud(format_args!(
            "Starting to execute deployment from within folder {}",
            folder.display()
        ));
    }
    let mut report = deploy(&order, &events).await;
    if report.has_failed_in("DownloadBundle") {
        report.next = other_kind(codedeploy);
    }
    let (errors, warnings): (Vec<_>, Vec<_>) = problems(&order).into_iter().partition(Problem::is_error);
    report.warn(warnings);
    if let Some(failure) = &report.failure {
        let same = errors.into_iter().find(|error| error.message == failure.message);
        report.next = report.next.or(same.and_then(|error| error.help));
    }
    if global.json {
        global.output().show(&report, |_| String::new());
    } else {
        tell(&report);
    }
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// As AWS's tool says it.
fn refused(why: &str, next: Option<String>) -> ExitCode {
    crate::output::aloud(format_args!("ERROR: {}", clean(why)));
    if let Some(next) = next {
        crate::output::aloud(format_args!("next: {next}"));
    }
    ExitCode::FAILURE
}

impl Report {
    fn has_failed_in(&self, event: &str) -> bool {
        !self.ok && self.events.last().is_some_and(|last| last.event == event)
    }

    /// Of a hook that was refused nothing is said that it would be taken; how it may have been meant helps.
    fn warn(&mut self, warnings: Vec<Problem>) {
        let refused = self.failure.as_ref().map(|failure| failure.message.as_str());
        let unknown = refused.and_then(|why| Some(why.split_once(local::UNKNOWN)?.1));
        let is_refused = |warning: &Problem| {
            let (Some(hook), Some(unknown)) = (spec::idle_hook(warning), unknown) else {
                return false;
            };
            unknown.contains(&format!("{hook:?}"))
        };
        let (refused, others): (Vec<_>, _) = warnings.into_iter().partition(is_refused);
        self.warnings = others;
        let mut helps = refused.into_iter().filter_map(|warning| warning.help);
        let meant = helps.find(|help| help.starts_with("did you mean"));
        self.next = self.next.take().or(meant);
    }
}

/// What the bundle is, where that is another kind than was said.
fn other_kind(codedeploy: &Codedeploy) -> Option<String> {
    let location = &codedeploy.bundle_location;
    let path = Path::new(location.strip_prefix("file://").unwrap_or(location));
    let (kind, what) = match path.is_dir() {
        true => (Kind::Directory, "is a directory"),
        false => match Format::of_file(path).ok()?? {
            Format::Zip => (Kind::Zip, "is a zip archive"),
            Format::Tgz => (Kind::Tgz, "is compressed by gzip"),
            Format::Tar | Format::Any => (Kind::Tar, "is a tar that is not compressed"),
        },
    };
    let value = kind.to_possible_value()?;
    let name = value.get_name();
    // What is said to be a tar may be compressed.
    let fits = kind == codedeploy.kind || (kind, codedeploy.kind) == (Kind::Tgz, Kind::Tar);
    (!fits).then(|| format!("{} {what}: the same with --type {name}", clean(location)))
}

/// What `vend check` says of the appspec that was brought.
fn problems(order: &Order) -> Vec<Problem> {
    let archive = order.current().archive();
    let names = order.appspec.iter().map(|name| name.as_str());
    let mut names = names.chain(["appspec.yml", "appspec.yaml"]);
    let found = names.find_map(|name| Some((name, check::read(&archive.join(name)).ok()?)));
    found.map_or_else(Vec::new, |(name, bytes)| {
        spec::check_appspec(name, &bytes).problems
    })
}

async fn deploy(order: &Order, events: &[String]) -> Report {
    let reaper = Reaper::new(Scope::Own);
    let reaping = tokio::spawn(reaper.clone().run());
    let (stop, unless) = watch::channel(None);
    // A script leads a session of its own: the terminal's interrupt reaches only this process.
    let interrupted = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.send_replace(Some(unknown("interrupted".to_owned())));
            std::future::pending::<()>().await;
        }
    });
    let local = Local {
        order,
        reaper: &reaper,
        clock: local::clock,
        environment: env::vars()
            .map(|(name, value)| (name, Secret::new(value)))
            .collect(),
        unless,
    };
    let mut log = local::log(order);
    let folder = order.current();
    let mut report = Report {
        ok: true,
        deployment: order.deployment.clone(),
        log: folder.scripts_log(),
        folder: folder.directory,
        events: Vec::new(),
        failure: None,
        next: None,
        warnings: Vec::new(),
    };
    for event in events {
        let (started_at, begun) = (local::clock(), Instant::now());
        let outcome = local.event(event, &mut log).await;
        let status = match &outcome {
            Ok(true) => "succeeded",
            Ok(false) => "skipped",
            Err(_) => "failed",
        };
        report.events.push(Event {
            event: event.clone(),
            status,
            started_at,
            duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        if let Err(failed) = outcome {
            report.ok = false;
            let failure = match failed {
                Failed::Script(failure) => failure,
                Failed::Other(why) => unknown(why),
            };
            report.next = (event == "Install").then(|| next(&failure.message)).flatten();
            report.failure = Some(failure);
            break;
        }
    }
    interrupted.abort();
    reaping.abort();
    report
}

/// What gets over a file that is there already.
fn next(failure: &str) -> Option<String> {
    let next = "the same with --file-exists-behavior OVERWRITE, or with RETAIN to keep what is there; what an earlier \
                deployment of the same --deployment-group brought is replaced without it";
    failure
        .contains("a specified file already exists at this location")
        .then(|| next.to_owned())
}

fn unknown(message: String) -> ScriptFailure {
    ScriptFailure::unknown(message, String::new())
}

fn tell(report: &Report) {
    for warning in &report.warnings {
        eprintln!("warning: {}", clean(&warning.to_string()));
    }
    let folder = report.folder.display();
    if let Some(failure) = &report.failure {
        if !failure.script.is_empty() {
            crate::output::aloud(format_args!(
                "Your local deployment failed while trying to execute your script at {folder}/deployment-archive/{}",
                clean(&failure.script)
            ));
        }
        for line in failure.log.lines() {
            crate::output::aloud(format_args!("  {}", clean(line)));
        }
    }
    for event in &report.events {
        crate::output::aloud(format_args!("{}", line(event)));
    }
    crate::output::aloud(format_args!(
        "See the deployment log at {} for more details",
        report.log.display()
    ));
    match &report.failure {
        None => crate::output::aloud(format_args!("AppSpec file valid. Local deployment successful")),
        Some(failure) => {
            let event = report.events.last().map_or("", |event| event.event.as_str());
            crate::output::aloud(format_args!("ERROR: {event}: {}", clean(&failure.told())));
        }
    }
    if let Some(next) = &report.next {
        crate::output::aloud(format_args!("next: {next}"));
    }
}

/// `  12:04:05  ApplicationStart      succeeded  1.2 s`
fn line(event: &Event) -> String {
    let took = SignedDuration::from_millis(i64::try_from(event.duration_ms).unwrap_or(i64::MAX));
    let at = event.started_at.strftime("%H:%M:%S");
    let (name, took) = (clean(&event.event), duration(took));
    format!("  {at}  {name:<20}  {:<9}  {took}", event.status)
}

fn order(codedeploy: &Codedeploy) -> Result<Order, String> {
    let location = &codedeploy.bundle_location;
    let format = match codedeploy.kind {
        Kind::Directory => None,
        Kind::Tar => Some(Format::Tar),
        Kind::Tgz => Some(Format::Tgz),
        Kind::Zip => Some(Format::Zip),
    };
    let path = bundle(location, codedeploy)?;
    let configuration = configuration(codedeploy.agent_configuration_file.as_deref())?;
    let root = match configuration.root_dir {
        Some(root) => absolute(Path::new(&root))?,
        None => default_root()?,
    };
    let group = &codedeploy.deployment_group;
    if group.is_empty()
        || group.starts_with('.')
        || group.contains(['/', '\0'])
        || group == "deployment-instructions"
    {
        return Err(format!("deployment group {group} cannot be the name of a folder"));
    }
    let mut random = [0; 9];
    getrandom::fill(&mut random).map_err(|error| format!("no randomness for an id: {error}"))?;
    Ok(Order {
        location: path,
        format,
        file_exists: match codedeploy.file_exists_behavior {
            Behaviour::Disallow => FileExists::Disallow,
            Behaviour::Overwrite => FileExists::Overwrite,
            Behaviour::Retain => FileExists::Retain,
        },
        group: group.clone(),
        group_name: codedeploy.deployment_group_name.clone(),
        application: codedeploy
            .application_name
            .clone()
            .unwrap_or_else(|| location.clone()),
        events: codedeploy.events.clone(),
        appspec: codedeploy.appspec_filename.clone(),
        root,
        directory: absolute(Path::new("."))?
            .try_into()
            .map_err(|_| "the working directory is not UTF-8")?,
        keep: configuration.max_revisions.unwrap_or(REVISIONS),
        deployment: local::deployment_id(random),
    })
}

/// The bundle on this machine.
fn bundle(location: &str, codedeploy: &Codedeploy) -> Result<PathBuf, String> {
    let path = match location.split_once("://") {
        Some(("http", _)) => {
            return Err(format!(
                "location {location} cannot be http, only encrypted (https) url endpoints supported"
            ));
        }
        Some(("file", path)) => path,
        Some(_) => {
            return Err(format!(
                "location {location} is elsewhere, and bundles are taken from this machine: download it, and name the file"
            ));
        }
        None => location,
    };
    let path = absolute(Path::new(path))?;
    if !path.exists() {
        return Err(format!(
            "location {location} is specified as a file or directory which does not exist"
        ));
    }
    match (codedeploy.kind, path.is_dir()) {
        (Kind::Directory, false) => Err(format!(
            "location {location} is specified with type directory but it is a file"
        )),
        (Kind::Directory, true) => expect_appspec(location, &path, codedeploy).map(|()| path),
        (_, true) => Err(format!(
            "location {location} is specified as a compressed local file but it is a directory"
        )),
        (_, false) => Ok(path),
    }
}

fn expect_appspec(location: &str, path: &Path, codedeploy: &Codedeploy) -> Result<(), String> {
    let names = match &codedeploy.appspec_filename {
        Some(name) => vec![name.as_str()],
        None => vec!["appspec.yml", "appspec.yaml"],
    };
    if names.iter().any(|name| path.join(name).exists()) {
        return Ok(());
    }
    let places: Vec<String> = names.iter().map(|name| format!("{location}/{name}")).collect();
    let names = names.join(" or ");
    Err(format!(
        "Expecting appspec file at location {} but it is not found there. Please either run the CLI from within a \
         directory containing the {names} file or specify a bundle location containing an {names} file in its root \
         directory",
        places.join(" or ")
    ))
}

fn configuration(given: Option<&Path>) -> Result<AgentConfiguration, String> {
    let path = given.unwrap_or_else(|| Path::new(CONFIGURATION));
    if given.is_none() && !path.exists() {
        return Ok(AgentConfiguration::default());
    }
    let small = fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= LARGEST);
    let text = fs::read_to_string(path).ok().filter(|_| small).ok_or_else(|| {
        format!(
            "configuration file {} does not exist or is not readable",
            path.display()
        )
    })?;
    let (configuration, warnings) = AgentConfiguration::parse(&text, &path.to_string_lossy())
        .map_err(|problems| problems[0].to_string())?;
    for warning in warnings {
        eprintln!("warning: {}", clean(&warning.to_string()));
    }
    Ok(configuration)
}

/// The agent's own place for root, and one in the home directory for others.
fn default_root() -> Result<PathBuf, String> {
    if rustix::process::geteuid().is_root() {
        return Ok("/opt/codedeploy-agent/deployment-root".into());
    }
    let home = env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.ok_or("there is no HOME: name a root_dir by --agent-configuration-file")?;
    Ok(Path::new(&home).join(".codedeploy-agent/deployment-root"))
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("location {} is not a path: {error}", path.display()))
}
