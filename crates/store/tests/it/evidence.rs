//! Builds, bakes, deployments, verdicts: kept once, whatever is repeated.

use std::collections::BTreeMap;

use model::{
    DeploymentId, Digest, ExecutionId, HostId, Place, Ticket,
    port::{
        Baked, Built, CheckResult, EventReport, EventStatus, Fault, LifecycleEvent, PhaseReport, PhaseStatus,
        ScriptCode, ScriptFailure, TestReport, Verdict,
    },
};
use store::{DeploymentState, Error, NewBake, NewBuild, NewDeployment, NewRelease, Status, WorkState};

use crate::world::{World, app, at, by, commit, end, release, start, tenant};

pub fn ticket(task: u64) -> Ticket {
    Ticket::of(&ExecutionId::from_bits(1), task, 0)
}

fn new_build(place: &Place, task: u64) -> NewBuild {
    NewBuild {
        ticket: ticket(task),
        place: place.clone(),
        execution: Some(ExecutionId::from_bits(1)),
        commit: commit("x"),
        source: Digest::of("source"),
        identifier: None,
        log: None,
    }
}

fn built() -> Built {
    Built {
        artifact: Digest::of("artifact"),
        size_bytes: 1,
        phases: vec![],
        reports: vec![],
        exported: BTreeMap::from([("VERSION".into(), "1.7".into())]),
        log: "build/t-1".parse().unwrap(),
        name: None,
        secondary: BTreeMap::from([("docs".into(), Digest::of("docs"))]),
    }
}

fn submitted() -> PhaseReport {
    PhaseReport {
        name: "SUBMITTED".into(),
        status: Some(PhaseStatus::Succeeded),
        started_at: at(1),
        duration_ms: Some(0),
        message: None,
    }
}

pub fn baked() -> Baked {
    Baked {
        image: Digest::of("image"),
        layers: vec![],
        reused: false,
        duration_ms: 5,
        log: None,
    }
}

