//! Every operation of the document has a case here: an operation without one fails the suite.

mod alarms;
mod doors;
mod machines;
mod moves;

use std::collections::BTreeSet;

use axum::http::{Method, StatusCode};
use model::Digest;
use model::policy::Role::{self, Approver, Auditor, Developer, Monitor, Operator};
use serde_json::{Value, json};

use super::world::{self, Callers, Who, World};

/// What a caller of another tenant gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Foreigner {
    /// What is not theirs is not there.
    NotFound,
    /// A list, with nothing of acme in it.
    SeesNothing,
    /// The platform's own: it is there, and not for them.
    Forbidden,
    /// It is about the caller, or about nobody.
    Allowed,
}

struct Case {
    operation: &'static str,
    method: Method,
    uri: String,
    body: Option<Value>,
    foreigner: Foreigner,
    /// Roles of acme that may; the platform's operator always may.
    may: &'static [Role],
    status: u16,
}

/// Those who may look, and who may not.
const ANYBODY: &[Role] = &[Operator, Developer, Approver, Auditor, Monitor];
const EVERYBODY: &[Role] = &[Operator, Developer, Approver, Auditor];
const DEVELOPERS: &[Role] = &[Operator, Developer];
const OPERATORS: &[Role] = &[Operator];

fn case(
    operation: &'static str,
    method: Method,
    uri: &str,
    foreigner: Foreigner,
    may: &'static [Role],
) -> Case {
    Case {
        operation,
        method,
        uri: uri.to_owned(),
        body: None,
        foreigner,
        may,
        status: 200,
    }
}

impl Case {
    fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
}

