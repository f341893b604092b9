//! `vend states`: Amazon States Language on this machine, without a platform.

mod draw;
mod lint;
mod run;
mod source;
mod story;
mod test;

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};

use super::{Global, Outcome};

#[derive(Debug, Subcommand)]
pub enum States {
    /// Check a definition: every problem with its place, in AWS's words.
    Lint(lint::Lint),
    /// Run a definition to its end, with mocked tasks.
    Run(run::Run),
    /// Run one state by itself with a mocked answer, and show what became of its data.
    TestState(test::Test),
    /// Draw a definition, as text or as SVG, coloured by how an execution went.
    Draw(draw::Draw),
}

/// The type of a state machine.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Type {
    Standard,
    Express,
}

impl From<Type> for asl::Flavour {
    fn from(kind: Type) -> Self {
        match kind {
            Type::Standard => Self::Standard,
            Type::Express => Self::Express,
        }
    }
}

pub async fn run(states: &States, global: &Global) -> Outcome {
    match states {
        States::Lint(lint) => lint::run(lint, global),
        States::Run(run) => run::run(run, global).await,
        States::TestState(test) => test::run(test, global),
        States::Draw(draw) => draw::run(draw, global).await,
    }
}

fn code(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
