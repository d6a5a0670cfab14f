//! InfluxDB's answers: accepted or rejected.
#![no_main]

use clipper_metrics::influxdb;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = influxdb::read::<influxdb::Series>(bytes);
});
