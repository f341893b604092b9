//! How a release is put on hosts: the strategy with what belongs to it.

use camino::{Utf8Path, Utf8PathBuf};
use jiff::SignedDuration;

use super::{
    Alarms, Analysis, Build, Deploy, Migrate, MinimumHealthy, Scaling, Steps, Strategy, Zones,
    environment::{Fields, first, path, percent, section, value},
    parse::Tree,
};
use crate::{
    AlarmName, Problem,
    spec::{
        read::{Reader, quoted, shown},
        yaml::{Node, Value},
    },
};

pub(super) fn deploy(
    reader: &mut Reader<'_>,
    fields: Fields<'_>,
    build: &Build,
    scaling: Scaling,
    placed: bool,
    tree: Tree<'_>,
) -> Option<Deploy> {
    let appspec = appspec(reader, fields, build, tree)?;
    let strategy = match value(fields, "strategy").and_then(Node::text) {
        Some("in-place") => Strategy::InPlace,
        Some("canary") => Strategy::Canary,
        Some("linear") => Strategy::Linear,
        _ => Strategy::BlueGreen,
    };
    let minimum_healthy = value(fields, "minimum_healthy").and_then(|node| minimum_healthy(reader, node));
    let minimum_healthy = minimum_healthy.unwrap_or(MinimumHealthy::OneAtATime);
    if let Some(node) = value(fields, "minimum_healthy") {
        match placed {
            // How many machines there are is seen when they are deployed to.
            true if minimum_healthy == MinimumHealthy::Percent(100) => {
                reader.error(
                    node,
                    "no host could ever be taken out: all of them must stay healthy",
                );
            }
            false if strategy == Strategy::InPlace => satisfiable(reader, node, minimum_healthy, scaling),
            _ => {}
        }
    }
    let hours = SignedDuration::from_hours;
    let mut duration = |name: &str, most| {
        let what = format!("deploy.{name}");
        value(fields, name).and_then(|node| reader.duration(node, &what, SignedDuration::ZERO..=most))
    };
    let keep_old = duration("keep_old", hours(24 * 30));
    let drain = duration("drain", hours(1));
    Some(Deploy {
        appspec,
        strategy,
        minimum_healthy,
        keep_old: keep_old.unwrap_or(SignedDuration::from_mins(10)),
        drain: drain.unwrap_or(Deploy::DRAIN),
        steps: steps(reader, fields, strategy),
        zones: zones(reader, fields, strategy, scaling, placed),
        migrate: value(fields, "migrate").and_then(|node| migrate(reader, node, fields, build, tree)),
        ignore_stop_failures: value(fields, "ignore_stop_failures")
            .and_then(|node| reader.flag(node, "deploy.ignore_stop_failures", false))
            .unwrap_or(false),
        alarms: value(fields, "alarms").and_then(|node| alarms(reader, node, section(fields, "alarms"))),
    })
}

/// What ends a deployment that somebody's monitoring is not content with.
fn alarms(reader: &mut Reader<'_>, node: &Node, fields: Fields<'_>) -> Option<Alarms> {
    let Some(list) = value(fields, "names") else {
        if matches!(node.value, Value::Mapping(_)) {
            reader.error(node, "`deploy.alarms.names` is missing").help =
                Some("write `names: [NAME]`, as your monitoring calls them".to_owned());
        }
        return None;
    };
    let mut names: Vec<AlarmName> = Vec::new();
    for text in reader.texts(list, "deploy.alarms.names") {
        match text.parse() {
            Ok(name) if names.contains(&name) => {
                reader.error(list, format!("`deploy.alarms.names` has {} twice", quoted(&text)));
            }
            Ok(name) => names.push(name),
            Err(error) => {
                reader.error(list, error.to_string());
            }
        }
    }
    if names.is_empty() || names.len() > Alarms::MOST {
        let message = format!("`deploy.alarms.names` must name 1 to {} alarms", Alarms::MOST);
        reader.error(list, message);
    }
    let flag = value(fields, "ignore_unknown");
    let ignore_unknown = flag.and_then(|node| reader.flag(node, "deploy.alarms.ignore_unknown", false));
    let (shortest, longest) = (SignedDuration::from_secs(10), SignedDuration::from_hours(24 * 7));
    let stale_after = value(fields, "stale_after")
        .and_then(|node| reader.duration(node, "deploy.alarms.stale_after", shortest..=longest));
    Some(Alarms {
        names,
        ignore_unknown: ignore_unknown.unwrap_or(false),
        stale_after,
    })
}

