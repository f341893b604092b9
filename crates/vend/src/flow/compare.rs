//! What differs between two releases: the body of a plan.
//!
//! Pure. A plan is shown to people and bound to an approval, so it holds every difference that changes how the
//! environment behaves, and nothing that changes by itself.

mod files;
mod login;
mod settings;
mod tested;
mod traffic;

use std::collections::BTreeMap;

use camino::Utf8Path;
use files::many;
use model::{
    plan::{Change, Subject},
    release::Release,
    spec::{App, Environment},
};

use settings::settings;
pub use tested::changes as tests;

/// The two sides of a plan. `before` is absent for the first release of an environment.
pub struct Sides<'a> {
    pub before: Option<&'a Release>,
    pub after: &'a Release,
    /// Hosts now and then; absent where the release goes to machines, which are as many as there are.
    pub hosts: Option<(u32, u32)>,
    /// (`A`, `M`, `D`…, path), as git says. Of a first release nothing is compared.
    pub files: &'a [(String, String)],
    /// How many files a first release brings.
    pub tree: usize,
    pub hostname: &'a str,
}

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
    if let Some((now, then)) = sides.hosts {
        differ(
            Subject::Hosts,
            "count",
            before.map(|_| now.to_string()),
            Some(then.to_string()),
        );
    }
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
        Some(_) => files::changes(sides.files),
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
    use model::{Digest, port::Commit};

    use super::*;

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
            hosts: Some((1, 1)),
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
        let files: Vec<_> = (0..files::LISTED + 8).map(file).collect();
        let told = told(Some(&release(1, PLAIN)), &release(1, PLAIN), &files);
        let lines: Vec<&str> = told.lines().collect();
        // The secret's new version is none: both sides are the same release.
        assert_eq!(lines.len(), files::LISTED + 3);
        assert_eq!(
            lines[files::LISTED..],
            [
                "File 2 more added: - > present, 2 files",
                "File 4 more changed: old content, 4 files > new content, 4 files",
                "File 2 more removed: present, 2 files > -",
            ]
        );
    }
}
