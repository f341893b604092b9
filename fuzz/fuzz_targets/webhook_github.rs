//! Deliveries of GitHub.
#![no_main]

use fuzz::delivery;
use libfuzzer_sys::fuzz_target;
use model::webhook::Provider;

const EVENTS: &[&str] = &["push", "delete", "ping", "create"];

fuzz_target!(|bytes: &[u8]| delivery::check(Provider::Github, "X-GitHub-Event", EVENTS, bytes));
