#!/usr/bin/env bash
# Five nodes and a router, each on a machine of its own, which is a network namespace here, while processes are
# killed and stopped, links cut and disks slowed down: `cargo xtask long chaos`.
#
#   tests/cluster/chaos/run.sh [EVENKEEL]
#
# EVENKEEL is the binary to test, also taken from EVENKEEL_BINARY; without either the release build is made.
# EVENKEEL_MINUTES: how long faults go on in each run, 5 by default. EVENKEEL_SEEDS: A..B, one run a seed; by default
# one run of a seed that is drawn and printed. EVENKEEL_CHAOS: where timelines and what is left of failed runs go,
# target/chaos by default; it must be on a file system with direct IO.
# The last line is `N passed, M failed`. What cannot run says NOT RUN and exits 1.
#
# All of it lives in namespaces of its own (network, mounts, processes), which end with this script, whichever way
# that ends: nothing of the machine's network is touched. There is no version of it for machines that have no
# network namespaces.
set -Eeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)

not_run() {
    echo "NOT RUN: $*"
    exit 1
}

command -v ip >/dev/null || {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        not_run "the program ip is missing; on Debian: apt-get install iproute2 (as root)"
    fi
    apt-get update -qq || not_run "apt-get update failed"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq iproute2 >/dev/null ||
        not_run "iproute2 cannot be installed"
}

spaces=(--net --mount --pid --fork --kill-child --mount-proc)
[ "$(id -u)" = 0 ] || spaces+=(--map-root-user)
why=$(unshare "${spaces[@]}" bash -c '
    mount -t tmpfs tmpfs /run && ip netns add trial && ip link add hub type bridge &&
        ip link add port type veth peer name eth0 netns trial' 2>&1) ||
    not_run "network namespaces cannot be made here, and nothing else stands in for them (as root?): $why"

binary=${1:-${EVENKEEL_BINARY:-}}
if [ -z "$binary" ]; then
    binary=${CARGO_TARGET_DIR:-$root/target}/release/evenkeel
fi
(cd "$root" && cargo build --release -p evenkeel -p evenkeel-cluster-tests)
[ -x "$binary" ] || not_run "$binary is no program"

out=${EVENKEEL_CHAOS:-${CARGO_TARGET_DIR:-$root/target}/chaos}
mkdir -p "$out"
arguments=(--evenkeel "$binary" --out "$out" --minutes "${EVENKEEL_MINUTES:-5}")
[ -z "${EVENKEEL_SEEDS:-}" ] || arguments+=(--seeds "$EVENKEEL_SEEDS")
# The shell stays, so that the first process of the namespace is one that ends when it is told to.
unshare "${spaces[@]}" bash -c 'mount -t tmpfs tmpfs /run && "$@"; exit $?' chaos \
    "${CARGO_TARGET_DIR:-$root/target}/release/chaos" "${arguments[@]}"
