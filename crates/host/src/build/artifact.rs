//! Which files a buildspec's `files`, `base-directory`, `exclude-paths` and `discard-paths` mean: for artifacts and for
//! reports. Runs in the build's container.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Component, Path, PathBuf},
};

use globset::GlobSet;

use crate::tree;

/// More files than this are no artifact.
const FILES: usize = 300_000;

/// What to look for.
#[derive(Debug, Clone, Default)]
pub struct Wanted<'a> {
    pub files: &'a [String],
    pub base_directory: Option<&'a str>,
    pub exclude_paths: &'a [String],
    pub discard_paths: bool,
    pub enable_symlinks: bool,
}

/// What was found: by the name that it gets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub files: BTreeMap<PathBuf, Content>,
    /// For the log: what was left out, and why.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The bytes of the file there.
    File(PathBuf),
    /// A symbolic link with this text.
    Link(PathBuf),
}

/// Looks for files under the source directory; finding none is no error here. The error is CodeBuild's message.
pub fn find(source: &Path, wanted: &Wanted<'_>) -> Result<Found, String> {
    let bases = bases(source, wanted.base_directory)?;
    let mut found = Found::default();
    for base in &bases {
        let excluded = wanted
            .exclude_paths
            .iter()
            .map(|pattern| below(base, pattern).to_owned());
        let excluded = tree::globs(&excluded.collect::<Vec<_>>())?;
        let mut search = Search {
            base,
            wanted,
            excluded: &excluded,
            found: &mut found,
        };
        for pattern in wanted.files {
            search.pattern(pattern)?;
        }
    }
    Ok(found)
}

struct Search<'a> {
    base: &'a Path,
    wanted: &'a Wanted<'a>,
    excluded: &'a GlobSet,
    found: &'a mut Found,
}

impl Search<'_> {
    fn pattern(&mut self, pattern: &str) -> Result<(), String> {
        let written = pattern;
        let pattern = below(self.base, pattern.trim_start_matches("./"));
        let mut is_valid = false;
        let start = self.base.join(literal(pattern));
        // A directory that is named means all that is in it.
        let directory = start.is_dir() && !is_glob(pattern);
        let pattern = match directory {
            true => format!("{}/**", pattern.trim_end_matches('/')),
            false => pattern.to_owned(),
        };
        let matcher = tree::globs(std::slice::from_ref(&pattern))?;
        let mut waiting = vec![start];
        while let Some(path) = waiting.pop() {
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            let name = path.strip_prefix(self.base).unwrap_or(&path);
            if metadata.is_dir() {
                waiting.extend(
                    children(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?,
                );
            } else if matcher.is_match(name) && !self.excluded.is_match(name) {
                is_valid = true;
                self.add(name.to_owned(), &path, metadata.is_symlink());
            }
            if self.found.files.len() > FILES {
                return Err(format!("more than {FILES} files match"));
            }
        }
        if !is_valid {
            self.found
                .notes
                .push(format!("Skipping invalid file path {written}"));
        }
        Ok(())
    }

    fn add(&mut self, name: PathBuf, path: &Path, link: bool) {
        let name = match (self.wanted.discard_paths, name.file_name()) {
            (true, Some(last)) => PathBuf::from(last),
            // An absolute path outside of the base directory.
            _ => name
                .components()
                .filter(|part| matches!(part, Component::Normal(_)))
                .collect(),
        };
        let content = match link {
            true => self.link(&name, path),
            false if path.is_file() => Ok(Content::File(path.to_owned())),
            false => Err("is neither a file nor a directory"),
        };
        match content {
            Ok(content) => drop(self.found.files.insert(name, content)),
            Err(why) => self
                .found
                .notes
                .push(format!("Skipping {}: it {why}", path.display())),
        }
    }

    /// Links are followed, unless they are wanted and stay inside; links to directories can only stay. An absolute link
    /// is about the host where the artifact will be: it stays as it is, where it is wanted or cannot be followed.
    fn link(&self, name: &Path, path: &Path) -> Result<Content, &'static str> {
        let text = fs::read_link(path).map_err(|_| "is a link that cannot be read")?;
        let real = path.canonicalize();
        let is_file = real.as_ref().is_ok_and(|real| real.is_file());
        if text.is_absolute() && !self.wanted.discard_paths && (self.wanted.enable_symlinks || !is_file) {
            return Ok(Content::Link(text));
        }
        let real = real.map_err(|_| "is a link to nothing")?;
        let base = self.base.canonicalize().map_err(|_| "is nowhere")?;
        let inside = !self.wanted.discard_paths && real.starts_with(&base) && tree::stays_inside(name, &text);
        match real.is_dir() {
            _ if inside && self.wanted.enable_symlinks => Ok(Content::Link(text)),
            false if real.is_file() => Ok(Content::File(real)),
            true if inside => Ok(Content::Link(text)),
            true => Err("is a link to a directory outside of the base directory"),
            false => Err("is a link to what is no file"),
        }
    }
}

