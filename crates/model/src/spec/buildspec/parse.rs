//! `buildspec.yml`, from text to values.
//!
//! CodeBuild ignores keys that it does not know, so an unknown key is a warning here. What CodeBuild knows and we do
//! not build is refused where leaving it out would change what the build means, and a warning where it would not.

use std::collections::BTreeMap;

use super::{
    Buildspec, Env, OnFailure, Phase, PhaseName, Shell, Version,
    outputs::{artifacts, cache, reports},
};
use crate::{
    Problem,
    spec::{
        app::is_variable,
        read::{LATER, Reader, nearest, quoted, shown},
        yaml::{Node, Value},
    },
};

pub(super) type Fields<'n> = &'n [(Node, Node)];

const TOP: &[&str] = &[
    "version",
    "run-as",
    "env",
    "proxy",
    "batch",
    "phases",
    "reports",
    "artifacts",
    "cache",
];

impl Buildspec {
    /// Reads a buildspec. Gives it with warnings, or every problem, in the order of the file. Is a problem about
    /// something that is not built yet, its message says `is not available yet` (see [`crate::spec::is_later`]).
    pub fn parse(text: &str, file: &str) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let mut reader = Reader::new(file);
        let spec = document(&mut reader, text);
        reader.finish(spec)
    }
}

fn document(reader: &mut Reader<'_>, text: &str) -> Option<Buildspec> {
    let Some(root) = reader.document(text) else {
        if reader.problems.is_empty() {
            let problem = Problem::error(reader.file, 0, 0, "the file is empty");
            reader
                .problems
                .push(problem.help("a buildspec needs at least `version: 0.2` and `phases`"));
        }
        return None;
    };
    let Value::Mapping(fields) = &root.value else {
        let kind = root.kind();
        reader.error(&root, format!("the file must be a mapping, not {kind}"));
        return None;
    };
    let version = version(reader, &root);
    let known: Vec<&str> = TOP.iter().copied().chain(["environment_variables"]).collect();
    reader.ignored(fields, "", &known);
    let user = value(fields, "run-as").and_then(|node| reader.text(node, "run-as"));
    let env = env(reader, fields, version);
    unbuilt(reader, fields);
    let phases = phases(reader, &root, fields, user.as_deref());
    let artifacts = value(fields, "artifacts").and_then(|node| artifacts(reader, node));
    let reports = value(fields, "reports")
        .map(|node| reports(reader, node))
        .unwrap_or_default();
    let cache_paths = value(fields, "cache")
        .map(|node| cache(reader, node))
        .unwrap_or_default();
    Some(Buildspec {
        version: version?,
        env,
        phases,
        artifacts,
        reports,
        cache_paths,
    })
}

pub(super) fn value<'n>(fields: Fields<'n>, name: &str) -> Option<&'n Node> {
    fields
        .iter()
        .find(|(key, value)| key.text() == Some(name) && !value.is_null())
        .map(|(_, value)| value)
}

pub(super) fn key<'n>(fields: Fields<'n>, name: &str) -> Option<&'n Node> {
    fields
        .iter()
        .map(|(key, _)| key)
        .find(|key| key.text() == Some(name))
}

fn version(reader: &mut Reader<'_>, root: &Node) -> Option<Version> {
    let Some(node) = root.get("version").filter(|node| !node.is_null()) else {
        let problem = Problem::error(reader.file, 1, 1, "`version` is missing");
        reader.problems.push(problem.help("write `version: 0.2`"));
        return None;
    };
    let number = node.text().and_then(|text| text.trim().parse::<f64>().ok());
    match number {
        Some(0.2) => Some(Version::V0_2),
        Some(0.1) => Some(Version::V0_1),
        _ => {
            let found = shown(node);
            reader
                .error(node, format!("`version` must be 0.1 or 0.2, not {found}"))
                .help = Some("write `version: 0.2`".to_owned());
            None
        }
    }
}

