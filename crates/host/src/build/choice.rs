//! Which image a build runs in: the system that `standard` stands on, and the runtimes that are added to it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Secret,
    port::BuildOrder,
    spec::{Base, Buildspec},
};

use super::runtime::{Called, called, matches, variable};

/// A system that `standard` is made on.
struct System {
    /// The base's name.
    base: &'static str,
    /// By CodeBuild's name of a runtime, the versions that the system's packages have, the usual one first.
    runtimes: &'static [(&'static str, &'static [&'static str])],
}

/// The first that has all that a buildspec wants is taken, or of those the one with the newest Rust when `cargo` is called:
/// crates leave old compilers behind within months, and cargo before 1.68 needs a clone of the whole index.
const SYSTEMS: [System; 3] = [
    System {
        base: "debian-12",
        runtimes: &[
            ("golang", &["1.19"]),
            ("java", &["17"]),
            ("nodejs", &["18"]),
            ("php", &["8.2"]),
            ("python", &["3.11"]),
            ("ruby", &["3.1"]),
            ("rust", &["1.63"]),
        ],
    },
    System {
        base: "debian-13",
        runtimes: &[
            ("golang", &["1.24"]),
            ("java", &["21", "25"]),
            ("nodejs", &["20"]),
            ("php", &["8.4"]),
            ("python", &["3.13"]),
            ("ruby", &["3.3"]),
            ("rust", &["1.85"]),
        ],
    },
    System {
        base: "ubuntu-24.04",
        runtimes: &[
            ("dotnet", &["8.0", "10.0"]),
            ("golang", &["1.22", "1.21", "1.23", "1.24", "1.25"]),
            ("java", &["21", "8", "11", "17", "25"]),
            ("nodejs", &["18"]),
            ("php", &["8.3"]),
            ("python", &["3.12"]),
            ("ruby", &["3.2"]),
            ("rust", &["1.75"]),
        ],
    },
];

const RUST: &str = "rust";

/// Versions of Node.js that npm's registry has, each as a package of its own.
const NODES: [&str; 16] = [
    "8", "9", "10", "11", "12", "13", "14", "16", "18", "20", "21", "22", "23", "24", "25", "26",
];

/// Runtimes of which a layer is made for each version.
const VERSIONED: [&str; 3] = ["dotnet", "golang", "java"];

/// Commands that come with a runtime.
const COMMANDS: [(&str, &[&str]); 6] = [
    ("dotnet", &["dotnet"]),
    ("golang", &["go", "gofmt"]),
    (
        "java",
        &["java", "javac", "mvn", "ant", "mvnw", "gradlew", "gradle"],
    ),
    ("php", &["php", "composer", "phpunit"]),
    ("ruby", &["ruby", "gem", "bundle", "bundler", "rake", "rspec"]),
    ("rust", &["cargo", "rustc"]),
];

/// Files in the root of a source that tell its runtime, for who names none and calls only scripts and `make`.
const FILES: [(&str, &str); 6] = [
    ("go.mod", "golang"),
    ("pom.xml", "java"),
    ("build.gradle", "java"),
    ("build.gradle.kts", "java"),
    ("composer.json", "php"),
    ("Gemfile", "ruby"),
];

/// Commands of which no image has the program, and what to do about it.
const APART: [(&str, &str); 2] = [
    (
        "gradle",
        "no image has `gradle`: call the project's own, `./gradlew`",
    ),
    (
        "yarn",
        "no image has `yarn`: `npm install -g yarn` in the phase `install` brings it",
    ),
];

/// What a build runs in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice<'a> {
    /// A base by its name, as it is.
    Base(&'a str),
    /// `standard` on a system, with these runtimes on it.
    Standard {
        system: &'static str,
        tools: BTreeSet<String>,
    },
}

/// What an order's build runs in, or why nothing will do, in CodeBuild's words. A base that somebody names is taken as it
/// is: what it has is seen when it runs. `files` are those that [`looks`] asks for.
pub(super) fn choose<'o>(order: &'o BuildOrder, files: &BTreeSet<String>) -> Result<Choice<'o>, String> {
    if let Some(base) = base(order) {
        return Ok(Choice::Base(base));
    }
    let wanted = wanted(order);
    let mut called = called_runtimes(order);
    if looks(order) {
        let told = FILES.iter().filter(|(file, _)| files.contains(*file));
        called.extend(told.map(|(_, name)| *name));
    }
    let called: BTreeMap<&str, &str> = called
        .into_iter()
        .filter(|name| !wanted.contains_key(name))
        .map(|name| (name, "latest"))
        .collect();
    let with = |more: &BTreeMap<&str, &str>| {
        let all = |system: &&System| {
            let mut each = wanted.iter().chain(more);
            each.all(|(name, version)| system.has(name, version).is_some())
        };
        let mut fit = SYSTEMS.iter().filter(all);
        match more.contains_key(RUST) {
            true => fit.max_by_key(|system| system.has(RUST, "latest").map(numbers)),
            false => fit.next(),
        }
    };
    // What is only called, the build may bring itself.
    let system = with(&called).or_else(|| with(&BTreeMap::new()));
    let system = system.ok_or_else(|| refusal(&wanted))?;
    let all = wanted.iter().chain(&called);
    let tools = all.filter_map(|(name, version)| system.tool(name, system.has(name, version)?));
    Ok(Choice::Standard {
        system: system.base,
        tools: tools.collect(),
    })
}

