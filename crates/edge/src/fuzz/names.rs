//! Queries of names.

use std::{
    net::Ipv4Addr,
    sync::{Arc, OnceLock},
};

use crate::{dns, live::Shared};

/// Answers any packet as a query of names, in every way.
///
/// # Panics
/// When an answer is answered, is much longer than what was asked without a reason, or cannot be read.
pub fn names(bytes: &[u8]) {
    static SERVER: OnceLock<dns::Server> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        let wanted = dns::Wanted {
            apex: "apps.test",
            servers: &[],
            addresses: &[Ipv4Addr::LOCALHOST.into()],
            contact: None,
            ttl: 60,
        };
        let zone = dns::Zone::new(wanted).expect("it is a zone");
        let shared = Arc::new(Shared::default());
        shared
            .names
            .text("_acme-challenge.shop.apps.test", &"x".repeat(250), true);
        shared
            .names
            .text("_acme-challenge.shop.apps.test", &"y".repeat(250), true);
        dns::Server::new(vec![zone], shared)
    });
    for way in [dns::Way::Udp, dns::Way::Deferred, dns::Way::Tcp] {
        let Some(answer) = server.answer(bytes, way) else {
            continue;
        };
        assert!(bytes[2] & 0x80 == 0, "an answer is answered");
        assert!(answer.len() >= 12 && answer[..2] == bytes[..2] && answer[2] & 0x80 != 0);
        assert!(dns::reads(&answer), "it cannot be read");
        match way {
            dns::Way::Udp => assert!(answer.len() <= 1232, "longer than a network carries"),
            // A name that is written short is written out.
            dns::Way::Deferred => assert!(answer.len() <= bytes.len() + 255, "it was to be short"),
            dns::Way::Tcp => {}
        }
    }
}
