//! Two real servers: what is dumped of one is loaded into the other, by the lines that hosts run.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ::aws::live::data;

/// A server of its own, which ends with the test.
struct Server {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start() -> Option<Self> {
        let program = Path::new("/usr/sbin/mariadbd");
        if !program.exists() {
            println!("skipped: there is no mariadbd on this machine");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("data");
        let made = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--user=root", "--auth-root-authentication-method=socket"])
            .arg("--auth-root-socket-user=root")
            .arg(format!("--datadir={}", home.display()))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(program)
            .args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=16M"])
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
        server.sql("", "CREATE DATABASE app; CREATE USER app IDENTIFIED BY 'a\\\\b\"c $d'; GRANT ALL ON app.* TO app");
        Some(server)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let done = Command::new("mariadb")
            .args(["--no-defaults", "--batch", "--skip-column-names", "--execute", sql])
            .arg(format!("--socket={}", self.socket().display()))
            .args((!database.is_empty()).then_some(database))
            .output()
            .unwrap();
        match done.status.success() {
            true => Ok(String::from_utf8(done.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql).unwrap()
    }

    /// What a host runs to dump its database, here with another socket and file. Gives what it says.
    fn dump(&self, file: &Path) -> String {
        let script = host::database::making("app")
            .replace("/run/mysqld/mysqld.sock", &self.socket().to_string_lossy())
            .replace("/var/lib/mysql/vend-dump.gz", &file.to_string_lossy());
        bash(&script).unwrap()
    }

    /// What a host runs to load a dump.
    fn load(&self, file: &Path) -> Result<String, String> {
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
        let fetch = format!("cat {}", file.display());
        bash(&data::script(&variables.to_string_lossy(), &fetch, false))
    }
}

fn bash(script: &str) -> Result<String, String> {
    let done = Command::new("bash").args(["-c", script]).stdin(Stdio::null()).output().unwrap();
    match done.status.success() {
        true => Ok(String::from_utf8(done.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
    }
}

fn counted(said: &str) -> String {
    let line = said.lines().find_map(|line| line.strip_prefix("counted: "));
    line.unwrap_or_else(|| panic!("nothing was counted: {said}")).to_owned()
}

#[test]
fn what_is_dumped_of_one_server_is_loaded_into_another() {
    let (Some(here), Some(there)) = (Server::start(), Server::start()) else {
        return;
    };
    here.sql(
        "app",
        "CREATE TABLE people (id INT PRIMARY KEY AUTO_INCREMENT, name TEXT, face BLOB, at DATETIME(6));
         INSERT INTO people (name, face, at) VALUES ('Zoë ✓ ''quoted''', x'00ff0a0d', '2026-11-21 20:00:00.123456'),
             ('DEFINER=`a`@`b` stays', NULL, NULL);
         CREATE TABLE `odd``name` (a INT); INSERT INTO `odd``name` SELECT seq FROM seq_1_to_5000;
         CREATE TABLE empty (a INT);
         CREATE VIEW named AS SELECT name FROM people;
         CREATE TRIGGER upper_case BEFORE INSERT ON people FOR EACH ROW SET NEW.name = UPPER(NEW.name)",
    );
    let file = here.folder.path().join("dump.gz");
    let dumped = counted(&here.dump(&file));
    assert!(dumped.starts_with("3 tables, 5002 rows, "), "{dumped}");
    // Nobody writes where it came from any more, but the platform.
    let refused = Command::new("mariadb")
        .args(["--no-defaults", "--host=127.0.0.1", "--user=app", "--password=a\\b\"c $d", "app"])
        .arg(format!("--port={}", here.port))
        .args(["--execute", "INSERT INTO empty VALUES (1)"])
        .output()
        .unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("read-only"));

    let loaded = counted(&there.load(&file).unwrap());
    assert_eq!(loaded, dumped);
    let people = "SELECT id, name, HEX(face), at FROM people ORDER BY id";
    assert_eq!(there.sql("app", people), here.sql("app", people));
    assert_eq!(there.sql("app", "SELECT COUNT(*) FROM named"), "2\n");
    there.sql("app", "INSERT INTO people (name) VALUES ('small')");
    assert_eq!(there.sql("app", "SELECT name FROM people WHERE id = 3"), "SMALL\n");

    // Again is as good as once, also over what a load that was broken off has left.
    assert_eq!(counted(&there.load(&file).unwrap()), dumped);
    // What is not the same is seen.
    there.sql("app", "CREATE TABLE of_another_release (a INT)");
    assert_ne!(counted(&there.load(&file).unwrap()), dumped);
    // And half a dump is no dump.
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    there.load(&file).unwrap_err();
}
