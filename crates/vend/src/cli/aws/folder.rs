//! A folder that is written anew again and again: what an earlier time wrote and this one does not is taken away, and nothing
//! else. What was written is said by a file in it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
};

use model::Digest;
use serde::Serialize;

use super::{Failure, tree::write};
use crate::output::{Output, Tone, clean};

/// Says what was written, each with its digest.
const LIST: &str = "files.json";

pub struct Folder<'p> {
    root: &'p Path,
    written: BTreeMap<String, String>,
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
    pub fn new(root: &'p Path) -> Self {
        Self {
            root,
            written: BTreeMap::new(),
        }
    }

    pub fn write(&mut self, path: &str, bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
        write(&self.root.join(path), &bytes)?;
        self.written.insert(path.to_owned(), Digest::of(bytes).hex());
        Ok(())
    }

    /// Takes away what is not written any more, and says for the next time what is.
    pub fn end(mut self) -> Result<Cleared, Failure> {
        let mut cleared = Cleared::default();
        for (path, digest) in self.before() {
            if self.written.contains_key(&path) || !is_below(&path) {
                continue;
            }
            let place = self.root.join(&path);
            let is_file = fs::symlink_metadata(&place).is_ok_and(|own| own.is_file());
            let Some(bytes) = fs::read(&place).ok().filter(|_| is_file) else {
                continue;
            };
            if Digest::of(&bytes).hex() == digest {
                fs::remove_file(&place).map_err(|error| Failure::file(&place, &error))?;
                self.clear_up(&place);
                cleared.removed.push(path);
            } else {
                self.written.insert(path.clone(), digest);
                cleared.changed.push(path);
            }
        }
        let text = serde_json::to_string_pretty(&self.written).expect("names and digests are plain data");
        write(&self.root.join(LIST), format!("{text}\n"))?;
        Ok(cleared)
    }

    /// What an earlier time wrote. A list that is none says nothing.
    fn before(&self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.root.join(LIST)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Directories go that are empty now.
    fn clear_up(&self, place: &Path) {
        let above = place.ancestors().skip(1);
        for directory in above.take_while(|own| *own != self.root) {
            if fs::remove_dir(directory).is_err() {
                return;
            }
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
        let written = |paths: &[&str]| {
            let mut folder = Folder::new(&root);
            for path in paths {
                folder.write(path, path).unwrap();
            }
            folder.end().unwrap()
        };
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
        fs::write(root.join(LIST), format!("{{ \"../beside\": \"{digest}\" }}")).unwrap();
        assert_eq!(written(&["a.yaml"]), Cleared::default());
        assert!(world.path().join("beside").exists());
    }
}
