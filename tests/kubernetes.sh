#!/usr/bin/env bash
# `tests/run kubernetes`: the tests of tests/kubernetes.rs on a Kubernetes cluster of their own, as root on Debian.
#
# Kubernetes is built from the Go module proxy once and kept in the cache folder. The cluster has one node. It runs in
# namespaces of its own, which remove its processes, mounts, addresses and firewall rules. If this machine cannot run a
# node, or with CLIPPER_METRICS_TEST_NODE=no, only the API server is used, which still validates and admits every object.
# With CLIPPER_METRICS_TEST_NODE=yes, a node that does not start is a failure.
#
# CLIPPER_METRICS_TEST_GRAFANA_IMAGE names an image of a real Grafana on the engine, as for the other tests.
#
# A cluster that already exists can be used instead: set KUBECONFIG to a file for it, CLIPPER_METRICS_TEST_REGISTRY to a
# registry that its nodes and the engine reach, and run `cargo test --test it -- --ignored kubernetes::`.
set -euo pipefail
version=1.34.4
cache="${XDG_CACHE_HOME:-$HOME/.cache}/clipper-metrics/kubernetes-$version"
programs=(kubectl kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy)

say() { printf '== %s\n' "$*" >&2; }
fail() { printf 'tests/run kubernetes: %s\n' "$*" >&2; exit 1; }

