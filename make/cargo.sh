# Sourced. Finds a cargo that is new enough, or installs the distribution's.
# shellcheck shell=bash
# shellcheck disable=SC2154 # checkout.sh defines `target`

# The rust-version of the workspace.
oldest_rust=$(sed -n 's/^rust-version = "1\.\([0-9]*\)"/\1/p' Cargo.toml)

# rust_minor PROGRAM: N of "cargo 1.N.P", nothing when PROGRAM does not run. A rustup proxy without a
# toolchain runs but fails, and must not start a download of its own.
rust_minor() {
    RUSTUP_AUTO_INSTALL=0 "$1" --version 2>/dev/null | sed -n 's/^[a-z]* 1\.\([0-9]*\)\..*/\1/p'
}

# use_cargo CARGO RUSTC: true when both are new enough; exports them.
use_cargo() {
    local cargo rustc minor
    cargo=$(command -v "$1") && rustc=$(command -v "$2") || return 1
    minor=$(rust_minor "$cargo")
    [[ -n $minor ]] && ((minor >= oldest_rust)) || return 1
    minor=$(rust_minor "$rustc")
    [[ -n $minor ]] && ((minor >= oldest_rust)) || return 1
    export CARGO=$cargo
    # Ubuntu's cargo-1.N looks for a plain `rustc`, which is another version or missing.
    if [[ $2 == *rustc-1.* ]]; then
        export RUSTC=$rustc RUSTDOC=${rustc/rustc-/rustdoc-}
    fi
}

# find_cargo: PATH, then rustup's usual place, then Ubuntu's versioned programs, newest first.
find_cargo() {
    use_cargo cargo rustc && return
    if use_cargo "$HOME/.cargo/bin/cargo" "$HOME/.cargo/bin/rustc"; then
        # cargo finds rustc, and its subcommands each other, through PATH.
        PATH=$HOME/.cargo/bin:$PATH
        return
    fi
    use_cargo /usr/bin/cargo /usr/bin/rustc && PATH=/usr/bin:$PATH && return
    local program
    while read -r program; do
        use_cargo "$program" "${program/cargo-/rustc-}" && return
    done < <(compgen -G '/usr/bin/cargo-1.*' | sort -rV)
    return 1
}

# cargo_packages: the packages of this distribution that bring a new enough cargo. Versioned ones first,
# because they stand beside whatever is installed; then the plain one; then Debian's newer twin.
cargo_packages() {
    local name minor
    while read -r name; do
        minor=${name#cargo-1.}
        if ((minor >= oldest_rust)) && [[ -n $(package_candidate "rustc-1.$minor") ]]; then
            printf '%s\n' "$name" "rustc-1.$minor"
            return
        fi
    done < <(apt-cache search --names-only '^cargo-1\.[0-9]+$' | cut -d' ' -f1 | sort -rV)
    for name in cargo cargo-web; do
        minor=$(package_candidate "$name" | sed -n 's/^1\.\([0-9]*\)\..*/\1/p')
        if [[ -n $minor ]] && ((minor >= oldest_rust)); then
            printf '%s\n' "$name" "${name/cargo/rustc}"
            return
        fi
    done
    return 1
}

# use_cargo_home: a user who has no cargo directory does not get one outside of target/.
use_cargo_home() {
    if [[ -z ${CARGO_HOME:-} && ! -d $HOME/.cargo ]]; then
        export CARGO_HOME=$target/cargo-home
    fi
}

# install_program CRATE VERSION: a program that tests start, under target/tools/bin, once. Without it they say
# so. Without optimisation it is built in a third of the time; what it waits for is the program under test.
install_program() {
    local done=$target/tools/bin/.$1-$2
    [[ -e $done ]] && return
    "$CARGO" install --quiet --locked --debug --root "$target/tools" --target-dir "$target/tools/build" \
        "$1" --version "$2" || return
    rm -rf "$target/tools/build"
    : >"$done"
}
