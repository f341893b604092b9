use super::*;

#[test]
fn coverage_is_asked_of_a_batch_and_not_of_each_of_its_builds() {
    let report = |group: &str, passed, failed, reached: &[bool]| {
        let mut report = report::empty(group);
        (report.total, report.passed, report.failed) = (passed + failed, passed, failed);
        let mut coverage = model::port::Coverage::default();
        reached.iter().for_each(|reached| coverage.lines.count(*reached));
        report.coverage = (!reached.is_empty()).then_some(coverage);
        report
    };
    let (app, _) = spec::App::parse("app: shop\n", "vend.yaml", &|path| path == "Procfile").unwrap();
    let build = &app.environments[0].build;
    let limits = |coverage_percent| BuildLimits {
        coverage_percent,
        ..crate::config::Platform::default().build_limits(build)
    };
    let task = |shard| Task {
        shard,
        ..Task::default()
    };
    for (task, coverage, pass_rate) in [
        (None, Some(80.0), 100.0),
        (Some(task(None)), None, 100.0),
        (Some(task(Some((1, 2)))), None, 0.0),
    ] {
        let own = own_limits(limits(Some(80.0)), task.as_ref());
        assert_eq!(
            (own.coverage_percent, own.pass_rate_percent),
            (coverage, pass_rate),
            "{task:?}"
        );
    }
    let lint = || report("lint", 3, 0, &[]);
    let unit = || report("unit", 5, 0, &[true, true, true, false]);
    let ui = || report("ui", 0, 0, &[true, false, false, false]);
    for (asked, is_fan_out, reports, refused) in [
        (Some(75.0), false, vec![lint(), unit()], None),
        (Some(76.0), false, vec![lint(), unit()], Some("75.0 % of lines")),
        // All of them together, as of one build with several reports.
        (Some(50.0), false, vec![unit(), ui()], None),
        (Some(51.0), false, vec![unit(), ui()], Some("50.0 % of lines")),
        (
            Some(10.0),
            false,
            vec![lint()],
            Some("no report tells which lines"),
        ),
        (None, false, vec![lint()], None),
        // Of a fan-out what its parts reach and miss, added up, as CodeBuild merges them.
        (Some(50.0), true, vec![unit(), ui()], None),
        (Some(51.0), true, vec![unit(), ui()], Some("50.0 % of lines")),
        (Some(99.0), true, vec![unit(), unit()], Some("75.0 % of lines")),
        (
            Some(10.0),
            true,
            vec![lint()],
            Some("no report tells which lines"),
        ),
        // How many pass is asked of the parts together, and of other builds of each.
        (
            None,
            true,
            vec![report("unit", 1, 1, &[])],
            Some("1 of 2 tests passed"),
        ),
        (None, false, vec![report("unit", 1, 1, &[])], None),
    ] {
        let said = whole_reports(limits(asked), is_fan_out, reports.clone());
        match refused {
            None => assert!(said.is_ok(), "{asked:?} {reports:?}: {said:?}"),
            Some(why) => assert!(said.unwrap_err().message.contains(why), "{asked:?} {reports:?}"),
        }
    }
}

