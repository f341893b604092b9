//! A release on machines of the customer's own: in place, as many at a time as the minimum of healthy ones leaves.
//!
//! What a host goes through before its traffic, a machine does too, under the same scripts. The load balancer of the
//! platform knows nothing of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use camino::Utf8PathBuf;
use host::agent::api::Configuration;
use jiff::SignedDuration;
use model::{
    DeploymentId, HostId, Place,
    plan::PlanKind,
    port::{Blame, Code, Fault, LifecycleEvent, Objects as _},
    release::Release,
    spec::{Checks, Placement},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{By, Machine, NewDeployment};

use queue::{Rule, Turn};

use super::{
    Attempt, World, alarms, deploy, late, provision, roll,
    state::Planned,
    stored, validate, variables,
    wave::{Short, Standing, Wave},
    zone,
};

mod queue;

#[derive(Deserialize)]
struct Input {
    place: Place,
    kind: PlanKind,
    plan: Planned,
    deployment: DeploymentId,
    /// What it came to before it waited.
    #[serde(default)]
    deployed: Known,
    /// Only these get it, which lack it. Without: all.
    late: Option<BTreeSet<HostId>>,
    /// Why these do.
    #[serde(default)]
    why: late::Why,
    /// Can it wait at a gate?
    #[serde(default)]
    gated: bool,
}

impl Input {
    /// Is it the machine's turn in this deployment?
    fn is_for(&self, machine: &Machine) -> bool {
        self.late.as_ref().is_none_or(|late| late.contains(&machine.id))
    }
}

/// What is known of machines that the release was brought to, by their ids.
#[derive(Default, Serialize, Deserialize)]
struct Known {
    outcomes: BTreeMap<HostId, Seen>,
    /// Of the last that failed.
    reason: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Seen {
    Well,
    Failed,
}

/// How far the waves have gone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// To the end.
    Done,
    /// So many zones are finished, and another one follows.
    Zone(usize),
    /// Somebody holds the deployment.
    Held,
}

impl Until {
    /// For how long the machines are watched before it goes on. `None`: there is nothing to go on with.
    fn pause(self, release: &Release) -> Option<SignedDuration> {
        match (self, release.spec.deploy.zones) {
            (Self::Done, _) => None,
            (Self::Zone(1), Some(zones)) => Some(zones.first_monitor),
            (Self::Zone(_), Some(zones)) => Some(zones.monitor),
            // The gate is what it waits at.
            (Self::Zone(_), None) | (Self::Held, _) => Some(SignedDuration::ZERO),
        }
    }
}

/// The label by which a machine says its zone.
const ZONE: &str = "zone";

/// One release's way to one environment's machines.
struct Rollout<'a> {
    world: &'a World,
    attempt: &'a Attempt,
    input: &'a Input,
    release: &'a Release,
    configuration: Configuration,
    checks: Option<Checks>,
    bundle: Utf8PathBuf,
}

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let input: Input = attempt.read()?;
    let (environment, release) = provision::load(world, &input.place, input.plan.release).await?;
    let placement = release.spec.placement.as_ref();
    let placement = placement.ok_or_else(|| Fault::order("the release is not for machines"))?;
    let machines = begin(world, attempt, &input, placement).await?;
    alarms::refuse(world, input.kind, &input.place, &release).await?;
    if input.late.is_none() {
        possible(&release, &machines)?;
    }
    let rollout = Rollout {
        world,
        attempt,
        input: &input,
        release: &release,
        configuration: configuration(world, &environment, &release).await?,
        checks: validate::read_checks(world, &input.place, &release).await?,
        bundle: bring(world, attempt, &release).await?,
    };
    let went = rollout.waves(&machines).await;
    let _ = tokio::fs::remove_file(&rollout.bundle).await;
    let (known, until) = went?;
    let well = known
        .outcomes
        .values()
        .filter(|seen| **seen == Seen::Well)
        .count();
    let mut answer = json!({
        "machines": machines.len(), "succeeded": well,
        "outcomes": known.outcomes, "reason": known.reason,
    });
    if let Some(monitor) = until.pause(&release) {
        answer["more"] = json!(true);
        answer["monitor_s"] = json!(monitor.as_secs());
        return Ok(answer);
    }
    if input.late.is_some() {
        return match known.reason {
            // It was about these alone: one that failed is no smaller part of something that went well.
            Some(reason) if well < known.outcomes.len() => {
                let next = format!("vend deployments show {}", input.deployment);
                Err(Fault::customer(reason).next(next))
            }
            _ => Ok(answer),
        };
    }
    let (place, number) = (input.place.clone(), input.plan.release);
    let by = By::platform(crate::clock::now());
    let live = world
        .store
        .write(move |tx| tx.set_live(&place, number, by.at, &by));
    live.await.map_err(stored)?;
    world.routes.apply().await?;
    Ok(answer)
}