fn bases(source: &Path, wanted: Option<&str>) -> Result<Vec<PathBuf>, String> {
    let Some(wanted) = wanted
        .map(|base| base.trim_start_matches("./"))
        .filter(|base| !base.is_empty())
    else {
        return Ok(vec![source.to_owned()]);
    };
    let missing = || format!("no matching base directory path found for {wanted}");
    let wanted = below(source, wanted);
    if !is_glob(wanted) {
        let base = source.join(wanted);
        return base.is_dir().then(|| vec![base]).ok_or_else(missing);
    }
    let matcher = tree::globs(&[wanted.trim_end_matches('/').to_owned()])?;
    let mut found = Vec::new();
    let mut waiting = vec![source.join(literal(wanted))];
    while let Some(path) = waiting.pop() {
        let name = path.strip_prefix(source).unwrap_or(&path);
        if matcher.is_match(name) {
            found.push(path);
        } else {
            let inner = children(&path).unwrap_or_default();
            waiting.extend(
                inner
                    .into_iter()
                    .filter(|path| path.is_dir() && !path.is_symlink()),
            );
        }
    }
    found.sort();
    if found.is_empty() {
        Err(missing())
    } else {
        Ok(found)
    }
}

/// An absolute path in a directory as one that is relative to it; any other as it is.
fn below<'a>(directory: &Path, pattern: &'a str) -> &'a str {
    match Path::new(pattern).strip_prefix(directory).map(Path::to_str) {
        Ok(Some("")) => ".",
        Ok(Some(inner)) => inner,
        _ => pattern,
    }
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '{'])
}

/// The directories that a pattern begins with before its first glob.
fn literal(pattern: &str) -> PathBuf {
    if !is_glob(pattern) {
        return PathBuf::from(pattern);
    }
    let parts: Vec<Component<'_>> = Path::new(pattern).components().collect();
    parts
        .into_iter()
        .take_while(|part| !is_glob(&part.as_os_str().to_string_lossy()))
        .collect()
}

fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Tree(tempfile::TempDir);

    fn tree(files: &[&str]) -> Tree {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        Tree(directory)
    }

    impl Tree {
        #[track_caller]
        fn check(&self, wanted: &Wanted<'_>, names: &[&str]) -> Found {
            let found = find(self.0.path(), wanted).unwrap();
            let got: Vec<&str> = found.files.keys().map(|name| name.to_str().unwrap()).collect();
            assert_eq!(got, names, "{:?}", found.notes);
            found
        }

        #[track_caller]
        fn refused(&self, wanted: &Wanted<'_>, message: &str) {
            assert_eq!(find(self.0.path(), wanted), Err(message.to_owned()));
        }
    }

    fn texts(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|pattern| (*pattern).to_owned()).collect()
    }

    #[test]
    fn patterns_mean_what_they_do_on_codebuild() {
        let tree = tree(&[
            "a.py",
            "b.txt",
            "src/c.py",
            "src/deep/d.py",
            ".hidden/e",
            "dist-1/app/x.js",
            "dist-1/y.js",
        ]);
        let check = |files: &[&str], names: &[&str]| {
            tree.check(
                &Wanted {
                    files: &texts(files),
                    ..Wanted::default()
                },
                names,
            );
        };
        check(
            &["**/*"],
            &[
                ".hidden/e",
                "a.py",
                "b.txt",
                "dist-1/app/x.js",
                "dist-1/y.js",
                "src/c.py",
                "src/deep/d.py",
            ],
        );
        check(&["*.py"], &["a.py"]);
        check(&["**/*.py"], &["a.py", "src/c.py", "src/deep/d.py"]);
        check(&["src/*", "./b.txt"], &["b.txt", "src/c.py"]);
        check(&["src/**/*"], &["src/c.py", "src/deep/d.py"]);
        check(&["src"], &["src/c.py", "src/deep/d.py"]);
        let exclude = texts(&["src/**"]);
        let files = texts(&["**/*.py"]);
        tree.check(
            &Wanted {
                files: &files,
                exclude_paths: &exclude,
                ..Wanted::default()
            },
            &["a.py"],
        );
        let discard = Wanted {
            files: &files,
            discard_paths: true,
            ..Wanted::default()
        };
        tree.check(&discard, &["a.py", "c.py", "d.py"]);
        let all = texts(&["**/*"]);
        let based = |base| Wanted {
            files: &all,
            base_directory: Some(base),
            ..Wanted::default()
        };
        tree.check(&based("src"), &["c.py", "deep/d.py"]);
        tree.check(&based("dist-*"), &["app/x.js", "y.js"]);
        tree.refused(
            &based("nothing"),
            "no matching base directory path found for nothing",
        );
        tree.refused(
            &based("nothing-*"),
            "no matching base directory path found for nothing-*",
        );
        let found = tree.check(
            &Wanted {
                files: &texts(&["missing.jar", "a.py"]),
                ..Wanted::default()
            },
            &["a.py"],
        );
        assert_eq!(found.notes, ["Skipping invalid file path missing.jar"]);
        check(&["missing.jar"], &[]);
    }

    #[test]
    fn absolute_paths_in_the_source_are_as_relative_ones() {
        let outside = tree(&["secret"]);
        let tree = tree(&["a.py", "out-1/b", "out-1/deep/c", "out-1/deep/d", "outer/e"]);
        let at = |path: &str| format!("{}{path}", tree.0.path().display());
        let check = |base: Option<&str>, files: &[&str], exclude: &[&str], names: &[&str]| {
            let wanted = Wanted {
                files: &files.iter().map(|path| at(path)).collect::<Vec<_>>(),
                base_directory: base,
                exclude_paths: &exclude.iter().map(|path| at(path)).collect::<Vec<_>>(),
                ..Wanted::default()
            };
            tree.check(&wanted, names);
        };
        let all = ["a.py", "out-1/b", "out-1/deep/c", "out-1/deep/d", "outer/e"];
        check(None, &["/out-1/**"], &[], &all[1..4]);
        check(None, &["/out-1"], &["/out-1/deep/d"], &all[1..3]);
        check(None, &["//out-1/./b", "/**/e"], &[], &["out-1/b", "outer/e"]);
        for whole in ["", "/", "/**/*"] {
            check(None, &[whole], &[], &all);
        }
        check(Some(&at("")), &["/a.py"], &[], &["a.py"]);
        check(
            Some(&at("/out-1/")),
            &["/out-1/**/c", "/out-1/b"],
            &[],
            &["b", "deep/c"],
        );
        check(Some(&at("/out-*")), &["/out-1/**"], &["/out-1/deep/*"], &["b"]);
        check(
            Some("out-1"),
            &["/out-1"],
            &["/outer/**"],
            &["b", "deep/c", "deep/d"],
        );
        let wanted = |base| Wanted {
            files: &[],
            base_directory: Some(base),
            ..Wanted::default()
        };
        let none = at("/none");
        tree.refused(
            &wanted(&none),
            &format!("no matching base directory path found for {none}"),
        );
        // What is not in the source is what it was.
        let path = outside.0.path().join("secret");
        let files = [path.to_str().unwrap().to_owned()];
        let name = path.strip_prefix("/").unwrap().to_str().unwrap();
        let wanted = Wanted {
            files: &files,
            ..Wanted::default()
        };
        tree.check(&wanted, &[name]);
    }

    #[test]
    fn links_are_followed_or_kept_and_never_lead_out() {
        let outside = tree(&["secret", "directory/x"]);
        let tree = tree(&["lib/x.py", "bin/run"]);
        let at = |name: &str| tree.0.path().join(name);
        symlink("lib", at("lib64")).unwrap();
        symlink("run", at("bin/go")).unwrap();
        symlink(outside.0.path().join("secret"), at("out")).unwrap();
        symlink(outside.0.path().join("directory"), at("outdir")).unwrap();
        symlink("nothing", at("dangling")).unwrap();
        let files = texts(&["**/*"]);
        let mut wanted = Wanted {
            files: &files,
            ..Wanted::default()
        };
        let names = ["bin/go", "bin/run", "lib/x.py", "lib64", "out", "outdir"];
        let found = tree.check(&wanted, &names);
        assert_eq!(found.files[Path::new("lib64")], Content::Link("lib".into()));
        assert!(
            matches!(&found.files[Path::new("bin/go")], Content::File(path) if path.ends_with("bin/run"))
        );
        assert!(matches!(&found.files[Path::new("out")], Content::File(_)));
        assert!(matches!(&found.files[Path::new("outdir")], Content::Link(text) if text.is_absolute()));
        assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
        wanted.enable_symlinks = true;
        let found = tree.check(&wanted, &names);
        assert_eq!(found.files[Path::new("bin/go")], Content::Link("run".into()));
        assert!(matches!(&found.files[Path::new("out")], Content::Link(text) if text.is_absolute()));
    }
}
