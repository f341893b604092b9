mod clock;
mod config;
mod git;
fn main() {}
