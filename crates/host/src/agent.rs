//! PID 1 inside a host. Knows nothing of the control plane: it is asked, it never asks.
//!
//! The room exists because customers' software expects a machine: something that reaps, supervises, answers
//! `systemctl`, runs lifecycle events and checks. It mounts nothing, holds the host's environment in memory only, and
//! survives whatever its children do. It must know nothing of networks, images, tenants or the machine around it.

use std::{io, path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};

pub mod api;
mod boot;
mod client;
mod control;
mod depend;
mod files;
mod installation;
mod layout;
mod lifecycle;
pub(crate) mod log;
pub(crate) mod offline;
mod questions;
pub mod reaper;
pub mod run;
mod server;
mod service;
mod services;
mod sockets;
pub mod spawn;
mod succession;
mod syslog;
pub mod systemctl;
mod timers;
pub(crate) mod trace;
#[doc(hidden)]
pub mod unit;
mod units;
mod usage;
pub mod users;

pub use client::Client;
use files::Files;
pub use layout::Layout;
use reaper::{Reaper, Scope};
use services::Services;

/// What can go wrong around an agent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the agent cannot begin")]
    Begin(#[source] io::Error),
    #[error("cannot reach the agent")]
    Connect(#[source] io::Error),
    #[error("the agent did not answer within {0:?}")]
    Deadline(Duration),
    #[error("the agent's answer is broken")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It understood and said no. The text is from inside the host.
    #[error("the agent refused: {0}")]
    Refused(String),
    /// A deployment that could not be begun or answered.
    #[error(transparent)]
    Fault(#[from] model::port::Fault),
}

/// `vend agent`: runs until SIGTERM, then stops the services in reverse order.
pub fn main() -> ! {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(Layout::host(), Scope::Everything)),
        Err(error) => Err(Error::Begin(error)),
    };
    let code = match outcome {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(
                "{error}: {}",
                std::error::Error::source(&error)
                    .map(ToString::to_string)
                    .unwrap_or_default()
            );
            1
        }
    };
    std::process::exit(code)
}

/// An agent until SIGTERM or SIGINT.
///
/// # Errors
/// Only before it serves: once it does, it goes on whatever happens.
pub async fn run(layout: Layout, scope: Scope) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Begin)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Begin)?;
    layout.make().map_err(Error::Begin)?;
    let reaper = Reaper::new(scope);
    let files = Files::begin().map_err(Error::Begin)?;
    let services = Services::new(layout.clone(), reaper.clone(), files.clone());
    if let Some(legacy) = succession::legacy() {
        services.inherit(legacy, succession::taken);
    }
    // What ended meanwhile is waited for once somebody asks after it.
    let reaping = tokio::spawn(reaper.clone().run());
    let listener = server::listen(&layout).map_err(Error::Begin)?;
    let open = questions::listen(&layout).map_err(Error::Begin)?;
    let heard = if std::process::id() == 1 {
        hear(&layout, &services)
    } else {
        None
    };
    let agent = server::Agent::begin(layout, reaper, services.clone(), files);
    let serving = tokio::spawn(server::serve(listener, agent));
    let answering = tokio::spawn(questions::serve(open, services.clone()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    services.stop_all().await;
    serving.abort();
    answering.abort();
    if let Some(heard) = heard {
        heard.abort();
    }
    if scope == Scope::Everything && std::process::id() == 1 {
        farewell().await;
    }
    reaping.abort();
    Ok(())
}

/// An agent on a machine that is somebody's own: it supervises what it is given and answers whom the machine has dialled,
/// but is neither PID 1 nor what `systemctl` asks.
pub(crate) struct Guest {
    agent: server::Agent,
    services: Services,
    reaping: JoinHandle<io::Result<()>>,
}

impl Guest {
    pub fn begin(layout: Layout) -> Result<Self, Error> {
        layout.make().map_err(Error::Begin)?;
        let reaper = Reaper::new(Scope::Own);
        let files = Files::begin().map_err(Error::Begin)?;
        let services = Services::new(layout.clone(), reaper.clone(), files.clone());
        match succession::legacy() {
            Some(legacy) => services.inherit(legacy, succession::taken),
            None => services.recover(),
        }
        let reaping = tokio::spawn(reaper.clone().run());
        Ok(Self {
            agent: server::Agent::begin(layout, reaper, services.clone(), files).of_machine(),
            services,
            reaping,
        })
    }

    pub fn router(&self) -> axum::Router {
        server::guest(self.agent.clone())
    }

    /// Executes the program that is now where this one came from, with the same arguments: what it supervises goes on.
    /// Comes back with the reason when it cannot, and then nothing has changed.
    pub async fn succeed(&self) -> io::Error {
        let Some(_peace) = self.agent.rest() else {
            return io::Error::other("a deployment runs: ask again when it has ended");
        };
        let program = match std::fs::read_link("/proc/self/exe") {
            Ok(program) => program,
            Err(error) => return error,
        };
        // The kernel says so of a file that another one was put in the place of.
        let path = program.to_string_lossy();
        let path = path.strip_suffix(" (deleted)").unwrap_or(&path);
        let arguments: Vec<_> = std::env::args_os().skip(1).collect();
        match self.services.leave().await {
            Ok(legacy) => succession::execute(Path::new(path), &arguments, &legacy),
            Err(why) => io::Error::other(why),
        }
    }

    /// Stops what it supervises.
    pub async fn end(self) {
        self.services.stop_all().await;
        self.reaping.abort();
    }
}

/// The system's log. A host without one goes on: what is said to it is lost, as on a machine without a log.
fn hear(layout: &Layout, services: &Services) -> Option<JoinHandle<()>> {
    match syslog::listen(&layout.syslog) {
        Ok(socket) => Some(tokio::spawn(syslog::serve(socket?, services.clone()))),
        Err(error) => {
            tracing::warn!("nobody reads {}: {error}", layout.syslog.display());
            None
        }
    }
}

/// Asks all that is left in the host to end. What does not is killed by the kernel with its PID 1.
async fn farewell() {
    for _ in 0..20 {
        let left = others();
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = kill_process(pid, Signal::TERM);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Every process of the host but this one.
fn others() -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid > 1)
        .filter_map(Pid::from_raw)
        .collect()
}
