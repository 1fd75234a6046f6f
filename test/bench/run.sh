#!/bin/bash
# run.sh: how fast s3export is, beside COPY and what people do with COPY today.
#
# usage: run.sh [all | formatter | export | single | scaling | currents]...
#
#   formatter   the CSV receiver alone, beside COPY to /dev/null
#   export      end to end into nginx (http, https) and Ceph RGW, beside COPY TO
#               PROGRAM and psql with the AWS CLI and rclone, plain and gzipped;
#               with CPU time and memory of each process
#   single      how long an export of one row takes, into nginx (http) and Ceph RGW
#   scaling     time by rows, columns, workers, and the store's distance
#   currents    deliveries of changes, beside pg_recvlogical with test_decoding and wal2json
#
# Builds and installs this tree.  Servers and data are throw-away ones.  Tables in
# Markdown go to standard output; they, the charts (SVG) and every single
# measurement (JSON) are left in BENCH_RESULTS.  With BENCH_SMALL=yes nothing is
# measured that is worth reading, but everything has run, in about a minute a part.
#
# settings: BENCH_MB             megabytes of CSV of each table; 1000
#           BENCH_ROUNDS         5, after BENCH_WARM_UP (1) that are not counted
#           BENCH_RESULTS        a directory; one below TMPDIR, named by the time
#           BENCH_DIR            where the servers' data goes; TMPDIR.  Needs about
#                                ten times BENCH_MB, and for scaling 80 bytes a row
#           BENCH_TABLES         accounts lineitem events wide toasted quoted
#           BENCH_EXPORT_TABLES  lineitem events
#           BENCH_SINKS          http https rgw
#           BENCH_RIVALS         aws rclone psql; ratios are to aws
#           BENCH_PARALLEL       scan processes of a parallel export, the session's among
#                                them; one for each core
#           BENCH_CHARTS         rows columns workers latency
#           BENCH_ROWS           100000, times BENCH_FACTORS (1 10 100 1000)
#           BENCH_WORKERS        0, 1, ... twice the cores
#           BENCH_DELAYS         milliseconds of the store; 0 10 30 100
#           BENCH_CONNECTION_MB  megabytes per second of one connection to it; 90
#           BENCH_PARTS          parts in flight to it; 1 4 16
#           BENCH_CURRENTS_TABLES       lineitem events
#           BENCH_CURRENTS_ROWS         of each of them; 2000000
#           BENCH_CURRENTS_TRANSACTION  rows of a transaction; 1000
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$ROOT/test/lib/common.sh"
LIB=$ROOT/test/lib
BENCH=$ROOT/test/bench

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

[ $# -gt 0 ] || set -- all
PARTS=()
for part in "$@"; do
    case $part in
        all) PARTS+=(formatter export single scaling currents) ;;
        formatter | export | single | scaling | currents) PARTS+=("$part") ;;
        *) usage ;;
    esac
done

if [ -n "${BENCH_SMALL:-}" ]; then
    : "${BENCH_MB:=2}" "${BENCH_ROUNDS:=1}" "${BENCH_WARM_UP:=0}" "${BENCH_EXPORT_TABLES:=lineitem}"
    : "${BENCH_CURRENTS_ROWS:=20000}" "${BENCH_ROWS:=10}" "${BENCH_WORKERS:=0 1}" "${BENCH_DELAYS:=0 10}" "${BENCH_PARTS:=1 4}"
fi
CORES=$(nproc)
export BENCH_MB=${BENCH_MB:-1000}
export BENCH_ROUNDS=${BENCH_ROUNDS:-5}
export BENCH_WARM_UP=${BENCH_WARM_UP:-1}
export BENCH_RESULTS=${BENCH_RESULTS:-${TMPDIR:-/tmp}/s3export-bench-$(date +%Y%m%d-%H%M%S)}
export BENCH_TABLES=${BENCH_TABLES:-accounts lineitem events wide toasted quoted}
export BENCH_EXPORT_TABLES=${BENCH_EXPORT_TABLES:-lineitem events}
export BENCH_SINKS=${BENCH_SINKS:-http https rgw}
export BENCH_RIVALS=${BENCH_RIVALS:-aws rclone psql}
export BENCH_CHARTS=${BENCH_CHARTS:-rows columns workers latency}
export BENCH_PARALLEL=${BENCH_PARALLEL:-$CORES}
export BENCH_ROWS=${BENCH_ROWS:-100000}
export BENCH_FACTORS=${BENCH_FACTORS:-1 10 100 1000}
export BENCH_WORKERS=${BENCH_WORKERS:-$(seq -s ' ' 0 $((2 * CORES)))}
export BENCH_DELAYS=${BENCH_DELAYS:-0 10 30 100}
export BENCH_CONNECTION_MB=${BENCH_CONNECTION_MB:-90}
export BENCH_PARTS=${BENCH_PARTS:-1 4 16}
export BENCH_CURRENTS_TABLES=${BENCH_CURRENTS_TABLES:-lineitem events}
export BENCH_CURRENTS_ROWS=${BENCH_CURRENTS_ROWS:-2000000}
export BENCH_CURRENTS_TRANSACTION=${BENCH_CURRENTS_TRANSACTION:-1000}
export PYTHON PYTHONDONTWRITEBYTECODE=1

