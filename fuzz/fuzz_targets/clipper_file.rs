//! Clipper's file: accepted or rejected, without a control character in the message.
#![no_main]

use std::path::Path;

use clipper_metrics::clipper::file;
use clipper_metrics::model::text::printable;
use clipper_metrics::settings::keys::file_keys;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(error) = file::parse(Path::new("test.toml"), text, &file_keys()) {
        let shown = printable(&error.to_string());
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'));
    }
});
