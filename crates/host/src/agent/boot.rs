//! What a machine does before its services start: temporary directories (`tmpfiles.d(5)`), units made by packages'
//! generators (`systemd.generator(7)`), and the scripts of the old runlevel.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{layout::Layout, reaper::Reaper, units::bounded, users::Users};

/// All generators together may take so long.
const GENERATORS: Duration = Duration::from_secs(20);

/// Reads everything anew: `daemon-reload`, and each boot.
pub fn reload(layout: &Layout, reaper: &Reaper) {
    temporary(layout);
    generate(layout, reaper);
}

/// Makes what packages want under `/run` and `/tmp`, which are empty when a host starts.
fn temporary(layout: &Layout) {
    // A file of the same name in an earlier directory replaces one in a later.
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for directory in layout.temporary.iter().rev() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".conf") {
                files.insert(name, entry.path());
            }
        }
    }
    let users = Users::read();
    for line in files.values().flat_map(|path| lines(path)) {
        if let Err(error) = make(&line, &users) {
            tracing::warn!("tmpfiles: {line}: {error}");
        }
    }
}

fn lines(path: &Path) -> Vec<String> {
    let text = bounded(path);
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// One line: type, path, mode, user, group, age, argument. Only what makes something below `/run`, `/tmp` or `/var`.
fn make(line: &str, users: &Users) -> io::Result<()> {
    let mut words = line.split_whitespace();
    let mut next = || words.next().filter(|word| *word != "-");
    let (kind, path) = (next().unwrap_or_default(), next().unwrap_or_default());
    let (mode, user, group, _age) = (next(), next(), next(), next());
    let argument = words.collect::<Vec<_>>().join(" ");
    let path = Path::new(path);
    let ours = ["/run", "/var", "/tmp"]
        .iter()
        .any(|base| path.starts_with(base) && path != Path::new(base));
    let plain = !line.contains('%')
        && !path
            .components()
            .any(|part| part == std::path::Component::ParentDir);
    if !ours || !plain {
        return Ok(());
    }
    let there = path.symlink_metadata().is_ok();
    let default = match kind.chars().next() {
        Some('d' | 'D' | 'v' | 'q' | 'Q') => {
            fs::create_dir_all(path)?;
            0o755
        }
        Some('f' | 'F') if !there => {
            fs::write(path, argument.as_bytes())?;
            0o644
        }
        Some('L') if !there => return symlink(argument, path),
        _ => return Ok(()),
    };
    let number = |name: Option<&str>, found: Option<u32>| name.map(|_| found).unwrap_or(Some(0));
    let uid = number(user, user.and_then(|name| users.user(name)).map(|user| user.uid));
    let gid = number(
        group,
        group.and_then(|name| users.group(name)).map(|group| group.gid),
    );
    let (Some(uid), Some(gid)) = (uid, gid) else {
        return Err(io::Error::other("there is no such user or group"));
    };
    chown(path, Some(uid), Some(gid))?;
    let digits = mode.map(|mode| mode.trim_start_matches(['~', ':']));
    let mode = digits
        .and_then(|digits| u32::from_str_radix(digits, 8).ok())
        .unwrap_or(default);
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777))
}

/// Runs the generators of packages. Those of systemd itself are about machines, and units for them are of no use here.
fn generate(layout: &Layout, reaper: &Reaper) {
    let into = ["generator", "generator.early", "generator.late"].map(|name| layout.systemd.join(name));
    for directory in &into {
        // A leftover would be a unit that nobody asks for.
        let _ = fs::remove_dir_all(directory);
        if let Err(error) = fs::create_dir_all(directory) {
            tracing::warn!("no units are generated in {}: {error}", directory.display());
            return;
        }
    }
    let deadline = Instant::now() + GENERATORS;
    for directory in &layout.generators {
        let mut programs: Vec<PathBuf> = fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        programs.sort();
        for program in programs {
            let name = program.file_name().unwrap_or_default().to_string_lossy();
            if !name.starts_with("systemd-") && program.is_file() {
                run(&program, &into, deadline, reaper);
            }
        }
    }
}

fn run(program: &Path, into: &[PathBuf; 3], deadline: Instant, reaper: &Reaper) {
    let mut command = Command::new(program);
    command
        .args(into)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let (mut child, mut exit) = match reaper.spawn(&mut command) {
        Ok(started) => started,
        Err(error) => {
            tracing::warn!("cannot run the generator {}: {error}", program.display());
            return;
        }
    };
    // The reaper takes its end; it runs on the thread of the caller's runtime, which goes on meanwhile.
    while exit.try_recv().is_err() {
        if Instant::now() >= deadline {
            let _ = child.kill();
            tracing::warn!("the generator {} did not end in time", program.display());
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Services of the old runlevel that have no unit file, in the order of their links.
pub fn scripts(layout: &Layout) -> Vec<String> {
    let Some(etc) = layout.init.parent() else {
        return Vec::new();
    };
    let entries = fs::read_dir(etc.join("rc2.d")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with('S') && name.len() > 3 && name.is_char_boundary(3))
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|name| format!("{}.service", &name[3..]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_the_usual_places_is_made() {
        let scratch = tempfile::Builder::new().tempdir_in("/tmp").unwrap();
        let base = scratch.path().to_str().unwrap();
        let users = Users::parse("root:x:0:0::/root:/bin/sh\n", "root:x:0:\n");
        let owner = if rustix::process::geteuid().is_root() {
            "root root"
        } else {
            return;
        };
        make(&format!("d {base}/a/b 2775 {owner} -"), &users).unwrap();
        let mode = fs::metadata(scratch.path().join("a/b"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o2775);
        make(&format!("f {base}/f 0600 {owner} - some text"), &users).unwrap();
        make(&format!("f {base}/f 0600 {owner} - other"), &users).unwrap();
        assert_eq!(fs::read_to_string(scratch.path().join("f")).unwrap(), "some text");
        make(&format!("L {base}/l - - - - f"), &users).unwrap();
        assert!(scratch.path().join("l").is_symlink());
        for ignored in [
            "d /etc/vend-test",
            "d /tmp/../etc/vend-test",
            "x",
            "",
            "d /run/%x",
        ] {
            make(ignored, &users).unwrap();
        }
        assert!(!Path::new("/etc/vend-test").exists());
        assert!(make(&format!("d {base}/c 0755 nobody-here -"), &users).is_err());
    }
}
