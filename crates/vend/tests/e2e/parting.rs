//! What old hosts do behind the switch to new ones, when they have no traffic any more.

use std::time::Duration;

use serde_json::Value;

use crate::{
    abort::inside,
    load::Load,
    middle::{MINUTE, kill},
    platform::{Platform, can_run, eventually},
    strategies::{App, Stage, nothing_was_lost},
};

/// Ends the app at once, with all that it does.
const ENDS: &str = "#!/bin/sh\nkill -9 -$(cat /run/shop.pid)\n";

/// In place the way back is through the hosts that serve, and those that have parted are not among them.
#[test]
fn who_goes_back_in_place_does_not_get_hosts_that_ended_themselves() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "back");
    let app = App::new("strategy: in-place", 1);
    let in_place = app.vend_yaml.replace("keep_old: 2s", "keep_old: 10m");
    app.copy.write("vend.yaml", &in_place);
    let appspec = std::fs::read_to_string(app.copy.directory.path().join("appspec.yml")).unwrap();
    let parts = "  AfterBlockTraffic: [{ location: leave.sh, timeout: 20 }]\n";
    app.copy.write("appspec.yml", format!("{appspec}{parts}"));
    app.copy.write("leave.sh", ENDS);
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let old = stage.hosts()[0]["id"].clone();

    let load = Load::on(&platform.http(), &stage.host);
    app.copy.write(
        "vend.yaml",
        in_place.replace("strategy: in-place", "strategy: blue-green"),
    );
    app.says("two");
    platform.release(&app.copy, &stage.app, "dev");
    stage.serves("two");
    platform.succeeds(&["rollback", &stage.dev]);
    for _ in 0..20 {
        stage.serves("one");
    }
    let serving = |host: &Value| host["wanted"] == "serving";
    let serving: Vec<_> = stage.hosts().into_iter().filter(serving).collect();
    assert!(serving.len() == 1 && serving[0]["id"] != old, "{serving:#?}");
    nothing_was_lost(load);
    stage.end();
}

/// The last scripts of the old hosts end their app and fail. Who is still answered there is answered, nobody is sent back
/// there, and who goes back gets hosts that serve.
#[test]
fn hosts_that_ended_themselves_get_no_traffic_back() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "parting");
    let app = App::new("strategy: blue-green", 2);
    app.copy.write(
        "vend.yaml",
        app.vend_yaml.replace("keep_old: 2s", "keep_old: 10m"),
    );
    let appspec = std::fs::read_to_string(app.copy.directory.path().join("appspec.yml")).unwrap();
    let parts = "  AfterBlockTraffic: [{ location: leave.sh, timeout: 20 }]\n";
    app.copy.write("appspec.yml", format!("{appspec}{parts}"));
    app.copy.write("leave.sh", format!("{ENDS}exit 3\n"));
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let old = stage.hosts();

    let quick = Load::on(&platform.http(), &stage.host);
    let slow = Load::at(&platform.http(), &stage.host, "/slow");
    std::thread::sleep(Duration::from_secs(2));
    app.copy.write("leave.sh", ENDS);
    app.says("two");
    let (push, failed) = stage.fails(&app);
    let reason = push["reason"].as_str().unwrap();
    assert!(
        reason.contains("AfterBlockTraffic failed on host")
            && reason.contains("; v2 is live already, and stays"),
        "{push:#}"
    );
    assert_eq!(failed["state"], "Failed", "{failed:#}");
    stage.serves("two");

    platform.succeeds(&["rollback", &stage.dev]);
    stage.serves("one");
    let serving = stage
        .hosts()
        .into_iter()
        .filter(|host| host["wanted"] == "serving");
    let fresh = |host: &Value| old.iter().all(|old| old["id"] != host["id"]);
    assert_eq!(serving.filter(fresh).count(), 2, "others were made");
    let (good, bad) = slow.end();
    assert!(good > 0 && bad.is_empty(), "{bad:?}");
    nothing_was_lost(quick);
    stage.end();
}

