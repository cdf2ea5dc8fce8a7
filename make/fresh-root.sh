#!/usr/bin/env bash
# make fresh-root SUITE=trixie: what the README promises to a stranger, in a new root file system of that Debian
# release with nothing but git and make: `make start`, again, `make clean-all`, `make test`. Needs root and
# mmdebstrap; everything that it starts ends with it, and the file system is removed.
set -euo pipefail
cd "$(dirname "$0")/.."
. make/report.sh
. make/checkout.sh

suite=${1:-trixie}
((EUID == 0)) || fail 'only root can make a root file system that packages are installed in' "sudo make fresh-root SUITE=$suite"
command -v mmdebstrap >/dev/null || fail 'mmdebstrap is not installed' 'apt-get install mmdebstrap'

# Where a proxy has a certificate authority of its own, the stranger's machine would know it, too.
authorities=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}

scratch=$(mktemp -d /var/tmp/colima-root-XXXXXX)
root=$scratch/root
trap 'rm -rf --one-file-system "$scratch"' EXIT
chmod 755 "$scratch"
stage "Making a Debian $suite with git and make"
mmdebstrap --quiet --mode=root --variant=apt --include=git,make "$suite" "$root"
git clone --quiet "$checkout" "$root/root/colima"
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp "$authorities" "$root/root/authorities.crt"

cat >"$scratch/stranger" <<'STRANGER'
set -eu
mount --rbind /dev "$1/dev"
mount --rbind /sys "$1/sys"
mount -t proc proc "$1/proc"
mount -t tmpfs -o mode=1777 tmp "$1/tmp"
exec chroot "$1" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
    SSL_CERT_FILE=/root/authorities.crt CARGO_HTTP_CAINFO=/root/authorities.crt \
    sh -euxc 'cd /root/colima; make start; make start; make clean-all; [ -z "$(git status --porcelain)" ]; make test'
STRANGER
stage 'Being a stranger in it'
# A process namespace of its own: what is left running ends with the first process.
unshare --mount --pid --fork --kill-child sh "$scratch/stranger" "$root" </dev/null
stage "A stranger with Debian $suite got what the README promises"
