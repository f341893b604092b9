//! What a build leaves behind: artifacts, reports, a cache.

use std::collections::BTreeMap;

use super::{
    Artifacts, Cache, Report, ReportFormat,
    parse::{Fields, value},
};
use crate::spec::{
    read::{Reader, nearest, quoted, shown},
    yaml::{Node, Value},
};

const ARTIFACTS: &[&str] = &[
    "files",
    "name",
    "discard-paths",
    "base-directory",
    "exclude-paths",
    "enable-symlinks",
    "s3-prefix",
    "type",
    "secondary-artifacts",
];
/// As many as a project on CodeBuild may have.
const SECONDARY: usize = 12;

pub(super) fn artifacts(reader: &mut Reader<'_>, node: &Node) -> Artifacts {
    let mut artifacts = one(reader, node, "artifacts", ARTIFACTS);
    let fields = reader.mapping(node, "artifacts");
    let Some(inner) = value(fields, "secondary-artifacts") else {
        return artifacts;
    };
    for (key, node) in reader.mapping(inner, "artifacts.secondary-artifacts") {
        let name = key.text().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || name.len() > 128 || !name.chars().all(plain) {
            let message = format!(
                "{} must be letters, digits and underscores, as an identifier is",
                quoted(name)
            );
            reader.error(key, message);
        } else if artifacts.secondary.len() == SECONDARY {
            reader.error(
                key,
                format!("a build has at most {SECONDARY} secondary artifacts"),
            );
            break;
        }
        let path = format!(
            "artifacts.secondary-artifacts.{}",
            name.chars().take(60).collect::<String>()
        );
        let own = one(reader, node, &path, &ARTIFACTS[..ARTIFACTS.len() - 1]);
        artifacts.secondary.insert(name.to_owned(), own);
    }
    artifacts
}

fn one(reader: &mut Reader<'_>, node: &Node, path: &str, known: &[&str]) -> Artifacts {
    let fields = reader.mapping(node, path);
    reader.ignored(fields, path, known);
    let files = value(fields, "files")
        .map(|node| globs(reader, node, &format!("{path}.files")))
        .unwrap_or_default();
    if value(fields, "files").is_none() {
        let message = format!("`{path}.files` is missing");
        // The reference asks for it in any case, and samples that have only secondary artifacts leave it out.
        let problem = match value(fields, "secondary-artifacts") {
            Some(_) => reader.warn(
                node,
                format!("{message}: there is no artifact but the secondary ones"),
            ),
            None => reader.error(node, message),
        };
        problem.help = Some("write `files: ['**/*']` for everything".to_owned());
    }
    let mut flag = |name: &str| {
        value(fields, name)
            .and_then(|node| reader.flag(node, &format!("{path}.{name}"), true))
            .unwrap_or(false)
    };
    let (discard_paths, enable_symlinks) = (flag("discard-paths"), flag("enable-symlinks"));
    Artifacts {
        files,
        base_directory: text(reader, fields, path, "base-directory"),
        exclude_paths: value(fields, "exclude-paths")
            .map(|node| globs(reader, node, &format!("{path}.exclude-paths")))
            .unwrap_or_default(),
        discard_paths,
        enable_symlinks,
        name: text(reader, fields, path, "name"),
        s3_prefix: text(reader, fields, path, "s3-prefix"),
        secondary: BTreeMap::new(),
    }
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
    let format = value(fields, "file-format").and_then(|node| format(reader, node, &path));
    Report {
        group: group.to_owned(),
        files,
        base_directory: text(reader, fields, &path, "base-directory"),
        discard_paths: value(fields, "discard-paths")
            .and_then(|node| reader.flag(node, &format!("{path}.discard-paths"), true))
            .unwrap_or(false),
        format: format.unwrap_or_default(),
    }
}

fn format(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<ReportFormat> {
    let text = reader.text(node, &format!("{path}.file-format"))?;
    let found = ReportFormat::named(&text);
    if found.is_none() {
        let names = ReportFormat::ALL.map(|(name, _)| name);
        let message = format!("{} is not a format of reports", shown(node));
        reader.error(node, message).help = Some(match nearest(&text, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known: {}", names.join(", ")),
        });
    }
    found
}

/// Warns of paths of a cache that come to nothing. Those that do are directories of the source tree, or absolute ones.
fn kept(reader: &mut Reader<'_>, node: &Node) {
    let items = match &node.value {
        Value::Sequence(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    for item in items {
        let text = item.text().unwrap_or_default();
        let plain: Vec<&str> = text
            .split('/')
            .take_while(|part| !part.contains(['*', '?', '[', '{']))
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        let why = match plain.as_slice() {
            _ if text.is_empty() => continue,
            all if all.contains(&"..") => "it leads out of where it begins",
            ["~", ..] => "`~` is no directory there, and HOME is `/root`",
            all if all.iter().any(|part| part.starts_with('$')) => "no variable is read there",
            [] if text.starts_with('/') => "it is the whole disk",
            [] => "it is the whole source tree",
            _ => continue,
        };
        let message = format!("the cache keeps nothing of {}: {why}", quoted(text));
        reader.warn(item, message).help = Some(
            "name a directory of the source tree, or an absolute one such as `/root/.cache/pip`".to_owned(),
        );
    }
}

pub(super) fn cache(reader: &mut Reader<'_>, node: &Node) -> Cache {
    let fields = reader.mapping(node, "cache");
    reader.ignored(fields, "cache", &["paths", "key", "fallback-keys", "action"]);
    let action =
        value(fields, "action").and_then(|node| reader.word(node, "cache.action", &["restore", "save"]));
    let key = text(reader, fields, "cache", "key");
    let mut fallback_keys = Vec::new();
    if let Some(node) = value(fields, "fallback-keys") {
        fallback_keys = reader.texts(node, "cache.fallback-keys");
        if fallback_keys.len() > 5 {
            reader.error(node, "`cache.fallback-keys` has at most 5 keys");
        }
        if key.is_none() {
            reader.warn(node, "`cache.fallback-keys` is ignored without `cache.key`");
        }
    }
    if value(fields, "paths").is_none() {
        reader.warn(node, "`cache.paths` is missing: nothing is kept");
    }
    if let Some(node) = value(fields, "paths") {
        kept(reader, node);
    }
    Cache {
        paths: value(fields, "paths")
            .map(|node| globs(reader, node, "cache.paths"))
            .unwrap_or_default(),
        key,
        fallback_keys,
        restore: action != Some("save"),
        save: action != Some("restore"),
    }
}
