//! `vend agent`: this machine as one of somebody's platform.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use host::machine::join::{self, Wish};
use model::Secret;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// Without options it is PID 1 inside a host, and never comes here.
#[derive(Debug, Args)]
pub struct Agent {
    /// The platform's listener for machines, such as `https://platform.example:7443`
    #[arg(long, value_name = "URL")]
    join: String,
    /// What `vend hosts invite` gave. Only the first time.
    #[arg(long, env = "VEND_JOIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// What the machine is called in lists. Default: its host name.
    #[arg(long)]
    name: Option<String>,
    /// Where its key and what was deployed are kept.
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/vend-machine")]
    state: PathBuf,
}

pub async fn run(agent: Agent) -> ExitCode {
    match serve(agent).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", crate::flow::chain(&error));
            eprintln!("next: ask whoever operates the platform for an invitation: vend hosts invite TENANT");
            ExitCode::FAILURE
        }
    }
}

async fn serve(agent: Agent) -> Result<(), host::machine::Error> {
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = agent.name.unwrap_or(own);
    let token = agent.token.map(Secret::new);
    let machine = join::enrol(&agent.join, token.as_ref(), &name, &agent.state).await?;
    crate::output::aloud(format_args!("this machine is {machine}"));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (wish, wishes) = mpsc::channel(1);
    let listening = async move {
        loop {
            let wanted = tokio::select! {
                _ = terminate.recv() => Wish::Stop,
                _ = interrupt.recv() => Wish::Stop,
                _ = hangup.recv() => Wish::Succeed,
            };
            if wish.send(wanted).await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    tokio::select! {
        served = join::serve(&agent.state, wishes) => served,
        never = listening => never,
    }
}
