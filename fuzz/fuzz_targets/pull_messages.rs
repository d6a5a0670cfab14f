//! Messages of a pull: counted without overflow, whatever their content.
#![no_main]

use clipper_metrics::engine::pull::{Progress, classify};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut progress = Progress::default();
    for line in text.lines() {
        if let Ok(message) = serde_json::from_str::<bollard::models::CreateImageInfo>(line) {
            progress.note(&message);
        }
        let _ = classify(line);
    }
    assert!(progress.layers().0 <= progress.layers().1);
    assert!(progress.bytes().0 <= progress.bytes().1);
});
