//! What `platform.toml` says of the load balancer: names, certificates, and addresses of their own.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use camino::Utf8PathBuf;
use edge::{Acme, Challenge, Zone, ZoneWanted};
use model::route::{Listens, Speaks};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Data, Listen, Platform};

/// The built-in name server.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(default)]
pub struct Dns {
    /// Where it answers, over UDP and TCP; nowhere when there is nothing. A machine with several addresses names them one
    /// by one, because answers go out from where the socket is.
    #[schema(value_type = Vec<String>)]
    pub listen: Vec<SocketAddr>,
    /// The names that are answered, and all below. On a platform `domain` alone when there are none; alone, one at least.
    pub zones: Vec<String>,
    /// Names of the zones' servers, as their parents name them. `ns1.` and the zone when there are none.
    pub servers: Vec<String>,
    /// Where visitors reach the load balancer.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// A mail address. `hostmaster@` and the zone when nothing is said.
    pub contact: Option<String>,
    /// Seconds for which answers may be kept.
    pub ttl_s: u32,
    /// Answers over UDP a second to one network; 0 is no limit.
    pub rate: u32,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            zones: Vec::new(),
            servers: Vec::new(),
            addresses: Vec::new(),
            contact: None,
            ttl_s: 60,
            rate: 100,
        }
    }
}

impl Dns {
    /// The zones, made ready; none when nobody is to be asked.
    ///
    /// # Errors
    ///
    /// What is wrong with one of them.
    pub fn ready(&self, domain: &str) -> Result<Vec<Zone>, String> {
        if self.listen.is_empty() {
            return Ok(Vec::new());
        }
        let own = [domain.to_owned()];
        let zones = if self.zones.is_empty() {
            &own[..]
        } else {
            &self.zones
        };
        let made = zones.iter().map(|apex| {
            Zone::new(ZoneWanted {
                apex,
                servers: &self.servers,
                addresses: &self.addresses,
                contact: self.contact.as_deref(),
                ttl: self.ttl_s,
            })
        });
        made.collect()
    }
}

/// The authority from which certificates come.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    pub directory: String,
    #[serde(default)]
    pub contact: Vec<String>,
    /// PEM: who may have signed the authority's own certificate. Else the machine's.
    pub roots: Option<Utf8PathBuf>,
    #[serde(default)]
    pub challenge: Way,
    /// Certificates beside those of domains: by name, their hosts. A wildcard needs `challenge = "dns"`.
    #[serde(default)]
    pub certificates: BTreeMap<String, Vec<String>>,
}

/// How it is shown to an authority that a host is ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    #[default]
    Http,
    Tls,
    Dns,
}

impl From<Way> for Challenge {
    fn from(way: Way) -> Self {
        match way {
            Way::Http => Self::Http,
            Way::Tls => Self::Tls,
            Way::Dns => Self::Dns,
        }
    }
}

impl Authority {
    pub fn acme(&self, data: &Data) -> Acme {
        Acme {
            directory: self.directory.clone(),
            contact: self.contact.clone(),
            roots: self.roots.clone(),
            account: data.edge().join("acme"),
            certificates: data.certificates(),
            challenge: self.challenge.into(),
            wanted: self.certificates.clone().into_iter().collect(),
        }
    }
}

/// When a file of the access log gives way to a new one, and how much of the log stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(default)]
pub struct Rotate {
    /// What one file may have; 0 is no limit.
    pub size_mib: u64,
    /// How old a file gets; 0 is no limit.
    pub age_h: u64,
    /// What all files together may have; 0 is no limit.
    pub keep_mib: u64,
}

impl Default for Rotate {
    fn default() -> Self {
        Self {
            size_mib: 64,
            age_h: 24,
            keep_mib: 1024,
        }
    }
}

impl Rotate {
    /// # Errors
    ///
    /// Why it cannot be so.
    pub fn rotation(&self) -> Result<edge::Rotation, String> {
        const MIB: u64 = 1024 * 1024;
        if self.keep_mib > 0 && (self.size_mib == 0 || self.size_mib > self.keep_mib) {
            return Err(format!(
                "files of {} MiB (`size_mib`) do not fit into {} MiB (`keep_mib`)",
                match self.size_mib {
                    0 => "any number of".to_owned(),
                    size => size.to_string(),
                },
                self.keep_mib
            ));
        }
        Ok(edge::Rotation {
            size: self.size_mib.saturating_mul(MIB),
            age: std::time::Duration::from_secs(self.age_h.saturating_mul(3600)),
            keep: self.keep_mib.saturating_mul(MIB),
        })
    }
}

/// Addresses that one domain has for itself.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dedicated {
    pub http: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
}

impl Dedicated {
    pub fn listeners(&self) -> Vec<Listens> {
        let listens =
            |address: Option<SocketAddr>, speaks| address.map(|address| Listens { address, speaks });
        let both = [
            listens(self.http, Speaks::Http),
            listens(self.https, Speaks::Https),
        ];
        both.into_iter().flatten().collect()
    }
}