#[tokio::test]
async fn a_repeated_ticket_is_the_same_build_and_its_first_answer_stays() {
    let world = World::new();
    let dev = world.environment("acme/shop/dev").await;
    world
        .write(move |tx| {
            let first = tx.begin_build(&new_build(&dev, 1), &by(1))?;
            assert_eq!(tx.begin_build(&new_build(&dev, 1), &by(2))?, first);
            assert_eq!(tx.begin_build(&new_build(&dev, 2), &by(3))?.number, 2);
            tx.finish_build(&ticket(1), Ok(&built()), &by(4))?;
            let fault = Fault {
                phases: vec![submitted()],
                ..Fault::customer("a test failed").evidence("build/t-2".parse().unwrap())
            };
            tx.finish_build(&ticket(1), Err(&fault), &by(5))?;
            tx.finish_build(&ticket(2), Err(&fault), &by(5))?;
            let builds = tx.builds(&tenant("acme"), &app("shop"), None, 10)?;
            let states: Vec<_> = builds.iter().map(|build| (build.number, build.state)).collect();
            assert_eq!(states, [(2, WorkState::Failed), (1, WorkState::Succeeded)]);
            assert_eq!(builds[1].built, Some(built()));
            assert_eq!(builds[0].log, fault.evidence);
            assert_eq!(builds[0].phases()[0].name, "SUBMITTED", "also of one that failed");
            assert_eq!(tx.builds_of_execution(&ExecutionId::from_bits(1))?.len(), 2);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_release_knows_what_its_builds_said_of_tests() {
    let world = World::new();
    let dev = world.environment("acme/shop/dev").await;
    world
        .write(move |tx| {
            let tested = |group: &str| Built {
                reports: vec![TestReport {
                    group: group.to_owned(),
                    total: 2,
                    passed: 1,
                    failed: 1,
                    skipped: 0,
                    duration_ms: 5,
                    failures: vec![],
                    coverage: None,
                    changes: None,
                }],
                ..built()
            };
            for (task, group) in [(1, "unit"), (2, "e2e")] {
                tx.begin_build(&new_build(&dev, task), &by(1))?;
                tx.finish_build(&ticket(task), Ok(&tested(group)), &by(2))?;
            }
            let mut built = release("x");
            built.execution = Some(ExecutionId::from_bits(1));
            let first = tx.create_release(&dev, &built, &by(3))?.content.number;
            let second = tx.create_release(&dev, &release("y"), &by(4))?.content.number;
            let groups = |number: u64| -> Result<Vec<String>, Error> {
                let reports = tx.reports_of_release(&dev, number)?;
                Ok(reports.into_iter().map(|report| report.group).collect())
            };
            assert_eq!(groups(first)?, ["unit", "e2e"]);
            assert!(groups(second)?.is_empty() && groups(99)?.is_empty());
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn what_the_platform_failed_at_is_tried_again_under_its_ticket() {
    let world = World::new();
    let dev = world.environment("acme/shop/dev").await;
    world
        .write(move |tx| {
            let id = ExecutionId::from_bits(1);
            let new_bake = NewBake {
                ticket: ticket(2),
                place: dev.clone(),
                execution: Some(id.clone()),
                commit: commit("x"),
                base: "debian-12".to_owned(),
                log: None,
            };
            let away = Fault::platform("the node is away");
            let first = tx.begin_build(&new_build(&dev, 1), &by(1))?;
            tx.begin_bake(&new_bake, &by(1))?;
            tx.finish_build(&ticket(1), Err(&away), &by(2))?;
            tx.finish_bake(&ticket(2), Err(&away), &by(2))?;
            assert_eq!(tx.work_of_execution(&id)?, []);
            assert_eq!(tx.begin_build(&new_build(&dev, 1), &by(3))?, first);
            tx.begin_bake(&new_bake, &by(3))?;
            assert_eq!(
                tx.work_of_execution(&id)?,
                [ticket(1), ticket(2)],
                "it can be stopped"
            );
            tx.finish_build(&ticket(1), Ok(&built()), &by(4))?;
            tx.finish_bake(&ticket(2), Ok(&baked()), &by(4))?;
            let build = &tx.builds_of_execution(&id)?[0];
            assert_eq!((build.state, &build.fault), (WorkState::Succeeded, &None));
            assert_eq!(build.built, Some(built()));
            assert_eq!(tx.bakes_of_execution(&id)?[0].state, WorkState::Succeeded);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn what_nobody_waits_for_is_stopped_on_record() {
    let world = World::new();
    let dev = world.environment("acme/shop/dev").await;
    world
        .write(move |tx| {
            let (id, other) = (ExecutionId::from_bits(1), ExecutionId::from_bits(2));
            let bake = |number, execution: &ExecutionId| NewBake {
                ticket: ticket(number),
                place: dev.clone(),
                execution: Some(execution.clone()),
                commit: commit("x"),
                base: "debian-12".to_owned(),
                log: Some(format!("bake/t-{number}").parse().unwrap()),
            };
            tx.begin_build(&new_build(&dev, 1), &by(1))?;
            tx.finish_build(&ticket(1), Ok(&built()), &by(1))?;
            tx.begin_build(&new_build(&dev, 2), &by(1))?;
            tx.begin_bake(&bake(3, &id), &by(1))?;
            tx.begin_bake(&bake(4, &other), &by(1))?;
            assert_eq!(tx.work_of_execution(&id)?, [ticket(2), ticket(3)]);
            let why = Fault::order("ada cancelled it");
            let phases = BTreeMap::from([(ticket(2), vec![submitted()])]);
            tx.stop_work(&id, &why, &phases, &by(2))?;
            assert_eq!(tx.work_of_execution(&id)?, []);
            assert_eq!(tx.work_of_execution(&other)?, [ticket(4)]);
            // The answer of the node comes late: the first stays.
            tx.finish_bake(&ticket(3), Ok(&baked()), &by(3))?;
            let builds = tx.builds_of_execution(&id)?;
            let states: Vec<_> = builds.iter().map(|build| build.state).collect();
            assert_eq!(states, [WorkState::Succeeded, WorkState::Stopped]);
            assert_eq!(builds[1].phases(), [submitted()], "what is known of it is kept");
            for (ran, build) in tx.ran_in_execution(&id)?.into_iter().zip(&builds) {
                assert_eq!(ran.phases, build.phases());
                assert_eq!(
                    (&ran.place, ran.number, &ran.log),
                    (&build.place, build.number, &build.log)
                );
                assert_eq!((ran.started_at, ran.ended_at), (build.started_at, build.ended_at));
                let left = build
                    .built
                    .as_ref()
                    .map(|built| (built.exported.clone(), built.secondary.clone()));
                assert_eq!((ran.exported, ran.secondary), left.unwrap_or_default());
            }
            assert_eq!(tx.ran_in_execution(&id)?.len(), builds.len());
            let bake = &tx.bakes_of_execution(&id)?[0];
            assert_eq!((bake.state, &bake.fault), (WorkState::Stopped, &Some(why)));
            assert!(bake.ended_at.is_some() && bake.log.is_some());
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn what_an_execution_under_way_has_made_is_kept_until_it_ends() {
    let world = World::new();
    let dev = world.environment("acme/shop/dev").await;
    world
        .write(move |tx| {
            let bake = NewBake {
                ticket: ticket(3),
                place: dev.clone(),
                execution: Some(ExecutionId::from_bits(1)),
                commit: commit("x"),
                base: "debian-12".to_owned(),
                log: None,
            };
            start(tx, 1, Some(&dev), "{}", &by(0))?;
            tx.begin_build(&new_build(&dev, 1), &by(1))?;
            let beside = Digest::of("beside");
            let built_with = Built {
                secondary: BTreeMap::from([("docs".to_owned(), beside)]),
                ..built()
            };
            tx.finish_build(&ticket(1), Ok(&built_with), &by(1))?;
            tx.begin_bake(&bake, &by(1))?;
            tx.finish_bake(&ticket(3), Ok(&baked()), &by(2))?;
            assert_eq!(tx.image(&baked().image)?.baked, baked());
            let kept = tx.keepers()?;
            assert!(kept.images.contains(&baked().image) && kept.revisions.contains(&built().artifact));
            assert!(kept.sources.contains(&Digest::of("source")));
            assert!(
                kept.revisions.contains(&beside),
                "what lies beside an artifact stays with it"
            );
            assert!(matches!(
                tx.delete_image(&baked().image, &by(3)),
                Err(Error::Refused { .. })
            ));
            end(tx, 1, Status::Aborted, 4)?;
            assert_eq!(tx.keepers()?, store::Keepers::default());
            tx.delete_image(&baked().image, &by(5))?;
            assert!(tx.images()?.is_empty());
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn what_all_builds_of_a_batch_left_stays_with_its_release() {
    let world = World::new();
    let dev = world.environment("acme/shop/dev").await;
    let done = world.write(move |tx| {
        let of = |name: &str| Built {
            artifact: Digest::of(name),
            secondary: BTreeMap::from([("docs".to_owned(), Digest::of(format!("docs of {name}")))]),
            ..built()
        };
        start(tx, 1, Some(&dev), "{}", &by(0))?;
        for (task, name) in [(1, "code"), (2, "rest")] {
            tx.begin_build(&new_build(&dev, task), &by(1))?;
            tx.finish_build(&ticket(task), Ok(&of(name)), &by(2))?;
        }
        let new = NewRelease {
            revision: Digest::of("code and rest"),
            execution: Some(ExecutionId::from_bits(1)),
            ..release("r1")
        };
        tx.create_release(&dev, &new, &by(3))?;
        tx.set_live(&dev, 1, at(4), &by(4))?;
        end(tx, 1, Status::Succeeded, 5)?;
        let left = ["code and rest", "code", "rest", "docs of code", "docs of rest"].map(Digest::of);
        assert_eq!(tx.keepers()?.revisions, left.into());
        // By its execution they are got, however old that is.
        start(tx, 2, Some(&dev), "{}", &by(0))?;
        end(tx, 2, Status::Failed, 5)?;
        assert_eq!(tx.prune_executions(at(100), 10)?, 1);
        assert!(tx.execution_summary(&ExecutionId::from_bits(1)).is_ok());
        for n in 2..=7 {
            tx.create_release(&dev, &release(&format!("r{n}")), &by(n))?;
            tx.set_live(&dev, n as u64, at(n), &by(n))?;
        }
        // Six later nobody goes back to it.
        let kept = tx.keepers()?.revisions;
        assert!(kept.len() == 6 && left.iter().all(|one| !kept.contains(one)));
        assert_eq!(tx.prune_executions(at(100), 10)?, 1);
        assert!(tx.execution_summary(&ExecutionId::from_bits(1)).is_err());
        Ok(())
    });
    done.await;
}

#[tokio::test]
async fn a_deployment_has_one_row_for_each_host_and_event() {
    let world = World::new();
    let dev = world.environment("acme/shop/dev").await;
    let report = |event, failed: bool| EventReport {
        event,
        status: if failed {
            EventStatus::Failed
        } else {
            EventStatus::Succeeded
        },
        started_at: at(1),
        duration_ms: 5,
        failure: failed.then(|| ScriptFailure {
            code: ScriptCode::ScriptFailed,
            script: "start.sh".into(),
            message: "exit 1".into(),
            log: "no".into(),
            holders: Vec::new(),
        }),
        log: failed.then(|| "deploy/t-1".parse().unwrap()),
    };
    world
        .write(move |tx| {
            tx.create_release(&dev, &release("r"), &by(0))?;
            let id = DeploymentId::from_bits(1);
            let new = NewDeployment {
                cause: None,
                id: id.clone(),
                place: dev.clone(),
                release: 1,
                execution: Some(ExecutionId::from_bits(5)),
                strategy: model::spec::Strategy::Canary,
            };
            let begun = tx.begin_deployment(&new, &by(1))?;
            assert_eq!(tx.begin_deployment(&new, &by(2))?, begun);
            let host = HostId::from_bits(7);
            let reports = [
                report(LifecycleEvent::ApplicationStart, true),
                report(LifecycleEvent::BeforeInstall, false),
            ];
            tx.record_events(&id, &host, &reports)?;
            tx.record_events(&id, &host, &reports)?;
            let events = tx.deployment_events(&id)?;
            assert_eq!(events.len(), 2);
            assert_eq!(events[1].1, reports[0], "in the order of the lifecycle");
            let logs = [("deploy/t-1".parse().unwrap(), at(1), id.clone())];
            assert_eq!(tx.deployment_logs(&ExecutionId::from_bits(5))?, logs);
            assert_eq!(tx.deployment_logs(&ExecutionId::from_bits(6))?, []);
            let verdict = Verdict {
                results: vec![CheckResult {
                    kind: "port".into(),
                    name: "tcp:8080".into(),
                    property: "listening".into(),
                    passed: false,
                    expected: "true".into(),
                    found: "false".into(),
                }],
            };
            tx.record_verdict(&dev, 1, &host, &verdict, &by(3))?;
            assert_eq!(tx.verdicts(&dev, 1)?[0].verdict, verdict);
            assert_eq!(begun.state, DeploymentState::Created);
            tx.set_deployment_state(&id, DeploymentState::Baking)?;
            let held = tx.pause_deployment(&id, true, &by(3))?;
            let (who, since) = held.paused.clone().unwrap();
            assert_eq!((who, since), (by(3).actor, by(3).at));
            // Who asks again changes nothing.
            assert_eq!(tx.pause_deployment(&id, true, &by(4))?, held);
            assert_eq!(tx.pause_deployment(&id, false, &by(4))?.paused, None);
            tx.record_analysis(&id, &serde_json::json!({ "step": 1 }), &by(4))?;
            assert_eq!(tx.analyses(&id)?, [(by(4).at, serde_json::json!({ "step": 1 }))]);
            assert_eq!(
                tx.open_deployment(&dev, &ExecutionId::from_bits(5))?.unwrap().id,
                id
            );
            let reason = Some("start.sh failed");
            let code = Some("HEALTH_CONSTRAINTS");
            let other = HostId::from_bits(8);
            let running = EventReport::only(LifecycleEvent::Install, EventStatus::InProgress, at(2));
            let waiting = EventReport::only(LifecycleEvent::AfterInstall, EventStatus::Pending, at(2));
            tx.record_events(&id, &other, &[running, waiting])?;
            tx.finish_deployment(&id, DeploymentState::Failed, code, reason, &by(4))?;
            tx.finish_deployment(&id, DeploymentState::Succeeded, None, None, &by(5))?;
            tx.set_deployment_state(&id, DeploymentState::InProgress)?;
            let ended = &tx.deployments(&dev, 10)?[0];
            assert_eq!(ended.state, DeploymentState::Failed, "the first answer stays");
            assert_eq!(ended.code.as_deref(), code);
            let events = tx.deployment_events(&id)?;
            assert_eq!(
                events[..2]
                    .iter()
                    .map(|(_, report)| report.clone())
                    .collect::<Vec<_>>(),
                [
                    report(LifecycleEvent::BeforeInstall, false),
                    report(LifecycleEvent::ApplicationStart, true)
                ]
            );
            let unheard = |(_, report): &(_, EventReport)| report.status == EventStatus::Unknown;
            assert!(events.len() == 4 && events[2..].iter().all(unheard), "{events:?}");
            assert_eq!(tx.open_deployment(&dev, &ExecutionId::from_bits(5))?, None);
            let refused = tx.pause_deployment(&id, true, &by(6)).unwrap_err();
            assert!(refused.to_string().contains("it is Failed"), "{refused}");
            Ok(())
        })
        .await;
}
