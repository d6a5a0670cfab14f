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
lock=/tmp/clipper-metrics-restore
server=
mkdir "$lock" 2>/dev/null || fail "another run is still restoring; nothing was changed"
stop() {
  if [ -n "$server" ]; then
    kill "$server" 2>/dev/null || true
    wait "$server" || true
    server=
  fi
}
# An incomplete copy would only fill the volume.
finish() {
  stop
  [ -e "$new/complete" ] || rm -rf "$new" || true
  rm -rf "$lock"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM
if [ ! -e "$new/complete" ]; then
  if [ -n "$(find data wal -type f \( -name '*.tsm' -o -name '*.wal' \) ! -path '*/_internal/*' 2>/dev/null)" ]; then
    # All steps are repeated if a later one fails.
    if [ -s clipper-metrics-restored ] &&
      [ "$(tar -x -z -O -f - manifest.json 2>/dev/null | sha256sum)" = "$(cat clipper-metrics-restored)" ]; then
      cat >/dev/null
      echo "InfluxDB's data was restored from this file before; nothing was changed"
      exit
    fi
    fail "the volume already contains metrics; nothing was changed"
  fi
  rm -rf "$new"
  mkdir "$new"
  # Only Grafana's volume may contain its passwords. Some versions of `tar` fail because the archive has no entry for the
  # folder itself, so the files are compared with the manifest, which is the last entry.
  tar -x -z -f - -C "$new" manifest.json influxdb 2>"$new/log" || true
  incomplete() { fail "the file is not a complete backup; nothing was changed: $(cat "$new/log")"; }
  case $(cat "$new/manifest.json" 2>/dev/null) in *'}') ;; *) incomplete ;; esac
  for file in "$new"/influxdb/*; do
    digest=$(sha256sum <"$file") || incomplete
    grep -q "${digest%% *}" "$new/manifest.json" || incomplete
  done
  # A server that only this container can reach.
  export INFLUXDB_META_DIR="$new/meta" INFLUXDB_DATA_DIR="$new/data" INFLUXDB_DATA_WAL_DIR="$new/wal"
  export INFLUXDB_HTTP_BIND_ADDRESS=127.0.0.1:8086 INFLUXDB_BIND_ADDRESS=127.0.0.1:8088
  influxd >"$new/log" 2>&1 &
  server=$!
  is_alive() {
    kill -0 "$server" 2>/dev/null || fail "InfluxDB does not start; nothing was changed: $(cat "$new/log")"
  }
  until influx -execute 'SHOW DATABASES' >/dev/null 2>&1; do
    is_alive
    sleep 1
  done
  # Another server may have answered.
  is_alive
  influxd restore -portable -host 127.0.0.1:8088 "$new/influxdb" || fail "InfluxDB rejects the backup; nothing was changed"
  stop
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
sha256sum <"$new/manifest.json" >clipper-metrics-restored
rm -rf "$new"
echo "InfluxDB's data is restored"
