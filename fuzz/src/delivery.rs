//! What the targets of both providers ask of a delivery: it is understood or refused, and what may be cloned is a URL
//! that git cannot take for anything else.

use model::{
    Secret,
    webhook::{Event, Provider, delivery_id, explain, is_clone_url, read, verify},
};

/// The first byte picks one of the events and how the body is written; the rest is the body.
pub fn check(provider: Provider, header: &str, events: &[&str], bytes: &[u8]) {
    let Some((first, body)) = bytes.split_first() else {
        return;
    };
    let event = events[usize::from(*first) % events.len()];
    let form = if first & 0x80 == 0 {
        "application/json"
    } else {
        "application/x-www-form-urlencoded"
    };
    let headers =
        [(header, event), ("Content-Type", form)].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let secret = Secret::new("secret".to_owned());
    let _ = explain(provider, &headers, body, Some(&secret));
    assert!(
        verify(provider, &headers, body, &secret).is_err(),
        "nothing was signed"
    );
    let id = delivery_id(provider, &headers, body);
    assert!((1..=128).contains(&id.len()));
    if let Ok(Event::Push(push)) = read(provider, &headers, body) {
        assert!(is_clone_url(&push.clone_url) && !push.clone_url.starts_with('-'));
        assert!(
            !push
                .branch
                .is_some_and(|branch| branch.is_empty() || branch.starts_with('-'))
        );
    }
}