# A build outside Kubernetes' own repository needs the published versions of the modules in its staging folder.
build() {
  local module folder program flags
  command -v go >/dev/null || fail "Go is not installed"
  module=$(mktemp -d)
  mkdir -p "$cache"
  folder=$(GOFLAGS=-mod=mod go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  {
    echo "module kubernetes-for-tests"
    sed -n 's/^go /go /p' "$folder/go.mod"
    echo "require k8s.io/kubernetes v$version"
    sed -n "s#^[[:space:]]*\(k8s.io/[a-z0-9-]*\) => ./staging/src/.*#replace \1 => \1 v0.${version#1.}#p" "$folder/go.mod"
  } >"$module/go.mod"
  flags="-s -w"
  for program in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $program.gitVersion=v$version -X $program.gitMajor=1 -X $program.gitMinor=$(cut -d. -f2 <<<"$version")"
  done
  for program in "${programs[@]}"; do
    [ -x "$cache/$program" ] && continue
    say "building $program $version"
    (cd "$module" && CGO_ENABLED=0 go build -mod=mod -trimpath -ldflags "$flags" -o "$cache/$program.part" \
      "k8s.io/kubernetes/cmd/$program")
    mv "$cache/$program.part" "$cache/$program"
  done
  rm -rf "$module"
}

if [ "${1:-}" != --inside ]; then
  [ "$(id -u)" -eq 0 ] || fail "a cluster needs root"
  missing=()
  [ -x /usr/bin/etcd ] || missing+=(etcd-server)
  command -v containerd >/dev/null || missing+=(containerd)
  command -v runc >/dev/null || missing+=(runc)
  [ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
  command -v dnsmasq >/dev/null || missing+=(dnsmasq-base)
  command -v iptables >/dev/null || missing+=(iptables)
  command -v conntrack >/dev/null || missing+=(conntrack)
  command -v openssl >/dev/null || missing+=(openssl)
  if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || fail "missing packages: ${missing[*]} (Debian's names)"
    say "installing ${missing[*]}"
    apt-get update -qq >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    case " ${missing[*]} " in *" etcd-server "*) systemctl disable --now etcd >/dev/null 2>&1 || true ;; esac
  fi
  for program in "${programs[@]}"; do [ -x "$cache/$program" ] || { build; break; }; done
  cargo build --quiet --examples
  cargo test --quiet --no-run
  namespaces=(unshare --net --mount --pid --ipc --uts --fork --kill-child --mount-proc)
  "${namespaces[@]}" true 2>/dev/null || fail "namespaces cannot be created on this machine"
  work=$(mktemp -d /var/tmp/clipper-metrics-kubernetes.XXXXXX)
  image=${CLIPPER_METRICS_TEST_GRAFANA_IMAGE:-}
  [ -z "$image" ] || docker save "$image" >"$work/grafana.tar"
  # The control groups outlive the processes in them.
  groups() { find /sys/fs/cgroup -depth -type d -path "*/${work##*/}*" 2>/dev/null; }
  # shellcheck disable=SC2317 # the trap calls it
  clean() {
    set +e
    kill -KILL "${inside:-}" 2>/dev/null
    wait
    for _ in $(seq 50); do
      groups | while read -r group; do rmdir "$group" 2>/dev/null; done
      [ -n "$(groups)" ] || break
      sleep 0.1
    done
    rm -rf --one-file-system "$work"
  }
  trap clean EXIT
  trap 'exit 130' INT TERM
  "${namespaces[@]}" bash "$0" --inside "$work" "$@" &
  inside=$!
  wait "$inside"
  exit
fi

work=$2
shift 2
name=${work##*/}
export PATH="$cache:$PATH" KUBECONFIG="$work/kubeconfig"
host=192.0.2.1

start() { # name, command …
  "${@:2}" >"$work/$1.log" 2>&1 &
}
# Waits until a command succeeds; otherwise prints the end of a log.
await() { # seconds, log, command …
  local deadline=$((SECONDS + $1)) log=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $deadline ]; then
      tail -n 5 "$work/$log.log" >&2
      return 1
    fi
    sleep 0.2
  done
}

# The network of the node: loopback, and a bridge that leads nowhere.
ip link set lo up
ip link add outside type bridge
ip address add $host/24 dev outside
ip link set outside up
ip route add default via 192.0.2.254
echo 1 >/proc/sys/net/ipv4/ip_forward
# Private copies of folders that containers' programs share.
mount --make-rprivate /
for folder in /run/netns /run/containerd /var/lib/cni /var/log/pods /var/log/containers /var/lib/kubelet; do
  mkdir -p "$folder"
  mount -t tmpfs tmpfs "$folder"
done
mount --make-rshared /

mkdir "$work/pki" "$work/volumes" "$work/manifests" "$work/cni"
openssl genrsa -out "$work/pki/accounts.key" 2048 2>/dev/null
token=$(openssl rand -hex 16)
echo "$token,admin,admin,system:masters" >"$work/pki/tokens"
start etcd etcd --data-dir "$work/etcd" --log-level error \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
  --initial-cluster default=http://127.0.0.1:2380
start apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 --advertise-address $host --bind-address $host \
  --cert-dir "$work/pki" --token-auth-file "$work/pki/tokens" --authorization-mode RBAC --allow-privileged \
  --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$work/pki/accounts.key" \
  --service-account-signing-key-file "$work/pki/accounts.key" --service-cluster-ip-range 10.96.0.0/16 \
  --kubelet-preferred-address-types InternalIP
kubectl config set-cluster test --server "https://$host:6443" --insecure-skip-tls-verify >/dev/null
kubectl config set-credentials admin --token "$token" >/dev/null
kubectl config set-context test --cluster test --user admin >/dev/null
kubectl config use-context test >/dev/null
await 120 apiserver kubectl get --raw /readyz || fail "the API server does not start"
# Without leader election, which only delays a single copy.
start controllers kube-controller-manager --kubeconfig "$KUBECONFIG" --leader-elect=false --use-service-account-credentials \
  --service-account-private-key-file "$work/pki/accounts.key" --cert-dir "$work/pki"
start scheduler kube-scheduler --kubeconfig "$KUBECONFIG" --leader-elect=false --cert-dir "$work/pki"
await 60 controllers kubectl get serviceaccount default || fail "the controllers do not start"

"${CARGO_TARGET_DIR:-target}/debug/examples/test-registry" 5000 >"$work/registry.log" 2>&1 &
export CLIPPER_METRICS_TEST_REGISTRY=127.0.0.1:5000
await 120 registry grep -q "in another terminal" "$work/registry.log" || fail "the test registry does not start"

start_node() {
  cat >"$work/cni/pods.conflist" <<CONF
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
CONF
  # Some machines forbid a process to lower its score for the out-of-memory killer.
  cat >"$work/containerd.toml" <<CONF
version = 2
root = "$work/containerd"
state = "/run/containerd/state"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$CLIPPER_METRICS_TEST_REGISTRY/pause:test"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$work/cni"
CONF
  start containerd containerd --config "$work/containerd.toml"
  await 60 containerd test -S /run/containerd/containerd.sock || return 1
  # A name service for Services, whose names end in the domain of a namespace.
  touch "$work/hosts"
  start names dnsmasq --keep-in-foreground --listen-address $host --bind-interfaces --no-resolv --no-hosts \
    --addn-hosts "$work/hosts" --local=/local/ --pid-file="$work/dnsmasq.pid" --user=root
  (
    while sleep 0.5; do
      kubectl get services --all-namespaces --output \
        go-template='{{range .items}}{{.spec.clusterIP}} {{.metadata.name}}.{{.metadata.namespace}}.svc.cluster.local{{"\n"}}{{end}}' \
        >"$work/hosts.new" 2>/dev/null || continue
      cmp -s "$work/hosts" "$work/hosts.new" && continue
      cat "$work/hosts.new" >"$work/hosts"
      kill -HUP "$(cat "$work/dnsmasq.pid")"
    done
  ) &
  cat >"$work/kubelet.yaml" <<CONF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $host
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /$name
cgroupsPerQOS: false
clusterDNS: [$host]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
enforceNodeAllocatable: []
evictionHard: {memory.available: 1Mi, nodefs.available: 1Mi, imagefs.available: 1Mi}
failCgroupV1: false
failSwapOn: false
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
resolvConf: ""
syncFrequency: 5s
CONF
  local group
  for group in /sys/fs/cgroup/* /sys/fs/cgroup; do
    case "$group" in */unified | */systemd) continue ;; esac
    if [ -e "$group/cgroup.procs" ]; then mkdir -p "$group/$name"; fi
  done
  start kubelet kubelet --config "$work/kubelet.yaml" --kubeconfig "$KUBECONFIG" --root-dir "$work/kubelet" \
    --hostname-override node --node-ip $host --cert-dir "$work/pki/kubelet"
  # Pods on one bridge answer each other directly, so a Service's answer must be led back through the node.
  cat >"$work/proxy.yaml" <<CONF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $KUBECONFIG}
