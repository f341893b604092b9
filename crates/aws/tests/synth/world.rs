//! A small world that answers as AWS's services do, for flows that our own interpreter runs.

use std::collections::{BTreeMap, BTreeSet};

use asl::Status;
use jiff::Timestamp;
use serde_json::{Value, json};

pub use crate::drive::{release, release_of, run};
use crate::order;

/// One stack, as CloudFormation and the services behind it show it.
#[derive(Default)]
pub struct World {
    pub parameters: BTreeMap<String, String>,
    /// Answers of `describeStacks` until an update is done.
    busy: u32,
    status: String,
    /// Weights of blue after each update.
    pub weights: Vec<String>,
    pub calls: Vec<String>,
    /// Hosts of the warm pool of a half that has stopped, one of which goes with each look.
    pub warm: u64,
    /// So many updates are begun, and nobody hears of it.
    pub unanswered: u32,
    /// What was asked for already is not begun again.
    tokens: BTreeSet<String>,
    /// Executions until now.
    pub runs: u32,
    /// Nobody hears that a deployment was begun.
    pub silent: bool,
    /// Now, and when each update was asked for.
    pub at: Timestamp,
    pub updated: Vec<Timestamp>,
    /// What the next update ends in, if not well.
    pub rolled_back: bool,
    /// What the parameters were before the update.
    before: BTreeMap<String, String>,
    /// Somebody else changes the stack, and does not end.
    pub occupied: bool,
    pub deployment: &'static str,
    /// An alarm rings after so many calls about alarms.
    pub alarm_after: Option<u32>,
    pub alarms: u32,
    /// Alarms that ring, by their names.
    pub ringing: Vec<String>,
    /// What was said, as SNS was asked to.
    pub told: Vec<Value>,
    pub tests_fail: bool,
    /// Somebody else has the turn when it is asked for first.
    pub taken: bool,
    /// Another takes the turn after so many times that it was renewed.
    pub stolen_after: Option<u32>,
    /// Calls of DynamoDB that end like this are made, and their answers are lost: the kind of the row, and how often.
    pub unheard: Option<(&'static str, u32)>,
    /// Rows by their keys.
    pub table: BTreeMap<String, Value>,
    /// CloudFormation refuses to bring this parameter to this value, unless it has it.
    pub refused: Option<(&'static str, &'static str)>,
    /// Worlds of their own that other foundations have, by their labels; the others have this one.
    pub beside: BTreeMap<&'static str, World>,
    /// A later release is live once this one is.
    pub overtaken: bool,
    /// What a migration ends in; none: nobody hears of it.
    pub migration: Option<&'static str>,
    /// So many commands are refused, because nobody knows the host yet.
    pub unknown: u32,
    /// What a migration was to do.
    pub commands: Vec<String>,
    /// The source comes after so many looks.
    pub source_after: u32,
    /// And until then nobody may look.
    pub denied: bool,
    /// When the release begins; as the year does, if nobody says so.
    pub begins: Option<&'static str>,
    /// Who began the release; ada, if nobody says so.
    pub sender: Option<String>,
    /// Who says yes, one after the other.
    pub people: Vec<Value>,
    /// What each was asked.
    pub questions: Vec<String>,
    /// Hosts that keep a record, one more with each look, and how many at most.
    pub records: (u32, u32),
    /// The target group whose hosts nobody finds well, by the end of its name.
    pub unwell: Option<&'static str>,
    /// The stacks that were looked at.
    pub stacks: Vec<String>,
    /// The variables of each build, by its project.
    pub given: Vec<(String, Value)>,
    /// Hosts or containers of each half that runs; two, if nobody said otherwise.
    pub sizes: BTreeMap<&'static str, u64>,
    /// How many there may be in each half, least and most; two to four, if nobody said otherwise.
    pub bounds: BTreeMap<&'static str, (u64, u64)>,
    /// What was deployed last in the group of each half.
    pub last: BTreeMap<&'static str, String>,
    /// Does a half's deployment group go with its hosts?
    pub forgets: bool,
    /// The halves whose hosts were given something when they started, and not by the release.
    pub early: Vec<&'static str>,
    /// What becomes of copies of images.
    pub copied: &'static str,
    /// What the copies of images were asked to be.
    pub copies: Vec<Value>,
}

/// The half that a name of ours is of.
fn half(name: &Value) -> &'static str {
    let name = name.as_str().unwrap().to_lowercase();
    if name.contains("green") { "Green" } else { "Blue" }
}