fn env(reader: &mut Reader<'_>, fields: Fields<'_>, version: Option<Version>) -> Env {
    let mut env = Env::default();
    if let Some(node) = value(fields, "environment_variables") {
        old_env(
            reader,
            node,
            key(fields, "environment_variables"),
            version,
            &mut env,
        );
    }
    let Some(node) = value(fields, "env") else {
        return env;
    };
    let fields = reader.mapping(node, "env");
    let known = [
        "shell",
        "variables",
        "parameter-store",
        "secrets-manager",
        "exported-variables",
        "git-credential-helper",
    ];
    reader.ignored(fields, "env", &known);
    if let Some(node) = value(fields, "shell") {
        env.shell = shell(reader, node);
    }
    env.variables.extend(variables(reader, fields, "variables"));
    env.parameter_store = variables(reader, fields, "parameter-store");
    env.secrets_manager = variables(reader, fields, "secrets-manager");
    if let Some(node) = value(fields, "exported-variables") {
        env.exported_variables = exported(reader, node, &env);
    }
    if let Some(node) = value(fields, "git-credential-helper")
        && reader.flag(node, "env.git-credential-helper", true) == Some(true)
    {
        reader.later(node, "git-credential-helper");
    }
    env
}

/// The first version's `environment_variables: { plaintext: … }`.
fn old_env(
    reader: &mut Reader<'_>,
    node: &Node,
    key: Option<&Node>,
    version: Option<Version>,
    env: &mut Env,
) {
    let at = key.unwrap_or(node);
    if version == Some(Version::V0_2) {
        reader
            .warn(
                at,
                "`environment_variables` belongs to version 0.1: it is ignored",
            )
            .help = Some("write `env: { variables: … }`".to_owned());
        return;
    }
    let fields = reader.mapping(node, "environment_variables");
    reader.ignored(fields, "environment_variables", &["plaintext"]);
    env.variables = variables(reader, fields, "plaintext");
}

fn shell(reader: &mut Reader<'_>, node: &Node) -> Shell {
    match node.text() {
        Some("bash" | "/bin/bash") => Shell::Bash,
        Some("/bin/sh" | "sh") => Shell::Sh,
        Some(text @ ("powershell.exe" | "cmd.exe")) => {
            reader.later(node, text);
            Shell::Sh
        }
        _ => {
            let found = shown(node);
            reader.error(
                node,
                format!("`env.shell` must be `bash` or `/bin/sh`, not {found}"),
            );
            Shell::Sh
        }
    }
}

/// Names and literal texts. Numbers and booleans are taken as they are written.
fn variables(reader: &mut Reader<'_>, fields: Fields<'_>, name: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let Some(node) = value(fields, name) else {
        return variables;
    };
    for (key, value) in reader.mapping(node, &format!("env.{name}")) {
        let variable = key.text().unwrap_or_default();
        if variable.starts_with("CODEBUILD_") {
            reader.error(
                key,
                format!(
                    "{}: names that start with `CODEBUILD_` are reserved",
                    quoted(variable)
                ),
            );
            continue;
        }
        if !is_variable(variable) {
            let message = format!("{} is not the name of an environment variable", quoted(variable));
            reader.error(key, message);
            continue;
        }
        let text = match value.is_null() {
            true if name != "variables" && name != "plaintext" => {
                reader.error(value, format!("`env.{name}.{variable}` names nothing"));
                continue;
            }
            true => Some(String::new()),
            false => reader.text(value, &format!("env.{name}.{variable}")),
        };
        if let Some(text) = text {
            variables.insert(variable.to_owned(), text);
        }
    }
    variables
}

