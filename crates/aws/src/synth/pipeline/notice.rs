//! What flows tell people, as every reader of a topic takes it: plain text for mails, and for chat the notification that
//! Chatbot shows. Of plain text Chatbot shows nothing at all.
//!
//! Source: "Custom notifications" of the guide of Amazon Q Developer in chat applications (once AWS Chatbot), event schema;
//! "Publish" of SNS, `MessageStructure`.

use serde_json::{Value, json};

/// Characters of a description in chat.
const LENGTH: u32 = 2_000;

/// What is said: `text` and `chat` are expressions of JSONata, `steps` what a reader can do next.
pub(super) struct Notice<'n> {
    pub topic: &'n str,
    pub subject: &'n str,
    pub text: &'n str,
    /// What chat shows, if not the text of the mail.
    pub chat: Option<&'n str>,
    pub steps: &'n [&'n str],
}

impl Notice<'_> {
    /// The arguments of SNS's `Publish`. Chatbot is a subscriber by HTTPS, so that is the key of its message.
    pub(super) fn arguments(&self) -> Value {
        let (subject, text) = (self.subject, self.text);
        let chat = self.chat.unwrap_or(text);
        let steps: Vec<String> = self.steps.iter().map(|step| format!("'{step}'")).collect();
        let steps = match steps.as_slice() {
            [] => String::new(),
            steps => format!(", 'nextSteps': [{}]", steps.join(", ")),
        };
        // Who writes a commit chooses their name: it becomes no link, and calls nobody.
        let message = format!(
            "{{% $string({{ 'default': {text}, 'https': $string({{ 'version': '1.0', 'source': 'custom', 'content': {{ \
             'textType': 'client-markdown', 'title': '{subject}', \
             'description': $substring($replace({chat}, /[<>&]/, ' '), 0, {LENGTH}){steps} }} }}) }}) %}}"
        );
        json!({ "TopicArn": self.topic, "Subject": subject, "MessageStructure": "json", "Message": message })
    }
}
