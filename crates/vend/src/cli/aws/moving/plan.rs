//! What a move would do, in words. Pure.

use model::{
    spec,
    wire::{Move, Release, Side},
};
use serde::Serialize;

use super::way_back;
use crate::{
    cli::{aws::secrets::Missing, target::Target},
    output::clean,
};

/// What is done to a stack that is not there.
pub const NEW: &str = "new";
/// What is done to one that is there and not as the files say.
pub const CHANGED: &str = "changed";
/// There is nothing to undo.
const NOTHING: &str = "-";

/// What is found before anything is done.
pub struct View<'v> {
    pub target: &'v Target,
    pub release: &'v Release,
    pub spec: &'v spec::Environment,
    /// The name on AWS.
    pub host: &'v str,
    pub found: Option<&'v Move>,
    /// Stacks of this environment with what would be done to them, and what they cost a month, in US cents.
    pub stacks: Vec<(String, &'static str)>,
    pub cents: u64,
    /// Of the list of prices.
    pub date: &'v str,
    /// Secrets that must be set there first. None: nobody can say before the stacks are there.
    pub missing: Option<Vec<Missing>>,
    pub weights: &'v [u32],
    pub watch: u64,
    /// What AWS does otherwise.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    pub environment: String,
    pub host: String,
    pub release: u64,
    pub commit: String,
    pub steps: Vec<Step>,
    pub cents_a_month: u64,
    pub prices_of: String,
    pub stays: Vec<String>,
    pub otherwise: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    pub name: &'static str,
    pub does: String,
    pub undo: String,
}

pub fn plan(view: &View<'_>) -> Plan {
    let commit = &view.release.commit.id;
    Plan {
        environment: view.target.to_string(),
        host: view.host.to_owned(),
        release: view.release.number,
        commit: commit.get(..12).unwrap_or(commit).to_owned(),
        steps: steps(view),
        cents_a_month: view.cents,
        prices_of: view.date.to_owned(),
        stays: stays(view),
        otherwise: view.notes.clone(),
    }
}

fn steps(view: &View<'_>) -> Vec<Step> {
    let (target, host) = (view.target, view.host);
    let abort = format!("vend move {target} --abort");
    let step = |name, does: String, undo: &str| Step {
        name,
        does,
        undo: undo.to_owned(),
    };
    let held = match view.found {
        Some(found) => format!("is held since {}, by {}", found.began_at, clean(&found.began_by)),
        None => "no release and no rollback here until it has moved; pushes wait".to_owned(),
    };
    let stacks: Vec<String> = view
        .stacks
        .iter()
        .map(|(name, doing)| match *doing {
            CHANGED => format!("{name} ({doing}: vend aws plan --only {name} says how)"),
            _ => format!("{name} ({doing})"),
        })
        .collect();
    let unmade = unmade(&view.stacks);
    let secrets = match &view.missing {
        None => "what vend.yaml wants must be set there: values never leave the vault here".to_owned(),
        Some(missing) if missing.is_empty() => "all that vend.yaml wants are set there".to_owned(),
        Some(missing) => {
            let all: Vec<String> = missing.iter().map(ToString::to_string).collect();
            format!("must be set there first: {}", all.join(", "))
        }
    };
    let commit = view
        .release
        .commit
        .id
        .get(..12)
        .unwrap_or(&view.release.commit.id);
    let share = view.found.map_or(0, |found| found.share);
    let weights: Vec<String> = view
        .weights
        .iter()
        .filter(|weight| **weight > share)
        .map(|weight| format!("{weight} %"))
        .collect();
    let traffic = match weights.as_slice() {
        [] => format!("{share} % go to {host} already"),
        weights => format!(
            "{} to {host}, each watched for {} s; back to none when more than 5 % fail there. Nobody waits",
            weights.join(", "),
            view.watch
        ),
    };
    let data = view.spec.database.is_some();
    let (carried, traffic) = match data {
        true => (
            Some(step(
                "data",
                "nobody is served (503) while it is dumped here, carried through the bucket of artifacts, loaded there and counted on \
                 both sides: as long as a dump and a load of it take"
                    .to_owned(),
                &way_back(target),
            )),
            format!("100 % to {host} at once: a share would write into two databases"),
        ),
        false => (None, traffic),
    };
    let steps = [
        step("hold", held, &abort),
        step("stacks", stacks.join(", "), &unmade),
        step("secrets", secrets, "vend aws secrets unset"),
        step(
            "release",
            format!(
                "v{} of here, {commit}, is built and released there",
                view.release.number
            ),
            &unreleased(&view.stacks, view.target.app.as_str(), view.spec.name.as_str()),
        ),
        step(
            "health",
            format!("{host} must be healthy, as the load balancer here sees it"),
            "-",
        ),
        step("traffic", traffic, if data { "-" } else { &abort }),
        step(
            "finish",
            format!("not by this command: vend move {target} --finish stops the hosts here"),
            &way_back(target),
        ),
    ];
    let (before, after) = steps.split_at(5);
    before
        .iter()
        .cloned()
        .chain(carried)
        .chain(after.iter().cloned())
        .collect()
}

