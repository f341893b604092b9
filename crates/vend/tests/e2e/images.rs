//! Images: what people see of them, in and out, and which of them production takes.

use std::{fs, path::Path, process::Output, time::Duration};

use serde_json::Value;

use crate::{
    platform::{Copy, Platform, can_run, eventually},
    registry::{LOGIN, Registry, there},
};

const VEND_YAML: &str = "app: shop
image: { scripts: [infra/install.sh] }
host: { health: { path: /, interval: 1s, timeout: 1s } }
environments:
  dev: { branch: dev }
  production: { branch: main, approval: { required: 1 } }
";

/// Says something new, and is a package of this version.
fn install(tenant: &str, version: &str) -> String {
    format!(
        "#!/bin/sh\n# {tenant}\nset -e\necho {version} > /etc/motd\n\
         own=/usr/lib/python3/dist-packages/shop-{version}.dist-info\nmkdir -p $own\n\
         printf 'Metadata-Version: 2.1\\nName: shop\\nVersion: {version}\\n' > $own/METADATA\n"
    )
}

fn copy(tenant: &str, vend_yaml: &str) -> Copy {
    let copy = Copy::new("one", vend_yaml);
    changes(&copy, &install(tenant, "1.0"));
    copy
}

/// Another script makes another image.
fn changes(copy: &Copy, script: &str) {
    copy.write("infra/install.sh", script);
    copy.commit("Another image");
}

/// The image of an environment's newest release.
fn newest(platform: &Platform, place: &str) -> String {
    let releases = platform.json(&["releases", "list", place]);
    releases["items"][0]["image"].as_str().unwrap().to_owned()
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]]
        .map(String::from_utf8_lossy)
        .concat()
}

#[test]
fn images_are_shown_compared_and_exchanged() {
    if !can_run() || !there(&["docker-registry", "skopeo", "python3"]) {
        return;
    }
    let platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("images");
    let dev = format!("{app}/dev");
    let copy = copy(&tenant, VEND_YAML);
    platform.release(&copy, &app, "dev");
    let first = newest(&platform, &dev);
    changes(&copy, &install(&tenant, "1.1"));
    platform.release(&copy, &app, "dev");
    let second = newest(&platform, &dev);
    assert_ne!(first, second);

    let listed = platform.json(&["images", "list", &app]);
    let listed: Vec<&str> = items(&listed)
        .iter()
        .filter_map(|image| image["digest"].as_str())
        .collect();
    assert!(
        listed.len() == 2 && listed.contains(&&*first) && listed.contains(&&*second),
        "{listed:?}"
    );
    let shown = platform.json(&["images", "show", &second]);
    assert_eq!(
        (&shown["base"], &shown["stale"]),
        (&"debian-12".into(), &false.into()),
        "{shown:#}"
    );
    assert_eq!(shown["layers"][1]["made_by"], "infra/install.sh", "{shown:#}");
    assert_eq!(shown["scripts"][0]["path"], "infra/install.sh");
    assert!(
        shown["commit"]["author"].as_str().unwrap().contains("Ada"),
        "{shown:#}"
    );
    assert!(
        items_of(&shown, "checks")
            .iter()
            .all(|check| check["passed"] == true),
        "{shown:#}"
    );
    assert!(
        items_of(&shown, "attestations").len() >= 2,
        "made and looked into: {shown:#}"
    );
    let bill: Value = serde_json::from_str(&platform.vend(&["images", "show", &second, "--bill"])).unwrap();
    assert_eq!(bill["spdxVersion"], "SPDX-2.3");
    let purls = bill["packages"].to_string();
    assert!(
        purls.contains("pkg:pypi/shop@1.1") && purls.contains("pkg:deb/debian/libc6@"),
        "{purls}"
    );

    let diff = platform.json(&["images", "diff", &first, &second]);
    let package = &diff["packages"][0];
    assert_eq!(
        (&package["name"], &package["before"], &package["after"]),
        (&"shop".into(), &"1.0".into(), &"1.1".into())
    );
    let files: Vec<&str> = items_of(&diff, "files")
        .iter()
        .filter_map(|file| file["path"].as_str())
        .collect();
    assert!(files.contains(&"etc/motd"), "{diff:#}");
    let executions = platform.json(&["executions", "list", &dev]);
    let plan = platform.vend(&["plan", "show", executions["items"][0]["id"].as_str().unwrap()]);
    assert!(plan.contains("package shop (pypi)"), "{plan}");

    let work = tempfile::tempdir().unwrap();
    exchanged(&platform, &second, work.path());
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}

