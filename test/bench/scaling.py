"""How time grows: with rows, with columns, with workers, and with the store's distance."""
import subprocess

import data
from export import copy_to
from formatter import probe, probe_session
from measure import Results, Session, has_argument, interleaved, literal, say, setting


class Throttle:
    """The http sink, behind so many bytes a second for each connection and a delay."""

    def __init__(self, bandwidth, delay):
        upstream = setting("S3EXPORT_SINK_HTTP").partition("://")[2]
        self.process = subprocess.Popen(
            [setting("BENCH_THROTTLE"), upstream, str(bandwidth), str(delay)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = "http://127.0.0.1:%d" % int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def connect(session, name, url):
    session.run("SELECT s3export.create_connector(%s, 'null', folder_path => 'bench',"
                " endpoint_url => %s, region => 'us-east-1', validate => false,"
                " access_key_id => 'SINK', secret_access_key => 'none-is-checked-here')"
                % (literal(name), literal(url)))


def run_rounds(results, session, chart, x, size, cases, sessions=None):
    """Cases run in "session", or in that of "sessions" by their name."""
    for number, (case, settings, sql) in interleaved(cases):
        where = (sessions or {}).get(case, session)
        for name, value in settings.items():
            where.run("SET %s = %s" % (name, literal(str(value))))
        _, seconds = where.run(sql)
        for name in settings:
            where.run("RESET %s" % name)
        if number > 0:
            results.add(chart=chart, x=x, case=case, size=size, round=number, seconds=seconds)


def serial(session):
    return {"parallel": 0} if has_argument(session, "parallel") else {}


def pair(session, table):
    """COPY to nowhere, and the export to a sink that drops what it gets."""
    query = "SELECT * FROM %s" % table
    return [("COPY TO '/dev/null'", {}, "COPY (%s) TO '/dev/null' (FORMAT csv, HEADER)" % query),
            ("s3export", {}, copy_to("http", query, "o.csv", **serial(session)))]


def measure_rows(results, session):
    query = ("SELECT n::int AS id, date '2026-01-01' + (n %% 1000)::int AS day,"
             " (n %% 10000 / 100.0)::numeric(8,2) AS amount, 'item ' || n %% 1000 AS item"
             " FROM generate_series(1::bigint, %d) n")
    base = int(setting("BENCH_ROWS"))
    unsigned = copy_to("http-unsigned", "SELECT * FROM rows_n", "o.csv", **serial(session))
    alone = "formatting alone"
    with probe_session() as formatter:
        for rows in [1] + [base * int(factor) for factor in setting("BENCH_FACTORS").split()]:
            say("scaling: making %d rows" % rows)
            data.fill(session, "rows_n", query, rows)
            run_rounds(results, session, "rows", rows, rows,
                       pair(session, "rows_n") + [
                           ("s3export, bodies not signed", {}, unsigned),
                           (alone, {}, probe("SELECT * FROM rows_n"))], {alone: formatter})
            session.run("DROP TABLE rows_n")


def measure_columns(results, session):
    values = int(float(setting("BENCH_MB")) * 1e6 / 8)
    for columns in (5, 50, 500):
        say("scaling: making %d columns" % columns)
        rows = data.make_columns(session, columns, values)
        run_rounds(results, session, "columns", columns, rows * columns,
                   pair(session, "columns_%d" % columns))
        session.run("DROP TABLE columns_%d" % columns)


def measure_workers(results, session, size):
    query = "SELECT * FROM lineitem"
    if not has_argument(session, "parallel"):
        say("scaling: copy_to of this build is not parallel; workers are left out")
        return
    for workers in setting("BENCH_WORKERS").split():
        run_rounds(results, session, "workers", int(workers), size,
                   [("s3export", {}, copy_to("http", query, "o.csv", parallel=workers))])


def measure_latency(results, session, size):
    query = "SELECT * FROM lineitem"
    bandwidth = int(setting("BENCH_CONNECTION_MB")) * 1000000
    for delay in setting("BENCH_DELAYS").split():
        with Throttle(bandwidth, delay) as throttle:
            name = "throttled_%s" % delay
            connect(session, name, throttle.url)
            export = copy_to(name, query, "o.csv", **serial(session))
            cases = [("s3export, default settings", {}, export)]
            for parts in setting("BENCH_PARTS").split():
                # Parts of 16 MB, and one that is being filled.
                settings = {"s3export.max_concurrent_parts": parts, "s3export.part_size": "16MB",
                            "s3export.upload_memory": "%dMB" % (16 * (int(parts) + 1))}
                cases.append(("s3export, parts in flight: " + parts, settings, export))
            aws = "%s/aws-http %s %s" % (setting("BENCH_PROGRAMS"), "bench/o.csv", throttle.url)
            cases.append(("COPY TO PROGRAM 'aws s3 cp -'", {},
                          "COPY (%s) TO PROGRAM %s (FORMAT csv, HEADER)" % (query, literal(aws))))
            run_rounds(results, session, "latency", int(delay), size, cases)


def main():
    results = Results("scaling")
    charts = setting("BENCH_CHARTS").split()
    with Session("LOAD 's3export'") as session:
        if "rows" in charts:
            measure_rows(results, session)
        if "columns" in charts:
            measure_columns(results, session)
        if "workers" not in charts and "latency" not in charts:
            return
        say("scaling: making lineitem")
        _, size = data.make(session, "lineitem", float(setting("BENCH_MB")),
                            setting("BENCH_SERVER_FILES"))
        if "workers" in charts:
            measure_workers(results, session, size)
        if "latency" in charts:
            measure_latency(results, session, size)
        session.run("DROP TABLE lineitem")


main()
