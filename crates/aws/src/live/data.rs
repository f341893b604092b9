//! Data that comes into an environment's database, and out of it: loaded and dumped by one of its hosts, because nobody else
//! reaches it.
//!
//! The host has the database's login in the app's own environment, so no password is in a command or its record.

use std::time::Duration;

use jiff::Timestamp;
use model::port::COUNT;
use serde_json::json;

use super::text;
use crate::{
    call,
    client::{Client, Error},
};

/// How long Systems Manager tries to reach the host.
const REACH_S: u64 = 600;
/// How long a load may take.
const LOAD_S: u64 = 4 * 3_600;
/// Between two looks at it.
const POLL: Duration = Duration::from_secs(5);
/// Looks at it that may fail one after the other, each of them tried again by itself.
const MISSED: u32 = 6;
/// Characters of what a failed command says, at its end.
const SAID: usize = 400;

const LOGIN: &str = include_str!("data/login.sh");
/// One load at a time; held by a connection of its own until the script ends.
const ALONE: &str = include_str!("data/alone.sh");
const TLS: &str = include_str!("data/tls.sh");
/// Waits until the login cannot write, and proves it.
const STILL: &str = include_str!("data/still.sh");
const DUMP: &str = include_str!("data/dump.sh");
/// Nobody could write from the first look to this one.
const AFTER: &str = include_str!("data/after.sh");

/// How a load or a dump ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Counted {
        /// What was counted then: `3 tables, 120 rows, 0123456789abcdef`.
        counted: String,
        /// Of the object that a dump has written.
        version: Option<String>,
    },
    Failed {
        why: String,
    },
}

/// Loads what a command gives into the database of the app's environment, and counts. Lines of bash.
///
/// `environment`: the file with the app's variables. `secure`: over TLS, whose certificate must be RDS's.
pub fn script(environment: &str, fetch: &str, secure: bool) -> String {
    let tls = if secure { TLS } else { "tls=()\n" };
    format!(
        "set -euo pipefail\numask 077\nset -a; . {environment}; set +a\n{LOGIN}{tls}{ALONE}\
         {fetch} | gunzip | ask\n{COUNT}"
    )
}

/// The script that loads one version of an object, on a host as its stack makes it.
pub fn loading(bucket: &str, key: &str, version: &str) -> String {
    // What the command says of the object is not of it.
    let fetch = format!(
        "aws s3api get-object --bucket '{bucket}' --key '{key}' --version-id '{version}' /dev/fd/3 3>&1 > /dev/null"
    );
    script("/etc/vend/environment", &fetch, true)
}

/// Has what is in the database of the app's environment taken by a command, compressed, and counts. Lines of bash. `send`
/// reads its standard input, and knows about how many bytes come: `$bytes`.
pub fn dumped(environment: &str, send: &str, secure: bool) -> String {
    let tls = if secure { TLS } else { "tls=()\n" };
    format!(
        "set -euo pipefail\numask 077\nset -a; . {environment}; set +a\n{LOGIN}{tls}{ALONE}{STILL}\
         send() {{ {send}; }}\n{DUMP}{COUNT}{AFTER}"
    )
}

/// The script that dumps into an object, on a host as its stack makes it, and says which version that is.
pub fn dumping(bucket: &str, key: &str) -> String {
    let send = format!("aws s3 cp --only-show-errors --expected-size \"$bytes\" - 's3://{bucket}/{key}'");
    let version =
        format!("aws s3api head-object --bucket '{bucket}' --key '{key}' --query VersionId --output text");
    let script = dumped("/etc/vend/environment", &send, true);
    format!("{script}echo \"version: $({version})\"\n")
}

/// Starts lines of bash on a host. Gives the id of the command.
pub async fn start(client: &Client, host: &str, script: &str) -> Result<String, Error> {
    let ask = json!({
        "DocumentName": "AWS-RunShellScript",
        "InstanceIds": [host],
        "Comment": "The data of an environment that moves",
        "TimeoutSeconds": REACH_S,
        "Parameters": {
            // The shell there may be another one. Not on the standard input, which what is run could read.
            "commands": ["exec bash -c \"$(cat <<'END_OF_COMMAND'", script, "END_OF_COMMAND", ")\""],
            "executionTimeout": [LOAD_S.to_string()],
        },
    });
    let answer = client.json(&call::RUN_COMMAND, ask).await?;
    Ok(text(&answer["Command"], "CommandId"))
}

