#!/usr/bin/env bash
# make clean-all: ends the machine of this checkout and removes target/. Installed packages stay.
set -euo pipefail
cd "$(dirname "$0")/.."
. make/report.sh
. make/checkout.sh

if [[ -x $colima && -d $target/home ]]; then
    use_own_colima
    stage 'Deleting the machine'
    "$colima" delete --force --data || fail 'the machine could not be deleted, so target/ stays' \
        "ask it why: . target/env && colima status"
fi
stage 'Removing target/'
rm -rf "$target"
