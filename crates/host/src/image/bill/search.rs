//! Packages that may be anywhere in an image: those of virtual environments, of apps, of a user's own. Links are not
//! followed, since what they lead to in the image is found where it is.

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};

use super::{Contents, Kind, PACKAGES, Package, cargo, composer, gem, npm, wheel};
use crate::{
    image::view::{Inside, Place, View},
    layer::{Error, io_error},
};

/// How much of an image is looked at. Whoever made it may have made it large.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Directories in each other.
    pub depth: usize,
    /// Names in all directories.
    pub entries: u64,
    /// Lists of packages that are read, and the bytes of all of them.
    pub lists: u64,
    pub bytes: u64,
    /// Packages, those that are known already among them.
    pub packages: usize,
}

impl Limits {
    pub const IMAGE: Self = Self {
        depth: 64,
        entries: 2_000_000,
        lists: 100_000,
        bytes: 256 << 20,
        packages: PACKAGES,
    };
}

/// The largest file of one package, and the largest list of all packages of an app.
const ONE_BYTES: u64 = 1 << 20;
const ALL_BYTES: u64 = 16 << 20;
/// What was not read is named up to so many times.
const NAMED: usize = 20;

/// Which file says something of packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Wheel,
    Npm,
    Gem,
    Cargo,
    Composer,
}

impl List {
    fn at(path: &Utf8Path) -> Option<Self> {
        let mut names = path
            .ancestors()
            .map(|above| above.file_name().unwrap_or_default());
        let [name, above, second, third] = std::array::from_fn(|_| names.next().unwrap_or_default());
        match name {
            "METADATA" if above.ends_with(".dist-info") => Some(Self::Wheel),
            "PKG-INFO" if above.ends_with(".egg-info") || above == "EGG-INFO" => Some(Self::Wheel),
            "package.json" if second == "node_modules" && !above.starts_with('@') => Some(Self::Npm),
            "package.json" if third == "node_modules" && second.starts_with('@') => Some(Self::Npm),
            "installed.json" if above == "composer" => Some(Self::Composer),
            ".crates.toml" => Some(Self::Cargo),
            // What setuptools did before it made a directory of it.
            _ if name.ends_with(".egg-info") => Some(Self::Wheel),
            _ if !name.ends_with(".gemspec") => None,
            _ if above == "specifications" => Some(Self::Gem),
            _ if above == "default" && second == "specifications" => Some(Self::Gem),
            _ => None,
        }
    }

    fn most_bytes(self) -> u64 {
        match self {
            Self::Wheel | Self::Npm | Self::Cargo => ONE_BYTES,
            Self::Composer => ALL_BYTES,
            // Its name says all.
            Self::Gem => 0,
        }
    }

    /// `None`: it is not what it should be.
    fn read(self, name: &str, bytes: &[u8]) -> Option<Vec<Package>> {
        let text = || String::from_utf8_lossy(bytes);
        Some(match self {
            Self::Wheel => wheel(&text()).into_iter().collect(),
            // Packages have files of this name in places where it says something else.
            Self::Npm => npm(bytes).into_iter().collect(),
            Self::Gem => gem(name).into_iter().collect(),
            Self::Cargo => cargo(&text()).collect(),
            Self::Composer => composer(bytes)?,
        })
    }
}

/// Adds the packages that are found.
pub(super) fn all(view: &View, limits: &Limits, contents: &mut Contents) -> Result<(), Error> {
    let mut search = Search {
        left: *limits,
        contents,
        unread: Vec::new(),
    };
    search.walk(view)?;
    let more = search.unread.len().saturating_sub(NAMED);
    let named = search.unread.into_iter().take(NAMED);
    contents.unread.extend(named);
    if more > 0 {
        contents.unread.push(format!("{more} more"));
    }
    Ok(())
}

struct Search<'a> {
    left: Limits,
    contents: &'a mut Contents,
    unread: Vec<String>,
}