/// Waits for a command that was started, and reads what it counted. One that is given up is cancelled: what it would load
/// later is not what is true then.
pub async fn ended(
    client: &Client,
    host: &str,
    command: &str,
    now: fn() -> Timestamp,
) -> Result<Ended, Error> {
    let ended = watched(client, host, command, now).await;
    if !matches!(ended, Ok(Ended::Counted { .. })) {
        let ask = json!({ "CommandId": command, "InstanceIds": [host] });
        // It may have ended by itself, and why it was given up is what there is to say.
        let _ = client.json(&call::CANCEL_COMMAND, ask).await;
    }
    ended
}

async fn watched(client: &Client, host: &str, command: &str, now: fn() -> Timestamp) -> Result<Ended, Error> {
    let begin = now();
    let mut missed = 0;
    loop {
        let ask = json!({ "CommandId": command, "InstanceId": host });
        let found = match client.json(&call::LOOK_COMMAND, ask).await {
            // It is not known everywhere in the first moment.
            Err(error) if error.code() == "InvocationDoesNotExist" => json!({ "Status": "Pending" }),
            Err(_) if missed < MISSED => {
                missed += 1;
                tokio::time::sleep(POLL).await;
                continue;
            }
            other => other?,
        };
        missed = 0;
        let status = text(&found, "Status");
        if status == "Success" {
            return Ok(read(&text(&found, "StandardOutputContent")));
        }
        let late = now().duration_since(begin).as_secs().unsigned_abs() > LOAD_S + REACH_S;
        if late || !["Pending", "InProgress", "Delayed"].contains(&status.as_str()) {
            let said = text(&found, "StandardErrorContent");
            let said = last(said.trim());
            let said = if said.is_empty() { "it says no more" } else { said };
            return Ok(Ended::Failed {
                why: format!("the command on {host} is {status}: {said}"),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The end of what is said: the reason comes last.
fn last(said: &str) -> &str {
    match said.char_indices().rev().nth(SAID - 1) {
        Some((begin, _)) => &said[begin..],
        None => said,
    }
}

/// What a command says at its end.
fn read(said: &str) -> Ended {
    let found = |word: &str| {
        let line = said.lines().rev().find_map(|line| line.strip_prefix(word));
        line.map(|rest| rest.trim().to_owned())
    };
    match found("counted: ") {
        Some(counted) => Ended::Counted {
            counted,
            version: found("version: "),
        },
        None => Ended::Failed {
            why: "the command ended well and counted nothing".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_read_from_the_end() {
        let counted = "2 tables, 5 rows, 0123456789abcdef";
        let loaded = read(&format!("Complete!\ncounted: {counted}\n"));
        assert_eq!(
            loaded,
            Ended::Counted {
                counted: counted.into(),
                version: None,
            }
        );
        let dumped = read(&format!("counted: {counted}\nversion: 3/L4kq\n"));
        assert!(matches!(dumped, Ended::Counted { version: Some(version), .. } if version == "3/L4kq"));
        assert!(matches!(read("Complete!\n"), Ended::Failed { .. }));
    }

    #[test]
    fn the_end_of_what_is_said_is_told() {
        let said = format!("{}✓ it is full", "x".repeat(SAID));
        assert!(last(&said).ends_with("✓ it is full") && last(&said).chars().count() == SAID);
        assert_eq!(last("short"), "short");
    }

    #[test]
    fn an_object_comes_without_what_is_said_of_it() {
        let script = loading("bucket", "move/shop/production/x.sql.gz", "v1");
        let fetch = script.lines().find(|line| line.starts_with("aws ")).unwrap();
        let fetch = fetch.trim_end_matches(" | gunzip | ask");
        let aws = "aws() { echo \"of $*\"; printf content > \"${@: -1}\"; }";
        let done = std::process::Command::new("bash")
            .args(["-c", &format!("{aws}\n{fetch} | cat")])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&done.stdout), "content");
        assert!(script.contains("--version-id 'v1'"));
    }

    #[test]
    fn no_password_is_in_a_command() {
        let script = loading("bucket", "move/shop/production/x.sql.gz", "v1");
        assert!(script.contains(". /etc/vend/environment") && script.contains("DATABASE_PASSWORD"));
        let dump = dumping("bucket", "move/shop/production/x.sql.gz");
        for script in [script, dump] {
            assert!(!script.contains("END_OF_COMMAND"), "it would end before its end");
            let done = std::process::Command::new("bash")
                .args(["-n", "-c", &script])
                .output()
                .unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
    }
}
