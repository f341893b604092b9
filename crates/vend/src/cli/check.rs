//! `vend check`: what a push would be refused for, found before the push. Needs no platform.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use model::{
    Problem,
    problem::Severity,
    spec::{self, App, Base, Buildspec, CheckReport, Checked, Environment, Files, Strategy},
};

use super::{Failure, Global, Outcome, quoted};
use crate::{
    flow::healthy,
    output::{Output, Tone, clean},
};

#[derive(Debug, Args)]
pub struct Check {
    /// The working tree; the current directory when no file is named.
    dir: Option<PathBuf>,
    /// Check this buildspec.
    #[arg(long, value_name = "FILE")]
    buildspec: Option<PathBuf>,
    /// Check this appspec.
    #[arg(long, value_name = "FILE")]
    appspec: Option<PathBuf>,
}

type One = fn(&str, &[u8]) -> CheckReport;

pub fn run(check: &Check, global: &Global) -> Outcome {
    let files = [
        (&check.buildspec, buildspec as One),
        (&check.appspec, spec::check_appspec),
    ];
    let mut reports = Vec::new();
    if check.dir.is_some() || files.iter().all(|(file, _)| file.is_none()) {
        reports.push(tree(check.dir.as_deref().unwrap_or_else(|| Path::new(".")))?);
    }
    for (file, check) in files {
        if let Some(file) = file {
            let bytes = read(file).map_err(|error| Failure::file(file, &error))?;
            reports.push(check(&file.to_string_lossy(), &bytes));
        }
    }
    let report = together(reports);
    let output = global.output();
    output.show(&report, |report| text(report, &output));
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn buildspec(file: &str, bytes: &[u8]) -> CheckReport {
    let mut report = spec::check_buildspec(file, bytes);
    report.problems.extend(lacks(file, bytes));
    report
}

fn tree(dir: &Path) -> Result<CheckReport, Failure> {
    if !dir.is_dir() {
        let error = std::io::Error::other("it is not a directory");
        return Err(Failure::file(dir, &error).next("vend check DIR, where DIR holds a vend.yaml"));
    }
    let files = Tree(dir);
    let Checked { app, mut report, .. } = spec::checked(&files);
    report.problems.extend(links_out(dir));
    match app {
        Some(app) => {
            report.problems.extend(runtimes(&files, &app));
            report.problems.extend(minimums(&app));
            report.ok &= !report.problems.iter().any(Problem::is_error);
        }
        None => alone(dir, &files, &mut report),
    }
    Ok(report)
}

/// A warning, as nothing says here whether a link is in the repository.
fn links_out(dir: &Path) -> Vec<Problem> {
    /// A tree with more has directories that are in no repository.
    const MOST: u64 = 300_000;
    const TOLD: usize = 10;
    let out = host::tree::links_out(dir, MOST, |path| path.ends_with(".git"));
    let told = out.unwrap_or_default().into_iter().take(TOLD).map(|path| {
        let message = "it is a symbolic link out of the tree: builds and deployments refuse the revision";
        Problem::warning(&path.to_string_lossy(), 0, 0, message)
            .help("let it lead to something in the tree, or to an absolute path of the host")
    });
    told.collect()
}

/// A tree that is no app may have a file that can be checked by itself.
fn alone(dir: &Path, files: &dyn Files, report: &mut CheckReport) {
    let known = [("--buildspec", "buildspec"), ("--appspec", "appspec")];
    let there = known.iter().find_map(|(option, name)| {
        let names = ["yml", "yaml"].map(|end| format!("{name}.{end}"));
        let name = names.into_iter().find(|name| files.exists(Utf8Path::new(name)))?;
        let path = if dir == Path::new(".") {
            PathBuf::from(name)
        } else {
            dir.join(name)
        };
        Some(format!(
            "vend check {option} {}",
            quoted(&path.display().to_string())
        ))
    });
    let no_app = |problem: &&mut Problem| problem.file == "vend.yaml" && problem.line == 0;
    if let Some(command) = there
        && !files.exists(Utf8Path::new("vend.yaml"))
        && let Some(problem) = report.problems.iter_mut().find(no_app)
    {
        let help = problem.help.take().unwrap_or_default();
        problem.help = Some(format!("{help}; without an app: {command}"));
    }
}

fn environments(app: &App) -> impl Iterator<Item = &Environment> {
    let patterns = app.patterns.iter().map(|pattern| &pattern.environment);
    app.environments.iter().chain(patterns)
}

/// Minimums of healthy hosts of which no new host may fail: a push is refused in the same words. Where `scaling` lets
/// somebody ask for enough hosts it may be that they did, which only the platform knows. Of hosts that stay, the reader of
/// vend.yaml says it.
fn minimums(app: &App) -> Vec<Problem> {
    let is_new = |own: &&Environment| own.placement.is_none() && own.deploy.strategy != Strategy::InPlace;
    let own = environments(app).filter(is_new);
    let told = own.filter_map(|own| {
        let refused = |hosts: u32| healthy::possible(own.deploy.minimum_healthy, hosts.max(1)).err();
        let fault = refused(own.scaling.min)?;
        let message = format!("environment `{}`: {}", own.name, fault.message);
        let problem = match refused(own.scaling.max) {
            Some(_) => Problem::error("vend.yaml", 0, 0, message),
            None => Problem::warning("vend.yaml", 0, 0, message),
        };
        Some(problem.help(fault.next.unwrap_or_default()))
    });
    told.collect()
}

/// What builds of an app in `standard` will be told of the runtimes that they ask for. Another image is one that we do not
/// know.
fn runtimes(files: &dyn Files, app: &App) -> Vec<Problem> {
    let builds = environments(app).map(|own| &own.build);
    let standard = |image: &String| Base::of_builds(image).is_none();
    let paths: BTreeSet<&Utf8PathBuf> = builds
        .filter(|build| build.image.as_ref().is_none_or(standard))
        .filter_map(|build| build.buildspec.as_ref())
        .collect();
    let told = paths
        .into_iter()
        .filter_map(|path| lacks(path.as_str(), &files.read(path)?));
    told.collect()
}

/// A warning, as variables from elsewhere may tell a build another version.
fn lacks(file: &str, bytes: &[u8]) -> Option<Problem> {
    let (buildspec, _) = Buildspec::parse(spec::decode(file, bytes).ok()?, file).ok()?;
    let batch = buildspec.batch.iter().flat_map(|batch| &batch.tasks);
    if batch.into_iter().any(|task| task.image.is_some()) {
        return None;
    }
    let why = host::build::lacking(&buildspec)?;
    Some(Problem::warning(file, 0, 0, why))
}

/// One report of all; the `spec` is that of the first, which is the tree's when there is one.
fn together(reports: Vec<CheckReport>) -> CheckReport {
    let mut reports = reports.into_iter();
    let mut all = reports.next().expect("there is always something to check");
    for report in reports {
        all.ok &= report.ok;
        all.problems.extend(report.problems);
    }
    all
}

/// A working tree on disk. What leads out of it is not there.
pub(super) struct Tree<'d>(pub &'d Path);

