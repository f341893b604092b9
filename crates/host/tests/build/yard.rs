//! Buildspecs in containers.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
};

use jiff::SignedDuration;
use model::{
    Digest, Secret,
    port::{Bakery as _, Blame, BuildOrder, Builder as _, Built, Fault, PhaseReport, PhaseStatus},
    spec::build::{Artifacts, Cache, OnFailure, PhaseName, Report, ReportFormat, SecretRef, Version},
};

use crate::world::{World, buildspec, phase};
use PhaseName::{Build, Install, PostBuild, PreBuild};

pub async fn build(world: &World, order: &BuildOrder) -> (Result<Built, Fault>, String) {
    let ticket = world.ticket();
    let built = world.yard.build(&ticket, order).await;
    let log = world.log(&format!("build/{ticket}").parse().unwrap());
    (built, log)
}

pub async fn succeeds(world: &World, order: &BuildOrder) -> (Built, String) {
    let (built, log) = build(world, order).await;
    match built {
        Ok(built) => (built, log),
        Err(fault) => panic!("{fault}\n{log}"),
    }
}

pub async fn fails(world: &World, order: &BuildOrder, fragments: &[&str]) -> (Fault, String) {
    let (built, log) = build(world, order).await;
    let fault = built.err().unwrap_or_else(|| panic!("it succeeded\n{log}"));
    println!("{fault}");
    for fragment in fragments {
        assert!(
            fault.message.contains(fragment),
            "no `{fragment}` in: {}\n{log}",
            fault.message
        );
    }
    assert!(fault.evidence.is_some());
    (fault, log)
}

/// Names of phases.
pub fn names(phases: &[PhaseReport]) -> Vec<&str> {
    phases.iter().map(|phase| phase.name.as_str()).collect()
}

/// How a build's phases ended, those that did not end well.
pub fn broken(fault: &Fault) -> Vec<(&str, PhaseStatus)> {
    let broken = fault.phases.iter().filter(|phase| phase.broke());
    broken
        .map(|phase| (phase.name.as_str(), phase.status.unwrap()))
        .collect()
}

#[track_caller]
pub fn has(log: &str, fragments: &[&str]) {
    for fragment in fragments {
        assert!(log.contains(fragment), "no `{fragment}` in:\n{log}");
    }
}

/// Names and bytes of an artifact.
pub fn unpack(world: &World, artifact: &Digest) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let object = world.objects.open_object(artifact).unwrap();
    for entry in tar::Archive::new(object).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(entry.path().unwrap().to_string_lossy().into_owned(), bytes);
    }
    files
}

pub fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

pub fn report(files: &[&str]) -> Report {
    Report {
        group: "unit".to_owned(),
        files: texts(files),
        base_directory: None,
        discard_paths: false,
        format: ReportFormat::JunitXml,
    }
}

pub fn cache(paths: &[&str]) -> Cache {
    Cache {
        paths: texts(paths),
        restore: true,
        save: true,
        ..Cache::default()
    }
}

pub fn artifacts(files: &[&str]) -> Artifacts {
    Artifacts {
        files: texts(files),
        base_directory: None,
        exclude_paths: Vec::new(),
        discard_paths: false,
        enable_symlinks: false,
        name: None,
        s3_prefix: None,
        secondary: BTreeMap::new(),
    }
}

fn secret(name: &str) -> SecretRef {
    SecretRef {
        id: name.to_owned(),
        json_key: None,
        stage: None,
        version: None,
    }
}

const TEST: &str = "def test_good():\n    assert 1 + 1 == 2\ndef test_other():\n    assert True\n";

