"""Tables in Markdown, on standard output, and charts, of what the parts have measured.

usage: report.py PART...     with BENCH_RESULTS set, as in run.sh
"""
import json
import os
import statistics
import sys

import svg
from data import DESCRIPTIONS

RESULTS = os.environ["BENCH_RESULTS"]


class Runs:
    """The measurements of a part, with one key for each thing that was run."""

    def __init__(self, part, *keys):
        self.keys = {}
        with open(os.path.join(RESULTS, part + ".jsonl")) as file:
            for line in file:
                run = json.loads(line)
                self.keys.setdefault(tuple(run[key] for key in keys), []).append(run)

    def values(self, position):
        """The different values of one of the keys, in the order of their coming."""
        return list(dict.fromkeys(key[position] for key in self.keys))

    def median(self, key, field="seconds"):
        return statistics.median(run[field] for run in self.keys[key])

    def ratio(self, base, key):
        """How many times as fast as the base: median of the ratios within each round."""
        rounds = [{run["round"]: run["seconds"] for run in self.keys[k]} for k in (base, key)]
        return statistics.median(rounds[0][n] / rounds[1][n] for n in rounds[1])


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|---" + "|---:" * (len(head) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    print()


def write(name, chart):
    with open(os.path.join(RESULTS, name), "w") as file:
        file.write(chart)


def times(ratio):
    return "%.2f" % ratio if ratio < 10 else "%.1f" % ratio


# ------------------------------------------------------------------ formatter

def formatter():
    runs = Runs("formatter", "table", "case")
    rows, bars = [], []
    for name in runs.values(0):
        def key(case):
            return name, case

        receiver = key("receiver")
        first = runs.keys[receiver][0]
        query, whole = (runs.ratio(key(base), receiver) for base in ("copy query", "copy table"))
        rows.append(["%s (%s)" % (name, DESCRIPTIONS[name]), "%.0f" % (first["bytes"] / 1e6),
                     *("%.3f" % runs.median(key(case)) for case in
                       ("copy query", "copy table", "receiver")),
                     "%.0f" % (first["bytes"] / 1e6 / runs.median(receiver)),
                     "%.0f" % (runs.median(receiver) * 1e9 / first["rows"]),
                     "**%s**" % times(query), "**%s**" % times(whole),
                     times(runs.ratio(key("copy filter"), key("receiver, filter"))),
                     times(runs.ratio(key("copy query"), key("receiver, plain")))])
        bars.append((name, [query, whole]))
    print("### Formatting: the CSV receiver, one process, bytes dropped\n")
    table(["table", "CSV, MB", "COPY (query), s", "COPY table, s", "receiver, s", "MB/s", "ns/row",
           "x COPY (query)", "x COPY table", "with a filter, x COPY (query)", "fast_output off, x COPY (query)"], rows)
    write("formatter.svg", svg.bars(
        "Formatting, times as fast as COPY to /dev/null", ["COPY (SELECT ...)", "COPY table"],
        bars))


# --------------------------------------------------------------------- export

def by_role(values, unit, least):
    """"aws 4.10 + backend 1.20", greatest first, without what is less than the least."""
    shown = sorted(((value / unit, name) for name, value in values.items() if name != "all"),
                   reverse=True)
    return " + ".join(("%s %.2f" if value < 10 else "%s %.0f") % (name, value)
                      for value, name in shown if value >= least) or "0"


def medians(runs, field):
    """Of each role over the rounds; a role that a round did not see had nothing in it."""
    names = {name for run in runs for name in run[field]}
    return {name: statistics.median(run[field].get(name, 0) for run in runs) for name in names}


def export_row(runs, key, base):
    measured = runs.keys[key]
    size = measured[0]["bytes"] / 1e9
    cpu = medians(measured, "cpu")
    return [key[2], "%.2f" % runs.median(key), "%.0f" % (size * 1e3 / runs.median(key)),
            "**%s**" % times(runs.ratio(base, key)) if base in runs.keys else "",
            times(runs.ratio((*key[:2], "COPY TO '/dev/null'"), key)),
            "%.2f" % (statistics.median(sum(run["cpu"].values()) for run in measured) / size),
            by_role(cpu, size, 0.01),
            "%.2f" % (runs.median(key, "sink_cpu") / size),
            by_role(medians(measured, "memory"), 1024, 1)]


def export():
    runs = Runs("export", "sink", "table", "case")
    sinks = {"http": "nginx, http, bytes dropped", "https": "nginx, https, bytes dropped",
             "rgw": "Ceph RGW, bluestore"}
    bars = []
    print("### Exports end to end\n")
    print("\"x aws\" is how many times as fast as `COPY TO PROGRAM 'aws s3 cp -'` (with `gzip -1` "
          "for the cases with gzip), \"x COPY\" as `COPY (query) TO '/dev/null'`, which sends "
          "nothing anywhere. MB and GB are of CSV. Memory is the peak of RssAnon, as the median of "
          "the rounds; processes with less than 1 MiB are left out.\n")
    for sink in runs.values(0):
        for name in runs.values(1):
            rows, keys = [], [key for key in runs.keys if key[:2] == (sink, name)]
            if not keys:
                continue
            for key in keys:
                gzip = runs.keys[key][0]["gzip"]
                base = (sink, name,
                        "COPY TO PROGRAM '%saws s3 cp -'" % ("gzip -1 | " if gzip else ""))
                rows.append(export_row(runs, key, base))
                if "s3export" in key[2]:
                    bars.append(("%s, %s: %s" % (name, sink, key[2]), [runs.ratio(base, key)]))
            print("#### %s, %.0f MB, into %s\n" % (
                name, runs.keys[keys[0]][0]["bytes"] / 1e6, sinks[sink]))
            table(["export", "s", "MB/s", "x aws", "x COPY", "CPU s/GB", "of each process",
                   "sink's CPU s/GB", "memory of each process, MiB"], rows)
    write("export.svg", svg.bars("Exports, times as fast as COPY TO PROGRAM 'aws s3 cp -' "
                                 "(gzip: 'gzip -1 | aws s3 cp -')", [""], bars))


