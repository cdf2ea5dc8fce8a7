# Sourced. What a person reads while a script runs: stages with the time, and errors with the next step.
# shellcheck shell=bash

report_began=$SECONDS

# stage TEXT: a new step begins.
stage() {
    printf '[%4ds] %s\n' "$((SECONDS - report_began))" "$*"
}

# note TEXT: one more fact about the step.
note() {
    printf '        %s\n' "$*"
}

# fail TEXT [LINE...]: ends the script; each LINE is something to type.
fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    if (($#)); then
        printf '       %s\n' "$@" >&2
    fi
    exit 1
}

# confirm QUESTION LINE: yes from a terminal goes on. Without a terminal nobody can be asked, so the
# script ends and names the LINE that does it.
confirm() {
    if [[ ! -t 0 || ! -t 1 ]]; then
        fail "$1 Nobody is there to say yes, so nothing was changed." "to do it yourself: $2"
    fi
    local answer
    read -r -p "$1 [y/N] " answer
    [[ $answer == [yY]* ]] || fail 'nothing was changed' "to do it yourself: $2"
}
