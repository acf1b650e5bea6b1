#!/usr/bin/env bash
# Checks swap_lease.pml with spin: no violation as it stands, and one for each mistake it knows.
# Installs spin if it is missing. Needs a C compiler and about 1 GiB of memory; takes about a minute.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
command -v spin >/dev/null || { apt-get update -qq && apt-get install -y -qq spin; } >&2
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
passed=0
failed=0

verify() { # name, wanted number of errors, options of spin
    local name=$1 wanted=$2
    shift 2
    spin "$@" -a "$here/swap_lease.pml" >/dev/null
    cc -O2 -w -DSAFETY -DCOLLAPSE -DMEMLIM=4000 -o pan pan.c
    ./pan -m100000 -E >report.txt 2>&1 || true
    local states errors
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' report.txt)
    errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' report.txt)
    echo "spin $name: ${states:-?} states, ${errors:-?} errors, wanted $wanted"
    if [ "${errors:-?}" = "$wanted" ] && ! grep -q "max search depth too small\|out of memory" report.txt; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
}

verify "as it stands" 0
for mistake in OLD_QUORUM_ONLY NEW_QUORUM_ONLY IGNORE_NEWER BOUND_PROMISES UNBOUND_COUNTS; do
    verify "$mistake" 1 "-D$mistake"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
