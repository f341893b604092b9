//! `vend`: a virtual host vending machine.

mod cli;
mod output;
mod web;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};

/// A virtual host vending machine.
#[derive(Debug, Parser)]
#[command(name = "vend", version, after_help = cli::EXIT_CODES)]
struct Vend {
    #[command(flatten)]
    global: cli::Global,
    #[command(subcommand)]
    command: cli::Command,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let vend = Vend::parse();
    cli::run(vend.command, &vend.global, Vend::command()).await
}
