//! One environment, from its merged keys. Unknown keys and words were reported where they stand in the file.

use std::collections::BTreeMap;

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use jiff::SignedDuration;

use super::{
    Approval, Base, Build, Database, Environment, Image, Leads, Placement, Port, Refresh, Scaling, Variable,
    deploy::deploy,
    host::{host, is_secret, variables},
    parse::{Tree, entry},
    ports::{domains, listeners},
    sign::authenticate,
    traffic::access,
};
use crate::{
    EnvironmentName,
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
    let database = database(reader, entry(fields, "database"));
    let host = host(reader, section(fields, "host"), database.is_some());
    let checks = entry(fields, "checks")
        .filter(|node| !node.is_null())
        .and_then(|node| present(reader, node, "checks", tree));
    let approval = entry(fields, "approval")
        .filter(|node| matches!(node.value, Value::Mapping(_)))
        .map(|_| approval(reader, section(fields, "approval")));
    let scaling = scaling(reader, section(fields, "scaling"));
    let placed = value(section(fields, "placement"), "registered").is_some();
    let image = if placed { bare(reader, tree) } else { image };
    let deploy = deploy(reader, section(fields, "deploy"), &build, scaling, placed, tree);
    let listeners = listeners(reader, entry(fields, "listeners"));
    let domains = domains(reader, entry(fields, "domains"));
    let placement = placement(reader, fields);
    let authenticate = authenticate(reader, fields);
    let access = access(reader, fields);
    let sleep_after = sleep_after(reader, fields, &listeners);
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
        placement,
        sleep_after,
        preview: None,
        authenticate,
        access,
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
        let problem = reader.error(
            node,
            format!(
                "{} is a pattern, and an environment follows one branch",
                quoted(&text)
            ),
        );
        problem.help = Some("write `branches` for one environment for each branch".to_owned());
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

/// Machines have a system of their own. Nothing is baked for them, and a newer base is no reason to deploy again.
fn bare(reader: &mut Reader<'_>, tree: Tree<'_>) -> Image {
    Image {
        refresh: Refresh::Manual,
        ..image(reader, &[], tree)
    }
}

fn image(reader: &mut Reader<'_>, fields: Fields<'_>, tree: Tree<'_>) -> Image {
    let base = base(reader, value(fields, "base"), tree);
    let login = value(fields, "login").and_then(|node| secret(reader, node, "image.login"));
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

/// The name of a secret, where only one may stand.
pub(super) fn secret(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<String> {
    let text = reader.text(node, what)?;
    let name = text
        .trim()
        .strip_prefix("{{secret:")
        .and_then(|rest| rest.strip_suffix("}}"));
    let name = name.map(str::trim).filter(|name| is_secret(name));
    if name.is_none() {
        let problem = reader.error(node, format!("`{what}` must be the name of a secret"));
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
pub(super) fn path(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<Utf8PathBuf> {
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
    let mut time = |name: &str| {
        let node = value(fields, name)?;
        reader.duration(
            node,
            &format!("build.{name}"),
            SignedDuration::from_secs(1)..=hours(36),
        )
    };
    let (timeout, batch_timeout) = (time("timeout"), time("batch_timeout"));
    let mut flag = |name: &str| {
        value(fields, name)
            .and_then(|node| reader.flag(node, &format!("build.{name}"), false))
            .unwrap_or(false)
    };
    let (batch, combine_artifacts) = (flag("batch"), flag("combine_artifacts"));
    let of_batch = fields.iter().filter(|(key, _)| match key.text() {
        Some("combine_artifacts") => combine_artifacts,
        Some("batch_timeout") => true,
        _ => false,
    });
    for (key, _) in of_batch.filter(|_| !batch) {
        let name = key.text().unwrap_or_default();
        reader.error(
            key,
            format!("`build.{name}` is of a batch: `build.batch` must be true"),
        );
    }
    let pass_rate = value(fields, "pass_rate").and_then(|node| percent(reader, node, "build.pass_rate"));
    let (image, login) = build_image(reader, fields);
    Build {
        buildspec,
        timeout: timeout.unwrap_or(hours(1)),
        pass_rate: pass_rate.unwrap_or(100.0),
        pass_rate_asked: pass_rate.is_some(),
        coverage: value(fields, "coverage").and_then(|node| percent(reader, node, "build.coverage")),
        image,
        login,
        batch,
        combine_artifacts,
        batch_timeout: batch_timeout.unwrap_or(Build::usual_batch_timeout()),
        env: build_variables(reader, fields),
    }
}

fn build_variables(reader: &mut Reader<'_>, fields: Fields<'_>) -> BTreeMap<String, Variable> {
    let reserved = |name: &str| {
        let own = name.starts_with("CODEBUILD_");
        own.then(|| {
            format!(
                "{} is no variable of yours: `CODEBUILD_` is reserved",
                quoted(name)
            )
        })
    };
    match value(fields, "env") {
        Some(node) => variables(reader, node, "build.env", &reserved),
        None => BTreeMap::new(),
    }
}

/// What builds run in, and what its registry is asked with.
fn build_image(reader: &mut Reader<'_>, fields: Fields<'_>) -> (Option<String>, Option<String>) {
    let named = value(fields, "image").and_then(|node| Some((node, reader.text(node, "build.image")?)));
    let base = named.as_ref().and_then(|(_, image)| Base::of_builds(image));
    if let (Some((node, image)), Some(Err(error))) = (&named, &base) {
        let message = format!("{} is no image that builds run in: {error}", quoted(image));
        reader.error(node, message).help = Some("write `image: standard`, or leave it out".to_owned());
    }
    let login = value(fields, "login").and_then(|node| {
        if !matches!(base, Some(Ok(Base::Oci(_)) | Err(_))) {
            let message = "`build.login` is for the registry of `build.image`, which names no registry";
            reader.error(node, message).help = Some("write `image: oci:REGISTRY/NAME:TAG`".to_owned());
        }
        secret(reader, node, "build.login")
    });
    (named.map(|(_, image)| image), login)
}

pub(super) fn first(tree: Tree<'_>, names: &[&str]) -> Option<Utf8PathBuf> {
    names.iter().map(Utf8PathBuf::from).find(|path| tree(path))
}

pub(super) fn percent(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<f64> {
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

fn placement(reader: &mut Reader<'_>, fields: Fields<'_>) -> Option<Placement> {
    let node = value(section(fields, "placement"), "registered")?;
    let mut registered = BTreeMap::new();
    let labels = reader.mapping(node, "placement.registered");
    for (name, label) in labels {
        let name = name.text().unwrap_or_default();
        match (is_label(name), label.text().filter(|text| is_label(text))) {
            (true, Some(text)) => drop(registered.insert(name.to_owned(), text.to_owned())),
            _ => drop(reader.error(label, format!("{} is not a label", quoted(name)))),
        }
    }
    if labels.is_empty() {
        reader.error(node, "`placement.registered` names no label").help =
            Some("write the labels of the machines, such as `{ role: web }`".to_owned());
    }
    // What stands beside a fleet of the platform's own needs its network.
    for (inner, path) in [
        (value(fields, "database"), "database beside placement.registered"),
        (
            value(section(fields, "deploy"), "migrate"),
            "deploy.migrate beside placement.registered",
        ),
        (
            value(section(fields, "deploy"), "percent"),
            "deploy.percent beside placement.registered",
        ),
        (
            value(section(fields, "deploy"), "steps"),
            "deploy.steps beside placement.registered",
        ),
        (
            value(section(fields, "deploy"), "interval"),
            "deploy.interval beside placement.registered",
        ),
        (
            value(section(fields, "deploy"), "analysis"),
            "deploy.analysis beside placement.registered",
        ),
        (
            value(fields, "listeners"),
            "listeners beside placement.registered",
        ),
        (value(fields, "domains"), "domains beside placement.registered"),
        (
            value(fields, "authenticate"),
            "authenticate beside placement.registered",
        ),
        (
            value(fields, "sleep_after"),
            "sleep_after beside placement.registered",
        ),
    ] {
        if let Some(inner) = inner {
            reader.later(inner, path);
        }
    }
    Some(Placement { registered })
}

/// Only what goes through the load balancer is seen, and can wake anybody.
fn sleep_after(reader: &mut Reader<'_>, fields: Fields<'_>, ports: &[Port]) -> Option<SignedDuration> {
    let node = value(fields, "sleep_after")?;
    if ports.iter().any(|port| port.leads != Leads::Balancer) {
        let message = "`sleep_after` cannot be followed beside a port whose name leads to the hosts: who uses it is \
                       not seen, and wakes nobody";
        reader.error(node, message).help = Some("leave out `name: hosts` of the port".to_owned());
        return None;
    }
    let (least, most) = (SignedDuration::from_secs(10), SignedDuration::from_hours(24 * 30));
    reader.duration(node, "sleep_after", least..=most)
}

/// A label's name or value: what is safe in a command line, an environment and a table.
pub fn is_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !text.is_empty() && text.len() <= 63 && text.chars().all(plain)
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
