//! Whose the stacks are that a command finds: on one foundation stand several apps, each with files of its own.

use std::collections::BTreeSet;

use ::aws::{destroy::Left, site::Found, stack, synth::Kind};

use super::{Failure, broken, project::Loaded};

/// The foundations on which other apps stand too.
pub struct Shared(BTreeSet<String>);

impl Shared {
    pub fn of(loaded: &Loaded, all: &[(String, Found)]) -> Self {
        let others = all.iter().filter(|(_, found)| !loaded.is_own(found));
        Self(others.map(|(foundation, _)| foundation.clone()).collect())
    }

    /// Is this stack a foundation on which others stand?
    pub fn has(&self, foundation: &str, found: &Found) -> bool {
        let kind = found.mark.as_ref().map(|mark| mark.kind);
        kind == Some(Kind::Foundation) && self.0.contains(foundation)
    }
}

/// What may not be swept, although a destroyed stack once held it.
pub struct Spared {
    /// Zones that the file lends its foundations.
    lent: BTreeSet<String>,
    /// What stacks hold that are there: region, type, name.
    held: BTreeSet<(String, String, String)>,
}

impl Spared {
    pub async fn of(loaded: &Loaded, there: &[(String, Found)]) -> Result<Self, Failure> {
        let zones = loaded
            .config
            .foundations
            .values()
            .filter_map(|own| own.zone.as_ref());
        let lent = zones.map(ToString::to_string).collect();
        let mut held = BTreeSet::new();
        // A branch's stacks may ask for nothing but their own.
        let there = there
            .iter()
            .filter(|(_, found)| loaded.branch.is_none() && !found.stack.status.is_gone());
        for (foundation, found) in there {
            let client = &loaded.site(foundation).client;
            let own = stack::resources(client, &found.stack.id).await.map_err(broken)?;
            let own = own.into_iter().filter(|own| !own.status.is_out());
            held.extend(own.map(|own| (client.region().to_owned(), own.kind, own.physical)));
        }
        Ok(Self { lent, held })
    }

    /// Why this stays.
    pub fn why(&self, loaded: &Loaded, foundation: &str, left: &Left) -> Option<String> {
        let is_zone = left.kind == "AWS::Route53::HostedZone";
        if is_zone
            && self
                .lent
                .contains(left.physical.trim_start_matches("/hostedzone/"))
        {
            return Some("`zone` of aws.toml lends it".to_owned());
        }
        let region = loaded.site(foundation).client.region().to_owned();
        let key = (region, left.kind.clone(), left.physical.clone());
        self.held
            .contains(&key)
            .then(|| "a stack holds it that is there".to_owned())
    }
}
