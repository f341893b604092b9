//! `batch`: one build divided into several, as a list, a graph, a matrix or a fan-out.
//!
//! All four come to the same: builds with names, some after others. What differs is only who writes the list.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    env::variables,
    parse::{Fields, key, value},
};
use crate::spec::{
    read::{Reader, quoted},
    yaml::Node,
};

/// CodeBuild's own limit.
pub const TASKS: usize = 100;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The first failure stops what still goes on.
    pub fast_fail: bool,
    /// In an order in which each comes after those that it depends on.
    pub tasks: Vec<Task>,
}

/// One build of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub identifier: String,
    /// Another buildspec than the batch's own.
    pub buildspec: Option<String>,
    /// Identifiers of the builds that must have succeeded before this one begins.
    pub depend_on: Vec<String>,
    /// Its failure is not the batch's.
    pub ignore_failure: bool,
    /// Override the buildspec's own.
    pub variables: BTreeMap<String, String>,
    pub image: Option<String>,
    /// What the builder must be, such as `arch: arm64`.
    pub labels: BTreeMap<String, String>,
    /// Which part of a fan-out this is, from 0, and of how many.
    pub shard: Option<(u32, u32)>,
}

impl Task {
    /// What stands for it in a ticket: its identifier, or a digest of it where a ticket cannot have it. The user guide
    /// allows 128 characters, capitals and `_`, as a matrix has them.
    pub fn slug(&self) -> String {
        let may = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        match self.identifier.len() <= 40 && self.identifier.bytes().all(may) {
            true => self.identifier.clone(),
            false => crate::Digest::of(&self.identifier).short(),
        }
    }

    /// It is one of several parts of a fan-out: what its tests say is not the whole.
    pub fn is_part(&self) -> bool {
        self.shard.is_some_and(|(_, of)| of > 1)
    }
}

const KINDS: [&str; 4] = ["build-list", "build-graph", "build-matrix", "build-fanout"];

pub(super) fn batch(reader: &mut Reader<'_>, node: &Node) -> Option<Batch> {
    let fields = reader.mapping(node, "batch");
    let known: Vec<&str> = KINDS.into_iter().chain(["fast-fail"]).collect();
    reader.ignored(fields, "batch", &known);
    let fast_fail = flag(reader, fields, "batch", "fast-fail");
    let kinds: Vec<&str> = KINDS
        .into_iter()
        .filter(|kind| key(fields, kind).is_some())
        .collect();
    let [kind] = kinds[..] else {
        let message =
            "`batch` must have one of `build-list`, `build-graph`, `build-matrix` and `build-fanout`";
        let at = kinds
            .get(1)
            .and_then(|second| key(fields, second))
            .unwrap_or(node);
        reader.error(at, message);
        return None;
    };
    let inner = value(fields, kind).unwrap_or(node);
    let tasks = match kind {
        "build-matrix" => matrix(reader, inner),
        "build-fanout" => fanout(reader, inner),
        kind => list(reader, inner, kind),
    };
    if tasks.is_empty() {
        if !reader.problems.iter().any(crate::Problem::is_error) {
            reader.error(
                key(fields, kind).unwrap_or(node),
                format!("`batch.{kind}` names no builds"),
            );
        }
        return None;
    }
    Some(Batch { fast_fail, tasks })
}

fn flag(reader: &mut Reader<'_>, fields: Fields<'_>, path: &str, name: &str) -> bool {
    value(fields, name)
        .and_then(|node| reader.flag(node, &format!("{path}.{name}"), true))
        .unwrap_or(false)
}

fn list(reader: &mut Reader<'_>, node: &Node, kind: &str) -> Vec<Task> {
    let path = format!("batch.{kind}");
    let items = reader.list(node, &path, false);
    let mut tasks: Vec<(Task, &Node)> = Vec::new();
    let mut names = BTreeSet::new();
    for item in items {
        if tasks.len() == TASKS {
            reader.error(item, too_many());
            break;
        }
        if let Some(task) = task(reader, item, &path, kind == "build-graph") {
            if !names.insert(task.identifier.clone()) {
                reader.error(
                    item,
                    format!("two builds are called {}", quoted(&task.identifier)),
                );
            }
            tasks.push((task, item));
        }
    }
    for (task, item) in &tasks {
        for wanted in &task.depend_on {
            if !names.contains(wanted) {
                let message = format!(
                    "{} depends on {}, and no build is called so",
                    quoted(&task.identifier),
                    quoted(wanted)
                );
                reader.error(item, message);
            }
        }
    }
    match ordered(tasks.iter().map(|(task, _)| task.clone()).collect()) {
        Ok(tasks) => tasks,
        Err(name) => {
            if !reader.problems.iter().any(crate::Problem::is_error) {
                reader.error(
                    node,
                    format!("{} depends on itself, by way of others or at once", quoted(&name)),
                );
            }
            Vec::new()
        }
    }
}

