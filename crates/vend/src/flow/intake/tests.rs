use super::*;

#[test]
fn a_push_that_only_buildspecs_are_wrong_in_is_told_of_as_codebuild_does() {
    const WRONG: &str = "version: 0.2\nphases: { build: { commands: [[x]] } }\n";
    const BATCH: &str = "version: 0.2\nbatch: { build-list: [{ identifier: a, buildspec: a.yml }] }\n";
    const BUILD: &str = "app: shop\nbuild: { batch: true }\n";
    for (app, whole, own, is_of_build) in [
        (BUILD, WRONG, "", true),
        (BUILD, BATCH, WRONG, true),
        ("app: shop\nbuild: { batch: 7 }\n", WRONG, "", false),
        ("app: shop\nbogus: 7\n", WRONG, "", false),
    ] {
        let files = BTreeMap::from([
            (SPEC_FILE, app),
            ("buildspec.yml", whole),
            ("a.yml", own),
            ("Procfile", "web: ./run\n"),
        ]);
        let refused = refusal(&spec::checked(&Texts(files)));
        assert_eq!(refused.starts_with("YAML_FILE_ERROR: "), is_of_build, "{refused}");
        assert!(refused.contains(".y"), "{refused}");
    }
}

struct Texts(BTreeMap<&'static str, &'static str>);

impl Files for Texts {
    fn exists(&self, path: &Utf8Path) -> bool {
        self.0.contains_key(path.as_str())
    }

    fn read(&self, path: &Utf8Path) -> Option<Vec<u8>> {
        self.0.get(path.as_str()).map(|text| text.as_bytes().to_vec())
    }
}

#[tokio::test]
async fn what_a_branch_has_taken_fails_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = camino::Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
    let store = store::Store::open(&path).unwrap();
    let by = || By::platform(crate::clock::now());
    let parsed = |text: &str| spec::App::parse(text, "vend.yaml", &|_| true).unwrap().0;
    let place = |own: &spec::Environment| -> Place { format!("acme/shop/{}", own.name).parse().unwrap() };
    let of = |app: &spec::App, branch: &str| -> Vec<(Place, spec::Environment)> {
        let following = app.following(branch).unwrap().into_iter();
        following.map(|own| (place(&own), own)).collect()
    };
    let before = parsed("app: shop\nenvironments: { production: {}, preview: { branches: [login] } }\n");
    let after = parsed("app: shop\nenvironments: { login: { branch: main }, production: {} }\n");
    let (preview, both) = (of(&before, "login"), of(&after, "main"));
    let alone: Vec<_> = both
        .iter()
        .filter(|(own, _)| own.environment.as_str() == "login")
        .cloned()
        .collect();
    let (tenant, app): (TenantName, AppName) = ("acme".parse().unwrap(), "shop".parse().unwrap());
    let (own_tenant, own_app) = (tenant.clone(), app.clone());
    let push = move |tx: &Tx<'_>, branch: &str| {
        let commit = model::port::Commit {
            id: "a".repeat(40),
            author: "a".into(),
            message: "m".into(),
            branch: branch.into(),
            repository: "git".into(),
            committed_at: crate::clock::now(),
        };
        let new = NewPush {
            tenant: own_tenant.clone(),
            app: own_app.clone(),
            environment: None,
            branch: branch.into(),
            commit,
            origin: "git".into(),
            event: None,
        };
        tx.enqueue_push(&new, &by())
    };
    let done = store.write(move |tx| {
        tx.create_tenant(&tenant, &by())?;
        tx.create_app(&tenant, &app, None, &by())?;
        let first = push(tx, "login")?;
        settle(tx, first, &preview, 9, "nobody", &by())?;
        let second = push(tx, "main")?;
        settle(tx, second, &both, 9, "nobody", &by())?;
        let third = push(tx, "main")?;
        settle(tx, third, &alone, 9, "nobody", &by())?;
        let again = settle(tx, second, &both, 9, "nobody", &by());
        assert!(matches!(again, Err(store::Error::Refused { .. })), "{again:?}");
        tx.pushes(&tenant, &app, None, None, 9)
    });
    let said: Vec<(PushState, Option<String>, bool)> = done
        .await
        .unwrap()
        .into_iter()
        .map(|own| {
            let taken = own
                .reason
                .as_deref()
                .is_some_and(|why| why.contains("`login` is of branch login"));
            (own.state, own.environment.map(|name| name.to_string()), taken)
        })
        .collect();
    let (waiting, failed) = (PushState::Waiting, PushState::Failed);
    assert_eq!(
        said,
        [
            (failed, None, true),
            (failed, None, true),
            (waiting, Some("production".into()), false),
            (waiting, Some("login".into()), false),
        ]
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_not_said_to_be_missing() {
    let tree = AtCommit {
        repository: Repository::at("/nonexistent".into()),
        commit: "a".repeat(40),
        paths: [SPEC_FILE.to_owned()].into(),
        runtime: tokio::runtime::Handle::current(),
        unread: OnceCell::new(),
    };
    let look = move || {
        let found = (tree.read("none".into()), tree.unread.get().is_none());
        (found, tree.read(SPEC_FILE.into()), tree.unread.into_inner())
    };
    let (missing, read, unread) = tokio::task::spawn_blocking(look).await.unwrap();
    assert_eq!((missing, read), ((None, true), None));
    assert!(unread.is_some());
}

#[test]
fn no_tenant_takes_all_the_room() {
    let key =
        |tenant: &str, n: usize| -> Key { (tenant.parse().unwrap(), format!("app{n}").parse().unwrap()) };
    let waiting = |keys: &[Key]| -> BTreeMap<Key, Work> {
        keys.iter().map(|key| (key.clone(), Work::default())).collect()
    };
    let greedy: Vec<Key> = (0..20).map(|n| key("greedy", n)).collect();
    let all = [greedy.as_slice(), &[key("other", 1)]].concat();
    let names = |chosen: Vec<(Key, Work)>| -> Vec<Key> { chosen.into_iter().map(|(key, _)| key).collect() };
    assert_eq!(
        names(chosen(waiting(&all), &BTreeSet::new(), &BTreeMap::new())),
        [key("greedy", 0), key("greedy", 1), key("other", 1)]
    );
    // What is busy is not begun again, and counts.
    let busy = BTreeSet::from([key("greedy", 0)]);
    let nothing = BTreeMap::new();
    assert_eq!(
        names(chosen(waiting(&greedy[..3]), &busy, &nothing)),
        [key("greedy", 1)]
    );
    let many: Vec<Key> = (0..20).map(|n| key(&format!("t{n}"), 1)).collect();
    assert_eq!(chosen(waiting(&many), &BTreeSet::new(), &nothing).len(), AT_ONCE);
    // The very same is not tried again at once; what is new to an app is.
    let same = BTreeMap::from([(many[0].clone(), Work::default().tried())]);
    assert_eq!(
        names(chosen(waiting(&many[..2]), &BTreeSet::new(), &same)),
        [many[1].clone()]
    );
    let other = BTreeMap::from([(many[0].clone(), (vec![7], vec![]))]);
    assert_eq!(chosen(waiting(&many[..2]), &BTreeSet::new(), &other).len(), 2);
}