pub async fn a_python_app_is_built_and_tested(world: &World) {
    let files = [
        ("requirements.txt", "pytest==8.3.4\n"),
        ("test_app.py", TEST),
        ("app.py", "print('hi')\n"),
    ];
    let mut spec = buildspec(vec![
        phase(
            Install,
            &[
                "python -m venv /tmp/venv",
                "/tmp/venv/bin/pip install -r requirements.txt",
            ],
            &[],
        ),
        phase(Build, &["/tmp/venv/bin/pytest --junitxml=reports/junit.xml"], &[]),
        phase(
            PostBuild,
            &["VERSION=1.$CODEBUILD_BUILD_NUMBER", "export VERSION"],
            &[],
        ),
    ]);
    spec.phases[0]
        .runtime_versions
        .insert("python".to_owned(), "3.11".to_owned());
    spec.reports = vec![report(&["reports/*.xml"])];
    spec.artifacts = Some(artifacts(&["**/*"]));
    spec.artifacts.as_mut().unwrap().exclude_paths =
        texts(&["reports/**", "**/__pycache__/**", ".pytest_cache/**"]);
    spec.env.exported_variables = texts(&["VERSION"]);
    let order = world.build_order(&files, spec);
    let (built, log) = succeeds(world, &order).await;
    println!("{log}");
    assert_eq!(built.exported["VERSION"], "1.7");
    let report = &built.reports[0];
    assert_eq!(
        (report.group.as_str(), report.total, report.passed),
        ("shop-unit", 2, 2)
    );
    let all = [
        "SUBMITTED",
        "QUEUED",
        "PROVISIONING",
        "DOWNLOAD_SOURCE",
        "INSTALL",
        "PRE_BUILD",
        "BUILD",
        "POST_BUILD",
        "UPLOAD_ARTIFACTS",
        "FINALIZING",
        "COMPLETED",
    ];
    assert_eq!(names(&built.phases), all);
    let (last, before) = built.phases.split_last().unwrap();
    let well = |phase: &PhaseReport| phase.status == Some(PhaseStatus::Succeeded);
    assert!(
        before
            .iter()
            .all(|phase| well(phase) && phase.duration_ms.is_some())
    );
    assert_eq!((last.status, last.duration_ms), (None, None), "it only says when");
    // As CodeBuild's: its lines are of the phases that do something.
    assert!(!log.contains("SUBMITTED") && !log.contains("COMPLETED"), "{log}");
    let artifact = unpack(world, &built.artifact);
    assert_eq!(
        artifact.keys().collect::<Vec<_>>(),
        ["app.py", "requirements.txt", "test_app.py"]
    );
    has(
        &log,
        &[
            "Entering phase INSTALL",
            "Successfully installed",
            "Phase complete: BUILD State: SUCCEEDED",
            "2 passed",
        ],
    );

    let (again, _) = succeeds(world, &order).await;
    assert_eq!(again.artifact, built.artifact, "one source, one artifact");
    for (first, second) in built.phases.iter().zip(&again.phases) {
        println!(
            "{}: {:?} ms, then {:?} ms",
            first.name, first.duration_ms, second.duration_ms
        );
    }
}

pub async fn a_failing_command_stops_its_phase(world: &World) {
    let spec = buildspec(vec![
        phase(PreBuild, &["echo before"], &["echo finally before"]),
        phase(
            Build,
            &["echo why it failed >&2; exit 3", "echo never"],
            &["echo finally $CODEBUILD_BUILD_SUCCEEDING"],
        ),
        phase(PostBuild, &["echo after $CODEBUILD_BUILD_SUCCEEDING; pwd"], &[]),
    ]);
    let order = world.build_order(&[("a", "")], spec);
    let expected = [
        "BUILD failed: COMMAND_EXECUTION_ERROR: Error while executing command: ",
        "Reason: exit status 3",
        "why it failed",
    ];
    let (fault, log) = fails(world, &order, &expected).await;
    assert_eq!(fault.blame, Blame::Customer);
    assert_eq!(broken(&fault), [("BUILD", PhaseStatus::Failed)]);
    assert_eq!(
        names(&fault.phases)[3..],
        [
            "DOWNLOAD_SOURCE",
            "INSTALL",
            "PRE_BUILD",
            "BUILD",
            "POST_BUILD",
            "UPLOAD_ARTIFACTS",
            "FINALIZING",
            "COMPLETED"
        ]
    );
    has(
        &log,
        &[
            "finally before",
            "finally 0",
            "after 0\n/codebuild/output/src/shop",
            "Phase complete: BUILD State: FAILED",
        ],
    );
    assert!(!log.contains("] never") && !log.contains("\nnever"), "{log}");
}

