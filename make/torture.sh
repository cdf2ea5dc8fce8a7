#!/usr/bin/env bash
# make torture SECONDS=N: the long forms of the tests, bounded by N seconds (3600). First what takes its fixed
# time: two equal images, and the whole program in its long form. What is left goes to random tests.
# PARTS chooses some of: image whole random.
set -euo pipefail
cd "$(dirname "$0")/.."
. make/report.sh
. make/checkout.sh
. make/apt.sh
. make/cargo.sh
. make/prepare.sh
. make/build-workspace.sh
. make/docker-cli.sh
. make/end-to-end.sh

seconds=${1:-3600}
parts=" ${PARTS:-image whole random} "
log=$target/torture.log
colima=$target/debug/colima
build_disk=$test_build_disk

# left: the seconds that remain.
left() { echo $((seconds > SECONDS ? seconds - SECONDS : 1)); }

# within COMMAND...: what the clock cuts short, timeout(1) ends with 124; that is no failure, and is said.
within() {
    local status=0
    timeout --foreground --signal=INT --kill-after=60 "$(left)" "$@" || status=$?
    ((status != 124)) || { note "cut short after $seconds s"; return 0; }
    return "$status"
}

stage 'Looking at this host'
prepare_host needed_for_building needed_for_running needed_for_testing
mkdir -p "$target"
: >"$COLIMA_SKIPPED"
: >"$log"

stage 'Building the tests'
build_guest_program "$target/debug"
"$CARGO" test --locked --workspace --no-run --quiet
install_program pjdfstest 0.2.2 || note 'pjdfstest cannot be built here'

if [[ $parts == *' image '* ]]; then
    stage 'Two images of one lock'
    within make/image-test.sh
fi

if [[ $parts == *' whole '* ]]; then
    stage 'The whole program, long form'
    # The suite ends its machine itself when it is interrupted by nobody, so it is not cut short.
    end_to_end long "$log"
    stage 'The whole program over ssh'
    end_to_end short "$log" ssh
fi

if [[ $parts == *' random '* ]]; then
    # Each round has new random cases, 16 times as many as `make test`; a failure ends it and names its seed.
    export PROPTEST_CASES=4096 COLIMA_TORTURE_SECONDS
    round=0
    while ((SECONDS < seconds)); do
        round=$((round + 1))
        COLIMA_TORTURE_SECONDS=$(left)
        stage "Random tests, round $round"
        within "$CARGO" test --locked --workspace --lib --test runner --quiet
    done
    stage "No failure in $round rounds"
fi
