#!/usr/bin/env bash
# Compares run times with plain `docker run` (the floor) and Docker Compose, as ratios within one run,
# because absolute times differ between machines. The images must be on the engine. Without images, it uses those of
# the tests: a real InfluxDB, and a double of Grafana, which starts faster and reads no files, so that Docker Compose is
# not measured. ROUNDS is also a variable.
#
#   benches/compare.sh [INFLUXDB_IMAGE GRAFANA_IMAGE [ROUNDS]]
#   PULLS=yes benches/compare.sh …   also measures pulls: the images must be in a registry, and are
#                                    removed from the engine
#
# The floor starts both containers with `docker run`, Grafana first, with the settings that start Grafana
# fastest, and waits until InfluxDB has the database and Grafana serves its dashboard API. If Docker Compose
# is installed, it provisions the same from files. Every round checks that the started servers work. The
# output contains median, minimum and maximum of the rounds, ratios of medians, and the requests of one `up`.
set -euo pipefail
cd "$(dirname "$0")/.."
. benches/prepare.sh
name=cm-bench
ports=(18986 13986)

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
  # This answers once the dashboard API does, whether or not the dashboard exists.
  curl -s -o /dev/null -u admin:admin "http://127.0.0.1:${ports[1]}/api/dashboards/uid/none"
}

works() { # both servers, and a dashboard where one is expected
  curl -sf "http://127.0.0.1:${ports[0]}/query" --data-urlencode 'q=SHOW DATABASES' | grep -q '"clipper"' ||
    { echo "$1: the database is missing" >&2; exit 1; }
  [ "$1" = floor ] || curl -sf -u admin:admin "http://127.0.0.1:${ports[1]}/api/search?type=dash-db" | grep -q Clipper ||
    { echo "$1: the dashboard is missing" >&2; exit 1; }
}

floor() {
  docker network create "$name-floor" >/dev/null
  docker run -d --name "$name-floor-g" --network "$name-floor" -p "127.0.0.1:${ports[1]}:3000" \
    -e GF_DATABASE_WAL=true -e GF_PLUGINS_PREINSTALL_DISABLED=true "$grafana" >/dev/null
  docker run -d --name "$name-floor-i" --network "$name-floor" -p "127.0.0.1:${ports[0]}:8086" "$influxdb" >/dev/null
  ready
}

floor_down() {
  docker stop "$name-floor-i" "$name-floor-g" >/dev/null
  docker rm "$name-floor-i" "$name-floor-g" >/dev/null
  docker network rm "$name-floor" >/dev/null
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

if [ -z "$is_double" ] && docker compose version >/dev/null 2>&1; then
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

# Every pull starts without the images. For `up`, the longer pull counts, because both start at once.
pull_both() {
  docker pull --quiet "$influxdb" >/dev/null &
  docker pull --quiet "$grafana" >/dev/null
  wait
}
forget_images() {
  remove
  docker rmi --force "$influxdb" "$grafana" >/dev/null 2>&1 || true
}
our_pulls() {
  local longest
  longest=$("$program" up --name "$name" --influxdb-image "$influxdb" --grafana-image "$grafana" --output json \
    --influxdb-port "${ports[0]}" --grafana-port "${ports[1]}" --quiet |
    awk -F'[:,]' '/"action"/ {pulls = $2 ~ /pull_image/} /"seconds"/ && pulls && $2 > longest {longest = $2} END {print longest}')
  times[our_pulls]+="$(awk -v s="$longest" 'BEGIN {printf "%d", s * 1e6}') "
}
if [ -n "${PULLS:-}" ]; then
  for _ in $(seq "$rounds"); do
    forget_images
    timed pulls pull_both
    forget_images
    our_pulls
  done
fi

for _ in $(seq "$rounds"); do
  remove
  timed floor floor
  works floor
  timed floor_down floor_down
  remove
  timed ours ours
  works ours
  timed again again
  timed look look
  timed down down
  if [ -f "$work/compose.yaml" ]; then
    remove
    timed compose compose
    works compose
    timed compose_again compose_again
    timed compose_down compose_down
  fi
done

figures() { # sorted seconds of a label: median, minimum, maximum
  tr ' ' '\n' <<<"${times[$1]:-}" | { grep . || true; } | sort -n |
    awk '{a[NR] = $1 / 1e6} END {if (NR) printf "%.3f %.3f %.3f", a[int((NR + 1) / 2)], a[1], a[NR]}'
}
line() { # what label [against]
  local own other=""
  own=$(figures "$2")
  [ -n "$own" ] || return 0
  if [ -n "${3:-}" ]; then
    other=$(figures "$3")
    [ -n "$other" ] || return 0
  fi
  awk -v what="$1" -v own="$own" -v other="$other" -v against="${3:-}" 'BEGIN {
    split(own, o, " "); split(other, b, " ")
    ratio = b[1] ? sprintf("%.2f of %s", o[1] / b[1], against) : ""
    printf "| %s | %s | %s | %s | %s |\n", what, o[1], o[2], o[3], ratio
  }'
}
echo "$rounds rounds, engine $(docker version --format '{{.Server.Version}}'), $grafana"
echo
echo "| seconds | median | min | max | ratio |"
echo "|---|---|---|---|---|"
line "floor, cold" floor
line "docker compose, cold" compose
line "up, cold, verified" ours floor
line "up, cold, verified" ours compose
line "up, nothing to do" again
line "docker compose, nothing to do" compose_again
line "status" look
line "floor, stop and remove" floor_down
line "down" down floor_down
line "docker compose down" compose_down
line "two docker pull in parallel" pulls
line "pulls of up" our_pulls pulls
echo
echo "one up, cold, request by request:"
remove
ours_verbose() { "$program" up --name "$name" --pull never --influxdb-image "$influxdb" --grafana-image "$grafana" \
  --influxdb-port "${ports[0]}" --grafana-port "${ports[1]}" -v >/dev/null; }
ours_verbose 2>&1 | grep -v '^warning'
