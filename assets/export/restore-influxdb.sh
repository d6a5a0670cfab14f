# Fills InfluxDB's empty volume from standard input, which is a file that `clipper-metrics backup` wrote.
# No other server may use the volume. After a failure, run it again: the volume changes only at the end.
set -eu
fail() {
  echo "restore: $*" >&2
  # `kubectl exec` does not end before its input is read.
  cat >/dev/null
  exit 1
}
cd /var/lib/influxdb
new=$PWD/clipper-metrics-restore
if [ ! -e "$new/complete" ]; then
  if [ -n "$(find data wal -type f \( -name '*.tsm' -o -name '*.wal' \) ! -path '*/_internal/*' 2>/dev/null)" ]; then
    fail "the volume already contains metrics; nothing was changed"
  fi
  rm -rf "$new"
  mkdir "$new"
  # The manifest is the last entry.
  if ! tar -x -z -f - -C "$new" || [ ! -s "$new/manifest.json" ]; then
    fail "the file is not a complete backup; nothing was changed"
  fi
  # Only Grafana's volume may contain its passwords.
  rm -rf "$new/grafana" "$new/grafana-own"
  # A server that only this container can reach.
  export INFLUXDB_META_DIR="$new/meta" INFLUXDB_DATA_DIR="$new/data" INFLUXDB_DATA_WAL_DIR="$new/wal"
  export INFLUXDB_HTTP_BIND_ADDRESS=127.0.0.1:8086 INFLUXDB_BIND_ADDRESS=127.0.0.1:8088
  influxd >"$new/log" 2>&1 &
  server=$!
  trap 'kill "$server" 2>/dev/null || true' EXIT
  until influx -execute 'SHOW DATABASES' >/dev/null 2>&1; do
    kill -0 "$server" 2>/dev/null || fail "InfluxDB does not start; nothing was changed: $(cat "$new/log")"
    sleep 1
  done
  influxd restore -portable -host 127.0.0.1:8088 "$new/influxdb" || fail "InfluxDB rejects the backup; nothing was changed"
  trap - EXIT
  kill "$server"
  wait "$server" || true
  rm -rf "$new/influxdb"
  : >"$new/complete"
fi
# From here on, another run finishes the exchange.
cat >/dev/null
for folder in meta data wal; do
  if [ -e "$new/$folder" ]; then
    rm -rf "$folder"
    mv "$new/$folder" "$folder"
  fi
done
rm -rf "$new"
echo "InfluxDB's data is restored"
