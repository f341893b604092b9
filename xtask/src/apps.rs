//! Apps that others wrote for CodeBuild, built unmodified: fetched from a registry at a pinned version, checked, and built
//! with `vend build --local`. Nothing of theirs is kept in the repository.

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
    /// Where images and caches stay [default: apps/home beside the build].
    #[arg(long)]
    home: Option<PathBuf>,
}

struct App {
    name: &'static str,
    language: &'static str,
    /// A tar.gz with the whole source tree, `buildspec.yml` included.
    url: &'static str,
    sha256: &'static str,
    /// The tree's directory in it.
    directory: &'static str,
    buildspec: &'static str,
}

const APPS: [App; 1] = [App {
    name: "barchart-common-js-3.3.114",
    language: "Node.js 12",
    url: "https://registry.npmjs.org/@barchart/common-js/-/common-js-3.3.114.tgz",
    sha256: "024986fd90957af4e5f35d035c44a86323af57d818e0b113e263c25a41908fbe",
    directory: "package",
    buildspec: "buildspec.yml",
}];

impl Apps {
    pub fn run(&self) -> anyhow::Result<()> {
        crate::step("the binary", crate::cargo(["build", "--package", "vend"]))?;
        let home = crate::target().join("apps");
        let builds = self.home.clone().unwrap_or_else(|| home.join("home"));
        let chosen = APPS.iter().filter(|app| {
            let wanted = |filter: &String| app.name.contains(filter);
            self.filter.as_ref().is_none_or(wanted)
        });
        let (mut built, mut skipped) = (0, 0);
        for app in chosen {
            let Some(tree) = app.fetch(&home)? else {
                println!("-- {}: skipped, {} cannot be reached", app.name, app.url);
                skipped += 1;
                continue;
            };
            let started = Instant::now();
            app.build(&tree, &builds)?;
            let seconds = started.elapsed().as_secs_f64();
            println!(
                "-- {} ({}): built unmodified in {seconds:.0} s",
                app.name, app.language
            );
            built += 1;
        }
        println!("-- {built} apps built, {skipped} skipped");
        Ok(())
    }
}

impl App {
    /// The app's tree, unpacked anew; `None` where the registry cannot be reached.
    fn fetch(&self, home: &Path) -> anyhow::Result<Option<PathBuf>> {
        let place = home.join(self.name);
        if place.exists() {
            fs::remove_dir_all(&place).with_context(|| format!("cannot empty {}", place.display()))?;
        }
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        let archive = home.join(format!("{}.tar.gz", self.name));
        if !archive.exists() {
            let mut fetch = Command::new("curl");
            fetch.args([
                "--silent",
                "--fail",
                "--location",
                "--max-time",
                "120",
                "--output",
            ]);
            let status = fetch
                .arg(&archive)
                .arg(self.url)
                .status()
                .context("cannot run curl")?;
            if !status.success() {
                return Ok(None);
            }
        }
        self.check(&archive)?;
        let mut unpack = Command::new("tar");
        unpack.arg("xzf").arg(&archive).arg("-C").arg(&place);
        crate::step(&format!("unpack {}", self.name), unpack)?;
        Ok(Some(place.join(self.directory)))
    }

    fn check(&self, archive: &Path) -> anyhow::Result<()> {
        let mut sum = Command::new("sha256sum");
        let output = sum.arg(archive).stderr(Stdio::inherit()).output();
        let output = output.context("cannot run sha256sum")?;
        let found = String::from_utf8_lossy(&output.stdout);
        if found.split_whitespace().next() == Some(self.sha256) {
            return Ok(());
        }
        fs::remove_file(archive).with_context(|| format!("cannot remove {}", archive.display()))?;
        bail!(
            "{} is not what it was: its SHA-256 is not {}",
            self.url,
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
