//! `vend build --local`: runs a buildspec on a working tree as a platform would, without one.

mod advice;
mod outcome;
mod tree;
pub mod warden;
pub mod watch;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, sync::Arc};

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use host::build::{
    Left,
    batch::{self, End},
    local::{self, Workshop},
};
use jiff::SignedDuration;
use model::{
    Problem, Secret, Ticket,
    port::{BuildLimits, BuildOrder, Built, Commit, Fault, GIT_CREDENTIALS, Resources},
    spec::{self, Buildspec, build::Task},
};

use self::{outcome::Remains, warden::Warden};
use super::{Failure, Global, Outcome, images};
use crate::{
    config::Builds,
    output::{Output, Tone, clean},
};

/// Where images and caches of local builds stay. It is none of a platform's.
const HOME: &str = "/var/cache/vend/builds";

/// With less a build's own runner cannot work.
const MEMORY_MIB: u64 = 64;
const DISK_MIB: u64 = 64;

/// Needs root: a build runs in a container with a network of its own.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Build this working tree, with what is not committed, on this machine.
    #[arg(long, value_name = "DIR")]
    local: PathBuf,
    /// The buildspec, relative to the tree [default: buildspec.yml].
    #[arg(long, value_name = "FILE")]
    buildspec: Option<Utf8PathBuf>,
    /// What the build runs in: `standard`, a base by its name, or an image of a registry, whose login is
    /// VEND_REGISTRY_LOGIN, `USER:PASSWORD` or a token.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Put the artifacts here; the directory must be empty or not there.
    #[arg(long, value_name = "DIR")]
    artifacts: Option<Utf8PathBuf>,
    /// A variable of the build. One that the buildspec takes from a secret is kept out of the log.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    variables: Vec<String>,
    /// Run the builds of the buildspec's `batch`, rather than one build of the whole.
    #[arg(long)]
    batch: bool,
    /// Put the artifacts of all builds of a batch side by side, rather than each into a directory of its name.
    #[arg(long, requires_all = ["batch", "artifacts"])]
    combine_artifacts: bool,
    /// So many builds of a batch run at a time.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_once)]
    at_once: usize,
    /// Stop the build after this time.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    timeout: SignedDuration,
    /// So many of the tests that are not skipped must pass, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 100.0)]
    pass_rate: f64,
    /// Stop the build when it uses more memory, as a platform would.
    #[arg(long, value_name = "MIB", default_value_t = Builds::default().memory_mib)]
    memory: u64,
    /// The build may write so much to its disk.
    #[arg(long, value_name = "MIB", default_value_t = Builds::default().disk_mib)]
    disk: u64,
    /// Where images and caches of local builds stay [default: /var/cache/vend/builds].
    #[arg(long, value_name = "DIR", env = "VEND_BUILDS")]
    home: Option<Utf8PathBuf>,
}

fn at_once(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "it is a number from 1 on".to_owned())
}

fn time(text: &str) -> Result<SignedDuration, String> {
    let time: Option<SignedDuration> = text.parse().ok().filter(SignedDuration::is_positive);
    time.ok_or_else(|| "it is a time such as 90s, 15m or 1h".to_owned())
}

/// What all builds of one call have in common.
struct Order {
    tree: Utf8PathBuf,
    source: model::Digest,
    commit: Commit,
    variables: BTreeMap<String, String>,
    limits: BuildLimits,
    image: Option<String>,
    place: model::Place,
    remains: Remains,
}

