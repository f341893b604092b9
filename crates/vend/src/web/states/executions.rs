//! Executions and their histories.

use engine::Start;
use model::{TenantName, ledger::Deed};
use serde_json::{Value, json};
use store::{Run, RunFilter, Status};

use crate::flow::deletion;

use super::{
    arn::{self, Kind},
    call::{Call, page, seconds},
    fault::Fault,
    machines::{INITIAL, Meant, bare, described, kind},
};

/// Bytes of an input.
const INPUT: usize = 262_144;
/// Open executions of one machine beyond which tasks start no more: machines that start each other would grow for ever.
const OPEN: u32 = 10_000;

impl Call {
    /// The execution that the request asks to start, and whether its name was made up.
    async fn asked(&self) -> Result<(Meant, Start), Fault> {
        let meant = self.meant(self.text("stateMachineArn")?).await?;
        if self.leaves(Some(meant.owner.tenant.clone())).await? {
            return Err(Fault::new(
                "StateMachineDeleting",
                format!(
                    "State Machine Deleting: '{}': its tenant is being deleted",
                    meant.arn()
                ),
            ));
        }
        let wrong = |why: &str| {
            Fault::new(
                "InvalidExecutionInput",
                format!("Invalid State Machine Execution Input: '{why}'"),
            )
        };
        let input = self.maybe("input")?.unwrap_or("{}");
        if input.len() > INPUT {
            return Err(wrong("the input is longer than 262144 bytes"));
        }
        let input = asl::json::read(input).map_err(|error| wrong(&error.to_string()))?;
        let given = self.maybe("name")?.map(arn::checked).transpose()?;
        let name = given.map_or_else(fresh_name, str::to_owned);
        let (account, machine) = (meant.owner.account, &meant.machine);
        let text = match machine.express {
            true => arn::express(account, &machine.name, &name, crate::clock::bits()),
            false => arn::execution(account, &machine.name, &name),
        };
        let definition = meant.definition().to_owned();
        let origin = json!({
            "version": meant.version.as_ref().map(|version| version.version),
            "alias": meant.alias,
            "machine": machine.name,
            "role": meant.role(),
            "revision": meant.version.as_ref().map_or(&machine.revision, |version| &version.revision),
            "by": self.who.actor,
            "task": self.task,
            "trace": self.maybe("traceHeader")?,
        });
        let start = Start {
            tenant: Some(meant.owner.tenant.clone()),
            owner: account,
            machine: machine.key,
            machine_arn: meant.arn(),
            machine_name: machine.name.clone(),
            role: meant.role().to_owned(),
            program: self.state.states.known.kept(machine.express, &definition)?,
            definition,
            name,
            arn: text,
            origin: origin.to_string(),
            input,
            fresh: given.is_none(),
        };
        Ok((meant, start))
    }

    pub async fn start(&self) -> Result<Value, Fault> {
        let (meant, start) = self.asked().await?;
        let (text, engine) = (start.arn.clone(), &self.state.states.engine);
        if meant.machine.express {
            let at = self.state.now();
            // It runs on its own; how it ends is kept nowhere, as on AWS without logging.
            drop(engine.begin_express(start).await?);
            return Ok(json!({ "executionArn": text, "startDate": seconds(at) }));
        }
        let input = start.input.clone();
        match engine.start(start).await {
            Ok(started) => Ok(json!({ "executionArn": text, "startDate": seconds(started.at) })),
            Err(engine::Error::Exists(_)) => self.started_already(&text, &input).await,
            Err(error) => Err(error.into()),
        }
    }

    /// The same start again is no error while the execution is under way.
    async fn started_already(&self, text: &str, input: &Value) -> Result<Value, Fault> {
        let asked = text.to_owned();
        let found = self.state.store.read(move |db| db.run(&asked)).await?;
        let same = |run: &Run| {
            if self.has_started(run) {
                return true;
            }
            run.ended_at.is_none() && asl::json::read(&run.input).is_ok_and(|kept| kept == *input)
        };
        match found.filter(same) {
            Some(run) => Ok(json!({ "executionArn": text, "startDate": seconds(run.started_at) })),
            None => Err(Fault::new(
                "ExecutionAlreadyExists",
                format!("Execution Already Exists: '{text}'"),
            )),
        }
    }

