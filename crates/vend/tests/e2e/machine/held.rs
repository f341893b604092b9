//! Deployments to several machines that are held between two of them, and that go back.

use super::*;

const YAML: &str = "app: shop
placement: { registered: { role: web } }
deploy: { minimum_healthy: 2 }
environments:
  dev: { branch: dev }
";

/// Waits on each machine until the test lets it go on, and fails where it is told to.
const START: &str = "#!/bin/sh
echo began >>/srv/began
until [ -e /srv/go ]; do sleep 0.1; done
[ ! -e /srv/broken ] || { echo no disk; exit 4; }
";

/// Three machines, of which two must be well.
struct Rack {
    boxes: Vec<Machine>,
}

impl Rack {
    fn of(platform: &Platform, owner: &str) -> Self {
        let join = |_| {
            Machine::joins_after(platform, owner, &["role=web"], |on| {
                std::fs::create_dir_all(on.file("srv")).unwrap();
                std::fs::write(on.file("srv/go"), "").unwrap();
            })
            .0
        };
        let boxes: Vec<Machine> = (0..3).map(join).collect();
        machines(platform, owner, 3);
        Self { boxes }
    }

    /// How many have this text.
    fn have(&self, what: &str) -> usize {
        let has = |on: &&Machine| text(&on.file("srv/shop/server.pl")) == what;
        self.boxes.iter().filter(has).count()
    }

    /// How often the script has begun, everywhere.
    fn began(&self) -> usize {
        let count = |on: &Machine| text(&on.file("srv/began")).lines().count();
        self.boxes.iter().map(count).sum()
    }

    fn go(&self, on: bool) {
        for machine in &self.boxes {
            let file = machine.inside("srv/go");
            match on {
                true => std::fs::write(file, "").unwrap(),
                false => std::fs::remove_file(file).unwrap(),
            }
        }
    }
}

#[test]
fn machines_are_held_one_after_the_other_and_go_back_when_one_fails_that_is_missed() {
    if !can_run() {
        return;
    }
    let platform = for_machines("");
    let (owner, app) = platform.tenant_with_app("held");
    let dev = format!("{app}/dev");
    let rack = Rack::of(&platform, &owner);
    let work = copy();
    work.write("vend.yaml", YAML);
    work.write("start.sh", START);
    work.write("server.pl", "one");
    work.commit("one");
    platform.release(&work, &app, "dev");
    assert_eq!(rack.have("one"), 3);

    // The first machine has it half when it is held, which takes effect after that one.
    rack.go(false);
    let before = rack.began();
    work.write("server.pl", "two");
    work.commit("two");
    let push = platform.push(&work, &app, "dev");
    eventually("it has begun on the first", Duration::from_secs(120), || {
        (rack.began() == before + 1).then_some(())
    });
    platform.vend(&["deploy", "pause", &dev]);
    rack.go(true);
    eventually("it is held", Duration::from_secs(60), || {
        let newest = platform.json(&["deployments", "list", &dev])["items"][0].clone();
        (newest["state"] == "Ready").then_some(())
    });
    assert_eq!((rack.have("two"), rack.began()), (1, before + 1));
    platform.vend(&["deploy", "resume", &dev]);
    let push = platform.ended(&app, push);
    assert_eq!(push["state"], "done", "{push:#}");
    assert_eq!((rack.have("two"), rack.began()), (3, before + 3));

    // One has the next one, and on the second it fails: both go back, and the third is not touched.
    for on in &rack.boxes[1..] {
        std::fs::write(on.inside("srv/broken"), "").unwrap();
    }
    work.write("server.pl", "three");
    work.commit("three");
    let failed = platform.ended(&app, platform.push(&work, &app, "dev"));
    assert!(
        failed["reason"].as_str().unwrap_or_default().contains("no disk"),
        "{failed:#}"
    );
    for on in &rack.boxes[1..] {
        std::fs::remove_file(on.inside("srv/broken")).unwrap();
    }
    eventually("all have the release before", Duration::from_secs(180), || {
        (rack.have("two") == 3).then_some(())
    });
    let undo = gone_back(&platform, &dev);
    assert_eq!(undo["release"], 2, "{undo:#}");
    // Which of the two came first is the platform's to say; the other has begun with one and two only.
    let began = rack.boxes[1..]
        .iter()
        .map(|on| text(&on.file("srv/began")).lines().count());
    let began: Vec<usize> = began.collect();
    assert!(began.contains(&2), "{began:?}");
    let why = eventually("all is well", Duration::from_secs(60), || {
        let why = platform.json(&["why", &dev])["environments"][0].clone();
        let sentence = why["sentence"].as_str()?.to_owned();
        (!sentence.contains("machine has") && !sentence.contains("machines have")).then_some(why)
    });
    assert_eq!(why["live"], 2, "{why:#}");
    drop(rack);
    platform.vend(&["tenants", "delete", &owner, "--yes"]);
}