pub async fn run(arguments: &BuildArgs, global: &Global) -> Outcome {
    let output = global.output();
    let tree = directory(&arguments.local)?;
    let path = buildspec(arguments, &tree)?;
    let spec = read(&tree, &path, &output)?;
    let batch = match (arguments.batch, &spec.batch) {
        (true, None) => {
            return Err(Failure::usage(format!("{path} has no `batch`"))
                .next("the same without --batch builds it as one build"));
        }
        (true, Some(batch)) => Some(batch.clone()),
        (false, _) => None,
    };
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::refused("a build needs root, for its container")
            .next(format!("sudo vend build --local {}", arguments.local.display())));
    }
    if let Some(to) = &arguments.artifacts {
        local::is_free(to).map_err(|error| failed(&error))?;
    }
    let home = arguments.home.clone().unwrap_or_else(|| HOME.into());
    let program = std::env::current_exe()
        .ok()
        .and_then(|path| Utf8PathBuf::try_from(path).ok());
    let program = program.ok_or_else(|| Failure::failed("this program cannot find itself"))?;
    let home = absolute(home)?;
    let limits = limits(arguments)?;
    let warden = Warden::start(&program, &home);
    let warden = warden.map_err(|error| Failure::file(program.as_std_path(), &error))?;
    let shop = Workshop::open(&home, program, arguments.at_once, resources()).await;
    let shop = Arc::new(shop.map_err(|error| failed(&error))?);
    let order = order(arguments, tree, &shop, limits)?;
    let built = match batch {
        Some(batch) => all(&shop, &order, &spec, &batch, arguments, &output).await,
        None => {
            let to = arguments.artifacts.as_deref();
            let one = one(&shop, &order, spec, None, to, &output).await;
            one.and_then(|built| {
                unpack(&shop, &built, to)?;
                Ok(vec![(String::new(), built)])
            })
        }
    };
    let shop = Arc::into_inner(shop).expect("every build has ended");
    shop.close().await.map_err(|error| failed(&error))?;
    warden.dismiss();
    tell(built, order.remains, arguments, &output)
}

fn failed(error: &local::Error) -> Failure {
    let failure = Failure::failed("the build cannot be made").cause(host::container::chain(error));
    match error {
        local::Error::Container(_) => failure.next("vend doctor"),
        local::Error::NotEmpty(path) => failure.next(format!(
            "name another directory with --artifacts, or empty this one: {path}"
        )),
        _ => failure,
    }
}

/// As a path that holds wherever a process works.
fn absolute(path: Utf8PathBuf) -> Result<Utf8PathBuf, Failure> {
    let found = std::path::absolute(&path).map_err(|error| Failure::file(path.as_std_path(), &error))?;
    Utf8PathBuf::try_from(found).map_err(|_| Failure::usage("the path of --home is not UTF-8"))
}

fn directory(path: &std::path::Path) -> Result<Utf8PathBuf, Failure> {
    let found = path.canonicalize().map_err(|error| Failure::file(path, &error))?;
    let found = Utf8PathBuf::try_from(found).map_err(|_| Failure::usage("the tree's path is not UTF-8"))?;
    match found.is_dir() {
        true => Ok(found),
        false => Err(Failure::usage(format!("{found} is not a directory"))),
    }
}

fn buildspec(arguments: &BuildArgs, tree: &Utf8Path) -> Result<Utf8PathBuf, Failure> {
    if let Some(path) = &arguments.buildspec {
        return Ok(path.clone());
    }
    let names = ["buildspec.yml", "buildspec.yaml"].map(Utf8PathBuf::from);
    let found = names.into_iter().find(|name| tree.join(name).is_file());
    found.ok_or_else(|| {
        Failure::usage(format!("there is no buildspec.yml in {tree}"))
            .next("vend build --local DIR --buildspec FILE")
    })
}

/// Reads a buildspec of the tree, or one beside it; says on standard error what is odd about it.
fn read(tree: &Utf8Path, path: &Utf8Path, output: &Output) -> Result<Buildspec, Failure> {
    let file = tree.join(path);
    let bytes = std::fs::read(&file).map_err(|error| {
        Failure::file(file.as_std_path(), &error)
            .next("--buildspec FILE names a file of the tree, relative to it")
    })?;
    let text = spec::decode(path.as_str(), &bytes).map_err(|problem| wrong(&[problem]))?;
    let (spec, warnings) = Buildspec::parse(text, path.as_str()).map_err(|problems| wrong(&problems))?;
    for warning in warnings {
        eprintln!(
            "{} {}",
            output.tone(Tone::Wait, "warning"),
            clean(&warning.to_string())
        );
    }
    Ok(spec)
}

