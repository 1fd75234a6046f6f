#!/bin/bash
# valgrind.sh: PostgreSQL in Valgrind's memcheck, for tests that start it with pg_ctl.
#
# usage: valgrind.sh install DIR LOGS | report LOGS
#
# install puts a pg_ctl into DIR, to come first in PATH; the servers that it starts
# write a log a process to LOGS.  report prints the errors that have the module on
# their stack; exit status 1 when there is one, or when the module was not seen at
# work.  PG_CONFIG says which PostgreSQL it is.
#
# PostgreSQL is not built for Valgrind: memory contexts take large pieces from
# malloc, of which Valgrind knows the bounds, not those of what is in them.  It
# sees what is used without having been written, and what malloc gave to libraries.
set -euo pipefail
LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

# The server finds its files from the name that it is run by.
install() {
    local bin

    bin=$("${PG_CONFIG:-pg_config}" --bindir)
    cat >"$1/postgres" <<WRAPPER
#!/bin/bash
exec valgrind --quiet --leak-check=no --num-callers=40 --error-limit=no --fullpath-after= \\
    --suppressions=$LIB/postgres.supp --log-file=$2/%p.log $bin/postgres "\$@"
WRAPPER
    cat >"$1/pg_ctl" <<WRAPPER
#!/bin/bash
case " \$* " in
    *" start "* | *" restart "*) exec $bin/pg_ctl -t 180 -p $1/postgres "\$@" ;;
    *) exec $bin/pg_ctl -t 180 "\$@" ;;
esac
WRAPPER
    chmod 755 "$1/postgres" "$1/pg_ctl"
    chmod 644 "$LIB/postgres.supp"
}

# An error is a paragraph; a frame of ours names a file of src/, or the library.
report() {
    perl -e '
        my ($ours, $theirs) = (0, 0);
        foreach my $file (@ARGV)
        {
            open my $log, "<", $file or die "could not read $file: $!";
            my $text = do { local $/; <$log> } // "";
            $text =~ s/^==\d+== ?//mg;
            foreach my $error (split /\n\s*\n/, $text)
            {
                next unless $error =~ /^ +(?:at|by) 0x/m;
                if ($error =~ m{\((?:in )?\S*(?:/s3export\.so|/src/(?:[a-z0-9]+/)?[a-z0-9_]+\.c:\d+)\)})
                {
                    print "$file:\n$error\n\n" if $ours++ < 10;
                }
                else { $theirs++ }
            }
        }
        print scalar(@ARGV), " processes, $ours errors of the module, $theirs others\n";
        exit($ours ? 1 : 0);' "$@"
}

case ${1:-} in
    install)
        [ $# -eq 3 ] || usage
        install "$2" "$3"
        ;;
    report)
        [ $# -eq 2 ] || usage
        shopt -s nullglob
        logs=("$2"/*.log)
        # A server and a backend and an uploader at least.
        [ ${#logs[@]} -ge 3 ] || {
            echo "Valgrind has left no logs in $2"
            exit 1
        }
        report "${logs[@]}"
        ;;
    *) usage ;;
esac
