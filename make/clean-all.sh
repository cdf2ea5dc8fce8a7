#!/usr/bin/env bash
# make clean-all: ends the machines of this checkout and removes target/. Installed packages stay.
set -euo pipefail
cd "$(dirname "$0")/.."
. make/report.sh
. make/checkout.sh

use_own_colima
# The machine of `make start`, and what an interrupted `make test` left behind.
for COLIMA_HOME in "$target/home" "$target/e2e/home"; do
    [[ -d $COLIMA_HOME ]] || continue
    # Either build will do; a program that is not there any more cannot end its machines.
    [[ -x $colima ]] || colima=$target/debug/colima
    [[ -x $colima ]] || fail "the program colima is gone, so $COLIMA_HOME stays" 'build it again: make build'
    profiles=$("$colima" list --json) || fail 'colima cannot say which machines there are, so target/ stays' \
        "ask it why: COLIMA_HOME=$COLIMA_HOME $colima list"
    while read -r name; do
        stage "Deleting the machine of profile $name"
        "$colima" delete --force --data --profile "$name" </dev/null || fail 'the machine could not be deleted, so target/ stays' \
            "ask it why: COLIMA_HOME=$COLIMA_HOME $colima status --profile $name"
    done < <(sed -n 's/.*"name": *"\([^"]*\)".*/\1/p' <<<"$profiles")
done
stage 'Removing target/'
rm -rf "$target"
