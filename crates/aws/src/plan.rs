//! What would happen to one stack. A stack that is not there yet is planned without a change set: everything in it is new. One that
//! is there is asked by a change set, which is then kept for [`crate::apply`] or leaves nothing.

use serde::Serialize;

use crate::{
    bucket,
    change::{self, Body, Change, Deed, Loss, Order, State},
    client::Error,
    guard,
    live::half,
    mark::Mark,
    price::{List, Price},
    sign::digest,
    site::{Found, Site},
    stack::{Stack, Status},
    synth::{self, GUARD, Kind, MAX_INLINE_BYTES, Template},
    watch::Pace,
};

/// A stack as it shall be.
pub struct Wanted {
    pub name: String,
    /// The template with the mark.
    pub template: Template,
    pub mark: Mark,
    /// Keys and values.
    pub tags: Vec<(&'static str, String)>,
    pub price: Price,
    pub notes: Vec<String>,
    /// Why it is not made where it is not there.
    pub refused: Option<String>,
}

impl Wanted {
    /// `beside`: what lies in the bucket of templates for it, and is put there when this is another.
    pub fn new(platform: &str, stack: &synth::Stack, prices: &List, beside: &str) -> Self {
        let price = prices.of(&stack.template, stack.region.as_str());
        let mut mark = Mark::of(platform, stack, price.cents);
        if !beside.is_empty() {
            mark.digest = digest(format!("{}|{beside}", mark.digest).as_bytes())[..32].to_owned();
        }
        Self {
            name: stack.name.clone(),
            template: mark.on(&stack.template),
            mark,
            tags: stack.tags.clone(),
            price,
            notes: stack.notes.clone(),
            refused: stack.refused.clone(),
        }
    }

    /// As the file of this app wants it. Of a foundation, on which several may stand, its mark says that.
    pub fn by(mut self, app: &str) -> Self {
        if self.mark.kind == Kind::Foundation {
            self.mark.by = Some(app.to_owned());
            self.template = self.mark.on(&self.template);
        }
        self
    }

