//! Buildspecs as people write them, in containers.

use std::collections::BTreeMap;

use model::{
    Digest, Secret,
    port::{BuildOrder, GIT_CREDENTIALS, PhaseReport, PhaseStatus},
    spec::Buildspec,
};

use crate::{
    world::World,
    yard::{broken, fails, has, names, succeeds, unpack},
};

fn spec(text: &str) -> Buildspec {
    Buildspec::parse(text, "buildspec.yml")
        .unwrap_or_else(|problems| panic!("{problems:?}"))
        .0
}

fn order(world: &World, text: &str) -> BuildOrder {
    world.build_order(&[("a", "")], spec(text))
}

#[track_caller]
fn has_not(log: &str, fragments: &[&str]) {
    for fragment in fragments {
        assert!(!log.contains(fragment), "`{fragment}` in:\n{log}");
    }
}

pub async fn failures_are_followed_by_what_the_file_says(world: &World) {
    let text = "version: 0.2\nphases:\n  build:\n    on-failure: ABORT\n    commands: ['false']\n    finally: [echo tidied]\n  post_build:\n    commands: [echo after]\n";
    let (_, log) = fails(world, &order(world, text), &["BUILD failed"]).await;
    has(&log, &["\ntidied\n"]);
    has_not(&log, &["POST_BUILD", "UPLOAD_ARTIFACTS"]);
    let text = "version: 0.2\nrun-as: nobody-of-that-name\nphases: { build: { commands: [echo never] } }\n";
    let says = [
        "BUILD failed",
        "CLIENT_ERROR: run-as: this build image has no user nobody-of-that-name",
    ];
    let (_, log) = fails(world, &order(world, text), &says).await;
    has_not(&log, &["Running command"]);
}

/// A build that fails until it was made twice before, which it knows from its cache: nothing else outlives a container.
fn flaky(world: &World, on_failure: &str) -> BuildOrder {
    let text = format!(
        "version: 0.2\nphases:\n  install:\n    commands:\n      - '[ ! -e /tmp/mark ] && touch /tmp/mark && echo \"new container <$LEFT>\"'\n      - export LEFT=over\n  build:\n    on-failure: '{on_failure}'\n    commands:\n      - mkdir -p tries; n=$(ls tries | wc -l); touch tries/$n; echo \"try $n says timed out\"; [ $n -ge 2 ]\n    finally: [echo \"finally $CODEBUILD_BUILD_SUCCEEDING\"]\n  post_build:\n    commands: [echo \"after $CODEBUILD_BUILD_SUCCEEDING\"]\ncache: {{ paths: ['tries/**/*'] }}\n"
    );
    let mut order = order(world, &text);
    order.commit.branch = format!("flaky-{on_failure}-{}", world.salt);
    order
}

pub async fn a_build_that_is_to_be_retried_begins_anew(world: &World) {
    let check = |log: &str, tries: usize, end: &str| {
        for (text, times) in [
            ("Entering phase QUEUED", tries),
            ("\nnew container <>\n", tries),
            ("Running command mkdir -p tries", tries),
            (
                "on-failure of BUILD: the build is made again in a new container",
                tries - 1,
            ),
            ("Entering phase POST_BUILD", 1),
            (end, 1),
        ] {
            assert_eq!(log.matches(text).count(), times, "`{text}` in:\n{log}");
        }
    };
    for enough in ["RETRY", "Retry-5-.*timed out.*"] {
        let (built, log) = succeeds(world, &flaky(world, enough)).await;
        check(&log, 3, "\nafter 1\n");
        assert!(!built.phases.iter().any(PhaseReport::broke));
        let begun = names(&built.phases);
        assert_eq!((begun[0], *begun.last().unwrap()), ("SUBMITTED", "COMPLETED"));
        assert_eq!(
            begun.iter().filter(|name| **name == "BUILD").count(),
            1,
            "{begun:?}"
        );
    }
    for (little, tries) in [("RETRY-1", 2), ("RETRY-.*refused.*", 1)] {
        let last = format!("try {} says timed out", tries - 1);
        let (_, log) = fails(world, &flaky(world, little), &["BUILD failed", &last]).await;
        check(&log, tries, "\nafter 0\n");
    }
    let endless =
        "version: 0.2\nphases: { build: { on-failure: RETRY-100, commands: ['sleep 1; false'] } }\n";
    let mut endless = order(world, endless);
    endless.limits.timeout = jiff::SignedDuration::from_secs(20);
    let says = [
        "stopped after 20 seconds",
        "all tries share the time; the one before failed: BUILD failed",
        "sleep 1; false",
    ];
    let (fault, _) = fails(world, &endless, &says).await;
    assert_eq!(fault.blame, model::port::Blame::Customer);
}

