#!/bin/bash
# rgw.sh: a throw-away Ceph (one monitor, one OSD, one RADOS Gateway) on
# loopback, as the S3, STS and IAM server of the tests.
#
# usage: rgw.sh start DIR | stop DIR | status DIR | kill DIR | resume DIR
#        rgw.sh user DIR NAME ACTION...     a user who may only that on the bucket
#        rgw.sh role DIR NAME ACTION...     a role that the sts user may assume
#
# All state is in DIR.  start writes DIR/env.sh, which exports
#   S3EXPORT_TEST_ENDPOINT, _REGION, _BUCKET
#   S3EXPORT_TEST_ACCESS_KEY_ID, _SECRET_ACCESS_KEY          owner of the bucket
#   S3EXPORT_TEST_STS_ACCESS_KEY_ID, _STS_SECRET_ACCESS_KEY  no right but to assume roles
#   S3EXPORT_TEST_ROLE_ARN                                   all that an export needs
# kill ends the gateway at once, as a crash does; resume starts it again,
# on the same port.  user prints its own two keys as the same exports, role its
# ARN.  Every secret made is also a line of the file S3EXPORT_TEST_SECRETS, when
# that is set.
#
# settings: RGW_STORE      memstore (starts in a second; keeps all in memory), or
#                          bluestore (for gigabytes)
#           RGW_STS_MIN    seconds of the shortest role session, 900 as in AWS
#           RGW_BUCKET     s3export-test
#           RGW_PORT       a free one
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

[ $# -ge 2 ] || usage
COMMAND=$1
state_directory "$1" "$2"
shift 2
CONF=$DIR/ceph.conf
BUCKET=${RGW_BUCKET:-s3export-test}
REGION=us-east-1
ROLE_ACTIONS=(s3:ListBucket s3:ListBucketMultipartUploads s3:GetBucketLocation s3:PutObject
    s3:GetObject s3:DeleteObject s3:AbortMultipartUpload s3:ListMultipartUploadParts)

write_conf() {
    local fsid=$1 monitor=$2 port=$3

    # Without cephx the gateway's "ms mon client mode", secure by default, would
    # wait a minute in vain.  The order of authentication lets a wrong secret be
    # answered by SignatureDoesNotMatch.  The short garbage collection gives the
    # memory of deleted objects back.
    cat >"$CONF" <<E
[global]
fsid = $fsid
mon initial members = a
mon host = [v2:127.0.0.1:$monitor/0]
ms bind msgr1 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
run dir = $DIR/run
admin socket = $DIR/run/\$name.\$pid.asok
log file = $DIR/\$name.log
mon cluster log file = $DIR/cluster.log
crash dir = $DIR/run
keyring = $DIR/keyring
mon data = $DIR/mon
osd data = $DIR/osd
osd objectstore = ${RGW_STORE:-memstore}
memstore device bytes = 8589934592
bluestore block create = true
bluestore block size = 17179869184
osd memory target = 1073741824
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 1
paxos propose interval = 0.02
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw sts key = $(random_hex 16)
rgw s3 auth use sts = true
rgw s3 auth order = sts, local, external
rgw sts min session duration = ${RGW_STS_MIN:-900}
rgw crypt require ssl = false
rgw crypt default encryption key = $(head -c 32 /dev/urandom | base64)
rgw enable usage log = false
rgw thread pool size = 64
rgw gc obj min wait = 2
rgw gc processor period = 2
rgw gc processor max time = 10
ms mon client mode = crc
E
    chmod 600 "$CONF"
}

random_hex() {
    od -An -N "$(($1 / 2))" -tx1 /dev/urandom | tr -d ' \n'
}

# The daemons work in DIR, which marks them as this instance's.
daemon() {
    local name=$1

    shift
    (cd "$DIR" && spawn "$DIR/$name.pid" "$DIR/$name.out" "$@")
}

stop_all() {
    local name

    for name in rgw osd mon; do
        stop_pid "$DIR/$name.pid" "$CONF"
    done
}

# What a failed start leaves to be read, on stderr.
report() {
    local log

    for log in make.out mon.out osd.out rgw.out mon.a.log osd.0.log client.rgw.log; do
        [ -s "$DIR/$log" ] || continue
        echo "--- the end of $DIR/$log" >&2
        tail -n 15 "$DIR/$log" >&2
    done
}

listening() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Succeeds when the gateway listens, and also when it has died.
gateway_settled() {
    listening "$1" || ! alive "$(cat "$DIR/rgw.pid")"
}

start_gateway() {
    daemon rgw radosgw -c "$CONF" -n client.rgw --no-mon-config -f
    within 90 gateway_settled "$1" && listening "$1"
}

osd_known() {
    timeout 10 ceph -c "$CONF" osd new "$1" >>"$DIR/make.out" 2>&1
}

start_cluster() {
    local fsid uuid monitor

    fsid=$(cat /proc/sys/kernel/random/uuid)
    uuid=$(cat /proc/sys/kernel/random/uuid)
    free_port monitor
    PORT=${RGW_PORT:-}
    [ -n "$PORT" ] || free_port PORT
    mkdir "$DIR/mon" "$DIR/osd" "$DIR/run"
    : >"$DIR/keyring"
    write_conf "$fsid" "$monitor" "$PORT"
    {
        monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$monitor]" "$DIR/monmap" &&
            ceph-mon -c "$CONF" -i a --mkfs --monmap "$DIR/monmap" --keyring "$DIR/keyring"
    } >>"$DIR/make.out" 2>&1 || return 1
    daemon mon ceph-mon -c "$CONF" -i a -f
    within 60 osd_known "$uuid" || return 1
    ceph-osd -c "$CONF" -i 0 --mkfs --osd-uuid "$uuid" --no-mon-config >>"$DIR/make.out" 2>&1 ||
        return 1
    daemon osd ceph-osd -c "$CONF" -i 0 --no-mon-config -f
    start_gateway "$PORT"
}

