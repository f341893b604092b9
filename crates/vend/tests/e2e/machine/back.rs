//! Machines that are given back.

use super::*;

/// A process that says when it begins, and that it goes on.
const WORKER: &str = "worker: echo begun >>/srv/begun; while :; do echo tick >>/srv/ticks; sleep 0.1; done\n";

#[test]
fn an_agent_is_replaced_under_what_it_runs_and_a_machine_that_was_left_is_given_back() {
    if !can_run() {
        return;
    }
    let platform = for_machines("");
    let (owner, app) = platform.tenant_with_app("left");
    let freed = ledger(&platform, "machine.free");
    let (on, ..) = Machine::joins(&platform, &owner, &["role=web"]);
    machine(&platform, &owner, "connected", &on);

    let work = Copy::new("one", VEND_YAML);
    let served = std::fs::read_to_string(work.directory.path().join("Procfile")).unwrap();
    work.write("Procfile", WORKER);
    work.commit("A worker");
    platform.release(&work, &app, "dev");
    let (begun, ticks) = (
        || text(&on.file("srv/begun")),
        || text(&on.file("srv/ticks")).lines().count(),
    );
    assert_eq!(begun(), "begun\n", "{}", on.said());

    let (pid, said) = (on.pid(), on.said().matches("connected as").count());
    kill_process(pid, Signal::HUP).unwrap();
    eventually("it has dialled again", Duration::from_secs(40), || {
        (on.said().matches("connected as").count() > said).then_some(())
    });
    machine(&platform, &owner, "connected", &on);
    let before = ticks();
    eventually("it goes on", Duration::from_secs(20), || {
        (ticks() > before).then_some(())
    });
    assert_eq!((on.pid(), begun()), (pid, "begun\n".to_owned()), "{}", on.said());
    // The agent that took over knows what it supervises.
    work.write("Procfile", WORKER.replace("echo begun", "echo anew"));
    work.commit("Another worker");
    platform.release(&work, &app, "dev");
    assert_eq!(begun(), "begun\nanew\n");

    work.write("vend.yaml", "app: shop\nenvironments:\n  dev: { branch: dev }\n");
    work.write("Procfile", served);
    work.commit("On hosts of the platform");
    platform.release(&work, &app, "dev");
    eventually("the machine is nobody's", Duration::from_secs(40), || {
        let machine = machine(&platform, &owner, "connected", &on);
        machine["place"].is_null().then_some(())
    });
    assert_eq!(ledger(&platform, "machine.free"), freed + 1);
    stays(ticks);
    platform.vend(&["tenants", "delete", &owner, "--yes"]);
}

/// A number that does not grow any more.
fn stays(count: impl Fn() -> usize) {
    let before = count();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(count(), before, "it goes on");
}

/// Whatever takes a machine from its environment, what ran there ends first.
#[test]
fn machines_with_other_labels_and_those_of_an_environment_that_is_destroyed_are_given_back_without_the_app() {
    if !can_run() {
        return;
    }
    let platform = for_machines("");
    let (owner, app) = platform.tenant_with_app("back");
    let dev = format!("{app}/dev");
    let freed = ledger(&platform, "machine.free");
    let boxes: Vec<Machine> = ["one", "two"]
        .into_iter()
        .map(|rack| Machine::joins(&platform, &owner, &["role=web", &format!("rack={rack}")]).0)
        .collect();
    machines(&platform, &owner, 2);
    let ticks = |at: usize| text(&boxes[at].file("srv/ticks")).lines().count();
    let grows = |at: usize| {
        let before = ticks(at);
        eventually("it runs", Duration::from_secs(20), || {
            (ticks(at) > before).then_some(())
        });
    };
    let is_nobodys = |rack: &str| {
        eventually("it is nobody's", Duration::from_secs(60), || {
            let hosts = platform.json(&["hosts", "list", &owner]);
            let own = hosts["machines"]
                .as_array()?
                .iter()
                .find(|own| own["labels"]["rack"] == rack)?
                .clone();
            own["place"].is_null().then_some(())
        });
    };

    let work = Copy::new("one", VEND_YAML);
    work.write("Procfile", WORKER);
    work.commit("A worker");
    platform.release(&work, &app, "dev");
    grows(0);
    grows(1);

    work.write(
        "vend.yaml",
        VEND_YAML.replace("role: web", "role: web, rack: two"),
    );
    work.commit("In one rack only");
    platform.release(&work, &app, "dev");
    is_nobodys("one");
    assert_eq!(ledger(&platform, "machine.free"), freed + 1);
    stays(|| ticks(0));
    grows(1);
    let why = platform.vend(&["why", &dev]);
    assert!(!why.contains("of 2 machines"), "{why}");

    platform.vend(&["environments", "destroy", &dev, "--yes"]);
    is_nobodys("two");
    assert_eq!(ledger(&platform, "machine.free"), freed + 2);
    stays(|| ticks(1));
    drop(boxes);
    platform.vend(&["tenants", "delete", &owner, "--yes"]);
}
