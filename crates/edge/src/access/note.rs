//! What is kept about one request for its line in the log, while it is under way. Only where there is a log.

use std::{borrow::Cow, net::SocketAddr};

use crate::{
    answer::Answer,
    http1::class::{self, Class},
    table::{Action, Rule},
    target::Target,
};

/// What was decided about a request, and what came of it. In text and numbers: a rule would keep its targets as long as
/// an idle connection lasts.
#[derive(Default)]
pub struct Note {
    /// What the rule that decided belongs to.
    pub place: String,
    /// The rule's; 0 is what is done where no rule is for a request.
    pub priority: Option<u32>,
    /// The rule has people sign in first.
    pub login: bool,
    /// What was done, in ALB's words.
    pub action: Option<&'static str>,
    /// Where the client was sent by a rule.
    pub redirect: Option<String>,
    /// The group that was chosen.
    pub group: String,
    /// Who was asked last, and could not be reached.
    pub target: Option<SocketAddr>,
    /// How a transform of the rule went, in ALB's words.
    pub transform: Option<&'static str>,
    /// Path with query, and host, that it made.
    pub new_url: Option<String>,
    pub new_host: Option<String>,
    /// Why there is no target's answer, in one word.
    pub reason: Option<&'static str>,
    /// The same, as the client was told.
    pub words: Option<&'static str>,
    /// How the request departs from RFC 9112.
    pub class: Option<Class>,
    /// The head of the request as the target got it, when its body has taken its place.
    pub head: Vec<u8>,
}

impl Note {
    /// For the next request.
    pub fn clear(&mut self) {
        let Self {
            place, group, head, ..
        } = std::mem::take(self);
        (self.place, self.group, self.head) = (place, group, head);
        self.place.clear();
        self.group.clear();
        self.head.clear();
        self.head.shrink_to(16 * 1024);
    }

    /// This rule decides.
    pub fn rule(&mut self, rule: &Rule) {
        self.place.clear();
        self.place.push_str(rule.place());
        (self.priority, self.login) = (Some(rule.priority), rule.login().is_some());
    }

    /// The rule's action is taken.
    pub fn act(&mut self, action: &Action) {
        self.action = Some(match action {
            Action::Forward(_) => "forward",
            Action::Fixed(_) => "fixed-response",
            Action::Redirect(_) => "redirect",
        });
    }

    /// No rule is for it.
    pub fn unmatched(&mut self, answer: &Answer) {
        self.priority = Some(0);
        self.action = Some(match answer.location {
            Some(_) => "redirect",
            None => "fixed-response",
        });
    }

    pub fn group(&mut self, name: &str) {
        self.group.clear();
        self.group.push_str(name);
    }

    /// There is no way to this target.
    pub fn tried(&mut self, group: &str, target: &Target) {
        self.group(group);
        self.target = Some(target.address());
    }

    /// The client gets this in the place of a target's answer.
    pub fn answer(&mut self, answer: &Answer) {
        if self.action == Some("redirect") {
            self.redirect.clone_from(&answer.location);
        }
        self.reason = answer.reason;
        if let (Some(_), Cow::Borrowed(words)) = (answer.reason, &answer.body) {
            self.words = Some(words);
            self.class = self.class.or_else(|| class::of(words));
        }
    }

    pub fn place_name(&self) -> Option<&str> {
        Some(&*self.place).filter(|place| !place.is_empty())
    }

    pub fn group_name(&self) -> Option<&str> {
        Some(&*self.group).filter(|group| !group.is_empty())
    }

    /// What was done about it, in order, as ALB says it; none when nothing was.
    pub fn actions(&self) -> Option<String> {
        match (self.login, self.action) {
            (true, Some(action)) => Some(format!("authenticate,{action}")),
            (true, None) => Some("authenticate".to_owned()),
            (false, action) => action.map(str::to_owned),
        }
    }
}