    /// The same for a task of a state machine, whose call may come twice. `waits`: it waits for the end.
    pub async fn start_once(&self, waits: bool) -> Result<Value, Fault> {
        let meant = self.meant(self.text("stateMachineArn")?).await?;
        if waits && meant.machine.express {
            return Err(Fault::new(
                "StateMachineTypeNotSupported",
                "The integration waits for executions that are kept, and those of an express state machine are not",
            ));
        }
        if !self.has_started_one_of(&meant).await? {
            let machine = meant.machine.key;
            let open = self.state.store.read(move |db| db.count_open_runs(machine, OPEN));
            if open.await? >= OPEN {
                return Err(Fault::new(
                    "ExecutionLimitExceeded",
                    format!(
                        "Execution Limit Exceeded: '{OPEN} executions of {} are open'",
                        meant.arn()
                    ),
                ));
            }
        }
        self.start().await
    }

    /// Has the calling task started the execution of that name before?
    async fn has_started_one_of(&self, meant: &Meant) -> Result<bool, Fault> {
        let arn = arn::execution(meant.owner.account, &meant.machine.name, self.text("name")?);
        let found = self.state.store.read(move |db| db.run(&arn)).await?;
        Ok(found.is_some_and(|run| self.has_started(&run)))
    }

    fn has_started(&self, run: &Run) -> bool {
        let origin: Value = serde_json::from_str(&run.origin).unwrap_or_default();
        self.task.as_deref().is_some_and(|task| origin["task"] == task)
    }

    pub async fn start_sync(&self) -> Result<Value, Fault> {
        let (meant, start) = self.asked().await?;
        let bare = self.metadata_only()?;
        if !meant.machine.express {
            return Err(Fault::new(
                "StateMachineTypeNotSupported",
                "This operation is not supported by this type of state machine",
            ));
        }
        let (text, name, input) = (start.arn.clone(), start.name.clone(), start.input.to_string());
        let ended = self.state.states.engine.express(start).await?;
        let mut answer = json!({
            "executionArn": text,
            "stateMachineArn": meant.arn(),
            "name": name,
            "startDate": seconds(ended.started_at),
            "stopDate": seconds(ended.ended_at),
            "status": ended.status.as_str(),
            "input": input,
            "inputDetails": { "included": true },
        });
        match ended.status {
            asl::Status::Succeeded { output } => {
                answer["output"] = output.to_string().into();
                answer["outputDetails"] = json!({ "included": true });
            }
            asl::Status::Failed { error, cause } | asl::Status::Aborted { error, cause } => {
                put(&mut answer, "error", error);
                put(&mut answer, "cause", cause);
            }
            asl::Status::Running | asl::Status::TimedOut => {
                put(&mut answer, "error", Some("States.Timeout".into()))
            }
        }
        let milliseconds = ended.ended_at.duration_since(ended.started_at).as_millis().max(1);
        let billed = (milliseconds as u64).div_ceil(100) * 100;
        answer["billingDetails"] =
            json!({ "billedMemoryUsedInMB": 64, "billedDurationInMilliseconds": billed });
        if bare {
            without_data(&mut answer);
        }
        Ok(answer)
    }

    /// Is the tenant to be deleted?
    async fn leaves(&self, tenant: Option<TenantName>) -> Result<bool, Fault> {
        let Some(tenant) = tenant else { return Ok(false) };
        let leaving = self.state.store.read(move |db| deletion::leaving(db, &tenant));
        Ok(leaving.await?)
    }

    /// The execution that an ARN names.
    pub async fn run_of(&self, text: &str) -> Result<Run, Fault> {
        let (owner, kind) = self.arn(text).await?;
        match kind {
            Kind::Execution { .. } => {}
            Kind::Express { .. } => {
                return Err(Fault::new(
                    "InvalidArn",
                    format!("Invalid Arn: 'Express executions are not kept: {text}'"),
                ));
            }
            _ => return Err(Fault::arn(text)),
        }
        let asked = text.to_owned();
        let found = match owner {
            Some(_) => self.state.store.read(move |db| db.run(&asked)).await?,
            None => None,
        };
        found.ok_or_else(|| Fault::execution(text))
    }

