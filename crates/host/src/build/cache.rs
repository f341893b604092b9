//! What a build keeps for those after it: which caches it may stand on, which it leaves, and what its log says of both.

use std::{collections::BTreeMap, fmt};

use camino::{Utf8Path, Utf8PathBuf};
use model::port::BuildOrder;

use super::{
    Error, Yard,
    ask::{Asking, Expanded},
    console::Console,
    key, sandbox,
};
use crate::{
    cache::{self, Caches, Crop, DOWNLOADS, Harvest, Lease},
    layer::copy::Deletions,
    lives::Life,
    ticket::Stop,
};

/// So many caches with keys are kept of a branch.
const KEYS: usize = 5;

/// What is kept between builds, as one build stands on it.
pub(super) struct Restored {
    /// What tools downloaded.
    downloads: Option<Lease>,
    own: Option<Lease>,
    names: Names,
    life: Life,
}

/// A cache of an app: its name where caches are kept, and what people know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    name: String,
    branch: String,
    key: Option<String>,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "`{}` of the branch {}", key.escape_debug(), self.branch),
            None => write!(f, "of the branch {}", self.branch),
        }
    }
}

/// Where what a buildspec keeps is looked for and put.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    /// In the order in which they are tried.
    restore: Vec<Named>,
    save: Option<Named>,
    /// What is under the name to save never changes.
    fixed: bool,
}

/// A buildspec's key and the beginnings that will do, expanded.
#[derive(Debug, Default)]
pub(super) struct Keys {
    key: String,
    fallback: Vec<String>,
}

impl Restored {
    /// What the build's container stands on.
    pub fn files(&self) -> impl Iterator<Item = Utf8PathBuf> {
        let leases = self.own.iter().chain(&self.downloads);
        leases.map(|lease| lease.files.clone())
    }
}

impl Yard {
    /// The keys of a buildspec's cache, where it has any, or why they cannot be read.
    pub(super) async fn keys(
        &self,
        asking: Asking<'_>,
        stop: &mut Stop,
    ) -> Result<Result<Option<Keys>, String>, Error> {
        let cache = &asking.order.buildspec.cache;
        let Some(key) = cache.key.as_ref().filter(|_| !cache.paths.is_empty()) else {
            return Ok(Ok(None));
        };
        let all = || {
            std::iter::once(key)
                .chain(&cache.fallback_keys)
                .map(String::as_str)
        };
        let of_shell: Vec<&str> = all().filter(|key| key::needs_shell(key)).collect();
        let answers = match of_shell.is_empty() {
            true => Vec::new(),
            false => self.ask(asking, &of_shell, stop).await?,
        };
        let answers: BTreeMap<&str, Expanded> = of_shell.into_iter().zip(answers).collect();
        let plain = plain(asking);
        let expanded = all().map(|key| match answers.get(key) {
            Some(answer) => key::checked(answer.as_ref().map_err(String::clone)?),
            None => plain(key),
        });
        let expanded: Result<Vec<String>, String> = expanded.collect();
        Ok(expanded.map(|mut all| {
            let key = all.remove(0);
            Some(Keys { key, fallback: all })
        }))
    }

    /// Finds what earlier builds kept. A key that cannot be read is told, and nothing is kept.
    pub(super) fn restore(
        &self,
        order: &BuildOrder,
        life: Life,
        keys: &Result<Option<Keys>, String>,
        console: &mut Console,
    ) -> Result<Restored, Error> {
        let caches = self.0.oven.caches();
        let cache = &order.buildspec.cache;
        let inner = |home: &str| inner(caches, home);
        let (mut own, mut names) = (None, Names::default());
        match keys {
            _ if cache.paths.is_empty() => {}
            Err(why) => console.line(&format!("The cache is not used: its key {why}")),
            Ok(keys) => {
                names = self::names(order, life, keys.as_ref(), &inner);
                let tried = names.restore.iter().map(|named| named.name.as_str());
                let found = caches.lease_first(tried)?;
                console.line(&match &found {
                    Some((at, _)) => format!("The cache {} is restored", names.restore[*at]),
                    None if !cache.restore => "No cache is restored: `cache.action` is `save`".to_owned(),
                    None => nothing(keys.as_ref()),
                });
                own = found.map(|(_, lease)| lease);
            }
        }
        let downloads: Vec<String> = branches(order)
            .into_iter()
            .map(|branch| downloads_name(order, life, branch))
            .collect();
        let downloads = caches.lease_first(downloads.iter().map(String::as_str))?;
        Ok(Restored {
            downloads: downloads.map(|(_, lease)| lease),
            own,
            names,
            life,
        })
    }

