//! Who somebody is, as an OpenID Connect provider says (ALB's `authenticate-oidc`), before their request goes on.
//!
//! Nothing is kept here about anybody: browsers keep it, sealed, and show it again. What is sealed for one place and
//! provider is worth nothing for another: neither a tenant nor an older configuration can make sessions for somebody
//! else's hosts.
//! Secrets and keys are files of a folder that only the edge reads; a table has names of secrets.

mod keys;
mod provider;
mod session;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use aws_lc_rs::digest::{SHA256, digest};
use camino::Utf8PathBuf;
use form_urlencoded::Serializer;
use jiff::SignedDuration;
use model::route::{Authenticate, Unauthenticated};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use self::{
    keys::Keys,
    provider::{Error, Grant, Provider},
    session::Session,
};
use crate::{
    answer::Answer,
    call, clock,
    head::Ask,
    table::{Rule, Rules},
    vault::SECRETS,
};

pub use keys::pem;

/// Where the provider sends browsers back to; ALB's.
const CALLBACK: &str = "/oauth2/idpresponse";
/// Where targets get the keys that verify what they are told, on every listener.
const PUBLIC: &str = "/.well-known/vend-edge/keys/";
/// Beside the secrets that somebody has put there: what the control side has given. No secret has such a name.
pub const VAULT: &str = ".vault";
/// Longer addresses are not gone back to.
const ADDRESS: usize = 2048;
/// What a target is told is true for so many seconds.
const TOLD: i64 = 120;
/// Ticks for which a renewal answers those who come with the same old token; and how many are remembered.
const RENEWED: u64 = 10_000;
const RENEWALS: usize = 10_000;

/// What one rule asks of people.
pub struct Login {
    pub spec: Authenticate,
    bond: [u8; 32],
}

impl Login {
    pub fn new(spec: &Authenticate, place: &str) -> Self {
        // Not what a rule does with people: rules of one place that differ in that share their sessions. What the provider
        // is asked beyond the standard is of it: by that a rule may want more of who signs in.
        let bound = [
            place,
            &spec.issuer,
            &spec.authorization_endpoint,
            &spec.token_endpoint,
            &spec.user_info_endpoint,
            &spec.client_id,
            &spec.client_secret,
            &spec.session_cookie,
        ];
        let text = json!([json!(bound), spec.extra_parameters]).to_string();
        let mut bond = [0; 32];
        bond.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Self {
            spec: spec.clone(),
            bond,
        }
    }

    /// Is somebody still signed in who has been since then?
    fn lasts(&self, session: &Session, now: i64) -> bool {
        session.since.saturating_add(self.spec.session_timeout.as_secs()) > now
    }

    /// What seals for this rule are tied to.
    fn bond(&self) -> &[u8] {
        &self.bond
    }
}

/// Somebody whose request may go on.
#[derive(Default)]
pub struct Admitted {
    /// Header lines for the target.
    pub lines: String,
    /// Values of `Set-Cookie` for the answer.
    pub cookies: Vec<String>,
}

/// Where somebody was going when they were sent to the provider.
#[derive(Serialize, Deserialize)]
struct Errand {
    url: String,
    nonce: String,
    at: i64,
}

/// How a renewal of tokens ended.
#[derive(Clone)]
enum Renewal {
    Done(Box<Session>),
    Refused,
    Failed,
}

type Renewals = HashMap<Vec<u8>, (u64, Arc<OnceCell<Renewal>>)>;

/// What all workers share for it.
pub struct Desk {
    keys: Keys,
    folder: Utf8PathBuf,
    roots: Option<Utf8PathBuf>,
    client: OnceLock<Arc<ClientConfig>>,
    /// By the digest of the old token: a browser asks for many things at once, and a provider takes a token once.
    renewals: Mutex<Renewals>,
}

/// One request of somebody, for one rule.
struct Visit<'a> {
    desk: &'a Desk,
    login: &'a Login,
    place: &'a str,
    ask: &'a Ask,
    authority: &'a str,
    now: i64,
}

impl Desk {
    /// With the keys of this folder, which are made when there are none. Providers are trusted whose certificates these
    /// roots have signed, or the machine's.
    pub fn open(folder: Utf8PathBuf, roots: Option<Utf8PathBuf>) -> io::Result<Self> {
        Ok(Self {
            keys: Keys::open(&folder)?,
            folder,
            roots,
            client: OnceLock::new(),
            renewals: Mutex::default(),
        })
    }

    /// The key that verifies what targets are told, if a request for this path asks for it.
    pub fn public_key(&self, path: &str) -> Option<&str> {
        let id = path.strip_prefix(PUBLIC)?;
        (id == self.keys.id).then_some(&*self.keys.public)
    }

