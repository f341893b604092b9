//! The console: who sees which page, and that open pages stay true.

use axum::{
    Extension,
    body::{Body, HttpBody as _, to_bytes},
    http::{HeaderMap, Request, StatusCode, header},
    response::Response,
};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use model::{
    policy::Role::{Approver, Auditor, Developer, Operator},
    port::{Fault, PhaseReport, PhaseStatus},
};
use serde_json::json;

use super::world::{self, Callers, Who, World};
use crate::web::{self, listen::Peer};

const MACHINE: &str = r#"{"StartAt":"Think","States":{"Think":{"Type":"Pass","Next":"Wait"},"Wait":{"Type":"Wait","Seconds":9,"End":true}}}"#;

async fn send(world: &World, who: &Who, request: axum::http::request::Builder, body: &str) -> Response {
    let peer = match who {
        Who::User(uid) => Peer::Local { uid: *uid },
        _ => Peer::Remote(([127, 0, 0, 1], 9).into()),
    };
    let request = match who {
        Who::Bearer(token) => request.header(header::COOKIE, format!("vend={token}")),
        _ => request,
    };
    let router = web::router(world.state.clone()).layer(Extension(peer));
    let request = request.body(Body::from(body.to_owned())).unwrap();
    TowerToHyperService::new(router).call(request).await.unwrap()
}

async fn page(world: &World, who: &Who, path: &str) -> (StatusCode, HeaderMap, String) {
    let response = send(world, who, Request::get(path), "").await;
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, 10 << 20).await.unwrap();
    (
        parts.status,
        parts.headers,
        String::from_utf8(text.to_vec()).unwrap(),
    )
}

/// A machine of acme with an execution that waits; gives the execution's page.
async fn started(world: &World, owner: &Who) -> String {
    begun(world, owner, MACHINE, json!({ "a": "<b>" })).await
}

async fn begun(world: &World, owner: &Who, definition: &str, input: serde_json::Value) -> String {
    let Who::Bearer(token) = owner else {
        panic!("a bearer")
    };
    let call = |operation: &'static str, input: serde_json::Value| async move {
        let request = Request::post("/")
            .header("x-amz-target", format!("AWSStepFunctions.{operation}"))
            .header("authorization", format!("Bearer {token}"));
        let response = send(world, &Who::Nobody, request, &input.to_string()).await;
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        serde_json::from_slice::<serde_json::Value>(&body).unwrap()
    };
    let machine = call(
        "CreateStateMachine",
        json!({ "name": "thinker", "definition": definition, "roleArn": "arn:aws:iam::123456789012:role/r" }),
    )
    .await;
    let started = call(
        "StartExecution",
        json!({ "stateMachineArn": machine["stateMachineArn"], "input": input.to_string() }),
    )
    .await;
    let arn = started["executionArn"].as_str().unwrap().to_owned();
    let run = world
        .state
        .store
        .read(move |db| db.run(&arn))
        .await
        .unwrap()
        .unwrap();
    format!("/console/runs/{}", run.key)
}

#[tokio::test]
async fn everybody_sees_their_own_pages_and_nobody_elses() {
    let callers = Callers::new().await;
    let world = &callers.world;
    let run = started(world, callers.with(Some(Developer))).await;
    let pages = [
        "/console/".to_owned(),
        format!("/console/executions/{}", world::execution()),
        format!("/console/logs/{}", world::log()),
        "/console/machines".into(),
        "/console/machines/acme/thinker".into(),
        run,
    ];
    let lists = ["/console/", "/console/machines"];
    let foreigner = world.bearer(Operator, Some("other")).await;
    for path in &pages {
        let (status, headers, _) = page(world, &Who::Nobody, path).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{path} for nobody");
        assert_eq!(headers[header::LOCATION], "/console/sign-in");
        for role in [Operator, Developer, Approver, Auditor] {
            let (status, headers, text) = page(world, callers.with(Some(role)), path).await;
            assert_eq!(status, StatusCode::OK, "{path} for {role:?}: {text}");
            assert!(headers.contains_key(header::CONTENT_SECURITY_POLICY), "{path}");
            assert_eq!(headers[header::CACHE_CONTROL], "no-store", "{path}");
        }
        let (status, _, text) = page(world, &foreigner, path).await;
        match lists.contains(&path.as_str()) {
            true => assert!(
                !text.contains("acme") && !text.contains("thinker"),
                "{path}: {text}"
            ),
            false => assert_eq!(status, StatusCode::NOT_FOUND, "{path} for another tenant: {text}"),
        }
    }
}

