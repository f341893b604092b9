//! ACLs and SELinux contexts, by the programs of the host that the agent calls too.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
};

use camino::{Utf8Path, Utf8PathBuf};
use model::spec::deploy::Context;

use super::Error;

/// Tells the policy of the host, and then labels the file by it. Gives the file that the policy knows.
pub(super) fn set_context(context: &Context, file: &Utf8Path) -> Result<Utf8PathBuf, Error> {
    let file = file.canonicalize_utf8().map_err(Error::files("find", file))?;
    let mut manage = vec!["fcontext", "-a"];
    manage.extend(context.name.iter().flat_map(|name| ["-s", name]));
    manage.extend(["-t", &context.r#type]);
    manage.extend(context.range.iter().flat_map(|range| ["-r", range]));
    for (program, arguments) in [("semanage", manage.as_slice()), ("restorecon", &["-v"])] {
        run(program, arguments, &file, CONTEXT)?;
    }
    Ok(file)
}

/// As with the agent, a rule that is gone already is fine.
pub(super) fn remove_context(file: &str) {
    let _ = run_quietly("semanage", &["fcontext", "-d"], Utf8Path::new(file));
}

pub(super) fn set_acl(acl: &[String], file: &Utf8Path) -> Result<(), Error> {
    let mode = fs::metadata(file).map_err(Error::files("look at", file))?.mode();
    let full = full_acl(acl, mode).join(",");
    let sentence = format!(
        "The deployment failed because of a problem with the acls permission settings in the application specification \
         file for this object: {file}."
    );
    run("setfacl", &["--set", &full], file, &sentence)
}

const CONTEXT: &str = "The deployment failed because the application specification file contains an error in the \
                       settings for the context parameter. Update the permissions section of the AppSpec file, and then \
                       try again.";

/// Runs a tool on a file. Its failure begins as the agent tells it, after a sentence of the agent's.
fn run(program: &str, arguments: &[&str], file: &Utf8Path, sentence: &str) -> Result<(), Error> {
    let ran = match run_quietly(program, arguments, file) {
        Ok(ran) if ran.code == Some(0) => return Ok(()),
        Ok(ran) => ran,
        Err(error) => Ran {
            said: error.to_string(),
            ..Ran::default()
        },
    };
    let more = match (ran.code, program) {
        (Some(NOT_FOUND), "setfacl") => ". setfacl is not installed: install the package acl".to_owned(),
        (Some(NOT_FOUND), _) => format!(". {program} is not installed"),
        _ => ran.complaint(),
    };
    let arguments = arguments.join(" ");
    Err(Error::Refused(format!(
        "{sentence} Failed command: {program} {arguments} {file}. Exit code: {ran}{more}"
    )))
}

/// How a shell says that there is no such program.
const NOT_FOUND: i32 = 127;

/// What a tool came to.
#[derive(Default)]
struct Ran {
    /// `None` when that could not be heard.
    code: Option<i32>,
    pid: Option<u32>,
    said: String,
}

/// As the agent's language writes a status.
impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, self.code) {
            (Some(pid), Some(code)) => write!(f, "pid {pid} exit {code}"),
            _ => f.write_str("unknown"),
        }
    }
}

impl Ran {
    /// Its last complaint, as the end of a sentence.
    fn complaint(&self) -> String {
        let last = self.said.lines().rfind(|line| !line.trim().is_empty());
        last.map_or_else(String::new, |line| {
            format!(": {}", line.trim().trim_end_matches('.'))
        })
    }
}

/// Runs a tool. Where PID 1's reaper takes its exit status, nobody else hears of it: a shell says it.
fn run_quietly(program: &str, arguments: &[&str], file: &Utf8Path) -> io::Result<Ran> {
    const SCRIPT: &str = "\"$@\" >/dev/null & wait $!; echo $? $!";
    /// Of its complaints, in bytes.
    const MOST: u64 = 64 << 10;
    let mut child = Command::new("/bin/sh")
        .args(["-c", SCRIPT, "sh", program])
        .args(arguments)
        .args(["--", file.as_str()])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (mut said, mut status) = (Vec::new(), String::new());
    if let Some(stderr) = child.stderr.take() {
        io::Read::read_to_end(&mut io::Read::take(stderr, MOST), &mut said)?;
    }
    if let Some(stdout) = child.stdout.take() {
        io::Read::read_to_string(&mut io::Read::take(stdout, 32), &mut status)?;
    }
    let _ = child.wait();
    let (code, pid) = status.trim().split_once(' ').unwrap_or_default();
    Ok(Ran {
        code: code.parse().ok(),
        pid: pid.parse().ok(),
        said: String::from_utf8_lossy(&said).into_owned(),
    })
}

