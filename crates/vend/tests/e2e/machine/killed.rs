//! An agent that is killed with -9 and comes back: what it ran goes on, once, and a script that ran does not.

use super::*;

/// Runs until somebody stops it, and says more and more.
const WORKER: &str = "worker: echo begun >>/srv/begun; while :; do echo tick of $GREETING; echo t >>/srv/ticks; sleep 0.1; done\n";
const OF_WORKER: &str = "t >>/srv/ticks";

#[test]
fn what_an_agent_ran_that_was_killed_goes_on_once_and_its_script_ends() {
    if !can_run() {
        return;
    }
    let platform = for_machines("");
    let (owner, app) = platform.tenant_with_app("killed");
    let (on, ..) = Machine::joins_after(&platform, &owner, &["role=web"], |on| on.is_service = true);
    tells_what_it_uses(&platform, &owner, &on);

    let work = Copy::new("one", VEND_YAML);
    work.write("Procfile", WORKER);
    work.commit("A worker");
    platform.release(&work, &app, "dev");
    let begun = || text(&on.file("srv/begun")).lines().count();
    on.goes_on();
    let first = on.processes(OF_WORKER);
    assert_eq!(first.len(), 1, "{first:?}");

    on.kill_agent(&platform, &owner, || {});
    on.goes_on();
    assert_eq!((on.processes(OF_WORKER), begun()), (first.clone(), 1));
    // It is looked after as before.
    end(first[0]);
    eventually("it is started again", Duration::from_secs(40), || {
        (begun() == 2).then_some(())
    });
    on.goes_on();

    // What ends while there is no agent is begun by the next one.
    let second = on.processes(OF_WORKER);
    on.kill_agent(&platform, &owner, || end(second[0]));
    eventually("it is begun", Duration::from_secs(40), || {
        (begun() == 3).then_some(())
    });
    on.goes_on();
    // A shell that is just beginning another program has its name twice.
    eventually("there is one", Duration::from_secs(40), || {
        (on.processes(OF_WORKER).len() == 1).then_some(())
    });

    // What another agent left is stopped as what it ran itself.
    on.kill_agent(&platform, &owner, || {});
    work.write("Procfile", "");
    work.write(
        "appspec.yml",
        "version: 0.0\nos: linux\nhooks: { BeforeInstall: [{ location: slow.sh, timeout: 600 }] }\n",
    );
    work.write("slow.sh", "#!/bin/sh\necho slow >>/srv/slow\nsleep 4321\n");
    work.commit("A script");
    let push = platform.push(&work, &app, "dev");
    eventually("the script runs", Duration::from_secs(120), || {
        (!on.processes("sleep 4321").is_empty()).then_some(())
    });
    assert_eq!(on.processes(OF_WORKER), [0; 0], "it was stopped before");
    assert_eq!(begun(), 3);

    // A script that runs meanwhile has failed, and does not go on.
    on.kill_agent(&platform, &owner, || {});
    let failed = platform.ended(&app, push);
    let reason = failed["reason"].as_str().unwrap_or_default();
    assert!(
        failed["state"] == "failed" && reason.contains("The agent ended while BeforeInstall ran"),
        "{failed:#}"
    );
    eventually("the script has ended", Duration::from_secs(40), || {
        on.processes("sleep 4321").is_empty().then_some(())
    });
    assert_eq!(text(&on.file("srv/slow")), "slow\n", "it ran once");
    eventually("the release before is back", Duration::from_secs(60), || {
        (begun() == 4).then_some(())
    });
    on.goes_on();
    platform.vend(&["tenants", "delete", &owner, "--yes"]);
}

/// What the whole machine uses is told with it.
fn tells_what_it_uses(platform: &Platform, owner: &str, on: &Machine) {
    let used = eventually("it says what it uses", Duration::from_secs(60), || {
        let machine = machine(platform, owner, "connected", on);
        let usage = &machine["usage"];
        usage["cpu_percent"].is_u64().then(|| usage.clone())
    });
    for name in ["memory", "disk"] {
        let [part, whole] = ["bytes", "total_bytes"].map(|end| used[format!("{name}_{end}")].as_u64());
        assert!(part > Some(0) && part < whole, "{used:#}");
    }
    assert!(
        used["cores"].as_u64() > Some(0) && used["cpu_ms"].as_u64() > Some(0),
        "{used:#}"
    );
    let shown = platform.vend(&["hosts", "list", owner]);
    assert!(shown.contains(" % ") && shown.contains("iB of "), "{shown}");
}

fn end(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

impl Machine {
    /// The worker does what it does, and its log has what it says.
    fn goes_on(&self) {
        let ticks = || text(&self.file("srv/ticks")).lines().count();
        let log = || text(&self.inside("run/vend-machine/logs/worker.log"));
        let said = || log().matches("tick of hello").count();
        let before = (ticks(), said());
        eventually("it goes on, and is heard", Duration::from_secs(60), || {
            (ticks() > before.0 && said() > before.1).then_some(())
        });
    }

    /// Kills the agent, and waits for the next one.
    fn kill_agent(&self, platform: &Platform, owner: &str, meanwhile: impl FnOnce()) {
        let dialled = || self.said().matches("connected as").count();
        let before = dialled();
        let agents = self.processes("vend agent");
        assert_eq!(agents.len(), 1, "{agents:?}");
        end(agents[0]);
        meanwhile();
        eventually("the next agent has dialled", Duration::from_secs(60), || {
            (dialled() > before).then_some(())
        });
        machine(platform, owner, "connected", self);
    }
}
