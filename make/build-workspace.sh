# Sourced. Builds the two programs that belong together.
# shellcheck shell=bash
# shellcheck disable=SC2154 # checkout.sh defines `target`

# build_programs: target/release/colima, and beside it the static program that runs in the guest.
build_programs() {
    "$CARGO" build --locked --release -p colima
    build_guest_program "$target/release"
}

# build_guest_program DIRECTORY: puts the static program that runs in the guest into DIRECTORY, where a
# `colima` in the same directory finds it. Always the optimised one: it is started at every boot, and an
# emulated machine is slow enough.
build_guest_program() {
    local machine triple
    machine=$(uname -m)
    triple=$("${RUSTC:-rustc}" -vV | sed -n 's/^host: //p')
    # With an explicit target, cargo keeps these flags away from build scripts and procedural macros,
    # which cannot be static.
    RUSTFLAGS='-C target-feature=+crt-static' \
        "$CARGO" build --locked --release -p colima-guest --target "$triple"
    # A new file instead of new bytes in the old one: a running program must not change under its users.
    local built=$target/$triple/release/colima-guest beside=$1/colima-guest-$machine
    mkdir -p "$1"
    cmp -s "$built" "$beside" || {
        cp "$built" "$beside.new"
        mv "$beside.new" "$beside"
    }
}
