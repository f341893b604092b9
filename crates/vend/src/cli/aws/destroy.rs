//! `vend aws destroy`: flows, environments, pipelines and foundations go, in this order, and then what they have left.

use std::process::ExitCode;

use ::aws::{
    destroy::{self, Error, Fate, Left, Outcome},
    kept,
    live::release::{self, Release},
    mark::Mark,
    remains::{Owner, Remain, remains},
    site::Found,
    synth::Kind,
};
use clap::Args;
use serde::Serialize;

use super::{
    Exit, Failure, agreed,
    apply::Progress,
    broken,
    project::{Loaded, Project},
    refused, slot,
    whose::{Shared, Spared, is_lent},
};
use crate::output::{Output, clean};

#[derive(Debug, Args)]
pub struct Destroy {
    #[command(flatten)]
    project: Project,
    /// Only the stacks that the files do not have any more.
    #[arg(long)]
    gone: bool,
    /// With --gone: also those of branches' environments, which no file names. Their data goes too.
    #[arg(long, requires = "gone")]
    branches: bool,
    /// Keep buckets, tables, images and zones.
    #[arg(long)]
    keep_data: bool,
    /// Delete the key too, in 30 days; no snapshot of a database can be read after that.
    #[arg(long, conflicts_with = "keep_data")]
    forget: bool,
    /// Do it without asking.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Serialize, Default)]
struct Report {
    stacks: Vec<String>,
    left: Vec<Swept>,
    /// Foundations that were meant and stay, because other apps stand on them.
    shared: Vec<String>,
    /// Flows that stay without an environment to release into.
    idle: Vec<String>,
    /// What no stack held, and nothing here takes away.
    stays: Vec<Remain>,
}

#[derive(Debug, Serialize)]
struct Swept {
    #[serde(flatten)]
    what: Left,
    #[serde(flatten)]
    fate: Fate,
}

/// So many of a flow's newest releases are looked at: one that runs may stand behind those that it superseded.
const LOOKED: usize = 10;

/// What is left, each with its foundation.
type All = Vec<(String, Left)>;

pub async fn run(own: &Destroy, output: &Output) -> Result<ExitCode, Failure> {
    let loaded = own.project.load_most(output)?;
    let victims = victims(own, &loaded).await?;
    refuse(own, &victims.go)?;
    show(&victims, output);
    if let (Some(branch), true) = (&loaded.branch, victims.go.is_empty()) {
        output.note(&format!("nothing stands of {}", branch.branch));
    }
    ask(own, &loaded, &victims, output).await?;
    let start = crate::clock::now().to_string();
    let mut report = Report {
        shared: victims.stay,
        idle: victims.idle,
        ..Report::default()
    };
    let mut left = All::new();
    for (foundation, found) in &victims.go {
        let own_left = one(own, &loaded, (foundation, found), &start, output).await?;
        slot::leave(&loaded, found).await?;
        report.stacks.push(found.stack.name.clone());
        left.extend(own_left.into_iter().map(|left| (foundation.clone(), left)));
    }
    slot::end(&loaded).await?;
    let there = loaded.found().await?;
    // What an earlier destruction left, when it broke off.
    let mut earlier = earlier(own, &loaded, &there).await?;
    earlier.retain(|(_, own)| !left.iter().any(|(_, left)| left.physical == own.physical));
    match may_go(own, &loaded, &earlier, output).await? {
        true => left.extend(earlier),
        false if left.is_empty() => return Err(Failure::failed("nothing was destroyed")),
        false => output.line("what was kept before stays kept"),
    }
    sweep(own, &loaded, (left, &there), &mut report, output).await?;
    if !own.gone && loaded.is_whole() {
        stays(&loaded, &mut report, output).await;
    }
    output.show(&report, |report| summary(report, own));
    for said in loaded.elsewhere(&there).await {
        output.note(&said);
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what goes and what stays.
fn show(victims: &Victims, output: &Output) {
    if output.json {
        return;
    }
    for (_, found) in &victims.go {
        output.line(&format!("goes: {}", found.stack.name));
    }
    for name in &victims.stay {
        output.line(&format!("stays: {name}, because other apps stand on it"));
    }
    for name in &victims.idle {
        output.line(&format!(
            "stays: {name}, although nothing it releases into does: its releases would fail (--only {name} takes it, too)"
        ));
    }
}

/// Asks before stacks go.
async fn ask(own: &Destroy, loaded: &Loaded, victims: &Victims, output: &Output) -> Result<(), Failure> {
    // Who agreed beforehand is not asked: the build of a branch, whose role may not look at releases.
    if own.yes || victims.go.is_empty() {
        return Ok(());
    }
    for said in under_way(loaded, &victims.go).await {
        output.note(&said);
    }
    let data = if own.keep_data {
        ""
    } else {
        " and the data in them"
    };
    let question = format!("Destroy {} stacks{data}?", victims.go.len());
    match agreed(&question, false, output)? {
        true => Ok(()),
        false => Err(Failure::failed("nothing was destroyed")),
    }
}

/// Asks before data goes that was kept on purpose: no stack that was shown held it.
async fn may_go(own: &Destroy, loaded: &Loaded, earlier: &All, output: &Output) -> Result<bool, Failure> {
    if own.yes || own.keep_data {
        return Ok(true);
    }
    let mut goes = Vec::new();
    for (foundation, left) in earlier {
        let is_key = left.kind == "AWS::KMS::Key";
        let client = &loaded.site(foundation).client;
        if is_lent(loaded, left) {
            continue;
        }
        if (is_key && own.forget) || kept::is_there(client, left).await.map_err(broken)? {
            goes.push(left);
        }
    }
    if goes.is_empty() {
        return Ok(true);
    }
    if !output.json {
        for left in &goes {
            output.line(&format!("goes: {} ({})", clean(&left.physical), left.kind));
        }
    }
    let question = format!(
        "Delete {} things that were kept, and the data in them?",
        goes.len()
    );
    agreed(&question, own.yes, output)
}

/// What a destruction takes.
struct Victims {
    /// The stacks that go, in their order, each with its foundation.
    go: Vec<(String, Found)>,
    /// Those that others stand on, and that stay.
    stay: Vec<String>,
    /// Flows that stay without an environment.
    idle: Vec<String>,
}

async fn victims(own: &Destroy, loaded: &Loaded) -> Result<Victims, Failure> {
    let is_known = |name: &str| loaded.made.names().any(|(_, own, _)| own == name);
    let mut all = loaded.found().await?;
    loaded.refuse_others(&all)?;
    let is_meant = |found: &Found| {
        let name = &found.stack.name;
        let is_preview = found.mark.as_ref().is_some_and(|mark| mark.preview.is_some());
        let is_gone = !is_known(name) && loaded.refusal(found).is_none() && (own.branches || !is_preview);
        loaded.is_own(found) && loaded.is_asked(name) && (!own.gone || is_gone)
    };
    // What others stand on stays.
    let shared = Shared::of(loaded, &all);
    let named = all
        .iter()
        .find(|(foundation, found)| !loaded.is_whole() && is_meant(found) && shared.has(foundation, found));
    if let Some((_, found)) = named {
        let what = format!("nothing was destroyed: other apps stand on {}", found.stack.name);
        return Err(Failure::new(Exit::Refused, what)
            .next("vend aws destroy in the working tree of each of them, first"));
    }
    let idle = idle(all.iter().map(|(_, found)| found), &is_meant);
    all.retain(|(_, found)| is_meant(found));
    let (stay, all): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|(foundation, found)| shared.has(foundation, found));
    let stay = stay.into_iter().map(|(_, found)| found.stack.name).collect();
    let kind = |found: &Found| match &found.mark {
        Some(mark) => mark.kind,
        None => {
            let mut names = loaded.made.names();
            let own = names.find(|(_, name, _)| *name == found.stack.name);
            own.map_or(Kind::Environment, |(kind, ..)| kind)
        }
    };
    let foundations: std::collections::BTreeMap<String, String> = all
        .iter()
        .map(|(foundation, found)| (found.stack.id.clone(), foundation.clone()))
        .collect();
    let ordered = destroy::order(all.into_iter().map(|(_, found)| found).collect(), kind);
    let with = |found: Found| (foundations[&found.stack.id].clone(), found);
    Ok(Victims {
        go: ordered.into_iter().map(with).collect(),
        stay,
        idle,
    })
}

/// Says which releases end in the middle, with the flow that makes them. Who may not ask destroys all the same.
async fn under_way(loaded: &Loaded, victims: &[(String, Found)]) -> Vec<String> {
    let mut all = Vec::new();
    for (foundation, found) in victims {
        let Some(mark) = found.mark.as_ref().filter(|mark| mark.kind == Kind::Flow) else {
            continue;
        };
        let site = loaded.site(foundation);
        let Ok(flow) = site.machine(&found.stack.name).await else {
            continue;
        };
        let releases = release::list(&site.client, &flow, LOOKED)
            .await
            .unwrap_or_default();
        if releases.iter().any(Release::is_running) {
            let name = clean(mark.environment.as_deref().unwrap_or_default());
            all.push(format!(
                "a release of {name} is under way, and is broken off with {}",
                found.stack.name
            ));
        }
    }
    all
}

/// Flows that are not meant, of environments of which every stack is.
fn idle<'f>(all: impl Iterator<Item = &'f Found> + Clone, is_meant: &impl Fn(&Found) -> bool) -> Vec<String> {
    let of = |kind: Kind| {
        let marked = all
            .clone()
            .filter_map(|found| Some((found, found.mark.as_ref()?)));
        marked.filter(move |(found, mark)| mark.kind == kind && !found.stack.status.is_gone())
    };
    let flows = of(Kind::Flow).filter(|(found, _)| !is_meant(found));
    let is_idle = |own: &Mark| {
        let mut stacks = of(Kind::Environment)
            .filter(|(_, mark)| mark.app == own.app && mark.environment == own.environment)
            .peekable();
        stacks.peek().is_some() && stacks.all(|(found, _)| is_meant(found))
    };
    let idle = flows.filter(|(_, mark)| is_idle(mark));
    idle.map(|(found, _)| found.stack.name.clone()).collect()
}

/// Nothing begins while something is protected: a half is worse than a whole.
fn refuse(own: &Destroy, victims: &[(String, Found)]) -> Result<(), Failure> {
    let protected = victims
        .iter()
        .map(|(_, found)| &found.stack)
        .filter(|stack| stack.is_protected);
    let names: Vec<&str> = protected.map(|stack| stack.name.as_str()).collect();
    let mut next = own.project.again("unprotect");
    if own.gone {
        // Without names it would be all that stands.
        let only = names.iter().map(|name| format!(" --only {name}"));
        next.push_str(&only.collect::<String>());
    }
    match names.as_slice() {
        [] => Ok(()),
        names => Err(
            Failure::new(Exit::Refused, "nothing was destroyed: stacks are protected")
                .cause(names.join(", "))
                .next(next),
        ),
    }
}

impl Destroy {
    /// What to type after what may be another time.
    fn goes_on(&self, how: &str) -> String {
        let options = [
            ("--gone", self.gone),
            ("--branches", self.branches),
            ("--keep-data", self.keep_data),
            ("--forget", self.forget),
        ];
        let given = options.iter().filter(|(_, is_given)| *is_given);
        let given: String = given.map(|(option, _)| format!(" {option}")).collect();
        format!("{}{given}: {how}", self.project.again("destroy"))
    }
}

async fn one(
    own: &Destroy,
    loaded: &Loaded,
    (foundation, found): (&str, &Found),
    start: &str,
    output: &Output,
) -> Result<Vec<Left>, Failure> {
    let site = loaded.site(foundation);
    let stack = &found.stack;
    let mut progress = Progress::new(&stack.name, 0, output);
    let done = destroy::destroy(site, stack, start, &mut |event| progress.tell(event)).await;
    progress.end();
    let (outcome, left) = done.map_err(|error| match error {
        Error::Client(error) if error.is_denied() => refused(error, stack, loaded.branch.as_ref()),
        Error::Client(error) => broken(error).next(own.goes_on("it goes on where it was")),
        Error::Protected(name) => {
            Failure::new(Exit::Refused, format!("{name} is protected")).next(own.project.again("unprotect"))
        }
    })?;
    match outcome {
        Outcome::Gone => Ok(left),
        Outcome::Failed { status, cause } => {
            let failure = Failure::failed(format!("{} is {}, and still there", stack.name, status.0))
                .next(own.goes_on("it goes on with it, when the cause is gone"));
            Err(match cause {
                Some(cause) => failure.cause(cause.to_string()),
                None => failure,
            })
        }
    }
}

/// What stacks of these files left that were destroyed before. What one that is there now has the name of is its own again:
/// buckets have the same names then.
async fn earlier(own: &Destroy, loaded: &Loaded, there: &[(String, Found)]) -> Result<All, Failure> {
    let mut all = Vec::new();
    if own.gone {
        return Ok(all);
    }
    for (label, site) in loaded.sites() {
        let names = names(loaded, label).map(|(_, name)| name);
        let is_there = |name: &str| {
            let mut stacks = there.iter().map(|(_, found)| &found.stack);
            stacks.any(|stack| stack.name == name && !stack.status.is_gone())
        };
        let names: Vec<&str> = names
            .filter(|name| loaded.is_asked(name) && !is_there(name))
            .collect();
        if names.is_empty() {
            continue;
        }
        for (_, left) in destroy::left(site, &names).await.map_err(broken)? {
            let is_key = left.kind == "AWS::KMS::Key";
            // What was deleted since is kept no more.
            if !own.keep_data || is_key || kept::is_there(&site.client, &left).await.map_err(broken)? {
                all.push((label.to_owned(), left));
            }
        }
    }
    Ok(all)
}

/// What the stacks of the files are called that stand on a foundation, or are it.
fn names<'l>(loaded: &'l Loaded, label: &str) -> impl Iterator<Item = (Kind, &'l str)> {
    let all = loaded.made.names();
    all.filter(move |(_, _, foundation)| foundation.as_str() == label)
        .map(|(kind, name, _)| (kind, name))
}

