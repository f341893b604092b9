//! Any text is the key of a cache, short enough for a name, or refused.
#![no_main]

use std::collections::BTreeMap;

use host::build::key::expand;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let variables = BTreeMap::from([("A".to_owned(), "$B".to_owned()), ("B".to_owned(), String::new())]);
    let hash = |patterns: &[String]| Ok(patterns.join("-"));
    if let Ok(key) = expand(text, &variables, &hash) {
        assert!(!key.is_empty() && key.len() <= 120);
    }
});