    /// Does it hold something that refuses to be deleted? Then the stack refuses too, before half of it is gone.
    pub fn is_guarded(&self) -> bool {
        self.template.is_guarded()
    }
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "doing")]
pub enum Doing {
    Create,
    /// What a failed creation left goes first; or what a change set named, and nobody made.
    CreateAgain,
    Change,
    Nothing,
    /// It needs something of another stack that is not there yet: the change set can be made only then.
    Later {
        why: String,
    },
    /// CloudFormation refuses the change.
    Invalid {
        why: String,
    },
    /// Something else is being done to it.
    Wait {
        status: Status,
    },
    /// It can be neither changed nor made.
    Stuck {
        status: Status,
    },
    /// It is not there, and none of its name is made any more.
    Refused {
        why: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub stack: String,
    pub region: String,
    #[serde(flatten)]
    pub doing: Doing,
    pub changes: Vec<Change>,
    /// US cents a month now and then; none for a stack that is not there.
    pub cents_before: Option<u64>,
    pub price: Price,
}

impl Plan {
    /// Is something replaced or lost that nobody can make again, or does what serves go?
    pub fn dangers(&self) -> impl Iterator<Item = &Change> {
        dangers(&self.changes)
    }
}

/// Changes by which data is lost, or left without a stack, or a half goes that serves.
pub fn dangers(changes: &[Change]) -> impl Iterator<Item = &Change> {
    changes.iter().filter(|change| change.loss.is_some())
}

/// What can be done with a stack in this state.
pub fn doing(wanted: &Wanted, found: Option<&Found>) -> Doing {
    match (by_state(wanted, found), &wanted.refused) {
        (Doing::Create | Doing::CreateAgain, Some(why)) => Doing::Refused { why: why.clone() },
        (doing, _) => doing,
    }
}

fn by_state(wanted: &Wanted, found: Option<&Found>) -> Doing {
    let Some(Found { stack, mark }) = found else {
        return Doing::Create;
    };
    let status = stack.status.clone();
    match mark {
        _ if status.is_gone() => Doing::Create,
        _ if status.is_moving() => Doing::Wait { status },
        // Neither can be created over.
        _ if status.is_stillborn() || status.is_review() => Doing::CreateAgain,
        Some(mark) if status.is_usable() && mark.is_same(&wanted.mark) && !guard::is_open(wanted, stack) => {
            Doing::Nothing
        }
        _ if status.is_usable() => Doing::Change,
        _ => Doing::Stuck { status },
    }
}

/// Is it without protection, and stays so? Somebody took it away, and an apply gives it back only when it makes what is protected.
pub fn stays_open(wanted: &Wanted, found: Option<&Found>, plan: &Plan) -> bool {
    let is_changed = matches!(plan.doing, Doing::Change | Doing::Nothing);
    let is_open = found.is_some_and(|found| !found.stack.is_protected);
    wanted.is_guarded() && is_changed && is_open && !guard::surely_makes(wanted, &plan.changes)
}

/// The plan of one stack. `keeps`: its change set stays, to be executed.
pub async fn plan(site: &Site, wanted: &Wanted, found: Option<&Found>, keeps: bool) -> Result<Plan, Error> {
    let mut plan = Plan {
        stack: wanted.name.clone(),
        region: site.client.region().to_owned(),
        doing: doing(wanted, found),
        changes: Vec::new(),
        cents_before: found.and_then(|found| found.mark.as_ref()).map(|mark| mark.cents),
        price: wanted.price,
    };
    match (&plan.doing, found) {
        (Doing::Create, _) if stands_elsewhere(site, wanted).await => {
            plan.doing = Doing::Invalid {
                why: ELSEWHERE.into(),
            };
        }
        (Doing::Create | Doing::CreateAgain, _) => {
            let new = wanted.template.resources.iter();
            plan.changes = new.map(|own| Change::add(&own.id, own.kind)).collect();
        }
        (Doing::Change, Some(found)) => match asked(site, wanted, &found.stack, None).await? {
            State::Ready(changes) => plan.changes = changes,
            // Only the stack that exports it will.
            State::Failed(why) if why.contains("No export named") => plan.doing = Doing::Later { why },
            State::Failed(why) => plan.doing = Doing::Invalid { why },
            State::Empty if guard::is_open(wanted, &found.stack) => plan.changes = guard::closing(wanted),
            State::Empty | State::Making => plan.doing = Doing::Nothing,
        },
        _ => {}
    }
    let is_asked = found.filter(|_| {
        matches!(
            plan.doing,
            Doing::Change | Doing::Later { .. } | Doing::Invalid { .. }
        )
    });
    if let Some(found) = is_asked.filter(|_| !keeps || plan.doing != Doing::Change) {
        change::forget(&site.client, &wanted.name, &ticket(wanted, &found.stack.at, None)).await?;
    }
    Ok(plan)
}

/// What CloudFormation would say of each role that is there, and what to do.
pub const ELSEWHERE: &str = "it is not there, and its roles are, so it stands in another region of the account, or something of it was left. \
     It cannot move: let `region` be what it was, or `vend aws destroy` with that first, or call the new one otherwise";

/// Is it a foundation that stands in another region?
async fn stands_elsewhere(site: &Site, wanted: &Wanted) -> bool {
    let mark = &wanted.mark;
    mark.kind == Kind::Foundation && site.has_roles(&mark.platform, &mark.foundation).await
}

/// Names one attempt to change a stack: from `at`, when it was changed last. The same attempt has the same ticket, in
/// another process too.
pub(crate) fn ticket(wanted: &Wanted, at: &str, guards: Option<&str>) -> String {
    let guards = guards.unwrap_or_default();
    let by = wanted.mark.by.as_deref().unwrap_or_default();
    let text = format!(
        "{}|{}|{}|{at}|{guards}|{by}",
        wanted.name, wanted.mark.digest, wanted.mark.cents
    );
    format!("vend-{}", &digest(text.as_bytes())[..24])
}

/// The changes of a stack that is there, by a change set, which stays. `guards`: what becomes of its protection; else it is as it was.
pub(crate) async fn asked(
    site: &Site,
    wanted: &Wanted,
    stack: &Stack,
    guards: Option<&str>,
) -> Result<State, Error> {
    let body = body(site, wanted, &wanted.template).await?;
    let role = role(site, wanted).await?;
    let ticket = ticket(wanted, &stack.at, guards);
    let is_known = |id: &str| wanted.template.parameters.iter().any(|(own, _)| own == id);
    let is_kept = |id: &&str| is_known(id) && (guards.is_none() || *id != GUARD);
    let order = Order {
        stack: &wanted.name,
        ticket: &ticket,
        body: &body,
        kept: stack
            .parameters
            .iter()
            .map(|(id, _)| id.as_str())
            .filter(is_kept)
            .collect(),
        given: guards.map(|value| (GUARD, value)),
        role: role.as_deref(),
        tags: &wanted.tags,
    };
    change::ask(&site.client, &order).await?;
    let mut state = ready(site, &wanted.name, &ticket).await?;
    if let State::Ready(changes) = &mut state {
        serving(changes, stack);
    }
    Ok(state)
}

/// Says which changes take away a half that serves: its traffic would go to one without hosts.
fn serving(changes: &mut [Change], stack: &Stack) {
    let halves = half::halves(stack);
    let busy = halves.iter().filter(|half| half.weight > 0);
    let busy: Vec<String> = busy
        .flat_map(|half| [half.id("Group"), half.id("Service")])
        .collect();
    let gone = changes.iter_mut().filter(|change| change.deed == Deed::Remove);
    for change in gone.filter(|change| busy.contains(&change.id)) {
        change.loss = Some(Loss::Traffic);
    }
}

/// Waits for a change set to be made.
pub(crate) async fn ready(site: &Site, stack: &str, ticket: &str) -> Result<State, Error> {
    let mut pace = Pace::new();
    loop {
        match change::state(&site.client, stack, ticket).await? {
            State::Making => pace.rest().await,
            state => return Ok(state),
        }
    }
}

/// Environments are made by a role that can make nothing else; the rest by who calls.
pub(crate) async fn role(site: &Site, wanted: &Wanted) -> Result<Option<String>, Error> {
    match wanted.mark.kind {
        Kind::Environment => {
            let role = site
                .stacks_role(&wanted.mark.platform, &wanted.mark.foundation)
                .await?;
            Ok(Some(role))
        }
        _ => Ok(None),
    }
}

/// How the template is sent: with the call when it is short enough, else from the foundation's bucket of templates.
pub(crate) async fn body(site: &Site, wanted: &Wanted, template: &Template) -> Result<Body, Error> {
    let text = template.yaml();
    if text.len() <= MAX_INLINE_BYTES {
        return Ok(Body::Inline(text));
    }
    let bucket = site
        .templates(&wanted.mark.platform, &wanted.mark.foundation)
        .await?;
    let key = format!("stacks/{}/{}.yaml", wanted.name, wanted.mark.digest);
    bucket::put(&site.client, &bucket, &key, text.into_bytes()).await?;
    Ok(Body::At(bucket::url(&site.client, &bucket, &key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        let config: synth::Config =
            toml::from_str("[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n")
                .unwrap();
        let stack = synth::foundation(&config, &"production".parse().unwrap()).unwrap();
        Wanted::new("vend", &stack, List::shipped(), "")
    }

    fn found(status: &str, mark: Option<Mark>) -> Found {
        Found {
            stack: Stack::fixture(status),
            mark,
        }
    }

    #[test]
    fn the_state_of_a_stack_says_what_can_be_done() {
        let wanted = wanted();
        let own = || Some(wanted.mark.clone());
        let other = || {
            Some(Mark {
                digest: "x".into(),
                ..wanted.mark.clone()
            })
        };
        let doing = |status: &str, mark| doing(&wanted, Some(&found(status, mark)));
        assert_eq!(super::doing(&wanted, None), Doing::Create);
        assert_eq!(doing("CREATE_COMPLETE", own()), Doing::Nothing);
        assert_eq!(doing("UPDATE_ROLLBACK_COMPLETE", own()), Doing::Nothing);
        assert_eq!(doing("UPDATE_COMPLETE", other()), Doing::Change);
        assert_eq!(doing("UPDATE_COMPLETE", None), Doing::Change);
        assert_eq!(doing("ROLLBACK_COMPLETE", None), Doing::CreateAgain);
        assert_eq!(doing("REVIEW_IN_PROGRESS", None), Doing::CreateAgain);
        assert!(matches!(doing("UPDATE_IN_PROGRESS", own()), Doing::Wait { .. }));
        assert!(matches!(
            doing("UPDATE_ROLLBACK_FAILED", own()),
            Doing::Stuck { .. }
        ));
        assert!(matches!(doing("DELETE_FAILED", own()), Doing::Stuck { .. }));
    }

    /// Its change was broken off before what it made was protected.
    #[test]
    fn a_stack_without_its_protection_is_not_as_it_shall_be() {
        let wanted = wanted();
        let mut found = found("CREATE_COMPLETE", Some(wanted.mark.clone()));
        for (value, doing) in [("no", Doing::Change), ("yes", Doing::Nothing)] {
            found.stack.parameters = vec![(GUARD.to_owned(), value.to_owned())];
            assert_eq!(super::doing(&wanted, Some(&found)), doing);
        }
        let closing = guard::closing(&wanted);
        assert_eq!((closing.len(), closing[0].id.as_str()), (1, "Balancer"));
    }

    /// Only what another stack will export is waited for.
    #[tokio::test]
    async fn a_change_that_is_refused_is_not_for_later() {
        fn answer(asked: &str, why: &str) -> String {
            match asked {
                "DescribeChangeSet" => format!("<Status>FAILED</Status><StatusReason>{why}</StatusReason>"),
                _ => String::new(),
            }
        }
        fn missing(asked: &str, _: &[String]) -> String {
            answer(asked, "No export named vend-production-Vpc found.")
        }
        fn wrong(asked: &str, _: &[String]) -> String {
            answer(
                asked,
                "Template error: resource X does not support attribute type Y in Fn::GetAtt",
            )
        }
        let mut wanted = wanted();
        wanted.template.resources.truncate(1);
        let found = found("CREATE_COMPLETE", None);
        let doing = async |answer| {
            let (address, asked) = crate::fixtures::service(answer);
            let plan = plan(
                &Site::new(crate::Client::at(address)),
                &wanted,
                Some(&found),
                true,
            )
            .await
            .unwrap();
            let last = crate::fixtures::action(asked.lock().unwrap().last().unwrap()).to_owned();
            assert_eq!(last, "DeleteChangeSet");
            plan.doing
        };
        assert!(matches!(doing(missing).await, Doing::Later { .. }));
        assert!(matches!(doing(wrong).await, Doing::Invalid { .. }));
    }

    /// Roles are the account's: with those of a foundation that stands elsewhere none could be made here.
    #[tokio::test]
    async fn a_foundation_whose_roles_are_there_is_not_new() {
        fn there(_: &str, _: &[String]) -> String {
            "<Role><Arn>arn:aws:iam::123456789012:role/vend/vend-production-stacks</Arn></Role>".into()
        }
        fn none(_: &str, _: &[String]) -> String {
            "<Error><Code>NoSuchEntity</Code><Message>none</Message></Error>".into()
        }
        let wanted = wanted();
        let doing = async |answer| {
            let (address, asked) = crate::fixtures::service(answer);
            let site = Site::new(crate::Client::at(address));
            let doing = plan(&site, &wanted, None, false).await.unwrap().doing;
            let asked = asked.lock().unwrap();
            assert!(
                asked.len() == 1 && asked[0].contains("RoleName=vend-production-stacks"),
                "{asked:?}"
            );
            doing
        };
        assert!(matches!(doing(there).await, Doing::Invalid { .. }));
        assert_eq!(doing(none).await, Doing::Create);
    }

    #[test]
    fn a_name_is_refused_to_what_is_new_only() {
        let mut wanted = wanted();
        wanted.refused = Some("so".into());
        let own = || Some(wanted.mark.clone());
        let refused = Doing::Refused { why: "so".into() };
        assert_eq!(doing(&wanted, None), refused);
        for status in ["REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE", "DELETE_COMPLETE"] {
            assert_eq!(doing(&wanted, Some(&found(status, None))), refused, "{status}");
        }
        assert_eq!(
            doing(&wanted, Some(&found("UPDATE_COMPLETE", own()))),
            Doing::Nothing
        );
        assert_eq!(
            doing(&wanted, Some(&found("CREATE_COMPLETE", None))),
            Doing::Change
        );
    }

    #[test]
    fn a_foundation_guards_its_load_balancer() {
        assert!(wanted().is_guarded());
    }

    #[test]
    fn a_ticket_is_of_one_attempt() {
        let wanted = wanted();
        assert_eq!(ticket(&wanted, "a", None), ticket(&wanted, "a", None));
        assert_ne!(ticket(&wanted, "a", None), ticket(&wanted, "b", None));
        assert_ne!(ticket(&wanted, "a", None), ticket(&wanted, "a", Some("no")));
        // A change set says of whose file it is.
        let other = ticket(&self::wanted().by("blog"), "a", None);
        assert_ne!(ticket(&wanted, "a", None), other);
    }
}
