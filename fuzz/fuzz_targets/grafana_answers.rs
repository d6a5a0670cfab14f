//! Grafana's answers: accepted or rejected.
#![no_main]

use clipper_metrics::grafana::{Api, dashboard, classify};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(json) = serde_json::from_slice(bytes) {
        for api in [Api::Uid, Api::Numeric] {
            let _ = classify(api, 200, &json, String::new);
        }
        let _ = dashboard::read(&json);
    }
});
