//! The roles that are little more than another crate's `run`.

mod balancer;

use std::{error::Error, process::ExitCode};

use clap::Args;
use host::machine::{self, builder, hold};
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
    // Nobody begins again in it before all is down.
    let _hold = match alone(&data, builder.is_some()) {
        Ok(hold) => hold,
        Err(Runs { who, end }) => {
            eprintln!(
                "error: {who} in {} runs, and would start again what is taken down\nnext: {end}, then vend down --data {0}",
                data.0
            );
            return ExitCode::FAILURE;
        }
    };
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
#[derive(Debug)]
struct Runs {
    who: String,
    end: String,
}

/// Makes sure that nothing runs in a directory; a builder's is this process's for as long as what this gives is there.
fn alone(data: &Data, is_builder: bool) -> Result<Option<hold::Hold>, Runs> {
    if crate::up::is_running(data) {
        return Err(Runs {
            who: "the platform".to_owned(),
            end: "stop `vend up` first (Ctrl-C, or SIGTERM)".to_owned(),
        });
    }
    if !is_builder {
        return Ok(None);
    }
    match hold::take(data.0.as_std_path()) {
        Ok(hold) => Ok(Some(hold)),
        Err(machine::Error::Held { holder, .. }) => Err(Runs {
            who: format!("the builder ({holder})"),
            end: holder.end(),
        }),
        Err(error) => Err(Runs {
            who: format!("a builder, as far as can be told ({}),", chain(&error)),
            end: "see whether the directory can be written to".to_owned(),
        }),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_begins_in_a_builder_s_directory_while_it_is_taken_down() {
        let directory = tempfile::tempdir().unwrap();
        let data = Data(directory.path().to_owned().try_into().unwrap());
        assert!(alone(&data, false).unwrap().is_none());
        let agent = hold::take(directory.path()).unwrap();
        let runs = alone(&data, true).unwrap_err();
        assert!(runs.end.contains(&std::process::id().to_string()), "{runs:?}");
        drop(agent);
        let held = alone(&data, true).unwrap();
        assert!(hold::take(directory.path()).is_err(), "it is being taken down");
        drop(held);
        hold::take(directory.path()).unwrap();
    }
}
