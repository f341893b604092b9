//! Ports that the load balancer opens itself: below 1024 for one domain, with gRPC behind it, and what somebody else has.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::Command,
    time::{Duration, SystemTime},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::platform::{Copy, Platform, can_run, eventually, get, tenant};

const CALLS: &str = include_str!("../clients/calls.py");

/// A port that only who is privileged may have, and nobody has.
fn privileged() -> u16 {
    let mut ports = (700..1024).rev();
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("one of three hundred is free")
}

/// The Python that `cargo xtask test` makes beside the build.
fn python() -> Option<PathBuf> {
    let own = std::env::current_exe().unwrap();
    let mut found = own.ancestors().map(|folder| folder.join("clients/bin/python"));
    found.find(|python| python.exists())
}

/// Calls a host at an address of the load balancer; what went wrong.
fn call(python: &PathBuf, address: &str, host: &str) -> Result<(), String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/calls.py");
    let called = Command::new(python)
        .args([script, "ask", address, host])
        .output()
        .unwrap();
    match called.status.success() && called.stdout == b"all was answered\n" {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&called.stderr).into_owned()),
    }
}

#[test]
fn a_host_that_speaks_grpc_is_called_at_a_port_of_its_domain_below_1024() {
    if !can_run() {
        return;
    }
    let Some(python) = python() else {
        println!("skipped: grpcio is not there; `cargo xtask test` installs it");
        return;
    };
    let (tenant, port) = (tenant("calls"), privileged());
    let domain = format!("calls.{tenant}.example");
    let platform = Platform::with(&format!(
        "[listen.dedicated.'{domain}']\nhttp = '127.0.0.1:{port}'\n"
    ));
    let app = format!("{tenant}/shop");
    platform.vend(&["tenants", "create", &tenant]);
    platform.vend(&["apps", "create", &app]);
    let yaml = |more: &str| {
        format!(
            "app: shop
image: {{ base: debian-12, scripts: [install.sh], inputs: [install.sh] }}
host:
  traffic: {{ protocol: grpc }}
  health: {{ interval: 1s, timeout: 1s, healthy: 2, unhealthy: 2 }}
{more}domains: [{{ host: {domain}, dedicated_balancer: true }}]
"
        )
    };
    let copy = Copy::new("calls", &yaml(""));
    copy.write(
        "install.sh",
        "#!/bin/sh\nset -eu\napt-get update -qq\nDEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
         --no-install-recommends python3-grpcio\n",
    );
    copy.write("calls.py", CALLS);
    copy.write("Procfile", "web: exec python3 calls.py serve\n");
    copy.commit("It is called");
    platform.release(&copy, &app, "main");

    let table = platform.json(&["edge", "routes"]);
    let group = &table["target_groups"][&format!("{app}/production/v1")];
    assert_eq!(
        (&group["protocol"], &group["health"]["protocol"]),
        (&"grpc".into(), &"grpc".into()),
        "{group:#}"
    );
    let (own, at) = (
        format!("production.shop.{tenant}.localhost"),
        format!("127.0.0.1:{port}"),
    );
    let places = [
        (platform.http(), &own),
        (platform.http(), &domain),
        (at.clone(), &domain),
    ];
    for (address, host) in &places {
        eventually(
            &format!("{host} is called at {address}"),
            Duration::from_secs(30),
            || {
                call(&python, address, host)
                    .inspect_err(|why| println!("{why}"))
                    .ok()
            },
        );
    }
    // What is not gRPC is not for such hosts, and nobody else is to be had at the port.
    assert_eq!(get(&at, &domain, "/").unwrap().0, 464);
    assert_eq!(get(&at, &own, "/").unwrap().0, 503);

    // A release that says of itself that it is not well gets no traffic.
    copy.write("vend.yaml", yaml("  env: { ILL: \"yes\" }\n"));
    copy.commit("It is ill");
    let number = platform.push(&copy, &app, "main");
    let push = platform.ended(&app, number);
    assert_eq!(push["state"], "failed", "{push:#}");
    for (address, host) in &places {
        call(&python, address, host).unwrap();
    }
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}

/// Another program takes the supervisor's place while somebody else has an address that is new in `platform.toml`:
/// whoever asks for that with `up --replace` is told before; this is what happens when it is taken in between.
#[test]
fn a_platform_goes_on_without_an_address_that_somebody_else_has() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let toml = platform.data().join("platform.toml");
    let before = std::fs::read_to_string(&toml).unwrap();
    std::fs::write(&toml, format!("{before}[listen]\nhttps = '{at}'\n")).unwrap();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_vend"));
    let asked = Command::new(&program)
        .args(["up", "--replace", "--data"])
        .arg(platform.data())
        .output()
        .unwrap();
    assert!(
        !asked.status.success(),
        "it is told before anything happens: {asked:?}"
    );
    let (edge, begun) = (platform.pid("edge"), SystemTime::now());
    std::fs::write(
        platform.data().join("run/next"),
        program.as_os_str().as_encoded_bytes(),
    )
    .unwrap();
    let lock = std::fs::read_to_string(platform.data().join("run/up.lock")).unwrap();
    let supervisor = Pid::from_raw(lock.trim().parse().unwrap()).unwrap();
    kill_process(supervisor, Signal::USR2).unwrap();
    eventually("all roles are there again", Duration::from_secs(60), || {
        let ready = std::fs::metadata(platform.data().join("run/up.ready")).and_then(|file| file.modified());
        ready.is_ok_and(|ready| ready > begun).then_some(())
    });
    assert_ne!(platform.pid("edge"), edge);
    // Hosts are there, or not, as ever; what cannot be had is said.
    assert_eq!(platform.get("nobody.localhost", "/").0, 301);
    let health = platform.json(&["health"]);
    let said = format!("cannot listen at {at} (https)");
    assert!(
        health["ok"] == true && health.to_string().contains(&said),
        "{health:#}"
    );
    let sockets = platform.vend(&["edge", "sockets"]);
    assert!(
        sockets.contains("every rule") && sockets.contains("in use"),
        "{sockets}"
    );
    drop(taken);
    eventually("it is had as soon as it is free", Duration::from_secs(30), || {
        let sockets = platform.json(&["edge", "sockets"]);
        let mut all = sockets.as_array().unwrap().iter();
        all.all(|socket| socket["problem"].is_null()).then_some(())
    });
    assert!(std::net::TcpStream::connect(at).is_ok());
    assert!(!platform.json(&["health"]).to_string().contains("cannot listen"));
}
