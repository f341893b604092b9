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

fn ticket(task: u64) -> Ticket {
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

fn baked() -> Baked {
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
        for n in 2..=7 {
            tx.create_release(&dev, &release(&format!("r{n}")), &by(n))?;
            tx.set_live(&dev, n as u64, at(n), &by(n))?;
        }
        // Six later nobody goes back to it.
        let kept = tx.keepers()?.revisions;
        assert!(kept.len() == 6 && left.iter().all(|one| !kept.contains(one)));
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
        }),
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
            tx.finish_deployment(&id, DeploymentState::Failed, code, reason, &by(4))?;
            tx.finish_deployment(&id, DeploymentState::Succeeded, None, None, &by(5))?;
            tx.set_deployment_state(&id, DeploymentState::InProgress)?;
            let ended = &tx.deployments(&dev, 10)?[0];
            assert_eq!(ended.state, DeploymentState::Failed, "the first answer stays");
            assert_eq!(ended.code.as_deref(), code);
            assert_eq!(tx.open_deployment(&dev, &ExecutionId::from_bits(5))?, None);
            let refused = tx.pause_deployment(&id, true, &by(6)).unwrap_err();
            assert!(refused.to_string().contains("it is Failed"), "{refused}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn what_is_signed_about_an_image_can_be_verified() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let (world, dev) = World::dev().await;
    let image = Digest::of("image");
    let statement = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1", "subject": [{ "digest": { "sha256": image.hex() } }],
    });
    let signed = statement.clone();
    world
        .write(move |tx| {
            tx.attest(&dev, &image, store::Predicate::Provenance, &signed, &by(1))?;
            tx.attest(&dev, &image, store::Predicate::Checks, &signed, &by(2))?;
            tx.attest(&dev, &image, store::Predicate::Provenance, &signed, &by(3))
        })
        .await;
    let (found, key) = world
        .store
        .read(move |db| Ok::<_, Error>((db.attestations(&image, None)?, db.ledger_key())))
        .await
        .unwrap();
    let kinds: Vec<store::Predicate> = found.iter().map(|one| one.predicate).collect();
    assert_eq!(
        kinds,
        [store::Predicate::Checks, store::Predicate::Provenance],
        "signed again is the newest, once"
    );
    let envelope = &found[1].envelope;
    let text = |value: &serde_json::Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    let payload = text(&envelope["payload"]);
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&payload).unwrap(),
        statement
    );
    let kind = envelope["payloadType"].as_str().unwrap();
    // DSSE, "Protocol": what is signed is not the payload alone.
    let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    message.extend(&payload);
    let signature: [u8; 64] = text(&envelope["signatures"][0]["sig"]).try_into().unwrap();
    let key = hex::decode(key.to_string().strip_prefix("ed25519:").unwrap()).unwrap();
    let key = ed25519_dalek::VerifyingKey::from_bytes(&key.try_into().unwrap()).unwrap();
    let signature = ed25519_dalek::Signature::from_bytes(&signature);
    key.verify_strict(&message, &signature).unwrap();
    message.push(b' ');
    assert!(key.verify_strict(&message, &signature).is_err());
}

#[tokio::test]
async fn an_image_of_several_is_each_one_s_own() {
    let world = World::new();
    let image = Digest::of("image");
    for (task, (text, script)) in [
        ("rival/shop/dev", "rival.sh"),
        ("acme/shop/dev", "shop.sh"),
        ("acme/site/dev", "site.sh"),
    ]
    .into_iter()
    .enumerate()
    {
        let place = world.environment(text).await;
        let layer = |name: &str| model::port::Layer {
            key: Digest::of(name),
            made_by: name.to_owned(),
            size_bytes: 1,
            source: Some(Digest::of(name)),
        };
        let baked = Baked {
            image,
            layers: vec![layer("base debian-12"), layer(script)],
            ..baked()
        };
        let new = NewBake {
            ticket: ticket(100 + task as u64),
            place: place.clone(),
            execution: None,
            log: None,
        };
        let of = serde_json::json!({ "subject": [{ "digest": { "sha256": image.hex() } }], "of": text });
        world
            .write(move |tx| {
                tx.begin_bake(&new, &by(1))?;
                tx.finish_bake(&new.ticket, Ok(&baked), &by(2))?;
                for second in [3, 4] {
                    let new = NewRelease {
                        image,
                        ..release(&format!("{place} {second}"))
                    };
                    tx.create_release(&place, &new, &by(second))?;
                }
                tx.attest(&place, &image, store::Predicate::Provenance, &of, &by(5))?;
                let same = serde_json::json!({ "subject": [{ "digest": { "sha256": image.hex() } }] });
                tx.attest(&place, &image, store::Predicate::Checks, &same, &by(6))
            })
            .await;
    }
    for (of, expected) in [
        (None, &["rival/shop", "acme/shop", "acme/site"][..]),
        (Some(("acme", None)), &["acme/shop", "acme/site"]),
        (Some(("acme", Some("site"))), &["acme/site"]),
        (Some(("rival", None)), &["rival/shop"]),
        (Some(("nobody", None)), &[]),
    ] {
        let read = move |db: &store::Db<'_>| {
            let names = of.map(|(own, app)| (tenant(own), app.map(self::app)));
            let of = names.as_ref().map(|(tenant, app)| (tenant, app.as_ref()));
            Ok::<_, Error>((db.image_origins(&image, of)?, db.attestations(&image, of)?))
        };
        let (origins, signed) = world.store.read(read).await.unwrap();
        let told: Vec<String> = origins
            .iter()
            .map(|origin| {
                let content = &origin.content;
                // Its own script, and the first of its commits.
                let own = format!(
                    "{}.sh",
                    if origin.tenant == tenant("rival") {
                        "rival"
                    } else {
                        origin.app.as_str()
                    }
                );
                assert_eq!(content.layers[1].made_by, own);
                assert!(
                    content.commit.message.ends_with("/dev 3"),
                    "{}",
                    content.commit.message
                );
                format!("{}/{}", origin.tenant, origin.app)
            })
            .collect();
        assert_eq!(told, expected, "{of:?}");
        let of: Vec<&str> = signed
            .iter()
            .filter_map(|one| one.statement["of"].as_str())
            .collect();
        let of: Vec<&str> = of.iter().filter_map(|place| place.strip_suffix("/dev")).collect();
        assert_eq!((of, signed.len()), (expected.to_vec(), 2 * expected.len()));
    }
}

