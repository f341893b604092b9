//! Variables in the paths of artifacts and reports.

use std::io::{self, Write};

use super::{Runner, complaint::Complaint};
use crate::build::console::bounded;

/// So much of a text that cannot be expanded is told, in characters.
pub(super) const SHOWN: usize = 400;

/// Where files are looked for, without variables.
#[derive(Debug, Default)]
pub(super) struct Paths {
    pub files: Vec<String>,
    pub base_directory: Option<String>,
    pub exclude_paths: Vec<String>,
}

impl<W: Write> Runner<W> {
    /// Paths as the build's variables are at its end; or why a shell cannot read one.
    pub(super) fn paths(
        &mut self,
        files: &[String],
        base_directory: Option<&str>,
        exclude_paths: &[String],
    ) -> io::Result<Result<Paths, String>> {
        let mut paths = Paths::default();
        let all = [
            (files, &mut paths.files),
            (exclude_paths, &mut paths.exclude_paths),
        ];
        for (written, expanded) in all {
            for path in written {
                match self.path(path)? {
                    Ok(path) => expanded.push(path),
                    Err(why) => return Ok(Err(why)),
                }
            }
        }
        if let Some(path) = base_directory {
            match self.path(path)? {
                Ok(path) => paths.base_directory = Some(path),
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(Ok(paths))
    }

    fn path(&mut self, written: &str) -> io::Result<Result<String, String>> {
        let Some(text) = for_a_shell(written) else {
            return Ok(Ok(written.to_owned()));
        };
        let mut complaint = Complaint::new(&self.mask);
        let path = self.expand(&text, &mut |bytes| {
            complaint.hear(bytes);
            Ok(())
        });
        let shown = || bounded(written.to_owned(), SHOWN);
        Ok(match path {
            Ok(Some(path)) => Ok(path),
            Ok(None) => Err(format!(
                "no shell can expand the path `{}`: {}",
                shown(),
                complaint.told()
            )),
            Err(error) => Err(format!("the path `{}` cannot be read: {error}", shown())),
        })
    }
}

/// What a shell is to expand; `None` when it would not change the path. A variable that is not set, or empty, stays as it is
/// written: files are called `Outer$Inner.class`, and `$OUT/**` without its variable is the whole disk. With a command in
/// it, or a form of a shell's own, the text is the shell's as it is.
fn for_a_shell(path: &str) -> Option<String> {
    let mut text = String::new();
    let mut holds = false;
    let mut rest = path;
    while let Some(at) = rest.find(['$', '`', '\\']) {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        let (sign, after) = from.split_at(1);
        rest = after;
        match sign {
            "$" => match variable(after) {
                Variable::Plain(name, after) => {
                    text.push_str(&format!("${{{name}:-\\${name}}}"));
                    holds = true;
                    rest = after;
                }
                Variable::Other => return Some(path.to_owned()),
                Variable::None => text.push_str("\\$"),
            },
            // Of a file pattern, as what it takes the meaning from is.
            "\\" => {
                text.push_str("\\\\");
                if let Some(sign @ ('$' | '`' | '\\')) = after.chars().next() {
                    text.extend(['\\', sign]);
                    rest = &after[1..];
                }
            }
            sign => text.extend(["\\", sign]),
        }
    }
    text.push_str(rest);
    holds.then_some(text)
}

/// What comes after a `$`.
enum Variable<'a> {
    /// Its name, and what comes after it.
    Plain(&'a str, &'a str),
    /// Something that only a shell knows.
    Other,
    None,
}

fn variable(after: &str) -> Variable<'_> {
    if after.starts_with('(') {
        return Variable::Other;
    }
    if let Some(inner) = after.strip_prefix('{') {
        return match inner.split_once('}') {
            Some((name, after)) if name_of(name).len() == name.len() && !name.is_empty() => {
                Variable::Plain(name, after)
            }
            // A placeholder of Maven's, which no shell has a form for.
            Some((name, _)) if is_dotted(name) => Variable::None,
            _ => Variable::Other,
        };
    }
    match name_of(after) {
        "" => Variable::None,
        name => Variable::Plain(name, &after[name.len()..]),
    }
}

fn is_dotted(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.contains('.') && name.chars().all(plain)
}

/// The name of a variable that a text begins with.
fn name_of(text: &str) -> &str {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return "";
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_gets_the_variables_of_a_path_and_nothing_else() {
        for (path, text) in [
            ("target/**", None),
            ("Outer$*.class", None),
            ("costs 5$", None),
            (r"a\$B", None),
            ("$A/**", Some(r"${A:-\$A}/**")),
            ("a${A}b$A_1.x", Some(r"a${A:-\$A}b${A_1:-\$A_1}.x")),
            (r"$A\*`b`$1", Some(r"${A:-\$A}\\*\`b\`\$1")),
            (r"$A\$B\\$C", Some(r"${A:-\$A}\\\$B\\\\${C:-\$C}")),
            ("$A/${B:-c}", Some("$A/${B:-c}")),
            ("$(cat a)", Some("$(cat a)")),
            ("${A", Some("${A")),
            ("a-${project.version}.jar", None),
            (
                "$A/a-${project.version}.jar",
                Some(r"${A:-\$A}/a-\${project.version}.jar"),
            ),
        ] {
            assert_eq!(for_a_shell(path).as_deref(), text, "{path}");
        }
    }
}