/// The entries of the appspec, and those that `setfacl --set` needs besides, from the mode.
fn full_acl(acl: &[String], mode: u32) -> Vec<String> {
    let [user, group, other] = [6, 3, 0].map(|shift| rights(mode >> shift));
    let entries: Vec<Ace> = acl.iter().filter_map(|text| Ace::parse(text)).collect();
    let has = |default: bool, kind: &str, named: bool| {
        let mut entries = entries.iter();
        entries.any(|ace| ace.default == default && ace.kind == kind && ace.named == named)
    };
    let named = |default: bool| has(default, "user", true) || has(default, "group", true);
    let mut full = acl.to_vec();
    let own = [("user", &user), ("group", &group), ("other", &other)];
    full.extend(own.map(|(kind, rights)| format!("{kind}::{rights}")));
    if named(false) && !has(false, "mask", false) {
        full.push(format!("mask::{group}"));
    }
    if entries.iter().any(|ace| ace.default) {
        for (kind, rights) in own {
            if !has(true, kind, false) {
                full.push(format!("default:{kind}::{rights}"));
            }
        }
        if named(true) && !has(true, "mask", false) {
            let is_group = |ace: &&Ace| ace.default && ace.kind == "group" && !ace.named;
            let given = entries.iter().find(is_group).map(|ace| ace.rights);
            full.push(format!("default:mask::{}", given.unwrap_or(&group)));
        }
    }
    full
}

/// `rwx` of the last three bits.
fn rights(bits: u32) -> String {
    let letter = |bit: u32, letter: char| if bits & bit == 0 { '-' } else { letter };
    [letter(4, 'r'), letter(2, 'w'), letter(1, 'x')]
        .into_iter()
        .collect()
}

/// An entry as the appspec's reader writes it: `[default:]kind:[name]:rwx`.
struct Ace<'a> {
    default: bool,
    kind: &'a str,
    named: bool,
    rights: &'a str,
}

impl<'a> Ace<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix("default:");
        let (kind, rest_of) = rest.unwrap_or(text).split_once(':')?;
        let (name, rights) = rest_of.split_once(':')?;
        Some(Self {
            default: rest.is_some(),
            kind,
            named: !name.is_empty(),
            rights,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_is_completed_from_the_mode() {
        let completed = |acl: &[&str]| {
            let acl: Vec<String> = acl.iter().map(|text| (*text).to_owned()).collect();
            full_acl(&acl, 0o100_750)[acl.len()..].join(",")
        };
        assert_eq!(completed(&[]), "user::rwx,group::r-x,other::---");
        assert_eq!(
            completed(&["user:daemon:rw-", "default:group:adm:r--"]),
            "user::rwx,group::r-x,other::---,mask::r-x,default:user::rwx,default:group::r-x,default:other::---,\
             default:mask::r-x"
        );
        assert_eq!(
            completed(&["default:group::rw-", "default:user:adm:r--"]),
            "user::rwx,group::r-x,other::---,default:user::rwx,default:other::---,default:mask::rw-"
        );
        assert_eq!(
            completed(&["user:daemon:rw-", "mask::rw-"]),
            "user::rwx,group::r-x,other::---"
        );
    }

    /// What the agent's language writes behind it, and what no program of that name says.
    #[test]
    fn a_failed_command_is_told_as_the_agent_tells_it_and_ours_is_behind() {
        let file = Utf8Path::new("/no/such/file");
        for (program, arguments, words, ours) in [
            (
                "sh",
                &["-c", "echo no luck >&2; echo aside; exit 3"][..],
                "exit 3",
                ": no luck",
            ),
            (
                "no-such-tool",
                &["-a"],
                "exit 127",
                ". no-such-tool is not installed",
            ),
        ] {
            let failed = run(program, arguments, file, "The sentence.")
                .unwrap_err()
                .to_string();
            let command = format!(
                "The sentence. Failed command: {program} {} {file}. Exit code: pid ",
                arguments.join(" ")
            );
            let status = failed
                .strip_prefix(&command)
                .unwrap_or_else(|| panic!("{failed}"));
            let (pid, rest) = status.split_once(' ').unwrap();
            assert!(pid.parse::<u32>().is_ok(), "{failed}");
            assert_eq!(rest, format!("{words}{ours}"));
        }
        assert!(run("true", &[], file, "").is_ok());
    }
}
