//! The way back on AWS. While the half before still runs, it gets the traffic again: parameters of the stack change, and
//! nothing else. Else its commit is released again, by the flow.

use ::aws::{
    live::{
        fleet,
        half::{self, Half},
        release::{self, Push, Release},
        turn::{self, Taken, Turn},
    },
    stack::{self, Stack},
    watch,
};
use clap::Args;
use serde::Serialize;

use super::{
    Exit, Failure, agreed,
    apply::Progress,
    broken,
    home::{Home, Spot, Target},
    project::Files,
    push::{no_flow, resolved, start},
};
use crate::output::{Output, clean};

/// Releases among which an earlier one is looked for.
const LOOKED: usize = 50;

#[derive(Debug, Args)]
pub struct Rollback {
    /// An environment, or the branch of one that is a branch's.
    environment: String,
    #[command(flatten)]
    files: Files,
    /// The commit to go back to, released again. [default: the half before, or the release before]
    #[arg(long, value_name = "COMMIT", conflicts_with = "only")]
    to: Option<String>,
    /// Only this stack, where releases go into several.
    #[arg(long, value_name = "STACK")]
    only: Vec<String>,
    /// Also where `deploy.migrate` is irreversible: the data stays as the newer release left it.
    #[arg(long)]
    across_migrations: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub struct Retire {
    /// An environment, or the branch of one that is a branch's.
    environment: String,
    #[command(flatten)]
    files: Files,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// One stack, and the parameters that it gets.
struct Move<'h> {
    target: Target<'h>,
    stack: Stack,
    values: Vec<(String, String)>,
    says: String,
}

/// What was done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "done")]
enum Done {
    /// The half before has the traffic.
    Turned { stacks: Vec<String> },
    /// An earlier commit is being released.
    Started { commit: String, release: String },
    /// It was on its way already.
    Running { commit: String, release: String },
    /// Halves without traffic stopped.
    Retired { stacks: Vec<String> },
    /// No half ran without traffic.
    Nothing,
}

pub async fn run(own: &Rollback, output: &Output) -> Result<(), Failure> {
    let name = std::slice::from_ref(&own.environment);
    let home = own.files.home()?.knowing(name).await?;
    let spot = home.spot(&own.environment)?;
    if own.to.is_none()
        && let Some(moves) = moves(&targets(&spot, &own.only)?, back).await?
    {
        own.uncrossed(&spot)?;
        well(&moves, spot.spec.scaling.min).await?;
        if !asked(&moves, "Turn the traffic back?", own.yes, output)? {
            return Err(Failure::failed("nothing was changed"));
        }
        // Of several targets some may still have the release.
        let end = match own.only.is_empty() {
            true => End::Forget,
            false => End::Leave,
        };
        let stacks = moved(&home, &spot, &moves, (back, end), output).await?;
        let name = spot.name();
        let across = match own.across_migrations {
            true => " --across-migrations",
            false => "",
        };
        output.show(&Done::Turned { stacks }, |_| {
            format!("the half before has the traffic of {name}; the other still runs\nnext: vend aws retire {name}\nundo: vend aws rollback {name}{across}\n")
        });
        return Ok(());
    }
    match own.only.is_empty() {
        true => again(own, &home, &spot, output).await,
        false => Err(Failure::failed("nothing ran there before that still runs")
            .next("the same without --only: it releases the commit before into all of them")),
    }
}

impl Rollback {
    /// The commit, or what its id begins with: what else names one is asked of git.
    fn named(&self, to: &str) -> Result<String, Failure> {
        let is_id = (4..=40).contains(&to.len()) && to.bytes().all(|byte| byte.is_ascii_hexdigit());
        match is_id {
            true => Ok(to.to_ascii_lowercase()),
            false => resolved(&self.files.dir, to),
        }
    }

    /// Refuses to go back across a migration that cannot be undone. Which releases brought one, no stack says: what the
    /// environment says of its migrations holds for all of them.
    fn uncrossed(&self, spot: &Spot<'_>) -> Result<(), Failure> {
        let migrate = spot.spec.deploy.migrate.as_ref();
        let Some(migrate) = migrate.filter(|own| own.irreversible && !self.across_migrations) else {
            return Ok(());
        };
        let name = spot.name();
        let to = self.to.iter().map(|commit| format!(" --to {commit}"));
        let only = self.only.iter().map(|stack| format!(" --only {stack}"));
        let rest: String = to.chain(only).collect();
        let what =
            format!("an earlier release of {name} may not work with the data, and nothing was changed");
        Err(Failure::refused(what)
            .cause(format!(
                "the migration {} is marked irreversible in vend.yaml",
                migrate.script
            ))
            .next(format!(
                "bring the data back first, then vend aws rollback {name}{rest} --across-migrations"
            )))
    }
}

/// The targets that are asked for; all of them, when none is.
fn targets<'h>(spot: &Spot<'h>, only: &[String]) -> Result<Vec<Target<'h>>, Failure> {
    let all = spot.targets();
    if let Some(unknown) = only
        .iter()
        .find(|own| all.iter().all(|target| target.stack != **own))
    {
        let known: Vec<&str> = all.iter().map(|target| target.stack).collect();
        return Err(Failure::new(
            Exit::NotFound,
            format!("{} has no stack `{unknown}`", spot.name()),
        )
        .cause(format!("these are there: {}", known.join(", "))));
    }
    let is_asked = |target: &Target<'_>| only.is_empty() || only.iter().any(|own| own == target.stack);
    Ok(all.into_iter().filter(is_asked).collect())
}

