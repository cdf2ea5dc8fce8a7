#!/usr/bin/env bash
# make start: from nothing but git and make to a container that ran in a virtual machine.
set -euo pipefail
cd "$(dirname "$0")/.."
. make/report.sh
. make/checkout.sh
. make/apt.sh
. make/cargo.sh
. make/prepare.sh
. make/build-workspace.sh
. make/docker-cli.sh

stage 'Looking at this host'
use_own_colima
require_short_path
prepare_host needed_for_building needed_for_running

stage 'Building colima and the guest program'
build_programs
require_docker_cli
cat >"$target/env" <<EOF
# Source this: the docker and colima of this checkout's machine, and nothing of yours.
export COLIMA_HOME='$COLIMA_HOME' COLIMA_CACHE_HOME='$COLIMA_CACHE_HOME' COLIMA_PROFILE='$COLIMA_PROFILE'
export DOCKER_CONFIG='$DOCKER_CONFIG'
unset DOCKER_HOST DOCKER_CONTEXT
PATH='$target/release:$(dirname "$(command -v docker)"):'\$PATH
EOF

if "$colima" status >/dev/null 2>&1 && docker image inspect hello >/dev/null 2>&1; then
    stage 'The machine is already there'
else
    stage "Starting the machine of profile $profile"
    "$colima" start --mount none
    stage 'Making a container image from the package busybox-static'
    unpack_package busybox-static || fail 'cannot fetch busybox-static'
    rootfs=$target/hello
    rm -rf "$rootfs"
    mkdir -p "$rootfs/bin"
    cp "$unpacked/bin/busybox" "$rootfs/bin/" 2>/dev/null || cp "$unpacked/usr/bin/busybox" "$rootfs/bin/"
    ln -s busybox "$rootfs/bin/sh"
    tar -C "$rootfs" --owner=0 --group=0 --numeric-owner -c . | docker import - hello >/dev/null
    rm -rf "$rootfs"
    stage 'docker run --rm hello'
    docker run --rm hello /bin/busybox sh -c \
        "echo \"Hello from a container on Linux \$(/bin/busybox uname -r), in a machine of its own.\""
fi

stage "docker answers: version $(docker version --format '{{.Server.Version}}')"
note 'To use it:          . target/env && docker ps'
note 'To stop it:         . target/env && colima stop'
note 'To remove all of it: make clean-all'
