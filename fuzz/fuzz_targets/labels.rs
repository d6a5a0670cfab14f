//! Labels of containers: read, or nothing.
#![no_main]

use std::collections::HashMap;

use clipper_metrics::systems::docker::labels;

libfuzzer_sys::fuzz_target!(|texts: (String, String, String)| {
    let (role, specification, given) = texts;
    let all: HashMap<String, String> = [
        (labels::ROLE.to_string(), role),
        ("clipper-metrics.specification".to_string(), specification),
        ("clipper-metrics.given".to_string(), given),
    ]
    .into();
    let _ = labels::specification(Some(&all));
    let _ = labels::remembered([Some(&all), None].into_iter());
});
