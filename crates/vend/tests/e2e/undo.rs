//! A way back in place that hangs: whoever waits for it ends it, or the next push does.

use serde_json::Value;

use crate::{
    middle::MINUTE,
    platform::{Platform, can_run, eventually},
    strategies::{App, Stage},
};

const SERVES: &str = "setsid perl /srv/shop/server.pl >/dev/null 2>&1 </dev/null &
echo $! > /run/shop.pid
";

impl Stage<'_> {
    /// A release that fails on its first host, and leaves what the one before does not start with.
    fn fails_for_good(&self, app: &App, text: &str) -> (u64, Value) {
        app.copy
            .write("start.sh", "#!/bin/sh\ntouch /srv/hangs\nexit 3\n");
        app.says(text);
        let push = self.platform.push(&app.copy, &self.app, "dev");
        let undo = eventually("its way back hangs", MINUTE, || {
            let newest = self.deployment();
            (newest["release"] == 1 && self.goes_on("ApplicationStart")).then_some(newest)
        });
        (push, undo)
    }

    /// The way back was stopped for this reason, and the release that was live has all its hosts again.
    fn gave_way(&self, undo: &Value, why: &str) {
        let id = undo["id"].as_str().unwrap();
        let stopped = self.platform.json(&["deployments", "show", id]);
        assert_eq!(
            (&stopped["state"], &stopped["code"]),
            (&"Stopped".into(), &"MANUAL_STOP".into()),
            "{stopped:#}"
        );
        assert!(stopped["reason"].as_str().unwrap().contains(why), "{stopped:#}");
    }
}

#[test]
fn a_way_back_in_place_that_hangs_is_ended_by_hand_and_by_the_next_push() {
    if !can_run() {
        return;
    }
    let platform = Platform::with("[deployments]\npatience_s = 3\n");
    let stage = Stage::new(&platform, "undo");
    let app = App::new("strategy: in-place", 2);
    let appspec = std::fs::read_to_string(app.copy.directory.path().join("appspec.yml")).unwrap();
    let patient = appspec.replace("start.sh, timeout: 20", "start.sh, timeout: 3000");
    app.copy.write("appspec.yml", patient);
    let hangs = format!("#!/bin/sh\n[ ! -e /srv/hangs ] || sleep 4327\n{SERVES}");
    app.copy.write("start.sh", hangs);
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");

    let (push, undo) = stage.fails_for_good(&app, "two");
    let said = platform.vend(&["deploy", "abort", &stage.dev]);
    assert!(said.contains("others take their place"), "{said}");
    let push = platform.ended(&stage.app, push);
    let reason = push["reason"].as_str().unwrap();
    assert!(
        push["state"] == "failed" && reason.contains("its way back") && reason.contains("cancelled it"),
        "{push:#}"
    );
    stage.gave_way(&undo, "cancelled it");
    eventually("other hosts take their place", MINUTE, || {
        (stage.count(1, "serving") == 2).then_some(())
    });
    stage.serves("one");

    let (push, undo) = stage.fails_for_good(&app, "three");
    app.copy.write("start.sh", format!("#!/bin/sh\n{SERVES}"));
    app.says("fixed");
    platform.release(&app.copy, &stage.app, "dev");
    stage.serves("fixed");
    stage.gave_way(&undo, "it hangs in a hook");
    assert_eq!(platform.ended(&stage.app, push)["state"], "failed");
    stage.end();
}