    /// The rule that has sent somebody to the provider who comes back with this request. Whether its conditions hold is
    /// not asked: they are about where somebody was going, and the provider sends everybody back to one path.
    pub fn awaited<'a>(&self, rules: &'a Rules, ask: &Ask) -> Option<&'a Rule> {
        if ask.path() != CALLBACK {
            return None;
        }
        let (authority, state) = (authority(ask)?, parameter(ask, "state")?);
        let opens = |login: &Login| {
            let bond = errand_bond(login, authority);
            let errand = self.keys.open_sealed::<Errand>(&bond, state.as_bytes());
            errand.is_some()
        };
        rules.first(&ask.host, |rule| rule.login().is_some_and(opens))
    }

    /// May this request go on? Otherwise the answer is what the browser gets.
    pub async fn admit(&self, rule: &Rule, login: &Login, ask: &Ask) -> Result<Admitted, Answer> {
        if !ask.tls {
            return Err(Answer::insecure());
        }
        let visit = Visit {
            desk: self,
            login,
            place: rule.place(),
            ask,
            authority: authority(ask).ok_or_else(|| Answer::bad_request("the request names no host"))?,
            now: clock::now().as_second(),
        };
        match ask.path() {
            CALLBACK => Err(visit.finish().await),
            _ => visit.admit().await,
        }
    }

    async fn provider<'a>(&self, spec: &'a Authenticate) -> Result<Provider<'a>, Error> {
        let name = &spec.client_secret;
        let held = self.folder.join(VAULT).join(SECRETS).join(name);
        let secret = match tokio::fs::read_to_string(held).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tokio::fs::read_to_string(self.folder.join(name)).await
            }
            held => held,
        };
        let secret = secret.map_err(|source| Error::Secret {
            name: name.clone(),
            source,
        })?;
        let client = match self.client.get() {
            Some(client) => Arc::clone(client),
            None => {
                let made = call::trusting(self.roots.as_deref());
                let made = made.map_err(|error| Error::Unreachable(error.into()))?;
                Arc::clone(self.client.get_or_init(|| made))
            }
        };
        Ok(Provider {
            spec,
            secret: secret.trim_end_matches(['\r', '\n']).to_owned(),
            client,
        })
    }

    fn renewal(&self, token: &str) -> Arc<OnceCell<Renewal>> {
        let tick = clock::ticks();
        let mut renewals = self.renewals.lock().unwrap_or_else(PoisonError::into_inner);
        renewals.retain(|_, (began, _)| tick.saturating_sub(*began) < RENEWED);
        if renewals.len() >= RENEWALS {
            renewals.clear();
        }
        let key = digest(&SHA256, token.as_bytes()).as_ref().to_vec();
        Arc::clone(&renewals.entry(key).or_insert_with(|| (tick, Arc::default())).1)
    }
}