pub async fn an_early_failure_ends_the_build(world: &World) {
    let mut spec = buildspec(vec![
        phase(Install, &["false"], &["echo cleaned up"]),
        phase(Build, &["echo never"], &[]),
    ]);
    let order = world.build_order(&[("a", "")], spec.clone());
    let (fault, log) = fails(world, &order, &["INSTALL failed", "exit status 1"]).await;
    assert_eq!(names(&fault.phases)[4..], ["INSTALL", "FINALIZING", "COMPLETED"]);
    has(&log, &["cleaned up"]);
    assert!(!log.contains("Entering phase BUILD") && !log.contains("UPLOAD_ARTIFACTS"));
    spec.phases[0].on_failure = OnFailure::Continue;
    let order = world.build_order(&[("a", "")], spec);
    let (_, log) = fails(world, &order, &["INSTALL failed"]).await;
    has(&log, &["Entering phase BUILD"]);
}

pub async fn state_lives_from_command_to_command(world: &World) {
    let mut spec = buildspec(vec![
        phase(
            PreBuild,
            &[
                "mkdir -p sub && cd sub",
                "export A='b c'",
                "hello() { echo hello $1; }",
            ],
            &[],
        ),
        phase(
            Build,
            &[
                "pwd; echo \"$A\"; hello you; echo \"home $HOME $LITERAL $OVERRIDDEN\"",
                "export C=1",
                "C=2; exit 0",
            ],
            &[],
        ),
        phase(PostBuild, &["echo \"restarted in $(pwd) with <$A> <$C>\""], &[]),
    ]);
    spec.env.exported_variables = vec!["A".to_owned()];
    spec.env.variables = BTreeMap::from([
        ("LITERAL".to_owned(), "$PATH:/x".to_owned()),
        ("OVERRIDDEN".to_owned(), "by the buildspec".to_owned()),
    ]);
    let mut order = world.build_order(&[("a", "")], spec);
    order
        .variables
        .insert("OVERRIDDEN".to_owned(), "by the order".to_owned());
    let (built, log) = succeeds(world, &order).await;
    assert_eq!(built.exported["A"], "b c");
    has(
        &log,
        &["/codebuild/output/src/shop/sub\nb c\nhello you\nhome /root $PATH:/x by the order\n"],
    );
    // What a command did before it ended the shell is lost, as there; what others did is not.
    has(
        &log,
        &["restarted in /codebuild/output/src/shop/sub with <b c> <1>"],
    );

    let mut spec = buildspec(vec![
        phase(Install, &["cd /tmp; export B=carried; chmod 777 ."], &[]),
        phase(
            Build,
            &[
                "id -un; pwd; echo $B; echo home $HOME $USER $LOGNAME; touch /root/x 2>/dev/null || echo refused",
            ],
            &[],
        ),
        phase(PostBuild, &["id -un; echo home $HOME $USER $LOGNAME"], &[]),
    ]);
    spec.phases[1].run_as = Some("www-data".to_owned());
    let (_, log) = succeeds(world, &world.build_order(&[("a", "")], spec)).await;
    has(
        &log,
        &[
            "www-data\n/tmp\ncarried\nhome /var/www www-data www-data\nrefused\n",
            "root\nhome /root root root\n",
        ],
    );
}

pub async fn version_0_1_has_a_shell_for_each_command(world: &World) {
    let mut spec = buildspec(vec![phase(
        Build,
        &["cd /tmp; export A=b", "echo \"$(pwd) <$A>\""],
        &[],
    )]);
    spec.version = Version::V0_1;
    let (_, log) = succeeds(world, &world.build_order(&[("a", "")], spec)).await;
    has(&log, &["/codebuild/output/src/shop <>"]);
}

