#!/bin/bash
# check_format.sh: is the C code as clang-format -i leaves it, and is no line
# of any source longer than it should be or ended by blanks?
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
shopt -s nullglob
failed=0

c_files=(src/*.[ch] test/unit/*.[ch])
other_files=(sql/*.sql test/*.sh test/*/*.{sh,sql,pl,pm,py} .ci/run Makefile test/unit/Makefile *.md)

clang-format --dry-run -Werror "${c_files[@]}" || failed=1
if grep -nE '[[:blank:]]+$' "${c_files[@]}" "${other_files[@]}"; then
    echo "The lines above end in blanks."
    failed=1
fi
exit "$failed"
