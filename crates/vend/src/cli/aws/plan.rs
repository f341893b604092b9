//! `vend aws plan`: what `apply` would do.

use std::{collections::BTreeSet, process::ExitCode};

use ::aws::{
    change::{Change, Deed, Loss},
    kept::Kept,
    plan::{self, Doing, Plan as Planned, stays_open},
    price::List,
    site::Found,
};
use clap::Args;
use serde::Serialize;

use super::{
    Failure, broken,
    gone::{self, Standing},
    kept,
    project::{Loaded, Project},
    refused, synth, whose,
};
use crate::output::{Output, Tone, clean};

#[derive(Debug, Args)]
pub struct Plan {
    #[command(flatten)]
    project: Project,
}

pub async fn run(own: &Plan, output: &Output) -> Result<ExitCode, Failure> {
    let mut loaded = own.project.load()?;
    let found = loaded.found().await?;
    loaded.settle(&found).await?;
    let plans = all(&loaded, &found, false).await?;
    // A plan is made by who may only look, too.
    let kept = kept::all(&loaded, &plans).await;
    let standing = gone::all(&own.project, &loaded, &found);
    let notes = own.project.notes();
    let report = Report {
        stacks: shown(&plans, &loaded, &found, &kept),
        notes: &notes,
        standing: &standing,
        month: month(&plans, &loaded.prices),
    };
    output.show(&report, |_| {
        let kept = match &kept {
            Ok(kept) => kept::people(kept),
            Err(failure) => kept::unknown(failure),
        };
        people(&plans, &loaded, &found, &notes, output) + &gone::people(&standing, output) + &kept
    });
    let is_invalid = plans
        .iter()
        .any(|plan| matches!(plan.doing, Doing::Invalid { .. }));
    Ok(match is_invalid {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// All of it, as `--json` shows it.
#[derive(Debug, Serialize)]
struct Report<'p> {
    stacks: Vec<Shown<'p>>,
    /// Of the files, as `vend check` warns of them.
    notes: &'p [String],
    /// What stands and is in no file.
    standing: &'p [Standing],
    month: Month,
}

/// What the stacks of the files cost a month when nobody comes, in US cents.
#[derive(Debug, Serialize)]
struct Month {
    cents: i64,
    cents_before: i64,
    /// The date of the prices.
    prices: String,
    /// Resources without a price, where the list has the region.
    unknown: usize,
    /// Regions that the list does not have.
    regions_unknown: Vec<String>,
}

/// A plan with what an earlier destruction of its stack kept, as `--json` shows it.
#[derive(Debug, Serialize)]
struct Shown<'p> {
    #[serde(flatten)]
    plan: &'p Planned,
    /// None: it is not known.
    kept: Option<Vec<&'p Kept>>,
    /// Why that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_unknown: Option<String>,
    notes: Vec<String>,
}

fn shown<'p>(
    plans: &'p [Planned],
    loaded: &Loaded,
    found: &[(String, Found)],
    kept: &'p Result<Vec<Kept>, Failure>,
) -> Vec<Shown<'p>> {
    let all = notes(plans, loaded, found, true);
    with(plans, kept, &|stack| {
        let own = all.iter().filter(|(own, _)| own == stack);
        own.map(|(_, note)| note.clone()).collect()
    })
}

fn with<'p>(
    plans: &'p [Planned],
    kept: &'p Result<Vec<Kept>, Failure>,
    notes: &dyn Fn(&str) -> Vec<String>,
) -> Vec<Shown<'p>> {
    let one = |plan: &'p Planned| Shown {
        plan,
        notes: notes(&plan.stack),
        kept: kept
            .as_ref()
            .ok()
            .map(|kept| kept.iter().filter(|own| own.stack == plan.stack).collect()),
        kept_unknown: kept.as_ref().err().map(kept::why),
    };
    plans.iter().map(one).collect()
}