#[tokio::test]
async fn an_execution_is_drawn_in_the_colours_of_its_states() {
    let world = World::new().await;
    let owner = world.bearer(Developer, Some("acme")).await;
    let run = started(&world, &owner).await;
    let (_, _, text) = page(&world, &owner, &run).await;
    assert!(text.contains("<title>Think (Pass, succeeded)</title>"), "{text}");
    assert!(text.contains("<title>Wait (Wait, running)</title>"), "{text}");
    assert!(
        text.contains("&lt;b&gt;") && !text.contains("<b>"),
        "what people wrote is escaped"
    );
    let (_, _, text) = page(&world, &owner, "/console/machines/acme/thinker").await;
    assert!(text.contains("<title>Wait (Wait, not entered)</title>"), "{text}");
}

#[tokio::test]
async fn an_execution_shows_what_its_builds_went_through() {
    let world = World::new().await;
    let phase = |name: &str, status, message: Option<&str>| PhaseReport {
        name: name.to_owned(),
        status,
        started_at: Timestamp::UNIX_EPOCH,
        duration_ms: status.map(|_| 61_000),
        message: message.map(str::to_owned),
    };
    let fault = Fault {
        phases: vec![
            phase("SUBMITTED", Some(PhaseStatus::Succeeded), None),
            phase("BUILD", Some(PhaseStatus::Stopped), Some("<i> stopped it")),
            phase("COMPLETED", None, None),
        ],
        ..Fault::order("it was stopped")
    };
    let new = store::NewBuild {
        ticket: "t-1".parse().unwrap(),
        place: world::place(),
        execution: Some(world::execution()),
        commit: world::commit(),
        source: model::Digest::of("source"),
        identifier: None,
        log: "build/t-1".parse().ok(),
    };
    let written = world.state.store.write(move |tx| {
        let by = store::By::platform(Timestamp::UNIX_EPOCH);
        tx.begin_build(&new, &by)?;
        tx.finish_build(&new.ticket, Err(&fault), &by)
    });
    written.await.unwrap();
    let viewer = world.bearer(Auditor, Some("acme")).await;
    let (_, _, text) = page(
        &world,
        &viewer,
        &format!("/console/executions/{}", world::execution()),
    )
    .await;
    // The first is the world's own.
    for part in [
        "Build 2",
        "SUBMITTED",
        "stopped",
        "1 min 1 s",
        "&lt;i&gt; stopped it",
        "COMPLETED",
    ] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
}

#[tokio::test]
async fn a_long_history_is_drawn_whole_and_shown_in_part() {
    const EACH: &str = r#"{"StartAt":"Each","States":{"Each":{"Type":"Map","ItemsPath":"$.items","Next":"Wait",
        "ItemProcessor":{"StartAt":"Think","States":{"Think":{"Type":"Pass","End":true}}}},
        "Wait":{"Type":"Wait","Seconds":9,"End":true}}}"#;
    let world = World::new().await;
    let owner = world.bearer(Developer, Some("acme")).await;
    let items: Vec<String> = (0..1500).map(|item| format!("{item:050}")).collect();
    let run = begun(
        &world,
        &owner,
        EACH,
        json!({ "items": items, "last": "the tail" }),
    )
    .await;
    let key: u64 = run.rsplit('/').next().unwrap().parse().unwrap();
    let engine = &world.state.states.engine;
    let store = &world.state.store;
    let both = || async move {
        let read = store.read(move |db| {
            let (events, last) = engine::history(db, key, 1, usize::MAX)?;
            assert_eq!(events.len() as u64, last);
            Ok::<_, engine::Error>((events, engine::outline(db, key)?))
        });
        read.await.unwrap()
    };
    // From the log, and from the pieces.
    for settled in [false, true] {
        if settled {
            engine.settle().await.unwrap();
        }
        let (events, marks) = both().await;
        assert!(events.len() > 6000, "{}", events.len());
        let marked = events.into_iter().map(|event| engine::Mark {
            id: event.id,
            previous: event.previous,
            name: event.details["name"].as_str().map(str::to_owned),
            kind: event.kind,
        });
        assert!(marked.eq(marks), "settled: {settled}");
    }
    let (_, _, text) = page(&world, &owner, &run).await;
    assert!(
        text.contains("<title>Wait (Wait, running)</title>"),
        "{}",
        text.len()
    );
    assert!(text.contains("events are shown."), "{}", text.len());
    assert!(!text.contains("the tail"), "an input is cut: {}", text.len());
}

