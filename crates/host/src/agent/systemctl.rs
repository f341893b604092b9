//! The programs `systemctl` and `service` of a host, and the old ones around them: our binary under their names. They ask
//! the agent: root on the agent's own socket, all others where only questions are answered.

use std::{
    env,
    ffi::OsStr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use camino::Utf8PathBuf;
use rustix::process::geteuid;
use tokio::time::sleep;

use super::{
    Client, Error, Layout,
    api::{ControlOrder, ControlOutcome, Preset},
    offline,
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
    let layout = Layout::host();
    match base(argv0) {
        "systemctl" => systemctl(arguments),
        "service" => service(&layout, arguments),
        name if name != "runlevel" && !geteuid().is_root() => {
            eprintln!("{name}: only root may do this");
            ExitCode::from(4)
        }
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
    if arguments.iter().any(|word| word == "--version") {
        // The one whose answers these are, for scripts that compare.
        println!("systemd 252 (vend)");
        return ExitCode::SUCCESS;
    }
    let (order, root) = match parse(arguments) {
        Ok(call) => call,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(1);
        }
    };
    if root != Path::new("/") || offline::is_asked_for(env::var_os(offline::VARIABLE)) {
        return tell(&offline::systemctl(&order, &root));
    }
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
        [name] if arguments.iter().any(|word| word == "--full-restart") => {
            answer(&order("restart", Some(name)))
        }
        [name, "force-stop", ..] => answer(&ControlOrder {
            signal: Some("KILL".to_owned()),
            ..order("kill", Some(name))
        }),
        [name, verb, ..] => match init_script(layout, name) {
            // What systemd has no verb for, as `configtest`, is the script's own.
            Some(script) if !is_verb(verb, has_unit(layout, name)) => init(&script, verb),
            _ => answer(&order(verb, Some(name))),
        },
        _ => {
            eprintln!("Usage: service NAME start|stop|restart|reload|status");
            ExitCode::from(1)
        }
    }
}

/// Does the agent do that? Of what is only a script it knows no more than whether it was started.
fn is_verb(verb: &str, of_unit: bool) -> bool {
    matches!(verb, "start" | "stop" | "restart" | "try-restart")
        || (of_unit && matches!(verb, "reload" | "force-reload" | "status" | "condrestart"))
}

fn order(verb: &str, unit: Option<&str>) -> ControlOrder {
    ControlOrder {
        verb: verb.to_owned(),
        units: unit.map(str::to_owned).into_iter().collect(),
        ..ControlOrder::default()
    }
}

fn answer(order: &ControlOrder) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let layout = Layout::host();
    let socket = match geteuid().is_root() {
        true => layout.socket(),
        false => layout.questions(),
    };
    let socket = Utf8PathBuf::from_path_buf(socket).unwrap_or_default();
    let asked = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        let agent = Client::new(socket);
        runtime
            .block_on(ask(&agent, order))
            .map_err(|error| error.to_string())
    });
    match asked {
        Ok(outcome) => tell(&outcome),
        Err(why) => {
            eprintln!("systemctl: {why}");
            ExitCode::from(1)
        }
    }
}

