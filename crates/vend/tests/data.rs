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

#[test]
fn what_may_still_be_written_is_not_dumped_on_aws() {
    let Some(there) = Server::start() else { return };
    there.sql("app", "CREATE TABLE notes (a INT); INSERT INTO notes VALUES (1)");
    let file = there.folder.path().join("dump.gz");
    let open = there.send(&file, "").unwrap_err();
    assert!(open.contains("is not read-only") && !file.exists(), "{open}");
    there.sql(
        "",
        "SET GLOBAL read_only = 1; GRANT READ_ONLY ADMIN ON *.* TO app",
    );
    let exempt = there.send(&file, "").unwrap_err();
    assert!(
        exempt.contains("may write although") && !file.exists(),
        "{exempt}"
    );
    assert_eq!(
        there.sql("app", "SHOW TABLES"),
        "notes\n",
        "what was tried is undone"
    );
    there.sql("", "REVOKE READ_ONLY ADMIN ON *.* FROM app");
    // Somebody ends it while it is dumped.
    let thaws = format!(
        "; mariadb --no-defaults --socket={} -e 'SET GLOBAL read_only = 0'",
        there.socket().display()
    );
    let thawed = there.send(&file, &thaws).unwrap_err();
    assert!(thawed.contains("has let the app write"), "{thawed}");
    there.sql("", "SET GLOBAL read_only = 1");
    assert!(counted(&there.send(&file, "").unwrap()).starts_with("1 tables, 1 rows, "));
    // And what cannot be sent is not said to be.
    there
        .send(&there.folder.path().join("missing/dump.gz"), "")
        .unwrap_err();
}

#[test]
fn what_is_dumped_on_aws_takes_the_place_of_what_is_here() {
    let (Some(here), Some(there)) = (Server::start(), Server::start()) else {
        return;
    };
    // It went there once, and both have lived since.
    here.sql("app", "CREATE TABLE people (id INT PRIMARY KEY, name TEXT); INSERT INTO people VALUES (1, 'Ada'); CREATE TABLE of_old (a INT)");
    there.sql(
        "",
        "CREATE USER vend IDENTIFIED BY 'x'; GRANT ALL ON app.* TO vend WITH GRANT OPTION; GRANT SET USER ON *.* TO vend",
    );
    there.sql(
        "app",
        "CREATE TABLE people (id INT PRIMARY KEY AUTO_INCREMENT, name TEXT, face BLOB);
         INSERT INTO people (name, face) VALUES ('Ada', NULL), ('Zoë ✓ ''quoted''\\n\\\\! touch x', x'00ff0a0d'), ('DEFINER=`a`@`b` stays', '');
         CREATE TABLE `odd``name` (a INT); INSERT INTO `odd``name` SELECT seq FROM seq_1_to_5000;
         CREATE DEFINER=`vend`@`%` VIEW named AS SELECT name FROM people;
         CREATE DEFINER=`vend`@`%` TRIGGER upper_case BEFORE INSERT ON people FOR EACH ROW SET NEW.name = UPPER(NEW.name);
         SET GLOBAL read_only = 1",
    );
    let file = there.folder.path().join("dump.gz");
    let dumped = counted(&there.send(&file, "").unwrap());
    assert!(dumped.starts_with("2 tables, 5003 rows, "), "{dumped}");
    let loaded = counted(&here.take_in(&file).unwrap());
    assert_eq!(loaded, dumped);
    let people = "SELECT id, name, HEX(face) FROM people ORDER BY id";
    assert_eq!(here.sql("app", people), there.sql("app", people));
    // Nobody writes until it is served here; then the app does, and what it made elsewhere is its own.
    let writes = |sql: &str| here.as_app(sql);
    assert!(
        writes("INSERT INTO people (name) VALUES ('early')")
            .unwrap_err()
            .contains("read-only")
    );
    assert_eq!(counted(&here.recount().unwrap()), dumped);
    here.sql("", "SET GLOBAL read_only = 0");
    writes("INSERT INTO people (name) VALUES ('late')").unwrap();
    assert_eq!(
        writes("SELECT name FROM named WHERE name = 'LATE'").unwrap(),
        "LATE\n"
    );
    let makers = "SELECT DISTINCT DEFINER FROM information_schema.VIEWS WHERE TABLE_SCHEMA = 'app'
        UNION SELECT DISTINCT DEFINER FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = 'app'";
    assert_eq!(here.sql("", makers), "app@%\n");

    // Again is as good as once. Half a dump is no dump, and is seen.
    assert_eq!(counted(&here.take_in(&file).unwrap()), dumped);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    here.take_in(&file).unwrap_err();
}
