use super::Fault;
use crate::Ticket;

/// Builds and bakes that go on under their tickets.
pub trait Work {
    /// Stops what goes on under a ticket, for a reason that its log and its answer give. What has not begun will not: a
    /// later order under the ticket gets that answer. What has its answer keeps it. Returns before the end of the work.
    fn stop_work(&self, ticket: &Ticket, reason: &str) -> impl Future<Output = Result<(), Fault>> + Send;
}
