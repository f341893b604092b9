//! What differs between two releases: the body of a plan.
//!
//! Pure. A plan is shown to people and bound to an approval, so it holds every difference that changes how the
//! environment behaves, and nothing that changes by itself.

mod health;
mod login;

use std::collections::BTreeMap;

use camino::Utf8Path;
use model::{
    plan::{Change, Subject},
    port::{Coverage, TestReport},
    release::Release,
    spec::{
        Analysis, App, Approval, Certificate, Deploy, Domain, Environment, Host, Leads, Migrate,
        MinimumHealthy, Port, Scaling, Steps, Transport, Variable, Zones, written,
    },
};

/// The two sides of a plan. `before` is absent for the first release of an environment.
pub struct Sides<'a> {
    pub before: Option<&'a Release>,
    pub after: &'a Release,
    /// Hosts now and then.
    pub hosts: (u32, u32),
    /// (`A`, `M`, `D`…, path), as git says. Of a first release nothing is compared.
    pub files: &'a [(String, String)],
    /// How many files a first release brings.
    pub tree: usize,
    pub hostname: &'a str,
}

/// Files beyond this are counted, not listed.
const LISTED_FILES: usize = 100;

/// Every difference, in the order in which a reader asks: what runs, where, with what.
pub fn changes(sides: &Sides<'_>) -> Vec<Change> {
    let mut changes = Vec::new();
    let Sides { before, after, .. } = sides;
    let mut differ = |subject, name: &str, old: Option<String>, new: Option<String>| {
        if old != new {
            changes.push(Change::new(subject, name, old, new));
        }
    };
    let short = |digest: &model::Digest| digest.short();
    differ(
        Subject::Image,
        "image",
        before.map(|r| short(&r.image)),
        Some(short(&after.image)),
    );
    let usual = usual(after);
    let old = before.map(|release| &release.spec);
    let known = old.or(usual.as_ref());
    if known.is_none_or(|known| known.image.base != after.spec.image.base) {
        differ(
            Subject::Image,
            "base",
            old.map(|spec| spec.image.base.clone()),
            Some(after.spec.image.base.clone()),
        );
    }
    differ(
        Subject::Revision,
        "revision",
        before.map(|r| short(&r.revision)),
        Some(short(&after.revision)),
    );
    differ(
        Subject::Hosts,
        "count",
        before.map(|_| sides.hosts.0.to_string()),
        Some(sides.hosts.1.to_string()),
    );
    differ(
        Subject::Hosts,
        "size",
        before.map(|r| r.spec.host.size.clone()),
        Some(after.spec.host.size.clone()),
    );
    if before.is_none() {
        differ(
            Subject::Rule,
            sides.hostname,
            None,
            Some(format!("forward to port {}", after.spec.host.port)),
        );
    }
    differ(
        Subject::Database,
        "engine",
        before.and_then(|r| engine(&r.spec)),
        engine(&after.spec),
    );
    for (name, was, new) in pairs(known.map(settings).unwrap_or_default(), settings(&after.spec)) {
        if was != new {
            // Before the first release there is nothing, not the defaults.
            differ(
                Subject::Configuration,
                &name,
                was.filter(|_| before.is_some()),
                new,
            );
        }
    }
    let versions = |release: &Release| -> BTreeMap<String, String> {
        release
            .secrets
            .iter()
            .map(|(name, version)| (name.clone(), format!("version {version}")))
            .collect()
    };
    for (name, old, new) in pairs(before.map(versions).unwrap_or_default(), versions(after)) {
        differ(Subject::Secret, &name, old, new);
    }
    changes.extend(match before {
        Some(_) => files(sides.files),
        None => {
            let all = format!("all {} files of the repository", sides.tree);
            vec![Change::new(
                Subject::File,
                all,
                None,
                Some(many("present", sides.tree)),
            )]
        }
    });
    changes
}

/// What the tests of both releases said, one line for each report group.
pub fn tests(before: &[TestReport], after: &[TestReport]) -> Vec<Change> {
    let old = |group: &str| before.iter().find(|report| report.group == group).map(said);
    let line = |report: &TestReport| {
        let mut text = said(report);
        if let Some(changes) = report.changes.as_ref().filter(|changes| !changes.is_empty()) {
            text = format!("{text} ({})", changes.summary());
        }
        Change::new(
            Subject::Tests,
            report.group.clone(),
            old(&report.group),
            Some(text),
        )
    };
    after.iter().map(line).collect()
}

