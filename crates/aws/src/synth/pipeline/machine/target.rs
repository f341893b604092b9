//! What a release does in one target: an environment's stack in one account, as the release role there.

use model::{spec::Strategy, stage::Stage};
use serde_json::{Value, json};

use super::{
    States, Whole, call, migrate,
    pace::Pace,
    retry, shift, size,
    turn::{NO, unless},
    well,
};
use crate::synth::{
    config::Runtime,
    environment::{doors, stack_name},
};

/// Which half has the traffic: `old`; the other gets the release: `new`. At first it is blue.
const OLD: &str = "$before.GreenRuns = 'yes' and ($before.BlueRuns != 'yes' or $number($before.GreenWeight) > $number($before.BlueWeight)) \
                   ? 'Green' : $before.BlueRuns = 'yes' ? 'Blue' : 'Green'";

/// The old half gets all of the traffic. CloudFormation changes a rule and a group at the same time, so that no half stops in
/// the update that takes its traffic: requests would still be sent to hosts that go.
pub(super) const ALL_TO_OLD: &str = "{ ($new & 'Weight'): '0', ($old & 'Weight'): '100' }";
/// The new half stops, which has no traffic by then.
pub(super) const NEW_STOPS: &str = "{ ($new & 'Runs'): 'no' }";

/// The hosts of a group that serve.
const UP: &str = "$states.result.AutoScalingGroups[0].Instances[LifecycleState = 'InService']";

/// Seconds after which all of a Network Load Balancer know new weights.
/// Source: "Network Load Balancer resources for blue/green deployments" of the ECS guide.
const SETTLED_S: u32 = 600;

/// The targets, as items of a Map.
pub(super) fn items(whole: &Whole<'_>) -> Vec<Value> {
    let scope = &whole.scope;
    let one = |label| {
        let account = scope
            .config
            .foundations
            .get(label)
            .and_then(|target| target.account.as_ref());
        let copied = account.is_some() && account != scope.foundation.account.as_ref();
        let account = account.map_or("${AWS::AccountId}", |account| account.as_str());
        let platform = scope.platform();
        json!({
            "stack": stack_name(scope.config, label, &scope.app.app, whole.environment),
            "role": format!("arn:${{AWS::Partition}}:iam::{account}:role/{platform}/{platform}-{label}-release"),
            "key": format!("alias/{platform}-{label}"),
            "copied": copied,
        })
    };
    whole.targets.iter().map(one).collect()
}

/// The states of one target, from `start` on.
pub(super) struct Target {
    states: States,
    /// Where a state goes when it fails.
    on_failure: String,
    /// Holds the turn for longer.
    renewed: Value,
    /// Where it goes when the turn is another's: no stack is changed any more.
    lost: String,
    /// The way back is not left because nobody could be asked whose turn it is.
    is_way_back: bool,
}

impl Target {
    pub(super) fn new(whole: &Whole<'_>, on_failure: &str, lost: &str) -> Self {
        Self {
            states: States::new(),
            on_failure: on_failure.to_owned(),
            renewed: whole.renewed(),
            lost: lost.to_owned(),
            is_way_back: false,
        }
    }

    /// From here on things are brought back.
    pub(super) fn way_back(&mut self, on_failure: &str, lost: &str) {
        on_failure.clone_into(&mut self.on_failure);
        lost.clone_into(&mut self.lost);
        self.is_way_back = true;
    }

    /// Says that the turn is another's.
    pub(super) fn loses(&mut self, name: &str, next: &str) {
        let cause = "{% 'another has its turn by now: ' & $target.stack & ' stays as it is' %}";
        let fault = json!({ "fault": { "Error": "Vend.Turn", "Cause": cause } });
        self.pass(name, fault, next);
    }

    /// Where a state goes that fails, with what went wrong in `$fault`: no scope may assign what one around it assigns.
    /// Source: "Variable scope" of the Step Functions guide.
    pub(super) fn catch(&self) -> Value {
        json!([{ "ErrorEquals": ["States.ALL"], "Assign": { "fault": "{% $states.errorOutput %}" }, "Next": self.on_failure }])
    }

