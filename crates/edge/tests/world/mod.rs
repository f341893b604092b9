//! A small world around a real edge: targets on port 0, clients that speak raw bytes.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod wire;

use std::{
    collections::BTreeMap,
    future::Future,
    net::{SocketAddr, TcpListener as Listener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use camino::{Utf8Path, Utf8PathBuf};
use edge::{Client, Config, Limits, Listener as Listening};
use jiff::SignedDuration;
use model::route::{
    Action, Conditions, HealthCheck, Own, Rule, Table, Target, TargetGroup, Transforms, Weighted,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

/// No wait in a test is longer than this; none is meant to be near it.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing happened"),
    }
}

/// Asks again until it is so.
pub async fn until<F: Future<Output = bool>>(what: &str, ask: impl Fn() -> F) {
    soon(what, async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

pub struct Edge {
    pub address: SocketAddr,
    pub client: Client,
    pub folder: Utf8PathBuf,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), edge::Error>>,
}

impl Edge {
    pub fn start(folder: &tempfile::TempDir) -> Self {
        Self::with(folder, Limits::default(), 2)
    }

    pub fn with(folder: &tempfile::TempDir, limits: Limits, workers: usize) -> Self {
        let listener = Listener::bind("127.0.0.1:0").unwrap();
        Self::on(folder, listener, limits, workers)
    }

    pub fn on(folder: &tempfile::TempDir, listener: Listener, limits: Limits, workers: usize) -> Self {
        Self::listening(folder, vec![Listening::http(listener)], limits, workers)
    }

    pub fn listening(
        folder: &tempfile::TempDir,
        listeners: Vec<Listening>,
        limits: Limits,
        workers: usize,
    ) -> Self {
        Self::configured(folder, listeners, |config| {
            (config.limits, config.workers) = (limits, workers);
        })
    }

    /// With one worker and whatever `edit` says.
    pub fn configured(
        folder: &tempfile::TempDir,
        listeners: Vec<Listening>,
        edit: impl FnOnce(&mut Config),
    ) -> Self {
        let folder = Utf8Path::from_path(folder.path()).unwrap().to_owned();
        let address = listeners[0].socket.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut config = Config {
            listeners,
            admin: folder.join("run/edge.sock"),
            snapshot: folder.join("edge/table.log"),
            plain_http: true,
            workers: 1,
            access_log: Some(edge::Log::short(folder.join("access.log"))),
            metrics: None,
            limits: Limits::default(),
            acme: None,
            datagrams: Vec::new(),
            dns: None,
            secrets: folder.join("secrets"),
            roots: None,
            zone: None,
            limited: None,
            unbound: Vec::new(),
            tidy: || (),
        };
        edit(&mut config);
        let running = tokio::spawn(async move {
            edge::run(config, async {
                let _ = stopped.await;
            })
            .await
        });
        Self {
            address,
            client: Client::new(folder.join("run/edge.sock")),
            folder,
            stop: Some(stop),
            running,
        }
    }

    pub async fn apply(&self, table: &Table) -> u64 {
        until("the edge answers", || async {
            self.client.version().await.is_ok()
        })
        .await;
        self.client.apply(table).await.unwrap()
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// One raw request on a connection of its own; all that comes back until the end.
    pub async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_ref()).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is as good an end as any.
        let _ = soon("an answer", stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub async fn get(&self, host: &str, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        self.raw(request).await
    }

    pub async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        soon("the edge stops", &mut self.running).await.unwrap().unwrap();
    }
}

pub fn status(answer: &str) -> u16 {
    answer
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0)
}

pub fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// One message from a connection that stays open: head and a body of known length.
pub async fn message(stream: &mut TcpStream) -> String {
    soon("a message", async {
        let head = read_head(stream).await.expect("a head");
        let mut body = vec![0; content_length(&head)];
        stream.read_exact(&mut body).await.unwrap();
        head + &String::from_utf8_lossy(&body)
    })
    .await
}

pub fn content_length(head: &str) -> usize {
    field(head, "content-length").map_or(0, |length| length.parse().unwrap())
}

pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// A head, byte by byte: nothing behind it is taken.
pub async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte).await {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8(head).unwrap())
}

