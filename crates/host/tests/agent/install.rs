//! Install and hooks where it takes a host of one's own: with SELinux's and ACLs' programs, what cannot be made
//! executable, and how far they have come.

use model::{
    Ticket,
    port::{Deployed, EventStatus, LifecycleEvent, ScriptCode},
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
        "setfacl --set user:daemon:rw-,user::rw-,group::r--,other::---,mask::r-- -- /srv/shop/page 640 root\n\
         semanage fcontext -a -s system_u -t httpd_t -r s0 -- /srv/shop/page 640 root\n\
         restorecon -v -- /srv/shop/page 640 root\n640 nobody\n"
    );
    // What the next one finds on record goes: the rule before its file.
    world.sh("rm /srv/called").await;
    let deployed = deploy(&world, 2, "", &[]).await;
    assert!(deployed.failure().is_none(), "{deployed:?}");
    let left = world.sh("cat /srv/called; ls -d /srv/shop").await.stdout;
    assert_eq!(left, "semanage fcontext -d -- /srv/shop/page 640 nobody\n");
    // One that the policy does not take is told in the agent's words.
    world
        .sh("printf '#!/bin/sh\\necho no such type >&2\\nexit 1\\n' >/usr/sbin/semanage")
        .await;
    let deployed = deploy(&world, 3, appspec, &[("page", "hello")]).await;
    let failure = deployed
        .failure()
        .and_then(|report| report.failure.clone())
        .unwrap();
    let told = "The deployment failed because the application specification file contains an error in the settings for the \
                context parameter. Update the permissions section of the AppSpec file, and then try again. Failed command: \
                semanage fcontext -a -s system_u -t httpd_t -r s0 /srv/shop/page. Exit code: pid ";
    assert!(failure.message.starts_with(told), "{failure:?}");
    assert!(failure.message.ends_with(" exit 1: no such type"), "{failure:?}");
}

/// With the real programs of the package acl.
#[tokio::test]
async fn an_acl_is_on_the_file_and_a_wrong_one_is_refused() {
    let world = world!();
    let there = world
        .sh("command -v setfacl getfacl && touch /srv/probe && setfacl -m u:daemon:r /srv/probe")
        .await;
    if there.code != Some(0) {
        println!("skipped: no setfacl here, or no ACLs on its file system: {there:?}");
        return;
    }
    let appspec = |acl: &str| {
        format!(
            "files: [{{ source: page, destination: /srv/shop }}]\npermissions:\n  - object: /srv/shop/page\n    mode: 640\n    \
             acls: ['{acl}']\n"
        )
    };
    let deployed = deploy(&world, 1, &appspec("u:daemon:rw"), &[("page", "hello")]).await;
    assert!(deployed.failure().is_none(), "{deployed:?}");
    let acl = world
        .sh("getfacl --omit-header --absolute-names /srv/shop/page")
        .await;
    let words: Vec<&str> = acl
        .stdout
        .lines()
        .map(|line| line.split('\t').next().unwrap())
        .collect();
    let expected = [
        "user::rw-",
        "user:daemon:rw-",
        "group::r--",
        "mask::r--",
        "other::---",
        "",
    ];
    assert_eq!(words, expected, "{acl:?}");

    let deployed = deploy(&world, 2, &appspec("u:nobody-here:rw"), &[("page", "hello")]).await;
    let failure = deployed
        .failure()
        .and_then(|report| report.failure.clone())
        .unwrap();
    for told in [
        "Failed command: setfacl --set user:nobody-here:rw-,user::rw-,group::r--,other::---,mask::r-- /srv/shop/page. \
         Exit code: pid ",
        " exit 2: setfacl: Option -s: Invalid argument near character",
    ] {
        assert!(failure.message.contains(told), "{failure:?}");
    }

    // What counts is how it ends, not whether it says something.
    for (code, well) in [(0, true), (1, false)] {
        world
            .sh(&format!(
                "printf '#!/bin/sh\\n{} >&2\\nexit {code}\\n' >/usr/bin/setfacl",
                if well { "echo careful" } else { "true" }
            ))
            .await;
        let number = 10 + code;
        let deployed = deploy(&world, number, &appspec("u:daemon:rw"), &[("page", "hello")]).await;
        assert_eq!(deployed.failure().is_none(), well, "{deployed:?}");
    }
    world
        .sh("rm -f /usr/bin/setfacl /usr/sbin/setfacl /bin/setfacl")
        .await;
    let deployed = deploy(&world, 20, &appspec("u:daemon:rw"), &[("page", "hello")]).await;
    let failure = deployed
        .failure()
        .and_then(|report| report.failure.clone())
        .unwrap();
    assert!(
        failure.message.contains("setfacl is not installed"),
        "{failure:?}"
    );
}

