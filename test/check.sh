#!/bin/bash
# check.sh: installs what is missing, builds, and runs every test.
#
# usage: check.sh [all | lint | unit | sanitize | fuzz | regress [NAME...] | tap [FILE...] |
#                  valgrind | demo | assert [FILE...]]
#
# assert is not in all.  It builds PostgreSQL with assertions from Debian's source
# package, into S3EXPORT_CACHE (/var/tmp/s3export-UID) once, and runs regress and tap on
# it; then some of regress where nothing stays in caches (debug_discard_caches), for a
# quarter of an hour.
#
# Needs Debian, and root or sudo for its packages and for "make install", which
# goes to the system's PostgreSQL.  Starts servers of its own, on loopback, and
# ends them.  The last line counts the tests.  S3EXPORT_KEEP=1 keeps the
# directory of logs and data.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/test/lib/common.sh"
cd "$ROOT"

PART=${1:-all}
[ $# -eq 0 ] || shift
case $PART in
    all | lint | unit | sanitize | fuzz | regress | tap | valgrind | demo | assert) ;;
    *)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2
        exit 2
        ;;
esac
SUMMARY=()
PASSED=0
FAILED=0

# ------------------------------------------------------------------ the frame

# part NAME ARG...: runs the function NAME.  It writes "passed failed" to the file
# that COUNT names; one that dies without doing so has failed once.  Whether it
# failed is left in PART_FAILED: as a condition it would run without "set -e".
part() {
    local name=$1 begin=$SECONDS status=0 passed=0 failed=1

    shift
    COUNT=$WORK/count.$name
    say "=== $name"
    # In the background, so that a signal ends the wait at once.
    "$name" "$@" </dev/null &
    wait $! || status=$?
    if [ -f "$COUNT" ]; then
        read -r passed failed <"$COUNT" || true
        [ "$status" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
    elif [ "$status" -eq 0 ]; then
        passed=1
        failed=0
    fi
    PASSED=$((PASSED + passed))
    FAILED=$((FAILED + failed))
    SUMMARY+=("$(printf '%-10s %5d passed %5d failed %5d s' \
        "$name" "$passed" "$failed" $((SECONDS - begin)))")
    PART_FAILED=$failed
}

wanted() {
    [ "$PART" = all ] || [ "$PART" = "$1" ]
}

cleanup() {
    local pid

    for pid in $(descendants $$); do
        kill "$pid" 2>/dev/null || true
    done
    end_processes_in "$WORK"
    if [ -n "${S3EXPORT_KEEP:-}" ]; then
        say "Logs and data are in $WORK"
    elif ! rm -rf "$WORK" 2>/dev/null; then
        as_root rm -rf "$WORK"
    fi
}

# count_lines REGEX FILE
count_lines() {
    grep -cE "$1" "$2" || true
}

# --------------------------------------------------------------------- parts

packages() {
    need_build_tools
    need_packages perl libipc-run-perl clang-format cppcheck gzip zstd lz4
    ! wanted fuzz || need_fuzzer
    ! wanted valgrind || need_packages valgrind
    ! wanted tap || need_packages "postgresql-$PG_MAJOR"-{cron,hypopg,pgaudit} python3-boto3 \
        python3-psycopg2 python3-zstandard python3-lz4
    need_rgw
    need_nginx
}

# The server with assertions is the one that everything is built for and run on.
assert_server() {
    local cache=${S3EXPORT_CACHE:-/var/tmp/s3export-$(id -u)}

    private_directory "$cache"
    bash test/lib/assert.sh "$cache" >"$WORK/assert"
}

build() {
    local directory copt

    # The server's headers are not ours to keep free of warnings.
    copt="-isystem $("$PG_CONFIG" --includedir-server) -Wall -Wextra -Wno-unused-parameter -Werror"
    make -s PG_CONFIG="$PG_CONFIG" clean
    # Without the libraries that may be missing, too.
    make -s PG_CONFIG="$PG_CONFIG" COPT="$copt" COMPRESSION_LIBS= src/format/compress.o
    for directory in . test/csv_probe test/planner_probe; do
        make -s -C "$directory" PG_CONFIG="$PG_CONFIG" clean
        make -s -j2 -C "$directory" PG_CONFIG="$PG_CONFIG" COPT="$copt"
    done
    as_root make -s PG_CONFIG="$PG_CONFIG" install
}

check_cppcheck() {
    cppcheck --quiet -j2 --enable=warning,performance,portability --error-exitcode=1 \
        --inline-suppr --std=c11 --library=posix --include=test/lib/cppcheck.h -Isrc src
}

# Links lead somewhere, and the README stays short.
check_docs() {
    perl test/lib/check_docs.pl
}

# The Makefile refuses servers that nobody has tried, with a sentence.
check_versions() {
    local config=$WORK/pg_config major said

    for major in 14 19; do
        printf '#!/bin/sh\necho "PostgreSQL %sdevel"\n' "$major" >"$config"
        chmod 755 "$config"
        said=$(make -n PG_CONFIG="$config" 2>&1) && return 1
        [[ $said == *"s3export is for PostgreSQL 15 to 18; \"$config\" is of $major"* ]] || return 1
    done
}

lint() {
    local check passed=0 failed=0

    for check in test/lib/check_includes.sh test/lib/check_format.sh check_cppcheck check_docs check_versions; do
        if "$check"; then
            passed=$((passed + 1))
        else
            say "$check failed"
            failed=$((failed + 1))
        fi
    done
    echo "$passed $failed" >"$COUNT"
}

# count_tap STATUS LOG: counts what programs, of which one ended with STATUS, wrote in TAP.
count_tap() {
    local status=$1 log=$2

    grep -vE '^ok [0-9]' "$log" || true
    grep -A 8 '^not ok' "$log" >>"$WORK/failures" || true
    awk -v status="$status" '
        /^ok [0-9]/ { passed++ }
        /^not ok [0-9]/ { failed++ }
        END {
            if (status != 0 && failed == 0) failed = 1
            if (passed + failed == 0) failed = 1
            print passed + 0, failed + 0
        }' "$log" >"$COUNT"
}

# The modules that need no server, and the scripted S3 server that judges others.
unit() {
    local status=0 log=$WORK/unit.log

    export PYTHON
    {
        make -s -j2 -C test/unit PG_CONFIG="$PG_CONFIG" check || status=$?
        "$PYTHON" test/lib/test_s3_server.py || status=$?
        perl test/lib/test_scripted_s3.pl || status=$?
    } >"$log" 2>&1
    count_tap "$status" "$log"
}

# The same modules with AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize() {
    local status=0 log=$WORK/sanitize.log

    export PYTHON
    make -s -j2 -C test/unit PG_CONFIG="$PG_CONFIG" sanitize >"$log" 2>&1 || status=$?
    count_tap "$status" "$log"
}

