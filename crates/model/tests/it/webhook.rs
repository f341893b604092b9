//! Webhooks against deliveries that git hosts really sent.

use model::{
    Secret,
    webhook::{Event, Provider, Refusal, Verdict, delivery_id, explain, is_clone_url, read, verify},
};
use serde_json::Value;

use crate::common;

type Headers = Vec<(String, String)>;

fn headers(list: &[(&str, &str)]) -> Headers {
    list.iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

fn provider(name: &str) -> Option<Provider> {
    match name {
        "github" => Some(Provider::Github),
        "gitlab" => Some(Provider::Gitlab),
        _ => None,
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn same(golden: &Value, kind: &str, event: &Event) -> Result<(), String> {
    let text = |pointer: &str| {
        golden
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let repository = format!("{}/{}", text("/Repo/Namespace"), text("/Repo/Name"));
    let check = |what: &str, expected: String, found: &str| match expected == found {
        true => Ok(()),
        false => Err(format!("{what}: expected {expected:?}, found {found:?}")),
    };
    match event {
        Event::Push(push) => {
            check("kind", kind.to_owned(), "PushHook")?;
            check("ref", text("/Ref"), &push.reference)?;
            check("before", text("/Before"), &push.before)?;
            check("after", text("/After"), &push.commit.id)?;
            check("clone", text("/Repo/Clone"), &push.clone_url)?;
            check("repository", repository, &push.commit.repository)?;
            check("message", text("/Commit/Message"), &push.commit.message)?;
            let author = format!(
                "{} <{}>",
                text("/Commit/Author/Name"),
                text("/Commit/Author/Email")
            );
            check("author", author, &push.commit.author)?;
            check("sender", text("/Sender/Login"), &push.sender)
        }
        Event::Delete {
            reference,
            repository: found,
            ..
        } => {
            check("repository", repository, found)?;
            match kind {
                "PushHook" => check("ref", text("/Ref"), reference)?,
                _ => check("ref", text("/Ref/Name"), reference.rsplit('/').next().unwrap())?,
            }
            match golden["Action"].as_str() {
                Some("deleted") => Ok(()),
                None if text("/After").bytes().all(|b| b == b'0') => Ok(()),
                other => Err(format!("action {other:?}")),
            }
        }
        Event::Ping | Event::Ignored { .. } => match kind {
            "PushHook" => Err("a push is ignored".to_owned()),
            _ => Ok(()),
        },
    }
}

#[test]
fn reads_recorded_deliveries() {
    let Some(folder) = common::conformance("webhooks") else {
        return;
    };
    let (mut agree, mut other, mut wrong) = (0, 0, Vec::new());
    for case in common::json(&folder.join("index.json")).as_array().unwrap() {
        let (Some(provider), Some(list)) = (
            provider(case["provider"].as_str().unwrap()),
            case["headers"].as_object(),
        ) else {
            other += 1;
            continue;
        };
        let list: Headers = list
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect();
        let body = std::fs::read(folder.join(case["body"].as_str().unwrap())).unwrap();
        let verdict = match read(provider, &list, &body) {
            Err(refusal) => Err(refusal.to_string()),
            Ok(event) => match case["normalised"].as_str() {
                Some(golden) => same(
                    &common::json(&folder.join(golden)),
                    case["kind"].as_str().unwrap(),
                    &event,
                ),
                None => match (list[0].1.as_str(), &event) {
                    ("push", Event::Push(_) | Event::Delete { .. })
                    | ("ping", Event::Ping)
                    | ("delete", Event::Delete { .. }) => Ok(()),
                    ("push" | "ping" | "delete", event) => Err(format!("{event:?}")),
                    (_, Event::Ignored { .. }) => Ok(()),
                    (_, event) => Err(format!("{event:?}")),
                },
            },
        };
        match verdict {
            Ok(()) => agree += 1,
            Err(why) => wrong.push(format!("{} {list:?}: {why}", case["body"])),
        }
    }
    println!("{agree} agree, {other} are of providers out of scope");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn judges_recorded_signatures() {
    let Some(folder) = common::conformance("webhooks") else {
        return;
    };
    for case in common::json(&folder.join("signatures.json")).as_array().unwrap() {
        let text = |key: &str| case[key].as_str().unwrap();
        let Some(provider) = provider(text("provider")) else {
            println!("out of scope: {}", text("provider"));
            continue;
        };
        let (name, value) = text("header").split_once(':').unwrap();
        let list = headers(&[(name, value)]);
        let body = std::fs::read(folder.join(text("body"))).unwrap();
        let found = verify(provider, &list, &body, &secret(text("secret")));
        match name {
            // It fits, and it is refused all the same.
            "X-Hub-Signature" => {
                assert_eq!(found, Err(Refusal::OldSignature));
                let explained = explain(provider, &list, &body, Some(&secret(text("secret"))));
                assert_eq!(explained.signature.verdict, Verdict::Valid);
                assert!(explained.refusal.is_some());
            }
            _ => assert_eq!(found.is_ok(), case["valid"] == true, "{case}"),
        }
    }
}

const PUSH: &str = r#"{"ref":"refs/heads/main","before":"0000000000000000000000000000000000000000",
    "after":"6113728f27ae82c7b1a177c8d03f9e96e0adf246","repository":{"full_name":"acme/shop","clone_url":"URL"},
    "sender":{"login":"ada"}}"#;

fn github(body: &str) -> Result<Event, Refusal> {
    read(
        Provider::Github,
        &headers(&[("x-github-event", "push")]),
        body.as_bytes(),
    )
}

#[test]
fn nothing_that_git_could_mistake_gets_through() {
    for (url, expected) in [
        ("https://github.com/acme/shop.git", true),
        ("ssh://git@host:22/acme/shop", true),
        ("git@github.com:acme/shop.git", true),
        ("http://127.0.0.1:8080/a", true),
        ("", false),
        ("--upload-pack=touch /tmp/x", false),
        ("-oProxyCommand=x@h:p", false),
        ("ssh://-oProxyCommand=x/y", false),
        ("ssh://git@-oProxyCommand=x/y", false),
        ("ext::sh -c true", false),
        ("git@host:-x", false),
        ("git@host::x", false),
        ("file:///etc/passwd", false),
        ("/etc", false),
        ("../x", false),
        ("https://h/a b", false),
        ("https://h/a\nb", false),
        ("https://", false),
        ("https:///x", false),
    ] {
        assert_eq!(is_clone_url(url), expected, "{url}");
        let found = github(&PUSH.replace("URL", &url.replace('\n', "\\n")));
        assert_eq!(found.is_ok(), expected, "{url}: {found:?}");
    }
    let good = PUSH.replace("URL", "https://h/a");
    for bad in [
        "refs/heads/--exec=x",
        "refs/heads/a..b",
        "refs/heads/",
        "main",
        "refs/heads/a b",
        "",
    ] {
        assert!(github(&good.replace("refs/heads/main", bad)).is_err(), "{bad}");
    }
    assert!(matches!(
        github(&good.replace("refs/heads/main", "refs/notes/x")),
        Ok(Event::Ignored { .. })
    ));
    assert!(github(&good.replace("6113728f27ae82c7b1a177c8d03f9e96e0adf246", "HEAD")).is_err());
}

#[test]
fn a_push_names_the_account_of_its_sender() {
    let account = |event: Result<Event, Refusal>| match event.unwrap() {
        Event::Push(push) => push.account,
        other => panic!("{other:?}"),
    };
    let body = PUSH.replace("URL", "https://h/a");
    assert_eq!(account(github(&body)), None, "it is not said");
    let body = body.replace(r#""login":"ada""#, r#""login":"ada","id":88621008"#);
    assert_eq!(account(github(&body)), Some(88_621_008));
    let body = body.replace("88621008", r#""many""#);
    assert_eq!(account(github(&body)), None);
    let gitlab = r#"{"object_kind":"push","ref":"refs/heads/main","user_id":4,"user_username":"ada",
        "before":"1111111111111111111111111111111111111111","after":"6113728f27ae82c7b1a177c8d03f9e96e0adf246",
        "project":{"path_with_namespace":"acme/shop","git_http_url":"https://h/a"}}"#;
    let list = headers(&[("X-Gitlab-Event", "Push Hook")]);
    assert_eq!(account(read(Provider::Gitlab, &list, gitlab.as_bytes())), Some(4));
}

#[test]
fn a_form_is_read_and_signed_as_it_came() {
    let payload: String = PUSH
        .replace("URL", "https://h/a")
        .bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() {
                (b as char).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect();
    let body = format!("payload={payload}");
    let list = headers(&[
        ("X-GitHub-Event", "push"),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("X-Hub-Signature-256", "sha256=0000"),
    ]);
    assert!(matches!(
        read(Provider::Github, &list, body.as_bytes()),
        Ok(Event::Push(_))
    ));
    let forged = verify(Provider::Github, &list, body.as_bytes(), &secret("s"));
    assert_eq!(forged, Err(Refusal::Forged("X-Hub-Signature-256".to_owned())));
}

#[test]
fn secrets_that_prove_nothing_are_refused() {
    let token = headers(&[("X-Gitlab-Token", "")]);
    assert_eq!(
        verify(Provider::Gitlab, &token, b"{}", &secret("")),
        Err(Refusal::NoSecret)
    );
    assert!(verify(Provider::Gitlab, &token, b"{}", &secret("s")).is_err());
    let none = headers(&[]);
    for provider in [Provider::Github, Provider::Gitlab] {
        assert!(matches!(
            verify(provider, &none, b"{}", &secret("s")),
            Err(Refusal::Unsigned(_))
        ));
    }
    let twice = headers(&[("X-Gitlab-Token", "a"), ("x-gitlab-token", "s")]);
    assert!(matches!(
        verify(Provider::Gitlab, &twice, b"{}", &secret("s")),
        Err(Refusal::Ambiguous(_))
    ));
}

/// The example of the Standard Webhooks specification.
#[test]
fn standard_webhooks_are_verified() {
    let body = br#"{"test": 2432232314}"#;
    let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let list = |signature: &str| {
        headers(&[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", signature),
        ])
    };
    let good = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    assert_eq!(verify(Provider::Gitlab, &list(good), body, &secret(key)), Ok(()));
    let both = format!("v1,AAAA {good}");
    assert_eq!(verify(Provider::Gitlab, &list(&both), body, &secret(key)), Ok(()));
    assert!(verify(Provider::Gitlab, &list(good), b"{}", &secret(key)).is_err());
    assert!(verify(Provider::Gitlab, &list("v2,x"), body, &secret(key)).is_err());
    let mut token = list("v1,AAAA");
    token.push(("X-Gitlab-Token".to_owned(), "plain".to_owned()));
    assert!(verify(Provider::Gitlab, &token, body, &secret("plain")).is_err());
}

#[test]
fn a_delivery_keeps_its_id() {
    let list = headers(&[("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958")]);
    assert_eq!(
        delivery_id(Provider::Github, &list, b""),
        "72d3162e-cc78-11e3-81ab-4c9367dc0958"
    );
    let hostile = headers(&[("X-GitHub-Delivery", "../../x")]);
    assert!(delivery_id(Provider::Github, &hostile, b"a").starts_with("sha256:"));
    let both = headers(&[("X-Gitlab-Event-UUID", "e"), ("Idempotency-Key", "k")]);
    assert_eq!(delivery_id(Provider::Gitlab, &both, b""), "k");
}
