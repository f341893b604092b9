//! Whose turn an environment is, and which of its releases counts: one at a time moves it, and none goes over one that began
//! later and is live.

use model::stage;
use serde_json::{Value, json};

use super::{KNOWN_DAYS, States, TURN_S, Whole, call, catch, retry};

/// Seconds between two tries to take a turn: each is three events of the 25,000 that an execution has. It takes 47 tries to get
/// there; what takes longer than a turn does is asked about less often.
const PAUSE_S: u32 = 300;

/// The condition of a call did not hold: no reason to ask again.
pub(super) const NO: &str = "DynamoDB.ConditionalCheckFailedException";

/// The errors for which a call is made again, where its condition not holding is none of them.
fn transient() -> Value {
    let mut all = vec![json!({ "ErrorEquals": [NO], "MaxAttempts": 0 })];
    all.extend(retry().as_array().into_iter().flatten().cloned());
    json!(all)
}

/// What to do about one error, before all else that may be wrong.
pub(super) fn unless(no: Value, others: Value) -> Value {
    let mut all = vec![no];
    all.extend(others.as_array().into_iter().flatten().cloned());
    json!(all)
}

impl Whole<'_> {
    /// Seconds that lie between two steps of the traffic.
    fn pause_s(&self) -> u32 {
        let steps = self.deploy.steps.as_ref();
        steps.map_or(0, |own| u32::try_from(own.interval.as_secs()).unwrap_or_default())
    }

    /// Writes down whose turn it is. It is held for a day from then on, and as long as the traffic rests besides.
    fn hold(&self, condition: &str) -> Value {
        let held = TURN_S + self.pause_s();
        json!({
            "Type": "Task",
            "Resource": call("dynamodb:putItem"),
            "Arguments": {
                "TableName": self.scope.name(),
                "Item": {
                    "key": { "S": self.lock() },
                    "owner": { "S": "{% $states.context.Execution.Id %}" },
                    "expires": { "N": format!("{{% $string($floor($millis() / 1000) + {held}) %}}") },
                },
                "ConditionExpression": condition,
                "ExpressionAttributeNames": { "#owner": "owner" },
                "ExpressionAttributeValues": { ":owner": { "S": "{% $states.context.Execution.Id %}" } },
            },
            "TimeoutSeconds": 60,
        })
    }

    /// Takes the environment, or waits until it is free; goes to `failed` when it never is, or when nobody knows whether it was
    /// taken: that state leaves it.
    pub(super) fn turn(&self, states: &mut States, name: &str, next: &str, failed: &str) {
        let mut state = self.hold("attribute_not_exists(#key) OR #expires < :now OR #owner = :owner");
        let arguments = &mut state["Arguments"];
        for (name, own) in [("#key", "key"), ("#expires", "expires")] {
            arguments["ExpressionAttributeNames"][name] = json!(own);
        }
        arguments["ExpressionAttributeValues"][":now"] =
            json!({ "N": "{% $string($floor($millis() / 1000)) %}" });
        state["Comment"] = json!("Two releases never move one environment at the same time.");
        // As long as all steps of the release before may take.
        let steps = u32::try_from(stage::shares(&self.deploy).len()).unwrap_or(100);
        let most = TURN_S + self.pause_s().saturating_mul(steps);
        let pause = PAUSE_S.max(most / 288);
        let wait = json!({
            "ErrorEquals": [NO],
            "IntervalSeconds": 30, "BackoffRate": 1.05, "MaxDelaySeconds": pause, "MaxAttempts": most / pause + 50,
        });
        state["Retry"] = unless(wait, retry());
        state["Catch"] = catch(failed);
        state["Next"] = json!(next);
        states.insert(name.to_owned(), state);
    }

    /// Holds the turn for as long again as at first, without where to go then.
    pub(super) fn renewed(&self) -> Value {
        let mut state = self.hold("#owner = :owner");
        state["Retry"] = transient();
        state
    }

    /// Of releases of an environment that go live the one that began later counts, in whichever order they get their turns:
    /// builds and approvals take their time. One that fails is in nobody's way.
    pub(super) fn newest(&self, states: &mut States) {
        let next = if self.has_several() { "Targets" } else { "Release" };
        self.overtaken(states, "Newest", ["LeaveSuperseded", next], "LeaveAfterFailure");
        states["Newest"]["Comment"] =
            json!("What began before the release that is live does not go over it.");
        self.leave(states, "LeaveSuperseded", "TellSuperseded");
        let text = format!(
            "'{}: commit ' & $push.commit & ' is not released, because a release that began later is live'",
            self.subject()
        );
        let told = self.told("${Builds}", &text, &[], "Superseded");
        states.insert("TellSuperseded".to_owned(), told);
        let end = json!({ "Type": "Succeed", "Comment": "Nothing was moved, and nothing has failed." });
        states.insert("Superseded".to_owned(), end);
    }

    /// Goes to the first of `next` where a release is known that began later than this one and went live, else to the second;
    /// to `failed` when nobody knows. It holds for as long as this one has its turn.
    pub(super) fn overtaken(&self, states: &mut States, name: &str, next: [&str; 2], failed: &str) {
        let is = format!("Is{name}");
        let began = "$states.result.Item.began.N";
        let state = json!({
            "Type": "Task",
            "Resource": call("dynamodb:getItem"),
            "Arguments": {
                "TableName": self.scope.name(),
                "Key": { "key": { "S": self.newest_key() } },
                "ConsistentRead": true,
            },
            "TimeoutSeconds": 60,
            "Assign": {
                "overtaken": format!(
                    "{{% $exists({began}) ? $number({began}) > $toMillis($states.context.Execution.StartTime) : false %}}"
                ),
            },
            "Retry": retry(),
            "Catch": catch(failed),
            "Next": is,
        });
        states.insert(name.to_owned(), state);
        let choice = json!({ "Condition": "{% $overtaken %}", "Next": next[0] });
        let choice = json!({ "Type": "Choice", "Choices": [choice], "Default": next[1] });
        states.insert(is, choice);
    }

    fn newest_key(&self) -> String {
        format!("newest/{}", self.environment.name)
    }

    /// Writes down that this release is live, again as often as it asks, unless one is that began later. Whatever becomes of
    /// that, it is live.
    pub(super) fn record(&self, states: &mut States, next: &str) {
        let known = u64::from(KNOWN_DAYS) * 86_400;
        let began = "{% $string($toMillis($states.context.Execution.StartTime)) %}";
        let state = json!({
            "Type": "Task",
            "Comment": "What began before it and still waits does not go over it.",
            "Resource": call("dynamodb:putItem"),
            "Arguments": {
                "TableName": self.scope.name(),
                "Item": {
                    "key": { "S": self.newest_key() },
                    "owner": { "S": "{% $states.context.Execution.Id %}" },
                    "began": { "N": began },
                    "expires": { "N": format!("{{% $string($floor($millis() / 1000) + {known}) %}}") },
                },
                "ConditionExpression": "attribute_not_exists(#key) OR #began <= :began",
                "ExpressionAttributeNames": { "#key": "key", "#began": "began" },
                "ExpressionAttributeValues": { ":began": { "N": began } },
            },
            "TimeoutSeconds": 60,
            "Retry": transient(),
            "Catch": [{ "ErrorEquals": ["States.ALL"], "Next": next }],
            "Next": next,
        });
        states.insert("Record".to_owned(), state);
    }

    fn lock(&self) -> String {
        format!("turn/{}", self.environment.name)
    }

    /// Lets the next one in. What is not held any more is not let go.
    pub(super) fn leave(&self, states: &mut States, name: &str, next: &str) {
        let state = json!({
            "Type": "Task",
            "Resource": call("dynamodb:deleteItem"),
            "Arguments": {
                "TableName": self.scope.name(),
                "Key": { "key": { "S": self.lock() } },
                "ConditionExpression": "#owner = :owner",
                "ExpressionAttributeNames": { "#owner": "owner" },
                "ExpressionAttributeValues": { ":owner": { "S": "{% $states.context.Execution.Id %}" } },
            },
            "TimeoutSeconds": 60,
            "Retry": transient(),
            "Catch": [{ "ErrorEquals": ["States.ALL"], "Next": next }],
            "Next": next,
        });
        states.insert(name.to_owned(), state);
    }
}