    /// Keeps the caches of a build that came to its end. Gives the line that says what became of the app's own, where it
    /// has one. Of a build that failed nothing is kept that would stay as it is.
    pub(super) async fn harvest(
        &self,
        order: &BuildOrder,
        upper: &Utf8Path,
        uid_base: u32,
        restored: Restored,
        succeeded: bool,
    ) -> Result<Option<String>, Error> {
        let caches = self.0.oven.caches().clone();
        let downloads = downloads_name(order, restored.life, &order.commit.branch);
        let keyed = keyed(order, restored.life, &order.commit.branch);
        let only_restored = !order.buildspec.cache.paths.is_empty() && !order.buildspec.cache.save;
        let (kept, upper) = (kept(order), upper.to_owned());
        let harvested = tokio::task::spawn_blocking(move || {
            let Restored {
                own,
                names,
                downloads: stood_on,
                ..
            } = restored;
            caches.harvest(&Crop {
                name: &downloads,
                restored: stood_on.as_ref(),
                upper: &upper,
                directories: &DOWNLOADS.map(str::to_owned),
                uid_base,
                deletions: Deletions::Ignore,
                once: false,
            })?;
            drop(stood_on);
            let Some(named) = names.save else {
                let said = "No cache is saved: `cache.action` is `restore`";
                return Ok(only_restored.then(|| said.to_owned()));
            };
            if names.fixed && !succeeded {
                return Ok(Some(format!("The cache {named} is not saved: the build failed")));
            }
            let harvest = caches.harvest(&Crop {
                name: &named.name,
                restored: own.as_ref(),
                upper: &upper,
                directories: &kept,
                uid_base,
                deletions: Deletions::Apply,
                once: names.fixed,
            })?;
            drop(own);
            note(&caches, &named, harvest)?;
            if names.fixed {
                caches.trim(&keyed, KEYS)?;
            }
            Ok::<_, Error>(Some(said(&named, harvest)))
        });
        harvested.await.map_err(|_| Error::Interrupted)?
    }
}

/// What became of a cache, for the log.
fn said(named: &Named, harvest: Harvest) -> String {
    match harvest {
        Harvest::Kept => format!("The cache {named} is saved"),
        Harvest::There => format!("The cache {named} is there already and stays as it is"),
        Harvest::Nothing => format!("The cache {named} is not saved: nothing in its paths was written"),
        Harvest::TooLarge(most) => format!(
            "The cache {named} is not saved: it would have more than {} GiB",
            most >> 30
        ),
    }
}

/// Reads a key that needs no shell.
fn plain(asking: Asking<'_>) -> impl Fn(&str) -> Result<String, String> {
    let Asking {
        ticket,
        order,
        image,
        source,
    } = asking;
    let source = source.join(sandbox::source_directory(order).trim_start_matches('/'));
    let variables = sandbox::variables(ticket, order, image);
    move |key| {
        let hash = |patterns: &[String]| key::hash_files(source.as_std_path(), patterns);
        key::expand(key, &variables, &hash)
    }
}

/// Said when there is nothing to restore.
fn nothing(keys: Option<&Keys>) -> String {
    let Some(Keys { key, fallback }) = keys else {
        return "There is no cache to restore".to_owned();
    };
    let mut said = format!(
        "There is no cache to restore for the key `{}`",
        key.escape_debug()
    );
    if !fallback.is_empty() {
        let all: Vec<String> = fallback
            .iter()
            .map(|key| format!("`{}`", key.escape_debug()))
            .collect();
        said.push_str(&format!(", nor one that begins with {}", all.join(" or ")));
    }
    said
}