async fn sweep(
    own: &Destroy,
    loaded: &Loaded,
    (left, there): (All, &[(String, Found)]),
    report: &mut Report,
    output: &Output,
) -> Result<(), Failure> {
    if left.is_empty() {
        return Ok(());
    }
    let spared = Spared::of(loaded, there).await?;
    for (foundation, what) in left {
        let why = match own.keep_data {
            true => Some("--keep-data".to_owned()),
            false => spared.why(loaded, &foundation, &what),
        };
        let fate = match why {
            Some(why) => Fate::Kept { why },
            None => {
                let done = destroy::sweep(loaded.site(&foundation), &what, own.forget).await;
                done.map_err(|error| match error {
                    Error::Client(error) => broken(error).next(own.goes_on("it goes on where it was")),
                    Error::Protected(name) => Failure::failed(format!("{name} is protected")),
                })?
            }
        };
        if !output.json && fate != Fate::Gone {
            output.line(&said(&what, &fate));
        }
        report.left.push(Swept { what, fate });
    }
    Ok(())
}

/// Tells what stays at each place. Who may not ask hears that, and the destruction was none the less.
async fn stays(loaded: &Loaded, report: &mut Report, output: &Output) {
    for (label, site) in loaded.sites() {
        let environments = names(loaded, label).filter(|(kind, _)| *kind == Kind::Environment);
        let stacks: Vec<&str> = environments.map(|(_, name)| name).collect();
        let owner = Owner {
            platform: loaded.platform(),
            foundation: label,
            app: loaded.app(),
            stacks: &stacks,
        };
        match remains(&site.client, owner).await {
            Ok(found) => report.stays.extend(found),
            Err(error) if output.json => tracing::warn!(%error, "not known what stays in {label}"),
            Err(error) => output.line(&format!(
                "what else stays in {label} is not known: {}",
                clean(&error.to_string())
            )),
        }
    }
}

