# Sourced. Packages of Debian and Ubuntu: what is missing, installing it, and unpacking it privately.
# Nothing here edits /etc/apt: a suite that the host does not list is added through options of one call.
# shellcheck shell=bash
# shellcheck disable=SC2154 # checkout.sh defines `tools`

command -v apt-get >/dev/null ||
    fail 'this script installs packages with apt-get, which is not here' \
        'on another distribution install what CONTRIBUTING.md lists, then: cargo build --release'

# shellcheck source=/dev/null
. /etc/os-release

# as_root COMMAND...: directly for root, through sudo for others. sudo drops the environment, so the
# proxies are handed over by name.
as_root() {
    if ((EUID == 0)); then
        DEBIAN_FRONTEND=noninteractive "$@"
        return
    fi
    sudo env DEBIAN_FRONTEND=noninteractive \
        ${http_proxy:+"http_proxy=$http_proxy"} ${https_proxy:+"https_proxy=$https_proxy"} \
        ${no_proxy:+"no_proxy=$no_proxy"} "$@"
}

package_installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# package_candidate NAME: the version apt would install, nothing when it knows none.
package_candidate() {
    local version
    version=$(LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p')
    [[ $version == '(none)' ]] || printf '%s' "$version"
}

# refresh_package_lists: once per run, and only when something has to be fetched.
package_lists_fresh=no
refresh_package_lists() {
    [[ $package_lists_fresh == no ]] || return 0
    if ((EUID != 0)) && ! command -v sudo >/dev/null; then
        note 'the package lists cannot be refreshed: there is no sudo'
        return 0
    fi
    note 'refreshing the package lists (apt-get update)'
    as_root apt-get update -qq || note 'some lists could not be refreshed; going on with what is there'
    package_lists_fresh=yes
}

# require_package_lists NAME...: a fresh system has no lists at all.
require_package_lists() {
    local name
    for name in "$@"; do
        [[ -n $(package_candidate "$name") ]] || refresh_package_lists
    done
}

# source_for_suite SUITE: one source that offers SUITE from the mirror the host itself uses.
source_for_suite() {
    local mirror
    # shellcheck disable=SC2016 # the format is apt's, not the shell's
    mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
        sed -n "s/^$VERSION_CODENAME //p" | head -n 1)
    [[ $ID == debian && -n $mirror ]] || return 1
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "$mirror" "$1"
    printf 'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n'
}

# use_suite SUITE DIRECTORY: sets `suite_options` so that an apt call sees the host's sources and SUITE,
# with lists and caches in DIRECTORY.
use_suite() {
    local suite=$1 directory=$2 file
    mkdir -p "$directory"/{sources,lists/partial,cache/archives/partial}
    for file in /etc/apt/sources.list.d/*; do
        [[ ! -e $file ]] || ln -sf "$file" "$directory/sources/"
    done
    source_for_suite "$suite" >"$directory/sources/colima-$suite.sources" || return 1
    suite_options=(
        -o "Dir::Etc::SourceParts=$directory/sources"
        -o "Dir::State::Lists=$directory/lists"
        -o "Dir::Cache=$directory/cache"
        # The directory may be closed to the user _apt.
        -o APT::Sandbox::User=root
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
    )
}

# try_install [OPTION...] NAME...: prints what apt would do; fails when it cannot, or only by removing
# something: asked for qemu-system-x86 alone, apt would gladly give up an installed qemu-utils.
try_install() {
    LC_ALL=C apt-get -s -y install --no-install-recommends --no-remove "$@" 2>&1
}

# foreign_suite NAME: the suite that the installed siblings of NAME (same source package) come from, when
# it is not one of the host's. A sibling from backports makes the plain package uninstallable: qemu-utils
# 10.0 breaks qemu-system-common 7.2, for instance.
foreign_suite() {
    local source siblings
    source=$(LC_ALL=C apt-cache show "$1" 2>/dev/null | sed -n 's/^Source: \([^ ]*\).*/\1/p' | head -n 1)
    # shellcheck disable=SC2016 # the format is dpkg's, not the shell's
    siblings=$(dpkg-query -W -f '${source:Package} ${source:Version}\n' | sed -n "s/^${source:-$1} //p")
    if [[ $siblings =~ ~bpo([0-9]+)\+ && ${BASH_REMATCH[1]} == "$VERSION_ID" ]]; then
        printf '%s-backports' "$VERSION_CODENAME"
    else
        return 1
    fi
}

