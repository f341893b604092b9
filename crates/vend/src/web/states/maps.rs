//! Runs of distributed Maps.

use serde_json::{Value, json};
use store::{Children, MapRun, RunFilter, Status};

use super::{
    arn::Kind,
    call::{Call, page, seconds},
    executions::{listed, machine_of},
    fault::Fault,
};

/// What is known of the children of a run.
struct Counted {
    ended: Vec<(Status, Children)>,
    running: Children,
    /// Children that a redrive has not come to yet, those that never ran too.
    left: u64,
    /// Children that failed and cannot be tried again.
    lost: Children,
}

impl Call {
    /// The Map run that an ARN names.
    async fn map_run(&self, text: &str) -> Result<MapRun, Fault> {
        let (owner, kind) = self.arn(text).await?;
        let Kind::MapRun { .. } = kind else {
            return Err(Fault::arn(text));
        };
        let asked = text.to_owned();
        let found = match owner {
            Some(_) => self.state.store.read(move |db| db.map_run(&asked)).await?,
            None => None,
        };
        found.ok_or_else(|| Fault::resource(text))
    }

    pub async fn list_map_runs(&self) -> Result<Value, Fault> {
        let run = self.run_of(self.text("executionArn")?).await?;
        let (limit, before, key) = (self.most()?, self.number_token()?, run.key);
        let found = self
            .state
            .store
            .read(move |db| db.map_runs(key, before, limit))
            .await?;
        let next = found
            .last()
            .filter(|_| found.len() == limit as usize)
            .map(|last| last.key.to_string());
        let item = |found: &MapRun| {
            let mut item = json!({
                "executionArn": run.arn,
                "mapRunArn": found.arn,
                "stateMachineArn": machine_of(&run),
                "startDate": seconds(found.started_at),
            });
            if let Some(at) = found.ended_at {
                item["stopDate"] = seconds(at);
            }
            item
        };
        Ok(page("mapRuns", found.iter().map(item).collect(), next))
    }

    pub async fn describe_map_run(&self) -> Result<Value, Fault> {
        let text = self.text("mapRunArn")?.to_owned();
        self.map_run(&text).await?;
        let asked = text.clone();
        let read = self.state.store.read(move |db| {
            let Some(run) = db.map_run(&asked)? else {
                return Ok::<_, engine::Error>(None);
            };
            let of = db.run_by_key(run.execution)?.map(|(of, _)| of.arn);
            let counted = counted(db, &run)?;
            Ok(Some((run, of, counted)))
        });
        let (run, of, counted) = read.await?.ok_or_else(|| Fault::resource(&text))?;
        let bounds: Value = serde_json::from_str(&run.bounds).unwrap_or_default();
        let mut answer = json!({
            "mapRunArn": run.arn,
            "executionArn": of,
            "status": run.status,
            "startDate": seconds(run.started_at),
            "maxConcurrency": bounds["most"].as_u64().unwrap_or_default(),
            "toleratedFailurePercentage": bounds["percentage"].as_f64().unwrap_or_default(),
            "toleratedFailureCount": bounds["failures"].as_u64().unwrap_or_default(),
            "itemCounts": counted.shown(&run, run.items, |children| children.items),
            "executionCounts":
                counted.shown(&run, run.children.unwrap_or_default(), |children| children.children),
            "redriveCount": run.redrives,
        });
        if let Some(at) = run.ended_at {
            answer["stopDate"] = seconds(at);
        }
        if let Some(at) = run.redriven_at {
            answer["redriveDate"] = seconds(at);
        }
        Ok(answer)
    }

