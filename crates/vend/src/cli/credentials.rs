//! Tokens of this user: from the environment, or a file that only the user can read. Never from the command line,
//! which every user of the machine can see.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

use model::Secret;

use super::failure::Failure;

/// Holds a token for the platform.
pub const VARIABLE: &str = "VEND_TOKEN";
const MAX_BYTES: u64 = 64 * 1024;

pub fn from_environment() -> Result<Option<Secret>, Failure> {
    match std::env::var(VARIABLE) {
        Ok(token) if token.is_empty() => Ok(None),
        Ok(token) => Ok(Some(Secret::new(token))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Failure::usage(format!("{VARIABLE} does not hold a token")))
        }
    }
}

/// The token kept for a URL.
pub fn of(url: &str) -> Result<Option<Secret>, Failure> {
    let text = read()?;
    let kept = text.expose().lines().filter_map(|line| line.split_once(' '));
    let mut found = kept.filter(|(kept, _)| *kept == key(url));
    Ok(found
        .next()
        .map(|(_, token)| Secret::new(token.trim().to_owned())))
}

/// Keeps a token for a URL.
pub fn keep(url: &str, token: &Secret) -> Result<PathBuf, Failure> {
    let path = path()?;
    let text = read()?;
    let url = key(url);
    let others = text
        .expose()
        .lines()
        .filter(|line| line.split_once(' ').is_none_or(|(kept, _)| kept != url));
    let mut lines = String::new();
    for line in others {
        lines.push_str(line);
        lines.push('\n');
    }
    let lines = Secret::new(format!("{lines}{url} {}\n", token.expose()));
    let directory = path.parent().expect("the file is in a directory");
    fs::create_dir_all(directory).map_err(|error| Failure::file(directory, &error))?;
    let draft = path.with_extension("draft");
    let written = || -> std::io::Result<()> {
        let _ = fs::remove_file(&draft);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(lines.expose().as_bytes())?;
        fs::rename(&draft, &path)
    };
    written().map_err(|error| Failure::file(&path, &error))?;
    Ok(path)
}

fn key(url: &str) -> &str {
    url.trim_end_matches('/')
}

fn path() -> Result<PathBuf, Failure> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let config = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    Ok(config
        .ok_or_else(|| Failure::usage("neither HOME nor XDG_CONFIG_HOME is set"))?
        .join("vend/credentials"))
}

fn read() -> Result<Secret, Failure> {
    let path = path()?;
    let metadata = match fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Secret::new(String::new())),
        metadata => metadata.map_err(|error| Failure::file(&path, &error))?,
    };
    if metadata.mode() & 0o077 != 0 {
        return Err(Failure::refused(format!(
            "{} can be read by others, so it is not used",
            path.display()
        ))
        .next(format!("chmod 600 {}", path.display())));
    }
    if metadata.len() > MAX_BYTES {
        return Err(Failure::failed(format!("{} is too long", path.display())));
    }
    let text = fs::read_to_string(&path).map_err(|error| Failure::file(&path, &error))?;
    Ok(Secret::new(text))
}