impl World {
    pub fn new(parameters: &[(&str, &str)]) -> Self {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Self {
            parameters: parameters.iter().map(own).collect(),
            status: "CREATE_COMPLETE".into(),
            deployment: "Succeeded",
            migration: Some("Success"),
            copied: "available",
            ..Self::default()
        }
    }

    pub fn answer(&mut self, role: &str, resource: &str, input: &Value) -> Result<Value, (String, String)> {
        let mut beside = self.beside.iter_mut();
        let other = beside.find(|(label, _)| role.contains(&format!("-{label}-release")));
        if let Some((_, other)) = other {
            return other.answer("", resource, input);
        }
        let what = resource
            .rsplit(":::")
            .next()
            .unwrap()
            .trim_start_matches("aws-sdk:");
        self.calls.push(what.to_owned());
        Ok(match what {
            "codebuild:startBuild.sync"
                if input["ProjectName"].as_str().unwrap().ends_with("-tests") && self.tests_fail =>
            {
                return Err(("States.TaskFailed".into(), "tests failed".into()));
            }
            "codebuild:startBuild.sync" => {
                let variables = input["EnvironmentVariablesOverride"].clone();
                let project = input["ProjectName"].as_str().unwrap();
                self.given.push((project.to_owned(), variables));
                let given = input["EnvironmentVariablesOverride"].as_array().unwrap();
                let given: Vec<&Value> = given.iter().map(|own| &own["Value"]).collect();
                assert_eq!(given[..4], ["abc123", "a", "m of two lines", "main"]);
                json!({ "Build": { "ExportedEnvironmentVariables": [{ "Name": "IMAGE", "Value": "ami-new" }] } })
            }
            "s3:headObject" => {
                assert_eq!(input["Key"], "source/shop/abc123.zip");
                if self.source_after > 0 {
                    self.source_after -= 1;
                    return Err(match self.denied {
                        true => (
                            "S3.S3Exception".into(),
                            "Forbidden (Service: S3, Status Code: 403, Request ID: X)".into(),
                        ),
                        false => ("S3.NoSuchKeyException".into(), "not there".into()),
                    });
                }
                json!({})
            }
            "sns:publish.waitForTaskToken" if !self.people.is_empty() => {
                let question = &self.hear(input);
                assert!(
                    question.contains("vend aws approve production\n\nNo:\n"),
                    "{question}"
                );
                let said = input["MessageAttributes"]["People"]["StringValue"]
                    .as_str()
                    .unwrap();
                self.questions.push(said.to_owned());
                self.people.remove(0)
            }
            "sns:publish.waitForTaskToken" => {
                let question = &self.hear(input);
                assert!(
                    question.contains("commit abc123 by a, image ami-new.\n\nYes:\n"),
                    "{question}"
                );
                let token = question.rsplit("--task-token ").next().unwrap();
                assert!(
                    token.len() > 1 && question.matches(token).count() == 2,
                    "{question}"
                );
                json!({})
            }
            "dynamodb:putItem" => {
                if std::mem::take(&mut self.taken) {
                    return Err(("DynamoDB.ConditionalCheckFailedException".into(), "taken".into()));
                }
                if input["ConditionExpression"] == "#owner = :owner" {
                    self.renewed(input);
                }
                let put = order::put(&mut self.table, input)?;
                let key = input["Item"]["key"]["S"].as_str().unwrap();
                if let Some((kind, times @ 1..)) = &mut self.unheard
                    && key.starts_with(*kind)
                {
                    *times -= 1;
                    return Err(("States.Timeout".into(), "no answer came".into()));
                }
                put
            }
            "sns:publish" => {
                let is_live = self.hear(input).contains(": live at commit ");
                if is_live && self.overtaken {
                    self.began("2026-01-02T00:00:00Z");
                }
                json!({})
            }
            "dynamodb:getItem" => {
                assert_eq!(input["ConsistentRead"], true);
                let found = self.table.get(input["Key"]["key"]["S"].as_str().unwrap());
                found.map_or_else(|| json!({}), |item| json!({ "Item": item }))
            }
            "dynamodb:deleteItem" => order::delete(&mut self.table, input)?,
            "cloudformation:describeStacks" => {
                self.stacks.push(input["StackName"].as_str().unwrap().to_owned());
                self.describe()
            }
            "route53:listResourceRecordSets" => {
                self.records.0 = (self.records.0 + 1).min(self.records.1);
                crate::wave::records(input, self.records.0)
            }
            "cloudformation:updateStack" => {
                let given = input["Parameters"].as_array().unwrap();
                let is_refused = |(key, value): (&str, &str)| {
                    let is_so = json!({ "ParameterKey": key, "ParameterValue": value });
                    self.parameters[key] != value && given.contains(&is_so)
                };
                if self.refused.is_some_and(is_refused) {
                    return Err(("CloudFormation.CloudFormationException".into(), "not now".into()));
                }
                let token = input["ClientRequestToken"].as_str().unwrap().to_owned();
                assert!(token.len() <= 128);
                if !self.tokens.insert(token) {
                    return match self.unanswered % 2 {
                        0 => Ok(json!({})),
                        _ => Err((
                            "CloudFormation.TokenAlreadyExistsException".into(),
                            "it is known".into(),
                        )),
                    };
                }
                let updated = self.update(input);
                if self.unanswered > 0 {
                    self.unanswered -= 1;
                    return Err(("States.Timeout".into(), "no answer came".into()));
                }
                updated
            }
            "autoscaling:describeAutoScalingGroups" => {
                let up = json!({ "LifecycleState": "InService", "InstanceId": "i-1" });
                let names = input["AutoScalingGroupNames"].as_array().unwrap();
                let group = |name: &Value| {
                    let size = self.size(half(name));
                    let up = vec![&up; usize::try_from(size).unwrap()];
                    let (min, max) = self.bound(half(name));
                    json!({
                        "AutoScalingGroupName": name, "DesiredCapacity": size, "MinSize": min, "MaxSize": max, "Instances": up,
                    })
                };
                let mut groups: Vec<Value> = names.iter().map(group).collect();
                if self.warm > 0 {
                    groups[0]["WarmPoolSize"] = json!(self.warm);
                    self.warm -= u64::from(self.size(half(&names[0])) == 0);
                }
                json!({ "AutoScalingGroups": groups })
            }
            "autoscaling:setDesiredCapacity" => {
                let size = input["DesiredCapacity"].as_u64().unwrap();
                let half = half(&input["AutoScalingGroupName"]);
                let (min, max) = self.bound(half);
                assert!((min..=max).contains(&size), "AWS refuses {size}");
                self.sizes.insert(half, size);
                json!({})
            }
            "autoscaling:updateAutoScalingGroup" => {
                let half = half(&input["AutoScalingGroupName"]);
                let (min, max) = (
                    input["MinSize"].as_u64().unwrap(),
                    input["MaxSize"].as_u64().unwrap(),
                );
                let size = self.size(half).clamp(min, max);
                self.bounds.insert(half, (min, max));
                self.sizes.insert(half, size);
                json!({})
            }
            "applicationautoscaling:describeScalableTargets" => {
                let ids = input["ResourceIds"].as_array().unwrap();
                let runs = ids
                    .iter()
                    .filter(|id| self.parameters[&format!("{}Runs", half(id))] == "yes");
                let target = |id: &Value| {
                    let (min, max) = self.bound(half(id));
                    json!({ "ResourceId": id, "MinCapacity": min, "MaxCapacity": max })
                };
                json!({ "ScalableTargets": runs.map(target).collect::<Vec<_>>() })
            }
            "applicationautoscaling:registerScalableTarget" => {
                let bounds = ["MinCapacity", "MaxCapacity"].map(|key| input[key].as_u64().unwrap());
                self.bounds.insert(half(&input["ResourceId"]), bounds.into());
                json!({})
            }
            "ecs:describeServices" => {
                let names = input["Services"].as_array().unwrap();
                let service = |name: &Value| {
                    let size = self.size(half(name));
                    let status = if size == 0 { "INACTIVE" } else { "ACTIVE" };
                    json!({ "ServiceName": name, "Status": status, "DesiredCount": size })
                };
                json!({ "Services": names.iter().map(service).collect::<Vec<_>>() })
            }
            "ecs:updateService" => {
                let size = input["DesiredCount"].as_u64().unwrap();
                self.sizes.insert(half(&input["Service"]), size);
                json!({})
            }
            "codedeploy:createDeployment" => {
                let group = half(&input["DeploymentGroupName"]);
                self.last.insert(group, "the release before".into());
                assert_eq!(
                    input["Revision"]["S3Location"]["Key"],
                    "revision/shop/abc123-production.zip"
                );
                // The appspec says what becomes of files that are there, as on a platform.
                assert_eq!(input.get("FileExistsBehavior"), None);
                if self.silent {
                    return Err(("States.Timeout".into(), "no answer came".into()));
                }
                json!({ "DeploymentId": "d-1" })
            }
            "codedeploy:getDeployment" => json!({ "DeploymentInfo": { "Status": self.deployment } }),
            "elasticloadbalancingv2:describeTargetHealth"
                if self
                    .unwell
                    .is_some_and(|own| input["TargetGroupArn"].as_str().unwrap().ends_with(own)) =>
            {
                json!({ "TargetHealthDescriptions": [{ "TargetHealth": { "State": "unhealthy" } }] })
            }
            "elasticloadbalancingv2:describeTargetHealth" => {
                let well = json!({ "TargetHealth": { "State": "healthy" } });
                let size = self.size(half(&input["TargetGroupArn"]));
                let well = vec![well; usize::try_from(size).unwrap()];
                json!({ "TargetHealthDescriptions": well })
            }
            "cloudwatch:describeAlarms" => {
                self.alarms += 1;
                let prefix = input["AlarmNamePrefix"]
                    .as_str()
                    .unwrap_or("none is asked for so");
                let rings = self.ringing.iter().filter(|name| name.starts_with(prefix));
                let rings = rings.map(|name| json!({ "AlarmName": name }));
                let late = self.alarm_after.is_some_and(|after| self.alarms > after);
                let all = rings.chain(late.then(|| json!({ "AlarmName": "errors" })));
                json!({ "MetricAlarms": all.collect::<Vec<_>>() })
            }
            "ssm:sendCommand" => {
                assert_eq!(input["InstanceIds"], json!(["i-1"]));
                if self.unknown > 0 {
                    self.unknown -= 1;
                    return Err((
                        "Ssm.InvalidInstanceIdException".into(),
                        "InvalidInstanceId".into(),
                    ));
                }
                let commands = input["Parameters"]["commands"].as_array().unwrap();
                self.commands = commands
                    .iter()
                    .map(|line| line.as_str().unwrap().to_owned())
                    .collect();
                if self.migration.is_none() {
                    return Err(("States.TaskFailed".into(), "no answer came".into()));
                }
                json!({ "Command": { "CommandId": "c-1" } })
            }
            "ssm:getCommandInvocation" => {
                json!({ "Status": self.migration.unwrap(), "StandardErrorContent": "column x is there" })
            }
            "ec2:copyImage" => {
                self.copies.push(input.clone());
                json!({ "ImageId": "ami-copy" })
            }
            "ec2:describeImages" => json!({ "Images": [{ "State": self.copied }] }),
            other => panic!("the world has no {other}"),
        })
    }

