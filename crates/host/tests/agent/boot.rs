//! What starts with a host, because its image or a script says so.

use super::world::World;

#[tokio::test]
async fn what_is_enabled_starts_with_the_first_environment() {
    let world = world!();
    world.file(
        "/etc/systemd/system/boot.service",
        "[Service]\nExecStart=/bin/sh -c 'echo begun with $GREETING; exec sleep 1000'\n[Install]\nWantedBy=multi-user.target\n",
    );
    world.sh("systemctl enable boot").await;
    assert!(!world.agent.health().await.unwrap().configured);
    world.configure(&[]).await;
    assert!(
        world
            .until(|| world.log("boot").contains("begun with hello"))
            .await
    );
}

/// As scripts of a bake enable it, before there is an agent that could be asked.
#[tokio::test]
async fn what_an_image_has_enabled_starts_with_the_host() {
    let world = world!();
    let unit = |target: &str| {
        format!(
            "[Service]\nExecStart=/bin/sh -c 'echo begun %n; exec sleep 1000'\n[Install]\nWantedBy={target}\n"
        )
    };
    world.file("/usr/lib/systemd/system/one.service", &unit("multi-user.target"));
    world.file("/opt/app/two.service", &unit("default.target"));
    world.file("/etc/systemd/system/each@.service", &unit("graphical.target"));
    world.file("/usr/lib/systemd/system/not.service", &unit("multi-user.target"));
    let script = "#!/bin/sh\necho \"script $1\"\n";
    for (name, level) in [("first", "S01"), ("later", "S20"), ("off", "K01")] {
        world.file(&format!("/etc/init.d/{name}"), script);
        let link = format!("chmod +x /etc/init.d/{name}; ln -s ../init.d/{name} /etc/rc2.d/{level}{name}");
        assert_eq!(
            world.sh(&format!("mkdir -p /etc/rc2.d; {link}")).await.code,
            Some(0)
        );
    }
    let enabled = world
        .sh("export SYSTEMD_OFFLINE=1; set -e; systemctl enable --now one each@blue not; systemctl mask not; systemctl enable /opt/app/two.service; systemctl start one; systemctl daemon-reload; systemctl is-active one")
        .await;
    assert_eq!(
        (enabled.code, enabled.stdout.as_str()),
        (Some(3), "inactive\n"),
        "{enabled:?}"
    );
    world.configure(&[]).await;
    for (service, said) in [
        ("one", "begun one.service"),
        ("two", "begun two.service"),
        ("each_blue", "begun each@blue.service"),
        ("first", "script start"),
        ("later", "script start"),
    ] {
        let begun = world.until(|| world.log(service).contains(said)).await;
        assert!(begun, "{service}: {}", world.log(service));
    }
    for absent in ["not", "off"] {
        assert_eq!(world.log(absent), "", "{absent} is not enabled");
    }
    let asks = "systemctl is-active one two each@blue first later; systemctl is-enabled first off";
    let expected = "active\nactive\nactive\nactive\nactive\nenabled\ndisabled\n";
    let all = world
        .until_async(async || world.sh(asks).await.stdout == expected)
        .await;
    assert!(all, "{:?}", world.sh(asks).await);
}
