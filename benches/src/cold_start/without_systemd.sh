#!/busybox sh
# The floor: process 1 of the initramfs mounts what dockerd needs, and starts it. The same kernel, modules,
# disks and daemons as ours, the daemons one after the other as their units have it, and nothing else.
set -e
b=/busybox
$b mkdir -p /proc /sys /dev /sysroot
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
while read -r module; do $b insmod "$module"; done </colima/modules
root=/sysroot
$b mount -t ext4 -o noatime /dev/vda $root
$b mount -t ext4 -o noatime /dev/vdb $root/mnt/colima-data
for name in docker containerd; do
    $b mount -o bind $root/mnt/colima-data/$name $root/var/lib/$name
done
$b mount -t sysfs sys $root/sys
$b mount -t cgroup2 cgroup2 $root/sys/fs/cgroup
$b mount -t tmpfs -o mode=755 run $root/run
$b mount -t tmpfs tmp $root/tmp
$b mount -o move /dev $root/dev
$b ifconfig lo 127.0.0.1 up
$b ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
$b route add default gw 10.0.2.2
$b cat >$root/run/start <<'DAEMONS'
export PATH=/usr/sbin:/usr/bin
peer=/usr/local/bin/colima-bench-peer
$peer notified /run/containerd.log containerd
$peer notified /run/dockerd.log dockerd -H unix:///run/docker.sock --containerd=/run/containerd/containerd.sock
$peer ready /run/docker.sock /dev/ttyS0
exec sleep infinity
DAEMONS
$b mount -o move /proc $root/proc
exec $b switch_root $root /bin/sh /run/start
