//! Certificates by name, from files that may change at any time. A file that cannot be used is named and changes
//! nothing: what was good before goes on.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};

use super::{
    CHALLENGE, EVERY, Stamp, facts,
    ocsp::{self, Unfit},
    provider, stamp,
};
use crate::clock;

/// The name of the certificate that clients get who ask for no name, or for one that is not there.
const DEFAULT: &str = "default";

/// One certificate, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The file's, without its ending.
    pub name: String,
    pub hosts: Vec<String>,
    pub until: Option<Timestamp>,
    /// Why the file, as it is now, is not used, or its answer of OCSP not shown, or why there is no newer one.
    pub problem: Option<String>,
}

/// The certificates of an edge.
#[derive(Debug, Default)]
pub struct Certificates {
    serving: ArcSwap<Serving>,
    /// Those that the vault has, each for one host. They go first.
    own: ArcSwap<HashMap<String, Arc<CertifiedKey>>>,
    /// What answers a challenge of TLS-ALPN-01, by host.
    challenges: Mutex<HashMap<String, Arc<CertifiedKey>>>,
    held: Mutex<BTreeMap<String, Held>>,
    /// Why the last renewal failed, by name.
    failures: Mutex<BTreeMap<String, String>>,
}

#[derive(Debug, Default)]
struct Serving {
    /// In lower case; `*.example.com` by `.example.com`.
    hosts: HashMap<String, Named>,
    default: Option<Named>,
}

/// A key, and the name of its file.
#[derive(Debug, Clone)]
struct Named {
    name: Arc<str>,
    key: Arc<CertifiedKey>,
}

/// One name of the folder.
#[derive(Debug)]
struct Held {
    stamps: Stamps,
    good: Option<Good>,
    problem: Option<String>,
    /// When its answer of OCSP is to be looked at again, though no file has changed.
    again: Option<Timestamp>,
}

/// A certificate that can be used.
#[derive(Debug, Clone)]
pub struct Good {
    pub key: Arc<CertifiedKey>,
    pub hosts: Vec<String>,
    pub until: Option<Timestamp>,
}

/// The files of one name, as they were when they were read.
type Stamps = Vec<(Utf8PathBuf, Stamp)>;

impl Certificates {
    /// Looks at the folder until it is dropped.
    pub async fn watch(self: Arc<Self>, folder: Utf8PathBuf) {
        loop {
            tokio::time::sleep(EVERY).await;
            let (certificates, folder) = (Arc::clone(&self), folder.clone());
            let read = tokio::task::spawn_blocking(move || certificates.read(&folder)).await;
            if let Ok(Err(error)) = read {
                tracing::warn!(%error, "cannot look at the certificates");
            }
        }
    }

    /// Takes over what has changed in the folder.
    pub fn read(&self, folder: &Utf8Path) -> io::Result<()> {
        self.read_at(folder, clock::now())
    }

    fn read_at(&self, folder: &Utf8Path, now: Timestamp) -> io::Result<()> {
        let found = names(folder)?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = held.len();
        held.retain(|name, _| found.contains_key(name));
        changed -= held.len();
        for (name, stamps) in found {
            let stands = |held: &Held| held.stamps == stamps && held.again.is_none_or(|again| again > now);
            if held.get(&name).is_some_and(stands) {
                continue;
            }
            changed += 1;
            let before = held.remove(&name).and_then(|held| held.good);
            let read = match load(folder, &name, now) {
                Ok((good, staple)) => {
                    tracing::info!(
                        certificate = name,
                        hosts = good.hosts.len(),
                        "certificate in force"
                    );
                    if let Some(problem) = &staple.problem {
                        tracing::warn!(certificate = name, problem, "a certificate is shown without OCSP");
                    }
                    (Some(good), staple)
                }
                Err(problem) => {
                    tracing::error!(certificate = name, problem, "a certificate cannot be used");
                    let problem = Some(problem);
                    (before, Staple { problem, again: None })
                }
            };
            let (good, Staple { problem, again }) = read;
            held.insert(
                name,
                Held {
                    stamps,
                    good,
                    problem,
                    again,
                },
            );
        }
        if changed > 0 {
            self.serving.store(Arc::new(Serving::of(&held)));
        }
        Ok(())
    }

    /// Shows each of these for its host, in lower case, and no others.
    pub fn show_for(&self, own: Arc<HashMap<String, Arc<CertifiedKey>>>) {
        self.own.store(own);
    }

