#!/bin/sh
# Runs the program beside native servers on their default ports, in a network and a mount namespace without
# an engine: `unshare --net --mount --pid --fork --kill-child beside.sh PROGRAM GRAFANA_DOUBLE DIRECTORY`.
# Everything ends with this shell.
set -eu
program=$1 double=$2 directory=$3
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
mkdir /var/lib/grafana
ip link set lo up
ip link add own type bridge
ip address add 192.0.2.9/24 dev own
ip link set own up
ip route add default via 192.0.2.1 dev own
run() { env -i PATH="$PATH" HOME="$directory" "$program" "$@" </dev/null; }
"$program" --version
run status 2>"$directory/nothing" || echo "status $?" >>"$directory/nothing"
INFLUXDB_REPORTING_DISABLED=true INFLUXDB_META_DIR=$directory/meta INFLUXDB_DATA_DIR=$directory/data \
  INFLUXDB_DATA_WAL_DIR=$directory/wal INFLUXDB_HTTP_BIND_ADDRESS=:8086 INFLUXDB_BIND_ADDRESS=127.0.0.1:8088 \
  influxd >"$directory/log" 2>&1 &
GRAFANA_DOUBLE_VERSION=12.4.10 "$double" >"$directory/double.log" 2>&1 &
for _ in $(seq 100); do
  run up 2>"$directory/found" && exit 1
  grep -q '\[metrics\]' "$directory/found" && break
  sleep 0.1
done
urls="--influxdb-url http://127.0.0.1:8086 --grafana-url http://127.0.0.1:3000"
# shellcheck disable=SC2086
run up $urls >"$directory/up"
# shellcheck disable=SC2086
run status $urls >"$directory/status"
# shellcheck disable=SC2086
run doctor $urls >/dev/null 2>"$directory/doctor" || true
