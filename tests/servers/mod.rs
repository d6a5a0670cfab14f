//! The program with external servers and without an engine: a real InfluxDB, and Grafana's double.

mod activity;
mod alerts;
mod contract;
mod dashboard;
pub(crate) mod doctor;
mod exports;
mod external;
mod outputs;
mod ownership;
mod tls;
pub(crate) mod user_dashboards;