/// Ends well when a host with a near address says this text.
pub const NEIGHBOUR: &str = r#"#!/usr/bin/perl
use strict; use IO::Socket::INET;
my $any = IO::Socket::INET->new(Proto => 'udp', PeerAddr => '192.0.2.1', PeerPort => 9) or die $!;
my ($net, $own) = $any->sockhost =~ /^(.*\.)(\d+)$/;
for my $near (grep { $_ > 1 && $_ != $own } $own - 4 .. $own + 4) {
    my $server = IO::Socket::INET->new(PeerAddr => "$net$near", PeerPort => 8080, Timeout => 1) or next;
    print $server "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    exit 0 if grep { /^$ARGV[0] / } <$server>;
}
exit 1;
"#;

/// Fails behind the switch, when it is told to.
const LATER: &str = "#!/bin/sh\nwhile [ ! -e /run/fail ]; do sleep 0.1; done\nexit 3\n";

impl Stage<'_> {
    /// A push whose only new host serves, when the only old one dies, and fails then.
    fn fails_over_a_dead_host(&self, app: &App, text: &str) -> (Value, String) {
        let old = self.only_host();
        app.copy.write("after.sh", LATER);
        app.says(text);
        let number = self.platform.push(&app.copy, &self.app, "dev");
        eventually("its last script waits", MINUTE, || {
            self.goes_on("AfterAllowTraffic").then_some(())
        });
        self.serves(text);
        let new = self.only_host();
        kill(self.platform, &old);
        std::fs::write(inside(&new).join("run/fail"), "").unwrap();
        let push = self.platform.ended(&self.app, number);
        assert_eq!(push["state"], "failed", "{push:#}");
        (push, old)
    }

    fn only_host(&self) -> String {
        let mut serving = self.hosts();
        serving.retain(|host| host["wanted"] == "serving");
        assert_eq!(serving.len(), 1, "{serving:#?}");
        serving[0]["id"].as_str().unwrap().to_owned()
    }

    /// The newest deployment undoes the one before.
    fn undid(&self, release: u64, state: &str) -> Value {
        let list = self.platform.json(&["deployments", "list", &self.dev]);
        let undo = list["items"][0].clone();
        assert_eq!(
            (&undo["release"], &undo["state"], &undo["strategy"]),
            (&release.into(), &state.into(), &"blue-green".into()),
            "{list:#}"
        );
        undo
    }
}

/// The release before gets others first, while the failed one serves; where it gets none, the failed one goes on.
#[test]
fn the_traffic_does_not_go_back_to_a_host_that_died() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "regain");
    let app = App::new("strategy: blue-green", 1);
    app.copy.write(
        "vend.yaml",
        app.vend_yaml.replace("keep_old: 2s", "keep_old: 10m"),
    );
    let directory = app.copy.directory.path();
    let appspec = std::fs::read_to_string(directory.join("appspec.yml")).unwrap();
    let after = "  AfterAllowTraffic: [{ location: after.sh, timeout: 120 }]\n";
    app.copy.write("appspec.yml", format!("{appspec}{after}"));
    app.copy.write("after.sh", "#!/bin/sh\n");
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");

    let load = Load::on(&platform.http(), &stage.host);
    let (push, old) = stage.fails_over_a_dead_host(&app, "two");
    assert!(!push["reason"].as_str().unwrap().contains("stays"), "{push:#}");
    stage.serves("one");
    assert_ne!(stage.only_host(), old);
    let undo = stage.undid(1, "Succeeded");
    assert!(
        undo["reason"].as_str().unwrap().starts_with("it undid "),
        "{undo:#}"
    );

    // One that does not start where its neighbour says `four`.
    let start = std::fs::read_to_string(directory.join("start.sh")).unwrap();
    let alone = "#!/bin/sh\nhere=$(dirname \"$0\")\nperl \"$here/neighbour.pl\" four && exit 3\n";
    app.copy.write("neighbour.pl", NEIGHBOUR);
    app.copy.write("start.sh", start.replace("#!/bin/sh\n", alone));
    app.copy.write("after.sh", "#!/bin/sh\n");
    app.says("three");
    platform.release(&app.copy, &stage.app, "dev");
    let (push, _) = stage.fails_over_a_dead_host(&app, "four");
    let reason = push["reason"].as_str().unwrap();
    assert!(
        reason.contains(
            "; v4 is live already, and stays: v3 has no host that is well, and did not get others: "
        ),
        "{push:#}"
    );
    stage.undid(3, "Failed");
    stage.serves("four");
    nothing_was_lost(load);
    stage.end();
}
