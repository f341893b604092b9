//! What a build does: its phases, and what happens when one fails.

use std::collections::BTreeMap;

use super::{
    Batch, OnFailure, Phase, PhaseName,
    parse::{Fields, key, value},
};
use crate::{
    Problem,
    spec::{
        read::{Reader, nearest, quoted, shown},
        yaml::{Node, Value},
    },
};

/// So often does CodeBuild try again where the file does not say how often.
const RETRIES: u32 = 3;
const RETRY: &str = "RETRY-";
const PATTERN_BYTES: usize = 1_000;
const WRITE_PHASES: &str = "write `phases: { build: { commands: [ … ] } }`";

pub(super) fn phases(
    reader: &mut Reader<'_>,
    root: &Node,
    fields: Fields<'_>,
    user: Option<&str>,
) -> Vec<Phase> {
    // What is divided may have nothing to run but its parts.
    let is_divided = value(fields, "batch").is_some();
    let Some(node) = root.get("phases") else {
        if !is_divided {
            let problem = Problem::error(reader.file, 1, 1, "`phases` is missing");
            reader.problems.push(problem.help(WRITE_PHASES));
        }
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
    let is_batch_only = is_divided && phases.is_empty();
    if idle && !is_batch_only && !reader.problems.iter().any(Problem::is_error) {
        let at = key(fields, "phases").unwrap_or(node);
        reader
            .warn(at, "no phase has a command: the build succeeds and does nothing")
            .help = Some("write `phases.build.commands`".to_owned());
    }
    phases
}

/// Refuses a batch without phases of which a build names no buildspec of its own: it would run this one.
pub(super) fn idle_tasks(reader: &mut Reader<'_>, fields: Fields<'_>, batch: &Batch) {
    let idle = batch.tasks.iter().find(|task| task.buildspec.is_none());
    let (Some(task), Some(at)) = (idle, key(fields, "batch")) else {
        return;
    };
    let message = format!(
        "`phases` is missing, and the build {} of the batch names no `buildspec` of its own: it has nothing to run",
        quoted(&task.identifier)
    );
    reader.error(at, message).help = Some(match task.shard {
        Some(_) => WRITE_PHASES.to_owned(),
        None => format!("{WRITE_PHASES}, or name the `buildspec` of that build"),
    });
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
        // CodeBuild's own examples write `Retry-` too.
        Some(text) if text.eq_ignore_ascii_case("RETRY") => OnFailure::Retry {
            times: RETRIES,
            pattern: None,
        },
        Some(text) if starts_with(text, RETRY) => retry(reader, node, path, &text[RETRY.len()..]),
        _ => {
            let found = shown(node);
            let message = format!("`{path}.on-failure` must be ABORT, CONTINUE or RETRY, not {found}");
            reader.error(node, message).help =
                Some("RETRY may go on: `RETRY-5`, `RETRY-.*timed out.*`, `RETRY-5-.*timed out.*`".to_owned());
            OnFailure::Transition
        }
    }
}

fn starts_with(text: &str, start: &str) -> bool {
    text.get(..start.len())
        .is_some_and(|own| own.eq_ignore_ascii_case(start))
}

/// What follows `RETRY-`: a count, a regular expression, or both with a hyphen between them.
fn retry(reader: &mut Reader<'_>, node: &Node, path: &str, text: &str) -> OnFailure {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, pattern) = match (&text[..digits], &text[digits..]) {
        (count, "") => (count, None),
        (count, rest) if !count.is_empty() && rest.starts_with('-') => (count, Some(&rest[1..])),
        _ => ("", Some(text)),
    };
    let times = match count {
        "" => RETRIES,
        count => count
            .parse()
            .ok()
            .filter(|times| *times <= 100)
            .unwrap_or_else(|| {
                let message = format!(
                    "`{path}.on-failure` tries again 0 to 100 times, not {}",
                    quoted(count)
                );
                reader.error(node, message);
                0
            }),
    };
    if let Some(pattern) = pattern
        && let Err(why) = understood(pattern)
    {
        let message = format!("{} is not a regular expression: {why}", quoted(pattern));
        reader.error(node, message);
    }
    let pattern = pattern.map(str::to_owned);
    OnFailure::Retry { times, pattern }
}

fn understood(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("it is empty".to_owned());
    }
    if pattern.len() > PATTERN_BYTES {
        return Err(format!("it has more than {PATTERN_BYTES} bytes"));
    }
    match regex::RegexBuilder::new(pattern).size_limit(1 << 20).build() {
        Ok(_) => Ok(()),
        // The library draws the place on several lines; the last says what it is.
        Err(error) => Err(error
            .to_string()
            .lines()
            .last()
            .unwrap_or_default()
            .trim()
            .to_owned()),
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