fn wrong(problems: &[Problem]) -> Failure {
    let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Failure::usage("the buildspec is not valid").cause(all.join("\n"))
}

/// What a build may use: all processors, and otherwise what a platform gives that was told nothing.
fn limits(arguments: &BuildArgs) -> Result<BuildLimits, Failure> {
    if arguments.memory < MEMORY_MIB {
        return Err(Failure::usage(format!(
            "--memory must be {MEMORY_MIB} MiB or more"
        )));
    }
    if arguments.disk < DISK_MIB {
        return Err(Failure::usage(format!("--disk must be {DISK_MIB} MiB or more")));
    }
    if !(0.0..=100.0).contains(&arguments.pass_rate) {
        return Err(Failure::usage("--pass-rate must be from 0 to 100"));
    }
    if !arguments.timeout.is_positive() {
        return Err(Failure::usage("--timeout must be a time such as 90s or 1h"));
    }
    Ok(BuildLimits {
        cpu: resources().cpu,
        memory_mib: arguments.memory,
        disk_mib: arguments.disk,
        pids: Builds::default().pids,
        timeout: arguments.timeout,
        pass_rate_percent: arguments.pass_rate,
        coverage_percent: None,
    })
}

/// All processors, and most of the memory: for the images that builds run in.
fn resources() -> Resources {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = rustix::system::sysinfo();
    let total_mib = (memory.totalram as u64).saturating_mul(memory.mem_unit.into()) >> 20;
    Resources {
        cpu: cores as f64,
        memory_mib: (total_mib / 4 * 3).max(512),
        disk_mib: 20 * 1024,
        pids: 4096,
    }
}

fn order(
    arguments: &BuildArgs,
    tree: Utf8PathBuf,
    shop: &Workshop,
    limits: BuildLimits,
) -> Result<Order, Failure> {
    let mut variables = BTreeMap::new();
    for pair in &arguments.variables {
        let (name, value) = pair
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| Failure::usage(format!("--env {pair}: a variable is NAME=VALUE")))?;
        variables.insert(name.to_owned(), value.to_owned());
    }
    let commit = tree::commit(&tree);
    let mtime = u64::try_from(commit.committed_at.as_second()).unwrap_or(0);
    let source = shop
        .keep(&tree, tree::files(&tree), mtime)
        .map_err(|error| failed(&error))?;
    Ok(Order {
        place: tree::place(&tree),
        tree,
        source,
        commit,
        variables,
        image: arguments.image.clone(),
        limits,
        remains: Remains::default(),
    })
}

/// Variables that the buildspec takes from secrets come from the command line here.
fn divided(order: &Order, spec: &Buildspec) -> (BTreeMap<String, String>, BTreeMap<String, Secret>) {
    let is_secret = |name: &String| {
        spec.env.parameter_store.contains_key(name)
            || spec.env.secrets_manager.contains_key(name)
            || name == GIT_CREDENTIALS
    };
    let (secrets, plain): (BTreeMap<_, _>, BTreeMap<_, _>) = order
        .variables
        .clone()
        .into_iter()
        .partition(|(name, _)| is_secret(name));
    let secrets = secrets
        .into_iter()
        .map(|(name, value)| (name, Secret::new(value)));
    (plain, secrets.collect())
}

/// Nobody keeps secrets for this machine: refuses a build whose variables were not all given, and names them all.
fn lacks(spec: &Buildspec, given: &BTreeMap<String, Secret>) -> Result<(), Fault> {
    let parameters = spec.env.parameter_store.iter();
    let parameters = parameters.map(|(variable, name)| (variable, name.as_str()));
    let secrets = spec.env.secrets_manager.iter();
    let secrets = secrets.map(|(variable, secret)| (variable, secret.name()));
    let lacking: BTreeMap<&String, &str> = parameters
        .chain(secrets)
        .filter(|(variable, _)| !given.contains_key(*variable))
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = lacking
        .iter()
        .map(|(variable, secret)| format!("{variable} (elsewhere the secret `{secret}`)"))
        .collect();
    let given: Vec<String> = lacking.keys().map(|name| format!("--env {name}=…")).collect();
    let message = format!(
        "variables that come from secrets have no value on this machine: {}",
        named.join(", ")
    );
    Err(Fault::customer(message).next(format!("vend build --local DIR {}", given.join(" "))))
}

