//! Install and hooks where it takes a host of one's own: with SELinux's and ACLs' programs, and what cannot be made
//! executable.

use model::{
    Ticket,
    port::{Deployed, LifecycleEvent, ScriptCode},
};

use super::world::World;

const EVENTS: [LifecycleEvent; 3] = [
    LifecycleEvent::DownloadBundle,
    LifecycleEvent::Install,
    LifecycleEvent::AfterInstall,
];

async fn deploy(world: &World, number: u64, appspec: &str, more: &[(&str, &str)]) -> Deployed {
    let text = format!("version: 0.0\nos: linux\n{appspec}");
    let mut files = vec![("appspec.yml", text.as_str())];
    files.extend(more);
    world
        .deploy(
            &Ticket::from_bits(number),
            number,
            &files,
            Some("appspec.yml"),
            &EVENTS,
        )
        .await
}

/// The programs write down how they are called; the kernel's switch makes a host look as if it had SELinux.
#[tokio::test]
async fn the_programs_of_acls_and_contexts_are_called_in_the_agents_order() {
    let world = world!();
    for name in ["setfacl", "semanage", "restorecon"] {
        let script = format!(
            "#!/bin/sh\necho {name} \"$@\" $(stat -c '%a %U' /srv/shop/page 2>/dev/null) >>/srv/called\n"
        );
        world.file(&format!("/usr/sbin/{name}"), &script);
    }
    world.file("/sys/fs/selinux/enforce", "1");
    world
        .sh("chmod 755 /usr/sbin/setfacl /usr/sbin/semanage /usr/sbin/restorecon; rm -f /usr/bin/setfacl")
        .await;
    let appspec = "files: [{ source: page, destination: /srv/shop }]\npermissions:\n  - object: /srv/shop/page\n    mode: 640\n    \
        owner: nobody\n    acls: ['u:daemon:rw']\n    context: { name: system_u, type: httpd_t, range: s0 }\n";
    let deployed = deploy(&world, 1, appspec, &[("page", "hello")]).await;
    assert!(deployed.failure().is_none(), "{deployed:?}");
    let called = world
        .sh("cat /srv/called; stat -c '%a %U' /srv/shop/page")
        .await
        .stdout;
    assert_eq!(
        called,
        "setfacl --set user:daemon:rw-,u::6,g::4,o::0,m::4 -- /srv/shop/page 640 root\n\
         semanage fcontext -a -t httpd_t -s system_u -r s0 -- /srv/shop/page 640 root\n\
         restorecon -- /srv/shop/page 640 root\n640 nobody\n"
    );
    // What the next one finds on record goes: the rule before its file.
    world.sh("rm /srv/called").await;
    let deployed = deploy(&world, 2, "", &[]).await;
    assert!(deployed.failure().is_none(), "{deployed:?}");
    let left = world.sh("cat /srv/called; ls -d /srv/shop").await.stdout;
    assert_eq!(left, "semanage fcontext -d -- /srv/shop/page 640 nobody\n");
}

#[tokio::test]
async fn a_script_that_cannot_be_made_executable_has_code_2() {
    let world = world!();
    let appspec = "hooks: { AfterInstall: [{ location: lock.sh }, { location: plain.sh }] }\n";
    let lock = "#!/bin/sh\ncd \"$(dirname \"$0\")\" && chmod -x plain.sh && mount --bind . . && mount -o remount,bind,ro .\n";
    let deployed = deploy(
        &world,
        1,
        appspec,
        &[("lock.sh", lock), ("plain.sh", "#!/bin/sh\n")],
    )
    .await;
    let failure = deployed
        .failure()
        .and_then(|report| report.failure.clone())
        .unwrap();
    assert_eq!(
        (failure.code, failure.script.as_str()),
        (ScriptCode::ScriptNotExecutable, "plain.sh"),
        "{failure:?}"
    );
    assert_eq!(
        failure.message,
        "Unable to set script at specified location: plain.sh as executable"
    );
}

/// The agent would put the file into it, and record the directory as its own.
#[tokio::test]
async fn a_directory_in_the_place_of_a_file_is_refused() {
    let world = world!();
    world.file("/srv/shop/page/kept", "");
    let appspec = "file_exists_behavior: OVERWRITE\nfiles: [{ source: page, destination: /srv/shop }]\n";
    let deployed = deploy(&world, 1, appspec, &[("page", "hello")]).await;
    let failure = deployed
        .failure()
        .and_then(|report| report.failure.clone())
        .unwrap();
    assert!(
        failure
            .message
            .contains("a directory is in the place of the file /srv/shop/page"),
        "{failure:?}"
    );
    assert_eq!(world.sh("ls /srv/shop/page").await.stdout, "kept\n");
}