fn exported(reader: &mut Reader<'_>, node: &Node, env: &Env) -> Vec<String> {
    let mut names = Vec::new();
    for item in reader.list(node, "env.exported-variables", true) {
        let Some(name) = reader.text(item, "env.exported-variables") else {
            continue;
        };
        if name.starts_with("AWS_") {
            reader.error(
                item,
                format!(
                    "{}: variables that start with `AWS_` cannot be exported",
                    quoted(&name)
                ),
            );
        } else if env.secrets_manager.contains_key(&name) || env.parameter_store.contains_key(&name) {
            reader.error(
                item,
                format!("{} holds a secret, and secrets cannot be exported", quoted(&name)),
            );
        } else if !is_variable(&name) {
            reader.error(
                item,
                format!("{} is not the name of an environment variable", quoted(&name)),
            );
        } else {
            names.push(name);
        }
    }
    names
}

/// Sections that are left out here, with what that means.
fn unbuilt(reader: &mut Reader<'_>, fields: Fields<'_>) {
    if let Some(node) = value(fields, "proxy") {
        let inner = reader.mapping(node, "proxy");
        reader.ignored(inner, "proxy", &["upload-artifacts", "logs"]);
        for name in ["upload-artifacts", "logs"] {
            if let Some(node) = value(inner, name) {
                reader.flag(node, &format!("proxy.{name}"), true);
            }
        }
        let message =
            format!("`proxy` {LATER}: artifacts and logs do not leave the machine, so nothing changes");
        reader.warn(key(fields, "proxy").unwrap_or(node), message);
    }
    if let Some(node) = value(fields, "batch") {
        let inner = reader.mapping(node, "batch");
        let known = [
            "fast-fail",
            "build-list",
            "build-graph",
            "build-matrix",
            "build-fanout",
        ];
        reader.ignored(inner, "batch", &known);
        let message = format!("`batch` {LATER}: this is run as one build, as `start-build` does on AWS");
        reader.warn(key(fields, "batch").unwrap_or(node), message);
    }
}

