//! `vend check`: every file of a working tree that the platform reads, with all problems at once.

use std::collections::BTreeSet;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    App, Appspec, Buildspec, CARRIAGE_RETURN, Checks, Environment, UNIX_LINES, has_carriage_return, procfile,
    yaml::decode,
};
use crate::{Problem, port::LifecycleEvent};

/// A source tree, wherever it is: on disk, in a tar, in a test. Paths are relative to its root.
pub trait Files {
    /// Is there a file or directory?
    fn exists(&self, path: &Utf8Path) -> bool;

    /// The content of a file, and a little more than [`super::MAX_BYTES`] of it at most; `None` when it cannot be read.
    fn read(&self, path: &Utf8Path) -> Option<Vec<u8>>;

    /// The same of a script, whose text is only warned of: none where nobody reads warnings.
    fn script(&self, path: &Utf8Path) -> Option<Vec<u8>> {
        self.read(path)
    }

    /// Is a part of this path a symbolic link? Only a working tree knows; git reads a link's own text.
    fn is_link(&self, _path: &Utf8Path) -> bool {
        false
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckReport {
    /// No problem is an error.
    pub ok: bool,
    pub problems: Vec<Problem>,
    /// What the files mean, normalised; null for what could not be read.
    #[schema(value_type = Object)]
    pub spec: Value,
}

impl CheckReport {
    fn new(problems: Vec<Problem>, spec: Value) -> Self {
        Self {
            ok: !problems.iter().any(Problem::is_error),
            problems,
            spec,
        }
    }
}

/// The name of the file that makes a repository an app.
const VEND_YAML: &str = "vend.yaml";

/// A tree that was checked: the app, if `vend.yaml` says which, and what is to be said about all of its files.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// Also there when another file is wrong: ask the report before it is used.
    pub app: Option<App>,
    pub report: CheckReport,
    /// The files that are read as buildspecs.
    pub buildspecs: BTreeSet<Utf8PathBuf>,
}

/// Checks `vend.yaml` and every buildspec, appspec and checks file that it names. `spec` is the app with `buildspec`,
/// `appspec` and `checks` beside it, each by path.
pub fn check_tree(files: &dyn Files) -> CheckReport {
    checked(files).report
}

/// The same for who goes on with the app: what `vend check` says is what a push is refused for.
pub fn checked(files: &dyn Files) -> Checked {
    let nothing = |problems| Checked {
        app: None,
        report: CheckReport::new(problems, Value::Null),
        buildspecs: BTreeSet::new(),
    };
    let Some(bytes) = files.read(Utf8Path::new(VEND_YAML)) else {
        let problem = Problem::error(VEND_YAML, 0, 0, "there is no `vend.yaml`");
        let help = match files.exists(Utf8Path::new("vend.yml")) {
            true => "rename `vend.yml` to `vend.yaml`",
            false => "write one with at least `app: NAME`",
        };
        let mut problems = vec![problem.help(help)];
        defaults(files, &mut Map::new(), &mut problems);
        return nothing(problems);
    };
    let tree = |path: &Utf8Path| files.exists(path);
    let read = decode(VEND_YAML, &bytes).map_err(|problem| vec![problem]);
    let (app, mut problems) = match read.and_then(|text| App::parse(text, VEND_YAML, &tree)) {
        Ok(read) => read,
        Err(problems) => {
            // The files of the default names are worth checking all the same.
            let mut spec = Map::new();
            let mut problems = problems;
            defaults(files, &mut spec, &mut problems);
            return nothing(problems);
        }
    };
    let mut spec = match serde_json::to_value(&app) {
        Ok(Value::Object(spec)) => spec,
        _ => Map::new(),
    };
    let mut buildspecs = each(&app, |environment| environment.build.buildspec.clone());
    buildspecs.extend(batches(files, &app));
    buildspecs
        .iter()
        .for_each(|path| one(files, &mut spec, &mut problems, "buildspec", path, buildspec));
    all(&app).for_each(|environment| idle(files, environment, &mut problems));
    each(&app, |environment| environment.deploy.appspec.clone())
        .into_iter()
        .filter(|path| files.exists(path))
        .for_each(|path| one(files, &mut spec, &mut problems, "appspec", &path, appspec));
    each(&app, |environment| environment.checks.clone())
        .into_iter()
        .for_each(|path| one(files, &mut spec, &mut problems, "checks", &path, checks));
    let mut done = BTreeSet::new();
    for environment in all(&app) {
        if done.insert((&environment.deploy.appspec, &environment.build.buildspec)) {
            missing(files, environment, &mut problems);
        }
    }
    all(&app).for_each(|environment| unheard(files, environment, &mut problems));
    line_ends(files, all(&app), &mut problems);
    if all(&app).any(|environment| environment.deploy.appspec.is_none()) {
        processes(files, &mut problems);
    }
    let mut seen = Vec::new();
    problems.retain(|problem| {
        !seen.contains(problem) && {
            seen.push(problem.clone());
            true
        }
    });
    Checked {
        app: Some(app),
        report: CheckReport::new(problems, Value::Object(spec)),
        buildspecs,
    }
}

/// Checks one buildspec, whatever it is called. `spec` is the buildspec.
pub fn check_buildspec(file: &str, bytes: &[u8]) -> CheckReport {
    alone(buildspec(file, bytes))
}

/// Checks one appspec as the agent would. `spec` is what the agent would hold.
pub fn check_appspec(file: &str, bytes: &[u8]) -> CheckReport {
    alone(appspec(file, bytes))
}

/// Checks one goss file. `spec` is its checks.
pub fn check_checks(file: &str, bytes: &[u8]) -> CheckReport {
    alone(checks(file, bytes))
}

type Reads = fn(&str, &[u8]) -> Read;
type Read = Result<(Value, Vec<Problem>), Vec<Problem>>;

fn alone(read: Read) -> CheckReport {
    match read {
        Ok((spec, problems)) => CheckReport::new(problems, spec),
        Err(problems) => CheckReport::new(problems, Value::Null),
    }
}

fn buildspec(file: &str, bytes: &[u8]) -> Read {
    let text = decode(file, bytes).map_err(|problem| vec![problem])?;
    Buildspec::parse(text, file).map(|(spec, warnings)| (json!(spec), warnings))
}

fn appspec(file: &str, bytes: &[u8]) -> Read {
    let text = decode(file, bytes).map_err(|problem| vec![problem])?;
    Appspec::check(text, file)
}

fn checks(file: &str, bytes: &[u8]) -> Read {
    let text = decode(file, bytes).map_err(|problem| vec![problem])?;
    Checks::parse(text, file).map(|(spec, warnings)| (json!(spec), warnings))
}

/// Those that are there by name, and what others are made from.
fn all(app: &App) -> impl Iterator<Item = &Environment> {
    let patterns = app.patterns.iter().map(|pattern| &pattern.environment);
    app.environments.iter().chain(patterns)
}

fn each(app: &App, path: impl Fn(&Environment) -> Option<Utf8PathBuf>) -> BTreeSet<Utf8PathBuf> {
    all(app).filter_map(path).collect()
}

/// The buildspecs that builds of batches name for themselves.
fn batches(files: &dyn Files, app: &App) -> BTreeSet<Utf8PathBuf> {
    let all = each(app, |environment| {
        environment
            .build
            .buildspec
            .clone()
            .filter(|_| environment.build.batch)
    });
    let tasks = |path: &Utf8PathBuf| {
        let bytes = files.read(path)?;
        let text = decode(path.as_str(), &bytes).ok()?;
        Some(Buildspec::parse(text, path.as_str()).ok()?.0.batch?.tasks)
    };
    let named = all.iter().filter_map(tasks).flatten();
    named
        .filter_map(|task| task.buildspec)
        .map(Utf8PathBuf::from)
        .collect()
}

/// Buildspecs that have only a `batch`, where they are run as one build.
fn idle(files: &dyn Files, environment: &Environment, problems: &mut Vec<Problem>) {
    let read = |path: &Utf8Path| {
        let bytes = files.read(path)?;
        let text = decode(path.as_str(), &bytes).ok()?;
        Some(Buildspec::parse(text, path.as_str()).ok()?.0)
    };
    let Some(path) = environment.build.buildspec.as_deref() else {
        return;
    };
    let Some(whole) = read(path) else {
        return;
    };
    if !environment.build.batch {
        if whole.is_batch_only() {
            let problem = Problem::error(path.as_str(), 0, 0, Buildspec::BATCH_ONLY);
            problems.push(problem.help(Buildspec::RUN_BATCH));
        }
        return;
    }
    let tasks = whole.batch.iter().flat_map(|batch| &batch.tasks);
    let named: BTreeSet<&str> = tasks.filter_map(|task| task.buildspec.as_deref()).collect();
    for path in named {
        if read(path.into()).is_some_and(|own| own.is_batch_only()) {
            let problem = Problem::error(path, 0, 0, Buildspec::BATCH_ONLY);
            problems.push(problem.help(Buildspec::NOT_AGAIN));
        }
    }
}

/// Reads one file into `spec[key][path]`.
fn one(
    files: &dyn Files,
    spec: &mut Map<String, Value>,
    problems: &mut Vec<Problem>,
    key: &str,
    path: &Utf8Path,
    read: Reads,
) {
    linked(files, path, problems);
    let value = match files.read(path).map(|bytes| read(path.as_str(), &bytes)) {
        Some(Ok((value, warnings))) => {
            problems.extend(warnings);
            value
        }
        Some(Err(errors)) => {
            problems.extend(errors);
            Value::Null
        }
        None => {
            problems.push(Problem::error(path.as_str(), 0, 0, "the file cannot be read"));
            Value::Null
        }
    };
    if let Value::Object(all) = spec.entry(key).or_insert_with(|| json!({})) {
        all.insert(path.to_string(), value);
    }
}

fn linked(files: &dyn Files, path: &Utf8Path, problems: &mut Vec<Problem>) {
    if files.is_link(path) {
        let message =
            "it is reached through a symbolic link: a push reads the link's own text, not where it leads";
        let problem = Problem::error(path.as_str(), 0, 0, message);
        problems.push(problem.help("put the file itself there"));
    }
}

/// What of the `Procfile` starts nothing.
fn processes(files: &dyn Files, problems: &mut Vec<Problem>) {
    let path = Utf8Path::new("Procfile");
    if let Some(bytes) = files.read(path) {
        linked(files, path, problems);
        problems.extend(procfile(&String::from_utf8_lossy(&bytes), path.as_str()).1);
    }
}

fn defaults(files: &dyn Files, spec: &mut Map<String, Value>, problems: &mut Vec<Problem>) {
    let known: [(&str, &str, Reads); 2] = [
        ("buildspec", "buildspec.yml", buildspec),
        ("appspec", "appspec.yml", appspec),
    ];
    for (key, path, read) in known {
        let path = Utf8Path::new(path);
        if files.exists(path) {
            one(files, spec, problems, key, path, read);
        }
    }
}

/// What an environment's appspec names and the tree does not have. The build may make it; without a build it is
/// missing for good.
fn missing(files: &dyn Files, environment: &Environment, problems: &mut Vec<Problem>) {
    let Some((path, appspec, text)) = read_appspec(files, environment) else {
        return;
    };
    let scripts = appspec
        .hooks
        .values()
        .flatten()
        .map(|script| script.location.as_str());
    let sources = appspec.files.iter().map(|file| file.source.as_str());
    let absent = |name: &&str| {
        let inside = Utf8Path::new(name.trim_start_matches('/'));
        !inside.as_str().is_empty() && !name.split('/').any(|part| part == "..") && !files.exists(inside)
    };
    let names: BTreeSet<&str> = scripts.chain(sources).collect();
    for name in names.into_iter().filter(absent).take(20) {
        let (line, column) = place(&text, name);
        let message = format!("`{name}` is not in the repository");
        problems.push(match environment.build.buildspec {
            Some(_) => Problem::warning(path.as_str(), line, column, message)
                .help("the build must make it, and its artifacts must hold it"),
            None => Problem::error(path.as_str(), line, column, message),
        });
    }
    held(files, environment, path, problems);
}

/// An environment's appspec, where it is there and can be read: its path, what it says, and its text.
fn read_appspec<'e>(
    files: &dyn Files,
    environment: &'e Environment,
) -> Option<(&'e Utf8Path, Appspec, String)> {
    let path = environment.deploy.appspec.as_deref()?;
    let bytes = files.exists(path).then(|| files.read(path))??;
    let text = decode(path.as_str(), &bytes).ok()?.to_owned();
    let (appspec, _) = Appspec::parse(&text, path.as_str()).ok()?;
    Some((path, appspec, text))
}

