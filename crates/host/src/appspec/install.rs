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
};

use camino::{Utf8Path, Utf8PathBuf};
use model::spec::{Appspec, deploy::FileExists};
use serde::Serialize;
use serde_json::Value as Json;

use super::{
    Error,
    bundle::Bundle,
    labels,
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
            labels::remove_context(&String::from_utf8_lossy(file));
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
            fs::create_dir(directory).map_err(|error| not_made(error, directory))?;
            record(cleanup, directory)
        }
        Instruction::Chmod { mode, file } => {
            fs::set_permissions(file, fs::Permissions::from_mode(mode.bits()))
                .map_err(Error::files("set the mode of", file))
        }
        Instruction::Setfacl { acl, file } => labels::set_acl(acl, file),
        Instruction::Semanage { context, file } => {
            let file = labels::set_context(context, file)?;
            let line = [CONTEXT, file.as_str().as_bytes(), b"\n"].concat();
            cleanup.write_all(&line).map_err(Error::files("record", file))
        }
        Instruction::Chown { owner, group, file } => change_owner(owner.as_ref(), group.as_ref(), file),
    }
}

/// In the words of the agent's language, which the agent passes on.
fn not_made(error: io::Error, directory: &Utf8Path) -> Error {
    let why = match error.raw_os_error() {
        Some(libc::EEXIST) => "File exists",
        Some(libc::ENOTDIR) => "Not a directory",
        Some(libc::ENOENT) => "No such file or directory",
        Some(libc::EACCES) => "Permission denied",
        _ => return Error::files("make", directory)(error),
    };
    Error::Refused(format!("{why} @ dir_s_mkdir - {directory}"))
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
    // It is recorded as it was written; a slash behind the name of a link would lead through it.
    let written = source;
    let source = Utf8Path::new(source.as_str().trim_end_matches('/'));
    let metadata = match source.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Refused(format!(
                "No such file or directory @ rb_sysopen - {written}"
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

fn change_owner(owner: Option<&Json>, group: Option<&Json>, file: &Utf8Path) -> Result<(), Error> {
    let users = Users::read();
    let uid = |name: &str| {
        users
            .users
            .iter()
            .find(|user| user.name == name)
            .map(|user| user.uid)
    };
    let gid = |name: &str| {
        let group = users.groups.iter().find(|group| group.name == name);
        group.map(|group| group.gid)
    };
    let owner = id("user", owner, uid)?;
    let group = id("group", group, gid)?;
    chown(file, owner, group).map_err(Error::files("set the owner of", file))
}

/// The number of whom a value of the appspec names: a text only, in the words of the agent's language.
fn id(what: &str, value: Option<&Json>, find: impl Fn(&str) -> Option<u32>) -> Result<Option<u32>, Error> {
    let class = match value {
        None | Some(Json::Null | Json::Bool(false)) => return Ok(None),
        Some(Json::String(name)) => {
            let missing = || Error::Refused(format!("can't find {what} for {name}"));
            return find(name).ok_or_else(missing).map(Some);
        }
        Some(Json::Bool(true)) => "true",
        Some(Json::Number(number)) if number.is_f64() => "Float",
        Some(Json::Number(_)) => "Integer",
        Some(Json::Array(_)) => "Array",
        Some(Json::Object(_)) => "Hash",
    };
    Err(Error::Refused(format!(
        "no implicit conversion of {class} into String"
    )))
}
