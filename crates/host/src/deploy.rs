//! Puts a revision on a host through its agent.
