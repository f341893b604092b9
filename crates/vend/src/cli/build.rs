//! `vend build --local`: runs a buildspec on a working tree as a platform would, without one.

mod advice;
mod given;
mod limits;
mod outcome;
mod tree;
pub mod warden;
pub mod watch;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, sync::Arc};

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use host::build::{
    Left, Offer,
    batch::{self, End},
    fits,
    local::{self, Workshop},
};
use jiff::SignedDuration;
use model::{
    Problem, Ticket,
    port::{BuildLimits, BuildOrder, Built, Commit, Fault, LogRef},
    spec::{
        self, Buildspec,
        build::{Batch, Task},
    },
};

use self::{
    given::{Variables, again},
    limits::{at_once, limits, resources, time},
    outcome::{Ends, Telling},
    warden::Warden,
};
use super::{Failure, Global, Outcome, images};
use crate::{
    config::Builds,
    output::{Output, Tone, clean},
};

/// Where images and caches of local builds stay. It is none of a platform's.
const HOME: &str = "/var/cache/vend/builds";

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
    /// Put the artifacts into a directory that is not empty, too: what is there of the same names is replaced, the rest stays.
    #[arg(long, requires = "artifacts")]
    force: bool,
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
    /// So many of the tests that are not skipped must pass, in percent, and a report that tells of no test fails the build.
    /// Where it is not given, tests are told of and fail no build.
    #[arg(long, value_name = "PERCENT")]
    pass_rate: Option<f64>,
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

/// What is built: the whole, or the builds of a batch.
struct Work {
    spec: Buildspec,
    batch: Option<Batch>,
    /// What each build of the batch runs, by its identifier.
    specs: BTreeMap<String, Buildspec>,
}

/// What all builds of one call have in common.
struct Order {
    source: model::Digest,
    commit: Commit,
    variables: Variables,
    limits: BuildLimits,
    image: Option<String>,
    place: model::Place,
    /// Artifacts replace what is there of the same names.
    force: bool,
    ends: Ends,
}

pub async fn run(arguments: &BuildArgs, global: &Global) -> Outcome {
    let output = global.output();
    match build(arguments, &output).await {
        // Whatever comes of it, standard output is one document.
        Err(failure) if output.json => {
            output.show(&outcome::refused(&failure), |_| String::new());
            Ok(ExitCode::from(failure.exit as u8))
        }
        outcome => outcome,
    }
}

async fn build(arguments: &BuildArgs, output: &Output) -> Outcome {
    let tree = directory(&arguments.local)?;
    let work = work(arguments, &tree, output)?;
    let (limits, variables) = (limits(arguments)?, given::variables(arguments)?);
    let specs = work.specs.values();
    match work.batch {
        Some(_) => given::lacks(specs, &variables, arguments)?,
        None => given::lacks([&work.spec], &variables, arguments)?,
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::refused("a build needs root, for its container")
            .next(format!("sudo {}", again(arguments))));
    }
    if let Some(batch) = &work.batch {
        // No operator gave this machine labels.
        fits(batch, &[Offer::here(BTreeMap::new())], |task| {
            work.specs.get(&task.identifier)
        })
        .map_err(|fault| advice::told(&fault, arguments))?;
    }
    if let Some(to) = arguments.artifacts.as_ref().filter(|_| !arguments.force) {
        local::is_free(to).map_err(|error| failed(&error))?;
    }
    let home = arguments.home.clone().unwrap_or_else(|| HOME.into());
    let program = std::env::current_exe()
        .ok()
        .and_then(|path| Utf8PathBuf::try_from(path).ok());
    let program = program.ok_or_else(|| Failure::failed("this program cannot find itself"))?;
    let home = absolute(home)?;
    let warden = Warden::start(&program, &home);
    let warden = warden.map_err(|error| Failure::file(program.as_std_path(), &error))?;
    let shop = Workshop::open(&home, program, arguments.at_once, resources()).await;
    let shop = Arc::new(shop.map_err(|error| failed(&error))?);
    let order = order(arguments, &tree, &shop, limits, variables)?;
    let built = match &work.batch {
        Some(batch) => all(&shop, &order, &work, batch, arguments, output).await,
        None => {
            let to = arguments.artifacts.as_deref();
            let built = one(&shop, &order, work.spec.clone(), None, to, output).await;
            built.map(drop)
        }
    };
    let logs = shop.logs().clone();
    let shop = Arc::into_inner(shop).expect("every build has ended");
    shop.close().await.map_err(|error| failed(&error))?;
    warden.dismiss();
    let telling = Telling {
        logs: &logs,
        next: &|fault| advice::next(fault, arguments),
    };
    tell(built, order.ends, &work, &telling, arguments, output)
}

