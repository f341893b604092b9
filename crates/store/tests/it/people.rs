//! Approvals and webhook deliveries.

use model::{
    ApprovalId, DeliveryId, ExecutionId,
    plan::{Plan, PlanKind},
    webhook::Provider,
};
use store::{ApprovalState, By, DeliveryVerdict, Error, NewApproval, NewDelivery, Received};

use crate::world::{World, app, at, by, place, tenant};

fn plan(to: u64) -> Plan {
    Plan {
        place: "acme/shop/production".into(),
        kind: PlanKind::Release,
        from: None,
        to,
        changes: vec![],
        commits: vec![],
    }
}

fn question(id: u64) -> NewApproval {
    NewApproval {
        id: ApprovalId::from_bits(id),
        place: place("acme/shop/production"),
        execution: ExecutionId::from_bits(1),
        task: 1,
        plan: plan(1),
        required: 1,
        approvers: vec![],
        authors: vec!["Ann <Ann@acme.example>".into()],
        author_may_approve: false,
        expires_at: at(100),
    }
}

/// Answers: who, what, when. The state after each, `None` where it is refused.
type Answers<'a> = &'a [(&'a str, bool, i64, Option<ApprovalState>)];

async fn check(name: &str, new: NewApproval, answers: Answers<'_>) {
    let world = World::new();
    world.environment("acme/shop/production").await;
    let asked = world
        .write(move |tx| tx.open_approval(&new, &By::platform(at(0))))
        .await;
    for (who, yes, second, expected) in answers {
        let (id, digest, yes) = (asked.id.clone(), asked.digest, *yes);
        let by = By::new(*who, at(*second));
        let decided = world
            .store
            .write(move |tx| tx.decide(&id, &digest, yes, Some("why"), &by))
            .await;
        match (decided, expected) {
            (Ok(approval), Some(state)) => assert_eq!(approval.state, *state, "{name}: {who}"),
            (Err(Error::Refused { .. }), None) => {}
            (other, _) => panic!("{name}: {who}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn decisions() {
    use ApprovalState::{Approved, Open, Rejected};
    let two = || NewApproval {
        required: 2,
        ..question(1)
    };
    let named = || NewApproval {
        approvers: vec!["ops@acme.example".into()],
        ..question(1)
    };
    check("one yes", question(1), &[("person:bob", true, 1, Some(Approved))]).await;
    check(
        "one no",
        two(),
        &[
            ("person:bob", false, 1, Some(Rejected)),
            ("person:eve", true, 2, None),
        ],
    )
    .await;
    let quorum = [
        ("person:bob", true, 1, Some(Open)),
        ("person:bob", true, 2, None),
        ("person:BOB", false, 2, None),
        ("person:eve", true, 3, Some(Approved)),
        ("person:tom", true, 4, None),
    ];
    check("two yeses of two people", two(), &quorum).await;
    check(
        "the author",
        question(1),
        &[("person:ann@acme.example", true, 1, None)],
    )
    .await;
    check(
        "the author's no",
        question(1),
        &[("person:ann@acme.example", false, 1, None)],
    )
    .await;
    let allowed = NewApproval {
        author_may_approve: true,
        ..question(1)
    };
    check(
        "an author who may",
        allowed,
        &[("person:ann@acme.example", true, 1, Some(Approved))],
    )
    .await;
    let of_named = [
        ("person:bob", true, 1, None),
        ("person:Ops@acme.example", true, 2, Some(Approved)),
    ];
    check("only those who are named", named(), &of_named).await;
    check(
        "in time",
        question(1),
        &[("person:bob", true, 99, Some(Approved))],
    )
    .await;
    check("too late", question(1), &[("person:bob", true, 100, None)]).await;
    let nobody = NewApproval {
        required: 0,
        ..question(1)
    };
    check("at least one", nobody, &[("person:bob", true, 1, Some(Approved))]).await;
}

#[tokio::test]
async fn another_plan_makes_answers_void() {
    let world = World::new();
    world.environment("acme/shop/production").await;
    world
        .write(|tx| {
            let bob = By::new("person:bob", at(2));
            let first = tx.open_approval(&question(1), &by(0))?;
            let same = tx.open_approval(&question(2), &by(1))?;
            assert_eq!(same.id, first.id, "asked once");
            let other = tx.decide(&first.id, &plan(2).digest(), true, None, &bob);
            assert!(
                matches!(other, Err(Error::Refused { .. })),
                "another plan than was shown"
            );
            assert_eq!(
                tx.decide(&first.id, &first.digest, true, None, &bob)?.state,
                ApprovalState::Approved
            );
            let changed = NewApproval {
                plan: plan(2),
                ..question(3)
            };
            let second = tx.open_approval(&changed, &by(3))?;
            assert_eq!(second.state, ApprovalState::Open);
            assert_eq!(tx.approval(&first.id)?.state, ApprovalState::Void);
            assert_eq!(
                tx.approval(&first.id)?.decisions.len(),
                1,
                "what was said stays on record"
            );
            assert_eq!(tx.open_approvals()?, std::slice::from_ref(&second));
            assert_eq!(tx.next_approval_expiry()?, Some(at(100)));
            assert_eq!(tx.expire_approvals(&By::platform(at(99)))?, []);
            let expired = tx.expire_approvals(&By::platform(at(100)))?;
            assert_eq!(expired[0].state, ApprovalState::Expired);
            assert_eq!(
                tx.open_approval(&changed, &by(101))?.state,
                ApprovalState::Expired,
                "still the answer"
            );
            let third = NewApproval {
                execution: ExecutionId::from_bits(2),
                ..question(4)
            };
            let third = tx.open_approval(&third, &by(101))?;
            tx.delete_environment(&third.place, &by(101))?;
            assert_eq!(tx.approval(&third.id)?.state, ApprovalState::Void);
            tx.void_approvals(&ExecutionId::from_bits(1), "cancelled", &by(102))?;
            assert_eq!(tx.approval(&second.id)?.state, ApprovalState::Expired);
            Ok(())
        })
        .await;
}

fn delivery(bits: u64, id: &str, verdict: DeliveryVerdict) -> NewDelivery {
    NewDelivery {
        id: DeliveryId::from_bits(bits),
        tenant: tenant("acme"),
        app: app("shop"),
        provider: Provider::Gitlab,
        delivery: Some(id.into()),
        headers: vec![
            ("X-Gitlab-Event".into(), "Push Hook".into()),
            ("X-Gitlab-Token".into(), "hunter2".into()),
            ("AUTHORIZATION".into(), "Basic x".into()),
        ],
        body: vec![b'x'; 100_000],
        verdict,
        reason: None,
        event: Some(model::webhook::Event::Ping),
    }
}

#[tokio::test]
async fn deliveries_are_kept_once_and_without_their_secrets() {
    use DeliveryVerdict::{Accepted, Refused};
    let world = World::new();
    world.environment("acme/shop/dev").await;
    world
        .write(|tx| {
            let receive = |new: &NewDelivery| tx.receive_delivery(new, &by(1));
            assert_eq!(receive(&delivery(1, "a", Refused))?, Received::New);
            let first = delivery(2, "a", Accepted);
            assert_eq!(receive(&first)?, Received::New, "what was refused occupies no id");
            assert_eq!(
                receive(&delivery(3, "a", Accepted))?,
                Received::Duplicate(first.id.clone())
            );
            let kept = tx.delivery(&first.id)?;
            assert_eq!(
                kept.headers,
                [("X-Gitlab-Event".to_owned(), "Push Hook".to_owned())]
            );
            assert_eq!(tx.delivery_body(&first.id)?.len(), 100_000);
            let refused = DeliveryId::from_bits(1);
            assert_eq!(tx.delivery(&refused)?.body_bytes, 100_000);
            assert_eq!(tx.delivery_body(&refused)?.len(), 65_536);
            tx.set_delivery_push(&first.id, 7)?;
            tx.replay_delivery(&first.id, Accepted, None, first.event.as_ref(), &by(2))?;
            let replayed = tx.delivery(&first.id)?;
            assert_eq!(
                (replayed.push, replayed.replays, replayed.replayed_at),
                (Some(7), 1, Some(at(2)))
            );
            let again = tx.replay_delivery(&refused, Accepted, None, None, &by(3));
            assert!(matches!(again, Err(Error::Refused { .. })));
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn refused_deliveries_cannot_fill_the_disk_or_the_ledger() {
    let world = World::new();
    world.environment("acme/shop/dev").await;
    let before = world.store.read(|db| db.ledger_head()).await.unwrap();
    world
        .write(|tx| {
            for n in 0..60 {
                tx.receive_delivery(&delivery(n, "a", DeliveryVerdict::Refused), &by(1))?;
            }
            let page = tx.deliveries(Some(&tenant("acme")), None, None, 40)?;
            assert_eq!(page.len(), 40);
            let rest = tx.deliveries(None, None, page.last().map(|last| last.seq), 40)?;
            assert_eq!(rest.len(), 10, "fifty are kept");
            let huge = NewDelivery {
                body: vec![0; (25 << 20) + 1],
                ..delivery(99, "b", DeliveryVerdict::Accepted)
            };
            assert!(matches!(
                tx.receive_delivery(&huge, &by(1)),
                Err(Error::Refused { .. })
            ));
            Ok(())
        })
        .await;
    assert_eq!(world.store.read(|db| db.ledger_head()).await.unwrap(), before);
}
