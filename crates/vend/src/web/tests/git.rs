//! The real git against the real doors.

use std::{path::Path, process::Output};

use model::policy::Role;
use tokio::{net::TcpListener, process::Command};

use super::world::World;

/// The TCP door of a world. Ends with it.
async fn door(world: &World) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = crate::web::router(world.state.clone());
    tokio::spawn(crate::web::tcp(listener, router, world.stop.clone()));
    address.to_string()
}

async fn git(directory: &Path, arguments: &[&str]) -> Output {
    let output = Command::new("git")
        .args(["-c", "user.name=Ann", "-c", "user.email=ann@acme.example"])
        .args([
            "-c",
            "credential.helper=",
            "-c",
            "init.defaultBranch=main",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output();
    tokio::time::timeout(std::time::Duration::from_secs(60), output)
        .await
        .unwrap()
        .unwrap()
}

async fn well(directory: &Path, arguments: &[&str]) -> String {
    let output = git(directory, arguments).await;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "git {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned() + &errors
}

/// A working tree with one commit.
async fn tree(directory: &Path) {
    std::fs::create_dir(directory).unwrap();
    well(directory, &["init", "--quiet"]).await;
    commit(
        directory,
        "vend.yaml",
        "app: shop\n",
        "The first\n\nWith a body, and “quotes”.",
    )
    .await;
}

async fn commit(directory: &Path, file: &str, text: &str, message: &str) {
    std::fs::write(directory.join(file), text).unwrap();
    well(directory, &["add", "--all"]).await;
    well(directory, &["commit", "--quiet", "-m", message]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_received_handed_over_and_cloned() {
    let world = World::new().await;
    let address = door(&world).await;
    let token = world.token(Role::Developer, Some("acme")).await;
    let url = format!("http://x:{token}@{address}/git/acme/shop.git");
    let work = world.directory.path().join("work");
    tree(&work).await;
    let said = well(
        &work,
        &["push", &url, "HEAD:refs/heads/dev", "HEAD:refs/heads/other"],
    )
    .await;
    assert!(said.contains("remote: dev at"), "{said}");
    let head = well(&work, &["rev-parse", "HEAD"]).await;
    {
        let pushes = world.recorder.pushes.lock().unwrap();
        let branches: Vec<&str> = pushes.iter().map(|push| push.branch.as_str()).collect();
        assert_eq!(branches, ["dev", "other"]);
        let push = &pushes[0];
        assert_eq!(
            (push.commit.id.as_str(), push.before.as_deref()),
            (head.as_str(), None)
        );
        assert_eq!(push.commit.author, "Ann <ann@acme.example>");
        assert_eq!(push.commit.message, "The first\n\nWith a body, and “quotes”.");
        assert_eq!(
            (push.pusher.as_str(), push.origin.as_str()),
            ("token:developer-acme", "git")
        );
    }
    // The same again is nothing new; a rewritten branch is.
    well(&work, &["push", &url, "HEAD:refs/heads/dev"]).await;
    assert_eq!(world.recorder.pushes.lock().unwrap().len(), 2);
    well(&work, &["commit", "--quiet", "--amend", "-m", "Rewritten"]).await;
    well(&work, &["push", "--force", &url, "HEAD:refs/heads/dev"]).await;
    assert_eq!(
        world.recorder.pushes.lock().unwrap()[2].before.as_deref(),
        Some(head.as_str())
    );
    let copy = world.directory.path().join("copy");
    well(
        world.directory.path(),
        &[
            "clone",
            "--quiet",
            "--branch",
            "dev",
            &url,
            copy.to_str().unwrap(),
        ],
    )
    .await;
    assert_eq!(
        std::fs::read_to_string(copy.join("vend.yaml")).unwrap(),
        "app: shop\n"
    );
    let refs = well(&work, &["ls-remote", &url]).await;
    assert!(!refs.contains("refs/vend"), "{refs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_push_goes_through_in_pieces() {
    let world = World::new().await;
    let address = door(&world).await;
    let token = world.token(Role::Developer, Some("acme")).await;
    let url = format!("http://x:{token}@{address}/git/acme/shop.git");
    let work = world.directory.path().join("work");
    tree(&work).await;
    // Larger than git's own buffer, so that it is sent in chunks; and nothing that compresses.
    let noise: String = (0..400_000u64)
        .map(|n| format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (n << 7)))
        .collect();
    commit(&work, "noise", &noise, "Noise").await;
    well(&work, &["push", "--quiet", &url, "HEAD:refs/heads/dev"]).await;
    assert_eq!(world.recorder.pushes.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_hold_for_git_too() {
    let world = World::new().await;
    let address = door(&world).await;
    let work = world.directory.path().join("work");
    tree(&work).await;
    let url = |token: &str| format!("http://x:{token}@{address}/git/acme/shop.git");
    let push = |url: String| {
        let work = work.clone();
        async move { git(&work, &["push", &url, "HEAD:refs/heads/dev"]).await }
    };
    let foreigner = world.token(Role::Operator, Some("other")).await;
    let auditor = world.token(Role::Auditor, Some("acme")).await;
    let developer = world.token(Role::Developer, Some("acme")).await;
    for (token, code) in [
        ("wrong", "Authentication failed"),
        (&*foreigner, "not found"),
        (&*auditor, "403"),
    ] {
        let output = push(url(token)).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(code), "{code}: {said}");
    }
    assert!(world.recorder.pushes.lock().unwrap().is_empty());
    assert!(push(url(&developer)).await.status.success());
    // Who may look may fetch; who may not, may not.
    well(&work, &["ls-remote", &url(&auditor)]).await;
    assert!(
        !git(&work, &["ls-remote", &url(&foreigner)])
            .await
            .status
            .success()
    );
    let nowhere = format!("http://x:{developer}@{address}/git/acme/nothing.git");
    assert!(!git(&work, &["ls-remote", &nowhere]).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_git_received_before_a_kill_is_handed_over_after() {
    let world = World::new().await;
    let work = world.directory.path().join("work");
    tree(&work).await;
    // As if the platform had died after git had moved the branch.
    let (tenant, app) = ("acme".parse().unwrap(), "shop".parse().unwrap());
    let path = world.state.repositories.ensure(&tenant, &app).await.unwrap();
    well(&work, &["push", "--quiet", path.as_str(), "HEAD:refs/heads/dev"]).await;
    crate::web::resume(&world.state).await.unwrap();
    crate::web::announce(&world.state).await.unwrap();
    assert_eq!(world.recorder.pushes.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_and_configuration_of_others_do_not_count() {
    let world = World::new().await;
    let address = door(&world).await;
    let token = world.token(Role::Developer, Some("acme")).await;
    let url = format!("http://x:{token}@{address}/git/acme/shop.git");
    let (tenant, app) = ("acme".parse().unwrap(), "shop".parse().unwrap());
    let path = world.state.repositories.ensure(&tenant, &app).await.unwrap();
    let (mark, hooks) = (world.directory.path().join("mark"), path.join("hooks"));
    std::fs::create_dir_all(&hooks).unwrap();
    for hook in ["pre-receive", "update", "post-receive", "post-update"] {
        let file = hooks.join(hook);
        std::fs::write(&file, format!("#!/bin/sh\ntouch {}\n", mark.display())).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&file, mode).unwrap();
    }
    let work = world.directory.path().join("work");
    tree(&work).await;
    well(&work, &["push", "--quiet", &url, "HEAD:refs/heads/dev"]).await;
    assert!(!mark.exists());
}
