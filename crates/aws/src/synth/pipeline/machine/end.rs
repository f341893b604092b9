//! How a flow ends: who hears of it, and what becomes of the half before.

use model::spec::Strategy;
use serde_json::{Value, json};

use super::{HAS_FAILED, States, Whole, call, catch, failed, retry, shift};
use crate::synth::pipeline::notice::Notice;

impl Whole<'_> {
    pub(super) fn subject(&self) -> String {
        format!("{}, {}", self.scope.app.app, self.environment.name)
    }

    /// Tells people `text`, an expression of JSONata, and goes on to `next` whether they hear it or not.
    pub(super) fn told(&self, topic: &str, text: &str, steps: &[&str], next: &str) -> Value {
        let subject = &self.subject();
        let notice = Notice {
            topic,
            subject,
            text,
            chat: None,
            steps,
        };
        json!({
            "Type": "Task",
            "Resource": call("sns:publish"),
            "Arguments": notice.arguments(),
            "TimeoutSeconds": 60,
            "Retry": retry(),
            "Catch": [{ "ErrorEquals": ["States.ALL"], "Next": next }],
            "Next": next,
        })
    }

    pub(super) fn end(&self, states: &mut States) {
        self.leave(states, "Leave", "TellSuccess");
        let subject = self.subject();
        let live = format!("'{subject}: live at commit ' & $push.commit");
        // What is changed in place leaves nothing behind.
        let retire = self.deploy.strategy != Strategy::InPlace;
        states.insert(
            "TellSuccess".to_owned(),
            self.told("${Builds}", &live, &[], if retire { "Keep" } else { "Live" }),
        );
        if retire {
            self.retire(states);
        }
        states.insert("Live".to_owned(), json!({ "Type": "Succeed" }));
        self.leave(states, "LeaveAfterFailure", "TellFailure");
        let failed = format!("'{subject}: not released, ' & $failure.Error & ': ' & $failure.Cause");
        states.insert(
            "TellFailure".to_owned(),
            self.told("${Operations}", &failed, &[], "Failed"),
        );
        let fail =
            json!({ "Type": "Fail", "Error": "{% $failure.Error %}", "Cause": "{% $failure.Cause %}" });
        states.insert("Failed".to_owned(), fail);
    }

    /// The old half goes when nobody will want it back. A release that came meanwhile is not disturbed: it is waited for, a
    /// half with traffic stays, and so does the way back of a release that began later. Whatever fails here, the release is live.
    fn retire(&self, states: &mut States) {
        let seconds = self.deploy.keep_old.as_secs().max(1);
        let keep = json!({
            "Type": "Wait", "Comment": "Until then, going back is a matter of weights.", "Seconds": seconds, "Next": "TurnToRetire",
        });
        states.insert("Keep".to_owned(), keep);
        self.turn(states, "TurnToRetire", "NewestToRetire", "LeaveKept");
        self.overtaken(states, "NewestToRetire", ["LeaveForGood", "Retire"], "LeaveKept");
        states["NewestToRetire"]["Comment"] = json!("What a later release left behind is its own.");
        let mut map = self.each(shift::retire(self));
        map["Items"] = json!("{% $released %}");
        let failure = format!(
            "{{% $count($states.result[{HAS_FAILED}]) > 0 ? {} : {{}} %}}",
            failed("$states.result")
        );
        map["Assign"] = json!({ "failure": failure });
        map["Catch"] = catch("LeaveKept");
        map["Next"] = json!("IsRetired");
        states.insert("Retire".to_owned(), map);
        let choice = json!({ "Condition": "{% $exists($failure.Error) %}", "Next": "LeaveKept" });
        states.insert(
            "IsRetired".to_owned(),
            json!({ "Type": "Choice", "Choices": [choice], "Default": "LeaveForGood" }),
        );
        self.leave(states, "LeaveForGood", "Live");
        self.leave(states, "LeaveKept", "TellKept");
        let stop = format!("vend aws retire {}", self.environment.name);
        let kept = format!(
            "'{}: live at commit ' & $push.commit & ', and the half before did not stop, ' & $failure.Error & ': ' & $failure.Cause & '. \
             It does with {stop}, or before the next release'",
            self.subject()
        );
        let told = self.told("${Operations}", &kept, &[&stop], "Live");
        states.insert("TellKept".to_owned(), told);
    }
}
