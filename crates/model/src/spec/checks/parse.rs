//! `checks.yml`, from text to values: the kinds of goss that are built, with texts, `/patterns/` and `!negations`.

use std::collections::BTreeMap;

use super::{Checks, CommandCheck, FileCheck, HttpCheck, PackageCheck, PortCheck, ProcessCheck, UserCheck};
use crate::{
    Problem,
    spec::{
        read::{Reader, quoted, shown},
        yaml::{Node, Value},
    },
};

const KINDS: &[&str] = &["file", "package", "port", "process", "command", "http", "user"];
const LATER_KINDS: &[&str] = &[
    "addr",
    "dns",
    "gossfile",
    "group",
    "interface",
    "kernel-param",
    "matching",
    "mount",
    "service",
];

impl Checks {
    /// Reads a goss file. Gives the checks with warnings, or every problem, in the order of the file.
    pub fn parse(text: &str, file: &str) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let mut reader = Reader::new(file);
        let root = reader.document(text);
        let checks = root.map(|root| checks(&mut reader, &root)).unwrap_or_default();
        if reader.problems.is_empty() && checks == Self::default() {
            reader
                .problems
                .push(Problem::warning(file, 0, 0, "the file holds no check"));
        }
        reader.finish(Some(checks))
    }
}

fn checks(reader: &mut Reader<'_>, root: &Node) -> Checks {
    let mut checks = Checks::default();
    let entries = match &root.value {
        Value::Mapping(entries) => entries.as_slice(),
        _ => {
            let kind = root.kind();
            reader.error(root, format!("the file must be a mapping, not {kind}"));
            &[]
        }
    };
    for (key, node) in entries {
        match key.text().unwrap_or_default() {
            "file" => checks.file = each(reader, node, "file", file),
            "package" => checks.package = each(reader, node, "package", package),
            "port" => checks.port = each(reader, node, "port", port),
            "process" => checks.process = each(reader, node, "process", process),
            "command" => checks.command = each(reader, node, "command", command),
            "http" => checks.http = each(reader, node, "http", http),
            "user" => checks.user = each(reader, node, "user", user),
            kind if LATER_KINDS.contains(&kind) => {
                reader.later(key, kind);
            }
            _ => reader.unknown(key, "", KINDS.iter().copied()),
        }
    }
    checks
}

type One<T> = fn(&mut Reader<'_>, &mut Check<'_>) -> Option<T>;

/// Reads every check of a kind by its name.
fn each<T>(reader: &mut Reader<'_>, node: &Node, kind: &'static str, one: One<T>) -> BTreeMap<String, T> {
    let mut found = BTreeMap::new();
    for (key, node) in reader.mapping(node, kind) {
        let name = key.text().unwrap_or_default();
        if name.is_empty() || name.contains('\0') || name.contains("{{") {
            reader.error(key, format!("{} is no name for {kind}", quoted(name)));
            continue;
        }
        let fields = reader.mapping(node, &format!("{kind}.{}", quoted(name).trim_matches('`')));
        let mut check = Check { kind, key, fields };
        if let Some(check) = one(reader, &mut check) {
            found.insert(name.to_owned(), check);
        }
    }
    found
}

/// One check of the file: its name and its attributes.
struct Check<'n> {
    kind: &'static str,
    key: &'n Node,
    fields: &'n [(Node, Node)],
}

impl<'n> Check<'n> {
    /// Refuses attributes that are not known, and those that are not built.
    fn keys(&self, reader: &mut Reader<'_>, known: &[&str], later: &[&str]) {
        for (key, value) in self.fields {
            let name = key.text().unwrap_or_default();
            match name {
                // Words for people.
                "title" | "meta" => {}
                _ if known.contains(&name) => {
                    let matcher = |node: &Node| matches!(node.value, Value::Mapping(_));
                    let inside = match &value.value {
                        Value::Sequence(items) => items.iter().find(|item| matcher(item)),
                        _ => Some(value).filter(|value| matcher(value)),
                    };
                    if let Some(node) = inside {
                        let word = node.value_key().unwrap_or("matcher");
                        reader.later(node, word).help =
                            Some("write a text, a `/pattern/`, or `!` before either".to_owned());
                    }
                }
                _ if later.contains(&name) || name == "skip" => {
                    reader.later(key, &format!("{}.{name}", self.kind));
                }
                _ => reader.unknown(key, self.kind, known.to_vec()),
            }
        }
    }

