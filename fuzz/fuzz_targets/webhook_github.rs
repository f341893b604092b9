//! The first byte picks the event, the rest is the body: a delivery is understood or refused, and what may be cloned is
//! a URL that git cannot take for anything else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::{
    Secret,
    webhook::{Event, Provider, delivery_id, explain, is_clone_url, read, verify},
};

const EVENTS: [&str; 4] = ["push", "delete", "ping", "create"];

fuzz_target!(|bytes: &[u8]| {
    let Some((first, body)) = bytes.split_first() else {
        return;
    };
    let event = EVENTS[usize::from(*first) % EVENTS.len()];
    let form = if first & 0x80 == 0 {
        "application/json"
    } else {
        "application/x-www-form-urlencoded"
    };
    let headers = [("X-GitHub-Event", event), ("Content-Type", form)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let secret = Secret::new("secret".to_owned());
    let _ = explain(Provider::Github, &headers, body, Some(&secret));
    assert!(
        verify(Provider::Github, &headers, body, &secret).is_err(),
        "nothing was signed"
    );
    let id = delivery_id(Provider::Github, &headers, body);
    assert!((1..=128).contains(&id.len()));
    if let Ok(Event::Push(push)) = read(Provider::Github, &headers, body) {
        assert!(is_clone_url(&push.clone_url) && !push.clone_url.starts_with('-'));
        assert!(
            !push
                .branch
                .is_some_and(|branch| branch.is_empty() || branch.starts_with('-'))
        );
    }
});
