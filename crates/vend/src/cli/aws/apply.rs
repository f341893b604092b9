//! `vend aws apply`: makes the stacks as the files say, in their order, and stops at the first that fails.

use std::{process::ExitCode, time::Duration};

use ::aws::{
    apply::{self, Agreed, Error, Outcome},
    change::{Change, Loss},
    plan::{Doing, Plan as Planned, Wanted, stays_open},
    site::Found,
    stack::Event,
    synth::Kind,
    watch::Cause,
};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{
    Exit, Failure, agreed, broken, chain, kept, plan,
    project::{Loaded, Project},
    slot,
    stacks::out_of,
    whose::{self, Anothers},
};
use crate::{
    cli::quoted,
    output::{Output, Tone, clean},
};

#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    project: Project,
    /// Do it without asking. Data is not lost by it.
    #[arg(long)]
    yes: bool,
    /// This resource's data may be lost, or left without a stack; or its hosts may go although they serve.
    #[arg(long, value_name = "RESOURCE")]
    lose: Vec<String>,
    /// Make empty databases and zones beside those that an earlier `destroy` kept.
    #[arg(long)]
    anew: bool,
    /// Change this foundation, although the file of another app made it as it is and other apps stand on it.
    #[arg(long, value_name = "STACK")]
    shared: Vec<String>,
}

impl Apply {
    /// Without asking; no data is lost.
    pub fn agreed(project: Project) -> Self {
        Self {
            project,
            yes: true,
            lose: Vec::new(),
            anew: false,
            shared: Vec::new(),
        }
    }
}

impl Apply {
    /// What to type after what may be another time.
    fn goes_on(&self) -> String {
        format!("{}: it goes on where it was", self.again([]))
    }

    /// It as it was typed, with what was agreed to, and more of that.
    fn again<'m>(&'m self, more: impl IntoIterator<Item = (&'m str, &'m str)>) -> String {
        let mut text = self.project.again_with("apply");
        if self.anew {
            text.push_str(" --anew");
        }
        let lost = self.lose.iter().map(|id| ("--lose", id.as_str()));
        let shared = self.shared.iter().map(|name| ("--shared", name.as_str()));
        for (option, value) in lost.chain(shared).chain(more) {
            text.push_str(&format!(" {option} {}", quoted(value)));
        }
        text
    }

    /// Who says that something may be changed and mistypes it has agreed to nothing.
    fn refuse_unknown(&self, loaded: &Loaded) -> Result<(), Failure> {
        let names = loaded.made.names();
        let foundations = names.filter(|(kind, ..)| *kind == Kind::Foundation);
        let known: Vec<&str> = foundations.map(|(_, name, _)| name).collect();
        let Some(unknown) = self.shared.iter().find(|own| !known.contains(&own.as_str())) else {
            return Ok(());
        };
        let what = format!("`{unknown}` is no stack of a foundation, and nothing was changed");
        Err(Failure::new(Exit::NotFound, what).cause(format!("these are: {}", known.join(", "))))
    }

    /// What may be lost, and would not be. No error: the second try of an apply that was broken off says it too.
    fn idle_words(&self, plans: &[Planned]) -> String {
        let is_danger = |id: &String| {
            let mut dangers = plans.iter().flat_map(Planned::dangers);
            dangers.any(|change| change.id == *id)
        };
        let idle = self.lose.iter().filter(|id| !is_danger(id));
        idle.map(|id| format!("note --lose {}: nothing of that name would be lost\n", clean(id)))
            .collect()
    }
}

#[derive(Debug, Serialize)]
struct Done {
    stack: String,
    #[serde(flatten)]
    outcome: Outcome,
    /// Somebody took its protection away, and it stays so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unprotected: bool,
}

/// What it holds meanwhile is on the heap: who calls it holds as much again.
pub async fn run(own: &Apply, output: &Output) -> Result<ExitCode, Failure> {
    Box::pin(work(own, output)).await
}

