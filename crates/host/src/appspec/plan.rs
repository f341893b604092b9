//! From the revision and its appspec to the list of what Install does. Pure: the file system is a function.
//!
//! All conflicts are found here, before anything is copied. Stricter than CodeDeploy's agent: a source may not leave
//! the revision, neither with `..` nor through a symbolic link, and an SELinux context on a host
//! without SELinux is skipped with a remark.

use std::collections::{BTreeSet, HashMap, HashSet};

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use model::spec::{
    Appspec,
    deploy::{Context, FileExists, Mode, Permission},
};
use serde::Serialize;

use super::bundle::{Bundle, Entry};

/// One step of Install. Serializes as in the agent's `<group>-install.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Instruction {
    Copy {
        /// As the appspec writes it, behind the revision's place.
        source: Utf8PathBuf,
        destination: Utf8PathBuf,
    },
    Mkdir {
        directory: Utf8PathBuf,
    },
    Chmod {
        mode: Mode,
        file: Utf8PathBuf,
    },
    Setfacl {
        acl: Vec<String>,
        file: Utf8PathBuf,
    },
    /// The policy is told, as `semanage fcontext` and `restorecon` do it.
    Semanage {
        #[serde(serialize_with = "labelled")]
        context: Context,
        file: Utf8PathBuf,
    },
    Chown {
        owner: Option<serde_json::Value>,
        group: Option<serde_json::Value>,
        file: Utf8PathBuf,
    },
}

/// As the agent's own class holds a context.
fn labelled<S: serde::Serializer>(context: &Context, serializer: S) -> Result<S::Ok, S::Error> {
    let whole = serde_json::json!({
        "user": context.name,
        "role": null,
        "type": context.r#type,
        "range": context.range,
    });
    whole.serialize(serializer)
}

/// What is at a path of the host, symbolic links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Nothing,
    Directory,
    Other,
}

/// What Install does, in order.
///
/// `seen` is asked about the host as it is after the clean-up of the previous deployment.
///
/// # Errors
/// With CodeDeploy's sentence.
pub fn plan(
    bundle: &Bundle,
    spec: &Appspec,
    default: FileExists,
    seen: impl Fn(&Utf8Path) -> Seen,
) -> Result<Vec<Instruction>, String> {
    let mut planner = Planner {
        bundle,
        behaviour: spec.file_exists_behavior.unwrap_or(default),
        seen,
        instructions: Vec::new(),
        copies: HashMap::new(),
        order: Vec::new(),
        directories: HashSet::new(),
        made: Vec::new(),
        permitted: BTreeSet::new(),
    };
    for file in &spec.files {
        planner.mapping(&file.source, &file.destination)?;
    }
    for permission in &spec.permissions {
        planner.permission(permission)?;
    }
    Ok(planner.instructions)
}

struct Planner<'a, F> {
    bundle: &'a Bundle,
    behaviour: FileExists,
    seen: F,
    instructions: Vec<Instruction>,
    /// Destination to source.
    copies: HashMap<Utf8PathBuf, Utf8PathBuf>,
    order: Vec<Utf8PathBuf>,
    directories: HashSet<Utf8PathBuf>,
    made: Vec<Utf8PathBuf>,
    permitted: BTreeSet<Utf8PathBuf>,
}

