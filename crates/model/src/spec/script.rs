//! What is to be said of a script before anybody starts it.

/// Why a script that was written on Windows does not start. The kernel says no more than that there is no such file,
/// which is true of the interpreter's name with what follows it (`execve(2)`, "Interpreter scripts").
pub const CARRIAGE_RETURN: &str = "its first line ends with a carriage return, as lines do on Windows, which is taken for a \
                                   part of the interpreter's name";

/// What mends it, here and for whoever checks the script out next.
pub const UNIX_LINES: &str = "run `dos2unix` on it, and say `*.sh text eol=lf` in .gitattributes";

/// Does the line that names a script's interpreter end with a carriage return? `script`: its beginning.
pub fn has_carriage_return(script: &[u8]) -> bool {
    let line = script.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.starts_with(b"#!") && line.ends_with(b"\r")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_that_names_an_interpreter_matters() {
        for (script, expected) in [
            ("#!/bin/bash\r\necho\r\n", true),
            ("#!/bin/bash -e\r\n", true),
            ("#!/bin/bash\r", true),
            ("#!/bin/bash\necho\r\n", false),
            ("#!/bin/ba\rsh\n", false),
            ("echo\r\n", false),
            ("", false),
        ] {
            assert_eq!(has_carriage_return(script.as_bytes()), expected, "{script:?}");
        }
    }
}