fn said(report: &TestReport) -> String {
    let mut parts = Vec::new();
    if report.total > 0 || report.coverage.is_none() {
        parts.push(format!(
            "{} of {} passed",
            report.passed,
            report.passed + report.failed
        ));
    }
    if report.skipped > 0 {
        parts.push(format!("{} skipped", report.skipped));
    }
    if let Some(percent) = report.coverage.as_ref().and_then(Coverage::lines_percent) {
        parts.push(format!("{percent:.1} % of lines"));
    }
    parts.join(", ")
}

fn files(files: &[(String, String)]) -> Vec<Change> {
    let (listed, rest) = files.split_at(files.len().min(LISTED_FILES));
    let mut changes: Vec<Change> = listed.iter().map(file).collect();
    for (kind, done) in [("A", "added"), ("M", "changed"), ("D", "removed")] {
        let of_kind = |(own, _): &&(String, String)| kind_of(own) == kind;
        let count = rest.iter().filter(of_kind).count();
        if count > 0 {
            let Change { before, after, .. } = file(&(kind.to_owned(), String::new()));
            changes.push(Change::new(
                Subject::File,
                format!("{count} more {done}"),
                before.map(|side| many(&side, count)),
                after.map(|side| many(&side, count)),
            ));
        }
    }
    changes
}

/// How many files a line stands for is in its values: any file may have a name that says so.
fn many(side: &str, count: usize) -> String {
    format!("{side}, {count} files")
}

/// Git's letter of a change; what is neither new nor gone is changed.
fn kind_of(kind: &str) -> &str {
    if matches!(kind, "A" | "D") { kind } else { "M" }
}

fn file((kind, path): &(String, String)) -> Change {
    let side = |present: bool| present.then(|| "present".to_owned());
    let (before, after) = match kind_of(kind) {
        "A" => (side(false), side(true)),
        "D" => (side(true), side(false)),
        _ => (Some("old content".into()), Some("new content".into())),
    };
    Change::new(Subject::File, path.clone(), before, after)
}

fn engine(environment: &Environment) -> Option<String> {
    let database = environment.database.as_ref()?;
    serde_json::to_value(database.engine)
        .ok()?
        .as_str()
        .map(str::to_owned)
}

/// What `vend.yaml` means where it says nothing: what a first release is compared with.
fn usual(release: &Release) -> Option<Environment> {
    let deploy = release.spec.deploy.appspec.as_ref();
    let there = |path: &Utf8Path| path == "Procfile" || deploy.is_some_and(|appspec| appspec == path);
    let (app, _) = App::parse("app: a\n", "vend.yaml", &there).ok()?;
    app.environments.into_iter().next()
}

fn listener(port: &Port) -> String {
    let mut text = format!("to port {}", port.host_port);
    if port.protocol == Transport::Udp {
        text += &format!(", idle {}", written(port.idle));
    }
    if let Leads::Hosts { ttl } = port.leads {
        text += &format!(", its name leads to hosts for {}", written(ttl));
    }
    text
}

fn named(domain: &Domain) -> String {
    let certificate = match &domain.certificate {
        Certificate::File => "certificate from a file".to_owned(),
        Certificate::Acme => "certificate from the authority".to_owned(),
        Certificate::Vault { chain, key } => format!("certificate from the secrets {chain} and {key}"),
    };
    match domain.dedicated_balancer {
        true => format!("{certificate}, listeners of its own"),
        false => certificate,
    }
}

