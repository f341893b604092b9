//! A real MariaDB on this machine, and the lines that hosts run to dump and to load.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its part, and one that cannot go on fails"
)]

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ::aws::live::data;

/// A table that nobody else gets at, until this is dropped.
pub struct Hold(Child);

impl Hold {
    pub fn until_somebody_waits(&self, server: &Server) {
        let end = Instant::now() + Duration::from_secs(60);
        let waits = "SELECT ID FROM information_schema.PROCESSLIST
            WHERE STATE LIKE 'Waiting for table%' OR INFO LIKE 'SET GLOBAL read_only = 1%'";
        while server.sql("", waits).is_empty() {
            assert!(Instant::now() < end, "nobody waits");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server of its own, which ends with the test.
pub struct Server {
    child: Child,
    pub folder: tempfile::TempDir,
    pub port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub fn start() -> Option<Self> {
        let program = Path::new("/usr/sbin/mariadbd");
        if !program.exists() || Command::new("mariadb-dump").arg("--version").output().is_err() {
            println!("skipped: there is no mariadbd or mariadb-dump; `cargo xtask test` installs them");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("data");
        let made = Command::new("mariadb-install-db")
            .args([
                "--no-defaults",
                "--user=root",
                "--auth-root-authentication-method=socket",
                "--skip-test-db",
            ])
            .arg("--auth-root-socket-user=root")
            .arg(format!("--datadir={}", home.display()))
            // Servers that are made at once do not meet in /tmp.
            .env("TMPDIR", folder.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = Command::new(program)
            .env("TMPDIR", folder.path())
            .args([
                "--no-defaults",
                "--user=root",
                "--bind-address=127.0.0.1",
                "--innodb-buffer-pool-size=16M",
                "--character-set-server=utf8mb4",
            ])
            .args([format!("--datadir={}", home.display()), format!("--port={port}")])
            .arg(format!("--socket={}", folder.path().join("s").display()))
            .arg(format!("--pid-file={}", folder.path().join("p").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, folder, port };
        let end = Instant::now() + Duration::from_secs(60);
        while server.try_sql("", "SELECT 1").is_err() {
            assert!(Instant::now() < end, "the server does not come up");
            std::thread::sleep(Duration::from_millis(100));
        }
        server.sql(
            "",
            "CREATE DATABASE app; CREATE USER app IDENTIFIED BY 'a\\\\b\"c $d'; GRANT ALL ON app.* TO app",
        );
        Some(server)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    pub fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let done = Command::new("mariadb")
            .args([
                "--no-defaults",
                "--default-character-set=utf8mb4",
                "--batch",
                "--skip-column-names",
                "--execute",
                sql,
            ])
            .arg(format!("--socket={}", self.socket().display()))
            .args((!database.is_empty()).then_some(database))
            .output()
            .unwrap();
        match done.status.success() {
            true => Ok(String::from_utf8(done.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }

    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql).unwrap()
    }

    /// What the app asks, over the network.
    pub fn as_app(&self, sql: &str) -> Result<String, String> {
        let done = Command::new("mariadb")
            .args([
                "--no-defaults",
                "--host=127.0.0.1",
                "--user=app",
                "--password=a\\b\"c $d",
                "--batch",
                "--skip-column-names",
                "app",
                "--execute",
                sql,
            ])
            .arg(format!("--port={}", self.port))
            .output()
            .unwrap();
        match done.status.success() {
            true => Ok(String::from_utf8(done.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }

    /// What a host runs to dump its database, here with another socket and file. Gives what it says.
    pub fn dump(&self, file: &Path) -> String {
        self.try_dump(file).unwrap()
    }

    pub fn try_dump(&self, file: &Path) -> Result<String, String> {
        let script = host::database::making("app");
        self.bash(&script.replace("/var/lib/mysql/vend-dump.gz", &file.to_string_lossy()))
    }

    /// What a host runs to end a dump that is under way.
    pub fn break_off(&self) {
        self.bash(&host::database::breaking("app")).unwrap();
    }

    /// What a host runs to count again what was dumped.
    pub fn recount(&self) -> Result<String, String> {
        self.bash(&host::database::recounting("app"))
    }

    fn bash(&self, script: &str) -> Result<String, String> {
        bash(&script.replace("/run/mysqld/mysqld.sock", &self.socket().to_string_lossy()))
    }

    /// Locks a table of the app, as the app.
    pub fn hold(&self, table: &str) -> Hold {
        let mut child = Command::new("mariadb")
            .args([
                "--no-defaults",
                "--host=127.0.0.1",
                "--user=app",
                "--password=a\\b\"c $d",
            ])
            .args([&format!("--port={}", self.port), "app"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let said = format!("LOCK TABLES `{table}` WRITE;\n");
        child.stdin.as_mut().unwrap().write_all(said.as_bytes()).unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while self
            .sql("", "SHOW OPEN TABLES FROM app WHERE In_use > 0")
            .is_empty()
        {
            assert!(Instant::now() < end, "the table is not locked");
            std::thread::sleep(Duration::from_millis(20));
        }
        Hold(child)
    }

    /// What a host on AWS runs to load a dump.
    pub fn load(&self, file: &Path) -> Result<String, String> {
        let fetch = format!("cat {}", file.display());
        let variables = self.variables();
        bash(&data::script(&variables.to_string_lossy(), &fetch, false))
    }

    /// What a host on AWS runs to dump its database into a file. `more` is done when the dump has gone.
    pub fn send(&self, file: &Path, more: &str) -> Result<String, String> {
        let send = format!("cat > {}{more}", file.display());
        let variables = self.variables();
        let script = data::dumped(&variables.to_string_lossy(), &send, false);
        // It looks once, and not for a quarter of an hour.
        bash(&script.replace("{1..180}", "1").replace("sleep 5", "true"))
    }

    /// What a host here runs to load what was dumped on AWS.
    pub fn take_in(&self, file: &Path) -> Result<String, String> {
        let own = self.folder.path().join("vend-load.gz");
        fs::copy(file, &own).unwrap();
        let script = host::database::loading("app");
        let done = self.bash(&script.replace("/var/lib/mysql/vend-load.gz", &own.to_string_lossy()));
        assert!(!own.exists(), "nothing of it is left");
        done
    }

    /// The file of variables that a host of this database has.
    fn variables(&self) -> PathBuf {
        let variables = self.folder.path().join("environment");
        let lines = [
            "DATABASE_HOST=\"127.0.0.1\"".to_owned(),
            format!("DATABASE_PORT=\"{}\"", self.port),
            "DATABASE_NAME=\"app\"".to_owned(),
            "DATABASE_USER=\"app\"".to_owned(),
            // As a host's own script writes values.
            "DATABASE_PASSWORD=\"a\\\\b\\\"c \\$d\"".to_owned(),
        ];
        fs::write(&variables, lines.join("\n") + "\n").unwrap();
        variables
    }
}

fn bash(script: &str) -> Result<String, String> {
    let done = Command::new("bash")
        .args(["-c", script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    match done.status.success() {
        true => Ok(String::from_utf8(done.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
    }
}

/// What was counted, of all that a script says.
pub fn counted(said: &str) -> String {
    let line = said.lines().find_map(|line| line.strip_prefix("counted: "));
    line.unwrap_or_else(|| panic!("nothing was counted: {said}"))
        .to_owned()
}
