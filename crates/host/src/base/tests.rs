//! Tags of a registry that is away, slow, or has something else by now.

use std::{
    collections::BTreeMap,
    io::{BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use super::*;
use crate::cache::Caches;

/// What a registry of one image does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Well,
    /// Who asks for a token is answered with this.
    Tokens(u16),
    /// It takes a connection and says nothing.
    Silent,
    /// It gives blobs when it is well again.
    Slow,
}

struct State {
    mood: Mood,
    /// Path to bytes.
    files: BTreeMap<String, Vec<u8>>,
    /// Methods and paths.
    asked: Vec<String>,
}

/// A registry on the loopback, with `acme/ci:1` in it.
struct Registry {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Registry {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State {
            mood: Mood::Well,
            files: BTreeMap::new(),
            asked: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream, &shared, port));
            }
        });
        let own = Self { port, state };
        own.push("first");
        own
    }

    /// Gives the tag another image, of one file.
    fn push(&self, name: &str) {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        tar.append_data(&mut header, name, io::empty()).unwrap();
        let layer = tar.into_inner().unwrap();
        let config = serde_json::json!({ "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux", "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] } });
        let config = config.to_string().into_bytes();
        let blob = |kind: &str, bytes: &[u8]| {
            serde_json::json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": Digest::of(bytes),
                "size": bytes.len() })
        };
        let manifest = serde_json::json!({ "schemaVersion": 2, "mediaType": oci::manifest::MANIFEST,
            "config": blob("config.v1+json", &config), "layers": [blob("layer.v1.tar", &layer)] });
        let mut state = self.state.lock().unwrap();
        for bytes in [layer, config] {
            let path = format!("/v2/acme/ci/blobs/{}", Digest::of(&bytes));
            state.files.insert(path, bytes);
        }
        let path = "/v2/acme/ci/manifests/1".to_owned();
        state.files.insert(path, manifest.to_string().into_bytes());
    }

    fn mood(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    /// What was asked since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>, port: u16) {
    let mut lines = io::BufRead::lines(BufReader::new(stream.try_clone().unwrap()));
    let line = lines.next().and_then(Result::ok).unwrap_or_default();
    let mut headers = lines
        .by_ref()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty());
    let known = headers
        .by_ref()
        .any(|line| line.eq_ignore_ascii_case("authorization: Bearer abc"));
    let _rest: Vec<String> = headers.collect();
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    state.lock().unwrap().asked.push(format!("{method} {path}"));
    while path.contains("/blobs/") && state.lock().unwrap().mood == Mood::Slow {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (mood, body) = {
        let state = state.lock().unwrap();
        (state.mood, state.files.get(path).cloned())
    };
    let (status, headers, body) = match (mood, body) {
        (Mood::Silent, _) => {
            // Until the other has gone.
            let _ = stream.read_exact(&mut [0]);
            return;
        }
        (Mood::Tokens(status), _) if path.starts_with("/token") => (status, String::new(), Vec::new()),
        (_, _) if path.starts_with("/token") => (200, String::new(), br#"{"token":"abc"}"#.to_vec()),
        _ if !known => {
            let realm = format!("www-authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\"\r\n");
            (401, realm, Vec::new())
        }
        (_, Some(body)) => {
            let kind = oci::manifest::MANIFEST;
            let digest = Digest::of(&body);
            (
                200,
                format!("content-type: {kind}\r\ndocker-content-digest: {digest}\r\n"),
                body,
            )
        }
        (_, None) => (404, String::new(), Vec::new()),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes());
    if method != "HEAD" {
        let _ = stream.write_all(&body);
    }
}

struct Place {
    bases: Bases,
    base: Base,
    layers: Layers,
    registry: Registry,
    _node: tempfile::TempDir,
}

fn place() -> Place {
    let node = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(node.path()).unwrap();
    let layers = Layers::open(path).unwrap();
    let registry = Registry::start();
    Place {
        bases: Bases::open(path, layers.clone(), Mirror::default(), Reach::Anywhere).unwrap(),
        base: format!("oci:127.0.0.1:{}/acme/ci:1", registry.port)
            .parse()
            .unwrap(),
        layers,
        registry,
        _node: node,
    }
}

impl Place {
    async fn current(&self) -> Result<(Record, Option<String>), Error> {
        self.bases
            .current(Wanted::of(&self.base), Quiet::Kept, |_| ())
            .await
    }

    fn has(&self, record: &Record, name: &str) -> bool {
        self.layers.files(&record.key).join(name).exists()
    }
}

#[tokio::test]
async fn a_tag_that_stays_is_looked_at_and_not_got() {
    let place = place();
    let (first, why) = place.current().await.unwrap();
    assert!(place.has(&first, "first") && why.is_none());
    place.registry.asked();
    let (again, why) = place.current().await.unwrap();
    assert_eq!((again.key, why), (first.key, None));
    let asked = place.registry.asked();
    let got = |line: &&String| line.starts_with("GET /v2/");
    assert!(
        asked.contains(&"HEAD /v2/acme/ci/manifests/1".to_owned()),
        "{asked:?}"
    );
    assert_eq!(asked.iter().filter(got).count(), 0, "{asked:?}");
    place.registry.push("second");
    let (second, why) = place.current().await.unwrap();
    assert!(place.has(&second, "second") && why.is_none());
}

#[tokio::test]
async fn another_image_is_not_got_while_there_is_no_room_for_it() {
    let place = place();
    let (first, _) = place.current().await.unwrap();
    let node = Utf8Path::from_path(place._node.path()).unwrap();
    place.bases.keep_within(Room {
        layers: place.layers.clone(),
        caches: Caches::open(node, 1 << 20).unwrap(),
        budget_bytes: 0,
        alone: false,
    });
    assert_eq!(place.current().await.unwrap().0.key, first.key, "it is here");
    place.registry.push("second");
    let full = place.current().await.unwrap_err();
    assert!(matches!(full, Error::NoRoom { .. }), "{full}");
    assert!(full.to_string().contains("no room for another image"), "{full}");
    let held = place.bases.find(Wanted::of(&place.base)).unwrap().unwrap();
    assert_eq!(held.key, first.key, "what was here stays");
    place.registry.push("first");
    assert_eq!(place.current().await.unwrap().0.key, first.key);
}

#[tokio::test]
async fn only_a_refused_login_is_the_customer_s() {
    let place = place();
    let (first, _) = place.current().await.unwrap();
    for status in [429, 500, 503] {
        place.registry.mood(Mood::Tokens(status));
        let (record, why) = place.current().await.unwrap();
        assert_eq!(record.key, first.key);
        let why = why.unwrap();
        assert!(
            why.contains(&format!("answers {status} to a request for a token")),
            "{why}"
        );
    }
    for status in [401, 403] {
        place.registry.mood(Mood::Tokens(status));
        let error = place.current().await.unwrap_err();
        assert!(matches!(error, Error::Oci(oci::Error::Denied { .. })), "{error}");
    }
    place.registry.mood(Mood::Well);
    assert_eq!(place.current().await.unwrap().1, None);
}

#[tokio::test]
async fn who_waits_for_a_silent_registry_shares_its_silence() {
    let place = place();
    let (first, _) = place.current().await.unwrap();
    place.registry.mood(Mood::Silent);
    place.registry.asked();
    let all = futures_util::future::join_all((0..8).map(|_| place.current())).await;
    for current in all {
        let (record, why) = current.unwrap();
        assert_eq!(record.key, first.key);
        assert!(why.unwrap().contains("cannot be reached"));
    }
    // One that was under way, perhaps, and one for all who came meanwhile.
    let asked = place.registry.asked();
    assert!((1..=2).contains(&asked.len()), "{asked:?}");
    place.registry.mood(Mood::Well);
    assert_eq!(place.current().await.unwrap().1, None);
}

#[tokio::test]
async fn a_pull_keeps_no_sweep_waiting_and_is_not_swept() {
    let place = place();
    let lock = Arc::default();
    let pull = place
        .bases
        .current(Wanted::of(&place.base), Quiet::Asked(&lock), |_| ());
    let ever = "2200-01-01T00:00:00Z".parse().unwrap();
    let sweep = || {
        let known = place.bases.all().unwrap();
        let known = known.iter().map(|known| known.key).collect();
        place.layers.sweep(&known, ever).unwrap().len()
    };
    place.registry.mood(Mood::Slow);
    let sweeping = async {
        while !place.registry.asked().iter().any(|line| line.contains("/blobs/")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let quiet = lock.try_write().expect("who pulls keeps nobody waiting");
        place.registry.mood(Mood::Well);
        // It would be there by now, known or not, if it did not wait.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(place.layers.list().unwrap(), []);
        assert_eq!(place.bases.all().unwrap(), []);
        assert_eq!(sweep(), 0);
        drop(quiet);
    };
    let (pulled, ()) = tokio::join!(pull, sweeping);
    let (record, _) = pulled.unwrap();
    let _quiet = lock.try_write().expect("it is over");
    assert_eq!(sweep(), 0, "what a name means stays");
    assert!(place.has(&record, "first"));
}

#[tokio::test]
async fn what_a_sweep_takes_before_it_is_known_is_got_again() {
    let place = place();
    let (record, _) = place.current().await.unwrap();
    let slug = slug(Wanted::of(&place.base));
    // As a sweep does with a name that nobody asked for in a long time.
    fs::remove_file(place.bases.root.join(format!("{slug}.json"))).unwrap();
    let ready = place
        .bases
        .ready(&place.base, record.key, record.key, |_| Ok(()))
        .unwrap();
    let none = std::collections::BTreeSet::new();
    let ever = "2200-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(place.layers.sweep(&none, ever).unwrap().len(), 1);
    assert_eq!(place.bases.put(ready).unwrap(), None);
    let (again, _) = place.current().await.unwrap();
    assert!(again.key == record.key && place.has(&again, "first"));
}

#[tokio::test]
async fn what_another_tenant_was_told_is_asked_for_and_not_taken() {
    let place = place();
    let tenants: [TenantName; 2] = ["acme".parse().unwrap(), "rival".parse().unwrap()];
    let recent = async |tenant: usize| {
        let wanted = Wanted {
            base: &place.base,
            tenant: Some(&tenants[tenant]),
            life: 0,
            login: None,
        };
        place.bases.recent(wanted, Quiet::Kept, |_| ()).await.unwrap()
    };
    let stale = |record: &Record| {
        place
            .bases
            .is_stale(&record.key, &place.bases.all().unwrap())
            .unwrap()
    };
    let (first, _) = recent(0).await;
    place.registry.asked();
    assert_eq!(recent(0).await.0.key, first.key);
    assert_eq!(
        place.registry.asked(),
        Vec::<String>::new(),
        "it was asked just now"
    );
    place.registry.push("second");
    let (second, _) = recent(1).await;
    assert!(place.has(&second, "second") && stale(&first));
    // A registry that is away leaves what this tenant had: another's is not his.
    place.registry.mood(Mood::Tokens(503));
    let (record, why) = recent(0).await;
    assert!(record.key == first.key && why.is_some());
    place.registry.mood(Mood::Well);
    let (record, why) = recent(0).await;
    assert!(place.has(&record, "second") && why.is_none());
    assert!(!stale(&record));
    place.registry.asked();
    recent(0).await;
    recent(1).await;
    assert_eq!(place.registry.asked(), Vec::<String>::new(), "both know it");
}

#[tokio::test]
async fn what_a_deleted_tenant_got_is_not_the_next_one_s() {
    let place = place();
    let [acme, rival]: [TenantName; 2] = ["acme", "rival"].map(|name| name.parse().unwrap());
    let wanted = |tenant, life| Wanted {
        tenant: Some(tenant),
        life,
        ..Wanted::of(&place.base)
    };
    let bases = &place.bases;
    let got = async |wanted| bases.recent(wanted, Quiet::Kept, |_| ()).await;
    got(wanted(&acme, 0)).await.unwrap();
    got(wanted(&rival, 0)).await.unwrap();
    bases.forget(&acme).unwrap();
    let whose = || -> Vec<TenantName> {
        bases
            .all()
            .unwrap()
            .into_iter()
            .filter_map(|known| known.tenant)
            .collect()
    };
    assert_eq!(whose(), std::slice::from_ref(&rival));
    place.registry.mood(Mood::Tokens(401));
    let denied = |got| matches!(got, Err(Error::Oci(oci::Error::Denied { .. })));
    assert!(denied(got(wanted(&acme, 1)).await), "it is asked for anew");
    assert!(!denied(got(wanted(&rival, 0)).await));
    // What was still under way for the one who is gone.
    place.registry.mood(Mood::Well);
    got(wanted(&acme, 0)).await.unwrap();
    place.registry.mood(Mood::Tokens(401));
    assert!(denied(got(wanted(&acme, 1)).await));
    place.registry.mood(Mood::Well);
    assert!(!bases.refresh(wanted(&acme, 1), |_| ()).await.unwrap());
    assert!(
        bases.find(wanted(&acme, 1)).unwrap().is_none(),
        "nobody has asked for it"
    );
    let node = bases.root.parent().unwrap();
    Bases::forget_all(node).unwrap();
    assert_eq!(whose(), []);
}

/// What asks a listener for files that it has not got says who it is.
fn asked_as(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let lines = io::BufRead::lines(BufReader::new(stream.try_clone().unwrap()));
    let mut lines = lines.map_while(Result::ok).take_while(|line| !line.is_empty());
    let login = lines.find_map(|line| line.strip_prefix("Authorization: ").map(str::to_owned));
    let _ = stream.write_all(b"HTTP/1.1 403 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    login.unwrap_or_default()
}

#[tokio::test]
async fn apt_has_the_login_of_an_archive_and_nobody_is_told() {
    let mut place = place();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://ann:hunter2@{}/debian", listener.local_addr().unwrap());
    place.bases.mirror = Mirror::of_sources(&format!("deb {address} bookworm main"));
    // Nothing else is asked: what is refused first is the end.
    place.bases.mirror.security.clone_from(&place.bases.mirror.debian);
    let distribution = Distribution::find(DEBIAN).unwrap();
    let target = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(target.path()).unwrap();
    let child = place.bases.mmdebstrap(distribution, path).unwrap();
    let command = fs::read_to_string(format!("/proc/{}/cmdline", child.id().unwrap())).unwrap();
    let asked = tokio::task::spawn_blocking(move || asked_as(&listener));
    let said = child.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("running apt-get update"), "{said}");
    // `ann:hunter2`
    assert_eq!(asked.await.unwrap(), "Basic YW5uOmh1bnRlcjI=");
    let sources = fs::read_to_string(path.join("etc/apt/sources.list")).unwrap();
    for told in [said, sources, command] {
        assert!(!told.contains("hunter2"), "{told}");
    }
    assert!(path.join("etc/apt/auth.conf").exists());
    for at in ["var/log", "usr/sbin", "etc/dpkg/dpkg.cfg.d"] {
        fs::create_dir_all(path.join(at)).unwrap();
    }
    settle(path).unwrap();
    assert!(!path.join("etc/apt/auth.conf").exists());
}