fn cases() -> Vec<Case> {
    use Foreigner::{Allowed, Forbidden, NotFound, SeesNothing};
    let (get, post, put, delete) = (|| Method::GET, || Method::POST, || Method::PUT, || Method::DELETE);
    let environment = "/v1/tenants/acme/apps/shop/environments/dev";
    let execution = format!("/v1/executions/{}", world::execution());
    let approval = format!("/v1/approvals/{}", world::approval());
    let delivery = format!("/v1/webhooks/{}", world::delivery());
    let deployment = format!("/v1/deployments/{}", world::deployment());
    let image = format!("/v1/images/{}", Digest::of("image"));
    let in_acme = "tenant=acme&app=shop&environment=dev";
    let mut all = vec![
        case("version", get(), "/v1/version", Allowed, ANYBODY),
        case("health", get(), "/v1/health", Allowed, EVERYBODY),
        case("whoami", get(), "/v1/whoami", Allowed, ANYBODY),
        // A bearer of a token gets no session: see `sessions_are_for_the_local_socket`.
        case("session.create", post(), "/v1/session", Forbidden, &[]).status(201),
        case("tokens.create", post(), "/v1/tokens", NotFound, OPERATORS)
            .body(json!({ "name": "new", "role": "developer", "tenant": "acme" }))
            .status(201),
        case("tokens.list", get(), "/v1/tokens", SeesNothing, OPERATORS),
        case("tokens.revoke", delete(), "/v1/tokens/1", NotFound, OPERATORS),
        case("tenants.create", post(), "/v1/tenants", Forbidden, &[])
            .body(json!({ "name": "third" }))
            .status(201),
        // It lists what one may see.
        case("tenants.list", get(), "/v1/tenants", SeesNothing, ANYBODY),
        case("tenants.show", get(), "/v1/tenants/acme", NotFound, EVERYBODY),
        case("tenants.delete", delete(), "/v1/tenants/acme", NotFound, &[]).status(202),
        case(
            "apps.create",
            post(),
            "/v1/tenants/acme/apps",
            NotFound,
            DEVELOPERS,
        )
        .body(json!({ "name": "second" }))
        .status(201),
        case("apps.list", get(), "/v1/tenants/acme/apps", NotFound, EVERYBODY),
        case(
            "apps.show",
            get(),
            "/v1/tenants/acme/apps/shop",
            NotFound,
            EVERYBODY,
        ),
        case(
            "apps.delete",
            delete(),
            "/v1/tenants/acme/apps/shop",
            NotFound,
            OPERATORS,
        )
        .status(202),
        case(
            "apps.why",
            get(),
            "/v1/tenants/acme/apps/shop/why",
            NotFound,
            EVERYBODY,
        ),
        case(
            "environments.retry",
            post(),
            &format!("{environment}/retry"),
            NotFound,
            DEVELOPERS,
        )
        .status(202),
        case(
            "pushes.list",
            get(),
            "/v1/tenants/acme/apps/shop/pushes",
            NotFound,
            EVERYBODY,
        ),
        case(
            "secrets.list",
            get(),
            "/v1/tenants/acme/apps/shop/secrets",
            NotFound,
            EVERYBODY,
        ),
        case(
            "secrets.set",
            put(),
            "/v1/tenants/acme/apps/shop/secrets/new",
            NotFound,
            DEVELOPERS,
        )
        .body(json!({ "value": "x" })),
        case(
            "secrets.unset",
            delete(),
            "/v1/tenants/acme/apps/shop/secrets/api-key",
            NotFound,
            DEVELOPERS,
        ),
        case(
            "webhooks.secret",
            put(),
            "/v1/tenants/acme/apps/shop/webhook-secrets/gitlab",
            NotFound,
            DEVELOPERS,
        )
        .body(json!({ "value": "0123456789abcdef" })),
        case(
            "environments.list",
            get(),
            "/v1/tenants/acme/apps/shop/environments",
            NotFound,
            EVERYBODY,
        ),
        case("environments.show", get(), environment, NotFound, EVERYBODY),
        case(
            "environments.destroy",
            delete(),
            environment,
            NotFound,
            DEVELOPERS,
        )
        .status(202),
        case(
            "environments.protect",
            post(),
            &format!("{environment}/protect"),
            NotFound,
            OPERATORS,
        ),
        case(
            "environments.unprotect",
            post(),
            &format!("{environment}/unprotect"),
            NotFound,
            OPERATORS,
        ),
        case(
            "environments.scale",
            post(),
            &format!("{environment}/scale"),
            NotFound,
            DEVELOPERS,
        )
        .body(json!({ "hosts": 2 }))
        .status(202),
        case(
            "environments.wake",
            post(),
            &format!("{environment}/wake"),
            NotFound,
            DEVELOPERS,
        )
        .status(202),
        case(
            "environments.rollback",
            post(),
            &format!("{environment}/rollback"),
            NotFound,
            DEVELOPERS,
        )
        .body(json!({ "to": 1 }))
        .status(202),
        case(
            "environments.rollback.plan",
            post(),
            &format!("{environment}/rollback/plan"),
            NotFound,
            EVERYBODY,
        )
        .body(json!({})),
        case(
            "releases.list",
            get(),
            &format!("{environment}/releases"),
            NotFound,
            EVERYBODY,
        ),
        case(
            "releases.show",
            get(),
            &format!("{environment}/releases/1"),
            NotFound,
            EVERYBODY,
        ),
        case("executions.list", get(), "/v1/executions", SeesNothing, EVERYBODY),
        case("executions.show", get(), &execution, NotFound, EVERYBODY),
        case(
            "executions.artifact",
            get(),
            &format!("{execution}/builds/1/artifact?name=docs"),
            NotFound,
            EVERYBODY,
        ),
        case(
            "executions.revision",
            get(),
            &format!("{execution}/artifact"),
            NotFound,
            EVERYBODY,
        )
        // It has built nothing.
        .status(409),
        case(
            "executions.cancel",
            post(),
            &format!("{execution}/cancel"),
            NotFound,
            DEVELOPERS,
        )
        .status(202),
        case(
            "plans.show",
            get(),
            &format!("{execution}/plan"),
            NotFound,
            EVERYBODY,
        ),
        case(
            "drawings.show",
            get(),
            &format!("{execution}/drawing"),
            NotFound,
            EVERYBODY,
        ),
        case(
            "drawings.svg",
            get(),
            &format!("{execution}/drawing.svg"),
            NotFound,
            EVERYBODY,
        ),
        case("approvals.list", get(), "/v1/approvals", SeesNothing, EVERYBODY),
        case("approvals.show", get(), &approval, NotFound, EVERYBODY),
        case(
            "approvals.approve",
            post(),
            &format!("{approval}/approve"),
            NotFound,
            &[Operator, Approver],
        )
        .body(json!({})),
        case(
            "approvals.reject",
            post(),
            &format!("{approval}/reject"),
            NotFound,
            &[Operator, Approver],
        )
        .body(json!({ "why": "not today" })),
        case(
            "deployments.list",
            get(),
            &format!("/v1/deployments?{in_acme}"),
            NotFound,
            EVERYBODY,
        ),
        case("deployments.show", get(), &deployment, NotFound, EVERYBODY),
        case(
            "deployments.pause",
            post(),
            &format!("{deployment}/pause"),
            NotFound,
            DEVELOPERS,
        ),
        case(
            "deployments.resume",
            post(),
            &format!("{deployment}/resume"),
            NotFound,
            DEVELOPERS,
        ),
        case(
            "deployments.abort",
            post(),
            &format!("{deployment}/abort"),
            NotFound,
            DEVELOPERS,
        )
        .status(202),
        case("hosts.list", get(), "/v1/hosts", SeesNothing, EVERYBODY),
        case("images.list", get(), "/v1/images", SeesNothing, EVERYBODY),
        case("images.show", get(), &image, NotFound, EVERYBODY),
        case(
            "images.bill",
            get(),
            &format!("{image}/bill"),
            NotFound,
            EVERYBODY,
        ),
        case(
            "images.diff",
            get(),
            &format!("{image}/diff/{}", Digest::of("image")),
            NotFound,
            EVERYBODY,
        ),
        case(
            "images.export",
            get(),
            &format!("{image}/export?tag=v1"),
            NotFound,
            EVERYBODY,
        ),
        case("images.import", put(), "/v1/images", Forbidden, &[]).body(json!({})),
        case("bases.list", get(), "/v1/bases", Allowed, EVERYBODY),
        case("bases.refresh", post(), "/v1/bases/refresh", Forbidden, &[]).body(json!({})),
        case("edge.status", get(), "/v1/edge", SeesNothing, EVERYBODY),
        case("names.list", get(), "/v1/names", SeesNothing, EVERYBODY),
        case("logs.access", get(), "/v1/access", SeesNothing, EVERYBODY),
        case("logs.list", get(), "/v1/logs", SeesNothing, EVERYBODY),
        case(
            "logs.read",
            get(),
            &format!("/v1/logs/{}?offset=4", world::log()),
            NotFound,
            EVERYBODY,
        ),
        case("webhooks.list", get(), "/v1/webhooks", SeesNothing, EVERYBODY),
        case("webhooks.show", get(), &delivery, NotFound, EVERYBODY),
        case(
            "webhooks.replay",
            post(),
            &format!("{delivery}/replay"),
            NotFound,
            DEVELOPERS,
        ),
        case(
            "audit.list",
            get(),
            "/v1/audit?tenant=acme",
            NotFound,
            &[Operator, Auditor],
        ),
        case("audit.export", get(), "/v1/audit/export", Forbidden, &[]),
        case("audit.checkpoint", post(), "/v1/audit/checkpoint", Forbidden, &[]),
        case(
            "audit.public-key",
            get(),
            "/v1/audit/public-key",
            Allowed,
            EVERYBODY,
        ),
    ];
    all.extend(alarms::cases());
    all.extend(doors::cases(environment));
    all.extend(machines::cases());
    all.extend(moves::cases(environment));
    all
}

