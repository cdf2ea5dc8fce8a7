# Sourced. The docker command line: the host's, or one unpacked under target/tools. No daemon is installed.
# shellcheck shell=bash
# shellcheck disable=SC2154 # checkout.sh defines `tools`

# The suite of the guest: its command line fits its daemon.
guest_suite=trixie

# require_docker_cli: afterwards `docker` is in PATH.
require_docker_cli() {
    command -v docker >/dev/null && return
    # Debian 13 has the command line alone; older Debian gets that one, Ubuntu has it inside docker.io.
    if [[ -z $(package_candidate bash) ]]; then refresh_package_lists; fi
    local unpacked
    unpack_package docker-cli "$guest_suite" || unpack_package docker.io ||
        fail 'cannot fetch a docker command line' 'install one, or: apt-get install docker-cli'
    PATH=$unpacked/usr/bin:$PATH
}

# offer_buildx: makes the buildx plugin available to this checkout's docker configuration; false when the
# distribution has none.
offer_buildx() {
    docker buildx version >/dev/null 2>&1 && return
    local unpacked plugins=$DOCKER_CONFIG/cli-plugins
    unpack_package docker-buildx "$guest_suite" || return 1
    mkdir -p "$plugins"
    ln -sf "$unpacked/usr/libexec/docker/cli-plugins/docker-buildx" "$plugins/docker-buildx"
    docker buildx version >/dev/null 2>&1
}
