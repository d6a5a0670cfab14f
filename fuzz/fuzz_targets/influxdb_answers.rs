//! InfluxDB's answers: accepted or rejected.
#![no_main]

use clipper_metrics::influxdb;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(json) = serde_json::from_slice(bytes) {
        let _ = influxdb::read::<influxdb::Series>(&json);
    }
});
