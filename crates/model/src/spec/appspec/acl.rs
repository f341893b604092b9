//! Entries of access control lists, `[default:][user|group|mask|other]:[name]:rwx`, read as the agent reads them.

/// The entry in its long form, or the agent's words.
pub(super) fn entry(text: &str) -> Result<String, String> {
    let invalid = || {
        format!(
            "The deployment failed because of a problem with the acls permission settings in the application \
             specification file. Invalid acl entry ({text})."
        )
    };
    let parts: Vec<&str> = text.split(':').collect();
    if !(2..=4).contains(&parts.len()) {
        return Err(invalid());
    }
    // From the right: permission, name (or kind), kind (or default), default.
    let part = |index: usize| parts.len().checked_sub(index + 1).map(|at| parts[at]);
    let is_default = |part: Option<&str>| matches!(part, Some("d" | "default"));
    let mut default = parts.len() == 4;
    if default && !is_default(part(3)) {
        return Err(invalid());
    }
    let mut kind = None;
    match part(2) {
        None => {}
        Some("d" | "default") if default => return Err(invalid()),
        Some("d" | "default") => default = true,
        Some(word) => kind = Some(kind_of(word).ok_or_else(invalid)?),
    }
    let word = part(1).unwrap_or_default();
    let (kind, name) = match (word, kind) {
        ("m" | "mask", None) => ("mask", ""),
        ("o" | "other", None) => ("other", ""),
        ("m" | "mask", Some(kind)) => (kind, "mask"),
        ("o" | "other", Some(kind)) => (kind, "other"),
        (name, kind) => (kind.unwrap_or("user"), name),
    };
    if matches!(kind, "mask" | "other") && !name.is_empty() {
        return Err(invalid());
    }
    if !default && kind != "mask" && name.is_empty() {
        return Err(format!(
            "The deployment failed because of a problem with the acls permission settings in the application \
             specification file. Use mode to set the base acl entry ({text}). Update the permissions section of the \
             AppSpec file, and then try again."
        ));
    }
    let rights = rights(part(0).unwrap_or_default()).map_err(|character| {
        format!(
            "The deployment failed because the access control list (ACL) named {text} in the application specification \
             file contains an invalid character ({character}). Correct the ACL in the hooks section of the AppSpec file, \
             and then try again."
        )
    })?;
    let prefix = if default { "default:" } else { "" };
    Ok(format!("{prefix}{kind}:{name}:{rights}"))
}

fn kind_of(word: &str) -> Option<&'static str> {
    match word {
        "m" | "mask" => Some("mask"),
        "o" | "other" => Some("other"),
        "g" | "group" => Some("group"),
        "u" | "user" => Some("user"),
        _ => None,
    }
}

/// One octal digit, or any of `r`, `w`, `x` and `-`; else the character that is wrong.
fn rights(text: &str) -> Result<String, char> {
    let (mut read, mut write, mut execute) = (false, false, false);
    match text.as_bytes() {
        [digit @ b'0'..=b'7'] => {
            (read, write, execute) = (digit & 4 != 0, digit & 2 != 0, digit & 1 != 0);
        }
        _ => {
            for character in text.chars() {
                match character {
                    'r' => read = true,
                    'w' => write = true,
                    'x' => execute = true,
                    '-' => {}
                    other => return Err(other),
                }
            }
        }
    }
    let letter = |given: bool, letter: char| if given { letter } else { '-' };
    Ok([letter(read, 'r'), letter(write, 'w'), letter(execute, 'x')]
        .into_iter()
        .collect())
}
