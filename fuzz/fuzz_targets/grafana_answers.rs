//! Grafana's answers: accepted or rejected.
#![no_main]

use clipper_metrics::grafana::{Api, dashboard, classify};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for api in [Api::Uid, Api::Numeric] {
        if let Ok(answer) = serde_json::from_slice(bytes) {
            let _ = classify(api, 200, answer, String::new);
        }
    }
    if let Ok(json) = serde_json::from_slice(bytes) {
        let _ = dashboard::read(&json);
    }
});
