//! Runs an appspec's lifecycle events inside a host.
