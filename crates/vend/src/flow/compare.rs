//! What differs between two releases: the body of a plan.
//!
//! Pure. A plan is shown to people and bound to an approval, so it holds every difference that changes how the
//! environment behaves, and nothing that changes by itself.

use std::collections::BTreeMap;

use model::{
    plan::{Change, Subject},
    release::Release,
    spec::{Environment, Variable},
};

/// The two sides of a plan. `before` is absent for the first release of an environment.
pub struct Sides<'a> {
    pub before: Option<&'a Release>,
    pub after: &'a Release,
    /// Hosts now and then.
    pub hosts: (u32, u32),
    /// (`A`, `M`, `D`…, path), as git says.
    pub files: &'a [(String, String)],
    pub hostname: &'a str,
}

/// Files beyond this are counted, not listed.
const LISTED_FILES: usize = 100;

/// Every difference, in the order in which a reader asks: what runs, where, with what.
pub fn changes(sides: &Sides<'_>) -> Vec<Change> {
    let mut changes = Vec::new();
    let Sides { before, after, .. } = sides;
    let mut differ = |subject, name: &str, old: Option<String>, new: Option<String>| {
        if old != new {
            changes.push(Change::new(subject, name, old, new));
        }
    };
    let short = |digest: &model::Digest| digest.short();
    differ(
        Subject::Image,
        "image",
        before.map(|r| short(&r.image)),
        Some(short(&after.image)),
    );
    differ(
        Subject::Image,
        "base",
        before.map(|r| r.spec.image.base.clone()),
        Some(after.spec.image.base.clone()),
    );
    differ(
        Subject::Revision,
        "revision",
        before.map(|r| short(&r.revision)),
        Some(short(&after.revision)),
    );
    differ(
        Subject::Hosts,
        "count",
        before.map(|_| sides.hosts.0.to_string()),
        Some(sides.hosts.1.to_string()),
    );
    differ(
        Subject::Hosts,
        "size",
        before.map(|r| r.spec.host.size.clone()),
        Some(after.spec.host.size.clone()),
    );
    if before.is_none() {
        differ(
            Subject::Rule,
            sides.hostname,
            None,
            Some(format!("forward to port {}", after.spec.host.port)),
        );
    }
    differ(
        Subject::Database,
        "engine",
        before.and_then(|r| engine(&r.spec)),
        engine(&after.spec),
    );
    for (name, old, new) in pairs(
        before.map(|r| configuration(&r.spec)).unwrap_or_default(),
        configuration(&after.spec),
    ) {
        differ(Subject::Configuration, &name, old, new);
    }
    let versions = |release: &Release| -> BTreeMap<String, String> {
        release
            .secrets
            .iter()
            .map(|(name, version)| (name.clone(), format!("version {version}")))
            .collect()
    };
    for (name, old, new) in pairs(before.map(versions).unwrap_or_default(), versions(after)) {
        differ(Subject::Secret, &name, old, new);
    }
    changes.extend(files(sides.files));
    changes
}

fn files(files: &[(String, String)]) -> Vec<Change> {
    let mut changes: Vec<Change> = files.iter().take(LISTED_FILES).map(file).collect();
    if files.len() > LISTED_FILES {
        let more = format!("and {} more", files.len() - LISTED_FILES);
        changes.push(Change::new(Subject::File, more, None, None));
    }
    changes
}

fn file((kind, path): &(String, String)) -> Change {
    let side = |present: bool| present.then(|| "present".to_owned());
    let (before, after) = match kind.as_str() {
        "A" => (side(false), side(true)),
        "D" => (side(true), side(false)),
        _ => (Some("old content".into()), Some("new content".into())),
    };
    Change::new(Subject::File, path.clone(), before, after)
}

fn engine(environment: &Environment) -> Option<String> {
    let database = environment.database.as_ref()?;
    serde_json::to_value(database.engine)
        .ok()?
        .as_str()
        .map(str::to_owned)
}

/// Everything of the configuration that is not told elsewhere in the plan, as text by key.
fn configuration(environment: &Environment) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (name, variable) in &environment.host.env {
        let text = match variable {
            Variable::Plain(value) => value.clone(),
            Variable::Secret(secret) => format!("{{{{secret:{secret}}}}}"),
        };
        all.insert(format!("env.{name}"), text);
    }
    for (key, part) in [
        ("host.health", serde_json::to_value(&environment.host.health)),
        ("host.port", serde_json::to_value(environment.host.port)),
        ("deploy", serde_json::to_value(&environment.deploy)),
        ("scaling", serde_json::to_value(environment.scaling)),
        ("checks", serde_json::to_value(&environment.checks)),
        ("approval", serde_json::to_value(&environment.approval)),
    ] {
        flatten(key, &part.expect("a spec is plain data"), &mut all);
    }
    all
}

/// `{"a": {"b": 1}}` under `key` as `key.a.b` → `1`.
fn flatten(key: &str, value: &serde_json::Value, into: &mut BTreeMap<String, String>) {
    match value {
        serde_json::Value::Null => {}
        serde_json::Value::Object(fields) => {
            fields
                .iter()
                .for_each(|(name, value)| flatten(&format!("{key}.{name}"), value, into));
        }
        serde_json::Value::String(text) => drop(into.insert(key.into(), text.clone())),
        other => drop(into.insert(key.into(), other.to_string())),
    }
}

type Pair = (String, Option<String>, Option<String>);

fn pairs(mut before: BTreeMap<String, String>, after: BTreeMap<String, String>) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = after
        .into_iter()
        .map(|(key, new)| (key.clone(), before.remove(&key), Some(new)))
        .collect();
    pairs.extend(before.into_iter().map(|(key, old)| (key, Some(old), None)));
    pairs.sort();
    pairs
}
