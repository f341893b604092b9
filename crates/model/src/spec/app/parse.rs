//! `vend.yaml`, from text to values.

use camino::Utf8Path;

use super::{
    App, Environment, Pattern,
    environment::environment,
    grammar::{ENVIRONMENT, Kind, Section, TOP, later_word},
    merge::merge,
    preview::preview,
};
use crate::{
    EnvironmentName, Problem,
    spec::{
        read::{Reader, nearest, quoted, shown},
        yaml::{Node, Value},
    },
};

/// No app has more environments, and no mapping of a file more keys: what overrides what stays cheap to work out.
const MAX_ENVIRONMENTS: usize = 50;
const MAX_KEYS: usize = 1_000;

/// Answers whether a path of the source tree is there.
pub type Tree<'t> = &'t dyn Fn(&Utf8Path) -> bool;

impl App {
    /// Reads a `vend.yaml`. `file` is its name in messages; `tree` says which paths the source tree has, relative to
    /// its root. Gives the app with warnings, or every problem, in the order of the file.
    pub fn parse(text: &str, file: &str, tree: Tree<'_>) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let mut reader = Reader::new(file);
        let app = document(&mut reader, text, tree);
        reader.finish(app)
    }
}

fn document(reader: &mut Reader<'_>, text: &str, tree: Tree<'_>) -> Option<App> {
    let Some(root) = reader.document(text) else {
        if reader.problems.is_empty() {
            let problem = Problem::error(reader.file, 0, 0, "the file is empty");
            reader.problems.push(problem.help("write at least `app: NAME`"));
        }
        return None;
    };
    if let Some(crowd) = crowded(&root) {
        reader.error(crowd, format!("more than {MAX_KEYS} keys stand in one mapping"));
        return None;
    }
    let entries = match &root.value {
        Value::Mapping(entries) => entries.as_slice(),
        _ => {
            let kind = root.kind();
            reader
                .error(&root, format!("the file must be a mapping, not {kind}"))
                .help = Some("write at least `app: NAME`".to_owned());
            return None;
        }
    };
    keys(reader, entries, &TOP, "");
    let app = match root.get("app") {
        Some(node) => name(reader, node, "app"),
        None => {
            let problem = Problem::error(reader.file, 1, 1, "`app` is missing");
            reader.problems.push(problem.help("write `app: NAME`"));
            None
        }
    };
    let shared: Vec<(Node, Node)> = entries
        .iter()
        .filter(|(key, _)| !matches!(key.text(), Some("app" | "environments" | "include")))
        .cloned()
        .collect();
    let (environments, patterns) = environments(reader, root.get("environments"), &shared, tree);
    Some(App {
        app: app?,
        environments,
        patterns,
    })
}

/// Each environment of the file, and what those of branches are made from; one `production` on `main` when the file
/// names none.
fn environments(
    reader: &mut Reader<'_>,
    node: Option<&Node>,
    shared: &[(Node, Node)],
    tree: Tree<'_>,
) -> (Vec<Environment>, Vec<Pattern>) {
    let own = node.map_or(&[] as &[_], |node| reader.mapping(node, "environments"));
    if own.len() > MAX_ENVIRONMENTS {
        let (key, _) = &own[MAX_ENVIRONMENTS];
        reader.error(key, format!("an app has at most {MAX_ENVIRONMENTS} environments"));
        return Default::default();
    }
    if own.is_empty() {
        let name = "production".parse().expect("`production` is a name");
        let only = environment(reader, name, shared, tree);
        return (only.into_iter().collect(), Vec::new());
    }
    let (mut list, mut patterns) = (Vec::new(), Vec::new());
    for (key, value) in own {
        let over = reader.mapping(value, &format!("environments.{}", key.text().unwrap_or_default()));
        keys(reader, over, &ENVIRONMENT, "");
        if let (Some(approval), None) = (value.get("approval"), entry(shared, "approval"))
            && approval.is_null()
        {
            reader.warn(approval, "`approval` is empty: nobody is asked").help =
                Some("write `approval: {}` to ask anybody with the approver's role".to_owned());
        }
        let name = name(reader, key, "environments");
        let fields = merge(shared, over);
        // Read even under a name that is refused, so that its other problems are told too.
        let stand_in = || "x".parse().expect("`x` is a name");
        let stood: EnvironmentName = name.clone().unwrap_or_else(stand_in);
        let read = environment(reader, stood.clone(), &fields, tree);
        match (preview(reader, &fields, &stood), name.and(read)) {
            (Some((branches, preview)), Some(environment)) => patterns.push(Pattern {
                branches,
                environment: Environment {
                    preview: Some(preview),
                    ..environment
                },
            }),
            (None, read) => list.extend(read),
            (Some(_), None) => {}
        }
    }
    (list, patterns)
}