    pub(super) fn processor(self, start: &str) -> Value {
        json!({ "ProcessorConfig": { "Mode": "INLINE" }, "StartAt": start, "States": self.states })
    }

    pub(super) fn add(&mut self, name: impl Into<String>, state: Value) {
        self.states.insert(name.into(), state);
    }

    /// A call of a service, as the target's release role.
    pub(super) fn task(&mut self, name: &str, what: &str, arguments: Value, assign: Value, next: &str) {
        let mut state = json!({
            "Type": "Task",
            "Resource": call(&format!("aws-sdk:{what}")),
            "Credentials": { "RoleArn": "{% $target.role %}" },
            "Arguments": arguments,
            "TimeoutSeconds": 120,
            "Assign": assign,
            "Retry": retry(),
            "Catch": self.catch(),
            "Next": next,
        });
        if state["Assign"].as_object().is_some_and(serde_json::Map::is_empty) {
            state
                .as_object_mut()
                .expect("a state is an object")
                .remove("Assign");
        }
        self.add(name, state);
    }

    pub(super) fn pass(&mut self, name: &str, assign: Value, next: &str) {
        self.add(name, json!({ "Type": "Pass", "Assign": assign, "Next": next }));
    }

    /// `name` is left for the first condition that holds, else for `default`.
    pub(super) fn choice(&mut self, name: &str, choices: &[(String, &str)], default: &str) {
        let choices: Vec<Value> = choices
            .iter()
            .map(|(condition, next)| json!({ "Condition": format!("{{% {condition} %}}"), "Next": next }))
            .collect();
        self.add(
            name,
            json!({ "Type": "Choice", "Choices": choices, "Default": default }),
        );
    }

    /// Says why, and fails.
    pub(super) fn refuse(&mut self, name: &str, error: &str, cause: &str) {
        let fault = json!({ "fault": { "Error": error, "Cause": cause } });
        let next = self.on_failure.clone();
        self.pass(name, fault, &next);
    }

    /// The first change that has to be taken back: what fails from when it is asked for goes to `Unwind`, and what fails before
    /// it is only told.
    fn start(&mut self, changes: &str, next: &str) {
        let untouched = std::mem::replace(&mut self.on_failure, "HasBegun".to_owned());
        self.update("Start", changes, next);
        let update = &mut self.states["StartUpdate"];
        update["Assign"]["begun"] = json!(true);
        // It may have been heard.
        for own in update["Catch"].as_array_mut().into_iter().flatten() {
            own["Assign"]["begun"] = json!(true);
        }
        self.choice("HasBegun", &[("$begun".to_owned(), "Unwind")], &untouched);
        self.on_failure = "Unwind".to_owned();
    }

    /// The state to go to from a change of weights before `next` stops a half: where ports of the app's own have a load balancer
    /// it is waited until that has followed.
    pub(super) fn settled(&mut self, whole: &Whole<'_>, name: &str, next: &str) -> String {
        if doors(whole.environment).is_empty() {
            return next.to_owned();
        }
        let comment = "A Network Load Balancer takes its time to follow new weights.";
        let state = json!({ "Type": "Wait", "Comment": comment, "Seconds": SETTLED_S, "Next": next });
        self.add(name, state);
        name.to_owned()
    }

    /// Says what went wrong first, in `$reason`, and what besides on the way back.
    fn also(&mut self, name: &str, what: &str) {
        let cause = format!("{{% $reason.Cause & '; {what}: ' & $fault.Cause %}}");
        let fault = json!({ "fault": { "Error": "{% $reason.Error %}", "Cause": cause } });
        self.pass(name, fault, "NotReleased");
    }

    /// Brings parameters of the stack to `changes`, an object in JSONata, and waits until CloudFormation is done.
    /// What is as it should be is not touched.
    pub(super) fn update(&mut self, name: &str, changes: &str, next: &str) {
        self.change(name, changes, next, &Pace::of_one(10));
    }

