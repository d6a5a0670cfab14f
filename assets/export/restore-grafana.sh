# Replaces Grafana's database with the one from standard input, which is a file that `clipper-metrics backup`
# wrote, and sets the password of its first account to the exported one. The previous database is kept as
# grafana.db.replaced. No server may use the volume. After a failure, run it again.
set -eu
fail() {
  echo "restore: $*" >&2
  # `kubectl exec` does not end before its input is read.
  cat >/dev/null
  exit 1
}
cd /var/lib/grafana
new=$PWD/clipper-metrics-restore
lock=/tmp/clipper-metrics-restore
mkdir "$lock" 2>/dev/null || fail "another run is still restoring; nothing was changed"
# An incomplete copy would only fill the volume.
finish() {
  [ -e "$new/complete" ] || rm -rf "$new" || true
  rm -rf "$lock"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM
if [ ! -e "$new/complete" ]; then
  if [ -e grafana.db.replaced ]; then
    # All steps are repeated if a later one fails.
    if [ -s clipper-metrics-restored ] &&
      [ "$(tar -x -z -O -f - manifest.json 2>/dev/null | sha256sum)" = "$(cat clipper-metrics-restored)" ]; then
      cat >/dev/null
      echo "Grafana's database was restored from this file before; nothing was changed"
      exit
    fi
    fail "a database was restored before, and grafana.db.replaced is the one that it replaced; nothing was changed"
  fi
  rm -rf "$new"
  mkdir "$new"
  # Not InfluxDB's part, which may be larger than this volume. `tar` fails if one of these journals does not exist, so
  # the files are compared with the manifest, which is the last entry.
  tar -x -z -f - -C "$new" manifest.json grafana/grafana.db grafana/grafana.db-wal grafana/grafana.db-shm \
    grafana/grafana.db-journal 2>"$new/log" || true
  incomplete() { fail "the file is not a complete backup; nothing was changed: $(cat "$new/log")"; }
  case $(cat "$new/manifest.json" 2>/dev/null) in *'}') ;; *) incomplete ;; esac
  [ -s "$new/grafana/grafana.db" ] || incomplete
  for journal in '' -wal -shm -journal; do
    if grep -q "\"grafana/grafana.db$journal\"" "$new/manifest.json"; then
      digest=$(sha256sum <"$new/grafana/grafana.db$journal") || incomplete
      grep -q "${digest%% *}" "$new/manifest.json" || incomplete
    fi
  done
  if command -v grafana >/dev/null; then set -- grafana cli; else set -- grafana-cli; fi
  password=${GRAFANA_PASSWORD:-$(cat /etc/clipper-metrics/grafana-password)}
  printf '%s' "$password" | GF_PATHS_DATA="$new/grafana" "$@" --homepath /usr/share/grafana \
    --config /etc/grafana/grafana.ini admin reset-admin-password --password-from-stdin >"$new/log" 2>&1 ||
    fail "the password cannot be set; nothing was changed: $(cat "$new/log")"
  : >"$new/complete"
fi
# From here on, another run finishes the exchange.
cat >/dev/null
if [ -e "$new/grafana/grafana.db" ]; then
  # The database itself comes last: while it exists, the journals belong to it.
  if [ -e grafana.db ]; then
    for journal in -wal -shm -journal ''; do
      [ ! -e "grafana.db$journal" ] || mv "grafana.db$journal" "grafana.db.replaced$journal"
    done
  fi
  for journal in -wal -shm -journal ''; do
    [ ! -e "$new/grafana/grafana.db$journal" ] || mv "$new/grafana/grafana.db$journal" "grafana.db$journal"
  done
fi
sha256sum <"$new/manifest.json" >clipper-metrics-restored
rm -rf "$new"
echo "Grafana's database is restored"