pub async fn the_commands_of_codebuild_are_there(world: &World) {
    let text = "version: 0.2\nphases:\n  build:\n    commands:\n      - codebuild-breakpoint\n      - codebuild-hash-files '*.lock'\n      - codebuild-tests-run --test-command 'echo runs' --files-search \"codebuild-glob-search 'tests/*.py'\"\n      - echo \"batch $CODEBUILD_BATCH_BUILD_IDENTIFIER\"\nbatch:\n  build-fanout: { parallelism: 2 }\n";
    let files = [
        ("x.lock", "1"),
        ("tests/a.py", ""),
        ("tests/b.py", ""),
        ("tests/c.py", ""),
    ];
    let spec = spec(text);
    for (task, runs) in spec
        .batch
        .clone()
        .unwrap()
        .tasks
        .into_iter()
        .zip(["runs tests/a.py tests/b.py", "runs tests/c.py"])
    {
        let name = task.identifier.clone();
        let mut order = world.build_order(&files, spec.clone());
        order.task = Some(task);
        let (_, log) = succeeds(world, &order).await;
        has(
            &log,
            &["codebuild-breakpoint is ignored", runs, &format!("batch {name}")],
        );
    }
}

pub async fn artifacts_have_names_and_others_beside_them(world: &World) {
    let text = "version: 0.2\nphases:\n  build:\n    commands: [mkdir -p out/deep, echo 1 > out/app, echo 2 > out/deep/doc, 'V=7']\nartifacts:\n  name: 'app-$V-$(echo \"x  y\" | tr -s \" \" _)'\n  s3-prefix: nightly\n  files: [app]\n  base-directory: out\n  secondary-artifacts:\n    docs: { files: ['**/doc'], discard-paths: yes, name: docs }\n    all: { files: ['**/*'], base-directory: 'o*', exclude-paths: app }\n";
    let (built, log) = succeeds(world, &order(world, text)).await;
    let name = built.name.unwrap();
    assert!(
        name.starts_with("nightly/t-") && name.ends_with("/app-7-x_y"),
        "{name}"
    );
    assert_eq!(
        unpack(world, &built.artifact).into_keys().collect::<Vec<_>>(),
        ["app"]
    );
    let secondary: BTreeMap<String, Vec<String>> = built
        .secondary
        .iter()
        .map(|(name, digest)| (name.clone(), unpack(world, digest).into_keys().collect()))
        .collect();
    assert_eq!(
        (secondary["docs"].as_slice(), secondary["all"].as_slice()),
        (&["doc".to_owned()][..], &["deep/doc".to_owned()][..])
    );
    has(&log, &["Found 1 file(s) for docs"]);
    let missing = "version: 0.2\nphases: { build: { commands: ['true'] } }\nartifacts: { files: a, secondary-artifacts: { b: { files: nothing } } }\n";
    fails(
        world,
        &order(world, missing),
        &["UPLOAD_ARTIFACTS failed", "no matching artifact paths found"],
    )
    .await;
}