    /// The same in so many steps, for each of which it is entered: `$spent` is what all of them have waited.
    pub(super) fn update_in(&mut self, steps: usize, name: &str, changes: &str, next: &str) {
        self.change(name, changes, next, &Pace::of_steps(steps));
    }

    fn change(&mut self, name: &str, changes: &str, next: &str, pace: &Pace) {
        let id = |part: &str| format!("{name}{part}");
        let differs = format!(
            "$count($filter($keys({changes}), function($k) {{ $lookup($before, $k) != $lookup({changes}, $k) }})) > 0"
        );
        self.pass(name, json!({ "asked": false, "waited": 0 }), &id("Turn"));
        self.renew(&id("Turn"), &id("Look"));
        self.look(&id("Look"), &id("Ready"));
        let cleanup = "$status = 'UPDATE_COMPLETE_CLEANUP_IN_PROGRESS'";
        let busy = format!("$contains($status, /_IN_PROGRESS$/) and $not({cleanup})");
        let late = pace.late();
        self.choice(
            &id("Ready"),
            &[
                (format!("{busy} and {late}"), &id("Late")),
                (busy, &id("Wait")),
                (format!("$not({differs})"), next),
                ("$asked".to_owned(), &id("Refused")),
                // What is there is as it was asked to be, but nothing is changed until what it replaced is gone.
                (format!("{cleanup} and {late}"), &id("Late")),
                (cleanup.to_owned(), &id("Wait")),
            ],
            &id("Update"),
        );
        let parameters = format!(
            "{{% [$map($keys($before), function($k) {{ ($k in $keys({changes})) \
               ? {{ 'ParameterKey': $k, 'ParameterValue': $lookup({changes}, $k) }} \
               : {{ 'ParameterKey': $k, 'UsePreviousValue': true }} }})] %}}"
        );
        // Where the answer was lost CloudFormation gives it again, or says that it knows the token, and not that the stack is changed
        // already.
        let token = format!(
            "{{% $hash($states.context.Execution.Id & '/' & $target.stack & '/{name}/' & $string({changes}), 'SHA-256') %}}"
        );
        let arguments = json!({
            "StackName": "{% $target.stack %}",
            "ClientRequestToken": token,
            "UsePreviousTemplate": true,
            "Capabilities": ["CAPABILITY_NAMED_IAM"],
            "Parameters": parameters,
        });
        self.task(
            &id("Update"),
            "cloudformation:updateStack",
            arguments,
            json!({ "asked": true }),
            &id("Wait"),
        );
        let known = "CloudFormation.TokenAlreadyExistsException";
        let update = &mut self.states[&id("Update")];
        update["Retry"] = unless(json!({ "ErrorEquals": [known], "MaxAttempts": 0 }), retry());
        let heard = json!({ "ErrorEquals": [known], "Assign": { "asked": true }, "Next": id("Wait") });
        update["Catch"] = unless(heard, update["Catch"].clone());
        self.add(id("Wait"), pace.wait(&id("Look")));
        let late = format!(
            "{{% 'CloudFormation has not been done with ' & $target.stack & '{}: it is ' & $status %}}",
            pace.words()
        );
        self.refuse(&id("Late"), "Vend.Stack", &late);
        let cause = "{% 'CloudFormation took the change of ' & $target.stack & ' back: it is ' & $status %}";
        self.refuse(&id("Refused"), "Vend.Stack", cause);
    }

    /// Who changes a stack has the turn, and has it until the change is done.
    fn renew(&mut self, name: &str, next: &str) {
        let lost = json!({ "ErrorEquals": [NO], "Next": self.lost });
        let others = match self.is_way_back {
            true => json!([{ "ErrorEquals": ["States.ALL"], "Next": next }]),
            false => self.catch(),
        };
        let mut state = self.renewed.clone();
        state["Catch"] = unless(lost, others);
        state["Next"] = json!(next);
        self.add(name, state);
    }