/// The plans of all stacks that were asked for.
pub async fn all(loaded: &Loaded, found: &[(String, Found)], keeps: bool) -> Result<Vec<Planned>, Failure> {
    let mut plans = Vec::new();
    for wanted in &loaded.wanted {
        let site = loaded.site(&wanted.mark.foundation);
        let own = found.iter().find(|(_, found)| found.stack.name == wanted.name);
        let own = own.map(|(_, found)| found);
        let plan = plan::plan(site, wanted, own, keeps).await;
        plans.push(plan.map_err(|error| match own {
            Some(found) => refused(error, &found.stack, loaded.branch.as_ref()),
            None => broken(error),
        })?);
    }
    Ok(plans)
}

/// The plans in words. `files`: what is to be known of the files.
pub fn people(
    plans: &[Planned],
    loaded: &Loaded,
    found: &[(String, Found)],
    files: &[String],
    output: &Output,
) -> String {
    let mut text = String::new();
    for plan in plans {
        text.push_str(&headline(plan, output));
        if plan.doing == Doing::Change {
            for change in &plan.changes {
                text.push_str(&line(change, output));
            }
        }
    }
    text.push_str(&synth::notes(files, &notes(plans, loaded, found, false), output));
    text.push_str(&money(&month(plans, &loaded.prices)));
    text
}

/// What is to be known of the stacks beside their changes, each with its stack. `is_all`: also what was said when those were made that
/// are as they were.
fn notes(
    plans: &[Planned],
    loaded: &Loaded,
    found: &[(String, Found)],
    is_all: bool,
) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for wanted in &loaded.wanted {
        let mut add = |note: String| all.push((wanted.name.clone(), note));
        let plan = plans.iter().find(|plan| plan.stack == wanted.name);
        if is_all || plan.is_none_or(|plan| plan.doing != Doing::Nothing) {
            wanted.notes.iter().for_each(|note| add(clean(note)));
        }
        let Some(plan) = plan else {
            continue;
        };
        let is_made = !matches!(plan.doing, Doing::Refused { .. });
        if let Some(why) = wanted.refused.as_ref().filter(|_| is_made) {
            let why = clean(why);
            add(format!(
                "it stands and goes on; a new one would be refused: {why}"
            ));
        }
        let own = found.iter().find(|(_, own)| own.stack.name == wanted.name);
        if stays_open(wanted, own.map(|(_, own)| own), plan) {
            add(format!(
                "it is not protected, and `apply` leaves it so (vend aws protect --only {})",
                wanted.name
            ));
        }
    }
    for own in whose::anothers(loaded, found, plans) {
        let then = match own.by {
            Some(_) => format!(
                " (vend aws apply --shared {}, if they shall have what this file says)",
                own.stack
            ),
            None => String::new(),
        };
        all.push((own.stack.clone(), format!("{}{then}", own.said())));
    }
    all
}

fn headline(plan: &Planned, output: &Output) -> String {
    let (tone, what) = match &plan.doing {
        Doing::Create => (Tone::Good, format!("new, {}", resources(plan.changes.len()))),
        Doing::CreateAgain => (
            Tone::Wait,
            format!(
                "again: its creation failed, or was never begun; {}",
                resources(plan.changes.len())
            ),
        ),
        Doing::Change => (Tone::Wait, format!("{} to change", plan.changes.len())),
        Doing::Nothing => (Tone::Faint, "unchanged".to_owned()),
        Doing::Later { why } => (Tone::Wait, format!("later: {}", clean(why))),
        Doing::Invalid { why } => (Tone::Bad, format!("cannot be changed so: {}", clean(why))),
        Doing::Wait { status } => (Tone::Wait, format!("is being changed ({})", status.0)),
        Doing::Stuck { status } => (
            Tone::Bad,
            format!("is {} (vend aws continue {})", status.0, plan.stack),
        ),
        Doing::Refused { why } => (Tone::Bad, format!("refused: {}", clean(why))),
    };
    format!(
        "{}  {}\n",
        output.tone(Tone::Strong, &plan.stack),
        output.tone(tone, &what)
    )
}

