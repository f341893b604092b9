//! `Procfile`: a line `NAME: COMMAND` for each process of an app without an appspec. What else there is is passed over.
//! <https://devcenter.heroku.com/articles/procfile#procfile-format>

use std::collections::BTreeMap;

use super::read::quoted;
use crate::Problem;

/// Lines that are told of: a file that is no Procfile at all would be told line by line.
const TOLD: usize = 20;

/// The commands by their processes' names, and a warning for each line that starts nothing.
pub fn procfile(text: &str, file: &str) -> (BTreeMap<String, String>, Vec<Problem>) {
    let mut processes = BTreeMap::new();
    let mut problems = Vec::new();
    for (line, number) in text.lines().zip(1u32..) {
        match process(line) {
            Ok(Some((name, command))) => {
                if processes.insert(name.to_owned(), command.to_owned()).is_some() {
                    let message = format!("`{name}` is there a second time: only this one is started");
                    let help = "give each process a name of its own";
                    problems.push(Problem::warning(file, number, 1, message).help(help));
                }
            }
            Ok(None) => {}
            Err(why) => {
                let message = format!("{} is passed over: {why}", quoted(line));
                let help = "a process is a line such as `web: ./start.sh`; a comment begins with `#`";
                problems.push(Problem::warning(file, number, 1, message).help(help));
            }
        }
    }
    problems.truncate(TOLD);
    if processes.is_empty() {
        problems.push(
            Problem::warning(file, 0, 0, "it has no process, so nothing is started")
                .help("write a line such as `web: ./start.sh`"),
        );
    }
    (processes, problems)
}

/// The name and the command of a line. `None`: an empty line, or a comment.
fn process(line: &str) -> Result<Option<(&str, &str)>, &'static str> {
    if line.trim().is_empty() || line.trim_start().starts_with('#') {
        return Ok(None);
    }
    let (name, command) = line.split_once(':').ok_or("it has no `:` after a name")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match command.trim() {
        _ if name.is_empty() => Err("it has no name before the `:`"),
        _ if !name.bytes().all(is_plain) => {
            Err("a name is made of letters, digits, `-` and `_`, from the beginning of the line")
        }
        "" => Err("it has no command"),
        command => Ok(Some((name, command))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_start_nothing_are_told_with_their_numbers() {
        let text = "# what runs\nweb: ./start.sh\r\n\nworker ./work.sh\n clock: tick\nnone:\n: x\nweb: two\n";
        let (processes, problems) = procfile(text, "Procfile");
        assert_eq!(processes, [("web".to_owned(), "two".to_owned())].into());
        let told: Vec<String> = problems
            .iter()
            .map(|problem| format!("{} {}", problem.line, problem.message))
            .collect();
        assert_eq!(
            told,
            [
                "4 `worker ./work.sh` is passed over: it has no `:` after a name",
                "5 ` clock: tick` is passed over: a name is made of letters, digits, `-` and `_`, from the beginning of \
                 the line",
                "6 `none:` is passed over: it has no command",
                "7 `: x` is passed over: it has no name before the `:`",
                "8 `web` is there a second time: only this one is started",
            ]
        );
        assert!(problems.iter().all(|problem| !problem.is_error()));
    }

    #[test]
    fn a_file_that_is_no_procfile_is_told_in_a_few_lines() {
        let (processes, problems) = procfile(&"no\n".repeat(1000), "Procfile");
        assert!(processes.is_empty());
        assert_eq!(problems.len(), TOLD + 1);
        assert_eq!(procfile("", "Procfile").1.len(), 1);
        assert!(procfile("web: x", "Procfile").1.is_empty());
    }
}
