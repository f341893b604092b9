//! The files that customers write: `vend.yaml`, `buildspec.yml`, `appspec.yml`, `checks.yml`, `Procfile`.
//!
//! Each is read from text into typed values, with every problem at once, each with its line and column. Reading is
//! total: any bytes give a value or problems, in bounded time and memory.

mod app;
mod appspec;
mod buildspec;
mod checks;
mod plain;
mod procfile;
mod read;
mod report;
mod script;
mod yaml;

pub(crate) use app::is_branch;
pub use app::{
    Alarms, Analysis, App, Approval, Base, Build, Certificate, Clash, Database, Deploy, Domain, Environment,
    Health, Host, Image, Leads, Migrate, MinimumHealthy, NotABase, Pattern, Placement, Port, Preview,
    Reference, Refresh, Scaling, Steps, Strategy, Traffic, Transport, Tree, Variable, Zones, is_apart,
    is_label, is_secret, matches_branch, name_apart, preview_name, schema,
};
pub use appspec::{Appspec, idle_hook};
pub use buildspec::Buildspec;
pub use checks::Checks;
pub use plain::{place, plain};
pub use procfile::procfile;
pub use read::{LATER, is_later, written};
pub use report::{
    CheckReport, Checked, Files, check_appspec, check_buildspec, check_checks, check_tree, checked,
};
pub use script::{CARRIAGE_RETURN, UNIX_LINES, has_carriage_return};
pub use yaml::{MAX_BYTES, decode};

pub mod build {
    //! The parts of a buildspec.
    pub use super::buildspec::{
        Artifacts, Batch, Cache, Env, OnFailure, Phase, PhaseName, Report, ReportFormat, SecretRef, Shell,
        Task, Version,
    };
}

pub mod deploy {
    //! The parts of an appspec.
    pub use super::appspec::{
        AgentConfiguration, Context, FileExists, FileMapping, Mode, Permission, Script,
    };
}

pub mod check {
    //! The kinds of checks.
    pub use super::checks::{
        CommandCheck, FileCheck, HttpCheck, PackageCheck, PortCheck, ProcessCheck, UserCheck,
    };
}
