//! Which variables a file may read: those that it names, and all of them where it reads an environment without saying what
//! of it.
//!
//! To take a file for one that reads them costs a bake for each commit; not to take it for one is an image that says it was
//! made of another commit. So what is in doubt counts as read. But what is usual in scripts is in no doubt:
//! `#!/usr/bin/env bash`, `env NAME=value program`, `python3 -m venv env`, `set -e`, `"${!array[@]}"`.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    sync::LazyLock,
};

use regex::bytes::{Regex, RegexBuilder};

use super::VARIABLES;

/// So many bytes are looked at together, and so many of them again with those that follow.
const WINDOW: usize = 1 << 20;
const AGAIN: usize = 4 << 10;
/// No name is longer, nor is a command that is looked at, in words.
const LONGEST: usize = 32;
const WORDS: usize = 500;
/// What has a zero among its first bytes is a program or data: only names count in it.
const TOLD_BY: usize = 8 << 10;

/// What all names begin with.
static PREFIX: LazyLock<Regex> = LazyLock::new(|| constant("VEND_"));

/// Shells that read a variable whose name is in another. The keys of an array, `${!a[@]}`, are not that.
static INDIRECT: LazyLock<Regex> =
    LazyLock::new(|| constant(r"\$\{!(?:\w+(?:[^\w\[]|\[[^@*])|[#@*?])|\$\{\(P\)|\\\$\{?\w*\$[\w{]"));

/// Where variables are read in other languages, `/proc` included, and where the one that is read is named.
static READ: LazyLock<Regex> = LazyLock::new(|| {
    constant(
        r"\b(?i:environb?|getenv|lookupenv)\b|\bprocess\.env\b|\$_(?:ENV|SERVER)\b|%ENV\b|\$ENV\{|\bENV(?:\[|\.)|\benv::vars",
    )
});
static READ_BY_NAME: LazyLock<Regex> = LazyLock::new(|| {
    constant(
        r#"\b(?i:environb?|getenv|lookupenv)(?:\.(?:get|setdefault|pop))?\s*[\[(]\s*["']|\bprocess\.env(?:\??\.\w|\[\s*["'])|\$_(?:ENV|SERVER)\[\s*["']|\$ENV\{["']?\w|\bENV(?:\.\w+\??\(?\s*|\[\s*)["']"#,
    )
});

/// What may stand before a command and is none.
const BEFORE: [&str; 13] = [
    "!", "{", "}", "then", "do", "else", "if", "elif", "while", "until", "exec", "command", "builtin",
];
/// Commands that run another.
const RUNNERS: [&str; 32] = [
    "ash", "bash", "busybox", "chroot", "coproc", "dash", "doas", "eval", "find", "function", "gosu",
    "ionice", "ksh", "nice", "nohup", "nsenter", "parallel", "runuser", "setpriv", "setsid", "sh", "ssh",
    "stdbuf", "su", "su-exec", "sudo", "time", "timeout", "unshare", "watch", "xargs", "zsh",
];

fn constant(pattern: &str) -> Regex {
    let built = RegexBuilder::new(pattern).unicode(false).build();
    built.expect("the pattern is a constant")
}

/// Of [`VARIABLES`], by index. `seen` is given all bytes.
pub(super) fn of(file: &mut dyn Read, mut seen: impl FnMut(&[u8])) -> io::Result<BTreeSet<usize>> {
    let mut names = BTreeSet::new();
    let mut window = Vec::new();
    let mut is_text = None;
    loop {
        let known = window.len();
        file.take((WINDOW - known) as u64).read_to_end(&mut window)?;
        if window.len() == known {
            names.extend(named(&window, window.len()));
            return Ok(names);
        }
        seen(&window[known..]);
        let is_text = *is_text.get_or_insert_with(|| !window.iter().take(TOLD_BY).any(|byte| *byte == 0));
        if names.len() < VARIABLES.len() {
            // What goes on behind the window is seen with the next.
            names.extend(named(&window, window.len() - 1));
            if is_text && reads_any(&window) {
                names.extend(0..VARIABLES.len());
            }
        }
        window.drain(..window.len().saturating_sub(AGAIN));
    }
}

/// By what ends there or before.
fn named(text: &[u8], end: usize) -> impl Iterator<Item = usize> {
    let found = PREFIX.find_iter(text).map(|found| &text[found.start()..]);
    found.flat_map(move |rest| {
        let run = rest
            .iter()
            .take(LONGEST)
            .take_while(|byte| byte.is_ascii_uppercase() || **byte == b'_');
        let run = &rest[..run.count()];
        let is_whole = text.len() - rest.len() + run.len() <= end;
        // A name that more follows is one, and so is each that may be put together from what is there.
        let may_be = move |name: &&str| run.starts_with(name.as_bytes()) || name.as_bytes().starts_with(run);
        let names = VARIABLES
            .iter()
            .enumerate()
            .filter(move |(_, name)| is_whole && may_be(name));
        names.map(|(number, _)| number)
    })
}

