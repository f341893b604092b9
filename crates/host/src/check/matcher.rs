//! Patterns of values: text that must be there, `/regexp/`, and `!` for what must not be there. Pure.

use regex::RegexBuilder;

/// Largest compiled regular expression, in bytes.
const SIZE: usize = 1 << 20;

/// Is the pattern true of the text? It is looked for in each line, as goss does.
///
/// # Errors
/// When it is not a regular expression.
pub fn found(pattern: &str, text: &str) -> Result<bool, String> {
    let (negated, pattern) = match pattern.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    // A text that begins so is written with a backslash.
    let plain = pattern
        .strip_prefix('\\')
        .filter(|rest| rest.starts_with(['!', '/']))
        .unwrap_or(pattern);
    let expression = pattern.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
    let there = match expression {
        Some(expression) => {
            let regex = RegexBuilder::new(expression)
                .size_limit(SIZE)
                .build()
                .map_err(|_| format!("/{expression}/ is not a regular expression that can be used"))?;
            text.lines().any(|line| regex.is_match(line)) || (text.is_empty() && regex.is_match(""))
        }
        None => text.lines().any(|line| line.contains(plain)) || plain.is_empty(),
    };
    Ok(there != negated)
}

/// What a person sees of the text that was searched.
pub fn excerpt(text: &str) -> String {
    const LINES: usize = 10;
    let lines: Vec<&str> = text.lines().take(LINES).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let text = "HTTP server\nlistens on 8080\n";
        for (pattern, expected) in [
            ("server", true),
            ("Server", false),
            ("!Server", true),
            ("!server", false),
            ("/^listens on [0-9]+$/", true),
            ("!/^listens/", false),
            ("/(?i)SERVER/", true),
            ("server\nlistens", false),
            ("\\/x", false),
            ("", true),
        ] {
            assert_eq!(found(pattern, text), Ok(expected), "{pattern}");
        }
        assert!(found("/(/", text).is_err());
        assert!(found("/a{1000}{1000}{1000}/", text).is_err());
        assert_eq!(found("\\/etc/", "in /etc/hosts"), Ok(true));
    }
}
