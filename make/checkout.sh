# Sourced. Where everything of this checkout lives; all of it is under target/.
# shellcheck shell=bash
# shellcheck disable=SC2034 # read by the scripts that source this file

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$checkout" || exit

# The target directory is part of what the README promises, whatever the caller's own setting is.
target=$checkout/target
export CARGO_TARGET_DIR=$target
tools=$target/tools
colima=$target/release/colima
profile=try

# mkfs and friends are in directories that an ordinary user's PATH may lack.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# use_own_colima: from here on `colima` and `docker` see only this checkout's profile, cache and context.
use_own_colima() {
    export COLIMA_HOME=$target/home
    export COLIMA_CACHE_HOME=$target/cache
    export COLIMA_PROFILE=$profile
    export DOCKER_CONFIG=$target/docker-config
    unset DOCKER_HOST DOCKER_CONTEXT
    mkdir -p "$DOCKER_CONFIG"
}

# require_short_path: docker opens its socket by the path, and the path of a unix socket has 107 bytes
# (unix(7)). colima itself manages with longer ones; the docker command line does not.
require_short_path() {
    local socket=$COLIMA_HOME/$profile/docker.sock
    local length
    length=$(LC_ALL=C; printf '%s' "${#socket}")
    ((length <= 107)) || fail \
        "the path of this checkout is $((length - 107)) bytes too long: docker could not open $socket" \
        'move or clone it to a directory with a shorter path'
}