# Some seconds for each target; test/fuzz/run.sh says how to run them for longer.
fuzz() {
    local status=0 log=$WORK/fuzz.log

    TMPDIR=$WORK test/fuzz/run.sh 5 >"$log" 2>&1 || status=$?
    count_tap "$status" "$log"
}

start_postgres() {
    PG_LOG_LEVEL=debug5 bash test/lib/pg.sh start "$WORK/pg"
}

regress() {
    local status=0 log=$WORK/regress.log

    start_postgres
    # shellcheck disable=SC1091
    . "$WORK/pg/env.sh"
    make -s PG_CONFIG="$PG_CONFIG" installcheck TAP_TESTS= ${1:+REGRESS="$*"} >"$log" 2>&1 ||
        status=$?
    cat "$log"
    [ "$status" -eq 0 ] || [ ! -s regression.diffs ] || cat regression.diffs
    # The first pattern is of servers up to 15, the second of later ones.
    echo "$(count_lines '^(test .*\.\.\. ok|ok [0-9])' "$log")" \
        "$(count_lines '^(test .*\.\.\. FAILED|not ok [0-9])' "$log")" >"$COUNT"
    cp "$WORK/pg/log" "$WORK/logs/regress.log"
    bash test/lib/pg.sh stop "$WORK/pg"
    [ "$status" -eq 0 ] && grep -q '[1-9]' "$COUNT"
}

# Whatever was looked up in a cache is gone when it is looked at again: some 250 times as slow.
discard() {
    PG_CONF='debug_discard_caches = 1' regress "$@"
}