#[tokio::test]
async fn what_was_signed_of_an_image_before_it_was_each_one_s_counts_for_those_who_had_it() {
    let world = World::new();
    let image = Digest::of("image");
    let statement = serde_json::json!({ "subject": [{ "digest": { "sha256": image.hex() } }] });
    let mut places = Vec::new();
    for (task, text) in [
        "acme/shop/production",
        "rival/shop/production",
        "late/shop/production",
    ]
    .into_iter()
    .enumerate()
    {
        let place = world.environment(text).await;
        let new = NewBake {
            ticket: ticket(200 + task as u64),
            place: place.clone(),
            execution: None,
            log: None,
        };
        world
            .write(move |tx| {
                tx.begin_bake(&new, &by(1))?;
                match new.place.tenant == tenant("late") {
                    true => Ok(()),
                    false => tx.finish_bake(&new.ticket, Ok(&Baked { image, ..baked() }), &by(2)),
                }
            })
            .await;
        places.push(place);
    }
    let signs = |place: &Place, second: i64| {
        let (place, statement) = (place.clone(), statement.clone());
        world.write(move |tx| {
            tx.attest(
                &place,
                &image,
                store::Predicate::Provenance,
                &statement,
                &by(second),
            )?;
            tx.attest(&place, &image, store::Predicate::Checks, &statement, &by(second))
        })
    };
    let counts = async || {
        let asked = places.clone();
        let read = move |db: &store::Db<'_>| {
            let evidence = asked.iter().map(|place| db.evidence(&image, place));
            let told = asked.iter().map(|place| {
                let of = Some((&place.tenant, Some(&place.app)));
                db.attestations(&image, of)
            });
            let count = |all: Vec<Vec<store::Attestation>>| all.iter().map(Vec::len).collect::<Vec<_>>();
            let evidence = evidence.collect::<Result<Vec<_>, _>>()?;
            Ok::<_, Error>((count(evidence), count(told.collect::<Result<Vec<_>, _>>()?)))
        };
        world.store.read(read).await.unwrap()
    };
    signs(&places[0], 3).await;
    assert_eq!(counts().await, (vec![2, 0, 0], vec![2, 0, 0]), "each has its own");
    let raw = rusqlite::Connection::open(world.dir().join("store.sqlite3")).unwrap();
    raw.execute("UPDATE attestations SET app_id = NULL", []).unwrap();
    assert_eq!(
        counts().await,
        (vec![2, 2, 0], vec![0, 0, 0]),
        "who had it is believed and told nothing; who has not baked it is not believed"
    );
    // From its next bake on the app's own are all that counts.
    signs(&places[1], 4).await;
    raw.execute(
        "DELETE FROM attestations WHERE app_id IS NOT NULL AND predicate = 'checks'",
        [],
    )
    .unwrap();
    assert_eq!(counts().await, (vec![2, 1, 0], vec![0, 1, 0]));
    raw.execute(
        "UPDATE attestations SET statement = '{}' WHERE app_id IS NULL",
        [],
    )
    .unwrap();
    assert_eq!(
        counts().await,
        (vec![0, 1, 0], vec![0, 1, 0]),
        "changed, it is nobody's word"
    );
}
