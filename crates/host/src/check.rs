//! Runs goss checks inside a host.
//!
//! The room exists so that what must be true of a host before it gets traffic is looked at where it is: in its own
//! files, processes and sockets. Nothing is changed, everything is bounded. It knows nothing of deployments.
//! <https://goss.readthedocs.io/en/stable/gossfile/>

use std::time::Duration;

use model::{
    Secret,
    port::{CheckResult, Verdict},
    spec::{Checks, check::CommandCheck, check::PackageCheck},
};

use crate::agent::{
    reaper::{Exit, Reaper},
    run::{self, Ran},
    spawn::Launch,
};

mod http;
mod matcher;
mod system;

/// For a command or request whose check says nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest that one check may take.
const LONGEST: Duration = Duration::from_secs(300);

/// What checks need of the agent around them.
pub struct Surroundings {
    pub reaper: Reaper,
    /// Of commands.
    pub environment: Vec<(String, Secret)>,
}

/// Runs all checks, one after the other. A check that cannot be looked at has failed, and says why.
pub async fn run(checks: &Checks, around: &Surroundings) -> Verdict {
    let mut results = Vec::new();
    for (path, check) in &checks.file {
        results.extend(system::file(path, check));
    }
    for (name, check) in &checks.package {
        results.extend(package(name, check, around).await);
    }
    for (name, check) in &checks.port {
        results.extend(system::port(name, check));
    }
    for (name, check) in &checks.process {
        results.extend(system::process(name, check));
    }
    for (name, check) in &checks.user {
        results.extend(system::user(name, check));
    }
    for (name, check) in &checks.command {
        results.extend(command(name, check, around).await);
    }
    for (url, check) in &checks.http {
        results.extend(http::http(url, check).await);
    }
    Verdict { results }
}

/// The results of one check, property by property.
struct Results {
    kind: &'static str,
    name: String,
    results: Vec<CheckResult>,
}

impl Results {
    fn new(kind: &'static str, name: &str) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            results: Vec::new(),
        }
    }

    fn add(&mut self, property: &str, passed: bool, expected: impl ToString, found: impl ToString) {
        self.results.push(CheckResult {
            kind: self.kind.to_owned(),
            name: self.name.clone(),
            property: property.to_owned(),
            passed,
            expected: bounded(&expected.to_string()),
            found: bounded(&found.to_string()),
        });
    }

    fn equal<T: PartialEq + ToString>(&mut self, property: &str, expected: &T, found: &T) {
        self.add(
            property,
            expected == found,
            expected.to_string(),
            found.to_string(),
        );
    }

    /// One result for each pattern.
    fn matches(&mut self, property: &str, patterns: &[String], text: &str) {
        for pattern in patterns {
            match matcher::found(pattern, text) {
                Ok(passed) => self.add(property, passed, pattern, matcher::excerpt(text)),
                Err(why) => self.add(property, false, pattern, why),
            }
        }
    }

    /// All of these are among those.
    fn contains(&mut self, property: &str, expected: &[String], found: &[String]) {
        if !expected.is_empty() {
            let passed = expected.iter().all(|one| found.contains(one));
            self.add(property, passed, expected.join(", "), found.join(", "));
        }
    }
}

fn bounded(text: &str) -> String {
    const CHARS: usize = 500;
    let mut short: String = text.chars().take(CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn timeout(milliseconds: u64) -> Duration {
    match milliseconds {
        0 => DEFAULT_TIMEOUT,
        some => Duration::from_millis(some).min(LONGEST),
    }
}

async fn command(name: &str, check: &CommandCheck, around: &Surroundings) -> Vec<CheckResult> {
    let mut results = Results::new("command", name);
    let mut launch = Launch::shell(check.exec.as_deref().unwrap_or(name));
    launch.environment.clone_from(&around.environment);
    launch.directory = Some("/".into());
    let limit = timeout(check.timeout_ms);
    match run::run(&around.reaper, &launch, None, limit).await {
        Ok(ran) => {
            let found = ran.exit.map_or_else(
                || format!("no end within {} ms", limit.as_millis()),
                |exit| exit.code().to_string(),
            );
            let passed = ran.exit.map(Exit::code) == Some(check.exit_status);
            results.add("exit-status", passed, check.exit_status, found);
            results.matches("stdout", &check.stdout, &String::from_utf8_lossy(&ran.stdout));
            results.matches("stderr", &check.stderr, &String::from_utf8_lossy(&ran.stderr));
        }
        Err(error) => results.add(
            "exit-status",
            false,
            check.exit_status,
            format!("cannot start: {error}"),
        ),
    }
    results.results
}

async fn package(name: &str, check: &PackageCheck, around: &Surroundings) -> Vec<CheckResult> {
    let mut results = Results::new("package", name);
    let launch = Launch::new(
        "dpkg-query",
        ["-W", "-f", "${db:Status-Status} ${Version}\\n", "--", name],
    );
    let text = match run::run(&around.reaper, &launch, None, DEFAULT_TIMEOUT).await {
        Ok(Ran { stdout, .. }) => String::from_utf8_lossy(&stdout).into_owned(),
        Err(error) => {
            results.add(
                "installed",
                false,
                check.installed,
                format!("dpkg-query cannot run: {error}"),
            );
            return results.results;
        }
    };
    let versions: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .map(str::to_owned)
        .collect();
    results.equal("installed", &check.installed, &!versions.is_empty());
    if !check.versions.is_empty() {
        let passed = versions.iter().any(|version| check.versions.contains(version));
        results.add(
            "versions",
            passed,
            check.versions.join(" or "),
            versions.join(", "),
        );
    }
    results.results
}
