//! Repositories elsewhere: which may be fetched from, and how far one may go.
//!
//! A customer names the URL, and the platform's machine fetches it: without a rule a customer could reach whatever
//! this machine can. So a host must resolve to public addresses only, git is held to those that were looked at, and
//! follows no redirect. The operator's `[sources]` says what else is allowed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use camino::{Utf8Path, Utf8PathBuf};
use model::{
    TenantName,
    address::{Network, is_public},
};
use tokio::time::{Duration, timeout};

use super::Error;
use crate::config::{Data, Platform};

const LOOKUP_WITHIN: Duration = Duration::from_secs(20);

/// What the operator decided about repositories elsewhere.
#[derive(Debug, Clone)]
pub struct Remotes {
    allowed: Vec<Network>,
    /// Holds `id_ed25519` and `known_hosts` when the platform may use SSH.
    ssh: Utf8PathBuf,
    /// What one fetch may bring.
    pub most_mib: u64,
    pub within: Duration,
    proxy: Proxy,
}

/// The operator's proxy, which looks hosts up itself and is the gate then. Who goes past it is decided here and not by
/// curl: whoever is not sent to the proxy is looked at.
#[derive(Debug, Clone, Default)]
struct Proxy {
    http: bool,
    https: bool,
    /// Hosts that are reached without it, with all below them; `*` is every host.
    past: Vec<String>,
}

/// A URL taken apart, and nothing in it that git and we could read differently.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    scheme: Scheme,
    host: String,
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Https,
    Http,
    Ssh,
}

/// A repository that was looked up: what git must be told to go there and nowhere else.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub options: Vec<String>,
    pub ssh_command: Option<String>,
    /// The proxy takes it, whatever `no_proxy` says.
    pub proxied: bool,
}

impl Remotes {
    pub fn new(platform: &Platform, data: &Data) -> Self {
        Self {
            allowed: platform.sources.networks(),
            ssh: data.serve().join("ssh"),
            most_mib: platform.sources.most_mib,
            within: Duration::from_secs(platform.sources.timeout_s),
            proxy: Proxy::new(|name| std::env::var(name).ok()),
        }
    }

    /// As a tenant may use them: another tenant's key would open another customer's repositories.
    pub fn of(&self, tenant: &TenantName) -> Self {
        Self {
            ssh: self.ssh.join(tenant.as_str()),
            ..self.clone()
        }
    }

    /// The directory with the key and the hosts that are known.
    pub fn keys(&self) -> &Utf8Path {
        &self.ssh
    }

    /// Refuses what can be refused without asking the network.
    pub fn admit(&self, url: &str) -> Result<(), Error> {
        let parts = parts(url)?;
        if parts.scheme == Scheme::Ssh && !self.key().is_file() {
            return Err(Error::NoKey { key: self.key() });
        }
        match literal(&parts.host) {
            Some(address) => self.allow(&parts.host, address),
            None => Ok(()),
        }
    }

    /// Looks the host up, and refuses it if one of its addresses is not allowed.
    pub async fn find(&self, url: &str) -> Result<Found, Error> {
        self.admit(url)?;
        let parts = parts(url)?;
        let mut options = vec!["http.followRedirects=false".to_owned()];
        if self.proxy.takes(&parts) {
            return Ok(Found {
                options,
                ssh_command: None,
                proxied: true,
            });
        }
        let addresses = self.look_up(&parts).await?;
        let pinned: Vec<String> = addresses.iter().map(|address| bracketed(*address)).collect();
        let is_ssh = parts.scheme == Scheme::Ssh;
        if !is_ssh {
            let Parts { host, port, .. } = &parts;
            // Nor does git ask the environment for a proxy.
            options.push("http.proxy=".to_owned());
            options.push(format!("http.curloptResolve={host}:{port}:{}", pinned.join(",")));
        }
        let first = addresses.first().filter(|_| is_ssh);
        Ok(Found {
            options,
            ssh_command: first.map(|address| self.ssh_command(&parts.host, *address)),
            proxied: false,
        })
    }

    async fn look_up(&self, parts: &Parts) -> Result<Vec<IpAddr>, Error> {
        let host = parts.host.trim_matches(['[', ']']);
        let missing = |cause: String| Error::NoHost {
            host: parts.host.clone(),
            cause,
        };
        let found = timeout(LOOKUP_WITHIN, tokio::net::lookup_host((host, parts.port))).await;
        let found = found.map_err(|_| missing("nobody answers".into()))?;
        let mut addresses: Vec<IpAddr> = found
            .map_err(|error| missing(error.to_string()))?
            .map(|address: SocketAddr| address.ip())
            .collect();
        addresses.dedup();
        if addresses.is_empty() {
            return Err(missing("it has no address".into()));
        }
        addresses
            .iter()
            .try_for_each(|address| self.allow(&parts.host, *address))?;
        Ok(addresses)
    }