/// The name of what tools downloaded in a branch's builds. A tool trusts what it once kept, so that a branch could put
/// anything into the builds of all who share this.
fn downloads_name(order: &BuildOrder, life: Life, branch: &str) -> String {
    format!("{}-builds", cache_name(order, life, branch))
}

/// The directories that a buildspec keeps between builds, relative to the container's root: the part of each path before
/// its first glob.
fn kept(order: &BuildOrder) -> Vec<String> {
    let paths = order.buildspec.cache.paths.iter();
    let directories = paths.filter_map(|path| {
        let plain: Vec<&str> = path
            .split('/')
            .take_while(|part| !part.contains(['*', '?', '[', '{']))
            .collect();
        let plain = plain.join("/");
        let absolute = match plain.strip_prefix('/') {
            Some(absolute) => absolute.to_owned(),
            None => format!(
                "{}/{plain}",
                sandbox::source_directory(order).trim_start_matches('/')
            ),
        };
        let parts: Vec<&str> = absolute
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        // Neither the whole disk nor the source tree itself is a cache.
        let is_source = parts.join("/") == sandbox::source_directory(order).trim_start_matches('/');
        let honest = !parts.is_empty() && !parts.contains(&"..") && !is_source;
        honest.then(|| parts.join("/"))
    });
    directories.collect()
}

/// The branches whose caches a build may stand on, its own first.
fn branches(order: &BuildOrder) -> Vec<&str> {
    cache::branches(&order.commit.branch, order.trunk.as_deref())
}

/// The name of an app's own cache: one for each branch, so that a branch cannot put anything into another's builds. Of one that
/// was deleted the next of its name finds nothing, also of what a build leaves that goes on meanwhile.
fn cache_name(order: &BuildOrder, life: Life, branch: &str) -> String {
    format!("{}{life}", cache::of_branch(&order.place, branch))
}

/// The name of what earlier runs of a branch's tests said, of each build of a batch for itself. No identifier has a `+`, so
/// that none makes the name of another cache.
pub(super) fn tests_name(order: &BuildOrder, life: Life) -> String {
    let name = cache_name(order, life, &order.commit.branch);
    match &order.task {
        Some(task) => format!("{name}+{}", task.identifier),
        None => name,
    }
}

/// Where a branch's caches with keys are.
fn keyed(order: &BuildOrder, life: Life, branch: &str) -> String {
    format!("{}-keys", cache_name(order, life, branch))
}

/// `inner` tells the keys of the caches below a name, the newest first.
fn names(order: &BuildOrder, life: Life, keys: Option<&Keys>, inner: &dyn Fn(&str) -> Vec<String>) -> Names {
    let cache = &order.buildspec.cache;
    let mut names = Names::default();
    let named = |branch: &str, key: Option<&str>| Named {
        name: match key {
            Some(key) => format!("{}/{}", keyed(order, life, branch), key::name(key)),
            None => cache_name(order, life, branch),
        },
        branch: branch.to_owned(),
        key: key.map(str::to_owned),
    };
    let own = order.commit.branch.as_str();
    let from = || branches(order).into_iter().filter(|_| cache.restore);
    let Some(Keys { key, fallback }) = keys else {
        names.restore = from().map(|branch| named(branch, None)).collect();
        names.save = cache.save.then(|| named(own, None));
        return names;
    };
    names.restore = from().map(|branch| named(branch, Some(key))).collect();
    for branch in from() {
        let there = inner(&keyed(order, life, branch));
        for wanted in fallback {
            let alike = there.iter().filter(|key| key.starts_with(wanted.as_str()));
            names.restore.extend(alike.map(|key| named(branch, Some(key))));
        }
    }
    names.save = cache.save.then(|| named(own, Some(key)));
    names.fixed = true;
    names
}

/// The keys of the caches below a name, the newest first.
fn inner(caches: &Caches, home: &str) -> Vec<String> {
    let names = caches.inner(home).unwrap_or_default().into_iter();
    let key = |name: String| {
        key::of_name(&name, |most| {
            caches.note(&format!("{home}/{name}"), key::NOTE, most)
        })
    };
    names.filter_map(key).collect()
}

