//! Two real servers: what is dumped of one is loaded into the other, by the lines that hosts run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod mariadb;

use std::{fs, process::Command};

use mariadb::{Server, counted};

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
        .args([
            "--no-defaults",
            "--host=127.0.0.1",
            "--user=app",
            "--password=a\\b\"c $d",
            "app",
        ])
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
    assert_eq!(
        there.sql("app", "SELECT name FROM people WHERE id = 3"),
        "SMALL\n"
    );

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
