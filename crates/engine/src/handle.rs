//! What the rest of a program says to the engine, and what it hears.

use asl::{Event, Machine, Status};
use jiff::Timestamp;
use model::{TenantName, ledger::Deed};
use serde_json::Value;
use store::{Kin, Tx};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Error, Offer,
    chores::Chore,
    desk::{self, Poller},
};

/// An execution to be started.
#[derive(Debug, Clone)]
pub struct Start {
    /// `None`: it is the platform's own.
    pub tenant: Option<TenantName>,
    /// Number of the tenant, or [`PLATFORM`](crate::PLATFORM): who may answer for the execution's tasks.
    pub owner: u64,
    /// Key of the state machine.
    pub machine: u64,
    pub machine_arn: String,
    pub machine_name: String,
    pub role: String,
    pub program: Machine,
    /// The text of `program`.
    pub definition: String,
    pub name: String,
    pub arn: String,
    /// JSON that is kept with the execution.
    pub origin: String,
    pub input: Value,
    /// The name was made up just now: nobody else has it.
    pub fresh: bool,
}

/// What else is in the transaction in which an execution begins, after its row, whose key it is given. When it fails,
/// nothing of the start is kept.
pub type Also = Box<dyn FnOnce(&mut Tx<'_>, u64) -> Result<(), store::Error> + Send>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    pub key: u64,
    pub at: Timestamp,
}

/// How an express execution ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    pub status: Status,
}

pub(crate) type Answer<T> = oneshot::Sender<Result<T, Error>>;

pub(crate) enum Input {
    Start(Box<Start>, Answer<Started>),
    /// With what else is in its transaction.
    StartWith(Box<Start>, Also, Answer<Started>),
    /// In memory only: that it has begun, and how it ended.
    Express(Box<Start>, Answer<()>, Answer<Ended>),
    Poll {
        resource: String,
        poller: Poller,
    },
    /// A task for a poller, whose execution had to be read first.
    Take {
        resource: String,
        token: desk::Token,
        poller: Poller,
    },
    Report {
        owner: u64,
        token: String,
        report: Report,
        answer: Answer<()>,
    },
    /// Somebody wants to know when the task is over.
    Watch {
        token: String,
        over: oneshot::Sender<()>,
    },
    /// Somebody wants to know whether the task is open, as far as it is on record.
    IsOpen {
        token: String,
        answer: Answer<bool>,
    },
    /// Somebody wants to know when the execution is over.
    Await {
        key: u64,
        answer: Answer<oneshot::Receiver<()>>,
    },
    Interrupt {
        key: u64,
        error: String,
        cause: String,
        spared: fn(&str) -> bool,
        answer: Answer<()>,
    },
    Stop {
        key: u64,
        error: Option<String>,
        cause: Option<String>,
        deed: Option<Box<Deed>>,
        answer: Answer<Timestamp>,
    },
    Redrive {
        key: u64,
        deed: Option<Box<Deed>>,
        answer: Answer<Timestamp>,
    },
    /// Something that happens to an execution, which had to be read first.
    Happen {
        key: u64,
        event: Event,
    },
    /// A chore for a Map run of an execution that had to be read first.
    Chore(Chore),
    /// A child of a Map run is tried again with it.
    Again {
        key: u64,
        kin: Kin,
    },
    /// A Map run may do something else from now on.
    Change {
        key: u64,
        event: Event,
        answer: Answer<()>,
    },
    /// An activity was made or deleted.
    News,
    /// Folds all there is to fold.
    Settle(Answer<()>),
}

#[derive(Debug, Clone)]
pub(crate) enum Report {
    Submitted(Value),
    Succeeded(Value),
    Failed(Option<String>, Option<String>),
    Alive,
}

/// How the engine is reached. A caller that stops waiting takes nothing back.
#[derive(Clone)]
pub struct Handle(pub(crate) mpsc::Sender<Input>);

impl Handle {
    async fn ask<T>(&self, input: impl FnOnce(Answer<T>) -> Input) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.0.send(input(answer)).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Answers when the execution is on record.
    pub async fn start(&self, start: Start) -> Result<Started, Error> {
        self.ask(|answer| Input::Start(Box::new(start), answer)).await
    }

    /// The same, with something else in the same transaction. Nobody else has the execution's name.
    pub async fn start_with(&self, start: Start, also: Also) -> Result<Started, Error> {
        self.ask(|answer| Input::StartWith(Box::new(start), also, answer))
            .await
    }

    /// Runs an execution in memory, and answers when it has ended. It is nowhere afterwards.
    pub async fn express(&self, start: Start) -> Result<Ended, Error> {
        self.begin_express(start).await?.await
    }

    /// The same, which answers when it has begun. Whoever does not wait for the rest does not end it.
    pub async fn begin_express(
        &self,
        start: Start,
    ) -> Result<impl Future<Output = Result<Ended, Error>> + use<>, Error> {
        let (answer, answered) = oneshot::channel();
        self.ask(|begun| Input::Express(Box::new(start), begun, answer))
            .await?;
        Ok(async move { answered.await.map_err(|_| Error::Closed)? })
    }

