//! Deliveries of GitLab.
#![no_main]

use fuzz::delivery;
use libfuzzer_sys::fuzz_target;
use model::webhook::Provider;

const EVENTS: &[&str] = &["Push Hook", "Tag Push Hook", "System Hook"];

fuzz_target!(|bytes: &[u8]| delivery::check(Provider::Gitlab, "X-Gitlab-Event", EVENTS, bytes));