# --------------------------------------------------------------------- single

def single():
    runs = Runs("single", "sink", "preloaded", "case")
    rows = []
    for sink, preloaded in dict.fromkeys(key[:2] for key in runs.keys):
        row = [sink, "the server" if preloaded else "each process"]
        for case in ("first", "later"):
            key = (sink, preloaded, case)
            row += ["%.1f" % (1e3 * min(run["seconds"] for run in runs.keys[key])),
                    "%.1f" % (1e3 * runs.median(key)), str(len(runs.keys[key]))]
        rows.append(row)
    print("### An export of one row, ms\n")
    table(["into", "library loaded by", "first of a session: least", "median", "calls",
           "one that follows: least", "median", "calls"], rows)


# -------------------------------------------------------------------- scaling

CHARTS = {
    "rows": ("Rows", "rows", "nanoseconds per row", lambda s, n: s * 1e9 / n),
    "columns": ("Columns (the same number of values)", "columns", "nanoseconds per value",
                lambda s, n: s * 1e9 / n),
    "workers": ("Parallel workers asked for", "parallel", "MB/s", lambda s, n: n / 1e6 / s),
    "latency": ("Delay of the store, %s MB/s per connection"
                % os.environ.get("BENCH_CONNECTION_MB", "?"), "milliseconds", "MB/s",
                lambda s, n: n / 1e6 / s),
}


def scaling():
    runs = Runs("scaling", "chart", "x", "case")
    panels = []
    print("### Scaling, into nginx over http\n")
    for chart in runs.values(0):
        title, across, up, value = CHARTS[chart]
        points = list(dict.fromkeys(key[1] for key in runs.keys if key[0] == chart))
        cases = list(dict.fromkeys(key[2] for key in runs.keys if key[0] == chart))
        sizes = {x: runs.keys[chart, x, cases[0]][0]["size"] for x in points}
        values = {case: {x: value(runs.median((chart, x, case)), sizes[x]) for x in points}
                  for case in cases}
        if chart == "rows":
            points.remove(1)
            for case in ("s3export", "s3export, bodies not signed"):
                start = runs.median((chart, 1, case))
                values[case + ", less its time for one row"] = {
                    x: value(runs.median((chart, x, case)) - start, sizes[x]) for x in points}
            print("An export of one row takes %.1f ms: an uploader starts, connects, and ends.\n"
                  % (runs.median((chart, 1, "s3export")) * 1e3))
        print("#### %s: %s\n" % (title, up))
        table([across] + ["{:,}".format(x) for x in points],
              [[case] + ["%.1f" % line[x] for x in points] for case, line in values.items()])
        panels.append((title, across, up, points,
                       [(case, [line[x] for x in points]) for case, line in values.items()]))
    write("scaling.svg", svg.lines(panels))


# ------------------------------------------------------------------- currents

def currents():
    runs = Runs("currents", "table", "case")
    rows = []
    for name in runs.values(0):
        others = [(name, case) for case in runs.values(1) if not case.startswith("s3export")]
        fastest = min(others, key=runs.median)
        for key in [(name, case) for case in runs.values(1)]:
            first, seconds = runs.keys[key][0], runs.median(key)
            rows.append(["%s, %s rows" % (name, "{:,}".format(first["rows"])),
                         key[1].replace("s3export", "deliver()") if key not in others
                         else "pg_recvlogical, " + key[1],
                         "%.2f" % seconds, "{:,.0f}".format(first["rows"] / seconds),
                         "%.1f" % (first["wal"] / 1e6 / seconds),
                         "%.0f" % (first["bytes"] / 1e6) if first["bytes"] else "",
                         "%.2f" % statistics.median(sum(run["cpu"].values())
                                                    for run in runs.keys[key]),
                         *("**%s**" % times(runs.ratio(other, key)) if key not in others else ""
                           for other in others),
                         "**%s**" % times(runs.ratio(fastest, key))
                         if key not in others else ""])
    print("### Currents: changes to files, into nginx over http, beside pg_recvlogical to /dev/null\n")
    table(["WAL of", "reader", "s", "rows/s", "MB of WAL/s", "CSV, MB", "CPU s",
           *("x " + case for case in runs.values(1) if not case.startswith("s3export")),
           "x the faster"], rows)


with open(os.path.join(RESULTS, "machine")) as machine:
    print("## Benchmark\n\n%sMedians of the rounds; in every round all cases of a table ran one "
          "after the other, and a ratio is the median of the ratios within each round.\n"
          % machine.read())
for part in sys.argv[1:]:
    {"formatter": formatter, "export": export, "single": single, "scaling": scaling,
     "currents": currents}[part]()
