//! Clipper's file: read or refused, and never a control character in the message.
#![no_main]

use std::path::Path;

use clipper_metrics::error::printable;
use clipper_metrics::systems::clipper;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(error) = clipper::parse(Path::new("test.toml"), text) {
        let shown = printable(&error.to_string());
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'));
    }
});