pub async fn secrets_are_masked(world: &World) {
    let mut spec = buildspec(vec![phase(
        Build,
        &[
            "echo \"key: $KEY\"",
            "printf '%s' \"$KEY\" | head -c 10; sleep 0.3; printf '%s\\n' \"$KEY\" | tail -c +11",
            "echo $KEY | base64; printf \"user:$KEY\" | base64",
            "python3 -c 'import os, urllib.parse as u; print(u.quote(os.environ[\"KEY\"] + \"/?\"))'",
            "export LEAK=\"<$KEY>\"",
            "tr '\\0' '\\n' < /proc/1/environ; tr '\\0' ' ' < /proc/1/cmdline; echo; ls /codebuild",
            "echo \"$KEY\"; exit 1",
        ],
        &[],
    )]);
    spec.env
        .secrets_manager
        .insert("KEY".to_owned(), secret("api-key"));
    spec.env.exported_variables = texts(&["LEAK", "KEY"]);
    let mut order = world.build_order(&[("a", "")], spec);
    let (fault, _) = fails(world, &order, &["KEY", "`api-key` is not set"]).await;
    assert_eq!(fault.next.as_deref(), Some("vend secrets set api-key"));
    order
        .secrets
        .insert("KEY".to_owned(), Secret::new("tigers-in-the-night".to_owned()));
    let (fault, log) = fails(world, &order, &["BUILD failed", "***"]).await;
    has(&log, &["key: ***", "\n***\n"]);
    let shown = format!("{fault:?}{log}");
    for leak in [
        "tigers",
        "in-the-night",
        "dGlnZXJz",
        "aW4tdGhlLW5pZ2h0",
        "aWdlcnMt",
    ] {
        assert!(!shown.contains(leak), "{leak}: {shown}");
    }
    order.buildspec.phases[0].commands.pop();
    let (built, log) = succeeds(world, &order).await;
    assert!(built.exported.is_empty(), "{:?}", built.exported);
    has(&log, &["LEAK is not exported"]);
}

pub async fn artifacts_are_chosen(world: &World) {
    let make = "mkdir -p dist/app dist/tmp; echo one > dist/app/one.txt; echo x > dist/tmp/x; ln -s one.txt dist/app/link; chmod 750 dist/app/one.txt";
    let mut spec = buildspec(vec![phase(Build, &[make], &[])]);
    let mut wanted = artifacts(&["**/*"]);
    wanted.base_directory = Some("dist".to_owned());
    wanted.exclude_paths = texts(&["tmp/**"]);
    spec.artifacts = Some(wanted);
    let (built, _) = succeeds(world, &world.build_order(&[("a", "")], spec.clone())).await;
    let files = unpack(world, &built.artifact);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["app/link", "app/one.txt"]);
    assert_eq!(files["app/link"], b"one\n", "a link is followed");

    spec.artifacts = Some(artifacts(&["target/*.jar"]));
    let order = world.build_order(&[("a", "")], spec.clone());
    let (_, log) = fails(
        world,
        &order,
        &["UPLOAD_ARTIFACTS failed", "no matching artifact paths found"],
    )
    .await;
    has(&log, &["Skipping invalid file path target/*.jar"]);

    spec.artifacts = None;
    let (built, _) = succeeds(world, &world.build_order(&[("a", "x"), ("b/c", "y")], spec)).await;
    let files = unpack(world, &built.artifact);
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        ["a", "b/c", "dist/app/link", "dist/app/one.txt", "dist/tmp/x"]
    );
}

