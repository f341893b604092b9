//! Makes one stack as it shall be. What was begun by somebody who is gone is waited for; what a failed creation left goes
//! first; everything else goes by change set, so that nothing is done that could not have been shown.

use serde::Serialize;

use crate::{
    change::{self, Change, State},
    client, guard,
    plan::{self, Doing, Wanted, asked, body, dangers, role, ticket},
    protect,
    site::{Found, Site},
    stack::{self, Event, Held, Stack, Status},
    synth::{GUARD, Kind, MAX_INLINE_BYTES, Template},
    watch::{self, Cause},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("CloudFormation cannot change {stack}: {why}")]
    ChangeSet { stack: String, why: String },
    #[error("{stack} is {}, and can be neither changed nor made", .status.0)]
    Stuck { stack: String, status: Status },
    #[error("{stack} is not there, and is not made: {why}")]
    Refused { stack: String, why: String },
    /// The change itself is done, and what came after it failed.
    #[error("{error}")]
    Left {
        /// What could not be deleted with it, and is in no stack any more.
        left: Vec<Cause>,
        error: Box<Error>,
    },
    #[error("the file of {by} has changed {stack} meanwhile, and says something else of it")]
    Anothers { stack: String, by: String },
    #[error("{stack} would lose what nobody agreed to lose: {lost}")]
    Loss { stack: String, lost: String },
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    Done {
        /// What could not be deleted with it, and is in no stack any more.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        left: Vec<Cause>,
    },
    Unchanged,
    /// It was rolled back, or waits for somebody to roll it back.
    Failed {
        status: Status,
        cause: Option<Cause>,
        /// What could not be deleted, and is in no stack any more.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        left: Vec<Cause>,
    },
}

impl Outcome {
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. })
    }

    /// What no stack holds any more, and costs on.
    pub fn left(&self) -> &[Cause] {
        match self {
            Self::Done { left } | Self::Failed { left, .. } => left,
            Self::Unchanged => &[],
        }
    }
}

/// What somebody has agreed to.
#[derive(Debug, Clone, Copy)]
pub struct Agreed<'a> {
    /// The data that may be lost, by the ids of resources.
    pub lost: &'a [String],
    /// The foundation may be changed, although the file of another app made it as it is.
    pub shared: bool,
}

/// Makes the stack as it shall be. `start` names this attempt.
pub async fn apply(
    site: &Site,
    wanted: &Wanted,
    found: Option<Found>,
    agreed: Agreed<'_>,
    start: &str,
    tell: &mut dyn FnMut(&Event),
) -> Result<Outcome, Error> {
    let mut found = found;
    if let Some(Found { stack, .. }) = &found
        && stack.status.is_moving()
    {
        let now = begun(site, wanted, stack).await?;
        found = now.filter(|stack| !stack.status.is_gone()).map(Found::from);
        // What was planned was planned of what was there before.
        if let Some(by) = found.as_ref().and_then(|found| anothers(wanted, found))
            && !agreed.shared
        {
            let stack = wanted.name.clone();
            return Err(Error::Anothers { stack, by });
        }
    }
    let agreed = agreed.lost;
    let doing = plan::doing(wanted, found.as_ref());
    let is_touched = |stack: &Stack| doing != Doing::Nothing || !stack.status.is_good();
    if let Some(Found { stack, .. }) = found.as_ref().filter(|found| is_touched(&found.stack)) {
        guard::restore(&site.client, wanted, stack).await?;
    }
    match (doing, found) {
        (Doing::Nothing, _) => unchanged(site, wanted).await,
        (Doing::Change, Some(found)) => update(site, wanted, &found.stack, agreed, tell).await,
        (Doing::CreateAgain, Some(found)) => {
            clear(site, wanted, &found.stack, start, tell).await?;
            create(site, wanted, agreed, start, tell).await
        }
        (Doing::Create, _) => create(site, wanted, agreed, start, tell).await,
        (Doing::Refused { why }, _) => Err(Error::Refused {
            stack: wanted.name.clone(),
            why,
        }),
        (_, found) => Err(Error::Stuck {
            stack: wanted.name.clone(),
            status: found.map_or_else(|| Status("gone".into()), |found| found.stack.status),
        }),
    }
}

