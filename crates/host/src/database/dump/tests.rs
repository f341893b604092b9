use super::*;

#[test]
fn what_was_counted_is_one_line_of_what_is_said() {
    let said = "something\ncounted: 2 tables, 5 rows, 0123456789abcdef\n";
    assert_eq!(
        counted(said).as_deref(),
        Some("2 tables, 5 rows, 0123456789abcdef")
    );
    assert_eq!(counted("2 tables"), None);
}

#[test]
fn a_link_in_the_place_of_a_dump_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let directory = Utf8Path::from_path(directory.path()).unwrap();
    std::fs::write(directory.join("secret"), "of the machine").unwrap();
    let path = directory.join(FILE);
    std::os::unix::fs::symlink(directory.join("secret"), &path).unwrap();
    assert!(taken(&path).is_err());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "a dump").unwrap();
    let file = taken(&path).unwrap();
    assert_eq!(io::read_to_string(file).unwrap(), "a dump");
    assert!(!path.exists(), "nobody else finds it");
}

#[test]
fn the_scripts_are_shell() {
    for script in [making("app"), breaking("app"), recounting("app")] {
        let done = std::process::Command::new("bash")
            .args(["-n", "-c", &script])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}
