use super::*;

const WEB: &str = "[Service]\nExecStart=/bin/web\n[Install]\nWantedBy=multi-user.target\nAlias=www.service\nAlso=web.socket\n";

struct Root(tempfile::TempDir);

impl Root {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            let path = root.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn call(&self, line: &str) -> ControlOutcome {
        let mut words = line.split_whitespace().map(str::to_owned).peekable();
        let now = words.next_if(|word| word == "--now").is_some();
        let order = ControlOrder {
            verb: words.next().unwrap(),
            units: words.collect(),
            now,
            ..ControlOrder::default()
        };
        systemctl(&order, self.0.path())
    }

    /// The links below the administrator's directory, and where they lead.
    fn links(&self) -> Vec<String> {
        let base = self.0.path().join("etc/systemd/system");
        let mut waiting = vec![base.clone()];
        let mut found = Vec::new();
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                match fs::read_link(&path) {
                    Ok(to) => {
                        let name = path.strip_prefix(&base).unwrap().display();
                        found.push(format!("{name} {}", to.display()));
                    }
                    Err(_) => waiting.push(path),
                }
            }
        }
        found.sort();
        found
    }

    #[track_caller]
    fn check(&self, line: &str, code: u8, stdout: &str, stderr: &str) {
        let outcome = self.call(line);
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (code, stdout),
            "{line}: {}",
            outcome.stderr
        );
        assert!(outcome.stderr.contains(stderr), "{line}: {}", outcome.stderr);
        assert_eq!(
            outcome.stderr.is_empty(),
            stderr.is_empty(),
            "{line}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn links_are_made_and_taken_away() {
    let root = Root::new(&[
        ("usr/lib/systemd/system/web.service", WEB),
        (
            "usr/lib/systemd/system/web.socket",
            "[Socket]\nListenStream=80\n[Install]\nWantedBy=sockets.target\n",
        ),
        (
            "usr/lib/systemd/system/job@.service",
            "[Service]\nExecStart=/bin/job %i\n[Install]\nRequiredBy=shop.target\nDefaultInstance=main\n",
        ),
        (
            "usr/lib/systemd/system/bare@.service",
            "[Service]\nExecStart=/bin/bare\n[Install]\nWantedBy=multi-user.target\n",
        ),
        (
            "usr/lib/systemd/system/fixed.service",
            "[Service]\nExecStart=/bin/fixed\n",
        ),
        (
            "opt/app/app.service",
            "[Service]\nExecStart=/bin/app\n[Install]\nWantedBy=default.target\n",
        ),
        ("usr/lib/systemd/system-preset/90.preset", "disable job@*\n"),
    ]);
    let web = [
        "multi-user.target.wants/web.service /usr/lib/systemd/system/web.service",
        "sockets.target.wants/web.socket /usr/lib/systemd/system/web.socket",
        "www.service /usr/lib/systemd/system/web.service",
    ];
    let none: &[&str] = &[];
    for (line, code, says, links) in [
        (
            "enable web",
            0,
            "Created symlink /etc/systemd/system/multi-user.target.wants/web.service → /usr/lib/systemd/system/web.service.",
            &web[..],
        ),
        ("enable web", 0, "", &web),
        ("reenable web.service", 0, "Removed", &web),
        (
            "disable www",
            0,
            "Removed /etc/systemd/system/multi-user.target.wants/web.service.",
            none,
        ),
        (
            "enable job@a job@b.service",
            0,
            "Created",
            &[
                "shop.target.requires/job@a.service /usr/lib/systemd/system/job@.service",
                "shop.target.requires/job@b.service /usr/lib/systemd/system/job@.service",
            ],
        ),
        ("disable job@", 0, "Removed", none),
        (
            "enable job@",
            0,
            "Created",
            &["shop.target.requires/job@main.service /usr/lib/systemd/system/job@.service"],
        ),
        ("preset job@main", 0, "Removed", none),
        ("enable bare@", 1, "is a template", none),
        ("enable fixed", 0, "nothing to enable", none),
        (
            "enable missing web",
            1,
            "Unit file missing.service does not exist.",
            &web,
        ),
        ("disable web", 0, "Removed", none),
        (
            "enable /opt/app/app.service",
            0,
            "Created",
            &[
                "app.service /opt/app/app.service",
                "default.target.wants/app.service /etc/systemd/system/app.service",
            ],
        ),
        ("disable app", 0, "Removed", &["app.service /opt/app/app.service"]),
        (
            "mask web",
            0,
            "",
            &["app.service /opt/app/app.service", "web.service /dev/null"],
        ),
        (
            "enable web",
            1,
            "is masked",
            &["app.service /opt/app/app.service", "web.service /dev/null"],
        ),
        ("unmask web", 0, "", &["app.service /opt/app/app.service"]),
    ] {
        root.check(line, code, "", says);
        assert_eq!(root.links(), links, "{line}");
    }
}

