//! Certificates from an authority (ACME, RFC 8555), long before the old ones end.
//!
//! What is got is written where certificates are anyway, so that `tls` finds it there, after a restart as well. A
//! failure is kept beside the certificate's name for people to see, and tried again more and more seldom.

mod http;

use std::{
    collections::{HashMap, HashSet},
    error::Error as _,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    sync::Arc,
    time::Duration,
};

use camino::{Utf8Path, Utf8PathBuf};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder,
    OrderStatus, RetryPolicy,
};
use jiff::Timestamp;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use tokio::{
    sync::Mutex,
    task::{self, JoinSet},
};

use crate::{
    clock,
    live::Shared,
    quota,
    tls::{Certificates, facts, provider},
};

/// How often it is looked whether a certificate must be renewed.
const EVERY: Duration = Duration::from_secs(5);
/// After a failure; it doubles up to `SELDOM`.
const SOON: i64 = 60;
const SELDOM: i64 = 12 * 3600;
/// For one order, from its beginning to the certificate.
const PATIENCE: Duration = Duration::from_secs(180);

/// Where certificates come from, and which are wanted.
#[derive(Debug, Clone)]
pub struct Acme {
    /// The authority's directory: `https://acme-v02.api.letsencrypt.org/directory`.
    pub directory: String,
    /// `mailto:` addresses; the authority may write there.
    pub contact: Vec<String>,
    /// PEM: who may have signed the authority's own certificate. Else the machine's.
    pub roots: Option<Utf8PathBuf>,
    /// The folder of the account's key; only for us.
    pub account: Utf8PathBuf,
    /// The folder of certificates of the listener that is to have them.
    pub certificates: Utf8PathBuf,
    pub challenge: Challenge,
    /// By name, the hosts of each certificate.
    pub wanted: Vec<(String, Vec<String>)>,
}