async fn work(own: &Apply, output: &Output) -> Result<ExitCode, Failure> {
    let mut loaded = own.project.load()?;
    own.refuse_unknown(&loaded)?;
    let found = loaded.found().await?;
    loaded.refuse_others(&found)?;
    loaded.settle(&found).await?;
    let loaded = loaded;
    let plans = plan::all(&loaded, &found, true).await?;
    let idle = plans.iter().all(|plan| plan.doing == Doing::Nothing);
    if !output.json {
        let notes = own.project.notes();
        output.say(&plan::people(&plans, &loaded, &found, &notes, output));
        output.say(&own.idle_words(&plans));
    }
    refuse_names(&plans)?;
    refuse_invalid(own, &plans)?;
    refuse(own, &plans)?;
    refuse_shared(own, &whose::anothers(&loaded, &found, &plans))?;
    let kept = kept::all(&loaded, &plans).await?;
    let anew = format!("{} --anew", own.again([]));
    let destroy = |stacks: &[&str]| own.project.only("destroy", stacks.iter().copied());
    kept::refuse(&kept, own.anew, &anew, &destroy)?;
    if !idle && !agreed("Apply?", own.yes, output)? {
        return Err(Failure::failed("nothing was changed"));
    }
    // Nothing is made with a priority that nobody keeps, and no more environments of branches than there may be.
    loaded.keep()?;
    slot::take(&loaded).await?;
    let start = crate::clock::now().to_string();
    let mut found = found;
    let mut done = Vec::new();
    for wanted in &loaded.wanted {
        let at = found
            .iter()
            .position(|(_, found)| found.stack.name == wanted.name);
        let is_idle = |plan: &&Planned| plan.stack == wanted.name && plan.doing == Doing::Nothing;
        if !plans.iter().any(|plan| is_idle(&plan)) {
            upload(own, &loaded, wanted, output).await?;
        }
        let own_found = at.map(|at| found.swap_remove(at).1);
        let plan = plans.iter().find(|plan| plan.stack == wanted.name);
        let unprotected = plan.is_some_and(|plan| stays_open(wanted, own_found.as_ref(), plan));
        let outcome = one(own, &loaded, wanted, own_found, &start, output).await?;
        // At once: the next stack may fail, and later applies look at later events.
        for left in outcome.left().iter().filter(|_| !output.json) {
            output.say(&stays(&wanted.name, left));
        }
        let failed = failure(own, wanted, &outcome);
        done.push(Done {
            stack: wanted.name.clone(),
            outcome,
            unprotected,
        });
        if let Some(failure) = failed {
            if output.json {
                output.show(&done, |_| String::new());
            }
            return Err(failure);
        }
    }
    output.show(&done, |done| summary(done));
    Ok(ExitCode::SUCCESS)
}

/// A function is made from its code, and a bake fetches its files: they are there before the stack is.
async fn upload(own: &Apply, loaded: &Loaded, wanted: &Wanted, output: &Output) -> Result<(), Failure> {
    let foundation = wanted.mark.foundation.as_str();
    let site = loaded.site(foundation);
    for (key, bytes) in loaded.beside(wanted)? {
        let put = site.put(loaded.platform(), foundation, &key, bytes).await;
        put.map_err(|error| broken(error).next(own.goes_on()))?;
        if !output.json {
            output.say(&format!("{}  put {key}\n", wanted.name));
        }
    }
    Ok(())
}

/// Names that are not given any more; what stands with one can be changed by `--only`.
fn refuse_names(plans: &[Planned]) -> Result<(), Failure> {
    let said: Vec<String> = plans
        .iter()
        .filter_map(|plan| match &plan.doing {
            Doing::Refused { why } => Some(format!("{}: {}", plan.stack, clean(why))),
            _ => None,
        })
        .collect();
    if said.is_empty() {
        return Ok(());
    }
    let what = "new stacks would have names that do not go together with others, and nothing was changed";
    Err(Failure::new(Exit::Refused, what)
        .cause(said.join("; "))
        .next("vend aws apply --only STACK, for each that is there"))
}

