//! `vend edge top` on a terminal: a pseudo terminal of its own, keys that are typed, and how the terminal is afterwards.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize},
};

use crate::{
    alone::{Alone, origin},
    platform::{eventually, get},
};

/// The program on a terminal. Modes of the terminal are those of its other end, which stays open.
struct Screen {
    child: Child,
    keys: File,
    line: OwnedFd,
    before: Termios,
    /// All that was written.
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

impl Screen {
    /// 120 columns and 24 lines; it looks every so many seconds.
    fn open(alone: &Alone, every: &str) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let name = ptsname(&keys, Vec::new()).unwrap().into_string().unwrap();
        let line = || File::options().read(true).write(true).open(&name).unwrap();
        tcsetwinsize(&keys, size(120, 24)).unwrap();
        let before = tcgetattr(line()).unwrap();
        // As a shell starts it: in a session whose terminal this is.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(env!("CARGO_BIN_EXE_vend"))
            .args(["edge", "top", "--every", every, "--data"])
            .arg(alone.folder.path().join("data"))
            .env("NO_COLOR", "1")
            .stdin(line())
            .stdout(line())
            .stderr(line())
            .spawn()
            .unwrap();
        let (seen, mut reading) = (
            Arc::<Mutex<Vec<u8>>>::default(),
            File::from(keys.try_clone().unwrap()),
        );
        let all = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reading.read(&mut bytes) {
                all.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self {
            child,
            keys: keys.into(),
            line: line().into(),
            before,
            seen,
        }
    }

    /// Without the returns that the terminal adds to the ends of lines.
    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).replace('\r', "")
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for a whole frame that is so, and gives its lines.
    fn shows(&self, what: &str, so: impl Fn(&[&str]) -> bool) -> Vec<String> {
        eventually(what, Duration::from_secs(20), || {
            let seen = self.seen();
            let (before, _) = seen.rsplit_once("\x1b[J")?;
            let (_, frame) = before.rsplit_once("\x1b[H")?;
            let lines: Vec<&str> = frame
                .split('\n')
                .map(|line| line.trim_end_matches("\x1b[K"))
                .collect();
            so(&lines).then(|| lines.iter().map(|line| (*line).to_owned()).collect())
        })
    }

    /// Waits for a line that begins and goes on so.
    fn has(&self, line: &str) -> Vec<String> {
        self.shows(line, |lines| lines.iter().any(|shown| shown.contains(line)))
    }

    /// Waits for its end, after which the terminal must be as it was.
    fn ended(&mut self) -> ExitStatus {
        let status = eventually("it ends", Duration::from_secs(20), || {
            self.child.try_wait().unwrap()
        });
        self.is_restored();
        status
    }

    fn is_restored(&self) {
        eventually("the page from before is back", Duration::from_secs(20), || {
            let seen = self.seen();
            let (_, after) = seen.rsplit_once("\x1b[?25h\x1b[?1049l")?;
            (!after.contains("\x1b[H") && seen.starts_with("\x1b[?1049h\x1b[?25l")).then_some(())
        });
        let now = tcgetattr(&self.line).unwrap();
        assert_eq!(format!("{now:?}"), format!("{:?}", self.before));
    }