wants() {
    [[ " ${PARTS[*]} " == *" $1 "* ]]
}

wants_sink() {
    { wants export || wants single; } && [[ " $BENCH_SINKS " == *" $1 "* ]]
}

cleanup() {
    cd /
    end_processes_in "$DIR"
    rm -rf "$DIR"
}

psql() {
    "$PG_BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 "$@"
}

packages() {
    need_build_tools
    need_packages python3
    need_nginx
    if wants export || wants scaling; then need_packages awscli; fi
    ! wants export || need_packages rclone
    ! wants currents || need_packages "postgresql-$PG_MAJOR-wal2json"
    ! wants_sink rgw || need_rgw
}

# The tree as it is, with the flags that users get.
build() {
    {
        make -s -C "$ROOT" PG_CONFIG="$PG_CONFIG" clean &&
            make -s -j2 -C "$ROOT" PG_CONFIG="$PG_CONFIG" &&
            as_root make -s -C "$ROOT" PG_CONFIG="$PG_CONFIG" install &&
            cp -r "$ROOT/test/csv_probe" probe &&
            make -s -C probe PG_CONFIG="$PG_CONFIG" SRC="$ROOT/src" clean &&
            make -s -j2 -C probe PG_CONFIG="$PG_CONFIG" SRC="$ROOT/src" &&
            gcc -O2 -o throttle "$LIB/throttle.c" -lpthread
    } >build.log 2>&1 || {
        cat build.log >&2
        die "could not build"
    }
    chmod 755 probe
    export BENCH_PROBE=$DIR/probe/csv_probe BENCH_THROTTLE=$DIR/throttle
}

# A table larger than a quarter of the shared buffers would be read through a
# small ring of them.
start_postgres() {
    local memory buffers=$((6 * BENCH_MB))

    memory=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
    [ "$buffers" -lt $((memory * 2 / 5)) ] || buffers=$((memory * 2 / 5))
    [ "$buffers" -gt 256 ] || buffers=256
    PG_CONF="shared_buffers = ${buffers}MB
max_wal_size = 8GB
checkpoint_timeout = 1h
autovacuum = off
jit = off
max_parallel_workers_per_gather = 0
s3export.ca_file = '$DIR/sink/ca.pem'
max_replication_slots = 100
" bash "$LIB/pg.sh" start "$DIR/pg"
    # shellcheck disable=SC1091
    . "$DIR/pg/env.sh"
    psql -c 'CREATE EXTENSION s3export'
    BENCH_POSTMASTER=$(head -n 1 "$DIR/pg/data/postmaster.pid")
    export BENCH_POSTMASTER
}

# connect NAME BUCKET URL: the keys come from the environment.  Connector NAME-unsigned
# does not sign bodies.
connect() {
    psql -o /dev/null -v name="$1" -v bucket="$2" -v url="$3" <<'E'
\getenv access_key BENCH_ACCESS_KEY_ID
\getenv secret_key BENCH_SECRET_ACCESS_KEY
SELECT s3export.create_connector(:'name', :'bucket', folder_path => 'bench',
    endpoint_url => :'url', region => 'us-east-1', validate => false,
    access_key_id => :'access_key', secret_access_key => :'secret_key');
SELECT s3export.create_connector(:'name' || '-unsigned', :'bucket', folder_path => 'unsigned',
    endpoint_url => :'url', region => 'us-east-1', validate => false, payload_signing => 'unsigned',
    credentials_from => :'name');
E
    write_programs "$@"
}

write_restart() {
    cat >programs/restart-postgres <<E
#!/bin/bash
set -euo pipefail
. "$LIB/common.sh"
cd "$DIR/pg"
as_server "$PG_BIN/pg_ctl" -s -w -m fast -D "$DIR/pg/data" -l "$DIR/pg/log" restart
E
    chmod 755 programs/restart-postgres
}

