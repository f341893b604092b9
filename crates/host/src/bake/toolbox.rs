//! The images that builds run in: `standard`, and `standard` with runtimes on it.
//!
//! Most builds need one or two runtimes. Each is a layer that is made when a build first asks for it, so that a machine
//! has neither to download nor to keep what nobody uses.

use std::{collections::BTreeSet, time::Instant};

use model::{
    Digest, Secret, TenantName,
    port::{Baked, Fault},
    spec::Base,
};

use super::{Error, Held, Oven, PLATFORM_TIMEOUT, QUEUED, STANDARD, STANDARD_SCRIPT, platform_key};
use super::{
    Stop,
    journal::{Journal, finish},
    platform_downloads, script,
    script::Run,
    time::Time,
};
use crate::{
    base::{self, Wanted},
    layer,
};

/// Runtimes that are not in `standard`, of which each system has one version: the name on CodeBuild, and what installs it.
const TOOLS: [(&str, &str); 3] = [
    ("php", include_str!("tools/php.sh")),
    ("ruby", include_str!("tools/ruby.sh")),
    ("rust", include_str!("tools/rust.sh")),
];

/// Runtimes of which a system has several versions. Their scripts begin with a line that sets `VERSION`.
const VERSIONED: [(&str, &str); 4] = [
    ("dotnet", include_str!("tools/dotnet.sh")),
    ("golang", include_str!("tools/golang.sh")),
    ("java", include_str!("tools/java.sh")),
    ("nodejs", include_str!("tools/nodejs.sh")),
];

/// What installs a runtime: one of [`TOOLS`], or `NAME-VERSION` of [`VERSIONED`].
fn script(tool: &str) -> Option<String> {
    if let Some((_, script)) = TOOLS.iter().find(|(name, _)| *name == tool) {
        return Some((*script).to_owned());
    }
    let (name, version) = tool.split_once('-')?;
    let (_, script) = VERSIONED.iter().find(|(known, _)| *known == name)?;
    let plain = version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (plain && !version.is_empty()).then(|| format!("#!/bin/sh\nVERSION={version}\n{script}"))
}

/// The layers of an image of builds above its base, in order. Each key stands for the script and all that is below.
fn layers(base: Digest, tools: &BTreeSet<String>) -> Vec<(String, String, Digest)> {
    let mut wanted = vec![(STANDARD.to_owned(), STANDARD_SCRIPT.to_owned())];
    let chosen = tools
        .iter()
        .filter_map(|tool| Some((tool.clone(), script(tool)?)));
    wanted.extend(chosen);
    let mut below = base;
    let layer = |(name, script): (String, String)| {
        below = platform_key(below, &name, &script);
        (name, script, below)
    };
    wanted.into_iter().map(layer).collect()
}

impl Oven {
    /// `standard` of a system (a base's name) with these runtimes, if it was made. Names that are none of a tool's are
    /// passed over.
    pub fn find_toolbox(
        &self,
        system: &'static str,
        tools: &BTreeSet<String>,
    ) -> Result<Option<Digest>, layer::Error> {
        let base = match self.0.bases.find(Wanted::of(&Base::Named(system))) {
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

    /// `standard` of a system with these runtimes, made where it is not there yet. The log is `bake/platform-LOG`.
    pub async fn toolbox(
        &self,
        system: &'static str,
        tools: &BTreeSet<String>,
        log: &str,
    ) -> Result<Baked, Fault> {
        let log = format!("bake/platform-{log}");
        let log = log
            .parse()
            .map_err(|_| Fault::order(format!("`{log}` cannot name a log")))?;
        let mut journal = Journal::new(&self.0.logs, log);
        let baked = self.bake_toolbox(system, tools, &mut journal).await;
        finish(baked, journal)
    }

    async fn bake_toolbox(
        &self,
        system: &'static str,
        tools: &BTreeSet<String>,
        journal: &mut Journal,
    ) -> Result<Baked, Error> {
        let started = Instant::now();
        let (base, _stays) = self.platform_base(&Base::Named(system), journal).await?;
        let layers = layers(base.key, tools);
        let _stay = self.stay(layers.iter().map(|(_, _, key)| *key)).await;
        let mut keys = vec![base.key];
        let mut reused = true;
        for (name, text, key) in layers {
            let run = Run {
                name: name.clone(),
                id: format!("bake-{}-{}", name.replace('.', "-"), key.short()),
                key,
                lowers: keys.iter().rev().copied().collect(),
                script: Digest::of(&text),
                source: script::Source::Text(text),
                variables: std::collections::BTreeMap::new(),
                commit: None,
                epoch: base.epoch,
                downloads: platform_downloads(),
            };
            // Each has the whole time: it is made once, for everybody.
            let mut time = Time::new(PLATFORM_TIMEOUT, QUEUED, None);
            reused &= self.layer(run, &mut time, journal, Stop::never()).await?;
            keys.push(key);
        }
        self.baked(&keys, reused, started).await
    }

    /// The root file system of a base by its name, to build in it as it is: what a tag of a registry means is asked anew.
    /// What one tenant's login got is not another's; `life`: how often the tenant's name was a deleted one's when this was asked for.
    pub async fn bare(
        &self,
        base: &str,
        (tenant, life): (&TenantName, u64),
        login: Option<&Secret>,
    ) -> Result<Bare, Error> {
        let base = base::parse(base)?;
        let wanted = Wanted {
            tenant: matches!(base, Base::Oci(_)).then_some(tenant),
            life,
            base: &base,
            login,
        };
        // What a registry takes its time for keeps no sweep waiting, and so no bake behind it.
        let (record, old) = self.0.bases.current(wanted, self.quiet(), |_| ()).await?;
        let _together = self.together().await;
        let image = self.0.images.keep(&[record.key], crate::now())?;
        Ok(Bare {
            image: self.hold(image),
            old,
        })
    }
}

/// What a build stands on that names its image itself.
#[derive(Debug)]
pub struct Bare {
    /// No sweep takes it while this is held.
    pub(crate) image: Held,
    /// Why nobody knows whether its name means another one by now.
    pub old: Option<String>,
}
