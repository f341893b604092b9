//! Two real servers: what is dumped of one is loaded into the other, by the lines that hosts run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod mariadb;

use std::{fs, process::Command};

use mariadb::{Server, counted};

#[test]
fn a_dump_that_breaks_off_lets_the_app_write() {
    let Some(here) = Server::start() else { return };
    here.sql("app", "CREATE TABLE notes (a INT)");
    let read_only = || here.sql("", "SELECT @@GLOBAL.read_only");
    // The disk is full, say: there is no such directory.
    here.try_dump(&here.folder.path().join("missing/dump.gz"))
        .unwrap_err();
    assert_eq!(read_only(), "0\n");
    // And one that is broken off, because it is to be written here again: it waits for whom it is to stop from writing.
    let file = here.folder.path().join("dump.gz");
    let held = here.hold("notes");
    let broken = std::thread::scope(|scope| {
        let dump = scope.spawn(|| here.try_dump(&file));
        held.until_somebody_waits(&here);
        here.break_off();
        dump.join().unwrap()
    });
    assert!(broken.is_err() && !file.exists());
    assert_eq!(read_only(), "0\n");
}

#[test]
fn what_was_written_to_since_it_was_dumped_is_not_counted() {
    let Some(here) = Server::start() else { return };
    here.sql(
        "app",
        "CREATE TABLE notes (a INT); INSERT INTO notes VALUES (1);
         CREATE TABLE kept (a INT) WITH SYSTEM VERSIONING; INSERT INTO kept VALUES (1), (2)",
    );
    let dumped = counted(&here.dump(&here.folder.path().join("dump.gz")));
    assert!(dumped.starts_with("2 tables, 3 rows, "), "{dumped}");
    assert_eq!(counted(&here.recount().unwrap()), dumped);
    // What a start of the server does.
    here.sql("", "SET GLOBAL read_only = 0");
    assert!(here.recount().unwrap_err().contains("started again"));
}

#[test]
fn one_load_at_a_time() {
    let (Some(here), Some(there)) = (Server::start(), Server::start()) else {
        return;
    };
    here.sql("app", "CREATE TABLE notes (a INT); INSERT INTO notes VALUES (1)");
    let file = here.folder.path().join("dump.gz");
    here.dump(&file);
    there.sql("app", "CREATE TABLE notes (a INT)");
    let held = there.hold("notes");
    let first = std::thread::scope(|scope| {
        let first = scope.spawn(|| there.load(&file));
        held.until_somebody_waits(&there);
        let second = there.load(&file).unwrap_err();
        assert!(second.contains("another load"), "{second}");
        drop(held);
        first.join().unwrap()
    });
    assert!(counted(&first.unwrap()).starts_with("1 tables, 1 rows, "));
    there.load(&file).unwrap();
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
