#!/bin/bash
# memory.sh: memory and time of a large export, beside COPY of the same query.
#
# usage: memory.sh [sink] [rgw]     both without an argument
#
# Exports a table of BENCH_MB (2048) megabytes of CSV to nginx, which drops it, and
# to Ceph RGW on bluestore, BENCH_ROUNDS (3) times each, each time right after
# COPY (same query) TO '/dev/null' (FORMAT csv, HEADER); prints a Markdown
# table.  The extension has to be installed ("make install").  Servers and data
# are throw-away ones, in BENCH_DIR, which needs about five times BENCH_MB.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$ROOT/test/lib/common.sh"
LIB=$ROOT/test/lib
BENCH=$ROOT/test/bench
BENCH_MB=${BENCH_MB:-2048}
BENCH_ROUNDS=${BENCH_ROUNDS:-3}
QUERY='SELECT id, created_at, account, amount, note FROM measured'

[ $# -gt 0 ] || set -- sink rgw
for target in "$@"; do
    case $target in
        sink | rgw) ;;
        *)
            sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2
            exit 2
            ;;
    esac
done

cleanup() {
    cd /
    end_processes_in "$DIR"
    rm -rf "$DIR"
}

psql() {
    "$PG_BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 "$@"
}

start_postgres() {
    PG_FSYNC=off PG_CONF="shared_buffers = 512MB
max_wal_size = 8GB
autovacuum = off
max_parallel_workers_per_gather = 0
" bash "$LIB/pg.sh" start "$DIR/pg"
    # shellcheck disable=SC1091
    . "$DIR/pg/env.sh"
    psql -c 'CREATE EXTENSION s3export'
    POSTMASTER=$(head -n 1 "$DIR/pg/data/postmaster.pid")
}

rows_sql() {
    cat <<E
SELECT n AS id, timestamptz '2026-01-01' + n * interval '17 seconds' AS created_at,
       'account ' || (n * 7919) % 100003 AS account,
       round((n % 1000003) / 7.0, 2) AS amount,
       CASE n % 5 WHEN 0 THEN NULL WHEN 1 THEN 'said "yes", then left'
                  ELSE 'nothing out of the ordinary happened' END AS note
  FROM generate_series(1::bigint, $1) n
E
}

# As many rows as make BENCH_MB of CSV, judged by the first hundred thousand.
make_table() {
    local sample=100000 bytes

    bytes=$(psql -c "COPY ($(rows_sql $sample)) TO STDOUT (FORMAT csv)" | wc -c)
    psql -c "CREATE UNLOGGED TABLE measured AS $(rows_sql $((BENCH_MB * 1048576 * sample / bytes)))" \
        -c 'VACUUM (FREEZE, ANALYZE) measured'
}

# timed SQL: milliseconds of the statement, as psql measures them.
timed() {
    psql -c '\timing on' -c "$1" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p'
}

copy_once() {
    timed "COPY ($QUERY) TO '/dev/null' (FORMAT csv, HEADER)"
}

# export_once CONNECTOR: "milliseconds bytes uploader-kB backend-first-kB backend-peak-kB".
# The session says its pid, and waits on a fifo until the sampler has begun.
export_once() {
    local backend milliseconds bytes memory

    rm -f "$DIR/go" "$DIR/session" "$DIR/samples" "$DIR/end"
    mkfifo "$DIR/go" "$DIR/end"
    psql -c 'SELECT pg_backend_pid()' -c "\\! read -r _ <'$DIR/go'" -c '\timing on' \
        -c "SELECT bytes FROM s3export.copy_to('$1', '$QUERY', 'measured.csv',
                                                        if_exists => 'overwrite')" \
        >"$DIR/session" &
    SESSION=$!
    within 10 test -s "$DIR/session"
    backend=$(head -n 1 "$DIR/session")
    "$PYTHON" "$BENCH/sample.py" "$POSTMASTER" "$backend" <"$DIR/end" >"$DIR/samples" &
    exec 9>"$DIR/end"
    within 10 test -s "$DIR/samples"
    echo >"$DIR/go"
    wait "$SESSION"
    exec 9>&-
    wait
    bytes=$(sed -n 2p "$DIR/session")
    milliseconds=$(sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' "$DIR/session")
    memory=$(tail -n 1 "$DIR/samples")
    [ "${memory%% *}" -gt 0 ] || die "no uploader was seen among the server's processes"
    echo "$milliseconds $bytes $memory"
}

