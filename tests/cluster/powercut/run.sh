#!/usr/bin/env bash
# Power cuts under the real node: its disk is a recording of block writes, which is cut at random points, with what
# was not flushed dropped, kept or torn. Whatever was acknowledged before the cut must be found behind it. Then the
# same with a build that leaves out every flush: a test that does not notice that proves nothing.
#
#   tests/cluster/powercut/run.sh [EVENKEEL]
#
# EVENKEEL is the release build to test, also taken from EVENKEEL_BINARY. EVENKEEL_SEED chooses the cuts, at random by
# default; EVENKEEL_SEEDS=A..B makes a recording for each seed. Needs root, FUSE and loop devices; missing Debian
# packages are installed. The last line is `N passed, M failed`. What cannot run says NOT RUN and exits 1.
set -Eeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)

not_run() {
    echo "NOT RUN: $*"
    exit 1
}

binary=${1:-${EVENKEEL_BINARY:-}}
[ -n "$binary" ] || not_run "no binary to test: set EVENKEEL_BINARY"
[ -x "$binary" ] || not_run "$binary is no program"
[ "$(id -u)" = 0 ] || not_run "loop devices and mounts need root"
[ -c /dev/fuse ] || not_run "there is no /dev/fuse"
[ -c /dev/loop-control ] || not_run "there is no /dev/loop-control"
missing=()
for need in qemu-storage-daemon:qemu-utils mkfs.ext4:e2fsprogs losetup:mount unshare:util-linux; do
    command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || not_run "${missing[*]} missing, and there is no apt-get"
    apt-get update -qq || not_run "apt-get update failed"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        not_run "${missing[*]} cannot be installed"
fi

target=${CARGO_TARGET_DIR:-$root/target}
cd "$root"
# A directory of its own, so that no build without flushes ever stands where a real one is looked for.
cargo build --quiet --locked --release --features unflushed --target-dir "$target/unflushed" ||
    not_run "the build without flushes failed"
cargo build --quiet --locked --release -p evenkeel-cluster-tests --bin powercut || not_run "the test cannot be built"

# In memory: what is recorded is the order of writes and flushes, not the speed of a device.
[ -d /dev/shm ] || not_run "there is no /dev/shm"
work=$(mktemp -d /dev/shm/powercut.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

passed=0
failed=0
# powercut WHAT BINARY: in name spaces of its own, so that mounts, devices and processes end with it.
powercut() {
    mkdir "$work/$1"
    local said=0
    EVENKEEL_BINARY=$2 unshare --mount --pid --fork --kill-child --mount-proc \
        "$target/release/powercut" "$1" "$work/$1" | tee "$work/said" || said=$?
    local counts
    counts=$(sed -n 's/^\([0-9]*\) kept, \([0-9]*\) lost$/\1 \2/p' "$work/said" | tail -1)
    [ -n "$counts" ] && [ "$said" = 0 ] || not_run "powercut $1 ended with $said"
    kept=${counts% *}
    lost=${counts#* }
    rm -rf "${work:?}/$1"
}

powercut flushed "$binary"
passed=$((passed + kept))
failed=$((failed + lost))
powercut unflushed "$target/unflushed/release/evenkeel"
if [ "$lost" -gt 0 ]; then
    echo "without flushes $lost of $((kept + lost)) cuts lost something"
    passed=$((passed + 1))
else
    echo "nobody noticed that the flushes were left out"
    failed=$((failed + 1))
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
