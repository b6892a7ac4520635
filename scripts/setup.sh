#!/usr/bin/env bash
# Installs what `make test` needs besides Go and make. On Debian as root it installs what
# is missing. Otherwise it prints the command that does, and fails. It prints nothing if
# nothing is missing.
set -euo pipefail

missing=()

# need PACKAGE REASON COMMAND... notes the Debian package as missing if the command fails.
need() {
	local package=$1 reason=$2
	shift 2
	"$@" >/dev/null 2>&1 && return
	missing+=("$package")
	echo "missing: $package ($reason)" >&2
}

have() { command -v "$1"; }

c_headers() { echo '#include <stdlib.h>' | gcc -E -; }

# The places where Go looks for certificates on Linux and macOS.
certificates() {
	local f
	for f in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt \
		/etc/ssl/ca-bundle.pem /etc/ssl/cert.pem; do
		[[ -n $f && -e $f ]] && return
	done
	return 1
}

# The oldest Go that works is in go.mod. Debian's package is older, so this is not for
# apt-get.
wanted=$(sed -n 's/^go //p' "$(dirname "${BASH_SOURCE[0]}")/../go.mod")
version=$(go env GOVERSION 2>/dev/null || true)
if [[ $(printf '%s\n' "go$wanted" "${version:-go0}" | sort -V | head -n 1) != "go$wanted" ]]; then
	echo "missing: Go $wanted or later (found: ${version:-none}); see https://go.dev/doc/install" >&2
	exit 1
fi

need make 'runs everything' have make
need git 'lists the files that are checked' have git
need gcc 'links the race detector' have gcc
need libc6-dev 'C headers for the race detector' c_headers
need tmux 'a terminal for the tests of the live tables' have tmux
need procps 'ps, for the tests of the live tables' have ps
need ca-certificates 'for the downloads of modules' certificates
need prometheus 'reads the targets of naming serve' have prometheus
need chromium 'opens the page of naming ui' have chromium

((${#missing[@]})) || exit 0
install="apt-get install -y --no-install-recommends ${missing[*]}"
if ! have apt-get >/dev/null; then
	echo "This is not Debian. Install what provides the packages: ${missing[*]}" >&2
	exit 1
fi
if [[ $(id -u) != 0 ]]; then
	echo "Run this, and then make again:" >&2
	echo "	sudo apt-get update && sudo $install" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update
$install
