# shellcheck shell=bash disable=SC2034
# common.sh: what the scripts of test/ share.  Source it; it runs nothing.
#
# Servers run as an ordinary user, listen on loopback only, and keep all they
# write in one directory, which is also their working directory: that is how
# left-over processes are told from everybody else's.

S3EXPORT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Debian's own: botocore and ceph belong to it, whichever python3 is first in PATH.
PYTHON=/usr/bin/python3

say() {
    printf '%s\n' "$*"
}

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# --------------------------------------------------------------- clean-up

ON_EXIT=()

# on_exit COMMAND ARG...: run when the script ends, however it ends; last in, first out.
on_exit() {
    if [ ${#ON_EXIT[@]} -eq 0 ]; then
        trap run_on_exit EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM HUP
    fi
    ON_EXIT+=("$(printf '%q ' "$@")")
}

run_on_exit() {
    local status=$? i

    trap '' INT TERM HUP
    trap - EXIT
    for ((i = ${#ON_EXIT[@]} - 1; i >= 0; i--)); do
        eval "${ON_EXIT[i]}" || true
    done
    exit "$status"
}

# ------------------------------------------------------------------ users

is_root() {
    [ "$(id -u)" -eq 0 ]
}

# as_root COMMAND ARG...: directly, or through sudo.
as_root() {
    if is_root; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "\"$1\" has to run as root: run this script as root, or install sudo"
    fi
}

# server_user: who runs PostgreSQL, which refuses to run as root.
server_user() {
    if ! is_root; then
        id -un
    elif id -u postgres >/dev/null 2>&1; then
        echo postgres
    else
        echo nobody
    fi
}

# as_server COMMAND ARG...: as server_user.
as_server() {
    local user

    if is_root; then
        user=$(server_user)
        setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups \
            env HOME=/nonexistent USER="$user" LOGNAME="$user" "$@"
    else
        "$@"
    fi
}

# server_directory DIR: makes a directory that belongs to server_user.
server_directory() {
    mkdir -p "$1"
    if is_root; then
        chown "$(server_user):" "$1"
    fi
    chmod 700 "$1"
}

# ---------------------------------------------------------------- packages

# need_packages PACKAGE...: installs those that are missing.  No service of
# theirs is started and no database cluster is created.
need_packages() {
    local package missing=()

    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "Installing from Debian: ${missing[*]}"
    as_root bash -s -- "${missing[@]}" <<'EOS'
set -eu
policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.d
made=()
cleanup() {
    for ((i = ${#made[@]} - 1; i >= 0; i--)); do
        if [ -d "${made[i]}" ]; then
            rmdir --ignore-fail-on-non-empty "${made[i]}"
        else
            rm -f "${made[i]}"
        fi
    done
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP
if [ ! -e "$policy" ]; then
    made+=("$policy")
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
for dir in "${cluster%/*}" "$cluster"; do
    if [ ! -d "$dir" ]; then
        made+=("$dir")
        mkdir "$dir"
    fi
done
made+=("$cluster/s3export-tests.conf")
echo 'create_main_cluster = false' >"$cluster/s3export-tests.conf"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
made+=("$log")
apt() {
    apt-get -q -o DPkg::Lock::Timeout=300 "$@" </dev/null >"$log" 2>&1 || {
        cat "$log" >&2
        return 1
    }
}
apt update
apt install -y --no-install-recommends "$@"
EOS
}

# need_library PKG-CONFIG-NAME PACKAGE: whichever package it is already from.
need_library() {
    pkg-config --exists "$1" || need_packages "$2"
}

# major_of PG_CONFIG: the major version of that PostgreSQL, 0 when it does not run.
major_of() {
    local major

    major=$("$1" --version 2>/dev/null | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p')
    echo "${major:-0}"
}

# is_supported MAJOR
is_supported() {
    [ "$1" -ge 15 ] && [ "$1" -le 18 ]
}

# find_postgres: sets PG_CONFIG to the newest PostgreSQL with a server that
# s3export supports, or to the caller's PG_CONFIG.  Fails when there is none.
find_postgres() {
    local candidate best=0 major

    if [ -n "${PG_CONFIG:-}" ]; then
        is_supported "$(major_of "$PG_CONFIG")" ||
            die "PG_CONFIG=$PG_CONFIG is not of PostgreSQL 15 to 18"
        return 0
    fi
    for candidate in "$(command -v pg_config || true)" /usr/lib/postgresql/*/bin/pg_config; do
        [ -x "$candidate" ] || continue
        major=$(major_of "$candidate")
        if is_supported "$major" && [ "$major" -gt "$best" ] &&
            [ -x "$("$candidate" --bindir)/postgres" ]; then
            best=$major
            PG_CONFIG=$candidate
        fi
    done
    [ "$best" -gt 0 ]
}

# need_postgres: a server and its development files; sets PG_CONFIG, PG_BIN and PG_MAJOR.
need_postgres() {
    local version

    if ! find_postgres; then
        # shellcheck disable=SC2016
        as_root sh -c 'apt-cache show postgresql >/dev/null 2>&1 || apt-get -q update >/dev/null'
        version=$(apt-cache depends postgresql | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p')
        is_supported "${version:-0}" ||
            die "this system's PostgreSQL is ${version:-not there}; s3export is for 15 to 18"
        need_packages "postgresql-$version"
        find_postgres || die "postgresql-$version is installed, and its pg_config is not found"
    fi
    if [ ! -f "$("$PG_CONFIG" --includedir-server)/postgres.h" ] ||
        [ ! -f "$("$PG_CONFIG" --pgxs)" ]; then
        need_packages "postgresql-server-dev-$(major_of "$PG_CONFIG")"
    fi
    PG_MAJOR=$(major_of "$PG_CONFIG")
    PG_BIN=$("$PG_CONFIG" --bindir)
    export PG_CONFIG PG_BIN PG_MAJOR
}

need_build_tools() {
    need_packages gcc libc6-dev make pkg-config
    need_library libcurl libcurl4-openssl-dev
    need_library libcrypto libssl-dev
    need_library expat libexpat1-dev
    need_library libisal libisal-dev
    need_library libzstd libzstd-dev
    need_library liblz4 liblz4-dev
    need_postgres
}

need_rgw() {
    need_packages ceph-mon ceph-osd radosgw ceph-common python3 python3-botocore
}

need_fuzzer() {
    need_packages clang libclang-rt-dev
    need_library zlib zlib1g-dev
}

need_nginx() {
    # Whichever nginx is there stays; "nginx-light" and the like exclude each other.
    need_packages nginx libnginx-mod-http-echo openssl
}

# ------------------------------------------------------------- directories

# state_directory COMMAND DIR: sets DIR to its absolute path; start makes it.
state_directory() {
    [ "$1" != start ] || mkdir -p "$2"
    if [ ! -d "$2" ]; then
        [ "$1" != stop ] || exit 0
        die "there is no directory \"$2\""
    fi
    DIR=$(cd "$2" && pwd -P)
}

# empty_directory DIR: its own name stays, so that whoever made it removes it.
empty_directory() {
    find "$1" -mindepth 1 -delete
}

# private_directory DIR: makes it, and insists that it is the caller's own, so
# that nobody can have prepared it at a name that is easily guessed.
private_directory() {
    [ -d "$1" ] || mkdir "$1"
    if [ -L "$1" ] || [ ! -O "$1" ]; then
        die "\"$1\" belongs to somebody else: remove it, or choose another directory"
    fi
    # The server's user has to pass through, and only that.
    chmod 711 "$1"
}

# ------------------------------------------------------- ports, processes

PORTS_TAKEN=' '

# free_port VARIABLE: a TCP port on which nothing listens, below those that the
# system gives to outgoing connections; never the same one twice.
free_port() {
    local candidate hex tries

    for ((tries = 0; tries < 1000; tries++)); do
        candidate=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
        printf -v hex '%04X' "$candidate"
        if [[ $PORTS_TAKEN != *" $candidate "* ]] &&
            ! grep -qsE "^ *[0-9]+: [0-9A-F]+:$hex " /proc/net/tcp /proc/net/tcp6; then
            PORTS_TAKEN+="$candidate "
            printf -v "$1" '%s' "$candidate"
            return 0
        fi
    done
    die "could not find a free port"
}

# alive PID: a zombie that nobody reaps is not.
alive() {
    [ -r "/proc/$1/status" ] && ! grep -qs '^State:[[:space:]]*Z' "/proc/$1/status"
}

# within SECONDS COMMAND ARG...: polls until the command succeeds.
within() {
    local deadline=$((SECONDS + $1))

    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

gone() {
    ! alive "$1"
}

# descendants PID: its children, theirs, and so on, youngest last.
descendants() {
    local child children

    read -r -d '' -a children < <(cat "/proc/$1/task"/*/children 2>/dev/null) || true
    for child in "${children[@]}"; do
        echo "$child"
        descendants "$child"
    done
}

# spawn PIDFILE LOG COMMAND ARG...: a daemon of its own session.
spawn() {
    local pidfile=$1 log=$2

    shift 2
    setsid "$@" </dev/null >>"$log" 2>&1 &
    echo $! >"$pidfile"
}

# stop_pid PIDFILE MARK [SECONDS]: ends the process if its command line still has MARK.
stop_pid() {
    local pid

    [ -s "$1" ] || return 0
    pid=$(cat "$1")
    if alive "$pid" && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "$2"; then
        kill "$pid" 2>/dev/null || true
        within "${3:-10}" gone "$pid" || kill -9 "$pid" 2>/dev/null || true
        within 5 gone "$pid" || true
    fi
    rm -f "$1"
}

# processes_in DIR: pids of the processes whose working directory is below DIR.
# The caller's own should not be.
processes_in() {
    local entry cwd

    for entry in /proc/[0-9]*; do
        cwd=$(readlink "$entry/cwd" 2>/dev/null) || continue
        case ${cwd% (deleted)} in
            "$1" | "$1"/*) alive "${entry#/proc/}" && echo "${entry#/proc/}" ;;
        esac
    done
    return 0
}

# end_processes_in DIR: ends them, politely first.
end_processes_in() {
    local signal pid pids

    for signal in TERM INT KILL; do
        pids=$(processes_in "$1")
        [ -n "$pids" ] || return 0
        for pid in $pids; do
            kill -s "$signal" "$pid" 2>/dev/null || true
        done
        within 2 no_processes_in "$1" && return 0
    done
    return 0
}

no_processes_in() {
    [ -z "$(processes_in "$1")" ]
}
