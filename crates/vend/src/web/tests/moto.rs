//! moto's server, for contracts that AWS's services keep too.

use std::{
    io::{Read as _, Seek as _},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use aws::{Client, Machine, Source};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use super::states::clients;

pub struct Moto {
    python: PathBuf,
    endpoint: String,
    _server: Child,
}

impl Moto {
    /// None: it is not there.
    pub async fn start() -> Option<Self> {
        let Some(python) = clients() else {
            println!("skipped: moto is not there; `cargo xtask test` installs it");
            return None;
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/aws/server.py");
        let mut ended = String::new();
        // Between the look for a port and its use somebody else may take it.
        for _ in 0..3 {
            let port = std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let mut server = Command::new(&python);
            server.args([script, &port.to_string()]);
            match serving(server, port).await {
                Ok(server) => {
                    return Some(Self {
                        python,
                        endpoint: format!("http://127.0.0.1:{port}"),
                        _server: server,
                    });
                }
                Err(why) => ended = why,
            }
        }
        panic!("moto ends before it serves: {ended}");
    }

    /// The program's own client.
    pub fn client(&self) -> Client {
        let endpoint = self.endpoint.clone();
        let machine = Machine {
            variable: Arc::new(move |name| match name {
                "AWS_ENDPOINT_URL" => Some(endpoint.clone()),
                "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("test".to_owned()),
                _ => None,
            }),
            now: crate::clock::now,
            bits: crate::clock::bits,
        };
        let source = Arc::new(Source::chain(machine.clone(), None));
        Client::new(machine, source, "eu-central-1")
    }

    /// Runs a few lines of Python with clients of AWS, `client("s3")`, and something on their standard input.
    pub async fn python(&self, lines: &str, input: &str) {
        let head = "import boto3, json, sys\nclient = lambda name: boto3.client(name, endpoint_url=sys.argv[1], \
                    region_name='eu-central-1', aws_access_key_id='x', aws_secret_access_key='y')\n";
        let done = Command::new(&self.python)
            .args(["-c", &format!("{head}{lines}"), &self.endpoint, input])
            .output()
            .await
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

/// Starts a server and waits until it is there, or has ended: with what it said then.
async fn serving(mut server: Command, port: u16) -> Result<Child, String> {
    let mut said = tempfile::tempfile().unwrap();
    let mut server = server
        .kill_on_drop(true)
        .stdout(Stdio::null())
        .stderr(said.try_clone().unwrap())
        .spawn()
        .unwrap();
    loop {
        let is_there = TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        if let Some(status) = server.try_wait().unwrap() {
            let mut text = String::new();
            said.rewind().unwrap();
            said.read_to_string(&mut text).unwrap();
            return Err(format!("{status}: {text}"));
        }
        if is_there {
            return Ok(server);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_server_that_ends_is_not_waited_for() {
    let mut server = Command::new("sh");
    server.args(["-c", "echo the port is taken >&2; exit 1"]);
    // Nobody listens there.
    let why = serving(server, 1).await.unwrap_err();
    assert!(
        why.contains("exit status: 1") && why.contains("the port is taken"),
        "{why}"
    );
}