    /// A release that began then is live.
    pub fn began(&mut self, at: &str) {
        let at: Timestamp = at.parse().unwrap();
        let began = at.as_millisecond().to_string();
        let row = json!({ "owner": { "S": "another" }, "began": { "N": began } });
        self.table.insert("newest/production".into(), row);
    }

    /// Somebody took the turn, as if it had run out.
    fn renewed(&mut self, input: &Value) {
        let Some(after) = &mut self.stolen_after else {
            return;
        };
        if *after == 0 {
            let key = input["Item"]["key"]["S"].as_str().unwrap().to_owned();
            self.table.insert(key, json!({ "owner": { "S": "another" } }));
        }
        *after = after.saturating_sub(1);
    }

    /// What mails say.
    fn hear(&mut self, input: &Value) -> String {
        self.told.push(input.clone());
        crate::notices::mail(input)
    }

    /// How many hosts or containers a half has.
    pub fn size(&self, half: &'static str) -> u64 {
        match self.parameters[&format!("{half}Runs")].as_str() {
            "yes" => *self.sizes.get(half).unwrap_or(&2),
            _ => 0,
        }
    }

    pub fn bound(&self, half: &'static str) -> (u64, u64) {
        *self.bounds.get(half).unwrap_or(&(2, 4))
    }

