#!/usr/bin/env bash
# make bench: the side-by-side comparison and the micro bench; results in benches/. At most 40 minutes.
# ROUNDS repeats what is slow (3). ROWS is all, or some of: cold-start resume through-vm native
# mounts-native mounts-vm at-rest.
set -euo pipefail
cd "$(dirname "$0")/.."
. make/report.sh
. make/checkout.sh
. make/apt.sh
. make/cargo.sh
. make/prepare.sh
. make/build-workspace.sh
. make/docker-cli.sh

needed_for_comparing() {
    printf '%s\n' 'debugfs e2fsprogs' 'ssh-keygen openssh-client' 'git git' 'sshfs sshfs' \
        '/usr/lib/openssh/sftp-server openssh-sftp-server'
}

stage 'Looking at this host'
prepare_host needed_for_building needed_for_running needed_for_comparing

stage 'Building colima, the guest program and the comparison'
build_programs
triple=$("${RUSTC:-rustc}" -vV | sed -n 's/^host: //p')
"$CARGO" build --locked --release -p colima-benches --bin compare
# It runs in guests that have another C library, or none.
RUSTFLAGS='-C target-feature=+crt-static' \
    "$CARGO" build --locked --release -p colima-benches --bin colima-bench-peer --target "$triple"
cp "$target/$triple/release/colima-bench-peer" "$target/release/colima-bench-peer-static"

require_docker_cli
options=(--work "$target/bench" --rounds "${ROUNDS:-3}")
# Without it, cold-start says that it is missing.
if unpack_package busybox-static; then
    busybox=$unpacked/bin/busybox
    [[ -e $busybox ]] || busybox=$unpacked/usr/bin/busybox
    options+=(--busybox "$busybox")
fi
mkdir -p "$target/bench"
# The image and its packages are the same as those of make start.
[[ ! -d $target/cache || -e $target/bench/cache ]] || cp -a --reflink=auto "$target/cache" "$target/bench/cache"

stage 'Comparing'
# INT lets it end what it started.
failed=0
read -r -a rows <<<"${ROWS:-all}"
timeout --foreground --signal=INT --kill-after=60 35m \
    "$target/release/compare" "${options[@]}" "${rows[@]}" || failed=1

stage 'The codec of the multiplexer'
timeout --foreground 5m "$CARGO" bench --locked -p colima-benches --bench mux_frames || failed=1
exit "$failed"
