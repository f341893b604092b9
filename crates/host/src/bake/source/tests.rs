use camino::Utf8Path;
use jiff::SignedDuration;
use model::port::Commit;

use super::*;

struct World {
    _temporary: tempfile::TempDir,
    objects: objects::Directory,
}

fn world() -> World {
    let temporary = tempfile::tempdir().unwrap();
    let objects = objects::Directory::open(Utf8Path::from_path(temporary.path()).unwrap(), 1 << 30).unwrap();
    World {
        _temporary: temporary,
        objects,
    }
}

impl World {
    fn source(&self, files: &[(&str, &str)]) -> Digest {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        self.objects
            .keep(&tar.into_inner().unwrap()[..], "tar".into())
            .unwrap()
    }

    fn keys(
        &self,
        files: &[(&str, &str)],
        change: impl FnOnce(&mut BakeOrder),
    ) -> Result<Vec<Digest>, Error> {
        let mut order = order(self.source(files));
        change(&mut order);
        let steps = Index::read(&self.objects, &order.source)?.steps(&order, Digest::of("base"))?;
        Ok(steps.into_iter().map(|step| step.key).collect())
    }
}

fn order(source: Digest) -> BakeOrder {
    BakeOrder {
        place: "acme/shop/dev".parse().unwrap(),
        source,
        base: "debian-12".to_owned(),
        login: None,
        scripts: vec!["infra/one.sh".into(), "infra/two.sh".into()],
        inputs: vec!["infra/**".to_owned()],
        commit: Commit {
            id: "0".repeat(40),
            author: "a".to_owned(),
            message: "m".to_owned(),
            branch: "dev".to_owned(),
            repository: "r".to_owned(),
            committed_at: jiff::Timestamp::UNIX_EPOCH,
        },
        trunk: None,
        timeout: SignedDuration::from_mins(1),
    }
}

type Files = Vec<(&'static str, &'static str)>;

const FILES: &[(&str, &str)] = &[
    ("infra/one.sh", "1"),
    ("infra/two.sh", "2"),
    ("infra/conf", "c"),
    ("app.py", "a"),
];

#[test]
fn keys_change_with_what_makes_the_layers_and_with_nothing_else() {
    let world = world();
    let with = |change: &dyn Fn(&mut Files)| {
        let mut files = FILES.to_vec();
        change(&mut files);
        world.keys(&files, |_| ()).unwrap()
    };
    let keys = with(&|_| ());
    assert_eq!(keys.len(), 2);
    assert_eq!(keys, with(&|files| files[3].1 = "another app"));
    assert_eq!(keys, with(&|files| files.reverse()));
    let input = with(&|files| files[2].1 = "changed");
    assert!(input[0] != keys[0] && input[1] != keys[1]);
    let added = with(&|files| files.push(("infra/new/deep", "x")));
    assert!(added[0] != keys[0]);
    let commit = world
        .keys(FILES, |order| order.commit.id = "1".repeat(40))
        .unwrap();
    assert_eq!(keys, commit, "another commit is not another image");
    let place = world
        .keys(FILES, |order| {
            order.place = "acme/shop/production".parse().unwrap()
        })
        .unwrap();
    assert_eq!(keys, place, "an image goes through all environments");
    let shorter = world.keys(FILES, |order| drop(order.scripts.pop())).unwrap();
    assert_eq!(keys[..1], shorter);
}

#[test]
fn a_variable_counts_when_a_script_names_it() {
    let world = world();
    let files = [
        ("infra/one.sh", "echo $VEND_COMMIT_ID"),
        ("infra/two.sh", "2"),
        ("infra/conf", "c"),
    ];
    let keys = world.keys(&files, |_| ()).unwrap();
    assert_ne!(
        keys,
        world
            .keys(&files, |order| order.commit.id = "1".repeat(40))
            .unwrap()
    );
    assert_eq!(
        keys,
        world
            .keys(&files, |order| order.commit.message = "n".to_owned())
            .unwrap()
    );
}

#[test]
fn what_is_missing_is_named() {
    let world = world();
    let error = |change: fn(&mut BakeOrder)| world.keys(FILES, change).unwrap_err().to_string();
    assert!(error(|order| order.scripts.push("infra/three.sh".into())).contains("infra/three.sh"));
    assert!(error(|order| order.scripts.push("infra".into())).contains("`infra`"));
    assert!(error(|order| order.inputs.push("nothing/**".into())).contains("nothing/**"));
    assert!(error(|order| order.inputs.push("a{".into())).contains("a{"));
    assert!(error(|order| order.source = Digest::of("x")).contains("no object"));
}

#[test]
fn a_directory_as_an_input_means_all_in_it() {
    let world = world();
    let keys = |files: &[(&str, &str)]| {
        world
            .keys(files, |order| order.inputs = vec!["conf".to_owned()])
            .unwrap()
    };
    let files = |text| {
        [
            ("infra/one.sh", "1"),
            ("infra/two.sh", "2"),
            ("conf/deep/x", text),
        ]
    };
    assert_ne!(keys(&files("a")), keys(&files("b")));
}

#[test]
fn tenants_do_not_make_each_other_s_layers() {
    let world = world();
    let keys = |place: &str| {
        let files = [("infra/one.sh", "1"), ("infra/two.sh", "2")];
        world
            .keys(&files, |order| order.place = place.parse().unwrap())
            .unwrap()
    };
    assert_eq!(keys("acme/shop/dev"), keys("acme/blog/production"));
    assert!(
        keys("acme/shop/dev")
            .iter()
            .all(|key| !keys("evil/shop/dev").contains(key))
    );
}