/// What CloudFormation refuses would be refused halfway, with the stacks before it changed.
fn refuse_invalid(own: &Apply, plans: &[Planned]) -> Result<(), Failure> {
    let said: Vec<String> = plans
        .iter()
        .filter_map(|plan| match &plan.doing {
            Doing::Invalid { why } => Some(format!("{}: {}", plan.stack, clean(why))),
            _ => None,
        })
        .collect();
    match said.is_empty() {
        true => Ok(()),
        false => Err(
            Failure::failed("CloudFormation cannot change stacks so, and nothing was changed")
                .cause(said.join("; "))
                .next(own.project.again("plan")),
        ),
    }
}

/// What the file of another app made as it is, and others stand on, is changed by who says so.
fn refuse_shared(own: &Apply, anothers: &[Anothers]) -> Result<(), Failure> {
    let others: Vec<&Anothers> = anothers
        .iter()
        .filter(|one| one.by.is_some() && !own.shared.contains(&one.stack))
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    let said: Vec<String> = others
        .iter()
        .map(|one| format!("{}: {}", one.stack, one.said()))
        .collect();
    let agreed = own.again(others.iter().map(|one| ("--shared", one.stack.as_str())));
    let what = "what other apps stand on would be changed, and nothing was changed";
    Err(Failure::new(Exit::Refused, what)
        .cause(said.join("; "))
        .next(format!(
            "the same [foundations] in the files of all of them (--config FILE), or {agreed}"
        )))
}

/// Data, and what serves, goes only by name.
fn refuse(own: &Apply, plans: &[Planned]) -> Result<(), Failure> {
    let dangers = plans.iter().flat_map(Planned::dangers);
    let lost: Vec<&Change> = dangers.filter(|change| !own.lose.contains(&change.id)).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let is_traffic = |change: &&Change| change.loss == Some(Loss::Traffic);
    let what = match (lost.iter().all(is_traffic), lost.iter().any(is_traffic)) {
        (true, _) => "hosts would go that serve, and nothing was changed",
        (_, true) => "data would be lost and hosts would go that serve, and nothing was changed",
        _ => "data would be lost, and nothing was changed",
    };
    let said = |change: &&Change| match change.first() {
        Some(first) => format!("{}: {first}", change.id),
        None => change.id.clone(),
    };
    let said: Vec<String> = lost.iter().map(said).collect();
    let by_name = own.again(lost.iter().map(|own| ("--lose", own.id.as_str())));
    let next = match lost.iter().any(is_traffic) {
        true => format!("what the cause says; or, and nobody is served until the next release: {by_name}"),
        false => by_name,
    };
    Err(Failure::new(Exit::Refused, what)
        .cause(said.join(", "))
        .next(next))
}

async fn one(
    own: &Apply,
    loaded: &Loaded,
    wanted: &Wanted,
    found: Option<Found>,
    start: &str,
    output: &Output,
) -> Result<Outcome, Failure> {
    let site = loaded.site(&wanted.mark.foundation);
    let mut progress = Progress::new(&wanted.name, wanted.template.resources.len(), output);
    let agreed = Agreed {
        lost: &own.lose,
        shared: own.shared.contains(&wanted.name),
    };
    let outcome = apply::apply(site, wanted, found, agreed, start, &mut |event| {
        progress.tell(event)
    })
    .await;
    progress.end();
    outcome.map_err(|error| failed(own, wanted, error, output))
}

fn failed(own: &Apply, wanted: &Wanted, error: Error, output: &Output) -> Failure {
    match error {
        Error::Left { left, error } => {
            for left in &left {
                output.beside(stays(&wanted.name, left).trim_end());
            }
            failed(own, wanted, *error, output)
        }
        Error::Client(error) => broken(error).next(own.goes_on()),
        error @ Error::Stuck { .. } => {
            Failure::failed(chain(&error)).next(own.project.about(&format!("continue {}", wanted.name)))
        }
        error @ (Error::Loss { .. } | Error::Refused { .. } | Error::Anothers { .. }) => {
            Failure::new(Exit::Refused, chain(&error)).next(own.project.again("plan"))
        }
        error @ Error::ChangeSet { .. } => Failure::failed(chain(&error)).next(own.project.again("plan")),
    }
}

