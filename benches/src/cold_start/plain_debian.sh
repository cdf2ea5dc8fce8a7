#!/usr/bin/env bash
# plain_debian.sh DIRECTORY SUITE PACKAGE...: the image to beat, as Debian makes it of the same packages.
# Nothing is masked, the initramfs is the one of initramfs-tools, the kernel boots as it is packaged.
# Leaves root.ext4, vmlinuz and initrd.img in DIRECTORY. Runs mmdebstrap as root, or in a user namespace.
set -euo pipefail
directory=$1 suite=$2
shift 2
packages=$(IFS=, && printf '%s' "$*")
# mmdebstrap works where every user may enter; the names differ between users and runs.
TMPDIR=$(mktemp -d /var/tmp/colima-bench-XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
chmod 755 "$TMPDIR"
mode=unshare
if ((EUID == 0)); then mode=root; fi
mkdir -p "$directory/packages"

cat >"$TMPDIR/finish" <<'HOOK'
#!/bin/sh
# The file system is made inside, where all owners are right. A bind mount shows the tree without what
# is mounted in it; the rest is hidden below empty directories.
set -eu
root=$1
printf 'LABEL=plain-root / ext4 errors=remount-ro 0 1\n' >"$root/etc/fstab"
echo plain-debian >"$root/etc/hostname"
: >"$root/etc/machine-id"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
out=$root/mnt/out
mkdir -p "$out/view"
cp "$root"/boot/vmlinuz-* "$out/vmlinuz"
cp "$root"/boot/initrd.img-* "$out/initrd.img"
mount --bind "$root" "$out/view"
trap 'umount --recursive "$out/view"' EXIT
for hidden in dev run mnt; do mount -t tmpfs -o mode=755 none "$out/view/$hidden"; done
mount -t tmpfs -o mode=1777 none "$out/view/tmp"
truncate --size=4G "$out/root.ext4"
chroot "$root" mke2fs -q -t ext4 -L plain-root -d /mnt/out/view /mnt/out/root.ext4
HOOK
chmod 755 "$TMPDIR/finish"

mmdebstrap --mode="$mode" --variant=apt --format=null --skip=cleanup \
    --include="$packages,initramfs-tools,linux-image-cloud-$(dpkg --print-architecture)" \
    --setup-hook='mkdir -p "$1/var/cache/apt/archives"' \
    --setup-hook="sync-in '$directory/packages' /var/cache/apt/archives" \
    --customize-hook="sync-out /var/cache/apt/archives '$directory/packages'" \
    --customize-hook="$TMPDIR/finish" \
    --customize-hook="download /mnt/out/root.ext4 '$directory/root.ext4'" \
    --customize-hook="download /mnt/out/vmlinuz '$directory/vmlinuz'" \
    --customize-hook="download /mnt/out/initrd.img '$directory/initrd.img'" \
    "$suite" /dev/null
