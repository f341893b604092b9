//! `vend agent`: this machine as one of somebody's platform, on which releases are deployed, or which builds.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
};

use camino::Utf8PathBuf;
use clap::Args;
use host::{
    machine::{
        Error, builder, hold,
        join::{self, Wish},
    },
    node::NodeConfig,
};
use model::{Secret, address::Network, port::Fault};
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
    /// Build for the platform, as one that `vend builders invite` lets in.
    #[arg(long)]
    pub builder: bool,
    /// So many builds run at a time; more wait.
    #[arg(long, value_name = "BUILDS", default_value_t = NonZeroUsize::MIN.saturating_add(1), requires = "builder")]
    at_once: NonZeroUsize,
    /// A private network that builds reach, such as `10.1.2.0/24`.
    #[arg(long, value_name = "NETWORK", requires = "builder", value_parser = network)]
    allow: Vec<Network>,
    /// What `vend hosts invite` or `vend builders invite` gave. Only the first time. Other users of the machine see command
    /// lines: rather set VEND_JOIN_TOKEN, or say --token-file.
    #[arg(long, env = "VEND_JOIN_TOKEN", hide_env = true)]
    token: Option<String>,
    /// The first line of this file is the token; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// What the machine is called in lists. Default: its host name.
    #[arg(long)]
    name: Option<String>,
    /// Where its key and what was deployed, or built, are kept. Default: /var/lib/vend-machine, /var/lib/vend-builder
    #[arg(long, value_name = "DIRECTORY")]
    state: Option<PathBuf>,
}

fn network(text: &str) -> Result<Network, String> {
    Network::exact(text).ok_or_else(|| "write a network such as 10.1.2.0/24".to_owned())
}

pub async fn run(agent: Agent) -> ExitCode {
    let invite = match agent.builder {
        true => "vend builders invite",
        false => "vend hosts invite TENANT",
    };
    match serve(agent).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", crate::flow::chain(&error));
            eprintln!("next: {}", next(&error, invite));
            ExitCode::FAILURE
        }
    }
}

/// What helps. `invite`: what gives an invitation.
fn next(error: &Error, invite: &str) -> String {
    match error {
        Error::Fault(Fault { next: Some(next), .. }) => next.clone(),
        Error::Unable(_) => "run it as root, alone in its directory, which needs room; `vend doctor` says what the machine lacks".into(),
        Error::Io(_) | Error::Tls(_) => {
            "see whether this machine reaches the platform's listener, and may write to its directory".into()
        }
        Error::Held { holder, .. } => format!(
            "{}; or give this one a directory of its own: --state DIRECTORY",
            holder.end()
        ),
        Error::Sign(_) | Error::Told(_) | Error::Fault(_) => {
            format!("ask whoever operates the platform for an invitation: {invite}")
        }
    }
}

async fn serve(agent: Agent) -> Result<(), Error> {
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = agent.name.unwrap_or(own);
    let token = match &agent.token_file {
        Some(path) => Some(first_line(path)?),
        None => agent.token.map(Secret::new),
    };
    let default = || match agent.builder {
        true => PathBuf::from("/var/lib/vend-builder"),
        false => PathBuf::from("/var/lib/vend-machine"),
    };
    let state = agent.state.clone().unwrap_or_else(default);
    // Before anything in it is read or changed.
    let _hold = hold::take(&state)?;
    let own = agent.builder.then(builder::own_labels);
    let machine = join::enrol(&agent.join, token.as_ref(), &name, own, &state).await?;
    crate::output::aloud(format_args!("this machine is {machine}"));
    if agent.builder {
        let utf8 = Utf8PathBuf::from_path_buf(state.clone());
        let data = utf8.map_err(|_| Error::Told("the directory's path is not UTF-8".into()))?;
        let mut config = NodeConfig::new(data);
        config.builds_at_once = agent.at_once.get();
        config.registries = agent.allow.clone();
        config.allowed = agent.allow;
        return builder::serve(&state, config, crate::roles::ended()).await;
    }
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
        served = join::serve(&state, wishes) => served,
        never = listening => never,
    }
}

/// No token is longer.
const MAX_TOKEN_BYTES: u64 = 512;

/// What stands in the first line of a file; `-` is standard input, of which no more is waited for.
fn first_line(path: &Path) -> Result<Secret, Error> {
    let mut line = String::new();
    match path == Path::new("-") {
        true => std::io::stdin()
            .lock()
            .take(MAX_TOKEN_BYTES)
            .read_line(&mut line)?,
        false => BufReader::new(File::open(path)?.take(MAX_TOKEN_BYTES)).read_line(&mut line)?,
    };
    match line.trim() {
        "" => Err(Error::Told(format!(
            "{} has no token in its first line",
            path.display()
        ))),
        token => Ok(Secret::new(token.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_first_line_of_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        for (text, token) in [
            ("vendjoin_a\n", Some("vendjoin_a")),
            ("b\nc\n", Some("b")),
            (" \nc\n", None),
        ] {
            std::fs::write(&path, text).unwrap();
            let read = first_line(&path).ok();
            assert_eq!(read.as_ref().map(Secret::expose), token, "{text:?}");
        }
        assert!(first_line(&directory.path().join("none")).is_err());
    }

    #[test]
    fn whoever_is_told_what_to_do_next_is_told_what_helps() {
        let io = || std::io::Error::other("refused");
        for (error, part) in [
            (
                Error::Told("this machine has joined nothing yet".into()),
                "vend builders invite",
            ),
            (Error::Unable("crun is missing".into()), "vend doctor"),
            (
                Error::Held {
                    state: "/var/lib/vend-builder".into(),
                    holder: hold::Holder(Some(7)),
                },
                "kill 7",
            ),
            (Error::Io(io()), "reaches the platform's listener"),
            (Fault::order("no").next("do this").into(), "do this"),
        ] {
            let told = next(&error, "vend builders invite");
            assert!(told.contains(part), "{error}: {told}");
        }
    }
}