/// Hooks around traffic, for machines that get none from the platform. It is as on AWS without a load balancer.
fn unheard(files: &dyn Files, environment: &Environment, problems: &mut Vec<Problem>) {
    if environment.placement.is_none() {
        return;
    }
    let Some((path, appspec, text)) = read_appspec(files, environment) else {
        return;
    };
    let events = [
        LifecycleEvent::BeforeBlockTraffic,
        LifecycleEvent::AfterBlockTraffic,
        LifecycleEvent::BeforeAllowTraffic,
        LifecycleEvent::AfterAllowTraffic,
    ];
    for event in events
        .into_iter()
        .filter(|event| appspec.hooks.contains_key(event))
    {
        let name = event.to_string();
        let (line, column) = place(&text, &name);
        let message = format!(
            "{name} never runs on registered machines: the platform's load balancer sends them nothing"
        );
        let help = "tell a load balancer of yours in ApplicationStop and ValidateService";
        problems.push(Problem::warning(path.as_str(), line, column, message).help(help));
    }
}

/// Scripts that do not start because of how their lines end. A warning: a build may put others in their
/// place, and git may mend them on their way.
fn line_ends<'a>(
    files: &dyn Files,
    environments: impl Iterator<Item = &'a Environment>,
    problems: &mut Vec<Problem>,
) {
    let mut scripts = BTreeSet::new();
    for environment in environments {
        let hooks = read_appspec(files, environment).map(|(_, appspec, _)| appspec.hooks);
        let hooks = hooks.into_iter().flatten().flat_map(|(_, scripts)| scripts);
        scripts.extend(hooks.map(|script| Utf8PathBuf::from(script.location.trim_start_matches('/'))));
        scripts.extend(environment.deploy.migrate.iter().map(|own| own.script.clone()));
        scripts.extend(environment.image.scripts.iter().cloned());
    }
    for path in scripts {
        if files
            .script(&path)
            .is_some_and(|bytes| has_carriage_return(&bytes))
        {
            problems.push(Problem::warning(path.as_str(), 1, 1, CARRIAGE_RETURN).help(UNIX_LINES));
        }
    }
}

