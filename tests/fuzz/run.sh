#!/usr/bin/env bash
# Coverage-guided fuzzing of everything that reads bytes from outside, with libFuzzer.
#
#   tests/fuzz/run.sh
#
# EVENKEEL_MINUTES: how long all targets together may take, 5 by default. EVENKEEL_FUZZ: which targets, all by
# default. EVENKEEL_CORPUS: a directory whose folders, one a target, are read and added to; without it each
# run begins from a few seeds. Each target is one test; the last line is `N passed, M failed`. What made a
# target stop is kept beside its corpus, and printed as base64.
set -Eeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

not_run() {
    echo "NOT RUN: $*"
    exit 1
}

command -v c++ >/dev/null || {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        not_run "a C++ compiler is missing; on Debian: apt-get install g++ (as root)"
    fi
    apt-get update -qq || not_run "apt-get update failed"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq g++ >/dev/null || not_run "g++ cannot be installed"
}

targets=${EVENKEEL_FUZZ:-requests expressions programs frames signatures records log_frames pages catalogues superblocks}
minutes=${EVENKEEL_MINUTES:-5}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
corpus=${EVENKEEL_CORPUS:-$work/corpus}

# The instrumentation that libFuzzer follows; no sanitizer, for those need another compiler.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
target=${CARGO_TARGET_DIR:-$root/target}/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
# With --target, build scripts and procedural macros are not instrumented.
RUSTFLAGS="$coverage" cargo build --release --quiet --locked --target "$host" --target-dir "$target" \
    --manifest-path "$here/Cargo.toml" || not_run "the targets cannot be built"

count=$(wc -w <<<"$targets")
seconds=$((minutes * 60 / count))
[ "$seconds" -gt 0 ] || seconds=1
passed=0
failed=0
for name in $targets; do
    program=$target/$host/release/$name
    [ -x "$program" ] || not_run "there is no target $name"
    mkdir -p "$corpus/$name"
    if [ -d "$here/seeds/$name" ]; then
        cp -n "$here/seeds/$name"/* "$corpus/$name/"
    fi
    echo "-- $name, $seconds s"
    if "$program" "$corpus/$name" -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$corpus/$name-" >"$work/said" 2>&1; then
        sed -n 's/^stat::number_of_executed_units: */runs: /p; s/^stat::new_units_added: */found new: /p' "$work/said"
        passed=$((passed + 1))
    else
        tail -40 "$work/said"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