fn too_many() -> String {
    format!("a batch has at most {TASKS} builds")
}

const TASK: &[&str] = &[
    "identifier",
    "buildspec",
    "depend-on",
    "env",
    "ignore-failure",
    "debug-session",
];

fn task(reader: &mut Reader<'_>, item: &Node, path: &str, graph: bool) -> Option<Task> {
    let fields = reader.mapping(item, path);
    let known: Vec<&str> = TASK
        .iter()
        .copied()
        .filter(|name| graph || *name != "depend-on")
        .collect();
    reader.ignored(fields, path, &known);
    let Some(node) = value(fields, "identifier") else {
        reader.error(item, format!("a build of `{path}` has no `identifier`"));
        return None;
    };
    let identifier = reader.text(node, &format!("{path}.identifier"))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if identifier.len() > 128 || !identifier.chars().all(plain) {
        let message = format!(
            "{} must be letters, digits, `_` and `-`, as an identifier is",
            quoted(&identifier)
        );
        reader.error(node, message);
        return None;
    }
    flag(reader, fields, path, "debug-session");
    let mut task = Task {
        identifier,
        ignore_failure: flag(reader, fields, path, "ignore-failure"),
        buildspec: value(fields, "buildspec")
            .and_then(|node| reader.text(node, &format!("{path}.buildspec"))),
        ..Task::default()
    };
    if let Some(node) = value(fields, "depend-on").filter(|_| graph) {
        task.depend_on = reader.texts(node, &format!("{path}.depend-on"));
    }
    if let Some(node) = value(fields, "env") {
        environment(reader, node, &format!("{path}.env"), &mut task);
    }
    Some(task)
}

const ENVIRONMENT: &[&str] = &[
    "compute-type",
    "fleet",
    "image",
    "privileged-mode",
    "type",
    "variables",
    "labels",
];

fn environment(reader: &mut Reader<'_>, node: &Node, path: &str, task: &mut Task) {
    let fields = reader.mapping(node, path);
    reader.ignored(fields, path, ENVIRONMENT);
    if flag(reader, fields, path, "privileged-mode")
        && let Some(node) = value(fields, "privileged-mode")
    {
        let message = "`privileged-mode` has no effect: no build is privileged, and there is no Docker in it";
        reader.warn(node, message);
    }
    task.variables.extend(variables(reader, fields, "variables"));
    for name in ["type", "compute-type", "image", "fleet"] {
        if let Some(node) = value(fields, name)
            && let Some(text) = reader.text(node, &format!("{path}.{name}"))
        {
            choose(task, name, &text);
        }
    }
    for (key, value) in
        value(fields, "labels").map_or(&[][..], |node| reader.mapping(node, &format!("{path}.labels")))
    {
        let name = key.text().unwrap_or_default();
        if let Some(text) = reader.text(value, &format!("{path}.labels.{name}")) {
            task.labels.insert(name.to_owned(), text);
        }
    }
}

/// What CodeBuild's names of machines say about a builder.
fn choose(task: &mut Task, name: &str, text: &str) {
    let mut label = |name: &str, value: &str| drop(task.labels.insert(name.to_owned(), value.to_owned()));
    match name {
        "fleet" => label("fleet", text.rsplit('/').next().unwrap_or(text)),
        "image" => {
            if text.contains("aarch64") {
                label("arch", "arm64");
            }
            if text.contains("windows") {
                label("os", "windows");
            }
            task.image = Some(text.to_owned());
        }
        // A compute type says how large the machine is, and only those of Lambda also what it is.
        "compute-type" if text.starts_with("ARM_") => label("arch", "arm64"),
        "type" => {
            if text.starts_with("ARM_") || text == "MAC_ARM" {
                label("arch", "arm64");
            } else if text.starts_with("LINUX_") {
                label("arch", "amd64");
            }
            match text.split('_').next() {
                Some("WINDOWS") => label("os", "windows"),
                Some("MAC") => label("os", "macos"),
                _ => {}
            }
            if text.contains("GPU") {
                label("gpu", "true");
            }
        }
        _ => {}
    }
}

/// Each after those that it depends on, otherwise as they were. The error is a build that waits for itself.
fn ordered(mut waiting: Vec<Task>) -> Result<Vec<Task>, String> {
    let mut done: BTreeSet<String> = BTreeSet::new();
    let mut order = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let ready = waiting
            .iter()
            .position(|task| task.depend_on.iter().all(|name| done.contains(name)));
        let Some(ready) = ready else {
            return Err(waiting.swap_remove(0).identifier);
        };
        let task = waiting.remove(ready);
        done.insert(task.identifier.clone());
        order.push(task);
    }
    Ok(order)
}

