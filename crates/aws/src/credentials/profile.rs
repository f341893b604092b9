//! The files of profiles: what they say, and which way to keys a profile is. Pure.
//!
//! <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>

use std::collections::BTreeMap;

use model::Secret;

use super::{Error, Keys, sso::SignIn};

/// Profiles that name each other, in a row.
const CHAIN: usize = 8;

/// A role to take, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Role {
    pub arn: String,
    /// What the role's owner wants to hear, so that nobody takes it by mistake on somebody else's order.
    pub external_id: Option<String>,
    /// The session's name, as the trail shows it. Default `vend`.
    pub session: Option<String>,
    /// Seconds. Default: the role's own.
    pub duration: Option<u32>,
}

/// A way to keys.
pub enum Way {
    Keys(Keys),
    /// A program that prints them.
    Process(String),
    /// A sign-in in a browser.
    SignIn(SignIn),
    /// A token that somebody else signed, in a file.
    Identity {
        role: Role,
        file: String,
    },
    Role {
        role: Role,
        from: Box<Way>,
    },
    Environment,
    Container,
    Instance,
}

/// What `~/.aws/config` and `~/.aws/credentials` say: by profile, and by session of who signs in in a browser.
#[derive(Default)]
pub struct Profiles {
    all: Sections,
    sessions: Sections,
}

type Sections = BTreeMap<String, BTreeMap<String, String>>;

impl Profiles {
    /// `credentials` wins over `config` where both say something.
    pub fn parse(config: &str, credentials: &str) -> Self {
        let mut all = Self::default();
        add(&mut all.all, config, |section| {
            match section.split_once(char::is_whitespace) {
                Some(("profile", name)) => Some(name.trim()),
                None if section == "default" => Some(section),
                _ => None,
            }
        });
        add(&mut all.all, credentials, |section| Some(section));
        add(&mut all.sessions, config, |section| {
            match section.split_once(char::is_whitespace) {
                Some(("sso-session", name)) => Some(name.trim()),
                _ => None,
            }
        });
        all
    }