    fn value(&self, name: &str) -> Option<&'n Node> {
        self.fields
            .iter()
            .find(|(key, value)| key.text() == Some(name) && !value.is_null())
            .map(|(_, value)| value)
            .filter(|value| !matches!(value.value, Value::Mapping(_)))
    }

    fn flag(&self, reader: &mut Reader<'_>, name: &str, default: bool) -> bool {
        self.value(name)
            .and_then(|node| reader.flag(node, &format!("{}.{name}", self.kind), true))
            .unwrap_or(default)
    }

    fn text(&self, reader: &mut Reader<'_>, name: &str) -> Option<String> {
        self.value(name)
            .and_then(|node| reader.text(node, &format!("{}.{name}", self.kind)))
    }

    fn texts(&self, reader: &mut Reader<'_>, name: &str) -> Vec<String> {
        let Some(node) = self.value(name) else {
            return Vec::new();
        };
        let what = format!("{}.{name}", self.kind);
        let mut texts = Vec::new();
        for item in reader.list(node, &what, true) {
            if !matches!(item.value, Value::Mapping(_)) {
                texts.extend(reader.text(item, &what));
            }
        }
        texts
    }

    fn number(&self, reader: &mut Reader<'_>, name: &str, most: u64) -> Option<u64> {
        self.value(name)
            .and_then(|node| reader.number(node, &format!("{}.{name}", self.kind), 0..=most))
    }

    /// Milliseconds, at least 1 and at most ten minutes.
    fn timeout(&self, reader: &mut Reader<'_>, default: u64) -> u64 {
        self.number(reader, "timeout", 600_000).unwrap_or(default).max(1)
    }
}

impl Node {
    /// The first key of a mapping.
    fn value_key(&self) -> Option<&str> {
        match &self.value {
            Value::Mapping(entries) => entries.first().and_then(|(key, _)| key.text()),
            _ => None,
        }
    }
}

fn file(reader: &mut Reader<'_>, check: &mut Check<'_>) -> Option<FileCheck> {
    let known = [
        "exists", "mode", "owner", "group", "filetype", "contains", "contents",
    ];
    check.keys(
        reader,
        &known,
        &["size", "linked-to", "md5", "sha256", "sha512", "uid", "gid"],
    );
    let mode = check.text(reader, "mode").filter(|mode| {
        let octal = (3..=4).contains(&mode.len()) && mode.bytes().all(|b| (b'0'..=b'7').contains(&b));
        if !octal && let Some(node) = check.value("mode") {
            let message = format!(
                "`file.mode` must be octal digits such as \"0644\", not {}",
                quoted(mode)
            );
            reader.error(node, message);
        }
        octal
    });
    let filetype = check
        .value("filetype")
        .and_then(|node| reader.word(node, "file.filetype", &["file", "directory", "symlink"]))
        .map(str::to_owned);
    let mut contains = check.texts(reader, "contains");
    contains.extend(check.texts(reader, "contents"));
    Some(FileCheck {
        exists: check.flag(reader, "exists", true),
        mode: mode.map(|mode| format!("{mode:0>4}")),
        owner: check.text(reader, "owner"),
        group: check.text(reader, "group"),
        filetype,
        contains,
    })
}

fn package(reader: &mut Reader<'_>, check: &mut Check<'_>) -> Option<PackageCheck> {
    check.keys(reader, &["installed", "versions"], &["package-name"]);
    Some(PackageCheck {
        installed: check.flag(reader, "installed", true),
        versions: check.texts(reader, "versions"),
    })
}

