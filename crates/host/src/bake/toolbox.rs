//! The images that builds run in: `standard`, and `standard` with runtimes on it.
//!
//! Most builds need one or two runtimes. Each is a layer that is made when a build first asks for it, so that a machine
//! has neither to download nor to keep what nobody uses.

use std::{collections::BTreeSet, time::Instant};

use model::{
    Digest,
    port::{Baked, Fault},
    spec::Base,
};

use super::{Error, Oven, PLATFORM_CACHE, PLATFORM_TIMEOUT, STANDARD, STANDARD_SCRIPT, finish, platform_key};
use super::{Journal, Stop, script, script::Run};
use crate::{
    base::{self, Wanted},
    layer,
};

/// A runtime that is not in `standard`: its name on CodeBuild, and what installs it.
type Tool = (&'static str, &'static str);

const TOOLS: [Tool; 5] = [
    ("golang", include_str!("tools/golang.sh")),
    ("java", include_str!("tools/java.sh")),
    ("php", include_str!("tools/php.sh")),
    ("ruby", include_str!("tools/ruby.sh")),
    ("rust", include_str!("tools/rust.sh")),
];

/// Versions of Node.js that npm's registry has beside Debian's, each as a package of its own.
const NODES: [u32; 8] = [14, 16, 20, 21, 22, 23, 24, 25];

/// The layers of an image of builds above its base, in order. Each key stands for the script and all that is below.
fn layers(base: Digest, tools: &BTreeSet<String>) -> Vec<(String, String, Digest)> {
    let mut wanted = vec![(STANDARD.to_owned(), STANDARD_SCRIPT.to_owned())];
    let chosen = TOOLS.iter().filter(|(name, _)| tools.contains(*name));
    wanted.extend(chosen.map(|(name, script)| ((*name).to_owned(), (*script).to_owned())));
    let nodes = NODES
        .iter()
        .filter(|major| tools.contains(&format!("nodejs-{major}")));
    wanted.extend(nodes.map(|major| (format!("nodejs-{major}"), node(*major))));
    let mut below = base;
    let layer = |(name, script): (String, String)| {
        below = platform_key(below, &name, &script);
        (name, script, below)
    };
    wanted.into_iter().map(layer).collect()
}

/// Puts a version of Node.js before Debian's, with an npm that it runs.
fn node(major: u32) -> String {
    let npm = if major < 18 { 8 } else { 10 };
    format!(
        "#!/bin/sh\nset -eu\nnpm install -g --no-fund --no-audit npm@{npm}\nnpm install -g --no-fund --no-audit node@{major}\n"
    )
}

/// Whether a runtime of this name can be added to `standard`.
pub fn is_tool(name: &str) -> bool {
    let node = name.strip_prefix("nodejs-").and_then(|major| major.parse().ok());
    TOOLS.iter().any(|(known, _)| *known == name) || node.is_some_and(|major| NODES.contains(&major))
}

impl Oven {
    /// `standard` with these runtimes, if it was made. Names that are none of a tool's are passed over.
    pub fn find_toolbox(&self, tools: &BTreeSet<String>) -> Result<Option<Digest>, layer::Error> {
        let base = match self.0.bases.find(Wanted::of(&Base::Named(base::DEBIAN))) {
            Ok(Some(base)) => base,
            Ok(None) => return Ok(None),
            Err(base::Error::Layer(error)) => return Err(error),
            Err(_) => return Ok(None),
        };
        let mut keys = vec![base.key];
        for (_, _, key) in layers(base.key, tools) {
            if self.0.layers.get(&key)?.is_none() {
                return Ok(None);
            }
            keys.push(key);
        }
        self.0.images.keep(&keys, crate::now()).map(Some)
    }

    /// `standard` with these runtimes, made where it is not there yet. The log is `bake/platform-LOG`.
    pub async fn toolbox(&self, tools: &BTreeSet<String>, log: &str) -> Result<Baked, Fault> {
        let log = format!("bake/platform-{log}");
        let log = log
            .parse()
            .map_err(|_| Fault::order(format!("`{log}` cannot name a log")))?;
        let mut journal = self.journal(log);
        let baked = self.bake_toolbox(tools, &mut journal).await;
        finish(baked, journal)
    }

    async fn bake_toolbox(&self, tools: &BTreeSet<String>, journal: &mut Journal) -> Result<Baked, Error> {
        let _together = self.0.quiet.read().await;
        let started = Instant::now();
        let debian = Base::Named(base::DEBIAN);
        let base = self
            .0
            .bases
            .ensure(Wanted::of(&debian), |line| journal.line(line))
            .await?;
        let mut keys = vec![base.key];
        let mut reused = true;
        for (name, text, key) in layers(base.key, tools) {
            let run = Run {
                name: name.clone(),
                id: format!("bake-{name}-{}", key.short()),
                key,
                lowers: keys.iter().rev().copied().collect(),
                script: Digest::of(&text),
                source: script::Source::Text(text),
                variables: std::collections::BTreeMap::new(),
                commit: None,
                epoch: base.epoch,
                cache: PLATFORM_CACHE.to_owned(),
                deadline: Instant::now() + PLATFORM_TIMEOUT,
                timeout: PLATFORM_TIMEOUT,
            };
            reused &= self.layer(run, journal, Stop::never()).await?;
            keys.push(key);
        }
        self.baked(&keys, reused, started)
    }

    /// The root file system of a base by its name, to build in it as it is.
    pub async fn bare(&self, base: &str) -> Result<Digest, Fault> {
        let base = base::parse(base)?;
        let base = self
            .0
            .bases
            .ensure(Wanted::of(&base), |_| ())
            .await
            .map_err(Error::from)?;
        Ok(self
            .0
            .images
            .keep(&[base.key], crate::now())
            .map_err(Error::from)?)
    }
}