fn failure(own: &Apply, wanted: &Wanted, outcome: &Outcome) -> Option<Failure> {
    let Outcome::Failed { status, cause, .. } = outcome else {
        return None;
    };
    let next = match status.0.as_str() {
        "UPDATE_ROLLBACK_FAILED" => {
            let why = cause.as_ref().map_or("", |cause| cause.why.as_str());
            out_of(&own.project, &wanted.name, why)
        }
        _ => format!("{}, when the cause is gone", own.again([])),
    };
    let failure = Failure::failed(format!("{} failed and is {}", wanted.name, status.0)).next(next);
    Some(match cause {
        Some(cause) => failure.cause(cause.to_string()),
        None => failure,
    })
}

fn summary(done: &[Done]) -> String {
    let made = done.iter().filter(|done| done.outcome.is_done()).count();
    let rest = done.len() - made;
    format!("{made} stacks made or changed, {rest} as they were\n")
}

/// What could not be deleted costs on, and only a person can take it away.
fn stays(stack: &str, left: &Cause) -> String {
    format!(
        "warning: {stack}: {} ({}) could not be deleted, and no stack holds it any more: {}\n",
        clean(&left.physical),
        clean(&left.kind),
        clean(&left.why)
    )
}

/// What happens, as it happens: one moving line on a terminal, else a line for everything that is done or failed.
pub struct Progress<'o> {
    output: &'o Output,
    stack: String,
    bar: Option<ProgressBar>,
    done: usize,
    all: usize,
}

impl<'o> Progress<'o> {
    pub fn new(stack: &str, all: usize, output: &'o Output) -> Self {
        let bar = (output.terminal && !output.json).then(|| {
            let style = ProgressStyle::with_template("{spinner} {prefix}  {wide_msg}")
                .expect("the template is one of indicatif's");
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar.set_prefix(stack.to_owned());
            bar
        });
        Self {
            output,
            stack: stack.to_owned(),
            bar,
            done: 0,
            all,
        }
    }

    pub fn tell(&mut self, event: &Event) {
        let is_done = event.status.0.ends_with("_COMPLETE");
        let is_bad = event.status.is_failure();
        self.done += usize::from(is_done && event.resource != self.stack);
        let why = event.why.as_deref().filter(|_| is_bad).unwrap_or_default();
        let line = format!(
            "{}  {} {} {}",
            self.stack,
            event.status.0,
            event.resource,
            clean(why)
        );
        let line = line.trim_end();
        match &self.bar {
            Some(bar) if is_bad => {
                bar.suspend(|| {
                    self.output
                        .say(&format!("{}\n", self.output.tone(Tone::Bad, line)))
                });
            }
            Some(bar) => bar.set_message(format!(
                "{}/{} {} {}",
                self.done, self.all, event.status.0, event.resource
            )),
            None if (is_done || is_bad) && !self.output.json => self.output.say(&format!("{line}\n")),
            None => {}
        }
    }

