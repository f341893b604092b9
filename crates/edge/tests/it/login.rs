//! Signing in through a real OpenID Connect provider (npm's `oidc-provider`), as a browser and as a target see it.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener as Socket},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use camino::{Utf8Path, Utf8PathBuf};
use edge::{Listener, Speaks, Tls, Version};
use model::route::{Authenticate, Table, Unauthenticated};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs as crypto,
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, pem::PemObject},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::world::{self, Edge, Origin, field, shop, soon, status, until};

const SECRET: &str = "a secret: with/odd %characters";

/// A provider that ends with the test.
struct Provider {
    child: Child,
    port: u16,
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Provider {
    fn start(home: &Utf8Path, life: u32) -> Self {
        let beside = Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors();
        let mut installed = beside.map(|folder| folder.join("provider"));
        let installed = installed.find(|folder| folder.join("node_modules/oidc-provider").exists());
        let installed = installed.expect("`cargo xtask test` installs it: npm install oidc-provider");
        let port = Socket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/provider.mjs");
        let child = Command::new("node")
            .arg(script)
            .arg(port.to_string())
            .args([home.join("key"), home.join("chain")])
            .arg("https://shop.test/oauth2/idpresponse")
            .current_dir(installed)
            .env("LIFE", life.to_string())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(home.join("provider.log")).unwrap())
            .spawn()
            .expect("node is installed");
        Self { child, port }
    }

    fn asks(&self) -> Authenticate {
        let at = format!("https://localhost:{}", self.port);
        serde_json::from_value(serde_json::json!({
            "issuer": at, "authorization_endpoint": format!("{at}/auth"), "token_endpoint": format!("{at}/token"),
            "user_info_endpoint": format!("{at}/me"), "client_id": "shop", "client_secret": "shop.secret",
            "scope": "openid email",
        }))
        .unwrap()
    }
}

/// An edge that speaks TLS, a target, and who signs people in.
struct Place {
    edge: Edge,
    origin: Origin,
    provider: Provider,
    browser: ClientConfig,
    /// Where it speaks no TLS.
    plain: SocketAddr,
    _folder: tempfile::TempDir,
}

async fn place(life: u32) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let home = Utf8Path::from_path(folder.path()).unwrap().to_owned();
    let chain = certificate(&home);
    let provider = Provider::start(&home, life);
    let origin = Origin::named("shop").await;
    let socket = Socket::bind("127.0.0.1:0").unwrap();
    let tls = Tls {
        certificates: home.join("certificates"),
        minimum: Version::Tls12,
        ciphers: Vec::new(),
        clients: None,
    };
    let second = Socket::bind("127.0.0.1:0").unwrap();
    let plain = second.local_addr().unwrap();
    let listeners = [(Speaks::Https(Box::new(tls)), socket), (Speaks::Http, second)];
    let listeners = listeners.map(|(speaks, socket)| Listener {
        socket,
        speaks,
        proxied: false,
    });
    let edge = Edge::configured(&folder, listeners.into(), |config| {
        config.roots = Some(home.join("chain"))
    });
    let mut roots = RootCertStore::empty();
    roots.add(chain).unwrap();
    let mut browser = ClientConfig::builder_with_provider(Arc::new(crypto::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    browser.alpn_protocols = vec![b"http/1.1".to_vec()];
    until("the provider answers", || async {
        TcpStream::connect(("127.0.0.1", provider.port)).await.is_ok()
    })
    .await;
    std::fs::create_dir_all(home.join("secrets")).unwrap();
    std::fs::write(home.join("secrets/shop.secret"), format!("{SECRET}\n")).unwrap();
    Place {
        edge,
        origin,
        provider,
        browser,
        plain,
        _folder: folder,
    }
}

/// One certificate for the edge and for the provider.
fn certificate(home: &Utf8Path) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let hosts = ["localhost", "shop.test", "other.test"].map(str::to_owned);
    let made = CertificateParams::new(hosts).unwrap().self_signed(&key).unwrap();
    std::fs::create_dir_all(home.join("certificates")).unwrap();
    let files: [(Utf8PathBuf, String); 3] = [
        (home.join("key"), key.serialize_pem()),
        (home.join("chain"), made.pem()),
        (
            home.join("certificates/default.pem"),
            made.pem() + &key.serialize_pem(),
        ),
    ];
    for (path, text) in files {
        std::fs::write(path, text).unwrap();
    }
    made.der().clone()
}