fn fanout(reader: &mut Reader<'_>, node: &Node) -> Vec<Task> {
    let path = "batch.build-fanout";
    let fields = reader.mapping(node, path);
    reader.ignored(fields, path, &["parallelism", "ignore-failure"]);
    let ignore_failure = flag(reader, fields, path, "ignore-failure");
    let Some(wanted) = value(fields, "parallelism") else {
        reader.error(node, format!("`{path}.parallelism` is missing"));
        return Vec::new();
    };
    let of = reader.number(wanted, &format!("{path}.parallelism"), 1..=TASKS as u64);
    let of = of.map_or(0, |of| of as u32);
    let shards = 0..of;
    shards
        .map(|shard| Task {
            identifier: format!("shard{}", shard + 1),
            ignore_failure,
            shard: Some((shard, of)),
            ..Task::default()
        })
        .collect()
}

/// One way to set one thing: what the product is made of.
type Choice = (Setting, Vec<String>);

#[derive(Clone)]
enum Setting {
    Buildspec,
    Machine(&'static str),
    Variable(String),
}

fn matrix(reader: &mut Reader<'_>, node: &Node) -> Vec<Task> {
    let path = "batch.build-matrix";
    let fields = reader.mapping(node, path);
    reader.ignored(fields, path, &["static", "dynamic"]);
    let mut common = Task::default();
    if let Some(node) = value(fields, "static") {
        let path = "batch.build-matrix.static";
        let fields = reader.mapping(node, path);
        reader.ignored(fields, path, &["ignore-failure", "env"]);
        common.ignore_failure = flag(reader, fields, path, "ignore-failure");
        if let Some(node) = value(fields, "env") {
            environment(reader, node, "batch.build-matrix.static.env", &mut common);
        }
    }
    let Some(node) = value(fields, "dynamic") else {
        common.identifier = "build1".to_owned();
        return vec![common];
    };
    let choices = dynamic(reader, node);
    let count = choices
        .iter()
        .try_fold(1usize, |count, (_, values)| count.checked_mul(values.len()));
    match count {
        Some(count) if count <= TASKS => product(&common, &choices),
        _ => {
            reader.error(
                node,
                format!("the matrix has too many combinations: {}", too_many()),
            );
            Vec::new()
        }
    }
}

fn dynamic(reader: &mut Reader<'_>, node: &Node) -> Vec<Choice> {
    let path = "batch.build-matrix.dynamic";
    let fields = reader.mapping(node, path);
    reader.ignored(fields, path, &["buildspec", "env"]);
    let mut choices = Vec::new();
    if let Some(node) = value(fields, "buildspec") {
        let values = reader.texts(node, &format!("{path}.buildspec"));
        choices.push((Setting::Buildspec, values));
    }
    let Some(node) = value(fields, "env") else {
        return choices;
    };
    let path = "batch.build-matrix.dynamic.env";
    let fields = reader.mapping(node, path);
    reader.ignored(
        fields,
        path,
        &["compute-type", "fleet", "image", "type", "variables"],
    );
    for name in ["type", "compute-type", "image", "fleet"] {
        if let Some(node) = value(fields, name) {
            choices.push((
                Setting::Machine(name),
                reader.texts(node, &format!("{path}.{name}")),
            ));
        }
    }
    if let Some(node) = value(fields, "variables") {
        for (key, node) in reader.mapping(node, &format!("{path}.variables")) {
            let name = key.text().unwrap_or_default().to_owned();
            if crate::spec::app::is_variable(&name) && !name.starts_with("CODEBUILD_") {
                let values = reader.texts(node, &format!("{path}.variables.{name}"));
                choices.push((Setting::Variable(name), values));
            } else {
                let message = format!("{} is not the name of an environment variable", quoted(&name));
                reader.error(key, message);
            }
        }
    }
    choices
}

fn product(common: &Task, choices: &[Choice]) -> Vec<Task> {
    let mut tasks = vec![common.clone()];
    for (setting, values) in choices {
        let with = |task: &Task, text: &String| {
            let mut task = task.clone();
            match setting {
                Setting::Buildspec => task.buildspec = Some(text.clone()),
                Setting::Machine(name) => choose(&mut task, name, text),
                Setting::Variable(name) => drop(task.variables.insert(name.clone(), text.clone())),
            }
            task
        };
        tasks = tasks
            .iter()
            .flat_map(|task| values.iter().map(move |text| with(task, text)))
            .collect();
    }
    for (number, task) in tasks.iter_mut().enumerate() {
        task.identifier = format!("build{}", number + 1);
    }
    tasks
}
