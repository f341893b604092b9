//! Runs goss checks inside a host.
