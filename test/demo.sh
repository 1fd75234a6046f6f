#!/bin/bash
# demo.sh: from a bare Debian to a table in a bucket.
#
# usage: demo.sh           installs what is missing, builds, and shows an export
#        demo.sh psql      a session on the demo's server
#        demo.sh s3cmd ... an S3 client on the demo's bucket (s3cmd ls s3://demo)
#        demo.sh stop      ends both servers and removes all they wrote
#
# Needs root, or sudo for Debian's packages and "make install".  The PostgreSQL
# and the S3 server (Ceph RADOS Gateway) that it starts are throw-away ones, on
# loopback, in S3EXPORT_DEMO_DIR (/tmp/s3export-demo-USER); servers that are
# there already are left alone.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/test/lib/common.sh"
cd "$ROOT"

DIR=${S3EXPORT_DEMO_DIR:-/tmp/s3export-demo-$(id -un)}
DIR=${DIR%/}
BUCKET=demo
STEP=0

step() {
    STEP=$((STEP + 1))
    printf '\n%s\n' "--- $STEP. $*"
}

# shown COMMAND ARG...: says what it runs.
shown() {
    printf '$ %s\n' "$*"
    "$@"
}

psql() {
    "$PG_BIN/psql" -X -q -v ON_ERROR_STOP=1 "$@"
}

# sql STATEMENT [on]: says what it runs, with the names of variables and not their
# values: the keys come from the environment.
sql() {
    printf '%s\n' "$1" | sed '1s/^/demo=# /;2,$s/^/demo-# /'
    psql <<E
\\getenv access_key S3EXPORT_TEST_ACCESS_KEY_ID
\\getenv secret_key S3EXPORT_TEST_SECRET_ACCESS_KEY
\\getenv endpoint S3EXPORT_TEST_ENDPOINT
\\pset expanded ${2:-off}
$1
E
}

s3cmd() {
    command s3cmd --config="$DIR/s3cmd.conf" "$@"
}

