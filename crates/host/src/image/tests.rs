use model::port::Commit;

use super::*;

/// The images of a node, and their layers.
fn open(node: &Utf8Path) -> (Images, Layers) {
    let layers = Layers::open(node).unwrap();
    (Images::open(node, layers.clone()).unwrap(), layers)
}

fn layer(layers: &Layers, name: &str, parent: Option<Digest>) -> Digest {
    layer_of(layers, name, parent, None)
}

/// One that was made for a commit.
fn layer_of(layers: &Layers, name: &str, parent: Option<Digest>, commit: Option<Commit>) -> Digest {
    let key = Digest::of(name);
    let staging = layers.stage().unwrap();
    fs::write(staging.files().join(name), name).unwrap();
    let record = Record {
        key,
        parent,
        made_by: name.to_owned(),
        size_bytes: 1,
        commit,
        created_at: Timestamp::UNIX_EPOCH,
        content: None,
        source: None,
        epoch: 0,
    };
    layers.publish(staging, &record).unwrap();
    assert_eq!(layers.get(&key).unwrap(), Some(record));
    key
}

/// Later than anything that these tests make.
fn far() -> Timestamp {
    "2200-01-01T00:00:00Z".parse().unwrap()
}

#[test]
fn several_keep_one_image_at_a_time() {
    let temporary = tempfile::tempdir().unwrap();
    let node = Utf8Path::from_path(temporary.path()).unwrap();
    let (images, layers) = open(node);
    for round in 0..20 {
        let base = layer(&layers, &format!("base {round}"), None);
        let keep = || images.keep(&[base], Timestamp::UNIX_EPOCH).unwrap();
        let kept: Vec<Digest> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(keep)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(kept.iter().all(|digest| *digest == kept[0]));
    }
}

#[test]
fn a_bill_that_came_along_is_compared_and_fails_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let node = Utf8Path::from_path(temporary.path()).unwrap();
    let (images, layers) = open(node);
    let key = layer(&layers, "base", None);
    let image = images.keep(&[key], Timestamp::UNIX_EPOCH).unwrap();
    let to = node.join("layout");
    fs::create_dir(&to).unwrap();
    let how = ImageExport {
        compression: String::new(),
        tag: None,
        origin: None,
        told: Some(Vec::new()),
    };
    let manifest = images.export_of(&image, &to, Packing::Plain, &how).unwrap();
    let told = || images.told(&Layout::open(&to).unwrap(), None, &image);
    assert_eq!((told().bill, told().warning), (Some(true), None));
    // As whoever gives it away writes it anew.
    let index = to.join("index.json");
    let entries: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let path = |digest: &str| to.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    let about = entries["manifests"][1]["digest"].as_str().unwrap();
    let text = fs::read_to_string(path(about)).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let old = document["layers"][0]["digest"].as_str().unwrap();
    let bill = fs::read_to_string(path(old))
        .unwrap()
        .replace("SPDX-2.3", "SPDX-9.9");
    let new = Digest::of(&bill).to_string();
    let text = text.replace(old, &new);
    let changed = Digest::of(&text).to_string();
    fs::write(path(&new), bill).unwrap();
    fs::write(path(&changed), text).unwrap();
    fs::write(&index, entries.to_string().replace(about, &changed)).unwrap();
    assert_eq!((told().bill, told().warning), (Some(false), None));
    fs::remove_file(path(&new)).unwrap();
    assert_eq!(told().bill, None);
    assert!(told().warning.unwrap().contains("there is no file"));
    assert_eq!(Layout::open(&to).unwrap().find(None).unwrap().digest, manifest);
}

#[test]
fn an_image_that_is_taken_in_says_which_commit_it_was_made_for() {
    let temporary = tempfile::tempdir().unwrap();
    let root = Utf8Path::from_path(temporary.path()).unwrap();
    let [own, other, to] = ["own", "other", "layout"].map(|name| root.join(name));
    let (images, layers) = open(&own);
    let commit = Commit {
        id: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        author: "Ada <ada@acme.example>".to_owned(),
        message: "one line".to_owned(),
        branch: "dev".to_owned(),
        repository: "http://git.example/acme/shop".to_owned(),
        committed_at: Timestamp::UNIX_EPOCH,
    };
    let base = layer(&layers, "base", None);
    let key = layer_of(&layers, "top", Some(base), Some(commit.clone()));
    let image = images.keep(&[base, key], Timestamp::UNIX_EPOCH).unwrap();
    fs::create_dir(&to).unwrap();
    images.export(&image, &to, Packing::Plain, None).unwrap();
    let (elsewhere, _) = open(&other);
    let taken = elsewhere.import(&Layout::open(&to).unwrap(), None).unwrap();
    let told = elsewhere.describe(&taken).unwrap().0.commit.unwrap();
    assert_eq!(
        (told.id, told.message, told.author),
        (commit.id, commit.message, commit.author)
    );
}

