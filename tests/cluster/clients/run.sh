#!/usr/bin/env bash
# Real clients of the HTTP API against `evenkeel dev`, installed into a temporary directory: boto3, the AWS
# CLI, PynamoDB, the document client of the JavaScript SDK, and the SDK for Rust.
#
#   tests/cluster/clients/run.sh [EVENKEEL]
#
# EVENKEEL is the binary to test, also taken from EVENKEEL_BINARY; without either the release build is made.
# EVENKEEL_CLIENTS chooses clients: a list of boto3, aws-cli, pynamodb, javascript and rust.
# The last line is `N passed, M failed`. What cannot run says NOT RUN and exits 1.
set -Eeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)

not_run() {
    echo "NOT RUN: $*"
    exit 1
}

work=$(mktemp -d)
cluster=
cleanup() {
    if [ -n "$cluster" ] && kill -0 "$cluster" 2>/dev/null; then
        kill -KILL "$cluster" 2>/dev/null || true
        wait "$cluster" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

binary=${1:-${EVENKEEL_BINARY:-}}
if [ -z "$binary" ]; then
    (cd "$root" && cargo build --release -p evenkeel)
    binary=${CARGO_TARGET_DIR:-$root/target}/release/evenkeel
fi
[ -x "$binary" ] || not_run "$binary is no program"

if ! python3 -c 'import ensurepip, venv' >/dev/null 2>&1; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        not_run "python3 with venv is missing; on Debian: apt-get install python3-venv (as root)"
    fi
    apt-get update -qq || not_run "apt-get update failed"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null ||
        not_run "python3-venv cannot be installed"
fi
clients=${EVENKEEL_CLIENTS:-boto3 aws-cli pynamodb javascript rust}
python3 -m venv "$work/venv" || not_run "python3 -m venv failed"
for client in $clients; do
    case $client in
        boto3 | pynamodb) package=$client ;;
        aws-cli) package=awscli ;;
        javascript)
            command -v npm >/dev/null || not_run "npm is missing; on Debian: apt-get install nodejs npm (as root)"
            cp -r "$here/javascript" "$work/javascript"
            (cd "$work/javascript" && npm install --silent --no-audit --no-fund) ||
                not_run "the JavaScript SDK cannot be installed"
            continue
            ;;
        rust)
            # A crate of its own, not of the workspace: the SDK's tree is nobody else's business.
            cargo build --quiet --locked --manifest-path "$here/rust/Cargo.toml" --target-dir "$work/rust" ||
                not_run "the SDK for Rust cannot be built"
            continue
            ;;
        *) not_run "$client is no client that is known here" ;;
    esac
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check "$package" ||
        not_run "$package cannot be installed"
done

# In the mode that refuses, so that every request shows that its signature is understood.
"$binary" dev --port 0 --data "$work/data" --authentication enforce >"$work/said" 2>"$work/errors" &
cluster=$!
endpoint=
settings=
for _ in $(seq 600); do
    endpoint=$(sed -n 's/^ready: //p' "$work/said")
    settings=$(sed -n 's/^ *export \(AWS_ACCESS_KEY_ID=.*\)$/\1/p' "$work/said")
    if [ -n "$endpoint" ] && [ -n "$settings" ]; then
        break
    fi
    kill -0 "$cluster" 2>/dev/null || break
    sleep 0.1
done
if [ -z "$endpoint" ] || [ -z "$settings" ]; then
    cat "$work/said" "$work/errors"
    echo "evenkeel dev did not say where it is and what to set"
    exit 1
fi

status=0
passed=0
failed=0
for client in $clients; do
    case $client in
        boto3) command=("$work/venv/bin/python" "$here/boto3_slice.py" "$endpoint") ;;
        pynamodb) command=("$work/venv/bin/python" "$here/pynamodb_models.py" "$endpoint") ;;
        aws-cli) command=(bash "$here/aws_cli.sh" "$work/venv/bin/aws" "$endpoint") ;;
        rust) command=("$work/rust/debug/sdk-client" "$endpoint") ;;
        javascript) command=(node "$work/javascript/document_client.mjs" "$endpoint") ;;
    esac
    echo "-- $client"
    # Nothing but the endpoint, and the credentials and region that dev tells to set; no other configuration.
    # Closing lines are kept for the one of all clients. The JavaScript SDK has its own name for the region.
    # shellcheck disable=SC2086 # a list of settings
    env -i PATH="$PATH" HOME="$work" $settings AWS_REGION="${settings##*AWS_DEFAULT_REGION=}" "${command[@]}" 2>&1 |
        tee "$work/output" | sed -E '/^[0-9]+ passed, [0-9]+ failed$/d' || status=1
    closing=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$work/output" | tail -1 || true)
    if [ -z "$closing" ]; then
        echo "$client did not say how many tests passed"
        failed=$((failed + 1))
        continue
    fi
    passed=$((passed + ${closing%% *}))
    closing=${closing#*, }
    failed=$((failed + ${closing%% *}))
done
[ "$failed" = 0 ] || status=1

kill -TERM "$cluster"
if ! wait "$cluster"; then
    echo "evenkeel dev did not exit 0 after SIGTERM:"
    cat "$work/errors"
    status=1
fi
cluster=
echo "$passed passed, $failed failed"
exit "$status"
