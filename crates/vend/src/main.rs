mod clock;
mod config;
mod doctor;
mod flow;
mod git;
mod reconcile;
mod role;
#[path = "web/commands.rs"]
mod wcommands;
mod web {
    pub use crate::wcommands::{Commands, Pushed, Sight};
}
fn main() {}
