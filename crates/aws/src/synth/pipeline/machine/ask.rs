//! The question to people: one answer, or as many as `vend.yaml` wants, each of somebody else.
//!
//! Step Functions has a token for one answer. Where more are wanted, the same question is put again with a new token and
//! with the names of those who have said yes, and an answer of one of them, or of who began the release, does not count.

use model::spec::Approval;
use serde_json::{Value, json};

use super::{States, Whole, call, catch};
use crate::synth::pipeline::notice::Notice;

/// How an answer by the command line of AWS begins.
const YES: &str =
    "aws stepfunctions send-task-success --region ${AWS::Region} --task-output \"{}\" --task-token ";
const NO: &str = "aws stepfunctions send-task-failure --region ${AWS::Region} --error Vend.Refused --cause \"WHY\" --task-token ";

/// The question is bound to one image and one revision, neither of which can change. `next`: after the last yes.
pub(super) fn add(states: &mut States, whole: &Whole<'_>, approval: &Approval, next: &str) {
    if approval.required <= 1 {
        let yes = format!("{YES}' & $states.context.Task.Token & '");
        let mut ask = question(whole, "", &yes);
        ask["TimeoutSeconds"] = json!(approval.expires.as_secs());
        ask["Assign"] = json!({ "approval": "{% $states.result %}" });
        ask["Next"] = json!(next);
        states.insert("Approve".to_owned(), ask);
        return;
    }
    let until = format!("{{% $millis() + {} %}}", approval.expires.as_millis());
    let mut add = |name: &str, state: Value| drop(states.insert(name.to_owned(), state));
    add(
        "Approve",
        json!({ "Type": "Pass", "Assign": { "people": [], "until": until }, "Next": "Ask" }),
    );
    let said = format!(". ' & $count($people) & ' of {} said yes", approval.required);
    let mut ask = question(
        whole,
        &said,
        &format!("vend aws approve {}", whole.environment.name),
    );
    ask["Arguments"]["MessageAttributes"] =
        json!({ "People": { "DataType": "String", "StringValue": "{% $string($people) %}" } });
    ask["TimeoutSeconds"] = json!("{% $max([1, $ceil(($until - $millis()) / 1000)]) %}");
    ask["Assign"] = json!({ "by": "{% $exists($states.result.by) ? $string($states.result.by) : '' %}" });
    ask["Next"] = json!("IsAnother");
    add("Ask", ask);
    let author = match approval.author_may_approve {
        true => "",
        false => {
            " and $not($by in ($exists($push.sender) ? [$push.sender, $replace($push.sender, /(:assumed-role\\/[^\\/]+)\\/.*$/, '$1')] : []))"
        }
    };
    let another = format!("{{% $by != '' and $not($by in $people){author} %}}");
    add(
        "IsAnother",
        json!({
            "Type": "Choice",
            "Comment": "Nobody says yes twice, and not who began the release; who does is asked again.",
            "Choices": [{ "Condition": another, "Next": "Count" }],
            "Default": "Ask",
        }),
    );
    add(
        "Count",
        json!({ "Type": "Pass", "Assign": { "people": "{% $append($people, [$by]) %}" }, "Next": "IsEnough" }),
    );
    add(
        "IsEnough",
        json!({
            "Type": "Choice",
            "Choices": [{ "Condition": format!("{{% $count($people) >= {} %}}", approval.required), "Next": next }],
            "Default": "Ask",
        }),
    );
}

/// `said`: what more the first paragraph says; `yes`: how to say yes, both inside of a text of JSONata.
fn question(whole: &Whole<'_>, said: &str, yes: &str) -> Value {
    let (app, environment) = (&whole.scope.app.app, &whole.environment.name);
    let asked = format!(
        "'{app}, {environment}: commit ' & $push.commit & ' by ' & $replace($push.author, /\\s+/, ' ') & ', image ' & $image & '{said}."
    );
    let text = format!("{asked}\\n\\nYes:\\n{yes}\\n\\nNo:\\n{NO}' & $states.context.Task.Token");
    // The token stays in the mail: a channel has more readers.
    let notice = Notice {
        topic: "${Operations}",
        subject: &format!("{app}, {environment}: approve?"),
        text: &text,
        chat: Some(&format!("{asked}'")),
        steps: &[
            &format!("vend aws approve {environment}"),
            &format!("vend aws reject {environment} --reason \"WHY\""),
        ],
    };
    json!({
        "Type": "Task",
        "Comment": "A mail with the token asks; whoever may answer with it is the account's to say.",
        "Resource": call("sns:publish.waitForTaskToken"),
        "Arguments": notice.arguments(),
        "Catch": catch("TellFailure"),
    })
}