    fn allow(&self, host: &str, address: IpAddr) -> Result<(), Error> {
        let allowed = is_public(address) || self.allowed.iter().any(|network| network.contains(address));
        match allowed {
            true => Ok(()),
            false => Err(Error::Private {
                host: host.to_owned(),
                address,
            }),
        }
    }

    fn key(&self) -> Utf8PathBuf {
        self.ssh.join("id_ed25519")
    }

    /// The tenant's own key and known hosts, nobody's configuration, and the address that was looked at.
    fn ssh_command(&self, host: &str, address: IpAddr) -> String {
        let quoted = |path: &Utf8Path| format!("'{}'", path.as_str().replace('\'', r"'\''"));
        format!(
            "ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=20 \
             -o HostKeyAlias={host} -o HostName={address} -o UserKnownHostsFile={} -i {}",
            quoted(&self.ssh.join("known_hosts")),
            quoted(&self.key())
        )
    }
}

impl Proxy {
    fn new(variable: impl Fn(&str) -> Option<String>) -> Self {
        // An empty one is none to curl, too.
        let is_set = |name: &str| variable(name).is_some_and(|value| !value.trim().is_empty());
        let past = variable("no_proxy").unwrap_or_default();
        let past = past
            .split([',', ' '])
            .map(|name| name.trim().trim_start_matches('.'));
        Self {
            http: is_set("http_proxy"),
            https: is_set("https_proxy"),
            past: past
                .filter(|name| !name.is_empty())
                .map(str::to_ascii_lowercase)
                .collect(),
        }
    }

    fn takes(&self, parts: &Parts) -> bool {
        let host = parts.host.trim_matches(['[', ']']).to_ascii_lowercase();
        let is_past = |name: &String| {
            let below = host.strip_suffix(name.as_str());
            name == "*" || below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
        };
        let there = match parts.scheme {
            Scheme::Https => self.https,
            Scheme::Http => self.http,
            Scheme::Ssh => false,
        };
        there && !self.past.iter().any(is_past)
    }
}

/// Takes a URL apart. Only what every reader reads in the same way is taken.
fn parts(url: &str) -> Result<Parts, Error> {
    let wrong = || Error::NotAUrl(url.chars().take(200).collect());
    let Some((scheme, rest)) = url.split_once("://") else {
        let is_short = url
            .split_once(':')
            .is_some_and(|(before, _)| before.contains('@'));
        return Err(if is_short { short_form(url) } else { wrong() });
    };
    let (scheme, usual) = match scheme {
        "https" => (Scheme::Https, 443),
        "http" => (Scheme::Http, 80),
        "ssh" => (Scheme::Ssh, 22),
        _ => return Err(wrong()),
    };
    let odd = |c: char| c.is_control() || c.is_whitespace() || "\\\"'<>^`{|}#?".contains(c);
    let (authority, path) = rest.split_once('/').ok_or_else(wrong)?;
    if url.contains(odd) || path.is_empty() {
        return Err(wrong());
    }
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host.rsplit_once(':') {
        Some((_, port)) if port.starts_with('+') => return Err(wrong()),
        Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| wrong())?),
        _ => (host, usual),
    };
    let name = |host: &str| {
        !host.is_empty()
            && !host.starts_with('-')
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
    };
    let is_six = host.starts_with('[') && literal(host).is_some();
    if authority.matches('@').count() > 1 || !(is_six || name(host)) {
        return Err(wrong());
    }
    Ok(Parts {
        scheme,
        host: host.to_owned(),
        port,
    })
}

