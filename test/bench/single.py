"""How long an export of one row takes: the first of a session, and one of those that follow.

With the library loaded by each process that needs it, and by the server at its start.
The server writes to its disk as it does by default, and no other export is under way.
"""
import subprocess

from export import copy_to
from measure import Results, Session, literal, say, setting

FIRST_CALLS = 20
PAUSE = 0.02  # s; in which the process of the last export has ended


def restart(**settings):
    with Session() as session:
        for name, value in settings.items():
            session.run("ALTER SYSTEM SET %s = %s" % (name, literal(value)) if value
                        else "ALTER SYSTEM RESET %s" % name)
    subprocess.run([setting("BENCH_PROGRAMS") + "/restart-postgres"], check=True)
    with Session() as session:
        session.run("VACUUM ANALYZE")


def measure(results, sink, preloaded):
    calls = 100 * int(setting("BENCH_ROUNDS"))
    export = copy_to(sink, "SELECT 1", "one.csv")

    def add(case, seconds):
        results.add(sink=sink, preloaded=preloaded, case=case, seconds=seconds)

    for _ in range(FIRST_CALLS):
        with Session() as session:
            add("first", session.run(export)[1])
    with Session() as session:
        session.run(export)
        for _ in range(calls):
            session.run("SELECT pg_sleep(%s)" % PAUSE)
            add("later", session.run(export)[1])


def main():
    results = Results("single")
    sinks = [sink for sink in setting("BENCH_SINKS").split() if sink in ("http", "rgw")]
    for preloaded in (False, True):
        say("single: the library is loaded by " + ("the server" if preloaded else "each process"))
        restart(fsync="on", shared_preload_libraries="s3export" if preloaded else None)
        for sink in sinks:
            measure(results, sink, preloaded)
    restart(fsync="off", shared_preload_libraries=None)


main()