/// A script with `runas` is that user's, with the directory and the groups of one who logged in.
#[tokio::test]
async fn a_script_runs_as_the_user_that_it_names() {
    let world = world!();
    let made = world
        .sh("useradd --create-home --shell /bin/sh --groups adm clerk")
        .await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let appspec = "hooks: { AfterInstall: [{ location: who.sh, runas: clerk }, { location: who.sh }] }\n";
    let who = "#!/bin/sh\necho \"I am $(id -un) of $(id -Gn) at $HOME with $LIFECYCLE_EVENT\"\ntouch /etc/mine 2>/dev/null && echo mighty\nexit 0\n";
    let deployed = deploy(&world, 1, appspec, &[("who.sh", who)]).await;
    assert!(deployed.failure().is_none(), "{deployed:?}");
    let log = world
        .run()
        .join(format!("logs/deploy-{}.log", Ticket::from_bits(1)));
    let log = std::fs::read_to_string(log).unwrap();
    let said: Vec<&str> = log
        .lines()
        .filter_map(|line| Some(line.split_once("[stdout]")?.1))
        .collect();
    assert_eq!(
        said,
        [
            "I am clerk of clerk adm at /home/clerk with AfterInstall",
            "I am root of root at /root with AfterInstall",
            "mighty",
        ],
        "{log}"
    );
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

/// People look at deployments that run.
#[tokio::test]
async fn how_far_a_deployment_has_come_is_told_while_it_runs() {
    use EventStatus::{InProgress, Pending, Skipped, Succeeded};
    let world = world!();
    world.configure(&[]).await;
    let ticket = Ticket::from_bits(1);
    let appspec =
        "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: wait.sh\n      timeout: 60\n";
    let wait = "#!/bin/sh\ntouch /dev/shm/begun\nwhile ! test -e /dev/shm/go; do sleep 0.02; done\n";
    let files = [("appspec.yml", appspec), ("wait.sh", wait)];
    let events = [
        LifecycleEvent::ApplicationStop,
        LifecycleEvent::DownloadBundle,
        LifecycleEvent::Install,
        LifecycleEvent::AfterInstall,
        LifecycleEvent::ApplicationStart,
        LifecycleEvent::ValidateService,
    ];
    let told = async || -> Vec<EventStatus> {
        let progress = world.agent.progress(&ticket).await.unwrap();
        assert!(progress.events.iter().map(|report| report.event).eq(events) || progress.events.is_empty());
        progress.events.iter().map(|report| report.status).collect()
    };
    assert_eq!(told().await, []);
    let deploying = world.deploy(&ticket, 1, &files, Some("appspec.yml"), &events);
    let looking = async {
        let begun = async || world.sh("test -e /dev/shm/begun").await.code == Some(0);
        assert!(world.until_async(begun).await);
        let half = told().await;
        world.sh("touch /dev/shm/go").await;
        half
    };
    let (deployed, half) = tokio::join!(deploying, looking);
    assert_eq!(
        half,
        [Skipped, Succeeded, Succeeded, InProgress, Pending, Pending]
    );
    let statuses: Vec<EventStatus> = deployed.events.iter().map(|report| report.status).collect();
    assert_eq!(
        statuses,
        [Skipped, Succeeded, Succeeded, Succeeded, Skipped, Skipped]
    );
    assert_eq!(told().await, statuses);
}
