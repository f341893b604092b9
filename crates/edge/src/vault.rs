//! What the control side gives to be held, for the edge must have it without the others: certificates of customers' own
//! names, and secrets by which rules let people sign in.
//!
//! Each is a file that only the edge reads, replaced in one step. What cannot be used is named and changes nothing, so
//! that one customer's mistake is nobody else's. A certificate is shown for the one name that it was given for,
//! whatever else it says.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    sync::{Arc, Mutex, PoisonError},
};

use camino::{Utf8Path, Utf8PathBuf};
use model::{Secret, secret};
use serde::{Deserialize, Serialize};

use crate::tls::{Certificates, Good, Seen};

/// All that is to be held. What is not in it is forgotten.
#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// By the name that rules have for it.
    #[serde(serialize_with = "secret::all_in_the_clear")]
    pub secrets: BTreeMap<String, Secret>,
    /// By host: PEM of the chain and the key.
    #[serde(serialize_with = "secret::all_in_the_clear")]
    pub certificates: BTreeMap<String, Secret>,
}

/// Something that cannot be used; what was held in its place stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Useless {
    pub name: String,
    pub why: String,
}

pub struct Vault {
    folder: Utf8PathBuf,
    /// Those of all listeners.
    shown: Vec<Arc<Certificates>>,
    held: Mutex<BTreeMap<String, Good>>,
    useless: Mutex<Vec<Useless>>,
}

/// Where secrets are in the vault's folder.
pub const SECRETS: &str = "secrets";
const CERTIFICATES: &str = "certificates";
const PEM: &str = ".pem";

impl Vault {
    /// With what its folder holds.
    pub fn open(folder: Utf8PathBuf, shown: Vec<Arc<Certificates>>) -> Self {
        let vault = Self {
            folder,
            shown,
            held: Mutex::default(),
            useless: Mutex::default(),
        };
        let mut held = BTreeMap::new();
        for file in names(&vault.folder.join(CERTIFICATES)) {
            let Some(host) = file.strip_suffix(PEM) else {
                continue;
            };
            let read = fs::read(vault.folder.join(CERTIFICATES).join(&file));
            match read
                .map_err(|error| error.to_string())
                .and_then(|pem| usable(host, &pem))
            {
                Ok(good) => drop(held.insert(host.to_owned(), good)),
                Err(why) => tracing::error!(certificate = host, why, "a certificate cannot be used"),
            }
        }
        vault.show(held);
        vault
    }

    /// Holds what is given from now on, and nothing else. Gives what of it cannot be used.
    pub fn keep(&self, given: &Given) -> io::Result<Vec<Useless>> {
        let mut useless = Vec::new();
        let mut held = BTreeMap::new();
        let before = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut files = BTreeMap::new();
        for (host, pem) in &given.certificates {
            let pem = pem.expose().as_bytes();
            match usable(host, pem) {
                Ok(good) => {
                    held.insert(host.clone(), good);
                    files.insert(format!("{host}{PEM}"), Some(pem));
                }
                Err(why) => {
                    if let Some(good) = before.get(host) {
                        held.insert(host.clone(), good.clone());
                        files.insert(format!("{host}{PEM}"), None);
                    }
                    let name = host.clone();
                    useless.push(Useless { name, why });
                }
            }
        }
        replace(&self.folder.join(CERTIFICATES), &files)?;
        let mut files = BTreeMap::new();
        for (name, secret) in &given.secrets {
            match is_file(name) {
                true => drop(files.insert(name.clone(), Some(secret.expose().as_bytes()))),
                false => useless.push(Useless {
                    name: name.clone(),
                    why: "it is not the name of a secret".into(),
                }),
            }
        }
        replace(&self.folder.join(SECRETS), &files)?;
        self.show(held);
        *self.useless.lock().unwrap_or_else(PoisonError::into_inner) = useless.clone();
        Ok(useless)
    }

    fn show(&self, held: BTreeMap<String, Good>) {
        let keys: HashMap<_, _> = held
            .iter()
            .map(|(host, good)| (host.clone(), Arc::clone(&good.key)))
            .collect();
        let keys = Arc::new(keys);
        for certificates in &self.shown {
            certificates.show_for(Arc::clone(&keys));
        }
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// The certificates that are held, as people see them.
    pub fn seen(&self) -> Vec<Seen> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let useless = self.useless.lock().unwrap_or_else(PoisonError::into_inner);
        let why = |name: &str| {
            useless
                .iter()
                .find(|one| one.name == name)
                .map(|one| one.why.clone())
        };
        let good = held.iter().map(|(host, good)| Seen {
            name: host.clone(),
            hosts: vec![host.clone()],
            until: good.until,
            problem: why(host),
        });
        let missing = useless
            .iter()
            .filter(|one| !held.contains_key(&one.name))
            .map(|one| Seen {
                name: one.name.clone(),
                hosts: Vec::new(),
                until: None,
                problem: Some(one.why.clone()),
            });
        good.chain(missing).collect()
    }
}

