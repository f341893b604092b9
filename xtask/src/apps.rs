//! Apps that others wrote for CodeBuild, built unmodified with `vend build --local`: from a registry or from GitHub, at a
//! pinned version that is checked, or from a clone on disk. Nothing of theirs is kept in the repository.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail};
use clap::Args;

/// Builds apps that others wrote for CodeBuild, as they are.
#[derive(Debug, Args)]
pub struct Apps {
    /// Only the apps whose name has this in it.
    filter: Option<String>,
    /// Where clones of the apps on GitHub are, each in OWNER/NAME. One that is not there is fetched.
    #[arg(long, value_name = "DIR")]
    trees: Option<PathBuf>,
    /// Where images and caches stay [default: apps/home beside the build].
    #[arg(long)]
    home: Option<PathBuf>,
}

struct App {
    name: &'static str,
    language: &'static str,
    source: Source,
    /// Of the archive, or of the buildspec where the archive is packed anew for each who asks.
    sha256: &'static str,
    buildspec: &'static str,
}

enum Source {
    /// A tar.gz with the whole source tree in a directory.
    Archive {
        url: &'static str,
        directory: &'static str,
    },
    /// `OWNER/NAME`, which is the app's name too, at a commit.
    GitHub { commit: &'static str },
}

const APPS: [App; 3] = [
    App {
        name: "barchart-common-js-3.3.114",
        language: "Node.js 12",
        source: Source::Archive {
            url: "https://registry.npmjs.org/@barchart/common-js/-/common-js-3.3.114.tgz",
            directory: "package",
        },
        sha256: "024986fd90957af4e5f35d035c44a86323af57d818e0b113e263c25a41908fbe",
        buildspec: "buildspec.yml",
    },
    App {
        name: "tetsuo-nobe/codebuild-test-report",
        language: "Python 3.12",
        source: Source::GitHub {
            commit: "3d2fa7cd0071d4409e5a189f8bfb3dc769057d8d",
        },
        sha256: "308e73ea0624cdc707c735dec668d625b1693b865688bc10ff90ed0f414c7059",
        buildspec: "buildspec.yaml",
    },
    App {
        name: "lambda-web-0.2.1",
        language: "Rust",
        source: Source::Archive {
            url: "https://static.crates.io/crates/lambda-web/lambda-web-0.2.1.crate",
            directory: "lambda-web-0.2.1",
        },
        sha256: "ea6277b60649250d681654162b7e8e875c938295ea5f883eb9a8da7e27d2c051",
        buildspec: "buildspec.yml",
    },
];

/// A tree to build, and where it is from.
struct Tree {
    directory: PathBuf,
    origin: String,
}

impl Apps {
    pub fn run(&self) -> anyhow::Result<()> {
        crate::step("the binary", crate::cargo(["build", "--package", "vend"]))?;
        let place = crate::target().join("apps");
        let home = self.home.clone().unwrap_or_else(|| place.join("home"));
        let (mut lines, mut built, mut failed) = (Vec::new(), 0, 0);
        for app in &APPS {
            if self
                .filter
                .as_ref()
                .is_some_and(|filter| !app.name.contains(filter))
            {
                continue;
            }
            let said = match app.run(self.trees.as_deref(), &place, &home) {
                Ok(Some(said)) => {
                    built += 1;
                    said
                }
                Ok(None) => format!("skipped, {} cannot be reached", app.url()),
                Err(error) => {
                    failed += 1;
                    format!("failed: {error:#}")
                }
            };
            lines.push(format!("{} ({}): {said}", app.name, app.language));
        }
        for line in &lines {
            println!("-- {line}");
        }
        match failed {
            // What was not tried says nothing.
            0 if built == 0 => bail!("no app was built: none of {} could be had", lines.len()),
            0 => Ok(()),
            _ => bail!("{failed} of {} apps failed", lines.len()),
        }
    }
}

impl App {
    /// Builds it, and says how that went. `None`: it cannot be had.
    fn run(&self, trees: Option<&Path>, place: &Path, home: &Path) -> anyhow::Result<Option<String>> {
        let Some(tree) = self.tree(trees, place)? else {
            return Ok(None);
        };
        let started = Instant::now();
        self.build(&tree.directory, home)?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(Some(format!(
            "built unmodified in {seconds:.0} s from {}",
            tree.origin
        )))
    }

