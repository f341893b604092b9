//! Linux effects: what root does on one machine, and what PID 1 does inside a host.
//!
//! The room exists so that everything which needs privileges is in one place behind `model::port`. It knows nothing of
//! SQL, of the HTTP API, of flows or of AWS: an order comes in with all that is needed, an outcome or a fault goes out.
//!
//! In reading order: [`node`] answers orders over a local socket and [`client`] asks them; [`hosts`] and [`database`]
//! make hosts; [`container`], [`network`], [`cgroup`] and [`mount`] are what they are made of; [`build`] and [`bake`]
//! make what hosts run; [`agent`] is PID 1 inside of one; [`machine`] is how machines elsewhere join.

pub mod client;
pub mod node;
pub mod ticket;

pub mod database;
pub mod hosts;

pub mod bake;
pub mod base;
pub mod build;
mod cache;
mod clock;
pub mod image;
pub mod inherited;
pub mod layer;
mod lives;
pub mod logs;
pub mod lookup;
pub mod objects;
pub mod oci;
mod queue;
pub mod tree;
mod uids;
mod work;

pub mod agent;
pub mod appspec;
pub mod check;
pub mod deploy;
pub mod machine;

pub mod cgroup;
pub mod container;
pub mod mount;
pub mod network;
pub mod socket;

pub(crate) use clock::now;