    pub async fn stop(&self) -> Result<Value, Fault> {
        let run = self.run_of(self.text("executionArn")?).await?;
        let text = |member| Ok::<_, Fault>(self.maybe(member)?.map(str::to_owned));
        let stopped = self.state.states.engine.stop_with(
            run.key,
            text("error")?,
            text("cause")?,
            self.deed(&run, "state-machine.execution.stop"),
        );
        let at = match stopped.await {
            Ok(at) => at,
            // It has ended, which is what was asked for.
            Err(engine::Error::NotOpen(_)) => run.ended_at.unwrap_or_else(|| self.state.now()),
            Err(error) => return Err(error.into()),
        };
        Ok(json!({ "stopDate": seconds(at) }))
    }

    /// A line of the ledger about an execution that somebody stopped or tried again: its history does not say who. What a
    /// state machine does by a task is in that machine's own history.
    fn deed(&self, run: &Run, action: &str) -> Option<Deed> {
        self.task.is_none().then(|| Deed {
            actor: self.by().actor,
            action: action.into(),
            tenant: run.tenant.as_ref().map(ToString::to_string),
            object: run.arn.clone(),
            detail: json!({}),
        })
    }

    pub async fn redrive(&self) -> Result<Value, Fault> {
        let run = self.run_of(self.text("executionArn")?).await?;
        if run.kin.is_some() {
            return Err(Fault::new(
                "ExecutionNotRedrivable",
                "Execution Not Redrivable: 'A child of a Map Run is redriven with it'",
            ));
        }
        let gone = || {
            Fault::new(
                "ExecutionNotRedrivable",
                "Execution Not Redrivable: 'Its tenant is being deleted'",
            )
        };
        if self.leaves(run.tenant.clone()).await? {
            return Err(gone());
        }
        let deed = self.deed(&run, "state-machine.execution.redrive");
        match self.state.states.engine.redrive_with(run.key, deed).await {
            Ok(at) => Ok(json!({ "redriveDate": seconds(at) })),
            Err(engine::Error::Refused(_)) => Err(gone()),
            Err(engine::Error::NotRedrivable(_) | engine::Error::NotOpen(_)) => Err(Fault::new(
                "ExecutionNotRedrivable",
                format!("Execution Not Redrivable: '{}'", not_redrivable(run.status)),
            )),
            Err(error) => Err(error.into()),
        }
    }

    pub async fn describe_execution(&self) -> Result<Value, Fault> {
        let run = self.run_of(self.text("executionArn")?).await?;
        let origin: Value = serde_json::from_str(&run.origin).unwrap_or_default();
        let of = arn::machine(run.owner, origin["machine"].as_str().unwrap_or_default());
        let mut answer = json!({
            "executionArn": run.arn,
            "stateMachineArn": of,
            "name": run.name,
            "status": run.status,
            "startDate": seconds(run.started_at),
            "input": run.input,
            "inputDetails": { "included": true },
            "redriveCount": run.redrives,
            "redriveStatus": "NOT_REDRIVABLE",
        });
        if let Some(found) = self.run_around(&run).await? {
            answer["mapRunArn"] = found.into();
        }
        match run.redrivable {
            true if run.kin.is_some() => answer["redriveStatus"] = "REDRIVABLE_BY_MAP_RUN".into(),
            true => answer["redriveStatus"] = "REDRIVABLE".into(),
            false => answer["redriveStatusReason"] = not_redrivable(run.status).into(),
        }
        if let Some(at) = run.redriven_at {
            answer["redriveDate"] = seconds(at);
        }
        if let Some(at) = run.ended_at {
            answer["stopDate"] = seconds(at);
        }
        if let Some(output) = run.output {
            answer["output"] = output.into();
            answer["outputDetails"] = json!({ "included": true });
        }
        put(&mut answer, "error", run.error);
        put(&mut answer, "cause", run.cause);
        if let Some(version) = origin["version"].as_u64() {
            answer["stateMachineVersionArn"] = format!("{of}:{version}").into();
        }
        if let Some(alias) = origin["alias"].as_str() {
            answer["stateMachineAliasArn"] = format!("{of}:{alias}").into();
        }
        put(
            &mut answer,
            "traceHeader",
            origin["trace"].as_str().map(str::to_owned),
        );
        if self.metadata_only()? {
            without_data(&mut answer);
        }
        Ok(answer)
    }

