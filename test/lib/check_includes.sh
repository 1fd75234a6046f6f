#!/bin/bash
# check_includes.sh [SRC]: do the arrows between the modules point down?
#
# A file may include its own header, headers of modules in a lower layer, and
# nothing else of ours.  A module may have several files: MODULE_PART.[ch], where
# that name is in no layer itself, is for the files of MODULE only.  Some libraries,
# server headers and tables belong to named modules.  Prints each breach; exit
# status 1 when there is one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
SRC=${1:-src}
failed=0

# Top to bottom, a layer a line; modules of one layer do not know each other.
LAYERS='
s3export
connector_api setup_api role_api row_api copy_api current_api job_api leader progress_api recover_api
copy_args current_args current_worker
connector_args export delivery
parallel batch
output uploader
probe transfer
manifest recovery stale
store carry queue files
job current
connector
publication
decode
catalog encoding lease pending
row_mac
csv compress
pipe
progress
upload
s3
s3_error
credentials
ambient sts metadata
session aws_config s3_xml json_text text_file
http
address socket_set mac
sigv4 secret names path json_member policy refusal wire pace crc32c
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

# module_of NAME: the longest part of a file's name that is in a layer.
module_of() {
    local name=$1

    while [ -z "$(layer_of "$name")" ]; do
        [[ $name == *_* ]] || return 0
        name=${name%_*}
    done
    echo "$name"
}

# own_includes FILE: "line:name" for each header of ours.
own_includes() {
    local line name

    grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"[a-z0-9_]+\.h"' "$1" |
        sed 's/^\([0-9]*\):[^"]*"\([a-z0-9_]*\)\.h".*/\1:\2/' |
        while IFS=: read -r line name; do
            if [ -f "$SRC/$name.h" ]; then
                echo "$line:$name"
            fi
        done
}

check_layers() {
    local file=$1 name module layer line their_name theirs

    name=$(basename "${file%.*}")
    module=$(module_of "$name")
    if [ -z "$module" ]; then
        breach "$file: \"$name\" is in no layer: add it to LAYERS in $0"
        return
    fi
    layer=$(layer_of "$module")
    while IFS=: read -r line their_name; do
        theirs=$(module_of "$their_name")
        [ "$theirs" != "$module" ] || continue
        if [ "$theirs" != "$their_name" ]; then
            breach "$file:$line: \"$their_name\" is for the files of \"${theirs:-none}\" only"
        elif [ "$(layer_of "$theirs")" -le "$layer" ]; then
            breach "$file:$line: \"$module\" must not know \"$theirs\", which is not below it"
        fi
        case $module:$theirs in
            csv:compat | csv:guc | pipe:compat | pipe:guc | pipe:progress) ;;
            csv:* | pipe:*)
                breach "$file:$line: \"$module\" must know no module but compat and guc, and \"pipe\" progress" ;;
        esac
    done < <(own_includes "$file")
}

# only MODULES PATTERN WHAT: the extended regular expression matches nowhere else.
only() {
    local allowed=" $1 " file hit

    for file in "$SRC"/*.[ch]; do
        [[ $allowed != *" $(module_of "$(basename "${file%.*}")") "* ]] || continue
        while IFS= read -r hit; do
            breach "$file:${hit%%:*}: $3 only in:$allowed"
        done < <(grep -nE "$2" "$file" || true)
    done
}

# never MODULES PATTERN WHAT
never() {
    local modules=" $1 " file hit

    for file in "$SRC"/*.[ch]; do
        [[ $modules == *" $(module_of "$(basename "${file%.*}")") "* ]] || continue
        while IFS= read -r hit; do
            breach "$file:${hit%%:*}: $3"
        done < <(grep -nE "$2" "$file" || true)
    done
}

# The layers from "upload" down, but for those at the bottom that serve all.
below_upload() {
    sed -n '/^upload$/,/^compat/{/^compat/d;p}' <<<"$LAYERS" | paste -sd' '
}

for file in "$SRC"/*.[ch]; do
    check_layers "$file"
done

include='^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]'
only http "${include}curl/" "libcurl is included"
only "sigv4 secret mac" "${include}openssl/" "OpenSSL is included"
only compress "${include}(isa-l|zstd|lz4)" "libraries of compression are included"
only s3_xml "${include}expat" "expat is included"
only compat "PG_(VERSION|MAJORVERSION)_NUM|CATALOG_VERSION_NO" \
    "the server's version is asked for"
never "$(below_upload)" \
    "${include}(executor/|catalog/|commands/|access/(xact|table|heap|htup|genam|relation)|utils/(snapmgr|syscache|lsyscache|rel|relcache|fmgroids|acl)\.h)" \
    "from upload down nothing knows SPI, catalogs or transactions"
never "sigv4 names path s3_xml policy refusal aws_config json_text" "\<(ereport|elog|errmsg|errdetail)\(" "pure modules report no errors"

tables=$(sed -n 's/^CREATE \(UNLOGGED \)\{0,1\}TABLE s3export\.\([a-z_]*\).*/\2/p' sql/s3export--*.sql |
    sort -u | paste -sd'|')
if [ -n "$tables" ]; then
    only "connector job current catalog" "\<(FROM|JOIN|INTO|UPDATE|TABLE|ONLY)[[:space:]]+s3export\.($tables)\>" \
        "the extension's tables are named"
fi

exit "$failed"