# The tests and their servers run as one user, who may not be able to read the
# working tree: they run on a copy.
copy_tests() {
    [ ! -d "$WORK/test" ] || return 0
    tar -c --exclude='bin*' test README.md docs | tar -x -C "$WORK"
    chmod -R a+rX "$WORK/test" "$WORK/docs" "$WORK/README.md"
    server_directory "$WORK/tap"
    server_directory "$WORK/tmp"
}

tap_environment() {
    local pgxs

    pgxs=$(dirname "$("$PG_CONFIG" --pgxs)")/..
    export S3EXPORT_TEST_SECRETS=$SECRETS
    export PERL5LIB=$WORK/test/lib:$pgxs/test/perl PG_REGRESS=$pgxs/test/regress/pg_regress
    export PATH=$PG_BIN:$PATH TMPDIR=$WORK/tmp
    export TESTDIR=$WORK/tap TESTDATADIR=$WORK/tap/tmp_check TESTLOGDIR=$WORK/tap/tmp_check/log
}

start_rgw() {
    server_directory "$WORK/rgw"
    (cd "$WORK/tap" && as_server env TMPDIR="$WORK/tmp" S3EXPORT_TEST_SECRETS="$SECRETS" \
        bash "$WORK/test/lib/rgw.sh" start "$WORK/rgw")
}

show_tap_logs() {
    local file base log

    for file in "$@"; do
        base=$(basename "$file" .pl)
        for log in "$WORK/tap/tmp_check/log/regress_log_$base" \
            "$WORK/tap/tmp_check/log/${base}"_*.log; do
            [ -s "$log" ] || continue
            say "--- the end of ${log##*/}"
            grep -vE ' DEBUG: ' "$log" | tail -n 60
        done
    done
}

# What failed is told again below the summary: a long log may be kept only by its end.
tell_failures() {
    local file log

    for file in "$@"; do
        log=$WORK/tap/tmp_check/log/regress_log_$(basename "$file" .pl)
        say "${file##*/}"
        # What the test says, not what it runs; a test that died says why in its last lines.
        grep -A 6 ') not ok ' "$log" || tail -n 12 "$log"
    done >>"$WORK/failures"
}

