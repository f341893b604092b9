//! What a build leaves behind: artifacts, reports, a cache.

use super::{
    Artifacts, Report, ReportFormat,
    parse::{Fields, key, value},
};
use crate::spec::{
    read::{LATER, Reader, nearest, quoted, shown},
    yaml::Node,
};

const ARTIFACTS: &[&str] = &[
    "files",
    "name",
    "discard-paths",
    "base-directory",
    "exclude-paths",
    "enable-symlinks",
    "s3-prefix",
    "secondary-artifacts",
    "type",
];

pub(super) fn artifacts(reader: &mut Reader<'_>, node: &Node) -> Option<Artifacts> {
    let fields = reader.mapping(node, "artifacts");
    reader.ignored(fields, "artifacts", ARTIFACTS);
    let secondary = value(fields, "secondary-artifacts");
    if let Some(inner) = secondary {
        reader.mapping(inner, "artifacts.secondary-artifacts");
        let at = key(fields, "secondary-artifacts").unwrap_or(inner);
        reader.later(at, "secondary-artifacts");
    }
    if let Some(node) = key(fields, "s3-prefix") {
        let message = format!("`s3-prefix` {LATER}: artifacts are addressed by their content");
        reader.warn(node, message);
    }
    let files = value(fields, "files")
        .map(|node| globs(reader, node, "artifacts.files"))
        .unwrap_or_default();
    if value(fields, "files").is_none() && secondary.is_none() {
        reader.error(node, "`artifacts.files` is missing").help =
            Some("write `files: ['**/*']` for everything".to_owned());
    }
    let mut flag = |name: &str| {
        value(fields, name)
            .and_then(|node| reader.flag(node, &format!("artifacts.{name}"), true))
            .unwrap_or(false)
    };
    let (discard_paths, enable_symlinks) = (flag("discard-paths"), flag("enable-symlinks"));
    Some(Artifacts {
        files,
        base_directory: text(reader, fields, "artifacts", "base-directory"),
        exclude_paths: value(fields, "exclude-paths")
            .map(|node| globs(reader, node, "artifacts.exclude-paths"))
            .unwrap_or_default(),
        discard_paths,
        enable_symlinks,
        name: text(reader, fields, "artifacts", "name"),
    })
}

fn text(reader: &mut Reader<'_>, fields: Fields<'_>, path: &str, name: &str) -> Option<String> {
    value(fields, name).and_then(|node| reader.text(node, &format!("{path}.{name}")))
}

fn globs(reader: &mut Reader<'_>, node: &Node, what: &str) -> Vec<String> {
    let mut list = Vec::new();
    for item in reader.list(node, what, true) {
        match reader.text(item, what) {
            Some(text) if text.contains('\0') || text.len() > 4_096 => {
                reader.error(item, format!("{} is not a path", quoted(&text)));
            }
            Some(text) => list.push(text),
            None => {}
        }
    }
    list
}

const REPORT: &[&str] = &["files", "base-directory", "discard-paths", "file-format"];
const FORMATS: &[&str] = &[
    "CUCUMBERJSON",
    "NUNITXML",
    "NUNIT3XML",
    "TESTNGXML",
    "VISUALSTUDIOTRX",
    "CLOVERXML",
    "COBERTURAXML",
    "JACOCOXML",
    "SIMPLECOV",
];

pub(super) fn reports(reader: &mut Reader<'_>, node: &Node) -> Vec<Report> {
    let groups = reader.mapping(node, "reports");
    if let Some((key, _)) = groups.get(5) {
        reader.error(key, "a build has at most 5 report groups");
    }
    groups
        .iter()
        .take(5)
        .map(|(key, node)| report(reader, key, node))
        .collect()
}

fn report(reader: &mut Reader<'_>, key: &Node, node: &Node) -> Report {
    let group = key.text().unwrap_or_default();
    let path = format!("reports.{}", group.chars().take(60).collect::<String>());
    let fields = reader.mapping(node, &path);
    reader.ignored(fields, &path, REPORT);
    let files = value(fields, "files")
        .map(|node| globs(reader, node, &format!("{path}.files")))
        .unwrap_or_default();
    if files.is_empty() {
        reader.error(key, format!("{} names no files", quoted(&path)));
    }
    if let Some(node) = value(fields, "file-format") {
        let text = reader
            .text(node, &format!("{path}.file-format"))
            .unwrap_or_default()
            .to_ascii_uppercase();
        match text.as_str() {
            "JUNITXML" | "" => {}
            known if FORMATS.contains(&known) => {
                reader.later(node, known);
            }
            _ => {
                let near = nearest(&text.to_lowercase(), FORMATS.iter().copied().chain(["JUNITXML"]));
                let found = shown(node);
                reader
                    .error(node, format!("{found} is not a format of reports"))
                    .help = near.map(|near| format!("did you mean `{near}`?"));
            }
        }
    }
    Report {
        group: group.to_owned(),
        files,
        base_directory: text(reader, fields, &path, "base-directory"),
        discard_paths: value(fields, "discard-paths")
            .and_then(|node| reader.flag(node, &format!("{path}.discard-paths"), true))
            .unwrap_or(false),
        format: ReportFormat::JunitXml,
    }
}

pub(super) fn cache(reader: &mut Reader<'_>, node: &Node) -> Vec<String> {
    let fields = reader.mapping(node, "cache");
    reader.ignored(fields, "cache", &["paths", "key", "fallback-keys", "action"]);
    for name in ["key", "fallback-keys", "action"] {
        if let Some(node) = key(fields, name) {
            let message = format!(
                "`cache.{name}` {LATER}: the app has one cache, restored before and saved after each build"
            );
            reader.warn(node, message);
        }
    }
    value(fields, "paths")
        .map(|node| globs(reader, node, "cache.paths"))
        .unwrap_or_default()
}
