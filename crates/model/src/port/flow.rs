//! Executions of state machines, wherever they run.

use serde_json::Value;

use super::Fault;

/// A state machine to be there: what [`Flow::ensure`] is given.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowOrder {
    /// Unique for who asks.
    pub name: String,
    /// Amazon States Language.
    pub definition: String,
    /// The role that the machine acts in, where there are roles.
    pub role: String,
}

/// How an execution stands.
#[derive(Debug, Clone, PartialEq)]
pub enum FlowState {
    Running,
    Succeeded {
        output: Value,
    },
    Failed {
        error: Option<String>,
        cause: Option<String>,
    },
    TimedOut,
    Aborted,
}

/// A task for a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowTask {
    /// Who shows it answers for the task, once.
    pub token: String,
    pub input: Value,
}

/// What moves executions. Names of things are ARNs, as AWS writes them; only what made them reads them.
pub trait Flow {
    /// Makes the machine, or changes the one of that name, and gives its ARN. Doing it twice changes nothing.
    fn ensure(&self, order: &FlowOrder) -> impl Future<Output = Result<String, Fault>> + Send;

    /// Starts an execution and gives its ARN. The same name and input again give the same execution while it runs;
    /// another input under the same name is a fault of the order.
    fn start(
        &self,
        machine: &str,
        name: &str,
        input: &Value,
    ) -> impl Future<Output = Result<String, Fault>> + Send;

    fn state(&self, execution: &str) -> impl Future<Output = Result<FlowState, Fault>> + Send;

    /// Ends an execution. One that has ended stays as it is.
    fn stop(&self, execution: &str, cause: &str) -> impl Future<Output = Result<(), Fault>> + Send;

    /// The types of the events of an execution's history, in their order.
    fn events(&self, execution: &str) -> impl Future<Output = Result<Vec<String>, Fault>> + Send;

    /// Makes an activity and gives its ARN. Doing it twice changes nothing.
    fn activity(&self, name: &str) -> impl Future<Output = Result<String, Fault>> + Send;

    /// Waits for a task of an activity, for about a minute.
    fn poll(
        &self,
        activity: &str,
        worker: &str,
    ) -> impl Future<Output = Result<Option<FlowTask>, Fault>> + Send;

    /// Answers a task. A task that has its answer, or that nobody waits for any more, is a fault of the order.
    fn answer(
        &self,
        token: &str,
        answer: Result<&Value, &Fault>,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}
