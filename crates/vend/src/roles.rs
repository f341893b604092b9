//! The roles that are little more than another crate's `run`.

mod balancer;

use std::{error::Error, process::ExitCode};

use clap::Args;
use host::machine::{builder, hold};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::{Data, Platform},
    flow::chain,
    up::Users,
};

pub use balancer::edge;

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

/// Until this process is told to stop.
pub async fn ended() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
}
