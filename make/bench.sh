#!/usr/bin/env bash
# make bench: the micro benches and the side-by-side comparison; results in benches/.
set -euo pipefail
cd "$(dirname "$0")/.."
. make/report.sh
. make/checkout.sh
. make/apt.sh
. make/cargo.sh
. make/prepare.sh
. make/build-workspace.sh
. make/docker-cli.sh

prepare_host needed_for_building needed_for_running
build_programs
require_docker_cli
"$CARGO" bench --locked -p colima-benches