fn port(reader: &mut Reader<'_>, check: &mut Check<'_>) -> Option<PortCheck> {
    check.keys(reader, &["listening", "ip"], &["port"]);
    let name = check.key.text().unwrap_or_default();
    let shape = name.split_once(':').is_some_and(|(protocol, port)| {
        ["tcp", "tcp6", "udp", "udp6"].contains(&protocol)
            && port.bytes().all(|b| b.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if !shape {
        let message = format!("{} is not a port", quoted(name));
        reader.error(check.key, message).help = Some("write it as `tcp:8080`".to_owned());
        return None;
    }
    Some(PortCheck {
        listening: check.flag(reader, "listening", true),
        ip: check.texts(reader, "ip"),
    })
}

fn process(reader: &mut Reader<'_>, check: &mut Check<'_>) -> Option<ProcessCheck> {
    check.keys(reader, &["running"], &["comm"]);
    Some(ProcessCheck {
        running: check.flag(reader, "running", true),
    })
}

fn command(reader: &mut Reader<'_>, check: &mut Check<'_>) -> Option<CommandCheck> {
    check.keys(
        reader,
        &["exec", "exit-status", "stdout", "stderr", "timeout"],
        &[],
    );
    let status = check.number(reader, "exit-status", 255).unwrap_or(0);
    Some(CommandCheck {
        exec: check.text(reader, "exec"),
        exit_status: i32::try_from(status).unwrap_or(255),
        stdout: check.texts(reader, "stdout"),
        stderr: check.texts(reader, "stderr"),
        timeout_ms: check.timeout(reader, 10_000),
    })
}

fn http(reader: &mut Reader<'_>, check: &mut Check<'_>) -> Option<HttpCheck> {
    let known = [
        "status",
        "allow-insecure",
        "no-follow-redirects",
        "timeout",
        "headers",
        "body",
    ];
    let later = [
        "url",
        "method",
        "request-headers",
        "request-body",
        "username",
        "password",
        "proxy",
        "ca-file",
        "cert-file",
        "key-file",
    ];
    check.keys(reader, &known, &later);
    let url = check.key.text().unwrap_or_default();
    let rest = url.strip_prefix("http://").or(url.strip_prefix("https://"));
    if !rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic())) {
        reader
            .error(check.key, format!("{} is not a URL", quoted(url)))
            .help = Some("write it as `http://127.0.0.1:8080/health`".to_owned());
        return None;
    }
    let status = match check.value("status") {
        Some(node) => reader.number(node, "http.status", 100..=599)?,
        None => {
            let name = shown(check.key);
            reader
                .error(check.key, format!("`status` of {name} is missing"))
                .help = Some("write `status: 200`".to_owned());
            return None;
        }
    };
    Some(HttpCheck {
        status: u16::try_from(status).unwrap_or(599),
        allow_insecure: check.flag(reader, "allow-insecure", false),
        no_follow_redirects: check.flag(reader, "no-follow-redirects", false),
        timeout_ms: check.timeout(reader, 5_000),
        headers: check.texts(reader, "headers"),
        body: check.texts(reader, "body"),
    })
}

fn user(reader: &mut Reader<'_>, check: &mut Check<'_>) -> Option<UserCheck> {
    check.keys(
        reader,
        &["exists", "uid", "gid", "groups", "home", "shell"],
        &["username"],
    );
    let mut id = |name: &str| {
        check
            .number(reader, name, u64::from(u32::MAX))
            .and_then(|id| u32::try_from(id).ok())
    };
    let (uid, gid) = (id("uid"), id("gid"));
    Some(UserCheck {
        exists: check.flag(reader, "exists", true),
        uid,
        gid,
        groups: check.texts(reader, "groups"),
        home: check.text(reader, "home"),
        shell: check.text(reader, "shell"),
    })
}
