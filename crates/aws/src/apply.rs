//! Makes one stack as it shall be. What was begun by somebody who is gone is waited for; what a failed creation left goes
//! first; everything else goes by change set, so that nothing is done that could not have been shown.

use serde::Serialize;

use crate::{
    change::{self, Change, State},
    client,
    plan::{self, Doing, Wanted, asked, body, dangers, role, ticket},
    site::{Found, Site},
    stack::{self, Event, Stack, Status},
    synth::{Kind, MAX_INLINE_BYTES, Template},
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
    #[error("{stack} would lose data that nobody agreed to lose: {lost}")]
    Loss { stack: String, lost: String },
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    Done,
    Unchanged,
    /// It was rolled back, or waits for somebody to roll it back.
    Failed {
        status: Status,
        cause: Option<Cause>,
    },
}

/// Makes the stack as it shall be. `agreed`: the data that may be lost, by the ids of resources; `start` names this attempt.
pub async fn apply(
    site: &Site,
    wanted: &Wanted,
    found: Option<Found>,
    agreed: &[String],
    start: &str,
    tell: &mut dyn FnMut(&Event),
) -> Result<Outcome, Error> {
    let mut found = found;
    if let Some(Found { stack, .. }) = &found
        && stack.status.is_moving()
    {
        let (now, _) = watch::wait(&site.client, &stack.id, None, &mut |_| {}).await?;
        found = now.filter(|stack| !stack.status.is_gone()).map(Found::from);
    }
    match (plan::doing(wanted, found.as_ref()), found) {
        (Doing::Nothing, _) => Ok(Outcome::Unchanged),
        (Doing::Change, Some(found)) => update(site, wanted, &found.stack, agreed, tell).await,
        (Doing::CreateAgain, Some(found)) => {
            clear(site, wanted, &found.stack, start, tell).await?;
            create(site, wanted, agreed, start, tell).await
        }
        (Doing::Create, _) => create(site, wanted, agreed, start, tell).await,
        (_, found) => Err(Error::Stuck {
            stack: wanted.name.clone(),
            status: found.map_or_else(|| Status("gone".into()), |found| found.stack.status),
        }),
    }
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
    // It was protected when it was begun, and holds nothing.
    if stack.is_protected {
        stack::protect(&site.client, &stack.name, false).await?;
    }
    let mark = watch::mark(&site.client, &stack.id).await?;
    stack::delete(
        &site.client,
        &stack.id,
        role.as_deref(),
        &[],
        &token("clear", start),
    )
    .await?;
    let (now, _) = watch::wait(&site.client, &stack.id, mark, tell).await?;
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
        return begin(site, wanted, &wanted.template, start, tell).await;
    }
    // The bucket that such a template must lie in is the foundation's own: it begins with that.
    let seed = seed(&wanted.template);
    match begin(site, wanted, &seed, start, tell).await? {
        Outcome::Done => {}
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
    let guards = wanted.is_guarded();
    let token = token(&wanted.name, start);
    let what = (&body, wanted.tags.as_slice());
    stack::create(&site.client, &wanted.name, what, role.as_deref(), guards, &token).await?;
    settle(site, wanted, None, tell).await
}

async fn update(
    site: &Site,
    wanted: &Wanted,
    stack: &Stack,
    agreed: &[String],
    tell: &mut dyn FnMut(&Event),
) -> Result<Outcome, Error> {
    let ticket = ticket(wanted, &stack.at);
    let changes = match asked(site, wanted, stack).await? {
        State::Ready(changes) => changes,
        State::Empty | State::Making => {
            change::forget(&site.client, &wanted.name, &ticket).await?;
            return Ok(Outcome::Unchanged);
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
        let lost: Vec<String> = lost
            .iter()
            .map(|change| format!("{} ({})", change.id, change.kind))
            .collect();
        return Err(Error::Loss {
            stack: wanted.name.clone(),
            lost: lost.join(", "),
        });
    }
    let mark = watch::mark(&site.client, &wanted.name).await?;
    change::execute(&site.client, &wanted.name, &ticket).await?;
    settle(site, wanted, mark, tell).await
}

/// Waits for what was begun, and says how it ended.
async fn settle(
    site: &Site,
    wanted: &Wanted,
    mark: Option<String>,
    tell: &mut dyn FnMut(&Event),
) -> Result<Outcome, Error> {
    let (now, events) = watch::wait(&site.client, &wanted.name, mark, tell).await?;
    let status = now.map_or_else(|| Status("DELETE_COMPLETE".into()), |stack| stack.status);
    if status.is_good() {
        return Ok(Outcome::Done);
    }
    let cause = match watch::cause(&wanted.name, &events) {
        Some(cause) => Some(watch::asked(&site.client, cause).await),
        None => None,
    };
    Ok(Outcome::Failed { status, cause })
}

#[cfg(test)]
mod tests {
    use crate::synth;

    #[test]
    fn a_seed_is_small_and_whole() {
        let config: synth::Config = toml::from_str(
            "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\nfirewall = true\n\
             network = { zones = '3', nat = 'per-zone' }\n",
        )
        .unwrap();
        let stack = synth::foundation(&config, &"production".parse().unwrap()).unwrap();
        let seed = super::seed(&stack.template);
        assert!(seed.yaml().len() < synth::MAX_INLINE_BYTES / 2);
        for id in [
            "Key",
            "LogsBucket",
            "TemplatesBucket",
            "TemplatesBucketPolicy",
            "LogsBucketPolicy",
        ] {
            assert!(seed.resource(id).is_some(), "{id}");
        }
        assert!(seed.resource("Vpc").is_none() && seed.resource("Balancer").is_none());
    }
}
