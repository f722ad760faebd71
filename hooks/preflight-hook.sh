# shellcheck shell=sh
# What pre-update and post-update share: finding preflight, and calling it so that it cannot hang.
# POSIX sh; needs sleep, dirname, readlink, grep and id, and no other command.
#
# The caller has set `here`, the folder of this file, and calls
#
#     call_preflight VERB [OPTION...]
#
# whose return value is the exit status of preflight, 75 when the time limit ended it, and what
# `missing` says when there is no preflight.

: "${here:?preflight-hook.sh is read by pre-update and post-update}"
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}
export PATH

say() {
    printf 'preflight hook: %s\n' "$1" >&2
}

# Updaters start hooks without HOME now and then; `~name` asks the system's user database.
if [ -z "${HOME:-}" ]; then
    name=$(id -un 2>/dev/null)
    case $name in
    '' | *[!A-Za-z0-9._-]*) HOME= ;;
    *) eval "HOME=~$name" ;;
    esac
    # An unknown name leaves the tilde as it is; then Python asks the system once more.
    case $HOME in
    /*) export HOME ;;
    *) unset HOME ;;
    esac
fi

# Seconds until the hook ends a preflight that has not ended by itself, which is told a fifth less.
limit=${PREFLIGHT_HOOK_LIMIT:-150}
case $limit in
0* | *[!0-9]* | ??????*)
    say "PREFLIGHT_HOOK_LIMIT is not a number of seconds from 1 to 99999; taking 150"
    limit=150
    ;;
esac
timeout=$((limit * 4 / 5))
[ "$timeout" -gt 0 ] || timeout=1
# Between the request to end (TERM), on which preflight puts back what it changed, and KILL.
grace=$((limit / 15))
[ "$grace" -gt 0 ] || grace=1

call_preflight() {
    if [ -n "${PREFLIGHT_BIN:-}" ]; then
        if [ -f "$PREFLIGHT_BIN" ] && [ -x "$PREFLIGHT_BIN" ]; then
            limited "$PREFLIGHT_BIN" "$@" --timeout "$timeout"
        else
            missing "PREFLIGHT_BIN does not name a program"
        fi
    elif find_program; then
        limited "$program" "$@" --timeout "$timeout"
    elif command -v python3 >/dev/null 2>&1; then
        limited python3 -c "$as_module" "$@" --timeout "$timeout"
        status=$?
        [ "$status" -eq "$no_module" ] || return "$status"
        missing "preflight was not found; PREFLIGHT_BIN can name it"
    else
        missing "preflight was not found; PREFLIGHT_BIN can name it"
    fi
}

missing() {
    if [ "${PREFLIGHT_REQUIRED:-}" = 1 ]; then
        say "$1, and PREFLIGHT_REQUIRED=1 asks for it"
        return 10
    fi
    say "$1: nothing was checked"
    return 0
}

# Sets `program` to the first preflight of ours. Beside the hook: unpacked there, in a checkout's
# .venv, in the environment whose site-packages hold the hook.
find_program() {
    home=${HOME:-}
    data=${XDG_DATA_HOME:-$home/.local/share}
    for program in \
        "$here/preflight" \
        "$here/../.venv/bin/preflight" \
        "$here/../../../../../bin/preflight" \
        "$(command -v preflight 2>/dev/null)" \
        "${PIPX_BIN_DIR:-$home/.local/bin}/preflight" \
        "${UV_TOOL_BIN_DIR:-$home/.local/bin}/preflight" \
        "$home/.local/bin/preflight" \
        "${PIPX_HOME:-$data/pipx}/venvs/codex-preflight/bin/preflight" \
        "$home/.local/pipx/venvs/codex-preflight/bin/preflight" \
        "$home/Library/Application Support/pipx/venvs/codex-preflight/bin/preflight" \
        "${UV_TOOL_DIR:-$data/uv/tools}/codex-preflight/bin/preflight" \
        /opt/homebrew/bin/preflight \
        /usr/local/bin/preflight; do
        if [ -f "$program" ] && [ -x "$program" ] && is_ours "$program"; then
            return 0
        fi
    done
    return 1
}

# There are other programs of that name. Ours is a script that pip, pipx or uv has written; it is
# read, not started, because nobody knows what another one would do.
is_ours() {
    grep -q 'preflight\.cli' "$1" 2>/dev/null
}

# For an installation that has no script in any of those places. Looks for the distribution first,
# and not in the current folder: a module called preflight may be anybody's.
no_module=69
as_module='
import sys
sys.path = [place for place in sys.path if place]
try:
    from importlib import metadata
    metadata.version("codex-preflight")
except Exception:
    sys.exit(69)
from preflight.cli import main
sys.exit(main())
'

# Runs a command with stdin closed until it ends or `limit` seconds have passed. Returns its exit
# status; 75 when the limit ended it; 128+N when signal N reached the hook, after the command has ended.
# Leaves no process behind. A hook that is killed cannot: then the command ends by its own --timeout.
limited() {
    child=
    caught=
    late=0
    trap 'late=$((late + 1)); end_child' ALRM
    # Both are forked before the other traps are set: a TERM that reached one of them while it still has
    # our trap would be lost. One that reaches the hook in between ends it as if it had been killed.
    clock "$$" &
    clock=$!
    "$@" </dev/null &
    child=$!
    # A background command of a shell does not see the INT of a terminal: it is asked to end with TERM.
    trap 'caught=1; end_child' HUP
    trap 'caught=2; end_child' INT
    trap 'caught=15; end_child' TERM

    while :; do
        wait "$child" 2>/dev/null
        status=$?
        # A trapped signal ends `wait` too; then the command is still there.
        if [ "$status" -le 128 ] || ! kill -0 "$child" 2>/dev/null; then
            break
        fi
    done
    child=
    kill -TERM "$clock" 2>/dev/null
    wait "$clock" 2>/dev/null
    trap - ALRM HUP INT TERM

    if [ -n "$caught" ]; then
        return $((128 + caught))
    fi
    # Only for a command that really had to be ended: what answered at the last moment counts.
    if [ "$late" -gt 0 ] && [ "$status" -gt 128 ]; then
        say "no answer within $limit s; the next call puts back what this one may have left half done"
        return 75
    fi
    return "$status"
}

# Asks the command to end, and kills it when the clock has rung twice.
end_child() {
    if [ -z "$child" ]; then
        return 0
    elif [ "$late" -gt 1 ]; then
        kill -KILL "$child" 2>/dev/null
    else
        kill -TERM "$child" 2>/dev/null
    fi
}

# Rings (ALRM) at process $1 after `limit` seconds and again `grace` seconds later, until it gets TERM
# or the process is gone. It never rings for long at an id that is somebody else's by then: it looks
# every five seconds.
clock() {
    # A caller that reads our streams to the end must not wait for the clock. By `exec`: dash keeps what
    # a redirection of a function replaces open beside it.
    exec </dev/null >/dev/null 2>&1
    nap=
    stopped=
    trap '' HUP INT
    trap 'stopped=1; end_nap' TERM
    doze "$limit" "$1" && kill -ALRM "$1" && doze "$grace" "$1" && kill -ALRM "$1"
    exit 0
}

# Sleeps $1 seconds; fails as soon as the clock has been stopped or process $2 is gone.
doze() {
    left=$1
    while [ "$left" -gt 0 ]; do
        step=$((left < 5 ? left : 5))
        sleep "$step" &
        nap=$!
        # For a TERM between the fork and the assignment, whose trap did not know the nap yet.
        [ -z "$stopped" ] || end_nap
        wait "$nap"
        if [ -n "$stopped" ]; then
            wait "$nap" # the first one may have been ended by the trap, not by the nap
            return 1
        fi
        kill -0 "$2" || return 1
        left=$((left - step))
    done
}

# By KILL: a TERM may find the new process with our trap still in place, and be lost.
end_nap() {
    [ -z "$nap" ] || kill -KILL "$nap"
}
