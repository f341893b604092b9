//! The load balancer from outside: real sockets, real clients, real targets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]
#![allow(
    clippy::disallowed_methods,
    reason = "a test's clock is the machine's, and authorities give certificates for now"
)]

mod acme;
mod away;
mod change;
mod framing;
mod grpc;
mod http2;
mod kinds;
mod limits;
mod lines;
mod log;
mod login;
mod names;
mod numbers;
mod open;
mod own;
mod pass;
mod plain;
mod routing;
mod seen;
mod share;
mod slow;
mod sticky;
mod streams;
mod switch;
mod tenants;
mod tls;
mod tools;
mod udp;
mod violations;
mod wake;
#[path = "../world/mod.rs"]
mod world;
