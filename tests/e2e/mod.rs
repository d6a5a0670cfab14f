//! End to end: the program against a real engine, with a real InfluxDB and Grafana's double (or the
//! real Grafana in `CLIPPER_METRICS_TEST_GRAFANA_IMAGE`). The tests check the state of the engine,
//! of InfluxDB and of Grafana, rather than the program's output.

mod alerts;
pub(crate) mod answers;
mod backup;
mod converge;
mod doctor;
mod engine;
mod existing;
mod export;
mod hints;
pub(crate) mod instance;
pub(crate) mod lifecycle;
mod passwords;
mod readme;
mod remote;
mod report;
mod safety;
mod settings;
mod ssh;
mod strangers;
mod upgrade;