async fn one(
    shop: &Arc<Workshop>,
    order: &Order,
    spec: Buildspec,
    task: Option<Task>,
    to: Option<&Utf8Path>,
    output: &Output,
) -> Result<Built, Fault> {
    let name = task.as_ref().map(|task| task.identifier.clone());
    let ticket = ticket(name.as_deref());
    let (variables, secrets) = divided(order, &spec);
    lacks(&spec, &secrets)?;
    let all = &order.remains;
    let order = BuildOrder {
        place: order.place.clone(),
        source: order.source,
        buildspec: spec,
        commit: order.commit.clone(),
        number: 1,
        variables,
        secrets,
        limits: order.limits.clone(),
        labels: BTreeMap::new(),
        image: order.image.clone(),
        login: images::login(),
        task,
        push: None,
    };
    let log = format!("build/{ticket}")
        .parse()
        .map_err(|_| Fault::order("the ticket cannot name a log"))?;
    let mut watch = watch::Watch::new(Arc::clone(shop), log, name.clone(), output.clone());
    let (built, left) = {
        let yard = shop.yard.clone();
        let building = yard.build_left(&ticket, &order);
        tokio::pin!(building);
        loop {
            tokio::select! {
                built = &mut building => break built,
                () = watch.tick() => {}
            }
        }
    };
    watch.rest();
    if let Some(left) = left {
        let name = name.as_deref().unwrap_or_default();
        all.put(name, left.clone());
        remains(shop, &left, name, to, output)?;
    }
    built
}

/// Says what a build that failed has left, and unpacks its artifacts: CodeBuild uploads them too.
fn remains(
    shop: &Workshop,
    left: &Left,
    name: &str,
    to: Option<&Utf8Path>,
    output: &Output,
) -> Result<(), Fault> {
    let text = watch::parts(name, &left.phases, &left.reports, output);
    match output.json {
        true => eprint!("{text}"),
        false => print!("{text}"),
    }
    let Some(to) = to.filter(|_| left.artifact.is_some() || !left.secondary.is_empty()) else {
        return Ok(());
    };
    let unpacked = shop.unpack(left.artifact, &left.secondary, to);
    unpacked.map_err(|error| Fault::platform(host::container::chain(&error)))?;
    eprintln!("artifacts of the failed build  {}", clean(to.as_str()));
    Ok(())
}

/// A name that no other build on this machine has.
fn ticket(task: Option<&str>) -> Ticket {
    let now = super::now().as_microsecond();
    let task = task.map_or(String::new(), |task| format!("-{}", task.to_lowercase()));
    let text = format!("t-{now}-{}{task}", std::process::id());
    text.parse().expect("numbers and identifiers make a ticket")
}

async fn all(
    shop: &Arc<Workshop>,
    order: &Order,
    spec: &Buildspec,
    batch: &spec::build::Batch,
    arguments: &BuildArgs,
    output: &Output,
) -> Result<Vec<(String, Built)>, Fault> {
    let build = |task: Task| async move {
        let own = match &task.buildspec {
            Some(path) => read(&order.tree, Utf8Path::new(path), output)
                .map_err(|failure| Fault::customer(failure.cause.unwrap_or(failure.what)))?,
            None => spec.clone(),
        };
        // What is put side by side is so only when all succeed.
        let to = arguments
            .artifacts
            .as_ref()
            .filter(|_| !arguments.combine_artifacts);
        let to = to.map(|to| to.join(&task.identifier));
        let built = one(shop, order, own, Some(task), to.as_deref(), output).await?;
        // What one made is there whatever becomes of the others.
        unpack(shop, &built, to.as_deref())?;
        Ok(built)
    };
    let ended = |end: End<'_>| {
        let (word, tone, name) = match end {
            End::Succeeded(name) => ("succeeded", Tone::Good, name),
            End::Failed(name) => ("failed", Tone::Bad, name),
            End::Ignored(name) => ("failed (ignored)", Tone::Wait, name),
            End::Skipped(name) => ("skipped", Tone::Wait, name),
        };
        let of = batch.tasks.iter().find(|task| task.identifier == name);
        let of = of.map_or_else(String::new, varied);
        eprintln!("{} {}{of}", output.tone(tone, word), clean(name));
    };
    let built = batch::run(batch, arguments.at_once, build, ended).await?;
    if let (true, Some(to)) = (arguments.combine_artifacts, &arguments.artifacts) {
        let combined = shop.unpack_combined(&built, to);
        combined.map_err(|error| Fault::customer(host::container::chain(&error)))?;
    }
    Ok(built)
}