#[tokio::test]
async fn a_buildspec_that_is_not_valid_or_not_there_is_codebuild_s_yaml_file_error() {
    for bytes in [&b"version: 0.2\n- a\n"[..], b"version: 0.2\n", b"\xff"] {
        let fault = parsed("ci/b.yml", bytes).unwrap_err();
        assert!(fault.message.starts_with("YAML_FILE_ERROR: ci/b.yml"), "{fault}");
    }
    // In git's own words.
    let directory = tempfile::tempdir().unwrap();
    let path = camino::Utf8Path::from_path(directory.path())
        .unwrap()
        .join("shop.git");
    let repository = crate::git::Repository::at(path.clone());
    repository.create().await.unwrap();
    let git = |arguments: &[&str]| {
        let mut git = std::process::Command::new("git");
        git.args(["-C", path.as_str(), "-c", "user.name=a", "-c", "user.email=a@b"]);
        let output = git
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let tree = git(&["mktree"]);
    let commit = git(&["commit-tree", &tree, "-m", "a"]);
    let missing = repository.read(&commit, "ci/b.yml").await.unwrap_err();
    let fault = unread("ci/b.yml", &missing);
    let start = "YAML_FILE_ERROR: YAML file does not exist: cannot read ci/b.yml: ";
    assert!(fault.message.starts_with(start), "{fault}");
    let other = crate::git::Error::NotACommit("x".to_owned());
    assert!(unread("b.yml", &other).message.starts_with("cannot read b.yml: "));
}

#[test]
fn what_a_batch_has_begun_is_asked_no_more_where_it_could_run() {
    let task = |name: &str| Task {
        identifier: name.to_owned(),
        labels: BTreeMap::from([("fleet".to_owned(), "big".to_owned())]),
        ..Task::default()
    };
    let batch = Batch {
        fast_fail: true,
        tasks: ["a", "b"].map(task).to_vec(),
    };
    let own = [host::build::Offer::here(BTreeMap::new())];
    for (builds, refused) in [(&[][..], Some("a, b")), (&["a"], Some("b ")), (&["a", "b"], None)] {
        let before = Before {
            since: None,
            builds: builds.iter().map(|name| (*name).to_owned()).collect(),
        };
        let said = fits(&before.rest(&batch), &own, |_| None).err();
        let said = said.map(|fault| fault.message);
        assert_eq!(said.is_some(), refused.is_some(), "{said:?}");
        assert!(
            said.is_none_or(|said| said.contains(refused.unwrap())),
            "{builds:?}"
        );
    }
}

#[test]
fn each_identifier_has_a_ticket_of_its_own() {
    let whole: Ticket = "t-0123456789abc-build".parse().unwrap();
    let long = "a".repeat(128);
    let names = ["unit", "Unit", "linux_small", "linux-small", &long, "a"];
    let tickets = names.map(|name| {
        let identifier = name.to_owned();
        let task = Task {
            identifier,
            ..Task::default()
        };
        whole.part(&task.slug()).to_string()
    });
    for (name, ticket) in names.iter().zip(&tickets) {
        assert_eq!(
            ticket.parse::<Ticket>().map(|read| read.to_string()).as_ref(),
            Ok(ticket),
            "{name}"
        );
    }
    let apart: BTreeSet<_> = tickets.iter().collect();
    assert_eq!(apart.len(), names.len(), "{tickets:?}");
}

#[tokio::test]
async fn a_batch_ends_with_its_time() {
    let most = SignedDuration::from_millis(10);
    assert_eq!(within(most, None, async { Ok(1) }).await, Ok(1));
    let late = within::<()>(most, None, std::future::pending())
        .await
        .unwrap_err();
    assert!(late.message.contains("did not end within 10ms"), "{late}");
}

#[test]
fn all_secrets_that_are_not_there_are_named_at_once() {
    let text = "version: 0.2\nenv:\n  git-credential-helper: yes\n  parameter-store: { A: /shop/a }\n  \
                secrets-manager: { B: 'b:key' }\nphases: { build: { commands: ['true'] } }\n";
    let (buildspec, _) = spec::Buildspec::parse(text, "buildspec.yml").unwrap();
    let names: BTreeSet<&str> = named(&buildspec.env).collect();
    assert_eq!(names, BTreeSet::from(["b", "shop/a"]), "git can do without");
    let fault = missing(&"acme/shop/dev".parse().unwrap(), ["b", "shop/a"]);
    assert_eq!(fault.message, "there are no secrets `b`, `shop/a`");
    let next = "vend secrets set acme/shop b, vend secrets set acme/shop shop/a, then vend push again";
    assert_eq!(fault.next.as_deref(), Some(next));
}

#[tokio::test]
async fn what_git_is_given_in_a_build_comes_from_the_vault() {
    let directory = tempfile::tempdir().unwrap();
    let path = camino::Utf8PathBuf::try_from(directory.path().join("serve")).unwrap();
    let store = Store::open(&path).unwrap();
    let place: Place = "acme/shop/dev".parse().unwrap();
    let scope = store::SecretScope {
        tenant: place.tenant.clone(),
        app: place.app.clone(),
        environment: None,
    };
    let own = scope.clone();
    let made = store.write(move |tx| {
        let by = By::platform(Timestamp::UNIX_EPOCH);
        tx.create_tenant(&own.tenant, &by)?;
        tx.create_app(&own.tenant, &own.app, None, &by)
    });
    made.await.unwrap();
    for (wanted, kept, expected) in [
        ("yes", None, None),
        ("yes", Some("ada:tigers"), Some("ada:tigers")),
        ("no", None, None),
    ] {
        if let Some(value) = kept {
            let (scope, value) = (scope.clone(), Secret::new(value.to_owned()));
            let set = store.write(move |tx| {
                let by = By::platform(Timestamp::UNIX_EPOCH);
                tx.set_secret(&scope, GIT_SECRET, &value, &by)
            });
            set.await.unwrap();
        }
        let text = format!(
            "version: 0.2\nenv: {{ git-credential-helper: {wanted} }}\nphases: {{ build: {{ commands: ['true'] }} }}\n"
        );
        let (buildspec, _) = spec::Buildspec::parse(&text, "buildspec.yml").unwrap();
        let given = secrets(&store, &place, &buildspec).await.unwrap();
        let given = given.get(GIT_CREDENTIALS).map(Secret::expose);
        assert_eq!(given, expected, "{wanted} {kept:?}");
    }
}

#[test]
fn a_field_of_a_secret_is_taken_as_it_is_written() {
    let secret = Secret::new(
        r#"{"user":"ada","port":5432,"ssl":true,"share":1.10,"long":123456789012345678901234567890,"none":null,"tags":["a"],"of":{}}"#
            .to_owned(),
    );
    for (key, expected) in [
        ("user", Some("ada")),
        ("port", Some("5432")),
        ("ssl", Some("true")),
        ("share", Some("1.10")),
        ("long", Some("123456789012345678901234567890")),
        ("none", None),
        ("tags", None),
        ("of", None),
        ("absent", None),
    ] {
        let found = field(&secret, key);
        assert_eq!(found.as_ref().map(Secret::expose), expected, "{key}");
    }
    assert!(field(&Secret::new("[1]".to_owned()), "0").is_none());
}

#[test]
fn a_batch_has_its_time_once_also_over_restarts() {
    let now = crate::clock::now();
    let hours = SignedDuration::from_hours;
    let left = |most, gone: Option<SignedDuration>| left(most, gone.map(|gone| now - gone), now).as_secs();
    assert_eq!(left(hours(8), None), 8 * 3600);
    assert_eq!(left(hours(8), Some(hours(6))), 2 * 3600);
    // The clock went back.
    assert_eq!(left(hours(8), Some(hours(-1))), 8 * 3600);
    // Answers that are there already still come.
    assert_eq!(left(hours(8), Some(hours(9))), 60);
    assert_eq!(left(SignedDuration::from_secs(15), Some(hours(9))), 15);
}
