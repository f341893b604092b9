//! Appspecs against what CodeDeploy's agent made of them.

use model::spec::Appspec;
use serde_json::Value;

use crate::common;

#[test]
fn reads_every_recorded_appspec_as_the_agent_did() {
    let mut cases = 0;
    let mut wrong = Vec::new();
    for part in ["appspec/agent_tests", "appspec/docs", "appspec/repos"] {
        let Some(folder) = common::conformance(part) else {
            return;
        };
        for path in common::files(&folder, &[".yml", ".yaml"]) {
            let whole = path.with_file_name(format!(
                "{}.expected.json",
                path.file_name().unwrap().to_string_lossy()
            ));
            let expected = if whole.exists() {
                whole
            } else {
                path.with_extension("expected.json")
            };
            let expected = &common::json(&expected)["result"];
            let text = std::fs::read_to_string(&path).unwrap();
            cases += 1;
            let same = match Appspec::normalise(&text, "appspec.yml") {
                Ok((spec, _)) => spec == expected["spec"],
                Err(problems) => expected["message"] == Value::String(problems[0].message.clone()),
            };
            if !same {
                wrong.push(format!(
                    "{}: {:#?}\nexpected {expected:#}",
                    path.display(),
                    Appspec::normalise(&text, "appspec.yml")
                ));
            }
            assert_eq!(
                Appspec::parse(&text, "appspec.yml").is_ok(),
                expected["ok"] == true
            );
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {cases} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(cases > 40, "{cases}");
}

const ACL: &str = "The deployment failed because of a problem with the acls permission settings in the application specification file. ";

/// The first error of an appspec whose permissions or hooks are these.
fn refusal(rest: &str) -> String {
    let text = format!("version: 0.0\nos: linux\n{rest}");
    Appspec::parse(&text, "appspec.yml").unwrap_err()[0]
        .message
        .clone()
}

fn permission(rest: &str) -> String {
    format!("permissions:\n  - object: a\n    {rest}\n")
}

#[test]
fn refuses_in_the_agents_words() {
    for (rest, expected) in [
        (permission("acls: ['user::rwx']"), format!("{ACL}Use mode to set the base acl entry (user::rwx). Update the permissions section of the AppSpec file, and then try again.")),
        (permission("acls: ['rwx']"), format!("{ACL}Invalid acl entry (rwx).")),
        (permission("acls: ['u:a:8']"), "The deployment failed because the access control list (ACL) named u:a:8 in the application specification file contains an invalid character (8). Correct the ACL in the hooks section of the AppSpec file, and then try again.".to_owned()),
        (permission("type: [link]"), "The deployment failed because the application specification file specifies a permission for an object type not supported for permissions (link). Update the permissions section of the AppSpec file, and then try again.".to_owned()),
        (permission("context: { name: n }"), "The deployment failed because the application specification file specifies an invalid context type ({\"name\"=>\"n\"}). Update the permissions section of the AppSpec file, and then try again.".to_owned()),
        (permission("context: { type: t, range: s3-s1 }"), "The deployment failed because of a problem with the SELinux range specified (s3-s1) for the context parameter in the permissions section of the application specification file. Make corrections in the permissions section of the AppSpec file, and then try again.".to_owned()),
        (permission("context: { type: t, range: 's0:c5.c2' }"), "invalid category range c5.c2".to_owned()),
        (permission("context: { type: t, range: 's0:c1024' }"), "invalid category c1024".to_owned()),
        (permission("mode: 0755"), "The deployment failed because the permissions mode (493) in the application specification file contains an invalid character (9). Update the permissions section of the AppSpec file, and then try again.".to_owned()),
        ("hooks: { AfterInstall: [{ location: a, timeout: 0 }] }".to_owned(), "The deployment failed because an invalid timeout value was provided for a script in the application specification file. Make corrections in the hooks section of the AppSpec file, and then try again.".to_owned()),
        ("hooks: { AfterInstall: [{ location: ' ' }] }".to_owned(), "The deployment failed because the application specification file specifies a script with no location value. Specify the location in the hooks section of the AppSpec file, and then try again.".to_owned()),
        ("files: [{ source: a }]".to_owned(), "The deployment failed because the application specification file specifies only a source file (a). Add the name of the destination file to the files section of the AppSpec file, and then try again.".to_owned()),
        ("x: 2024-01-01".to_owned(), "Tried to load unspecified class: Date".to_owned()),
        ("x: :symbol".to_owned(), "Tried to load unspecified class: Symbol".to_owned()),
        ("hooks: []".to_owned(), "`hooks` must be a mapping, not a list".to_owned()),
        ("files: { source: a }".to_owned(), "`files` must be a list, not a mapping".to_owned()),
    ] {
        assert_eq!(refusal(&rest), expected, "{rest}");
    }
}

#[test]
fn versions_are_numbers_and_zero() {
    for (version, good) in [
        ("0.0", true),
        ("0", true),
        ("-0.0", true),
        ("\"0.0\"", false),
        ("0.1", false),
        ("", false),
    ] {
        let found = Appspec::parse(&format!("version: {version}\nos: linux\n"), "a");
        assert_eq!(found.is_ok(), good, "{version}: {found:?}");
    }
    assert!(Appspec::parse("{\n\t\"version\": 0.0,\n\t\"os\": \"linux\"\n}", "appspec.json").is_ok());
}

/// What is accepted and does something else than it looks like.
fn warnings(text: &str) -> Vec<String> {
    let (_, warnings) = Appspec::parse(&format!("version: 0.0\nos: linux\n{text}"), "a").unwrap();
    let fixed = |problem: &model::Problem| problem.help.is_some() || problem.message.contains("twice");
    assert!(warnings.iter().all(fixed), "each says what to do: {warnings:?}");
    warnings
        .iter()
        .map(|problem| format!("{}:{}: {}", problem.line, problem.column, problem.message))
        .collect()
}

#[test]
fn says_what_will_really_happen() {
    for (text, expected) in [
        (
            permission("mode: 0644"),
            "5:11: `mode: 0644` gives the mode 0420 on AWS and here, not 0644",
        ),
        (
            "Files: []".to_owned(),
            "3:1: `Files` is not a known key: AWS ignores it without a word, and so does a push",
        ),
        (
            "hooks: { BeforInstall: [{ location: a }] }".to_owned(),
            "3:10: `BeforInstall` is not a lifecycle event: AWS takes the file, and never runs its scripts",
        ),
        (
            "hooks: { Install: [{ location: a }] }".to_owned(),
            "3:10: `Install` is the agent's own event: AWS never runs a script in it",
        ),
        (
            "hooks: { ApplicationStop: [{ location: a }] }".to_owned(),
            "3:10: `ApplicationStop` runs the script of the revision that was installed before, not of this one, and none on a new host",
        ),
        (
            "hooks: { AfterInstall: [{ location: ../a }] }".to_owned(),
            "3:37: `location` leaves the bundle: the deployment refuses it",
        ),
        (
            "hooks: { AfterInstall: [{ location: a, timeout: 3000 }, { location: b, timeout: 601 }] }"
                .to_owned(),
            "3:10: the time-outs of `AfterInstall` add up to 3601 seconds: AWS ends an event after 3600",
        ),
        (
            permission("pattern: 'lib/*.so'"),
            "5:14: `lib/*.so` matches nothing: a pattern is compared with single names",
        ),
        (
            "hooks: { AfterInstall: [{ location: run.sh --fast }] }".to_owned(),
            "3:37: `location` is a path, never a command line: this one has a space in its name",
        ),
        (
            "files: [{ source: a, destination: /srv }]\npermissions: [{ object: /var/lib }]".to_owned(),
            "4:25: a permission for `/var/lib` changes nothing: `files` puts nothing there",
        ),
        (
            permission("context: { user: u, type: t }"),
            "5:22: the agent reads the SELinux user from `name`, not from `user`",
        ),
        (
            "os: linux".to_owned(),
            "3:1: `os` stands twice in the same mapping: the last one counts",
        ),
    ] {
        assert_eq!(warnings(&text), [expected], "{text}");
    }
    assert!(warnings(&permission("mode: '0644'")).is_empty());
    assert!(warnings(&permission("mode: 644")).is_empty());
}

#[test]
fn knows_what_the_host_needs() {
    let text = "version: 0.0\nos: linux\nfile_exists_behavior: RETAIN\nfiles: [{ source: a, destination: /b }]\n\
                permissions: [{ object: /b, mode: 4755, owner: 1000, acls: ['d:g:x:5'], type: [directory], context: { name: u, type: t, range: 's0-s02:c3,c1.c2' } }]\n\
                hooks: { AfterInstall: [{ location: x, sudo: yes, runas: ' me ', timeout: '30s' }], Other: [{ location: y }], \
                BlockTraffic: [{ location: z }], Another: [], Install: [{ location: never }] }\n";
    let (spec, _) = Appspec::parse(text, "a").unwrap();
    let permission = &spec.permissions[0];
    assert_eq!(
        (
            permission.mode.as_ref().map(|mode| mode.bits()),
            permission.owner.clone()
        ),
        (Some(0o4755), Some(serde_json::json!(1000)))
    );
    assert_eq!((permission.files, permission.directories), (false, true));
    assert_eq!(permission.acls, Some(vec!["default:group:x:r-x".to_owned()]));
    assert_eq!(
        permission.context.as_ref().unwrap().range.as_deref(),
        Some("s0-s2:c1.c3")
    );
    assert_eq!(
        (spec.hooks.len(), spec.custom[0].1[0].location.as_str()),
        (1, "y")
    );
    let custom = spec.custom.iter().map(|(name, _)| name.as_str());
    assert_eq!(custom.collect::<Vec<_>>(), ["Other", "BlockTraffic", "Another"]);
    let script = &spec.hooks[&model::port::LifecycleEvent::AfterInstall][0];
    assert_eq!(
        (script.sudo, script.runas.as_deref(), script.timeout),
        (true, Some("me"), 30)
    );
}