impl Tree<'_> {
    fn inside(&self, path: &Utf8Path) -> Option<PathBuf> {
        let root = self.0.canonicalize().ok()?;
        let path = root.join(path).canonicalize().ok()?;
        path.starts_with(&root).then_some(path)
    }
}

impl Files for Tree<'_> {
    fn exists(&self, path: &Utf8Path) -> bool {
        self.inside(path).is_some()
    }

    fn read(&self, path: &Utf8Path) -> Option<Vec<u8>> {
        read(&self.inside(path)?).ok()
    }

    fn is_link(&self, path: &Utf8Path) -> bool {
        path.ancestors()
            .filter(|part| !part.as_str().is_empty())
            .any(|part| self.0.join(part).is_symlink())
    }
}

/// At most what a spec may be long, and one byte more to show that it is longer. Waits for no pipe.
pub(super) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    let limit = spec::MAX_BYTES as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn text(report: &CheckReport, output: &Output) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        let (word, tone) = match problem.severity {
            Severity::Error => ("error", Tone::Bad),
            Severity::Warning => ("warning", Tone::Wait),
        };
        let told = Problem {
            help: None,
            ..problem.clone()
        };
        let line = clean(&told.to_string());
        text.push_str(&format!("{}: {line}\n", output.tone(tone, word)));
        if let Some(help) = &problem.help {
            text.push_str(&format!("  fix: {}\n", clean(help)));
        }
    }
    let errors = report
        .problems
        .iter()
        .filter(|problem| Problem::is_error(problem))
        .count();
    text.push_str(&match errors {
        0 => format!("{}\n", output.tone(Tone::Good, "ok")),
        1 => "1 error\n".to_owned(),
        _ => format!("{errors} errors\n"),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_that_no_image_has_are_said_before_a_push() {
        const BUILDSPEC: &str =
            "version: 0.2\nphases: { install: { runtime-versions: { nodejs: 99 }, commands: [make] } }\n";
        let work = tempfile::tempdir().unwrap();
        std::fs::write(work.path().join("buildspec.yml"), BUILDSPEC).unwrap();
        std::fs::write(work.path().join("Procfile"), "web: make\n").unwrap();
        for (build, told) in [
            ("", 1),
            ("build: { image: standard }\n", 1),
            ("build: { image: debian-13 }\n", 0),
        ] {
            std::fs::write(work.path().join("vend.yaml"), format!("app: shop\n{build}")).unwrap();
            let report = tree(work.path()).unwrap();
            let said = report
                .problems
                .iter()
                .filter(|problem| problem.message.contains("named '99' of nodejs"));
            assert_eq!(said.count(), told, "{build}: {:?}", report.problems);
        }
        let own = "batch: { build-list: [{ identifier: a, env: { image: 'node:99' } }] }\n";
        let alone = |text: &str| buildspec("b.yml", text.as_bytes()).problems.len();
        assert_eq!((alone(BUILDSPEC), alone(&BUILDSPEC.replace("99", "22"))), (1, 0));
        assert!(
            !buildspec("b.yml", format!("{BUILDSPEC}{own}").as_bytes())
                .problems
                .iter()
                .any(|problem| problem.message.contains("nodejs"))
        );
    }

    #[test]
    fn a_minimum_of_which_no_new_host_may_fail_is_said_as_a_push_says_it() {
        let work = tempfile::tempdir().unwrap();
        std::fs::write(work.path().join("Procfile"), "web: make\n").unwrap();
        let sentence = "error: vend.yaml: environment `dev`: 2 of 2 new hosts must be healthy: none could ever fail \
                        (HEALTH_CONSTRAINTS_INVALID)\n  fix: ask for fewer in `deploy.minimum_healthy`";
        for (rule, scaling, told) in [
            ("2", "{ min: 2, max: 2 }", Some(sentence)),
            // Somebody may have asked for three.
            (
                "2",
                "{ min: 2, max: 3 }",
                Some("warning: vend.yaml: environment `dev`: 2 of 2"),
            ),
            ("1", "{ min: 2, max: 2 }", None),
            ("half-at-a-time", "{ min: 1, max: 1 }", None),
        ] {
            let vend_yaml = format!(
                "app: shop\ndeploy: {{ minimum_healthy: {rule} }}\nscaling: {scaling}\nenvironments: {{ dev: {{ branch: dev }} }}\n"
            );
            std::fs::write(work.path().join("vend.yaml"), vend_yaml).unwrap();
            let report = tree(work.path()).unwrap();
            let said = text(&report, &Output::new(false, String::new()));
            match told {
                Some(told) => assert!(said.contains(told), "{said}"),
                None => assert!(!said.contains("HEALTH_CONSTRAINTS"), "{said}"),
            }
            assert_eq!(report.ok, !said.contains("error: "), "{said}");
        }
    }

    #[test]
    fn a_tree_without_an_app_may_have_a_file_to_check_alone() {
        let work = tempfile::tempdir().unwrap();
        let said = || text(&tree(work.path()).unwrap(), &Output::new(false, String::new()));
        assert!(
            said().ends_with("  fix: write one with at least `app: NAME`\n1 error\n"),
            "{}",
            said()
        );
        std::fs::write(work.path().join("buildspec.yml"), "version: 0.3\nphases: {}\n").unwrap();
        let alone = format!(
            "at least `app: NAME`; without an app: vend check --buildspec {}/buildspec.yml\n",
            work.path().display()
        );
        assert!(said().contains(&alone), "{}", said());
        assert!(
            said().contains("error: buildspec.yml:1:"),
            "it is checked all the same: {}",
            said()
        );
        std::fs::write(work.path().join("vend.yaml"), "{").unwrap();
        assert!(!said().contains("without an app"), "{}", said());
    }

    #[test]
    fn buildspecs_of_a_batch_are_checked() {
        const BATCH: &str = "version: 0.2\nphases: { build: { commands: [make] } }\nbatch:\n  build-list:\n    \
                             - { identifier: a, buildspec: ci/a.yml }\n    - { identifier: b, buildspec: ci/none.yml }\n";
        let work = tempfile::tempdir().unwrap();
        std::fs::create_dir(work.path().join("ci")).unwrap();
        std::fs::write(work.path().join("buildspec.yml"), BATCH).unwrap();
        std::fs::write(work.path().join("ci/a.yml"), "version: 0.2\nphases: 7\n").unwrap();
        std::fs::write(work.path().join("Procfile"), "web: make\n").unwrap();
        for (build, told) in [("", 0), ("build: { batch: true }\n", 2)] {
            std::fs::write(work.path().join("vend.yaml"), format!("app: shop\n{build}")).unwrap();
            let problems = tree(work.path()).unwrap().problems;
            let files = problems
                .iter()
                .filter(|problem| problem.is_error() && problem.file.starts_with("ci/"));
            assert_eq!(files.count(), told, "{problems:?}");
        }
    }

    #[test]
    fn every_problem_of_a_careless_appspec_has_its_fix() {
        let careless = concat!(
            "version: 0.0\nos: linux\nFiles: []\n",
            "permissions:\n  - object: /srv\n    mode: 0644\n",
            "hooks:\n  AfterInstal:\n    - { location: a.sh, zzz: 1 }\n",
        );
        let report = spec::check_appspec("a.yml", careless.as_bytes());
        assert_eq!(
            text(&report, &Output::new(false, String::new())),
            concat!(
                "warning: a.yml:6:11: `mode: 0644` gives the mode 0420 on AWS and here, not 0644\n",
                "  fix: without quotes YAML reads 0644 as an octal number, which is 420 in decimal: ",
                "write `mode: \"0644\"`\n",
                "warning: a.yml:3:1: `Files` is not a known key: AWS ignores it without a word, and so does a push\n",
                "  fix: did you mean `files`?\n",
                "warning: a.yml:5:13: a permission for `/srv` changes nothing: `files` puts nothing there\n",
                "  fix: only what this deployment creates gets permissions; set others in a hook\n",
                "warning: a.yml:8:3: `AfterInstal` is not a lifecycle event: ",
                "AWS takes the file, and never runs its scripts\n",
                "  fix: did you mean `AfterInstall`?\n",
                "warning: a.yml:9:25: `zzz` is not a known key of `AfterInstal`: ",
                "AWS ignores it without a word, and so does a push\n",
                "  fix: take it out, or use one of: location, runas, sudo, timeout\n",
                "ok\n",
            )
        );
    }

    #[test]
    fn a_link_out_of_the_tree_is_warned_of() {
        use std::os::unix::fs::symlink;
        let work = tempfile::tempdir().unwrap();
        std::fs::write(work.path().join("vend.yaml"), "app: shop\n").unwrap();
        std::fs::write(work.path().join("Procfile"), "web: make\n").unwrap();
        std::fs::create_dir_all(work.path().join("d/.git")).unwrap();
        for (path, target) in [
            ("d/out", "../../x"),
            ("d/through", "absolute/../.."),
            ("d/in", "../Procfile"),
            ("d/nowhere", "../nothing"),
            ("d/absolute", "/usr/bin/python3"),
            ("d/.git/own", "../../../x"),
        ] {
            symlink(target, work.path().join(path)).unwrap();
        }
        let report = tree(work.path()).unwrap();
        let told = text(&report, &Output::new(false, String::new()));
        let about = "it is a symbolic link out of the tree: builds and deployments refuse the revision\n  fix: let it lead";
        assert!(told.contains(&format!("warning: d/out: {about}")), "{told}");
        assert_eq!(
            (told.matches("out of the tree").count(), report.ok),
            (1, true),
            "{told}"
        );
    }

    #[test]
    fn what_leads_out_of_the_tree_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let (tree, outside) = (directory.path().join("tree"), directory.path().join("secret"));
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(&outside, "x").unwrap();
        std::fs::write(tree.join("in"), "y").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
        let tree = Tree(&tree);
        assert_eq!(tree.read("in".into()), Some(b"y".to_vec()));
        for path in ["link", "../secret", "/etc/passwd"] {
            assert!(!tree.exists(path.into()), "{path}");
            assert_eq!(tree.read(path.into()), None, "{path}");
        }
    }
}