/// What tells a build of a batch from the others: the variables that are its own.
fn varied(task: &Task) -> String {
    let own: Vec<String> = task
        .variables
        .iter()
        .map(|(name, value)| clean(&format!("{name}={value}")))
        .collect();
    match own.is_empty() {
        true => String::new(),
        false => format!(" ({})", own.join(" ")),
    }
}

fn unpack(shop: &Workshop, built: &Built, to: Option<&Utf8Path>) -> Result<(), Fault> {
    match to {
        Some(to) => shop
            .unpack(Some(built.artifact), &built.secondary, to)
            .map_err(|error| Fault::platform(host::container::chain(&error))),
        None => Ok(()),
    }
}

/// The last lines: what came of it.
fn tell(
    built: Result<Vec<(String, Built)>, Fault>,
    remains: Remains,
    arguments: &BuildArgs,
    output: &Output,
) -> Outcome {
    let built = match built {
        Ok(built) => built,
        Err(mut fault) if output.json => {
            fault.next = advice::next(&fault, arguments);
            output.show(&outcome::failed(&fault, &remains.take()), |_| String::new());
            return Ok(ExitCode::FAILURE);
        }
        Err(fault) => {
            let next = advice::next(&fault, arguments);
            return Err(advice::told(fault, next));
        }
    };
    let all: BTreeMap<&str, &Built> = built.iter().map(|(name, built)| (name.as_str(), built)).collect();
    output.show(&outcome::built(&all), |_| {
        let mut text = String::new();
        for (name, built) in &built {
            text.push_str(&watch::summary(name, built, output));
        }
        if let Some(to) = &arguments.artifacts {
            text.push_str(&format!("artifacts  {to}\n"));
        }
        text
    });
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = "version: 0.2
env:
  parameter-store: { TOKEN: /shop/token }
  secrets-manager: { API_KEY: shop/api-key }
phases: { build: { commands: [make] } }
";

    #[test]
    fn all_secrets_that_nobody_gave_are_named_at_once() {
        let (spec, _) = Buildspec::parse(SPEC, "buildspec.yml").unwrap();
        let fault = lacks(&spec, &BTreeMap::new()).unwrap_err();
        for part in ["API_KEY", "`shop/api-key`", "TOKEN"] {
            assert!(fault.message.contains(part), "{}", fault.message);
        }
        assert_eq!(
            fault.next.as_deref(),
            Some("vend build --local DIR --env API_KEY=… --env TOKEN=…")
        );
        let one = BTreeMap::from([("TOKEN".to_owned(), Secret::new("x".to_owned()))]);
        let fault = lacks(&spec, &one).unwrap_err();
        assert_eq!(
            fault.next.as_deref(),
            Some("vend build --local DIR --env API_KEY=…")
        );
        let both = ["TOKEN", "API_KEY"].map(|name| (name.to_owned(), Secret::new("x".to_owned())));
        assert!(lacks(&spec, &both.into()).is_ok());
    }

    #[test]
    fn numbers_and_times_that_mean_nothing_are_refused() {
        assert_eq!(at_once("3"), Ok(3));
        assert!(at_once("0").is_err() && at_once("x").is_err());
        assert_eq!(time("90s"), Ok(SignedDuration::from_secs(90)));
        for bad in ["abc", "0s", "-1h", ""] {
            assert!(time(bad).unwrap_err().contains("90s"), "{bad}");
        }
    }
}