    fn tell(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

/// Where each of the groups is in the list.
fn order(lines: &[&str]) -> (Option<usize>, Option<usize>) {
    let at = |name: &str| lines.iter().position(|line| line.starts_with(name));
    (at("blog "), at("shop "))
}

fn serving() -> Alone {
    let alone = Alone::start(origin(), &["blog", "shop"]);
    for (host, path, status) in [("shop.test", "/", 200), ("blog.test", "/bad", 500)] {
        eventually("it serves", Duration::from_secs(20), || {
            (get(&alone.address, host, path).ok()?.0 == status).then_some(())
        });
    }
    alone
}

#[test]
fn keys_change_what_top_shows_and_the_terminal_is_as_it_was() {
    let alone = serving();
    let mut screen = Screen::open(&alone, "1");
    screen.has("GROUP");
    let modes = tcgetattr(&screen.line).unwrap().local_modes;
    assert!(
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO),
        "{modes:?}"
    );
    // More requests for the shop, and errors of the blog alone.
    let load = || {
        for _ in 0..4 {
            assert_eq!(get(&alone.address, "shop.test", "/").unwrap().0, 200);
        }
        assert_eq!(get(&alone.address, "blog.test", "/bad").unwrap().0, 500);
    };
    let first = |what: &str, mark: &str, blog_first: bool| {
        eventually(what, Duration::from_secs(20), || {
            load();
            let seen = screen.seen();
            let (before, _) = seen.rsplit_once("\x1b[J")?;
            let (_, frame) = before.rsplit_once("\x1b[H")?;
            let lines: Vec<&str> = frame.split('\n').collect();
            let (Some(blog), Some(shop)) = order(&lines) else {
                return None;
            };
            let marked = lines.iter().any(|line| line.contains(mark));
            (marked && (blog < shop) == blog_first).then_some(())
        });
    };
    first("by requests", "REQ/S▾", false);
    (&screen.keys).write_all(b"e").unwrap();
    first("by errors", "5XX▾", true);
    (&screen.keys).write_all(b"r").unwrap();
    first("by requests again", "REQ/S▾", false);
    (&screen.keys).write_all(b"n").unwrap();
    first("by name", "GROUP▾", true);
    // An arrow does nothing, and does not end it.
    screen.press("\x1b[A");
    screen.press("g");
    screen.has("PRIORITY");
    screen.press("\t");
    screen.has("GROUP▾");

    screen.press("/");
    screen.has("only: _");
    screen.press("shoq\x7fp");
    screen.has("only: shop_");
    screen.press("\r");
    let only = |lines: &[&str]| matches!(order(lines), (None, Some(_)));
    screen.shows("the shop alone", only);
    screen.press("\x1b");
    screen.shows("all again", |lines| matches!(order(lines), (Some(_), Some(_))));
    screen.press("q");
    assert!(screen.ended().success());
}

#[test]
fn top_is_as_large_as_its_terminal_at_once() {
    let alone = serving();
    // It would not look again for an hour.
    let screen = Screen::open(&alone, "3600");
    screen.shows("as wide as it is", |lines| lines[0].chars().count() > 60);
    for (columns, rows) in [(40, 12), (100, 3), (20, 1), (120, 24)] {
        tcsetwinsize(&screen.keys, size(columns, rows)).unwrap();
        let what = format!("{columns} columns, {rows} lines");
        let wide = usize::from(columns).min(81);
        screen.shows(&what, |lines| {
            let first = lines[0].chars().count();
            first <= usize::from(columns) && first >= wide && lines.len() <= usize::from(rows)
        });
    }
}

#[test]
fn the_terminal_is_as_it_was_after_signals_and_failures() {
    let mut alone = serving();
    for (name, signal) in [("TERM", Signal::TERM), ("INT", Signal::INT)] {
        let mut screen = Screen::open(&alone, "1");
        screen.has("GROUP");
        screen.tell(signal);
        assert!(screen.ended().success(), "{name}");
    }
    for keys in ["\x03", "\x1c", "\x04"] {
        let mut screen = Screen::open(&alone, "1");
        screen.has("GROUP");
        screen.press(keys);
        assert!(screen.ended().success(), "{keys:?}");
    }
    // Suspended, it gives the terminal back for so long.
    let mut screen = Screen::open(&alone, "1");
    screen.has("GROUP");
    screen.press("\x1a");
    screen.is_restored();
    let before = screen.seen().len();
    screen.tell(Signal::CONT);
    eventually("it goes on", Duration::from_secs(20), || {
        screen.seen()[before..].contains("GROUP").then_some(())
    });
    screen.press("q");
    assert!(screen.ended().success());

    let mut screen = Screen::open(&alone, "1");
    screen.has("GROUP");
    alone.child.kill().unwrap();
    alone.child.wait().unwrap();
    assert!(!screen.ended().success());
    let seen = screen.seen();
    let (_, after) = seen.rsplit_once("\x1b[?1049l").unwrap();
    assert!(after.contains("cannot be asked"), "{after:?}");
}