#[test]
fn images_stack_layers_and_keep_what_they_need() {
    let temporary = tempfile::tempdir().unwrap();
    let node = Utf8Path::from_path(temporary.path()).unwrap();
    let (images, layers) = open(node);
    let base = layer(&layers, "base", None);
    let one = layer(&layers, "one", Some(base));
    let two = layer(&layers, "two", Some(base));
    let first = images.keep(&[base, one], Timestamp::UNIX_EPOCH).unwrap();
    let second = images.keep(&[base, two], Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(images.keep(&[base, one], Timestamp::UNIX_EPOCH).unwrap(), first);
    assert_eq!(
        images.lowers(&first).unwrap(),
        [layers.files(&one), layers.files(&base)]
    );
    assert!(matches!(images.lowers(&base), Err(Error::Missing(_))));
    drop(layers.stage().unwrap());
    let (keep, none) = (BTreeSet::from([first]), BTreeSet::new());
    let lately = images.sweep(&keep, &none, Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(lately, Swept::default(), "what was used lately stays");
    let used = images.keep(&[base, two], far()).unwrap();
    assert_eq!(images.sweep(&keep, &none, far()).unwrap(), Swept::default());
    images.keep(&[base, two], Timestamp::UNIX_EPOCH).unwrap();
    let swept = images.sweep(&keep, &none, far()).unwrap();
    assert_eq!(
        (used, swept.images, swept.layers, swept.bytes),
        (second, vec![second], 1, 1)
    );
    assert!(layers.get(&two).unwrap().is_none() && !layers.files(&two).exists());
    let aside = || {
        let entries = node.join("layers").read_dir_utf8().unwrap().flatten();
        entries
            .filter(|entry| entry.file_name().starts_with(".old-"))
            .count()
    };
    assert_eq!(aside(), 1, "a sweep takes no time, however much goes");
    layers.remove_old().unwrap();
    assert_eq!(aside(), 0);
    assert!(images.lowers(&first).is_ok());
    let left: Vec<_> = fs::read_dir(node.join("layers")).unwrap().collect();
    assert_eq!(left.len(), 2, "a layer that was not finished is gone: {left:?}");
}

#[test]
fn no_layer_of_an_image_that_is_there_goes_whatever_was_chosen() {
    let temporary = tempfile::tempdir().unwrap();
    let node = Utf8Path::from_path(temporary.path()).unwrap();
    let (images, layers) = open(node);
    let base = layer(&layers, "base", None);
    let [one, two, held] = ["one", "two", "held"].map(|name| layer(&layers, name, Some(base)));
    let image = images.keep(&[base, one], Timestamp::UNIX_EPOCH).unwrap();
    // Nobody names the image, which has not been used for long.
    let gone = images.sweep_layers(&BTreeSet::from([held]), far()).unwrap();
    let gone: Vec<Digest> = gone.into_iter().map(|record| record.key).collect();
    assert_eq!(gone, [two]);
    assert!(images.lowers(&image).is_ok() && layers.get(&held).unwrap().is_some());
}

#[test]
fn what_was_being_written_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let node = Utf8Path::from_path(directory.path()).unwrap();
    let layers = Layers::open(node).unwrap();
    let images = Images::open(node, layers.clone()).unwrap();
    let half = images
        .root
        .join(format!(".{}-{}", Digest::of("x").hex(), random()));
    fs::write(&half, "half").unwrap();
    let whole = images.path(&Digest::of("x"));
    fs::write(&whole, "").unwrap();
    Images::open(node, layers).unwrap();
    assert!(!half.exists() && whole.exists());
}

#[test]
fn an_image_is_as_large_as_all_its_layers_together() {
    let temporary = tempfile::tempdir().unwrap();
    let root = Utf8Path::from_path(temporary.path()).unwrap();
    let (images, layers) = open(&root.join("own"));
    let base = layer(&layers, "base", None);
    let top = layer(&layers, "top", Some(base));
    let image = images.keep(&[base, top], Timestamp::UNIX_EPOCH).unwrap();
    let to = root.join("layout");
    fs::create_dir(&to).unwrap();
    images.export(&image, &to, Packing::Gzip, None).unwrap();
    let layout = Layout::open(&to).unwrap();
    let of = |name: &str, bytes: u64| {
        let limits = Limits { entries: 100, bytes };
        let (elsewhere, _) = open(&root.join(name));
        let take = || {
            let taken = elsewhere.import_within(limits, &layout, None);
            taken.map(drop).map_err(|e| e.to_string())
        };
        let taken = take();
        assert_eq!(take(), taken, "what is here by now counts, too");
        let into = root.join(format!("{name}-flat"));
        fs::create_dir(&into).unwrap();
        let found = layout.find(None).unwrap();
        let flat = base::flatten(&layout, &found, &into, limits).map_err(|e| e.to_string());
        [taken, flat]
    };
    assert_eq!(of("all", 7), [Ok(()), Ok(())]);
    // Enough for each of them.
    let why = "the image is too large: it has more than 100 files or 0 GiB when it is unpacked";
    assert_eq!(of("less", 6), [Err(why.to_owned()), Err(why.to_owned())]);
}

/// Everything that the digest of an image covers.
#[test]
fn what_makes_another_image_is_told() {
    let temporary = tempfile::tempdir().unwrap();
    let node = Utf8Path::from_path(temporary.path()).unwrap();
    let (images, layers) = open(node);
    let image = |change: &dyn Fn(&Utf8Path)| {
        let staging = layers.stage().unwrap();
        for name in ["a", "b", "c"] {
            fs::write(staging.files().join(name), "same").unwrap();
        }
        change(&staging.files());
        let key = Digest::of(random());
        let record = Record {
            key,
            parent: None,
            made_by: "a test".to_owned(),
            size_bytes: 1,
            commit: None,
            created_at: Timestamp::UNIX_EPOCH,
            content: None,
            source: None,
            epoch: 0,
        };
        for name in ["a", "b", "c"] {
            let file = fs::File::open(staging.files().join(name)).unwrap();
            let at = file.metadata().unwrap().modified().unwrap();
            if at > std::time::SystemTime::from(Timestamp::from_second(1000).unwrap()) {
                file.set_modified(Timestamp::UNIX_EPOCH.into()).unwrap();
            }
        }
        layers.publish(staging, &record).unwrap();
        images.keep(&[key], Timestamp::UNIX_EPOCH).unwrap()
    };
    let before = image(&|_| {});
    let check = |change: &dyn Fn(&Utf8Path), told: &[(&str, &str, &str)]| {
        let diff = images.compare(&before, &image(change)).unwrap();
        assert_eq!(diff.files_changed, told.len() as u64, "{diff:#?}");
        for (file, (path, before, after)) in diff.files.iter().zip(told) {
            let ends = |said: &Option<String>, end: &str| said.as_ref().unwrap().ends_with(end);
            assert_eq!(file.path, *path);
            assert!(ends(&file.before, before) && ends(&file.after, after), "{file:?}");
        }
    };
    let attribute = |path: &Utf8Path, name: &str, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(path.as_std_path(), name, value, flags).unwrap();
    };
    let date = |path: &Utf8Path| {
        let file = fs::File::open(path).unwrap();
        file.set_modified(Timestamp::from_second(60).unwrap().into())
            .unwrap();
    };
    check(&|_| {}, &[]);
    check(
        &|files| attribute(&files.join("b"), "user.who", b"ann"),
        &[("b", "4 bytes", "4 bytes, user.who 616e6e")],
    );
    check(
        &|files| attribute(&files.join("b"), "user.who", &[0; 33]),
        &[("b", "4 bytes", &format!("user.who {}", Digest::of([0; 33])))],
    );
    // Of many attributes those that differ, and how many there are more.
    let many = |files: &Utf8Path, last: &[u8]| {
        for number in 0..11 {
            attribute(&files.join("b"), &format!("user.{number:02}"), b"same");
        }
        attribute(&files.join("b"), "user.zz", last);
    };
    let (of_a, of_b) = (
        image(&|files| many(files, b"a")),
        image(&|files| many(files, b"b")),
    );
    let diff = images.compare(&of_a, &of_b).unwrap();
    let told = |said: &Option<String>| {
        said.as_ref()
            .unwrap()
            .split_once(" bytes, ")
            .unwrap()
            .1
            .to_owned()
    };
    let rest: String = (0..7)
        .map(|number| format!(", user.{number:02} 73616d65"))
        .collect();
    let [file] = &diff.files[..] else {
        panic!("{diff:#?}");
    };
    assert_eq!(
        told(&file.before),
        format!("user.zz 61{rest} and 4 more attributes")
    );
    assert_eq!(
        told(&file.after),
        format!("user.zz 62{rest} and 4 more attributes")
    );
    let link = |files: &Utf8Path| {
        fs::remove_file(files.join("c")).unwrap();
        fs::hard_link(files.join("a"), files.join("c")).unwrap();
    };
    check(&link, &[("c", "4 bytes", "4 bytes, the same file as a")]);
    check(
        &|files| date(&files.join("a")),
        &[("a", "of 1970-01-01T00:00:00Z", "of 1970-01-01T00:01:00Z")],
    );
    // Where more than times differs, that is told.
    check(
        &|files| {
            date(&files.join("a"));
            link(files);
        },
        &[("c", "4 bytes", "4 bytes, the same file as a")],
    );
}
