//! A database that was filled by the version before machines could be late, and what it says after all that came since.

use camino::Utf8PathBuf;
use ed25519_dalek::Signer as _;
use jiff::Timestamp;
use model::{
    ApprovalId, DeploymentId, Digest, ExecutionId, HostId, Place,
    plan::{Plan, PlanKind},
    port::{Baked, Commit},
    spec,
};
use rusqlite::params;
use serde_json::{Value, json};

use super::*;
use crate::{
    Db, Store,
    keys::Keys,
    sql::{At, Hash, Json},
};

/// The first migration that is looked at.
const FIRST: &str = include_str!("../../migrations/28-late-machines.sql");

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn place(text: &str) -> Place {
    text.parse().unwrap()
}

fn commit() -> Commit {
    Commit {
        id: "0".repeat(40),
        author: "Ann <ann@acme.example>".into(),
        message: "one".into(),
        branch: "main".into(),
        repository: "acme/shop".into(),
        committed_at: at(0),
    }
}

fn spec() -> spec::Environment {
    let text = "app: shop\nenvironments: { production: { branch: main } }\n";
    let (app, _) = spec::App::parse(text, "vend.yaml", &|path| path == "Procfile").unwrap();
    app.environments[0].clone()
}

fn plan() -> Plan {
    Plan {
        place: "acme/shop/production".into(),
        kind: PlanKind::Release,
        from: Some(1),
        to: 2,
        changes: vec![],
        commits: vec![commit()],
    }
}

fn baked(image: Digest) -> Baked {
    Baked {
        image,
        layers: vec![],
        reused: false,
        duration_ms: 1,
        log: None,
    }
}

/// The database as the version before this migration made it.
fn before(step: &str, dir: &Utf8Path, keys: &Keys) -> Connection {
    let mut connection = open(&dir.join(FILE)).unwrap();
    let first = STEPS.iter().position(|own| *own == step).unwrap();
    let steps = STEPS[..first].iter().map(|step| M::up(step));
    Migrations::from_iter(steps).to_latest(&mut connection).unwrap();
    crate::vault::prepare(&connection, keys).unwrap();
    connection
}

