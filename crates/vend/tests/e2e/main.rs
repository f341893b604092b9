//! The whole platform, as its users meet it: the real binary, real containers, real git, ports that the kernel picks.
//!
//! Every test starts a platform in one shared data directory, so that bases and layers are made once, and takes it
//! down again. Tenants have fresh names.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a test's clock is the machine's")]

mod abort;
mod alarms;
mod alone;
mod batch;
mod beside;
mod branches;
mod builders;
mod cancel;
mod corridor;
mod crash;
mod doors;
mod fates;
mod guestbook;
mod hostile;
mod images;
mod isolation;
mod judged;
mod load;
mod machine;
#[path = "../mariadb/mod.rs"]
mod mariadb;
mod middle;
mod migrate;
mod minimum;
mod moves;
mod names;
mod parting;
mod platform;
mod ports;
mod reach;
mod registry;
mod room;
mod seen;
mod shared;
mod sleep;
mod strategies;
mod top;
mod undo;
mod units;
mod upgrade;
mod vault;
mod vaulted;
mod webhooks;
mod whose;
mod zones;
