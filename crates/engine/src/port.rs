//! The Flow port on this engine.

use std::time::Duration;

use asl::Machine;
use jiff::Timestamp;
use model::{
    TenantName,
    port::{Fault, Flow, FlowOrder, FlowState, FlowTask},
};
use serde_json::Value;
use store::{By, NewMachine, Run, StateMachine, Status, Store};

use crate::{Error, Handle, Start};

/// How long a worker waits for a task.
const POLL: Duration = Duration::from_secs(60);

/// The engine, for one tenant.
pub struct Local {
    pub store: Store,
    pub engine: Handle,
    pub tenant: TenantName,
    /// The tenant's number.
    pub owner: u64,
    pub clock: fn() -> Timestamp,
    /// In the ledger.
    pub actor: String,
    /// Told of activities that are made: see [`Refuses`](crate::Refuses).
    pub known: Box<dyn Fn(&str) + Send + Sync>,
}

impl Local {
    fn arn(&self, rest: &str) -> String {
        format!("arn:aws:states:local:{:012}:{rest}", self.owner)
    }

    fn by(&self) -> By {
        By::new(self.actor.clone(), (self.clock)())
    }

    async fn machine(&self, arn: &str) -> Result<StateMachine, Fault> {
        let unknown = || Fault::order(format!("there is no state machine {arn}"));
        let name = arn
            .strip_prefix(&self.arn("stateMachine:"))
            .ok_or_else(unknown)?
            .to_owned();
        let tenant = self.tenant.clone();
        let found = self.store.read(move |db| db.state_machine(&tenant, &name)).await;
        found.map_err(kept)?.ok_or_else(unknown)
    }

    async fn run(&self, arn: &str) -> Result<Run, Fault> {
        let asked = arn.to_owned();
        let found = self.store.read(move |db| db.run(&asked)).await.map_err(kept)?;
        found
            .filter(|run| run.tenant.as_ref() == Some(&self.tenant))
            .ok_or_else(|| Fault::order(format!("there is no execution {arn}")))
    }
}

fn kept(error: store::Error) -> Fault {
    Fault::platform(format!("the store did not do its part: {error}"))
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(_) | Error::Closed | Error::Damaged(_) => Fault::platform(error.to_string()),
            _ => Fault::order(error.to_string()),
        }
    }
}

impl Flow for Local {
    async fn ensure(&self, order: &FlowOrder) -> Result<String, Fault> {
        Machine::parse(&order.definition).map_err(|problems| Fault::order(asl::refusal(&problems)))?;
        let new = NewMachine {
            tenant: self.tenant.clone(),
            name: order.name.clone(),
            express: false,
            revision: model::Digest::of(&order.definition).to_string(),
            definition: order.definition.clone(),
            role: order.role.clone(),
            settings: "{}".into(),
        };
        let by = self.by();
        let made = self
            .store
            .write(move |tx| match tx.state_machine(&new.tenant, &new.name)? {
                None => tx.create_state_machine(&new, &by),
                Some(found) if found.definition == new.definition && found.role == new.role => Ok(found),
                Some(_) => tx.update_state_machine(&new, &by),
            });
        let made: StateMachine = made.await.map_err(kept)?;
        Ok(self.arn(&format!("stateMachine:{}", made.name)))
    }

    async fn start(&self, machine: &str, name: &str, input: &Value) -> Result<String, Fault> {
        let found = self.machine(machine).await?;
        let arn = self.arn(&format!("execution:{}:{name}", found.name));
        let program =
            Machine::parse(&found.definition).map_err(|problems| Fault::order(asl::refusal(&problems)))?;
        let start = Start {
            tenant: Some(self.tenant.clone()),
            owner: self.owner,
            machine: found.key,
            machine_arn: machine.to_owned(),
            machine_name: found.name,
            role: found.role,
            program,
            definition: found.definition,
            name: name.to_owned(),
            arn: arn.clone(),
            origin: "{}".into(),
            input: input.clone(),
            fresh: false,
        };
        match self.engine.start(start).await {
            Ok(_) => Ok(arn),
            Err(Error::Exists(_)) => {
                let run = self.run(&arn).await?;
                let same = asl::json::read(&run.input).is_ok_and(|kept| kept == *input);
                match same && run.ended_at.is_none() {
                    true => Ok(arn),
                    false => Err(Fault::order(format!("the execution {arn} exists already"))),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn state(&self, execution: &str) -> Result<FlowState, Fault> {
        let run = self.run(execution).await?;
        Ok(match run.status {
            Status::Running => FlowState::Running,
            Status::Succeeded => FlowState::Succeeded {
                output: asl::json::read(&run.output.unwrap_or_default())
                    .map_err(|error| Fault::platform(format!("the output is not JSON: {error}")))?,
            },
            Status::Failed => FlowState::Failed {
                error: run.error,
                cause: run.cause,
            },
            Status::TimedOut => FlowState::TimedOut,
            Status::Aborted => FlowState::Aborted,
        })
    }

    async fn stop(&self, execution: &str, cause: &str) -> Result<(), Fault> {
        let run = self.run(execution).await?;
        match self.engine.stop(run.key, None, Some(cause.to_owned())).await {
            Ok(_) | Err(Error::NotOpen(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn events(&self, execution: &str) -> Result<Vec<String>, Fault> {
        let key = self.run(execution).await?.key;
        let all = asl::limit::HISTORY as usize;
        let read = self.store.read(move |db| crate::history(db, key, 1, all));
        let (events, _) = read.await?;
        Ok(events.iter().map(|event| event.kind.to_string()).collect())
    }

    async fn activity(&self, name: &str) -> Result<String, Fault> {
        let (tenant, own, by) = (self.tenant.clone(), name.to_owned(), self.by());
        let made = self.store.write(move |tx| tx.create_activity(&tenant, &own, &by));
        made.await.map_err(kept)?;
        let arn = self.arn(&format!("activity:{name}"));
        (self.known)(&arn);
        self.engine.activities_changed().await?;
        Ok(arn)
    }

    async fn poll(&self, activity: &str, worker: &str) -> Result<Option<FlowTask>, Fault> {
        if !activity.starts_with(&self.arn("activity:")) {
            return Err(Fault::order(format!("there is no activity {activity}")));
        }
        match tokio::time::timeout(POLL, self.engine.poll(activity, Some(worker.to_owned()))).await {
            Err(_) => Ok(None),
            Ok(offer) => {
                let offer = offer?;
                Ok(Some(FlowTask {
                    token: offer.token,
                    input: offer.input,
                }))
            }
        }
    }

    async fn answer(&self, token: &str, answer: Result<&Value, &Fault>) -> Result<(), Fault> {
        match answer {
            Ok(output) => self.engine.succeed(self.owner, token, output.clone()).await?,
            Err(fault) => {
                let error = Some(fault.error_name().to_owned());
                self.engine
                    .fail(self.owner, token, error, Some(fault.message.clone()))
                    .await?;
            }
        }
        Ok(())
    }
}