#[test]
fn every_operation_has_a_case() {
    let document = serde_json::to_value(crate::web::openapi()).unwrap();
    let mut operations = BTreeSet::new();
    for path in document["paths"].as_object().unwrap().values() {
        for operation in path.as_object().unwrap().values() {
            if let Some(id) = operation["operationId"].as_str() {
                assert!(operations.insert(id.to_owned()), "{id} is there twice");
            }
        }
    }
    assert!(operations.len() > 40, "the document is not whole: {operations:?}");
    let cases: BTreeSet<String> = cases()
        .into_iter()
        .map(|case| case.operation.to_owned())
        .collect();
    assert_eq!(operations, cases, "left: the document, right: the cases");
}

#[tokio::test]
async fn outsiders_are_refused() {
    let world = World::new().await;
    let strangers = [
        Who::Nobody,
        Who::Bearer("vend_00".into()),
        Who::Bearer("vends_e30.00".into()),
    ];
    for case in cases() {
        for who in &strangers {
            let (status, _) = world
                .ask(who, case.method.clone(), &case.uri, case.body.clone())
                .await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{} by {who:?}", case.operation);
        }
        let (status, problem) = world
            .ask(
                &Who::User(12345),
                case.method.clone(),
                &case.uri,
                case.body.clone(),
            )
            .await;
        assert_eq!(
            status,
            StatusCode::FORBIDDEN,
            "{} by another user",
            case.operation
        );
        assert!(problem["detail"].as_str().unwrap().contains("12345"));
    }
    assert!(world.recorder.commands.lock().unwrap().is_empty());
}

