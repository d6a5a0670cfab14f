//! The first screen of the bundled dashboard with many models: its variables and queries as Grafana fills them in, on a
//! real InfluxDB.

use serde_json::Value;

use crate::support::influxd::Influxd;

/// What opens with the dashboard.
#[derive(Debug, PartialEq)]
struct FirstScreen {
    models: Vec<String>,
    panels: usize,
    queries: usize,
    /// The series that the queries for the listed models return.
    series: usize,
    points: usize,
}

/// Reports of a model, every 15 s.
fn reports(lines: &mut String, model: &str, seconds_ago: std::ops::Range<i64>) {
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    for ago in seconds_ago.step_by(15) {
        let at = (now - ago) * 1_000_000_000;
        lines.push_str(&format!(
            "{model}_prediction_counter value=120 {at}\n{model}_model_thruput,units=events-per-second rate=8,one_min=7 \
             {at}\n{model}_model_latency size=120,p99=4100 {at}\n"
        ));
    }
}

/// Opens the dashboard on a database with models that report and, first by name, as many that stopped a month ago.
fn open(influxd: &Influxd, models: usize) -> FirstScreen {
    let database = format!("d{models}");
    influxd.query("", &format!("CREATE DATABASE {database}"));
    let mut lines = String::new();
    for number in 0..models {
        reports(&mut lines, &format!("a{number:03}"), 2_592_000..2_592_060);
        reports(&mut lines, &format!("m{number:03}"), 0..60);
    }
    influxd.write(&database, &lines);
    let series = |query: &str| {
        let answer: Value = serde_json::from_str(&influxd.query(&database, query)).unwrap();
        assert_eq!(answer["results"][0]["error"], Value::Null, "{query}");
        answer["results"][0]["series"].as_array().cloned().unwrap_or_default()
    };
    let time = "time >= now() - 30m and time <= now()";
    let dashboard: Value = serde_json::from_str(include_str!("../../assets/dashboard.json")).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variable = |name: &str| variables.iter().find(|variable| variable["name"] == name).unwrap();
    let limit = variable("limit")["current"]["value"].as_str().unwrap();
    let query = variable("model")["query"].as_str().unwrap().replace("${search:regex}", "");
    let query = query.replace("$limit", limit).replace("$timeFilter", time);
    assert_eq!(variable("model")["regex"], "/^([^,]+)_prediction_counter(?:,|$)/");
    let found = series(&query);
    let keys = found[0]["values"].as_array().unwrap().iter().map(|row| row[0].as_str().unwrap());
    let listed: Vec<String> =
        keys.map(|key| key.split(',').next().unwrap().strip_suffix("_prediction_counter").unwrap().into()).collect();
    let mut screen = FirstScreen { models: listed, panels: 0, queries: 0, series: 0, points: 0 };
    let chosen = screen.models.join("|");
    for panel in dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
        screen.panels += 1;
        for target in panel["targets"].as_array().unwrap() {
            screen.queries += 1;
            let query = target["query"].as_str().unwrap();
            let filled = query.replace("${model:regex}", &chosen).replace("$timeFilter", time);
            let found = series(&filled.replace("$__interval", "15s"));
            let points = found.iter().map(|one| one["values"].as_array().unwrap().len()).sum::<usize>();
            if query.contains("$model") || query.contains("${model") {
                screen.series += found.len();
                // Empty intervals are rows without a value.
                screen.points += points;
            } else {
                // A figure over all models: one point of each that reports.
                assert_eq!((found.len(), points), (models, models), "{query}");
            }
        }
    }
    screen
}

#[test]
fn the_first_screen_does_not_depend_on_the_number_of_models() {
    let influxd = Influxd::start();
    let (few, many) = (open(&influxd, 25), open(&influxd, 300));
    let first: Vec<String> = (0..25).map(|number| format!("m{number:03}")).collect();
    assert_eq!((few.models.clone(), few.panels, few.series), (first, 8, 6 * 25), "{few:?}");
    assert!(few.points.abs_diff(many.points) <= few.series, "an interval begins in between: {few:?} {many:?}");
    assert_eq!(few, FirstScreen { points: few.points, ..many });
}