/// Why no image of builds has the runtimes that a buildspec asks for, in the words of its build: known before one runs.
/// What only variables of the build itself tell is not looked at.
pub fn lacking(spec: &Buildspec) -> Option<String> {
    let asked = spec.phases.iter().flat_map(|phase| &phase.runtime_versions);
    let told = asked.filter_map(|(name, version)| {
        let told = match variable(version) {
            Some(variable) => spec.env.variables.get(variable)?,
            None => version,
        };
        Some((name.as_str(), told.as_str()))
    });
    let wanted: BTreeMap<&str, &str> = told.collect();
    let fits = |system: &System| {
        let mut each = wanted.iter();
        each.all(|(name, version)| system.has(name, version).is_some())
    };
    (!SYSTEMS.iter().any(fits)).then(|| refusal(&wanted))
}

/// Whether the files in the root of the source say more than the buildspec: it names no runtime, and calls none, but scripts
/// or `make`, which may.
pub(super) fn looks(order: &BuildOrder) -> bool {
    let hides = |called: Called<'_>| matches!(called, Called::Script(_)) || called.name() == "make";
    base(order).is_none()
        && wanted(order).is_empty()
        && called_runtimes(order).is_empty()
        && all_called(order).any(hides)
}

/// Whether a file in the root of a source is one that tells its runtime.
pub(super) fn tells(file: &str) -> bool {
    FILES.iter().any(|(known, _)| *known == file)
}

/// What to do about a command that ended because there is no such program (127), where one is missing that a runtime has.
/// `last`: what it wrote last.
pub(super) fn missing(order: &BuildOrder, command: &str, last: &str) -> Option<String> {
    let said = |line: &str| {
        let name = line
            .strip_suffix(": command not found")
            .or_else(|| line.strip_suffix(": not found"))
            .or_else(|| line.strip_suffix(": No such file or directory"))?;
        let name = name.rsplit(": ").next()?;
        Some(name.trim_matches(['\'', '‘', '’', '`']).to_owned())
    };
    let mut names: Vec<String> = last.lines().rev().filter_map(said).collect();
    names.extend(called(command).map(|called| called.name().to_owned()));
    if let Some((_, next)) = APART.iter().find(|(name, _)| names.iter().any(|own| own == name)) {
        return base(order).is_none().then(|| (*next).to_owned());
    }
    let (name, runtime) = names.iter().find_map(|name| {
        let (runtime, _) = COMMANDS.iter().find(|(_, own)| own.contains(&name.as_str()))?;
        Some((name, *runtime))
    })?;
    if base(order).is_some() {
        return Some(format!(
            "the image that the build names (`build.image`) has no `{name}`"
        ));
    }
    (!wanted(order).contains_key(runtime)).then(|| match runtime {
        RUST => format!("`{name}` is there for a build of whose own commands one calls `cargo`"),
        _ => format!(
            "`{name}` comes with the runtime {runtime}: ask for it in the phase `install`, \
             `runtime-versions: {{ {runtime}: latest }}`"
        ),
    })
}

/// The programs that a buildspec's commands run.
fn all_called(order: &BuildOrder) -> impl Iterator<Item = Called<'_>> {
    let phases = order.buildspec.phases.iter();
    let commands = phases.flat_map(|phase| phase.commands.iter().chain(&phase.finally));
    commands.flat_map(|command| called(command))
}

/// The runtimes whose commands a buildspec runs.
fn called_runtimes(order: &BuildOrder) -> Vec<&'static str> {
    let called: BTreeSet<&str> = all_called(order).map(Called::name).collect();
    let runs = |(name, commands): &(&'static str, &[&str])| {
        // Who brings rustup does not want the system's compiler.
        let own = *name == RUST && called.contains("rustup");
        (!own && commands.iter().any(|command| called.contains(command))).then_some(*name)
    };
    COMMANDS.iter().filter_map(runs).collect()
}