pub async fn tests_that_fail_stop_a_release(world: &World) {
    let xml = "<testsuite><testcase name=\"good\"/><testcase name=\"bad\"><failure message=\"1 is not 2\"/></testcase></testsuite>";
    let mut spec = buildspec(vec![phase(Build, &["true"], &[])]);
    spec.reports = vec![report(&["*.xml"])];
    let mut order = world.build_order(&[("report.xml", xml)], spec.clone());
    fails(
        world,
        &order,
        &["1 of 2 tests passed", "less than the 100 %", ": 1 is not 2"],
    )
    .await;
    order.limits.pass_rate_percent = 50.0;
    let (built, _) = succeeds(world, &order).await;
    assert_eq!(built.reports[0].failed, 1);
    let mut unread = world.build_order(&[("report.xml", "<html/>")], spec);
    let (built, log) = succeeds(world, &unread).await;
    assert_eq!(built.reports[0].total, 0);
    has(&log, &["Error processing report report.xml"]);
    // Who asks for tests that pass has not got them.
    unread.limits.tests_asked = true;
    fails(
        world,
        &unread,
        &["tells of no test, and `pass_rate` asks for 100 %"],
    )
    .await;
}

pub async fn runtimes_are_checked(world: &World) {
    let mut spec = buildspec(vec![phase(Install, &["echo never"], &[])]);
    spec.phases[0]
        .runtime_versions
        .insert("nodejs".to_owned(), "7".to_owned());
    let order = world.build_order(&[("a", "")], spec);
    let message = "YAML_FILE_ERROR: Unknown runtime version named '7' of nodejs. This build image has the following versions: 8, 9, 10, ";
    let (fault, log) = fails(world, &order, &["DOWNLOAD_SOURCE failed", message]).await;
    assert_eq!(
        names(&fault.phases)[2..],
        ["PROVISIONING", "DOWNLOAD_SOURCE", "FINALIZING", "COMPLETED"]
    );
    assert!(!log.contains("Entering phase INSTALL"));
    // Of an image of the customer's own it is known when it runs.
    let mut own = order.clone();
    own.image = Some("debian-12".to_owned());
    let expected = [
        "DOWNLOAD_SOURCE failed",
        "Unknown runtime version named '7' of nodejs",
    ];
    let (fault, log) = fails(world, &own, &expected).await;
    assert_eq!(
        names(&fault.phases)[2..],
        ["PROVISIONING", "DOWNLOAD_SOURCE", "FINALIZING", "COMPLETED"]
    );
    assert_eq!(broken(&fault), [("DOWNLOAD_SOURCE", PhaseStatus::Failed)]);
    assert_eq!(log.matches("Entering phase DOWNLOAD_SOURCE").count(), 1, "{log}");
}

pub async fn limits_stop_a_build(world: &World) {
    let order = |commands: &[&str]| {
        let mut order = world.build_order(&[("a", "")], buildspec(vec![phase(Build, commands, &[])]));
        order.limits.memory_mib = 256;
        order.limits.disk_mib = 200;
        order.limits.pids = 64;
        order.limits.timeout = SignedDuration::from_secs(20);
        order
    };
    fails(
        world,
        &order(&["head -c 500M /dev/zero > big"]),
        &["No space left on device", "200 MiB"],
    )
    .await;
    let hungry = "python3 -c 'x = bytearray(900 * 1024 * 1024)'";
    fails(world, &order(&[hungry]), &["more than the 256 MiB of memory"]).await;
    let many = "for i in $(seq 200); do sleep 30 & done; echo started";
    fails(world, &order(&[many]), &["64 processes at a time"]).await;
    let mut endless = order(&["echo begun; sleep 1000"]);
    endless.limits.timeout = SignedDuration::from_secs(4);
    let (fault, log) = fails(
        world,
        &endless,
        &["stopped after 4 seconds, in phase BUILD", "sleep 1000", "begun"],
    )
    .await;
    assert_eq!(fault.blame, Blame::Customer);
    has(&log, &["Phase complete: BUILD State: TIMED_OUT"]);
    assert_eq!(broken(&fault), [("BUILD", PhaseStatus::TimedOut)]);
    assert_eq!(fault.phases.last().unwrap().name, "COMPLETED");
    let mut bomb = order(&["bomb() { bomb | bomb & }; bomb; sleep 1000"]);
    bomb.limits.timeout = SignedDuration::from_secs(5);
    // Whether the shell around the bomb still gets to its own next command is a matter of luck.
    let (fault, _) = fails(world, &bomb, &["64 processes at a time"]).await;
    assert_eq!(fault.blame, Blame::Customer);
    let (_, log) = succeeds(
        world,
        &order(&["yes | head -c 5000000 | tail -c 1; sleep 100 & echo left behind"]),
    )
    .await;
    has(&log, &["left behind"]);
    assert!(world.containers.list().is_empty());
}

