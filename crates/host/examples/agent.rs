//! The agent alone, as the tests start it in a host of their own: PID 1, or `systemctl` when it is called so.

use std::process::ExitCode;

use host::agent::{self, systemctl};

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    if systemctl::is_name(&name) {
        let arguments: Vec<String> = arguments.collect();
        return systemctl::main(&name, &arguments);
    }
    agent::main()
}
