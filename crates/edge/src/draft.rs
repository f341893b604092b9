//! A whole table on its way in: read piece by piece into a book of its own beside the one in force, and compared with
//! that by what both hold. It is all there and good, or nothing of it counts.

use std::collections::BTreeMap;

use model::route::{Delta, Invalid};

use crate::{
    balance::Group,
    book::Book,
    lines::{Bad, Reader, pieces},
    table::Rule,
};

/// As much of a table as has come.
#[derive(Default)]
pub struct Draft {
    reader: Reader,
    book: Book,
}

impl Draft {
    /// Takes what has come, and says what is wrong with it as soon as it can.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Bad> {
        let book = &mut self.book;
        self.reader.take(bytes, &mut |delta| {
            // Within one piece the book sees it itself.
            if let Some(twice) = delta.rules.iter().find(|rule| book.has_rule(rule.priority)) {
                return Err(Invalid::Priority(twice.priority));
            }
            let mut names = delta.target_groups.keys();
            if let Some(twice) = names.find(|name| book.group(name.as_str()).is_some()) {
                return Err(Invalid::TargetGroup {
                    group: twice.clone(),
                    why: "it comes twice".to_owned(),
                });
            }
            book.check(&delta)?;
            book.apply(&delta, 0);
            Ok(())
        })
    }

    /// The table, when it is all there and nothing more.
    pub fn end(self) -> Result<Book, Bad> {
        match self.reader.is_table() {
            true => Ok(self.book),
            false => Err(Bad::Line(self.reader.next())),
        }
    }
}

/// What turns one book into another. It shares what it names with the other one.
pub struct Gap {
    from: u64,
    version: u64,
    rules: Vec<Rule>,
    groups: Vec<Group>,
    without_rules: Vec<u32>,
    without_groups: Vec<Group>,
}

impl Gap {
    pub fn between(before: &Book, after: &Book) -> Self {
        let (rules, groups) = (after.rules(), after.groups());
        let other = |rule: &Rule| {
            before
                .rule(rule.priority)
                .is_none_or(|held| held.source() != rule.source())
        };
        let differs = |group: &Group| {
            before
                .group(group.name())
                .is_none_or(|held| held.source() != group.source())
        };
        Self {
            from: before.version,
            version: after.version,
            rules: rules.into_iter().filter(other).collect(),
            groups: groups.into_iter().filter(differs).collect(),
            without_rules: before
                .rules()
                .iter()
                .map(|rule| rule.priority)
                .filter(|priority| !after.has_rule(*priority))
                .collect(),
            without_groups: before
                .groups()
                .into_iter()
                .filter(|group| after.group(group.name()).is_none())
                .collect(),
        }
    }

    /// Rules and groups that change.
    pub fn len(&self) -> usize {
        self.rules.len() + self.groups.len() + self.without_rules.len() + self.without_groups.len()
    }

    /// As changes of `size` rules or groups at most, each of which finds what it names in place. Only after the last one
    /// the table is whole.
    pub fn deltas(self, size: usize) -> impl Iterator<Item = Delta> {
        let empty = move || Delta {
            from: Some(self.from),
            version: self.version,
            ..Delta::default()
        };
        let groups = pieces(self.groups.into_iter(), size).map(move |groups| Delta {
            target_groups: named(&groups),
            ..empty()
        });
        let rules = pieces(self.rules.into_iter(), size).map(move |rules| Delta {
            rules: rules.iter().map(Rule::source).collect(),
            ..empty()
        });
        let without_rules = pieces(self.without_rules.into_iter(), size).map(move |without_rules| Delta {
            without_rules,
            ..empty()
        });
        let without_groups = pieces(self.without_groups.into_iter(), size).map(move |groups| Delta {
            without_groups: groups.iter().map(|group| group.name().to_owned()).collect(),
            ..empty()
        });
        groups.chain(rules).chain(without_rules).chain(without_groups)
    }

    /// As one change.
    pub fn delta(&self) -> Delta {
        Delta {
            from: Some(self.from),
            version: self.version,
            rules: self.rules.iter().map(Rule::source).collect(),
            target_groups: named(&self.groups),
            without_rules: self.without_rules.clone(),
            without_groups: self
                .without_groups
                .iter()
                .map(|group| group.name().to_owned())
                .collect(),
        }
    }
}

fn named(groups: &[Group]) -> BTreeMap<String, model::route::TargetGroup> {
    groups
        .iter()
        .map(|group| (group.name().to_owned(), group.source()))
        .collect()
}