/// How a change is shown: what replaces or takes away is red.
fn sign(deed: Deed) -> (Tone, &'static str, &'static str) {
    match deed {
        Deed::Add => (Tone::Good, "+", ""),
        Deed::Import => (Tone::Good, "+", "taken in"),
        Deed::Modify => (Tone::Wait, "~", ""),
        Deed::Replace => (Tone::Bad, "!", "REPLACED"),
        Deed::MayReplace => (Tone::Bad, "!", "perhaps REPLACED"),
        Deed::Remove => (Tone::Bad, "-", "removed"),
    }
}

fn line(change: &Change, output: &Output) -> String {
    let (tone, sign, word) = sign(change.deed);
    let loss = match change.loss {
        Some(Loss::Lost) => "DATA IS LOST",
        Some(Loss::Snapshot) => "data goes, a snapshot stays",
        Some(Loss::Left) => "it stays, but no stack holds it any more",
        Some(Loss::Traffic) => "IT SERVES, AND NOBODY WOULD INSTEAD",
        None => "",
    };
    let first = change.first().unwrap_or_default();
    let mut parts = vec![format!(
        "  {sign} {} ({})",
        clean(&change.id),
        clean(&change.kind)
    )];
    if !change.properties.is_empty() {
        parts.push(clean(&change.properties.join(", ")));
    }
    parts.extend(
        [word, loss, first]
            .into_iter()
            .filter(|word| !word.is_empty())
            .map(str::to_owned),
    );
    format!("{}\n", output.tone(tone, &parts.join("  ")))
}

fn month(plans: &[Planned], prices: &List) -> Month {
    let before = plans.iter().filter_map(|plan| plan.cents_before);
    let made = plans
        .iter()
        .filter(|plan| !matches!(plan.doing, Doing::Refused { .. }));
    let some = || plans.iter().filter(|plan| plan.price.unknown > 0);
    let (known, foreign): (Vec<&Planned>, Vec<&Planned>) =
        some().partition(|plan| prices.knows(&plan.region));
    let regions: BTreeSet<String> = foreign.iter().map(|plan| plan.region.clone()).collect();
    Month {
        cents: made.map(|plan| plan.price.cents as i64).sum(),
        cents_before: before.map(|cents| cents as i64).sum(),
        prices: prices.date.to_string(),
        unknown: known.iter().map(|plan| plan.price.unknown).sum(),
        regions_unknown: regions.into_iter().collect(),
    }
}

/// What it costs, and by how much that is more.
fn money(month: &Month) -> String {
    let dollars = |cents: i64| format!("{:.2}", cents as f64 / 100.0);
    let (before, after) = (month.cents_before, month.cents);
    let sign = if after >= before { "+" } else { "-" };
    let without = without(month);
    // Of a part nobody knows by how much the whole is more.
    let (least, more) = match without.is_empty() {
        true => ("", format!(", {sign}{}", dollars((after - before).abs()))),
        false => ("at least ", String::new()),
    };
    format!(
        "{least}US$ {} a month when nobody comes{more} (prices of {}; traffic and bytes are extra{without})\n",
        dollars(after),
        month.prices,
    )
}

fn resources(count: usize) -> String {
    let word = if count == 1 { "resource" } else { "resources" };
    format!("{count} {word}")
}

/// What is not in the sum because nobody knows its price: no region's stand in for another's.
fn without(month: &Month) -> String {
    let mut text = String::new();
    if month.unknown > 0 {
        text.push_str(&format!("; no price in the list: {}", resources(month.unknown)));
    }
    for region in &month.regions_unknown {
        text.push_str(&format!("; no price known for {region}: --prices FILE"));
    }
    text
}

#[cfg(test)]
mod tests {
    use ::aws::price::Price;

    use super::*;
    use crate::cli::aws::Exit;