/// What to do with what was kept.
const BACK: &str = "to have it in stacks again: docs/aws.md, \"What was kept\"; `vend aws synth --out aws` writes the templates for it to aws/kept\n";
/// How a key among it is deleted.
const FORGET: &str = ", with --forget the key too, without which no snapshot of a database can be read";

fn said(what: &Left, fate: &Fate) -> String {
    let name = format!("{} ({})", clean(&what.physical), what.kind);
    match fate {
        Fate::Deleted { objects: 0 } => format!("deleted: {name}"),
        Fate::Deleted { objects } => format!("deleted: {name} with {objects} objects"),
        Fate::Scheduled { days } => format!("goes in {days} days: {name}"),
        Fate::Kept { why } => format!("kept: {name}: {}", clean(why)),
        Fate::Gone => format!("gone: {name}"),
    }
}

fn summary(report: &Report, own: &Destroy) -> String {
    let kept: Vec<&Swept> = report
        .left
        .iter()
        .filter(|own| matches!(own.fate, Fate::Kept { .. }))
        .collect();
    let has_key = kept.iter().any(|own| own.what.kind == "AWS::KMS::Key");
    let mut text = format!("{} stacks destroyed\n", report.stacks.len());
    let keeps = own.keep_data && !kept.is_empty();
    if keeps {
        text.push_str(BACK);
    }
    // What the files do not have any more, no later destruction of theirs finds.
    if keeps && !own.gone {
        let forget = if has_key { FORGET } else { "" };
        text.push_str(&format!(
            "to delete it: {}{forget}\n",
            own.project.again("destroy")
        ));
    } else if has_key && !own.gone {
        let next = own.project.again("destroy --forget");
        text.push_str(&format!(
            "next: {next}, when no snapshot of a database is wanted any more\n"
        ));
    }
    for own in &report.stays {
        text.push_str(&format!(
            "stays: {} {}\n  ends with: {}\n",
            own.kind,
            clean(&own.id),
            clean(&own.command)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        own: Destroy,
    }

    /// Of a branch's environment as of others nothing else goes by it, and nothing that was to be kept.
    #[test]
    fn the_next_try_destroys_no_more_than_this_one() {
        let said = |arguments: &[&str]| {
            let own = Line::parse_from(["destroy"].iter().chain(arguments)).own;
            own.goes_on("it goes on")
        };
        assert_eq!(said(&[]), "vend aws destroy: it goes on");
        assert_eq!(
            said(&["--branch", "feature/it's", "--keep-data"]),
            r"vend aws destroy --branch 'feature/it'\''s' --keep-data: it goes on"
        );
        assert_eq!(
            said(&["shop", "--gone", "--branches", "--only", "s"]),
            "vend aws destroy shop --only s --gone --branches: it goes on"
        );
    }

    /// What was kept of one stack is deleted of one stack.
    #[test]
    fn what_deletes_what_was_kept_deletes_nothing_else() {
        let kept = |kind: &str| Swept {
            what: Left {
                id: "Table".into(),
                kind: kind.into(),
                physical: "t".into(),
            },
            fate: Fate::Kept {
                why: "--keep-data".into(),
            },
        };
        let said = |arguments: &[&str], kind: &str| {
            let own = Line::parse_from(["destroy"].iter().chain(arguments)).own;
            let report = Report {
                left: vec![kept(kind)],
                ..Report::default()
            };
            summary(&report, &own)
        };
        let one = said(&["shop", "--only", "s", "--keep-data"], "AWS::DynamoDB::Table");
        assert!(
            one.contains("to delete it: vend aws destroy shop --only s\n"),
            "{one}"
        );
        let key = said(&["--keep-data"], "AWS::KMS::Key");
        assert!(
            key.contains("to delete it: vend aws destroy, with --forget"),
            "{key}"
        );
        // No later destruction finds what no file has.
        let gone = said(&["--gone", "--keep-data"], "AWS::DynamoDB::Table");
        assert!(
            gone.contains("in stacks again") && !gone.contains("vend aws destroy"),
            "{gone}"
        );
    }
}
