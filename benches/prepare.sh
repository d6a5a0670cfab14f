# Sets the variables that the benchmarks share, from [INFLUXDB_IMAGE GRAFANA_IMAGE [ROUNDS]], and builds the program.
# Without images, they use those of the tests: a real InfluxDB, and a double of Grafana.
# shellcheck shell=bash disable=SC2034
target=${CARGO_TARGET_DIR:-target}
rounds=${3:-${ROUNDS:-5}}
cargo build --quiet --release
program=$target/release/clipper-metrics
work=$(mktemp -d)
# The tags name versions as those of the official images do, so that `status` reads no file in Grafana's volume.
images=(influxdb:1.12.4 grafana/grafana:12.4.10)
influxdb=${1:-cm-bench/${images[0]}}
grafana=${2:-cm-bench/${images[1]}}
is_double=""
if [ $# -lt 2 ]; then
  is_double=yes
  cargo build --quiet --examples
  "$target/debug/examples/test-registry" 0 >"$work/registry" &
  registry=$!
  until registry_address=$(grep -oE '127\.0\.0\.1:[0-9]+' "$work/registry" | head -n 1) && [ -n "$registry_address" ]; do
    kill -0 "$registry"
    sleep 0.1
  done
  for image in "${images[@]}"; do
    docker pull --quiet "$registry_address/$image" >/dev/null
    docker tag "$registry_address/$image" "cm-bench/$image"
    docker rmi "$registry_address/$image" >/dev/null
  done
  kill "$registry"
fi
