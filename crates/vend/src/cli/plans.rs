//! A plan as people read it before they say yes: who wrote what, and what will be different, in groups.

use model::plan::{Change, Plan, PlanKind, Subject};

use super::releases::{short, word};
use crate::output::{Output, Tone, clean, headline};

/// The whole plan: what, from, to, the commits, and then each group of changes with its number.
pub fn plan_text(plan: &Plan, output: &Output) -> String {
    let from = plan
        .from
        .map_or("nothing".to_owned(), |number| format!("v{number}"));
    let what = match plan.kind {
        PlanKind::Release => "release",
        PlanKind::Rollback => "rollback",
        PlanKind::Destroy => "destruction",
    };
    let head = format!("{what} of {}: {from} → v{}", plan.place, plan.to);
    let mut text = format!("{}\n", output.tone(Tone::Strong, &clean(&head)));
    if !plan.commits.is_empty() {
        text.push_str(match plan.kind {
            PlanKind::Rollback => "commits taken back\n",
            _ => "commits\n",
        });
    }
    for commit in &plan.commits {
        text.push_str(&format!(
            "  {}  {}  by {}\n",
            short(&commit.id),
            headline(&commit.message, 70),
            headline(&commit.author, 60)
        ));
    }
    let mut subjects: Vec<Subject> = plan.changes.iter().map(|change| change.subject).collect();
    subjects.sort_unstable();
    subjects.dedup();
    for subject in subjects {
        let group: Vec<&Change> = plan
            .changes
            .iter()
            .filter(|change| change.subject == subject)
            .collect();
        text.push_str(&group_text(subject, &group, output));
    }
    if plan.changes.is_empty() {
        text.push_str("  nothing changes\n");
    }
    text
}

fn group_text(subject: Subject, group: &[&Change], output: &Output) -> String {
    let title = match subject {
        Subject::File => format!("files  {}", counts(group)),
        Subject::Rule => "rule".to_owned(),
        Subject::Secret => "secrets".to_owned(),
        other => word(&other),
    };
    let mut text = format!("{title}\n");
    let width = group.iter().map(|change| clean(&change.name).chars().count());
    let width = width.max().unwrap_or(0).min(40);
    for change in group {
        let (sign, tone) = match (&change.before, &change.after) {
            (None, _) => ("+", Tone::Good),
            (_, None) => ("-", Tone::Bad),
            _ => ("~", Tone::Wait),
        };
        let line = format!("  {sign} {:<width$}  {}", clean(&change.name), values(change));
        text.push_str(&format!("{}\n", output.tone(tone, line.trim_end())));
    }
    text
}

/// From what to what; of files and secrets only that there is something else now.
fn values(change: &Change) -> String {
    let shown = |value: &Option<String>| {
        let value = value.as_deref().unwrap_or_default();
        match change.subject {
            Subject::Image | Subject::Revision => value.get(..19).unwrap_or(value).to_owned(),
            _ => headline(value, 120),
        }
    };
    match (change.subject, &change.before, &change.after) {
        (Subject::File, ..) => String::new(),
        (Subject::Secret, Some(_), Some(_)) => "another value".to_owned(),
        (Subject::Secret, ..) => String::new(),
        (Subject::Tests, Some(before), Some(after)) if before == after => shown(&change.after),
        (_, Some(_), Some(_)) => format!("{} → {}", shown(&change.before), shown(&change.after)),
        (_, None, after) => shown(after),
        (_, before, None) => shown(before),
    }
}

/// `2 added, 1 changed`. A line that stands for many counts as what its values say: `present, 12 files`.
fn counts(group: &[&Change]) -> String {
    let count = |of: fn(&Change) -> bool| -> usize {
        let own = group.iter().filter(|change| of(change));
        own.fold(0, |sum: usize, change| sum.saturating_add(files(change)))
    };
    let kinds = [
        (count(|change| change.before.is_none()), "added"),
        (
            count(|change| change.before.is_some() && change.after.is_some()),
            "changed",
        ),
        (count(|change| change.after.is_none()), "removed"),
    ];
    let told: Vec<String> = kinds
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    told.join(", ")
}