pub async fn reports_of_every_kind_are_compared_and_gate(world: &World) {
    let text = "version: 0.2\nphases: { build: { commands: ['true'] } }\nreports:\n  unit: { files: [unit.xml] }\n  arn:aws:codebuild:x:1:report-group/nunit: { files: [nunit.xml], file-format: Nunit3Xml }\n  cover: { files: [clover.xml], file-format: CLOVERXML }\n";
    let nunit = "<test-run><test-case fullname='N.a' result='Passed' duration='0.1'/></test-run>";
    let source = |outcome: &str, covered: u32| {
        let unit = format!(
            "<testsuite><testcase name='a' time='0.01'>{outcome}</testcase><testcase name='b'/></testsuite>"
        );
        let clover = format!(
            "<coverage><project><metrics statements='10' coveredstatements='{covered}'/></project></coverage>"
        );
        let mut order = world.build_order(
            &[("unit.xml", &unit), ("nunit.xml", nunit), ("clover.xml", &clover)],
            spec(text),
        );
        order.commit.branch = format!("reports-{}", world.salt);
        order.limits.pass_rate_percent = 60.0;
        order
    };
    let (first, _) = succeeds(world, &source("", 9)).await;
    let groups: Vec<&str> = first.reports.iter().map(|report| report.group.as_str()).collect();
    assert_eq!(groups, ["shop-unit", "nunit", "shop-cover"]);
    assert!(first.reports.iter().all(|report| report.changes.is_none()));
    assert_eq!(first.reports[2].coverage.unwrap().lines_percent(), Some(90.0));

    let (second, log) = succeeds(world, &source("<failure message='broke'/>", 8)).await;
    let changes = second.reports[0].changes.as_ref().unwrap();
    assert_eq!(changes.new_failures, ["a"]);
    assert_eq!(
        second.reports[2]
            .changes
            .as_ref()
            .unwrap()
            .coverage_before_percent,
        Some(90.0)
    );
    has(
        &log,
        &[
            "Report shop-unit: 1 new failure",
            "Report nunit: as the run before",
            "Report shop-cover: 80.0 % of lines reached",
        ],
    );
    let mut strict = source("<failure message='broke'/>", 8);
    strict.limits.pass_rate_percent = 100.0;
    fails(world, &strict, &["2 of 3 tests passed", "a: broke"]).await;
    let (fourth, _) = succeeds(world, &source("", 8)).await;
    let changes = fourth.reports[0].changes.as_ref().unwrap();
    assert_eq!(
        (changes.fixed.as_slice(), changes.flaky.as_slice()),
        (&["a".to_owned()][..], &["a".to_owned()][..])
    );

    let mut covered = source("", 8);
    covered.limits.coverage_percent = Some(80.5);
    fails(
        world,
        &covered,
        &["tests reach 80.0 % of lines, and this environment asks for 80.5 %"],
    )
    .await;
    let mut none = order(world, "version: 0.2\nphases: { build: { commands: ['true'] } }\n");
    none.limits.coverage_percent = Some(1.0);
    fails(world, &none, &["no report tells which lines tests reach"]).await;
}

/// A build that tells what it found in its cache, and leaves a file there.
pub fn cached(world: &World, branch: &str, lock: &str, cache: &str, leave: &str) -> BuildOrder {
    let text = format!(
        "version: 0.2\nphases: {{ build: {{ commands: ['mkdir -p deps; ls deps > found; touch deps/{leave}'] }} }}\nartifacts: {{ files: found }}\ncache: {{ paths: ['deps/**/*'], {cache} }}\n"
    );
    let mut order = world.build_order(&[("x.lock", lock)], spec(&text));
    order.place = format!(
        "acme/app{}/dev",
        world.salt.trim_start_matches('.').to_lowercase()
    )
    .parse()
    .unwrap();
    order.commit.branch = branch.to_owned();
    order
}

