//! What a build's commands find in their environment, and where it comes from.

use std::collections::BTreeMap;

use super::{
    Env, SecretRef, Shell, Version,
    parse::{Fields, key, value},
};
use crate::spec::{
    app::is_variable,
    read::{Reader, quoted, shown},
    yaml::Node,
};

pub(super) fn env(reader: &mut Reader<'_>, fields: Fields<'_>, version: Option<Version>) -> Env {
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
    env.secrets_manager = secrets(reader, fields);
    if let Some(node) = value(fields, "exported-variables") {
        env.exported_variables = exported(reader, node, &env);
    }
    env.git_credential_helper = value(fields, "git-credential-helper")
        .and_then(|node| reader.flag(node, "env.git-credential-helper", true))
        .unwrap_or(false);
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
        Some("powershell.exe") => windows(reader, node, Shell::PowerShell),
        Some("cmd.exe") => windows(reader, node, Shell::Cmd),
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

fn windows(reader: &mut Reader<'_>, node: &Node, shell: Shell) -> Shell {
    let message = "the shell is one of Windows: the build needs a builder with the label `os: windows`";
    reader.warn(node, message);
    shell
}

/// `id[:json-key[:version-stage[:version-id]]]`; the id is a name or an ARN, which has six colons of its own.
fn secrets(reader: &mut Reader<'_>, fields: Fields<'_>) -> BTreeMap<String, SecretRef> {
    let mut secrets = BTreeMap::new();
    for (variable, text) in variables(reader, fields, "secrets-manager") {
        let at = value(fields, "secrets-manager").and_then(|node| node.get(&variable));
        let own = if text.starts_with("arn:") { 7 } else { 1 };
        let parts: Vec<&str> = text.split(':').collect();
        let (id, rest) = parts.split_at(own.min(parts.len()));
        let part = |index: usize| {
            rest.get(index)
                .filter(|part| !part.is_empty())
                .map(|part| (*part).to_owned())
        };
        if let Some(at) = at
            && (rest.len() > 3 || id.len() < own || id.iter().all(|part| part.is_empty()))
        {
            let message = format!(
                "{} must be `secret-id:json-key:version-stage:version-id`, of which the first is needed",
                quoted(&text)
            );
            reader.error(at, message);
            continue;
        }
        let (json_key, stage, version) = (part(0), part(1), part(2));
        let id = id.join(":");
        secrets.insert(
            variable,
            SecretRef {
                id,
                json_key,
                stage,
                version,
            },
        );
    }
    secrets
}

/// Names and literal texts. Numbers and booleans are taken as they are written.
pub(super) fn variables(reader: &mut Reader<'_>, fields: Fields<'_>, name: &str) -> BTreeMap<String, String> {
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