write_s3cmd_conf() {
    local host=${S3EXPORT_TEST_ENDPOINT#http://}

    (
        umask 077
        cat >"$DIR/s3cmd.conf" <<E
[default]
access_key = $S3EXPORT_TEST_ACCESS_KEY_ID
secret_key = $S3EXPORT_TEST_SECRET_ACCESS_KEY
host_base = $host
host_bucket = $host
bucket_location = us-east-1
use_https = False
signature_v2 = False
progress_meter = False
E
    )
}

read_env() {
    if [ ! -f "$DIR/pg/env.sh" ] || [ ! -f "$DIR/rgw/env.sh" ]; then
        die "no demo is running in $DIR: start it with \"bash test/demo.sh\""
    fi
    # shellcheck disable=SC1091
    . "$DIR/rgw/env.sh"
    # shellcheck disable=SC1091
    . "$DIR/pg/env.sh"
    export PGDATABASE=demo
}

stop() {
    local server

    [ -d "$DIR" ] || { say "No demo is there in $DIR."; return; }
    private_directory "$DIR"
    for server in pg rgw; do
        bash test/lib/$server.sh stop "$DIR/$server"
    done
    rm -f "$DIR"/{s3cmd.conf,build.log,trips.csv}
    rmdir "$DIR"
    say "Stopped, and $DIR is removed. \"make uninstall\" removes the extension too."
}

# A demo that fails half-way leaves no server behind.
abandon() {
    if [ -z "${FINISHED:-}" ]; then
        say "The demo did not get to its end; its servers are ended."
        stop
    fi
}

quietly() {
    "$@" >"$DIR/build.log" 2>&1 || {
        cat "$DIR/build.log" >&2
        die "\"$*\" failed"
    }
}

show() {
    local begin=$SECONDS uri

    [ ! -e "$DIR/pg" ] ||
        die "a demo is in $DIR already: look around in it, or end it with \"bash test/demo.sh stop\""
    private_directory "$DIR"
    on_exit abandon

    step "Install what is missing, build the extension, install it"
    need_build_tools
    need_rgw
    need_packages s3cmd
    printf '$ %s\n' "make && make install    # with $("$PG_CONFIG" --version)"
    quietly make -s PG_CONFIG="$PG_CONFIG"
    quietly as_root make -s PG_CONFIG="$PG_CONFIG" install

    step "Start a throw-away PostgreSQL and a throw-away S3 server"
    shown bash test/lib/pg.sh start "$DIR/pg"
    shown env RGW_BUCKET="$BUCKET" bash test/lib/rgw.sh start "$DIR/rgw"
    PGDATABASE=postgres
    read_env
    write_s3cmd_conf
    psql -d postgres -c "CREATE DATABASE demo"

    step "Make the extension, and a table of a million rows"
    sql "CREATE EXTENSION s3export;"
    sql "CREATE TABLE trips AS
  SELECT n AS id,
         timestamptz '2026-01-01' + n * interval '31 seconds' AS started_at,
         'rider ' || n % 5000 AS rider,
         round((random() * 40)::numeric, 2) AS km,
         CASE n % 4 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN 'said \"hello, world\"'
                    ELSE 'plain' END AS note
    FROM generate_series(1, 1000000) n;"

    step "Name a place in S3: a connector. Its keys are tested before it is saved"
    sql "SELECT s3export.create_connector(
    name => 'lake', bucket => '$BUCKET', folder_path => 'exports',
    endpoint_url => :'endpoint', region => 'us-east-1',
    access_key_id => :'access_key', secret_access_key => :'secret_key');"
    sql "SELECT * FROM s3export.test_credentials('lake');" on

    step "Export the table, and the result of a query"
    sql "SELECT * FROM s3export.copy_to('lake', 'trips', 'trips.csv');" on
    sql "SELECT * FROM s3export.copy_to('lake',
    'SELECT rider, count(*) AS trips, sum(km) AS km FROM trips GROUP BY rider',
    'riders.csv');" on

    step "See what came to be: in S3, fetched with an ordinary client ..."
    shown s3cmd ls --recursive "s3://$BUCKET/"
    uri=$(s3cmd ls --recursive "s3://$BUCKET/" | awk '/trips\.csv$/ { print $NF }')
    [ -n "$uri" ] || die "trips.csv is not in the bucket"
    shown s3cmd get --quiet "$uri" "$DIR/trips.csv"
    shown head -n 5 "$DIR/trips.csv"
    shown wc -l "$DIR/trips.csv"
    # Several processes send rows, and a table has no order: lines are compared.
    cmp <(psql -c "COPY trips TO STDOUT (FORMAT csv, HEADER)" | LC_ALL=C sort) \
        <(LC_ALL=C sort "$DIR/trips.csv") || die "the object is not what COPY writes"
    say "It has, byte for byte, the lines that COPY writes."
    rm "$DIR/trips.csv"

    step "... and in PostgreSQL"
    sql "SELECT * FROM s3export.jobs ORDER BY job_id;" on

    FINISHED=yes
    cat <<E

Done, in $((SECONDS - begin)) s. Both servers go on running, until you stop them:

    bash test/demo.sh psql                    a session, to try more (\\dx+ s3export)
    bash test/demo.sh s3cmd ls s3://$BUCKET     the bucket
    bash test/demo.sh stop                    end both servers, remove $DIR

The extension is in $("$PG_CONFIG" --version): CREATE EXTENSION s3export works in its other servers as well.
E
}

case ${1:-start} in
    start) show ;;
    stop) stop ;;
    psql | s3cmd)
        read_env
        find_postgres || die "could not find PostgreSQL"
        PG_BIN=$("$PG_CONFIG" --bindir)
        command=$1
        shift
        if [ "$command" = psql ]; then
            exec "$PG_BIN/psql" "$@"
        fi
        s3cmd "$@"
        ;;
    *)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2
        exit 2
        ;;
esac