    /// What becomes of each half's hosts: CodeDeploy puts the last revision of the group on those that start.
    fn turn(&mut self, before: &BTreeMap<String, String>) {
        for half in ["Blue", "Green"] {
            let of = |all: &BTreeMap<String, String>, what: &str| all.get(&format!("{half}{what}")).cloned();
            let had = of(before, "Weight");
            let ran = of(before, "Runs").is_some_and(|own| own == "yes");
            let runs = of(&self.parameters, "Runs").is_some_and(|own| own == "yes");
            assert!(
                runs || !ran || had.is_none_or(|weight| weight == "0"),
                "{half} stops while it has traffic"
            );
            if !runs {
                self.sizes.remove(half);
                if self.forgets {
                    self.last.remove(half);
                }
            }
            assert!(
                ran || !runs || self.warm == 0,
                "{half} starts while hosts of its pool are there"
            );
            let starts = runs && (!ran || of(before, "Image") != of(&self.parameters, "Image"));
            if starts && self.last.contains_key(half) {
                self.early.push(half);
            }
        }
    }

    fn describe(&mut self) -> Value {
        if self.occupied {
            self.status = "UPDATE_IN_PROGRESS".into();
        }
        if self.busy > 0 {
            self.busy -= 1;
            if self.busy == 1 && !self.rolled_back {
                self.status = "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS".into();
            }
            if self.busy == 0 {
                self.status = "UPDATE_COMPLETE".into();
            }
            if self.busy == 0 && std::mem::take(&mut self.rolled_back) {
                self.status = "UPDATE_ROLLBACK_COMPLETE".into();
                self.parameters.clone_from(&self.before);
            }
        }
        let parameters: Vec<Value> = self
            .parameters
            .iter()
            .map(|(key, value)| json!({ "ParameterKey": key, "ParameterValue": value }))
            .collect();
        let outputs: Vec<Value> = [
            "BlueGroupName",
            "GreenGroupName",
            "BlueTargetsArn",
            "GreenTargetsArn",
            "BlueRecords",
            "GreenRecords",
            "BluePort5514TargetsArn",
            "GreenPort5514TargetsArn",
        ]
        .iter()
        .map(|key| json!({ "OutputKey": key, "OutputValue": format!("ZoneId/{key}") }))
        .collect();
        json!({ "Stacks": [{ "Parameters": parameters, "Outputs": outputs, "StackStatus": self.status }] })
    }