/// The command that takes away the stacks that the move makes, and no other: those that are there are other environments'
/// too, or were this one's before.
fn unmade(stacks: &[(String, &'static str)]) -> String {
    let new = stacks.iter().filter(|(_, doing)| *doing == NEW);
    let only: String = new.map(|(name, _)| format!(" --only {name}")).collect();
    match only.is_empty() {
        true => NOTHING.to_owned(),
        false => format!("vend aws destroy{only}"),
    }
}

/// What takes the release back there: it goes with a stack that is new, and one that is there may have had another.
fn unreleased(stacks: &[(String, &'static str)], app: &str, environment: &str) -> String {
    let ends = format!("-{app}-{environment}");
    let mut own = stacks.iter().filter(|(name, _)| name.ends_with(&ends));
    match own.any(|(_, doing)| *doing != NEW) {
        true => format!("vend aws rollback {environment} (where it had a release before)"),
        false => unmade(stacks),
    }
}

/// What does not go along.
fn stays(view: &View<'_>) -> Vec<String> {
    let target = view.target;
    let mut all = vec![
        format!(
            "releases before v{}, their images and logs: the way back on AWS begins with this one",
            view.release.number
        ),
        "the ledger: on AWS the record is CloudTrail's".to_owned(),
        "webhooks: after the move the repository calls the pipeline's WebhookUrl (vend aws outputs)"
            .to_owned(),
        "files on hosts".to_owned(),
    ];
    for domain in &view.spec.domains {
        all.push(format!(
            "{}: it leads here, and from here to AWS, until its record is changed (`domains` of aws.toml)",
            domain.host
        ));
    }
    if let Some(after) = view.spec.sleep_after {
        all.push(format!("sleep after {after:#}: nothing sleeps on AWS"));
    }
    all.push(format!(
        "the names of {target} here: this platform must go on forwarding them"
    ));
    all
}

/// The plan in words.
pub fn text(plan: &Plan) -> String {
    let mut text = format!(
        "{} v{} ({}) to {}\n",
        plan.environment, plan.release, plan.commit, plan.host
    );
    for (number, step) in (1..).zip(&plan.steps) {
        text.push_str(&format!("  {number}  {:<8} {}\n", step.name, clean(&step.does)));
        if step.undo != NOTHING {
            text.push_str(&format!("              undo: {}\n", step.undo));
        }
    }
    for (head, lines) in [
        ("does not move", &plan.stays),
        ("is otherwise there", &plan.otherwise),
    ] {
        for line in lines {
            text.push_str(&format!("{head}: {}\n", clean(line)));
        }
    }
    text.push_str(&format!(
        "US$ {:.2} a month when nobody comes (prices of {}; traffic and bytes are extra)\n",
        plan.cents_a_month as f64 / 100.0,
        plan.prices_of
    ));
    text
}

/// The way back in words.
pub fn back(target: &Target, found: &Move, shares: &[u32]) -> String {
    let hosts = match found.finished_at {
        Some(_) => "its hosts are started here again",
        None => "its hosts run here still",
    };
    let shares: Vec<String> = shares.iter().map(|share| format!("{share} %")).collect();
    let data = match found.data {
        Some(Side::Away) => {
            "nobody is served (503), and the database on AWS refuses to write, while it is dumped there, carried through the \
             bucket of artifacts, loaded here in place of what is here, and counted on both sides\n          undo: --abort, before \
             it has arrived"
        }
        Some(Side::Here) => "is here",
        None => "there is none",
    };
    let traffic = match shares.as_slice() {
        [] => "none goes to AWS any more".to_owned(),
        shares => format!("{} to {}, then none", shares.join(", "), found.host),
    };
    format!(
        "{target} back from {}\n  1  hosts    {hosts}\n  2  data     {data}\n  3  traffic  {traffic}\nwhat is on AWS stays until: vend aws destroy --only STACK (vend aws status has their names)\n",
        found.host
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_undone_is_what_the_move_makes() {
        let stacks = |doing: [&'static str; 3]| {
            let names = [
                "vend-production",
                "vend-production-shop-production",
                "vend-flow-production-shop-production",
            ];
            let names = names.into_iter().map(str::to_owned);
            names.zip(doing).collect::<Vec<_>>()
        };
        let said = |doing| {
            let stacks = stacks(doing);
            (unmade(&stacks), unreleased(&stacks, "shop", "production"))
        };
        let only = "vend aws destroy --only vend-production-shop-production --only vend-flow-production-shop-production";
        assert_eq!(said([CHANGED, NEW, NEW]), (only.to_owned(), only.to_owned()));
        let back = "vend aws rollback production (where it had a release before)";
        assert_eq!(
            said([CHANGED, "as it is", CHANGED]),
            ("-".to_owned(), back.to_owned())
        );
    }
}