    fn url(&self) -> String {
        match self.source {
            Source::Archive { url, .. } => url.to_owned(),
            Source::GitHub { commit } => {
                format!("https://codeload.github.com/{}/tar.gz/{commit}", self.name)
            }
        }
    }

    /// The app's tree, unmodified; `None` where it is neither on disk nor can be reached.
    fn tree(&self, trees: Option<&Path>, place: &Path) -> anyhow::Result<Option<Tree>> {
        let Source::GitHub { commit } = self.source else {
            return self.fetch(place);
        };
        let directory = trees.map(|trees| trees.join(self.name));
        let Some(directory) = directory.filter(|directory| directory.is_dir()) else {
            return self.fetch(place);
        };
        self.check(&directory.join(self.buildspec))?;
        let origin = match directory.join(".git").exists() {
            true => {
                unchanged(&directory, commit)?;
                format!("a clone at {commit}")
            }
            false => format!("{}, which is no clone", directory.display()),
        };
        Ok(Some(Tree { directory, origin }))
    }

    /// The tree, unpacked anew.
    fn fetch(&self, place: &Path) -> anyhow::Result<Option<Tree>> {
        let unpacked = place.join(self.name);
        if unpacked.exists() {
            fs::remove_dir_all(&unpacked).with_context(|| format!("cannot empty {}", unpacked.display()))?;
        }
        fs::create_dir_all(&unpacked).with_context(|| format!("cannot make {}", unpacked.display()))?;
        let archive = place.join(format!("{}.tar.gz", self.name));
        if !archive.exists() && !download(&self.url(), &archive)? {
            return Ok(None);
        }
        let mut unpack = Command::new("tar");
        unpack.arg("xzf").arg(&archive).arg("-C").arg(&unpacked);
        let directory = match self.source {
            Source::Archive { directory, .. } => {
                self.check(&archive)?;
                unpacked.join(directory)
            }
            Source::GitHub { .. } => {
                unpack.arg("--strip-components=1");
                unpacked
            }
        };
        crate::step(&format!("unpack {}", self.name), unpack)?;
        if let Source::GitHub { .. } = self.source {
            self.check(&directory.join(self.buildspec))?;
        }
        Ok(Some(Tree {
            directory,
            origin: self.url(),
        }))
    }

    /// Whether a file has the digest that is pinned. What has not, and was downloaded, goes.
    fn check(&self, file: &Path) -> anyhow::Result<()> {
        let mut sum = Command::new("sha256sum");
        let output = sum.arg(file).stderr(Stdio::inherit()).output();
        let output = output.context("cannot run sha256sum")?;
        let found = String::from_utf8_lossy(&output.stdout);
        if found.split_whitespace().next() == Some(self.sha256) {
            return Ok(());
        }
        if let Source::Archive { .. } = self.source {
            fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
        bail!(
            "{} is not what it was: the SHA-256 of {} is not {}",
            self.name,
            file.display(),
            self.sha256
        )
    }

    fn build(&self, tree: &Path, home: &Path) -> anyhow::Result<()> {
        let mut build = Command::new(crate::binary("debug"));
        build.args(["build", "--buildspec", self.buildspec, "--local"]);
        build.arg(tree).arg("--home").arg(home);
        crate::step(&format!("{}, {}", self.name, self.language), build)
    }
}

/// Whether there was anything at a URL. What comes only in part is not kept.
fn download(url: &str, to: &Path) -> anyhow::Result<bool> {
    let part = to.with_extension("part");
    let mut fetch = Command::new("curl");
    fetch.args([
        "--silent",
        "--fail",
        "--location",
        "--max-time",
        "120",
        "--output",
    ]);
    let status = fetch.arg(&part).arg(url).status().context("cannot run curl")?;
    if status.success() {
        fs::rename(&part, to).with_context(|| format!("cannot make {}", to.display()))?;
    }
    Ok(status.success())
}

/// Whether a clone is at a commit and nothing in it was changed.
fn unchanged(clone: &Path, commit: &str) -> anyhow::Result<()> {
    let git = |arguments: &[&str]| -> anyhow::Result<String> {
        let mut git = Command::new("git");
        let output = git.arg("-C").arg(clone).args(arguments).output();
        let output = output.context("cannot run git")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let head = git(&["rev-parse", "HEAD"])?;
    if head != commit {
        bail!("{} is at {head}, not at {commit}", clone.display());
    }
    if !git(&["status", "--porcelain"])?.is_empty() {
        bail!("{} was changed: `git status` says what", clone.display());
    }
    Ok(())
}
