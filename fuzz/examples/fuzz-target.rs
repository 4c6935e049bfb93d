//! One target under libFuzzer: `SEALANE_FUZZ_TARGET=update fuzz-target [libFuzzer's options]`.
//! `cargo xtask fuzz` builds and starts it.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("SEALANE_FUZZ_TARGET").unwrap_or_default();
    let known = fuzz::TARGETS.iter().find(|target| target.name == name);
    match known {
        Some(target) => target.run,
        None => panic!("SEALANE_FUZZ_TARGET is no target: {name:?}"),
    }
});

libfuzzer_sys::fuzz_target!(|octets: &[u8]| TARGET(octets));