/// How it is shown that a host is ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Challenge {
    /// A file at port 80; any plain HTTP listener answers.
    #[default]
    Http,
    /// A handshake at port 443; the listener of the certificates answers.
    Tls,
    /// A text in the names of the platform's zones; the built-in name server answers. The only way to a wildcard.
    Dns,
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the authority refused")]
    Authority(#[from] instant_acme::Error),
    #[error("the authority does not offer to check `{0}` in this way")]
    Way(String),
    #[error("`{0}` is in no zone of this platform: what the authority asks for cannot be put into its names")]
    Zone(String),
    #[error("the authority could not check `{host}`: {why}")]
    Check { host: String, why: String },
    #[error("the order ended as {0}")]
    Order(String),
    #[error("the answer to the challenge cannot be made")]
    Answer(#[from] rcgen::Error),
    #[error("the key of the answer cannot be used")]
    Key(#[source] rustls::Error),
    #[error("cannot read or write {path}")]
    File {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the account cannot be read: {0}")]
    Account(String),
    #[error("no trusted roots for the authority")]
    Roots(#[source] crate::tls::Error),
    #[error("no certificate after {} s", PATIENCE.as_secs())]
    Late,
}

/// Orders at the same time, each for another tenant.
const ORDERS: usize = 16;

/// One certificate that is wanted: its name, its hosts, and who wants it.
struct Wish {
    name: String,
    hosts: Vec<String>,
    tenant: Box<str>,
}

/// When each is tried again after a failure, and how many seconds that was put off.
type Later = HashMap<String, (Timestamp, i64)>;

/// Renews until it is dropped.
pub async fn run(acme: Acme, certificates: Arc<Certificates>, shared: Arc<Shared>) {
    let acme = Arc::new(acme);
    // Two that come first at the same time would make two accounts.
    let entrance = Arc::new(Mutex::new(()));
    let mut later = Later::new();
    let mut orders = JoinSet::new();
    // Whose orders are under way, the certificate's name and the tenant.
    let mut busy: HashMap<task::Id, (String, Box<str>)> = HashMap::new();
    loop {
        let now = clock::now();
        let due = |wish: &Wish| {
            let waits = later.get(&wish.name).is_some_and(|(at, _)| *at > now);
            let path = acme.certificates.join(format!("{}.pem", wish.name));
            !waits && is_due(&path, &wish.hosts, now)
        };
        let taken = busy.values().map(|(_, tenant)| tenant.clone()).collect();
        for Wish { name, hosts, tenant } in next(wanted(&acme, &shared), taken, due) {
            let (acme, certificates) = (Arc::clone(&acme), Arc::clone(&certificates));
            let (shared, entrance, own) = (Arc::clone(&shared), Arc::clone(&entrance), name.clone());
            let order = orders.spawn(async move {
                let order = renew(&acme, &own, &hosts, &certificates, &shared, &entrance);
                let ended = tokio::time::timeout(PATIENCE, order).await;
                ended.unwrap_or(Err(Error::Late))
            });
            busy.insert(order.id(), (name, tenant));
        }
        let ended = tokio::select! {
            Some(ended) = orders.join_next_with_id() => ended,
            () = tokio::time::sleep(EVERY) => continue,
        };
        let (id, ended) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), Err(Error::Order("nothing: it broke off".into()))),
        };
        if let Some((name, _)) = busy.remove(&id) {
            note(name, ended, &certificates, &mut later);
        }
    }
}

/// Those to order now: one of each tenant at a time, so that names which cannot be checked, and take minutes to say so,
/// keep nobody else waiting. `taken` are the tenants that have one under way.
fn next(wanted: Vec<Wish>, mut taken: HashSet<Box<str>>, is_due: impl Fn(&Wish) -> bool) -> Vec<Wish> {
    let mut chosen = Vec::new();
    for wish in wanted {
        if taken.len() < ORDERS && !taken.contains(&wish.tenant) && is_due(&wish) {
            taken.insert(wish.tenant.clone());
            chosen.push(wish);
        }
    }
    chosen
}

/// What came of an order, for people to see, and when a failed one is tried again.
fn note(name: String, ended: Result<(), Error>, certificates: &Certificates, later: &mut Later) {
    let Err(error) = ended else {
        tracing::info!(certificate = %name, "certificate from the authority");
        certificates.renewed(&name, None);
        later.remove(&name);
        return;
    };
    let wait = later.get(&name).map_or(SOON, |(_, wait)| (wait * 2).min(SELDOM));
    let reason = chain(&error);
    tracing::error!(certificate = %name, reason, again_in_s = wait, "a certificate was not renewed");
    certificates.renewed(&name, Some(reason));
    later.insert(name, (clock::now() + jiff::SignedDuration::from_secs(wait), wait));
}

/// What was asked for, and what rules want for their hosts.
fn wanted(acme: &Acme, shared: &Shared) -> Vec<Wish> {
    let own = acme.wanted.iter().map(|(name, hosts)| Wish {
        name: name.clone(),
        hosts: hosts.clone(),
        tenant: "".into(),
    });
    let mut wanted: Vec<Wish> = own.collect();
    let rules = shared.book().rules();
    for rule in rules.iter().filter(|rule| rule.wants_certificate()) {
        let hosts: Vec<String> = rule.hosts().map(str::to_owned).collect();
        if let Some(name) = hosts
            .first()
            .filter(|name| wanted.iter().all(|known| known.name != **name))
        {
            wanted.push(Wish {
                name: name.clone(),
                hosts,
                tenant: quota::tenant(rule.place()),
            });
        }
    }
    wanted
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// There is none, it is for other hosts, or two thirds of its time are over.
fn is_due(path: &Utf8Path, hosts: &[String], now: Timestamp) -> bool {
    let read = || {
        let bytes = std::fs::read(path).ok()?;
        let first = CertificateDer::from_pem_slice(&bytes).ok()?;
        let facts = facts(&first)?;
        let named = webpki::EndEntityCert::try_from(&first).ok()?;
        let all = hosts.iter().all(|host| {
            named
                .valid_dns_names()
                .any(|name| name.eq_ignore_ascii_case(host))
        });
        let whole = facts.until.duration_since(facts.from);
        Some(!all || now.duration_since(facts.from) > whole * 2 / 3)
    };
    read().unwrap_or(true)
}

async fn renew(
    acme: &Acme,
    name: &str,
    hosts: &[String],
    certificates: &Certificates,
    shared: &Shared,
    entrance: &Mutex<()>,
) -> Result<(), Error> {
    let account = {
        let _alone = entrance.lock().await;
        account(acme).await?
    };
    let hosts: Vec<Identifier> = hosts.iter().map(|host| Identifier::Dns(host.clone())).collect();
    let mut order = account.new_order(&NewOrder::new(&hosts)).await?;
    let mut answers = Answers {
        certificates,
        shared,
        given: Vec::new(),
    };
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let host = authorization.identifier().to_string();
        let way = match acme.challenge {
            Challenge::Http => ChallengeType::Http01,
            Challenge::Tls => ChallengeType::TlsAlpn01,
            Challenge::Dns => ChallengeType::Dns01,
        };
        let mut challenge = authorization
            .challenge(way)
            .ok_or_else(|| Error::Way(host.clone()))?;
        let key = challenge.key_authorization();
        match acme.challenge {
            Challenge::Http => answers.http(&challenge.token, key.as_str()),
            Challenge::Tls => answers.tls(&host, key.digest().as_ref())?,
            Challenge::Dns => answers.dns(&host, key.dns_value())?,
        }
        challenge.set_ready().await?;
    }
    let policy = RetryPolicy::new().timeout(PATIENCE);
    let status = order.poll_ready(&policy).await?;
    if status != OrderStatus::Ready {
        return Err(refused(&mut order, status).await);
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&policy).await?;
    drop(answers);
    let path = acme.certificates.join(format!("{name}.pem"));
    write(&path, format!("{chain}{key}").as_bytes())?;
    let (folder, path) = (&acme.certificates, path.clone());
    certificates
        .read(folder)
        .map_err(|source| Error::File { path, source })
}

/// What the authority says of the host that it could not check.
async fn refused(order: &mut instant_acme::Order, status: OrderStatus) -> Error {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        let problem = authorization
            .challenges
            .iter()
            .find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = problem {
            return Error::Check {
                host: authorization.identifier().to_string(),
                why: problem.to_string(),
            };
        }
    }
    Error::Order(format!("{status:?}").to_ascii_lowercase())
}

