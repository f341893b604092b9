//! Any text is a list of packages, and names of bases are written as they are read.
#![no_main]

use host::image::bill::{apk, dpkg, wheel};
use libfuzzer_sys::fuzz_target;
use model::spec::Base;

fuzz_target!(|text: &str| {
    for package in dpkg(text).chain(apk(text)).chain(wheel(text)) {
        assert!(!package.name.is_empty() && !package.version.is_empty());
    }
    if let Ok(base) = text.parse::<Base>() {
        assert_eq!(base.to_string().parse(), Ok(base));
    }
});