fn reads_any(text: &[u8]) -> bool {
    INDIRECT.is_match(text)
        || READ.find_iter(text).count() > READ_BY_NAME.find_iter(text).count()
        || lines(&String::from_utf8_lossy(text)).any(|line| line_tells(&line))
}

/// Those that go on in the next are one; comments are left out.
fn lines(text: &str) -> impl Iterator<Item = String> {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        let mut line = lines.next()?.to_owned();
        while !line.trim_start().starts_with('#') && line.ends_with('\\') {
            line.pop();
            line.push_str(lines.next().unwrap_or_default());
        }
        Some(line)
    })
    .filter(|line| !line.trim_start().starts_with('#'))
}

/// Whether a command in a line, or in what is quoted in it, tells all variables.
fn line_tells(line: &str) -> bool {
    // Most lines have none of them.
    const PARTS: [&str; 8] = [
        "env", "set", "export", "readonly", "declare", "typeset", "local", "compgen",
    ];
    if !PARTS.iter().any(|part| line.contains(part)) {
        return false;
    }
    let mut words = vec![String::new()];
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let word = words.last_mut().expect("there is always one");
        let quoted = matches!(c, '"' | '\'').then(|| rest.split_once(c)).flatten();
        if let Some((inner, after)) = quoted {
            // What is called so in JSON and its like is no command.
            if !after.trim_start().starts_with(':') && line_tells(inner) {
                return true;
            }
            word.push_str(inner);
            rest = after;
            continue;
        }
        match c {
            '#' if word.is_empty() => break,
            ';' | '|' | '&' | '(' | ')' | '`' | '<' | '>' | '"' | '\'' => {
                let file = matches!(c, '<' | '>');
                if file && word.bytes().all(|byte| byte.is_ascii_digit()) {
                    word.clear();
                }
                // A function is called, and no command.
                let is_call = c == '(' && !word.is_empty();
                if !is_call && command_tells(&words) {
                    return true;
                }
                words = vec![String::new()];
                if file {
                    words.insert(0, c.to_string());
                }
            }
            c if c.is_whitespace() => words.push(String::new()),
            c => word.push(c),
        }
    }
    command_tells(&words)
}

/// Whether a command, or one that it runs, tells all variables.
fn command_tells(words: &[String]) -> bool {
    let words = words.iter().map(String::as_str).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.take(WORDS).collect();
    // What is read or written may be named before the command.
    let words = match words.first() {
        Some(&("<" | ">")) => words.get(2..).unwrap_or_default(),
        _ => &words[..],
    };
    let is_before = |word: &&&str| {
        BEFORE.contains(*word) || is_assignment(word) || word.starts_with('-') || is_number(word)
    };
    let words = &words[words.iter().take_while(is_before).count()..];
    let runs = words.first().is_some_and(|first| RUNNERS.contains(first));
    let begins = if runs { words.len() } else { words.len().min(1) };
    (0..begins).any(|at| tells(words[at], &words[at + 1..]))
}

fn tells(command: &str, rest: &[&str]) -> bool {
    let is_option = |word: &&str| word.starts_with('-');
    let refers = || {
        rest.iter()
            .any(|word| word.starts_with('-') && word.contains('n'))
    };
    let command = command.trim_start_matches('\\');
    match command.trim_start_matches("/usr").trim_start_matches("/bin/") {
        "env" => only_settings(rest),
        "printenv" => rest.iter().all(|word| word.starts_with(['-', '$'])),
        "export" | "readonly" => rest.iter().all(is_option),
        "declare" | "typeset" => rest.iter().all(is_option) || refers(),
        "local" => refers(),
        "set" => rest.is_empty(),
        "compgen" => true,
        _ => false,
    }
}

/// Whether `env` is given no program. What a variable holds may be one or not.
fn only_settings(words: &[&str]) -> bool {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "-u" | "-C" => drop(words.next()),
            // The end of what `find` runs.
            "\\" | "+" => {}
            word if word.starts_with(['-', '$']) || is_assignment(word) => {}
            _ => return false,
        }
    }
    true
}