    /// Is there none that can be used?
    pub fn is_empty(&self) -> bool {
        self.serving.load().default.is_none()
    }

    #[cfg(test)]
    pub fn shown_for(&self) -> Vec<String> {
        self.own.load().keys().cloned().collect()
    }

    /// Is there one for this host, which is in lower case?
    pub fn are_for(&self, host: &str) -> bool {
        self.own.load().contains_key(host) || self.serving.load().find(host).is_some()
    }

    /// The name of the certificate that a client gets who asks for this host, and whether it is for that host.
    pub fn shown(&self, host: Option<&str>) -> (Option<String>, bool) {
        let own = host.map(str::to_ascii_lowercase);
        if let Some(host) = own.filter(|host| self.own.load().contains_key(host)) {
            return (Some(host), true);
        }
        let serving = self.serving.load();
        let named = host.and_then(|host| serving.find(host));
        let shown = named.or(serving.default.as_ref());
        (shown.map(|shown| shown.name.to_string()), named.is_some())
    }

    pub fn seen(&self) -> Vec<Seen> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<&String> = held.keys().chain(failures.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let seen = names.into_iter().map(|name| {
            let held = held.get(name);
            let good = held.and_then(|held| held.good.as_ref());
            Seen {
                name: name.clone(),
                hosts: good.map(|good| good.hosts.clone()).unwrap_or_default(),
                until: good.and_then(|good| good.until),
                problem: held
                    .and_then(|held| held.problem.clone())
                    .or_else(|| failures.get(name).cloned()),
            }
        });
        seen.collect()
    }

    /// How the renewal of a certificate went: none is well.
    pub fn renewed(&self, name: &str, failure: Option<String>) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            Some(failure) => _ = failures.insert(name.to_owned(), failure),
            None => _ = failures.remove(name),
        }
    }

    /// Answers challenges of TLS-ALPN-01 for a host, or no longer.
    pub fn challenge(&self, host: &str, key: Option<Arc<CertifiedKey>>) {
        let mut challenges = self.challenges.lock().unwrap_or_else(PoisonError::into_inner);
        match key {
            Some(key) => _ = challenges.insert(host.to_owned(), key),
            None => _ = challenges.remove(host),
        }
    }
}

impl Serving {
    fn of(held: &BTreeMap<String, Held>) -> Self {
        let mut serving = Self::default();
        for (name, good) in held
            .iter()
            .filter_map(|(name, held)| Some((name, held.good.as_ref()?)))
        {
            let named = Named {
                name: name.as_str().into(),
                key: Arc::clone(&good.key),
            };
            for host in &good.hosts {
                let host = host.strip_prefix('*').unwrap_or(host).to_ascii_lowercase();
                serving.hosts.entry(host).or_insert_with(|| named.clone());
            }
            if name == DEFAULT || serving.default.is_none() {
                serving.default = Some(named);
            }
        }
        serving
    }

    fn find(&self, host: &str) -> Option<&Named> {
        let host = host.to_ascii_lowercase();
        let wild = || self.hosts.get(&host[host.find('.')?..]);
        self.hosts.get(&host).or_else(wild)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut protocols = hello.alpn().into_iter().flatten();
        if protocols.any(|protocol| protocol == CHALLENGE) {
            let challenges = self.challenges.lock().unwrap_or_else(PoisonError::into_inner);
            return challenges.get(hello.server_name()?).cloned();
        }
        let own = hello
            .server_name()
            .and_then(|host| self.own.load().get(&host.to_ascii_lowercase()).cloned());
        if own.is_some() {
            return own;
        }
        let serving = self.serving.load();
        let named = hello.server_name().and_then(|host| serving.find(host));
        let shown = named.or(serving.default.as_ref());
        shown.map(|shown| Arc::clone(&shown.key))
    }
}

/// The names of a folder, with what changes when their files do.
fn names(folder: &Utf8Path) -> io::Result<BTreeMap<String, Stamps>> {
    let mut names: BTreeMap<String, Stamps> = BTreeMap::new();
    let entries = match folder.read_dir_utf8() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.into_path();
        let (Some(name), Some("pem" | "crt" | "key" | "ocsp")) = (path.file_stem(), path.extension()) else {
            continue;
        };
        // Else it went away in this moment.
        if let Some(stamp) = stamp(&path) {
            let name = name.to_owned();
            names.entry(name).or_default().push((path, stamp));
        }
    }
    for stamps in names.values_mut() {
        stamps.sort();
    }
    Ok(names)
}

