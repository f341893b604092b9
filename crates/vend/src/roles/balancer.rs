//! `vend edge` of a platform: the sockets that were lent, what `platform.toml` says, and the edge itself.

use std::{convert::Infallible, net::TcpListener, process::ExitCode, time::Duration};

use edge::{Config, Dns, Limits, Listener, Speaks, Tls, Unbound};
use tokio::sync::watch;

use super::{code, ended, failed};
use crate::{
    config::{Data, Platform, Trusted, Workers, balancer},
    flow::chain,
    role::Lent,
};

/// How often `platform.toml` is looked at.
const EVERY: Duration = Duration::from_secs(1);

pub async fn edge(data: Data, mut lent: Lent) -> ExitCode {
    if lent.is_empty() && !is_supervised() {
        eprintln!("error: edge is started by `vend up` or by systemd, which lend it its socket `http`");
        return ExitCode::FAILURE;
    }
    let platform = match Platform::load(&data.platform_toml()) {
        Ok(platform) => platform,
        Err(error) => return failed(&error),
    };
    let config = match config(&platform, &data, &mut lent) {
        Ok(config) => config,
        Err(why) => {
            eprintln!("error: {}: {why}", data.platform_toml());
            return ExitCode::FAILURE;
        }
    };
    let (limits, limited) = watch::channel(config.limits);
    let config = Config {
        limited: Some(limited),
        ..config
    };
    tokio::select! {
        result = edge::run(config, ended()) => code(result),
        never = follow(&data, &limits) => match never {},
    }
}

fn is_supervised() -> bool {
    std::env::var_os("VEND_SUPERVISED").is_some()
}

fn config(platform: &Platform, data: &Data, lent: &mut Lent) -> Result<Config, String> {
    let (listeners, unbound) = listeners(platform, data, lent).map_err(|error| error.to_string())?;
    let access_log = platform.access_log.log(data.edge().join("access.log"));
    Ok(Config {
        listeners,
        unbound,
        admin: data.edge_socket(),
        snapshot: data.edge().join("table.log"),
        plain_http: platform.edge.plain_http,
        workers: Workers::or_cores(platform.edge.workers),
        access_log: Some(access_log.map_err(|why| format!("`[access_log]`: {why}"))?),
        metrics: metrics(platform, lent),
        limits: platform.edge.limits.limits(),
        limited: None,
        acme: platform.acme.as_ref().map(|authority| authority.acme(data)),
        datagrams: Vec::new(),
        dns: names(platform, lent).map_err(|why| format!("`[dns]`: {why}"))?,
        secrets: data.edge().join("secrets"),
        roots: None,
        zone: None,
        tidy: crate::tidy,
    })
}

/// Those that were lent, and those that are wanted and were not: whoever lends them could not bind them, or systemd was
/// not told to. The edge binds these itself, as soon as it can.
fn listeners(
    platform: &Platform,
    data: &Data,
    lent: &mut Lent,
) -> std::io::Result<(Vec<Listener>, Vec<Unbound>)> {
    let own = &platform.edge;
    let (mut bound, mut unbound) = (Vec::new(), Vec::new());
    let mut add = |address, speaks, socket: Option<TcpListener>| {
        let wanted = Unbound {
            address,
            speaks,
            proxied: own.proxied,
        };
        match socket {
            Some(socket) => bound.push(wanted.at(socket)),
            None => unbound.push(wanted),
        }
    };
    add(platform.listen.http, Speaks::Http, lent.tcp("http"));
    let socket = lent.tcp("https");
    // Where a unit of systemd has it, `platform.toml` need not say so.
    let at = socket.as_ref().map(TcpListener::local_addr).transpose()?;
    if let Some(at) = platform.listen.https.or(at) {
        // There may be no certificate yet; one that comes is seen.
        std::fs::create_dir_all(data.certificates())?;
        let tls = Tls {
            certificates: data.certificates(),
            minimum: own.minimum.0,
            ciphers: own.ciphers.iter().map(|cipher| cipher.0.clone()).collect(),
            clients: own.clients.as_ref().map(Trusted::clients),
        };
        add(at, Speaks::Https(Box::new(tls)), socket);
    }
    Ok((bound, unbound))
}

/// Where numbers are given away: a socket that was lent, or one of its own where systemd lends none. A port that somebody
/// else has is no reason to serve nobody.
fn metrics(platform: &Platform, lent: &mut Lent) -> Option<TcpListener> {
    let lent = lent.tcp("metrics");
    if lent.is_some() || is_supervised() {
        return lent;
    }
    let address = platform.edge.metrics.0?;
    let bound = TcpListener::bind(address);
    bound
        .inspect_err(|error| tracing::warn!(%error, %address, "nobody can ask for metrics"))
        .ok()
}