fn fill(connection: &Connection, keys: &Keys) {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        connection
            .execute(sql, values)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    };
    for (id, name) in [(1, "acme"), (2, "rival")] {
        let (created, number) = (At(at(id)), id);
        run(
            "INSERT INTO tenants VALUES (?1, ?2, ?3, 'person:op')",
            params![id, name, created],
        );
        run(
            "INSERT INTO apps VALUES (?1, ?1, 'shop', NULL, 7, ?2, 'person:op')",
            params![id, created],
        );
        run(
            "INSERT INTO environments (id, app_id, name, number, subnet, branch, spec, protected, desired, releases, live,
             previous, created_at, created_by) VALUES (?1, ?1, 'production', ?1, ?2, 'main', ?3, 1, 2, 2, 2, 1, ?4, 'x')",
            params![number, (10 << 24) + (number << 8), Json(&spec()), created],
        );
        run(
            "INSERT INTO uid_blocks VALUES (?1, ?2, ?2, NULL)",
            params![7 + id, id],
        );
        for (release, state) in [(1, "retired"), (2, "live")] {
            run(
                "INSERT INTO releases (environment_id, number, state, commit_json, source, image, revision, spec, secrets,
                 created_at, created_by, live_at, changed_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?5, ?6, '{\"key\":3}', ?7, 'x', ?7, ?7)",
                params![id, release, state, Json(&commit()), Hash(Digest::of("shared")), Json(&spec()), At(at(3))],
            );
        }
    }
    for (ticket, app, image) in [("t-1", 1, "shared"), ("t-2", 2, "shared"), ("t-3", 1, "own")] {
        let image = Digest::of(image);
        run(
            "INSERT INTO bakes (ticket, app_id, environment, state, baked, image, started_at, ended_at)
             VALUES (?1, ?2, 'production', 'succeeded', ?3, ?4, ?5, ?5)",
            params![ticket, app, Json(&baked(image)), Hash(image), At(at(2))],
        );
        run(
            "INSERT OR IGNORE INTO images VALUES (?1, ?2, ?3, ?3)",
            params![Hash(image), Json(&baked(image)), At(at(2))],
        );
    }
    for (image, predicate) in [
        ("shared", "provenance"),
        ("shared", "checks"),
        ("own", "provenance"),
        ("own", "checks"),
    ] {
        let image = Digest::of(image);
        let statement = json!({ "subject": [{ "digest": { "sha256": image.hex() } }] }).to_string();
        run(
            "INSERT INTO attestations (image, predicate, statement, envelope, at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                Hash(image),
                predicate,
                statement,
                Json(&envelope(&statement, keys)),
                At(at(2))
            ],
        );
    }
    run(
        "INSERT INTO registered_machines (id, tenant_id, name, labels, key, environment_id, release, joined_at)
         VALUES (?1, 1, 'box', '{\"role\":\"web\"}', ?2, 1, 2, ?3)",
        params![HostId::from_bits(1).as_str(), Hash(Digest::of("key")), At(at(4))],
    );
    run(
        "INSERT INTO deployments (id, environment_id, release, state, strategy, started_at, ended_at)
         VALUES (?1, 1, 2, 'Succeeded', 'blue-green', ?2, ?2)",
        params![DeploymentId::from_bits(1).as_str(), At(at(4))],
    );
    run(
        "INSERT INTO approvals VALUES (?1, 1, 'production', ?2, 1, ?3, ?4, 2, '[\"ann@acme.example\"]', '[\"bob\"]', 0,
         'open', NULL, ?5, ?6, ?5)",
        params![
            ApprovalId::from_bits(1).as_str(),
            ExecutionId::from_bits(1).as_str(),
            Json(&plan()),
            Hash(plan().digest()),
            At(at(5)),
            At(at(900))
        ],
    );
    run(
        "INSERT INTO decisions VALUES (?1, 'ann@acme.example', 'person:ann@acme.example', 1, NULL, ?2)",
        params![ApprovalId::from_bits(1).as_str(), At(at(6))],
    );
    run(
        "INSERT INTO moves (environment_id, host, release, share, closed, data, began_at, began_by)
         VALUES (1, 'lb.aws.example', 2, 0, 1, 'here', ?1, 'person:op')",
        params![At(at(7))],
    );
}

/// As DSSE has it.
fn envelope(statement: &str, keys: &Keys) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    const KIND: &str = "application/vnd.in-toto+json";
    let message = format!("DSSEv1 {} {KIND} {} {statement}", KIND.len(), statement.len());
    let signature = keys.signing.sign(message.as_bytes());
    json!({ "payloadType": KIND, "payload": STANDARD.encode(statement),
            "signatures": [{ "sig": STANDARD.encode(signature.to_bytes()) }] })
}

#[tokio::test]
async fn a_filled_database_means_the_same_after_the_newest_migrations() {
    let directory = tempfile::tempdir().unwrap();
    let dir = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
    let keys = Keys::open(&dir, true).unwrap();
    let connection = before(FIRST, &dir, &keys);
    fill(&connection, &keys);
    drop(connection);
    let store = Store::open(&dir).unwrap();
    let read = store.read(|db| {
        check(db);
        Ok::<_, Error>(())
    });
    read.await.unwrap();
}