impl Listen {
    /// Where the ports of apps are.
    pub fn of_apps(&self) -> IpAddr {
        self.apps.unwrap_or(self.http.ip())
    }
}

impl Platform {
    /// All names under which the edge serves an environment: its own, and for production the one without it.
    pub fn hostnames(&self, place: &model::Place) -> Vec<String> {
        let mut names = vec![self.hostname(place)];
        if place.environment.as_str() == "production" {
            names.push(format!("{}.{}.{}", place.app, place.tenant, self.domain));
        }
        names
    }

    /// Is a customer's domain one that only the platform gives away?
    pub fn owns(&self, host: &str) -> bool {
        let below = |domain: &str| {
            let rest = host.strip_suffix(domain.trim_end_matches('.'));
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        below(&self.domain) || self.dns.zones.iter().any(|zone| below(zone))
    }
}

impl Data {
    /// The certificates of the load balancer.
    pub fn certificates(&self) -> Utf8PathBuf {
        self.edge().join("certificates")
    }
}

/// What is wrong with the keys of this file together.
pub fn wrong(platform: &Platform) -> Option<String> {
    if let Err(why) = platform.dns.ready(&platform.domain) {
        return Some(format!("`[dns]`: {why}"));
    }
    if platform
        .dns
        .listen
        .iter()
        .any(|at| at.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        && platform.dns.listen.len() > 1
    {
        return Some("`dns.listen` has 0.0.0.0, which is every address, and others beside it".into());
    }
    if let Err(why) = platform.access_log.log(Utf8PathBuf::new()) {
        return Some(format!("`[access_log]`: {why}"));
    }
    if platform.acme.is_some() && platform.listen.https.is_none() {
        return Some("`[acme]` needs `listen.https`: without it nobody would see the certificates".into());
    }
    let plain = |at: &&Dedicated| at.http.is_none() && at.https.is_none();
    let nowhere = platform.listen.dedicated.iter().find(|(_, at)| plain(at));
    nowhere.map(|(host, _)| format!("`listen.dedicated.\"{host}\"` has neither `http` nor `https`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = |text: &str| wrong(&toml::from_str::<Platform>(text).unwrap());
        let dns = "[dns]\nlisten = ['127.0.0.1:53']\n";
        for (text, expected) in [
            (dns.to_owned(), "`[dns]`: the zone `localhost` has no addresses"),
            (
                format!("{dns}addresses = ['192.0.2.1']\nzones = ['a..b']"),
                "`[dns]`: `a..b` is not a domain name",
            ),
            (
                "[access_log]\nsize_mib = 100\nkeep_mib = 99".into(),
                "`[access_log]`: files of 100 MiB (`size_mib`) do not fit into 99 MiB",
            ),
            (
                "[access_log]\nsize_mib = 0".into(),
                "`[access_log]`: files of any number of MiB (`size_mib`) do not fit into 1024 MiB",
            ),
            (
                "[acme]\ndirectory = 'https://x/dir'".into(),
                "`[acme]` needs `listen.https`",
            ),
            (
                "[listen.dedicated.'shop.example.com']".into(),
                "has neither `http` nor `https`",
            ),
        ] {
            let why = wrong(&text).unwrap();
            assert!(why.contains(expected), "{why}");
        }
        assert_eq!(wrong(&format!("{dns}addresses = ['192.0.2.1']")), None);
        assert_eq!(
            wrong(""),
            None,
            "no names are served, and nothing is needed for them"
        );
    }

    #[test]
    fn the_guide_shows_files_that_work() {
        let guide =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guides/names.md"))
                .unwrap();
        let blocks = |kind: &str| {
            let start = format!("```{kind}\n");
            let blocks = guide.split(&start).skip(1);
            blocks
                .map(|block| block.split("```").next().unwrap())
                .collect::<String>()
        };
        let platform: Platform = toml::from_str(&blocks("toml")).unwrap();
        assert_eq!(wrong(&platform), None);
        assert_eq!(
            platform.dns.ready(&platform.domain).unwrap()[0].apex(),
            "apps.example.com"
        );
        let own = &platform.listen.dedicated["shop.example.com"];
        assert_eq!(own.listeners().len(), 2);
        let file = format!("app: shop\n{}", blocks("yaml"));
        let there = |path: &camino::Utf8Path| path == "Procfile";
        let (app, warnings) = model::spec::App::parse(&file, "vend.yaml", &there).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let environment = &app.environments[0];
        assert_eq!((environment.listeners.len(), environment.domains.len()), (2, 1));
    }

    #[test]
    fn production_has_a_short_name_too() {
        let platform = Platform::default();
        let names = |place: &str| platform.hostnames(&place.parse().unwrap());
        assert_eq!(names("acme/shop/dev"), ["dev.shop.acme.localhost"]);
        assert_eq!(
            names("acme/shop/production"),
            ["production.shop.acme.localhost", "shop.acme.localhost"]
        );
        assert!(platform.owns("shop.acme.localhost") && platform.owns("localhost"));
        assert!(!platform.owns("shop.example.com") && !platform.owns("xlocalhost"));
    }
}
