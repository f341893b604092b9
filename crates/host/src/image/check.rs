//! What must hold of every image's files before production takes it.

use camino::Utf8Path;
use model::port::ImageCheck;

use super::{bill, view::View};
use crate::layer::Error;

const LIST_BYTES: u64 = 64 << 20;
/// Told of more than this are counted.
const SHOWN: usize = 5;

/// Looks at an image's files.
pub(crate) fn all(view: &View) -> Result<Vec<ImageCheck>, Error> {
    Ok(vec![whole(view)?, anonymous(view)?, closed(view)?])
}

fn check(name: &str, found: Vec<String>) -> ImageCheck {
    let more = found.len().saturating_sub(SHOWN);
    let mut text = found.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    ImageCheck {
        name: name.to_owned(),
        passed: found.is_empty(),
        found: text,
    }
}

/// A package that dpkg did not finish with is there and does not work.
fn whole(view: &View) -> Result<ImageCheck, Error> {
    let status = view
        .read(Utf8Path::new("var/lib/dpkg/status"), LIST_BYTES)?
        .unwrap_or_default();
    let found = bill::unfinished(&String::from_utf8_lossy(&status));
    Ok(check("every package is configured", found))
}

/// Two hosts of one image must not be one machine.
fn anonymous(view: &View) -> Result<ImageCheck, Error> {
    let id = view
        .read(Utf8Path::new("etc/machine-id"), 1 << 12)?
        .unwrap_or_default();
    let id = String::from_utf8_lossy(&id).trim().to_owned();
    let blank = id.is_empty() || id == "uninitialized";
    Ok(check(
        "the machine id is left to the host",
        if blank { vec![] } else { vec![id] },
    ))
}

/// Who may log in is never told by all.
fn closed(view: &View) -> Result<ImageCheck, Error> {
    use std::os::unix::fs::MetadataExt as _;
    let mut open = Vec::new();
    for path in [
        "etc/shadow",
        "etc/gshadow",
        "etc/sudoers",
        "etc/passwd",
        "etc/group",
    ] {
        let Some(found) = view.find(Utf8Path::new(path))? else {
            continue;
        };
        let secret = path.ends_with("shadow") || path.ends_with("sudoers");
        let refused = if secret { 0o007 } else { 0o022 };
        if found.metadata.is_file() && found.metadata.mode() & refused != 0 {
            open.push(format!("/{path} {:o}", found.metadata.mode() & 0o7777));
        }
    }
    Ok(check("accounts are guarded", open))
}
