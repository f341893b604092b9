//! Install: takes away what the previous deployment brought, then does what was planned.
//!
//! Every path that is created is on record in `<group>-cleanup` before (files) or after (directories) it exists, so that
//! the next deployment takes it away whatever happened to this one.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::{
        ffi::OsStringExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
};

use camino::{Utf8Path, Utf8PathBuf};
use model::spec::{
    Appspec,
    deploy::{Context, FileExists},
};
use serde::Serialize;

use super::{
    Error,
    bundle::Bundle,
    plan::{Instruction, Seen, plan},
};
use crate::{agent::users::Users, cache::random};

/// How a line of the clean-up file begins that names a file with an SELinux rule of its own.
const CONTEXT: &[u8] = b"semanage\0";

/// Where a group keeps what it did.
#[derive(Debug, Clone)]
pub struct Records {
    pub cleanup: PathBuf,
    pub install: PathBuf,
}

impl Records {
    pub fn of(instructions: &Path, group: &str) -> Self {
        Self {
            cleanup: instructions.join(format!("{group}-cleanup")),
            install: instructions.join(format!("{group}-install.json")),
        }
    }
}

#[derive(Serialize)]
struct Installed<'a> {
    instructions: &'a [Instruction],
}

/// Installs a revision. What could be seen to fail fails before anything is copied.
///
/// Gives remarks on what was left out.
///
/// # Errors
/// With CodeDeploy's sentence where it has one.
pub fn install(
    archive: &Utf8Path,
    spec: &Appspec,
    default: FileExists,
    records: &Records,
) -> Result<Vec<String>, Error> {
    clean_up(&records.cleanup)?;
    let bundle = Bundle::list(archive)?;
    let instructions = plan(&bundle, spec, default, look).map_err(Error::Refused)?;
    let json = serde_json::to_vec(&Installed {
        instructions: &instructions,
    })
    .expect("instructions are plain texts");
    fs::write(&records.install, json).map_err(Error::files("write", &records.install))?;
    let mut cleanup = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&records.cleanup)
        .map_err(Error::files("write", &records.cleanup))?;
    let has_selinux = Path::new("/sys/fs/selinux/enforce").exists();
    let mut left_out = 0;
    for instruction in &instructions {
        match instruction {
            Instruction::Semanage { .. } if !has_selinux => left_out += 1,
            instruction => execute(instruction, &mut cleanup)?,
        }
    }
    let remark =
        format!("{left_out} SELinux contexts of the appspec were left out: this host has no SELinux");
    Ok((left_out > 0).then_some(remark).into_iter().collect())
}

fn look(path: &Utf8Path) -> Seen {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Seen::Directory,
        Ok(_) => Seen::Other,
        Err(_) => Seen::Nothing,
    }
}

/// Removes what is on record, the last first. A directory that holds something else stays; an unfinished last line is
/// not a path.
fn clean_up(record: &Path) -> Result<(), Error> {
    let text = match fs::read(record) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::files("read", record)(error)),
    };
    let whole = text
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    for line in text[..whole].split(|byte| *byte == b'\n').rev() {
        if let Some(file) = line.strip_prefix(CONTEXT) {
            // As with the agent, a rule that is gone already is fine.
            let _ = run_quietly(
                "semanage",
                &["fcontext", "-d", "--", &String::from_utf8_lossy(file)],
            );
        } else if line.first() == Some(&b'/') {
            let path = PathBuf::from(OsString::from_vec(line.to_vec()));
            remove(&path).map_err(Error::files("remove", &path))?;
        }
    }
    fs::remove_file(record).map_err(Error::files("remove", record))
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn execute(instruction: &Instruction, cleanup: &mut File) -> Result<(), Error> {
    match instruction {
        Instruction::Copy { source, destination } => put(source, destination, cleanup),
        Instruction::Mkdir { directory } => {
            if directory.symlink_metadata().is_ok() {
                return Err(Error::Refused(format!(
                    "The deployment failed because a specified file already exists at this location: {directory}."
                )));
            }
            fs::create_dir(directory).map_err(Error::files("make", directory))?;
            record(cleanup, directory)
        }
        Instruction::Chmod { mode, file } => {
            fs::set_permissions(file, fs::Permissions::from_mode(mode.bits()))
                .map_err(Error::files("set the mode of", file))
        }
        Instruction::Setfacl { acl, file } => set_acl(acl, file),
        Instruction::Semanage { context, file } => set_context(context, file, cleanup),
        Instruction::Chown { owner, group, file } => change_owner(owner.as_deref(), group.as_deref(), file),
    }
}

fn record(cleanup: &mut File, path: &Utf8Path) -> Result<(), Error> {
    writeln!(cleanup, "{path}").map_err(Error::files("record", path))
}

