//! Redirects, whose parts are made of a rule's words and a client's.

use model::route::{Action, Redirect};

use super::{dice::Dice, ends, find};
use crate::{answer::Answer, head::Ask, http1::parse};

/// Makes a redirect of the first bytes, five lines, and reads the rest as a request's head. What a rule may say is one head
/// with one `Location`, whatever is asked for.
///
/// # Panics
/// When it is not so.
pub fn redirect(bytes: &[u8]) {
    let mut lines = bytes.splitn(6, |b| *b == b'\n');
    let mut text = || String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let redirect = Redirect {
        status: 302,
        protocol: text(),
        host: text(),
        port: text(),
        path: text(),
        query: text(),
    };
    let mut rule = Dice(b"").rule();
    rule.action = Action::Redirect(redirect.clone());
    let head = lines.next().unwrap_or_default();
    let mut ask = Ask::default();
    if rule.check(|_| true).is_err() || parse::request(head, &ends(), (7, 11), &mut ask).is_err() {
        return;
    }
    let answer = Answer::redirect(&redirect, &ask);
    let mut out = Vec::new();
    answer.write(&mut out, "", false);
    assert_eq!(find(&out), Some(out.len()), "it writes one head");
    let locations = memchr::memmem::find_iter(&out, b"\r\nLocation: ").count();
    assert_eq!(locations, 1);
    let there = answer.location.unwrap_or_default();
    assert!(!there.contains(char::is_control), "{there:?}");
    assert!(
        there.starts_with("http://") || there.starts_with("https://"),
        "{there:?}"
    );
}
