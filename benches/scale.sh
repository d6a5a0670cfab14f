#!/usr/bin/env bash
# Measures how run times grow with the number of models and with the age of the data: medians, and ratios to
# the smallest case of the same run. Both images must be on the engine. Without images, it uses those of the tests: a
# real InfluxDB, and a double of Grafana. ROUNDS is also a variable.
#
#   benches/scale.sh [INFLUXDB_IMAGE GRAFANA_IMAGE [ROUNDS]]
#
# MODELS and DAYS replace the measured cases. Every case is a new instance. The models report for five minutes until
# now, as Clipper does; in the second table, two models without predictions have reported for that many days. Screen
# is the time in which InfluxDB answers the queries of the dashboard's open panels.
set -euo pipefail
cd "$(dirname "$0")/.."
. benches/prepare.sh
name=cm-scale
ports=(18987 13987)
url=http://127.0.0.1:${ports[0]}
remove() { "$program" down --name "$name" --volumes --yes --quiet || true; }
trap 'remove; rm -rf "$work"' EXIT

start() {
  remove
  "$program" up --name "$name" --pull never --influxdb-image "$influxdb" --grafana-image "$grafana" \
    --influxdb-port "${ports[0]}" --grafana-port "${ports[1]}" --quiet
}

# Reports of m1, m2, … until now, every 15 s; without predictions if the third argument is 0.
reports() { # models reports count
  awk -v models="$1" -v reports="$2" -v count="$3" -v now="$(date +%s)" 'BEGIN {
    us = count ? 1000 : 0
    for (report = reports - 1; report >= 0; report--) for (model = 1; model <= models; model++) {
      at = now - 15 * report
      printf "m%d_prediction_counter value=%d %d\n", model, count, at
      printf "m%d_model_thruput,units=events-per-second rate=%.1f,one_min=%.1f,five_min=%.1f,fifteen_min=%.1f %d\n",
        model, count / 15, count / 15, count / 15, count / 15, at
      printf "m%d_model_latency size=%d,min=%d,max=%d,mean=%d,std=%d,p50=%d,p95=%d,p99=%d %d\n",
        model, count, us / 2, us * 4, us, us / 3, us, us * 2, us * 3, at
    }
  }' | (cd "$work" && split -l 20000 --filter="curl -sSf --data-binary @- '$url/write?db=clipper&precision=s'")
}

query() { curl -sSf -o /dev/null "$url/query?db=clipper" --data-urlencode "q=$1"; }
variable() { query 'SHOW SERIES FROM /.*_prediction_counter$/ WHERE time > now() - 30m LIMIT 25'; }
screen() { # the queries of assets/dashboard.json outside rows, as Grafana fills them in
  local statement
  while IFS= read -r statement; do query "$statement"; done <"$work/screen"
}
prepare_screen() {
  local names
  names=$(curl -sSf "$url/query?db=clipper" \
    --data-urlencode 'q=SHOW SERIES FROM /.*_prediction_counter$/ WHERE time > now() - 30m LIMIT 25' |
    grep -oE '"m[0-9]+_prediction' | tr -d '"' | sed 's/_prediction$//' | paste -sd '|')
  # Panels in collapsed rows are indented more.
  grep -E '^ {10}"query": "SELECT' assets/dashboard.json | sed -E 's/^ *"query": "(.*)",?$/\1/' |
    sed -e 's/\\"/"/g' -e "s/\${model:regex}/($names)/" -e 's/\$timeFilter/time > now() - 30m/' \
      -e 's/\$__interval/15s/' >"$work/screen"
  [ -s "$work/screen" ] || { echo "the dashboard has no queries" >&2; exit 1; }
}
again() { "$program" up --name "$name" --quiet; }
look() { "$program" status --name "$name" >/dev/null; }
# Its verdict may be that nothing has been written for a minute.
diagnose() { "$program" doctor --name "$name" >/dev/null 2>&1 || true; }

milliseconds() { # command: the median
  local start
  for _ in $(seq "$rounds"); do
    start=$(date +%s%N)
    "$1"
    echo $((($(date +%s%N) - start) / 100000))
  done | sort -n | awk '{a[NR] = $1} END {printf "%.1f", a[int((NR + 1) / 2)] / 10}'
}
peak() { # of status, in MB
  for _ in $(seq 3); do
    /usr/bin/time -f %M "$program" status --name "$name" 2>&1 >/dev/null | tail -n 1
  done | sort -n | awk '{a[NR] = $1} END {printf "%.1f", a[2] / 1000}'
}

declare -A first=()
cells=""
cell() { # column figure: with the ratio to the column's first figure
  [ -n "${first[$1]:-}" ] || first[$1]=$2
  cells+=" | $2 ($(awk -v a="$2" -v b="${first[$1]}" 'BEGIN {printf "%.1f", (b > 0) ? a / b : 0}'))"
}
row() { # label
  cells=""
  prepare_screen
  look # the first query after a load reads more
  cell look "$(milliseconds look)"
  cell again "$(milliseconds again)"
  cell diagnose "$(milliseconds diagnose)"
  cell variable "$(milliseconds variable)"
  cell screen "$(milliseconds screen)"
  cell peak "$(peak)"
  echo "| $1$cells |"
}
heading() {
  first=()
  echo
  echo "| $1 | \`status\` | \`up\`, nothing to do | \`doctor\` | variable | screen | memory of \`status\`, MB |"
  echo "|---|---|---|---|---|---|---|"
}

echo "load average before: $(cut -d ' ' -f 1-3 /proc/loadavg)"
echo "$rounds rounds, engine $(docker version --format '{{.Server.Version}}'), $influxdb, $grafana"
echo "medians in ms, in parentheses the ratio to the first row"
heading "models"
for models in ${MODELS:-1 100 1000 5000}; do
  start
  reports "$models" 20 120
  row "$models"
done
heading "days of reports"
for days in ${DAYS:-1 30 365}; do
  start
  reports 2 $((days * 5760)) 0
  row "$days"
done