pub async fn retire(own: &Retire, output: &Output) -> Result<(), Failure> {
    let name = std::slice::from_ref(&own.environment);
    let home = own.files.home()?.knowing(name).await?;
    let spot = home.spot(&own.environment)?;
    let name = spot.name();
    let mut stacks = Vec::new();
    let mut all = Vec::new();
    // One of several may be as it should be already.
    for target in spot.targets() {
        all.extend(moves(&[target], idle).await?);
    }
    let question = format!("Stop it? {name} then goes back by a release only.");
    if !all.is_empty() && !asked(all.iter().flatten(), &question, own.yes, output)? {
        return Err(Failure::failed("nothing was changed"));
    }
    for moves in all {
        stacks.extend(moved(&home, &spot, &moves, (idle, End::Leave), output).await?);
    }
    let (done, said) = match stacks.is_empty() {
        true => (Done::Nothing, format!("nothing of {name} runs without traffic\n")),
        false => (
            Done::Retired { stacks },
            format!("what ran of {name} without traffic is stopped\n"),
        ),
    };
    output.show(&done, |_| said);
    Ok(())
}

/// The parameters that turn the traffic to the half before, and a sentence about it.
fn back(halves: &[Half]) -> Option<(Vec<(String, String)>, String)> {
    let (now, then) = (half::serving(halves)?, half::spare(halves)?);
    let says = format!(
        "the traffic goes from {} ({}) back to {} ({})",
        now.image, now.word, then.image, then.word
    );
    Some((half::all_to(halves, then.word), says))
}

/// The parameters that stop what runs without traffic.
fn idle(halves: &[Half]) -> Option<(Vec<(String, String)>, String)> {
    let serving = half::serving(halves).filter(|half| half.weight > 0)?;
    let mut others = halves.iter().filter(|half| half.word != serving.word);
    let idle = others.find(|half| half.runs && half.weight == 0)?;
    let says = format!("{} ({}) stops", idle.image, idle.word);
    Some((vec![(idle.id("Runs"), "no".to_owned())], says))
}

/// What becomes of what is known of the release that went live last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Leave,
    /// Its half has no traffic any more: a release that waits, and began before it, may follow.
    Forget,
}

type Find = fn(&[Half]) -> Option<(Vec<(String, String)>, String)>;

/// What `find` finds in each target. None: in one of them there is nothing of it.
async fn moves<'h>(targets: &[Target<'h>], find: Find) -> Result<Option<Vec<Move<'h>>>, Failure> {
    let mut all = Vec::new();
    for &target in targets {
        let stack = target.still().await?;
        let Some((values, says)) = find(&half::halves(&stack)) else {
            return Ok(None);
        };
        all.push(Move {
            target,
            stack,
            values,
            says,
        });
    }
    Ok(Some(all))
}

/// Nobody is sent to a half that has fewer healthy hosts than a release needs.
async fn well(moves: &[Move<'_>], least: u32) -> Result<(), Failure> {
    for own in moves {
        let halves = half::halves(&own.stack);
        let Some(then) = half::spare(&halves) else {
            continue;
        };
        let hosts = fleet::hosts(own.target.client(), &own.stack, then).await;
        let hosts = hosts.map_err(broken)?;
        let well = hosts.iter().filter(|host| host.health == "healthy").count();
        if well < least as usize {
            let what = format!(
                "{} has {well} healthy hosts in its {} half, and needs {least}",
                own.target.stack,
                then.word.to_lowercase()
            );
            return Err(Failure::failed(what).next(
                "vend aws hosts says why; vend aws rollback ENV --to COMMIT releases an earlier commit again",
            ));
        }
    }
    Ok(())
}

fn asked<'m>(
    moves: impl IntoIterator<Item = &'m Move<'m>>,
    question: &str,
    yes: bool,
    output: &Output,
) -> Result<bool, Failure> {
    if !output.json {
        for own in moves {
            output.line(&format!("{}: {}", own.target.stack, clean(&own.says)));
        }
    }
    agreed(question, yes, output)
}

