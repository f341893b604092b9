//! Builds get the secrets that their buildspec names from the vault, as it names them.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use crate::platform::{Copy, Platform, can_run};

const VEND_YAML: &str = "app: shop
build: { image: debian-12 }
host: { health: { path: /, interval: 1s, timeout: 1s } }
environments:
  dev: { branch: dev }
";
const BUILDSPEC: &str = r#"version: 0.2
env:
  parameter-store: { TOKEN: /token }
  secrets-manager: { NOW: 'db:user', BEFORE: 'db:user:AWSPREVIOUS', FIRST: 'db:user::1', WHOLE: db }
phases:
  build:
    commands:
      - sum=$(printf '%s %s %s %s %s' "$TOKEN" "$NOW" "$BEFORE" "$FIRST" "$WHOLE" | sha256sum | cut -d' ' -f1)
      - sed -i "s/BUILT/$sum/" server.pl
"#;

/// What a program of the machine says of a text.
fn sum(text: &str) -> String {
    let mut program = Command::new("sha256sum");
    let mut program = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    program.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = program.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

#[test]
fn builds_get_their_secrets_from_the_vault() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("vault");
    let versions = ["one", "two", "three"].map(|user| format!(r#"{{"user":"{user}-of-them"}}"#));
    platform.set_secret(&app, "token", "tigers-in-the-night");
    versions
        .iter()
        .for_each(|value| platform.set_secret(&app, "db", value));
    let copy = Copy::new("sum BUILT", VEND_YAML);
    copy.write("buildspec.yml", BUILDSPEC);
    copy.commit("secrets");
    platform.release(&copy, &app, "dev");
    let expected = format!(
        "tigers-in-the-night three-of-them two-of-them one-of-them {}",
        versions[2]
    );
    let host = format!("dev.shop.{tenant}.localhost");
    assert_eq!(
        platform.get(&host, "/"),
        (200, format!("sum {}\n", sum(&expected)))
    );

    // What is not there is named, and what to do.
    for (named, told) in [
        (
            "secrets-manager: { A: 'db:pass' }",
            "the secret `db` is not a JSON object with the text field `pass`",
        ),
        (
            "secrets-manager: { A: 'token:user' }",
            "the secret `token` is not a JSON object",
        ),
        (
            "secrets-manager: { A: 'token::AWSPREVIOUS' }",
            "`token` has no version before this one",
        ),
        (
            "secrets-manager: { A: 'db::AWSPENDING' }",
            "`db` has no stage `AWSPENDING`",
        ),
        ("secrets-manager: { A: 'db:::x1' }", "`db` has no version `x1`"),
        (
            "parameter-store: { A: /none/of/them }",
            "there is no secret `none/of/them`",
        ),
    ] {
        let spec = format!("version: 0.2\nenv: {{ {named} }}\nphases: {{ build: {{ commands: [env] }} }}\n");
        copy.write("buildspec.yml", spec);
        copy.commit(named);
        let number = platform.push(&copy, &app, "dev");
        let push = platform.ended(&app, number);
        let reason = push["reason"].as_str().unwrap();
        assert!(
            reason.contains(told) && !reason.contains("of-them"),
            "{named}: {reason}"
        );
    }

    // Git can do without, and its log says so.
    copy.write(
        "buildspec.yml",
        "version: 0.2\nenv: { git-credential-helper: yes }\nphases: { build: { commands: ['true'] } }\n",
    );
    copy.commit("git's helper");
    let number = platform.push(&copy, &app, "dev");
    let push = platform.ended(&app, number);
    assert_eq!(push["state"], "done", "{push:#}");
    let build = format!("build/t-{}-build", &push["execution"].as_str().unwrap()[2..]);
    let log = platform.vend(&["logs", &build]);
    assert!(
        log.contains("git has no credentials: set the secret `git-credentials`"),
        "{log}"
    );
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}