    #[test]
    fn what_was_kept_is_told_of_its_stack_or_why_it_is_not_known() {
        let plan = |stack: &str| Planned {
            stack: stack.to_owned(),
            region: "eu-central-1".to_owned(),
            doing: Doing::Create,
            changes: Vec::new(),
            cents_before: None,
            price: Price { cents: 1, unknown: 0 },
        };
        let plans = [plan("shop"), plan("shop-eu")];
        let kept = Kept {
            stack: "shop".to_owned(),
            kind: "snapshot".to_owned(),
            physical: "shop-snapshot-database-1".to_owned(),
            is_taken: false,
        };
        let told = |kept| serde_json::to_value(with(&plans, &kept, &|_| Vec::new())).unwrap();
        let known = told(Ok(vec![kept]));
        assert_eq!(known[0]["stack"], "shop");
        assert_eq!(known[0]["kept"][0]["physical"], "shop-snapshot-database-1");
        assert_eq!(known[1]["kept"], serde_json::json!([]));
        let failure = Failure::new(Exit::Unreachable, "AWS cannot be reached").cause("no route");
        let people = kept::unknown(&failure);
        assert!(
            people.contains("is not known: AWS cannot be reached: no route"),
            "{people}"
        );
        let unknown = told(Err(failure));
        assert_eq!(unknown[0]["kept"], serde_json::Value::Null);
        assert_eq!(unknown[0]["kept_unknown"], "AWS cannot be reached: no route");
    }

    #[test]
    fn of_what_has_no_price_nobody_says_by_how_much_it_is_more() {
        let month = |unknown| Month {
            cents: 1234,
            cents_before: 1000,
            prices: "2026-11-01".to_owned(),
            unknown,
            regions_unknown: Vec::new(),
        };
        let known = money(&month(0));
        assert!(
            known.starts_with("US$ 12.34 a month when nobody comes, +2.34 ("),
            "{known}"
        );
        let unknown = money(&month(1));
        assert!(
            unknown.starts_with("at least US$ 12.34 a month when nobody comes (")
                && unknown.contains("1 resource)"),
            "{unknown}"
        );
    }

    #[test]
    fn a_region_without_prices_is_named() {
        let plan = |region: &str, unknown| Planned {
            stack: "s".to_owned(),
            region: region.to_owned(),
            doing: Doing::Create,
            changes: Vec::new(),
            cents_before: None,
            price: Price { cents: 1, unknown },
        };
        let prices = List::shipped();
        let said = |plans: &[Planned]| without(&month(plans, prices));
        assert_eq!(said(&[plan("eu-central-1", 0), plan("sa-east-1", 0)]), "");
        let both = said(&[
            plan("eu-central-1", 2),
            plan("sa-east-1", 3),
            plan("sa-east-1", 1),
        ]);
        assert_eq!(
            both,
            "; no price in the list: 2 resources; no price known for sa-east-1: --prices FILE"
        );
    }

    #[test]
    fn what_is_lost_is_said_in_red() {
        let output = Output::new(false, String::new());
        let said = |deed, loss| {
            let change = Change {
                id: match loss {
                    Some(Loss::Traffic) => "GreenGroup",
                    _ => "Database",
                }
                .into(),
                kind: "AWS::RDS::DBInstance".into(),
                deed,
                properties: vec!["Engine".into()],
                loss,
            };
            (sign(deed).0, line(&change, &output))
        };
        for (deed, loss, tone, words) in [
            (
                Deed::Remove,
                Some(Loss::Lost),
                Tone::Bad,
                &["removed", "DATA IS LOST"][..],
            ),
            (
                Deed::Replace,
                Some(Loss::Snapshot),
                Tone::Bad,
                &["REPLACED", "a snapshot stays"],
            ),
            (
                Deed::MayReplace,
                Some(Loss::Left),
                Tone::Bad,
                &["perhaps REPLACED", "no stack holds it"],
            ),
            (
                Deed::Remove,
                Some(Loss::Traffic),
                Tone::Bad,
                &["GreenGroup", "IT SERVES", "make a release first"],
            ),
            (Deed::Modify, None, Tone::Wait, &["Engine"]),
            (Deed::Add, None, Tone::Good, &["+ Database"]),
        ] {
            let (own, text) = said(deed, loss);
            assert_eq!(own, tone, "{text}");
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
            assert_eq!(text.contains("LOST"), loss == Some(Loss::Lost), "{text}");
        }
    }
}
