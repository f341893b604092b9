//! What exists: tenants, apps, environments, pushes, releases, hosts.

mod alarms;
mod apps;
mod branches;
mod builders;
mod doors;
mod environments;
mod hosts;
mod keepers;
mod machines;
mod moves;
mod names;
mod priorities;
mod pushes;
mod releases;
mod tenants;

pub use alarms::{Heard, Told};
pub use apps::App;
pub use branches::{Gone, Preview};
pub use builders::{Builder, NewBuilder};
pub use doors::{Closure, Door};
pub(crate) use environments::place;
pub use environments::{Arriving, Environment, Subnets};
pub use hosts::{Host, HostState, NewHost};
pub(crate) use keepers::KEPT;
pub use keepers::Keepers;
pub use machines::{Machine, NewInvitation};
pub use moves::Move;
pub use names::Owner;
pub use pushes::{NewPush, Push, PushState};
pub use releases::{NewRelease, Release};
pub use tenants::Tenant;