/// Answers to challenges, for as long as the order goes on.
struct Answers<'a> {
    certificates: &'a Certificates,
    shared: &'a Shared,
    given: Vec<Given>,
}

enum Given {
    Token(String),
    Certificate(String),
    /// A name and its text.
    Text(String, String),
}

impl Answers<'_> {
    /// RFC 8555, section 8.4. A wildcard is shown at the name that it is below.
    fn dns(&mut self, host: &str, text: String) -> Result<(), Error> {
        let host = host.strip_prefix("*.").unwrap_or(host);
        let names = &self.shared.names;
        if !names.zones().iter().any(|zone| zone.holds(host)) {
            return Err(Error::Zone(host.to_owned()));
        }
        let name = format!("_acme-challenge.{host}");
        names.text(&name, &text, true);
        self.given.push(Given::Text(name, text));
        Ok(())
    }

    fn http(&mut self, token: &str, answer: &str) {
        self.shared.answer_challenge(token, Some(answer));
        self.given.push(Given::Token(token.to_owned()));
    }

    /// A certificate that nobody has signed, with the proof in it (RFC 8737, section 3).
    fn tls(&mut self, host: &str, digest: &[u8]) -> Result<(), Error> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::new(vec![host.to_owned()])?;
        params.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(digest)];
        let made = params.self_signed(&key)?;
        let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        // Not compared with the certificate: that has an extension which only this protocol knows.
        let key = provider()
            .key_provider
            .load_private_key(der)
            .map_err(Error::Key)?;
        let key = CertifiedKey::new(vec![made.der().clone()], key);
        self.certificates.challenge(host, Some(Arc::new(key)));
        self.given.push(Given::Certificate(host.to_owned()));
        Ok(())
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        for given in &self.given {
            match given {
                Given::Token(token) => self.shared.answer_challenge(token, None),
                Given::Certificate(host) => self.certificates.challenge(host, None),
                Given::Text(name, text) => self.shared.names.text(name, text, false),
            }
        }
    }
}

/// The account's file: one for each authority, which knows no account of another. Those of the time when there was one file
/// stay with the authority that they name.
fn account_file(acme: &Acme) -> Utf8PathBuf {
    let old = acme.account.join("account.json");
    let authority = |bytes: Vec<u8>| {
        let account: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        Some(account.get("directory")?.as_str()? == acme.directory)
    };
    if std::fs::read(&old).ok().and_then(authority) == Some(true) {
        return old;
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, acme.directory.as_bytes());
    let hex: String = digest.as_ref()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    acme.account.join(format!("account-{hex}.json"))
}

