#!/usr/bin/env bash
# How long it takes, against the plain floor and docker compose, as ratios in one run: absolute times
# differ from machine to machine. Images must be on the engine.
#
#   benches/compare.sh INFLUXDB_IMAGE GRAFANA_IMAGE [ROUNDS]
#
# The floor is both containers with `docker run` side by side, with the settings that start Grafana
# fastest, until InfluxDB has the database and Grafana answers. Docker compose provisions the same
# from files, where it is installed. The median of the rounds is printed.
set -euo pipefail
cd "$(dirname "$0")/.."
influxdb=${1:?INFLUXDB_IMAGE}
grafana=${2:?GRAFANA_IMAGE}
rounds=${3:-5}
cargo build --quiet --release
program=${CARGO_TARGET_DIR:-target}/release/clipper-metrics
name=cm-bench
ports=(18986 13986)
work=$(mktemp -d)

now() { date +%s%N; }
remove() {
  docker rm --force --volumes "$name-floor-i" "$name-floor-g" >/dev/null 2>&1 || true
  docker network rm "$name-floor" >/dev/null 2>&1 || true
  "$program" down --name "$name" --volumes --yes --quiet || true
  [ -f "$work/compose.yaml" ] && docker compose --project-directory "$work" down --volumes >/dev/null 2>&1 || true
}
trap 'remove; rm -rf "$work"' EXIT

ready() { # until InfluxDB has the database and Grafana answers
  until curl -sf -o /dev/null "http://127.0.0.1:${ports[0]}/ping"; do sleep 0.005; done
  curl -s -o /dev/null "http://127.0.0.1:${ports[0]}/query" --data-urlencode 'q=CREATE DATABASE clipper'
  until curl -sf -o /dev/null "http://127.0.0.1:${ports[1]}/api/health"; do sleep 0.005; done
}

floor() {
  docker network create "$name-floor" >/dev/null
  docker run -d --name "$name-floor-i" --network "$name-floor" -p "127.0.0.1:${ports[0]}:8086" "$influxdb" >/dev/null &
  docker run -d --name "$name-floor-g" --network "$name-floor" -p "127.0.0.1:${ports[1]}:3000" \
    -e GF_DATABASE_WAL=true -e GF_PLUGINS_PREINSTALL_DISABLED=true "$grafana" >/dev/null &
  wait
  ready
}

ours() {
  "$program" up --name "$name" --pull never --influxdb-image "$influxdb" --grafana-image "$grafana" \
    --influxdb-port "${ports[0]}" --grafana-port "${ports[1]}" --quiet
}

compose() {
  docker compose --project-directory "$work" up --detach >/dev/null 2>&1
  ready
}

again() { "$program" up --name "$name" --quiet; }
look() { "$program" status --name "$name" --quiet; }
compose_again() { docker compose --project-directory "$work" up --detach >/dev/null 2>&1; }
down() { "$program" down --name "$name" --quiet; }
compose_down() { docker compose --project-directory "$work" down >/dev/null 2>&1; }

declare -A times
timed() { # label command
  local start
  start=$(now)
  "$2"
  times[$1]+="$((($(now) - start) / 1000)) "
}

if docker compose version >/dev/null 2>&1; then
  mkdir -p "$work/datasources" "$work/dashboards"
  cp assets/dashboard.json "$work/dashboards/"
  printf 'apiVersion: 1\ndatasources:\n  - {name: Clipper, uid: clipper-metrics, type: influxdb, access: proxy, url: "http://influxdb:8086", database: clipper}\n' >"$work/datasources/d.yaml"
  printf 'apiVersion: 1\nproviders:\n  - {name: d, type: file, options: {path: /etc/grafana/provisioning/dashboards}}\n' >"$work/dashboards/d.yaml"
  cat >"$work/compose.yaml" <<YAML
services:
  influxdb: {image: "$influxdb", ports: ["127.0.0.1:${ports[0]}:8086"]}
  grafana:
    image: "$grafana"
    ports: ["127.0.0.1:${ports[1]}:3000"]
    volumes: ["$work/datasources:/etc/grafana/provisioning/datasources:ro", "$work/dashboards:/etc/grafana/provisioning/dashboards:ro"]
YAML
fi

for _ in $(seq "$rounds"); do
  remove
  timed floor floor
  remove
  timed ours ours
  timed again again
  timed look look
  timed down down
  if [ -f "$work/compose.yaml" ]; then
    remove
    timed compose compose
    timed compose_again compose_again
    timed compose_down compose_down
  fi
done

median() { tr ' ' '\n' <<<"${times[$1]:-}" | { grep . || true; } | sort -n | awk '{a[NR]=$1} END {if (NR) print a[int((NR+1)/2)]}'; }
line() { # what label against
  local own other
  own=$(median "$2")
  other=$(median "$3")
  [ -n "$own" ] || return 0
  [ -n "$other" ] || { awk -v w="$1" -v o="$own" 'BEGIN {printf "%-34s %8.3f s\n", w, o/1e6}'; return 0; }
  awk -v w="$1" -v o="$own" -v b="$other" -v against="$3" 'BEGIN {printf "%-34s %8.3f s   %5.2f of %s (%.3f s)\n", w, o/1e6, o/b, against, b/1e6}'
}
echo "medians of $rounds rounds"
line "cold start" ours floor
line "cold start" ours compose
line "second run, everything verified" again compose_again
line "status" look compose_again
line "down, data kept" down compose_down
