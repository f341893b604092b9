use super::Fault;
use crate::Ticket;

/// Builds and bakes that go on under their tickets.
pub trait Work {
    /// Stops what goes on under a ticket, for a reason that its log and its answer give. What has not begun will not: a
    /// later order under the ticket gets that answer. What has its answer keeps it. Gives what it ended with when it ends
    /// within a few seconds, and does not wait for more.
    fn stop_work(
        &self,
        ticket: &Ticket,
        reason: &str,
    ) -> impl Future<Output = Result<Option<Fault>, Fault>> + Send;
}