    pub fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use ::aws::{change::Deed, price::Price};
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        own: Apply,
    }

    #[test]
    fn data_goes_by_name_only() {
        let lost = |id: &str, loss| Change {
            id: id.to_owned(),
            kind: "AWS::RDS::DBInstance".to_owned(),
            deed: Deed::Remove,
            properties: Vec::new(),
            loss,
        };
        let plan = |changes: Vec<Change>| Planned {
            stack: "vend-production-shop-live".to_owned(),
            region: "eu-central-1".to_owned(),
            doing: Doing::Change,
            changes,
            cents_before: None,
            price: Price { cents: 0, unknown: 0 },
        };
        let plans = [
            plan(vec![lost("Database", Some(Loss::Lost)), lost("Group", None)]),
            plan(vec![
                lost("Files", Some(Loss::Left)),
                lost("Old", Some(Loss::Snapshot)),
            ]),
        ];
        let own = |names: &[&str]| {
            let named = names.iter().flat_map(|name| ["--lose", name]);
            Line::parse_from(["apply", "--yes"].into_iter().chain(named)).own
        };
        // `--yes` agrees to no loss, and one name not to another's.
        let said = |names: &[&str]| format!("{:?}", refuse(&own(names), &plans).unwrap_err());
        assert!(
            said(&[]).contains("--lose Database --lose Files --lose Old"),
            "{}",
            said(&[])
        );
        let rest = said(&["Database", "Old", "Group"]);
        assert!(
            rest.contains("cause: Some(\"Files\")")
                && rest.contains("--lose Database --lose Old --lose Group --lose Files"),
            "{rest}"
        );
        assert!(refuse(&own(&["Database", "Files", "Old"]), &plans).is_ok());
        let serves = [plan(vec![lost("GreenGroup", Some(Loss::Traffic))])];
        let said = format!("{:?}", refuse(&own(&["Database"]), &serves).unwrap_err());
        assert!(
            said.contains("hosts would go that serve") && said.contains("so that blue serves"),
            "{said}"
        );
        assert!(refuse(&own(&["GreenGroup"]), &serves).is_ok());
        assert!(refuse(&own(&[]), &plans[..0]).is_ok());
    }

    #[test]
    fn what_cloudformation_refuses_is_not_begun() {
        let plan = |doing| Planned {
            stack: "vend-production-shop-live".to_owned(),
            region: "eu-central-1".to_owned(),
            doing,
            changes: Vec::new(),
            cents_before: None,
            price: Price { cents: 0, unknown: 0 },
        };
        let own = Line::parse_from(["apply", "--branch", "feature/login"]).own;
        let why = || "LogsBucket: it exists".to_owned();
        let said = format!(
            "{:?}",
            refuse_invalid(&own, &[plan(Doing::Invalid { why: why() })]).unwrap_err()
        );
        assert!(
            said.contains("vend-production-shop-live: LogsBucket: it exists")
                && said.contains("vend aws plan --branch feature/login"),
            "{said}"
        );
        let said = own.project.again("apply");
        assert_eq!(said, "vend aws apply --branch feature/login");
        assert!(refuse_invalid(&own, &[plan(Doing::Later { why: why() })]).is_ok());
    }

    /// Who types what the answer says next gets on, however much has to be agreed to.
    #[test]
    fn what_was_agreed_to_is_agreed_to_the_next_time() {
        let arguments = ["apply", "shop", "--lose", "A", "--shared", "vend-f", "--anew"];
        let own = Line::parse_from(arguments).own;
        assert_eq!(
            own.again([("--lose", "B")]),
            "vend aws apply shop --anew --lose A --shared vend-f --lose B"
        );
        assert_eq!(
            own.goes_on(),
            "vend aws apply shop --anew --lose A --shared vend-f: it goes on where it was"
        );
    }

    #[test]
    fn what_stays_outside_every_stack_is_told() {
        let left = Cause {
            resource: "Balancer".into(),
            kind: "AWS::ElasticLoadBalancingV2::LoadBalancer".into(),
            physical: "arn:lb".into(),
            why: "it is protected".into(),
        };
        let said = stays("s", &left);
        assert!(
            said.starts_with("warning: s: arn:lb (AWS::ElasticLoadBalancingV2::LoadBalancer) could not be"),
            "{said}"
        );
        let outcomes = [Outcome::Done { left: vec![left] }, Outcome::Unchanged];
        let done = outcomes.map(|outcome| Done {
            stack: "s".into(),
            outcome,
            unprotected: false,
        });
        assert_eq!(summary(&done), "1 stacks made or changed, 1 as they were\n");
    }
}