/// One zone after the other, where hosts keep and change their release.
fn zones(
    reader: &mut Reader<'_>,
    deploy: Fields<'_>,
    strategy: Strategy,
    scaling: Scaling,
    placed: bool,
) -> Option<Zones> {
    let node = value(deploy, "zones")?;
    if strategy != Strategy::InPlace && !placed {
        let error = reader.error(node, "`deploy.zones` is of the strategy in-place only");
        error.help = Some("new hosts serve nobody before all of them are healthy".to_owned());
        return None;
    }
    let fields = section(deploy, "zones");
    let rule = value(fields, "minimum_healthy").and_then(|node| of_zone(reader, node, scaling, placed));
    let mut watched = |name: &str| {
        let (what, day) = (format!("deploy.zones.{name}"), SignedDuration::from_hours(24));
        value(fields, name).and_then(|node| reader.duration(node, &what, SignedDuration::ZERO..=day))
    };
    let monitor = watched("monitor").unwrap_or(SignedDuration::ZERO);
    Some(Zones {
        minimum_healthy: rule.unwrap_or(MinimumHealthy::Percent(0)),
        monitor,
        first_monitor: watched("first_monitor").unwrap_or(monitor),
    })
}

/// How many of a zone's hosts stay healthy. How many machines a zone has is seen when they are deployed to; hosts of the
/// platform are all in one.
fn of_zone(reader: &mut Reader<'_>, node: &Node, scaling: Scaling, placed: bool) -> Option<MinimumHealthy> {
    let rule = minimum(node).filter(|rule| !rule.is_preset());
    let Some(rule) = rule else {
        let message = format!(
            "`deploy.zones.minimum_healthy` must be a percentage such as `75%` or a number of hosts, not {}",
            shown(node)
        );
        reader.error(node, message);
        return None;
    };
    match placed {
        true if rule == MinimumHealthy::Percent(100) => {
            reader.error(
                node,
                "no host could ever be taken out: all of every zone must stay healthy",
            );
        }
        true => {}
        false => satisfiable(reader, node, rule, scaling),
    }
    Some(rule)
}

/// The steps of canary and linear; keys that nobody would follow are refused.
fn steps(reader: &mut Reader<'_>, fields: Fields<'_>, strategy: Strategy) -> Option<Steps> {
    let own = match strategy {
        Strategy::Canary => &["percent", "interval", "analysis"][..],
        Strategy::Linear => &["percent", "steps", "interval", "analysis"][..],
        Strategy::BlueGreen | Strategy::InPlace => &[][..],
    };
    for name in ["percent", "steps", "interval", "analysis"] {
        if let Some(node) = value(fields, name).filter(|_| !own.contains(&name)) {
            let of = if name == "steps" {
                "linear"
            } else {
                "canary or linear"
            };
            reader.error(node, format!("`deploy.{name}` is of the strategy {of} only"));
        }
    }
    let usual = Steps::usual(strategy)?;
    let share = value(fields, "percent").and_then(|node| share(reader, node));
    let count = value(fields, "steps").and_then(|node| reader.number(node, "deploy.steps", 2..=100));
    if let (Some(_), Some(_), Some(node)) = (share, count, value(fields, "steps")) {
        reader.error(
            node,
            "`deploy.percent` and `deploy.steps` say the same: keep one of them",
        );
    }
    let count = count.and_then(|count| u32::try_from(count).ok());
    let (second, day) = (SignedDuration::from_secs(1), SignedDuration::from_hours(24));
    let interval =
        value(fields, "interval").and_then(|node| reader.duration(node, "deploy.interval", second..=day));
    Some(Steps {
        percent: share
            .or(count.map(|count| 100_u32.div_ceil(count)))
            .unwrap_or(usual.percent),
        interval: interval.unwrap_or(usual.interval),
        analysis: analysis(reader, section(fields, "analysis")),
    })
}

fn share(reader: &mut Reader<'_>, node: &Node) -> Option<u32> {
    let share = percent(reader, node, "deploy.percent")?;
    let whole = (1.0..=99.0).contains(&share) && share.fract() == 0.0;
    if !whole {
        let found = shown(node);
        reader.error(
            node,
            format!("`deploy.percent` must be a whole percentage from 1 to 99, not {found}"),
        );
        return None;
    }
    // From 1 to 99: nothing is cut off.
    Some(share as u32)
}