/// Asks again for a moment where nobody answers: while another agent takes over, nothing is done that was not answered.
async fn ask(agent: &Client, order: &ControlOrder) -> Result<ControlOutcome, Error> {
    const WITHIN: Duration = Duration::from_secs(3);
    const PAUSE: Duration = Duration::from_millis(100);
    // What was asked may have waited for long before.
    let mut silent: Option<Instant> = None;
    loop {
        match agent.control(order).await {
            Err(Error::Connect(_) | Error::Answer(_))
                if silent.get_or_insert_with(Instant::now).elapsed() < WITHIN =>
            {
                sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

fn tell(outcome: &ControlOutcome) -> ExitCode {
    print!("{}", outcome.stdout);
    eprint!("{}", outcome.stderr);
    ExitCode::from(outcome.code)
}

/// What is asked for, and under which root.
fn parse(arguments: &[String]) -> Result<(ControlOrder, PathBuf), String> {
    let mut parsed = order("", None);
    let mut root = PathBuf::from("/");
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if let Some(option) = word.strip_prefix("--") {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None if TAKE.contains(&option) => (option, words.next().cloned()),
                None => (option, None),
            };
            match (name, value) {
                ("root", Some(directory)) => root.push(directory),
                (name, value) => long(&mut parsed, name, &value.unwrap_or_default())?,
            }
        } else if let Some(letters) = word.strip_prefix('-') {
            short(&mut parsed, letters, &mut words);
        } else if parsed.verb.is_empty() {
            word.clone_into(&mut parsed.verb);
        } else {
            parsed.units.push(word.clone());
        }
    }
    if parsed.verb.is_empty() {
        "list-units".clone_into(&mut parsed.verb);
    }
    Ok((parsed, root))
}

/// Options whose value may be the next word.
const TAKE: [&str; 13] = [
    "property",
    "signal",
    "type",
    "state",
    "lines",
    "output",
    "kill-whom",
    "kill-who",
    "job-mode",
    "host",
    "machine",
    "root",
    "preset-mode",
];

fn long(parsed: &mut ControlOrder, name: &str, value: &str) -> Result<(), String> {
    match name {
        "property" => parsed.properties.extend(list(value)),
        "signal" => parsed.signal = Some(value.to_owned()),
        "type" => parsed.types.extend(list(value)),
        "state" => parsed.states.extend(list(value)),
        "failed" => parsed.states.push("failed".to_owned()),
        "kill-whom" | "kill-who" => parsed.only_main = value == "main",
        "value" => parsed.value_only = true,
        "now" => parsed.now = true,
        "no-block" => parsed.no_block = true,
        "quiet" => parsed.quiet = true,
        "all" => parsed.all = true,
        "preset-mode" => {
            parsed.preset = match value {
                "full" => Preset::Full,
                "enable-only" => Preset::EnableOnly,
                "disable-only" => Preset::DisableOnly,
                other => return Err(format!("Failed to parse preset mode: {other}.")),
            }
        }
        "user" | "global" => return Err(format!("systemctl --{name}: not available in a host")),
        _ => {}
    }
    Ok(())
}

/// Options of one letter may stand together, as in `-aq`; what one takes is the rest, or the next word.
fn short(parsed: &mut ControlOrder, letters: &str, words: &mut std::slice::Iter<'_, String>) {
    for (at, letter) in letters.char_indices() {
        let mut value = || match &letters[at + letter.len_utf8()..] {
            "" => words.next().cloned().unwrap_or_default(),
            rest => rest.to_owned(),
        };
        match letter {
            'a' => parsed.all = true,
            'q' => parsed.quiet = true,
            'p' => return parsed.properties.extend(list(&value())),
            't' => return parsed.types.extend(list(&value())),
            's' => return parsed.signal = Some(value()),
            'n' | 'o' | 'H' | 'M' => return drop(value()),
            _ => {}
        }
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

/// The script of a service.
fn init_script(layout: &Layout, name: &str) -> Option<PathBuf> {
    let name = name.strip_suffix(".service").unwrap_or(name);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return None;
    }
    let script = layout.init.join(name);
    script.is_file().then_some(script)
}

fn has_unit(layout: &Layout, name: &str) -> bool {
    let name = name.strip_suffix(".service").unwrap_or(name);
    let unit = |directory: &PathBuf| directory.join(format!("{name}.service")).exists();
    layout.units.iter().any(unit)
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
        let order = parse(&words("--no-pager -q enable --now nginx.service redis"))
            .unwrap()
            .0;
        assert_eq!(order.verb, "enable");
        assert_eq!(order.units, ["nginx.service", "redis"]);
        assert!(order.quiet && order.now);
        assert!(!order.no_block && parse(&words("start --no-block a")).unwrap().0.no_block);
        let order = parse(&words("show -p MainPID --value web")).unwrap().0;
        assert_eq!(
            (order.properties, order.value_only),
            (vec!["MainPID".to_owned()], true)
        );
        let order = parse(&words(
            "-pMainPID,Id show -al --state failed -tservice --kill-whom main -s HUP a",
        ))
        .unwrap()
        .0;
        assert_eq!(order.properties, ["MainPID", "Id"]);
        assert_eq!(
            (order.states, order.types),
            (vec!["failed".to_owned()], vec!["service".to_owned()])
        );
        assert!(order.all && order.only_main && order.units == ["a"]);
        assert_eq!(order.signal.as_deref(), Some("HUP"));
        assert!(parse(&words("--user start a")).is_err());
        let (order, root) = parse(&words("--root /mnt --preset-mode=enable-only preset a")).unwrap();
        assert_eq!(
            (order.units, order.preset),
            (vec!["a".to_owned()], Preset::EnableOnly)
        );
        assert_eq!(root, Path::new("/mnt"));
        assert!(parse(&words("--preset-mode=none preset a")).is_err());
        let (order, root) = parse(&[]).unwrap();
        assert_eq!(
            (order.verb.as_str(), root.as_path()),
            ("list-units", Path::new("/"))
        );
        assert!(is_name("/usr/bin/systemctl") && !is_name("vend"));
    }
}