/// Takes the environment's turn, looks again, and moves. Gives the stacks that were changed.
async fn moved(
    home: &Home,
    spot: &Spot<'_>,
    shown: &[Move<'_>],
    (find, end): (Find, End),
    output: &Output,
) -> Result<Vec<String>, Failure> {
    let turn = taken(home, spot).await?;
    let mut done = all(spot, shown, find, &turn, output).await;
    if done.is_ok()
        && end == End::Forget
        && let Err(error) = turn.forget_newest().await
    {
        done = Err(broken(error).next(format!("vend aws hosts --environment {}", spot.name())));
    }
    let left = turn.leave().await.map_err(broken);
    let done = done?;
    left.map(|()| done)
}

/// Takes the environment's turn, which nobody else may have.
pub async fn taken<'h>(home: &'h Home, spot: &Spot<'_>) -> Result<Turn<'h>, Failure> {
    let (_, site) = home.pipeline();
    let arn = &site.caller().await.map_err(broken)?.arn;
    let owner = turn::owner(arn, crate::clock::bits());
    let now = crate::clock::now();
    let taken = turn::take(&site.client, &home.table(), spot.name(), owner, now).await;
    match taken.map_err(broken)? {
        Taken::Own(turn) => Ok(turn),
        Taken::Held(holder) => Err(busy(spot.name(), holder)),
    }
}

/// It is somebody else's turn.
fn busy(name: &str, holder: Option<turn::Holder>) -> Failure {
    let failure = Failure::failed(format!("a release or somebody else moves {name} just now"))
        .next(format!("vend aws releases --environment {name}"));
    let Some(holder) = holder else {
        return failure;
    };
    let until = match holder.until {
        Some(until) => format!("until {until}, unless it is renewed"),
        None => "for good: nobody can read until when".to_owned(),
    };
    failure.cause(format!("{} has its turn {until}", clean(&holder.owner)))
}

async fn all(
    spot: &Spot<'_>,
    shown: &[Move<'_>],
    find: Find,
    turn: &Turn<'_>,
    output: &Output,
) -> Result<Vec<String>, Failure> {
    let targets: Vec<Target<'_>> = shown.iter().map(|own| own.target).collect();
    // What was shown may be old by now; from here on nobody else moves it.
    let now = moves(&targets, find).await?.unwrap_or_default();
    let values = |moves: &[Move<'_>]| moves.iter().map(|own| own.values.clone()).collect::<Vec<_>>();
    if values(&now) != values(shown) {
        let what = format!(
            "somebody else has moved {} meanwhile, and nothing was changed",
            spot.name()
        );
        return Err(Failure::failed(what).next(format!("vend aws hosts --environment {}", spot.name())));
    }
    let mut changed = Vec::new();
    for (index, own) in now.iter().enumerate() {
        if let Err(failure) = held(
            turn,
            spot,
            Box::pin(set(&own.target, &own.stack, &own.values, output)),
        )
        .await
        {
            // Those before it are done, and would be moved there and back by the same command.
            let rest: Vec<String> = now[index..]
                .iter()
                .map(|own| format!(" --only {}", own.target.stack))
                .collect();
            return Err(match now.len() {
                1 => failure,
                _ => failure.next(format!("vend aws rollback {}{}", spot.name(), rest.concat())),
            });
        }
        changed.push(own.target.stack.to_owned());
    }
    Ok(changed)
}

/// Does something within the turn, which must still be held.
pub async fn held(
    turn: &Turn<'_>,
    spot: &Spot<'_>,
    doing: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    if !turn.renew(crate::clock::now()).await.map_err(broken)? {
        let what = format!("the turn of {} ran out, and is somebody else's", spot.name());
        return Err(Failure::failed(what).next(format!("vend aws hosts --environment {}", spot.name())));
    }
    turn.during(doing, crate::clock::now).await
}

/// Gives a stack its parameters, and waits until CloudFormation is done.
pub async fn set(
    target: &Target<'_>,
    stack: &Stack,
    values: &[(String, String)],
    output: &Output,
) -> Result<(), Failure> {
    let (client, name) = (target.client(), target.stack);
    let mark = watch::mark(client, name).await.map_err(broken)?;
    if !stack::turn(client, stack, values).await.map_err(broken)? {
        return Ok(());
    }
    let mut progress = Progress::new(name, 1, output);
    let waited = watch::wait(client, &stack.id, mark, &mut |event| progress.tell(event)).await;
    progress.end();
    let (now, events) = waited.map_err(broken)?;
    let status = now.map_or_else(|| "gone".to_owned(), |stack| stack.status.0);
    if status == "UPDATE_COMPLETE" {
        return Ok(());
    }
    let failure = Failure::failed(format!("{name} is {status}")).next("vend aws status");
    Err(match watch::cause(name, &events) {
        Some(cause) => failure.cause(cause.to_string()),
        None => failure,
    })
}

/// Releases an earlier commit again.
async fn again(own: &Rollback, home: &Home, spot: &Spot<'_>, output: &Output) -> Result<(), Failure> {
    let (_, site) = home.pipeline();
    let to = own.to.as_deref().map(|to| own.named(to)).transpose()?;
    let (mut push, attempt) = earlier(home, spot, to.as_deref()).await?;
    own.uncrossed(spot)?;
    let name = spot.name();
    let commit = push.commit.get(..12).unwrap_or(&push.commit).to_owned();
    let attempt = match attempt {
        Attempt::New(attempt) => attempt,
        Attempt::Running(release) => {
            let running = Done::Running {
                commit: push.commit,
                release,
            };
            output.show(&running, |_| {
                format!("{commit} is on its way into {name} already\nnext: vend aws releases --environment {name}\n")
            });
            return Ok(());
        }
    };
    if !output.json {
        output.line(&format!(
            "{name}: {commit} by {} is built, baked and released again: nothing of it runs any more",
            clean(&push.author)
        ));
    }
    if !agreed("Release it again?", own.yes, output)? {
        return Err(Failure::failed("nothing was changed"));
    }
    push.sender.clone_from(&site.caller().await.map_err(broken)?.arn);
    let release = start(spot, &site.client, &push, attempt).await?;
    let started = Done::Started {
        commit: push.commit,
        release,
    };
    output.show(&started, |_| {
        format!("{commit} is being released into {name}\nnext: vend aws releases --environment {name}\n")
    });
    Ok(())
}

/// A release of a commit that was released before.
enum Attempt {
    /// The so-many-th.
    New(usize),
    /// One is on its way: whoever asks twice gets one.
    Running(String),
}

/// The push to release again, and which release of its commit that would be.
async fn earlier(home: &Home, spot: &Spot<'_>, to: Option<&str>) -> Result<(Push, Attempt), Failure> {
    let client = &home.pipeline().1.client;
    let found = release::list(client, &spot.flow().await?, LOOKED).await;
    let found = found.map_err(|error| no_flow(error, spot))?;
    let mut live: Option<String> = None;
    for own in &found {
        if !release::was_live(client, own).await.map_err(broken)? {
            continue;
        }
        let Some(push) = release::about(client, &own.arn).await.map_err(broken)?.push else {
            continue;
        };
        let newest = live.get_or_insert_with(|| push.commit.clone());
        let is_it = match to {
            Some(to) => push.commit.starts_with(to),
            None => push.commit != *newest,
        };
        if is_it {
            let own: Vec<&Release> = found.iter().filter(|other| other.is_of(&push.commit)).collect();
            for release in own.iter().filter(|own| own.is_running()) {
                // One that is live already keeps the half before for a while, and is no way back any more.
                if !release::was_live(client, release).await.map_err(broken)? {
                    return Ok((push, Attempt::Running(release.arn.clone())));
                }
            }
            return Ok((push, Attempt::New(own.len() + 1)));
        }
    }
    let name = spot.name();
    let what = match to {
        Some(to) => format!("no release of {to} went into {name}"),
        None => format!("{name} has no release to go back to"),
    };
    Err(Failure::new(Exit::NotFound, what)
        .cause(format!("the newest {LOOKED} releases were looked at"))
        .next(format!("vend aws releases --environment {name} --limit {LOOKED}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(word: &'static str, image: &str, weight: u32) -> Half {
        Half {
            word,
            runs: !image.is_empty(),
            image: image.into(),
            weight,
        }
    }

    #[test]
    fn the_half_before_gets_all_of_the_traffic() {
        let both = [half("Blue", "old", 0), half("Green", "new", 100)];
        let (values, says) = back(&both).unwrap();
        assert_eq!(values, half::all_to(&both, "Blue"));
        assert!(says.contains("from new (Green) back to old (Blue)"), "{says}");
        assert!(back(&[half("Blue", "old", 100), half("Green", "", 0)]).is_none());
        assert!(back(&[half("Blue", "only", 100)]).is_none());
    }

    #[test]
    fn what_has_traffic_never_stops() {
        let (values, _) = idle(&[half("Blue", "old", 0), half("Green", "new", 100)]).unwrap();
        assert_eq!(values, [("BlueRuns".to_owned(), "no".to_owned())]);
        assert!(idle(&[half("Blue", "old", 30), half("Green", "new", 70)]).is_none());
        assert!(idle(&[half("Blue", "old", 0), half("Green", "new", 0)]).is_none());
        assert!(idle(&[half("Blue", "only", 100)]).is_none());
    }
}
