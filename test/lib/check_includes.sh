#!/bin/bash
# check_includes.sh [SRC]: do the arrows between the modules point down?
#
# A file may include its own header, headers of modules in a lower layer, and
# nothing else of ours.  Some libraries, server headers and tables belong to
# named files only.  Prints each breach; exit status 1 when there is one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
SRC=${1:-src}
failed=0

# Top to bottom, a layer a line; modules of one layer do not know each other.
LAYERS='
s3export
connector_api copy_api
export
uploader
probe
connector job
catalog
csv
pipe
upload
s3
credentials s3_xml
http
sigv4 secret names
compat guc
'

breach() {
    printf '%s\n' "$*"
    failed=1
}

# layer_of MODULE: its number, 1 at the top; nothing when it has none.
layer_of() {
    awk -v module="$1" 'NF { n++; for (i = 1; i <= NF; i++) if ($i == module) print n }' \
        <<<"$LAYERS"
}

# own_includes FILE: "line:module" for each header of ours.
own_includes() {
    sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([a-z0-9_]*\)\.h".*/\1/p;=' "$1" |
        awk '/^[0-9]+$/ { if (name != "") print $0 ":" name; name = ""; next } { name = $0 }' |
        while IFS=: read -r line name; do
            if [ -f "$SRC/$name.h" ]; then
                echo "$line:$name"
            fi
        done
}

check_layers() {
    local file=$1 module layer line name theirs

    module=$(basename "${file%.*}")
    layer=$(layer_of "$module")
    if [ -z "$layer" ]; then
        breach "$file: module \"$module\" is in no layer: add it to LAYERS in $0"
        return
    fi
    while IFS=: read -r line name; do
        [ "$name" != "$module" ] || continue
        theirs=$(layer_of "$name")
        [ "${theirs:-0}" -gt "$layer" ] ||
            breach "$file:$line: \"$module\" must not know \"$name\", which is not below it"
        case $module:$name in
            csv:compat | csv:guc | pipe:compat | pipe:guc) ;;
            csv:* | pipe:*)
                breach "$file:$line: \"$module\" must know no module but compat and guc" ;;
        esac
    done < <(own_includes "$file")
}

# only FILES PATTERN WHAT: the extended regular expression matches nowhere else.
only() {
    local allowed=" $1 " file hit

    for file in "$SRC"/*.[ch]; do
        [[ $allowed != *" $(basename "$file") "* ]] || continue
        while IFS= read -r hit; do
            breach "$file:${hit%%:*}: $3 only in:$allowed"
        done < <(grep -nE "$2" "$file" || true)
    done
}

# never FILES PATTERN WHAT
never() {
    local module file hit

    for module in $1; do
        for file in "$SRC/$module".[ch]; do
            [ -f "$file" ] || continue
            while IFS= read -r hit; do
                breach "$file:${hit%%:*}: $3"
            done < <(grep -nE "$2" "$file" || true)
        done
    done
}

for file in "$SRC"/*.[ch]; do
    check_layers "$file"
done

include='^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]'
only http.c "${include}curl/" "libcurl is included"
only "sigv4.c secret.c" "${include}openssl/" "OpenSSL is included"
only s3_xml.c "${include}expat" "expat is included"
only compat.h "PG_(VERSION|MAJORVERSION)_NUM|PG_MAJORVERSION|CATALOG_VERSION_NO" \
    "the server's version is asked for"
never "upload s3 credentials s3_xml http sigv4 secret names" \
    "${include}(executor/|catalog/|commands/|access/(xact|table|heap|htup|genam|relation)|utils/(snapmgr|syscache|lsyscache|rel|relcache|fmgroids|acl)\.h)" \
    "from upload down nothing knows SPI, catalogs or transactions"
never "sigv4 names s3_xml" "\<(ereport|elog|errmsg|errdetail)\(" "pure modules report no errors"

tables=$(sed -n 's/^CREATE \(UNLOGGED \)\{0,1\}TABLE s3export\.\([a-z_]*\).*/\2/p' sql/s3export--*.sql |
    sort -u | paste -sd'|')
if [ -n "$tables" ]; then
    only "connector.c job.c catalog.c" "\<(FROM|JOIN|INTO|UPDATE|TABLE|ONLY)[[:space:]]+s3export\.($tables)\>" \
        "the extension's tables are named"
fi

exit "$failed"
