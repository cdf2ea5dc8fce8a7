#!/usr/bin/env bash
# make build: the programs in target/release.
set -euo pipefail
cd "$(dirname "$0")/.."
. make/report.sh
. make/checkout.sh
. make/cargo.sh
. make/build-workspace.sh

use_cargo_home
find_cargo || fail "no cargo >= 1.$oldest_rust found" 'make start installs one'
build_programs
