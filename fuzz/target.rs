//! One target, which is that of the program's name.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let name = env!("CARGO_BIN_NAME");
    let target = trama_fuzz::find(name).expect("fuzz/Cargo.toml names a target");
    (target.body)(bytes);
});