/// The zones at the sockets that were lent for them; the edge binds the others itself.
fn names(platform: &Platform, lent: &mut Lent) -> Result<Option<Dns>, String> {
    let zones = platform.dns.ready(&platform.domain)?;
    let (mut sockets, mut there) = (Vec::new(), Vec::new());
    while let (Some(udp), Some(tcp)) = (lent.udp("dns-udp"), lent.tcp("dns-tcp")) {
        there.extend(tcp.local_addr());
        sockets.push((udp, tcp));
    }
    if zones.is_empty() {
        return Ok(None);
    }
    // A free port was found before; another one would be nobody's.
    let fixed = platform.dns.listen.iter().filter(|at| at.port() != 0);
    Ok(Some(Dns {
        zones,
        sockets,
        unbound: fixed.filter(|at| !there.contains(at)).copied().collect(),
        rate: platform.dns.rate,
    }))
}

/// Has the limits of `platform.toml` hold as the file changes. One that cannot be read changes nothing.
async fn follow(data: &Data, limits: &watch::Sender<Limits>) -> Infallible {
    let file = data.platform_toml();
    let written = || std::fs::metadata(&file).and_then(|about| Ok((about.modified()?, about.len())));
    let mut before = written().ok();
    loop {
        tokio::time::sleep(EVERY).await;
        let now = written().ok();
        if now == before {
            continue;
        }
        before = now;
        match Platform::load(&file) {
            Ok(platform) => balancer::hold(platform.edge.limits.limits(), limits),
            Err(error) => tracing::error!(why = chain(&error), "the limits stay as they are"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_was_not_lent_is_bound_later() {
        let folder = tempfile::tempdir().unwrap();
        let data = Data(folder.path().to_owned().try_into().unwrap());
        let wanted = platform("[listen]\nhttp = '127.0.0.1:80'\nhttps = '127.0.0.1:443'\n");
        let without = platform("[listen]\nhttp = '127.0.0.1:80'\n");
        for (platform, lent, expected) in [
            (&wanted, &["http", "https"][..], (2, vec![])),
            (&wanted, &["http"], (1, vec![443])),
            (&wanted, &["https"], (1, vec![80])),
            (&wanted, &[], (0, vec![80, 443])),
            (&without, &["http"], (1, vec![])),
            (&without, &["http", "https"], (2, vec![])),
        ] {
            let sockets = lent.iter().map(|name| {
                let socket = TcpListener::bind("127.0.0.1:0").unwrap();
                ((*name).to_owned(), socket.into())
            });
            let mut held = Lent::of(sockets.collect());
            let (bound, unbound) = listeners(platform, &data, &mut held).unwrap();
            let ports: Vec<_> = unbound.iter().map(|one| one.address.port()).collect();
            assert_eq!((bound.len(), ports), expected, "{lent:?}");
        }
    }

    #[test]
    fn names_are_answered_later_where_nobody_lent_sockets() {
        let platform = platform(
            "[dns]\nlisten = ['127.0.0.1:53', '127.0.0.2:0']\naddresses = ['192.0.2.1']\nzones = ['a.test']",
        );
        let dns = names(&platform, &mut Lent::default()).unwrap().unwrap();
        assert_eq!(
            dns.unbound,
            ["127.0.0.1:53".parse::<std::net::SocketAddr>().unwrap()]
        );
        assert!(dns.sockets.is_empty());
    }

    #[tokio::test]
    async fn limits_follow_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let data = Data(folder.path().to_owned().try_into().unwrap());
        let (limits, mut seen) = watch::channel(Limits::default());
        let write = |text: &str| std::fs::write(data.platform_toml(), text).unwrap();
        let changes = async {
            for body in [7, 2_000] {
                // The file is looked at before it changes.
                tokio::time::sleep(EVERY).await;
                write("[edge.limits]\nbody = 'much'\n");
                tokio::time::sleep(2 * EVERY).await;
                assert!(
                    !seen.has_changed().unwrap(),
                    "a file that is wrong changes nothing"
                );
                write(&format!("[edge.limits]\nbody = {body}\n"));
                seen.changed().await.unwrap();
                assert_eq!(seen.borrow_and_update().body, body);
            }
        };
        tokio::select! {
            () = changes => {}
            never = follow(&data, &limits) => match never {},
        }
    }
}
