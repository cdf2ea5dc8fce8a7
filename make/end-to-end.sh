# Sourced. The whole program against a real machine: one binary, one test at a time, its own home under target/.
# Its manifest entry says `test = false`, so that `cargo test` does not count it as passed without one.
# shellcheck shell=bash
# shellcheck disable=SC2154 # checkout.sh and docker-cli.sh define what they define

# Tests append one line "NAME: REASON" for what they could not check here.
export COLIMA_SKIPPED=$target/skipped.txt
skip() { printf '%s\n' "$1" >>"$COLIMA_SKIPPED"; }

# What shows that machines work over ssh as well, in the short form; the long form is everything.
over_ssh=(command_line::first_start containers::run_has containers::exec_sees streams::fifty ports::datagrams
    ports::servers_of command_line::ssh_passes hygiene::nobody_listens life::a_killed_daemon command_line::stop)

# end_to_end FORM LOG [TRANSPORT [CASE...]]: FORM is `short` or `long`; what is printed is appended to LOG.
end_to_end() {
    local form=$1 log=$2 transport=${3:-auto} cases=("${@:4}")
    use_own_colima
    export COLIMA_HOME=$target/e2e/home DOCKER_CONFIG=$target/e2e/docker-config
    require_short_path
    unset COLIMA_PROFILE
    mkdir -p "$COLIMA_HOME" "$DOCKER_CONFIG"
    require_docker_cli
    offer_buildx || skip 'docker buildx: no package docker-buildx for this distribution'
    if unpack_package docker-registry "$guest_suite"; then
        export COLIMA_TEST_REGISTRY=$unpacked/usr/bin/docker-registry
    else
        skip 'push and pull: no package docker-registry for this distribution'
    fi
    unpack_package busybox-static && export COLIMA_TEST_BUSYBOX=$unpacked
    COLIMA_E2E=$form COLIMA_E2E_TRANSPORT=$transport \
        "$CARGO" test --locked -p colima --test e2e -- --test-threads=1 --show-output "${cases[@]}" 2>&1 |
        tee -a "$log"
}