/// `git@host:path` is no URL: the refusal writes it as one.
fn short_form(text: &str) -> Error {
    let (host, path) = text.split_once(':').unwrap_or((text, ""));
    let host = host.rsplit('@').next().unwrap_or(host);
    Error::ShortForm {
        text: text.chars().take(200).collect(),
        url: format!("https://{host}/{}", path.trim_start_matches('/')),
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    match host.strip_prefix('[') {
        Some(six) => six.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(four) => four.to_string(),
        IpAddr::V6(six) => format!("[{six}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remotes(toml: &str) -> Remotes {
        let platform: Platform = toml::from_str(toml).unwrap();
        let mut remotes = Remotes::new(&platform, &Data("/nonexistent".into()));
        remotes.proxy = Proxy::default();
        remotes
    }

    #[test]
    fn a_key_fetches_for_its_own_tenant_only() {
        let directory = tempfile::tempdir().unwrap();
        let mut remotes = remotes("");
        remotes.ssh = Utf8PathBuf::try_from(directory.path().to_owned()).unwrap();
        std::fs::create_dir(remotes.ssh.join("acme")).unwrap();
        std::fs::write(remotes.ssh.join("acme/id_ed25519"), "a key").unwrap();
        let admit = |tenant: &str| {
            remotes
                .of(&tenant.parse().unwrap())
                .admit("ssh://git@example.com/x")
        };
        assert!(admit("acme").is_ok());
        assert!(matches!(admit("beta"), Err(Error::NoKey { key }) if key.ends_with("beta/id_ed25519")));
        let of_nobody = remotes.admit("ssh://git@example.com/x");
        assert!(matches!(of_nobody, Err(Error::NoKey { .. })));
    }

    #[tokio::test]
    async fn only_what_the_proxy_takes_is_not_looked_at() {
        let mut remotes = remotes("");
        let proxy = |http: &str, https: &str, past: &str| {
            let variables = [("http_proxy", http), ("https_proxy", https), ("no_proxy", past)];
            let map: std::collections::BTreeMap<_, _> = variables.into();
            Proxy::new(|name| map.get(name).map(|value| (*value).to_owned()))
        };
        // `localhost` is refused by its name; this one is an inside address only to who looks it up.
        let (plain, tls) = ("http://2130706433/x", "https://2130706433/x");
        for (proxy, url, taken) in [
            (proxy("http://p", "", ""), plain, true),
            (proxy("http://p", "", ""), tls, false),
            (proxy("", "", ""), plain, false),
            (proxy("", "http://p", "other.example"), tls, true),
            (proxy("", "http://p", "other.example, 2130706433"), tls, false),
            (proxy("http://p", "http://p", "*"), tls, false),
        ] {
            remotes.proxy = proxy.clone();
            match remotes.find(url).await {
                Ok(found) => assert!(taken && found.proxied, "{proxy:?} {url}"),
                Err(Error::Private { .. }) => assert!(!taken, "{proxy:?} {url}"),
                Err(error) => panic!("{proxy:?} {url}: {error}"),
            }
        }
        let inside = proxy("", "http://p", ".Corp.example");
        let takes = |url: &str| inside.takes(&parts(url).unwrap());
        assert!(!takes("https://git.corp.example/x") && !takes("https://corp.example/x"));
        assert!(takes("https://notcorp.example/x") && !takes("ssh://git@git.other.example/x"));
    }

    #[test]
    fn only_what_is_read_in_one_way_is_a_url() {
        for (url, host, port) in [
            ("https://github.com/acme/shop.git", "github.com", 443),
            ("http://10.0.0.1:8080/x", "10.0.0.1", 8080),
            ("https://user@git.example.com/x", "git.example.com", 443),
            ("ssh://git@[2001:db8::1]:2222/x", "[2001:db8::1]", 2222),
        ] {
            let parts = parts(url).unwrap();
            assert_eq!((parts.host.as_str(), parts.port), (host, port), "{url}");
        }
        for url in [
            "ext::sh -c id",
            "file:///etc",
            "--upload-pack=id",
            "https://a@b@c/x",
            "https://a\\@127.0.0.1/x",
            "https://example.com#@127.0.0.1/x",
            "https://[::1/x",
            "https://-oProxyCommand=id/x",
            "https://host",
            "https://h\u{f6}st/x",
            "https://host:99999/x",
            "https://host:+80/x",
            "git:x",
            "",
        ] {
            assert!(matches!(parts(url), Err(Error::NotAUrl(_))), "{url}");
        }
        let error = parts("git@github.com:acme/shop.git").unwrap_err().to_string();
        assert!(error.contains("https://github.com/acme/shop.git"), "{error}");
    }

    #[tokio::test]
    async fn the_inside_is_fetched_from_only_where_the_operator_says_so() {
        let (strict, open) = (remotes(""), remotes("[sources]\nallow = ['127.0.0.0/8']"));
        for url in [
            "http://127.0.0.1:9/x",
            "http://localhost/x",
            "http://2130706433/x",
        ] {
            assert!(
                matches!(strict.find(url).await, Err(Error::Private { .. })),
                "{url}"
            );
        }
        let found = open.find("http://127.0.0.1:9/x").await.unwrap();
        assert_eq!(
            found.options,
            [
                "http.followRedirects=false",
                "http.proxy=",
                "http.curloptResolve=127.0.0.1:9:127.0.0.1"
            ]
        );
        assert!(matches!(
            open.find("http://192.168.0.1/x").await,
            Err(Error::Private { .. })
        ));
        assert!(matches!(
            strict.admit("ssh://git@example.com/x"),
            Err(Error::NoKey { .. })
        ));
    }
}