async fn found(world: &World, order: &BuildOrder) -> String {
    let (built, _) = succeeds(world, order).await;
    let found = String::from_utf8(unpack(world, &built.artifact)["found"].clone()).unwrap();
    found.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub async fn caches_have_keys_and_branches(world: &World) {
    let check = async |branch: &str, lock: &str, cache: &str, leave: &str, expected: &str| {
        let found = found(world, &cached(world, branch, lock, cache, leave)).await;
        assert_eq!(found, expected, "{branch} {lock} {cache} {leave}");
    };
    check("main", "1", "", "of-main", "").await;
    check("feature", "1", "", "of-feature", "of-main").await;
    check("feature", "1", "action: restore", "lost", "of-feature of-main").await;
    check("feature", "1", "action: save", "other", "").await;
    check("main", "1", "", "more", "of-main").await;
    // Production's branch is where others come from, whatever it is called.
    let trunk = async |branch: &str, leave: &str| {
        let mut order = cached(world, branch, "1", "key: of-trunk", leave);
        order.trunk = Some("trunk".to_owned());
        found(world, &order).await
    };
    assert_eq!(trunk("trunk", "of-trunk").await, "");
    assert_eq!(trunk("from-trunk", "x").await, "of-trunk");
    check("other", "1", "", "x", "more of-main").await;
    let keyed = "key: 'npm-$(codebuild-hash-files x.lock)', fallback-keys: [npm-]";
    check("main", "1", keyed, "one", "").await;
    check("main", "1", keyed, "again", "one").await;
    check("main", "1", keyed, "", "one").await;
    check("main", "2", keyed, "two", "one").await;
    check("main", "2", keyed, "", "one two").await;
    check("side", "2", keyed, "side", "one two").await;
    check("main", "2", keyed, "", "one two").await;
    check("main", "3", "key: 'npm-$(codebuild-hash-files x.lock)'", "", "").await;
    // The log names each.
    let fresh = "key: 'yarn-$(codebuild-hash-files x.lock)', fallback-keys: [yarn-, y]";
    for (branch, lock, restored, saved) in [
        (
            "main",
            "1",
            "There is no cache to restore for the key `yarn-LOCK`, nor one that begins with `yarn-` or `y`",
            "The cache `yarn-LOCK` of the branch main is saved",
        ),
        (
            "main",
            "1",
            "The cache `yarn-LOCK` of the branch main is restored",
            "The cache `yarn-LOCK` of the branch main is there already and stays as it is",
        ),
        (
            "side",
            "2",
            "The cache `yarn-",
            "The cache `yarn-LOCK` of the branch side is saved",
        ),
    ] {
        let (_, log) = succeeds(world, &cached(world, branch, lock, fresh, "x")).await;
        let hash = log
            .split("`yarn-")
            .filter_map(|rest| Some(rest.split_once('`')?.0))
            .filter(|hash| hash.len() == 64)
            .last();
        let hash = hash.unwrap();
        has(
            &log,
            &[&restored.replace("LOCK", hash), &saved.replace("LOCK", hash)],
        );
    }
    let (_, log) = succeeds(world, &cached(world, "side", "1", "", "x")).await;
    has(
        &log,
        &[
            "The cache of the branch main is restored",
            "The cache of the branch side is saved",
        ],
    );
    let (_, log) = succeeds(world, &cached(world, "side", "1", "action: restore", "x")).await;
    has(
        &log,
        &["The cache of the branch side is restored", "No cache is saved"],
    );
}

pub async fn a_variable_that_is_too_long_to_be_exported_is_named(world: &World) {
    let text = "version: 0.2\nenv: { exported-variables: [BIG] }\nphases: { build: { commands: [\"BIG=$(head -c 1200000 /dev/zero | tr '\\\\0' x)\"] } }\n";
    let says = [
        "UPLOAD_ARTIFACTS failed",
        "the variable BIG cannot be exported: the shell's answer is too long",
    ];
    fails(world, &order(world, text), &says).await;
}

pub async fn lines_have_the_times_when_they_came(world: &World) {
    let text = "version: 0.2\nphases: { build: { commands: ['echo the first; sleep 2; echo the last'] } }\n";
    let (built, _) = succeeds(world, &order(world, text)).await;
    let chunk = world.logs.chunk(&built.log, 0).unwrap();
    let at = |line: &str| {
        // Of the line itself, not of the end of the one before.
        let offset = (chunk.text.find(&format!("\n{line}")).unwrap() + 1) as u64;
        let next = chunk.times.partition_point(|time| time.from <= offset);
        chunk.times[next.checked_sub(1).expect("every line has one")].at
    };
    let (began, first) = (at("[Container]"), at("the first\n"));
    let (last, ended) = (at("the last\n"), chunk.times.last().unwrap().at);
    assert!(
        began <= first && first < last && last <= ended,
        "{:?}",
        chunk.times
    );
    // Read from the middle, it is the same.
    let middle = (chunk.text.find("\nthe last\n").unwrap() + 1) as u64;
    let rest = world.logs.chunk(&built.log, middle).unwrap();
    assert_eq!(rest.times[0].at, at("the last\n"));
}

pub async fn a_build_that_failed_fixes_no_cache(world: &World) {
    let keyed = "key: 'npm-$(codebuild-hash-files x.lock)'";
    let mut half = cached(world, "main", "1", keyed, "half");
    half.buildspec.phases[0].commands.push("exit 3".to_owned());
    let (_, log) = fails(world, &half, &["exit status 3"]).await;
    has(&log, &["of the branch main is not saved: the build failed"]);
    assert_eq!(
        found(world, &cached(world, "main", "1", keyed, "whole")).await,
        ""
    );
    assert_eq!(
        found(world, &cached(world, "main", "1", keyed, "more")).await,
        "whole"
    );
    // What has no key is only a help, and no promise: it is kept, as before.
    let mut flaky = cached(world, "flaky", "1", "", "first");
    flaky.buildspec.phases[0].commands.push("exit 3".to_owned());
    let (_, log) = fails(world, &flaky, &["exit status 3"]).await;
    has(&log, &["The cache of the branch flaky is saved"]);
    assert_eq!(found(world, &cached(world, "flaky", "1", "", "x")).await, "first");
}

pub async fn downloads_of_branches_do_not_meet(world: &World) {
    let check = async |branch: &str, expected: &str| {
        let text = "version: 0.2\nphases: { build: { commands: ['mkdir -p /root/.npm; ls /root/.npm > found; touch \
                    /root/.npm/of-$BRANCH'] } }\nartifacts: { files: found }\n";
        let mut order = world.build_order(&[("a", "")], spec(text));
        order.place = cached(world, "", "", "", "").place;
        order.commit.branch = branch.to_owned();
        order.variables.insert("BRANCH".to_owned(), branch.to_owned());
        assert_eq!(found(world, &order).await, expected, "{branch}");
    };
    check("main", "").await;
    check("side", "of-main").await;
    check("side", "of-main of-side").await;
    // Whatever a branch puts there, main does not find it, and neither does another.
    check("main", "of-main").await;
    check("other", "of-main").await;
}

pub async fn caches_of_tenants_do_not_meet(world: &World) {
    for keyed in ["key: same", ""] {
        let own = |leave: &str| {
            let mut order = cached(world, "main", "1", keyed, leave);
            order.place = format!("acme/{}t/dev", order.place.app).parse().unwrap();
            order
        };
        let mine = own("mine");
        found(world, &mine).await;
        for (tenant, app) in [
            ("beta", mine.place.app.to_string()),
            ("acme", format!("{}x", mine.place.app)),
        ] {
            let mut theirs = own("theirs");
            theirs.place = format!("{tenant}/{app}/dev").parse().unwrap();
            assert_eq!(found(world, &theirs).await, "", "{tenant}/{app} {keyed}");
        }
        assert_eq!(found(world, &mine).await, "mine", "{keyed}");
    }
    // Nor what tools keep of what they fetched, whoever else has it.
    let commands = |command: &str| {
        let text = format!("version: 0.2\nphases: {{ build: {{ commands: ['{command}'] }} }}\n");
        order(world, &text)
    };
    let all = ["/root/.cache/pip", "/root/.npm", "/var/cache/apt/archives"];
    let each = |work: &dyn Fn(&str) -> String| all.map(work).join(" && ");
    let file = format!("of{}", world.salt);
    let mine = commands(&each(&|at| format!("mkdir -p {at} && echo mine > {at}/{file}")));
    succeeds(world, &mine).await;
    let mut theirs = commands(&each(&|at| format!("[ ! -e {at}/{file} ]")));
    theirs.place = format!("beta/{}/dev", mine.place.app).parse().unwrap();
    succeeds(world, &theirs).await;
}

pub async fn builders_must_be_what_a_build_asks_for(world: &World) {
    let build = "version: 0.2\nphases: { build: { commands: ['true'] } }\n";
    let mut arm = order(
        world,
        &format!(
            "{build}batch: {{ build-list: [{{ identifier: a, env: {{ type: ARM_CONTAINER }} }}, {{ identifier: b, env: {{ fleet: big }} }}] }}\n"
        ),
    );
    let tasks = arm.buildspec.batch.clone().unwrap().tasks;
    let here = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        other => other,
    };
    arm.task = Some(tasks[0].clone());
    if here == "amd64" {
        let (fault, _) = fails(
            world,
            &arm,
            &[
                "no builder has the label `arch: arm64`",
                "arch: amd64, fleet: big, os: linux",
            ],
        )
        .await;
        assert_eq!(names(&fault.phases), ["SUBMITTED", "COMPLETED"], "it never waits");
        assert_eq!(broken(&fault), [("SUBMITTED", PhaseStatus::Failed)]);
    }
    arm.task = Some(tasks[1].clone());
    succeeds(world, &arm).await;
    let windows = order(
        world,
        "version: 0.2\nenv: { shell: powershell.exe }\nphases: { build: { commands: [dir] } }\n",
    );
    fails(world, &windows, &["no builder has the label `os: windows`"]).await;
    let mut bare = order(
        world,
        "version: 0.2\nphases: { build: { commands: ['! command -v gcc', 'head -1 /etc/os-release'] } }\n",
    );
    bare.image = Some("debian-12".to_owned());
    let (_, log) = succeeds(world, &bare).await;
    has(&log, &["The build runs in debian-12", "Debian GNU/Linux 12"]);
    bare.image = Some("no-such-base".to_owned());
    fails(world, &bare, &["no-such-base"]).await;
}

