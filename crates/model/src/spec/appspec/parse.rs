//! `appspec.yml` and `appspec.json`, from text to values, with warnings of what the agent does without a word.

use std::collections::BTreeMap;

use camino::Utf8Path;
use serde_json::Value as Json;

use super::{
    Appspec, Context, FileExists, FileMapping, Mode, Permission, Script,
    agent::{self, Agent},
    psych,
};
use crate::{
    Problem,
    port::LifecycleEvent,
    spec::{
        read::{Reader, few, nearest, quoted},
        yaml::{self, Node, Value},
    },
};

impl Appspec {
    /// Reads an appspec as the agent does. The message of the first error starts with the agent's exact words; what
    /// to do about it stands in `help`. Hooks that are not lifecycle events are left out, with a warning.
    pub fn parse(text: &str, file: &str) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        read(text, file, false).map(|(agent, warnings)| (Self::from(&agent), warnings))
    }

    /// The same as the JSON that the agent's own classes hold: for comparing, and for `vend check --json`. Knows all
    /// hooks, whatever they are called.
    pub fn normalise(text: &str, file: &str) -> Result<(Json, Vec<Problem>), Vec<Problem>> {
        read(text, file, false).map(|(agent, warnings)| (agent.json(), warnings))
    }

    /// The same for `vend check`: what the agent takes and a deployment here refuses is an error.
    pub fn check(text: &str, file: &str) -> Result<(Json, Vec<Problem>), Vec<Problem>> {
        read(text, file, true).map(|(agent, warnings)| (agent.json(), warnings))
    }
}

/// Errors stay in the agent's order, because it stops at the first.
fn read(text: &str, file: &str, strict: bool) -> Result<(Agent, Vec<Problem>), Vec<Problem>> {
    let mut reader = Reader::new(file);
    let document = yaml::parse(file, text).map_err(|problem| vec![problem])?;
    for key in &document.duplicates {
        let name = quoted(key.text().unwrap_or_default());
        reader.warn(
            key,
            format!("{name} stands twice in the same mapping: the last one counts"),
        );
    }
    if let Some((line, column)) = document.second {
        let message = "a second document starts here: only the first is read";
        let problem = Problem::warning(file, line, column, message);
        reader.problems.push(problem);
    }
    let agent = agent::read(&mut reader, document.root.as_ref());
    if let (Some(agent), Some(root)) = (&agent, &document.root) {
        let mut warnings = Reader::new(file);
        surprises(&mut warnings, root, agent, strict);
        warnings.problems.sort_by_key(|problem| problem.line);
        reader.problems.extend(warnings.problems);
    }
    let failed = reader.problems.iter().any(Problem::is_error);
    let (errors, warnings): (Vec<_>, Vec<_>) = reader.problems.into_iter().partition(Problem::is_error);
    match agent {
        Some(agent) if !failed => Ok((agent, few(file, warnings))),
        _ => Err(few(file, errors.into_iter().chain(warnings).collect())),
    }
}

const TOP: &[&str] = &[
    "version",
    "os",
    "file_exists_behavior",
    "files",
    "permissions",
    "hooks",
];
const FILE: &[&str] = &["source", "destination"];
const SCRIPT: &[&str] = &["location", "runas", "sudo", "timeout"];
const PERMISSION: &[&str] = &[
    "object", "pattern", "except", "type", "owner", "group", "mode", "acls", "context",
];
/// `user` gets a warning of its own.
const CONTEXT: &[&str] = &["name", "type", "range", "user"];

