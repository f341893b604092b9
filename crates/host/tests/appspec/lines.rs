//! Scripts whose lines end as on Windows, and lines that are too long to be held.

use std::fs;

use super::one_script;

/// Started by the kernel, by another user's shell, by `env`, and with an argument: none of them names the cause.
#[tokio::test]
async fn a_script_with_lines_of_windows_is_told_why_it_does_not_start() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for (keys, first, says) in [
        (
            "",
            "/bin/sh",
            "s.sh failed with error Errno::ENOENT with message No such file or directory - ",
        ),
        (
            "      runas: root\n",
            "/bin/sh",
            "s.sh run as user root failed with exit code 127: its",
        ),
        ("", "/usr/bin/env sh", "s.sh failed with exit code 127: its"),
        ("", "/bin/sh -e", "s.sh failed with exit code 2: its"),
    ] {
        let script = |end: &str| format!("#!{first}{end}exit 0{end}");
        let scratch = tempfile::tempdir().unwrap();
        let (code, message, ..) = one_script(scratch.path(), keys, &script("\r\n")).await;
        assert_eq!(code, 4, "{message}");
        assert!(message.contains(says), "{message}");
        assert!(
            message.contains(": its first line ends with a carriage return")
                && message.contains("`dos2unix`"),
            "{message}"
        );
        let mended = tempfile::tempdir().unwrap();
        assert_eq!(
            one_script(mended.path(), keys, &script("\n")).await.0,
            0,
            "{first}"
        );
    }
    // Of others that fail nothing is said.
    let scratch = tempfile::tempdir().unwrap();
    let (_, message, ..) = one_script(scratch.path(), "", "#!/bin/sh\nexit 3\r\n#\r\n").await;
    assert!(!message.contains("carriage"), "{message}");
}

/// The agent reports whole lines only: of one that does not fit there is nothing, nor of what was said before it.
#[tokio::test]
async fn a_line_that_is_too_long_leaves_no_part_of_itself_in_the_report() {
    for (script, report, lines) in [
        // With letters of two bytes, and nothing after it.
        (
            "yes x | tr -d '\\n' | head -c 100000; yes ä | tr -d '\\n' | head -c 50008; echo; exit 1",
            "",
            3,
        ),
        ("yes x | tr -d '\\n' | head -c 150000; exit 1", "", 3),
        ("yes x | tr -d '\\n' | head -c 65536; echo; exit 1", "", 3),
        (
            "yes x | tr -d '\\n' | head -c 150000; echo; echo said; exit 1",
            "[stdout]said\n",
            4,
        ),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let (code, _, log, _) = one_script(scratch.path(), "", &format!("#!/bin/sh\n{script}\n")).await;
        assert_eq!((code, log.as_str()), (4, report), "{script}");
        let written = fs::read_to_string(scratch.path().join("dg/d-1/logs/scripts.log")).unwrap();
        assert_eq!(written.lines().count(), lines, "{script}");
        assert!(!written.contains(char::REPLACEMENT_CHARACTER), "{script}");
        let line = written.lines().find(|line| line.contains("[stdout]xx")).unwrap();
        assert!(
            line.len() > 65_000 && line.matches("[stdout]").count() == 1,
            "{script}"
        );
    }
}
