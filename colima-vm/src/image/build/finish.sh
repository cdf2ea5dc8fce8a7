#!/bin/sh
# Turns the tree that mmdebstrap made into the files of an image. Runs as a customize hook, as (mapped)
# root outside the chroot, with the tree as its argument; reads PAYLOAD and writes below /mnt/out of the
# tree, from where mmdebstrap's `download` hooks take the results.
set -eu
umask 022
root=$1
out=$root/mnt/out
mkdir -p "$out/modules"

# The kernel is unpacked, not configured: its maintainer scripts want an initramfs builder.
dpkg-deb --extract "$PAYLOAD/kernel.deb" "$out/kernel"
release=$(ls "$out/kernel/usr/lib/modules")
echo "$release" >"$out/release"
mkdir -p "$root/usr/lib/modules"
mv "$out/kernel/usr/lib/modules/$release" "$root/usr/lib/modules/$release"
rm -f "$root/usr/lib/modules/$release/build" "$root/usr/lib/modules/$release/source"
# Modules of networks lie uncompressed: docker loads two dozen of them at every start, and xz is slow in
# an emulated guest. The rest stays small.
kernel=usr/lib/modules/$release/kernel
(cd "$root" && find "$kernel/net" "$kernel/drivers/net/veth.ko.xz" "$kernel/fs/autofs" -name '*.ko.xz') |
    chroot "$root" xargs xz -d
chroot "$root" depmod "$release"

# A bzImage would decompress itself in the guest at every boot, slowly under emulation. Its payload is
# an ELF file that QEMU boots through its PVH entry. Offsets: Documentation/arch/x86/boot.rst,
# setup_sects (0x1f1), payload_offset (0x248), payload_length (0x24c); the payload ends in its size.
image=$out/kernel/boot/vmlinuz-$release
if [ "$(od -An -tx1 -j514 -N4 "$image" | tr -d ' ')" = 48647253 ]; then
    sectors=$(od -An -tu1 -j497 -N1 "$image" | tr -d ' ')
    offset=$(od -An -tu4 -j584 -N4 "$image" | tr -d ' ')
    length=$(od -An -tu4 -j588 -N4 "$image" | tr -d ' ')
    start=$(((sectors + 1) * 512 + offset))
    tail -c +$((start + 1)) "$image" | head -c $((length - 4)) | chroot "$root" zstd -dcq >"$out/vmlinux"
else
    cp "$image" "$out/vmlinux"
fi

# Modules that init loads: dependencies first, the order of `modules.dep` read backwards.
load() {
    line=$(grep "/$1\.ko[^:]*:" "$root/usr/lib/modules/$release/modules.dep") || return 0
    reversed=
    for path in ${line#*:}; do reversed="$path $reversed"; done
    for path in $reversed ${line%%:*}; do
        name=$(basename "$path" .xz)
        [ ! -e "$out/modules/$name" ] || continue
        case $path in
        *.xz) chroot "$root" xz -dc "/usr/lib/modules/$release/$path" >"$out/modules/$name" ;;
        *) cp "$root/usr/lib/modules/$release/$path" "$out/modules/$name" ;;
        esac
        echo "$name" >>"$out/modules/order"
    done
}
: >"$out/modules/order"
for module in $MODULES; do load "$module"; done

# Docker makes its networks with a hundred runs of iptables, and this one takes half the time of the other.
for program in iptables ip6tables; do
    chroot "$root" update-alternatives --quiet --set $program /usr/sbin/$program-legacy
done

# What Debian enabled is replaced by our own list; what it left behind of this build goes away.
rm -rf "$root"/etc/systemd/system/*.wants "$root"/etc/systemd/system/sshd.service
cp -R --remove-destination "$PAYLOAD/rootfs/." "$root/"
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/apt/apt.conf.d/00mmdebstrap" "$root/etc/apt/sources.list.d/"*
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old
rm -rf "$root"/var/log/apt "$root"/var/log/*.log "$root/var/cache/ldconfig/aux-cache" "$root"/var/lib/dpkg/*-old
rm -rf "$root"/etc/*- "$root/etc/.pwd.lock" "$root/var/lib/systemd/deb-systemd-helper-enabled"
rm -rf "$root"/usr/share/doc "$root/usr/share/zsh" "$root/usr/share/fish" "$root/usr/share/bug"

# A bind mount shows the tree without what is mounted in it; the rest is hidden below empty directories.
view=$out/view
mkdir "$view"
mount --bind "$root" "$view"
trap 'umount --recursive "$view"' EXIT
hide() {
    mount -t tmpfs -o "mode=$2" none "$view/$1"
}
hide dev 755
hide run 755
hide tmp 1777
hide mnt 755
mkdir "$view/mnt/colima-data"
touch -d "@$SOURCE_DATE_EPOCH" "$view/mnt/colima-data"
find "$view" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference -d "@$SOURCE_DATE_EPOCH" {} +

# Content in blocks of 4 KiB, a block per file for the metadata, and slack for what boots write.
blocks=$(find "$view" -printf '%y %s\n' |
    awk '{ n += 1 } $1 == "f" { n += int(($2 + 4095) / 4096) } END { print int(n * 1.06) + 12288 }')
# The tree's own mke2fs: Debian 12's copies times that no file system lets one set.
chroot "$root" mke2fs -q -t ext4 -b 4096 -I 256 -i 16384 -m 0 -J size=16 -L colima-root \
    -U "$EXT4_UUID" -E "hash_seed=$EXT4_UUID,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0" \
    -d /mnt/out/view /mnt/out/root.ext4 "${blocks}"