impl<F: Fn(&Utf8Path) -> Seen> Planner<'_, F> {
    fn mapping(&mut self, source: &str, destination: &str) -> Result<(), String> {
        let inside = inside(source).ok_or_else(|| leaves("source", source))?;
        if self.bundle.goes_through_link(&inside) {
            return Err(leaves("source", source));
        }
        let destination = absolute(destination);
        let written = joined(self.bundle.root().as_str(), source);
        if self.bundle.get(&inside) == Some(&Entry::Directory) {
            self.ancestors(&destination)?;
            self.directory(&inside, &written, &destination)
        } else {
            let destination = match inside.file_name() {
                Some(name) => destination.join(name),
                None => destination,
            };
            self.ancestors(&destination)?;
            self.file(written, destination)
        }
    }

    /// `written`: the same source, absolute and as the appspec writes it.
    fn directory(&mut self, source: &Utf8Path, written: &str, destination: &Utf8Path) -> Result<(), String> {
        if (self.seen)(destination) != Seen::Directory {
            self.mkdir(destination.to_owned())?;
        }
        let bundle = self.bundle;
        for (name, entry) in bundle.children(source) {
            let (from, to) = (joined(written, name), destination.join(name));
            match entry {
                Entry::Directory => self.directory(&source.join(name), &from, &to)?,
                Entry::File | Entry::Link(_) => self.file(from, to)?,
            }
        }
        Ok(())
    }

    fn file(&mut self, written: String, destination: Utf8PathBuf) -> Result<(), String> {
        match ((self.seen)(&destination), self.behaviour) {
            (Seen::Nothing, _) | (_, FileExists::Overwrite) => self.copy(written.into(), destination),
            (_, FileExists::Retain) => Ok(()),
            (_, FileExists::Disallow) => Err(format!(
                "The deployment failed because a specified file already exists at this location: {destination}"
            )),
        }
    }

    fn copy(&mut self, source: Utf8PathBuf, destination: Utf8PathBuf) -> Result<(), String> {
        if let Some(other) = self.copies.get(&destination) {
            return Err(format!(
                "The deployment failed because the application specification file specifies two source files named \
                 {source} and {other} for the same destination ({destination}). Remove one of the source file paths \
                 from the AppSpec file, and then try again."
            ));
        }
        if self.directories.contains(&destination) {
            return Err(format!(
                "The deployment failed because the application specification file calls for installing the file \
                 {source}, but a file with that name already exists at the location ({destination}). Update your \
                 AppSpec file or directory structure, and then try again."
            ));
        }
        self.copies.insert(destination.clone(), source.clone());
        self.order.push(destination.clone());
        self.instructions.push(Instruction::Copy { source, destination });
        Ok(())
    }

    fn mkdir(&mut self, directory: Utf8PathBuf) -> Result<(), String> {
        if let Some(source) = self.copies.get(&directory) {
            return Err(format!(
                "The deployment failed because the application specification file includes an mkdir command more \
                 than once for the same destination path ({directory}) from ({source}). Update the files section of \
                 the AppSpec file, and then try again."
            ));
        }
        if self.directories.insert(directory.clone()) {
            self.made.push(directory.clone());
            self.instructions.push(Instruction::Mkdir { directory });
        }
        Ok(())
    }

    fn ancestors(&mut self, destination: &Utf8Path) -> Result<(), String> {
        let missing: Vec<&Utf8Path> = destination
            .ancestors()
            .skip(1)
            .take_while(|path| {
                *path != "/" && !path.as_str().is_empty() && (self.seen)(path) == Seen::Nothing
            })
            .collect();
        for directory in missing.into_iter().rev() {
            self.mkdir(directory.to_owned())?;
        }
        Ok(())
    }

    fn permission(&mut self, permission: &Permission) -> Result<(), String> {
        let object = absolute(&permission.object);
        if self.copies.contains_key(&object) {
            if permission.files {
                on_one_file(permission)?;
                self.permit(object, permission)?;
            }
        } else if self.directories.contains(&object) || (self.seen)(&object) == Seen::Directory {
            for found in self.matches(&object, permission)? {
                self.permit(found, permission)?;
            }
        }
        Ok(())
    }

    /// What this deployment creates below the object. Never the object itself.
    fn matches(&self, object: &Utf8Path, permission: &Permission) -> Result<Vec<Utf8PathBuf>, String> {
        let hit = |path: &&Utf8PathBuf| {
            path.strip_prefix(object).is_ok_and(|below| {
                !below.as_str().is_empty()
                    && (permission.pattern == "**" || component_matches(below, &permission.pattern))
                    && !permission
                        .except
                        .iter()
                        .any(|except| component_matches(below, except))
            })
        };
        let mut found = Vec::new();
        if permission.files {
            found.extend(self.order.iter().filter(hit).cloned());
            if !found.is_empty() {
                no_default_acl(permission)?;
            }
        }
        if permission.directories {
            found.extend(self.made.iter().filter(hit).cloned());
        }
        Ok(found)
    }

    fn permit(&mut self, file: Utf8PathBuf, permission: &Permission) -> Result<(), String> {
        if !self.permitted.insert(file.clone()) {
            return Err(format!(
                "The deployment failed because the permissions setting for ({file}) is specified more than once in \
                 the application specification file. Update the files section of the AppSpec file, and then try again."
            ));
        }
        if let Some(mode) = permission.mode.clone() {
            let file = file.clone();
            self.instructions.push(Instruction::Chmod { mode, file });
        }
        if let Some(acl) = permission.acls.clone() {
            let file = file.clone();
            self.instructions.push(Instruction::Setfacl { acl, file });
        }
        if let Some(context) = &permission.context {
            let (context, file) = (context.clone(), file.clone());
            self.instructions.push(Instruction::Semanage { context, file });
        }
        if permission.owner.is_some() || permission.group.is_some() {
            let (owner, group) = (permission.owner.clone(), permission.group.clone());
            self.instructions.push(Instruction::Chown { owner, group, file });
        }
        Ok(())
    }
}

