# Sets the variables that the benchmarks share, from INFLUXDB_IMAGE GRAFANA_IMAGE [ROUNDS], and builds the program.
# shellcheck shell=bash disable=SC2034
influxdb=${1:?INFLUXDB_IMAGE}
grafana=${2:?GRAFANA_IMAGE}
rounds=${3:-5}
cargo build --quiet --release
program=${CARGO_TARGET_DIR:-target}/release/clipper-metrics
work=$(mktemp -d)
