#!/bin/bash
# check_format.sh: is the C code as clang-format leaves it, and does no line of
# any source end in blanks?  Prints what differs; exit status 1 when something does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
shopt -s nullglob
failed=0

c_files=(src/*.[ch] src/*/*.[ch] test/*/*.[ch])
other_files=(sql/*.sql test/*.sh test/*/*.{sh,sql,pl,pm,py} .ci/run Makefile test/*/Makefile *.md docs/*.md test/*.md)

for file in "${c_files[@]}"; do
    if ! clang-format --style=file "$file" |
        diff -u --label "$file" --label "$file as clang-format -i leaves it" "$file" -; then
        failed=1
    fi
done
if grep -nE '[[:blank:]]+$' "${c_files[@]}" "${other_files[@]}"; then
    echo "The lines above end in blanks."
    failed=1
fi
exit "$failed"
