//! What is done to a fresh system, and what it says of itself.

use std::{fs, io};

use camino::Utf8Path;

use super::Error;
use crate::layer::io_error;

/// What makes a fresh system fit to be a layer, and the same as another of the same packages.
pub(super) fn settle(files: &Utf8Path) -> Result<(), Error> {
    // Containers have their own; the logins of the machine's archives are its alone.
    for path in [
        "etc/apt/auth.conf",
        "etc/hostname",
        "etc/resolv.conf",
        "var/lib/dbus/machine-id",
    ] {
        let _ = fs::remove_file(files.join(path));
    }
    for path in [
        "dev",
        "run",
        "tmp",
        "var/cache/apt/archives",
        "var/cache/ldconfig",
        "var/log/apt",
    ] {
        empty(&files.join(path))?;
    }
    // When it was made, and in what order.
    for log in ["alternatives", "bootstrap", "dpkg", "fontconfig"] {
        let _ = fs::remove_file(files.join(format!("var/log/{log}.log")));
    }
    let write = |path: &str, text: &str, mode: u32| {
        let path = files.join(path);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)))
            .map_err(io_error("write", &path))
    };
    write("etc/machine-id", "", 0o444)?;
    // A layer that ran `apt-get update` stays small.
    write(
        "etc/apt/apt.conf.d/90vend",
        "Acquire::GzipIndexes \"true\";\nAcquire::Languages \"none\";\n",
        0o644,
    )?;
    // A layer is flushed once, when it is complete.
    write("etc/dpkg/dpkg.cfg.d/90vend", "force-unsafe-io\n", 0o644)?;
    // Installing a package in a bake starts nothing: there is no machine yet (`invoke-rc.d`, Debian policy 9.3.3.1).
    write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)?;
    Ok(())
}

fn empty(directory: &Utf8Path) -> Result<(), Error> {
    let entries = match directory.read_dir_utf8() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(io_error("read", directory))?,
    };
    for entry in entries {
        let entry = entry.map_err(io_error("read", directory))?;
        let kind = entry.file_type().map_err(io_error("read", entry.path()))?;
        let removed = if kind.is_dir() {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        };
        removed.map_err(io_error("remove", entry.path()))?;
    }
    Ok(())
}

/// `name version architecture` of every installed package, sorted.
pub(super) fn packages(files: &Utf8Path) -> Result<Vec<String>, Error> {
    let path = files.join("var/lib/dpkg/status");
    let status = fs::read_to_string(&path).map_err(io_error("read", &path))?;
    let mut packages: Vec<String> = status
        .split("\n\n")
        .filter_map(|package| {
            let field = |name: &str| package.lines().find_map(|line| line.strip_prefix(name));
            Some(format!(
                "{} {} {}",
                field("Package: ")?,
                field("Version: ")?,
                field("Architecture: ")?
            ))
        })
        .collect();
    packages.sort_unstable();
    Ok(packages)
}