# install_packages NAME...: installs by name, without recommended packages. Removes or downgrades nothing
# without a yes; a newer point version that a dependency asks for is said aloud.
install_packages() {
    local plan
    ((EUID == 0)) || command -v sudo >/dev/null ||
        fail 'packages are missing, and there is no sudo' \
            "as root: apt-get update && apt-get install --no-install-recommends $*"
    require_package_lists "$@"
    if plan=$(try_install "$@"); then
        run_install "$plan" "$@"
        return
    fi
    refresh_package_lists
    if plan=$(try_install "$@"); then
        run_install "$plan" "$@"
        return
    fi
    # Together they cannot be installed; find the ones that a foreign sibling blocks.
    local name suite rest=()
    for name in "$@"; do
        if ! try_install "$name" >/dev/null && suite=$(foreign_suite "$name"); then
            install_from_suite "$suite" "$name"
        else
            rest+=("$name")
        fi
    done
    ((${#rest[@]})) || return 0
    plan=$(try_install "${rest[@]}") ||
        plan=$(LC_ALL=C apt-get -s -y install --no-install-recommends "${rest[@]}" 2>&1) || {
        printf '%s\n' "$plan" >&2
        fail "apt cannot install ${rest[*]}" "see why: apt-get -s install ${rest[*]}"
    }
    run_install "$plan" "${rest[@]}"
}

# install_from_suite SUITE NAME: with the host's own mirror, for this one call.
install_from_suite() {
    local suite=$1 name=$2 directory plan suite_options
    note "$name: its installed sibling packages come from $suite, so $name has to as well"
    directory=$(mktemp -d)
    use_suite "$suite" "$directory" || fail "no mirror known for $suite" "add $suite to /etc/apt and: apt-get install -t $suite $name"
    as_root apt-get "${suite_options[@]}" update -qq || fail "cannot fetch the package list of $suite"
    plan=$(try_install "${suite_options[@]}" -t "$suite" "$name") || {
        printf '%s\n' "$plan" >&2
        fail "apt cannot install $name from $suite"
    }
    run_install "$plan" "${suite_options[@]}" -t "$suite" "$name"
    as_root rm -rf "$directory"
}

# run_install PLAN ARGUMENT...: what `try_install ARGUMENT...` simulated as PLAN.
run_install() {
    local plan=$1 line
    shift
    line="apt-get install --no-install-recommends $*"
    note "with what they depend on: $(grep -c '^Inst ' <<<"$plan") packages; the log is target/apt.log"
    if grep -q '^Inst [^ ]* \[' <<<"$plan"; then
        note "newer versions that these need: $(sed -n 's/^Inst \([^ ]*\) \[.*/\1/p' <<<"$plan" | tr '\n' ' ')"
    fi
    if grep -qE '^Remv |DOWNGRADED' <<<"$plan"; then
        confirm "This would remove or downgrade: $(sed -n 's/^Remv \([^ ]*\) .*/\1/p' <<<"$plan" | tr '\n' ' ')" "$line"
        as_root apt-get install -y --allow-downgrades --no-install-recommends "$@"
        return
    fi
    mkdir -p "$target"
    as_root apt-get install -y --no-remove --no-install-recommends "$@" >>"$target/apt.log" 2>&1 || {
        tail -n 20 "$target/apt.log" >&2
        fail 'apt-get failed' "the whole log: $target/apt.log" "the line: $line"
    }
}

# package_sizes NAME...: apt's own words for download and disk.
package_sizes() {
    LC_ALL=C apt-get -o Debug::NoLocking=1 --assume-no install --no-install-recommends "$@" 2>/dev/null |
        sed -n -e '/^Need to get /p' -e '/^After this operation/p' || true
}

# unpack_package NAME [SUITE]: unpacks one package under target/tools without installing it, and sets
# `unpacked` to its directory. SUITE is asked when the host's own sources do not have it.
unpack_package() {
    local name=$1 suite=${2:-} directory=$tools/$1 options=()
    # shellcheck disable=SC2034 # the answer
    unpacked=$directory
    [[ ! -e $directory/.complete ]] || return 0
    rm -rf "$directory" "$tools/download"
    mkdir -p "$tools/download"
    require_package_lists bash
    if [[ -z $(package_candidate "$name") ]]; then
        local suite_options
        [[ -n $suite ]] && use_suite "$suite" "$tools/apt-$suite" || return 1
        [[ -e $tools/apt-$suite/.complete ]] || apt-get "${suite_options[@]}" update -qq || return 1
        touch "$tools/apt-$suite/.complete"
        options=("${suite_options[@]}" -t "$suite")
    fi
    (cd "$tools/download" && apt-get "${options[@]}" -qq -o APT::Sandbox::User=root download "$name") || {
        refresh_package_lists
        (cd "$tools/download" && apt-get "${options[@]}" -qq -o APT::Sandbox::User=root download "$name") || return 1
    }
    dpkg-deb -x "$tools/download/$name"_*.deb "$directory"
    rm -rf "$tools/download"
    touch "$directory/.complete"
    note "$name unpacked under target/tools, nothing installed"
}
