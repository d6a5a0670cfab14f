#!/bin/sh
# Installs clipper-metrics for this user from a release: curl -fsSL …/install.sh | sh
#
# Verifies the checksum of the archive, and never needs root. Variables:
#   CLIPPER_METRICS_VERSION   a version such as 0.1.0, instead of the newest one
#   CLIPPER_METRICS_BIN       the directory for the program, instead of ~/.local/bin
#   CLIPPER_METRICS_RELEASES  the address of the releases, such as a mirror
set -eu

fail() {
  printf 'install: %s\n' "$*" >&2
  exit 1
}

target() {
  case "$(uname -s) $(uname -m)" in
    'Linux x86_64') echo x86_64-unknown-linux-musl ;;
    'Linux aarch64' | 'Linux arm64') echo aarch64-unknown-linux-musl ;;
    # A shell that Rosetta translates reports x86_64.
    'Darwin x86_64') if [ "$(sysctl -n sysctl.proc_translated 2>/dev/null)" = 1 ]; then echo aarch64-apple-darwin; else echo x86_64-apple-darwin; fi ;;
    'Darwin arm64') echo aarch64-apple-darwin ;;
    MINGW* | MSYS* | CYGWIN*) fail 'Windows is supported through WSL 2: run this inside a WSL distribution' ;;
    *) fail "there is no binary for $(uname -s) on $(uname -m); build it from source with cargo" ;;
  esac
}

download() { # URL FILE
  case $1 in
    *@*) fail "$1 contains a user name" ;;
    https://*) options='--proto =https --tlsv1.2' ;;
    http://127.0.0.1:*) options='' ;;
    *) fail "$1 is not an https address" ;;
  esac
  # Some versions of wget verify no certificate, or follow a redirect to http.
  command -v curl >/dev/null || fail 'needs curl'
  # shellcheck disable=SC2086
  curl $options --fail --silent --show-error --location --retry 2 --output "$2" "$1" || fail "cannot download $1"
}

digest() { # FILE
  if command -v sha256sum >/dev/null; then
    sha256sum "$1" | cut -d ' ' -f 1
  elif command -v shasum >/dev/null; then
    shasum -a 256 "$1" | cut -d ' ' -f 1
  elif command -v openssl >/dev/null; then
    openssl dgst -sha256 -r "$1" | cut -d ' ' -f 1
  else
    fail 'needs sha256sum, shasum or openssl to verify the archive'
  fi
}

# A function, so that nothing runs before the whole script has arrived.
main() {
  releases=${CLIPPER_METRICS_RELEASES:-https://github.com/clipper-metrics/clipper-metrics/releases}
  bin=${CLIPPER_METRICS_BIN:-$HOME/.local/bin}
  data=${XDG_DATA_HOME:-$HOME/.local/share}
  name=clipper-metrics-$(target)
  if [ -n "${CLIPPER_METRICS_VERSION:-}" ]; then
    from=$releases/download/v${CLIPPER_METRICS_VERSION#v}
  else
    from=$releases/latest/download
  fi
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM
  download "$from/$name.tar.gz" "$work/archive"
  download "$from/SHA256SUMS" "$work/sums"
  expected=$(sed -n "s/^\([0-9a-f]\{64\}\)  $name\.tar\.gz\$/\1/p" "$work/sums")
  [ -n "$expected" ] || fail "$from/SHA256SUMS does not contain $name.tar.gz"
  actual=$(digest "$work/archive")
  [ "$actual" = "$expected" ] || fail "the checksum of $name.tar.gz is $actual, not $expected: nothing was installed"
  tar -xzf "$work/archive" -C "$work"
  mkdir -p "$bin" "$data/man/man1" "$data/bash-completion/completions" "$data/zsh/site-functions" \
    "$data/fish/vendor_completions.d"
  # A running program is not overwritten but replaced.
  cp "$work/$name/clipper-metrics" "$bin/.clipper-metrics.new"
  chmod 755 "$bin/.clipper-metrics.new"
  version=$("$bin/.clipper-metrics.new" --version) || {
    rm -f "$bin/.clipper-metrics.new"
    fail 'the program does not run on this system'
  }
  mv -f "$bin/.clipper-metrics.new" "$bin/clipper-metrics"
  cp "$work/$name/man/"*.1 "$data/man/man1/"
  cp "$work/$name/completions/clipper-metrics.bash" "$data/bash-completion/completions/clipper-metrics"
  cp "$work/$name/completions/_clipper-metrics" "$data/zsh/site-functions/"
  cp "$work/$name/completions/clipper-metrics.fish" "$data/fish/vendor_completions.d/"
  echo "installed $version as $bin/clipper-metrics"
  case :$PATH: in *":$bin:"*) ;; *) echo "add $bin to your PATH" ;; esac
}

main
