#!/usr/bin/env bash
# make test: every test that can run here, and aloud which ones cannot and why.
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

log=$target/test.log

# What the tests build is another program, and larger.
colima=$target/debug/colima
build_disk=$test_build_disk

stage 'Looking at this host'
prepare_host needed_for_building needed_for_running needed_for_testing
mkdir -p "$target"
: >"$COLIMA_SKIPPED"
: >"$log"

# The host's sshd, or one unpacked: installing the package would start a service. Without either the tests
# of the ssh transport say so.
if [[ ! -x /usr/sbin/sshd ]] && unpack_package openssh-server; then
    export COLIMA_TEST_SSHD=$unpacked/usr/sbin/sshd
fi

stage 'Fetching the crates of the lock file'
"$CARGO" fetch --locked --quiet

# The POSIX test suite, by root on a mount of colima-mount.
install_program pjdfstest 0.2.2 || note 'pjdfstest cannot be built here'

# The program under test is the one that cargo builds for the tests, with all its assertions; building it
# optimised as well would take minutes and show nothing more.
stage 'Building the guest program'
build_guest_program "$target/debug"

stage 'Building and testing every crate'
failed=0
"$CARGO" test --locked --workspace --no-fail-fast -- --show-output 2>&1 | tee "$log" || failed=1

stage 'Testing the whole program in a virtual machine'
end_to_end short "$log" || failed=1
stage 'The same over ssh, in part'
end_to_end short "$log" ssh "${over_ssh[@]}" || failed=1

# Ignored tests carry their reason, others print it. One that another test starts is not left out.
sed -n '/ignored, started by /d; s/^test \(.*\) \.\.\. ignored,\{0,1\} *\(.*\)/\1: \2/p' "$log" >>"$COLIMA_SKIPPED"
sed -n 's/^[[:space:]]*skipped: //Ip' "$log" >>"$COLIMA_SKIPPED"
if [[ -s $COLIMA_SKIPPED ]]; then
    stage "Skipped, and why"
    sort -u "$COLIMA_SKIPPED" | while read -r line; do note "$line"; done
fi

stage 'Done'
awk '/^test result: / { passed += $4; failures += $6 }
     END { printf "%d passed, %d failed\n", passed, failures }' "$log"
if ((failed)); then
    # A test binary that does not compile, or is killed, has no line of its own in the count above.
    sed -n -e 's/^\(error: .*\)/\1/p' -e 's/^test \(.*\) \.\.\. FAILED.*/failed: \1/p' "$log" | sort -u >&2
    fail "not everything passed; the whole output is $log"
fi
