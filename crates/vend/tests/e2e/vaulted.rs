//! Certificates and sign-in from the vault, as a browser meets them.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::platform::{Copy, Platform, can_run, eventually, tenant};

const CLIENT_SECRET: &str = "cl1ent-s3cret-0f-the-shop";

/// A key and a certificate that has signed itself, in files of `folder`; both as PEM.
pub fn certificate(folder: &Path, host: &str) -> (String, String) {
    let (key, chain) = (folder.join("key.pem"), folder.join("chain.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "30",
        ])
        .args([
            "-subj",
            "/CN=test",
            "-addext",
            &format!("subjectAltName=DNS:{host},DNS:localhost"),
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&chain)
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    (read(&chain), read(&key))
}

/// The head of what is answered to a visitor who trusts nobody but this certificate.
pub fn visit(https: &str, host: &str, trusted: &Path) -> Option<String> {
    let (ip, port) = https.rsplit_once(':').unwrap();
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--include", "--max-time", "10"])
        .args(["--resolve", &format!("{host}:{port}:{ip}"), "--cacert"])
        .arg(trusted)
        .arg(format!("https://{host}:{port}/cart?a=1"))
        .output()
        .expect("curl is installed");
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    entries
        .flat_map(|entry| match entry.path() {
            path if path.is_dir() => files(&path),
            path => vec![path],
        })
        .collect()
}

/// Files of the platform with this text in the clear. Hosts' own files are not looked at: they have what they were given.
fn holding(data: &Path, text: &str) -> Vec<PathBuf> {
    let of = ["edge", "serve", "run", "test.log"].map(|part| data.join(part));
    let all = of.iter().flat_map(|part| {
        if part.is_dir() {
            files(part)
        } else {
            vec![part.clone()]
        }
    });
    let holds = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    };
    all.filter(holds).collect()
}

#[test]
fn a_domain_has_its_certificate_and_its_sign_in_from_the_vault() {
    if !can_run() {
        return;
    }
    let platform = Platform::with("[listen]\nhttps = '127.0.0.1:0'\n");
    let tenant = tenant("vaulted");
    let (app, domain) = (format!("{tenant}/shop"), format!("shop.{tenant}.example"));
    platform.vend(&["tenants", "create", &tenant]);
    platform.vend(&["apps", "create", &app]);
    let copy = Copy::new(
        "one",
        &format!(
            "app: shop
host: {{ health: {{ path: /, interval: 1s, timeout: 1s }} }}
domains: [{{ host: {domain}, certificate: {{ chain: '{{{{secret:chain}}}}', key: '{{{{secret:key}}}}' }} }}]
authenticate:
  issuer: https://id.example.com
  authorization_endpoint: https://id.example.com/auth
  token_endpoint: https://id.example.com/token
  user_info_endpoint: https://id.example.com/me
  client_id: the-shop
  client_secret: '{{{{secret:oidc}}}}'
  scope: openid email
"
        ),
    );
    let number = platform.push(&copy, &app, "main");
    let push = platform.ended(&app, number);
    let reason = push["reason"].as_str().unwrap_or_default();
    assert!(
        push["state"] == "failed" && reason.contains("oidc"),
        "a secret is missing: {push:#}"
    );

    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = certificate(folder.path(), &domain);
    for (name, value) in [("chain", chain.as_str()), ("key", &key), ("oidc", CLIENT_SECRET)] {
        platform.set_secret(&app, name, value);
    }
    copy.says("two");
    platform.release(&copy, &app, "main");
    let https = platform.endpoints()["https"].as_str().unwrap().to_owned();
    let trusted = folder.path().join("chain.pem");
    let answer = visit(&https, &domain, &trusted).expect("the certificate of the vault is shown");
    let place = answer
        .lines()
        .find_map(|line| line.strip_prefix("Location: "))
        .unwrap_or_default();
    assert!(
        answer.starts_with("HTTP/2 302") || answer.starts_with("HTTP/1.1 302"),
        "{answer}"
    );
    assert!(
        answer
            .to_lowercase()
            .contains("location: https://id.example.com/auth?"),
        "{place} {answer}"
    );
    assert!(answer.contains("client_id=the-shop"), "{answer}");
    assert!(
        visit(&https, "localhost", &trusted).is_none(),
        "a certificate is shown for its domain alone"
    );

    // Only the edge can read them, and nobody else has them in the clear.
    for text in [CLIENT_SECRET, key.lines().nth(1).unwrap()] {
        let found = holding(platform.data(), text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            std::fs::metadata(&found[0]).unwrap().mode() & 0o777,
            0o600,
            "{found:?}"
        );
        assert!(
            found[0].starts_with(platform.data().join("edge/secrets")),
            "{found:?}"
        );
    }

    // It is renewed without a deployment, and shown by an edge that finds nobody else there.
    let (chain, key) = certificate(folder.path(), &domain);
    platform.set_secret(&app, "chain", &chain);
    platform.set_secret(&app, "key", &key);
    eventually("the new one is shown", Duration::from_secs(60), || {
        visit(&https, &domain, &trusted)
    });
    platform.pause("serve", rustix::process::Signal::STOP);
    platform.restart("edge");
    let again = eventually("the edge is back", Duration::from_secs(30), || {
        visit(&https, &domain, &trusted)
    });
    platform.pause("serve", rustix::process::Signal::CONT);
    assert!(again.contains("client_id=the-shop"), "{again}");
    platform.wait_until_ready();

    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
    eventually("what was held is forgotten", Duration::from_secs(60), || {
        holding(platform.data(), CLIENT_SECRET).is_empty().then_some(())
    });
}