/// Everything of the configuration that is not told elsewhere in the plan, by key, as `vend.yaml` would write it. A
/// field that is added to the spec must be put here or left out by name.
fn settings(environment: &Environment) -> BTreeMap<String, String> {
    let Environment {
        name: _,
        branch: _,
        image: _,
        build: _,
        deploy,
        host,
        database: _,
        checks,
        approval,
        scaling,
        listeners,
        domains,
        placement,
        sleep_after,
        preview,
        authenticate,
    } = environment;
    let mut all = BTreeMap::new();
    let mut set = |key: &str, value: String| drop(all.insert(key.to_owned(), value));
    for port in listeners {
        set(
            &format!("listeners.{}-{}", port.protocol, port.port),
            listener(port),
        );
    }
    for domain in domains {
        set(&format!("domains.{}", domain.host), named(domain));
    }
    let Deploy {
        appspec,
        strategy,
        minimum_healthy,
        keep_old,
        drain,
        steps,
        zones,
        migrate,
    } = deploy;
    set("deploy.strategy", strategy.word().to_owned());
    set("deploy.drain", written(*drain));
    if let Some(Steps {
        percent,
        interval,
        analysis,
    }) = steps
    {
        let Analysis {
            errors,
            slower,
            sample,
        } = analysis;
        set("deploy.percent", format!("{percent}%"));
        set("deploy.interval", written(*interval));
        set("deploy.analysis.errors", format!("{errors}%"));
        set("deploy.analysis.slower", format!("{slower}%"));
        set("deploy.analysis.sample", sample.to_string());
    }
    if let Some(zones) = zones {
        set("deploy.zones", zonal(zones));
    }
    if let Some(appspec) = appspec {
        set("deploy.appspec", appspec.to_string());
    }
    set("deploy.minimum_healthy", healthy(*minimum_healthy));
    set("deploy.keep_old", written(*keep_old));
    if let Some(migrate) = migrate {
        set("deploy.migrate", migration(migrate));
    }
    let Host {
        size: _,
        port,
        health,
        env,
    } = host;
    set("host.port", port.to_string());
    for (key, value) in health::told(health) {
        set(key, value);
    }
    for (name, variable) in env {
        let text = match variable {
            Variable::Plain(value) => value.clone(),
            Variable::Secret(secret) => format!("{{{{secret:{secret}}}}}"),
        };
        set(&format!("env.{name}"), text);
    }
    for (name, value) in placement.iter().flat_map(|placement| &placement.registered) {
        set(&format!("placement.registered.{name}"), value.clone());
    }
    for (key, value) in authenticate.iter().flat_map(|login| login::told(login)) {
        set(key, value);
    }
    if let Some(after) = sleep_after {
        set("sleep_after", written(*after));
    }
    if let Some(preview) = preview {
        set("branches", preview.to_string());
    }
    if let Some(checks) = checks {
        set("checks", checks.to_string());
    }
    if let Some(approval) = approval {
        set("approval", asked(approval));
    }
    let Scaling { min, max } = scaling;
    set("scaling.min", min.to_string());
    set("scaling.max", max.to_string());
    all
}

fn migration(migrate: &Migrate) -> String {
    let user = migrate.runas.as_deref().unwrap_or("root");
    let mark = if migrate.irreversible {
        ", irreversible"
    } else {
        ""
    };
    format!(
        "{} as {user}, at most {}{mark}",
        migrate.script,
        written(migrate.timeout)
    )
}

fn healthy(minimum: MinimumHealthy) -> String {
    match minimum {
        MinimumHealthy::OneAtATime => "one-at-a-time".into(),
        MinimumHealthy::HalfAtATime => "half-at-a-time".into(),
        MinimumHealthy::AllAtOnce => "all-at-once".into(),
        MinimumHealthy::Percent(percent) => format!("{percent}%"),
        MinimumHealthy::Count(count) => count.to_string(),
    }
}

/// `one after the other, 50% of each healthy, watched 5m, the first 30m`
fn zonal(zones: &Zones) -> String {
    let Zones {
        minimum_healthy,
        monitor,
        first_monitor,
    } = zones;
    format!(
        "one after the other, {} of each healthy, watched {}, the first {}",
        healthy(*minimum_healthy),
        written(*monitor),
        written(*first_monitor)
    )
}

/// `2 of ops@acme.example, cto@acme.example, within 24h`
fn asked(approval: &Approval) -> String {
    let Approval {
        by,
        required,
        author_may_approve,
        expires,
    } = approval;
    let who = match by.is_empty() {
        true => "the approvers".to_owned(),
        false => by.join(", "),
    };
    let author = if *author_may_approve {
        ", the author too"
    } else {
        ""
    };
    format!("{required} of {who}{author}, within {}", written(*expires))
}

type Pair = (String, Option<String>, Option<String>);