fn check(db: &Db<'_>) {
    let (own, other) = (place("acme/shop/production"), place("rival/shop/production"));
    let tenants = db.tenants().unwrap();
    let names: Vec<&str> = tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    assert_eq!(names, ["acme", "rival"]);
    for place in [&own, &other] {
        assert_eq!(db.app(&place.tenant, &place.app).unwrap().name.as_str(), "shop");
        let environment = db.environment(place).unwrap();
        assert_eq!((environment.live, environment.previous), (Some(2), Some(1)));
        assert_eq!((environment.protected, environment.desired), (true, Some(2)));
        assert_eq!(environment.spec, Some(spec()));
        let releases = db.releases(place, None, 9).unwrap();
        let numbers: Vec<u64> = releases.iter().map(|release| release.content.number).collect();
        assert_eq!(numbers, [2, 1]);
        assert_eq!(releases[0].content.secrets["key"], 3);
        assert_eq!(releases[0].content.commit, commit());
        // Nothing was closed to visitors, and each rule gets its first step from the rules that there are.
        assert_eq!(db.closure(place).unwrap(), None);
        assert!(db.steps(place).unwrap().is_empty());
        assert!(
            db.owners().unwrap().is_empty(),
            "the first pass says whose names are"
        );
    }
    images(db, &own, &other);
    let machine = &db.machines_of(&own).unwrap()[0];
    assert_eq!((machine.name.as_str(), machine.release), ("box", Some(2)));
    assert_eq!(
        (machine.tries, machine.tried_at, &machine.failure),
        (0, None, &None)
    );
    let deployment = db.settled_deployment(&own).unwrap().unwrap();
    assert_eq!(
        (deployment.release, deployment.cause),
        (2, None),
        "somebody wanted it"
    );
    let approval = &db.open_approvals().unwrap()[0];
    assert_eq!((&approval.plan, approval.digest), (&plan(), plan().digest()));
    assert_eq!((approval.given(), approval.required), (1, 2));
    let moving = db.find_move(&own).unwrap().unwrap();
    assert!(moving.closed && !moving.torn);
    // Whoever carried its data has ended: it is overdue since then.
    assert_eq!(
        (moving.closed_at, moving.closed_until),
        (Some(at(7)), Some(at(7)))
    );
    assert_eq!(db.overdue_moves(at(8)).unwrap(), [own]);
}

fn images(db: &Db<'_>, own: &Place, other: &Place) {
    let (shared, single) = (Digest::of("shared"), Digest::of("own"));
    assert_eq!(db.images().unwrap().len(), 2);
    let told = |image: &Digest, place: &Place| {
        let of = Some((&place.tenant, Some(&place.app)));
        (
            db.attestations(image, of).unwrap().len(),
            db.evidence(image, place).unwrap().len(),
        )
    };
    assert_eq!(told(&single, own), (2, 2), "what one app had is its own");
    assert_eq!(told(&single, other), (0, 0));
    for place in [own, other] {
        assert_eq!(
            told(&shared, place),
            (0, 2),
            "what several had is told to none, and counts for each"
        );
    }
    assert_eq!(db.image_origins(&shared, None).unwrap().len(), 2);
}

/// Who said that an alarm rings was not kept once: nobody who tells of it for the first time silences it.
#[tokio::test]
async fn what_rang_before_it_was_known_by_whom_rings_until_somebody_says_by_hand_that_it_is_well() {
    use model::alarm::AlarmState;
    const TELLERS: &str = include_str!("../../migrations/37-alarms-by-teller.sql");

    let directory = tempfile::tempdir().unwrap();
    let dir = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
    let keys = Keys::open(&dir, true).unwrap();
    let connection = before(TELLERS, &dir, &keys);
    let tenant = "INSERT INTO tenants (id, name, created_at, created_by) VALUES (1, 'acme', 0, 'person:op')";
    connection.execute(tenant, []).unwrap();
    let alarm = "INSERT INTO alarms VALUES (1, 'errors', 'alarm', '7 %', 0, 0, 'token:east', NULL, NULL)";
    connection.execute(alarm, []).unwrap();
    drop(connection);
    let store = Store::open(&dir).unwrap();
    let write = store.write(|tx| {
        let (tenant, name) = ("acme".parse().unwrap(), "errors".parse().unwrap());
        let by = crate::By::new("token:west", at(1));
        let west = crate::Told {
            teller: "west".into(),
            is_all: true,
            alarms: [("errors".parse().unwrap(), (AlarmState::Ok, None))].into(),
        };
        tx.hear_alarms(&tenant, &west, &by)?;
        assert_eq!(tx.alarm(&tenant, &name)?.state, AlarmState::Alarm);
        tx.set_alarm(&tenant, &name, AlarmState::Ok, None, &by)
    });
    assert_eq!(write.await.unwrap().state, AlarmState::Ok);
}
