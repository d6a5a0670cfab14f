#!/usr/bin/env bash
# Creates docs/images/dashboard.png: a separate instance with demo data in a real Grafana, rendered by a
# headless Chromium.
#
#   docs/picture.sh [UP_OPTIONS]
#
# UP_OPTIONS name a real Grafana's image with --grafana-image. The variables CLIPPER_METRICS_INFLUXDB_URL and
# CLIPPER_METRICS_GRAFANA_URL select servers that already run, with the account admin / admin.
set -euo pipefail
cd "$(dirname "$0")/.."
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
program() { cargo run --quiet --release -- "$@" --name picture; }
work=$(mktemp -d)
finish() { program down --volumes --yes >/dev/null; rm -rf "$work"; }
trap finish EXIT
program up --influxdb-port 18086 --grafana-port 13000 "$@"
program demo --models resnet,inception,spark-svm --backfill 6h --seed 3
# The default account is used on loopback, only while the picture is taken.
address=$(program status --output json | grep -o 'http://[^"]*/d/[^"]*' | head -n 1)
host=${address#http://}
login=$(curl -sf -c "$work/cookies" -H 'Content-Type: application/json' -d '{"user":"admin","password":"admin"}' \
  "http://${host%%/*}/login" >/dev/null && awk '/grafana_session\t/ {print $7}' "$work/cookies")
# Chromium accepts no cookie on its command line, so it is set through the DevTools protocol.
python3 - "$browser" "$address?from=now-6h&to=now&kiosk&theme=light&refresh=" "$login" "$work" docs/images/dashboard.png <<'P'
import json, os, socket, base64, struct, subprocess, sys, time, urllib.request

browser, url, session, work, out = sys.argv[1:]
chromium = subprocess.Popen(
    [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
     "--disable-component-update", "--disable-sync", "--remote-debugging-port=0", "--window-size=1280,1140",
     f"--user-data-dir={work}/profile", "about:blank"],
    stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
try:
    path = f"{work}/profile/DevToolsActivePort"
    while not os.path.exists(path):
        time.sleep(0.1)
    time.sleep(0.5)
    port = int(open(path).read().split()[0])
    pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
    target = next(page for page in pages if page["type"] == "page")["webSocketDebuggerUrl"]
    sock = socket.create_connection(("127.0.0.1", port))
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall((f"GET {target.split(str(port), 1)[1]} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
                  f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
    stream = sock.makefile("rb")
    while stream.readline() not in (b"\r\n", b""):
        pass

    def read():
        head = stream.read(2)
        size = head[1] & 127
        if size == 126:
            size = struct.unpack(">H", stream.read(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", stream.read(8))[0]
        return json.loads(stream.read(size))

    count = 0

    def call(method, **parameters):
        global count
        count += 1
        text = json.dumps({"id": count, "method": method, "params": parameters}).encode()
        mask = os.urandom(4)
        size = len(text)
        head = bytes([0x81]) + (bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + struct.pack(">H", size))
        sock.sendall(head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(text)))
        while True:
            answer = read()
            if answer.get("id") == count:
                return answer.get("result", {})

    call("Network.enable")
    call("Network.setCookie", name="grafana_session", value=session, url=url.split("?")[0])
    call("Emulation.setDeviceMetricsOverride", width=1280, height=1140, deviceScaleFactor=1, mobile=False)
    call("Page.enable")
    call("Page.navigate", url=url)
    # Panels are drawn when their queries are answered; no event marks the last one.
    drawn = "document.querySelectorAll('canvas').length > 4 && !document.querySelector('[aria-label=\"Panel loading bar\"]')"
    for _ in range(300):
        if call("Runtime.evaluate", expression=drawn).get("result", {}).get("value"):
            break
        time.sleep(0.1)
    time.sleep(3)
    picture = call("Page.captureScreenshot", format="png")
    open(out, "wb").write(base64.b64decode(picture["data"]))
finally:
    chromium.terminate()
    chromium.wait()
P
ls -l docs/images/dashboard.png