/// The account that was made before, or a new one.
async fn account(acme: &Acme) -> Result<Account, Error> {
    let path = account_file(acme);
    let builder = Account::builder_with_http(http::client(acme.roots.as_deref()).map_err(Error::Roots)?);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let known: AccountCredentials =
                serde_json::from_slice(&bytes).map_err(|error| Error::Account(error.to_string()))?;
            Ok(builder.from_credentials(known).await?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let contact: Vec<&str> = acme.contact.iter().map(String::as_str).collect();
            let wanted = NewAccount {
                contact: &contact,
                terms_of_service_agreed: true,
                only_return_existing: false,
            };
            let (account, credentials) = builder.create(&wanted, acme.directory.clone(), None).await?;
            let bytes =
                serde_json::to_vec(&credentials).map_err(|error| Error::Account(error.to_string()))?;
            write(&path, &bytes)?;
            Ok(account)
        }
        Err(source) => Err(Error::File { path, source }),
    }
}

/// Writes in one step what only we may read.
fn write(path: &Utf8Path, bytes: &[u8]) -> Result<(), Error> {
    let written = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let new = path.with_extension("new");
        let _ = std::fs::remove_file(&new);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    written().map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn each_tenant_has_one_order_at_a_time() {
        let wish = |name: &str, tenant: &str| Wish {
            name: name.into(),
            hosts: vec![name.into()],
            tenant: tenant.into(),
        };
        let wanted = || {
            let many = (0..50).map(|n| wish(&format!("h{n}"), "many"));
            let others = (0..20).map(|n| wish(&format!("o{n}"), &format!("other{n}")));
            many.chain(others).collect::<Vec<_>>()
        };
        let names = |taken: &[&str], due: fn(&Wish) -> bool| {
            let taken = taken.iter().map(|tenant| (*tenant).into()).collect();
            let chosen = next(wanted(), taken, due).into_iter();
            chosen.map(|wish| wish.name).collect::<Vec<_>>()
        };
        let chosen = names(&[], |_| true);
        assert_eq!(chosen[..3], ["h0", "o0", "o1"]);
        assert_eq!(chosen.len(), ORDERS);
        // Those that wait take nobody's place.
        let due = |wish: &Wish| ["h7", "o19"].contains(&&*wish.name);
        assert_eq!(names(&[], due), ["h7", "o19"]);
        // Who has one under way waits for it, and nobody else does.
        assert_eq!(names(&["many"], due), ["o19"]);
    }

    #[test]
    fn a_certificate_is_due_when_two_thirds_of_its_time_are_over_or_it_is_of_no_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("shop.pem");
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let hosts = names(&["shop.test", "www.shop.test"]);
        let now = clock::now();
        assert!(is_due(&path, &hosts, now), "there is none");
        std::fs::write(&path, "nonsense").unwrap();
        assert!(is_due(&path, &hosts, now));
        let mut params = CertificateParams::new(names(&["WWW.shop.test", "shop.test"])).unwrap();
        let day = |days: i64| now + SignedDuration::from_hours(24 * days);
        let time = |at: Timestamp| std::time::SystemTime::from(at).into();
        (params.not_before, params.not_after) = (time(now), time(day(60)));
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        std::fs::write(&path, made.pem()).unwrap();
        assert!(!is_due(&path, &hosts, now));
        assert!(!is_due(&path, &hosts, day(39)));
        assert!(is_due(&path, &hosts, day(41)));
        assert!(
            is_due(&path, &names(&["shop.test", "other.test"]), now),
            "another host"
        );
    }

    #[test]
    fn each_authority_has_an_account_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let of = |directory: &str| Acme {
            directory: directory.into(),
            contact: Vec::new(),
            roots: None,
            account: Utf8Path::from_path(folder.path()).unwrap().to_owned(),
            certificates: "".into(),
            challenge: Challenge::Http,
            wanted: Vec::new(),
        };
        let (staging, production) = (of("https://staging.test/dir"), of("https://ca.test/dir"));
        assert_ne!(account_file(&staging), account_file(&production));
        let before = folder.path().join("account.json");
        std::fs::write(&before, r#"{"directory":"https://staging.test/dir"}"#).unwrap();
        assert_eq!(account_file(&staging), before);
        assert_ne!(account_file(&production), before);
    }
}
