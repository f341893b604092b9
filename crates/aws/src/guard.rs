//! What refuses to be deleted refuses CloudFormation too. A change that is rolled back must take away what it made, and one that
//! replaces or removes something takes the old one away at its end; what is protected then stays outside every stack, or holds the
//! rollback up for ever. So a stack makes what it protects without protection, and gets it by a second, small change; and what
//! leaves with a change has its protection switched off before.

use crate::{
    change::{Change, Deed},
    client::{Client, Error},
    plan::Wanted,
    protect,
    stack::{self, Event, Held, Stack, Status},
    synth::GUARD,
};

/// The properties that protection is in.
const PROPERTIES: [&str; 2] = ["LoadBalancerAttributes", "DeletionProtection"];

/// Is it without its protection, because a change of it was not brought to its end?
pub(crate) fn is_open(wanted: &Wanted, stack: &Stack) -> bool {
    wanted.is_guarded() && stack.value(GUARD) == Some("no")
}

/// Do these changes make something that refuses deletion, or may they?
pub(crate) fn makes(wanted: &Wanted, changes: &[Change]) -> bool {
    let may_be_new = |own: &Change| matches!(own.deed, Deed::Add | Deed::Replace | Deed::MayReplace);
    let mut changes = changes.iter();
    changes.any(|own| may_be_new(own) && wanted.template.guards(&own.id))
}

/// Do they make it without a doubt?
pub(crate) fn surely_makes(wanted: &Wanted, changes: &[Change]) -> bool {
    let is_new = |own: &Change| matches!(own.deed, Deed::Add | Deed::Replace);
    let mut changes = changes.iter();
    changes.any(|own| is_new(own) && wanted.template.guards(&own.id))
}

/// The small change: what gets its protection back.
pub(crate) fn closing(wanted: &Wanted) -> Vec<Change> {
    let all = wanted.template.resources.iter();
    let guarded = all.filter(|own| wanted.template.guards(&own.id));
    let change = |id: &str, kind: &str| Change {
        deed: Deed::Modify,
        properties: vec![match kind {
            "AWS::ElasticLoadBalancingV2::LoadBalancer" => PROPERTIES[0].to_owned(),
            _ => PROPERTIES[1].to_owned(),
        }],
        ..Change::add(id, kind)
    };
    guarded.map(|own| change(&own.id, own.kind)).collect()
}

/// Does it leave its stack, or may it?
pub(crate) fn leaves(change: &Change) -> bool {
    let is_held = change.id == protect::HOSTS || protect::GUARDED.contains(&change.kind.as_str());
    is_held && matches!(change.deed, Deed::Remove | Deed::Replace | Deed::MayReplace)
}

/// Switches off the protection of what leaves. Gives those that had one; where one refuses, the others have theirs again. What is a
/// branch's has none, and its build may not ask.
pub(crate) async fn open<'h>(
    client: &Client,
    wanted: &Wanted,
    leaving: &'h [Held],
    tell: &mut dyn FnMut(&Event),
) -> Result<Vec<&'h Held>, Error> {
    let mut opened = Vec::new();
    if wanted.mark.preview.is_some() {
        return Ok(opened);
    }
    for held in leaving {
        let is_opened =
            async || Ok(protect::is_on(client, held).await? && protect::switch(client, held, false).await?);
        match is_opened().await {
            Ok(true) => opened.push(held),
            Ok(false) => {}
            Err(error) => {
                close(client, &opened, tell).await;
                return Err(error);
            }
        }
    }
    Ok(opened)
}

/// Switches it on again for what stays after all. The change has failed already: what fails then is told beside it.
pub(crate) async fn close(client: &Client, opened: &[&Held], tell: &mut dyn FnMut(&Event)) {
    for held in opened {
        if let Err(error) = protect::switch(client, held, true).await {
            tell(&Event {
                id: String::new(),
                at: String::new(),
                resource: held.id.clone(),
                kind: held.kind.clone(),
                physical: held.physical.clone(),
                status: Status("UPDATE_FAILED".to_owned()),
                why: Some(format!("it stays, and is not protected any more: {error}")),
            });
        }
    }
}

/// What might have been replaced, and was changed where it is: it is as protected as before, unless its template says so itself or
/// the change was one of its protection.
pub(crate) async fn close_stayed(
    client: &Client,
    wanted: &Wanted,
    changes: &[Change],
    opened: &[&Held],
    tell: &mut dyn FnMut(&Event),
) -> Result<(), Error> {
    let is_own = |held: &Held| {
        let mut changes = changes.iter();
        let is_of_it = |name: &String| PROPERTIES.contains(&name.as_str());
        !wanted.template.guards(&held.id)
            && changes.any(|change| {
                let may_stay = change.id == held.id && change.deed == Deed::MayReplace;
                may_stay && !change.properties.iter().any(is_of_it)
            })
    };
    let mut opened = opened.to_vec();
    opened.retain(|held| is_own(held));
    if opened.is_empty() {
        return Ok(());
    }
    let there = stack::resources(client, &wanted.name).await?;
    opened.retain(|held| {
        let mut there = there.iter().filter(|own| !own.status.is_out());
        there.any(|own| own.id == held.id && own.physical == held.physical)
    });
    close(client, &opened, tell).await;
    Ok(())
}

/// Who was cut off while something was to leave, before CloudFormation began with it or after it took it back, left it without its
/// protection, and the stack looks as if nothing had been: what is changed then has it again first. A stack that is not protected
/// itself is meant so.
pub(crate) async fn restore(client: &Client, wanted: &Wanted, stack: &Stack) -> Result<(), Error> {
    let is_meant = stack.is_protected && wanted.is_guarded() && stack.value(GUARD) == Some("yes");
    if !stack.status.is_usable() || !is_meant {
        return Ok(());
    }
    for held in stack::resources(client, &stack.id).await? {
        if wanted.template.guards(&held.id) && !protect::is_on(client, &held).await? {
            protect::switch(client, &held, true).await?;
        }
    }
    Ok(())
}