/// What is accepted and does not do what it looks like.
fn surprises(reader: &mut Reader<'_>, root: &Node, agent: &Agent, strict: bool) {
    reader.ignored(entries(root), "", TOP);
    for item in items(root.get("files")) {
        reader.ignored(entries(item), "files", FILE);
        outside(reader, item.get("source"), "source", strict);
        if let Some(node) = item.get("destination")
            && !psych::to_s(node).starts_with('/')
            && psych::truthy(node)
        {
            let message =
                "`destination` is not an absolute path: AWS resolves it wherever its agent happens to run";
            reader.warn(node, message).help = Some("begin it with `/`".to_owned());
        }
    }
    for item in items(root.get("permissions")) {
        reader.ignored(entries(item), "permissions", PERMISSION);
        idle(reader, item, agent);
        if let Some(context) = item.get("context") {
            reader.ignored(entries(context), "context", CONTEXT);
            if let Some(user) = context.get("user").filter(|_| context.get("name").is_none()) {
                let message = "the agent reads the SELinux user from `name`, not from `user`";
                reader.warn(user, message).help = Some("rename `user` to `name`".to_owned());
            }
        }
    }
    if let Some(Node {
        value: Value::Mapping(hooks),
        ..
    }) = root.get("hooks")
    {
        let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, scripts) in &agent.hooks {
            let seconds = scripts.iter().map(|script| u64::from(script.timeout));
            *totals.entry(name).or_default() += seconds.sum::<u64>();
        }
        for (key, scripts) in hooks {
            event(reader, key, scripts, &totals, strict);
        }
    }
}

fn items(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.value) {
        Some(Value::Sequence(items)) => items,
        _ => &[],
    }
}

fn entries(node: &Node) -> &[(Node, Node)] {
    match &node.value {
        Value::Mapping(entries) => entries,
        _ => &[],
    }
}

/// What of a permission matches nothing, whatever the bundle holds.
fn idle(reader: &mut Reader<'_>, permission: &Node, agent: &Agent) {
    let patterns = permission.get("pattern").into_iter();
    for pattern in patterns.chain(items(permission.get("except"))) {
        let text = psych::to_s(pattern);
        if text.contains('/') {
            let message = format!(
                "{} matches nothing: a pattern is compared with single names",
                quoted(&text)
            );
            reader.warn(pattern, message).help =
                Some("leave out the directory, or write a permission for that directory".to_owned());
        }
    }
    let Some(node) = permission.get("object") else {
        return;
    };
    let object = psych::to_s(node);
    let object = Utf8Path::new(object.trim());
    let touched = |(_, destination): &(String, String)| {
        let destination = Utf8Path::new(destination);
        destination.starts_with(object) || object.starts_with(destination)
    };
    if object.is_absolute() && !object.as_str().contains("..") && !agent.files.iter().any(touched) {
        let message = format!("a permission for `{object}` changes nothing: `files` puts nothing there");
        reader.warn(node, message).help =
            Some("only what this deployment creates gets permissions; set others in a hook".to_owned());
    }
}

/// The agent follows `..` out of the bundle; a deployment here does not.
fn outside(reader: &mut Reader<'_>, node: Option<&Node>, what: &str, strict: bool) {
    let Some(node) = node.filter(|node| psych::to_s(node).split('/').any(|part| part == "..")) else {
        return;
    };
    let message = format!("`{what}` leaves the bundle: the deployment refuses it");
    let problem = match strict {
        true => reader.error(node, message),
        false => reader.warn(node, message),
    };
    problem.help = Some("the agent of AWS would follow it; write a path inside the bundle".to_owned());
}

/// What AWS does with the hook of an unknown event, and with that of an event of the agent's own.
const TAKEN: &str = "AWS takes the file, and never runs its scripts";
const NOT_RUN: &str = "AWS never runs a script in it";

/// The hook that a warning says is never run, if that is what it is about.
pub fn idle_hook(warning: &Problem) -> Option<&str> {
    let is = [TAKEN, NOT_RUN].iter().any(|end| warning.message.ends_with(end));
    warning.message.split('`').nth(1).filter(|_| is)
}

