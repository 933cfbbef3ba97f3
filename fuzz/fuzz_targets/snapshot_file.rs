#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gbsync_fuzz::snapshot_file(data));
