//! The programs `systemctl` and `service` of a host, and the old ones around them: our binary under their names. They ask
//! the agent, as root only.

use std::{
    ffi::OsStr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use camino::Utf8PathBuf;

use super::{
    Client, Layout,
    api::{ControlOrder, ControlOutcome},
};

/// Is this a name that our binary answers to, inside a host?
pub fn is_name(argv0: &str) -> bool {
    let name = base(argv0);
    matches!(name, "systemctl" | "service") || NAMES.contains(&name)
}

/// Names of programs that scripts of machines call, besides those two.
pub const NAMES: [&str; 7] = [
    "init", "telinit", "shutdown", "halt", "poweroff", "reboot", "runlevel",
];

/// Does what was asked for by that name.
pub fn main(argv0: &str, arguments: &[String]) -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        eprintln!("{}: only root may do this", base(argv0));
        return ExitCode::from(4);
    }
    let layout = Layout::host();
    match base(argv0) {
        "systemctl" => systemctl(arguments),
        "service" => service(&layout, arguments),
        name => machine(name, arguments),
    }
}

/// Whether a host runs is for the platform to say; that it runs as people expect it is for here.
fn machine(name: &str, arguments: &[String]) -> ExitCode {
    let level = arguments
        .iter()
        .find(|word| !word.starts_with('-'))
        .map(String::as_str);
    match (name, level) {
        ("runlevel", _) => {
            println!("N 2");
            ExitCode::SUCCESS
        }
        ("init" | "telinit", Some("q" | "Q")) => answer(&order("daemon-reload", None)),
        ("init" | "telinit", Some("2" | "3" | "4" | "5")) => ExitCode::SUCCESS,
        ("shutdown", _) if arguments.iter().any(|word| word == "-c") => ExitCode::SUCCESS,
        (name, _) => {
            eprintln!("{name}: the platform decides when a host ends; use `vend hosts` or deploy anew");
            ExitCode::from(1)
        }
    }
}

fn base(argv0: &str) -> &str {
    Path::new(argv0)
        .file_name()
        .and_then(OsStr::to_str)
        .unwrap_or(argv0)
}

fn systemctl(arguments: &[String]) -> ExitCode {
    let order = match parse(arguments) {
        Ok(order) => order,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(1);
        }
    };
    answer(&order)
}

/// `service NAME VERB`, `service --status-all`.
fn service(layout: &Layout, arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|word| !word.starts_with("--"))
        .collect();
    match words[..] {
        [] if arguments.iter().any(|word| word == "--status-all") => answer(&order("list-units", None)),
        [name, verb, ..] => match init_script(layout, name) {
            // What systemd has no verb for is the script's own.
            Some(script) if !matches!(verb, "start" | "stop" | "restart" | "try-restart") => {
                init(&script, verb)
            }
            _ => answer(&order(verb, Some(name))),
        },
        _ => {
            eprintln!("Usage: service NAME start|stop|restart|reload|status");
            ExitCode::from(1)
        }
    }
}

fn order(verb: &str, unit: Option<&str>) -> ControlOrder {
    ControlOrder {
        verb: verb.to_owned(),
        units: unit.map(str::to_owned).into_iter().collect(),
        properties: Vec::new(),
        value_only: false,
        now: false,
        quiet: false,
        all: false,
        signal: None,
        only_main: false,
    }
}

fn answer(order: &ControlOrder) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let socket = Utf8PathBuf::from_path_buf(Layout::host().socket()).unwrap_or_default();
    let asked = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        let ask = async { Client::new(socket).control(order).await };
        runtime.block_on(ask).map_err(|error| error.to_string())
    });
    match asked {
        Ok(ControlOutcome { code, stdout, stderr }) => {
            print!("{stdout}");
            eprint!("{stderr}");
            ExitCode::from(code)
        }
        Err(why) => {
            eprintln!("systemctl: {why}");
            ExitCode::from(1)
        }
    }
}

fn parse(arguments: &[String]) -> Result<ControlOrder, String> {
    let mut parsed = order("", None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-p" | "--property" => parsed
                .properties
                .extend(words.next().map(|word| list(word)).unwrap_or_default()),
            "-s" | "--signal" => parsed.signal = words.next().cloned(),
            "-t" | "--type" | "-n" | "--lines" | "-o" | "--output" | "--state" | "--kill-whom"
            | "--kill-who" | "--job-mode" | "-H" | "-M" | "--root" => {
                words.next();
            }
            "--kill-whom=main" | "--kill-who=main" => parsed.only_main = true,
            "--value" => parsed.value_only = true,
            "--now" => parsed.now = true,
            "-q" | "--quiet" => parsed.quiet = true,
            "-a" | "--all" => parsed.all = true,
            "--user" => return Err("systemctl --user: not available in a host".to_owned()),
            "--version" => "is-system-running".clone_into(&mut parsed.verb),
            option if option.starts_with("--property=") => parsed.properties.extend(list(&option[11..])),
            option if option.starts_with("--signal=") => parsed.signal = Some(option[9..].to_owned()),
            option if option.starts_with("-p") => parsed.properties.extend(list(&option[2..])),
            option if option.starts_with('-') => {}
            verb if parsed.verb.is_empty() => verb.clone_into(&mut parsed.verb),
            unit => parsed.units.push(unit.to_owned()),
        }
    }
    if parsed.verb.is_empty() {
        "list-units".clone_into(&mut parsed.verb);
    }
    Ok(parsed)
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

/// The script of a service that has no unit file.
fn init_script(layout: &Layout, name: &str) -> Option<PathBuf> {
    let name = name.strip_suffix(".service").unwrap_or(name);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return None;
    }
    let unit = |directory: &PathBuf| directory.join(format!("{name}.service")).exists();
    let script = layout.init.join(name);
    (!layout.units.iter().any(unit) && script.is_file()).then_some(script)
}

fn init(script: &Path, verb: &str) -> ExitCode {
    let error = Command::new(script)
        .arg(verb)
        .env("SYSTEMCTL_SKIP_REDIRECT", "1")
        .current_dir("/")
        .exec();
    eprintln!("cannot run {}: {error}", script.display());
    ExitCode::from(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_command_lines_as_scripts_write_them() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let order = parse(&words("--no-pager -q enable --now nginx.service redis")).unwrap();
        assert_eq!(order.verb, "enable");
        assert_eq!(order.units, ["nginx.service", "redis"]);
        assert!(order.quiet && order.now);
        let order = parse(&words("show -p MainPID --value web")).unwrap();
        assert_eq!(
            (order.properties, order.value_only),
            (vec!["MainPID".to_owned()], true)
        );
        assert_eq!(parse(&[]).unwrap().verb, "list-units");
        assert!(is_name("/usr/bin/systemctl") && !is_name("vend"));
    }
}
