//! `vend check`: what a push would be refused for, found before the push. Needs no platform.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use model::{
    Problem,
    problem::Severity,
    spec::{self, App, Appspec, Buildspec, Checks},
};
use serde::Serialize;
use serde_json::Value;

use super::{Failure, Global, Outcome};
use crate::output::{Output, Tone, clean};

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

/// The answer in JSON.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    problems: Vec<Problem>,
    /// The file as it is understood, with defaults filled in; null when it cannot be.
    spec: Value,
}

type Parsed = Result<(Value, Vec<Problem>), Vec<Problem>>;

pub fn run(check: &Check, global: &Global) -> Outcome {
    let mut problems = Vec::new();
    let mut specs = Vec::new();
    let mut keep = |parsed: Parsed| match parsed {
        Ok((spec, warnings)) => {
            specs.push(spec);
            problems.extend(warnings);
        }
        Err(errors) => {
            specs.push(Value::Null);
            problems.extend(errors);
        }
    };
    let files = [(&check.buildspec, buildspec as Reader), (&check.appspec, appspec)];
    let named = files.iter().any(|(file, _)| file.is_some());
    if check.dir.is_some() || !named {
        let dir = check.dir.as_deref().unwrap_or_else(|| Path::new("."));
        keep(tree(dir)?);
    }
    for (file, read) in files {
        if let Some(file) = file {
            keep(parse(file, &file.to_string_lossy(), read)?);
        }
    }
    let report = Report {
        ok: !problems.iter().any(Problem::is_error),
        problems,
        spec: specs.into_iter().next().unwrap_or_default(),
    };
    let output = global.output();
    output.show(&report, |report| text(report, &output));
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads one kind of file: its text, and its name in messages.
type Reader = fn(&str, &str) -> Parsed;

fn buildspec(text: &str, name: &str) -> Parsed {
    Buildspec::parse(text, name).map(|(spec, warnings)| (value(&spec), warnings))
}

fn appspec(text: &str, name: &str) -> Parsed {
    Appspec::normalise(text, name)
}

fn checks(text: &str, name: &str) -> Parsed {
    Checks::parse(text, name).map(|(spec, warnings)| (value(&spec), warnings))
}

fn value(spec: &impl Serialize) -> Value {
    serde_json::to_value(spec).expect("a spec is plain data")
}

/// `vend.yaml` of a working tree, and every file that it names.
fn tree(dir: &Path) -> Result<Parsed, Failure> {
    const FILE: &str = "vend.yaml";
    let path = dir.join(FILE);
    let bytes = read(&path).map_err(|error| {
        Failure::file(&path, &error).next("vend check DIR, where DIR holds a vend.yaml; `app: NAME` is enough")
    })?;
    let there = |path: &camino::Utf8Path| dir.join(path).exists();
    let parsed = match spec::decode(FILE, &bytes) {
        Ok(text) => App::parse(text, FILE, &there),
        Err(problem) => Err(vec![problem]),
    };
    let (app, mut problems) = match parsed {
        Ok(parsed) => parsed,
        Err(problems) => return Ok(Err(problems)),
    };
    let mut named: BTreeSet<(&camino::Utf8Path, usize)> = BTreeSet::new();
    const READERS: [Reader; 3] = [buildspec, appspec, checks];
    for environment in &app.environments {
        let files = [
            &environment.build.buildspec,
            &environment.deploy.appspec,
            &environment.checks,
        ];
        let files = files.into_iter().enumerate();
        named.extend(files.filter_map(|(kind, file)| Some((file.as_deref()?, kind))));
    }
    for (file, kind) in named {
        match parse(&dir.join(file), file.as_str(), READERS[kind]) {
            Ok(Ok((_, warnings))) => problems.extend(warnings),
            Ok(Err(errors)) => problems.extend(errors),
            Err(failure) => {
                let cause = failure.cause.unwrap_or(failure.what);
                problems.push(Problem::error(file.as_str(), 0, 0, format!("the file cannot be read: {cause}")));
            }
        }
    }
    Ok(match problems.iter().any(Problem::is_error) {
        true => Err(problems),
        false => Ok((value(&app), problems)),
    })
}

fn parse(path: &Path, name: &str, reader: Reader) -> Result<Parsed, Failure> {
    let bytes = read(path).map_err(|error| Failure::file(path, &error))?;
    Ok(match spec::decode(name, &bytes) {
        Ok(text) => reader(text, name),
        Err(problem) => Err(vec![problem]),
    })
}

/// At most what a spec may be long, and one byte more to show that it is longer. Waits for no pipe.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    let limit = spec::MAX_BYTES as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn text(report: &Report, output: &Output) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        let (word, tone) = match problem.severity {
            Severity::Error => ("error", Tone::Bad),
            Severity::Warning => ("warning", Tone::Wait),
        };
        let line = clean(&problem.to_string());
        text.push_str(&format!("{}: {line}\n", output.tone(tone, word)));
    }
    let errors = report.problems.iter().filter(|problem| problem.is_error()).count();
    text.push_str(&match errors {
        0 => format!("{}\n", output.tone(Tone::Good, "ok")),
        1 => "1 error\n".to_owned(),
        _ => format!("{errors} errors\n"),
    });
    text
}
