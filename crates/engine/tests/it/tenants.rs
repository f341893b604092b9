//! Tenants that go while something of them is decided.

use std::time::Duration;

use engine::{Error, Limits};
use jiff::Timestamp;
use serde_json::json;

use crate::world::{OWNER, chain, dir, ended, open, resource, run, start};

const WAIT: &str = r#"{"StartAt":"W","States":{"W":{"Type":"Wait","Seconds":900,"End":true}}}"#;

/// What was decided for a tenant while its row went is refused to whoever asked, and to nobody else.
#[tokio::test]
async fn a_tenant_that_goes_takes_no_commit_with_it() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let (handle, store) = (running.handle.clone(), running.store.clone());
    let by = || store::By::platform(Timestamp::now());
    let fail = r#"{"StartAt":"F","States":{"F":{"Type":"Fail","Error":"E"}}}"#;
    for round in 0..20 {
        let name: model::TenantName = format!("leaves-{round}").parse().unwrap();
        let own = name.clone();
        store
            .write(move |tx| tx.create_tenant(&own, &by()))
            .await
            .unwrap();
        let theirs = |text: &str, arn: &str| engine::Start {
            tenant: Some(name.clone()),
            owner: 1_000 + round,
            ..start(text, &format!("{arn}-{round}"), json!({}))
        };
        let failed = handle.start(theirs(fail, "failed")).await.unwrap().key;
        ended(&store, failed).await;

        // The writer is busy with the deletion while the starts and the redrive are decided.
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let own = name.clone();
        let deleted = store.write(move |tx| {
            let _ = gone.recv();
            tx.delete_tenant(&own, &by())
        });
        let deciding = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(go);
        };
        let other = start(&chain(1), &format!("stays-{round}"), json!({}));
        let (deleted, stays, late, also_late, again, ()) = tokio::join!(
            deleted,
            handle.start(other),
            handle.start(theirs(WAIT, "late")),
            handle.start(theirs(&chain(1), "also-late")),
            handle.redrive(failed),
            deciding
        );
        deleted.unwrap();
        stays.unwrap();
        for late in [late, also_late] {
            assert!(matches!(late, Err(Error::Refused(_))), "{late:?}");
        }
        // It may have been read after the deletion, too.
        assert!(
            matches!(
                again,
                Err(Error::Refused(_) | Error::NotOpen(_) | Error::NotRedrivable(_))
            ),
            "{again:?}"
        );
        let offer = handle.poll(&resource("work"), None).await.unwrap();
        handle
            .succeed(OWNER, &offer.token, json!({}))
            .await
            .expect("the tasks of refused starts are nobody's");
    }
    handle.settle().await.unwrap();
    let store = running.end().await;
    run(store, Limits::default()).await.end().await;
}