    /// The ARN of the Map run that an execution is a child of.
    async fn run_around(&self, run: &Run) -> Result<Option<String>, Fault> {
        let Some(kin) = run.kin else { return Ok(None) };
        let found = self
            .state
            .store
            .read(move |db| db.map_run_of(kin.execution, kin.task));
        Ok(found.await?.map(|found| found.arn))
    }

    /// The machine as it was when the execution began.
    pub async fn describe_machine_of(&self) -> Result<Value, Fault> {
        let text = self.text("executionArn")?;
        let run = self.run_of(text).await?;
        let key = run.key;
        let definition = self.state.store.read(move |db| db.run_by_key(key)).await?;
        let (_, definition) = definition.ok_or_else(|| Fault::execution(text))?;
        let origin: Value = serde_json::from_str(&run.origin).unwrap_or_default();
        let name = origin["machine"].as_str().unwrap_or_default();
        let of = arn::machine(run.owner, name);
        let now = self
            .meant(&of)
            .await
            .ok()
            .and_then(|meant| described(&meant).ok());
        let mut answer = now.unwrap_or_else(|| json!({ "type": kind(false) }));
        for member in ["status", "creationDate", "description"] {
            answer.as_object_mut().map(|answer| answer.remove(member));
        }
        answer["stateMachineArn"] = of.into();
        answer["name"] = name.into();
        answer["definition"] = definition.into();
        answer["roleArn"] = origin["role"].clone();
        if origin["revision"] == INITIAL {
            answer.as_object_mut().map(|answer| answer.remove("revisionId"));
        } else {
            answer["revisionId"] = origin["revision"].clone();
        }
        answer["updateDate"] = seconds(run.started_at);
        if let Some(found) = self.run_around(&run).await? {
            answer["mapRunArn"] = found.into();
            answer["label"] = name.rsplit('/').next().unwrap_or_default().into();
        }
        if self.metadata_only()? {
            bare(&mut answer);
        }
        Ok(answer)
    }

    /// `statusFilter`
    pub fn status(&self) -> Result<Option<Status>, Fault> {
        let read = |word: &str| {
            serde_json::from_value(word.into())
                .map_err(|_| Fault::validation("the status filter is no status"))
        };
        self.maybe("statusFilter")?.map(read).transpose()
    }

    /// `redriveFilter`: only executions that were tried again, or only those that were not.
    pub fn redriven(&self) -> Result<Option<bool>, Fault> {
        match self.maybe("redriveFilter")? {
            None => Ok(None),
            Some("REDRIVEN") => Ok(Some(true)),
            Some("NOT_REDRIVEN") => Ok(Some(false)),
            Some(_) => Err(Fault::validation("the redrive filter is no filter")),
        }
    }

    pub async fn list_executions(&self) -> Result<Value, Fault> {
        if let Some(run) = self.maybe("mapRunArn")? {
            return self.list_children(run).await;
        }
        let meant = self.meant(self.text("stateMachineArn")?).await?;
        if meant.machine.express {
            return Err(Fault::new(
                "StateMachineTypeNotSupported",
                "This operation is not supported by this type of state machine",
            ));
        }
        let status = self.status()?;
        let (limit, before, machine) = (self.most()?, self.number_token()?, meant.machine.key);
        let filter = RunFilter {
            machine,
            status,
            redriven: self.redriven()?,
            before,
            limit,
            ..RunFilter::default()
        };
        let found = self.state.store.read(move |db| db.runs(&filter)).await?;
        let next = found
            .last()
            .filter(|_| found.len() == limit as usize)
            .map(|last| last.key.to_string());
        let of = meant.arn();
        let item = |run: &Run| listed(run, &of);
        Ok(page("executions", found.iter().map(item).collect(), next))
    }

