#!/usr/bin/env bash
# make clean-all: ends the machine of this checkout and removes target/. Installed packages stay.
set -euo pipefail
cd "$(dirname "$0")/.."
. make/report.sh
. make/checkout.sh

if [[ -x $colima && -d $target/home ]]; then
    use_own_colima
    profiles=$("$colima" list --json) || fail 'colima cannot say which machines there are, so target/ stays' \
        'ask it why: . target/env && colima list'
    if grep -q "\"name\": *\"$profile\"" <<<"$profiles"; then
        stage 'Deleting the machine'
        "$colima" delete --force --data || fail 'the machine could not be deleted, so target/ stays' \
            'ask it why: . target/env && colima status'
    fi
fi
stage 'Removing target/'
rm -rf "$target"
