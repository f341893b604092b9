//! Stacks that stand, and of which the files say nothing (any more): no apply touches them, and they cost on. Branches' own are
//! among them; they go with their branch, as long as the file has the entry that they were made from.

use ::aws::site::Found;
use serde::Serialize;

use super::project::{Loaded, Project};
use crate::output::{Output, Tone, clean};

/// One that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    pub stack: String,
    pub foundation: String,
    /// CloudFormation's word.
    pub status: String,
    pub environment: Option<String>,
    pub why: Why,
    /// US cents a month, as far as it is known.
    pub cents: u64,
    /// Takes it away.
    pub next: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The files do not have it any more.
    NoFile,
    /// It is a branch's, and goes with it.
    Branch,
    /// It is a branch's, and the entry that it was made from is in no file any more: nothing takes it away.
    NoEntry,
}

/// All of them, where all stacks were asked for.
pub fn all(own: &Project, loaded: &Loaded, found: &[(String, Found)]) -> Vec<Standing> {
    if !loaded.is_whole() || loaded.branch.is_some() {
        return Vec::new();
    }
    let is_known = |name: &str| loaded.made.names().any(|(_, own, _)| own == name);
    let strays = found.iter().filter(|(_, found)| {
        let stack = &found.stack;
        let is_there = !stack.status.is_gone();
        is_there && !is_known(&stack.name) && loaded.is_own(found) && loaded.refusal(found).is_none()
    });
    let one = |(foundation, found): &(String, Found)| {
        let mark = found.mark.as_ref();
        let preview = mark.and_then(|mark| mark.preview.as_deref());
        let why = why(preview, &loaded.entries);
        Standing {
            stack: found.stack.name.clone(),
            foundation: foundation.clone(),
            status: found.stack.status.0.clone(),
            environment: mark.and_then(|mark| mark.environment.clone()),
            why,
            cents: mark.map_or(0, |mark| mark.cents),
            next: own.only(
                match why {
                    Why::NoFile => "destroy --gone",
                    Why::Branch | Why::NoEntry => "destroy --gone --branches",
                },
                [found.stack.name.as_str()],
            ),
        }
    };
    strays.map(one).collect()
}

fn why(preview: Option<&str>, entries: &[String]) -> Why {
    match preview {
        None => Why::NoFile,
        Some(entry) if entries.iter().any(|own| own == entry) => Why::Branch,
        Some(_) => Why::NoEntry,
    }
}

/// In words.
pub fn people(all: &[Standing], output: &Output) -> String {
    let one = |own: &Standing| {
        let (tone, what) = match own.why {
            Why::NoFile => (
                Tone::Wait,
                format!(
                    "in no file any more, and stays as it is ({} takes it away)",
                    own.next
                ),
            ),
            Why::Branch => (Tone::Faint, "of a branch, and goes with it".to_owned()),
            Why::NoEntry => (
                Tone::Wait,
                format!(
                    "of a branch whose entry is in no file any more: nothing takes it away but {}",
                    own.next
                ),
            ),
        };
        format!(
            "{}  {}\n",
            output.tone(Tone::Strong, &clean(&own.stack)),
            output.tone(tone, &what)
        )
    };
    all.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branchs_stack_goes_with_it_while_the_file_has_its_entry() {
        let entries = ["preview".to_owned()];
        assert_eq!(why(None, &entries), Why::NoFile);
        assert_eq!(why(Some("preview"), &entries), Why::Branch);
        assert_eq!(why(Some("old"), &entries), Why::NoEntry);
    }
}