/// CodeDeploy's HEALTH_CONSTRAINTS_INVALID, before anything is touched.
fn possible(release: &Release, machines: &[Machine]) -> Result<(), Fault> {
    let (rule, each) = roll::rules(release);
    let mut zones: BTreeMap<&str, u32> = BTreeMap::new();
    for machine in machines {
        *zones.entry(zone_of(release, machine)).or_default() += 1;
    }
    let zones: Vec<(&str, u32)> = zones.into_iter().collect();
    match zone::impossible(rule, each, &zones) {
        Some((zone, needed, hosts)) => Err(roll::invalid(zone.as_deref(), needed, hosts)),
        None => Ok(()),
    }
}

/// Zones count only where the release goes by them.
fn zone_of<'a>(release: &Release, machine: &'a Machine) -> &'a str {
    let label = machine
        .labels
        .get(ZONE)
        .filter(|_| release.spec.deploy.zones.is_some());
    label.map_or(zone::NOWHERE, String::as_str)
}

/// The deployment's row and the environment's machines. Where it is about some only, of the others those that are there.
async fn begin(
    world: &World,
    attempt: &Attempt,
    input: &Input,
    placement: &Placement,
) -> Result<Vec<Machine>, Fault> {
    let new = NewDeployment {
        id: input.deployment.clone(),
        place: input.place.clone(),
        release: input.plan.release,
        execution: Some(attempt.execution.clone()),
        strategy: model::spec::Strategy::InPlace,
        cause: input.late.as_ref().map(|_| input.why.to_string()),
    };
    let (wanted, by) = (placement.registered.clone(), By::platform(crate::clock::now()));
    let all = input.late.is_none();
    let begun = world.store.write(move |tx| {
        tx.begin_deployment(&new, &by)?;
        if all {
            return tx.claim_machines(&new.place, &wanted, &by);
        }
        let mut own = tx.machines_of(&new.place)?;
        own.retain(|machine| !machine.leaving);
        Ok(own)
    });
    let mut machines = begun.await.map_err(stored)?;
    machines.retain(|machine| input.is_for(machine) || world.machines.live.address(&machine.id).is_some());
    match machines.iter().any(|machine| input.is_for(machine)) {
        true => Ok(machines),
        false => Err(nobody(input, placement)),
    }
}

fn nobody(input: &Input, placement: &Placement) -> Fault {
    if input.late.is_some() {
        return Fault::customer("the machines that lack the live release are gone (NO_INSTANCES)")
            .code(Code::NoInstances);
    }
    let labels: Vec<String> = placement
        .registered
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let (tenant, flags) = (&input.place.tenant, labels.join(" --label "));
    Fault::customer(format!(
        "{tenant} has no registered machine with the labels {} that no other environment has (NO_INSTANCES)",
        labels.join(", ")
    ))
    .code(Code::NoInstances)
    .next(format!("vend hosts invite {tenant} --label {flags}"))
}

/// What processes on a machine get: the same as on a host.
pub async fn configuration(
    world: &World,
    environment: &store::Environment,
    release: &Release,
) -> Result<Configuration, Fault> {
    let variables = variables::of(world, environment, release).await?;
    Ok(Configuration {
        environment: variables.all,
        secrets: variables.secrets,
        port: release.spec.host.port,
        processes: provision::processes(world, &environment.place, release).await?,
    })
}

/// The revision's tar, where this process can read it.
async fn bring(world: &World, attempt: &Attempt, release: &Release) -> Result<Utf8PathBuf, Fault> {
    let directory = world.data.serve().join("tmp");
    let cannot = |error: std::io::Error| Fault::platform(format!("cannot make {directory}: {error}"));
    tokio::fs::create_dir_all(&directory).await.map_err(cannot)?;
    let path = directory.join(format!("revision-{}", attempt.ticket));
    // From an attempt that a crash ended.
    let _ = tokio::fs::remove_file(&path).await;
    world.node.get(&release.revision, &path).await?;
    Ok(path)
}