/// Writes the key beside a cache whose name does not say it, also where a build that was killed did not come to it.
fn note(caches: &Caches, named: &Named, harvest: Harvest) -> Result<(), Error> {
    let key = named.key.as_ref().filter(|key| key::is_noted(key));
    if let (Some(key), Harvest::Kept | Harvest::There) = (key, harvest)
        && caches.note(&named.name, key::NOTE, 1).is_none()
    {
        caches.write_note(&named.name, key::NOTE, key.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::spec::{Buildspec, build::Task};

    use super::*;
    use crate::build::choice_order;

    #[test]
    fn no_build_of_a_batch_takes_another_cache_s_name() {
        let text = "version: 0.2\nphases: { build: { commands: ['true'] } }\n";
        let (spec, _) = Buildspec::parse(text, "buildspec.yml").unwrap();
        let mut order = choice_order(spec);
        let (first, later) = (Life::default(), Life { tenant: 1, app: 2 });
        for identifier in ["keys", "builds", "bakes", "keys-1", "unit_1"] {
            order.task = Some(Task {
                identifier: identifier.to_owned(),
                ..Task::default()
            });
            for life in [first, later] {
                let branch = order.commit.branch.as_str();
                let own = cache_name(&order, life, branch);
                let tests = tests_name(&order, life);
                assert!(tests.starts_with(&own) && tests.ends_with(identifier));
                assert_ne!(tests, keyed(&order, life, branch));
                assert_ne!(tests, downloads_name(&order, life, branch));
                assert_ne!(tests, format!("{own}-bakes"));
            }
        }
        order.task = None;
        assert_eq!(tests_name(&order, later), cache_name(&order, later, "main"));
    }

    #[test]
    fn caches_with_long_keys_are_found_by_their_beginnings() {
        let node = tempfile::tempdir().unwrap();
        let caches = Caches::open(Utf8Path::from_path(node.path()).unwrap(), 1 << 20).unwrap();
        let text = "version: 0.2\nphases: { build: { commands: ['true'] } }\ncache: { paths: [a], key: k }\n";
        let (spec, _) = Buildspec::parse(text, "buildspec.yml").unwrap();
        let order = choice_order(spec);
        let life = Life::default();
        let hash = |digit: &str| digit.repeat(64);
        let key = format!("k-{}-{}", hash("1"), hash("2"));
        let keys = |key: &str, fallback: &str| Keys {
            key: key.to_owned(),
            fallback: vec![fallback.to_owned()],
        };
        let tried = |keys: &Keys| {
            let names = names(&order, life, Some(keys), &|home| inner(&caches, home));
            names
                .restore
                .into_iter()
                .filter_map(|named| named.key)
                .collect::<Vec<_>>()
        };
        let other = format!("k-{}-{}", hash("1"), hash("3"));
        let beginning = keys(&other, &format!("k-{}-", hash("1")));
        assert!(!tried(&beginning).contains(&key));

        let named = names(&order, life, Some(&keys(&key, "x")), &|_| Vec::new())
            .save
            .unwrap();
        // A generation, of which a killed build did not write the key.
        std::fs::create_dir_all(node.path().join("cache").join(&named.name).join("1")).unwrap();
        assert!(!tried(&beginning).contains(&key));
        note(&caches, &named, Harvest::Nothing).unwrap();
        assert!(!tried(&beginning).contains(&key));
        note(&caches, &named, Harvest::There).unwrap();
        assert!(tried(&beginning).contains(&key));
        assert!(!tried(&keys(&other, &format!("k-{}", hash("2")))).contains(&key));
        let exact = names(&order, life, Some(&keys(&key, "x")), &|_| Vec::new()).restore;
        let (at, _) = caches
            .lease_first(exact.iter().map(|named| named.name.as_str()))
            .unwrap()
            .unwrap();
        assert_eq!(exact[at].key.as_deref(), Some(key.as_str()));
    }
}
