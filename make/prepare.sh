# Sourced. Brings the host to the point where the workspace builds and a virtual machine starts.
# shellcheck shell=bash
# shellcheck disable=SC2154 # checkout.sh defines `target`

# What the host needs: a program or file that proves it is there, and the package that brings it.
needed_for_building() {
    printf '%s\n' \
        'cc gcc' \
        '/usr/include/stdio.h libc6-dev' \
        '/etc/ssl/certs/ca-certificates.crt ca-certificates'
    # Only when something in the lock links it.
    if grep -q '^name = "openssl-sys"' Cargo.lock; then
        printf '%s\n' '/usr/include/openssl/ssl.h libssl-dev' 'pkg-config pkg-config'
    fi
}

needed_for_running() {
    local qemu=x86
    [[ $(uname -m) == aarch64 ]] && qemu=arm
    printf '%s\n' \
        "qemu-system-$(uname -m) qemu-system-$qemu" \
        'qemu-img qemu-utils' \
        'mount mount' \
        'mmdebstrap mmdebstrap' \
        '/usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring' \
        'newuidmap uidmap' \
        'ssh openssh-client'
}

# Tools whose work the tests look at. A test that lacks one says so; these are small.
needed_for_testing() {
    printf '%s\n' \
        'strace strace' \
        'nm binutils' \
        'openssl openssl' \
        'mkfs.ext4 e2fsprogs' \
        'mkfs.xfs xfsprogs' \
        'mkfs.btrfs btrfs-progs' \
        'mkfs.vfat dosfstools' \
        'sgdisk gdisk' \
        'pkill procps' \
        'lftp lftp' \
        'curl curl'
}

# missing_packages: reads `PROOF PACKAGE` lines, prints the packages whose proof is absent.
missing_packages() {
    local proof package
    while read -r proof package; do
        if [[ $proof == /* ]]; then
            [[ -e $proof ]] || printf '%s\n' "$package"
        else
            command -v "$proof" >/dev/null || printf '%s\n' "$package"
        fi
    done
}

# free_megabytes DIRECTORY
free_megabytes() {
    df -Pm "$1" | awk 'NR == 2 { print $4 }'
}

# In MB, each with the command that says it after a run from nothing; rounded up.
crates_download=10    # du -sm target/cargo-home/registry/cache
build_disk=450        # du -scm target/release target/*-linux-gnu target/cargo-home
test_build_disk=3000  # du -scm target/debug target/*-linux-gnu target/cargo-home, after make test
packages_download=200 # du -sm target/cache, without the package lists
machine_disk=900      # du -scm target/home target/cache; it grows with what containers store
scratch_disk=2048     # du -sm /var/tmp while the image is built; nothing stays there

# prepare_host NEEDED...: installs what is missing of the lists above, after telling what it costs.
prepare_host() {
    local missing=() disk=0 needed
    mapfile -t missing < <(for needed in "$@"; do "$needed"; done | missing_packages)
    use_cargo_home
    if ! find_cargo; then
        require_package_lists bash cargo
        local packages
        packages=$(cargo_packages) || {
            refresh_package_lists
            packages=$(cargo_packages) || fail "no cargo >= 1.$oldest_rust here, and none in the package lists" \
                'install one with rustup and try again'
        }
        mapfile -t -O "${#missing[@]}" missing <<<"$packages"
    fi
    local free
    if [[ ! -x $colima ]]; then
        disk=$build_disk
        note "the build downloads about $crates_download MB of crates and needs about $build_disk MB under target/"
    fi
    if [[ ! -d $target/cache ]]; then
        disk=$((disk + machine_disk))
        note "the machine's image downloads about $packages_download MB of Debian packages; with disks it needs about $machine_disk MB"
        note "under target/, and while it is built about $scratch_disk MB in /var/tmp"
        free=$(free_megabytes /var/tmp)
        ((free >= scratch_disk)) || fail "only $free MB are free in /var/tmp, $scratch_disk MB are needed"
    fi
    free=$(free_megabytes "$checkout")
    ((free >= disk)) || fail "only $free MB are free here, $disk MB are needed"
    if ((${#missing[@]} == 0)); then
        return
    fi
    stage "Installing packages: ${missing[*]}"
    require_package_lists "${missing[@]}"
    package_sizes "${missing[@]}" | while read -r line; do note "$line"; done
    install_packages "${missing[@]}"
    find_cargo || fail "a cargo >= 1.$oldest_rust was installed but is not found" 'is another cargo before it in PATH?'
}
