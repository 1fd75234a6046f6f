#!/bin/bash
# run.sh: builds the fuzz targets and runs them, as many at a time as there are cores.
#
# usage: run.sh SECONDS [TARGET...]
#
# Each target (s3_answer, aws_names, ...; all by default) begins with the seeds in corpus/ and
# runs for so many seconds, from one random seed, so that a run of the same length finds
# much the same.  Prints TAP.  What made a target fail is left in FUZZ_DIR/NAME-*, to be
# given to bin/fuzz_NAME.
#
# settings: PG_CONFIG   which PostgreSQL it is built for
#           FUZZ_DIR    where failures go, and what is found of new coverage; a directory
#                       of its own below /tmp, which is removed when all is well
#           FUZZ_SEED   another random seed than 1
#
# For a long run, give it minutes for each target, a directory that stays, and several seeds:
#   FUZZ_DIR=/var/tmp/fuzz FUZZ_SEED=7 nice test/fuzz/run.sh 300 s3_answer sts
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

[[ ${1:-} =~ ^[0-9]+$ ]] || {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}
SECONDS_EACH=$1
shift
make -s -j2
if [ $# -gt 0 ]; then
    TARGETS=("$@")
else
    read -r -a TARGETS < <(make -s targets)
fi
DIR=${FUZZ_DIR:-$(mktemp -d "${TMPDIR:-/tmp}/s3export-fuzz.XXXXXX")}
FAILED=0

# Freed memory is kept for a while, so that its use is noticed; not all of it.
export ASAN_OPTIONS=quarantine_size_mb=16:${ASAN_OPTIONS:-}

# seeds TARGET: csv_words takes those of csv_text.
seeds() {
    echo "corpus/${1/csv_words/csv_text}"
}

# run NUMBER TARGET
run() {
    local log=$DIR/$2.log status=0 runs

    mkdir -p "$DIR/corpus/$2"
    "bin/fuzz_$2" -seed="${FUZZ_SEED:-1}" -max_total_time="$SECONDS_EACH" -timeout=20 \
        -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="$DIR/$2-" \
        "$DIR/corpus/$2" "$(seeds "$2")" >"$log" 2>&1 || status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    # One that reaches nothing would find nothing.
    if [ "$status" -eq 0 ] && [ "${runs:-0}" -gt 100 ]; then
        echo "ok $1 - $2: $runs runs"
    else
        echo "not ok $1 - $2: exit status $status after ${runs:-0} runs"
        tail -n 40 "$log" | sed 's/^/# /'
        return 1
    fi
}

# They take the same time, so the oldest is the first to end.
JOBS=$(nproc)
pids=()
for target in "${TARGETS[@]}"; do
    [ ${#pids[@]} -lt "$JOBS" ] || wait "${pids[-JOBS]}" || true
    run $((${#pids[@]} + 1)) "$target" &
    pids+=($!)
done
for pid in "${pids[@]}"; do
    wait "$pid" || FAILED=1
done
echo "1..${#pids[@]}"
[ "$FAILED" -ne 0 ] || [ -n "${FUZZ_DIR:-}" ] || rm -rf "$DIR"
exit "$FAILED"
