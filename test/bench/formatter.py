"""Formatting alone: the CSV receiver with a sink that discards, beside COPY to /dev/null.

Every table is written by COPY of the query, COPY of the table, the receiver,
and the receiver without its fast paths, one after the other in each round.
"""
import os

import data
from measure import Results, Session, interleaved, literal, say, setting


def probe(name, path="NULL"):
    return ("SELECT csv_probe(%s, %s, true, NULL, NULL, NULL, NULL, NULL, NULL, 262144)"
            % (literal("SELECT * FROM %s" % name), path))


def same_bytes(session, name, directory):
    """What was measured has to be the same thing."""
    paths = [os.path.join(directory, file) for file in ("copy.csv", "probe.csv")]
    session.run("COPY %s TO '%s' (FORMAT csv, HEADER)" % (name, paths[0]))
    session.run(probe(name, literal(paths[1])))
    if os.system("cmp '%s' '%s'" % tuple(paths)) != 0:
        raise SystemExit("%s: the receiver's bytes are not COPY's" % name)
    for path in paths:
        os.unlink(path)


def main():
    directory = setting("BENCH_SERVER_FILES")
    results = Results("formatter")
    # The module of the tests has the setting of the extension's name, so that
    # one session cannot load both.
    with Session("CREATE FUNCTION csv_probe(query text, path text, header bool, delimiter text,"
                 " quote text, escape text, nul text, force_quote text[], encoding text,"
                 " block_size int) RETURNS bigint LANGUAGE c AS %s"
                 % literal(setting("BENCH_PROBE")), "LOAD %s" % literal(setting("BENCH_PROBE"))
                 ) as session:
        for name in setting("BENCH_TABLES").split():
            say("formatter: making %s" % name)
            rows, size = data.make(session, name, float(setting("BENCH_MB")), directory)
            same_bytes(session, name, directory)
            copy = "COPY %s TO '/dev/null' (FORMAT csv, HEADER)"
            cases = [("copy query", copy % ("(SELECT * FROM %s)" % name)),
                     ("receiver", probe(name)),
                     ("copy table", copy % name),
                     ("receiver, plain", probe(name))]
            for number, (case, sql) in interleaved(cases):
                fast = "off" if case == "receiver, plain" else "on"
                session.run("SET s3export.fast_output = %s" % fast)
                _, seconds = session.run(sql)
                if number > 0:
                    results.add(table=name, rows=rows, bytes=size, case=case, round=number,
                                seconds=seconds)
            session.run("DROP TABLE %s" % name)


main()
