//! Debian's `docker-registry` on a free port, which asks who one is.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::platform::eventually;

pub const LOGIN: &str = "ada:open sesame";

pub struct Registry {
    child: Child,
    pub address: String,
    _home: tempfile::TempDir,
}

/// Whether the machine has all of these programs. Says which not.
pub fn there(programs: &[&str]) -> bool {
    programs.iter().all(|program| {
        let found = Command::new("which").arg(program).stdout(Stdio::null()).status();
        let there = found.is_ok_and(|status| status.success());
        if !there {
            println!("skipped: needs {program}");
        }
        there
    })
}

impl Registry {
    pub fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let address = free.to_string();
        let (users, config) = (home.path().join("htpasswd"), home.path().join("config.yml"));
        fs::write(&users, htpasswd(LOGIN)).unwrap();
        let text = format!(
            "version: 0.1\nlog: {{ accesslog: {{ disabled: true }}, level: error }}\n\
             storage: {{ filesystem: {{ rootdirectory: {home} }} }}\nhttp: {{ addr: \"{address}\" }}\n\
             auth: {{ htpasswd: {{ realm: test, path: {users} }} }}\n",
            home = home.path().join("data").display(),
            users = users.display(),
        );
        fs::write(&config, text).unwrap();
        let child = serve(&config);
        let registry = Self {
            child,
            address,
            _home: home,
        };
        eventually("the registry listens", Duration::from_secs(20), || {
            TcpStream::connect(&registry.address).ok()
        });
        registry
    }

    /// `REGISTRY/NAME`
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(config: &Path) -> Child {
    Command::new("docker-registry")
        .arg("serve")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The registry knows bcrypt only.
fn htpasswd(login: &str) -> String {
    const HASH: &str = "import crypt,sys;print(crypt.crypt(sys.argv[1],crypt.mksalt(crypt.METHOD_BLOWFISH)))";
    let (user, password) = login.split_once(':').unwrap();
    let output = Command::new("python3")
        .args(["-c", HASH, password])
        .output()
        .unwrap();
    let hash = String::from_utf8(output.stdout).unwrap();
    format!("{user}:{}\n", hash.trim())
}