# new_user NAME PREFIX [OPTION...]: prints the exports of PREFIX_ACCESS_KEY_ID and
# its secret; radosgw-admin makes the keys, so that no command line shows them.
new_user() {
    local name=$1 prefix=$2

    shift 2
    radosgw-admin -c "$CONF" -n client.rgw --no-mon-config user create --uid="$name" \
        --display-name="$name" "$@" 2>>"$DIR/make.out" |
        "$PYTHON" -c '
import json, os, sys
key = json.load(sys.stdin)["keys"][0]
prefix = sys.argv[1]
print("export %s_ACCESS_KEY_ID=%s" % (prefix, key["access_key"]))
print("export %s_SECRET_ACCESS_KEY=%s" % (prefix, key["secret_key"]))
if os.environ.get("S3EXPORT_TEST_SECRETS"):
    with open(os.environ["S3EXPORT_TEST_SECRETS"], "a") as secrets:
        secrets.write(key["secret_key"] + "\n")
' "$prefix"
}

s3() {
    "$PYTHON" "$(dirname "${BASH_SOURCE[0]}")/s3.py" "$@"
}

read_env() {
    [ -f "$DIR/env.sh" ] || die "$DIR holds no gateway"
    # shellcheck disable=SC1091
    . "$DIR/env.sh"
}

new_role() {
    local name=$1

    shift
    s3 make-role "$name" arn:aws:iam:::user/sts "$@"
}

write_env() {
    echo "export S3EXPORT_TEST_ENDPOINT=http://127.0.0.1:$PORT"
    echo "export S3EXPORT_TEST_REGION=$REGION"
    echo "export S3EXPORT_TEST_BUCKET=$BUCKET"
    new_user owner S3EXPORT_TEST --caps='roles=*;user-policy=*' &&
        new_user sts S3EXPORT_TEST_STS
}

assume_export_role() {
    S3EXPORT_TEST_ACCESS_KEY_ID=$S3EXPORT_TEST_STS_ACCESS_KEY_ID \
        S3EXPORT_TEST_SECRET_ACCESS_KEY=$S3EXPORT_TEST_STS_SECRET_ACCESS_KEY \
        s3 assume "$S3EXPORT_TEST_ROLE_ARN"
}

# Users, bucket and role; then signed requests show that all of it works.  As a
# condition this runs without "set -e".
populate() {
    local arn

    (umask 077 && write_env >"$DIR/env.sh") || return 1
    read_env
    {
        s3 mb && s3 check && arn=$(new_role export "${ROLE_ACTIONS[@]}") &&
            echo "export S3EXPORT_TEST_ROLE_ARN=$arn" >>"$DIR/env.sh" && read_env
    } >>"$DIR/make.out" 2>&1 || return 1
    assume_export_role >/dev/null 2>>"$DIR/make.out"
}

start() {
    local attempt

    [ ! -f "$CONF" ] || stop_all
    [ -f "$CONF" ] || [ -z "$(ls -A "$DIR")" ] || die "$DIR is not empty"
    chmod 700 "$DIR"
    # Somebody else may take a port between its choice and its use.
    for attempt in 1 2 3; do
        empty_directory "$DIR"
        if start_cluster && populate; then
            say "rgw.sh: http://127.0.0.1:$PORT is up, with bucket $BUCKET; see $DIR/env.sh"
            return 0
        fi
        stop_all
        echo "rgw.sh: attempt $attempt to start the gateway failed" >&2
    done
    report
    die "could not start Ceph; its files are left in $DIR"
}

resume() {
    local port

    read_env
    port=${S3EXPORT_TEST_ENDPOINT##*:}
    start_gateway "$port" || {
        report
        die "could not start the gateway again"
    }
}

kill_gateway() {
    local pid

    pid=$(cat "$DIR/rgw.pid")
    kill -9 "$pid"
    within 5 gone "$pid"
    rm -f "$DIR/rgw.pid"
}

status() {
    local name pid failed=0

    for name in mon osd rgw; do
        pid=$(cat "$DIR/$name.pid" 2>/dev/null || true)
        if [ -n "$pid" ] && alive "$pid"; then
            say "$name: pid $pid, $(awk '/^VmRSS/ {print int($2 / 1024)}' "/proc/$pid/status") MiB"
        else
            say "$name: not running"
            failed=1
        fi
    done
    return "$failed"
}

case $COMMAND in
    start) start ;;
    resume) resume ;;
    kill) kill_gateway ;;
    status) status ;;
    stop)
        stop_all
        # Only what start made is removed.
        [ ! -f "$CONF" ] || empty_directory "$DIR"
        rmdir "$DIR" 2>/dev/null || true
        ;;
    user)
        [ $# -ge 1 ] || usage
        read_env
        new_user "$1" S3EXPORT_TEST
        [ $# -eq 1 ] || s3 allow-user "$@"
        ;;
    role)
        [ $# -ge 2 ] || usage
        read_env
        new_role "$@"
        ;;
    *) usage ;;
esac