clusterCIDR: 10.244.0.0/24
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
hostnameOverride: node
iptables: {masqueradeAll: true}
mode: iptables
CONF
  start proxy kube-proxy --config "$work/proxy.yaml"
  await 90 kubelet kubectl wait --for condition=Ready --timeout 1s node/node || return 1
  # An engine for the instance whose data is moved, with the same containerd.
  start engine dockerd --host "unix://$work/docker.sock" --containerd /run/containerd/containerd.sock \
    --data-root "$work/docker" --exec-root "$work/docker-exec" --pidfile "$work/docker.pid" \
    --cgroup-parent "/$name/docker"
  export DOCKER_HOST="unix://$work/docker.sock"
  await 90 engine docker version || return 1
  if [ -e "$work/grafana.tar" ]; then
    docker load --quiet --input "$work/grafana.tar" >/dev/null
    ctr --address /run/containerd/containerd.sock --namespace k8s.io images import "$work/grafana.tar" >/dev/null
  fi
  # Docker's own rules drop what others forward.
  iptables -I FORWARD -i pods -j ACCEPT
  iptables -I FORWARD -o pods -j ACCEPT
  local number
  {
    echo "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: here, annotations:" \
      "{storageclass.kubernetes.io/is-default-class: 'true'}}, provisioner: kubernetes.io/no-provisioner," \
      "volumeBindingMode: WaitForFirstConsumer}"
    for number in 1 2 3 4; do
      mkdir "$work/volumes/$number"
      echo "---"
      echo "{apiVersion: v1, kind: PersistentVolume, metadata: {name: volume-$number}, spec: {capacity: {storage: 10Gi}," \
        "accessModes: [ReadWriteOnce], storageClassName: here, local: {path: $work/volumes/$number}," \
        "nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname," \
        "operator: In, values: [node]}]}]}}}}"
    done
  } | kubectl apply --filename - >/dev/null
  # Whether containers run here at all.
  kubectl run try --image "$CLIPPER_METRICS_TEST_REGISTRY/pause:test" --restart Never >/dev/null
  await 90 kubelet kubectl wait --for condition=Ready --timeout 1s pod/try || return 1
  kubectl delete pod try --now >/dev/null
}

tests=(kubernetes::on_an_api_server)
if [ "${CLIPPER_METRICS_TEST_NODE:-}" != no ] && start_node; then
  tests+=(kubernetes::on_a_node)
else
  [ "${CLIPPER_METRICS_TEST_NODE:-}" != yes ] || fail "the node does not start"
  say "without a node: checking with the API server only"
fi
say "Kubernetes $version: ${tests[*]}"
status=0
cargo test --test it -- --ignored --exact --nocapture "${tests[@]}" "$@" || status=$?
if [ $status -ne 0 ]; then
  kubectl get pods,jobs,statefulsets --all-namespaces --output wide >&2 || true
  kubectl get events --all-namespaces --sort-by .lastTimestamp 2>/dev/null | tail -n 20 >&2 || true
  tail -n 3 "$work"/*.log >&2
fi
if [ -n "${DOCKER_HOST:-}" ]; then
  # Containers that still run would keep their control groups.
  kubectl delete --all pods,statefulsets,jobs --all-namespaces --now --wait=false >/dev/null 2>&1 || true
fi
exit $status