    fn update(&mut self, input: &Value) -> Value {
        assert_eq!(input["UsePreviousTemplate"], true);
        assert!(!self.status.ends_with("_IN_PROGRESS"), "{}", self.status);
        self.updated.push(self.at);
        let before = self.parameters.clone();
        let given = input["Parameters"].as_array().unwrap();
        assert_eq!(
            given.len(),
            self.parameters.len(),
            "every parameter is given or kept"
        );
        let mut changed = false;
        for parameter in given {
            let key = parameter["ParameterKey"].as_str().unwrap();
            if let Some(value) = parameter["ParameterValue"].as_str() {
                changed |= self.parameters[key] != value;
                self.parameters.insert(key.to_owned(), value.to_owned());
            } else {
                assert_eq!(parameter["UsePreviousValue"], true);
            }
        }
        assert!(changed, "CloudFormation refuses an update that changes nothing");
        self.turn(&before);
        self.before = before;
        self.weights.extend(self.parameters.get("BlueWeight").cloned());
        self.status = "UPDATE_IN_PROGRESS".into();
        self.busy = 3;
        json!({})
    }

    pub fn is(&self, key: &str, value: &str) {
        assert_eq!(self.parameters[key], value, "{key} of {:?}", self.parameters);
    }
}

pub const FIRST: [(&str, &str); 7] = [
    ("BaseImage", "/aws/service/debian"),
    ("BlueImage", ""),
    ("BlueRuns", "no"),
    ("BlueWeight", "100"),
    ("GreenImage", ""),
    ("GreenRuns", "no"),
    ("GreenWeight", "0"),
];

pub const LIVE: [(&str, &str); 7] = [
    ("BaseImage", "/aws/service/debian"),
    ("BlueImage", "ami-old"),
    ("BlueRuns", "yes"),
    ("BlueWeight", "100"),
    ("GreenImage", ""),
    ("GreenRuns", "no"),
    ("GreenWeight", "0"),
];

pub fn failure(status: &Status) -> String {
    match status {
        Status::Failed { error, cause } => format!("{error:?} {cause:?}"),
        other => panic!("{other:?}"),
    }
}
