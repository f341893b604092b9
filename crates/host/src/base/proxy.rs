//! The machine's own settings about what lies between it and the world. What runs in a container has them, too: it gets
//! nothing from anywhere otherwise. So the login of a proxy is told to whoever builds here, but to no log.

use std::{borrow::Cow, collections::BTreeMap};

use super::login;

const NAMES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "ftp_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "all_proxy",
];

/// How what runs in a container reaches the world outside: the machine's proxies, and for the tools that bring
/// certificates of their own, where those of the system are.
pub(crate) fn network_environment() -> BTreeMap<String, String> {
    const BUNDLE: [&str; 5] = [
        "CURL_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "PIP_CERT",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
    ];
    let bundle = BUNDLE.map(|name| (name.to_owned(), "/etc/ssl/certs/ca-certificates.crt".to_owned()));
    proxies().into_iter().chain(bundle).collect()
}

/// The machine's own settings about proxies.
pub(crate) fn proxies() -> BTreeMap<String, String> {
    let set = |name: &&str| Some(((*name).to_owned(), std::env::var(name).ok()?));
    NAMES.iter().filter_map(set).collect()
}

/// The passwords of the proxies among these variables: as they are written, and as they are meant.
pub(crate) fn passwords(variables: &BTreeMap<String, String>) -> Vec<String> {
    let proxies = NAMES.iter().filter_map(|name| variables.get(*name));
    let mut all = Vec::new();
    for proxy in proxies {
        // Tools take an address without a scheme for one of http.
        let proxy = match proxy.contains("://") {
            true => Cow::from(proxy),
            false => Cow::from(format!("http://{proxy}")),
        };
        let Some((written, _)) = login::split(&proxy) else {
            continue;
        };
        let password = written.split_once(':').map_or("", |(_, password)| password);
        all.extend([password.to_owned(), login::decoded(password)]);
    }
    all.retain(|password| !password.is_empty());
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_proxies_are_found_and_nothing_else() {
        let check = |name: &str, value: &str, expected: &[&str]| {
            let variables = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            assert_eq!(passwords(&variables), expected, "{name}={value}");
        };
        check(
            "http_proxy",
            "http://ann:hunter2@proxy.example:3128/",
            &["hunter2"],
        );
        check("https_proxy", "ann:hunter2@proxy.example:3128", &["hunter2"]);
        check(
            "HTTPS_PROXY",
            "http://ann:hun%40ter@proxy.example",
            &["hun%40ter", "hun@ter"],
        );
        check("http_proxy", "http://ann:hun@ter@proxy.example", &["hun@ter"]);
        check("http_proxy", "http://ann@proxy.example", &[]);
        check("http_proxy", "http://proxy.example:3128/a:b@c", &[]);
        check("no_proxy", "localhost,127.0.0.1", &[]);
        check("PATH", "http://ann:hunter2@proxy.example", &[]);
    }
}
