//! Whose turn an environment is, and which of its releases counts: one at a time moves it, and none goes over one that began
//! later.

use serde_json::{Value, json};

use super::{KNOWN_DAYS, States, TURN_S, Whole, call, catch, retry};

/// Seconds between two tries to take a turn, at most: each is three events of the 25,000 that an execution has. It takes 47 tries
/// to get there.
const PAUSE_S: u32 = 300;

impl Whole<'_> {
    /// Takes the environment, or waits until it is free; goes to `failed` when it never is.
    pub(super) fn turn(&self, states: &mut States, name: &str, next: &str, failed: &str) {
        let state = json!({
            "Type": "Task",
            "Comment": "Two releases never move one environment at the same time.",
            "Resource": call("dynamodb:putItem"),
            "Arguments": {
                "TableName": self.scope.name(),
                "Item": {
                    "key": { "S": self.lock() },
                    "owner": { "S": "{% $states.context.Execution.Id %}" },
                    "expires": { "N": format!("{{% $string($floor($millis() / 1000) + {TURN_S}) %}}") },
                },
                "ConditionExpression": "attribute_not_exists(#key) OR #expires < :now OR #owner = :owner",
                "ExpressionAttributeNames": { "#key": "key", "#expires": "expires", "#owner": "owner" },
                "ExpressionAttributeValues": {
                    ":now": { "N": "{% $string($floor($millis() / 1000)) %}" },
                    ":owner": { "S": "{% $states.context.Execution.Id %}" },
                },
            },
            "TimeoutSeconds": 60,
            "Retry": [{
                "ErrorEquals": ["DynamoDB.ConditionalCheckFailedException"],
                "IntervalSeconds": 30, "BackoffRate": 1.05, "MaxDelaySeconds": PAUSE_S, "MaxAttempts": TURN_S / PAUSE_S + 50,
            }],
            "Catch": catch(failed),
            "Next": next,
        });
        states.insert(name.to_owned(), state);
    }

    /// Of releases of an environment the one that began later counts, in whichever order they get their turns: builds and
    /// approvals take their time.
    pub(super) fn newest(&self, states: &mut States) {
        let mut state = self.is_newest("LeaveSuperseded", "LeaveAfterFailure");
        state["Comment"] =
            json!("What began before a release that had its turn already does not go over it.");
        state["Next"] = json!(if self.has_several() { "Targets" } else { "Release" });
        states.insert("Newest".to_owned(), state);
        self.leave(states, "LeaveSuperseded", "TellSuperseded");
        let text = format!(
            "'{}: commit ' & $push.commit & ' is not released, because a release that began later had its turn before it'",
            self.subject()
        );
        let told = self.told("${Builds}", &text, &[], "Superseded");
        states.insert("TellSuperseded".to_owned(), told);
        let end = json!({ "Type": "Succeed", "Comment": "Nothing was moved, and nothing has failed." });
        states.insert("Superseded".to_owned(), end);
    }

    /// Writes down that this release is the newest that had its turn, again as often as it asks. It goes to `older` when
    /// there is one that began later, and to `failed` when nobody knows.
    pub(super) fn is_newest(&self, older: &str, failed: &str) -> Value {
        let known = u64::from(KNOWN_DAYS) * 86_400;
        let began = "{% $string($toMillis($states.context.Execution.StartTime)) %}";
        let no = "DynamoDB.ConditionalCheckFailedException";
        let mut retries = vec![json!({ "ErrorEquals": [no], "MaxAttempts": 0 })];
        retries.extend(retry().as_array().into_iter().flatten().cloned());
        let mut catches = vec![json!({ "ErrorEquals": [no], "Next": older })];
        catches.extend(catch(failed).as_array().into_iter().flatten().cloned());
        json!({
            "Type": "Task",
            "Resource": call("dynamodb:putItem"),
            "Arguments": {
                "TableName": self.scope.name(),
                "Item": {
                    "key": { "S": format!("newest/{}", self.environment.name) },
                    "owner": { "S": "{% $states.context.Execution.Id %}" },
                    "began": { "N": began },
                    "expires": { "N": format!("{{% $string($floor($millis() / 1000) + {known}) %}}") },
                },
                "ConditionExpression": "attribute_not_exists(#key) OR #began <= :began",
                "ExpressionAttributeNames": { "#key": "key", "#began": "began" },
                "ExpressionAttributeValues": { ":began": { "N": began } },
            },
            "TimeoutSeconds": 60,
            "Retry": retries,
            "Catch": catches,
        })
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
            "Retry": [{ "ErrorEquals": ["States.TaskFailed"], "IntervalSeconds": 5, "BackoffRate": 2, "MaxAttempts": 3 }],
            "Catch": [{ "ErrorEquals": ["States.ALL"], "Next": next }],
            "Next": next,
        });
        states.insert(name.to_owned(), state);
    }
}
