//! Any bytes are a list of packages or none, and names of bases are written as they are read.
#![no_main]

use host::image::bill::{Package, apk, cargo, composer, dpkg, gem, go, npm, rpm, wheel};
use libfuzzer_sys::fuzz_target;
use model::spec::Base;

fuzz_target!(|bytes: &[u8]| {
    let check = |package: Package| assert!(!package.name.is_empty() && !package.version.is_empty());
    rpm(bytes).into_iter().flatten().for_each(check);
    npm(bytes).into_iter().for_each(check);
    composer(bytes).into_iter().flatten().for_each(check);
    let mut program = bytes;
    let modules = go(&mut program).expect("bytes in memory are always there");
    modules.into_iter().for_each(check);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    dpkg(text)
        .chain(apk(text))
        .chain(wheel(text))
        .chain(cargo(text))
        .chain(gem(text))
        .for_each(check);
    if let Ok(base) = text.parse::<Base>() {
        assert_eq!(base.to_string().parse(), Ok(base));
    }
});