/// What came of the answer of OCSP that lies beside a certificate.
#[derive(Default)]
struct Staple {
    /// Why it is not shown.
    problem: Option<String>,
    again: Option<Timestamp>,
}

fn load(folder: &Utf8Path, name: &str, now: Timestamp) -> Result<(Good, Staple), String> {
    let file = |ending: &str| folder.join(format!("{name}.{ending}"));
    let read =
        |path: Utf8PathBuf| std::fs::read(&path).map_err(|error| format!("cannot read {path}: {error}"));
    let (chain, key) = match file("pem").exists() {
        true => {
            let both = read(file("pem"))?;
            (both.clone(), both)
        }
        false => (read(file("crt"))?, read(file("key"))?),
    };
    let good = Good::read(&chain, &key)?;
    Ok(match std::fs::read(file("ocsp")) {
        Ok(answer) => good.stapled(answer, now),
        Err(_) => (good, Staple::default()),
    })
}

impl Good {
    /// Of PEM. Both may be the same text.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|error| format!("the certificates are not PEM: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| format!("there is no private key: {error}"))?;
        let first = chain.first().ok_or("there is no certificate")?.clone();
        let hosts = hosts(&first)?;
        let until = facts(&first).map(|facts| facts.until);
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => "the key is not that of the certificate".to_owned(),
            error => format!("the key cannot be used: {error}"),
        })?;
        Ok(Self {
            key: Arc::new(key),
            hosts,
            until,
        })
    }

    /// With an answer of OCSP, if clients would take it: one that they would not is worse than none.
    fn stapled(self, answer: Vec<u8>, now: Timestamp) -> (Self, Staple) {
        match ocsp::check(&answer, &self.key.cert, now) {
            Ok(again) => {
                let key = CertifiedKey {
                    ocsp: Some(answer),
                    ..CertifiedKey::clone(&self.key)
                };
                let key = Arc::new(key);
                (Self { key, ..self }, Staple { problem: None, again })
            }
            Err(why) => {
                let again = match why {
                    Unfit::Early(from) => Some(from),
                    _ => None,
                };
                let problem = Some(format!("its answer of OCSP is not shown: {why}"));
                (self, Staple { problem, again })
            }
        }
    }
}

fn hosts(certificate: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let read = webpki::EndEntityCert::try_from(certificate);
    let read = read.map_err(|error| format!("the certificate cannot be read: {error}"))?;
    Ok(read.valid_dns_names().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::ocsp::tests::{Says, world};

    #[test]
    fn an_answer_of_ocsp_is_shown_for_as_long_as_it_holds_and_its_successor_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap();
        let world = world();
        std::fs::write(path.join("shop.pem"), &world.pem).unwrap();
        let answer = |until| {
            world.answer(&Says {
                until,
                ..Says::default()
            })
        };
        let (first, second) = (answer("20260103000000Z"), answer("20260108000000Z"));
        std::fs::write(path.join("shop.ocsp"), &first).unwrap();
        let certificates = Certificates::default();
        let at = |time: &str| {
            certificates.read_at(path, time.parse().unwrap()).unwrap();
            let shown = certificates
                .serving
                .load()
                .default
                .as_ref()
                .unwrap()
                .key
                .ocsp
                .clone();
            (shown, certificates.seen()[0].problem.clone())
        };
        let early = "its answer of OCSP is not shown: it holds from 2026-01-01T00:00:00Z on";
        assert_eq!(at("2025-12-31T00:00:00Z"), (None, Some(early.to_owned())));
        assert_eq!(at("2026-01-01T00:00:00Z"), (Some(first), None));
        let late = "its answer of OCSP is not shown: it held until 2026-01-03T00:00:00Z";
        assert_eq!(at("2026-01-03T00:00:00Z"), (None, Some(late.to_owned())));
        std::fs::write(path.join("new"), &second).unwrap();
        std::fs::rename(path.join("new"), path.join("shop.ocsp")).unwrap();
        assert_eq!(at("2026-01-03T00:00:02Z"), (Some(second), None));
        std::fs::write(path.join("shop.ocsp"), b"an answer of OCSP").unwrap();
        let wrong = "its answer of OCSP is not shown: it is no answer of OCSP";
        assert_eq!(at("2026-01-03T00:00:04Z"), (None, Some(wrong.to_owned())));
        assert!(!certificates.is_empty());
    }
}