pub(super) fn entry<'n>(entries: &'n [(Node, Node)], name: &str) -> Option<&'n Node> {
    entries
        .iter()
        .find(|(key, _)| key.text() == Some(name))
        .map(|(_, value)| value)
}

fn name<T: std::str::FromStr<Err = crate::id::NotAName>>(
    reader: &mut Reader<'_>,
    node: &Node,
    what: &str,
) -> Option<T> {
    match node.text().filter(|_| !node.is_null()).map(str::parse) {
        Some(Ok(name)) => Some(name),
        Some(Err(error)) => {
            let error: crate::id::NotAName = error;
            reader.error(node, error.to_string());
            None
        }
        None => {
            let found = shown(node);
            reader.error(node, format!("`{what}` must be a name, not {found}"));
            None
        }
    }
}

/// Checks the keys of a mapping and of all mappings in it against the grammar. Values are read elsewhere.
fn keys(reader: &mut Reader<'_>, entries: &[(Node, Node)], section: &'static Section, path: &str) {
    for (key, value) in entries {
        let name = key.text().unwrap_or_default();
        let full = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        let Some(known) = section.keys.iter().find(|known| known.name == name) else {
            let ready = section
                .keys
                .iter()
                .filter(|known| !matches!(known.kind, Kind::Later))
                .map(|known| known.name);
            // A key that is known and not built is a better guess than none, but never a suggestion for an unknown one.
            match nearest(name, section.keys.iter().map(|known| known.name)) {
                Some(near) => {
                    let message = match path {
                        "" => format!("{} is not a known key", quoted(name)),
                        path => format!("{} is not a known key of `{path}`", quoted(name)),
                    };
                    reader.error(key, message).help = Some(format!("did you mean `{near}`?"));
                }
                None => reader.unknown(key, path, ready.collect::<Vec<_>>()),
            }
            continue;
        };
        match &known.kind {
            Kind::Later => {
                reader.later(key, &full);
            }
            Kind::Section(inner) => {
                let entries = reader.mapping(value, &full);
                keys(reader, entries, inner, &full);
            }
            Kind::List(inner) => {
                for item in reader.list(value, &full, false) {
                    let entries = reader.mapping(item, &full);
                    keys(reader, entries, inner, &full);
                }
            }
            Kind::WordOr(_, inner) if matches!(value.value, Value::Mapping(_)) => {
                let entries = reader.mapping(value, &full);
                keys(reader, entries, inner, &full);
            }
            Kind::Word(words) | Kind::WordOr(words, _) => {
                word(reader, value, name, words);
            }
            Kind::Engine => {
                word(reader, value, name, &["embedded"]);
            }
            _ => {}
        }
    }
}

fn word(reader: &mut Reader<'_>, node: &Node, name: &str, words: &[&str]) {
    match node.text() {
        _ if node.is_null() => {}
        Some(text) if later_word(name, text) => {
            reader.later(node, text);
        }
        _ => {
            reader.word(node, name, words);
        }
    }
}

/// A mapping with more keys than any honest file has.
fn crowded(node: &Node) -> Option<&Node> {
    match &node.value {
        Value::Mapping(entries) if entries.len() > MAX_KEYS => Some(node),
        Value::Mapping(entries) => entries.iter().find_map(|(_, value)| crowded(value)),
        Value::Sequence(items) if items.len() > MAX_KEYS => Some(node),
        Value::Sequence(items) => items.iter().find_map(crowded),
        Value::Scalar { .. } => None,
    }
}
