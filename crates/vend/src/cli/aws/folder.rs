//! A folder that is written anew again and again: what an earlier time wrote and this one does not is taken away, and nothing
//! else. What was written is said by a file in it, and by whom: several apps may share a folder, and several commands.

use std::{
    collections::BTreeMap,
    fs, io, mem,
    path::{Component, Path, PathBuf},
};

use model::Digest;
use serde::Serialize;

use super::{Failure, tree::write};
use crate::output::{Output, Tone, clean};

/// Says what was written.
const LIST: &str = ".vend-files.json";

/// Paths below the folder, each with the digest of what was written there.
type Written = BTreeMap<String, String>;

pub struct Folder<'p> {
    root: &'p Path,
    /// Whose files these are.
    owner: String,
    written: Written,
    /// What an earlier time wrote.
    before: Written,
    /// What others wrote, by their names.
    others: BTreeMap<String, Written>,
}

/// What became of what an earlier time wrote.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cleared {
    pub removed: Vec<String>,
    /// Somebody has changed it since: it stays.
    pub changed: Vec<String>,
}

impl Cleared {
    /// In words, a line for each.
    pub fn people(&self, output: &Output) -> String {
        let removed = self.removed.iter();
        let removed = removed.map(|path| format!("removed {}: it is not made any more\n", clean(path)));
        let changed = self.changed.iter().map(|path| {
            format!(
                "{} {} is not made any more, and stays: somebody has changed it\n",
                output.tone(Tone::Wait, "note"),
                clean(path)
            )
        });
        removed.chain(changed).collect()
    }
}

impl<'p> Folder<'p> {
    /// `command`: what writes, for the app. Refuses a list that somebody else has written.
    pub fn new(root: &'p Path, command: &str, app: &str) -> Result<Self, Failure> {
        let list = root.join(LIST);
        let mut others: BTreeMap<String, Written> = match fs::read_to_string(&list) {
            Ok(text) => serde_json::from_str(&text).map_err(|error| {
                Failure::failed(format!("{} is not what was written there", list.display()))
                    .cause(error.to_string())
                    .next("take it away: nothing that was written before is then cleared")
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(Failure::file(&list, &error)),
        };
        let owner = format!("{command} {app}");
        Ok(Self {
            root,
            before: others.remove(&owner).unwrap_or_default(),
            owner,
            written: Written::new(),
            others,
        })
    }

    pub fn write(&mut self, path: &str, bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
        write(&self.root.join(path), &bytes)?;
        self.written.insert(path.to_owned(), Digest::of(bytes).hex());
        Ok(())
    }

    /// Takes away what is not written any more, and says for the next time what is.
    pub fn end(mut self) -> Result<Cleared, Failure> {
        let mut cleared = Cleared::default();
        for (path, digest) in mem::take(&mut self.before) {
            let is_others = self.others.values().any(|other| other.contains_key(&path));
            if self.written.contains_key(&path) || is_others || !is_below(&path) {
                continue;
            }
            let place = self.root.join(&path);
            let is_file = fs::symlink_metadata(&place).is_ok_and(|own| own.is_file());
            let Some(bytes) = fs::read(&place).ok().filter(|_| is_file) else {
                continue;
            };
            if Digest::of(&bytes).hex() == digest {
                fs::remove_file(&place).map_err(|error| Failure::file(&place, &error))?;
                clear_up(self.root, &place);
                cleared.removed.push(path);
            } else {
                self.written.insert(path.clone(), digest);
                cleared.changed.push(path);
            }
        }
        let list = self.root.join(LIST);
        self.others.insert(self.owner, self.written);
        let text = serde_json::to_string_pretty(&self.others).expect("names and digests are plain data");
        write(&list, format!("{text}\n"))?;
        Ok(cleared)
    }
}

/// Directories go that are empty now.
fn clear_up(root: &Path, place: &Path) {
    let above = place.ancestors().skip(1);
    for directory in above.take_while(|own| *own != root) {
        if fs::remove_dir(directory).is_err() {
            return;
        }
    }
}

/// A list may have come from anywhere, with the working tree.
fn is_below(path: &str) -> bool {
    let path = PathBuf::from(path);
    let mut parts = path.components();
    path.components().count() > 0 && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_no_more_goes_and_nothing_else() {
        let world = tempfile::tempdir().unwrap();
        let root = world.path().join("aws");
        let written_of = |app: &str, paths: &[&str]| {
            let mut folder = Folder::new(&root, "synth", app).unwrap();
            for path in paths {
                folder.write(path, path).unwrap();
            }
            folder.end().unwrap()
        };
        let written = |paths: &[&str]| written_of("shop", paths);
        let is_there = |path: &str| root.join(path).exists();
        assert_eq!(
            written(&["a.yaml", "b.yaml", "flows/old/b.json"]),
            Cleared::default()
        );
        fs::write(root.join("mine.yaml"), "mine").unwrap();
        fs::write(root.join("b.yaml"), "mine now").unwrap();
        fs::write(world.path().join("beside"), "beside").unwrap();
        let cleared = written(&["a.yaml"]);
        assert_eq!(cleared.removed, ["flows/old/b.json"]);
        assert_eq!(cleared.changed, ["b.yaml"]);
        assert!(is_there("a.yaml") && is_there("mine.yaml") && is_there("b.yaml") && !is_there("flows"));
        // It is told as long as it is there; what is no place in the folder is nobody's here.
        let digest = Digest::of("beside").hex();
        let list = fs::read_to_string(root.join(LIST)).unwrap();
        assert!(list.contains("b.yaml"), "{list}");
        let foreign = format!("{{ \"synth shop\": {{ \"../beside\": \"{digest}\" }} }}");
        fs::write(root.join(LIST), foreign).unwrap();
        assert_eq!(written(&["a.yaml", "c.yaml"]), Cleared::default());
        assert!(world.path().join("beside").exists());
        // Another app's files, and what both have, stay.
        assert_eq!(written_of("blog", &["a.yaml", "blog.yaml"]), Cleared::default());
        assert_eq!(written(&["d.yaml"]).removed, ["c.yaml"]);
        assert!(is_there("a.yaml") && is_there("blog.yaml"));
        assert_eq!(written_of("blog", &["blog.yaml"]).removed, ["a.yaml"]);
        // A file that only has the name is somebody's.
        fs::write(root.join(LIST), "mine").unwrap();
        assert!(Folder::new(&root, "synth", "shop").is_err());
    }
}