fn phases(reader: &mut Reader<'_>, root: &Node, fields: Fields<'_>, user: Option<&str>) -> Vec<Phase> {
    let Some(node) = root.get("phases") else {
        let problem = Problem::error(reader.file, 1, 1, "`phases` is missing");
        reader
            .problems
            .push(problem.help("write `phases: { build: { commands: [ … ] } }`"));
        return Vec::new();
    };
    let entries = reader.mapping(node, "phases");
    let names: Vec<&str> = PhaseName::ALL.iter().map(|name| name.key()).collect();
    for (key, _) in entries {
        let name = key.text().unwrap_or_default();
        if !names.contains(&name) {
            let message = format!(
                "Invalid buildspec phase name: {}. Expecting: build,install,post_build,pre_build",
                quoted(name)
            );
            reader.error(key, message).help =
                nearest(name, names.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        }
    }
    let phases: Vec<Phase> = PhaseName::ALL
        .into_iter()
        .filter_map(|name| Some(phase(reader, name, value(entries, name.key())?, user)))
        .collect();
    let idle = phases
        .iter()
        .all(|phase| phase.commands.is_empty() && phase.finally.is_empty());
    if idle && !reader.problems.iter().any(Problem::is_error) {
        let at = key(fields, "phases").unwrap_or(node);
        reader
            .warn(at, "no phase has a command: the build succeeds and does nothing")
            .help = Some("write `phases.build.commands`".to_owned());
    }
    phases
}

fn phase(reader: &mut Reader<'_>, name: PhaseName, node: &Node, user: Option<&str>) -> Phase {
    let path = format!("phases.{}", name.key());
    let fields = reader.mapping(node, &path);
    let mut known = vec!["run-as", "on-failure", "commands", "finally"];
    if name == PhaseName::Install {
        known.push("runtime-versions");
    } else if let Some(key) = key(fields, "runtime-versions") {
        let message = "AWS reads `runtime-versions` in the `install` phase only: it is ignored here";
        reader.warn(key, message).help = Some("move it to `phases.install`".to_owned());
        known.push("runtime-versions");
    }
    reader.ignored(fields, &path, &known);
    let own = value(fields, "run-as").and_then(|node| reader.text(node, &format!("{path}.run-as")));
    let runtime_versions = match value(fields, "runtime-versions") {
        Some(node) if name == PhaseName::Install => runtimes(reader, node),
        _ => BTreeMap::new(),
    };
    Phase {
        name,
        run_as: own.or_else(|| user.map(str::to_owned)),
        on_failure: value(fields, "on-failure")
            .map(|node| on_failure(reader, node, &path))
            .unwrap_or_default(),
        commands: commands(reader, fields, "commands"),
        finally: commands(reader, fields, "finally"),
        runtime_versions,
    }
}

fn on_failure(reader: &mut Reader<'_>, node: &Node, path: &str) -> OnFailure {
    match node.text() {
        Some("ABORT") => OnFailure::Abort,
        Some("CONTINUE") => OnFailure::Continue,
        Some(text) if text == "RETRY" || text.starts_with("RETRY-") => {
            reader.later(node, text);
            OnFailure::Abort
        }
        _ => {
            let found = shown(node);
            let message = format!("`{path}.on-failure` must be ABORT, CONTINUE or RETRY, not {found}");
            reader.error(node, message);
            OnFailure::Abort
        }
    }
}

/// A command is text; what YAML reads as a number or a boolean is taken as it is written (`- true` runs `true`).
fn commands(reader: &mut Reader<'_>, fields: Fields<'_>, name: &str) -> Vec<String> {
    let Some(node) = value(fields, name) else {
        return Vec::new();
    };
    let mut commands = Vec::new();
    for (index, item) in reader.list(node, name, true).iter().enumerate() {
        match &item.value {
            Value::Scalar { .. } if item.is_null() => {
                reader.warn(item, format!("`{name}[{index}]` is empty: it is left out"));
            }
            Value::Scalar { text, .. } if text.contains('\0') => {
                reader.error(item, format!("`{name}[{index}]` holds a NUL character"));
            }
            Value::Scalar { text, .. } => commands.push(text.trim_end_matches('\n').to_owned()),
            Value::Mapping(_) => {
                let message = format!(
                    "Expected {}[{index}] to be of string type: found subkeys instead",
                    capital(name)
                );
                reader.error(item, message).help = Some(
                    "the command holds `: `, so YAML reads it as a mapping: quote the whole command, or write it after `|`"
                        .to_owned(),
                );
            }
            Value::Sequence(_) => {
                let message = format!(
                    "Expected {}[{index}] to be of string type: found a list",
                    capital(name)
                );
                reader.error(item, message);
            }
        }
    }
    commands
}

fn capital(name: &str) -> String {
    let mut text = name.to_owned();
    text[..1].make_ascii_uppercase();
    text
}

/// As CodeBuild reads them: an unquoted `3.10` is the number 3.1.
fn runtimes(reader: &mut Reader<'_>, node: &Node) -> BTreeMap<String, String> {
    let mut runtimes = BTreeMap::new();
    for (key, value) in reader.mapping(node, "runtime-versions") {
        let name = key.text().unwrap_or_default();
        let Some(text) = reader.text(value, &format!("runtime-versions.{name}")) else {
            continue;
        };
        let read = value.plain().and_then(number).unwrap_or_else(|| text.clone());
        if read != text {
            let message = format!("YAML reads {} as the number {read}", quoted(&text));
            reader.warn(value, message).help =
                Some(format!("quote it: `{}: \"{text}\"`", name.escape_debug()));
        }
        runtimes.insert(name.to_owned(), read);
    }
    runtimes
}

/// A plain decimal as a number, written as short as it can be.
fn number(text: &str) -> Option<String> {
    let shape = text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && text.bytes().any(|b| b == b'.');
    let number: f64 = text.parse().ok().filter(|_| shape && text.len() <= 15)?;
    Some(number.to_string())
}