#[tokio::test]
async fn an_open_page_hears_what_changed() {
    let world = World::new().await;
    let owner = world.bearer(Developer, Some("acme")).await;
    let run = started(&world, &owner).await;
    let request = Request::get(&run).header(header::ACCEPT, "text/event-stream");
    let response = send(&world, &owner, request, "").await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut body = Box::pin(response.into_body());
    let mut heard = String::new();
    while !heard.contains("\n\n") {
        heard.push_str(&frame(&mut body).await.expect("the page as it is"));
    }
    assert!(heard.starts_with("event: body"), "{heard}");
    let key = run.rsplit('/').next().unwrap().parse().unwrap();
    world.state.states.engine.stop(key, None, None).await.unwrap();
    while let Some(more) = frame(&mut body).await {
        heard.push_str(&more);
    }
    assert!(
        heard.contains("event: last") && heard.contains("aborted"),
        "{heard}"
    );
}

async fn frame(body: &mut std::pin::Pin<Box<Body>>) -> Option<String> {
    let frame = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await?;
    let data = frame.unwrap().into_data().unwrap();
    Some(String::from_utf8(data.to_vec()).unwrap())
}

#[tokio::test]
async fn a_link_signs_nobody_in_by_itself() {
    let world = World::new().await;
    let (_, _, form) = page(&world, &Who::Nobody, "/console/sign-in").await;
    assert!(form.contains("<button type=\"submit\">"), "{form}");
    let (status, _, script) = page(&world, &Who::Nobody, "/console/console.js").await;
    assert_eq!(status, StatusCode::OK);
    for way in ["submit", "click(", "fetch(", "XMLHttpRequest", "sendBeacon"] {
        assert!(!script.contains(way), "the script sends the form: {way}");
    }
}

#[tokio::test]
async fn a_token_becomes_a_cookie_that_scripts_cannot_read() {
    let world = World::new().await;
    let token = world.token(Developer, Some("acme")).await;
    let form = |request: axum::http::request::Builder, token: String| {
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let world = &world;
        async move { send(world, &Who::Nobody, request, &format!("token={token}")).await }
    };
    let post = || Request::post("/console/sign-in");
    let signed = form(post().header("sec-fetch-site", "same-origin"), token.clone()).await;
    assert_eq!(signed.status(), StatusCode::SEE_OTHER);
    let cookie = signed.headers()[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.starts_with(&format!("vend={token};")), "{cookie}");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"),
        "{cookie}"
    );

    let wrong = form(post(), format!("{token}x")).await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert!(!wrong.headers().contains_key(header::SET_COOKIE));
    let splitting = form(post(), format!("{token}%0d%0aSet-Cookie:%20a=b")).await;
    assert_eq!(splitting.status(), StatusCode::UNAUTHORIZED);
    let elsewhere = form(post().header("sec-fetch-site", "cross-site"), token).await;
    assert_eq!(elsewhere.status(), StatusCode::FORBIDDEN);
    assert!(!elsewhere.headers().contains_key(header::SET_COOKIE));
}
