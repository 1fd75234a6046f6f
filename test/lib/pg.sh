#!/bin/bash
# pg.sh: a throw-away PostgreSQL server.
#
# usage: pg.sh start DIR | stop DIR | status DIR
#
# All state is in DIR: data/, log, and env.sh with PGHOST (a socket directory,
# open to the server's user and root only), PGPORT, PGUSER and PGDATABASE.  The
# same port on 127.0.0.1 asks for the password in DIR/pgpass.
#
# settings: PG_CONFIG     which PostgreSQL
#           PG_LOG_LEVEL  of log_min_messages; warning
#           PG_FSYNC      off
#           PG_CONF       more lines for postgresql.conf
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

[ $# -eq 2 ] || usage
state_directory "$1" "$2"
DATA=$DIR/data

write_settings() {
    # SQL text is kept out of the log: what users type into a statement, a key
    # among it, is theirs.  All that s3export itself says is logged.
    cat <<E
listen_addresses = '127.0.0.1'
port = $1
unix_socket_directories = '$DIR'
logging_collector = off
log_destination = stderr
log_line_prefix = '%m [%p] %q%a '
log_min_messages = ${PG_LOG_LEVEL:-warning}
log_statement = none
log_min_error_statement = panic
fsync = ${PG_FSYNC:-off}
max_worker_processes = 16
max_connections = 60
wal_level = logical
${PG_CONF:-}
E
    # Where the server has a list of the libraries that may decode.
    ! "$PG_BIN/postgres" --describe-config | grep '^output_plugin_libraries' >/dev/null ||
        echo "output_plugin_libraries = 'pgoutput, test_decoding, wal2json, s3export'"
}

start() {
    local port password

    find_postgres || die "could not find PostgreSQL 15 to 18"
    PG_BIN=$("$PG_CONFIG" --bindir)
    [ ! -e "$DATA" ] || die "$DIR holds a server already; stop it first"
    # sun_path has 108 bytes.
    [ ${#DIR} -le 80 ] || die "the path \"$DIR\" is too long for a Unix socket"
    server_directory "$DIR"
    server_directory "$DATA"
    as_server test -w "$DATA" || die "user $(server_user) cannot reach $DIR: its parents must let it in"
    free_port port
    password=$(head -c 18 /dev/urandom | base64)
    (
        umask 077
        echo "127.0.0.1:$port:*:postgres:$password" >"$DIR/pgpass"
        printf '%s\n' "$password" >"$DIR/password"
    )
    ! is_root || chown "$(server_user):" "$DIR/password"
    cd "$DIR"
    as_server "$PG_BIN/initdb" -D "$DATA" -U postgres --pwfile="$DIR/password" \
        --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 \
        --no-sync >"$DIR/initdb.out" 2>&1 || {
        cat "$DIR/initdb.out" >&2
        die "initdb failed"
    }
    rm -f "$DIR/password"
    write_settings "$port" >>"$DATA/postgresql.conf"
    as_server "$PG_BIN/pg_ctl" -s -w -t 60 -D "$DATA" -l "$DIR/log" start || {
        tail -n 30 "$DIR/log" >&2
        die "could not start PostgreSQL"
    }
    cat >"$DIR/env.sh" <<E
export PGHOST=$DIR
export PGPORT=$port
export PGUSER=postgres
export PGDATABASE=postgres
E
    say "pg.sh: PostgreSQL $(major_of "$PG_CONFIG") is up on port $port; see $DIR/env.sh"
}

postmaster() {
    head -n 1 "$DATA/postmaster.pid" 2>/dev/null
}

stop() {
    local pid

    pid=$(postmaster || true)
    if [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd")" = "$DATA" ]; then
        kill -INT "$pid"
        within 30 gone "$pid" || kill -QUIT "$pid"
        within 10 gone "$pid" || true
    fi
    # Only what start made is removed.
    [ ! -f "$DIR/initdb.out" ] || rm -rf "$DATA" "$DIR"/{log,env.sh,pgpass,initdb.out}
    rmdir "$DIR" 2>/dev/null || true
}

status() {
    local pid

    pid=$(postmaster || true)
    if [ -n "$pid" ] && alive "$pid"; then
        say "postgres: pid $pid"
    else
        say "postgres: not running"
        return 1
    fi
}

case $1 in
    start) start ;;
    stop) stop ;;
    status) status ;;
    *) usage ;;
esac
