#!/usr/bin/env bash
# make image-test: builds the guest's image twice from one lock and compares every byte. Not part of
# `make test`, which builds the image once.
set -euo pipefail
cd "$(dirname "$0")/.."
. make/report.sh
. make/checkout.sh
. make/apt.sh
. make/cargo.sh
. make/prepare.sh

prepare_host needed_for_building needed_for_running
stage 'Building two images'
"$CARGO" test --locked -p colima-vm --test image -- --ignored --nocapture two_builds_from_one_lock_are_equal
rm -rf "$target/tmp/image-build"