impl Rollout<'_> {
    /// Waves in one zone, until it is finished, too many have failed, or somebody holds the deployment. Gives what is known
    /// then.
    async fn waves(&self, machines: &[Machine]) -> Result<(Known, Until), Fault> {
        let mut known = Known {
            outcomes: self.input.deployed.outcomes.clone(),
            reason: self.input.deployed.reason.clone(),
        };
        self.monitored(machines, &mut known).await?;
        let (rule, each) = roll::rules(self.release);
        let mut zones: BTreeMap<&str, Vec<&Machine>> = BTreeMap::new();
        for machine in machines {
            zones
                .entry(zone_of(self.release, machine))
                .or_default()
                .push(machine);
        }
        let zones: Vec<Vec<&Machine>> = zones.into_values().collect();
        let (mut begun, mut first) = (None, None::<Fault>);
        loop {
            let standings: Vec<Standing> = zones.iter().map(|zone| self.standing(zone, &known)).collect();
            let (at, count) = match zone::next(rule, each, &standings) {
                (_, Wave::Done) => return Ok((known, Until::Done)),
                (at, Wave::Next(_)) if begun.is_some_and(|begun| begun != at) => {
                    let finished = standings.iter().filter(|zone| zone.left == 0).count();
                    return Ok((known, Until::Zone(finished)));
                }
                (_, Wave::Next(_)) if self.input.gated && self.is_held().await? => {
                    return Ok((known, Until::Held));
                }
                (at, Wave::Next(count)) => (at, count),
                (_, Wave::Failed(short)) => {
                    return Err(self.failed(&known, short, machines.len(), first));
                }
            };
            begun = Some(at);
            let wave = self.queue(&zones[at], &known).into_iter().take(count as usize);
            let wave = wave.map(|(_, machine)| async move { (machine, self.one(machine).await) });
            for (machine, outcome) in futures_util::future::join_all(wave).await {
                let seen = if outcome.is_ok() { Seen::Well } else { Seen::Failed };
                self.keep(machine, outcome.as_ref().err()).await?;
                known.outcomes.insert(machine.id.clone(), seen);
                let Err(fault) = outcome else { continue };
                known.reason = Some(fault.message.clone());
                // What a customer can mend is told before what only is so at the moment.
                let better = first.as_ref().is_none_or(|first| first.blame == Blame::Platform);
                first = Some(if better { fault } else { first.unwrap_or(fault) });
            }
        }
    }

    /// Those that have not got it yet, each with its turn, in their order.
    fn queue<'m>(&self, zone: &[&'m Machine], known: &Known) -> Vec<(Turn, &'m Machine)> {
        let left = zone.iter().copied();
        let left = left.filter(|machine| self.seen(machine, known).is_none());
        let rule = Rule {
            release: self.input.plan.release,
            is_late: self.input.late.is_some(),
        };
        queue::of(left, rule, |machine| self.is_there(machine))
    }

    /// Does somebody hold the deployment?
    async fn is_held(&self) -> Result<bool, Fault> {
        let id = self.input.deployment.clone();
        let read = self.world.store.read(move |db| db.deployment(&id));
        Ok(read.await.map_err(stored)?.paused.is_some())
    }

    fn is_there(&self, machine: &Machine) -> bool {
        self.world.machines.live.address(&machine.id).is_some()
    }

    /// What is known of a machine. One that it is not about has what it is to have.
    fn seen(&self, machine: &Machine, known: &Known) -> Option<Seen> {
        match self.input.is_for(machine) {
            true => known.outcomes.get(&machine.id).copied(),
            false => Some(Seen::Well),
        }
    }

    fn standing(&self, zone: &[&Machine], known: &Known) -> Standing {
        let count = |seen| {
            let is = |machine: &&&Machine| self.seen(machine, known) == Some(seen);
            zone.iter().filter(is).count() as u32
        };
        let left = self.queue(zone, known);
        Standing {
            total: zone.len() as u32,
            left: left.len() as u32,
            ill: queue::ill(&left),
            done: count(Seen::Well),
            failed: count(Seen::Failed),
        }
    }

    /// Looks again at what was well before the zone was watched, or the deployment held: machines that are gone since, or that do not pass their
    /// checks any more, have failed.
    async fn monitored(&self, machines: &[Machine], known: &mut Known) -> Result<(), Fault> {
        for machine in machines {
            if known.outcomes.get(&machine.id) != Some(&Seen::Well) {
                continue;
            }
            let outcome = match self.is_there(machine) {
                true => self.checked(machine).await,
                false => Err(Fault::customer(format!(
                    "{} was gone while the deployment waited",
                    machine.id
                ))),
            };
            match outcome {
                Ok(()) => {}
                Err(fault) if fault.blame == Blame::Platform => return Err(fault),
                Err(fault) => {
                    self.keep(machine, Some(&fault)).await?;
                    known.outcomes.insert(machine.id.clone(), Seen::Failed);
                    known.reason = Some(fault.message);
                }
            }
        }
        Ok(())
    }

    /// Why it does not go on: what failed first is said, and whether trying again helps is that one's to say.
    fn failed(&self, known: &Known, short: Short, machines: usize, first: Option<Fault>) -> Fault {
        let failed = known
            .outcomes
            .values()
            .filter(|seen| **seen == Seen::Failed)
            .count();
        let count = format!("{failed} of {machines} machines failed ({short})");
        match first {
            Some(fault) if machines == 1 => fault,
            Some(fault) => Fault {
                message: format!("{count}: {}", fault.message),
                ..fault
            },
            None => {
                let reason = known.reason.as_deref().unwrap_or("a machine did not get ready");
                let next = format!("vend deployments show {}", self.input.deployment);
                Fault::customer(format!("{count}: {reason}")).next(next)
            }
        }
    }

    /// How it ended on a machine, on record.
    async fn keep(&self, machine: &Machine, failure: Option<&Fault>) -> Result<(), Fault> {
        let (id, failure) = (machine.id.clone(), failure.map(|fault| fault.message.clone()));
        let written = self
            .world
            .store
            .write(move |tx| tx.settle_machine(&id, failure.as_deref()));
        written.await.map_err(stored)
    }

    async fn one(&self, machine: &Machine) -> Result<(), Fault> {
        let Input {
            place,
            deployment,
            plan,
            ..
        } = self.input;
        let live = &self.world.machines.live;
        live.configure(&machine.id, &self.configuration).await?;
        let events = LifecycleEvent::BEFORE_TRAFFIC.to_vec();
        let order = deploy::order(self.release, place, deployment, &machine.id, events);
        let ticket = self.attempt.steady.part(machine.id.as_str());
        // Whatever becomes of it, the machine has not what it had.
        let (id, number, own) = (machine.id.clone(), plan.release, deployment.clone());
        let (is_late, at) = (self.input.late.is_some(), crate::clock::now());
        let written = self.world.store.write(move |tx| {
            if !is_late {
                // How often another release was brought in vain says nothing of this one.
                tx.set_machine_tries(&id, 0, at)?;
            }
            tx.set_machine_release(&id, number, &own)
        });
        written.await.map_err(stored)?;
        let doing = live.deploy(&ticket, &order, &self.bundle);
        let progress = || live.progress(&machine.id, &ticket);
        let deployed = deploy::follow(self.world, &order, doing, progress).await?;
        let failure = order
            .failure(&deployed.events)
            .map(|event| deploy::fault(event, &machine.id, &deployed.log));
        let (id, deployment) = (machine.id.clone(), deployment.clone());
        let written = self
            .world
            .store
            .write(move |tx| tx.record_events(&deployment, &id, &deployed.events));
        written.await.map_err(stored)?;
        if let Some(fault) = failure {
            return Err(fault);
        }
        self.checked(machine).await
    }

    async fn checked(&self, machine: &Machine) -> Result<(), Fault> {
        let Some(checks) = &self.checks else { return Ok(()) };
        let Input { place, plan, .. } = self.input;
        let verdict = self.world.machines.live.check(&machine.id, checks).await?;
        validate::keep(self.world, place, plan.release, &machine.id, &verdict).await?;
        match verdict.passed() {
            true => Ok(()),
            false => Err(validate::failed(&machine.id, &verdict)),
        }
    }
}
