//! One environment, from its merged keys. Unknown keys and words were reported where they stand in the file.

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use jiff::SignedDuration;

use super::{
    Approval, Base, Build, Database, Deploy, Environment, Image, MinimumHealthy, Refresh, Scaling, Strategy,
    host::{host, is_secret},
    parse::{Tree, entry},
    ports::{domains, listeners},
};
use crate::{
    EnvironmentName, Problem,
    port::DatabaseEngine,
    spec::{
        read::{Reader, nearest, quoted, shown},
        yaml::{Node, Value},
    },
};

pub(super) type Fields<'n> = &'n [(Node, Node)];

pub(super) fn environment(
    reader: &mut Reader<'_>,
    name: EnvironmentName,
    fields: Fields<'_>,
    tree: Tree<'_>,
) -> Option<Environment> {
    let branch = branch(reader, entry(fields, "branch"), &name);
    let image = image(reader, section(fields, "image"), tree);
    let build = build(reader, section(fields, "build"), tree);
    let deploy = deploy(reader, section(fields, "deploy"), &build, tree);
    let database = database(reader, entry(fields, "database"));
    let host = host(reader, section(fields, "host"), database.is_some());
    let checks = entry(fields, "checks")
        .filter(|node| !node.is_null())
        .and_then(|node| present(reader, node, "checks", tree));
    let approval = entry(fields, "approval")
        .filter(|node| matches!(node.value, Value::Mapping(_)))
        .map(|_| approval(reader, section(fields, "approval")));
    let scaling = scaling(reader, section(fields, "scaling"));
    let listeners = listeners(reader, entry(fields, "listeners"));
    let domains = domains(reader, entry(fields, "domains"));
    Some(Environment {
        name,
        branch: branch?,
        image,
        build,
        deploy: deploy?,
        host,
        database,
        checks,
        approval,
        scaling,
        listeners,
        domains,
    })
}

/// The entries of a section; none when it is absent or not a mapping, which was reported already.
pub(super) fn section<'n>(fields: Fields<'n>, name: &str) -> Fields<'n> {
    match entry(fields, name).map(|node| &node.value) {
        Some(Value::Mapping(entries)) => entries,
        _ => &[],
    }
}

/// A value that is there and not null.
pub(super) fn value<'n>(fields: Fields<'n>, name: &str) -> Option<&'n Node> {
    entry(fields, name).filter(|node| !node.is_null())
}

fn branch(reader: &mut Reader<'_>, node: Option<&Node>, name: &EnvironmentName) -> Option<String> {
    let Some(node) = node.filter(|node| !node.is_null()) else {
        let own = name.as_str();
        return Some(if own == "production" { "main" } else { own }.to_owned());
    };
    let text = reader.text(node, "branch")?;
    if text.contains('*') {
        reader.later(node, "a pattern of branches");
        return None;
    }
    if !is_branch(&text) {
        reader.error(node, format!("{} is not the name of a branch", quoted(&text)));
        return None;
    }
    Some(text)
}

/// git's rules for a branch name (`git check-ref-format --branch`), which also keep it from looking like an option.
pub(crate) fn is_branch(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    text.len() <= 200
        && !text.starts_with('-')
        && !text.ends_with('.')
        && text != "@"
        && text != "HEAD"
        && !text.contains("..")
        && !text.contains("@{")
        && text.split('/').all(part)
        && !text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c))
}

fn image(reader: &mut Reader<'_>, fields: Fields<'_>, tree: Tree<'_>) -> Image {
    let base = base(reader, value(fields, "base"), tree);
    let login = value(fields, "login").and_then(|node| login(reader, node));
    let refresh = match value(fields, "refresh").and_then(Node::text) {
        Some("manual") => Refresh::Manual,
        Some("automatic") => Refresh::Automatic,
        _ => Refresh::Release,
    };
    let scripts = match value(fields, "scripts") {
        Some(node) => reader
            .list(node, "image.scripts", true)
            .iter()
            .filter_map(|script| present(reader, script, "image.scripts", tree))
            .collect(),
        None => Vec::new(),
    };
    let mut inputs = Vec::new();
    if let Some(node) = value(fields, "inputs") {
        for item in reader.list(node, "image.inputs", true) {
            inputs.extend(glob(reader, item));
        }
    }
    Image {
        base,
        scripts,
        inputs,
        login,
        refresh,
    }
}