/// The copy is on record for as long as it may be there under another name: whoever ends this in the middle, the next
/// clean-up takes it away.
fn put(source: &Utf8Path, destination: &Utf8Path, cleanup: &mut File) -> Result<(), Error> {
    let failed = || Error::files("record", destination);
    record(cleanup, destination)?;
    let known = cleanup.metadata().map_err(failed())?.len();
    let fresh = beside(destination);
    record(cleanup, &fresh)?;
    let copied = copy(source, &fresh, destination);
    if copied.is_ok() || remove(fresh.as_std_path()).is_ok() {
        cleanup.set_len(known).map_err(failed())?;
    }
    copied
}

/// Mode, owner and time are kept; a link is made again as it is. An existing file is replaced at once, so that a program
/// that runs from it goes on with the old one. `fresh`: where it is until it is whole.
fn copy(source: &Utf8Path, fresh: &Utf8Path, destination: &Utf8Path) -> Result<(), Error> {
    let failed = || Error::files("copy to", destination);
    let metadata = match source.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Refused(format!(
                "No such file or directory @ rb_sysopen - {source}"
            )));
        }
        Err(error) => return Err(Error::files("read", source)(error)),
    };
    if destination
        .symlink_metadata()
        .is_ok_and(|metadata| metadata.is_dir())
    {
        return Err(Error::Refused(format!(
            "The deployment failed because a directory is in the place of the file {destination}."
        )));
    }
    if metadata.is_symlink() {
        let target = source.read_link().map_err(Error::files("read", source))?;
        symlink(target, fresh).map_err(failed())?;
    } else {
        let mut from = File::open(source).map_err(Error::files("read", source))?;
        // Nobody reads it before it has its own mode.
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut new = options.open(fresh).map_err(failed())?;
        io::copy(&mut from, &mut new).map_err(failed())?;
        let kept = match chown(fresh, Some(metadata.uid()), Some(metadata.gid())) {
            Ok(()) => 0o7777,
            // Only root can give files away; a program must then not run as its new owner.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => 0o777,
            Err(error) => return Err(failed()(error)),
        };
        let mode = fs::Permissions::from_mode(metadata.mode() & kept);
        fs::set_permissions(fresh, mode).map_err(failed())?;
        let times = metadata
            .modified()
            .map(|modified| fs::FileTimes::new().set_modified(modified));
        let keep = || new.set_times(times?);
        keep().map_err(failed())?;
    }
    fs::rename(fresh, destination).map_err(failed())
}

/// A name in the same directory that nothing else has, whatever customers call their files.
fn beside(destination: &Utf8Path) -> Utf8PathBuf {
    let name = destination.file_name().unwrap_or("file");
    let short: String = name.chars().take(50).collect();
    destination.with_file_name(format!(".{short}.{}.vend-install", random()))
}

fn change_owner(owner: Option<&str>, group: Option<&str>, file: &Utf8Path) -> Result<(), Error> {
    let users = Users::read();
    let uid = match owner {
        Some(name) => Some(
            users
                .users
                .iter()
                .find(|user| user.name == name)
                .ok_or_else(|| Error::Refused(format!("can't find user for {name}")))?
                .uid,
        ),
        None => None,
    };
    let gid = match group {
        Some(name) => Some(
            users
                .groups
                .iter()
                .find(|group| group.name == name)
                .ok_or_else(|| Error::Refused(format!("can't find group for {name}")))?
                .gid,
        ),
        None => None,
    };
    chown(file, uid, gid).map_err(Error::files("set the owner of", file))
}