    /// What the stack is now: `before`, `outputs`, `status`.
    fn look(&mut self, name: &str, next: &str) {
        let assign = json!({
            "before": "{% $merge($states.result.Stacks[0].Parameters.{ ParameterKey: ParameterValue }) %}",
            "outputs": "{% $merge($states.result.Stacks[0].Outputs.{ OutputKey: OutputValue }) %}",
            "status": "{% $states.result.Stacks[0].StackStatus %}",
        });
        self.task(
            name,
            "cloudformation:describeStacks",
            json!({ "StackName": "{% $target.stack %}" }),
            assign,
            next,
        );
    }

    /// Looks until `good` holds, and fails when `bad` does or it was waited for `minutes`.
    pub(super) fn until(&mut self, name: &str, look: Look<'_>, next: &str) {
        let id = |part: &str| format!("{name}{part}");
        self.pass(name, json!({ "waited": 0 }), &id("Look"));
        self.task(&id("Look"), look.what, look.arguments, look.assign, &id("Done"));
        let refused = id("Refused");
        let mut choices = vec![(look.good.to_owned(), next)];
        choices.extend(look.bad.map(|bad| (bad.to_owned(), refused.as_str())));
        choices.push((format!("$waited >= {}", look.minutes * 60), refused.as_str()));
        self.choice(&id("Done"), &choices, &id("Wait"));
        self.add(id("Wait"), Pace::of_one(15).wait(&id("Look")));
        self.refuse(&refused, look.error, look.cause);
    }
}

/// What is looked at until it is well.
pub(super) struct Look<'l> {
    pub what: &'l str,
    pub arguments: Value,
    pub assign: Value,
    pub good: &'l str,
    pub bad: Option<&'l str>,
    pub minutes: i64,
    pub error: &'l str,
    pub cause: &'l str,
}

