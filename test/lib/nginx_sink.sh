#!/bin/bash
# nginx_sink.sh: nginx as a store that takes what S3 takes, at the speed of
# loopback.  It checks no signature and keeps no multipart upload together.
#
# usage: nginx_sink.sh start DIR | stop DIR | status DIR
#
# Buckets: "null" reads a body and drops it, "dav" writes each part to a file
# under DIR/data.  All state is in DIR; start writes DIR/env.sh with
#   S3EXPORT_SINK_HTTP, S3EXPORT_SINK_HTTPS   endpoints on 127.0.0.1
#   S3EXPORT_SINK_CA                          the certificate authority of the latter,
# which was made for the occasion and is good for localhost and 127.0.0.1.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
PATH=$PATH:/usr/sbin:/sbin

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

[ $# -eq 2 ] || usage
state_directory "$1" "$2"

make_certificates() {
    local options=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2)

    openssl req -x509 "${options[@]}" -subj "/CN=s3export tests CA" \
        -keyout ca.key -out ca.pem &&
        openssl req "${options[@]}" -subj "/CN=localhost" -keyout server.key -out server.csr &&
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1") -out server.pem
}

write_conf() {
    local http=$1 https=$2 ns='xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    local etag='"0123456789abcdef0123456789abcdef"'

    cat <<E
load_module /usr/lib/nginx/modules/ngx_http_echo_module.so;
worker_processes 2;
pid $DIR/nginx.pid;
error_log $DIR/error.log;
events { worker_connections 256; }
http {
    access_log off;
    client_max_body_size 0;
    client_body_timeout 300s;
    client_body_temp_path $DIR/tmp;
    proxy_temp_path $DIR/tmp/proxy;
    fastcgi_temp_path $DIR/tmp/fastcgi;
    uwsgi_temp_path $DIR/tmp/uwsgi;
    scgi_temp_path $DIR/tmp/scgi;
    default_type application/xml;
    map "\$request_method \$args" \$answer {
        default "";
        "~^POST uploads" '<?xml version="1.0" encoding="UTF-8"?><InitiateMultipartUploadResult $ns><Bucket>b</Bucket><Key>k</Key><UploadId>sink-upload</UploadId></InitiateMultipartUploadResult>';
        "~^POST .*uploadId=" '<?xml version="1.0" encoding="UTF-8"?><CompleteMultipartUploadResult $ns><Location>l</Location><Bucket>b</Bucket><Key>k</Key><ETag>"0123456789abcdef0123456789abcdef-1"</ETag></CompleteMultipartUploadResult>';
    }
    server {
        listen 127.0.0.1:$http;
        listen 127.0.0.1:$https ssl http2;
        ssl_certificate $DIR/server.pem;
        ssl_certificate_key $DIR/server.key;
        location / { return 404; }
        location /dav/ {
            root $DIR/data;
            dav_methods PUT DELETE;
            create_full_put_path on;
            add_header ETag '$etag' always;
            if (\$request_method = POST) { return 200 \$answer; }
        }
        location /null/ {
            client_body_buffer_size 32m; # what does not fit goes to a file
            add_header ETag '$etag';
            if (\$request_method = DELETE) { return 204; }
            echo_read_request_body;
            echo -n \$answer;
        }
    }
}
E
}

answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

settled() {
    answers "$1" || ! alive "$(cat "$DIR/nginx.pid")"
}

start() {
    local http https

    [ -z "$(ls -A "$DIR")" ] || die "$DIR is not empty"
    cd "$DIR"
    make_certificates >openssl.out 2>&1 || {
        cat openssl.out >&2
        die "could not make certificates"
    }
    free_port http
    free_port https
    write_conf "$http" "$https" >nginx.conf
    mkdir -p tmp data
    if is_root; then
        # The workers' user; as an ordinary user nginx needs none.
        sed -i '1i user root;' nginx.conf
    fi
    spawn "$DIR/nginx.pid" "$DIR/nginx.out" nginx -p "$DIR" -c "$DIR/nginx.conf" -g 'daemon off;'
    { within 10 settled "$http" && answers "$https"; } || {
        cat "$DIR/nginx.out" >&2
        die "could not start nginx"
    }
    cat >env.sh <<E
export S3EXPORT_SINK_HTTP=http://127.0.0.1:$http
export S3EXPORT_SINK_HTTPS=https://127.0.0.1:$https
export S3EXPORT_SINK_CA=$DIR/ca.pem
E
    say "nginx_sink.sh: http://127.0.0.1:$http and https://127.0.0.1:$https are up; see $DIR/env.sh"
}

stop() {
    stop_pid "$DIR/nginx.pid" "$DIR"
    # Only what start made is removed.
    [ ! -f "$DIR/nginx.conf" ] || empty_directory "$DIR"
    rmdir "$DIR" 2>/dev/null || true
}

status() {
    local pid

    pid=$(cat "$DIR/nginx.pid" 2>/dev/null || true)
    if [ -n "$pid" ] && alive "$pid"; then
        say "nginx: pid $pid"
    else
        say "nginx: not running"
        return 1
    fi
}

case $1 in
    start) start ;;
    stop) stop ;;
    status) status ;;
    *) usage ;;
esac