impl Search<'_> {
    /// By name, so that the same image has the same bill wherever a limit ends the search.
    fn walk(&mut self, view: &View) -> Result<(), Error> {
        let mut waiting: Vec<(Utf8PathBuf, Place)> = vec![(Utf8PathBuf::new(), view.root())];
        while let Some((at, place)) = waiting.pop() {
            if at.components().count() > self.left.depth {
                self.unread.push(at.into_string());
                continue;
            }
            let Some(inside) = place.inside(&mut self.left.entries)? else {
                self.ended(&at);
                return Ok(());
            };
            let mut directories = Vec::new();
            for (name, inside) in inside {
                let path = at.join(&name);
                match inside {
                    Inside::Directory(place) => directories.push((path, place)),
                    Inside::File(file) => {
                        if let Some(list) = List::at(&path)
                            && !self.list(list, &path, &file)?
                        {
                            self.ended(&path);
                            return Ok(());
                        }
                    }
                }
            }
            waiting.extend(directories.into_iter().rev());
        }
        Ok(())
    }

    fn ended(&mut self, at: &Utf8Path) {
        let kinds = [Kind::Pypi, Kind::Npm, Kind::Gem, Kind::Cargo, Kind::Composer];
        let kinds = kinds.map(Kind::word).join(", ");
        // Before the others, which are cut.
        self.unread.insert(0, format!("what is of {kinds} from /{at} on"));
    }

    /// Reads a list; `false` where no more are read.
    fn list(&mut self, list: List, path: &Utf8Path, file: &Utf8Path) -> Result<bool, Error> {
        let most = list.most_bytes();
        let metadata = fs::symlink_metadata(file).map_err(io_error("read", file))?;
        let size = if most == 0 { 0 } else { metadata.len() };
        if size > most {
            self.unread.push(path.to_string());
            return Ok(true);
        }
        let left = self
            .left
            .lists
            .checked_sub(1)
            .zip(self.left.bytes.checked_sub(size));
        let Some((lists, bytes)) = left else {
            return Ok(false);
        };
        (self.left.lists, self.left.bytes) = (lists, bytes);
        let bytes = match size {
            0 => Vec::new(),
            _ => fs::read(file).map_err(io_error("read", file))?,
        };
        match list.read(path.file_name().unwrap_or_default(), &bytes) {
            Some(packages) if self.contents.packages.len() + packages.len() > self.left.packages => {
                return Ok(false);
            }
            Some(packages) => self.contents.packages.extend(packages),
            None => self.unread.push(path.to_string()),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// An image of two layers, the second on top, of files and what they hold.
    fn image(root: &Utf8Path, layers: [&[(&str, &str)]; 2]) -> View {
        let layers = layers.into_iter().enumerate().map(|(number, files)| {
            let layer = root.join(number.to_string());
            fs::create_dir_all(&layer).unwrap();
            for (path, text) in files {
                let path = layer.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            layer
        });
        let mut layers: Vec<Utf8PathBuf> = layers.collect();
        layers.reverse();
        View::new(layers)
    }

    fn found(view: &View, limits: &Limits) -> (Vec<String>, Vec<String>) {
        let mut contents = Contents::default();
        all(view, limits, &mut contents).unwrap();
        let packages = contents.packages.iter().map(|package| package.purl(""));
        (packages.collect(), contents.unread)
    }

    const FLASK: &str = "Metadata-Version: 2.1\nName: Flask\nVersion: 3.0\n\nVersion: no\n";
    const SITE: &str = "opt/venv/lib/python3.12/site-packages";

    #[test]
    fn packages_are_found_wherever_they_are() {
        let temporary = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(temporary.path()).unwrap();
        let flask = format!("{SITE}/flask-3.0.dist-info/METADATA");
        let old = format!("{SITE}/old-1.egg-info");
        let lower: &[(&str, &str)] = &[
            (&flask, FLASK),
            (&old, "Name: old\nVersion: 1\n"),
            ("srv/x.egg-info/PKG-INFO", "Name: x\nVersion: 2\n"),
            ("app/node_modules/a/package.json", r#"{"name":"a","version":"1"}"#),
            (
                "app/node_modules/a/node_modules/b/package.json",
                r#"{"name":"b","version":"2"}"#,
            ),
            (
                "app/node_modules/@s/c/package.json",
                r#"{"name":"@s/c","version":"3"}"#,
            ),
            (
                "app/node_modules/a/test/package.json",
                r#"{"name":"no","version":"1"}"#,
            ),
            ("app/package.json", r#"{"name":"own","version":"1"}"#),
            (
                "app/vendor/bundle/ruby/3.3.0/specifications/rack-3.0.8.gemspec",
                "",
            ),
            (
                "usr/lib/ruby/gems/3.3.0/specifications/default/json-2.7.1.gemspec",
                "",
            ),
            ("app/rack-9.gemspec", ""),
            (
                "home/ann/.cargo/.crates.toml",
                "[v1]\n\"ripgrep 14.1.0 (registry)\" = [\"rg\"]\n",
            ),
            (
                "app/vendor/composer/installed.json",
                r#"{"packages":[{"name":"m/m","version":"3.5.0"}]}"#,
            ),
        ];
        let all_of_it = [
            "pkg:pypi/flask@3.0",
            "pkg:pypi/old@1",
            "pkg:pypi/x@2",
            "pkg:npm/%40s/c@3",
            "pkg:npm/a@1",
            "pkg:npm/b@2",
            "pkg:gem/json@2.7.1",
            "pkg:gem/rack@3.0.8",
            "pkg:cargo/ripgrep@14.1.0",
            "pkg:composer/m/m@3.5.0",
        ];
        let none: &[(&str, &str)] = &[];
        for layers in [[lower, none], [none, lower]] {
            let view = image(&root.join(layers[0].len().to_string()), layers);
            assert_eq!(
                found(&view, &Limits::IMAGE),
                (all_of_it.map(str::to_owned).to_vec(), vec![])
            );
        }
    }

    #[test]
    fn a_layer_hides_what_is_below_it() {
        let temporary = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(temporary.path()).unwrap();
        let lower: &[(&str, &str)] = &[
            ("a/x.dist-info/METADATA", FLASK),
            ("b/x.dist-info/METADATA", FLASK),
            ("c/x.dist-info/METADATA", FLASK),
        ];
        let upper: &[(&str, &str)] = &[
            ("a", "a file now"),
            ("b/x.dist-info/METADATA", "Name: new\nVersion: 1\n"),
            ("c/more", ""),
        ];
        let view = image(root, [lower, upper]);
        let shown = |view: &View| found(view, &Limits::IMAGE).0;
        assert_eq!(shown(&view), ["pkg:pypi/flask@3.0", "pkg:pypi/new@1"]);
        let flags = rustix::fs::XattrFlags::empty();
        let opaque = |layer: &str| {
            let layer = root.join(layer);
            rustix::fs::setxattr(layer.as_std_path(), "trusted.overlay.opaque", b"y", flags)
        };
        // Only root may.
        if opaque("1/c").is_ok() {
            assert_eq!(shown(&view), ["pkg:pypi/new@1"]);
            opaque("1").unwrap();
            assert_eq!(shown(&view), ["pkg:pypi/new@1"]);
            fs::remove_dir_all(root.join("1/b")).unwrap();
            assert!(shown(&view).is_empty());
        }
    }

    #[test]
    fn no_link_is_followed() {
        let temporary = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(temporary.path()).unwrap();
        let outside = root.join("outside/x.dist-info");
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("METADATA"), FLASK).unwrap();
        let view = image(root, [&[("own/y.dist-info/RECORD", "")], &[]]);
        symlink(root.join("outside"), root.join("0/outside")).unwrap();
        symlink(&outside, root.join("1/z.dist-info")).unwrap();
        symlink(outside.join("METADATA"), root.join("0/own/y.dist-info/METADATA")).unwrap();
        assert_eq!(found(&view, &Limits::IMAGE), (vec![], vec![]));
    }

    #[test]
    fn what_a_limit_leaves_out_is_said() {
        let temporary = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(temporary.path()).unwrap();
        let large = " ".repeat(usize::try_from(ONE_BYTES).unwrap());
        let large = format!("{{{large}}}");
        let broken = "vendor/composer/installed.json";
        let files: &[(&str, &str)] = &[
            ("a/x.dist-info/METADATA", FLASK),
            ("b/y.dist-info/METADATA", "Name: y\nVersion: 1\n"),
            ("c/node_modules/large/package.json", &large),
            (broken, "{}"),
        ];
        let view = image(root, [files, &[]]);
        let check = |change: fn(&mut Limits), packages: usize, unread: &[&str]| {
            let mut limits = Limits::IMAGE;
            change(&mut limits);
            let (found, said) = found(&view, &limits);
            assert_eq!(found.len(), packages, "{found:?}");
            assert_eq!(said, unread);
        };
        let always = ["c/node_modules/large/package.json", broken];
        check(|_| (), 2, &always);
        check(
            |limits| limits.depth = 1,
            0,
            &[
                "a/x.dist-info",
                "b/y.dist-info",
                "c/node_modules",
                "vendor/composer",
            ],
        );
        let from = |path| format!("what is of pypi, npm, gem, cargo, composer from {path} on");
        let second = from("/b/y.dist-info/METADATA");
        check(|limits| limits.lists = 1, 1, &[&second]);
        check(|limits| limits.bytes = FLASK.len() as u64, 1, &[&second]);
        check(|limits| limits.packages = 1, 1, &[&second]);
        check(|limits| limits.entries = 6, 1, &[&from("/b")]);
        check(|limits| limits.entries = 0, 0, &[&from("/")]);
    }

    #[test]
    fn what_was_not_read_is_named_up_to_a_number() {
        let temporary = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(temporary.path()).unwrap();
        let view = image(root, [&[], &[]]);
        for number in 0..NAMED + 3 {
            fs::create_dir_all(root.join(format!("0/{number}/deep"))).unwrap();
        }
        let limits = Limits {
            depth: 1,
            ..Limits::IMAGE
        };
        let unread = found(&view, &limits).1;
        assert_eq!((unread.len(), unread[NAMED].as_str()), (NAMED + 1, "3 more"));
    }
}
