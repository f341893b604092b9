//! What buildspecs of CodeBuild's user guide mean: the reader keeps all that they say, and nothing else.

use model::spec::{
    Buildspec,
    build::{Artifacts, ReportFormat},
};
use serde_json::{Map, Value, json};

use crate::common;

/// Sections that a build's commands are not told of.
const ASIDE: [&str; 3] = ["version", "proxy", "eb_codebuild_settings"];

#[test]
fn the_user_guide_s_buildspecs_are_kept_whole() {
    let Some(folder) = common::conformance("buildspec/docs") else {
        return;
    };
    let (mut compared, mut wrong) = (0, Vec::new());
    for path in common::files(&folder, &[".yml"]) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let expected = common::json(&folder.join(format!("{name}.expected.json")));
        let text = std::fs::read_to_string(&path).unwrap();
        let (Ok((spec, _)), Value::Object(mut parsed)) =
            (Buildspec::parse(&text, &name), expected["parsed_yaml11"].clone())
        else {
            continue;
        };
        parsed.retain(|key, _| !ASIDE.contains(&key.as_str()));
        let expected = plain(&Value::Object(parsed)).unwrap_or(json!({}));
        let found = plain(&told(&spec)).unwrap_or(json!({}));
        compared += 1;
        if found != expected {
            wrong.push(format!("{name}:\n  {found}\n  {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 20, "{compared}");
}

/// A buildspec as its file says it.
fn told(spec: &Buildspec) -> Value {
    let phase = |phase: &model::spec::build::Phase| {
        let all = json!({
            "commands": phase.commands,
            "finally": phase.finally,
            "runtime-versions": phase.runtime_versions,
        });
        (phase.name.key().to_owned(), all)
    };
    let report = |report: &model::spec::build::Report| {
        let format = ReportFormat::ALL
            .iter()
            .find(|(_, format)| *format == report.format);
        let format = format.map(|(name, _)| *name).filter(|name| *name != "JUNITXML");
        let all = json!({
            "files": report.files,
            "base-directory": report.base_directory,
            "discard-paths": report.discard_paths,
            "file-format": format,
        });
        (report.group.clone(), all)
    };
    let tasks = spec.batch.iter().flat_map(|batch| &batch.tasks);
    let tasks: Vec<Value> = tasks
        .map(|task| json!({ "identifier": task.identifier }))
        .collect();
    json!({
        "env": { "variables": spec.env.variables, "parameter-store": spec.env.parameter_store },
        "phases": spec.phases.iter().map(phase).collect::<Map<String, Value>>(),
        "artifacts": spec.artifacts.as_ref().map(artifacts),
        "cache": { "paths": spec.cache.paths },
        "reports": spec.reports.iter().map(report).collect::<Map<String, Value>>(),
        "batch": { "build-list": tasks },
    })
}

fn artifacts(own: &Artifacts) -> Value {
    let secondary = own
        .secondary
        .iter()
        .map(|(name, own)| (name.clone(), artifacts(own)));
    json!({
        "files": own.files,
        "base-directory": own.base_directory,
        "exclude-paths": own.exclude_paths,
        "discard-paths": own.discard_paths,
        "enable-symlinks": own.enable_symlinks,
        "name": own.name,
        "s3-prefix": own.s3_prefix,
        "secondary-artifacts": secondary.collect::<Map<String, Value>>(),
    })
}

/// Without what says nothing; text for what is written as a number, and a list of one for what may be one.
fn plain(value: &Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some(json!("true")),
        Value::Number(number) => Some(json!(number.to_string())),
        Value::String(text) => Some(json!(text)),
        Value::Array(items) => {
            let items: Vec<Value> = items.iter().filter_map(plain).collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        Value::Object(all) => {
            let one = |(key, value): (&String, &Value)| {
                let value = match (key.as_str(), plain(value)?) {
                    // What a build of a batch runs on is compared by the reader's own tests.
                    ("env", _) if all.contains_key("identifier") => return None,
                    ("files" | "commands" | "finally" | "paths", Value::String(text)) => json!([text]),
                    ("file-format", Value::String(text)) => {
                        let text = text.to_uppercase();
                        return (text != "JUNITXML").then(|| (key.clone(), json!(text)));
                    }
                    (_, value) => value,
                };
                Some((key.clone(), value))
            };
            let all: Map<String, Value> = all.iter().filter_map(one).collect();
            (!all.is_empty()).then_some(Value::Object(all))
        }
    }
}
