use super::*;

#[test]
fn stars() {
    for (text, pattern, expected) in [
        ("a.txt", "*.txt", true),
        ("a.txt", "a*", true),
        ("a.txt", "*", true),
        ("a.txt", "a.txt", true),
        ("a.txt", "a", false),
        ("a.txt", "", false),
        ("aa", "a*a", true),
        ("a", "a*a", false),
        ("abcabc", "a*b*c", true),
        ("abcab", "a*b*c", false),
    ] {
        assert_eq!(star_matches(text, pattern), expected, "{text} {pattern}");
    }
}

#[test]
fn a_path_stays_in_the_revision() {
    assert_eq!(inside("/"), Some("".into()));
    assert_eq!(inside("./a//b"), Some("a/b".into()));
    for out in ["..", "a/../b", "/../etc"] {
        assert_eq!(inside(out), None, "{out}");
    }
    assert_eq!(absolute("a/../../b"), "/b");
}

/// The steps for a revision of these files (`a -> b` is a link), on a host that has `/srv` with a file in it.
fn steps(files: &[&str], appspec: &str) -> Result<Vec<String>, String> {
    let mut entries = std::collections::BTreeMap::new();
    for file in files {
        let (path, entry) = match file.split_once(" -> ") {
            Some((path, target)) => (path, Entry::Link(target.into())),
            None => (*file, Entry::File),
        };
        let path = Utf8Path::new(path);
        let above = path
            .ancestors()
            .skip(1)
            .filter(|above| !above.as_str().is_empty());
        entries.extend(above.map(|above| (above.to_owned(), Entry::Directory)));
        entries.insert(path.to_owned(), entry);
    }
    let bundle = Bundle::new("/b".into(), entries);
    let text = format!("version: 0.0\nos: linux\n{appspec}");
    let (spec, _) = Appspec::parse(&text, "appspec.yml").map_err(|problems| problems[0].message.clone())?;
    let seen = |path: &Utf8Path| match path.as_str() {
        "/" | "/srv" | "/srv/old" => Seen::Directory,
        "/srv/old/file" => Seen::Other,
        _ => Seen::Nothing,
    };
    let said = |step: Instruction| match step {
        Instruction::Copy { source, destination } => format!("copy {source} {destination}"),
        Instruction::Mkdir { directory } => format!("mkdir {directory}"),
        Instruction::Chmod { mode, file } => format!("chmod {:o} {file}", mode.bits()),
        Instruction::Setfacl { acl, file } => format!("setfacl {} {file}", acl.join(",")),
        Instruction::Semanage { context, file } => format!("semanage {} {file}", context.r#type),
        Instruction::Chown { owner, group, file } => {
            let [owner, group] = [owner, group].map(|name| match name {
                Some(serde_json::Value::String(name)) => name,
                name => name.map_or_else(String::new, |name| format!("<{name}>")),
            });
            format!("chown {owner}:{group} {file}")
        }
    };
    Ok(plan(&bundle, &spec, FileExists::Disallow, seen)?
        .into_iter()
        .map(said)
        .collect())
}

#[test]
fn files_come_where_the_agent_puts_them() {
    let tree = ["appspec.yml", ".env", "app/a", "app/lib/b", "app/l -> lib/b"];
    for (files, expected) in [
        // A file keeps its name, whatever its destination ends with; what is missing above it is made.
        (
            "source: app/a, destination: /srv/x/",
            &["mkdir /srv/x", "copy /b/app/a /srv/x/a"][..],
        ),
        (
            "source: /app/a, destination: /srv/x/../y",
            &["mkdir /srv/y", "copy /b/app/a /srv/y/a"],
        ),
        // The source stays as it is written, and the destination does not.
        (
            "source: ./app/./a, destination: /srv/./x/",
            &["mkdir /srv/x", "copy /b/./app/./a /srv/x/a"],
        ),
        (
            "source: ./app/lib, destination: /srv",
            &["copy /b/./app/lib/b /srv/b"],
        ),
        (
            "source: app//lib/, destination: /srv",
            &["copy /b/app//lib/b /srv/b"],
        ),
        (
            "source: ., destination: /srv",
            &[
                "copy /b/./.env /srv/.env",
                "mkdir /srv/app",
                "copy /b/./app/a /srv/app/a",
                "copy /b/./app/l /srv/app/l",
                "mkdir /srv/app/lib",
                "copy /b/./app/lib/b /srv/app/lib/b",
                "copy /b/./appspec.yml /srv/appspec.yml",
            ],
        ),
        // Of a directory, what is in it.
        (
            "source: app, destination: /srv/x",
            &[
                "mkdir /srv/x",
                "copy /b/app/a /srv/x/a",
                "copy /b/app/l /srv/x/l",
                "mkdir /srv/x/lib",
                "copy /b/app/lib/b /srv/x/lib/b",
            ],
        ),
        // What is there is neither made nor recorded.
        (
            "source: app/lib, destination: /srv",
            &["copy /b/app/lib/b /srv/b"],
        ),
        (
            "source: /, destination: /srv/x",
            &[
                "mkdir /srv/x",
                "copy /b/.env /srv/x/.env",
                "mkdir /srv/x/app",
                "copy /b/app/a /srv/x/app/a",
                "copy /b/app/l /srv/x/app/l",
                "mkdir /srv/x/app/lib",
                "copy /b/app/lib/b /srv/x/app/lib/b",
                "copy /b/appspec.yml /srv/x/appspec.yml",
            ],
        ),
    ] {
        assert_eq!(
            steps(&tree, &format!("files: [{{ {files} }}]\n")).unwrap(),
            expected,
            "{files}"
        );
    }
    for (behaviour, expected) in [
        ("OVERWRITE", &["copy /b/file /srv/old/file"][..]),
        ("RETAIN", &[]),
    ] {
        let text = format!(
            "file_exists_behavior: {behaviour}\nfiles: [{{ source: file, destination: /srv/old }}]\n"
        );
        assert_eq!(steps(&["file"], &text).unwrap(), expected);
    }
}

#[test]
fn permissions_reach_what_this_deployment_makes_in_the_agents_order() {
    let tree = ["app/a.sh", "app/b.txt", "app/lib/c.sh"];
    let made = 5;
    for (permission, expected) in [
        // Never the object itself; everything below it.
        (
            "mode: 750",
            &[
                "chmod 750 /d/a.sh",
                "chmod 750 /d/b.txt",
                "chmod 750 /d/lib/c.sh",
                "chmod 750 /d/lib",
            ][..],
        ),
        (
            "mode: 7, type: [file]",
            &["chmod 7 /d/a.sh", "chmod 7 /d/b.txt", "chmod 7 /d/lib/c.sh"],
        ),
        ("mode: 2750, type: [directory]", &["chmod 2750 /d/lib"]),
        // A pattern other than `**` matches one name.
        ("mode: 750, pattern: '*.sh'", &["chmod 750 /d/a.sh"]),
        (
            "mode: 750, pattern: '*'",
            &["chmod 750 /d/a.sh", "chmod 750 /d/b.txt", "chmod 750 /d/lib"],
        ),
        (
            "mode: 750, except: ['*.txt', lib]",
            &["chmod 750 /d/a.sh", "chmod 750 /d/lib/c.sh"],
        ),
        ("mode: 750, pattern: 'lib/*'", &[]),
        (
            "owner: u, group: g, mode: '0640', acls: ['u:x:rw'], context: { type: t, range: s0 }, pattern: b.txt",
            &[
                "chmod 640 /d/b.txt",
                "setfacl user:x:rw- /d/b.txt",
                "semanage t /d/b.txt",
                "chown u:g /d/b.txt",
            ],
        ),
        ("owner: u, pattern: b.txt", &["chown u: /d/b.txt"]),
        // A number stays one, as a switch does, and a list of nothing is a list.
        ("owner: 1, group: '1', pattern: b.txt", &["chown <1>:1 /d/b.txt"]),
        ("owner: false, pattern: b.txt", &["chown <false>: /d/b.txt"]),
        ("acls: [], pattern: b.txt", &["setfacl  /d/b.txt"]),
        ("acls: ~, pattern: b.txt", &[]),
        (
            "acls: ['d:u:x:rw'], type: [directory]",
            &["setfacl default:user:x:rw- /d/lib"],
        ),
    ] {
        let text = format!(
            "files: [{{ source: app, destination: /d }}]\npermissions: [{{ object: /d, {permission} }}]\n"
        );
        let steps = steps(&tree, &text).unwrap_or_else(|why| panic!("{permission}: {why}"));
        assert_eq!(steps[made..], *expected, "{permission}");
    }
    // What was there is not touched; one file is an object, too, unless directories alone are meant.
    let of = |object: &str| {
        format!(
            "file_exists_behavior: RETAIN\nfiles: [{{ source: file, destination: /srv/old }}, {{ source: other, destination: /srv }}]\n\
                 permissions: [{{ object: {object}, mode: 600 }}]\n"
        )
    };
    let files = ["file", "other"];
    assert_eq!(
        steps(&files, &of("/srv/old")).unwrap(),
        ["copy /b/other /srv/other"]
    );
    assert_eq!(
        steps(&files, &of("/srv/./other")).unwrap()[1..],
        ["chmod 600 /srv/other"]
    );
    assert_eq!(
        steps(&files, &of("/srv/other, type: [directory]")).unwrap().len(),
        1
    );
}

#[test]
fn conflicts_are_found_before_anything_is_done() {
    let one = "files: [{ source: a, destination: /d }]\npermissions: [{ object: /d/a, ";
    for (files, text, fragment) in [
        (
            &["a", "x/a"][..],
            "files: [{ source: a, destination: /d }, { source: x/a, destination: /d }]",
            "two source files named /b/x/a and /b/a for the same destination (/d/a)",
        ),
        (
            &["a", "x/a/y"],
            "files: [{ source: x, destination: /d }, { source: a, destination: /d }]",
            "calls for installing the file /b/a, but a file with that name already exists at the location (/d/a)",
        ),
        (
            &["a", "x/a/y"],
            "files: [{ source: a, destination: /d }, { source: x, destination: /d }]",
            "mkdir command more than once for the same destination path (/d/a) from (/b/a)",
        ),
        (
            &["file"],
            "files: [{ source: file, destination: /srv/old }]",
            "a specified file already exists at this location: /srv/old/file",
        ),
        (
            &["a"],
            &format!("{one}mode: 600 }}, {{ object: /d, mode: 700 }}]"),
            "the permissions setting for (/d/a) is specified more than once",
        ),
        (
            &["a"],
            &format!("{one}pattern: '*' }}]"),
            "includes an object (/d/a) with an invalid pattern (*)",
        ),
        (
            &["a"],
            &format!("{one}except: [x] }}]"),
            "([\"x\"]) for the object named /d/a contains an invalid format",
        ),
        (
            &["a"],
            &format!("{one}acls: ['d:u:x:rw'] }}]"),
            "the -d parameter has been specified to apply an acl setting to a file",
        ),
        (
            &["a"],
            "files: [{ source: a, destination: /d }]\npermissions: [{ object: /d, acls: ['d:u:x:rw'] }]",
            "the -d parameter has been specified",
        ),
        (
            &["a"],
            "files: [{ source: ../a, destination: /d }]",
            "the source ../a leaves the revision",
        ),
        (
            &["l -> /etc", "a"],
            "files: [{ source: l/passwd, destination: /d }]",
            "the source l/passwd leaves the revision",
        ),
    ] {
        let why = steps(files, text).unwrap_err();
        assert!(why.contains(fragment), "{text}: {why}");
    }
}
