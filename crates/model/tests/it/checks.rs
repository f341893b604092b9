//! Goss files: the kinds that are built, and what is said about the others.

use model::spec::Checks;

fn check(text: &str, expected: &[&str]) {
    let problems = match Checks::parse(text, "c") {
        Ok((_, warnings)) => warnings,
        Err(problems) => problems,
    };
    let found: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}:{}: {}", problem.line, problem.column, problem.message))
        .collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn messages() {
    for (text, expected) in [
        ("", "0:0: the file holds no check"),
        ("- a", "1:1: the file must be a mapping, not a list"),
        ("service: { nginx: {} }", "1:1: `service` is not available yet"),
        ("prot: {}", "1:1: `prot` is not a known key"),
        ("port: { 8080: {} }", "1:9: `8080` is not a port"),
        (
            "port: { tcp:8080: { listning: true } }",
            "1:21: `listning` is not a known key of `port`",
        ),
        (
            "file: { /a: { mode: rw } }",
            "1:21: `file.mode` must be octal digits such as \"0644\", not `rw`",
        ),
        (
            "file: { /a: { size: 3 } }",
            "1:15: `file.size` is not available yet",
        ),
        (
            "file: { /a: { contains: { have-len: 3 } } }",
            "1:25: `have-len` is not available yet",
        ),
        (
            "command: { a: { stdout: [{ gt: 1 }] } }",
            "1:26: `gt` is not available yet",
        ),
        (
            "command: { a: { skip: true } }",
            "1:17: `command.skip` is not available yet",
        ),
        (
            "http: { 'ftp://x': { status: 200 } }",
            "1:9: `ftp://x` is not a URL",
        ),
        (
            "http: { 'http://x': {} }",
            "1:9: `status` of `http://x` is missing",
        ),
        (
            "http: { 'http://x': { status: 200, method: POST } }",
            "1:36: `http.method` is not available yet",
        ),
    ] {
        check(text, &[expected]);
    }
}

#[test]
fn reads_what_goss_writes() {
    let text = r#"
file:
  /etc/passwd: { exists: true, mode: "0644", owner: root, filetype: file, contains: [root, "/^x/", "!y"], title: t, meta: { a: b } }
  /gone: { exists: false }
package: { python3: { installed: true, versions: [3.11.2] } }
port: { "tcp:8080": { listening: true, ip: [0.0.0.0] } }
process: { python3: { running: true } }
command: { "true": { exit-status: 0, stdout: [], timeout: 500 }, named: { exec: "echo x", stdout: x } }
http: { "http://127.0.0.1:8080/health": { status: 200, timeout: 2000, body: ["ok"], headers: "Content-Type: text/html" } }
user: { guestbook: { exists: true, uid: 1000, groups: [guestbook], home: /srv, shell: /bin/false } }
"#;
    let (checks, warnings) = Checks::parse(text, "c").unwrap();
    assert_eq!(warnings, []);
    let file = &checks.file["/etc/passwd"];
    assert_eq!((file.mode.as_deref(), file.contains.len()), (Some("0644"), 3));
    assert!(!checks.file["/gone"].exists);
    assert_eq!(checks.package["python3"].versions, ["3.11.2"]);
    assert_eq!(checks.port["tcp:8080"].ip, ["0.0.0.0"]);
    assert_eq!(
        (
            checks.command["true"].timeout_ms,
            checks.command["named"].timeout_ms
        ),
        (500, 10_000)
    );
    assert_eq!(checks.command["named"].stdout, ["x"]);
    let http = &checks.http["http://127.0.0.1:8080/health"];
    assert_eq!((http.status, http.headers.len()), (200, 1));
    assert_eq!(checks.user["guestbook"].uid, Some(1000));
}
