//! `vend.yaml` compiled to Amazon States Language for Step Functions: the same order of a release as on one machine, with
//! AWS's services in the place of the platform's activities.
//!
//! Build and bake side by side, people asked where the environment asks for it, then each target in turn: the idle half
//! gets the image and hosts, the revision is deployed and found healthy, and the traffic moves. What has to be undone is
//! what the stack's parameters were. The old half stays for `keep_old`.
//!
//! Which stages there are, and in which order, is `model::stage`'s.

mod ask;
mod end;
mod migrate;
mod pace;
mod shift;
mod size;
mod target;
mod turn;
mod well;

pub use migrate::LEAD_S;

use model::{
    spec,
    stage::{self, Stage},
};
use serde_json::{Map, Value, json};

use super::{Scope, scope};
use crate::synth::{
    Error,
    config::{self, Config, Runtime},
    place,
    word::Label,
};

/// Seconds for which a release holds an environment without a word; after it the next one takes its turn.
pub(super) const TURN_S: u32 = 24 * 3_600;

/// Days for which it is known which execution about something was the last: longer than one lives.
pub(super) const KNOWN_DAYS: u32 = 400;

/// Seconds for which a flow waits until the source of its commit is there.
const SOURCE_S: u32 = 1_800;

/// States by name, in the order in which they were added.
type States = Map<String, Value>;

/// The definition. It holds `${…}` of CloudFormation: pseudo-parameters, and `${Builds}` and `${Operations}` for the topics.
pub fn machine(
    config: &Config,
    app: &spec::App,
    environment: &spec::Environment,
    targets: &[Label],
) -> Result<Value, Error> {
    let default = config::App::default();
    let scope = scope(config, app, &default)?;
    check(&scope, environment, targets)?;
    let own = scope.options.environments.get(environment.entry());
    let whole = Whole {
        deploy: own.map_or_else(|| environment.deploy.clone(), |own| own.deploy(environment)),
        order: stage::order(environment, environment.approval.is_some()),
        scope,
        environment,
        targets,
    };
    let mut states = States::new();
    whole.make(&mut states);
    whole.approve(&mut states);
    whole.turn(&mut states, "Turn", "Newest", "LeaveAfterFailure");
    whole.newest(&mut states);
    whole.release(&mut states);
    whole.tests(&mut states);
    whole.record(&mut states, "Leave");
    whole.end(&mut states);
    Ok(json!({
        "Comment": format!("{}, {}: from a commit to traffic", app.app, environment.name),
        "QueryLanguage": "JSONata",
        "StartAt": "Make",
        "States": states,
    }))
}

/// Step Functions calls services of its own region only.
fn check(scope: &Scope<'_>, environment: &spec::Environment, targets: &[Label]) -> Result<(), Error> {
    let at = format!(
        "apps.{}.environments.{}.placement",
        scope.app.app, environment.name
    );
    place::registered(&at, environment)?;
    for label in targets {
        let region = &scope.config.foundation(label)?.region;
        if *region != scope.foundation.region {
            let why = format!(
                "`{label}` is in {region} and the app's pipeline in {here}: Step Functions reaches its own region only, so all environments of \
                 an app are in one region: let `region` of `{label}` be {here}, or give another app of vend.yaml its environments there",
                here = scope.foundation.region
            );
            return Err(Error::config(
                format!("apps.{}.environments.{}", scope.app.app, environment.name),
                why,
            ));
        }
    }
    Ok(())
}

struct Whole<'c> {
    scope: Scope<'c>,
    environment: &'c spec::Environment,
    targets: &'c [Label],
    deploy: spec::Deploy,
    order: Vec<Stage>,
}

/// The ARN of an integration.
pub(super) fn call(what: &str) -> String {
    format!("arn:${{AWS::Partition}}:states:::{what}")
}

/// What AWS got wrong for a moment may go right the next time.
pub(super) fn retry() -> Value {
    json!([{
        "ErrorEquals": ["States.TaskFailed", "States.Timeout"], "IntervalSeconds": 5, "BackoffRate": 2, "MaxAttempts": 3,
        "MaxDelaySeconds": 60, "JitterStrategy": "FULL",
    }])
}

/// Goes to `next` with what went wrong in `$failure`.
pub(super) fn catch(next: &str) -> Value {
    json!([{ "ErrorEquals": ["States.ALL"], "Assign": { "failure": "{% $states.errorOutput %}" }, "Next": next }])
}

/// What was said of the push, in one line and as long as a tag may be; nothing, where a flow was begun by hand and nobody said it.
fn pushed(what: &str) -> String {
    format!("{{% $exists($push.{what}) ? $substring($replace($push.{what}, /[\\s]+/, ' '), 0, 256) : '' %}}")
}

