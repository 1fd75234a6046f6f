#!/bin/bash
# assert.sh: PostgreSQL from Debian's source package, with assertions.
#
# usage: assert.sh DIR
#
# Builds PostgreSQL PG_MAJOR into DIR/PG_MAJOR, unless it is there, and prints the path
# of its pg_config.  It is of the newest source that Debian's archive has.  The system's
# lists of packages stay as they are.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[ $# -eq 1 ] || {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}
DIR=$(cd "$1" && pwd -P)
TARGET=$DIR/${PG_MAJOR:?says which PostgreSQL}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# with_lists COMMAND ARG...: an apt command with lists of its own.
with_lists() {
    "$@" -q -o Dir::Etc::sourcelist="$BUILD/apt/sources" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$BUILD/apt/lists" -o Dir::Cache::archives="$BUILD/apt/archives" \
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root
}

# Sources are where the system has Debian's packages from.  The newest may be withdrawn by the
# mirror that is asked.
download() {
    local version

    mkdir -p "$BUILD/apt/lists/partial" "$BUILD/apt/archives/partial"
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        grep -E '^http[^ ]*/debian[^ ]* ' | sort -u |
        sed "s#^#deb-src [signed-by=$KEYRING] #" >"$BUILD/apt/sources"
    with_lists apt-get update
    for version in $(with_lists apt-cache showsrc --only-source "postgresql-$PG_MAJOR" |
        sed -n 's/^Version: //p' | sort -rV); do
        with_lists apt-get source --download-only "postgresql-$PG_MAJOR=$version" && return 0
    done
    die "Debian's archive has no source of postgresql-$PG_MAJOR"
}

# With what the tests compare by: the options that values and messages depend on.
build() {
    exec >"$DIR/build.log" 2>&1
    cd "$BUILD"
    download
    mkdir source
    tar -C source --strip-components=1 -xf postgresql-*.orig.tar.*
    cd source
    ./configure -q --prefix="$TARGET" --enable-cassert --enable-debug --enable-tap-tests \
        --with-openssl --with-libxml --with-icu CFLAGS='-O1 -g -fno-omit-frame-pointer'
    make -s -j2 world-bin
    # In one step, so that a build that fails leaves nothing that is taken for one.
    make -s install-world-bin DESTDIR="$BUILD/installed"
    mv "$BUILD/installed$TARGET" "$TARGET"
}

if [ ! -d "$TARGET" ]; then
    need_packages gcc libc6-dev make dpkg-dev bison flex pkg-config libreadline-dev zlib1g-dev \
        libssl-dev libxml2-dev libicu-dev >&2
    BUILD=$(mktemp -d "$DIR/build.XXXXXX")
    on_exit rm -rf "$BUILD"
    # In the background, as a function in a condition runs without "set -e".
    build &
    wait $! || {
        tail -n 40 "$DIR/build.log" >&2
        die "could not build PostgreSQL: see $DIR/build.log"
    }
fi
say "$TARGET/bin/pg_config"