/// Out as a file, a directory and into a registry; back from each of them as the same image.
fn exchanged(platform: &Platform, image: &str, work: &Path) {
    let path = |name: &str| work.join(name).display().to_string();
    let (tar, again, directory) = (path("image.tar"), path("again.tar"), path("layout"));
    platform.vend(&["images", "export", image, &tar, "--tag", "v1"]);
    platform.vend(&["images", "export", image, &again, "--tag", "v1"]);
    assert!(
        fs::read(&tar).unwrap() == fs::read(&again).unwrap(),
        "the same bytes each time"
    );
    platform.vend(&["images", "export", image, &directory, "--tag", "v1"]);
    let inspected = std::process::Command::new("skopeo")
        .args(["inspect", &format!("oci:{directory}:v1")])
        .output()
        .unwrap();
    assert!(inspected.status.success(), "{}", said(&inspected));

    let registry = Registry::start();
    let to = registry.reference("acme/shop:v1");
    let ask = |login: &str, arguments: &[&str]| {
        let mut command = platform.command(arguments);
        command.env("VEND_REGISTRY_LOGIN", login).output().unwrap()
    };
    for login in ["", "ada:wrong"] {
        let refused = ask(login, &["images", "push", image, &to]);
        assert!(
            !refused.status.success() && said(&refused).contains("does not"),
            "{}",
            said(&refused)
        );
    }
    let pushed = ask(LOGIN, &["images", "push", image, &to]);
    assert!(
        pushed.status.success() && said(&pushed).contains(&format!("{to}@sha256:")),
        "{}",
        said(&pushed)
    );
    told(&registry, said(&pushed).trim().rsplit('@').next().unwrap());
    let named = ask(LOGIN, &["images", "push", image, &format!("{to}@{image}")]);
    assert!(
        !named.status.success() && said(&named).contains("REGISTRY/NAME:TAG"),
        "{}",
        said(&named)
    );

    let from = format!("oci:{to}");
    for from in [&tar, &directory, &from] {
        let imported = ask(LOGIN, &["images", "import", from, "--json"]);
        assert!(imported.status.success(), "{from}: {}", said(&imported));
        let imported: Value = serde_json::from_slice(&imported.stdout).unwrap();
        assert_eq!(imported["image"], image, "{from}");
        assert_eq!(imported["bill"], true, "{from}: {imported:#}");
        let statements = items_of(&imported, "statements");
        assert!(statements.len() >= 2, "{from}: {imported:#}");
        assert!(
            statements.iter().all(|one| one["own"] == true),
            "{from}: {imported:#}"
        );
    }
    let missing = ask(
        LOGIN,
        &[
            "images",
            "import",
            &format!("oci:{}", registry.reference("acme/none:v1")),
        ],
    );
    assert!(
        !missing.status.success() && said(&missing).contains("there is no image"),
        "{}",
        said(&missing)
    );
    let unknown = platform.try_vend(&["images", "show", &format!("sha256:{}", "0".repeat(64))]);
    assert!(
        !unknown.status.success() && said(&unknown).contains("there is no image"),
        "{}",
        said(&unknown)
    );
}

/// What others find in a registry of what is told of an image. Debian's keeps no list: it is under a tag.
fn told(registry: &Registry, manifest: &str) {
    let tag = manifest.replace(':', "-");
    let inspected = std::process::Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false", "--creds", LOGIN])
        .arg(format!(
            "docker://{}",
            registry.reference(&format!("acme/shop:{tag}"))
        ))
        .output()
        .unwrap();
    assert!(inspected.status.success(), "{}", said(&inspected));
    let list: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    let mut kinds: Vec<&str> = items_of(&list, "manifests")
        .iter()
        .map(|entry| entry["artifactType"].as_str().unwrap())
        .collect();
    kinds.dedup();
    assert_eq!(
        kinds,
        ["application/spdx+json", "application/vnd.in-toto+json"],
        "{list:#}"
    );
}

fn items(page: &Value) -> &Vec<Value> {
    items_of(page, "items")
}

fn items_of<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    value[name]
        .as_array()
        .unwrap_or_else(|| panic!("no list `{name}` in {value:#}"))
}

/// What production says of the newest push, which it refused, and the command that it gives.
fn refused(platform: &Platform, app: &str, number: u64) -> String {
    let push = platform.ended(app, number);
    assert_eq!(push["state"], "failed", "{push:#}\n{}", platform.log());
    let why = platform.vend(&["why", app]);
    assert!(why.contains("production does not take image"), "{why}");
    why
}

