//! The files of `EnvironmentFile=` (`systemd.exec(5)`). They look like a shell's, and are not: a quote in the middle of a
//! value is a character, and so is what has no meaning behind a backslash in double quotes.

use std::str::Chars;

/// All assignments of a file, in their order. What is none is passed over.
pub fn variables(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '#' | ';' => comment(&mut chars),
            c if c.is_whitespace() => {}
            c => {
                let rest = chars.as_str();
                let end = rest.find(['=', '\n', '\r']).unwrap_or(rest.len());
                let name = format!("{c}{}", &rest[..end]);
                chars = rest[end..].chars();
                if c != '=' && chars.next() == Some('=') {
                    let name = name.trim().trim_start_matches("export ").trim_start();
                    found.push((name.to_owned(), value(&mut chars)));
                }
            }
        }
    }
    found
}

/// A backslash at its end has it go on in the next line.
fn comment(chars: &mut Chars<'_>) {
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '\n' | '\r' => return,
            _ => {}
        }
    }
}

fn value(chars: &mut Chars<'_>) -> String {
    let mut value = String::new();
    let mut quote = None;
    // Only here a quote opens.
    let mut begins = true;
    // White space behind this is not part of it.
    let mut end = 0;
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => {
                (quote, begins) = (None, true);
                end = value.len();
            }
            (Some('"'), '\\') => match chars.next() {
                Some('\n') | None => {}
                Some(c @ ('"' | '\\' | '`' | '$')) => value.push(c),
                Some(c) => value.extend(['\\', c]),
            },
            (Some(_), c) => value.push(c),
            (None, '\n' | '\r') => break,
            (None, '\'' | '"') if begins => quote = Some(c),
            (None, '\\') => {
                begins = false;
                value.extend(chars.next().filter(|c| *c != '\n'));
                end = value.len();
            }
            (None, c) if c.is_whitespace() => {
                if !begins {
                    value.push(c);
                }
            }
            (None, c) => {
                begins = false;
                value.push(c);
                end = value.len();
            }
        }
    }
    if quote.is_none() {
        value.truncate(end);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_systemd_makes_of_them() {
        for (text, expected) in [
            ("A=b", &[("A", "b")][..]),
            ("A=b  c d  \nB=\n", &[("A", "b  c d"), ("B", "")]),
            ("# A=1\n; B=2\n#c \\\nD=4\n \n E = 5 \n", &[("E", "5")]),
            (
                "A='b \"c\" \\d'\nB=\"c 'd' \\\"e\\\" \\$f \\n\"",
                &[("A", "b \"c\" \\d"), ("B", "c 'd' \"e\" $f \\n")],
            ),
            // Not at the beginning, a quote is a character: of JSON, of options, of an apostrophe.
            (
                "A={\"b\": \"c d\"}\nO=-Dx=\"y z\" -v\nN=it's",
                &[("A", "{\"b\": \"c d\"}"), ("O", "-Dx=\"y z\" -v"), ("N", "it's")],
            ),
            (
                "A=\"two\nlines\"\nB='x\ny'\n",
                &[("A", "two\nlines"), ("B", "x\ny")],
            ),
            ("A=one\\\n two\nB=c\\d\\ ", &[("A", "one two"), ("B", "cd ")]),
            ("A=b#c\r\nB=c=d\r\n", &[("A", "b#c"), ("B", "c=d")]),
            ("A=\"b\"'c'", &[("A", "bc")]),
            ("export A=1\nnone\n=x\nB=2", &[("A", "1"), ("B", "2")]),
            ("A=\"open", &[("A", "open")]),
        ] {
            let found = variables(text);
            let found: Vec<(&str, &str)> = found
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_variables_or_none(text in "[A=\"'\\\\ \n#;$é]{0,40}") {
            for (name, _) in variables(&text) {
                proptest::prop_assert!(!name.contains(['=', '\n']));
            }
        }
    }
}