/// A text that neither Step Functions nor CloudFormation takes for anything else.
fn literal(text: &str) -> String {
    match text.contains("{%") || text.contains("${") {
        true => format!("{{% {} %}}", json!(text).to_string().replace("${", "$\" & \"{")),
        false => text.to_owned(),
    }
}

/// Has an item of a Map over targets failed? In JSONata, of the item.
const HAS_FAILED: &str = "$exists(failed)";

/// The failure of those of `items` that failed, in JSONata: the first one's name, and what went wrong in each.
fn failed(items: &str) -> String {
    format!(
        "{{ 'Error': {items}[{HAS_FAILED}][0].failed.Error, \
           'Cause': $join({items}[{HAS_FAILED}].(stack & ': ' & failed.Cause), '; ') }}"
    )
}

impl Whole<'_> {
    fn runtime(&self) -> Runtime {
        self.scope.runtime(self.environment)
    }

    /// The stage that follows. What is not asked for is not in the order, and what has no states here is passed over.
    fn after(&self, stage: Stage, has_states: impl Fn(Stage) -> bool) -> Stage {
        let behind = self.order.iter().skip_while(|own| **own != stage).skip(1);
        let mut behind = behind.copied().filter(|own| has_states(*own));
        behind.next().unwrap_or(Stage::Record)
    }

    /// The first state of what follows, before a target is entered.
    fn next(&self, stage: Stage) -> &'static str {
        // There is no plan: what would change is asked when stacks are applied, not when a release moves.
        match self.after(stage, |own| own != Stage::Plan) {
            Stage::Make => "BuildAndBake",
            Stage::Approve => "Approve",
            _ => "Turn",
        }
    }

    fn options(&self) -> Option<&config::Environment> {
        self.scope.options.environments.get(self.environment.entry())
    }

    fn bucket(&self) -> String {
        let scope = &self.scope;
        format!(
            "{}-{}-artifacts-${{AWS::AccountId}}-${{AWS::Region}}",
            scope.platform(),
            scope.label
        )
    }

    /// A build of one of the app's projects, at the push's commit.
    fn project(&self, word: &str, seconds: i64, more: Value) -> Value {
        let scope = &self.scope;
        let mut arguments = json!({
            "ProjectName": format!("{}-{word}", scope.name()),
            "EnvironmentVariablesOverride": [
                { "Name": "VEND_COMMIT", "Type": "PLAINTEXT", "Value": "{% $push.commit %}" },
                { "Name": "VEND_AUTHOR", "Type": "PLAINTEXT", "Value": pushed("author") },
                { "Name": "VEND_MESSAGE", "Type": "PLAINTEXT", "Value": pushed("message") },
                { "Name": "VEND_BRANCH", "Type": "PLAINTEXT", "Value": pushed("branch") },
                { "Name": "VEND_ENVIRONMENT", "Type": "PLAINTEXT", "Value": self.environment.name.as_str() },
            ],
        });
        match scope.options.repository {
            Some(_) => arguments["SourceVersion"] = json!("{% $push.commit %}"),
            None => {
                let path = format!("{}/source/{}/", self.bucket(), scope.app.app);
                arguments["SourceLocationOverride"] =
                    json!(format!("{{% '{path}' & $push.commit & '.zip' %}}"));
            }
        }
        for (key, value) in more.as_object().into_iter().flatten() {
            arguments[key] = value.clone();
        }
        json!({
            "Type": "Task",
            "Resource": call("codebuild:startBuild.sync"),
            "Arguments": arguments,
            "TimeoutSeconds": seconds,
        })
    }

    /// Gives a build the environment's variables: other environments may have others, and the project is one.
    fn give(&self, variables: &mut Value) {
        let env = &self.environment.build.env;
        let mut own = super::projects::build_variables(&self.scope, env);
        for variable in &mut own {
            variable["Value"] = json!(literal(variable["Value"].as_str().unwrap_or_default()));
        }
        let all = variables.as_array_mut().expect("a build has variables");
        all.retain(|variable| {
            !variable["Name"]
                .as_str()
                .is_some_and(|name| env.contains_key(name))
        });
        all.append(&mut own);
    }

    fn make(&self, states: &mut States) {
        let app = &self.scope.app.app;
        let name = format!("$push.commit & '-{}.zip'", self.environment.name);
        let buildspec = self.environment.build.buildspec.as_ref().map_or_else(
            // Nothing to build: the revision is the source.
            || {
                "version: 0.2\nphases: { build: { commands: ['true'] } }\nartifacts: { files: ['**/*'] }\n"
                    .to_owned()
            },
            ToString::to_string,
        );
        let minutes = self.environment.build.timeout.as_mins().clamp(5, 2_160);
        let artifacts = json!({
            "Type": "S3", "Location": self.bucket(), "Path": format!("revision/{app}"), "NamespaceType": "NONE",
            "Name": format!("{{% {name} %}}"), "Packaging": "ZIP",
        });
        let more = json!({ "BuildspecOverride": buildspec, "ArtifactsOverride": artifacts, "TimeoutInMinutesOverride": minutes });
        let mut build = self.project("build", minutes * 60 + 8 * 3_600, more);
        self.give(&mut build["Arguments"]["EnvironmentVariablesOverride"]);
        build["Output"] = json!(format!("{{% 'revision/{app}/' & {name} %}}"));
        build["End"] = json!(true);
        let word = if self.runtime() == Runtime::Host {
            "bake"
        } else {
            "pack"
        };
        let mut bake = self.project(word, 9 * 3_600, json!({}));
        bake["Output"] =
            json!("{% $states.result.Build.ExportedEnvironmentVariables[Name = 'IMAGE'].Value %}");
        bake["End"] = json!(true);
        let is_put = self.scope.options.repository.is_none();
        states.insert(
            "Make".to_owned(),
            json!({
                "Type": "Pass", "Comment": "What was pushed.", "Assign": { "push": "{% $states.input %}" },
                "Next": if is_put { "FindSource" } else { self.next(Stage::Source) },
            }),
        );
        if is_put {
            self.find_source(states);
        }
        states.insert(
            "BuildAndBake".to_owned(),
            json!({
                "Type": "Parallel",
                "Branches": [
                    { "StartAt": "Build", "States": { "Build": build } },
                    { "StartAt": "Bake", "States": { "Bake": bake } },
                ],
                "Assign": { "revision": "{% $states.result[0] %}", "image": "{% $states.result[1] %}" },
                "Catch": catch("TellFailure"),
                "Next": self.next(Stage::Make),
            }),
        );
    }

    fn approve(&self, states: &mut States) {
        if let Some(approval) = &self.environment.approval {
            ask::add(states, self, approval, self.next(Stage::Approve));
        }
    }

    /// Where whoever pushes puts the source, a webhook may be there before it is: the flow waits, and says what it waited for.
    fn find_source(&self, states: &mut States) {
        let app = &self.scope.app.app;
        let source = format!("'source/{app}/' & $push.commit & '.zip'");
        let find = json!({
            "Type": "Task",
            "Comment": "Who pushes puts the source there, perhaps a little later.",
            "Resource": call("aws-sdk:s3:headObject"),
            "Arguments": { "Bucket": self.bucket(), "Key": format!("{{% {source} %}}") },
            "TimeoutSeconds": 60,
            "Retry": [{
                "ErrorEquals": ["States.TaskFailed", "States.Timeout"],
                "IntervalSeconds": 20, "BackoffRate": 1, "MaxAttempts": SOURCE_S / 20,
            }],
            "Catch": [{
                "ErrorEquals": ["States.ALL"],
                "Assign": {
                    "missed": "{% $states.errorOutput.Error %}",
                    "denied": "{% $exists($states.errorOutput.Cause) ? $contains($states.errorOutput.Cause, /Status Code: 403|AccessDenied|Forbidden/) : false %}",
                },
                "Next": "NoSource",
            }],
            "Next": self.next(Stage::Source),
        });
        states.insert("FindSource".to_owned(), find);
        // Who may list is told that nothing is there (404). What is forbidden (403) is there, or nobody may know.
        let cause = format!(
            "{{% {source} & ($denied ? ' in {bucket} may not be read by this flow: ' & $missed & ' (403). Its role, the policy of the bucket and that of the key must let it: `vend aws drift`, `vend aws apply`' \
             : ' was not found in {bucket}, where the last look ended with ' & $missed & '. If it is not there: `vend aws push` puts it there and releases it, or `repository` in aws.toml has CodeBuild fetch it') %}}",
            bucket = self.bucket()
        );
        let error = "{% $denied ? 'Vend.SourceDenied' : 'Vend.NoSource' %}";
        let none = json!({
            "Type": "Pass",
            "Assign": { "failure": { "Error": error, "Cause": cause } },
            "Next": "TellFailure",
        });
        states.insert("NoSource".to_owned(), none);
    }

    /// Do releases go into several targets? Then what happens in one is said by its item, so that the others can be brought back.
    fn has_several(&self) -> bool {
        self.targets.len() > 1
    }

    fn is_parallel(&self) -> bool {
        self.options().is_some_and(|options| options.parallel)
    }

    fn release(&self, states: &mut States) {
        let tested = !self.scope.options.tests.is_empty();
        let next = if tested { "Tests" } else { "Record" };
        let mut map = self.each(target::release(self));
        map["Catch"] = catch("LeaveAfterFailure");
        if self.has_several() {
            self.release_all(states, map, next);
        } else {
            map["Comment"] = json!("The only target.");
            map["Items"] = json!(target::items(self));
            map["Assign"] = json!({ "released": "{% $states.result %}" });
            map["Next"] = json!(next);
            states.insert("Release".to_owned(), map);
        }
        if tested || self.has_several() {
            self.go_back(states);
        }
    }

    /// All targets at once, or one after the other until one of them fails. Where one fails, all go back.
    fn release_all(&self, states: &mut States, mut map: Value, next: &str) {
        let mut add = |name: &str, state: Value| drop(states.insert(name.to_owned(), state));
        let begin = json!({ "targets": target::items(self), "released": [] });
        add(
            "Targets",
            json!({ "Type": "Pass", "Assign": begin, "Next": "Release" }),
        );
        let (comment, items) = match self.is_parallel() {
            true => ("All targets at once.", "{% $targets %}"),
            false => ("The next target.", "{% [$targets[$count($released)]] %}"),
        };
        map["Comment"] = json!(comment);
        map["Items"] = json!(items);
        // What no state caught: nobody knows how far the target came, and of all at once none of them.
        let cause = format!(
            "{{% $states.errorOutput.Cause & '; how far each target came nobody knows, and they may differ: vend aws hosts {}' %}}",
            self.environment.name
        );
        let failure = json!({ "Error": "{% $states.errorOutput.Error %}", "Cause": cause });
        map["Catch"] =
            json!([{ "ErrorEquals": ["States.ALL"], "Assign": { "failure": failure }, "Next": "GoBack" }]);
        map["Assign"] = json!({ "released": "{% $append($released, $states.result) %}" });
        map["Next"] = json!("HasAll");
        add("Release", map);
        let choices = json!([
            { "Condition": format!("{{% $count($released[{HAS_FAILED}]) > 0 %}}"), "Next": "HasNotAll" },
            { "Condition": "{% $count($released) < $count($targets) %}", "Next": "Release" },
        ]);
        add(
            "HasAll",
            json!({ "Type": "Choice", "Choices": choices, "Default": next }),
        );
        let assign = json!({
            "failure": format!("{{% {} %}}", failed("$released")),
            "released": format!("{{% [$released[$not({HAS_FAILED})]] %}}"),
        });
        add(
            "HasNotAll",
            json!({ "Type": "Pass", "Assign": assign, "Next": "GoBack" }),
        );
    }

    /// A Map over targets, whose items are to be given.
    fn each(&self, processor: Value) -> Value {
        json!({
            "Type": "Map",
            "MaxConcurrency": if self.is_parallel() { self.targets.len() } else { 1 },
            "ItemProcessor": processor,
        })
    }

    /// Tests run against what serves, while the old half still stands.
    fn tests(&self, states: &mut States) {
        let tests = &self.scope.options.tests;
        if tests.is_empty() {
            return;
        }
        let items: Vec<Value> = tests
            .iter()
            .map(|test| json!({ "name": test.name.as_str(), "buildspec": test.buildspec }))
            .collect();
        let mut test = self.project(
            "tests",
            9 * 3_600,
            json!({ "BuildspecOverride": "{% $states.input.buildspec %}" }),
        );
        test["End"] = json!(true);
        states.insert("Tests".to_owned(), json!({
            "Type": "Map",
            "Items": items,
            "MaxConcurrency": 3,
            "ItemProcessor": { "ProcessorConfig": { "Mode": "INLINE" }, "StartAt": "Test", "States": { "Test": test } },
            "Catch": catch("GoBack"),
            "Next": "Record",
        }));
    }

    /// Where one of several cannot go back the others do, and it is told beside what went wrong before.
    fn go_back(&self, states: &mut States) {
        let told = |what: &str, field: &str| {
            format!(
                "($count($states.result[$exists({field})]) = 0 ? '' : '; and {what}: ' \
                 & $join($states.result[$exists({field})].(stack & ': ' & {field}.Cause), '; '))"
            )
        };
        let also = format!(
            "{{% {{ 'Error': $failure.Error, 'Cause': $failure.Cause & {} & {} }} %}}",
            told("not brought back", "failed"),
            told("brought back, while the half without traffic still runs", "runs"),
        );
        let mut map = self.each(shift::back(self));
        map["Comment"] = json!("The old half takes the traffic again, and the new one stops.");
        map["Items"] = json!("{% $released %}");
        map["Assign"] = json!({ "failure": also });
        map["Catch"] = json!([{ "ErrorEquals": ["States.ALL"], "Next": "LeaveAfterFailure" }]);
        map["Next"] = json!("LeaveAfterFailure");
        states.insert("GoBack".to_owned(), map);
    }
}
