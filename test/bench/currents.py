"""Deliveries of a current beside pg_recvlogical, over the same stretch of the WAL.

Rows are inserted in transactions of BENCH_CURRENTS_TRANSACTION rows, after a slot
for every run has been made.  s3export decodes them into CSV files that nginx takes
and drops: all of the table, some of its columns, and the rows that a filter lets through.
pg_recvlogical writes what test_decoding and wal2json make of the changes to
/dev/null.  A run is timed from its start, of processes and connections too, to
its end; then its slot goes.
"""
import os
import subprocess
import time

import data
from measure import Results, Session, Watch, interleaved, literal, say, setting

PLUGINS = {"test_decoding": [], "wal2json": ["-o", "format-version=2"]}


# What publications have of a table, by the case; and which part of its rows.
COLUMNS = {"lineitem": "l_orderkey, l_partkey, l_quantity, l_shipdate",
           "events": "id, session, happened_at, path"}
FILTERS = {"lineitem": "l_linestatus = 'O'", "events": "id % 2 = 0"}
CASES = {"s3export": lambda table: (table, 1),
         "s3export, 4 columns": lambda table: ("%s (%s)" % (table, COLUMNS[table]), 1),
         "s3export, row filter": lambda table: ("%s WHERE (%s)" % (table, FILTERS[table]), 2)}


def name_of(case, number):
    """Of the connector that delivers in a round; warm-ups have numbers below 1."""
    return "%s, round %d" % (case, number)


class Log:
    """A table whose rows are in the log between two positions, with what can read it."""

    def __init__(self, session, table, rows):
        self.session, self.table, self.rows = session, table, rows
        self.query = data.TABLES[table][1]
        session.run("CREATE TABLE %s AS %s LIMIT 0" % (table, self.query % 1))
        session.run("SELECT pg_create_logical_replication_slot('base', 'test_decoding')")
        for case, published in CASES.items():
            session.run('CREATE PUBLICATION "%s" FOR TABLE %s WITH (publish = \'insert\')'
                        % (case, published(table)[0]))
            for number in range(1 - int(setting("BENCH_WARM_UP")), int(setting("BENCH_ROUNDS")) + 1):
                self.launch(case, number)
        start = session.value("SELECT pg_current_wal_lsn()")
        self.fill()
        self.end = session.value("SELECT pg_current_wal_lsn()")
        self.size = int(session.value("SELECT %s::pg_lsn - %s::pg_lsn"
                                      % (literal(self.end), literal(start))))
        # Whoever waits for the end sees something after it.
        session.run("SELECT pg_logical_emit_message(true, 'end', '')")
        session.run("CHECKPOINT")

    def launch(self, case, number):
        name = literal(name_of(case, number))
        self.session.run(
            "SELECT s3export.create_connector(%s, 'null', kind => 'currents', publication => %s,"
            " folder_path => %s, endpoint_url => %s, region => 'us-east-1',"
            " credentials_from => 'http', validate => false)"
            % (name, literal(case), literal("%s/%s/%d" % (self.table, case, number)),
               literal(setting("S3EXPORT_SINK_HTTP"))))
        self.session.run("SELECT s3export.launch(%s)" % name)

    def fill(self):
        chunk = int(setting("BENCH_CURRENTS_TRANSACTION"))
        rows = (self.query % self.rows).replace(
            "generate_series(1::bigint, %d)" % self.rows,
            "generate_series(low::bigint, least(low + %d, %d)::bigint)" % (chunk - 1, self.rows))
        self.session.run(("DO $do$ BEGIN FOR low IN 1..%d BY %d LOOP INSERT INTO %s %s; COMMIT;"
                          " END LOOP; END $do$") % (self.rows, chunk, self.table, rows))

    def deliver(self, case, number):
        events, size = self.session.value(
            "SELECT events || ' ' || bytes FROM s3export.deliver(%s)"
            % literal(name_of(case, number))).split()
        if int(events) != self.rows // CASES[case](self.table)[1]:
            raise SystemExit("currents: %s events of %d were delivered" % (events, self.rows))
        return int(size)

    def receive(self, plugin):
        self.session.run("SELECT pg_copy_logical_replication_slot('base', 'receiver', false, %s)"
                         % literal(plugin))
        begin = time.monotonic()
        subprocess.run([setting("PG_BIN") + "/pg_recvlogical", "-d", setting("PGDATABASE"), "-S",
                        "receiver", "--start", "--no-loop", "-f", "/dev/null", "-F", "0",
                        "--endpos", self.end] + PLUGINS[plugin], check=True)
        seconds = time.monotonic() - begin
        self.session.run("SELECT pg_drop_replication_slot('receiver')")
        return seconds

    def close(self):
        self.session.run("SELECT s3export.drop_connector(name) FROM s3export.currents")
        self.session.run("SELECT pg_drop_replication_slot('base')")
        for case in CASES:
            self.session.run('DROP PUBLICATION "%s"' % case)
        self.session.run("DROP TABLE %s" % self.table)
        self.session.run("CHECKPOINT")


def measure(log, results):
    for number, case in interleaved(list(CASES) + list(PLUGINS)):
        size = 0
        with Watch(int(setting("BENCH_POSTMASTER")), log.session) as watch:
            if case in CASES:
                begin = time.monotonic()
                size = log.deliver(case, number)
                seconds = time.monotonic() - begin
            else:
                seconds = log.receive(case)
        if number > 0:
            results.add(table=log.table, rows=log.rows, wal=log.size, bytes=size, case=case,
                        round=number, seconds=seconds, cpu=watch.cpu, memory=watch.memory)


def main():
    results = Results("currents")
    for table in setting("BENCH_CURRENTS_TABLES").split():
        with Session() as session:
            say("currents: making %s" % table)
            log = Log(session, table, int(setting("BENCH_CURRENTS_ROWS")))
            measure(log, results)
            log.close()


if __name__ == "__main__":
    main()