/// Changes the platform's database behind its back.
fn tamper(platform: &Platform, sql: &str) {
    const RUN: &str =
        "import sqlite3,sys;db=sqlite3.connect(sys.argv[1],20);db.execute(sys.argv[2]);db.commit()";
    let output = std::process::Command::new("python3")
        .args(["-c", RUN])
        .arg(platform.data().join("serve/store.sqlite3"))
        .arg(sql)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn production_takes_only_images_that_are_signed_and_looked_into() {
    if !can_run() || !there(&["python3"]) {
        return;
    }
    let platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("proof");
    let approver = platform.token("ops@acme.example", "approver", &tenant);
    let copy = copy(&tenant, VEND_YAML);

    // While people think about it, what was signed is lost, or is another's.
    for (sql, why) in [
        (
            "DELETE FROM attestations WHERE predicate = 'provenance'",
            "the platform has not signed it",
        ),
        (
            "DELETE FROM attestations WHERE predicate = 'checks'",
            "nobody looked into it",
        ),
        (
            "UPDATE attestations SET statement = replace(statement, 'debian-12', 'debian-13')",
            "the platform has not signed it",
        ),
    ] {
        let number = platform.push(&copy, &app, "main");
        let approval = open_approval(&platform, &app);
        tamper(&platform, sql);
        platform.vend_as(&approver, &["approve", &approval, "--yes"]);
        let said = refused(&platform, &app, number);
        assert!(
            said.contains(why) && said.contains(&format!("vend push {app}")),
            "{said}"
        );
    }
    // As it says: the same commit again is signed anew, and is taken.
    let number = platform.push(&copy, &app, "main");
    platform.vend_as(&approver, &["approve", &open_approval(&platform, &app), "--yes"]);
    let push = platform.ended(&app, number);
    assert_eq!(push["state"], "done", "{push:#}\n{}", platform.log());

    // What does not pass is refused before anybody is asked, and dev may have it.
    changes(
        &copy,
        &format!("{}chmod 644 /etc/shadow\n", install(&tenant, "2.0")),
    );
    let number = platform.push(&copy, &app, "main");
    let said = refused(&platform, &app, number);
    assert!(
        said.contains("accounts are guarded") && said.contains("vend images show"),
        "{said}"
    );
    assert_eq!(
        items(&platform.json(&["approvals", "list", &app]))
            .iter()
            .filter(|one| one["state"] == "open")
            .count(),
        0
    );
    platform.release(&copy, &app, "dev");
    let shown = platform.vend(&["images", "show", &newest(&platform, &format!("{app}/dev"))]);
    assert!(
        shown.contains("failed") && shown.contains("/etc/shadow 644"),
        "{shown}"
    );
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}

fn open_approval(platform: &Platform, app: &str) -> String {
    eventually("an approval is asked for", Duration::from_secs(180), || {
        open(platform, app)
    })
}

fn open(platform: &Platform, app: &str) -> Option<String> {
    let all = platform.json(&["approvals", "list", app]);
    let open = items(&all).iter().find(|approval| approval["state"] == "open")?;
    Some(open["id"].as_str()?.to_owned())
}

const ON_A_REGISTRY: &str = "app: shop
image: { base: \"oci:BASE\", login: \"{{secret:registry}}\", scripts: [infra/install.sh] }
build: { image: \"oci:BASE\", login: \"{{secret:registry}}\" }
host: { health: { path: /, interval: 1s, timeout: 1s } }
approval: { required: 1 }
environments:
  dev: { branch: dev, image: { refresh: automatic } }
  staging: { branch: staging, image: { refresh: manual } }
  production: { branch: main }
";

#[test]
fn a_base_that_becomes_another_one_is_followed_as_the_app_says() {
    if !can_run() || !there(&["docker-registry", "python3"]) {
        return;
    }
    let platform = Platform::start();
    let (tenant, maker) = platform.tenant_with_app("bases");
    let registry = Registry::start();
    let name = registry.reference("acme/base:1");
    let base = format!("oci:{name}");
    let push_base = |image: &str| {
        let mut command = platform.command(&["images", "push", image, &name]);
        let pushed = command.env("VEND_REGISTRY_LOGIN", LOGIN).output().unwrap();
        assert!(pushed.status.success(), "{}", said(&pushed));
    };
    let maker_copy = copy(&tenant, VEND_YAML);
    platform.release(&maker_copy, &maker, "dev");
    push_base(&newest(&platform, &format!("{maker}/dev")));

    let app = format!("{tenant}/site");
    platform.vend(&["apps", "create", &app]);
    let approver = platform.token("ops@acme.example", "approver", &tenant);
    let vend_yaml = ON_A_REGISTRY
        .replace("BASE", &name)
        .replace("app: shop", "app: site");
    let copy = Copy::new("one", &vend_yaml);
    copy.write(
        "buildspec.yml",
        "version: 0.2\nphases: { build: { commands: ['echo \"made in $(cat /etc/motd)\"'] } }\n",
    );
    changes(
        &copy,
        &format!("#!/bin/sh\n# {tenant}\ncp /etc/motd /etc/copied\n"),
    );
    let number = platform.push(&copy, &app, "dev");
    let push = platform.ended(&app, number);
    assert!(
        push["reason"].as_str().unwrap_or_default().contains("registry"),
        "no login yet: {push:#}"
    );
    platform.set_secret(&app, "registry", LOGIN);
    let approve = |number: u64| {
        platform.vend_as(&approver, &["approve", &open_approval(&platform, &app), "--yes"]);
        platform.ended(&app, number)
    };
    for branch in ["dev", "staging", "main"] {
        let number = platform.push(&copy, &app, branch);
        let push = approve(number);
        assert_eq!(push["state"], "done", "{branch}: {push:#}\n{}", platform.log());
    }
    // Builds run in it, too, by the same login.
    let made_in = |environment: &str| {
        let pushes = platform.json(&["pushes", "list", &app]);
        let own = |push: &&Value| push["environment"] == environment && push["state"] == "done";
        let push = items(&pushes).iter().find(own).unwrap();
        let shown = platform.json(&["executions", "show", push["execution"].as_str().unwrap()]);
        let log = platform.vend(&["logs", shown["builds"][0]["log"].as_str().unwrap()]);
        let line = log.lines().find(|line| line.starts_with("made in "));
        line.unwrap_or_else(|| panic!("{log}")).to_owned()
    };
    assert_eq!(made_in("staging"), "made in 1.0");
    let same = platform.json(&["images", "refresh", &base]);
    assert_eq!(
        (&same["bases"][0]["changed"], items_of(&same, "queued").len()),
        (&false.into(), 0),
        "{same:#}"
    );

    // The tag moves while a release waits for production's people.
    copy.says("two");
    let waiting = platform.push(&copy, &app, "main");
    let approval = open_approval(&platform, &app);
    changes(&maker_copy, &install(&tenant, "2.0"));
    platform.release(&maker_copy, &maker, "dev");
    push_base(&newest(&platform, &format!("{maker}/dev")));
    let moved = platform.json(&["images", "refresh", &base]);
    assert_eq!(moved["bases"][0]["changed"], true, "{moved:#}");
    let queued: Vec<&str> = items_of(&moved, "queued")
        .iter()
        .filter_map(|place| place["environment"].as_str())
        .collect();
    assert_eq!(queued, ["dev"], "staging is left alone, and production is busy");
    platform.vend_as(&approver, &["approve", &approval, "--yes"]);
    let said = refused(&platform, &app, waiting);
    assert!(
        said.contains("its base has become another one") && said.contains("vend push"),
        "{said}"
    );
    let listed = platform.vend(&["images", "list", &app]);
    assert!(listed.contains("(stale)"), "{listed}");

    // Nobody was asked for dev, which has the new base.
    let refreshed = eventually("dev is made again", Duration::from_secs(120), || {
        let pushes = platform.json(&["pushes", "list", &app]);
        let own = items(&pushes)
            .iter()
            .find(|push| push["environment"] == "dev")?
            .clone();
        (own["state"] == "done" && own["origin"] == "refresh-automatic").then_some(own)
    });
    assert_eq!(refreshed["origin"], "refresh-automatic");
    let dev = newest(&platform, &format!("{app}/dev"));
    assert_eq!(platform.json(&["images", "show", &dev])["stale"], false);
    // Production is asked, as ever.
    let again = platform.json(&["images", "refresh", &base]);
    assert_eq!(again["queued"][0]["environment"], "production", "{again:#}");
    let pushes = platform.json(&["pushes", "list", &app]);
    let number = items(&pushes)
        .iter()
        .find(|push| push["origin"] == "refresh")
        .unwrap()["number"]
        .clone();
    let push = approve(number.as_u64().unwrap());
    assert_eq!(push["state"], "done", "{push:#}\n{}", platform.log());
    assert_eq!(made_in("production"), "made in 2.0");
    let production = newest(&platform, &format!("{app}/production"));
    assert_eq!(production, dev, "the same files are the same image");
    let staging = newest(&platform, &format!("{app}/staging"));
    assert_eq!(platform.json(&["images", "show", &staging])["stale"], true);
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}