/// How many files a line stands for.
fn files(change: &Change) -> usize {
    let side = change.after.as_ref().or(change.before.as_ref());
    let many = side.and_then(|side| side.rsplit_once(", ")?.1.strip_suffix(" files")?.parse().ok());
    many.unwrap_or(1)
}

/// What a person is asked, in one line that repeats the essence of the plan that stands above it.
pub fn question(plan: &Plan) -> String {
    let newest = plan.commits.first().map_or_else(String::new, |commit| {
        format!(" with {} by {}", short(&commit.id), headline(&commit.author, 60))
    });
    let files: Vec<&Change> = plan
        .changes
        .iter()
        .filter(|change| change.subject == Subject::File)
        .collect();
    let files = match files.is_empty() {
        true => String::new(),
        false => format!(" (files: {})", counts(&files)),
    };
    format!(
        "Approve v{} of {}{newest}{files}? [y/N] ",
        plan.to,
        clean(&plan.place)
    )
}

/// Is what a person typed a yes?
pub fn is_yes(line: &str) -> bool {
    let line = line.trim();
    line.eq_ignore_ascii_case("y") || line.eq_ignore_ascii_case("yes")
}

#[cfg(test)]
mod tests {
    use model::{Digest, port::Commit};

    use super::*;

    fn plan() -> Plan {
        let change = |subject, name: &str, before: Option<&str>, after: Option<&str>| {
            Change::new(subject, name, before.map(Into::into), after.map(Into::into))
        };
        let image = |text: &str| Digest::of(text).to_string();
        Plan {
            place: "acme/shop/production".into(),
            kind: PlanKind::Release,
            from: Some(3),
            to: 4,
            commits: vec![Commit {
                id: "0123456789abcdef".into(),
                author: "Ada <ada@acme.example>".into(),
                message: "Change one line\n\nand more".into(),
                branch: "main".into(),
                repository: "acme/shop".into(),
                committed_at: jiff::Timestamp::UNIX_EPOCH,
            }],
            changes: vec![
                change(Subject::Image, "image", Some(&image("a")), Some(&image("b"))),
                change(Subject::Configuration, "env.LEVEL", Some("info"), Some("debug")),
                change(Subject::Secret, "api-key", Some("version 1"), Some("version 2")),
                change(Subject::Secret, "new", None, Some("version 1")),
                change(Subject::File, "app.py", Some("old content"), Some("new content")),
                change(Subject::File, "7 more added", None, Some("present, 7 files")),
                // Files that want to be counted as something else.
                change(Subject::File, "0 more added", None, Some("present")),
                change(
                    Subject::File,
                    "18446744073709551615 more added",
                    None,
                    Some("present"),
                ),
                change(Subject::File, "gone\x1b[2J", Some("present"), None),
            ],
        }
    }

    #[test]
    fn a_plan_is_grouped_and_clean() {
        let text = plan_text(&plan(), &Output::new(false, String::new()));
        assert_eq!(
            text,
            concat!(
                "release of acme/shop/production: v3 → v4\n",
                "commits\n",
                "  01234567  Change one line  by Ada <ada@acme.example>\n",
                "image\n",
                "  ~ image  sha256:ca978112ca1b → sha256:3e23e8160039\n",
                "files  9 added, 1 changed, 1 removed\n",
                "  ~ app.py\n",
                "  + 7 more added\n",
                "  + 0 more added\n",
                "  + 18446744073709551615 more added\n",
                "  - gone [2J\n",
                "configuration\n",
                "  ~ env.LEVEL  info → debug\n",
                "secrets\n",
                "  ~ api-key  another value\n",
                "  + new\n",
            )
        );
        assert_eq!(
            question(&plan()),
            "Approve v4 of acme/shop/production with 01234567 by Ada <ada@acme.example> \
             (files: 9 added, 1 changed, 1 removed)? [y/N] "
        );
    }
}
