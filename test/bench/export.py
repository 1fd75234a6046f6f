"""Exports end to end, beside what people do today: same rounds, same sinks.

For every sink and table each case runs once a round, one after the other.  CSV
goes to every sink with a header line.  Bytes are those of the CSV, also where
what is sent is compressed.
"""
import os
import subprocess
import time

import data
from measure import Results, Session, Watch, has_argument, interleaved, literal, say, setting

LIB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib")


class Case:
    """A way to export: a statement, or a pipeline of the shell."""

    def __init__(self, name, sql=None, shell=None, key=None, gzip=False, ordered=True):
        self.name = name
        self.sql = sql
        self.shell = shell
        self.key = key
        self.gzip = gzip
        self.ordered = ordered  # as COPY writes the rows

    def run(self, session):
        """Seconds."""
        if self.sql:
            return session.run(self.sql)[1]
        begin = time.monotonic()
        subprocess.run(["bash", "-c", "set -euo pipefail; " + self.shell], check=True,
                       stdin=subprocess.DEVNULL)
        return time.monotonic() - begin


def copy_to(sink, query, key, **options):
    given = "".join(", %s => %s" % option for option in options.items())
    return ("SELECT bytes FROM s3export.copy_to(%s, %s, %s, if_exists => 'overwrite'%s)"
            % (literal(sink), literal(query), literal(key), given))


def cases(session, sink, table):
    query = "SELECT * FROM %s" % table
    programs = setting("BENCH_PROGRAMS")
    scans = int(setting("BENCH_PARALLEL"))
    # "serial" has to be said where an export may be parallel unasked.
    serial, ways = {}, []
    if has_argument(session, "parallel"):
        serial = {"parallel": 0}
        # The session scans, too.
        ways = [("s3export, parallel => %d" % (scans - 1), {"parallel": scans - 1})]
    ways.insert(0, ("s3export", serial))

    def to_program(tools):
        return "COPY (%s) TO PROGRAM %s (FORMAT csv, HEADER)" % (query, literal(tools))

    def from_psql(tools):
        return ("'%s/psql' -X -q -c 'COPY (%s) TO STDOUT (FORMAT csv, HEADER)' | %s"
                % (setting("PG_BIN"), query, tools))

    yield Case("COPY TO '/dev/null'", "COPY (%s) TO '/dev/null' (FORMAT csv, HEADER)" % query)
    for gzip in (False, True):
        suffix, pack, key = ("", "", "bench/o.csv") if not gzip else \
            (", gzip", "gzip -1 | ", "bench/o.csv.gz")
        aws, rclone = ("%s%s/%s-%s %s" % (pack, programs, tool, sink, key)
                       for tool in ("aws", "rclone"))
        if gzip and not has_argument(session, "compression"):
            say("export: copy_to of this build does not compress; no case with gzip")
            return
        for name, options in ways:
            if gzip:
                options = dict(options, compression="'gzip'")
            ordered = not options.get("parallel")
            yield Case(name + suffix, copy_to(sink, query, os.path.basename(key), **options),
                       key=key, gzip=gzip, ordered=ordered)
            # Over https no body is signed anyway; the AWS CLI and rclone do the same.
            if sink == "http" and not gzip:
                yield Case(name + ", bodies not signed",
                           copy_to(sink + "-unsigned", query, os.path.basename(key), **options),
                           key=key)
        rivals = setting("BENCH_RIVALS").split()
        if "aws" in rivals:
            yield Case("COPY TO PROGRAM '%saws s3 cp -'" % pack, to_program(aws), key=key,
                       gzip=gzip)
        if "rclone" in rivals:
            yield Case("COPY TO PROGRAM '%srclone rcat'" % pack, to_program(rclone), key=key,
                       gzip=gzip)
        if "psql" in rivals:
            yield Case("psql | %saws s3 cp -" % pack, shell=from_psql(aws), key=key, gzip=gzip)


class Store:
    """What is in the bucket, where the sink keeps anything."""

    SORT = "LC_ALL=C sort -S 2G --parallel=2"

    def __init__(self, table, session):
        self.expected = os.path.join(setting("BENCH_SERVER_FILES"), "expected.csv")
        session.run("COPY (SELECT * FROM %s) TO '%s' (FORMAT csv, HEADER)" % (table, self.expected))

    def check(self, case):
        """The object has what COPY writes; then it goes, and its space before the next case."""
        s3 = "%s '%s/s3.py'" % (setting("PYTHON"), LIB)
        fetch = "%s get %s" % (s3, case.key) + (" | gzip -dc" if case.gzip else "")
        compare = "cmp - '%s'" % self.expected
        if not case.ordered:
            compare = "%s | cmp - <(%s <'%s')" % (self.SORT, self.SORT, self.expected)
        subprocess.run(
            ["bash", "-c", "set -euo pipefail; %s | %s; %s rm %s; radosgw-admin -c %s/rgw/"
             "ceph.conf -n client.rgw --no-mon-config gc process --include-all >/dev/null 2>&1"
             % (fetch, compare, s3, case.key, setting("BENCH_SERVERS"))], check=True)

    def close(self):
        os.unlink(self.expected)


def sink_processes(sink):
    names = {"rgw": ["rgw/rgw.pid", "rgw/osd.pid"]}.get(sink, ["sink/nginx.pid"])
    pids = []
    for name in names:
        with open(os.path.join(setting("BENCH_SERVERS"), name)) as file:
            pids.append(int(file.read()))
    return pids


def measure(session, results, sink, table, rows, size):
    store = Store(table, session) if sink == "rgw" else None
    for number, case in interleaved(list(cases(session, sink, table))):
        with Watch(int(setting("BENCH_POSTMASTER")), session if case.sql else None,
                   sink_processes(sink)) as watch:
            seconds = case.run(session)
        if store and case.key:
            store.check(case)
        if number > 0:
            results.add(sink=sink, table=table, rows=rows, bytes=size, case=case.name,
                        gzip=case.gzip, round=number, seconds=seconds, cpu=watch.cpu,
                        memory=watch.memory, sink_cpu=watch.sink_cpu)
    if store:
        store.close()


def main():
    results = Results("export")
    directory = setting("BENCH_SERVER_FILES")
    for table in setting("BENCH_EXPORT_TABLES").split():
        with Session() as session:
            say("export: making %s" % table)
            rows, size = data.make(session, table, float(setting("BENCH_MB")), directory)
        for sink in setting("BENCH_SINKS").split():
            # A backend that has made a table has memory that no export needs.
            with Session() as session:
                measure(session, results, sink, table, rows, size)
        with Session() as session:
            session.run("DROP TABLE %s" % table)


if __name__ == "__main__":
    main()