# write_programs NAME BUCKET URL: aws-NAME and rclone-NAME, which send their input
# to a key; each with the defaults of a new installation, whatever proxy or
# certificates the environment has for the rest of the world.  rclone is told not to
# speak HTTP/2, which S3 does not, and not to look for what a sink has dropped.
write_programs() {
    local name=$1 bucket=$2 url=$3 blind=

    [ "$bucket" != null ] || blind='--s3-no-head --ignore-size --size-only'

    cat >"programs/$name.aws" <<E
[default]
region = us-east-1
aws_access_key_id = $BENCH_ACCESS_KEY_ID
aws_secret_access_key = $BENCH_SECRET_ACCESS_KEY
E
    cat >"programs/$name.rclone" <<E
[s3]
type = s3
provider = Other
region = us-east-1
endpoint = $url
access_key_id = $BENCH_ACCESS_KEY_ID
secret_access_key = $BENCH_SECRET_ACCESS_KEY
no_check_bucket = true
E
    cat >"programs/aws-$name" <<E
#!/bin/sh
exec env -i PATH=/usr/bin:/bin AWS_CONFIG_FILE=$DIR/programs/$name.aws \\
    AWS_SHARED_CREDENTIALS_FILE=$DIR/programs/$name.aws AWS_EC2_METADATA_DISABLED=true \\
    AWS_CA_BUNDLE=$DIR/sink/ca.pem \\
    aws --endpoint-url "\${2:-$url}" s3 cp --only-show-errors - "s3://$bucket/\$1"
E
    cat >"programs/rclone-$name" <<E
#!/bin/sh
exec env -i PATH=/usr/bin:/bin HOME=$DIR/programs \\
    rclone --config $DIR/programs/$name.rclone --ca-cert $DIR/sink/ca.pem --disable-http2 \\
    --quiet $blind rcat "s3:$bucket/\$1"
E
    chmod 600 "programs/$name.aws" "programs/$name.rclone"
    chmod 755 "programs/aws-$name" "programs/rclone-$name"
    ! is_root || chown "$(server_user):" programs/*
}

# Sinks that drop what they get look at no key, and answer no test.
start_sinks() {
    server_directory "$DIR/programs"
    bash "$LIB/nginx_sink.sh" start "$DIR/sink"
    # shellcheck disable=SC1091
    . "$DIR/sink/env.sh"
    export S3EXPORT_SINK_HTTP BENCH_ACCESS_KEY_ID=SINK BENCH_SECRET_ACCESS_KEY=none-is-checked-here
    connect http null "$S3EXPORT_SINK_HTTP"
    connect https null "$S3EXPORT_SINK_HTTPS"
    write_restart
    if wants_sink rgw; then
        RGW_STORE=bluestore bash "$LIB/rgw.sh" start "$DIR/rgw"
        # shellcheck disable=SC1091
        . "$DIR/rgw/env.sh"
        BENCH_ACCESS_KEY_ID=$S3EXPORT_TEST_ACCESS_KEY_ID
        BENCH_SECRET_ACCESS_KEY=$S3EXPORT_TEST_SECRET_ACCESS_KEY
        connect rgw "$S3EXPORT_TEST_BUCKET" "$S3EXPORT_TEST_ENDPOINT"
    fi
}

# What the figures are of, in one paragraph.
describe() {
    local version

    version=$(git -C "$ROOT" describe --always --dirty 2>/dev/null || true)
    printf '%s. %s, %s cores, %s GiB. s3export %s%s, %s, shared_buffers %s, %s' \
        "$(date -u '+%F %H:%M UTC')" \
        "$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)" "$CORES" \
        "$(awk '/^MemTotal/ {printf "%.0f", $2 / 1048576}' /proc/meminfo)" \
        "$(sed -n 's/^   "version": "\([0-9.]*\)".*/\1/p' "$ROOT/META.json")" \
        "${version:+ ($version)}" "$("$PG_CONFIG" --version)" "$(psql -c 'SHOW shared_buffers')" \
        "$(/usr/sbin/nginx -v 2>&1 | sed 's/.*: //')"
    if wants export || wants scaling; then
        printf ', %s' "$(/usr/bin/aws --version | cut -d' ' -f1)"
    fi
    ! wants export ||
        printf ', %s, %s' "$(rclone version | head -n 1)" "$(gzip --version | head -n 1)"
    ! wants_sink rgw || printf ', %s' "$(ceph --version | cut -d' ' -f1-3)"
    printf '. Tables of about %s MB of CSV; rounds: %s. Load average before: %s.\n' "$BENCH_MB" \
        "$BENCH_ROUNDS" "$(cut -d' ' -f1 /proc/loadavg)"
}

packages >&2
mkdir -p "$BENCH_RESULTS"
BENCH_RESULTS=$(cd "$BENCH_RESULTS" && pwd)
DIR=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/s3export-bench.XXXXXX")
on_exit cleanup
private_directory "$DIR"
cd "$DIR"
export BENCH_SERVERS=$DIR BENCH_PROGRAMS=$DIR/programs BENCH_SERVER_FILES=$DIR/files
server_directory "$BENCH_SERVER_FILES"
{
    build
    start_postgres
    start_sinks
} >&2
describe >"$BENCH_RESULTS/machine"
for part in "${PARTS[@]}"; do
    "$PYTHON" "$BENCH/$part.py" >&2 || {
        # What COPY's programs print is there.
        tail -n 15 "$DIR/pg/log" >&2
        die "$part failed"
    }
done
"$PYTHON" "$BENCH/report.py" "${PARTS[@]}" | tee "$BENCH_RESULTS/report.md"
say "Charts and single measurements are in $BENCH_RESULTS" >&2
