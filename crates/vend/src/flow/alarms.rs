//! Alarms of somebody's monitoring: what one that rings means for the deployment of a push. Going back, and bringing a live
//! release to its hosts, mind none: whoever goes back may well do so because of one.

use std::sync::LazyLock;

use jiff::Timestamp;
use model::{
    Place, TenantName,
    alarm::{Ring, ringing},
    plan::PlanKind,
    port::{Code, Fault},
    release::Release,
    spec::Alarms,
};
use store::{Db, Error};

use super::{World, stored};

/// Since when this process can be told anything: who tells is not silent while nobody listens.
static HEARS: LazyLock<Timestamp> = LazyLock::new(crate::clock::now);

/// The alarm that keeps deployments from going on, if one does.
pub fn ring(db: &Db<'_>, tenant: &TenantName, rule: Option<&Alarms>) -> Result<Option<Ring>, Error> {
    let Some(rule) = rule else { return Ok(None) };
    let mut told = db.alarms(tenant)?;
    for alarm in told.values_mut() {
        alarm.told_at = alarm.told_at.max(*HEARS);
    }
    Ok(ringing(rule, &told, crate::clock::now()))
}

/// Refuses to begin the deployment of a push while an alarm rings.
pub async fn refuse(world: &World, kind: PlanKind, place: &Place, release: &Release) -> Result<(), Fault> {
    let rule = release.spec.deploy.alarms.clone();
    let Some(rule) = rule.filter(|_| kind == PlanKind::Release) else {
        return Ok(());
    };
    let tenant = place.tenant.clone();
    let read = world.store.read(move |db| ring(db, &tenant, Some(&rule)));
    match read.await.map_err(stored)? {
        Some(ring) => Err(fault(
            place,
            &ring,
            &format!("v{} is not deployed", release.number),
        )),
        None => Ok(()),
    }
}

/// Why a deployment ends, and what whoever brings the fix can do.
pub fn fault(place: &Place, ring: &Ring, what: &str) -> Fault {
    Fault::customer(format!("{what}: {ring} (ALARM_ACTIVE)"))
        .code(Code::AlarmActive)
        .next(next(&place.tenant, ring))
}

pub fn next(tenant: &TenantName, ring: &Ring) -> String {
    let name = &ring.name;
    match ring.is_unknown {
        true => format!(
            "let monitoring tell how it is, or: vend alarms set '{tenant}/{name}' --state ok; then push again"
        ),
        false => format!(
            "vend alarms list {tenant}, and push again when it is well; if it cannot wait: vend alarms ignore '{tenant}/{name}' --reason WHY"
        ),
    }
}