    pub async fn update_map_run(&self) -> Result<Value, Fault> {
        let text = self.text("mapRunArn")?;
        let run = self.map_run(text).await?;
        let wrong = |member: &str| {
            Fault::validation(format!(
                "1 validation error detected: Value at '{member}' failed to satisfy constraint"
            ))
        };
        let whole = |member: &str| match self.value(member) {
            Value::Null => Ok(None),
            value => value.as_u64().map(Some).ok_or_else(|| wrong(member)),
        };
        let (most, failures) = (whole("maxConcurrency")?, whole("toleratedFailureCount")?);
        let member = "toleratedFailurePercentage";
        let percentage = match self.value(member) {
            Value::Null => None,
            value => {
                let part = value.as_f64().filter(|part| (0.0..=100.0).contains(part));
                Some(part.ok_or_else(|| wrong(member))?)
            }
        };
        if most.is_none() && failures.is_none() && percentage.is_none() {
            return Err(Fault::validation("there is nothing to change"));
        }
        let engine = &self.state.states.engine;
        match engine
            .change_run(run.execution, run.task, most, failures, percentage)
            .await
        {
            Ok(()) => Ok(json!({})),
            Err(engine::Error::NotOpen(_)) => {
                Err(Fault::validation(format!("Map Run is not running: '{text}'")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// ListExecutions, of the children of a Map run.
    pub async fn list_children(&self, text: &str) -> Result<Value, Fault> {
        if self.maybe("stateMachineArn")?.is_some() {
            return Err(Fault::validation(
                "only one of stateMachineArn and mapRunArn can be given",
            ));
        }
        let run = self.map_run(text).await?;
        let waiting = self.maybe("statusFilter")? == Some("PENDING_REDRIVE");
        let filter = RunFilter {
            run: Some(run.key),
            status: if waiting { None } else { self.status()? },
            redriven: self.redriven()?,
            waiting,
            before: self.number_token()?,
            limit: self.most()?,
            ..RunFilter::default()
        };
        let limit = filter.limit as usize;
        let found = self.state.store.read(move |db| db.runs(&filter)).await?;
        let next = found
            .last()
            .filter(|_| found.len() == limit)
            .and_then(|last| last.kin)
            .map(|kin| kin.child.to_string());
        let item = |child: &store::Run| {
            let mut item = listed(child, &machine_of(child));
            item["mapRunArn"] = run.arn.as_str().into();
            item["itemCount"] = child.kin.map(|kin| kin.items).into();
            item
        };
        Ok(page("executions", found.iter().map(item).collect(), next))
    }
}

fn counted(db: &store::Db<'_>, run: &MapRun) -> Result<Counted, engine::Error> {
    let ended = db.map_counts(run.key)?;
    let mut counted = Counted {
        ended,
        running: Children::default(),
        left: 0,
        lost: Children::default(),
    };
    let fallen = [Status::Failed, Status::TimedOut, Status::Aborted];
    if fallen.iter().any(|status| counted.of(*status).children > 0) {
        counted.lost = db.map_lost(run.key)?;
    }
    let around = match run.ended_at {
        None => engine::recover(db, run.execution)?,
        Some(_) => None,
    };
    let open = around
        .iter()
        .flat_map(|around| around.state.open_runs())
        .find(|open| open.task == run.task);
    if let Some(open) = open {
        let places: Vec<u64> = open.open.iter().copied().collect();
        counted.running = Children {
            children: places.len() as u64,
            items: db.map_items(run.key, open.redrives > 0, &places)?,
        };
        if open.redrives > 0 {
            counted.left = open.children.unwrap_or_default().saturating_sub(open.begun);
        }
    }
    Ok(counted)
}

impl Counted {
    fn of(&self, status: Status) -> Children {
        let found = self.ended.iter().find(|(own, _)| *own == status);
        found.map(|(_, children)| *children).unwrap_or_default()
    }

    /// With AWS's names; `number` takes children or items.
    fn shown(&self, run: &MapRun, total: u64, number: impl Fn(Children) -> u64) -> Value {
        let of = |status| number(self.of(status));
        let (succeeded, failed) = (of(Status::Succeeded), of(Status::Failed));
        let (timed_out, aborted) = (of(Status::TimedOut), of(Status::Aborted));
        let running = number(self.running);
        let pending = total.saturating_sub(succeeded + failed + timed_out + aborted + running);
        let fallen = failed + timed_out + aborted;
        json!({
            "pending": pending,
            "running": running,
            "succeeded": succeeded,
            "failed": failed,
            "timedOut": timed_out,
            "aborted": aborted,
            "total": total,
            "resultsWritten": if run.written { succeeded + fallen } else { 0 },
            "failuresNotRedrivable": number(self.lost),
            "pendingRedrive": self.left.saturating_sub(pending).min(fallen),
        })
    }
}