/// Tells the policy of the host, and then labels the file by it.
fn set_context(context: &Context, file: &Utf8Path, cleanup: &mut File) -> Result<(), Error> {
    let file = &file.canonicalize_utf8().map_err(Error::files("find", file))?;
    let mut manage = vec!["fcontext", "-a", "-t", context.r#type.as_str()];
    for (option, value) in [("-s", &context.name), ("-r", &context.range)] {
        manage.extend(value.iter().flat_map(|value| [option, value.as_str()]));
    }
    manage.extend(["--", file.as_str()]);
    for (program, arguments) in [
        ("semanage", manage.as_slice()),
        ("restorecon", &["--", file.as_str()]),
    ] {
        let refuse = |why: String| {
            Error::Refused(format!(
                "The deployment failed because the SELinux context of {file} cannot be set: {program} {why}"
            ))
        };
        match run_quietly(program, arguments) {
            Ok(ran) if ran.code == Some(0) => {}
            Ok(ran) if ran.code == Some(NOT_FOUND) => return Err(refuse("is not installed".to_owned())),
            Ok(ran) => return Err(refuse(format!("failed{}", ran.complaint()))),
            Err(error) => return Err(refuse(format!("cannot run: {error}"))),
        }
    }
    let line = [CONTEXT, file.as_str().as_bytes(), b"\n"].concat();
    cleanup.write_all(&line).map_err(Error::files("record", file))
}

fn set_acl(acl: &[String], file: &Utf8Path) -> Result<(), Error> {
    let mode = fs::metadata(file).map_err(Error::files("look at", file))?.mode();
    let full = full_acl(acl, mode).join(",");
    let refused = |why: String| {
        Err(Error::Refused(format!(
            "The deployment failed because of a problem with the acls permission settings in the application \
             specification file for this object: {file}. Failed command: setfacl --set {full} {file}. {why}"
        )))
    };
    match run_quietly("setfacl", &["--set", &full, "--", file.as_str()]) {
        Ok(ran) if ran.code == Some(0) => Ok(()),
        Ok(ran) if ran.code == Some(NOT_FOUND) => {
            refused("setfacl is not installed. Install the package acl.".to_owned())
        }
        Ok(ran) => refused(format!("It did not succeed{}.", ran.complaint())),
        Err(error) => refused(format!("It cannot run: {error}.")),
    }
}

/// How a shell says that there is no such program.
const NOT_FOUND: i32 = 127;

/// What a tool came to.
struct Ran {
    /// `None` when that could not be heard.
    code: Option<i32>,
    said: String,
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
fn run_quietly(program: &str, arguments: &[&str]) -> io::Result<Ran> {
    const SCRIPT: &str = "\"$@\" >/dev/null; echo $?";
    /// Of its complaints, in bytes.
    const MOST: u64 = 64 << 10;
    let mut child = Command::new("/bin/sh")
        .args(["-c", SCRIPT, "sh", program])
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    let (mut said, mut code) = (Vec::new(), String::new());
    if let Some(stderr) = child.stderr.take() {
        io::Read::read_to_end(&mut io::Read::take(stderr, MOST), &mut said)?;
    }
    if let Some(stdout) = child.stdout.take() {
        io::Read::read_to_string(&mut io::Read::take(stdout, 16), &mut code)?;
    }
    let _ = child.wait();
    Ok(Ran {
        code: code.trim().parse().ok(),
        said: String::from_utf8_lossy(&said).into_owned(),
    })
}

/// The entries of the appspec, and those that `setfacl --set` needs besides, from the mode.
fn full_acl(acl: &[String], mode: u32) -> Vec<String> {
    let digit = |shift: u32| (mode >> shift) & 7;
    let (user, group, other) = (digit(6), digit(3), digit(0));
    let entries: Vec<Ace> = acl.iter().map(|text| Ace::parse(text)).collect();
    let has = |default: bool, kind: char, named: bool| {
        entries
            .iter()
            .any(|ace| ace.default == default && ace.kind == kind && ace.named == named)
    };
    let named = |default: bool| has(default, 'u', true) || has(default, 'g', true);
    let mut full = acl.to_vec();
    full.extend([format!("u::{user}"), format!("g::{group}"), format!("o::{other}")]);
    if named(false) && !has(false, 'm', false) {
        full.push(format!("m::{group}"));
    }
    if entries.iter().any(|ace| ace.default) {
        for (kind, digit) in [('u', user), ('g', group), ('o', other)] {
            if !has(true, kind, false) {
                full.push(format!("d:{kind}::{digit}"));
            }
        }
        if named(true) && !has(true, 'm', false) {
            let given = acl
                .iter()
                .zip(&entries)
                .find(|(_, ace)| ace.default && ace.kind == 'g' && !ace.named)
                .and_then(|(text, _)| text.rsplit(':').next());
            full.push(match given {
                Some(rights) => format!("d:m::{rights}"),
                None => format!("d:m::{group}"),
            });
        }
    }
    full
}

/// `[d[efault]:][u|g|m|o[:name]]:permissions`, as far as it matters which entries are there.
struct Ace {
    default: bool,
    kind: char,
    named: bool,
}

impl Ace {
    fn parse(text: &str) -> Self {
        let rest = text.strip_prefix("default:").or_else(|| text.strip_prefix("d:"));
        let parts: Vec<&str> = rest.unwrap_or(text).split(':').collect();
        let (kind, name) = match parts[..] {
            [kind, name, _] => (kind.chars().next().unwrap_or('u'), name),
            // `name:rwx` is a user.
            [name, _] if !matches!(name, "m" | "mask" | "o" | "other" | "u" | "user" | "g" | "group") => {
                ('u', name)
            }
            [kind, _] => (kind.chars().next().unwrap_or('u'), ""),
            _ => ('u', ""),
        };
        Self {
            default: rest.is_some(),
            kind,
            named: !name.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_is_completed_from_the_mode() {
        let acl = ["user:daemon:rw".to_owned(), "d:g:adm:r".to_owned()];
        assert_eq!(
            full_acl(&acl, 0o750)[2..],
            [
                "u::7", "g::5", "o::0", "m::5", "d:u::7", "d:g::5", "d:o::0", "d:m::5"
            ]
        );
        let acl = ["default:group::rw-".to_owned(), "default:user:adm:r--".to_owned()];
        assert_eq!(full_acl(&acl, 0o750).last().map(String::as_str), Some("d:m::rw-"));
    }
}
