#!/bin/bash
# check_includes.sh: do all arrows between the sources point down?
#
# The folders of src/ are layers: a file may include headers of its own folder and of
# those below it.  Within a folder no two modules include each other, however far
# around.  A module is a header with the sources that begin with its name;
# NAME_internal.h is for the sources of NAME only.  Some libraries, server headers
# and tables belong to named modules.  Prints each breach; exit status 1 when there
# is one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
failed=0

# Top to bottom; folders on one line do not know each other.
LAYERS='
.
api
currents export
uploader
tables
ipc format s3
aws
http
base
'

breach() {
    printf '%s\n' "$*"
    failed=1
}

# layer_of FOLDER: its number, 1 at the top; nothing when it has none.
layer_of() {
    awk -v folder="$1" 'NF { n++; for (i = 1; i <= NF; i++) if ($i == folder) print n }' \
        <<<"$LAYERS"
}

# module_of FILE: folder and name, without the rest of a name that has no header.
module_of() {
    local name=${1%.*}

    name=${name%_internal}
    while [ ! -f "$name.h" ]; do
        [[ ${name##*/} == *_* ]] || break
        name=${name%_*}
    done
    echo "$name"
}

# own_includes FILE: "line:folder/name.h" for each header of ours.
own_includes() {
    sed -nE 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"([a-z0-9_]+\/)?([a-z0-9_]+\.h)".*/\1\2/;T;=;p' "$1" |
        paste -d: - - | while IFS=: read -r line header; do
        if [ -f "src/$header" ]; then
            echo "$line:$header"
        fi
    done
}

check_arrows() {
    local file=$1 folder module line header their_folder theirs

    folder=$(basename "$(dirname "$file")")
    [ "$folder" != src ] || folder=.
    if [ -z "$(layer_of "$folder")" ]; then
        breach "$file: \"$folder\" is no layer: add it to LAYERS in $0"
        return
    fi
    module=$(module_of "$file")
    while IFS=: read -r line header; do
        their_folder=$(dirname "$header")
        theirs=$(module_of "src/$header")
        [ "$theirs" != "$module" ] || continue
        if [[ $header == *_internal.h ]]; then
            breach "$file:$line: \"$header\" is for the files of \"${theirs#src/}\" only"
        elif [ "$their_folder" = "$folder" ]; then
            echo "$module $theirs" >>"$arrows"
        elif [ "$(layer_of "$their_folder")" -le "$(layer_of "$folder")" ]; then
            breach "$file:$line: \"$folder\" must not know \"$their_folder\", which is not below it"
        elif [[ $folder == ipc || $folder == format ]] && [ "$their_folder" != base ]; then
            breach "$file:$line: \"$folder\" must know no folder but base"
        fi
    done < <(own_includes "$file")
}

# only FILES PATTERN WHAT: the extended regular expression matches nowhere else.
only() {
    local allowed=" $1 " file hit

    for file in src/*.[ch] src/*/*.[ch]; do
        [[ $allowed != *" $(module_of "$file" | sed 's/^src\///') "* ]] || continue
        while IFS= read -r hit; do
            breach "$file:${hit%%:*}: $3 only in:$allowed"
        done < <(grep -nE "$2" "$file" || true)
    done
}

# never FILES PATTERN WHAT
never() {
    local file hit

    for file in $1; do
        while IFS= read -r hit; do
            breach "$file:${hit%%:*}: $3"
        done < <(grep -nE "$2" "$file" || true)
    done
}

arrows=$(mktemp)
trap 'rm -f "$arrows"' EXIT
for file in src/*.[ch] src/*/*.[ch]; do
    check_arrows "$file"
done
if ! circles=$(tsort "$arrows" 2>&1 >/dev/null); then
    breach "modules of one folder include each other:" "${circles//tsort: /}"
fi

include='^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]'
only http/http "${include}curl/" "libcurl is included"
only "aws/sigv4 base/secret base/mac" "${include}openssl/" "OpenSSL is included"
only format/compress "${include}(isa-l|zstd|lz4)" "libraries of compression are included"
only base/s3_xml "${include}expat" "expat is included"
only base/compat "PG_(VERSION|MAJORVERSION)_NUM|CATALOG_VERSION_NO" \
    "the server's version is asked for"
never "src/s3/*.[ch] src/aws/*.[ch] src/http/*.[ch]" \
    "${include}(executor/|catalog/|commands/|access/(xact|table|heap|htup|genam|relation)|utils/(snapmgr|syscache|lsyscache|rel|relcache|fmgroids|acl)\.h)" \
    "from S3 down nothing knows SPI, catalogs or transactions"
never "$(echo src/aws/{sigv4,iam_policy,refusal_codes,aws_config,aws_names}.c src/base/{s3_xml,json_text}.c src/base/object_path.c)" \
    "\<(ereport|elog|errmsg|errdetail)\(" "pure modules report no errors"

tables=$(sed -n 's/^CREATE \(UNLOGGED \)\{0,1\}TABLE s3export\.\([a-z_]*\).*/\2/p' sql/s3export--*.sql |
    sort -u | paste -sd'|')
if [ -n "$tables" ]; then
    only "tables/connector tables/job currents/current tables/catalog" \
        "\<(FROM|JOIN|INTO|UPDATE|TABLE|ONLY)[[:space:]]+s3export\.($tables)\>" \
        "the extension's tables are named"
fi

exit "$failed"