/// The other app whose file made the stack otherwise than this one's would.
fn anothers(wanted: &Wanted, found: &Found) -> Option<String> {
    let mark = found.mark.as_ref()?;
    let is_other = mark.by != wanted.mark.by && mark.digest != wanted.mark.digest;
    mark.by.clone().filter(|_| is_other)
}

/// Waits for what somebody began who is gone. Hosts of containers that leave with it do not hold it up.
async fn begun(site: &Site, wanted: &Wanted, stack: &Stack) -> Result<Option<Stack>, client::Error> {
    let leaves = wanted.template.resource(protect::HOSTS).is_none() || stack.status.is_ending();
    let leaving = match leaves {
        true => stack::resources(&site.client, &stack.id).await?,
        false => Vec::new(),
    };
    protect::release(&site.client, &leaving).await?;
    let (now, _) = protect::wait(&site.client, &stack.id, None, &leaving, &mut |_| {}).await?;
    Ok(now)
}

/// Takes away what a failed creation left.
async fn clear(
    site: &Site,
    wanted: &Wanted,
    stack: &Stack,
    start: &str,
    tell: &mut dyn FnMut(&Event),
) -> Result<(), Error> {
    let role = role(site, wanted).await?;
    // It was protected when it was begun, and holds nothing, or what could not be rolled back.
    if stack.is_protected {
        stack::protect(&site.client, &stack.name, false).await?;
    }
    let held = stack::resources(&site.client, &stack.id).await?;
    protect::release(&site.client, &held).await?;
    guard::open(&site.client, wanted, &held, tell).await?;
    let mark = watch::mark(&site.client, &stack.id).await?;
    stack::delete(
        &site.client,
        &stack.id,
        role.as_deref(),
        &[],
        &token("clear", start),
    )
    .await?;
    let (now, _) = protect::wait(&site.client, &stack.id, mark, &held, tell).await?;
    match now {
        Some(stack) if !stack.status.is_gone() => Err(Error::Stuck {
            stack: stack.name,
            status: stack.status,
        }),
        _ => Ok(()),
    }
}

fn token(what: &str, start: &str) -> String {
    format!(
        "vend-{}",
        &crate::sign::digest(format!("{what}|{start}").as_bytes())[..24]
    )
}

async fn create(
    site: &Site,
    wanted: &Wanted,
    agreed: &[String],
    start: &str,
    tell: &mut dyn FnMut(&Event),
) -> Result<Outcome, Error> {
    let is_large = wanted.template.yaml().len() > MAX_INLINE_BYTES;
    if !(is_large && wanted.mark.kind == Kind::Foundation) {
        let outcome = begin(site, wanted, &wanted.template, start, tell).await?;
        return guarded(site, wanted, outcome, tell).await;
    }
    // The bucket that such a template must lie in is the foundation's own: it begins with that.
    let seed = seed(&wanted.template);
    match begin(site, wanted, &seed, start, tell).await? {
        Outcome::Done { .. } => {}
        other => return Ok(other),
    }
    match stack::one(&site.client, &wanted.name).await? {
        Some(stack) => update(site, wanted, &stack, agreed, tell).await,
        None => Err(Error::Stuck {
            stack: wanted.name.clone(),
            status: Status("gone".into()),
        }),
    }
}

/// What must be there before a large template can be: the bucket of templates, all that it needs, and its policy.
fn seed(template: &Template) -> Template {
    let mut seed = template.part(&["TemplatesBucket", "TemplatesBucketPolicy", "LogsBucketPolicy"]);
    // Without the mark: it is not what it shall be yet.
    seed.outputs.clear();
    seed
}

async fn begin(
    site: &Site,
    wanted: &Wanted,
    template: &Template,
    start: &str,
    tell: &mut dyn FnMut(&Event),
) -> Result<Outcome, Error> {
    let body = body(site, wanted, template).await?;
    let role = role(site, wanted).await?;
    // A creation that fails could not take back what is protected: that comes when all of it is made.
    let guards: &[(&str, &str)] = match wanted.is_guarded() {
        true => &[(GUARD, "no")],
        false => &[],
    };
    let guards = (wanted.is_guarded(), guards);
    let token = token(&wanted.name, start);
    let what = (&body, wanted.tags.as_slice());
    stack::create(&site.client, &wanted.name, what, role.as_deref(), guards, &token).await?;
    settle(site, wanted, None, &[], tell).await
}