/// Cookies by host and name.
type Jar = BTreeMap<(String, String), String>;

struct Browser<'a> {
    place: &'a Place,
    jar: Jar,
}

impl Place {
    fn browser(&self) -> Browser<'_> {
        Browser {
            place: self,
            jar: Jar::new(),
        }
    }

    fn table(&self, version: u64, edit: impl FnOnce(&mut Authenticate)) -> Table {
        let mut table = shop(version, &[self.origin.address]);
        let mut asks = self.provider.asks();
        edit(&mut asks);
        table.rules[0].authenticate = Some(Box::new(asks));
        table
    }
}

impl Browser<'_> {
    /// One request, with the cookies that it has been given.
    async fn get(&mut self, url: &str) -> String {
        self.get_with(url, "").await
    }

    async fn get_with(&mut self, url: &str, lines: &str) -> String {
        let rest = url.strip_prefix("https://").unwrap();
        let (authority, target) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
        let address = match port.parse() {
            Ok(port) => SocketAddr::from(([127, 0, 0, 1], port)),
            Err(_) => self.place.edge.address,
        };
        let cookies: Vec<String> = self
            .jar
            .iter()
            .filter(|((of, _), _)| of == host)
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        let request = format!(
            "GET /{target} HTTP/1.1\r\nHost: {authority}\r\nCookie: {}\r\n{lines}Connection: close\r\n\r\n",
            cookies.join("; ")
        );
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(self.place.browser.clone()));
        let mut stream = soon("a handshake", connector.connect(name, stream))
            .await
            .unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = soon("an answer", stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        self.keep(host, &answer);
        answer
    }

    fn keep(&mut self, host: &str, answer: &str) {
        let head = answer.split("\r\n\r\n").next().unwrap();
        for line in head.split("\r\n") {
            let Some((name, value)) = line.split_once(": ") else {
                continue;
            };
            if !name.eq_ignore_ascii_case("set-cookie") {
                continue;
            }
            let (pair, attributes) = value.split_once(';').unwrap_or((value, ""));
            let (name, value) = pair.split_once('=').unwrap();
            let key = (host.to_owned(), name.to_owned());
            match attributes.contains("Max-Age=0") || value.is_empty() {
                true => _ = self.jar.remove(&key),
                false => _ = self.jar.insert(key, value.to_owned()),
            }
        }
    }

    /// Goes where it is sent, and says where it ended and what it got.
    async fn follow(&mut self, url: &str) -> (String, String) {
        let mut url = url.to_owned();
        for _ in 0..10 {
            let answer = self.get(&url).await;
            match field(&answer, "location") {
                Some(next) if next.starts_with('/') => {
                    let host = url.split('/').nth(2).unwrap();
                    url = format!("https://{host}{next}");
                }
                Some(next) => url = next.to_owned(),
                None => return (url, answer),
            }
        }
        panic!("sent round and round: {url}");
    }

    fn session(&self) -> Jar {
        let session =
            |((_, name), _): &(&(String, String), &String)| name.starts_with("AWSELBAuthSessionCookie");
        self.jar
            .iter()
            .filter(session)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

#[tokio::test]
async fn somebody_signs_in_and_the_target_is_told_who() {
    let place = place(3600).await;
    place.edge.apply(&place.table(1, |_| ())).await;
    let mut browser = place.browser();
    let (url, answer) = browser.follow("https://shop.test/cart?id=7").await;
    assert_eq!(
        (url.as_str(), status(&answer)),
        ("https://shop.test/cart?id=7", 200),
        "{answer}"
    );
    assert_eq!(browser.session().len(), 2, "it takes two cookies");
    // A client's own word about itself does not arrive.
    browser
        .get_with(
            "https://shop.test/again",
            "x-amzn-oidc-identity: mallory\r\nX_Amzn_Oidc_Data: x\r\n",
        )
        .await;
    let requests = place.origin.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    for request in &requests {
        assert_eq!(field(request, "x-amzn-oidc-identity"), Some("alice"));
        assert!(field(request, "x-amzn-oidc-accesstoken").is_some_and(|token| token.len() > 20));
        assert!(
            !request.contains("mallory") && !request.contains("X_Amzn"),
            "{request}"
        );
        verified(&mut browser, field(request, "x-amzn-oidc-data").unwrap(), &place).await;
    }
    // What was sealed for one rule opens no other, and a bent one opens none.
    let stolen = browser.session();
    place
        .edge
        .apply(&place.table(2, |asks| asks.session_cookie = "Other".into()))
        .await;
    browser.jar = stolen
        .iter()
        .map(|((host, name), value)| {
            (
                (host.clone(), name.replace("AWSELBAuthSessionCookie", "Other")),
                value.clone(),
            )
        })
        .collect();
    assert_eq!(status(&browser.get("https://shop.test/").await), 302);
    place.edge.apply(&place.table(3, |_| ())).await;
    browser.jar = stolen.clone();
    assert_eq!(status(&browser.get("https://shop.test/").await), 200);
    browser
        .jar
        .values_mut()
        .for_each(|value| value.replace_range(9..10, "_"));
    let bent = browser.get("https://shop.test/").await;
    assert_eq!(status(&bent), 302, "{bent}");
    // The secret is in no file of the table.
    let kept = std::fs::read_to_string(place.edge.folder.join("edge/table.log")).unwrap();
    assert!(kept.contains("shop.secret") && !kept.contains("odd %characters"));
    place.edge.stop().await;
}

/// What a target does with ALB's token: it gets the key by its id and verifies.
async fn verified(browser: &mut Browser<'_>, token: &str, place: &Place) {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts.as_slice() else {
        panic!("not a token: {token}");
    };
    let json = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE.decode(part).unwrap()).unwrap();
    let (head, said) = (json(header), json(claims));
    assert_eq!(head["alg"], "ES256");
    assert_eq!(head["client"], "shop");
    assert_eq!(head["signer"], "acme/shop/dev");
    assert_eq!(head["iss"], place.provider.asks().issuer.as_str());
    assert_eq!(
        (&said["sub"], &said["email"]),
        (&"alice".into(), &"alice@test".into())
    );
    assert!(said["exp"].as_i64().is_some());
    let id = head["kid"].as_str().unwrap();
    let answer = browser
        .get(&format!("https://shop.test/.well-known/vend-edge/keys/{id}"))
        .await;
    let key = SubjectPublicKeyInfoDer::from_pem_slice(world::body(&answer).as_bytes()).unwrap();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.as_ref());
    let text = format!("{header}.{claims}");
    let signature = URL_SAFE.decode(signature).unwrap();
    key.verify(text.as_bytes(), &signature).unwrap();
    assert!(key.verify(claims.as_bytes(), &signature).is_err());
}

