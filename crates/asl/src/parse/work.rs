//! Task and Parallel, and what they share with Map: how they retry and what they catch.

use super::Reader;
use super::fields::Fields;
use super::state::{answer, element};
use crate::check::Report;
use crate::limit;
use crate::machine::{Amount, Catcher, Flavour, Kind, Number, ResultPath, Retrier, Task, Work};
use crate::path::Root;
use crate::template::Template;
use serde_json::Value;

/// `MaxDelaySeconds` must be less.
const DELAY: u64 = 31_622_400;

/// Services that tasks can call and that run no jobs: those without "Run a Job" in the table of the developer guide's
/// "Integrating services". What is called through an SDK never waits. A service of another name may be new, and is taken.
const JOBLESS: [&str; 8] = [
    "apigateway",
    "aws-sdk",
    "dynamodb",
    "events",
    "http",
    "lambda",
    "sns",
    "sqs",
];

/// The service and the action of `arn:aws:states:::SERVICE:ACTION`, whatever the partition and region.
fn integration(resource: &str) -> Option<(&str, &str)> {
    let mut parts = resource.splitn(7, ':');
    let (arn, _, states) = (parts.next()?, parts.next()?, parts.next()?);
    let service = parts.nth(2)?;
    (arn == "arn" && states == "states").then_some((service, parts.next()?))
}

impl Reader {
    pub(super) fn task(&mut self, fields: &Fields) -> Option<Task> {
        fields.required(&["Resource"], &mut self.report);
        let resource = fields.text("Resource", &mut self.report).map(str::to_owned);
        self.express(fields, resource.as_deref().unwrap_or_default());
        if self.report.is_of_new() {
            self.jobs(fields, resource.as_deref().unwrap_or_default());
        }
        let timeout = self.number(fields, "TimeoutSeconds", "TimeoutSecondsPath", 1, limit::SECONDS);
        let heartbeat = self.number(
            fields,
            "HeartbeatSeconds",
            "HeartbeatSecondsPath",
            1,
            limit::SECONDS,
        );
        if let (Some(Number::Fixed(timeout)), Some(Number::Fixed(heartbeat))) = (&timeout, &heartbeat)
            && heartbeat >= timeout
        {
            let message = "'HeartbeatSeconds' must be smaller than 'TimeoutSeconds'";
            self.report.schema(&fields.at("HeartbeatSeconds"), message);
        }
        let credentials = fields.template("Credentials", &mut self.report);
        if let Some(value) = fields.get("Credentials")
            && !fields.is_query("Credentials")
            && value.get("RoleArn").or_else(|| value.get("RoleArn.$")).is_none()
        {
            self.report.schema(
                &fields.at("Credentials"),
                "The field 'RoleArn' is required but was missing",
            );
        }
        let work = self.work(fields, parameters(fields));
        Some(Task {
            resource: resource?,
            timeout,
            heartbeat,
            credentials,
            work,
        })
    }

