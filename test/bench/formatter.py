"""Formatting alone: the CSV receiver with a sink that discards, beside COPY to /dev/null.

Every table is written by COPY of the query, COPY of the table, the receiver,
and the receiver without its fast paths, one after the other in each round; then
by COPY and by the receiver with a filter that all rows pass.
"""
import os

import data
from measure import Results, Session, interleaved, literal, say, setting


def probe(query, path="NULL"):
    return ("SELECT csv_probe(%s, %s, true, NULL, NULL, NULL, NULL, NULL, NULL, 262144)"
            % (literal(query), path))


def probe_session():
    """The module of the tests has the setting of the extension's name, so that one session
    cannot load both."""
    module = literal(setting("BENCH_PROBE"))
    return Session("CREATE OR REPLACE FUNCTION csv_probe(query text, path text, header bool,"
                   " delimiter text, quote text, escape text, nul text, force_quote text[],"
                   " encoding text, block_size int) RETURNS bigint LANGUAGE c AS " + module,
                   "LOAD " + module)


def filtered(session, name):
    """The first column of each is a number from 0 or 1 up."""
    column = session.value("SELECT attname FROM pg_attribute WHERE attnum = 1 AND attrelid = %s"
                           "::regclass" % literal(name))
    return "SELECT * FROM %s WHERE %s >= 0" % (name, column)


def same_bytes(session, name, directory):
    """What was measured has to be the same thing."""
    paths = [os.path.join(directory, file) for file in ("copy.csv", "probe.csv")]
    session.run("COPY %s TO '%s' (FORMAT csv, HEADER)" % (name, paths[0]))
    session.run(probe("SELECT * FROM %s" % name, literal(paths[1])))
    if os.system("cmp '%s' '%s'" % tuple(paths)) != 0:
        raise SystemExit("%s: the receiver's bytes are not COPY's" % name)
    for path in paths:
        os.unlink(path)


def main():
    directory = setting("BENCH_SERVER_FILES")
    results = Results("formatter")
    with probe_session() as session:
        for name in setting("BENCH_TABLES").split():
            say("formatter: making %s" % name)
            rows, size = data.make(session, name, float(setting("BENCH_MB")), directory)
            same_bytes(session, name, directory)
            copy = "COPY %s TO '/dev/null' (FORMAT csv, HEADER)"
            query, some = "SELECT * FROM %s" % name, filtered(session, name)
            cases = [("copy query", copy % ("(%s)" % query)),
                     ("receiver", probe(query)),
                     ("copy table", copy % name),
                     ("receiver, plain", probe(query)),
                     ("copy filter", copy % ("(%s)" % some)),
                     ("receiver, filter", probe(some))]
            for number, (case, sql) in interleaved(cases):
                fast = "off" if case == "receiver, plain" else "on"
                session.run("SET s3export.fast_output = %s" % fast)
                _, seconds = session.run(sql)
                if number > 0:
                    results.add(table=name, rows=rows, bytes=size, case=case, round=number,
                                seconds=seconds)
            session.run("DROP TABLE %s" % name)


if __name__ == "__main__":
    main()