/// The base that a build runs in when it is not `standard`, which also stands for all of CodeBuild's own images.
fn base(order: &BuildOrder) -> Option<&str> {
    let own = order.task.as_ref().and_then(|task| task.image.as_deref());
    own.or(order.image.as_deref())
        .filter(|name| Base::of_builds(name).is_some())
}

/// The base that an order names itself to build in, if it names one that there can be.
pub fn image(order: &BuildOrder) -> Option<Base> {
    Base::of_builds(base(order)?)?.ok()
}

/// The base that an image's name means.
pub(super) fn named(image: &str) -> String {
    match Base::of_builds(image) {
        Some(Ok(base)) => base.to_string(),
        _ => image.to_owned(),
    }
}

/// What the registry of an image is asked with. A login is for one registry: a buildspec that names an image of another
/// one does not get it sent there.
pub(super) fn login<'a>(order: &'a BuildOrder, image: &str) -> Option<&'a Secret> {
    let registry = |image: &str| match Base::of_builds(image)? {
        Ok(Base::Oci(reference)) => Some(reference.registry),
        _ => None,
    };
    let own = registry(order.image.as_deref()?)?;
    let login = order.login.as_ref()?;
    (registry(image)? == own).then_some(login)
}

/// What CodeBuild calls the image that a build runs in.
pub(super) fn called_image(order: &BuildOrder, image: &model::Digest) -> String {
    match base(order) {
        Some(base) => base.strip_prefix("oci:").unwrap_or(base).to_owned(),
        None => format!("vend/standard:{}", image.short()),
    }
}

/// The runtimes that a buildspec asks for, with what its variables say.
fn wanted(order: &BuildOrder) -> BTreeMap<&str, &str> {
    let value = |name: &str| {
        let task = order.task.as_ref().and_then(|task| task.variables.get(name));
        let own = order.variables.get(name).or(task);
        own.or_else(|| order.buildspec.env.variables.get(name))
            .map_or("", String::as_str)
    };
    let phases = &order.buildspec.phases;
    let asked = phases.iter().flat_map(|phase| &phase.runtime_versions);
    asked
        .map(|(name, version)| (name.as_str(), variable(version).map_or(version.as_str(), value)))
        .collect()
}

impl System {
    fn versions(&self, name: &str) -> impl Iterator<Item = &'static str> + use<> {
        let own = self.runtimes.iter().find(|(known, _)| *known == name);
        let more = if name == "nodejs" { &NODES[..] } else { &[] };
        own.into_iter().flat_map(|(_, own)| *own).chain(more).copied()
    }

    /// The version that this system gives who wants one.
    fn has(&self, name: &str, wanted: &str) -> Option<&'static str> {
        self.versions(name).find(|have| matches(wanted, have))
    }

    /// The layer of a version of a runtime; `None` when `standard` itself has it.
    fn tool(&self, name: &str, version: &str) -> Option<String> {
        let own = self.runtimes.iter().find(|(known, _)| *known == name);
        match name {
            "python" => None,
            "nodejs" if own.is_some_and(|(_, own)| own.contains(&version)) => None,
            _ if name == "nodejs" || VERSIONED.contains(&name) => Some(format!("{name}-{version}")),
            _ => Some(name.to_owned()),
        }
    }
}

fn refusal(wanted: &BTreeMap<&str, &str>) -> String {
    for (name, version) in wanted {
        let all = all(name);
        if all.is_empty() {
            return super::runtime::unknown(name);
        }
        if !all.iter().any(|have| matches(version, have)) {
            return format!(
                "YAML_FILE_ERROR: Unknown runtime version named '{version}' of {name}. This build image has the \
                 following versions: {}. Ask for one of them, install it with a command, or build in an image that \
                 has it (`build.image`)",
                all.join(", ")
            );
        }
    }
    let each = wanted.iter().map(|(name, version)| {
        let systems = SYSTEMS
            .iter()
            .filter(|system| system.has(name, version).is_some());
        let systems: Vec<&str> = systems.map(|system| system.base).collect();
        format!("{name} {version} is in {}", systems.join(", "))
    });
    format!(
        "YAML_FILE_ERROR: No build image has all of these runtime versions: {}",
        each.collect::<Vec<_>>().join("; ")
    )
}

/// All versions of a runtime that there are, in order.
fn all(name: &str) -> Vec<&'static str> {
    let mut all: Vec<&'static str> = SYSTEMS.iter().flat_map(|system| system.versions(name)).collect();
    all.sort_unstable_by_key(|version| numbers(version));
    all.dedup();
    all
}

/// A version's parts, to compare.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
pub(super) mod tests;
