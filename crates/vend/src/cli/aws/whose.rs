//! Whose the stacks are that a command finds: on one foundation stand several apps, each with files of its own.

use std::collections::BTreeSet;

use ::aws::{
    destroy::Left,
    mark::Mark,
    plan::{Doing, Plan as Planned},
    site::Found,
    stack,
    synth::Kind,
};

use super::{Failure, broken, project::Loaded};
use crate::output::clean;

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

/// A foundation that this app's file would change, and on which others stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anothers {
    pub stack: String,
    /// The app whose file it was changed after the last time, where that is another; None: it does not say.
    pub by: Option<String>,
    /// The other apps that stand on it.
    pub apps: Vec<String>,
}

impl Anothers {
    pub fn said(&self) -> String {
        let apps = clean(&self.apps.join(", "));
        match &self.by {
            Some(by) => format!(
                "the file of {} made it as it is; other apps on it: {apps}",
                clean(by)
            ),
            None => format!("other apps on it: {apps}"),
        }
    }
}

/// The foundations that would be changed although it was not this app that changed them the last time, as far as is known.
pub fn anothers(loaded: &Loaded, found: &[(String, Found)], plans: &[Planned]) -> Vec<Anothers> {
    let is_changed = |name: &str, mark: &Mark| {
        let mut plans = plans.iter();
        let is_changed =
            plans.any(|plan| plan.stack == name && matches!(plan.doing, Doing::Change | Doing::Later { .. }));
        let mut wanted = loaded.wanted.iter();
        // Files that agree leave protection, or a price, to whoever applies.
        let is_agreed = wanted.any(|own| own.name == name && own.mark.digest == mark.digest);
        is_changed && !is_agreed
    };
    let mut all = Vec::new();
    for (foundation, own) in found {
        let Some(mark) = own.mark.as_ref().filter(|mark| mark.kind == Kind::Foundation) else {
            continue;
        };
        let apps = apps(loaded, foundation, found);
        let is_ours = mark.by.as_deref() == Some(loaded.app());
        if !is_ours && !apps.is_empty() && is_changed(&own.stack.name, mark) {
            all.push(Anothers {
                stack: own.stack.name.clone(),
                by: mark.by.clone(),
                apps,
            });
        }
    }
    all
}

/// The other apps that stand on a foundation.
fn apps(loaded: &Loaded, foundation: &str, found: &[(String, Found)]) -> Vec<String> {
    let here = found.iter().filter(|(own, _)| own == foundation);
    let marks = here.filter_map(|(_, found)| found.mark.as_ref());
    let others = marks.filter_map(|mark| mark.app.clone().filter(|app| app != loaded.app()));
    others.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Is it a zone that the file lends its foundations?
pub fn is_lent(loaded: &Loaded, left: &Left) -> bool {
    let name = left.physical.trim_start_matches("/hostedzone/");
    let mut all = loaded.config.foundations.values();
    let lends = all.any(|own| own.zone.as_ref().is_some_and(|zone| zone.to_string() == name));
    left.kind == "AWS::Route53::HostedZone" && lends
}

/// What may not be swept, although a destroyed stack once held it.
pub struct Spared {
    /// What stacks hold that are there: region, type, name.
    held: BTreeSet<(String, String, String)>,
}

impl Spared {
    pub async fn of(loaded: &Loaded, there: &[(String, Found)]) -> Result<Self, Failure> {
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
        Ok(Self { held })
    }

    /// Why this stays.
    pub fn why(&self, loaded: &Loaded, foundation: &str, left: &Left) -> Option<String> {
        if is_lent(loaded, left) {
            return Some("`zone` of aws.toml lends it".to_owned());
        }
        let region = loaded.site(foundation).client.region().to_owned();
        let key = (region, left.kind.clone(), left.physical.clone());
        self.held
            .contains(&key)
            .then(|| "a stack holds it that is there".to_owned())
    }
}
