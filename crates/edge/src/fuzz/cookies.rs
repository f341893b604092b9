//! Cookies that keep clients with their targets.

use std::{net::Ipv4Addr, sync::Arc};

use jiff::SignedDuration;
use model::route::{self, Stickiness};

use super::ends;
use crate::{
    balance::{Group, Weights},
    head::Ask,
    sticky::{Cookies, token, wanted_group, wanted_target},
    target::Target,
};

/// Reads what a client says of its group and target from any bytes. A target that is known by it is given the same cookie
/// anew; nothing that a client says comes into an answer.
///
/// # Panics
/// When it is not so.
pub fn cookies(bytes: &[u8]) {
    let hour = SignedDuration::from_hours(1);
    for stickiness in [
        Stickiness::Duration(hour),
        Stickiness::Application {
            cookie: "session".into(),
            duration: hour,
        },
    ] {
        let policy = Arc::new(route::TargetGroup {
            stickiness: Some(stickiness),
            ..route::TargetGroup::default()
        });
        let target = |port| {
            Target::new(&route::Target {
                id: format!("h-{port}"),
                address: (Ipv4Addr::LOCALHOST, port).into(),
            })
        };
        let groups = ["blue", "green"].map(|name| {
            let targets = vec![target(1), target(2)];
            (1, Group::new(name, targets, Arc::clone(&policy), None))
        });
        let weights = Weights::new(groups.clone().into_iter(), Some(hour));
        let mut ask = Ask::default();
        ask.start("GET", "/", &ends());
        ask.header(b"Cookie", bytes);
        ask.end();
        let group = wanted_group(&ask, &weights).unwrap_or(&groups[0].1);
        let wanted = wanted_target(&ask, group);
        for target in group.targets() {
            let own = token(group.name(), target);
            let Some(given) = Cookies::new(&ask, &weights, group, target, &[]) else {
                panic!("who stays is told to");
            };
            let along = given.along.as_ref().map(|(_, line)| line);
            let lines: Vec<&String> = given.always.iter().chain(along).collect();
            assert!(
                lines.iter().any(|line| line.contains(&format!("={own:016x};"))),
                "{lines:?}"
            );
            assert!(
                lines
                    .iter()
                    .all(|line| line.is_ascii() && !line.contains(['\r', '\n']))
            );
            let moved = given.always.len() > 1 && policy.stickiness != Some(Stickiness::Duration(hour));
            assert!(!(moved && wanted == Some(own)), "it has not moved");
        }
    }
}