/// Reads all that is built before any of it is.
fn work(arguments: &BuildArgs, tree: &Utf8Path, output: &Output) -> Result<Work, Failure> {
    let path = buildspec(arguments, tree)?;
    let spec = read(tree, &path, output)?;
    let batch = match (arguments.batch, &spec.batch) {
        (true, None) => {
            return Err(Failure::usage(format!("{path} has no `batch`"))
                .next("the same without --batch builds it as one build"));
        }
        (true, Some(batch)) => Some(batch.clone()),
        (false, Some(_)) if spec.is_batch_only() => {
            return Err(idle(&path).next("the same with --batch runs the builds of its `batch`"));
        }
        (false, _) => None,
    };
    let mut specs = BTreeMap::new();
    let mut known: BTreeMap<&str, Buildspec> = BTreeMap::new();
    for task in batch.iter().flat_map(|batch| &batch.tasks) {
        let own = match task.buildspec.as_deref() {
            None => spec.clone(),
            Some(own) => match known.get(own) {
                Some(known) => known.clone(),
                None => {
                    let new = read(tree, Utf8Path::new(own), output)?;
                    if new.is_batch_only() {
                        return Err(idle(Utf8Path::new(own)).next(Buildspec::NOT_AGAIN));
                    }
                    known.insert(own, new.clone());
                    new
                }
            },
        };
        specs.insert(task.identifier.clone(), own);
    }
    drop(known);
    Ok(Work { spec, batch, specs })
}

fn idle(path: &Utf8Path) -> Failure {
    Failure::usage(format!("{path}: {}", Buildspec::BATCH_ONLY))
}

