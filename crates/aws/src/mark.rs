//! What a stack says about itself, in an output: whose it is, and which template it runs. So an apply that changes nothing
//! asks CloudFormation once, and what is not in the files any more is still known as ours. (Tags would say it too; they are
//! handed on to every resource, and each change of one changes them all.)

use serde_json::json;

use crate::{
    sign::digest,
    synth::{self, Kind, Template},
};

/// The output's id.
const ID: &str = "Vend";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub platform: String,
    pub kind: Kind,
    pub foundation: String,
    /// Of the template without this output.
    pub digest: String,
    /// US cents a month of what has a price.
    pub cents: u64,
}

impl Mark {
    pub fn of(platform: &str, stack: &synth::Stack, cents: u64) -> Self {
        Self {
            platform: platform.to_owned(),
            kind: stack.kind,
            foundation: stack.foundation.to_string(),
            digest: digest(stack.template.body().to_string().as_bytes())[..32].to_owned(),
            cents,
        }
    }

    /// What a stack's outputs say; None for a stack of somebody else.
    pub fn read<'a>(outputs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let (_, text) = outputs.into_iter().find(|(id, _)| *id == ID)?;
        let get = |name: &str| {
            let mut pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
            pairs
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
        };
        let kind = get("kind")?;
        Some(Self {
            platform: get("platform")?,
            kind: Kind::ALL.into_iter().find(|own| own.word() == kind)?,
            foundation: get("foundation")?,
            digest: get("digest")?,
            cents: get("cents")?.parse().ok()?,
        })
    }

    fn text(&self) -> String {
        let Self {
            platform,
            kind,
            foundation,
            digest,
            cents,
        } = self;
        let kind = kind.word();
        format!("platform={platform} kind={kind} foundation={foundation} digest={digest} cents={cents}")
    }

    /// The template with the mark, as it is sent.
    pub fn on(&self, template: &Template) -> Template {
        let mut template = template.clone();
        let output = json!({ "Description": "Whose this stack is, and what it runs", "Value": self.text() });
        template.outputs.push((ID.into(), output));
        template
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let mark = Mark {
            platform: "vend".into(),
            kind: Kind::Flow,
            foundation: "production".into(),
            digest: "abc".into(),
            cents: 12_345,
        };
        let text = mark.text();
        assert_eq!(Mark::read([("Other", "x"), ("Vend", text.as_str())]), Some(mark));
        assert_eq!(Mark::read([("Vend", "somebody else's")]), None);
        assert_eq!(Mark::read([]), None);
    }
}