# prove JOBS FILE...: runs tests, counts them, and shows the logs of those that failed.
prove() {
    local status=0 jobs=$1 failed

    shift
    (cd "$WORK/tap" && as_server perl "$WORK/test/lib/prove.pl" "$WORK/tap/totals" "$jobs" "$@") ||
        status=$?
    [ -s "$WORK/tap/totals" ] || return 1
    head -n 1 "$WORK/tap/totals" >"$COUNT"
    mapfile -t failed < <(tail -n +2 "$WORK/tap/totals")
    show_tap_logs "${failed[@]}"
    tell_failures "${failed[@]}"
    cp "$WORK"/tap/tmp_check/log/*.log "$WORK/logs/" 2>/dev/null || true
    return "$status"
}

# check_faults check|part: the table of faults in the docs is what the tests saw.
check_faults() {
    local passed failed

    read -r passed failed <"$COUNT" || return 1
    if perl test/lib/fault_table.pl "$1" "$WORK/tap/tmp_check/log" docs/troubleshooting.md; then
        passed=$((passed + 1))
    else
        say "docs/troubleshooting.md: to be replaced by"
        perl test/lib/fault_table.pl print "$WORK/tap/tmp_check/log"
        failed=$((failed + 1))
    fi
    echo "$passed $failed" >"$COUNT"
    [ "$failed" -eq 0 ]
}

tap() {
    local status=0 tests=("$@")

    # The last ones take longest, and most tests wait more than they compute.
    [ $# -gt 0 ] || mapfile -t tests < <(printf '%s\n' test/t/*.pl | sort -r)
    copy_tests
    start_rgw
    # shellcheck disable=SC1091
    . "$WORK/rgw/env.sh"
    tap_environment
    export S3EXPORT_TEST_RGW_DIR=$WORK/rgw
    prove $(($(nproc) + 1)) "${tests[@]/#/$WORK/}" || status=$?
    check_faults "$([ $# -eq 0 ] && echo check || echo part)" || status=1
    as_server bash "$WORK/test/lib/rgw.sh" stop "$WORK/rgw"
    return "$status"
}

# One test with its server in Valgrind.  An error counts when the module is on its
# stack: PostgreSQL's own are PostgreSQL's.
valgrind() {
    local status=0 found=0 logs=$WORK/valgrind/logs

    copy_tests
    tap_environment
    server_directory "$WORK/valgrind"
    server_directory "$logs"
    bash test/lib/valgrind.sh install "$WORK/valgrind" "$logs"
    export PATH=$WORK/valgrind:$PATH
    prove 1 "$WORK/test/valgrind/export.pl" || status=$?
    bash test/lib/valgrind.sh report "$logs" || found=1
    read -r passed failed <"$COUNT"
    echo "$((passed + 1 - found)) $((failed + found))" >"$COUNT"
    [ "$status" -eq 0 ] && [ "$found" -eq 0 ]
}

# No secret that a test used, and nothing that a signed request carries, is in a
# server's log.  The logs have to be worth the search.
secrets() {
    local log found=0 hits

    [ "$(cat "$WORK"/logs/*.log | grep -c ' DEBUG: ')" -gt 0 ] ||
        { say "the logs have no debug messages"; return 1; }
    [ "$PART" = regress ] || [ -s "$SECRETS" ] || { say "no test recorded a secret"; return 1; }
    for log in "$WORK"/logs/*.log; do
        hits=$(
            grep -nFf <(grep -v '^$' "$SECRETS") "$log" || true
            grep -niE 'authorization:|AWS4-HMAC|x-amz-security-token|<(SecretAccessKey|SessionToken)>' \
                "$log" || true
            # What looks like a session token: long, and of all kinds of characters.
            perl -ne 'while (m{([A-Za-z0-9+/=]{120,})}g) { my $run = $1;
                print "$.:$_" if $run =~ /[a-z]/ && $run =~ /[A-Z]/ && $run =~ /[0-9]/ }' "$log"
        )
        if [ -n "$hits" ]; then
            say "${log##*/} has what looks like a secret in lines $(cut -d: -f1 <<<"$hits" | sort -nu | head -n 10 | paste -sd' ')"
            found=1
        fi
    done
    return "$found"
}

# The quick start compares what arrives with what COPY writes.
demo() {
    local S3EXPORT_DEMO_DIR=$WORK/demo

    export S3EXPORT_DEMO_DIR
    bash test/demo.sh
    bash test/demo.sh stop
    echo "1 0" >"$COUNT"
}

# ---------------------------------------------------------------------- main

WORK=$(mktemp -d "${TMPDIR:-/tmp}/s3export-check.XXXXXX")
on_exit cleanup
private_directory "$WORK"
mkdir "$WORK/logs"
SECRETS=$WORK/secrets
: >"$SECRETS"
chmod 600 "$SECRETS"

# Not a part: nobody should end dpkg in the middle of its work.
packages
! is_root || chown "$(server_user):" "$SECRETS"
! wanted lint || part lint
! wanted unit || part unit
! wanted sanitize || part sanitize
! wanted fuzz || part fuzz
if [ "$PART" = assert ]; then
    part assert_server
    [ "$PART_FAILED" -eq 0 ] || exit 1
    PG_CONFIG=$(cat "$WORK/assert")
    PG_BIN=$("$PG_CONFIG" --bindir)
fi
if wanted regress || wanted tap || wanted valgrind || [ "$PART" = assert ]; then
    part build
    # Where the module does not build there is nothing to run.
    if [ "$PART_FAILED" -eq 0 ]; then
        ! wanted regress || part regress "$@"
        ! wanted tap || part tap "$@"
        ! wanted valgrind || part valgrind
        if [ "$PART" = assert ]; then
            part regress
            # Debian's pg_cron is for Debian's server.
            [ $# -gt 0 ] || mapfile -t files < <(ls test/t/*.pl | grep -v _cron)
            part tap "${@:-${files[@]}}"
            part discard copy_to currents
        fi
        part secrets
    fi
fi
! wanted demo || part demo

say "=== summary"
printf '%s\n' "${SUMMARY[@]}"
[ ! -s "$WORK/failures" ] || { say "--- what failed"; cat "$WORK/failures"; }
say "$PASSED passed, $FAILED failed"
[ "$FAILED" -eq 0 ]