fn event(reader: &mut Reader<'_>, key: &Node, scripts: &Node, totals: &BTreeMap<&str, u64>, strict: bool) {
    let name = psych::to_s(key);
    for script in items(Some(scripts)) {
        reader.ignored(entries(script), &name, SCRIPT);
        outside(reader, script.get("location"), "location", strict);
        if let Some(node) = script.get("location")
            && psych::to_s(node).trim().contains(char::is_whitespace)
        {
            let message = "`location` is a path, never a command line: this one has a space in its name";
            reader.warn(node, message).help = Some("put the arguments into the script".to_owned());
        }
    }
    let total = totals.get(name.as_str()).copied().unwrap_or_default();
    let explicit = items(Some(scripts))
        .iter()
        .any(|script| script.get("timeout").is_some());
    if total > 3600 && explicit {
        let message =
            format!("the time-outs of `{name}` add up to {total} seconds: AWS ends an event after 3600");
        reader.warn(key, message).help = Some("shorten them until they fit into an hour together".to_owned());
    }
    match lifecycle(&name) {
        None => {
            let known = LifecycleEvent::ALL.map(|event| event.to_string());
            let near = nearest(&name, known.iter().map(String::as_str)).map(str::to_owned);
            let message = format!("{} is not a lifecycle event: {TAKEN}", quoted(&name));
            reader.warn(key, message).help = Some(match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the events are {}", known.join(", ")),
            });
        }
        Some(event) if !event.is_scriptable() => {
            let message = format!("`{event}` is the agent's own event: {NOT_RUN}");
            reader.warn(key, message).help = Some(
                "use `BeforeInstall`, `AfterInstall`, `ApplicationStart` or `ValidateService`".to_owned(),
            );
        }
        Some(
            event @ (LifecycleEvent::ApplicationStop
            | LifecycleEvent::BeforeBlockTraffic
            | LifecycleEvent::AfterBlockTraffic),
        ) => {
            let message = format!(
                "`{event}` runs the script of the revision that was installed before, not of this one, and none on a new host"
            );
            reader.warn(key, message).help =
                Some("what must happen before this revision starts belongs into `BeforeInstall`".to_owned());
        }
        Some(_) => {}
    }
}

fn lifecycle(name: &str) -> Option<LifecycleEvent> {
    LifecycleEvent::ALL
        .into_iter()
        .find(|event| event.to_string() == name)
}

impl From<&Agent> for Appspec {
    fn from(agent: &Agent) -> Self {
        let mut hooks: BTreeMap<LifecycleEvent, Vec<Script>> = BTreeMap::new();
        let mut custom: Vec<(String, Vec<Script>)> = Vec::new();
        for (name, scripts) in &agent.hooks {
            let scripts = scripts.iter().map(|script| Script {
                location: script.location.clone(),
                runas: script.runas.clone(),
                sudo: script.sudo.as_ref().is_some_and(psych::truthy),
                timeout: script.timeout,
            });
            match lifecycle(name) {
                Some(event) if event.is_scriptable() => hooks.entry(event).or_default().extend(scripts),
                Some(LifecycleEvent::DownloadBundle | LifecycleEvent::Install) => {}
                Some(_) | None => match custom.iter_mut().find(|(known, _)| known == name) {
                    Some((_, known)) => known.extend(scripts),
                    None => custom.push((name.clone(), scripts.collect())),
                },
            }
        }
        Self {
            files: agent
                .files
                .iter()
                .map(|(source, destination)| FileMapping {
                    source: source.clone(),
                    destination: destination.clone(),
                })
                .collect(),
            file_exists_behavior: agent.file_exists_behavior.as_deref().map(|text| match text {
                "OVERWRITE" => FileExists::Overwrite,
                "RETAIN" => FileExists::Retain,
                _ => FileExists::Disallow,
            }),
            permissions: agent.permissions.iter().map(Permission::from).collect(),
            hooks,
            custom,
        }
    }
}

impl From<&agent::Permission> for Permission {
    fn from(permission: &agent::Permission) -> Self {
        let is = |kind: &str| permission.types.iter().any(|have| have == kind);
        Self {
            object: permission.object.clone(),
            pattern: permission.pattern.clone(),
            except: permission.except.clone(),
            files: is("file"),
            directories: is("directory"),
            owner: permission.owner.as_ref().map(psych::json),
            group: permission.group.as_ref().map(psych::json),
            mode: permission.mode.clone().map(Mode),
            acls: permission.acls.clone(),
            context: permission.context.as_ref().map(|context| Context {
                name: context.user.clone(),
                r#type: context.kind.clone(),
                range: context.range.clone(),
            }),
        }
    }
}
