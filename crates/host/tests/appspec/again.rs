//! What is installed where something is already.

use super::*;

/// A crash in the middle of a line leaves a name that may be another file's.
#[test]
fn an_unfinished_line_of_the_clean_up_file_removes_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let (kept, gone) = (scratch.path().join("kept"), scratch.path().join("gone"));
    fs::create_dir(&gone).unwrap();
    for file in [&kept, &gone.join("file")] {
        fs::write(file, "").unwrap();
    }
    let records = Records::of(scratch.path(), "dg");
    fs::create_dir_all(records.cleanup.parent().unwrap()).unwrap();
    // Directories come before what is in them, and are removed after it.
    let text = format!("{0}\n{0}/file\n{1}", gone.display(), kept.display());
    fs::write(&records.cleanup, text).unwrap();
    let spec = parse("version: 0.0\nos: linux\n").unwrap();
    let archive = tempfile::tempdir().unwrap();
    install(
        Utf8Path::from_path(archive.path()).unwrap(),
        &spec,
        FileExists::Disallow,
        &records,
    )
    .unwrap();
    assert_eq!((kept.exists(), gone.exists()), (true, false));
}

/// What deployments brought is the next one's to take away, however far they came; what somebody else put there is not.
#[test]
fn a_release_is_installed_again_where_it_was_or_failed() {
    let scratch = tempfile::tempdir().unwrap();
    let (archive, root) = (scratch.path().join("archive"), scratch.path().join("root"));
    for path in [&archive, &root] {
        fs::create_dir(path).unwrap();
    }
    fs::write(archive.join("page"), "page").unwrap();
    fs::write(archive.join("style"), "style").unwrap();
    let records = Records::of(scratch.path(), "dg");
    let of = |more: &str| {
        let root = root.display();
        let files = format!(
            "[{{ source: page, destination: {root}/srv }}, {{ source: style, destination: {root}/srv }}]"
        );
        let text = format!("version: 0.0\nos: linux\nfiles: {files}\n{more}");
        let archive = Utf8Path::from_path(&archive).unwrap();
        install(archive, &parse(&text).unwrap(), FileExists::Disallow, &records)
            .map_err(|error| error.to_string())
    };
    let is_there = || ["page", "style"].map(|name| root.join("srv").join(name).exists());
    of("").unwrap();
    of("").unwrap();
    // One that breaks off when all is copied.
    let nobody = format!(
        "permissions: [{{ object: {}/srv/page, owner: nobody-here }}]\n",
        root.display()
    );
    of(&nobody).unwrap_err();
    assert_eq!(is_there(), [true, true], "it came so far");
    of("").unwrap();
    // One that is refused: what was there before has gone by then, and the foreign file stays.
    fs::remove_file(root.join("srv/page")).unwrap();
    of("").unwrap();
    fs::write(&records.cleanup, format!("{}/srv/style\n", root.display())).unwrap();
    let refused = of("").unwrap_err();
    assert!(refused.contains("already exists at this location"), "{refused}");
    assert_eq!(is_there(), [true, false]);
    let kept = of("file_exists_behavior: RETAIN\n");
    assert_eq!((kept.is_ok(), is_there()), (true, [true, true]));
}