#[tokio::test]
async fn another_tenant_sees_and_does_nothing() {
    let world = World::new().await;
    // The strongest role that another tenant has, and tokens of acme to be found out about.
    world.token(Developer, Some("acme")).await;
    let foreigner = world.bearer(Operator, Some("other")).await;
    for case in cases() {
        let (status, answer) = world
            .ask(&foreigner, case.method.clone(), &case.uri, case.body.clone())
            .await;
        let operation = case.operation;
        match case.foreigner {
            Foreigner::NotFound => assert_eq!(status, StatusCode::NOT_FOUND, "{operation}: {answer}"),
            Foreigner::Forbidden => assert_eq!(status, StatusCode::FORBIDDEN, "{operation}: {answer}"),
            Foreigner::Allowed => assert_eq!(status.as_u16(), case.status, "{operation}: {answer}"),
            Foreigner::SeesNothing => {
                assert_eq!(status, StatusCode::OK, "{operation}: {answer}");
                assert!(!answer.to_string().contains("acme"), "{operation}: {answer}");
                let mark = if case.uri.contains('?') { '&' } else { '?' };
                let named = format!("{}{mark}tenant=acme", case.uri);
                let (status, _) = world.ask(&foreigner, case.method.clone(), &named, None).await;
                assert!(status.is_client_error(), "{operation}: {status}");
            }
        }
    }
    assert!(world.recorder.commands.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_not_there_looks_like_what_is_not_theirs() {
    let world = World::new().await;
    let foreigner = world.bearer(Operator, Some("other")).await;
    for (hidden, missing) in [
        ("/v1/tenants/acme", "/v1/tenants/nobody"),
        ("/v1/tenants/acme/apps/shop", "/v1/tenants/nobody/apps/shop"),
    ] {
        let (_, hidden) = world.ask(&foreigner, Method::GET, hidden, None).await;
        let (_, missing) = world.ask(&foreigner, Method::GET, missing, None).await;
        let words = |problem: &Value| problem["detail"].as_str().unwrap().replace("nobody", "acme");
        assert_eq!(words(&hidden), words(&missing));
    }
}

#[tokio::test]
async fn roles_may_what_they_may_and_nothing_else() {
    for role in [Operator, Developer, Approver, Auditor, Monitor] {
        let world = World::new().await;
        let who = world.bearer(role, Some("acme")).await;
        for case in cases().into_iter().filter(|case| !case.may.contains(&role)) {
            let (status, answer) = world
                .ask(&who, case.method.clone(), &case.uri, case.body.clone())
                .await;
            assert_eq!(
                status,
                StatusCode::FORBIDDEN,
                "{} by {role:?}: {answer}",
                case.operation
            );
        }
        assert!(world.recorder.commands.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn allowed_roles_are_accepted() {
    let looked_at = Callers::new().await;
    for case in cases() {
        let roles = case.may.iter().copied().map(Some);
        for role in roles.chain([None]) {
            // What changes something has a world of its own: it may undo what another case needs.
            let own = match case.method {
                Method::GET => None,
                _ => Some(Callers::new().await),
            };
            let callers = own.as_ref().unwrap_or(&looked_at);
            let who = callers.with(role);
            let (status, answer) = callers
                .world
                .ask(who, case.method.clone(), &case.uri, case.body.clone())
                .await;
            assert_eq!(
                status.as_u16(),
                case.status,
                "{} by {role:?}: {answer}",
                case.operation
            );
        }
    }
    let owner = Who::User(world::OWNER);
    let (status, _) = looked_at
        .world
        .ask(&owner, Method::GET, "/v1/audit/export", None)
        .await;
    assert_eq!(status, StatusCode::OK, "the platform's owner is its operator");
}

#[tokio::test]
async fn sessions_are_for_the_local_socket() {
    let world = World::new().await;
    let (status, session) = world.ask(&Who::User(0), Method::POST, "/v1/session", None).await;
    assert_eq!(status, StatusCode::CREATED);
    let bearer = Who::Bearer(session["text"].as_str().unwrap().to_owned());
    let (_, whoami) = world.ask(&bearer, Method::GET, "/v1/whoami", None).await;
    assert_eq!(whoami, json!({ "actor": "person:root", "role": "operator" }));
    let (status, _) = world.ask(&bearer, Method::POST, "/v1/session", None).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "a session makes no sessions");
}