    /// What has no jobs to wait for cannot be called with `.sync`.
    fn jobs(&mut self, fields: &Fields, resource: &str) {
        let Some((service, action)) = integration(resource) else {
            return;
        };
        let waits = action
            .split_once(".sync")
            .is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with(':'));
        if waits && JOBLESS.contains(&service) {
            let message = format!(
                "The resource provided {resource} is not recognized. The value is not a valid resource ARN, or the \
                 resource is not available in this region."
            );
            self.report.schema(&fields.at("Resource"), message);
            self.report.detail(format!(
                "{service} has no jobs that could be waited for: `.sync` is of services that run some"
            ));
        }
    }

    /// What machines of the type EXPRESS cannot call.
    fn express(&mut self, fields: &Fields, resource: &str) {
        if self.flavour != Flavour::Express {
            return;
        }
        let refused = if resource.split(':').nth(5) == Some("activity") {
            Some("Activity ARN".to_owned())
        } else {
            let waits = [".waitForTaskToken", ".sync"];
            let waits = waits.iter().find(|pattern| {
                let pattern = resource.split_once(**pattern).map(|(_, rest)| rest);
                pattern.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
            });
            // The blank at the end is AWS's.
            waits.map(|pattern| format!("'{pattern}' service integration "))
        };
        if let Some(what) = refused {
            let message = format!("Express state machine does not support {what}");
            self.report.schema(&fields.at("Resource"), message);
        }
    }

    pub(super) fn parallel(&mut self, fields: &Fields) -> Option<Kind> {
        fields.required(&["Branches"], &mut self.report);
        let branches = fields.objects("Branches", &mut self.report);
        let mut programs = Vec::new();
        for branch in branches.into_iter().flatten() {
            branch.text("Comment", &mut self.report);
            programs.push(self.program(&branch));
            branch.finish(&mut self.report);
        }
        if programs.is_empty() {
            let missing = !fields.members().contains_key("Branches");
            if !missing {
                self.report
                    .schema(&fields.at("Branches"), "There must be at least one branch");
                self.report.detail("is empty, non-empty required");
            }
        }
        Some(Kind::Parallel {
            branches: programs,
            work: self.work(fields, parameters(fields)),
        })
    }

    /// A count and its `…Path` twin.
    pub(super) fn number(
        &mut self,
        fields: &Fields,
        name: &'static str,
        path: &'static str,
        least: u64,
        most: u64,
    ) -> Option<Number> {
        if fields.is_query(name) {
            return fields.query(name, &mut self.report).map(Amount::Query);
        }
        let fixed = fields
            .count(name, least, most, &mut self.report)
            .map(Amount::Fixed);
        let twin = self.twin(fields, name, path);
        fixed.or(twin)
    }

    /// The `…Path` form of a field, which JSONata does not have.
    pub(super) fn twin<T>(
        &mut self,
        fields: &Fields,
        name: &'static str,
        path: &'static str,
    ) -> Option<Amount<T>> {
        if fields.is_jsonata() {
            return None;
        }
        fields.exclusive(&[name, path], false, &mut self.report);
        fields.reference(path, &mut self.report).map(Amount::Path)
    }

    pub(super) fn work(&mut self, fields: &Fields, parameters: &'static str) -> Work {
        let selector = if fields.is_jsonata() {
            None
        } else {
            fields.template("ResultSelector", &mut self.report)
        };
        Work {
            parameters: fields.template(parameters, &mut self.report),
            selector,
            result_path: result_path(fields, &mut self.report),
            retry: self.retriers(fields),
            catch: self.catchers(fields),
        }
    }

    fn retriers(&mut self, fields: &Fields) -> Vec<Retrier> {
        let retriers = fields.objects("Retry", &mut self.report).unwrap_or_default();
        let count = retriers.len();
        let mut parsed = Vec::new();
        for (at, retrier) in retriers.iter().enumerate() {
            parsed.push(self.retrier(retrier, at + 1 == count));
            retrier.finish(&mut self.report);
        }
        parsed
    }

    fn retrier(&mut self, fields: &Fields, last: bool) -> Retrier {
        let errors = self.errors(fields, last);
        let report = &mut self.report;
        fields.text("Comment", report);
        let interval = fields
            .count("IntervalSeconds", 1, limit::SECONDS, report)
            .unwrap_or(1);
        let most = fields.count("MaxDelaySeconds", 1, DELAY - 1, report);
        if most.is_some_and(|most| most <= interval) {
            report.schema(
                &fields.at("MaxDelaySeconds"),
                "'MaxDelaySeconds' must be greater than 'IntervalSeconds'",
            );
        }
        let attempts = fields
            .count("MaxAttempts", 0, limit::SECONDS, report)
            .unwrap_or(3);
        let rate = match fields.get("BackoffRate") {
            None => 2.0,
            Some(value) => value.as_f64().filter(|rate| *rate >= 1.0).unwrap_or_else(|| {
                if value.is_number() {
                    report.schema(&fields.at("BackoffRate"), "Minimum value is 1.0");
                } else {
                    report.schema(&fields.at("BackoffRate"), "Expected value of type Number");
                }
                report.detail(format!("is {value} but allowed minimum is 1.0"));
                1.0
            }),
        };
        let jitter = fields.word("JitterStrategy", &["FULL", "NONE"], report) == Some("FULL");
        Retrier {
            errors,
            interval,
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            rate,
            most,
            jitter,
        }
    }

    fn catchers(&mut self, fields: &Fields) -> Vec<Catcher> {
        let catchers = fields.objects("Catch", &mut self.report).unwrap_or_default();
        let count = catchers.len();
        let mut parsed = Vec::new();
        for (at, catcher) in catchers.iter().enumerate() {
            let errors = self.errors(catcher, at + 1 == count);
            catcher.text("Comment", &mut self.report);
            catcher.required(&["Next"], &mut self.report);
            let next = catcher.text("Next", &mut self.report).map(str::to_owned);
            let assign: Option<Template> = catcher.template("Assign", &mut self.report);
            let result_path = result_path(catcher, &mut self.report);
            let answer = answer(catcher, &mut self.report);
            catcher.finish(&mut self.report);
            if let Some(next) = next {
                parsed.push(Catcher {
                    errors,
                    next,
                    result_path,
                    answer,
                    assign,
                });
            }
        }
        parsed
    }

    /// `ErrorEquals`: names, of which `States.ALL` must be alone and in the last entry.
    fn errors(&mut self, fields: &Fields, last: bool) -> Vec<String> {
        fields.required(&["ErrorEquals"], &mut self.report);
        let Some(value) = fields.get("ErrorEquals") else {
            return Vec::new();
        };
        let place = fields.at("ErrorEquals");
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        if items.is_empty() {
            self.report
                .schema(&place, "Expected a non-empty array of error names");
            self.report.detail("is empty, non-empty required");
        }
        let mut names = Vec::new();
        for (at, item) in items.iter().enumerate() {
            match item {
                Value::String(name) => names.push(name.clone()),
                _ => self.report.schema(
                    &element(fields, "ErrorEquals", at),
                    "Expected value of type String",
                ),
            }
        }
        let all = names.iter().any(|name| name == crate::fault::ALL);
        if all && (names.len() > 1 || !last) {
            let message = "States.ALL must appear alone, and in the last retrier or catcher";
            self.report.schema(&place, message);
            self.report
                .detail("States.ALL can only appear in the last element, and by itself.");
        }
        names
    }
}

/// The field that holds what a state or a resource is given.
pub(super) fn parameters(fields: &Fields) -> &'static str {
    if fields.is_jsonata() {
        "Arguments"
    } else {
        "Parameters"
    }
}

pub(super) fn result_path(fields: &Fields, report: &mut Report) -> ResultPath {
    if fields.is_jsonata() {
        return ResultPath::Replace;
    }
    match fields.get("ResultPath") {
        None => ResultPath::Replace,
        Some(Value::Null) => ResultPath::Discard,
        Some(Value::String(text)) if text == "$" => ResultPath::Replace,
        Some(_) => match fields.reference("ResultPath", report) {
            Some(path) if *path.root() == Root::Data => ResultPath::Into(path),
            Some(_) => {
                report.schema(&fields.at("ResultPath"), "Value must start with '$.'");
                ResultPath::Replace
            }
            None => ResultPath::Replace,
        },
    }
}