fn failed(error: &local::Error) -> Failure {
    let failure = Failure::failed("the build cannot be made").cause(host::container::chain(error));
    match error {
        local::Error::Container(_) => failure.next("vend doctor"),
        local::Error::NotEmpty(path) => failure.next(format!(
            "name another directory with --artifacts, empty this one ({path}), or have what is of the same names replaced: --force"
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
        Failure::usage(format!(
            "{}there is no buildspec.yml in {tree}",
            Buildspec::FILE_MISSING
        ))
        .next(format!("{} --buildspec FILE", again(arguments)))
    })
}

/// Reads a buildspec of the tree, or one beside it; says on standard error what is odd about it.
fn read(tree: &Utf8Path, path: &Utf8Path, output: &Output) -> Result<Buildspec, Failure> {
    let file = tree.join(path);
    let bytes = std::fs::read(&file).map_err(|error| {
        let mut failure = Failure::file(file.as_std_path(), &error)
            .next("--buildspec FILE names a file of the tree, relative to it");
        if error.kind() == std::io::ErrorKind::NotFound {
            failure.what.insert_str(0, Buildspec::FILE_MISSING);
        }
        failure
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
    Failure::usage(format!("{}the buildspec is not valid", Buildspec::FILE_ERROR)).cause(all.join("\n"))
}

fn order(
    arguments: &BuildArgs,
    tree: &Utf8Path,
    shop: &Workshop,
    limits: BuildLimits,
    variables: Variables,
) -> Result<Order, Failure> {
    let commit = tree::commit(tree);
    let mtime = u64::try_from(commit.committed_at.as_second()).unwrap_or(0);
    let source = shop
        .keep(tree, tree::files(tree), mtime)
        .map_err(|error| failed(&error))?;
    Ok(Order {
        place: tree::place(tree),
        source,
        commit,
        variables,
        image: arguments.image.clone(),
        limits,
        force: arguments.force,
        ends: Ends::default(),
    })
}

/// Builds, and puts the artifacts where they are wanted. How it ended is noted.
async fn one(
    shop: &Arc<Workshop>,
    all: &Order,
    spec: Buildspec,
    task: Option<Task>,
    to: Option<&Utf8Path>,
    output: &Output,
) -> Result<Built, Fault> {
    let name = task.as_ref().map(|task| task.identifier.clone());
    let ticket = ticket(task.as_ref());
    let log: LogRef = format!("build/{ticket}")
        .parse()
        .map_err(|_| Fault::order("the ticket cannot name a log"))?;
    let watch = watch::Watch::new(Arc::clone(shop), log.clone(), name.clone(), output.clone());
    let order = build_order(all, spec, task);
    let (built, left) = watched(shop, &ticket, &order, watch).await;
    let name = name.unwrap_or_default();
    all.ends.note(&name, |one| one.log = Some(log));
    // What one made is there whatever becomes of the others.
    let put = match (&built, &left) {
        (Ok(built), _) => unpack(shop, built, to, all.force),
        (Err(_), Some(left)) => remains(shop, left, &name, (to, all.force), output),
        (Err(_), None) => Ok(None),
    };
    all.ends.note(&name, |one| {
        one.built = built.as_ref().ok().cloned();
        one.fault = built.as_ref().err().cloned();
        one.left = left;
        one.artifacts = put.as_ref().ok().cloned().flatten();
    });
    put?;
    built
}

fn build_order(all: &Order, spec: Buildspec, task: Option<Task>) -> BuildOrder {
    let (variables, secrets) = given::divided(&all.variables, &spec);
    BuildOrder {
        place: all.place.clone(),
        source: all.source,
        buildspec: spec,
        commit: all.commit.clone(),
        number: 1,
        variables,
        secrets,
        limits: all.limits.clone(),
        labels: BTreeMap::new(),
        image: all.image.clone(),
        login: images::login(),
        task,
        push: None,
        trunk: None,
    }
}

/// Builds while the log goes to the terminal.
async fn watched(
    shop: &Workshop,
    ticket: &Ticket,
    order: &BuildOrder,
    mut watch: watch::Watch,
) -> (Result<Built, Fault>, Option<Left>) {
    let building = shop.yard.build_left(ticket, order);
    tokio::pin!(building);
    let ended = loop {
        tokio::select! {
            ended = &mut building => break ended,
            () = watch.tick() => {}
        }
    };
    watch.rest();
    ended
}

/// Says what a build that failed has left, and unpacks its artifacts: CodeBuild uploads them too. Gives where they are.
fn remains(
    shop: &Workshop,
    left: &Left,
    name: &str,
    (to, force): (Option<&Utf8Path>, bool),
    output: &Output,
) -> Result<Option<Utf8PathBuf>, Fault> {
    let text = watch::parts(name, &left.phases, &left.reports, output);
    match output.json {
        true => eprint!("{text}"),
        false => print!("{text}"),
    }
    let Some(to) = to.filter(|_| left.artifact.is_some() || !left.secondary.is_empty()) else {
        return Ok(None);
    };
    let unpacked = shop.unpack(left.artifact, &left.secondary, to, force);
    unpacked.map_err(|error| Fault::platform(host::container::chain(&error)))?;
    eprintln!("artifacts of the failed build  {}", clean(to.as_str()));
    Ok(Some(to.to_owned()))
}

/// A name that no other build on this machine has.
fn ticket(task: Option<&Task>) -> Ticket {
    let text = format!("t-{}-{}", super::now().as_microsecond(), std::process::id());
    let whole: Ticket = text.parse().expect("numbers make a ticket");
    match task {
        Some(task) => whole.part(&task.slug()),
        None => whole,
    }
}

async fn all(
    shop: &Arc<Workshop>,
    order: &Order,
    work: &Work,
    batch: &Batch,
    arguments: &BuildArgs,
    output: &Output,
) -> Result<(), Fault> {
    // What is put side by side is so only when all succeed.
    let apart = arguments
        .artifacts
        .as_ref()
        .filter(|_| !arguments.combine_artifacts);
    let build = |task: Task| async move {
        let own = work.specs.get(&task.identifier).unwrap_or(&work.spec).clone();
        let to = apart.map(|to| to.join(&task.identifier));
        one(shop, order, own, Some(task), to.as_deref(), output).await
    };
    let ended = |end: End<'_>| {
        let (word, tone, name) = match end {
            End::Succeeded(name) => ("succeeded", Tone::Good, name),
            End::Failed(name) => ("failed", Tone::Bad, name),
            End::Ignored(name) => ("failed (ignored)", Tone::Wait, name),
            End::Skipped(name) => ("skipped", Tone::Wait, name),
        };
        order.ends.note(name, |one| {
            one.ignored = matches!(end, End::Ignored(_));
            one.skipped = matches!(end, End::Skipped(_));
        });
        let of = batch.tasks.iter().find(|task| task.identifier == name);
        let of = of.map_or_else(String::new, varied);
        eprintln!("{} {}{of}", output.tone(tone, word), clean(name));
    };
    let built = batch::run(batch, arguments.at_once, build, ended).await?;
    if let (true, Some(to)) = (arguments.combine_artifacts, &arguments.artifacts) {
        let combined = shop.unpack_combined(&built, to, order.force);
        combined.map_err(|error| Fault::customer(host::container::chain(&error)))?;
        for (name, _) in &built {
            order.ends.note(name, |one| one.artifacts = Some(to.clone()));
        }
    }
    Ok(())
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

fn unpack(
    shop: &Workshop,
    built: &Built,
    to: Option<&Utf8Path>,
    force: bool,
) -> Result<Option<Utf8PathBuf>, Fault> {
    let Some(to) = to else { return Ok(None) };
    let unpacked = shop.unpack(Some(built.artifact), &built.secondary, to, force);
    unpacked.map_err(|error| Fault::platform(host::container::chain(&error)))?;
    Ok(Some(to.to_owned()))
}

/// The last lines: what came of it.
fn tell(
    built: Result<(), Fault>,
    ends: Ends,
    work: &Work,
    telling: &Telling<'_>,
    arguments: &BuildArgs,
    output: &Output,
) -> Outcome {
    let (ends, batch) = (ends.take(), work.batch.as_ref());
    if output.json {
        let all = telling.all(built.as_ref().err(), batch, &ends);
        output.show(&all, |_| String::new());
        return Ok(match built {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        });
    }
    let mut text = String::new();
    let succeeded = ends
        .iter()
        .filter_map(|(name, one)| Some((name, one.built.as_ref()?)));
    for (name, built) in succeeded.filter(|_| built.is_ok()) {
        text.push_str(&watch::summary(name, built, output));
    }
    if let Some(batch) = batch {
        text.push_str(&outcome::list(batch, &ends, output));
    }
    if let (Ok(()), Some(to)) = (&built, &arguments.artifacts) {
        text.push_str(&format!("artifacts  {}\n", clean(to.as_str())));
    }
    output.text(&text);
    match built {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(fault) => Err(advice::told(&fault, arguments)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// The command alone.
    #[derive(Parser)]
    pub struct One {
        #[command(flatten)]
        pub build: BuildArgs,
    }

    #[test]
    fn a_buildspec_of_a_batch_alone_is_no_build_of_its_own() {
        const BATCH: &str = "version: 0.2\nbatch: { build-list: [{ identifier: a, buildspec: a.yml }] }\n";
        const OWN: &str = "version: 0.2\nphases: { build: { commands: [make] } }\n";
        let tree = tempfile::tempdir().unwrap();
        let tree = Utf8Path::from_path(tree.path()).unwrap();
        std::fs::write(tree.join("buildspec.yml"), BATCH).unwrap();
        let output = Output::new(false, String::new());
        let work = |own: &str, options: &[&str]| {
            std::fs::write(tree.join("a.yml"), own).unwrap();
            let words = ["build", "--local", "."].iter().chain(options);
            work(&One::parse_from(words).build, tree, &output)
        };
        let refused = |refused: Result<Work, Failure>| {
            let failure = refused.err().unwrap();
            assert_eq!(failure.exit, crate::cli::Exit::Usage);
            (failure.what, failure.next.unwrap())
        };
        let (what, next) = refused(work(OWN, &[]));
        assert_eq!(
            what,
            "buildspec.yml: it has a `batch` and no `phases`: as one build it has nothing to run"
        );
        assert_eq!(next, "the same with --batch runs the builds of its `batch`");
        let whole = work(OWN, &["--batch"]).ok().unwrap();
        assert_eq!(whole.specs["a"].phases[0].commands, ["make"]);
        let (what, next) = refused(work(BATCH, &["--batch"]));
        assert!(
            what.starts_with("a.yml: it has a `batch` and no `phases`"),
            "{what}"
        );
        assert_eq!(next, Buildspec::NOT_AGAIN);
    }
}
