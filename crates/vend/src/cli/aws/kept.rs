//! What an earlier destruction kept is asked for before stacks of the same names are made: none of it is forgotten in silence,
//! and no empty database stands in the place of one whose last snapshot is there.

use std::collections::BTreeMap;

use ::aws::{
    kept::{self, Kept},
    plan::{Doing, Plan as Planned},
};

use super::{Exit, Failure, broken, project::Loaded};
use crate::output::clean;

/// What there is of the stacks that would be new. Of a branch's nothing is kept.
pub async fn all(loaded: &Loaded, plans: &[Planned]) -> Result<Vec<Kept>, Failure> {
    if loaded.branch.is_some() {
        return Ok(Vec::new());
    }
    let is_new = |name: &str| {
        let mut plans = plans.iter();
        plans.any(|plan| plan.stack == name && matches!(plan.doing, Doing::Create | Doing::CreateAgain))
    };
    let mut new: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for wanted in loaded.wanted.iter().filter(|wanted| is_new(&wanted.name)) {
        new.entry(wanted.mark.foundation.as_str())
            .or_default()
            .push(wanted);
    }
    let mut all = Vec::new();
    for (foundation, wanted) in new {
        let found = kept::kept(loaded.site(foundation), &wanted).await;
        all.extend(found.map_err(broken)?);
    }
    Ok(all)
}

/// Nothing is made beside what was kept, unless somebody says so; and never what has a name that is taken. `begin`: the command
/// that says so; `destroy`: the one that takes away what stacks left.
pub fn refuse(
    kept: &[Kept],
    anew: bool,
    begin: &str,
    destroy: &dyn Fn(&[&str]) -> String,
) -> Result<(), Failure> {
    let hinders: Vec<&Kept> = kept.iter().filter(|own| own.is_taken || !anew).collect();
    if hinders.is_empty() {
        return Ok(());
    }
    let said: Vec<String> = hinders.iter().map(|own| line(own)).collect();
    let next = match hinders.iter().any(|own| own.is_taken) {
        true => {
            let stacks: Vec<&str> = hinders.iter().map(|own| own.stack.as_str()).collect();
            format!(
                "have CloudFormation import it (docs/aws.md, \"What was kept\"), or {}: it takes away what was kept, with what is in it",
                destroy(&stacks)
            )
        }
        false => format!("{begin}: what was kept stays as it is, and the new stacks begin empty"),
    };
    let what = "an earlier destruction kept what the new stacks would have again, and nothing was changed";
    Err(Failure::new(Exit::Refused, what)
        .cause(said.join("; "))
        .next(next))
}

fn line(own: &Kept) -> String {
    let then = match own.kind.as_str() {
        "AWS::Route53::HostedZone" => ": `zone` of aws.toml takes it",
        "snapshot" => ": the last data of a database",
        _ => "",
    };
    format!("{} ({}){then}", clean(&own.physical), own.kind)
}

/// For a plan, in which nothing is refused.
pub fn people(kept: &[Kept]) -> String {
    kept.iter()
        .map(|own| format!("kept by an earlier destruction: {}\n", line(own)))
        .collect()
}

/// Where it could not be asked for.
pub fn unknown(failure: &Failure) -> String {
    let mut text = format!(
        "what an earlier destruction kept is not known: {}\n",
        clean(&why(failure))
    );
    if let Some(next) = &failure.next {
        text.push_str(&format!("next: {next}\n"));
    }
    text
}

/// What failed, and its cause.
pub fn why(failure: &Failure) -> String {
    match &failure.cause {
        Some(cause) => format!("{}: {cause}", failure.what),
        None => failure.what.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(kind: &str, is_taken: bool) -> Kept {
        Kept {
            stack: "shop".to_owned(),
            kind: kind.to_owned(),
            physical: format!("the-{kind}"),
            is_taken,
        }
    }

    #[test]
    fn what_was_kept_is_left_beside_by_name_only() {
        let snapshot = || own("snapshot", false);
        let bucket = || own("AWS::S3::Bucket", true);
        let refuse = |kept: &[Kept], anew| {
            refuse(kept, anew, "vend aws apply --anew", &|stacks| {
                format!("vend aws destroy --only {}", stacks.join(" "))
            })
        };
        let said = |kept: &[Kept], anew| format!("{:?}", refuse(kept, anew).unwrap_err());
        assert!(refuse(&[], false).is_ok() && refuse(&[snapshot()], true).is_ok());
        let first = said(&[snapshot()], false);
        assert!(
            first.contains("the-snapshot") && first.contains("--anew"),
            "{first}"
        );
        // A name that is taken is taken, whoever agrees.
        let taken = said(&[snapshot(), bucket()], true);
        assert!(
            taken.contains("the-AWS::S3::Bucket") && taken.contains("vend aws destroy --only shop:"),
            "{taken}"
        );
        assert!(!taken.contains("the-snapshot"), "{taken}");
    }
}