fn on_one_file(permission: &Permission) -> Result<(), String> {
    let object = &permission.object;
    if permission.pattern != "**" {
        return Err(format!(
            "The deployment failed because the application specification file includes an object ({object}) with an \
             invalid pattern ({}), such as a pattern for a file applied to a directory. Correct the permissions \
             section of the AppSpec file, and then try again.",
            permission.pattern
        ));
    }
    if !permission.except.is_empty() {
        let list: Vec<String> = permission
            .except
            .iter()
            .map(|except| format!("{except:?}"))
            .collect();
        return Err(format!(
            "The deployment failed because the except parameter for a pattern in the permissions section ([{}]) for \
             the object named {object} contains an invalid format. Update the AppSpec file, and then try again.",
            list.join(", ")
        ));
    }
    no_default_acl(permission)
}

fn no_default_acl(permission: &Permission) -> Result<(), String> {
    let default = |acl: &String| acl.starts_with("d:") || acl.starts_with("default:");
    if permission.acls.iter().flatten().any(default) {
        return Err("The deployment failed because the -d parameter has been specified to apply an acl setting to a \
                    file. This parameter is supported for directories only. Update the AppSpec file, and then try \
                    again."
            .to_owned());
    }
    Ok(())
}

/// A path of the appspec as a path in the revision: `None` when it leaves it. `/` is the revision itself.
pub fn inside(path: &str) -> Option<Utf8PathBuf> {
    let mut inside = Utf8PathBuf::new();
    for component in Utf8Path::new(path).components() {
        match component {
            Utf8Component::Normal(name) => inside.push(name),
            Utf8Component::RootDir | Utf8Component::CurDir => {}
            Utf8Component::ParentDir | Utf8Component::Prefix(_) => return None,
        }
    }
    Some(inside)
}

pub fn leaves(what: &str, path: &str) -> String {
    format!(
        "The deployment failed because the {what} {path} leaves the revision. Paths of an AppSpec file may not contain \
         .. or go through a symbolic link out of the revision. Update the AppSpec file, and then try again."
    )
}

/// One path behind another, as the agent's language puts it there: nothing of either is put in order.
fn joined(path: &str, next: &str) -> String {
    match (path.ends_with('/'), next.starts_with('/')) {
        (_, true) => format!("{}{next}", path.trim_end_matches('/')),
        (true, false) => format!("{path}{next}"),
        (false, false) => format!("{path}/{next}"),
    }
}

/// Absolute and without `.` and `..`, as text.
fn absolute(path: &str) -> Utf8PathBuf {
    let mut absolute = Utf8PathBuf::from("/");
    for component in Utf8Path::new(path).components() {
        match component {
            Utf8Component::Normal(name) => absolute.push(name),
            Utf8Component::ParentDir => {
                absolute.pop();
            }
            _ => {}
        }
    }
    absolute
}

/// Does a pattern with `*` match a path of one component?
fn component_matches(below: &Utf8Path, pattern: &str) -> bool {
    below.components().count() == 1 && star_matches(below.as_str(), pattern)
}

/// `*` stands for any characters. Linear in the length of the text times the number of stars.
fn star_matches(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests;