#[test]
fn what_is_about_services_is_not_done() {
    let root = Root::new(&[("usr/lib/systemd/system/web.service", WEB)]);
    let under = format!("no service runs under {}", root.0.path().display());
    for verb in [
        "start",
        "stop",
        "restart",
        "try-restart",
        "reload",
        "reload-or-restart",
        "force-reload",
        "try-reload-or-restart",
        "kill",
    ] {
        let said = format!(
            "systemctl {verb} web.service: ignored, {under}\nsystemctl {verb} none.timer: ignored, {under}\n"
        );
        root.check(&format!("{verb} web none.timer"), 0, "", &said);
    }
    root.check("--now enable web", 0, "", "systemctl start web.service: ignored");
    root.check("--now disable web", 0, "", "systemctl stop web.service: ignored");
    root.check("daemon-reload", 0, "", "");
    root.check("reset-failed web", 0, "", "");
    root.check("list-units", 0, "", "");
    root.check("frobnicate web", 1, "", "Unknown command verb frobnicate");
    root.check("isolate rescue.target", 1, "", "Unknown command verb isolate");
    root.check("start", 1, "", "Too few arguments.");
}

#[test]
fn questions_are_answered_by_the_files() {
    let root = Root::new(&[
        ("usr/lib/systemd/system/web.service", WEB),
        (
            "usr/lib/systemd/system/fixed.service",
            "[Service]\nExecStart=/bin/fixed\n",
        ),
        ("etc/init.d/old", ""),
        ("etc/rc2.d/S01old", ""),
    ]);
    root.check("is-active web none", 3, "inactive\ninactive\n", "");
    root.check("is-failed web", 1, "inactive\n", "");
    root.check(
        "status web",
        3,
        "○ web.service\n     Active: inactive (dead)\n",
        "",
    );
    root.check("is-system-running", 1, "offline\n", "");
    root.check("is-enabled web", 1, "disabled\n", "");
    root.check("is-enabled web fixed", 0, "disabled\nstatic\n", "");
    root.check("is-enabled old", 0, "enabled\n", "");
    root.check("is-enabled none", 1, "", "No such file or directory");
    root.call("enable web");
    root.check("is-enabled www", 0, "enabled\n", "");
    let listed = format!("{:<40} enabled\n", "web.service");
    root.check("list-unit-files web*", 0, &listed, "");
    root.check("list-unit-files none.service", 1, "", "");
    root.check("get-default", 0, "multi-user.target\n", "");
    root.check("set-default graphical.target", 0, "", "Created symlink");
    root.check("get-default", 0, "graphical.target\n", "");
    root.check("set-default web", 1, "", "is no target");
}

#[test]
fn a_yes_is_read_as_systemd_reads_one() {
    for (value, yes) in [
        ("1", true),
        ("True", true),
        ("on", true),
        ("0", false),
        ("", false),
        ("maybe", false),
    ] {
        assert_eq!(is_asked_for(Some(value.into())), yes, "{value}");
    }
    assert!(!is_asked_for(None));
}
