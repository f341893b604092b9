//! One binary, several roles: the platform's, the agent's inside hosts, and the command line's.

mod cli;
mod clock;
mod config;
mod demo;
mod doctor;
#[cfg(test)]
mod fixtures;
mod flow;
mod git;
mod machines;
mod output;
mod receiver;
mod reconcile;
mod reference;
mod role;
mod roles;
mod serve;
mod states;
mod up;
mod view;
mod web;

use std::{io::IsTerminal as _, path::Path, process::ExitCode};

use camino::Utf8PathBuf;
use clap::{CommandFactory as _, Parser, Subcommand};
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Gives memory that the calling thread has freed back to the system.
#[allow(unsafe_code)]
fn tidy() {
    // SAFETY: any thread may call it at any time; what is in use is not touched.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// Vends virtual hosts: git push in, software on hosts of its own out.
#[derive(Parser)]
#[command(name = "vend", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    global: cli::Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the whole corridor with a sample app: push, approval, change, rollback.
    Demo(demo::Demo),
    /// Say what this machine has of what a platform needs, and how to get the rest.
    Doctor(doctor::Doctor),
    /// Start and supervise all roles on this machine.
    Up(roles::Up),
    /// Stop every host, network and mount of a platform whose roles do not run.
    Down,
    /// The role that decides: API, git, webhooks, flows. Started by `vend up` or systemd.
    #[command(hide = true)]
    Serve,
    /// The role that makes containers, as root.
    #[command(hide = true)]
    Node,
    /// This machine as a registered one of a platform: it dials, and releases are deployed here, or builds run here.
    Agent(cli::agent::Agent),
    /// The load balancer: alone, as a file says, or what the one of this machine does.
    Edge(cli::edge::Edge),
    /// Write the reference documents that are generated from the code.
    #[command(hide = true)]
    Reference(reference::Reference),
    #[command(flatten)]
    Client(cli::Command),
}

fn main() -> ExitCode {
    host::lookup::by_files_and_dns();
    // Inside hosts and builds the same file goes by other names; they must start fast and small.
    if let Some(code) = inside(&std::env::args().collect::<Vec<_>>()) {
        return code;
    }
    host::inherited::close_on_exec();
    let arguments = Arguments::parse();
    let lent = match arguments.command {
        Command::Serve | Command::Edge(_) | Command::Node => role::Lent::take(),
        _ => role::Lent::default(),
    };
    logs(&arguments.command);
    match arguments.command {
        Command::Doctor(doctor) => doctor::run(&doctor, arguments.global.json),
        Command::Reference(reference) => reference::run(&reference, Arguments::command()),
        command => in_runtime(command, arguments.global, lent),
    }
}

fn inside(arguments: &[String]) -> Option<ExitCode> {
    let name = Path::new(arguments.first()?).file_name()?.to_str()?;
    let rest: Vec<String> = arguments.iter().skip(1).cloned().collect();
    match (name, rest.first().map(String::as_str)) {
        (tool, _) if host::build::tools::is_tool(tool) => Some(host::build::tools::main(tool, &rest)),
        ("systemctl" | "service", _) => Some(host::agent::systemctl::main(name, &rest)),
        (_, Some("agent")) if rest.len() == 1 => host::agent::main(),
        (receiver::NAME, _) => Some(receiver::main()),
        (_, Some(cli::build::warden::NAME)) => Some(cli::build::warden::main(rest.get(1))),
        (_, Some("build-runner")) => Some(host::build::runner::main()),
        _ => None,
    }
}

fn in_runtime(command: Command, global: cli::Global, lent: role::Lent) -> ExitCode {
    let path = match command {
        Command::Demo(_) => global.data_or("vend-demo"),
        _ => global.data(),
    };
    let Ok(path) = Utf8PathBuf::from_path_buf(path) else {
        eprintln!("error: the data directory's path is not UTF-8");
        return ExitCode::from(2);
    };
    let data = config::Data(path);
    let makes_containers = match &command {
        Command::Node => true,
        Command::Agent(agent) if agent.builder => rustix::process::geteuid().is_root(),
        // Without the right to, it will say so itself.
        Command::Client(command) => command.makes_containers() && rustix::process::geteuid().is_root(),
        _ => false,
    };
    if makes_containers && let Err(error) = host::container::enter_private_mounts() {
        return roles::failed(&error);
    }
    let mut runtime = match &command {
        Command::Serve | Command::Node => tokio::runtime::Builder::new_multi_thread(),
        Command::Agent(agent) if agent.builder => tokio::runtime::Builder::new_multi_thread(),
        Command::Client(command) if command.makes_containers() => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return roles::failed(&error),
    };
    runtime.block_on(async {
        match command {
            Command::Demo(demo) => demo::run(&demo, &data.0).await,
            Command::Up(up) if up.replace => roles::code(up::replace(&data).await),
            Command::Up(up) => roles::code(up::run(data, up.pick_ports).await),
            Command::Down => roles::down(data).await,
            Command::Serve => roles::code(serve::run(data, lent).await),
            Command::Node => roles::node(data).await,
            Command::Edge(edge) => match (&edge.ask, &edge.config) {
                (Some(ask), _) => cli::edge::ask(ask, &data, &global).await,
                (None, Some(file)) => cli::edge::alone(file, &data, &global).await,
                (None, None) => roles::edge(data, lent).await,
            },
            Command::Agent(agent) => cli::agent::run(agent).await,
            Command::Client(command) => Box::pin(cli::run(command, &global, Arguments::command())).await,
            Command::Doctor(_) | Command::Reference(_) => ExitCode::SUCCESS,
        }
    })
}

/// Roles log what they do; everything else logs only what went wrong.
fn logs(command: &Command) {
    let default = match command {
        Command::Edge(edge) if edge.ask.is_some() => "error",
        Command::Up(_) | Command::Serve | Command::Node | Command::Edge(_) | Command::Agent(_) => "info",
        _ => "error",
    };
    let filter = EnvFilter::try_from_env("VEND_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let layer = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry().with(filter).with(layer).init();
}