/// The base's text as it is always written; one that is wrong was reported, and the default stands for it.
fn base(reader: &mut Reader<'_>, node: Option<&Node>, tree: Tree<'_>) -> String {
    let usual = || Base::NAMES[0].to_owned();
    let Some(node) = node else { return usual() };
    let Some(text) = reader.text(node, "image.base") else {
        return usual();
    };
    let base = match text.parse::<Base>() {
        Ok(base) => base,
        Err(error) => {
            let near = nearest(&text, Base::NAMES.iter().copied());
            let problem = reader.error(node, format!("{} is not a base: {error}", quoted(&text)));
            problem.help = near.map(|near| format!("did you mean `{near}`?"));
            return usual();
        }
    };
    let file = match &base {
        Base::Tar(path) => Some(path.clone()),
        Base::Layout { path, .. } => Some(path.join("index.json")),
        Base::Named(_) | Base::Oci(_) => None,
    };
    if let Some(file) = file.filter(|file| !tree(file)) {
        reader.error(
            node,
            format!("{} is not in the repository", quoted(file.as_str())),
        );
    }
    base.to_string()
}

fn login(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.text(node, "image.login")?;
    let name = text
        .trim()
        .strip_prefix("{{secret:")
        .and_then(|rest| rest.strip_suffix("}}"));
    let name = name.map(str::trim).filter(|name| is_secret(name));
    if name.is_none() {
        let problem = reader.error(node, "`image.login` must be the name of a secret");
        problem.help = Some("write `\"{{secret:NAME}}\"`".to_owned());
    }
    name.map(str::to_owned)
}

fn glob(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let path = path(reader, node, "image.inputs")?;
    if let Err(error) = globset::Glob::new(path.as_str()) {
        reader.error(
            node,
            format!("{} is not a pattern: {}", quoted(path.as_str()), error.kind()),
        );
        return None;
    }
    Some(path.into_string())
}

