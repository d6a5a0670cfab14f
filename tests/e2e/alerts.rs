//! Alert rules on an engine: remembered like every setting, and fired by a real Grafana. The double
//! does not evaluate rules, so with it only the stored rules are checked.

use serde_json::Value;

use super::instance::Instance;
use crate::support::influxd;

/// The longest time from the first report above the objective to the alert.
const FIRES_WITHIN: u64 = 90;

fn alerting(it: &Instance) -> Vec<(String, String)> {
    let (_, rules) = it.grafana("GET", "/api/prometheus/grafana/api/v1/rules", None);
    let groups = rules["data"]["groups"].as_array().into_iter().flatten();
    let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
    rules
        .map(|rule| {
            let described: Vec<String> = rule["alerts"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|alert| alert["annotations"]["description"].to_string())
                .collect();
            (format!("{}: {}", rule["name"].as_str().unwrap(), rule["state"].as_str().unwrap()), described.concat())
        })
        .collect()
}

fn stored(it: &Instance) -> usize {
    it.grafana("GET", "/api/v1/provisioning/alert-rules", None).1.as_array().map_or(0, Vec::len)
}

/// Writes reports of the model "busy" every second as Clipper does, until the rules are in the
/// expected state.
fn report_until(it: &Instance, p99: Option<u64>, what: &str, is_so: impl Fn(&[(String, String)]) -> bool) {
    let started = std::time::Instant::now();
    loop {
        if let Some(p99) = p99 {
            influxd::write(&it.influxdb(), "clipper", &format!("busy_model_latency size=10,p99={p99}"));
            influxd::write(&it.influxdb(), "clipper", "busy_prediction_counter value=3");
        }
        let now = alerting(it);
        if is_so(&now) {
            return;
        }
        assert!(started.elapsed().as_secs() < FIRES_WITHIN, "{what}: {now:?}");
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

#[test]
fn rules_are_remembered_fire_resolve_and_are_removed() {
    let it = Instance::new("alerts");
    it.first_up(&[]).expect(0);
    let alerts = ["up", "--alerts", "--alert-latency-after", "10s", "--alert-silence-after", "30s"];
    if it.grafana_major() < 9 {
        assert!(it.run(&alerts).expect(1).err.contains("no API for alert rules"));
        return;
    }
    it.run(&alerts).expect(0);
    assert!(it.run(&["up"]).expect(0).out.contains("nothing to do"));
    assert_eq!(it.status()["alerts"]["state"], "in_sync");
    assert_eq!(stored(&it), 2);
    it.run(&["down"]).expect(0);
    assert!(it.run(&["up"]).expect(0).out.contains("up and verified"));
    assert_eq!(it.status()["alerts"]["state"], "in_sync");
    if std::env::var_os("CLIPPER_METRICS_TEST_GRAFANA_IMAGE").is_some() {
        let is = |now: &[(String, String)], state: &str| now.iter().any(|(rule, _)| rule == state);
        let named = |now: &[(String, String)], rule: &str, model: &str| {
            now.iter().any(|(state, described)| state == rule && described.contains(model))
        };
        let latency = "p99 above the objective (NAME): firing".replace("NAME", &it.name);
        let calm = "p99 above the objective (NAME): inactive".replace("NAME", &it.name);
        let silence = "a model has gone silent (NAME): firing".replace("NAME", &it.name);
        report_until(&it, Some(1_500_000), "a spike fires", |now| named(now, &latency, "busy (1500 ms)"));
        report_until(&it, Some(900), "its end resolves it", |now| is(now, &calm));
        report_until(&it, None, "silence fires", |now| named(now, &silence, "busy"));
    }
    it.run(&["up", "--alerts=false"]).expect(0);
    assert_eq!(stored(&it), 0);
    assert!(it.status()["alerts"].is_null());
    let remembered: Value = it.run(&["up", "--output", "json"]).expect(0).json();
    assert!(remembered["steps"].as_array().unwrap().is_empty());
}
