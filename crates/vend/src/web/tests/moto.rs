//! moto's server, for contracts that AWS's services keep too.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use aws::{Client, Machine, Source};

use super::states::clients;

pub struct Moto {
    python: PathBuf,
    endpoint: String,
    _server: tokio::process::Child,
}

impl Moto {
    /// None: it is not there.
    pub async fn start() -> Option<Self> {
        let Some(python) = clients() else {
            println!("skipped: moto is not there; `cargo xtask test` installs it");
            return None;
        };
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/aws/server.py");
        let mut server = tokio::process::Command::new(&python);
        server.args([script, &port.to_string()]).kill_on_drop(true);
        let server = server
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some(Self {
            python,
            endpoint: format!("http://127.0.0.1:{port}"),
            _server: server,
        })
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
        let done = tokio::process::Command::new(&self.python)
            .args(["-c", &format!("{head}{lines}"), &self.endpoint, input])
            .output()
            .await
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}
