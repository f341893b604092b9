//! Real shells. They take descriptor 9 and reap all children, so they have a test process of their own.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use host::build::shell::{Expansion, Shell, Shells};
use model::spec::build::Shell as Kind;

fn start(shells: &mut Shells, kind: Kind) -> Shell {
    let environment = BTreeMap::from([
        ("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("GREETING".to_owned(), "it's $HOME".to_owned()),
    ]);
    shells.start(kind, &environment, "/", None).unwrap()
}

#[track_caller]
fn check(shell: &mut Shell, command: &str, code: i32, output: &str) {
    let mut seen = Vec::new();
    let status = shell
        .run(command, &mut |bytes| {
            seen.extend_from_slice(bytes);
            Ok(())
        })
        .unwrap();
    assert_eq!(
        (status.code, String::from_utf8_lossy(&seen).as_ref()),
        (code, output),
        "{command}"
    );
}

fn lives_as_one_shell(shells: &mut Shells, kind: Kind) {
    let mut shell = start(shells, kind);
    check(&mut shell, "cd /usr && export A=\"b c\"", 0, "");
    check(&mut shell, "pwd; echo \"$A\"", 0, "/usr\nb c\n");
    check(&mut shell, "echo $GREETING", 0, "it's $HOME\n");
    check(&mut shell, "false", 1, "");
    check(&mut shell, "(exit 7)", 7, "");
    check(&mut shell, "printf 'no newline'", 0, "no newline");
    check(
        &mut shell,
        "if true\nthen\n  echo 'several lines'\nfi",
        0,
        "several lines\n",
    );
    check(&mut shell, "cat; echo eof", 0, "eof\n");
    check(&mut shell, "echo to stderr >&2", 0, "to stderr\n");
    check(&mut shell, "f() { echo in f; }", 0, "");
    check(&mut shell, "f", 0, "in f\n");
    check(&mut shell, "ls /proc/self/fd | grep -c '^9$'", 1, "0\n");
    check(&mut shell, "exec 2>/dev/null", 0, "");
    check(&mut shell, "cat <<'X'\nhere's\nX\n", 0, "here's\n");
    check(&mut shell, "sleep 100 & echo started", 0, "started\n");
    check(
        &mut shell,
        "kill %1; head -c 300000 /dev/zero | tr '\\0' x | wc -c",
        0,
        "300000\n",
    );
    let exported = shell
        .print("command printf '%s' \"${A-}\"", &mut |_| Ok(()))
        .unwrap();
    assert_eq!(exported.as_deref(), Some("b c"));
    let state = shell.state(&mut |_| Ok(())).unwrap().unwrap();
    let mut next = start(shells, kind);
    check(&mut next, &state, 0, "");
    check(&mut next, "pwd; echo \"$A\"", 0, "/usr\nb c\n");
}

fn tells_when_it_is_gone(shells: &mut Shells, kind: Kind) {
    for (command, code) in [
        ("exit 3", 3),
        ("exit 0", 0),
        ("set -e; false", 1),
        ("kill -9 $$", 137),
        ("if", 2),
    ] {
        let mut shell = start(shells, kind);
        let mut seen = Vec::new();
        let status = shell.run(command, &mut |bytes| {
            seen.extend_from_slice(bytes);
            Ok(())
        });
        let status = status.unwrap();
        // A syntax error ends sh; bash lives on.
        let gone = !(command == "if" && kind == Kind::Bash);
        assert_eq!(
            (status.gone, status.code != 0 || code == 0),
            (gone, true),
            "{command}"
        );
        if gone && command != "if" {
            assert_eq!(status.code, code, "{command}");
            let again = shell.run("true", &mut |_| Ok(())).unwrap();
            assert!(again.gone);
        }
    }
}

/// A text that nothing closes is refused, and the shell does not wait for more.
fn expands_what_has_an_end(shells: &mut Shells, kind: Kind) {
    let mut shell = start(shells, kind);
    check(&mut shell, "set -e; export A=\"b c\"", 0, "");
    let expand = |shell: &mut Shell, text: &str| {
        let mut complaint = Vec::new();
        let expanded = shell.expand(text, &mut |bytes| {
            complaint.extend_from_slice(bytes);
            Ok(())
        });
        (expanded.unwrap(), String::from_utf8(complaint).unwrap())
    };
    for (text, expected) in [
        ("app-$A", "app-b c"),
        ("it's \"$(printf '%s' \"$A\")\"", "it's \"b c\""),
        ("VEND\nVEND_", "VEND\nVEND_"),
        ("$(false)", ""),
        ("a\\$A\n", "a$A\n"),
        ("expanded", "expanded"),
    ] {
        let expected = Expansion::Text(expected.to_owned());
        assert_eq!(expand(&mut shell, text), (expected, String::new()), "{text}");
    }
    for text in [
        "$(date +%Y",
        "a-`date",
        "${HOME",
        "$((1+2",
        "${ABSENT?is not there}",
    ] {
        let mut shell = start(shells, kind);
        let (expanded, complaint) = expand(&mut shell, text);
        assert!(!matches!(expanded, Expansion::Text(_)), "{text}: {expanded:?}");
        assert_ne!(complaint, "", "{text}");
        if expanded == Expansion::Refused {
            check(&mut shell, "echo goes on", 0, "goes on\n");
        }
    }
}

#[test]
fn shells_keep_their_state_and_tell_how_commands_ended() {
    let mut shells = Shells::new().unwrap();
    for kind in [Kind::Sh, Kind::Bash] {
        lives_as_one_shell(&mut shells, kind);
        tells_when_it_is_gone(&mut shells, kind);
        expands_what_has_an_end(&mut shells, kind);
    }
}