/// A repository on this port of the build's own, for who has a password of which it knows the digest.
const SERVER: &str = r#"
import hashlib, http.server
class Own(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        said = self.headers.get('Authorization', '')
        if hashlib.sha256(said.encode()).hexdigest() != 'DIGEST':
            self.send_response(401)
            self.send_header('WWW-Authenticate', 'Basic realm="own"')
            self.end_headers()
            return
        super().do_GET()
http.server.ThreadingHTTPServer(('127.0.0.1', 8099), Own).serve_forever()
"#;

pub async fn git_is_given_credentials_for_one_host(world: &World) {
    // "ada:tigers-in-the-night" in base64, as git sends it.
    let digest = Digest::of("Basic YWRhOnRpZ2Vycy1pbi10aGUtbmlnaHQ=");
    let server = SERVER.replace("DIGEST", &digest.hex());
    let text = r#"version: 0.2
env: { git-credential-helper: yes }
phases:
  pre_build:
    commands:
      - git init -q made; echo "what is private" > made/file; git -C made add file
      - git -C made -c user.name=a -c user.email=a@b commit -qm one
      - git clone -q --bare made served/own.git; git -C served/own.git update-server-info
      - (cd served; python3 ../server.py 2>/dev/null >/dev/null & echo)
      - for try in $(seq 50); do curl -so /dev/null http://127.0.0.1:8099/ && break; sleep 0.1; done
  build:
    commands:
      - git clone -q http://127.0.0.1:8099/own.git got; cat got/file
      - "! git clone -q http://localhost:8099/own.git other; ls other 2>/dev/null | wc -l"
"#;
    let source = world.source(&[("server.py", &server)]);
    let mut order = order(world, text);
    order.source = source;
    order.commit.repository = "http://127.0.0.1:8099/acme/shop".to_owned();
    order.secrets.insert(
        GIT_CREDENTIALS.to_owned(),
        Secret::new("ada:tigers-in-the-night".to_owned()),
    );
    let (_, log) = succeeds(world, &order).await;
    has(&log, &["\nwhat is private\n", "could not read Username", "\n0\n"]);
    has_not(&log, &["tigers"]);
    // Without it the same clone is refused: who asks for the helper is told why.
    order.secrets.clear();
    let (_, log) = fails(world, &order, &["git clone -q http://127.0.0.1:8099/own.git got"]).await;
    has(
        &log,
        &["git has no credentials: set the secret `git-credentials`"],
    );
}

pub async fn runtimes_are_added_when_they_are_asked_for(world: &World) {
    let text = "version: 0.2\nphases:\n  install: { runtime-versions: { golang: latest, python: 3.x } }\n  build: { commands: [go version, python3 --version] }\n";
    let (_, log) = succeeds(world, &order(world, text)).await;
    has(&log, &["go version go1.", "Python 3."]);
    let text = "version: 0.2\nphases:\n  install: { runtime-versions: { golang: 1.3 } }\n";
    let message =
        "Unknown runtime version named '1.3' of golang. This build image has the following versions: 1.";
    fails(world, &order(world, text), &[message]).await;
    let text = "version: 0.2\nenv: { variables: { N: 20.x } }\nphases:\n  install: { runtime-versions: { nodejs: $N } }\n  build: { commands: [node --version, npm --version] }\n";
    let (_, log) = succeeds(world, &order(world, text)).await;
    has(&log, &["\nv20."]);
    // Nobody asks, and everybody knows the command.
    let (_, log) = succeeds(
        world,
        &order(
            world,
            "version: 0.2\nphases: { build: { commands: [ruby --version] } }\n",
        ),
    )
    .await;
    has(&log, &["ruby 3."]);
}

pub async fn what_a_build_leaves_holds_no_secret(world: &World) {
    let text = r#"version: 0.2
env: { secrets-manager: { KEY: api-key }, exported-variables: [ENCODED, PLAIN] }
phases:
  build:
    commands:
      - for before in "" x xy; do printf "$before$KEY" | base64; printf "$before$KEY" | base64 | tr +/ -_; done
      - set -f; for part in $(printf %s "$KEY" | sed 's/./& /g'); do printf %s "$part"; sleep 0.02; done; echo
      - ENCODED=$(printf "x$KEY" | base64); PLAIN=plain
      - printf "<testsuite><testcase name='of %s'><failure message='expected %s'/></testcase></testsuite>" "$KEY" "$KEY" > t.xml
      - echo "$KEY" > file
artifacts: { files: file, name: app-$KEY }
reports: { unit: { files: t.xml } }
"#;
    let key = "tigers+in/the?night";
    let mut order = order(world, text);
    order
        .secrets
        .insert("KEY".to_owned(), Secret::new(key.to_owned()));
    order.limits.pass_rate_percent = 0.0;
    let (built, log) = succeeds(world, &order).await;
    let mut again = order.clone();
    again.limits.pass_rate_percent = 100.0;
    let (fault, other) = fails(world, &again, &["0 of 1 tests passed", "expected ***"]).await;
    assert_eq!(built.name.as_deref(), Some("app-***"));
    assert_eq!(
        built.exported,
        BTreeMap::from([("PLAIN".to_owned(), "plain".to_owned())])
    );
    let shown = format!("{built:?}{log}{fault:?}{other}");
    // The same at each place that base64 can have it, without the digits that its neighbours share.
    for leak in [
        "tigers",
        "night",
        "ZXJzK2lu",
        "2Vycytpbi90",
        "bmlnaHQ",
        "dlcnMraW4v",
    ] {
        assert!(!shown.contains(leak), "{leak}: {shown}");
    }
    has(
        &log,
        &["ENCODED is not exported", "Running command echo \"$KEY\" > file"],
    );
}
