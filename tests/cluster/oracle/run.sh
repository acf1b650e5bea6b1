#!/usr/bin/env bash
# Random requests to `evenkeel dev` and to dynoxide, an emulator that is checked against the real service:
# every answer must be the same, or be listed in docs/differences-from-dynamodb.md.
#
#   tests/cluster/oracle/run.sh [EVENKEEL]
#
# EVENKEEL is the binary to test, also taken from EVENKEEL_BINARY; EVENKEEL_SEEDS=A..B chooses the seeds.
# The last line is `N passed, M failed`. What cannot run says NOT RUN and exits 1.
set -Eeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
version=3.2.0
port=${EVENKEEL_ORACLE_PORT:-18999}

not_run() {
    echo "NOT RUN: $*"
    exit 1
}

binary=${1:-${EVENKEEL_BINARY:-}}
[ -n "$binary" ] || not_run "no binary to test: set EVENKEEL_BINARY"
[ -x "$binary" ] || not_run "$binary is no program"
command -v python3 >/dev/null || not_run "python3 is missing"

oracle=${EVENKEEL_ORACLE:-}
if [ -z "$oracle" ]; then
    install=${CARGO_TARGET_DIR:-$root/target}/oracle
    # It is a process of its own, and no part of any build.
    cargo install --quiet dynoxide-rs --version "$version" --root "$install" --locked \
        --no-default-features --features native-sqlite,http-server,cli ||
        not_run "dynoxide-rs $version cannot be installed"
    oracle=$install/bin/dynoxide
fi

work=$(mktemp -d)
children=()
cleanup() {
    for child in "${children[@]}"; do
        kill -KILL "$child" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$oracle" --port "$port" >"$work/oracle" 2>&1 &
children+=($!)
"$binary" dev --port 0 --data "$work/data" >"$work/said" 2>"$work/errors" &
children+=($!)
endpoint=
for _ in $(seq 600); do
    endpoint=$(sed -n 's,^ready: http://,,p' "$work/said")
    if [ -n "$endpoint" ] && python3 -c "import socket; socket.create_connection(('127.0.0.1', $port))" 2>/dev/null; then
        break
    fi
    sleep 0.1
done
[ -n "$endpoint" ] || not_run "evenkeel dev did not start: $(cat "$work/said" "$work/errors")"

python3 "$here/compare.py" "$endpoint" "127.0.0.1:$port" --seeds "${EVENKEEL_SEEDS:-0..20}"