async fn update(
    site: &Site,
    wanted: &Wanted,
    stack: &Stack,
    agreed: &[String],
    tell: &mut dyn FnMut(&Event),
) -> Result<Outcome, Error> {
    let (state, guards) = changes(site, wanted, stack).await?;
    let ticket = ticket(wanted, &stack.at, guards);
    let changes = match state {
        State::Ready(changes) => changes,
        State::Empty | State::Making => {
            change::forget(&site.client, &wanted.name, &ticket).await?;
            let outcome = unchanged(site, wanted).await?;
            return match guard::is_open(wanted, stack) {
                true => guarded(site, wanted, Outcome::Done { left: Vec::new() }, tell).await,
                false => Ok(outcome),
            };
        }
        State::Failed(why) => {
            change::forget(&site.client, &wanted.name, &ticket).await?;
            let stack = wanted.name.clone();
            return Err(Error::ChangeSet { stack, why });
        }
    };
    let lost: Vec<&Change> = dangers(&changes)
        .filter(|change| !agreed.contains(&change.id))
        .collect();
    if !lost.is_empty() {
        change::forget(&site.client, &wanted.name, &ticket).await?;
        let said = |change: &&Change| {
            let first = change
                .first()
                .map(|first| format!(": {first}"))
                .unwrap_or_default();
            format!("{} ({}){first}", change.id, change.kind)
        };
        let lost: Vec<String> = lost.iter().map(said).collect();
        return Err(Error::Loss {
            stack: wanted.name.clone(),
            lost: lost.join(", "),
        });
    }
    carry_out(site, wanted, stack, (&changes, guards), tell).await
}

/// Does what was asked, and protects what came of it.
async fn carry_out(
    site: &Site,
    wanted: &Wanted,
    stack: &Stack,
    (changes, guards): (&[Change], Option<&str>),
    tell: &mut dyn FnMut(&Event),
) -> Result<Outcome, Error> {
    let client = &site.client;
    let leaving = leaving(site, wanted, changes).await?;
    let mark = watch::mark(client, &wanted.name).await?;
    // First: who may not do that would change a stack that then waits for ever.
    protect::release(client, &leaving).await?;
    let opened = guard::open(client, wanted, &leaving, tell).await?;
    let ticket = ticket(wanted, &stack.at, guards);
    if let Err(error) = change::execute(client, &wanted.name, &ticket).await {
        // What got no answer may have begun, and then takes away what leaves.
        if matches!(error, client::Error::Refused { .. }) {
            guard::close(client, &opened, tell).await;
        }
        return Err(error.into());
    }
    // What cannot be seen to its end goes on there: what leaves must then be able to.
    let outcome = settle(site, wanted, mark, &leaving, tell).await?;
    if let Outcome::Failed { status, .. } = &outcome {
        if !status.is_moving() {
            guard::close(client, &opened, tell).await;
        }
        return Ok(outcome);
    }
    let left = outcome.left().to_vec();
    let is_open = guards.is_some() || guard::is_open(wanted, stack);
    let rest = async {
        // Not at every change: who took the protection away had a reason.
        if guard::surely_makes(wanted, changes) && !stack.is_protected {
            stack::protect(client, &wanted.name, true).await?;
        }
        guard::close_stayed(client, wanted, changes, &opened, tell).await?;
        let_go(site, wanted).await?;
        match is_open {
            true => guarded(site, wanted, outcome, tell).await,
            false => Ok(outcome),
        }
    };
    rest.await.map_err(|error: Error| match left.is_empty() {
        true => error,
        false => Error::Left {
            left,
            error: Box::new(error),
        },
    })
}

/// What a change would do, and what becomes of the stack's protection with it: where something is made that has one, it comes after.
async fn changes(
    site: &Site,
    wanted: &Wanted,
    stack: &Stack,
) -> Result<(State, Option<&'static str>), client::Error> {
    const OPEN: Option<&str> = Some("no");
    let state = asked(site, wanted, stack, None).await?;
    match &state {
        State::Ready(changes) if guard::makes(wanted, changes) && !guard::is_open(wanted, stack) => {
            change::forget(&site.client, &wanted.name, &ticket(wanted, &stack.at, None)).await?;
            Ok((asked(site, wanted, stack, OPEN).await?, OPEN))
        }
        _ => Ok((state, None)),
    }
}

