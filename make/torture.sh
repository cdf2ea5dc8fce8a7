#!/usr/bin/env bash
# make torture SECONDS=N: the long form of the property tests, bounded by N seconds (600).
set -euo pipefail
cd "$(dirname "$0")/.."
. make/report.sh
. make/checkout.sh
. make/cargo.sh

seconds=${1:-600}
use_cargo_home
find_cargo || fail "no cargo >= 1.$oldest_rust found" 'make start installs one'
stage 'Building the tests'
"$CARGO" test --locked --workspace --no-run --quiet

# Each round has new random cases, 16 times as many as `make test`; a failure ends it and names its seed.
round=0
while ((SECONDS < seconds)); do
    round=$((round + 1))
    stage "Round $round"
    PROPTEST_CASES=4096 timeout --foreground "$((seconds - SECONDS))" \
        "$CARGO" test --locked --workspace --lib --quiet || {
        status=$?
        # timeout(1) ends a round that the clock cuts short with 124.
        ((status == 124)) || exit "$status"
    }
done
stage "No failure in $round rounds"
