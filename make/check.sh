#!/usr/bin/env bash
# make check: formatting, lints, documentation, dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."
. make/report.sh
. make/checkout.sh
. make/cargo.sh

use_cargo_home
find_cargo || fail "no cargo >= 1.$oldest_rust found" 'make start installs one'
stage 'cargo fmt --check'
"$CARGO" fmt --all --check
stage 'cargo clippy'
"$CARGO" clippy --locked --workspace --all-targets --all-features -- -D warnings
# --all-targets leaves out a test that `cargo test` does not run by itself.
if [[ -e colima-cli/tests/e2e.rs ]]; then
    "$CARGO" clippy --locked -p colima --test e2e -- -D warnings
fi
stage 'cargo doc'
RUSTDOCFLAGS='-D warnings' "$CARGO" doc --locked --workspace --all-features --no-deps --quiet
if "$CARGO" deny --version >/dev/null 2>&1; then
    stage 'cargo deny'
    "$CARGO" deny check
else
    note 'skipped: cargo deny is not installed'
fi
if command -v shellcheck >/dev/null; then
    stage 'shellcheck'
    shellcheck -x make/*.sh .ci/run
else
    note 'skipped: shellcheck is not installed'
fi
