//! What a stack says about itself, in an output: whose it is, and which template it runs. So an apply that changes nothing
//! asks CloudFormation once, and what is not in the files any more is still known as ours. (Tags say whose it is too; they are
//! handed on to every resource, and each change of one changes them all, so a digest is none of them.)

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
    /// Whose it is: an app's, and of it an environment's, made from an entry of `vend.yaml` where that is for branches.
    pub app: Option<String>,
    pub environment: Option<String>,
    pub preview: Option<String>,
    /// Of a foundation: the app whose file it was made or changed after the last time.
    pub by: Option<String>,
    /// Of the template without this output, and of the stack's tags.
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
            app: stack.app.as_ref().map(ToString::to_string),
            environment: stack.environment.as_ref().map(ToString::to_string),
            preview: stack.preview.as_ref().map(ToString::to_string),
            by: None,
            digest: digest(format!("{}{:?}", stack.template.body(), stack.tags).as_bytes())[..32].to_owned(),
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
            app: get("app"),
            environment: get("environment"),
            preview: get("preview"),
            by: get("by"),
            digest: get("digest")?,
            cents: get("cents")?.parse().ok()?,
        })
    }

    /// What the tags say of a stack whose creation failed, and that has no outputs: whose it is, and nothing of what it is made from.
    pub fn of_tags(tags: &[(String, String)]) -> Option<Self> {
        let get = |name: &str| {
            let mut tags = tags.iter();
            let found = tags.find(|(key, _)| key.strip_prefix("vend:") == Some(name));
            found.map(|(_, value)| value.clone())
        };
        let kind = get("kind")?;
        Some(Self {
            platform: get("platform")?,
            kind: Kind::ALL.into_iter().find(|own| own.word() == kind)?,
            foundation: get("foundation")?,
            app: get("app"),
            environment: get("environment"),
            preview: get("preview"),
            by: None,
            digest: String::new(),
            cents: 0,
        })
    }

    /// Do both say the same stack? Whose file it was made after is not a part of it: apps whose files agree change nothing.
    pub fn is_same(&self, other: &Self) -> bool {
        let own = Self {
            by: other.by.clone(),
            ..self.clone()
        };
        own == *other
    }

    /// Does it say of a stack that it is another's than `wanted` says? One that says nothing of apps is of an older apply.
    pub fn is_anothers(&self, wanted: &Self) -> bool {
        let whose = |own: &Self| (own.app.clone(), own.environment.clone(), own.preview.clone());
        self.app.is_some() && whose(self) != whose(wanted)
    }

    fn text(&self) -> String {
        let Self {
            platform,
            kind,
            foundation,
            digest,
            cents,
            ..
        } = self;
        let kind = kind.word();
        let whose = [
            ("app", &self.app),
            ("environment", &self.environment),
            ("preview", &self.preview),
            ("by", &self.by),
        ];
        let whose = whose
            .into_iter()
            .filter_map(|(key, own)| Some((key, own.as_ref()?)));
        let whose: String = whose.map(|(key, own)| format!("{key}={own} ")).collect();
        format!(
            "platform={platform} kind={kind} foundation={foundation} {whose}digest={digest} cents={cents}"
        )
    }

    /// The template with the mark, as it is sent.
    pub fn on(&self, template: &Template) -> Template {
        let mut template = template.clone();
        template.outputs.retain(|(id, _)| id != ID);
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
        let mut mark = Mark {
            platform: "vend".into(),
            kind: Kind::Flow,
            foundation: "production".into(),
            app: Some("shop".into()),
            environment: Some("x-b-0123456789ab".into()),
            preview: Some("preview".into()),
            by: None,
            digest: "abc".into(),
            cents: 12_345,
        };
        let text = mark.text();
        assert_eq!(
            Mark::read([("Other", "x"), ("Vend", text.as_str())]),
            Some(mark.clone())
        );
        // As older ones were written, and those of foundations are.
        (mark.app, mark.environment, mark.preview) = (None, None, None);
        let text = mark.text();
        assert_eq!(Mark::read([("Vend", text.as_str())]), Some(mark.clone()));
        let by = |app: &str| Mark {
            by: Some(app.into()),
            ..mark.clone()
        };
        let text = by("shop").text();
        assert_eq!(Mark::read([("Vend", text.as_str())]), Some(by("shop")));
        assert!(by("shop").is_same(&by("blog")) && by("shop").is_same(&mark));
        let other = Mark {
            digest: "def".into(),
            ..by("shop")
        };
        assert!(!other.is_same(&by("shop")));
        assert_eq!(Mark::read([("Vend", "somebody else's")]), None);
        assert_eq!(Mark::read([]), None);
    }
}