impl Visit<'_> {
    async fn admit(&self) -> Result<Admitted, Answer> {
        let known = Session::read(&self.desk.keys, self.login, self.ask);
        let known = known.filter(|session| self.login.lasts(session, self.now));
        if let Some(session) = known {
            // Without a token to renew it, the provider's word is good until the session ends; so says ALB.
            let Some(refresh) = session.refresh.as_deref().filter(|_| session.fresh <= self.now) else {
                return self.admitted(&session, Vec::new());
            };
            let cell = self.desk.renewal(refresh);
            match cell.get_or_init(|| self.renew(&session)).await {
                Renewal::Done(session) => return self.admitted(session, self.cookies(session)?),
                Renewal::Refused => {}
                Renewal::Failed => return Err(Answer::provider_failed()),
            }
        }
        match self.login.spec.on_unauthenticated {
            Unauthenticated::Allow => Ok(Admitted::default()),
            Unauthenticated::Deny => Err(Answer::unauthorized()),
            Unauthenticated::Authenticate => Err(self.send_away()),
        }
    }

    async fn renew(&self, session: &Session) -> Renewal {
        let renewed = async {
            let provider = self.desk.provider(&self.login.spec).await?;
            provider
                .session(Grant::Refresh(session), self.now, session.since)
                .await
        };
        match renewed.await {
            Ok(session) => Renewal::Done(Box::new(session)),
            Err(Error::Refused(status)) if status.is_client_error() => Renewal::Refused,
            Err(error) => {
                self.told(&error);
                Renewal::Failed
            }
        }
    }

    /// To the provider, and back to where they were going.
    fn send_away(&self) -> Answer {
        let spec = &self.login.spec;
        // Several windows may be signing in: they share the number.
        let nonce = match session::nonce(self.ask) {
            Some(known) => known.to_owned(),
            None => hex(&clock::random::<16>()),
        };
        let target = self.ask.target();
        let errand = Errand {
            url: if target.len() <= ADDRESS { target } else { "/" }.to_owned(),
            nonce: nonce.clone(),
            at: self.now,
        };
        let Some(state) = self.desk.keys.seal(&self.errand_bond(), &errand) else {
            return Answer::provider_failed();
        };
        let mut query = Serializer::new(String::new());
        query
            .append_pair("client_id", &spec.client_id)
            .append_pair("redirect_uri", &self.callback())
            .append_pair("response_type", "code")
            .append_pair("scope", &spec.scope)
            .append_pair("state", &state)
            .append_pair("nonce", &shown(&nonce))
            .extend_pairs(&spec.extra_parameters);
        let endpoint = &spec.authorization_endpoint;
        let mark = if endpoint.contains('?') { '&' } else { '?' };
        let location = format!("{endpoint}{mark}{}", query.finish());
        Answer::sent_to(location, vec![session::keep_nonce(&nonce)])
    }

    /// They come back with a code, or with the provider's refusal.
    async fn finish(&self) -> Answer {
        let field = |name: &str| parameter(self.ask, name);
        let errand = field("state").and_then(|state| {
            self.desk
                .keys
                .open_sealed::<Errand>(&self.errand_bond(), state.as_bytes())
        });
        let ours = |errand: &Errand| {
            let age = SignedDuration::from_secs(self.now.saturating_sub(errand.at));
            age <= session::PATIENCE && session::nonce(self.ask) == Some(&*errand.nonce)
        };
        let Some(errand) = errand.filter(ours) else {
            let reason = match field("state") {
                Some(_) => "AuthInvalidStateParam",
                None => "AuthMissingStateParam",
            };
            return Answer::unauthorized().because(reason);
        };
        // RFC 9207: an answer of another provider is no answer.
        let other = field("iss").is_some_and(|issuer| issuer != self.login.spec.issuer);
        let Some(code) = field("code").filter(|_| !other && field("error").is_none()) else {
            tracing::info!(
                place = self.place,
                why = field("error"),
                "a provider refused to sign somebody in"
            );
            return Answer::refused_by_provider().because("AuthMissingCodeParam");
        };
        match self.exchange(&code, &errand).await {
            Ok(session) => match self.cookies(&session) {
                Ok(mut cookies) => {
                    cookies.push(session::forget_nonce());
                    // With the host: `//` at the start of a path would be another one.
                    Answer::sent_to(format!("https://{}{}", self.authority, errand.url), cookies)
                }
                Err(answer) => answer,
            },
            Err(error) => {
                self.told(&error);
                let answer = match error {
                    Error::Refused(_) => Answer::refused_by_provider(),
                    _ => Answer::provider_failed(),
                };
                answer.because(error.reason())
            }
        }
    }

    async fn exchange(&self, code: &str, errand: &Errand) -> Result<Session, Error> {
        let provider = self.desk.provider(&self.login.spec).await?;
        let grant = Grant::Code {
            code,
            redirect: &self.callback(),
            nonce: &shown(&errand.nonce),
        };
        provider.session(grant, self.now, self.now).await
    }

    fn cookies(&self, session: &Session) -> Result<Vec<String>, Answer> {
        session
            .write(&self.desk.keys, self.login, self.ask, self.now)
            .ok_or_else(Answer::provider_failed)
    }

    /// What the target is told, as ALB tells it.
    fn admitted(&self, session: &Session, cookies: Vec<String>) -> Result<Admitted, Answer> {
        let (spec, exp) = (&self.login.spec, self.now + TOLD);
        let header = json!({
            "alg": "ES256", "typ": "JWT", "kid": self.desk.keys.id, "signer": self.place,
            "iss": spec.issuer, "client": spec.client_id, "exp": exp,
        });
        let mut claims = session.claims.clone();
        claims.insert("exp".into(), exp.into());
        claims.insert("iss".into(), spec.issuer.clone().into());
        let data = self.desk.keys.sign(&header, &Value::Object(claims));
        let data = data.ok_or_else(Answer::provider_failed)?;
        Ok(Admitted {
            lines: format!(
                "X-Amzn-Oidc-Accesstoken: {}\r\nX-Amzn-Oidc-Identity: {}\r\nX-Amzn-Oidc-Data: {data}\r\n",
                session.access, session.subject
            ),
            cookies,
        })
    }

    fn callback(&self) -> String {
        format!("https://{}{CALLBACK}", self.authority)
    }

    fn errand_bond(&self) -> [&[u8]; 3] {
        errand_bond(self.login, self.authority)
    }

    fn told(&self, error: &Error) {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(place = self.place, %error, cause, "nobody can be signed in");
    }
}

/// What the seal of an errand is tied to.
fn errand_bond<'a>(login: &'a Login, authority: &'a str) -> [&'a [u8]; 3] {
    [b"errand", login.bond(), authority.as_bytes()]
}

/// The host that a request names, as it names it.
fn authority(ask: &Ask) -> Option<&str> {
    str::from_utf8(ask.fields("host").next()?).ok()
}

fn parameter(ask: &Ask, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(ask.query().as_bytes());
    let (_, value) = pairs.find(|(key, _)| key == name)?;
    Some(value.into_owned())
}

/// What the provider sees of a number, so that what it says does not give the number away.
fn shown(nonce: &str) -> String {
    hex(digest(&SHA256, nonce.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