    /// What a profile says about a key.
    pub fn get(&self, profile: &str, key: &str) -> Option<&str> {
        let value = self.all.get(profile)?.get(key)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    pub fn contains(&self, profile: &str) -> bool {
        self.all.contains_key(profile)
    }

    /// The way of a profile; None when it says nothing about credentials.
    pub(super) fn way(&self, profile: &str) -> Result<Option<Way>, Error> {
        self.follow(profile, 0)
    }

    fn follow(&self, profile: &str, depth: usize) -> Result<Option<Way>, Error> {
        let get = |key: &str| self.get(profile, key);
        let bad = |why: String| Error::Profile {
            profile: profile.to_owned(),
            why,
        };
        if !self.contains(profile) {
            return Err(Error::NoProfile(profile.to_owned()));
        }
        if depth > CHAIN {
            return Err(bad("is one of more than 8 that name each other".into()));
        }
        let Some(arn) = get("role_arn") else {
            return self.own(profile);
        };
        if let Some(device) = get("mfa_serial") {
            let why = format!("wants a code of {device}; give a session of it in the environment instead");
            return Err(bad(why));
        }
        let role = Role {
            arn: arn.to_owned(),
            external_id: get("external_id").map(str::to_owned),
            session: get("role_session_name").map(str::to_owned),
            duration: get("duration_seconds").and_then(|text| text.parse().ok()),
        };
        if let Some(file) = get("web_identity_token_file") {
            let file = file.to_owned();
            return Ok(Some(Way::Identity { role, file }));
        }
        let from = match (get("source_profile"), get("credential_source")) {
            // A profile may name itself: its keys are those that take the role.
            (Some(source), _) if source == profile => self.own(profile)?,
            (Some(source), _) => self.follow(source, depth + 1)?,
            (None, Some("Environment")) => Some(Way::Environment),
            (None, Some("EcsContainer")) => Some(Way::Container),
            (None, Some("Ec2InstanceMetadata")) => Some(Way::Instance),
            (None, Some(other)) => return Err(bad(format!("has the unknown credential_source {other}"))),
            (None, None) => return Err(bad("has a role_arn, and no source_profile to take it with".into())),
        };
        let none = || bad("takes its role with a profile that has no credentials".into());
        let from = Box::new(from.ok_or_else(none)?);
        Ok(Some(Way::Role { role, from }))
    }

    /// What the profile has itself.
    fn own(&self, profile: &str) -> Result<Option<Way>, Error> {
        let get = |key: &str| self.get(profile, key);
        if let (Some(id), Some(secret)) = (get("aws_access_key_id"), get("aws_secret_access_key")) {
            return Ok(Some(Way::Keys(Keys {
                id: id.to_owned(),
                secret: Secret::new(secret.to_owned()),
                token: get("aws_session_token").map(|token| Secret::new(token.to_owned())),
                expires: None,
            })));
        }
        if let Some(program) = get("credential_process") {
            return Ok(Some(Way::Process(program.to_owned())));
        }
        self.sign_in(profile)
    }

    /// Of a session that profiles share, or, as it was before there were sessions, of the profile's own.
    fn sign_in(&self, profile: &str) -> Result<Option<Way>, Error> {
        let get = |key: &str| self.get(profile, key);
        let session = get("sso_session");
        let Some(name) = session.or(get("sso_start_url")) else {
            return Ok(None);
        };
        let of_session = |key: &str| self.sessions.get(session?)?.get(key).map(String::as_str);
        let need = |value: Option<&str>, key: &str| {
            let value = value.filter(|value| !value.is_empty()).map(str::to_owned);
            value.ok_or_else(|| Error::Profile {
                profile: profile.to_owned(),
                why: format!("signs in in a browser, and {key} is said nowhere"),
            })
        };
        Ok(Some(Way::SignIn(SignIn {
            profile: profile.to_owned(),
            name: name.to_owned(),
            region: need(of_session("sso_region").or(get("sso_region")), "sso_region")?,
            account: need(get("sso_account_id"), "sso_account_id")?,
            role: need(get("sso_role_name"), "sso_role_name")?,
        })))
    }
}

fn add(all: &mut Sections, text: &str, name: impl Fn(&str) -> Option<&str>) {
    let mut section: Option<String> = None;
    for line in text.lines() {
        // What is indented belongs to a key with parts, of which none is for credentials.
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        let line = line.trim();
        if let Some(rest) = line.strip_prefix('[') {
            let inside = rest.split(']').next().unwrap_or_default().trim();
            section = name(inside).map(|name| name.trim_matches(['"', '\'']).to_owned());
            if let Some(section) = &section {
                all.entry(section.clone()).or_default();
            }
            continue;
        }
        let (Some(section), Some((key, value))) = (&section, line.split_once('=')) else {
            continue;
        };
        let value = value.split(" #").next().unwrap_or_default().trim();
        let own = all.entry(section.clone()).or_default();
        own.insert(key.trim().to_ascii_lowercase(), value.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "# mine\n[default]\nregion = eu-west-1 # near\n[profile ops]\nrole_arn=arn:aws:iam::1:role/r\n\
        external_id = x y\nsource_profile = default\n[profile here]\nrole_arn = arn:r\ncredential_source = EcsContainer\n\
        s3 =\n  aws_access_key_id = not-mine\n[profile \"a\"]\nrole_arn = r\nsource_profile = b\n[profile b]\nrole_arn = r\n\
        source_profile = a\n[profile sso]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n\
        [profile old]\nsso_start_url = https://o\nsso_region = us-east-1\nsso_account_id = 2\nsso_role_name = q\n[profile half]\nsso_session = s\n[profile run]\ncredential_process = /bin/x y\n[sso-session s]\nsso_region = eu-west-1\n";
    const KEYS: &str = "[default]\naws_access_key_id = AK\naws_secret_access_key = sk=/+\n";

    fn way(profile: &str) -> Result<Option<Way>, Error> {
        Profiles::parse(CONFIG, KEYS).way(profile)
    }

    #[test]
    fn profiles_lead_to_keys() {
        let Ok(Some(Way::Keys(keys))) = way("default") else {
            panic!("the default has keys");
        };
        assert_eq!((keys.id.as_str(), keys.secret.expose()), ("AK", "sk=/+"));
        let Ok(Some(Way::Role { role, from })) = way("ops") else {
            panic!("ops takes a role");
        };
        assert_eq!(role.external_id.as_deref(), Some("x y"));
        assert!(matches!(*from, Way::Keys(_)));
        let Ok(Some(Way::Role { from, .. })) = way("here") else {
            panic!("here takes a role");
        };
        assert!(matches!(*from, Way::Container));
        assert!(matches!(way("run"), Ok(Some(Way::Process(program))) if program == "/bin/x y"));
        let signs = |profile: &str| match way(profile) {
            Ok(Some(Way::SignIn(own))) => [own.name, own.region, own.account, own.role],
            _ => panic!("{profile} signs in"),
        };
        assert_eq!(signs("sso"), ["s", "eu-west-1", "1", "r"]);
        assert_eq!(signs("old"), ["https://o", "us-east-1", "2", "q"]);
        assert_eq!(
            Profiles::parse(CONFIG, KEYS).get("default", "region"),
            Some("eu-west-1")
        );
    }

    #[test]
    fn what_leads_nowhere_is_said() {
        let said = |profile: &str| {
            way(profile)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert!(said("a").contains("name each other"));
        assert!(said("half").contains("sso_account_id is said nowhere"));
        assert!(said("nobody").contains("in no file"));
    }
}