/// A target.
pub struct Origin {
    pub address: SocketAddr,
    /// Requests that arrived, heads and bodies as they came.
    pub seen: Arc<Mutex<Vec<String>>>,
    pub connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Origin {
    /// Answers every request with its name, and health probes too, keeping connections.
    pub async fn named(name: &'static str) -> Self {
        Self::answering(move |_| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()))
            .await
    }

    /// Answers every request with the bytes that `answer` makes of its head and body.
    pub async fn answering<A: Into<Vec<u8>>>(answer: impl Fn(&str) -> A + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (inbox, answer) = (Arc::clone(&seen), Arc::new(answer));
        let mut origin = Self::raw(move |mut stream| {
            let (inbox, answer) = (Arc::clone(&inbox), Arc::clone(&answer));
            async move {
                while let Some(request) = read_request(&mut stream).await {
                    if !request.contains("User-Agent: vend-health") {
                        inbox.lock().unwrap().push(request.clone());
                    }
                    let bytes: Vec<u8> = answer(&request).into();
                    if stream.write_all(&bytes).await.is_err() || request.contains("Connection: close") {
                        break;
                    }
                }
            }
        })
        .await;
        origin.seen = seen;
        origin
    }

    /// Does with every connection what `serve` does.
    pub async fn raw<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            // Ended with this task: a target that is gone takes its connections with it.
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                count.fetch_add(1, SeqCst);
                serving.spawn(serve(stream));
            }
        });
        Self {
            address,
            seen: Arc::default(),
            connections,
            accepting,
        }
    }

    pub fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Dies: open connections are cut, new ones refused.
    pub async fn close(&mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
    }
}

/// A request with its body as framed, or nothing at the end.
pub async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let head = read_head(stream).await?;
    let mut body = Vec::new();
    if field(&head, "transfer-encoding").is_some() {
        let mut byte = [0];
        while !body.ends_with(b"0\r\n\r\n") {
            stream.read_exact(&mut byte).await.ok()?;
            body.push(byte[0]);
        }
    } else {
        body.resize(content_length(&head), 0);
        stream.read_exact(&mut body).await.ok()?;
    }
    Some(head + &String::from_utf8_lossy(&body))
}

/// An address that refuses connections.
pub fn refusing() -> SocketAddr {
    Listener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub fn group(addresses: &[SocketAddr]) -> TargetGroup {
    TargetGroup {
        targets: addresses
            .iter()
            .map(|address| Target {
                id: format!("h-{}", address.port()),
                address: *address,
            })
            .collect(),
        health: HealthCheck {
            path: "/health".into(),
            interval: SignedDuration::from_secs(5),
            timeout: SignedDuration::from_secs(2),
            healthy: 2,
            unhealthy: 2,
            codes: vec![(200, 399)],
            ..HealthCheck::default()
        },
        deregistration_delay: SignedDuration::from_secs(10),
        ..TargetGroup::default()
    }
}

pub fn rule(priority: u32, host: &str, action: Action) -> Rule {
    Rule {
        priority,
        place: "acme/shop/dev".parse().unwrap(),
        hosts: vec![host.to_owned()],
        paths: Vec::new(),
        conditions: Conditions::default(),
        transforms: Transforms::default(),
        access: Vec::new(),
        own: Own::default(),
        authenticate: None,
        action,
    }
}

pub fn forward(weights: &[(&str, u32)]) -> Action {
    Action::Forward {
        groups: weights
            .iter()
            .map(|(group, weight)| Weighted {
                group: (*group).to_owned(),
                weight: *weight,
            })
            .collect(),
        stickiness: None,
    }
}

/// `shop.test` to these targets.
pub fn shop(version: u64, addresses: &[SocketAddr]) -> Table {
    Table {
        version,
        rules: vec![rule(1, "shop.test", forward(&[("shop", 1)]))],
        target_groups: BTreeMap::from([("shop".to_owned(), group(addresses))]),
    }
}

/// An edge with one target behind `shop.test`.
pub async fn in_front_of(origin: &Origin, folder: &tempfile::TempDir) -> Edge {
    let edge = Edge::with(folder, Limits::default(), 1);
    edge.apply(&shop(1, &[origin.address])).await;
    edge
}