/// The first state of the stage that follows in a target.
fn next(whole: &Whole<'_>, stage: Stage) -> &'static str {
    let host = whole.runtime() == Runtime::Host;
    let moves = whole.deploy.strategy != Strategy::InPlace;
    // A container is what is deployed, and in place the traffic stays where it is.
    let has_states = |own| match own {
        Stage::Deploy => host,
        Stage::Shift => moves,
        _ => true,
    };
    match whole.after(stage, has_states) {
        Stage::Migrate => "Migrate",
        Stage::Deploy => "Deploy",
        Stage::Validate if moves => "Size",
        Stage::Validate => "Healthy",
        Stage::Shift => "Weights",
        _ => "Released",
    }
}

/// A release into one target.
pub(super) fn release(whole: &Whole<'_>) -> Value {
    let strategy = whole.deploy.strategy;
    let host = whole.runtime() == Runtime::Host;
    // Nothing is changed yet: what `keep_old` keeps is somebody's way back.
    let mut target = Target::new(whole, "NotReleased", "Lost");
    target.pass(
        "Enter",
        json!({ "target": "{% $states.input %}", "local": "{% $image %}", "begun": false }),
        "Look",
    );
    let moves = strategy != Strategy::InPlace;
    let copied = host && items(whole).iter().any(|item| item["copied"] == true);
    let after = if host && moves { "Free" } else { "Start" };
    target.look("Look", "Choose");
    let halves = match strategy {
        Strategy::InPlace => {
            json!({ "old": "Blue", "new": "Blue", "kept": "{% $lookup($before, 'BlueImage') %}" })
        }
        _ => {
            let new = format!("{{% ($now := {OLD}; $now = 'Blue' ? 'Green' : 'Blue') %}}");
            json!({ "old": format!("{{% {OLD} %}}"), "new": new })
        }
    };
    target.pass("Choose", halves, if copied { "Copied" } else { after });
    if copied {
        copy(&mut target, whole, after);
    }
    let changes = match strategy {
        Strategy::InPlace => "{ 'BlueImage': $local, 'BlueRuns': 'yes' }",
        _ => {
            "{ ($new & 'Image'): $local, ($new & 'Runs'): 'yes', ($new & 'Weight'): '0', ($old & 'Weight'): '100' }"
        }
    };
    if host && moves {
        size::clear(&mut target, whole, "Start");
    }
    let after = next(whole, Stage::Provision);
    target.start(changes, if host { "Hosts" } else { after });
    if host {
        hosts(&mut target, whole, after);
        migrate::add(&mut target, whole, next(whole, Stage::Migrate));
        deploy(&mut target, whole);
    }
    well::add(&mut target, whole, next(whole, Stage::Validate));
    if moves {
        size::follow(&mut target, whole, "Healthy");
        shift::add(&mut target, whole);
    }
    let output = json!({ "role": "{% $target.role %}", "stack": "{% $target.stack %}", "old": "{% $old %}", "new": "{% $new %}" });
    target.add(
        "Released",
        json!({ "Type": "Pass", "Output": output, "End": true }),
    );
    target.loses("Lost", "NotReleased");
    unwind(&mut target, whole, moves);
    let fail = match whole.has_several() {
        true => failed(),
        false => json!({ "Type": "Fail", "Error": "{% $fault.Error %}", "Cause": "{% $fault.Cause %}" }),
    };
    target.add("NotReleased", fail);
    target.processor("Enter")
}

/// What the release has changed is brought back, and the reason is told with what becomes of that.
fn unwind(target: &mut Target, whole: &Whole<'_>, moves: bool) {
    // The way back must not lead into itself.
    target.way_back("NotBack", "LostBack");
    target.loses("LostBack", "NotBack");
    target.also("NotBack", "and not brought back");
    target.pass("Unwind", json!({ "reason": "{% $fault %}" }), "Back");
    if moves {
        // Where CloudFormation took the first change back, the half is as it was.
        let own = |changes: &str| format!("($lookup($before, $new & 'Image') = $local ? {changes} : {{}})");
        let after = target.settled(whole, "Settle", "Halt");
        target.update("Back", &own(ALL_TO_OLD), &after);
        target.way_back("NotHalted", "LostHalt");
        target.loses("LostHalt", "NotHalted");
        let what = "and brought back, while the half without traffic still runs";
        target.also("NotHalted", what);
        target.update("Halt", &own(NEW_STOPS), "Unwound");
    } else {
        // Before the first release there was none to go back to.
        let kept = "{ 'BlueImage': $kept = '' ? $lookup($before, 'BlueImage') : $kept, 'BlueRuns': 'yes' }";
        target.update("Back", kept, "Unwound");
    }
    target.pass("Unwound", json!({ "fault": "{% $reason %}" }), "NotReleased");
}

/// A failure that ends this target and leaves the others alone: who goes through them sees it.
pub(super) fn failed() -> Value {
    json!({ "Type": "Succeed", "Output": { "stack": "{% $target.stack %}", "failed": "{% $fault %}" } })
}

/// An image of another account becomes one of the target's own, under its key.
fn copy(target: &mut Target, whole: &Whole<'_>, next: &str) {
    target.choice("Copied", &[("$target.copied".to_owned(), "Copy")], next);
    // Those of a bake, as far as they are known here: who begins a flow by hand may say the commit alone. AWS copies no tags of another account's image, and by its tags it is
    // found when all else is gone.
    let tags = json!([
        { "Key": "vend:platform", "Value": whole.scope.platform() },
        { "Key": "vend:app", "Value": whole.scope.app.app.as_str() },
        { "Key": "vend:environment", "Value": whole.environment.name.as_str() },
        { "Key": "vend:commit", "Value": "{% $push.commit %}" },
        { "Key": "vend:author", "Value": "{% $exists($push.author) ? $substring($push.author, 0, 256) : '' %}" },
        { "Key": "vend:message", "Value": "{% $exists($push.message) ? $substring($replace($push.message, /[^A-Za-z0-9 _.:=+@-]/, ' '), 0, 256) : '' %}" },
    ]);
    let arguments = json!({
        "SourceImageId": "{% $image %}",
        "SourceRegion": "${AWS::Region}",
        "Name": "{% $target.stack & '-' & $states.context.Execution.Name %}",
        "Description": "{% 'Commit ' & $push.commit %}",
        "Encrypted": true,
        "KmsKeyId": "{% $target.key %}",
        "TagSpecifications": [
            { "ResourceType": "image", "Tags": tags },
            { "ResourceType": "snapshot", "Tags": tags },
        ],
        // Two targets may stand in one account; EC2 takes 64 characters.
        "ClientToken": "{% $hash($target.stack & '/' & $states.context.Execution.Name, 'SHA-256') %}",
    });
    target.task(
        "Copy",
        "ec2:copyImage",
        arguments,
        json!({ "local": "{% $states.result.ImageId %}" }),
        "Copying",
    );
    let look = Look {
        what: "ec2:describeImages",
        arguments: json!({ "ImageIds": ["{% $local %}"] }),
        assign: json!({ "state": "{% $states.result.Images[0].State %}" }),
        good: "$state = 'available'",
        bad: Some("$state in ['failed', 'error', 'invalid']"),
        minutes: 60,
        error: "Vend.Image",
        cause: "{% 'the copy of the image is ' & $state %}",
    };
    target.until("Copying", look, next);
}

/// The new half's hosts come up.
fn hosts(target: &mut Target, whole: &Whole<'_>, next: &str) {
    let good = format!("$up >= {}", well::least(whole));
    let mut assign = json!({
        "up": format!("{{% $count({UP}) %}}"),
        "host": format!("{{% ($one := ({UP}.InstanceId)[0]; $exists($one) ? $one : '') %}}"),
    });
    if !size::schedules(whole).is_empty() {
        assign["most"] = json!("{% $states.result.AutoScalingGroups[0].MaxSize %}");
    }
    let look = Look {
        what: "autoscaling:describeAutoScalingGroups",
        arguments: json!({ "AutoScalingGroupNames": ["{% $lookup($outputs, $new & 'GroupName') %}"] }),
        assign,
        good: &good,
        bad: None,
        minutes: 30,
        error: "Vend.Hosts",
        cause: "{% 'only ' & $string($up) & ' hosts came up' %}",
    };
    target.until("Hosts", look, next);
}

/// CodeDeploy puts the revision on the new half's hosts.
fn deploy(target: &mut Target, whole: &Whole<'_>) {
    let mut arguments = json!({
        "ApplicationName": "{% $target.stack %}",
        "DeploymentGroupName": "{% $lowercase($new) %}",
        "Description": "{% $push.commit %}",
        "Revision": {
            "RevisionType": "S3",
            "S3Location": { "Bucket": whole.bucket(), "Key": "{% $revision %}", "BundleType": "zip" },
        },
    });
    if whole.deploy.ignore_stop_failures {
        arguments["IgnoreApplicationStopFailures"] = json!(true);
    }
    target.task(
        "Deploy",
        "codedeploy:createDeployment",
        arguments,
        json!({ "deployment": "{% $states.result.DeploymentId %}" }),
        "Deploying",
    );
    // A deployment that was begun without an answer has no second one beside it.
    let lost = json!({ "ErrorEquals": ["States.Timeout"], "MaxAttempts": 0 });
    target.states["Deploy"]["Retry"] = unless(lost, retry());
    let look = Look {
        what: "codedeploy:getDeployment",
        arguments: json!({ "DeploymentId": "{% $deployment %}" }),
        assign: json!({
            "state": "{% $states.result.DeploymentInfo.Status %}",
            "why": "{% ($why := $states.result.DeploymentInfo.ErrorInformation.Message; $exists($why) ? $why : 'it says no more') %}",
        }),
        good: "$state = 'Succeeded'",
        bad: Some("$state in ['Failed', 'Stopped']"),
        minutes: 240,
        error: "Vend.Deployment",
        cause: "{% 'deployment ' & $deployment & ' is ' & $state & ': ' & $why %}",
    };
    let after = next(whole, Stage::Deploy);
    match whole.deploy.strategy {
        // From here on hosts that start get the new revision, so the image that it was made with stays, too.
        Strategy::InPlace => {
            target.until("Deploying", look, "Deployed");
            target.pass("Deployed", json!({ "kept": "{% $local %}" }), after);
        }
        _ => target.until("Deploying", look, after),
    }
}