/// How often what was made is protected anew, when others change the stack meanwhile.
const TRIES: usize = 5;

/// Protects what was made, if all went well. A release that changes the stack meanwhile is waited for.
async fn guarded(
    site: &Site,
    wanted: &Wanted,
    outcome: Outcome,
    tell: &mut dyn FnMut(&Event),
) -> Result<Outcome, Error> {
    let Outcome::Done { left } = outcome else {
        return Ok(outcome);
    };
    let client = &site.client;
    let on = [(GUARD.to_owned(), "yes".to_owned())];
    let mut tries = 0..TRIES;
    loop {
        let stack = stack::one(client, &wanted.name).await?;
        let Some(stack) = stack.filter(|stack| guard::is_open(wanted, stack)) else {
            return Ok(Outcome::Done { left });
        };
        let is_last = tries.next().is_none();
        if stack.status.is_moving() && !is_last {
            watch::wait(client, &stack.id, None, &mut |_| {}).await?;
            continue;
        }
        let mark = watch::mark(client, &wanted.name).await?;
        match stack::turn(client, &stack, &on).await {
            Err(error) if !is_last && error.message().contains("_IN_PROGRESS") => {}
            Err(error) => return Err(error.into()),
            Ok(false) => return Ok(Outcome::Done { left }),
            Ok(true) => return Ok(after(left, settle(site, wanted, mark, &[], tell).await?)),
        }
    }
}

/// How both changes together went: what was asked for is done, and only its protection may have failed.
fn after(left: Vec<Cause>, closed: Outcome) -> Outcome {
    match closed {
        Outcome::Failed {
            status, mut cause, ..
        } => {
            if let Some(cause) = &mut cause {
                cause.why = format!("all is made, and not protected yet: {}", cause.why);
            }
            Outcome::Failed { status, cause, left }
        }
        _ => Outcome::Done { left },
    }
}

/// What leaves the stack with these changes, and refuses to: hosts of containers, and what is protected.
async fn leaving(site: &Site, wanted: &Wanted, changes: &[Change]) -> Result<Vec<Held>, client::Error> {
    let leaves: Vec<&str> = changes
        .iter()
        .filter(|change| guard::leaves(change))
        .map(|change| change.id.as_str())
        .collect();
    if leaves.is_empty() {
        return Ok(Vec::new());
    }
    let mut held = stack::resources(&site.client, &wanted.name).await?;
    held.retain(|held| leaves.contains(&held.id.as_str()));
    Ok(held)
}

/// Nothing was to be done but what the last change may have been kept from.
async fn unchanged(site: &Site, wanted: &Wanted) -> Result<Outcome, Error> {
    let_go(site, wanted).await?;
    Ok(Outcome::Unchanged)
}

/// From now on a group of hosts of containers shrinks without ECS asking for each host.
async fn let_go(site: &Site, wanted: &Wanted) -> Result<(), client::Error> {
    if wanted.template.resource(protect::HOSTS).is_none() {
        return Ok(());
    }
    let held = stack::resources(&site.client, &wanted.name).await?;
    protect::release(&site.client, &held).await
}

/// Waits for what was begun, and says how it ended. Of what is `leaving` the hosts of containers are let go meanwhile.
async fn settle(
    site: &Site,
    wanted: &Wanted,
    mark: Option<String>,
    leaving: &[Held],
    tell: &mut dyn FnMut(&Event),
) -> Result<Outcome, Error> {
    let (now, events) = protect::wait(&site.client, &wanted.name, mark, leaving, tell).await?;
    let status = now.map_or_else(|| Status("DELETE_COMPLETE".into()), |stack| stack.status);
    let left = watch::left(&events);
    if status.is_good() {
        return Ok(Outcome::Done { left });
    }
    let cause = match watch::cause(&wanted.name, &events) {
        Some(cause) => Some(watch::asked(&site.client, cause).await),
        None => None,
    };
    // What a stack that stands still on its way back could not delete, it holds.
    let left = if status.is_usable() { left } else { Vec::new() };
    Ok(Outcome::Failed { status, cause, left })
}

#[cfg(test)]
mod tests;