pub async fn caches_are_kept(world: &World) {
    let command =
        "mkdir -p deps; ls deps; ls deps | wc -l > count; rm -f deps/old; touch deps/old deps/$RANDOM_NAME";
    let mut spec = buildspec(vec![phase(Build, &[command], &[])]);
    spec.cache = cache(&["deps/**/*", "/", "../x"]);
    spec.artifacts = Some(artifacts(&["count"]));
    let branch = format!("cache-{}", world.salt);
    let mut counts = Vec::new();
    for (number, branch) in [branch.as_str(), branch.as_str(), "other"]
        .into_iter()
        .enumerate()
    {
        let mut order = world.build_order(&[("a", "")], spec.clone());
        order.commit.branch = format!("{branch}-{}", world.salt);
        order
            .variables
            .insert("RANDOM_NAME".to_owned(), format!("file-{number}"));
        let (built, _) = succeeds(world, &order).await;
        counts.push(String::from_utf8(unpack(world, &built.artifact)["count"].clone()).unwrap());
    }
    assert_eq!(counts, ["0\n", "2\n", "0\n"]);
}

pub async fn builds_wait_their_turn_and_repeat(world: &World) {
    let order = world.build_order(&[("a", "")], buildspec(vec![phase(Build, &["sleep 1"], &[])]));
    let ticket = world.ticket();
    let again = world.yard.build(&ticket, &order);
    let (one, two, three) = tokio::join!(build(world, &order), build(world, &order), again);
    for built in [one.0, two.0, three] {
        built.unwrap();
    }
    let log = world.log(&format!("build/{ticket}").parse().unwrap());
    has(&log, &["Waiting: 2 builds run, 0 wait before this one"]);
    // As after a crash of the node: the ticket is built again.
    assert!(world.yard.build(&ticket, &order).await.is_ok());
}

pub async fn sweeping_keeps_what_is_needed(world: &World) {
    world.oven.standard().await.unwrap();
    let script = format!("# {}\ntouch /swept\n", world.salt);
    let order = world.bake_order(&[("infra/a.sh", &script)], &["infra/a.sh"]);
    let baked = world.oven.bake(&world.ticket(), &order).await.unwrap();
    // Later than any use.
    let ever = "2200-01-01T00:00:00Z".parse().unwrap();
    let sweep = async |keep: &BTreeSet<Digest>, unused_since| {
        let swept = world.oven.sweep(keep, unused_since).await.unwrap();
        swept.expect("nothing is baked meanwhile").images
    };
    let kept = sweep(&[baked.image].into(), ever).await;
    assert!(!kept.contains(&baked.image));
    let lately = sweep(&BTreeSet::new(), jiff::Timestamp::UNIX_EPOCH).await;
    assert!(lately.is_empty(), "what was used lately stays");
    assert!(world.oven.find(&order).await.unwrap().is_some());
    assert!(sweep(&BTreeSet::new(), ever).await.contains(&baked.image));
    assert!(world.oven.find(&order).await.unwrap().is_none());
    assert!(
        world.oven.find_standard().unwrap().is_some(),
        "the platform's own images stay"
    );
    world
        .oven
        .forget(&order.place.tenant, Some(&order.place.app))
        .unwrap();
}