#[tokio::test]
async fn who_has_not_signed_in_is_sent_away_refused_or_let_through() {
    let place = place(3600).await;
    let mut browser = place.browser();
    place
        .edge
        .apply(&place.table(1, |asks| asks.on_unauthenticated = Unauthenticated::Deny))
        .await;
    assert_eq!(status(&browser.get("https://shop.test/").await), 401);
    place
        .edge
        .apply(&place.table(2, |asks| asks.on_unauthenticated = Unauthenticated::Allow))
        .await;
    let lies = "X-Amzn-Oidc-Identity: mallory\r\n";
    assert_eq!(status(&browser.get_with("https://shop.test/", lies).await), 200);
    assert_eq!(field(&place.origin.requests()[0], "x-amzn-oidc-identity"), None);
    let extra = |asks: &mut Authenticate| {
        _ = asks
            .extra_parameters
            .insert("prompt".into(), "login & more".into())
    };
    place.edge.apply(&place.table(3, extra)).await;
    let answer = browser.get("https://shop.test//evil.test/%22?a=b").await;
    assert_eq!(status(&answer), 302);
    let location = field(&answer, "location").unwrap();
    for part in [
        "client_id=shop",
        "response_type=code",
        "scope=openid+email",
        "prompt=login+%26+more",
        "redirect_uri=https%3A%2F%2Fshop.test%2Foauth2%2Fidpresponse",
    ] {
        assert!(location.contains(part), "{part}: {location}");
    }
    assert!(
        !location.contains("evil"),
        "what it asked for is sealed: {location}"
    );
    let cookie = field(&answer, "set-cookie").unwrap();
    for attribute in ["Max-Age=900", "Secure", "HttpOnly", "SameSite=Lax"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    place.edge.stop().await;
}

#[tokio::test]
async fn only_the_browser_that_went_can_come_back() {
    let place = place(3600).await;
    place.edge.apply(&place.table(1, |_| ())).await;
    let mut browser = place.browser();
    // Up to the provider's answer, which is not followed.
    let answer = browser.get("https://shop.test//evil.test/").await;
    let mut next = field(&answer, "location").unwrap().to_owned();
    while !next.starts_with("https://shop.test") {
        let answer = browser.get(&next).await;
        let to = field(&answer, "location").unwrap();
        next = match to.starts_with('/') {
            true => format!("https://localhost:{}{to}", place.provider.port),
            false => to.to_owned(),
        };
    }
    let mut other = place.browser();
    assert_eq!(status(&other.get(&next).await), 401, "without the cookie");
    let (before, after) = next.split_once("state=").unwrap();
    let bent = format!("{before}state=A{after}");
    assert_eq!(status(&browser.get(&bent).await), 401, "with another state");
    let foreign = next.replace("iss=https", "iss=http");
    assert_eq!(status(&browser.get(&foreign).await), 561, "of another provider");
    let refused = format!("{}&error=access_denied", next.replace("code=", "nocode="));
    assert_eq!(status(&browser.get(&refused).await), 561, "with an error");
    let made_up = next.replace("code=", "code=x");
    assert_eq!(
        status(&browser.get(&made_up).await),
        561,
        "with a code that is none"
    );
    let answer = browser.get(&next).await;
    assert_eq!(status(&answer), 302, "{answer}");
    assert_eq!(
        field(&answer, "location"),
        Some("https://shop.test//evil.test/"),
        "to this host, not that"
    );
    browser
        .jar
        .remove(&("shop.test".to_owned(), "AWSALBAuthNonce".to_owned()));
    assert_eq!(status(&browser.get(&next).await), 401, "once");
    place.edge.stop().await;
}

#[tokio::test]
async fn old_tokens_are_renewed_and_sessions_end() {
    let place = place(2).await;
    place.edge.apply(&place.table(1, |_| ())).await;
    let mut browser = place.browser();
    browser.follow("https://shop.test/").await;
    let first = browser.session();
    let token = |n: usize| {
        field(&place.origin.requests()[n], "x-amzn-oidc-accesstoken")
            .unwrap()
            .to_owned()
    };
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Several windows come with the same old token, which the provider takes once.
    let mut windows = [place.browser(), place.browser(), place.browser()];
    for window in &mut windows {
        window.jar = browser.jar.clone();
    }
    let [a, b, c] = &mut windows;
    let url = "https://shop.test/";
    let answers = tokio::join!(a.get(url), b.get(url), c.get(url));
    for answer in [answers.0, answers.1, answers.2] {
        assert_eq!(status(&answer), 200, "{answer}");
    }
    assert_ne!(token(1), token(0), "a new token");
    assert_eq!((token(1), token(1)), (token(2), token(3)), "the same for all");
    assert_ne!(windows[0].session(), first, "the browser keeps the new one");
    // A session ends when its time is over, however fresh its tokens are.
    place
        .edge
        .apply(&place.table(2, |asks| {
            asks.session_timeout = jiff::SignedDuration::from_secs(1)
        }))
        .await;
    let mut short = place.browser();
    assert_eq!(status(&short.follow(url).await.1), 200);
    let kept = short.jar.clone();
    tokio::time::sleep(Duration::from_secs(2)).await;
    short.jar = kept;
    assert_eq!(status(&short.get(url).await), 302);
    place.edge.stop().await;
}

#[tokio::test]
async fn a_provider_that_fails_is_said_to() {
    let place = place(3600).await;
    place.edge.apply(&place.table(1, |_| ())).await;
    let mut stream = TcpStream::connect(place.plain).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        .await
        .unwrap();
    let answer = world::message(&mut stream).await;
    assert_eq!(status(&answer), 403, "without TLS: {answer}");
    std::fs::remove_file(place.edge.folder.join("secrets/shop.secret")).unwrap();
    let (_, answer) = place.browser().follow("https://shop.test/").await;
    assert_eq!(status(&answer), 500, "no secret: {answer}");
    std::fs::write(place.edge.folder.join("secrets/shop.secret"), "wrong").unwrap();
    let (_, answer) = place.browser().follow("https://shop.test/").await;
    assert_eq!(status(&answer), 561, "a wrong secret: {answer}");
    std::fs::write(place.edge.folder.join("secrets/shop.secret"), SECRET).unwrap();
    let nobody = world::refusing().port();
    place
        .edge
        .apply(&place.table(2, |asks| {
            asks.user_info_endpoint = format!("https://localhost:{nobody}/me")
        }))
        .await;
    let (_, answer) = place.browser().follow("https://shop.test/").await;
    assert_eq!(status(&answer), 500, "nobody there: {answer}");
    place
        .edge
        .apply(&place.table(3, |asks| asks.issuer = "https://elsewhere.test".into()))
        .await;
    let (_, answer) = place.browser().follow("https://shop.test/").await;
    assert_eq!(status(&answer), 561, "another issuer: {answer}");
    assert!(place.origin.requests().is_empty());
    place.edge.stop().await;
}

/// A page that sends people to sign in, beside what only says no.
#[tokio::test]
async fn rules_of_one_provider_share_a_session_and_judge_its_time() {
    let place = place(3600).await;
    let with = |version, timeout| {
        let mut table = place.table(version, |_| ());
        let mut api = table.rules[0].clone();
        table.rules[0].priority = 900;
        api.priority = 800;
        api.paths = vec!["/api/*".into()];
        let asks = api.authenticate.as_mut().unwrap();
        asks.on_unauthenticated = Unauthenticated::Deny;
        asks.session_timeout = jiff::SignedDuration::from_secs(timeout);
        asks.scope = "openid".into();
        table.rules.push(api);
        table
    };
    place.edge.apply(&with(1, 3600)).await;
    let mut browser = place.browser();
    let api = "https://shop.test/api/cart";
    assert_eq!(status(&browser.get(api).await), 401);
    assert_eq!(status(&browser.follow("https://shop.test/").await.1), 200);
    assert_eq!(status(&browser.get(api).await), 200, "the same session");
    place.edge.apply(&with(2, 1)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(status(&browser.get(api).await), 401, "too long ago for this rule");
    assert_eq!(status(&browser.get("https://shop.test/").await), 200);
    // One that wants more of who signs in, or whose secret is another's by now, admits nobody who is signed in.
    for (version, another) in [(3, false), (4, true)] {
        let table = place.table(version, |asks| {
            asks.on_unauthenticated = Unauthenticated::Deny;
            match another {
                true => asks.client_secret = "later".into(),
                false => _ = asks.extra_parameters.insert("acr_values".into(), "mfa".into()),
            }
        });
        place.edge.apply(&table).await;
        assert_eq!(status(&browser.get("https://shop.test/").await), 401, "{version}");
    }
    place.edge.stop().await;
}

#[tokio::test]
async fn a_rule_for_some_paths_has_people_sign_in_beside_one_for_all() {
    let place = place(3600).await;
    let mut table = place.table(1, |_| ());
    let mut plain = table.rules[0].clone();
    table.rules[0].paths = vec!["/private/*".into()];
    (plain.priority, plain.authenticate) = (table.rules[0].priority + 1, None);
    table.rules.push(plain);
    place.edge.apply(&table).await;
    let mut browser = place.browser();
    let (url, answer) = browser.follow("https://shop.test/private/cart").await;
    assert_eq!(
        (url.as_str(), status(&answer)),
        ("https://shop.test/private/cart", 200)
    );
    let requests = place.origin.requests();
    assert_eq!(requests.len(), 1, "nobody else sees the code: {requests:?}");
    assert_eq!(field(&requests[0], "x-amzn-oidc-identity"), Some("alice"));
    // What was not sealed for a rule of this host is for whoever has the path.
    let other = browser
        .get("https://shop.test/oauth2/idpresponse?state=x&code=y")
        .await;
    assert_eq!(status(&other), 200, "{other}");
    place.edge.stop().await;
}