/// Of a file that is open, as in `2>&1`.
fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: impl AsRef<[u8]>) -> Vec<usize> {
        let mut seen = Vec::new();
        let names = super::of(&mut text.as_ref(), |bytes| seen.extend_from_slice(bytes)).unwrap();
        assert!(seen == text.as_ref(), "each byte is seen once");
        names.into_iter().collect()
    }

    #[test]
    fn names_count_one_by_one() {
        for (text, names) in [
            ("echo $VEND_COMMIT_ID", &[3][..]),
            ("echo $VEND_APPLE", &[1]),
            ("VEND_COMMIT_IDVEND_TENANT", &[0, 3]),
            ("name=VEND_COMMIT_$what", &[3, 4, 5, 6, 7]),
            ("VEND_OTHER vend_commit_id", &[]),
        ] {
            assert_eq!(of(text), names, "{text}");
        }
        // Wherever in a large file it is.
        for before in [
            WINDOW - 7,
            WINDOW - AGAIN - 7,
            3 * WINDOW,
            5 * WINDOW - 3 * AGAIN - 2,
        ] {
            let mut text = vec![b'x'; before];
            text.extend(b" VEND_COMMIT_ID");
            assert_eq!(of(&text), [3]);
            text.truncate(before);
            text.extend(b"\nenv\n");
            text.extend(vec![b'x'; 3 * AGAIN]);
            assert_eq!(of(&text).len(), VARIABLES.len());
        }
    }

    #[test]
    fn what_tells_an_environment_reads_all() {
        for text in [
            "env",
            "set -e\n  env | sort > /etc/build",
            "/usr/bin/env -0 >x",
            "env 2>/dev/null",
            "env A=b \\\n  -u HOME",
            "env $MORE",
            "x=$(env)",
            "x=`env`",
            "bash -c 'env | grep COMMIT'",
            "su app -c \"env\"",
            "bash -c '\nenv\n'",
            "sudo -E env",
            "timeout 5 env",
            "if true; then env; fi",
            "{ env; }",
            "A=b env",
            "diff <(env) old",
            "printenv",
            "function dump { env; }",
            "time -p env",
            "command -p env",
            "2>&1 env",
            ">/etc/build env",
            "\\env",
            "find . -exec env \\;",
            "gosu app env",
            "dash -c env",
            "printenv -0",
            "printenv \"$name\"",
            "export -p",
            "export > x",
            "declare -px",
            "declare -n ref=$name",
            "set | grep X",
            "compgen -e",
            "cat /proc/self/environ",
            "tr < /proc/$$/environ",
            "echo ${!name}",
            "for v in ${!P*}; do :; done",
            "echo ${!names[0]}",
            "eval \"x=\\$$name\"",
            "print(dict(os.environ))",
            "x = os.environ[name]",
            "os.getenv(name)",
            "console.log(process.env)",
            "{ ...process.env, A: 'b' }",
            "awk 'BEGIN { for (n in ENVIRON) print n }'",
            "foreach ($_ENV as $k => $v)",
            "perl -e 'print %ENV;'",
            "ENV.each { |k, v| p k }",
            "for (k, v) in std::env::vars() {",
            "for _, e := range os.Environ() {",
        ] {
            assert_eq!(of(text).len(), VARIABLES.len(), "{text}");
        }
    }

    #[test]
    fn what_is_usual_in_scripts_reads_nothing() {
        for text in [
            "#!/usr/bin/env bash\nset -euo pipefail\nset -x; set +x; set -- a b",
            "env DEBIAN_FRONTEND=noninteractive apt-get install -y env",
            "env DEBIAN_FRONTEND=\"a b\" \\\n  apt-get update",
            "# what is in env\n  # set\ntrue # env",
            "python3 -m venv env && . env/bin/activate && cd env; rm -rf env",
            "echo A=b > env",
            "cp app.env /etc/app.env; source .env; cat env >> x",
            "export A=b PATH=$PATH:/x; readonly B=c; declare -A map; declare -a list=(a); local name=x; typeset x",
            "for key in \"${!map[@]}\"; do echo ${map[$key]}; done; echo ${#x}",
            "printenv HOME",
            "{\"env\": {\"browser\": true}, \"set\" : 1}",
            "services:\n  web:\n    env:\n      - A=b",
            "os.environ['HOME'] + os.environ.get(\"X\", '') + os.getenv('Y') + process.env.NODE_ENV + process.env['A']",
            "awk '{ print ENVIRON[\"HOME\"] }'; ENV.fetch(\"A\") ENV['B']; $_SERVER['HOST']; $ENV{HOME}",
            "ENV=production; echo $ENV_FILE ${ENV}; FROM x\nENV A=b",
            "sed 's/a$/b/; s/\\$/x/' file; echo \\$HOME \\${HOME}",
            "the environment is set by env files",
            "systemctl set-environment A=b; git config --unset x",
            "set(NAME value)\nenv(x)\nexport default {}",
        ] {
            assert_eq!(of(text), [0; 0], "{text}");
        }
    }

    #[test]
    fn in_what_is_no_text_names_count() {
        assert_eq!(of(b"\x7fELF\0\0environ\0env\n/proc/self/environ\0"), [0; 0]);
        assert_eq!(of(b"\x7fELF\0\0VEND_COMMIT_ID\0"), [3]);
    }
}