    pub async fn history(&self) -> Result<Value, Fault> {
        let run = self.run_of(self.text("executionArn")?).await?;
        let (limit, token) = (u64::from(self.most()?), self.number_token()?);
        let (reverse, key) = (self.flag("reverseOrder"), run.key);
        let with_data = self.value("includeExecutionData").as_bool().unwrap_or(true);
        let (mut events, last, from) = self
            .state
            .store
            .read(move |db| {
                if !reverse {
                    let from = token.unwrap_or(1);
                    let (events, last) = engine::history(db, key, from, limit as usize)?;
                    return Ok::<_, engine::Error>((events, last, from));
                }
                let (_, last) = engine::history(db, key, 1, 0)?;
                let upto = token.unwrap_or(last).min(last);
                let from = upto.saturating_sub(limit).saturating_add(1);
                let (events, _) = engine::history(db, key, from, (upto + 1 - from.min(upto + 1)) as usize)?;
                Ok((events, last, from))
            })
            .await?;
        if reverse {
            events.reverse();
        }
        let next = match reverse {
            true => (from > 1).then(|| (from - 1).to_string()),
            false => (from + (events.len() as u64) <= last).then(|| (from + events.len() as u64).to_string()),
        };
        let items = events.iter().map(|event| shown(event, with_data));
        Ok(page("events", items.collect(), next))
    }
}

/// The machine that an execution is of; of a child of a Map run, with the label of the Map state.
pub fn machine_of(run: &Run) -> String {
    let origin: Value = serde_json::from_str(&run.origin).unwrap_or_default();
    arn::machine(run.owner, origin["machine"].as_str().unwrap_or_default())
}

/// What a list shows of an execution of the machine `of`.
pub fn listed(run: &Run, of: &str) -> Value {
    let mut item = json!({
        "executionArn": run.arn,
        "stateMachineArn": of,
        "name": run.name,
        "status": run.status,
        "startDate": seconds(run.started_at),
        "redriveCount": run.redrives,
    });
    if let Some(at) = run.ended_at {
        item["stopDate"] = seconds(at);
    }
    if let Some(at) = run.redriven_at {
        item["redriveDate"] = seconds(at);
    }
    item
}

fn not_redrivable(status: Status) -> &'static str {
    match status {
        Status::Running => "Execution is RUNNING and cannot be redriven",
        Status::Succeeded => "Execution is SUCCEEDED and cannot be redriven",
        Status::Failed | Status::TimedOut | Status::Aborted => "Nothing of the execution can be tried again",
    }
}

fn shown(event: &asl::HistoryEvent, with_data: bool) -> Value {
    let mut shown = json!({
        "timestamp": seconds(event.at),
        "type": event.kind.as_str(),
        "id": event.id,
        "previousEventId": event.previous,
    });
    if !event.details.is_null() {
        let mut details = event.details.clone();
        if !with_data && let Some(details) = details.as_object_mut() {
            details.retain(|name, _| name != "input" && name != "output");
        }
        shown[event.kind.details()] = details;
    }
    shown
}

/// Takes what the execution was given and what it gave out of a description.
fn without_data(answer: &mut Value) {
    for (member, details) in [("input", "inputDetails"), ("output", "outputDetails")] {
        if let Some(members) = answer.as_object_mut()
            && members.remove(member).is_some()
        {
            members.insert(details.into(), json!({ "included": false }));
        }
    }
    for member in ["error", "cause"] {
        answer.as_object_mut().map(|members| members.remove(member));
    }
}

fn put(answer: &mut Value, member: &str, text: Option<String>) {
    if let Some(text) = text {
        answer[member] = text.into();
    }
}

/// In the shape of a UUID of version 4.
pub fn fresh_name() -> String {
    named_by(crate::clock::bits(), crate::clock::bits())
}

/// A name in the same shape, of these bits.
pub fn named_by(high: u64, low: u64) -> String {
    let hex = format!("{high:016x}{low:016x}");
    let (a, b, c, d) = (&hex[..8], &hex[8..12], &hex[13..16], &hex[17..20]);
    format!("{a}-{b}-4{c}-a{d}-{}", &hex[20..])
}
