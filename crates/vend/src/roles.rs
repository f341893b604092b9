//! The roles that are little more than another crate's `run`.

use std::{error::Error, net::TcpListener, process::ExitCode};

use clap::Args;
use host::machine::{builder, hold};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::{Data, Platform, Trusted, Workers},
    flow::chain,
    role::Lent,
    up::Users,
};

#[derive(Debug, Args)]
pub struct Up {
    /// Listen on free ports of loopback; `run/endpoints.json` says which.
    #[arg(long)]
    pub pick_ports: bool,
    /// Have the platform that runs in this directory go on as this program, with platform.toml as it is now. Nobody is
    /// refused meanwhile, and no app is restarted.
    #[arg(long, conflicts_with = "pick_ports")]
    pub replace: bool,
}

pub fn failed(error: &dyn Error) -> ExitCode {
    eprintln!("error: {}", chain(error));
    ExitCode::FAILURE
}

pub fn code<E: Error>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

pub async fn node(data: Data) -> ExitCode {
    let platform = match Platform::load(&data.platform_toml()) {
        Ok(platform) => platform,
        Err(error) => return failed(&error),
    };
    let mut config = host::node::NodeConfig::new(data.0);
    config.image_budget_bytes = platform.images.budget_gib << 30;
    config.registries = platform.registries.networks();
    config.allowed = platform.builds.networks();
    config.builds_at_once = platform.builds.at_once;
    config.labels = platform.builds.labels;
    config.group = Some(Users::of_this_machine().group);
    code(host::node::serve(config, ended()).await)
}

/// What `vend down` and the end of a demo do: nothing of the data directory runs or is mounted afterwards.
pub async fn teardown(data: &Data) -> Result<(), host::node::Error> {
    host::node::teardown(&host::node::NodeConfig::new(data.0.clone())).await
}

pub async fn down(data: Data) -> ExitCode {
    if !data.node().exists() {
        eprintln!(
            "error: there is no platform and no builder in {}\nnext: vend down --data DIR",
            data.0
        );
        return ExitCode::FAILURE;
    }
    let builder = builder::again(data.0.as_std_path());
    if let Some((who, end)) = runs(&data, builder.is_some()) {
        eprintln!(
            "error: {who} in {} runs, and would start again what is taken down\nnext: {end}, then vend down --data {0}",
            data.0
        );
        return ExitCode::FAILURE;
    }
    if let Err(error) = host::container::enter_private_mounts() {
        return failed(&error);
    }
    match teardown(&data).await {
        Ok(()) => {
            let again = builder.unwrap_or_else(|| format!("vend up --data {}", data.0));
            crate::output::aloud(format_args!(
                "nothing of {} runs any more; to start it again: {again}",
                data.0
            ));
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

/// What runs in a directory, and what ends it.
fn runs(data: &Data, is_builder: bool) -> Option<(String, String)> {
    if crate::up::is_running(data) {
        let end = "stop `vend up` first (Ctrl-C, or SIGTERM)".to_owned();
        return Some(("the platform".to_owned(), end));
    }
    let holder = hold::holder(data.0.as_std_path()).filter(|_| is_builder)?;
    Some((format!("the builder ({holder})"), holder.end()))
}

pub async fn edge(data: Data, mut lent: Lent) -> ExitCode {
    let Some(http) = lent.tcp("http") else {
        eprintln!("error: edge is started by `vend up` or by systemd, which lend it its socket `http`");
        return ExitCode::FAILURE;
    };
    let platform = match Platform::load(&data.platform_toml()) {
        Ok(platform) => platform,
        Err(error) => return failed(&error),
    };
    let own = &platform.edge;
    let mut listeners = vec![edge::Listener {
        proxied: own.proxied,
        ..edge::Listener::http(http)
    }];
    if let Some(https) = lent.tcp("https") {
        // There may be no certificate yet; one that comes is seen.
        if let Err(error) = std::fs::create_dir_all(data.certificates()) {
            return failed(&error);
        }
        let tls = edge::Tls {
            certificates: data.certificates(),
            minimum: own.minimum.0,
            ciphers: own.ciphers.iter().map(|cipher| cipher.0.clone()).collect(),
            clients: own.clients.as_ref().map(Trusted::clients),
        };
        listeners.push(edge::Listener {
            socket: https,
            speaks: edge::Speaks::Https(Box::new(tls)),
            proxied: own.proxied,
        });
    }
    let dns = match names(&platform, &mut lent) {
        Ok(dns) => dns,
        Err(why) => {
            eprintln!("error: {}: `[dns]`: {why}", data.platform_toml());
            return ExitCode::FAILURE;
        }
    };
    let access_log = match platform.access_log.log(data.edge().join("access.log")) {
        Ok(log) => log,
        Err(why) => {
            eprintln!("error: {}: `[access_log]`: {why}", data.platform_toml());
            return ExitCode::FAILURE;
        }
    };
    let config = edge::Config {
        listeners,
        admin: data.edge_socket(),
        snapshot: data.edge().join("table.log"),
        workers: Workers::or_cores(own.workers),
        access_log: Some(access_log),
        metrics: metrics(&platform, &mut lent),
        limits: own.limits.limits(),
        acme: platform.acme.as_ref().map(|authority| authority.acme(&data)),
        datagrams: Vec::new(),
        dns,
        secrets: data.edge().join("secrets"),
        roots: None,
        zone: None,
        bounds: None,
        tidy: crate::tidy,
    };
    code(edge::run(config, ended()).await)
}

/// Where numbers are given away: a socket that was lent, or one of its own where systemd lends none. A port that somebody
/// else has is no reason to serve nobody.
fn metrics(platform: &Platform, lent: &mut Lent) -> Option<TcpListener> {
    let lent = lent.tcp("metrics");
    if lent.is_some() || std::env::var_os("VEND_SUPERVISED").is_some() {
        return lent;
    }
    let address = platform.edge.metrics.0?;
    let bound = TcpListener::bind(address);
    bound
        .inspect_err(|error| tracing::warn!(%error, %address, "nobody can ask for metrics"))
        .ok()
}

/// The zones at the sockets that were lent for them.
fn names(platform: &Platform, lent: &mut Lent) -> Result<Option<edge::Dns>, String> {
    let zones = platform.dns.ready(&platform.domain)?;
    let mut sockets = Vec::new();
    while let (Some(udp), Some(tcp)) = (lent.udp("dns-udp"), lent.tcp("dns-tcp")) {
        sockets.push((udp, tcp));
    }
    if zones.is_empty() {
        return Ok(None);
    }
    if sockets.is_empty() {
        return Err("nobody lent the sockets `dns-udp` and `dns-tcp`".into());
    }
    Ok(Some(edge::Dns {
        zones,
        sockets,
        rate: platform.dns.rate,
    }))
}

/// Until this process is told to stop.
pub async fn ended() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
}
