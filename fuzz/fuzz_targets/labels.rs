//! Labels: parsed or ignored.
#![no_main]

use std::collections::HashMap;

use clipper_metrics::model::role::Role;
use clipper_metrics::engine::labels;

libfuzzer_sys::fuzz_target!(|texts: (String, String, String)| {
    let (role, config, settings) = texts;
    let all: HashMap<String, String> = [
        (labels::ROLE.to_string(), role),
        ("clipper-metrics.specification".to_string(), config),
        (labels::SETTINGS.to_string(), settings),
    ]
    .into();
    let _ = labels::config(Some(&all));
    let _ = labels::settings(&all);
    let _ = labels::serves(Some(&all), "x", Role::Grafana, "x-grafana");
});