/// A path in the source tree: relative, and it stays inside.
fn path(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<Utf8PathBuf> {
    let text = reader.text(node, what)?;
    let path = Utf8Path::new(&text);
    let inside = path
        .components()
        .all(|part| matches!(part, Utf8Component::Normal(_) | Utf8Component::CurDir));
    if text.is_empty() || !inside || text.chars().any(char::is_control) || text.len() > 1_000 {
        reader
            .error(
                node,
                format!("{} is not a path inside the repository", quoted(&text)),
            )
            .help = Some("write it from the root of the repository, without `..`".to_owned());
        return None;
    }
    let clean: Utf8PathBuf = path
        .components()
        .filter(|part| matches!(part, Utf8Component::Normal(_)))
        .collect();
    Some(clean)
}

/// A path of a file that must be in the source tree.
fn present(reader: &mut Reader<'_>, node: &Node, what: &str, tree: Tree<'_>) -> Option<Utf8PathBuf> {
    let path = path(reader, node, what)?;
    if !tree(&path) {
        reader.error(
            node,
            format!("{} is not in the repository", quoted(path.as_str())),
        );
        return None;
    }
    Some(path)
}

fn build(reader: &mut Reader<'_>, fields: Fields<'_>, tree: Tree<'_>) -> Build {
    let buildspec = match value(fields, "buildspec") {
        Some(node) => present(reader, node, "build.buildspec", tree),
        None => first(tree, &["buildspec.yml", "buildspec.yaml"]),
    };
    let hours = SignedDuration::from_hours;
    let timeout = value(fields, "timeout")
        .and_then(|node| reader.duration(node, "build.timeout", SignedDuration::from_secs(1)..=hours(36)));
    let pass_rate = value(fields, "pass_rate").and_then(|node| percent(reader, node, "build.pass_rate"));
    Build {
        buildspec,
        timeout: timeout.unwrap_or(hours(1)),
        pass_rate: pass_rate.unwrap_or(100.0),
        coverage: value(fields, "coverage").and_then(|node| percent(reader, node, "build.coverage")),
        image: value(fields, "image").and_then(|node| reader.text(node, "build.image")),
        batch: value(fields, "batch")
            .and_then(|node| reader.flag(node, "build.batch", false))
            .unwrap_or(false),
    }
}

fn first(tree: Tree<'_>, names: &[&str]) -> Option<Utf8PathBuf> {
    names.iter().map(Utf8PathBuf::from).find(|path| tree(path))
}

fn percent(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<f64> {
    let text = node.text().unwrap_or_default();
    let digits = text.strip_suffix('%').unwrap_or(text).trim_end();
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let found = digits
        .parse::<f64>()
        .ok()
        .filter(|rate| plain && (0.0..=100.0).contains(rate));
    if found.is_none() {
        let found = shown(node);
        reader.error(
            node,
            format!("`{what}` must be a percentage from 0 to 100, not {found}"),
        );
    }
    found
}

fn deploy(reader: &mut Reader<'_>, fields: Fields<'_>, build: &Build, tree: Tree<'_>) -> Option<Deploy> {
    let appspec = match value(fields, "appspec") {
        Some(node) => {
            let path = path(reader, node, "deploy.appspec")?;
            let message = format!("{} is not in the repository", quoted(path.as_str()));
            match (tree(&path), &build.buildspec) {
                (true, _) => {}
                (false, Some(_)) => {
                    reader.warn(node, message).help =
                        Some("the build must make it, and its artifacts must hold it".to_owned());
                }
                (false, None) => {
                    reader.error(node, message);
                }
            }
            Some(path)
        }
        None => first(tree, &["appspec.yml", "appspec.yaml", "appspec.json"]),
    };
    if appspec.is_none() && !tree(Utf8Path::new("Procfile")) {
        let message =
            "nothing says how to start the app: the repository has neither an `appspec.yml` nor a `Procfile`";
        let problem = Problem::error(reader.file, 0, 0, message)
            .help("the shortest way is a `Procfile` with a line such as `web: ./start.sh`");
        reader.problems.push(problem);
    }
    let minimum_healthy = value(fields, "minimum_healthy").and_then(|node| minimum_healthy(reader, node));
    let longest = SignedDuration::from_hours(24 * 30);
    let keep_old = value(fields, "keep_old")
        .and_then(|node| reader.duration(node, "deploy.keep_old", SignedDuration::ZERO..=longest));
    Some(Deploy {
        appspec,
        strategy: Strategy::BlueGreen,
        minimum_healthy: minimum_healthy.unwrap_or(MinimumHealthy::OneAtATime),
        keep_old: keep_old.unwrap_or(SignedDuration::from_mins(10)),
    })
}

fn minimum_healthy(reader: &mut Reader<'_>, node: &Node) -> Option<MinimumHealthy> {
    let text = node.text().unwrap_or_default();
    let (digits, percent) = match text.strip_suffix('%') {
        Some(digits) => (digits.trim_end(), true),
        None => (text, false),
    };
    let number = digits
        .parse::<u32>()
        .ok()
        .filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
    match (text, number) {
        (_, Some(number)) if percent && number <= 100 => Some(MinimumHealthy::Percent(number)),
        (_, Some(number)) if !percent && number <= 1_000 => Some(MinimumHealthy::Count(number)),
        ("one-at-a-time", _) => Some(MinimumHealthy::OneAtATime),
        ("half-at-a-time", _) => Some(MinimumHealthy::HalfAtATime),
        ("all-at-once", _) => Some(MinimumHealthy::AllAtOnce),
        _ => {
            let message = format!(
                "`deploy.minimum_healthy` must be `one-at-a-time`, `half-at-a-time`, `all-at-once`, a percentage such as \
                 `75%` or a number of hosts, not {}",
                shown(node)
            );
            reader.error(node, message);
            None
        }
    }
}

fn database(reader: &mut Reader<'_>, node: Option<&Node>) -> Option<Database> {
    let node = node.filter(|node| !node.is_null())?;
    if node.get("engine").is_none_or(Node::is_null) && matches!(node.value, Value::Mapping(_)) {
        reader.error(node, "`database.engine` is missing").help = Some("write `engine: mariadb`".to_owned());
    }
    Some(Database {
        engine: DatabaseEngine::Mariadb,
    })
}

fn approval(reader: &mut Reader<'_>, fields: Fields<'_>) -> Approval {
    let by = value(fields, "by")
        .map(|node| reader.texts(node, "approval.by"))
        .unwrap_or_default();
    let required =
        value(fields, "required").and_then(|node| reader.number(node, "approval.required", 1..=20));
    let required = u32::try_from(required.unwrap_or(1)).unwrap_or(1);
    let people: std::collections::BTreeSet<&String> = by.iter().collect();
    if !by.is_empty()
        && people.len() < required as usize
        && let Some(node) = value(fields, "required").or_else(|| value(fields, "by"))
    {
        let message = format!(
            "{required} approvals are required, and `approval.by` names {} who may give one",
            people.len()
        );
        reader.error(node, message);
    }
    let author = value(fields, "author_may_approve")
        .and_then(|node| reader.flag(node, "approval.author_may_approve", false));
    let (minute, month) = (SignedDuration::from_mins(1), SignedDuration::from_hours(24 * 30));
    let expires =
        value(fields, "expires").and_then(|node| reader.duration(node, "approval.expires", minute..=month));
    Approval {
        by,
        required,
        author_may_approve: author.unwrap_or(false),
        expires: expires.unwrap_or(SignedDuration::from_hours(24)),
    }
}

fn scaling(reader: &mut Reader<'_>, fields: Fields<'_>) -> Scaling {
    let mut number = |name: &str| {
        value(fields, name)
            .and_then(|node| reader.number(node, &format!("scaling.{name}"), 1..=100))
            .and_then(|number| u32::try_from(number).ok())
    };
    let (min, max) = (number("min"), number("max"));
    let min = min.unwrap_or(1);
    let max = max.unwrap_or(min);
    if max < min
        && let Some(node) = value(fields, "max").or_else(|| value(fields, "min"))
    {
        reader.error(
            node,
            format!("`scaling.max` ({max}) is less than `scaling.min` ({min})"),
        );
    }
    Scaling { min, max }
}
