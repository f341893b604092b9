//! The files that a release changes: each, and those beyond a hundred by their number.

use model::plan::{Change, Subject};

/// Files beyond this are counted, not listed.
pub const LISTED: usize = 100;

/// `files` are (`A`, `M`, `D`…, path), as git says.
pub fn changes(files: &[(String, String)]) -> Vec<Change> {
    let (listed, rest) = files.split_at(files.len().min(LISTED));
    let mut changes: Vec<Change> = listed.iter().map(file).collect();
    for (kind, done) in [("A", "added"), ("M", "changed"), ("D", "removed")] {
        let of_kind = |(own, _): &&(String, String)| kind_of(own) == kind;
        let count = rest.iter().filter(of_kind).count();
        if count > 0 {
            let Change { before, after, .. } = file(&(kind.to_owned(), String::new()));
            changes.push(Change::new(
                Subject::File,
                format!("{count} more {done}"),
                before.map(|side| many(&side, count)),
                after.map(|side| many(&side, count)),
            ));
        }
    }
    changes
}

/// How many files a line stands for is in its values: any file may have a name that says so.
pub fn many(side: &str, count: usize) -> String {
    format!("{side}, {count} files")
}

/// Git's letter of a change; what is neither new nor gone is changed.
fn kind_of(kind: &str) -> &str {
    if matches!(kind, "A" | "D") { kind } else { "M" }
}

fn file((kind, path): &(String, String)) -> Change {
    let side = |present: bool| present.then(|| "present".to_owned());
    let (before, after) = match kind_of(kind) {
        "A" => (side(false), side(true)),
        "D" => (side(true), side(false)),
        _ => (Some("old content".into()), Some("new content".into())),
    };
    Change::new(Subject::File, path.clone(), before, after)
}