fn analysis(reader: &mut Reader<'_>, fields: Fields<'_>) -> Analysis {
    let errors = value(fields, "errors").and_then(|node| percent(reader, node, "deploy.analysis.errors"));
    let slower = value(fields, "slower").and_then(|node| {
        let text = node.text().unwrap_or_default();
        let digits = text.strip_suffix('%').unwrap_or(text).trim_end();
        let number = digits.parse::<u32>().ok().filter(|number| *number <= 10_000);
        if number.is_none() {
            let found = shown(node);
            reader.error(
                node,
                format!("`deploy.analysis.slower` must be a percentage such as `50%`, not {found}"),
            );
        }
        number
    });
    let sample =
        value(fields, "sample").and_then(|node| reader.number(node, "deploy.analysis.sample", 1..=1_000_000));
    let usual = Analysis::default();
    Analysis {
        errors: errors.unwrap_or(usual.errors),
        slower: slower.unwrap_or(usual.slower),
        sample: sample.unwrap_or(usual.sample),
    }
}

/// A minimum that leaves no host to be taken out would be refused at every deployment.
fn satisfiable(reader: &mut Reader<'_>, node: &Node, rule: MinimumHealthy, scaling: Scaling) {
    let stuck = |hosts| rule.minimum(hosts) >= hosts && !rule.is_preset();
    if stuck(scaling.max) {
        let hosts = scaling.max;
        let message = format!(
            "no host could ever be taken out: {} of {hosts} must stay healthy",
            rule.minimum(hosts)
        );
        reader.error(node, message).help =
            Some("ask for fewer healthy hosts, or have more of them".to_owned());
    } else if stuck(scaling.min) {
        let hosts = scaling.min;
        let message = format!(
            "with {hosts} hosts (`scaling.min`) every deployment is refused: all of them must stay healthy"
        );
        reader.warn(node, message);
    }
}

fn appspec(
    reader: &mut Reader<'_>,
    fields: Fields<'_>,
    build: &Build,
    tree: Tree<'_>,
) -> Option<Option<Utf8PathBuf>> {
    let appspec = match value(fields, "appspec") {
        Some(node) => Some(deployed(reader, node, "deploy.appspec", build, tree)?),
        None => first(tree, &["appspec.yml", "appspec.yaml", "appspec.json"]),
    };
    if appspec.is_none() && !tree(Utf8Path::new("Procfile")) {
        let message =
            "nothing says how to start the app: the repository has neither an `appspec.yml` nor a `Procfile`";
        let problem = Problem::error(reader.file, 0, 0, message)
            .help("the shortest way is a `Procfile` with a line such as `web: ./start.sh`");
        reader.problems.push(problem);
    }
    Some(appspec)
}

/// A path of a file that is deployed: in the source tree, unless a build makes it.
fn deployed(
    reader: &mut Reader<'_>,
    node: &Node,
    what: &str,
    build: &Build,
    tree: Tree<'_>,
) -> Option<Utf8PathBuf> {
    let path = path(reader, node, what)?;
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

fn migrate(
    reader: &mut Reader<'_>,
    node: &Node,
    deploy: Fields<'_>,
    build: &Build,
    tree: Tree<'_>,
) -> Option<Migrate> {
    let fields = section(deploy, "migrate");
    let Some(script) = value(fields, "script") else {
        if matches!(node.value, Value::Mapping(_)) {
            reader.error(node, "`deploy.migrate.script` is missing").help =
                Some("write `script: PATH`, a script of the repository".to_owned());
        }
        return None;
    };
    let script = deployed(reader, script, "deploy.migrate.script", build, tree);
    let longest = SignedDuration::from_hours(4);
    let timeout = value(fields, "timeout").and_then(|node| {
        reader.duration(
            node,
            "deploy.migrate.timeout",
            SignedDuration::from_secs(1)..=longest,
        )
    });
    Some(Migrate {
        script: script?,
        timeout: timeout.unwrap_or(SignedDuration::from_mins(10)),
        runas: value(fields, "runas").and_then(|node| user(reader, node)),
        irreversible: value(fields, "irreversible")
            .and_then(|node| reader.flag(node, "deploy.migrate.irreversible", false))
            .unwrap_or(false),
    })
}

/// The name of a user of the image (`useradd(8)`).
fn user(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.text(node, "deploy.migrate.runas")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let is_name = text.len() <= 32 && !text.starts_with('-') && text.chars().all(plain) && !text.is_empty();
    if !is_name {
        reader.error(node, format!("{} is not the name of a user", quoted(&text)));
    }
    is_name.then_some(text)
}

fn minimum_healthy(reader: &mut Reader<'_>, node: &Node) -> Option<MinimumHealthy> {
    let rule = minimum(node);
    if rule.is_none() {
        let message = format!(
            "`deploy.minimum_healthy` must be `one-at-a-time`, `half-at-a-time`, `all-at-once`, a percentage such as \
             `75%` or a number of hosts, not {}",
            shown(node)
        );
        reader.error(node, message);
    }
    rule
}

fn minimum(node: &Node) -> Option<MinimumHealthy> {
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
        _ => None,
    }
}