fn pairs(mut before: BTreeMap<String, String>, after: BTreeMap<String, String>) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = after
        .into_iter()
        .map(|(key, new)| (key.clone(), before.remove(&key), Some(new)))
        .collect();
    pairs.extend(before.into_iter().map(|(key, old)| (key, Some(old), None)));
    pairs.sort();
    pairs
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use model::{
        Digest,
        port::{Commit, TestChanges},
    };

    use super::*;

    #[test]
    fn tests_are_a_line_for_each_group() {
        let report = |group: &str, passed, failed| TestReport {
            group: group.to_owned(),
            total: passed + failed,
            passed,
            failed,
            skipped: 0,
            duration_ms: 0,
            failures: Vec::new(),
            coverage: None,
            changes: None,
        };
        let mut covered = report("cover", 0, 0);
        let mut coverage = Coverage::default();
        [true, false, true, true]
            .into_iter()
            .for_each(|reached| coverage.lines.count(reached));
        covered.coverage = Some(coverage);
        let mut broken = report("unit", 7, 1);
        broken.changes = Some(TestChanges {
            new_failures: vec!["a".to_owned()],
            ..TestChanges::default()
        });
        let told: Vec<(String, Option<String>, Option<String>)> =
            tests(&[report("unit", 8, 0)], &[broken, covered])
                .into_iter()
                .map(|change| (change.name, change.before, change.after))
                .collect();
        let line = |name: &str, before: Option<&str>, after: &str| {
            (name.to_owned(), before.map(str::to_owned), Some(after.to_owned()))
        };
        assert_eq!(
            told,
            [
                line("unit", Some("8 of 8 passed"), "7 of 8 passed (1 new failure)"),
                line("cover", None, "75.0 % of lines"),
            ]
        );
    }

    fn release(number: u64, yaml: &str) -> Release {
        let there = |path: &Utf8Path| path == "Procfile";
        let (app, _) = App::parse(yaml, "vend.yaml", &there).expect("it is right");
        Release {
            number,
            commit: Commit {
                id: "0".repeat(40),
                author: "Ada <ada@acme.example>".into(),
                message: "Hello".into(),
                branch: "main".into(),
                repository: "acme/shop".into(),
                committed_at: Timestamp::UNIX_EPOCH,
            },
            source: Digest::of("source"),
            image: Digest::of("image"),
            revision: Digest::of(number.to_string()),
            spec: app
                .following("feature/a")
                .expect("no other one")
                .pop()
                .unwrap_or_else(|| app.environments[0].clone()),
            secrets: [("api-key".to_owned(), number)].into(),
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn told(before: Option<&Release>, after: &Release, files: &[(String, String)]) -> String {
        let sides = Sides {
            before,
            after,
            hosts: (1, 1),
            files,
            tree: 12,
            hostname: "production.shop.acme.localhost",
        };
        let line = |change: Change| {
            let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "-".into());
            let (before, after) = (side(&change.before), side(&change.after));
            format!("{:?} {}: {before} > {after}\n", change.subject, change.name)
        };
        let of_digest = |line: &String| !line.starts_with("Image image") && !line.starts_with("Revision");
        changes(&sides).into_iter().map(line).filter(of_digest).collect()
    }

    const PLAIN: &str = "app: shop\n";

    #[test]
    fn a_first_release_says_nothing_of_defaults() {
        assert_eq!(
            told(None, &release(1, PLAIN), &[]),
            "Hosts count: - > 1\nHosts size: - > small\n\
             Rule production.shop.acme.localhost: - > forward to port 8080\n\
             Secret api-key: - > version 1\n\
             File all 12 files of the repository: - > present, 12 files\n"
        );
    }

    #[test]
    fn how_long_an_environment_stays_is_told() {
        let yaml =
            "app: shop\nenvironments: { production: {}, preview: { branches: 'feature/*', limit: 3 } }\n";
        let told = told(None, &release(1, yaml), &[]);
        let line = "Configuration branches: - > made from preview, goes with its branch, or 7d after the last push; 3 at most\n";
        assert!(told.contains(line), "{told}");
    }

    #[test]
    fn values_are_told_as_the_file_writes_them() {
        let yaml = "app: shop\ndatabase: { engine: mariadb }\n\
                    host: { health: { codes: '200-399,404', interval: 10s }, env: { LEVEL: info } }\n\
                    deploy: { minimum_healthy: 2, keep_old: 1h30m }\n\
                    approval: { by: [ops@acme.example], expires: 48h }\n";
        assert_eq!(
            told(Some(&release(1, PLAIN)), &release(2, yaml), &[]),
            "Database engine: - > mariadb\n\
             Configuration approval: - > 1 of ops@acme.example, within 2d\n\
             Configuration deploy.keep_old: 10m > 1h30m\n\
             Configuration deploy.minimum_healthy: one-at-a-time > 2\n\
             Configuration env.LEVEL: - > info\n\
             Configuration host.health.codes: 200-399 > 200-399,404\n\
             Configuration host.health.interval: 5s > 10s\n\
             Secret api-key: version 1 > version 2\n"
        );
        let default = told(None, &release(1, "app: shop\napproval: {}\n"), &[]);
        assert!(
            default.contains("approval: - > 1 of the approvers, within 24h\n"),
            "{default}"
        );
    }

    #[test]
    fn files_are_listed_and_the_rest_is_counted() {
        let file = |n: usize| (["A", "M", "D", "T"][n % 4].to_owned(), format!("f{n}"));
        let files: Vec<_> = (0..LISTED_FILES + 8).map(file).collect();
        let told = told(Some(&release(1, PLAIN)), &release(1, PLAIN), &files);
        let lines: Vec<&str> = told.lines().collect();
        // The secret's new version is none: both sides are the same release.
        assert_eq!(lines.len(), LISTED_FILES + 3);
        assert_eq!(
            lines[LISTED_FILES..],
            [
                "File 2 more added: - > present, 2 files",
                "File 4 more changed: old content, 4 files > new content, 4 files",
                "File 2 more removed: present, 2 files > -",
            ]
        );
    }
}