    /// Waits for a task of `resource`. Stop waiting by dropping the future.
    pub async fn poll(&self, resource: &str, worker: Option<String>) -> Result<Offer, Error> {
        let (answer, answered) = oneshot::channel();
        let input = Input::Poll {
            resource: resource.to_owned(),
            poller: Poller { worker, answer },
        };
        self.0.send(input).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)
    }

    async fn report(&self, owner: u64, token: &str, report: Report) -> Result<(), Error> {
        let token = token.to_owned();
        self.ask(|answer| Input::Report {
            owner,
            token,
            report,
            answer,
        })
        .await
    }

    /// What the task asked for was accepted; its answer is still to come.
    pub async fn submit(&self, owner: u64, token: &str, output: Value) -> Result<(), Error> {
        self.report(owner, token, Report::Submitted(output)).await
    }

    pub async fn succeed(&self, owner: u64, token: &str, output: Value) -> Result<(), Error> {
        self.report(owner, token, Report::Succeeded(output)).await
    }

    pub async fn fail(
        &self,
        owner: u64,
        token: &str,
        error: Option<String>,
        cause: Option<String>,
    ) -> Result<(), Error> {
        self.report(owner, token, Report::Failed(error, cause)).await
    }

    pub async fn heartbeat(&self, owner: u64, token: &str) -> Result<(), Error> {
        self.report(owner, token, Report::Alive).await
    }

    /// Waits until the task is over, whoever ended it: for a worker that would work in vain.
    pub async fn over(&self, token: &str) {
        let (over, watched) = oneshot::channel();
        let token = token.to_owned();
        if self.0.send(Input::Watch { token, over }).await.is_ok() {
            // It is dropped when the task is over.
            let _ = watched.await;
        }
    }

    /// Is the task open, when all that was decided so far is on record? For who was told that it is over, which is also
    /// said when the engine had to begin anew and offers it again.
    pub async fn is_open(&self, token: &str) -> Result<bool, Error> {
        let token = token.to_owned();
        self.ask(|answer| Input::IsOpen { token, answer }).await
    }

    /// Something to wait for until the end of an execution may be on record: it is dropped then, and whenever the engine
    /// had to begin anew. Whoever waits looks at the execution's row after this has answered, and again after each wait.
    pub async fn end_of(&self, key: u64) -> Result<oneshot::Receiver<()>, Error> {
        self.ask(|answer| Input::Await { key, answer }).await
    }

    /// Fails every open task of an execution, but those of resources that are spared. When none is open, what waits
    /// to be tried again is tried first, so that there is something to fail: the definition says what follows.
    pub async fn interrupt(
        &self,
        key: u64,
        error: impl Into<String>,
        cause: impl Into<String>,
        spared: fn(&str) -> bool,
    ) -> Result<(), Error> {
        let (error, cause) = (error.into(), cause.into());
        self.ask(|answer| Input::Interrupt {
            key,
            error,
            cause,
            spared,
            answer,
        })
        .await
    }

    /// Ends an execution, and gives the time at which it ended.
    pub async fn stop(
        &self,
        key: u64,
        error: Option<String>,
        cause: Option<String>,
    ) -> Result<Timestamp, Error> {
        self.stop_with(key, error, cause, None).await
    }

    /// The same, with a line of the ledger in the same transaction.
    pub async fn stop_with(
        &self,
        key: u64,
        error: Option<String>,
        cause: Option<String>,
        deed: Option<Deed>,
    ) -> Result<Timestamp, Error> {
        let deed = deed.map(Box::new);
        self.ask(|answer| Input::Stop {
            key,
            error,
            cause,
            deed,
            answer,
        })
        .await
    }

    /// Tries the states of an execution again that did not succeed, and gives the time at which it goes on.
    pub async fn redrive(&self, key: u64) -> Result<Timestamp, Error> {
        self.redrive_with(key, None).await
    }

    /// The same, with a line of the ledger in the same transaction.
    pub async fn redrive_with(&self, key: u64, deed: Option<Deed>) -> Result<Timestamp, Error> {
        let deed = deed.map(Box::new);
        self.ask(|answer| Input::Redrive { key, deed, answer }).await
    }

    /// Changes what the open Map run `task` of an execution may do: children at the same time (0: as many as may be),
    /// items that may fail, and which part of them. `None` leaves it as it is.
    pub async fn change_run(
        &self,
        key: u64,
        task: u64,
        most: Option<u64>,
        failures: Option<u64>,
        percentage: Option<f64>,
    ) -> Result<(), Error> {
        let event = Event::MapRunChanged {
            task,
            most,
            failures,
            percentage,
        };
        self.ask(|answer| Input::Change { key, event, answer }).await
    }

    /// Activities were made or deleted: the store says which, and executions that use them hear of it.
    pub async fn activities_changed(&self) -> Result<(), Error> {
        self.0.send(Input::News).await.map_err(|_| Error::Closed)
    }

    /// Answers when every execution is folded: the log is empty but for its last event.
    pub async fn settle(&self) -> Result<(), Error> {
        self.ask(Input::Settle).await
    }
}