fn usable(host: &str, pem: &[u8]) -> Result<Good, String> {
    if !is_file(host) {
        return Err("it is not the name of a host".into());
    }
    let good = Good::read(pem, pem)?;
    let covers = |name: &String| match name.strip_prefix('*') {
        Some(rest) => host
            .find('.')
            .is_some_and(|dot| host[dot..].eq_ignore_ascii_case(rest)),
        None => name.eq_ignore_ascii_case(host),
    };
    match good.hosts.iter().any(covers) {
        true => Ok(good),
        false => Err(format!(
            "the certificate is not for {host}, but for {}",
            good.hosts.join(", ")
        )),
    }
}

fn is_file(name: &str) -> bool {
    (1..=240).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Brings a folder to these files. `None`: the one that is there stays.
fn replace(folder: &Utf8Path, files: &BTreeMap<String, Option<&[u8]>>) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for name in names(folder).iter().filter(|name| !files.contains_key(*name)) {
        fs::remove_file(folder.join(name))?;
    }
    for (name, content) in files {
        let path = folder.join(name);
        let Some(content) = content.filter(|content| fs::read(&path).ok().as_deref() != Some(content)) else {
            continue;
        };
        // No name begins with a dot.
        let new = folder.join(".new");
        let _ = fs::remove_file(&new);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
    }
    Ok(())
}

fn names(folder: &Utf8Path) -> Vec<String> {
    let entries = folder
        .read_dir_utf8()
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    entries.map(|entry| entry.file_name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn pair(hosts: &[&str]) -> Secret {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(hosts).unwrap();
        Secret::new(format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem()))
    }

    fn given(certificates: &[(&str, Secret)], secrets: &[(&str, &str)]) -> Given {
        let certificates = certificates
            .iter()
            .map(|(host, pem)| ((*host).to_owned(), pem.clone()));
        let secrets = secrets
            .iter()
            .map(|(name, text)| ((*name).to_owned(), Secret::new((*text).to_owned())));
        Given {
            secrets: secrets.collect(),
            certificates: certificates.collect(),
        }
    }

    #[test]
    fn what_is_given_is_held_for_its_name_alone_and_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap().join("vault");
        let shown = Arc::new(Certificates::default());
        let vault = Vault::open(folder.clone(), vec![Arc::clone(&shown)]);
        let shop = pair(&["shop.test", "other.test"]);
        let all = given(
            &[
                ("shop.test", shop.clone()),
                ("a.wild.test", pair(&["*.wild.test"])),
                ("b.test", pair(&["c.test"])),
            ],
            &[("acme.shop.dev.oidc", "s3cret"), ("../up", "x")],
        );
        let useless = vault.keep(&all).unwrap();
        let names: Vec<&str> = useless.iter().map(|one| &*one.name).collect();
        assert_eq!(names, ["b.test", "../up"], "{useless:?}");
        assert!(
            useless[0].why.contains("is not for b.test, but for c.test"),
            "{useless:?}"
        );
        let hosts = || {
            let mut hosts = shown.shown_for();
            hosts.sort();
            hosts
        };
        assert_eq!(
            hosts(),
            ["a.wild.test", "shop.test"],
            "no other name of a certificate is taken"
        );
        for file in ["secrets/acme.shop.dev.oidc", "certificates/shop.test.pem"] {
            let mode = fs::metadata(folder.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        // One that is no longer good leaves what was there, also for the next process.
        let broken = given(&[("shop.test", Secret::new("nonsense".into()))], &[]);
        assert_eq!(vault.keep(&broken).unwrap().len(), 1);
        assert_eq!(hosts(), ["shop.test"]);
        let seen = vault.seen();
        assert!(
            seen.len() == 1 && seen[0].problem.is_some() && seen[0].until.is_some(),
            "{seen:?}"
        );
        assert!(
            !folder.join("secrets/acme.shop.dev.oidc").exists(),
            "what is not given is forgotten"
        );
        drop(vault);
        shown.show_for(Arc::default());
        let again = Vault::open(folder.clone(), vec![Arc::clone(&shown)]);
        assert_eq!(hosts(), ["shop.test"]);
        again.keep(&Given::default()).unwrap();
        assert!(hosts().is_empty() && super::names(&folder.join(CERTIFICATES)).is_empty());
    }
}
