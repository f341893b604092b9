//! `buildspec.yml`, from text to values.
//!
//! CodeBuild ignores keys that it does not know, so an unknown key is a warning here.

use super::{
    Buildspec, Version,
    batch::batch,
    env::env,
    outputs::{artifacts, cache, reports},
    phases::{idle_tasks, phases},
};
use crate::{
    Problem,
    spec::{
        read::{Reader, shown},
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
    /// Reads a buildspec. Gives it with warnings, or every problem, in the order of the file.
    pub fn parse(text: &str, file: &str) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let mut reader = Reader::new(file);
        let spec = document(&mut reader, text);
        reader.finish(spec)
    }
}

fn document(reader: &mut Reader<'_>, text: &str) -> Option<Buildspec> {
    let Some(root) = reader.document_with_aliases(text) else {
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
    proxy(reader, fields);
    let phases = phases(reader, &root, fields, user.as_deref());
    let artifacts = value(fields, "artifacts").map(|node| artifacts(reader, node));
    let reports = value(fields, "reports")
        .map(|node| reports(reader, node))
        .unwrap_or_default();
    let cache = value(fields, "cache")
        .map(|node| cache(reader, node))
        .unwrap_or_default();
    let batch = value(fields, "batch").and_then(|node| batch(reader, node));
    if let Some(batch) = batch.as_ref().filter(|_| phases.is_empty())
        && !reader.problems.iter().any(Problem::is_error)
    {
        idle_tasks(reader, fields, batch);
    }
    Some(Buildspec {
        version: version?,
        env,
        phases,
        artifacts,
        reports,
        cache,
        batch,
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

/// Where artifacts and logs go on their way out of a build: here they do not leave the machine.
fn proxy(reader: &mut Reader<'_>, fields: Fields<'_>) {
    let Some(node) = value(fields, "proxy") else {
        return;
    };
    let inner = reader.mapping(node, "proxy");
    reader.ignored(inner, "proxy", &["upload-artifacts", "logs"]);
    for name in ["upload-artifacts", "logs"] {
        if let Some(node) = value(inner, name) {
            reader.flag(node, &format!("proxy.{name}"), true);
        }
    }
}
