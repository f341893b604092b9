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

/// The agent plans the directory and finds the file when it makes it, whatever is to be done with files.
#[test]
fn a_directory_does_not_take_the_place_of_a_file() {
    for (behaviour, there, why) in [
        ("DISALLOW", "srv/d", "File exists @ dir_s_mkdir - ROOT/srv/d"),
        ("OVERWRITE", "srv/d", "File exists @ dir_s_mkdir - ROOT/srv/d"),
        ("RETAIN", "srv", "Not a directory @ dir_s_mkdir - ROOT/srv/d"),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let (archive, root) = (scratch.path().join("archive"), scratch.path().join("root"));
        fs::create_dir_all(archive.join("s/d")).unwrap();
        fs::write(archive.join("s/d/page"), "page").unwrap();
        let there = root.join(there);
        fs::create_dir_all(there.parent().unwrap()).unwrap();
        fs::write(&there, "own").unwrap();
        let (at, source) = match behaviour {
            "RETAIN" => ("srv/d", "s/d"),
            _ => ("srv", "s"),
        };
        let text = format!(
            "version: 0.0\nos: linux\nfile_exists_behavior: {behaviour}\nfiles: [{{ source: {source}, destination: {}/{at} }}]\n",
            root.display()
        );
        let records = Records::of(scratch.path(), "dg");
        let archive = Utf8Path::from_path(&archive).unwrap();
        let refused = install(archive, &parse(&text).unwrap(), FileExists::Disallow, &records);
        let why = why.replace("ROOT", root.to_str().unwrap());
        assert_eq!(refused.unwrap_err().to_string(), why, "{behaviour}");
        assert_eq!(fs::read(&there).unwrap(), b"own");
    }
}

/// Nobody is found by a number, not even where it stands in quotes.
#[test]
fn an_owner_is_what_yaml_makes_of_it() {
    for (keys, recorded, why) in [
        (
            "owner: 1",
            json!([1, null]),
            "no implicit conversion of Integer into String",
        ),
        (
            "group: 1.5",
            json!([null, 1.5]),
            "no implicit conversion of Float into String",
        ),
        (
            "owner: true",
            json!([true, null]),
            "no implicit conversion of true into String",
        ),
        ("owner: '1'", json!(["1", null]), "can't find user for 1"),
        (
            "owner: root, group: [a]",
            json!(["root", ["a"]]),
            "no implicit conversion of Array into String",
        ),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let archive = scratch.path().join("archive");
        fs::create_dir(&archive).unwrap();
        fs::write(archive.join("page"), "page").unwrap();
        let root = scratch.path().join("root").display().to_string();
        let text = format!(
            "version: 0.0\nos: linux\nfiles: [{{ source: page, destination: {root} }}]\n\
             permissions: [{{ object: {root}/page, {keys} }}]\n"
        );
        let records = Records::of(scratch.path(), "dg");
        let archive = Utf8Path::from_path(&archive).unwrap();
        let refused = install(archive, &parse(&text).unwrap(), FileExists::Disallow, &records);
        assert_eq!(refused.unwrap_err().to_string(), why, "{keys}");
        let installed: Value = serde_json::from_slice(&fs::read(&records.install).unwrap()).unwrap();
        let steps = installed["instructions"].as_array().unwrap();
        let chown = steps.iter().find(|step| step["type"] == "chown").unwrap();
        assert_eq!(json!([chown["owner"], chown["group"]]), recorded, "{keys}");
    }
}

/// The agent fails there with EEXIST.
#[test]
fn a_link_replaces_what_is_there_as_a_file_does() {
    let scratch = tempfile::tempdir().unwrap();
    let (archive, root) = (scratch.path().join("archive"), scratch.path().join("root"));
    for path in [&archive, &root] {
        fs::create_dir(path).unwrap();
    }
    std::os::unix::fs::symlink("new", archive.join("over-file")).unwrap();
    std::os::unix::fs::symlink("new", archive.join("over-link")).unwrap();
    fs::write(root.join("over-file"), "own").unwrap();
    std::os::unix::fs::symlink("/", root.join("over-link")).unwrap();
    let text = format!(
        "version: 0.0\nos: linux\nfile_exists_behavior: OVERWRITE\nfiles: [{{ source: /, destination: {} }}]\n",
        root.display()
    );
    let records = Records::of(scratch.path(), "dg");
    let archive = Utf8Path::from_path(&archive).unwrap();
    install(archive, &parse(&text).unwrap(), FileExists::Disallow, &records).unwrap();
    for name in ["over-file", "over-link"] {
        assert_eq!(
            fs::read_link(root.join(name)).unwrap(),
            Path::new("new"),
            "{name}"
        );
    }
}
