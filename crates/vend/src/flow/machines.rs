//! A release on machines of the customer's own: in place, as many at a time as the minimum of healthy ones leaves.
//!
//! What a host goes through before its traffic, a machine does too, under the same scripts. The load balancer of the
//! platform knows nothing of them.

use std::sync::Arc;

use camino::Utf8PathBuf;
use host::agent::api::Configuration;
use model::{
    DeploymentId, Place,
    port::{Blame, Fault, LifecycleEvent, Objects as _},
    release::Release,
    spec::{Checks, Placement},
};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{By, Machine, NewDeployment};

use super::{Attempt, World, deploy, healthy, provision, state::Planned, stored, validate, variables};

#[derive(Deserialize)]
struct Input {
    place: Place,
    plan: Planned,
    deployment: DeploymentId,
}

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
    let rollout = Rollout {
        world,
        attempt,
        input: &input,
        release: &release,
        configuration: configuration(world, &environment, &release).await?,
        checks: validate::read_checks(world, &input.place, &release).await?,
        bundle: bring(world, attempt, &release).await?,
    };
    let failed = rollout.all(&machines).await;
    let _ = tokio::fs::remove_file(&rollout.bundle).await;
    let well = machines.len() as u32 - failed?;
    let (place, number) = (input.place.clone(), input.plan.release);
    let by = By::platform(crate::clock::now());
    let live = world
        .store
        .write(move |tx| tx.set_live(&place, number, by.at, &by));
    live.await.map_err(stored)?;
    world.routes.apply().await?;
    Ok(json!({ "machines": machines.len(), "succeeded": well }))
}

/// The deployment's row and the environment's machines.
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
    };
    let (wanted, by) = (placement.registered.clone(), By::platform(crate::clock::now()));
    let begun = world.store.write(move |tx| {
        tx.begin_deployment(&new, &by)?;
        tx.claim_machines(&new.place, &wanted, &by)
    });
    let machines = begun.await.map_err(stored)?;
    if machines.is_empty() {
        let labels: Vec<String> = placement
            .registered
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let (tenant, flags) = (&input.place.tenant, labels.join(" --label "));
        return Err(Fault::customer(format!(
            "{tenant} has no registered machine with the labels {} that no other environment has",
            labels.join(", ")
        ))
        .next(format!("vend hosts invite {tenant} --label {flags}")));
    }
    Ok(machines)
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
    /// A wave after the other, until too many have failed. Gives how many have.
    async fn all(&self, machines: &[Machine]) -> Result<u32, Fault> {
        let rule = self.release.spec.deploy.minimum_healthy;
        let total = machines.len() as u32;
        let at_once = total.saturating_sub(rule.minimum(total)).max(1);
        let (mut failed, mut first) = (0, None::<Fault>);
        for wave in machines.chunks(at_once as usize) {
            let wave = wave.iter().map(|machine| self.one(machine));
            for outcome in futures_util::future::join_all(wave).await {
                if let Err(fault) = outcome {
                    failed += 1;
                    // What a customer can mend is told before what only is so at the moment.
                    let better = first.as_ref().is_none_or(|first| first.blame == Blame::Platform);
                    first = Some(if better { fault } else { first.unwrap_or(fault) });
                }
            }
            match first {
                Some(fault) if !healthy::is_enough(rule, total, total - failed) => return Err(fault),
                kept => first = kept,
            }
        }
        Ok(failed)
    }

    async fn one(&self, machine: &Machine) -> Result<(), Fault> {
        let Input {
            place,
            deployment,
            plan,
        } = self.input;
        let live = &self.world.machines.live;
        live.configure(&machine.id, &self.configuration).await?;
        let events = LifecycleEvent::BEFORE_TRAFFIC.to_vec();
        let order = deploy::order(self.release, place, deployment, &machine.id, events);
        let ticket = self.attempt.steady.part(machine.id.as_str());
        let deployed = live.deploy(&ticket, &order, &self.bundle).await?;
        let failure = deployed
            .failure()
            .map(|event| deploy::fault(event, &machine.id, &deployed.log));
        let (id, number, deployment) = (machine.id.clone(), plan.release, deployment.clone());
        let written = self.world.store.write(move |tx| {
            tx.record_events(&deployment, &id, &deployed.events)?;
            tx.set_machine_release(&id, number, &deployment)
        });
        written.await.map_err(stored)?;
        if let Some(fault) = failure {
            return Err(fault);
        }
        let Some(checks) = &self.checks else { return Ok(()) };
        let verdict = live.check(&machine.id, checks).await?;
        validate::keep(self.world, place, plan.release, &machine.id, &verdict).await?;
        match verdict.passed() {
            true => Ok(()),
            false => Err(validate::failed(&machine.id, &verdict)),
        }
    }
}
