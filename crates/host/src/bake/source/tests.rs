use camino::Utf8Path;
use jiff::SignedDuration;
use model::port::Commit;

use super::*;
use crate::lives::Life;

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
        self.keys_beside(&order, &[])
    }

    /// The keys where these layers are there.
    fn keys_beside(&self, order: &BakeOrder, there: &[Digest]) -> Result<Vec<Digest>, Error> {
        self.keys_of(order, Life::default(), there)
    }

    fn keys_of(&self, order: &BakeOrder, life: Life, there: &[Digest]) -> Result<Vec<Digest>, Error> {
        let index = Index::read(&self.objects, &order.source)?;
        let downloads = super::super::downloads(order, life);
        let there = |key: &Digest| Ok(there.contains(key));
        let steps = index.steps(order, Digest::of("base"), &downloads, there)?;
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
fn a_variable_counts_when_all_of_them_or_a_large_input_may_tell_it() {
    let world = world();
    let check = |script: &str, input: &str, counts: bool| {
        let files = [
            ("infra/one.sh", script),
            ("infra/two.sh", "2"),
            ("infra/conf", input),
        ];
        let keys = world.keys(&files, |_| ()).unwrap();
        let other = world.keys(&files, |order| order.commit.id = "1".repeat(40));
        assert_eq!(keys != other.unwrap(), counts, "{script}");
    };
    let usual = "#!/usr/bin/env bash\nset -eu\nenv A=b apt-get install -y nginx\n";
    let large = |end: &str| "x\n".repeat(1 << 20) + end;
    check(usual, &large(""), false);
    check("env | sort > /etc/build", "", true);
    check("read_from /proc/self/environ", "", true);
    check("v=VEND_COMMIT; v=${v}_ID; echo ${!v}", "", true);
    check(usual, &large("$VEND_COMMIT_ID"), true);
    check(usual, &large("printenv\n"), true);
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
fn no_other_branch_app_or_tenant_makes_a_branch_s_layers() {
    let world = world();
    let keys = |place: &str, branch: &str| {
        let files = [("infra/one.sh", "1"), ("infra/two.sh", "2")];
        let change = |order: &mut BakeOrder| {
            order.place = place.parse().unwrap();
            order.commit.branch = branch.to_owned();
        };
        world.keys(&files, change).unwrap()
    };
    let own = keys("acme/shop/dev", "dev");
    assert_eq!(own, keys("acme/shop/production", "dev"));
    for (place, branch) in [
        ("acme/shop/dev", "side"),
        ("acme/blog/dev", "dev"),
        ("evil/shop/dev", "dev"),
    ] {
        let other = keys(place, branch);
        assert!(own.iter().all(|key| !other.contains(key)), "{place} {branch}");
    }
}

#[test]
fn a_branch_begins_with_the_trunk_s_layers_and_goes_on_with_its_own() {
    let world = world();
    let source = world.source(FILES);
    let of = |branch: &str, trunk: Option<&str>| {
        let mut order = order(source);
        order.commit.branch = branch.to_owned();
        order.trunk = trunk.map(str::to_owned);
        order
    };
    let alone = |order: &BakeOrder| world.keys_beside(order, &[]).unwrap();
    let (main, side, new) = (of("main", None), of("side", None), of("new", None));
    let (mains, sides) = (alone(&main), alone(&side));
    assert_eq!(world.keys_beside(&new, &mains).unwrap(), mains);
    assert_eq!(
        world.keys_beside(&new, &sides).unwrap(),
        alone(&new),
        "not another's"
    );
    assert_eq!(
        world.keys_beside(&main, &sides).unwrap(),
        mains,
        "nor is the trunk given any"
    );
    // Its own stays its own, whatever the trunk makes later.
    let both = [mains.clone(), sides.clone()].concat();
    assert_eq!(world.keys_beside(&side, &both).unwrap(), sides);
    // What stands on the trunk's is the branch's own.
    let on = world.keys_beside(&new, &mains[..1]).unwrap();
    assert_eq!(on[0], mains[0]);
    assert!(on[1] != mains[1] && on[1] != alone(&new)[1]);
    assert_eq!(
        world.keys_beside(&of("other", None), &[mains[0], on[1]]).unwrap()[0],
        mains[0]
    );
    assert_ne!(
        world.keys_beside(&of("other", None), &[mains[0], on[1]]).unwrap()[1],
        on[1]
    );
    // Where production follows another branch, `main` is one like any other.
    let elsewhere = of("new", Some("trunk"));
    assert_eq!(world.keys_beside(&elsewhere, &mains).unwrap(), alone(&new));
    let trunk = of("trunk", Some("trunk"));
    assert_eq!(
        world.keys_beside(&elsewhere, &alone(&trunk)).unwrap(),
        alone(&trunk)
    );
}

#[test]
fn who_had_a_name_before_made_none_of_the_layers() {
    let world = world();
    let order = order(world.source(FILES));
    let keys = |tenant, app, there: &[Digest]| world.keys_of(&order, Life { tenant, app }, there).unwrap();
    let first = keys(0, 0, &[]);
    for (tenant, app) in [(1, 0), (0, 1), (1, 1)] {
        let own = keys(tenant, app, &first);
        assert!(own.iter().all(|key| !first.contains(key)), "{tenant} {app}");
        assert_eq!(own, keys(tenant, app, &own));
    }
    assert_ne!(keys(1, 0, &[]), keys(0, 1, &[]));
}