/// Where a text stands first in a file.
fn place(text: &str, part: &str) -> (u32, u32) {
    let found = text.lines().zip(1u32..).find_map(|(line, number)| {
        let before = line.find(part)?;
        Some((number, line[..before].chars().count()))
    });
    found.map_or((0, 0), |(line, before)| {
        (line, u32::try_from(before).unwrap_or(0) + 1)
    })
}

/// A build with artifacts makes the revision of those alone: an appspec that they leave out is not there on the host.
fn held(files: &dyn Files, environment: &Environment, appspec: &Utf8Path, problems: &mut Vec<Problem>) {
    let Some(path) = &environment.build.buildspec else {
        return;
    };
    let spec = files.read(path).and_then(|bytes| {
        let text = decode(path.as_str(), &bytes).ok()?;
        Some(Buildspec::parse(text, path.as_str()).ok()?.0)
    });
    let Some(artifacts) = spec.and_then(|spec| spec.artifacts) else {
        return;
    };
    let whole = artifacts.base_directory.is_none() && !artifacts.discard_paths;
    let glob = |pattern: &String| {
        globset::GlobBuilder::new(pattern.trim_start_matches("./"))
            .literal_separator(true)
            .build()
            .is_ok_and(|glob| glob.compile_matcher().is_match(appspec))
    };
    if whole
        && !artifacts
            .files
            .iter()
            .any(|pattern| pattern.contains('$') || glob(pattern))
    {
        let message = format!("the artifacts do not hold `{appspec}`, so the revision has no appspec");
        let help = format!("add `{appspec}` to `artifacts.files`");
        problems.push(Problem::warning(path.as_str(), 0, 0, message).help(help));
    }
}