connect_sink() {
    bash "$LIB/nginx_sink.sh" start "$DIR/sink"
    # shellcheck disable=SC1091
    . "$DIR/sink/env.sh"
    # The sink looks at no key, and answers no test.
    psql -o /dev/null -c "SELECT s3export.create_connector('sink', 'null', folder_path => 'bench',
        endpoint_url => '$S3EXPORT_SINK_HTTP', region => 'us-east-1', validate => false,
        access_key_id => 'SINK', secret_access_key => 'none-is-checked-here')"
}

connect_rgw() {
    RGW_STORE=bluestore bash "$LIB/rgw.sh" start "$DIR/rgw"
    # shellcheck disable=SC1091
    . "$DIR/rgw/env.sh"
    psql -o /dev/null <<'E'
\getenv bucket S3EXPORT_TEST_BUCKET
\getenv endpoint S3EXPORT_TEST_ENDPOINT
\getenv access_key S3EXPORT_TEST_ACCESS_KEY_ID
\getenv secret_key S3EXPORT_TEST_SECRET_ACCESS_KEY
SELECT s3export.create_connector('rgw', :'bucket', folder_path => 'bench',
    endpoint_url => :'endpoint', region => 'us-east-1',
    access_key_id => :'access_key', secret_access_key => :'secret_key');
E
}

# The object has to be there, whole; then it goes, and its space with it.
check_rgw() {
    local listed

    listed=$("$PYTHON" "$LIB/s3.py" ls bench/ | cut -f1)
    [ "$listed" = "$1" ] || die "the object has ${listed:-no} bytes, the export $1"
    "$PYTHON" "$LIB/s3.py" rm bench/measured.csv
}

# measure TARGET: a line "target copy-ms export..." for each round in DIR/results.
measure() {
    local target=$1 round copy result bytes

    "connect_$target"
    copy_once >/dev/null
    for ((round = 1; round <= BENCH_ROUNDS; round++)); do
        copy=$(copy_once)
        export_once "$target" >"$DIR/export"
        result=$(cat "$DIR/export")
        read -r _ bytes _ <<<"$result"
        [ "$target" != rgw ] || check_rgw "$bytes"
        say "$target, round $round: COPY $copy ms; export (ms, bytes, kB) $result"
        echo "$target $copy $result" >>"$DIR/results"
    done
    [ "$target" = sink ] && bash "$LIB/nginx_sink.sh" stop "$DIR/sink"
    [ "$target" = rgw ] && bash "$LIB/rgw.sh" stop "$DIR/rgw"
    return 0
}

report() {
    printf '\n%s; %s cores, %s; %s; upload_memory %s\n\n' "$(date -u +%F)" "$(nproc)" \
        "$(sed -n 's/^model name[[:space:]]*: //p;' /proc/cpuinfo | head -n 1)" \
        "$("$PG_CONFIG" --version)" "$(psql -c "LOAD 's3export'" -c 'SHOW s3export.upload_memory')"
    "$PYTHON" - "$DIR/results" <<'E'
import statistics
import sys

NAMES = {"sink": "nginx, body dropped", "rgw": "Ceph RGW, bluestore"}
rounds = {}
with open(sys.argv[1]) as results:
    for line in results:
        target, *numbers = line.split()
        rounds.setdefault(target, []).append([float(number) for number in numbers])
print("| to | CSV, MiB | COPY to /dev/null, s | copy_to, s | ratio | "
      "uploader's memory, peak MiB | backend's growth, MiB |")
print("|---|---|---|---|---|---|---|")
for target, runs in rounds.items():
    copies, exports, sizes, uploaders, firsts, lasts = zip(*runs)
    copy, export = statistics.median(copies), statistics.median(exports)
    print("| %s | %.0f | %.2f | %.2f | %.2f | %.0f | %.1f |" % (
        NAMES[target], sizes[0] / 2**20, copy / 1000, export / 1000,
        statistics.median(e / c for e, c in zip(exports, copies)), max(uploaders) / 1024,
        max(last - first for first, last in zip(firsts, lasts)) / 1024))
print("\nMedians of %d rounds, each COPY followed by its export, the ratio of each pair; memory is "
      "the highest of all." % max(len(runs) for runs in rounds.values()))
E
}

need_postgres
need_packages python3
for target in "$@"; do
    if [ "$target" = sink ]; then need_nginx; else need_rgw; fi
done
if [ -n "${BENCH_DIR:-}" ]; then
    DIR=$(mktemp -d "$BENCH_DIR/s3export-bench.XXXXXX")
else
    DIR=$(mktemp -d "${TMPDIR:-/tmp}/s3export-bench.XXXXXX")
fi
on_exit cleanup
private_directory "$DIR"
cd "$DIR"
start_postgres
make_table
for target in "$@"; do
    measure "$target"
done
report
