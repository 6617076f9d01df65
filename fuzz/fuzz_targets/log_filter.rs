//! The log filter, which is read from a file again and again while the process runs.

#![no_main]

use libfuzzer_sys::fuzz_target;
use volumeviz::telemetry;

fuzz_target!(|text: &str| {
    match telemetry::parse(text) {
        Ok(filter) => {
            let again = telemetry::parse(&filter.to_string()).unwrap();
            assert_eq!((again.to_string(), again.max_level_hint()), (filter.to_string(), filter.max_level_hint()));
        }
        Err(error) => assert!(error.to_string().starts_with(&format!("{text:?} is not a log filter: ")), "{error}"),
    }
});
